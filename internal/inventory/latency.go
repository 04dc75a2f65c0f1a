// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/netns"
)

const (
	// echoEvery is how often destinations without an open connection are sent an echo request.
	echoEvery = 15 * time.Second
	// echoTimeout is how long an answer is waited for.
	echoTimeout = 300 * time.Millisecond
	// echoesPerContainer and echoesPerRound bound what is sent in a round; what did not fit is first in the next.
	echoesPerContainer = 64
	echoesPerRound     = 1024
	// echoKept is how long an answer is remembered.
	echoKept = 20 * echoEvery
	// routesPerPass bounds the questions to the routing tables in one pass.
	routesPerPass = 64
)

// echo is the answer of a destination.
type echo struct {
	rtt time.Duration // 0 for no answer
	at  time.Time     // when it was asked
}

// passLatencies makes the medians of the round-trip times that the kernel has just given. mu and edgesMu are held.
func (inv *Inventory) passLatencies() {
	type to struct {
		c    *container
		addr netip.Addr
	}
	times := map[to][]time.Duration{}
	for _, c := range inv.containers {
		clear(c.network.latency)
	}
	for i := range inv.rtts {
		r := &inv.rtts[i]
		c := inv.resolve(r.CgroupV2, r.CgroupV1).container()
		if c == nil || !inv.isMeasured(r.Addr, r.NetNS) {
			continue
		}
		key := to{c, r.Addr}
		times[key] = append(times[key], r.RTT)
	}
	limit := inv.opts.Network.MaxDestinations
	for key, list := range times {
		n := &key.c.network
		if limit > 0 && len(n.latency) >= limit {
			continue
		}
		if n.latency == nil {
			n.latency = map[netip.Addr]time.Duration{}
		}
		n.latency[key.addr] = median(list)
	}
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	mid := len(list) / 2
	if len(list)%2 == 1 {
		return list[mid]
	}
	return (list[mid-1] + list[mid]) / 2
}

// isMeasured tells whether the latency to an address is given: by the rules for destinations.
func (inv *Inventory) isMeasured(a netip.Addr, netns uint32) bool {
	switch {
	case a.IsLinkLocalUnicast(), a.IsUnspecified(), a.IsMulticast():
		return false
	case a.IsLoopback():
		return netns == inv.hostNetNS
	}
	return !isPublic(a) || containsAddr(inv.opts.Network.TrackPublic, a)
}

// unroutedEdge is an edge with connects that routing has refused, for a reason that is not known yet.
type unroutedEdge struct {
	edge   *edge
	dst    netip.Addr
	netns  uint32
	places []place
}

// unroutedEdges lists them. mu and edgesMu are held.
func (inv *Inventory) unroutedEdges() []unroutedEdge {
	var list []unroutedEdge
	for i := range inv.table {
		ke := &inv.table[i]
		if ke.Failed[bpf.FailedUnrouted] == 0 || !ke.Destination.IsValid() {
			continue
		}
		c := inv.resolve(ke.CgroupV2, ke.CgroupV1).container()
		if c == nil {
			continue
		}
		e := inv.edgeFor(c, ke)
		if e == nil || e.unrouted != nil {
			continue
		}
		u := unroutedEdge{edge: e, dst: ke.Destination.Addr(), netns: ke.NetNS}
		if c.goneAt.IsZero() {
			u.places = placesOf(c)
		}
		list = append(list, u)
	}
	return list
}

// askRoutes finds out why routing has refused connects. What an edge is told once it keeps, so that no counter goes back.
func (inv *Inventory) askRoutes(ctx context.Context, list []unroutedEdge) {
	for i, u := range list {
		why := ConnectNetworkUnreachable // by far the most common, where it cannot be asked
		if i < routesPerPass && ctx.Err() == nil {
			if ns := inv.namespaces.enter(u.netns, inv.pidsOf(u.places)); ns != nil {
				why = unroutedError(ns.Route(u.dst))
				_ = ns.Close()
			}
		}
		u.edge.unrouted = &why
	}
}

// unroutedError puts what connect() has returned into a kind.
func unroutedError(err error) ConnectError {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EPERM): // not allowed to ask
		return ConnectNetworkUnreachable
	case errors.Is(err, unix.EHOSTUNREACH):
		return ConnectHostUnreachable
	}
	return ConnectOther // prohibited, or not by routing
}

// sendEchoes measures destinations without an open connection until ctx ends.
func (inv *Inventory) sendEchoes(ctx context.Context) {
	t := time.NewTicker(echoEvery)
	defer t.Stop()
	for {
		inv.echoRound(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// echoTask is what is asked from the network namespace of one container.
type echoTask struct {
	container *container
	places    []place
	addrs     []netip.Addr
}

func (inv *Inventory) echoRound(ctx context.Context) {
	for _, task := range inv.echoTasks() {
		if ctx.Err() != nil {
			return
		}
		asked := inv.now()
		answers := inv.namespaces.echo(ctx, inv.pidsOf(task.places), task.addrs)
		inv.edgesMu.Lock()
		task.container.network.noteEchoes(task.addrs, answers, asked)
		inv.edgesMu.Unlock()
	}
}

// echo asks from the namespace of the first process that lets itself be looked at.
func (ns *namespaces) echo(ctx context.Context, pids []int, addrs []netip.Addr) map[netip.Addr]time.Duration {
	for _, pid := range pids {
		n, err := netns.Open(ns.procRoot, pid)
		if err != nil {
			continue
		}
		answers, err := n.Echo(ctx, addrs, echoTimeout)
		_ = n.Close()
		if err == nil {
			return answers
		}
		break
	}
	return nil
}

func (n *network) noteEchoes(addrs []netip.Addr, answers map[netip.Addr]time.Duration, asked time.Time) {
	if n.echoes == nil {
		n.echoes = map[netip.Addr]echo{}
	}
	for _, a := range addrs {
		n.echoes[a] = echo{rtt: answers[a], at: asked}
	}
	for a, e := range n.echoes {
		if asked.Sub(e.at) > echoKept {
			delete(n.echoes, a)
		}
	}
}

// echoTasks lists whom to ask in this round: of each container those destinations first that were not asked for longest.
func (inv *Inventory) echoTasks() []echoTask {
	inv.edgesMu.Lock()
	defer inv.edgesMu.Unlock()
	inv.mu.Lock()
	defer inv.mu.Unlock()
	var tasks []echoTask
	room := echoesPerRound
	for _, c := range inv.containers { // in any order: over the rounds all get their turn
		if !c.goneAt.IsZero() || room <= 0 {
			continue
		}
		addrs := inv.unmeasured(&c.network)
		addrs = addrs[:min(len(addrs), echoesPerContainer, room)]
		if len(addrs) == 0 {
			continue
		}
		room -= len(addrs)
		tasks = append(tasks, echoTask{container: c, places: placesOf(c), addrs: addrs})
	}
	return tasks
}

// unmeasured lists the destinations without an open connection.
func (inv *Inventory) unmeasured(n *network) []netip.Addr {
	set := map[netip.Addr]struct{}{}
	for key, e := range n.edges {
		addr := key.actual.Addr()
		_, live := n.latency[addr]
		if live || !e.ended.IsZero() || isSummedUp(key.actual) || addr.IsLoopback() || !inv.isMeasured(addr, 0) {
			continue
		}
		set[addr] = struct{}{}
	}
	addrs := slices.Collect(maps.Keys(set))
	slices.SortFunc(addrs, func(a, b netip.Addr) int {
		return cmp.Or(n.echoes[a].at.Compare(n.echoes[b].at), a.Compare(b))
	})
	return addrs
}
