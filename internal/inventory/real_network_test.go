// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"
)

// needIP skips the test where there is no iproute2: the test machine of other kernels has no programs at all.
func needIP(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes cgroups and network namespaces, and loads BPF programs")
	}
	for _, tool := range []string{"ip", "nsenter"} {
		_, err := exec.LookPath(tool)
		switch {
		case err == nil:
		case os.Getenv("EBPFCONTAINER_REQUIRE_ROOT_TESTS") == "1" && os.Getenv("PATH") != "/":
			t.Fatalf("required by EBPFCONTAINER_REQUIRE_ROOT_TESTS: %v", err)
		default:
			t.Skip(err)
		}
	}
}

// openTraffic is openReal with other options.
func openTraffic(t *testing.T, name string, change func(*Options)) *Inventory {
	t.Helper()
	opts := Options{
		CgroupRoot: "/sys/fs/cgroup",
		Include:    []*regexp.Regexp{regexp.MustCompile("^" + name + "$")},
		Keep:       30 * time.Second,
		Network:    NetworkOptions{Enabled: true, IdleTimeout: 10 * time.Minute},
		Logger:     zaptest.NewLogger(t),
	}
	change(&opts)
	inv, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := inv.Close(); err != nil {
			t.Error(err)
		}
	})
	return inv
}

// take finds the container, which must be there.
func take(t *testing.T, inv *Inventory, name string) Container {
	t.Helper()
	errs := inv.Status().ReadErrors
	c, ok := find(t, inv, name)
	if !ok {
		t.Fatalf("no %s", name)
	}
	if now := inv.Status().ReadErrors; now != errs {
		t.Fatalf("%d read errors: the kernel's tables could not be read", now-errs)
	}
	return c
}

// realPair is a process in a container with a network namespace of its own, 10.99.1.2 and fd99::2, and one in no container
// at the other end of a link, 10.99.1.1 and fd99::1.
func realPair(t *testing.T, rc *realContainer) (inside, outside *realProcess) {
	t.Helper()
	inside, outside = startProcess(t, rc.dirs, true), startProcess(t, nil, true)
	inside.ip(fmt.Sprintf("link add veth0 type veth peer name veth0 netns %d", outside.pid))
	for p, host := range map[*realProcess]int{inside: 2, outside: 1} {
		p.ip(fmt.Sprintf(`link set lo up
			addr add 10.99.1.%d/24 dev veth0
			addr add fd99::%d/64 dev veth0 nodad
			link set veth0 up`, host, host))
	}
	return inside, outside
}

func TestRealRefusalsOfRouting(t *testing.T) {
	needIP(t)
	rc := newRealContainer(t)
	inv := openTraffic(t, rc.name, func(*Options) {})
	rc.make()
	p := startProcess(t, rc.dirs, true)
	p.ip(`link set lo up
		route add unreachable 10.99.0.31
		route add prohibit 10.99.0.32`)
	want := map[string][NumConnectErrors]uint64{}
	for _, tt := range []struct {
		addr, answer string
		why          ConnectError
	}{
		{addr: "10.99.0.30:80", answer: "network is unreachable", why: ConnectNetworkUnreachable},
		{addr: "10.99.0.31:80", answer: "no route to host", why: ConnectHostUnreachable},
		{addr: "10.99.0.32:80", answer: "permission denied", why: ConnectOther},
		{addr: "[fd99::30]:80", answer: "network is unreachable", why: ConnectNetworkUnreachable},
	} {
		for range 3 {
			p.want(tt.answer, "dial %s", tt.addr)
		}
		var by [NumConnectErrors]uint64
		by[tt.why] = 3
		want[tt.addr] = by
	}
	if diff := cmp.Diff(want, failures(take(t, inv, rc.name))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Another reason for the same destination: what was told stays.
	p.ip("route change prohibit 10.99.0.31")
	p.want("permission denied", "dial 10.99.0.31:80")
	want["10.99.0.31:80"] = [NumConnectErrors]uint64{ConnectHostUnreachable: 4}
	if diff := cmp.Diff(want, failures(take(t, inv, rc.name))); diff != "" {
		t.Errorf("after a change of routes (-want +got):\n%s", diff)
	}
}

func TestRealListeners(t *testing.T) {
	needIP(t)
	for _, older := range []bool{false, true} { // than the collector
		t.Run(fmt.Sprintf("older %v", older), func(t *testing.T) {
			rc := newRealContainer(t)
			rc.make()
			inside, outside := realPair(t, rc)
			listen := func() {
				for _, addr := range []string{"0.0.0.0:8080", "[::]:8081", "127.0.0.1:8082", "10.99.1.2:8083"} {
					inside.want("ok", "listen %s", addr)
				}
			}
			var inv *Inventory
			if older {
				listen()
			}
			inv = openTraffic(t, rc.name, func(*Options) {})
			if !older {
				listen()
			}
			c := take(t, inv, rc.name)
			wantOpen(t, c, "10.99.1.2:8080", "10.99.1.2:8081", "[fd99::2]:8081", "10.99.1.2:8083")
			var queues []string
			for _, q := range c.Queues {
				if !q.Open || q.Limit == 0 {
					t.Errorf("queue %+v", q)
				}
				queues = append(queues, q.ListenAddr)
			}
			if !slices.Equal(queues, []string{"0.0.0.0:8080", "10.99.1.2:8083", "[::]:8081"}) {
				t.Errorf("queues %v", queues)
			}
			for _, addr := range []string{"10.99.1.2:8080", "10.99.1.2:8080", "10.99.1.2:8081", "[fd99::2]:8081", "10.99.1.2:8083"} {
				outside.want("ok", "dial %s", addr)
			}
			want := map[string]uint64{"10.99.1.2:8080": 2, "10.99.1.2:8081": 1, "[fd99::2]:8081": 1, "10.99.1.2:8083": 1}
			if diff := cmp.Diff(want, accepted(take(t, inv, rc.name))); diff != "" {
				t.Errorf("accepted (-want +got):\n%s", diff)
			}
			inside.want("<nil>", "close 0.0.0.0:8080")
			inside.want("<nil>", "close 10.99.1.2:8083")
			wantOpen(t, take(t, inv, rc.name), "10.99.1.2:8081", "[fd99::2]:8081")
		})
	}
}

func TestRealEchoes(t *testing.T) {
	needIP(t)
	rc := newRealContainer(t)
	inv := openTraffic(t, rc.name, func(o *Options) { o.Latency.ICMP = true })
	rc.make()
	inside, _ := realPair(t, rc)
	inside.want("refused", "dial 10.99.1.1:%d", closedPort)
	inside.want("refused", "dial [fd99::1]:%d", closedPort)
	inside.want("", "dial 10.99.1.77:%d", closedPort) // nobody there
	inside.want("refused", "dial 127.0.0.1:%d", closedPort)
	if c := take(t, inv, rc.name); len(c.Latencies) != 0 {
		t.Errorf("latencies without a connection %+v", c.Latencies)
	}
	inv.echoRound(t.Context()) // which is due in 15 s
	c := take(t, inv, rc.name)
	var addrs []string
	for _, l := range c.Latencies {
		addrs = append(addrs, l.DestinationIP)
		if l.Ended || l.RTT <= 0 || l.RTT > time.Second {
			t.Errorf("got %+v", l)
		}
		t.Logf("%s in %v", l.DestinationIP, l.RTT)
	}
	if !slices.Equal(addrs, []string{"10.99.1.1", "fd99::1"}) {
		t.Errorf("latencies to %v", addrs)
	}
}

func rss(t *testing.T) (kb uint64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatal(err)
	}
	return kb
}

