// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		name string
		list []time.Duration
		want time.Duration
	}{
		{name: "one", list: []time.Duration{7}, want: 7},
		{name: "two", list: []time.Duration{20, 10}, want: 15},
		{name: "odd", list: []time.Duration{30, 10, 1000}, want: 30},
		{name: "even", list: []time.Duration{40, 10, 20, 1000}, want: 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := median(tt.list); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func (k *fakeKernel) measure(rtts ...bpf.LiveRTT) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rtts = rtts
}

func live(id uint64, netns uint32, addr string, rtt time.Duration) bpf.LiveRTT {
	return bpf.LiveRTT{CgroupV2: id, NetNS: netns, Addr: netip.MustParseAddr(addr), RTT: rtt}
}

func TestLatencies(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, TrackPublic: []netip.Prefix{netip.MustParsePrefix("8.8.8.0/24")}}})
	id := h.cgroup("docker/"+hexA, 0)
	host, own := h.netns(hostNS), h.netns("own")
	h.kernel.measure(
		live(id, own, "10.0.0.1", 30), live(id, own, "10.0.0.1", 10), live(id, host, "10.0.0.1", 1000),
		live(id, own, "10.0.0.2", 40), live(id, own, "10.0.0.2", 20),
		live(id, own, "fd00::1", 5),
		live(id, own, "8.8.8.8", 9),
		live(id, own, "1.1.1.1", 9),         // public
		live(id, own, "2001:db8::1", 9),     // public
		live(id, own, "169.254.169.254", 9), // link-local
		live(id, own, "fe80::1", 9),
		live(id, own, "127.0.0.1", 9),
		live(id, own, "::1", 9),
		live(id, host, "127.0.0.1", 3),
		live(1<<40, own, "10.0.0.3", 9), // nobody's
	)
	want := []Latency{
		{DestinationIP: "10.0.0.1", RTT: 30}, {DestinationIP: "10.0.0.2", RTT: 30}, {DestinationIP: "127.0.0.1", RTT: 3},
		{DestinationIP: "8.8.8.8", RTT: 9}, {DestinationIP: "fd00::1", RTT: 5},
	}
	for range 2 {
		if diff := cmp.Diff(want, h.container().Latencies); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		h.clean() // does not sample, and takes nothing back
	}
}

// A latency that is not measured any more is ended, and forgotten some time later.
func TestLatencyEnds(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	id := h.cgroup("docker/"+hexA, 0)
	h.kernel.measure(live(id, 7, "10.0.0.1", 30))
	check := func(when string, want ...Latency) {
		t.Helper()
		if diff := cmp.Diff(want, h.container().Latencies); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("open", Latency{DestinationIP: "10.0.0.1", RTT: 30})
	h.kernel.measure()
	check("closed", Latency{DestinationIP: "10.0.0.1", RTT: 30, Lifetime: Lifetime{Ended: true}})
	h.pass(time.Second)
	h.kernel.measure(live(id, 7, "10.0.0.1", 50))
	check("open again", Latency{DestinationIP: "10.0.0.1", RTT: 50})
	h.kernel.measure()
	h.pass(keep)
	check("closed again", Latency{DestinationIP: "10.0.0.1", RTT: 50, Lifetime: Lifetime{Ended: true}})
	h.pass(3*echoEvery + time.Second)
	check("closed for long")

	h.kernel.measure(live(id, 7, "10.0.0.1", 60))
	check("and again", Latency{DestinationIP: "10.0.0.1", RTT: 60})
	h.remove("docker/" + hexA)
	check("its container is gone", Latency{DestinationIP: "10.0.0.1", RTT: 60, Lifetime: Lifetime{Ended: true}})
}

func TestLatenciesAreBounded(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, MaxDestinations: 10}})
	id := h.cgroup("docker/"+hexA, 0)
	for round := range 20 {
		var rtts []bpf.LiveRTT
		for i := range 1000 {
			rtts = append(rtts, live(id, 7, fmt.Sprintf("10.%d.%d.%d", round, i/250, i%250), 1))
		}
		h.kernel.measure(rtts...)
		if n := len(h.container().Latencies); n > 10 {
			t.Fatalf("%d latencies, want at most 10", n)
		}
		h.pass(keep + 4*echoEvery)
	}
}

