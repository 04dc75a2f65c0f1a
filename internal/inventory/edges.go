// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// network is the TCP traffic of a container. The kernel's tables have what is new, past what was taken out of them: what
// is idle, and the edges of cgroups that the container no longer has. Guarded by Inventory.edgesMu.
type network struct {
	edges     map[edgeKey]*edge
	inbound   map[netip.AddrPort]*edge
	listeners map[listenKey]*listener
	queues    map[netip.AddrPort]*queue
	latencies map[netip.Addr]*latency
	zones     map[string]*ZoneTraffic

	// Totals of edges that have ended live on in those that are not given by address.
	resetsSent, resetsReceived uint64
	connected                  bool
	endedAt                    time.Time // when one was forgotten last: what is new has been zero since then only
}

// edgeKey names an edge of a container. Addresses that are summed up are otherKey or publicKey.
type edgeKey struct {
	destination, actual netip.AddrPort
}

// lifetime of what is given as series of its own.
type lifetime struct {
	start   time.Time // zero for that of the container
	touched time.Time // of the last sign of life
	ended   time.Time // zero for not yet
}

func (l *lifetime) touch(at time.Time) {
	if at.After(l.touched) {
		l.touched = at
	}
	if at.After(l.ended) {
		l.ended = time.Time{}
	}
}

// age ends what was idle for too long, and tells whether it is to be forgotten, after it was given as ended for a while.
func (l *lifetime) age(now time.Time, idle, keep time.Duration) (forget bool) {
	switch {
	case idle <= 0 || now.Sub(l.touched) <= idle:
		l.ended = time.Time{}
	case l.ended.IsZero():
		l.ended = now
	default:
		return now.Sub(l.ended) > keep
	}
	return false
}

func (l *lifetime) give() Lifetime { return Lifetime{Start: l.start, Ended: !l.ended.IsZero()} }

// edge is the traffic of a container with one destination, or over one of its own addresses.
type edge struct {
	lifetime
	past     totals
	sum      totals      // past and the kernel's, as of the last pass
	zoned    ZoneTraffic // what of sum is in network.zones, or of no zone
	unrouted *ConnectError

	zone, formerZone Opt[string] // as they were given
	moved            time.Time   // from one to the other
}

type totals struct {
	connects, sent, received, retransmits uint64
	resetsSent, resetsReceived            uint64
	connectTime                           time.Duration
	active                                int64
	failed                                [bpf.NumFailures]uint64
	rtt                                   [bpf.NumRTTBuckets]uint64
	rttSum                                time.Duration
}

func (t *totals) add(e *bpf.Edge) {
	t.connects += e.Connects
	t.sent += e.BytesSent
	t.received += e.BytesReceived
	t.retransmits += e.Retransmits
	t.resetsSent += e.ResetsSent
	t.resetsReceived += e.ResetsReceived
	t.connectTime += e.ConnectTime
	t.active += e.Active
	for i, n := range e.Failed {
		t.failed[i] += n
	}
	for i, n := range e.RTT {
		t.rtt[i] += n
	}
	t.rttSum += e.RTTSum
}

// Keys of edges that stand for many destinations; no connection has them.
var (
	otherKey  = netip.AddrPort{}
	publicKey = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
)

// pass brings the traffic of all containers up to date with the kernel's tables. sample makes it one that brings the totals
// of open connections up to date as well, and samples their round-trip times. It shows visit, if there is one, each entry
// of the table of edges with the directory that it resolves to and the edge that it is counted in, nil where there is none.
// After an error all is as the pass before left it. edgesMu is held; mu is not while the kernel or files are read, so that
// events are not held up.
func (inv *Inventory) pass(ctx context.Context, sample bool, visit func(*bpf.Edge, *dir, *edge)) error {
	err := inv.readKernel(sample)
	now, clock := inv.now(), bpf.Now()

	inv.mu.Lock()
	if err != nil {
		inv.status.ReadErrors++
		inv.mu.Unlock()
		if text := err.Error(); text != inv.readError {
			inv.readError = text
			inv.log.Warn("connections and listeners are as they were before", zap.Error(err))
		}
		return err
	}
	inv.sums.beginPass()
	for _, c := range inv.containers {
		c.network.beginPass()
	}
	for i := range inv.table {
		ke := &inv.table[i]
		var e *edge
		d := inv.resolve(ke.CgroupV2, ke.CgroupV1)
		if c := d.container(); c != nil {
			e = inv.edgeOf(c, ke)
		}
		if e != nil {
			e.sum.add(ke)
			e.touch(lastSign(ke.Active > 0, ke.Touched, now, clock))
		}
		if visit != nil {
			visit(ke, d, e)
		}
	}
	if sample {
		inv.passLatencies(now)
	}
	if inv.zones.any() {
		for _, c := range inv.containers {
			c.network.sumZones(inv.zones)
		}
	}
	unrouted := inv.unroutedEdges()
	inv.mu.Unlock()

	inv.askRoutes(ctx, unrouted)
	inv.passListeners(now, clock)
	return nil
}

