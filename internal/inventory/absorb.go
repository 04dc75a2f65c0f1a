// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"slices"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// absorb makes c, which has got the name of a container that is gone, the going on of that one: to has all totals of both
// after it, and c is nobody. edgesMu, tasksMu and mu are held.
func (inv *Inventory) absorb(to, c *container, now time.Time) {
	last := to.current.lastStats()
	addPast(&last, &to.past)
	addPast(&last, &c.past)
	to.past = last
	inv.over = append(inv.over, to.current)
	to.disks.looked, to.disks.mounts, to.disks.usages = c.disks.looked, c.disks.mounts, c.disks.usages
	to.setTypes(c.types, now)
	to.network.absorb(&c.network, inv.opts.Network)
	inv.handOver(c, to, now)

	c.current.container = to
	to.current, to.ref, to.goneAt = c.current, c.ref, c.goneAt
	for _, ref := range c.refs {
		inv.asked[ref] = to
	}
	for _, ref := range to.refs {
		if !slices.Contains(c.refs, ref) {
			delete(inv.asked, ref)
			inv.directory.Forget(ref)
		}
	}
	to.refs, c.refs = c.refs, nil
}

// absorbGone gives to, which goes on, the totals of c, which ended before to did or will, and whose name is told only now.
// c is nobody after it. edgesMu, tasksMu and mu are held.
func (inv *Inventory) absorbGone(to, c *container, now time.Time) {
	last := c.current.lastStats()
	addPast(&last, &c.past)
	addPast(&to.past, &last)
	inv.over = append(inv.over, c.current)
	c.network, to.network = to.network, c.network // the later ones join the earlier ones
	to.network.absorb(&c.network, inv.opts.Network)
	inv.handOver(c, to, now)
	c.current.container = to
	inv.forget(c)
}

// handOver makes to's what c has by either way. edgesMu, tasksMu and mu are held.
func (inv *Inventory) handOver(c, to *container, now time.Time) {
	if c.given {
		to.addFormer(formerName{c.name, c.info, now})
	}
	to.former = append(to.former, c.former...)
	to.tasks.add(&c.tasks)
	inv.handOverLogs(c, to)
	to.addIO(c.io)
	to.endedTypes = append(to.endedTypes, c.endedTypes...)
	for _, d := range inv.dirs {
		d.handOver(c, to)
	}
	for _, u := range inv.usages {
		u.dir.handOver(c, to)
	}
	for _, u := range inv.diskUses {
		u.dir.handOver(c, to)
	}
	for p, other := range inv.places {
		if other == c {
			inv.places[p] = to
		}
	}
	if inv.containers[c.key] == c {
		delete(inv.containers, c.key)
	}
	c.dropped = true
}

// handOver makes what is from's to's.
func (d *dir) handOver(from, to *container) {
	if d != nil && d.life != nil && d.life.container == from {
		d.life.container = to
	}
}

func (c *container) addIO(more map[diskNumber]*cgroups.Device) {
	if c.io == nil {
		c.io = more
		return
	}
	for number, io := range more {
		to := c.io[number]
		if to == nil {
			c.io[number] = io
			continue
		}
		to.Reads, to.Writes = to.Reads+io.Reads, to.Writes+io.Writes
		to.ReadBytes, to.WriteBytes = to.ReadBytes+io.ReadBytes, to.WriteBytes+io.WriteBytes
	}
}

func (t *taskTotals) add(o *taskTotals) {
	for i, d := range o.delays {
		t.delays[i] += d
	}
	for i, n := range o.exits {
		t.exits[i] += n
	}
	t.oomKills += o.oomKills
	t.starts += o.starts
	t.cpu += o.cpu
}

// absorb adds the traffic of a container that is the same. What has no room of its own goes to the sums. edgesMu is held.
func (n *network) absorb(o *network, limits NetworkOptions) {
	absorbEdges(&n.edges, o.edges, edgeKey{otherKey, otherKey}, limits.MaxDestinations)
	absorbEdges(&n.inbound, o.inbound, otherKey, limits.MaxListeners)
	absorbMissing(&n.listeners, o.listeners, limits.MaxListeners)
	for key, q := range o.queues {
		if have := n.queues[key]; have != nil {
			q.past, q.drops = q.past+have.past, q.drops+have.drops
			q.start = have.start
			n.queues[key] = q // the later one is open
			delete(o.queues, key)
		}
	}
	absorbMissing(&n.queues, o.queues, 0)
	absorbMissing(&n.latencies, o.latencies, 0)
	n.absorbZones(o)
	n.resetsSent += o.resetsSent
	n.resetsReceived += o.resetsReceived
	n.connected = n.connected || o.connected
	if o.endedAt.After(n.endedAt) {
		n.endedAt = o.endedAt
	}
}

func absorbEdges[K comparable](to *map[K]*edge, from map[K]*edge, other K, limit int) {
	if *to == nil {
		*to = map[K]*edge{}
	}
	for key, e := range from {
		if limit > 0 && len(*to) >= limit && (*to)[key] == nil {
			key = other
		}
		have := (*to)[key]
		if have == nil {
			(*to)[key] = e
			continue
		}
		have.past.addTotals(&e.past)
		have.sum.addTotals(&e.sum)
		have.zoned.Sent, have.zoned.Received = have.zoned.Sent+e.zoned.Sent, have.zoned.Received+e.zoned.Received
		have.touch(e.touched)
		if have.unrouted == nil {
			have.unrouted = e.unrouted
		}
	}
}

func absorbMissing[K comparable, V any](to *map[K]*V, from map[K]*V, limit int) {
	if *to == nil {
		*to = map[K]*V{}
	}
	for key, v := range from {
		if (*to)[key] == nil && (limit == 0 || len(*to) < limit) {
			(*to)[key] = v
		}
	}
}

func (t *totals) addTotals(o *totals) {
	t.connects += o.connects
	t.sent += o.sent
	t.received += o.received
	t.retransmits += o.retransmits
	t.resetsSent += o.resetsSent
	t.resetsReceived += o.resetsReceived
	t.connectTime += o.connectTime
	t.active += o.active
	for i, v := range o.failed {
		t.failed[i] += v
	}
	for i, v := range o.rtt {
		t.rtt[i] += v
	}
	t.rttSum += o.rttSum
}