// answer notes what one round of echoes has brought, as echoRound does.
func (h *testHost) answer(tasks []echoTask, rtts map[string]time.Duration) {
	answers := map[netip.Addr]time.Duration{}
	for addr, rtt := range rtts {
		answers[netip.MustParseAddr(addr)] = rtt
	}
	h.inv.edgesMu.Lock()
	defer h.inv.edgesMu.Unlock()
	for _, task := range tasks {
		h.inv.noteEchoes(&task.container.network, task.addrs, answers, h.now())
	}
}

func asked(tasks []echoTask) (addrs []string) {
	for _, task := range tasks {
		for _, a := range task.addrs {
			addrs = append(addrs, a.String())
		}
	}
	return addrs
}

func TestWhoIsSentEchoes(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{
		Enabled: true, IdleTimeout: idle, TrackPublic: []netip.Prefix{netip.MustParsePrefix("8.8.8.0/24")},
	}})
	id, gone := h.cgroup("docker/"+hexA, 0), h.cgroup("docker/"+hexB, 0)
	host := h.netns(hostNS)
	for _, e := range []struct{ dst, actual string }{
		{dst: "10.0.0.1:80"}, {dst: "10.0.0.1:81"}, // one host
		{dst: "10.0.0.2:80"}, // has an open connection
		{dst: "10.96.0.10:80", actual: "10.0.0.3:8080"},
		{dst: "10.96.0.11:80", actual: "1.1.1.1:80"},
		{dst: "8.8.8.8:53"}, {dst: "1.1.1.1:53"}, {dst: "[2001:db8::1]:53"},
		{dst: "169.254.169.254:80"}, {dst: "[fe80::1]:80"}, {dst: "127.0.0.1:80"}, {dst: "[::1]:80"},
		{dst: "10.0.0.5:50000"}, // summed up
		{dst: "[fd00::1]:80"}, {dst: "224.0.0.1:80"}, {dst: "0.0.0.0:80"}, {},
	} {
		h.kernel.count(bpf.Edge{CgroupV2: id, NetNS: host, Destination: addrPort(e.dst), Actual: addrPort(e.actual), Connects: 1})
	}
	h.kernel.count(
		bpf.Edge{CgroupV2: id, Inbound: true, Local: addrPort("10.0.0.9:80"), Connects: 1},
		bpf.Edge{CgroupV2: gone, Destination: addrPort("10.0.0.6:80"), Connects: 1},
	)
	h.kernel.measure(live(id, host, "10.0.0.2", 20))
	h.remove("docker/" + hexB)
	h.container()
	want := []string{"8.8.8.8", "10.0.0.1", "10.0.0.3", "fd00::1"}
	if diff := cmp.Diff(want, asked(h.inv.echoTasks())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	h.later(idle + cleanEvery)
	if got := asked(h.inv.echoTasks()); len(got) != 0 {
		t.Errorf("destinations that are ended are asked: %v", got)
	}
}