// readKernel fills the copies of the kernel's tables.
func (inv *Inventory) readKernel(sample bool) error {
	inv.table, inv.listening, inv.rtts = inv.table[:0], inv.listening[:0], inv.rtts[:0]
	p := bpf.Pass{
		Quick:    !sample,
		Edge:     func(e *bpf.Edge) { inv.table = append(inv.table, *e) },
		Listener: func(l *bpf.Listener) { inv.listening = append(inv.listening, *l) },
	}
	if sample {
		p.LiveRTT = func(r *bpf.LiveRTT) { inv.rtts = append(inv.rtts, *r) }
	}
	if err := inv.kernel.Read(p); err != nil {
		return err
	}
	return inv.kernel.Listened(&inv.listened)
}

// lastSign gives the time of a sign of life on our own clock. The kernel knows it to one pass: it came after touched, and
// nothing is known of before the first one.
func lastSign(active bool, touched time.Duration, now time.Time, clock time.Duration) time.Time {
	if active || touched == 0 {
		return now
	}
	return now.Add(touched - clock)
}

func (n *network) beginPass() {
	for _, e := range n.edges {
		e.sum = e.past
	}
	for _, e := range n.inbound {
		e.sum = e.past
	}
}

// resolve finds the directory that says whose an edge is. On hybrid hosts the two hierarchies may disagree: some runtimes
// make the container's cgroup in the v1 hierarchies only and leave its tasks in the v2 cgroup of their own service. It is
// nil while one of them is unknown that may yet turn out to be the container. mu is held.
func (inv *Inventory) resolve(cgroupV2, cgroupV1 uint64) *dir {
	v2 := inv.dirs[cgroups.ID{Hierarchy: cgroups.Unified, Inode: cgroupV2}]
	if cgroupV1 == 0 {
		return v2
	}
	v1 := inv.dirs[cgroups.ID{Hierarchy: cgroups.Legacy, Inode: cgroupV1}]
	switch {
	case inv.legacyOnly:
		return v1 // the kernel's v2 hierarchy is not mounted
	case v1 == nil:
		return ifContainer(v2)
	case v2 == nil:
		return ifContainer(v1)
	case v1.life != nil && v1.life.container.dropped:
		return v1 // its last connections are not its neighbour's
	case v1.container() == nil:
		return v2
	case ifContainer(v2) == nil:
		return v1
	}
	return v2
}

// ifContainer returns d if it is that of a container in the narrow sense, which no other hierarchy can belie.
func ifContainer(d *dir) *dir {
	if c := d.container(); c != nil && c.ref.Kind != cgroups.Systemd {
		return d
	}
	return nil
}

// edgeFor finds or makes the edge of a container under which a kernel's edge is given, nil if it is not to be given.
func (inv *Inventory) edgeFor(c *container, ke *bpf.Edge) *edge {
	n := &c.network
	if ke.Inbound {
		key, ok := inv.localKey(ke.Local, ke.NetNS)
		if !ok {
			return nil
		}
		return findOrMake(n, &n.inbound, key, otherKey, inv.opts.Network.MaxListeners, newEdge)
	}
	key, ok := inv.keyOf(ke)
	if !ok {
		return nil
	}
	limit := inv.opts.Network.MaxDestinations
	if isSummedUp(key.destination) {
		limit = 0 // these have room beside the limit
	}
	return findOrMake(n, &n.edges, key, edgeKey{otherKey, otherKey}, limit, newEdge)
}

func newEdge(start time.Time) *edge { return &edge{lifetime: lifetime{start: start}} }

// findOrMake finds what m has under key, or makes it: past the limit under the key other.
func findOrMake[K comparable, V any](n *network, m *map[K]*V, key, other K, limit int, newOne func(time.Time) *V) *V {
	if v := (*m)[key]; v != nil {
		return v
	}
	if limit > 0 && len(*m) >= limit {
		key = other
		if v := (*m)[key]; v != nil {
			return v
		}
	}
	if *m == nil {
		*m = map[K]*V{}
	}
	v := newOne(n.endedAt)
	(*m)[key] = v
	return v
}

