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
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

const idle = 10 * time.Minute

// later lets time pass as it does: with a clearing away each time that it is due.
func (h *testHost) later(d time.Duration) {
	h.t.Helper()
	for end := h.now().Add(d); h.now().Before(end); {
		h.pass(min(end.Sub(h.now()), cleanEvery))
		h.clean()
	}
}

func (h *testHost) kernelEdges() int { return len(h.kernel.all()) }

// everything is an edge with all numbers different.
func everything(e bpf.Edge) bpf.Edge {
	e.Connects, e.ConnectTime, e.BytesSent, e.BytesReceived, e.Retransmits = 1, 2*time.Second, 3, 4, 5
	e.ResetsSent, e.ResetsReceived, e.RTTSum = 6, 7, 8*time.Second
	for i := range e.RTT {
		e.RTT[i] = uint64(20 + i)
	}
	if !e.Inbound {
		for i := range bpf.FailedUnrouted {
			e.Failed[i] = uint64(40 + i)
		}
	}
	return e
}

// What is idle leaves the kernel's table, and nothing changes.
func TestTakenOutOfTheKernelsTable(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	id := h.cgroup("docker/"+hexA, 0)
	dst := addrPort("10.0.0.1:80")
	both := []bpf.Edge{
		everything(bpf.Edge{CgroupV2: id, Destination: dst}),
		everything(bpf.Edge{CgroupV2: id, Inbound: true, Local: dst}),
	}
	h.kernel.count(both...)
	h.kernel.count(bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.2:80"), Active: 1})
	want := h.container()
	h.later(keep - time.Second)
	if n := h.kernelEdges(); n != 3 {
		t.Fatalf("%d edges in the kernel's table, want all 3 to rest", n)
	}
	h.later(cleanEvery + time.Second)
	if n := h.kernelEdges(); n != 1 {
		t.Fatalf("%d edges in the kernel's table, want the one with a connection", n)
	}
	if diff := cmp.Diff(want, h.container()); diff != "" {
		t.Errorf("after Take (-want +got):\n%s", diff)
	}
	h.kernel.count(both...)
	c := h.container()
	if e := c.Edges[0]; e.Connects != 2 || e.BytesSent != 6 || e.RTT.Counts[0] != 40 || e.RTT.Sum != 16*time.Second {
		t.Errorf("goes on with %+v", e)
	}
	if i := c.Inbound[0]; i.Accepted != 2 || i.BytesReceived != 8 {
		t.Errorf("goes on with %+v", i)
	}
	if c.ResetsSent != cgroups.Some[uint64](24) || c.ResetsReceived != cgroups.Some[uint64](28) {
		t.Errorf("resets %v and %v", c.ResetsSent, c.ResetsReceived)
	}
}

func TestTakenSoonerWhenTheTableFillsUp(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	id := h.cgroup("docker/"+hexA, 0)
	h.kernel.mu.Lock()
	h.kernel.stats.EdgesMax = 3
	h.kernel.mu.Unlock()
	for i := range 5 {
		h.kernel.count(bpf.Edge{CgroupV2: id, Destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80), Connects: 1})
	}
	h.pass(restWhenFull + time.Millisecond)
	h.clean()
	if n := h.kernelEdges(); n != 0 {
		t.Errorf("%d edges left in a full table", n)
	}
	c := h.container()
	if len(c.Edges) != 4 || c.Edges[3].Destination != OtherDestination || c.Edges[3].Connects != 2 {
		t.Errorf("got %+v", c.Edges)
	}
}

