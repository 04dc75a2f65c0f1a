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

// giveNetwork fills in the traffic of c as the last pass left it. edgesMu is held.
func (inv *Inventory) giveNetwork(to *Container, c *container, now time.Time) {
	n := &c.network
	to.Edges, to.Destinations = n.giveEdges(inv.zones, now, inv.opts.Keep)
	to.Zones = n.giveZones()
	to.Inbound = n.giveInbound()
	to.Listeners, to.Queues = n.giveListeners(to.Phase)
	to.Latencies = n.giveLatencies(to.Phase, now)
	to.ResetsSent, to.ResetsReceived = n.giveResets()
}

func (n *network) giveEdges(z *zones, now time.Time, keep time.Duration) ([]Edge, []Destination) {
	if len(n.edges) == 0 {
		return nil, nil
	}
	known := z.any()
	list := make([]Edge, 0, len(n.edges))
	destinations := make([]Destination, 0, len(n.edges))
	for key, e := range n.edges {
		label := labelOf(key.destination)
		actual := label
		if key.actual != key.destination {
			actual = labelOf(key.actual)
		}
		var zone string
		if known && !isSummedUp(key.actual) {
			zone = z.of(key.actual.Addr())
		}
		e.moveTo(zone, now, keep)
		list = append(list, Edge{
			Destination:   label,
			Actual:        actual,
			Zone:          e.zone.V,
			FormerZone:    e.formerZone,
			Lifetime:      e.give(),
			Connects:      e.sum.connects,
			ConnectTime:   e.sum.connectTime,
			Active:        uint64(max(0, e.sum.active)),
			BytesSent:     e.sum.sent,
			BytesReceived: e.sum.received,
			Retransmits:   e.sum.retransmits,
			RTT:           RTT{Counts: e.sum.rtt, Sum: e.sum.rttSum},
		})
		destinations = append(destinations, Destination{Destination: label, Lifetime: e.give(), Failed: e.failures()})
	}
	slices.SortFunc(list, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Actual, b.Actual))
	})
	slices.SortFunc(destinations, func(a, b Destination) int { return cmp.Compare(a.Destination, b.Destination) })
	return list, mergeDestinations(destinations)
}

// moveTo takes in the zone of the peer. The former one is given for a while, and the next one waits until that is over.
func (e *edge) moveTo(zone string, now time.Time, keep time.Duration) {
	if now.Sub(e.moved) <= keep {
		return
	}
	e.formerZone = Opt[string]{}
	if e.zone.OK && e.zone.V != zone {
		e.formerZone, e.moved = e.zone, now
	}
	e.zone = cgroups.Some(zone)
}

// mergeDestinations makes one of neighbours that are equal: a destination with several actual ones.
func mergeDestinations(list []Destination) []Destination {
	merged := list[:0]
	for _, d := range list {
		if len(merged) == 0 || merged[len(merged)-1].Destination != d.Destination {
			merged = append(merged, d)
			continue
		}
		m := &merged[len(merged)-1]
		m.Ended = m.Ended && d.Ended
		if d.Start.Before(m.Start) {
			m.Start = d.Start
		}
		for i, n := range d.Failed {
			m.Failed[i] += n
		}
	}
	return merged
}

// failures puts the kernel's reasons into ours. What it has told of an edge stays so.
func (e *edge) failures() (by [NumConnectErrors]uint64) {
	f := &e.sum.failed
	by[ConnectRefused] = f[bpf.FailedRefused]
	by[ConnectTimeout] = f[bpf.FailedTimeout]
	by[ConnectReset] = f[bpf.FailedReset]
	by[ConnectHostUnreachable] = f[bpf.FailedHostUnreachable]
	by[ConnectNetworkUnreachable] = f[bpf.FailedNetworkUnreachable]
	by[ConnectAborted] = f[bpf.FailedAborted]
	by[ConnectOther] = f[bpf.FailedOther]
	if n := f[bpf.FailedUnrouted]; n > 0 {
		if e.unrouted == nil { // counted just before Take: no pass has asked why
			why := ConnectNetworkUnreachable
			e.unrouted = &why
		}
		by[*e.unrouted] += n
	}
	return by
}

func (n *network) giveInbound() []Inbound {
	var list []Inbound
	for key, e := range n.inbound {
		list = append(list, Inbound{
			ListenAddr:    labelOf(key),
			Lifetime:      e.give(),
			Accepted:      e.sum.connects,
			Active:        uint64(max(0, e.sum.active)),
			BytesSent:     e.sum.sent,
			BytesReceived: e.sum.received,
		})
	}
	slices.SortFunc(list, func(a, b Inbound) int { return cmp.Compare(a.ListenAddr, b.ListenAddr) })
	return list
}

func (n *network) giveListeners(phase Phase) ([]Listener, []ListenQueue) {
	var listeners []Listener
	for key, l := range n.listeners {
		listeners = append(listeners, Listener{
			ListenAddr: labelOf(key.addr), Proxy: key.proxy, Lifetime: l.give(), Open: l.open && phase == Live,
		})
	}
	var queues []ListenQueue
	for key, q := range n.queues {
		queues = append(queues, ListenQueue{
			ListenAddr: labelOf(key), Lifetime: q.give(), Open: q.open && phase == Live,
			Overflows: q.past + q.drops, Queue: q.queue, Limit: q.limit,
		})
	}
	slices.SortFunc(listeners, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.ListenAddr, b.ListenAddr), cmp.Compare(a.Proxy, b.Proxy))
	})
	slices.SortFunc(queues, func(a, b ListenQueue) int { return cmp.Compare(a.ListenAddr, b.ListenAddr) })
	return listeners, queues
}

func (n *network) giveLatencies(phase Phase, now time.Time) []Latency {
	var list []Latency
	for addr, l := range n.latencies {
		if l.rtt > 0 {
			ended := phase != Live || !l.isFresh(now)
			list = append(list, Latency{DestinationIP: addr.String(), RTT: l.rtt, Lifetime: Lifetime{Ended: ended}})
		}
	}
	slices.SortFunc(list, func(a, b Latency) int { return cmp.Compare(a.DestinationIP, b.DestinationIP) })
	return list
}

func (n *network) giveResets() (sent, received Opt[uint64]) {
	s, r, connected := n.resetsSent, n.resetsReceived, n.connected
	for _, e := range n.edges {
		s, r, connected = s+e.sum.resetsSent, r+e.sum.resetsReceived, connected || e.sum.connects > 0
	}
	for _, e := range n.inbound {
		s, r, connected = s+e.sum.resetsSent, r+e.sum.resetsReceived, connected || e.sum.connects > 0
	}
	if !connected {
		return Opt[uint64]{}, Opt[uint64]{}
	}
	return cgroups.Some(s), cgroups.Some(r)
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