func isSummedUp(a netip.AddrPort) bool { return a == otherKey || a == publicKey }

// keyOf tells under which destination an outbound edge is given.
func (inv *Inventory) keyOf(e *bpf.Edge) (edgeKey, bool) {
	dst, actual := e.Destination, e.Actual
	if !dst.IsValid() {
		return edgeKey{otherKey, otherKey}, true
	}
	switch addr := dst.Addr(); {
	case addr.IsLinkLocalUnicast():
		return edgeKey{}, false
	case addr.IsLoopback() && e.NetNS != inv.hostNetNS && (actual == dst || actual.Addr().IsLoopback()):
		return edgeKey{}, false // talk within the container
	}
	dst = inv.summedUp(dst)
	switch {
	case isSummedUp(dst), actual == e.Destination, !actual.IsValid():
		return edgeKey{dst, dst}, true
	case actual.Addr().IsLoopback() && e.NetNS != inv.hostNetNS:
		return edgeKey{dst, dst}, true // a proxy beside the process, as service meshes have: nobody's peer
	case isPublic(actual.Addr()) && !containsAddr(inv.opts.Network.TrackPublic, actual.Addr()):
		actual = publicKey
	}
	return edgeKey{dst, actual}, true
}

// summedUp gives the key under which a destination is summed up with others, or the destination itself.
func (inv *Inventory) summedUp(dst netip.AddrPort) netip.AddrPort {
	switch {
	case isPublic(dst.Addr()) && !containsAddr(inv.opts.Network.TrackPublic, dst.Addr()):
		return publicKey
	case inv.ephemeral.has(dst.Port()) && !inv.listened.Has(dst.Port()):
		return otherKey
	}
	return dst
}

// localKey tells under which of its own addresses the traffic that others began with a container is given.
func (inv *Inventory) localKey(local netip.AddrPort, netns uint32) (netip.AddrPort, bool) {
	switch addr := local.Addr(); {
	case !local.IsValid():
		return otherKey, true
	case addr.IsLinkLocalUnicast(), addr.IsLoopback() && netns != inv.hostNetNS:
		return otherKey, false
	case inv.ephemeral.has(local.Port()):
		return otherKey, true
	}
	return local, true
}

func (r PortRange) has(port uint16) bool { return r.First <= port && port <= r.Last && r.Last != 0 }

// carrierNAT is shared address space, RFC 6598: not public.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

func isPublic(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !carrierNAT.Contains(a)
}

func containsAddr(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// expire ends what was idle for too long, and forgets what was given as ended.
func (n *network) expire(now time.Time, idle, keep time.Duration) {
	n.touchOpen(now)
	n.touchFailed()
	forgotten := false
	for key, e := range n.edges {
		if e.age(now, idle, keep) {
			n.forgetEdge(e)
			delete(n.edges, key)
			forgotten = true
		}
	}
	for key, e := range n.inbound {
		if e.age(now, idle, keep) {
			n.forgetEdge(e)
			delete(n.inbound, key)
			forgotten = true
		}
	}
	for key, l := range n.listeners {
		if l.age(now, idle, keep) {
			delete(n.listeners, key)
			forgotten = true
		}
	}
	for key, q := range n.queues {
		if q.age(now, idle, keep) {
			delete(n.queues, key)
			forgotten = true
		}
	}
	if forgotten {
		n.endedAt = now
	}
}

// touchOpen is for edges whose open connections the kernel's table does not have: they were begun just before Take.
func (n *network) touchOpen(now time.Time) {
	for _, e := range n.edges {
		if max(e.past.active, e.sum.active) > 0 {
			e.touch(now)
		}
	}
	for _, e := range n.inbound {
		if max(e.past.active, e.sum.active) > 0 {
			e.touch(now)
		}
	}
}

// touchFailed keeps the edges that have the failures of a destination for as long as others to it: the sum of failures
// over all of them must not go back.
func (n *network) touchFailed() {
	latest := map[netip.AddrPort]time.Time{}
	for key, e := range n.edges {
		if key.actual != key.destination && e.touched.After(latest[key.destination]) {
			latest[key.destination] = e.touched
		}
	}
	for key, e := range n.edges {
		if at, ok := latest[key.destination]; ok && key.actual == key.destination {
			e.touch(at)
		}
	}
}

func (n *network) forgetEdge(e *edge) {
	n.resetsSent += e.sum.resetsSent
	n.resetsReceived += e.sum.resetsReceived
	n.connected = n.connected || e.sum.connects > 0
}