// What happens between a pass and Take is neither lost nor counted twice.
func TestConnectionBetweenPassAndTake(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	id := h.cgroup("docker/"+hexA, 0)
	opened := bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.1:80"), Connects: 1, Active: 1}
	closed := bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.1:80"), BytesSent: 9, Active: -1}
	h.kernel.count(opened, closed)
	h.pass(keep + time.Second)
	h.kernel.mu.Lock()
	h.kernel.onTake = func(e *bpf.Edge) { addTo(e, &opened) }
	h.kernel.mu.Unlock()
	h.clean()
	h.kernel.mu.Lock()
	h.kernel.onTake = nil
	h.kernel.mu.Unlock()
	if e := h.container().Edges[0]; e.Connects != 2 || e.Active != 1 || e.BytesSent != 9 {
		t.Fatalf("got %+v, want 2 connects, one of them open", e)
	}
	h.later(3 * idle) // the connection says nothing all the time
	if c := h.container(); len(c.Edges) != 1 || c.Edges[0].Ended || c.Edges[0].Active != 1 {
		t.Fatalf("edge with an open connection is over: %+v", c.Edges)
	}
	h.kernel.count(closed)
	if e := h.container().Edges[0]; e.Connects != 2 || e.Active != 0 || e.BytesSent != 18 {
		t.Errorf("after the end got %+v", e)
	}
}

func TestIdleOnesEnd(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	id := h.cgroup("docker/"+hexA, 0)
	dst, local := addrPort("10.0.0.1:80"), addrPort("10.0.0.9:80")
	one := []bpf.Edge{
		{CgroupV2: id, Destination: dst, Connects: 1, ResetsSent: 1},
		{CgroupV2: id, Inbound: true, Local: local, Connects: 1, ResetsReceived: 1},
	}
	h.kernel.count(one...)
	h.container()
	check := func(when string, n uint64, life Lifetime) {
		t.Helper()
		c := h.container()
		if len(c.Edges) != 1 || len(c.Destinations) != 1 || len(c.Inbound) != 1 {
			t.Fatalf("%s: got %+v, %+v, %+v", when, c.Edges, c.Destinations, c.Inbound)
		}
		for _, got := range []Lifetime{c.Edges[0].Lifetime, c.Destinations[0].Lifetime, c.Inbound[0].Lifetime} {
			if got != life {
				t.Errorf("%s: lifetime %+v, want %+v", when, got, life)
			}
		}
		if c.Edges[0].Connects != n || c.Inbound[0].Accepted != n {
			t.Errorf("%s: %d connects and %d accepted, want %d", when, c.Edges[0].Connects, c.Inbound[0].Accepted, n)
		}
	}
	h.later(idle - time.Second)
	check("not yet idle for long", 1, Lifetime{})
	h.later(cleanEvery)
	check("idle", 1, Lifetime{Ended: true})
	h.pass(time.Second) // and before anything is cleared away
	h.kernel.count(one...)
	check("back at once", 2, Lifetime{})
	h.later(idle - time.Second)
	check("back", 2, Lifetime{})
	h.later(cleanEvery)
	check("idle again", 2, Lifetime{Ended: true})
	h.later(keep - time.Second)
	check("given as ended for long enough", 2, Lifetime{Ended: true})
	h.later(cleanEvery)
	if c := h.container(); len(c.Edges)+len(c.Destinations)+len(c.Inbound) != 0 {
		t.Fatalf("not forgotten: %+v", c)
	}
	if c := h.container(); c.ResetsSent != cgroups.Some[uint64](2) || c.ResetsReceived != cgroups.Some[uint64](2) {
		t.Errorf("resets %v and %v forgotten, too", c.ResetsSent, c.ResetsReceived)
	}
	forgotten := h.now()
	h.later(time.Minute)
	h.kernel.count(one...)
	check("comes again", 1, Lifetime{Start: forgotten})
	if c := h.container(); c.ResetsSent != cgroups.Some[uint64](3) || c.ResetsReceived != cgroups.Some[uint64](3) {
		t.Errorf("resets %v and %v, want 3", c.ResetsSent, c.ResetsReceived)
	}
}

