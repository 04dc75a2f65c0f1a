// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// listenKey names an address at which a container can be reached.
type listenKey struct {
	addr  netip.AddrPort
	proxy string
}

type listener struct {
	lifetime
	open bool
}

// queue is the sockets that are bound to one address.
type queue struct {
	lifetime
	past         uint64 // drops of what was taken out of the kernel's table
	drops        uint64 // the kernel's, as of the last pass
	queue, limit uint64
	open         bool
}

// listening is an entry of the kernel's table of listeners with what is known of it.
type listening struct {
	*bpf.Listener
	container *container // nil for nobody's
	places    []place
	addrs     []netip.Addr // at which it can be reached, link-local ones left out
	proxy     *dockerProxy // if it is one
	queue     *queue       // in which it is counted, nil for none
}

// passListeners brings the listeners of all containers up to date. edgesMu is held.
func (inv *Inventory) passListeners(now time.Time, clock time.Duration) {
	inv.mu.Lock()
	all := slices.Grow(inv.heard[:0], len(inv.listening))[:len(inv.listening)]
	inv.heard = all
	for i := range inv.listening {
		l := &inv.listening[i]
		all[i] = listening{Listener: l, container: inv.resolve(l.CgroupV2, l.CgroupV1).container()}
		if c := all[i].container; c != nil && c.goneAt.IsZero() {
			all[i].places = placesOf(c)
		}
	}
	for _, c := range inv.containers {
		c.network.beginListening()
	}
	inv.mu.Unlock()

	inv.proxies.beginPass()
	for i := range all {
		l := &all[i]
		if l.container == nil || l.container.ref.Kind == cgroups.Systemd { // what runs in a container is nobody's proxy
			l.proxy = inv.proxies.find(l.TGID, l.Addr)
		}
		if l.container != nil || l.proxy != nil {
			l.addrs = inv.reachableAt(l, now)
		}
	}
	inv.proxies.endPass()
	for i := range all {
		l := &all[i]
		c, proxy := l.container, ""
		if l.proxy != nil { // the port is that of the container behind it, or nobody's
			c, proxy = servedBy(all, l.proxy.to), dockerProxyName
		}
		if c != nil {
			inv.giveListener(c, l, proxy, lastSign(l.Open > 0, l.Touched, now, clock))
		}
	}
	inv.namespaces.forgetUnasked(now)
}

func (n *network) beginListening() {
	for _, l := range n.listeners {
		l.open = false
	}
	for _, q := range n.queues {
		q.open, q.drops, q.queue, q.limit = false, 0, 0, 0
	}
}

// giveListener adds one entry of the kernel's table to the listeners of a container.
func (inv *Inventory) giveListener(c *container, l *listening, proxy string, sign time.Time) {
	n, limit := &c.network, inv.opts.Network.MaxListeners
	if l.Addr.IsValid() && inv.ephemeral.has(l.Addr.Port()) {
		return
	}
	for _, addr := range l.addrs {
		key := listenKey{netip.AddrPortFrom(addr, l.Addr.Port()), proxy}
		found := findOrMake(n, &n.listeners, key, listenKey{addr: otherKey}, limit, newListener)
		found.open = found.open || l.Open > 0
		found.touch(sign)
	}
	if !l.Addr.IsValid() {
		found := findOrMake(n, &n.listeners, listenKey{addr: otherKey}, listenKey{}, 0, newListener)
		found.open = found.open || l.Open > 0
		found.touch(sign)
	}
	if proxy != "" || l.Addr.IsValid() && len(l.addrs) == 0 && !l.Addr.Addr().IsUnspecified() {
		return
	}
	q := inv.queueOf(c, l.Listener)
	l.queue = q
	q.open = q.open || l.Open > 0
	q.drops += l.Drops
	q.queue += l.Queue
	q.limit += l.QueueLimit
	q.touch(sign)
}

func (inv *Inventory) queueFor(c *container, l *bpf.Listener) *queue {
	key := otherKey
	if l.Addr.IsValid() {
		key = l.Addr
	}
	return findOrMake(&c.network, &c.network.queues, key, otherKey, inv.opts.Network.MaxListeners, newQueue)
}

func newListener(start time.Time) *listener { return &listener{lifetime: lifetime{start: start}} }
func newQueue(start time.Time) *queue       { return &queue{lifetime: lifetime{start: start}} }

// reachableAt lists the addresses of a listener: those of its namespace if it is bound to none of them. Loopback counts
// in the host's namespace only, link-local nowhere.
func (inv *Inventory) reachableAt(l *listening, now time.Time) []netip.Addr {
	if !l.Addr.IsValid() {
		return nil
	}
	all := []netip.Addr{l.Addr.Addr()}
	if all[0].IsUnspecified() {
		if l.Open <= 0 {
			return nil // its namespace may be gone; what was given before is given as closed
		}
		all = inv.namespaces.addresses(l.NetNS, now, func() []int {
			return append([]int{l.TGID}, inv.pidsOf(l.places)...)
		})
	}
	var reachable []netip.Addr
	for _, a := range all {
		switch {
		case a.IsLinkLocalUnicast(), a.IsLoopback() && l.NetNS != inv.hostNetNS:
		case l.Addr.Addr().Is4() && !a.Is4(), l.V6Only && a.Is4():
		default:
			reachable = append(reachable, a)
		}
	}
	return reachable
}

// servedBy finds the container that listens on an address.
func servedBy(all []listening, to netip.AddrPort) *container {
	for i := range all {
		l := &all[i]
		if l.container != nil && l.proxy == nil && l.Addr.IsValid() && l.Addr.Port() == to.Port() && slices.Contains(l.addrs, to.Addr()) {
			return l.container
		}
	}
	return nil
}
