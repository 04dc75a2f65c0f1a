// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// failed makes the counts of a kernel's edge.
func failed(by map[bpf.Failure]uint64) (f [bpf.NumFailures]uint64) {
	for why, n := range by {
		f[why] = n
	}
	return f
}

// pair is what an edge is given under.
type pair struct{ Destination, Actual string }

// connects are those of a container by what they are given under.
func connects(c Container) map[pair]uint64 {
	m := map[pair]uint64{}
	for _, e := range c.Edges {
		m[pair{e.Destination, e.Actual}] += e.Connects
	}
	return m
}

func failures(c Container) map[string][NumConnectErrors]uint64 {
	m := map[string][NumConnectErrors]uint64{}
	for _, d := range c.Destinations {
		if d.Failed != [NumConnectErrors]uint64{} {
			m[d.Destination] = d.Failed
		}
	}
	return m
}

func TestTranslatedDestinations(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, TrackPublic: []netip.Prefix{netip.MustParsePrefix("8.8.8.0/24")}}})
	id := h.cgroup("docker/"+hexA, 0)
	own := h.netns("own")
	for _, e := range []struct {
		dst, actual string
		refused     uint64
	}{
		{dst: "10.96.0.10:80", actual: "10.0.0.1:8080"},
		{dst: "10.96.0.10:80", actual: "10.0.0.2:8080"},
		{dst: "10.96.0.10:80", actual: "10.96.0.10:80", refused: 5},
		{dst: "10.96.0.10:80", actual: "1.1.1.1:80"},
		{dst: "10.96.0.10:80", actual: "2.2.2.2:80"},
		{dst: "10.96.0.10:80", actual: "8.8.8.8:80"},
		{dst: "1.1.1.1:80", actual: "10.0.0.1:8080", refused: 2}, // all that is public is one
		{dst: "127.0.0.1:80", actual: "10.0.0.1:8080"},           // leaves the container
		{dst: "127.0.0.1:80", actual: "127.0.0.1:8080"},          // does not
		{dst: "[::1]:80", actual: "[fd00::1]:8080"},
		{dst: "127.0.0.1:81", actual: "127.0.0.1:81", refused: 3},
		{dst: "169.254.169.254:80", actual: "127.0.0.1:8080"},
	} {
		h.kernel.count(bpf.Edge{
			CgroupV2: id, NetNS: own, Destination: addrPort(e.dst), Actual: addrPort(e.actual), Connects: 1,
			Failed: failed(map[bpf.Failure]uint64{bpf.FailedRefused: e.refused}),
		})
	}
	c := h.container()
	want := map[pair]uint64{
		{"10.96.0.10:80", "10.0.0.1:8080"}:     1,
		{"10.96.0.10:80", "10.0.0.2:8080"}:     1,
		{"10.96.0.10:80", "10.96.0.10:80"}:     1,
		{"10.96.0.10:80", PublicDestination}:   2,
		{"10.96.0.10:80", "8.8.8.8:80"}:        1,
		{PublicDestination, PublicDestination}: 1,
		{"127.0.0.1:80", "10.0.0.1:8080"}:      1,
		{"[::1]:80", "[fd00::1]:8080"}:         1,
	}
	if diff := cmp.Diff(want, connects(c)); diff != "" {
		t.Errorf("connects (-want +got):\n%s", diff)
	}
	if len(c.Edges) != len(want) {
		t.Errorf("%d edges, want %d: a pair is given twice", len(c.Edges), len(want))
	}
	refused := map[string][NumConnectErrors]uint64{"10.96.0.10:80": {ConnectRefused: 5}, PublicDestination: {ConnectRefused: 2}}
	if diff := cmp.Diff(refused, failures(c)); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
	if n := len(c.Destinations); n != 4 {
		t.Errorf("%d destinations, want each of 4 once: %+v", n, c.Destinations)
	}
}