func TestIdleTimeoutOff(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	id := h.cgroup("docker/"+hexA, 0)
	h.kernel.count(bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.1:80"), Connects: 1})
	h.container()
	h.pass(keep + time.Second)
	h.clean()
	h.pass(365 * 24 * time.Hour)
	h.clean()
	if c := h.container(); h.kernelEdges() != 0 || len(c.Edges) != 1 || c.Edges[0].Ended || c.Edges[0].Connects != 1 {
		t.Errorf("%d in the kernel, edges %+v", h.kernelEdges(), c.Edges)
	}
}

// The sums are series like others: they end when nothing has come to them for as long.
func TestSumsEndToo(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle, MaxDestinations: 1}})
	id := h.cgroup("docker/"+hexA, 0)
	more := func(dsts ...string) {
		for _, dst := range dsts {
			h.kernel.count(bpf.Edge{CgroupV2: id, Destination: addrPort(dst), Connects: 1, ResetsSent: 1})
		}
	}
	total := func() (n uint64, labels []string) {
		for _, e := range h.container().Edges {
			n += e.Connects
			labels = append(labels, e.Destination)
		}
		return n, labels
	}
	more("10.0.0.1:80", "10.0.0.2:80", "1.1.1.1:80")
	h.container()
	for i := uint64(1); i <= 20; i++ { // for as long as one of those that it sums up goes on, and past Take
		h.later(idle / 2)
		more("10.0.0.1:80", fmt.Sprintf("10.0.1.%d:80", i), fmt.Sprintf("1.1.1.%d:80", i))
		if n, labels := total(); n != 3+3*i || len(labels) != 3 {
			t.Fatalf("%d connects to %v, want %d", n, labels, 3+3*i)
		}
	}
	h.later(idle + keep + 2*cleanEvery)
	if n, labels := total(); n != 0 {
		t.Errorf("%d connects to %v left", n, labels)
	}
	if c := h.container(); c.ResetsSent != cgroups.Some[uint64](63) {
		t.Errorf("resets %v, want 63", c.ResetsSent)
	}
}

// What the sum of others has once got stays there, although there is room again for one of those that it sums up.
func TestOtherDoesNotGoBack(t *testing.T) {
	for _, inbound := range []bool{false, true} {
		t.Run(fmt.Sprintf("inbound %v", inbound), func(t *testing.T) {
			h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle, MaxDestinations: 2, MaxListeners: 2}})
			id := h.cgroup("docker/"+hexA, 0)
			edge := func(addr string, active int64) bpf.Edge {
				e := bpf.Edge{CgroupV2: id, Connects: 1, Active: active}
				if e.Inbound = inbound; inbound {
					e.Local = addrPort(addr)
				} else {
					e.Destination = addrPort(addr)
				}
				return e
			}
			h.kernel.count(edge("10.0.0.1:80", 0), edge("10.0.0.3:80", 0))
			h.container()
			h.kernel.count(edge("10.0.0.2:80", 0), edge("10.0.0.2:80", 1)) // past the limit, and it stays open
			if got := h.traffic(); got[OtherDestination].total != 2 {
				t.Fatalf("got %v", got)
			}
			h.later(idle + keep + 2*cleanEvery) // the two are forgotten
			got := h.traffic()
			if diff := cmp.Diff(map[string]count{OtherDestination: {2, 0}, "10.0.0.2:80": {0, 1}}, got, allowCounts); diff != "" {
				t.Errorf("with room for it (-want +got):\n%s", diff)
			}
			closed := edge("10.0.0.2:80", -1)
			closed.Connects = 0
			h.kernel.count(edge("10.0.0.2:80", 0), closed)
			if diff := cmp.Diff(map[string]count{OtherDestination: {2, 0}, "10.0.0.2:80": {1, 0}}, h.traffic(), allowCounts); diff != "" {
				t.Errorf("from then on (-want +got):\n%s", diff)
			}
		})
	}
}

type count struct{ total, active uint64 }

var allowCounts = cmp.AllowUnexported(count{})

// traffic is the established connections of the container in one direction.
func (h *testHost) traffic() map[string]count {
	m := map[string]count{}
	c := h.container()
	for _, e := range c.Edges {
		m[e.Destination] = count{e.Connects, e.Active}
	}
	for _, i := range c.Inbound {
		m[i.ListenAddr] = count{i.Accepted, i.Active}
	}
	return m
}