// TestRealMillionDestinations has a process scan all of loopback, through tables that are far too small for it. Unless
// EBPFCONTAINER_LONG_TESTS is 1 it does not go so far: tests of other packages that run at the same time count it as well,
// and their tables must not get full.
func TestRealMillionDestinations(t *testing.T) {
	rc := newRealContainer(t)
	destinations, connects := 16_000, 4_000
	if os.Getenv("EBPFCONTAINER_LONG_TESTS") == "1" {
		destinations, connects = 1_000_000, 20_000
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); serve(l) }()
	defer func() { _ = l.Close(); <-served }()

	inv := openTraffic(t, rc.name, func(o *Options) { o.Network.MaxEdges, o.Network.MaxDestinations = 4096, 1000 })
	rc.make()
	p := startProcess(t, rc.dirs, false)
	began, before := time.Now(), rss(t)
	done := make(chan string, 1)
	go func() { done <- p.do("flood %s %d %d", l.Addr(), destinations, connects) }()
	watcher := watcher{totals: map[string]uint64{}}
	for answer := ""; answer == ""; {
		select {
		case answer = <-done:
			if answer != "ok" {
				t.Fatal(answer)
			}
		case <-time.After(time.Second):
			c := take(t, inv, rc.name)
			watcher.look(t, &c)
		}
	}
	took, during := time.Since(began), rss(t)
	c := take(t, inv, rc.name)
	watcher.look(t, &c)
	var failed [NumConnectErrors]uint64
	for _, d := range c.Destinations {
		for why, n := range d.Failed {
			failed[why] += n
		}
	}
	var connected uint64
	for _, e := range c.Edges {
		connected += e.Connects
	}
	if want := ([NumConnectErrors]uint64{ConnectRefused: uint64(destinations)}); failed != want {
		t.Errorf("failures %v, want %v", failed, want)
	}
	if connected != uint64(connects) {
		t.Errorf("%d connects, want %d", connected, connects)
	}
	if len(c.Edges) > 1002 || len(c.Destinations) > 1002 {
		t.Errorf("%d edges and %d destinations", len(c.Edges), len(c.Destinations))
	}
	s := inv.Status()
	if s.EdgesUnaccounted != 0 {
		t.Errorf("%d unaccounted", s.EdgesUnaccounted)
	}
	t.Logf("%d destinations and %d connects in %v; %d edges in the kernel, %d folded; resident %d MiB before, %d MiB after",
		destinations, connects, took.Round(time.Millisecond), s.EdgesLive, s.EdgesFolded, before>>10, during>>10)
}