func TestFailuresByReason(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	id := h.cgroup("docker/"+hexA, 0)
	h.kernel.count(bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.1:80"), Failed: failed(map[bpf.Failure]uint64{
		bpf.FailedRefused: 1, bpf.FailedTimeout: 2, bpf.FailedReset: 3, bpf.FailedHostUnreachable: 4,
		bpf.FailedNetworkUnreachable: 5, bpf.FailedAborted: 6, bpf.FailedOther: 7, bpf.FailedUnrouted: 100,
	})})
	want := map[string][NumConnectErrors]uint64{"10.0.0.1:80": {1, 2, 3, 4, 105, 6, 7}} // no process: cannot be asked
	if diff := cmp.Diff(want, failures(h.container())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What routing has refused stays under the reason that was found first, or told first.
func TestUnroutedKeepsItsReason(t *testing.T) {
	dst := addrPort("10.0.0.1:80")
	unrouted := failed(map[bpf.Failure]uint64{bpf.FailedUnrouted: 1})
	t.Run("found", func(t *testing.T) {
		h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
		id := h.cgroup("docker/"+hexA, 0)
		for n := uint64(1); n <= 3; n++ {
			h.kernel.count(bpf.Edge{CgroupV2: id, Destination: dst, Failed: unrouted})
			got := failures(h.container())[dst.String()]
			want := [NumConnectErrors]uint64{ConnectNetworkUnreachable: n}
			if n > 1 {
				want = [NumConnectErrors]uint64{ConnectHostUnreachable: n}
			}
			if n == 1 { // as if the routing table had said so
				h.eachEdge(func(e *edge) { why := ConnectHostUnreachable; e.unrouted = &why })
			}
			if got != want {
				t.Errorf("after %d: got %v, want %v", n, got, want)
			}
			h.pass(2 * keep)
			h.clean() // takes it out of the kernel's table
		}
	})
	t.Run("told before it could be asked", func(t *testing.T) {
		h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
		id := h.cgroup("docker/"+hexA, 0)
		h.kernel.count(bpf.Edge{CgroupV2: id, Destination: dst, Connects: 1})
		h.pass(2 * keep)
		h.kernel.mu.Lock()
		h.kernel.onTake = func(e *bpf.Edge) { e.Failed[bpf.FailedUnrouted]++ } // between the pass and Take
		h.kernel.mu.Unlock()
		h.clean()
		want := [NumConnectErrors]uint64{ConnectNetworkUnreachable: 1}
		if got := failures(h.container())[dst.String()]; got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
		h.eachEdge(func(e *edge) {
			if e.unrouted == nil || *e.unrouted != ConnectNetworkUnreachable {
				t.Errorf("reason %v can still change", e.unrouted)
			}
		})
	})
}

func (h *testHost) eachEdge(fn func(*edge)) {
	h.inv.edgesMu.Lock()
	defer h.inv.edgesMu.Unlock()
	h.inv.mu.Lock()
	defer h.inv.mu.Unlock()
	for _, c := range h.inv.containers {
		for _, e := range c.network.edges {
			fn(e)
		}
	}
}

func TestEphemeralPorts(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, EphemeralPorts: PortRange{First: 40000, Last: 50000, Set: true}}})
	id := h.cgroup("docker/"+hexA, 0)
	h.kernel.listen(bpf.Listener{CgroupV2: 1 << 40, Addr: addrPort("10.9.9.9:45000"), Open: 1}) // anybody's
	for _, dst := range []string{
		"10.0.0.1:39999", "10.0.0.1:40000", "10.0.0.2:44444", "[fd00::1]:50000", "10.0.0.1:50001",
		"10.0.0.1:45000", // of a port that was listened on
		"1.1.1.1:44444",  // public is public
	} {
		h.kernel.count(bpf.Edge{CgroupV2: id, Destination: addrPort(dst), Connects: 1, BytesSent: 10})
	}
	h.kernel.count(
		bpf.Edge{CgroupV2: id, Inbound: true, Local: addrPort("10.0.0.9:44444"), Connects: 1},
		bpf.Edge{CgroupV2: id, Inbound: true, Local: addrPort("10.0.0.9:45000"), Connects: 1}, // no listener by the contract
		bpf.Edge{CgroupV2: id, Inbound: true, Local: addrPort("10.0.0.9:80"), Connects: 1},
	)
	h.kernel.listen(
		bpf.Listener{CgroupV2: id, Addr: addrPort("10.0.0.9:44444"), Open: 1},
		bpf.Listener{CgroupV2: id, Addr: addrPort("10.0.0.9:80"), Open: 1},
	)
	h.kernel.mu.Lock()
	h.kernel.listened[44444/64] = 0
	h.kernel.mu.Unlock()
	c := h.container()
	self := func(s string) pair { return pair{s, s} }
	want := map[pair]uint64{
		self("10.0.0.1:39999"): 1, self("10.0.0.1:50001"): 1, self("10.0.0.1:45000"): 1,
		self(OtherDestination): 3, self(PublicDestination): 1,
	}
	if diff := cmp.Diff(want, connects(c)); diff != "" {
		t.Errorf("connects (-want +got):\n%s", diff)
	}
	var sent uint64
	for _, e := range c.Edges {
		sent += e.BytesSent
	}
	if sent != 70 {
		t.Errorf("%d bytes sent in all, want 70", sent)
	}
	if diff := cmp.Diff(map[string]uint64{OtherDestination: 2, "10.0.0.9:80": 1}, accepted(c)); diff != "" {
		t.Errorf("accepted (-want +got):\n%s", diff)
	}
	if len(c.Listeners) != 1 || c.Listeners[0].ListenAddr != "10.0.0.9:80" || len(c.Queues) != 1 {
		t.Errorf("listeners %+v, queues %+v, want 10.0.0.9:80 alone", c.Listeners, c.Queues)
	}
}