// A client is there before its server, which listens on an ephemeral port.
func TestListenedLater(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	id := h.cgroup("docker/"+hexA, 0)
	const server = "10.0.0.1:50051"
	dst := addrPort(server)
	h.kernel.count(bpf.Edge{CgroupV2: id, Destination: dst, Failed: failed(map[bpf.Failure]uint64{bpf.FailedRefused: 3})})
	h.container()
	h.kernel.listen(bpf.Listener{CgroupV2: id, Addr: dst, Open: 1})
	h.kernel.count(bpf.Edge{CgroupV2: id, Destination: dst, Connects: 1, Active: 1})
	refused := map[string][NumConnectErrors]uint64{OtherDestination: {ConnectRefused: 3}}
	if diff := cmp.Diff(refused, failures(h.container())); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
	h.clean()
	h.kernel.count(bpf.Edge{CgroupV2: id, Destination: dst, Connects: 1, Active: 1})
	if diff := cmp.Diff(map[string]count{OtherDestination: {1, 0}, server: {1, 2}}, h.traffic(), allowCounts); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(refused, failures(h.container())); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
}

// Failures of a destination are one series however its connections go on.
func TestFailuresLiveAsLongAsTheirDestination(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	id := h.cgroup("docker/"+hexA, 0)
	service := addrPort("10.96.0.10:80")
	h.kernel.count(
		bpf.Edge{CgroupV2: id, Destination: service, Failed: failed(map[bpf.Failure]uint64{bpf.FailedRefused: 5})},
		bpf.Edge{CgroupV2: id, Destination: service, Actual: addrPort("10.0.0.1:80"), Connects: 1, Active: 1},
	)
	h.container()
	h.later(3 * idle)
	c := h.container()
	want := Destination{Destination: service.String(), Failed: [NumConnectErrors]uint64{ConnectRefused: 5}}
	if len(c.Destinations) != 1 || c.Destinations[0] != want {
		t.Errorf("got %+v, want %+v", c.Destinations, want)
	}
	h.kernel.count(bpf.Edge{CgroupV2: id, Destination: service, Actual: addrPort("10.0.0.1:80"), Active: -1})
	h.container()
	h.later(idle + keep + 2*cleanEvery)
	if c := h.container(); len(c.Destinations)+len(c.Edges) != 0 {
		t.Errorf("left %+v", c)
	}
}

// What happened before the first pass has no time.
func TestIdleSinceBeforeTheFirstPass(t *testing.T) {
	now := begin
	if got := lastSign(false, 0, now, 24*time.Hour); !got.Equal(now) {
		t.Errorf("got %v, want now: it is not known how old it is", now.Sub(got))
	}
	if got := lastSign(false, time.Hour, now, 3*time.Hour); !got.Equal(now.Add(-2 * time.Hour)) {
		t.Errorf("got %v ago, want 2h", now.Sub(got))
	}
	if got := lastSign(true, time.Hour, now, 3*time.Hour); !got.Equal(now) {
		t.Errorf("got %v ago, want now", now.Sub(got))
	}
}

// The edges of a cgroup that is gone go over to the next of the same name, with its connections that end late.
func TestTakenFromFormerCgroups(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	const path = "docker/" + hexA
	dst := addrPort("10.0.0.1:80")
	var want uint64
	var last uint64
	for range 4 {
		id := h.cgroup(path, 0)
		h.kernel.count(bpf.Edge{CgroupV2: id, Destination: dst, Connects: 10, Active: 1})
		want += 10
		if e := h.container().Edges[0]; e.Connects != want {
			t.Fatalf("%d connects, want %d", e.Connects, want)
		}
		h.remove(path)
		h.kernel.count(bpf.Edge{CgroupV2: id, Destination: dst, BytesSent: 7, Active: -1})
		last = h.container().Edges[0].BytesSent
		h.later(keep - time.Second)
	}
	if last != 4*7 {
		t.Errorf("%d bytes, want 28", last)
	}
	h.later(2*keep + cleanEvery)
	if n := h.kernelEdges(); n != 0 {
		t.Errorf("%d edges left", n)
	}
	wantNames(t, h.snapshot())
}
