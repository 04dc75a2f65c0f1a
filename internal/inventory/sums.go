// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"hash/maphash"
	"net/netip"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// sums remembers which entries of the kernel's tables the last pass has counted in a sum of others. Later there may be
// room for one of them, or its port be listened on: then it is given by itself, and what the sum has got stays there.
type sums struct {
	seed       maphash.Seed
	last, this map[uint64]struct{} // hashes, to stay small: as many as entries in the kernel's tables
}

func newSums() sums {
	return sums{seed: maphash.MakeSeed(), last: map[uint64]struct{}{}, this: map[uint64]struct{}{}}
}

func (s *sums) beginPass() {
	s.last, s.this = s.this, s.last
	clear(s.this)
}

// note takes down where an entry is counted in this pass, and tells whether it was in the sum until now.
func (s *sums) note(entry entryKey, inSum bool) (moved bool) {
	if !inSum && len(s.last) == 0 {
		return false
	}
	hash := maphash.Comparable(s.seed, entry)
	if inSum {
		s.this[hash] = struct{}{}
		return false
	}
	_, moved = s.last[hash]
	return moved
}

// entryKey names an entry of one of the kernel's tables.
type entryKey struct {
	cgroupV2, cgroupV1        uint64
	netns                     uint32
	inbound, listener         bool
	destination, actual, addr netip.AddrPort
}

// edgeOf finds or makes the edge in which a kernel's edge is counted in this pass, nil if it is not to be given.
func (inv *Inventory) edgeOf(c *container, ke *bpf.Edge) *edge {
	e := inv.edgeFor(c, ke)
	if e == nil || !ke.Destination.IsValid() && !ke.Local.IsValid() {
		return e
	}
	sum := c.network.edges[edgeKey{otherKey, otherKey}]
	if ke.Inbound {
		sum = c.network.inbound[otherKey]
	}
	key := entryKey{
		cgroupV2: ke.CgroupV2, cgroupV1: ke.CgroupV1, netns: ke.NetNS, inbound: ke.Inbound,
		destination: ke.Destination, actual: ke.Actual, addr: ke.Local,
	}
	if inv.sums.note(key, e == sum) && sum != nil {
		before := *ke
		before.Active = 0 // what is open goes along
		sum.past.add(&before)
		sum.sum.add(&before)
		e.past.sub(&before)
		e.sum.sub(&before)
	}
	return e
}

// queueOf is edgeOf for queues.
func (inv *Inventory) queueOf(c *container, l *bpf.Listener) *queue {
	q := inv.queueFor(c, l)
	if !l.Addr.IsValid() {
		return q
	}
	sum := c.network.queues[otherKey]
	key := entryKey{cgroupV2: l.CgroupV2, cgroupV1: l.CgroupV1, netns: l.NetNS, listener: true, addr: l.Addr}
	if inv.sums.note(key, q == sum) && sum != nil {
		sum.past += l.Drops
		q.past -= l.Drops
	}
	return q
}

// sub makes up for a later add of the same. Counters wrap around in between.
func (t *totals) sub(e *bpf.Edge) {
	t.connects -= e.Connects
	t.sent -= e.BytesSent
	t.received -= e.BytesReceived
	t.retransmits -= e.Retransmits
	t.resetsSent -= e.ResetsSent
	t.resetsReceived -= e.ResetsReceived
	t.connectTime -= e.ConnectTime
	t.active -= e.Active
	for i, n := range e.Failed {
		t.failed[i] -= n
	}
	for i, n := range e.RTT {
		t.rtt[i] -= n
	}
	t.rttSum -= e.RTTSum
}