func accepted(c Container) map[string]uint64 {
	m := map[string]uint64{}
	for _, i := range c.Inbound {
		m[i.ListenAddr] += i.Accepted
	}
	return m
}

func TestEphemeralRange(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		option     PortRange
		want       PortRange
	}{
		{name: "of the host", file: "1024\t65535\n", want: PortRange{First: 1024, Last: 65535, Set: true}},
		{name: "no file", want: defaultEphemeral},
		{name: "empty", file: "\n", want: defaultEphemeral},
		{name: "one number", file: "32768\n", want: defaultEphemeral},
		{name: "words", file: "many ports\n", want: defaultEphemeral},
		{name: "too large", file: "32768 70000\n", want: defaultEphemeral},
		{name: "negative", file: "-1 60999\n", want: defaultEphemeral},
		{name: "backwards", file: "60999 32768\n", want: defaultEphemeral},
		{name: "off by option", file: "1024 65535\n", option: PortRange{First: 1, Set: true}, want: PortRange{First: 1, Set: true}},
		{name: "by option", file: "1024 65535\n", option: PortRange{First: 7, Last: 8, Set: true}, want: PortRange{First: 7, Last: 8, Set: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proc := t.TempDir()
			if tt.file != "" {
				dir := filepath.Join(proc, "sys/net/ipv4")
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "ip_local_port_range"), []byte(tt.file), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got := ephemeralPorts(Options{ProcRoot: proc, Network: NetworkOptions{EphemeralPorts: tt.option}})
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	for _, off := range []PortRange{{Set: true}, {First: 1, Set: true}, {First: 65535, Last: 1, Set: true}} {
		for port := range 1 << 16 {
			if off.has(uint16(port)) {
				t.Errorf("%+v has port %d", off, port)
				break
			}
		}
	}
}

// The same address is another host in another namespace, but one name for it.
func TestOneAddressInTwoNamespaces(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	a, b := h.cgroup("docker/"+hexA, 0), h.cgroup("docker/"+hexB, 0)
	dst := addrPort("10.0.0.1:80")
	h.kernel.count(
		bpf.Edge{CgroupV2: a, NetNS: h.netns("one"), Destination: dst, Connects: 1, Active: 1},
		bpf.Edge{CgroupV2: a, NetNS: h.netns("two"), Destination: dst, Connects: 2},
		bpf.Edge{CgroupV2: b, NetNS: h.netns("two"), Destination: dst, Connects: 4},
		bpf.Edge{CgroupV2: a, NetNS: h.netns("one"), Inbound: true, Local: dst, Connects: 8},
		bpf.Edge{CgroupV2: a, NetNS: h.netns("two"), Inbound: true, Local: dst, Connects: 16},
	)
	got := h.snapshot()
	ca, cb := got["/docker/"+hexA], got["/docker/"+hexB]
	if len(ca.Edges) != 1 || ca.Edges[0].Connects != 3 || ca.Edges[0].Active != 1 || len(ca.Inbound) != 1 || ca.Inbound[0].Accepted != 24 {
		t.Errorf("got %+v and %+v", ca.Edges, ca.Inbound)
	}
	if len(cb.Edges) != 1 || cb.Edges[0].Connects != 4 {
		t.Errorf("got %+v", cb.Edges)
	}
}

func TestInbound(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, MaxListeners: 3}})
	id := h.cgroup("docker/"+hexA, 0)
	host, own := h.netns(hostNS), h.netns("own")
	for _, e := range []struct {
		netns uint32
		local string
	}{
		{host, "127.0.0.1:80"}, {own, "127.0.0.1:80"}, {own, "[::1]:80"}, {own, "169.254.1.1:80"}, {own, "[fe80::1]:80"},
		{own, "10.0.0.1:80"}, {own, "[fd00::1]:80"}, {own, "10.0.0.1:81"}, {own, "10.0.0.1:82"}, {own, ""},
	} {
		h.kernel.count(bpf.Edge{
			CgroupV2: id, NetNS: e.netns, Inbound: true, Local: addrPort(e.local),
			Connects: 1, Active: -1, BytesSent: 2, BytesReceived: 3,
		})
	}
	inbound := func(addr string, n uint64) Inbound {
		return Inbound{ListenAddr: addr, Accepted: n, BytesSent: 2 * n, BytesReceived: 3 * n}
	}
	want := []Inbound{inbound("10.0.0.1:80", 1), inbound("127.0.0.1:80", 1), inbound("[fd00::1]:80", 1), inbound(OtherDestination, 3)}
	for range 2 {
		c := h.container()
		if diff := cmp.Diff(want, c.Inbound); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if len(c.Edges) != 0 {
			t.Errorf("edges %+v", c.Edges)
		}
	}
}