func TestLatencyOfEchoes(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	id := h.cgroup("docker/"+hexA, 0)
	h.kernel.count(
		bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.1:80"), Connects: 1},
		bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.2:80"), Connects: 1},
	)
	h.container()
	check := func(when string, want ...Latency) {
		t.Helper()
		if diff := cmp.Diff(want, h.container().Latencies); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	h.answer(h.inv.echoTasks(), map[string]time.Duration{"10.0.0.1": 70}) // 10.0.0.2 never answers
	check("answered", Latency{DestinationIP: "10.0.0.1", RTT: 70})

	tasks := h.inv.echoTasks()
	h.kernel.measure(live(id, 7, "10.0.0.1", 30)) // meanwhile
	check("open", Latency{DestinationIP: "10.0.0.1", RTT: 30})
	h.answer(tasks, map[string]time.Duration{"10.0.0.1": 90})
	check("of an open connection is better", Latency{DestinationIP: "10.0.0.1", RTT: 30})
	if got := asked(h.inv.echoTasks()); !cmp.Equal(got, []string{"10.0.0.2"}) {
		t.Errorf("asked %v", got)
	}
	h.kernel.measure()
	check("closed, and an echo is on its way", Latency{DestinationIP: "10.0.0.1", RTT: 30})
	h.pass(echoEvery)
	h.answer(h.inv.echoTasks(), map[string]time.Duration{"10.0.0.1": 80})
	check("answered again", Latency{DestinationIP: "10.0.0.1", RTT: 80})
	for range 2 {
		h.pass(echoEvery)
		h.answer(h.inv.echoTasks(), nil)
		check("one echo or two are lost", Latency{DestinationIP: "10.0.0.1", RTT: 80})
	}
	h.pass(echoEvery)
	h.answer(h.inv.echoTasks(), nil)
	check("no answer any more", Latency{DestinationIP: "10.0.0.1", RTT: 80, Lifetime: Lifetime{Ended: true}})
	h.answer(h.inv.echoTasks(), map[string]time.Duration{"10.0.0.1": 60, "10.0.0.2": 5})
	check("back", Latency{DestinationIP: "10.0.0.1", RTT: 60}, Latency{DestinationIP: "10.0.0.2", RTT: 5})
}

func TestEchoesAreBoundedAndFair(t *testing.T) {
	const perContainer, containers = 300, 40
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, MaxDestinations: 1000}})
	var edges []bpf.Edge
	for c := range containers {
		id := h.cgroup(fmt.Sprintf("docker/%064x", c), 0)
		for i := range perContainer {
			addr := netip.AddrFrom4([4]byte{10, byte(c), byte(i >> 8), byte(i)})
			edges = append(edges, bpf.Edge{CgroupV2: id, Destination: netip.AddrPortFrom(addr, 80), Connects: 1})
		}
	}
	h.kernel.set(nil, edges...)
	h.snapshot()
	times := map[string]int{}
	const rounds = containers*perContainer/echoesPerRound + 60
	for range rounds {
		tasks := h.inv.echoTasks()
		n := 0
		for _, task := range tasks {
			if len(task.addrs) > echoesPerContainer {
				t.Fatalf("%d echoes from one container", len(task.addrs))
			}
			n += len(task.addrs)
		}
		if n > echoesPerRound || n < echoesPerRound/2 {
			t.Fatalf("%d echoes in a round", n)
		}
		for _, a := range asked(tasks) {
			times[a]++
		}
		h.pass(echoEvery)
		h.answer(tasks, nil)
	}
	if missing := containers*perContainer - len(times); missing > containers*perContainer/100 {
		t.Errorf("%d of %d never asked in %d rounds", missing, containers*perContainer, rounds)
	}
}

// Latencies that have no room do not keep the others from their turn.
func TestEchoesOfAFullContainer(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, MaxDestinations: 200}})
	id := h.cgroup("docker/"+hexA, 0)
	var rtts []bpf.LiveRTT // of destinations that are summed up
	for i := range 100 {
		rtts = append(rtts, live(id, 7, fmt.Sprintf("192.168.0.%d", i), 1))
	}
	h.kernel.measure(rtts...)
	for i := range 200 {
		h.kernel.count(bpf.Edge{CgroupV2: id, Destination: addrPort(fmt.Sprintf("10.0.0.%d:80", i)), Connects: 1})
	}
	h.container()
	times := map[string]int{}
	for range 12 {
		h.container()
		tasks := h.inv.echoTasks()
		for _, a := range asked(tasks) {
			times[a]++
		}
		h.answer(tasks, nil)
		h.pass(echoEvery)
	}
	often := 0
	for _, n := range times {
		if n >= 12*echoesPerContainer/100-1 {
			often++
		}
	}
	if often != 100 {
		t.Errorf("%d addresses asked in turn, want the 100 that there is room for: %v", often, times)
	}
}
