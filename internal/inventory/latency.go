// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

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
	// echoesAtOnce is how many containers are waited for at the same time.
	echoesAtOnce = 16
)

// latency is the round-trip time to one address.
type latency struct {
	rtt   time.Duration // 0 for no answer yet
	live  bool          // of open connections, as of the last pass that asked for it
	at    time.Time     // when it was measured
	asked time.Time     // when an echo request was sent last
}

// isFresh tells whether it still holds: as long as connections are open, or one echo may get lost.
func (l *latency) isFresh(now time.Time) bool {
	return l.live || now.Sub(l.at) <= 5*echoEvery/2 && !l.asked.IsZero()
}

// passLatencies makes the medians of the round-trip times that the kernel has just given. mu and edgesMu are held.
func (inv *Inventory) passLatencies(now time.Time) {
	type to struct {
		c    *container
		addr netip.Addr
	}
	times := map[to][]time.Duration{}
	for _, c := range inv.containers {
		c.network.ageLatencies(now, inv.opts.Keep)
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
	for key, list := range times {
		if l := inv.latencyOf(&key.c.network, key.addr); l != nil {
			l.rtt, l.live, l.at = median(list), true, now
		}
	}
}

// ageLatencies forgets those that were given as ended for long enough.
func (n *network) ageLatencies(now time.Time, keep time.Duration) {
	for addr, l := range n.latencies {
		l.live = false
		if now.Sub(l.at) > keep+3*echoEvery && now.Sub(l.asked) > keep+3*echoEvery {
			delete(n.latencies, addr)
		}
	}
}

// latencyOf finds or makes that of an address; nil past the limit.
func (inv *Inventory) latencyOf(n *network, addr netip.Addr) *latency {
	if l := n.latencies[addr]; l != nil {
		return l
	}
	if !inv.hasRoom(n) {
		return nil
	}
	if n.latencies == nil {
		n.latencies = map[netip.Addr]*latency{}
	}
	l := &latency{}
	n.latencies[addr] = l
	return l
}

// hasRoom tells whether another latency may be made.
func (inv *Inventory) hasRoom(n *network) bool {
	limit := inv.opts.Network.MaxDestinations
	return limit <= 0 || len(n.latencies) < limit
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
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, echoesAtOnce)
	for _, task := range inv.echoTasks() {
		select {
		case <-ctx.Done():
			return
		case room <- struct{}{}:
		}
		wg.Go(func() {
			defer func() { <-room }()
			asked := inv.now()
			answers := echoFrom(ctx, inv.opts.ProcRoot, inv.pidsOf(task.places), task.addrs)
			inv.edgesMu.Lock()
			inv.noteEchoes(&task.container.network, task.addrs, answers, asked)
			inv.edgesMu.Unlock()
		})
	}
}

// echoFrom asks from the namespace of the first process that lets itself be looked at.
func echoFrom(ctx context.Context, procRoot string, pids []int, addrs []netip.Addr) map[netip.Addr]time.Duration {
	for _, pid := range pids {
		n, err := netns.Open(procRoot, pid)
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

func (inv *Inventory) noteEchoes(n *network, addrs []netip.Addr, answers map[netip.Addr]time.Duration, asked time.Time) {
	for _, a := range addrs {
		l := inv.latencyOf(n, a)
		if l == nil {
			continue
		}
		l.asked = asked
		if rtt := answers[a]; rtt > 0 && !l.live {
			l.rtt, l.at = rtt, asked
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
	set, hasRoom := map[netip.Addr]struct{}{}, inv.hasRoom(n)
	for key, e := range n.edges {
		addr := key.actual.Addr()
		known := n.latencies[addr]
		if known == nil && !hasRoom || known != nil && known.live {
			continue
		}
		if !e.ended.IsZero() || isSummedUp(key.actual) || addr.IsLoopback() || !inv.isMeasured(addr, 0) {
			continue
		}
		set[addr] = struct{}{}
	}
	addrs := slices.Collect(maps.Keys(set))
	asked := func(a netip.Addr) time.Time {
		if l := n.latencies[a]; l != nil {
			return l.asked
		}
		return time.Time{}
	}
	slices.SortFunc(addrs, func(a, b netip.Addr) int { return cmp.Or(asked(a).Compare(asked(b)), a.Compare(b)) })
	return addrs
}