func TestResetsOfBothDirections(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	id := h.cgroup("docker/"+hexA, 0)
	if c := h.container(); c.ResetsSent.OK || c.ResetsReceived.OK {
		t.Error("resets of a container without a connection")
	}
	h.kernel.count(bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.1:80"), Failed: failed(map[bpf.Failure]uint64{bpf.FailedRefused: 1})})
	if c := h.container(); c.ResetsSent.OK || c.ResetsReceived.OK {
		t.Error("resets before the first connection")
	}
	h.kernel.count(bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.1:80"), Connects: 1})
	if c := h.container(); c.ResetsSent != cgroups.Some[uint64](0) || c.ResetsReceived != cgroups.Some[uint64](0) {
		t.Errorf("got %v and %v, want 0", c.ResetsSent, c.ResetsReceived)
	}
	h.kernel.count(
		bpf.Edge{CgroupV2: id, Destination: addrPort("10.0.0.2:80"), Connects: 5, ResetsSent: 1, ResetsReceived: 2},
		bpf.Edge{CgroupV2: id, Inbound: true, Local: addrPort("10.0.0.9:80"), Connects: 5, ResetsSent: 10, ResetsReceived: 20},
	)
	if c := h.container(); c.ResetsSent != cgroups.Some[uint64](11) || c.ResetsReceived != cgroups.Some[uint64](22) {
		t.Errorf("got %v and %v, want 11 and 22", c.ResetsSent, c.ResetsReceived)
	}
}
