// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// edge is the traffic of a container with one destination. The kernel's table has what is new, past what was taken out of
// it: the edges of cgroups that the container no longer has.
type edge struct {
	label string
	past  totals
	sum   totals // past and the kernel's, as of the last pass
}

type totals struct {
	connects, failed, sent, received, retransmits uint64
	connectTime                                   time.Duration
	active                                        int64
}

func (t *totals) add(e *bpf.Edge) {
	t.connects += e.Connects
	t.failed += e.Failed
	t.sent += e.BytesSent
	t.received += e.BytesReceived
	t.retransmits += e.Retransmits
	t.connectTime += e.ConnectTime
	t.active += e.Active
}

// Keys of edges that stand for many destinations; no connection has them.
var (
	otherKey  = netip.AddrPort{}
	publicKey = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
)

// passEdges sums up the kernel's table for all containers. It shows visit, if there is one, each entry with the directory
// that it resolves to and the edge that it is counted in, nil where there is none. After an error the sums are those of
// the pass before. edgesMu is held; mu is not while the kernel is read, so that events are not held up.
func (inv *Inventory) passEdges(visit func(*bpf.Edge, *dir, *edge)) error {
	inv.table = inv.table[:0]
	err := inv.kernel.EachEdge(func(ke *bpf.Edge) { inv.table = append(inv.table, *ke) })

	inv.mu.Lock()
	defer inv.mu.Unlock()
	if err != nil {
		inv.status.ReadErrors++
		return err
	}
	for _, c := range inv.containers {
		for _, e := range c.edges {
			e.sum = e.past
		}
	}
	inv.foreign = false
	for i := range inv.table {
		ke := &inv.table[i]
		var e *edge
		d := inv.resolve(ke)
		if c := d.container(); c != nil {
			e = inv.edgeFor(c, ke)
		}
		if e != nil {
			e.sum.add(ke)
		} else {
			inv.foreign = true
		}
		if visit != nil {
			visit(ke, d, e)
		}
	}
	return nil
}

// resolve finds the directory that says whose an edge is. On hybrid hosts the two hierarchies may disagree: some runtimes
// make the container's cgroup in the v1 hierarchies only and leave its tasks in the v2 cgroup of their own service. It is
// nil while one of them is unknown that may yet turn out to be the container. mu is held.
func (inv *Inventory) resolve(e *bpf.Edge) *dir {
	v2 := inv.dirs[cgroups.ID{Hierarchy: cgroups.Unified, Inode: e.CgroupV2}]
	if e.CgroupV1 == 0 {
		return v2
	}
	v1 := inv.dirs[cgroups.ID{Hierarchy: cgroups.Legacy, Inode: e.CgroupV1}]
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
	key, ok := inv.keyOf(ke)
	if !ok {
		return nil
	}
	if e := c.edges[key]; e != nil {
		return e
	}
	// The two keys that stand for many have room beside the limit.
	if limit := inv.opts.Network.MaxDestinations; limit > 0 && key != otherKey && key != publicKey && len(c.edges) >= limit {
		key = otherKey
		if e := c.edges[key]; e != nil {
			return e
		}
	}
	e := &edge{label: labelOf(key)}
	if c.edges == nil {
		c.edges = map[netip.AddrPort]*edge{}
	}
	c.edges[key] = e
	return e
}

// keyOf tells under which destination an edge is given.
func (inv *Inventory) keyOf(e *bpf.Edge) (netip.AddrPort, bool) {
	if !e.Destination.IsValid() {
		return otherKey, true
	}
	addr := e.Destination.Addr()
	switch {
	case addr.IsLinkLocalUnicast():
		return otherKey, false
	case addr.IsLoopback():
		// Inside a container's own namespace it is talk within the container.
		return e.Destination, e.NetNS == inv.hostNetNS
	case isPublic(addr) && !containsAddr(inv.opts.Network.TrackPublic, addr):
		return publicKey, true
	}
	return e.Destination, true
}

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

func labelOf(key netip.AddrPort) string {
	switch key {
	case otherKey:
		return OtherDestination
	case publicKey:
		return PublicDestination
	}
	return key.String()
}

// edgesOf lists the edges of a container as the last pass left them.
func edgesOf(c *container) []Edge {
	if len(c.edges) == 0 {
		return nil
	}
	list := make([]Edge, 0, len(c.edges))
	for _, e := range c.edges {
		list = append(list, Edge{
			Destination:    e.label,
			Actual:         e.label,
			Connects:       e.sum.connects,
			FailedConnects: e.sum.failed,
			ConnectTime:    e.sum.connectTime,
			Active:         uint64(max(0, e.sum.active)),
			BytesSent:      e.sum.sent,
			BytesReceived:  e.sum.received,
			Retransmits:    e.sum.retransmits,
		})
	}
	slices.SortFunc(list, func(a, b Edge) int { return cmp.Compare(a.Destination, b.Destination) })
	return list
}
