// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// openAddrs are the addresses at which a container can be reached.
func openAddrs(c Container) []string {
	var list []string
	for _, l := range c.Listeners {
		if l.Open && !l.Ended {
			list = append(list, l.ListenAddr+l.Proxy)
		}
	}
	return list
}

func wantOpen(t *testing.T, c Container, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, openAddrs(c), cmpopts.SortSlices(strings.Compare), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("listens on (-want +got):\n%s", diff)
	}
}

func TestListenersByAddress(t *testing.T) {
	for _, tt := range []struct {
		name   string
		netns  string
		addr   string
		v6only bool
		want   []string
		queue  bool // that it has one
	}{
		{name: "bound", addr: "10.0.0.7:80", want: []string{"10.0.0.7:80"}, queue: true},
		{name: "bound, IPv6", addr: "[fd00::7]:80", want: []string{"[fd00::7]:80"}, queue: true},
		{name: "all of IPv4", addr: "0.0.0.0:80", want: []string{"10.0.0.7:80", "192.168.0.7:80"}, queue: true},
		{name: "all of both", addr: "[::]:80", want: []string{"10.0.0.7:80", "192.168.0.7:80", "[fd00::7]:80"}, queue: true},
		{name: "all of IPv6", addr: "[::]:80", v6only: true, want: []string{"[fd00::7]:80"}, queue: true},
		{name: "loopback of its own", addr: "127.0.0.1:80"},
		{name: "link-local", addr: "169.254.7.7:80"},
		{name: "link-local, IPv6", addr: "[fe80::1]:80"},
		{name: "loopback of the host", netns: hostNS, addr: "127.0.0.1:80", want: []string{"127.0.0.1:80"}, queue: true},
		{name: "all of the host", netns: hostNS, addr: "[::]:80", want: []string{"127.0.0.1:80", "[::1]:80", "172.16.0.1:80"}, queue: true},
		{name: "all of nobody knows what", netns: "unknown", addr: "[::]:80", queue: true},
		{name: "overflow of the kernel's table", addr: "", want: []string{OtherDestination}, queue: true},
		{name: "ephemeral", addr: "10.0.0.7:50000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
			id := h.cgroup("docker/"+hexA, 0)
			h.process(1, hostNS, "172.16.0.1")
			h.process(100, "own", "10.0.0.7", "192.168.0.7", "fd00::7")
			if tt.netns == "" {
				tt.netns = "own"
			}
			h.kernel.listen(bpf.Listener{
				CgroupV2: id, NetNS: h.netns(tt.netns), Addr: addrPort(tt.addr), V6Only: tt.v6only, TGID: 100, Open: 1,
				Queue: 1, QueueLimit: 2, Drops: 3,
			})
			for range 2 {
				c := h.container()
				wantOpen(t, c, tt.want...)
				var want []ListenQueue
				if tt.queue {
					want = []ListenQueue{{ListenAddr: tt.addr, Open: true, Overflows: 3, Queue: 1, Limit: 2}}
				}
				if tt.queue && tt.addr == "" {
					want[0].ListenAddr = OtherDestination
				}
				if diff := cmp.Diff(want, c.Queues); diff != "" {
					t.Errorf("queues (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// The process that called listen() has handed its socket over and ended: others of the container know the addresses, too.
func TestAddressesOfAnotherProcess(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	id := h.cgroup("docker/"+hexA, 0)
	h.process(100, "other", "10.0.0.6") // has moved, or its id came again
	h.process(102, "own", "10.0.0.7")
	h.write("docker/"+hexA+"/cgroup.procs", "101\n100\n102\n")
	l := bpf.Listener{CgroupV2: id, NetNS: h.netns("own"), Addr: addrPort("0.0.0.0:80"), TGID: 100, Open: 1}
	h.kernel.listen(l)
	wantOpen(t, h.container(), "10.0.0.7:80")
	h.process(102, "own", "10.0.0.8")
	wantOpen(t, h.container(), "10.0.0.7:80") // not asked again so soon
	h.pass(addressesLast + time.Second)
	wantOpen(t, h.container(), "10.0.0.8:80")
	h.exit(102)
	h.pass(addressesLast + time.Second)
	wantOpen(t, h.container(), "10.0.0.8:80") // nobody is left who could be asked
}

func TestListenerClosesAndComesBack(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	id := h.cgroup("docker/"+hexA, 0)
	h.process(100, "own", "10.0.0.7")
	l := bpf.Listener{CgroupV2: id, NetNS: h.netns("own"), Addr: addrPort("0.0.0.0:80"), TGID: 100, Open: 1}
	check := func(when string, open bool, life Lifetime) {
		t.Helper()
		c := h.container()
		wantL := []Listener{{ListenAddr: "10.0.0.7:80", Lifetime: life, Open: open}}
		wantQ := []ListenQueue{{ListenAddr: "0.0.0.0:80", Lifetime: life, Open: open}}
		if diff := cmp.Diff(wantL, c.Listeners) + cmp.Diff(wantQ, c.Queues); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	h.kernel.listen(l)
	check("open", true, Lifetime{})
	h.later(2 * idle)
	check("open for long", true, Lifetime{})
	l.Open = 0
	h.kernel.listen(l)
	h.exit(100)
	check("closed", false, Lifetime{})
	h.later(idle - time.Second)
	if n := h.kernelListeners(); n != 0 {
		t.Errorf("%d left in the kernel's table", n)
	}
	check("closed for long", false, Lifetime{})
	l.Open = 1
	h.process(100, "own", "10.0.0.7")
	h.kernel.listen(l)
	check("open again", true, Lifetime{})
	l.Open = 0
	h.kernel.listen(l)
	check("closed again", false, Lifetime{})
	h.later(idle + cleanEvery)
	check("ended", false, Lifetime{Ended: true})
	h.later(keep + cleanEvery)
	if c := h.container(); len(c.Listeners)+len(c.Queues) != 0 {
		t.Fatalf("not forgotten: %+v", c)
	}
	forgotten := h.inv.now()
	h.later(time.Minute)
	l.Open = 1
	h.kernel.listen(l)
	c := h.container()
	wantOpen(t, c, "10.0.0.7:80")
	for _, life := range []Lifetime{c.Listeners[0].Lifetime, c.Queues[0].Lifetime} {
		if life.Ended || life.Start.After(forgotten) || life.Start.Before(forgotten.Add(-cleanEvery)) {
			t.Errorf("lifetime %+v, want a start at %v", life, forgotten)
		}
	}
}

func (h *testHost) kernelListeners() int {
	h.kernel.mu.Lock()
	defer h.kernel.mu.Unlock()
	return len(h.kernel.listeners)
}

func TestListenersOfAContainerThatIsGone(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	id := h.cgroup("docker/"+hexA, 0)
	l := bpf.Listener{CgroupV2: id, NetNS: h.netns("own"), Addr: addrPort("10.0.0.7:80"), Open: 1}
	h.kernel.listen(l)
	h.container()
	h.remove("docker/" + hexA) // and the close of the socket was not seen yet
	c := h.container()
	if len(c.Listeners) != 1 || c.Listeners[0].Open || len(c.Queues) != 1 || c.Queues[0].Open {
		t.Errorf("got %+v, %+v, want them closed", c.Listeners, c.Queues)
	}
}

func TestListenersPastTheLimit(t *testing.T) {
	const limit, all = 100, 5000
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, MaxListeners: limit, EphemeralPorts: PortRange{Set: true}}})
	id := h.cgroup("docker/"+hexA, 0)
	var want uint64
	h.kernel.mu.Lock()
	for i := range uint16(all) {
		h.kernel.listeners = append(h.kernel.listeners, bpf.Listener{
			CgroupV2: id, NetNS: 7, Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.7"), 1+i), Open: 1, Drops: uint64(i), Queue: 1, QueueLimit: 2,
		})
		want += uint64(i)
	}
	h.kernel.mu.Unlock()
	for range 3 {
		c := h.container()
		if len(c.Listeners) > limit+1 || len(c.Queues) > limit+1 {
			t.Fatalf("%d listeners and %d queues, want at most %d", len(c.Listeners), len(c.Queues), limit+1)
		}
		var drops, queue, most uint64
		for _, q := range c.Queues {
			drops, queue, most = drops+q.Overflows, queue+q.Queue, most+q.Limit
		}
		if drops != want || queue != all || most != 2*all {
			t.Errorf("%d drops, %d in queues of %d, want %d, %d and %d", drops, queue, most, want, all, 2*all)
		}
		if !slices.Contains(openAddrs(c), OtherDestination) {
			t.Errorf("no %s", OtherDestination)
		}
	}
}

// Sockets of one port, in several namespaces or cgroups of one container, are one queue.
func TestQueuesOfOnePortAreSummed(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	id := h.cgroup("docker/"+hexA, 0)
	sub := h.cgroup("docker/"+hexA+"/sub", 0)
	h.kernel.listen(
		// SO_REUSEPORT: the kernel's table has all sockets of a cgroup in one entry.
		bpf.Listener{CgroupV2: id, NetNS: 7, Addr: addrPort("10.0.0.7:80"), Open: 4, Queue: 3, QueueLimit: 400, Drops: 5},
		bpf.Listener{CgroupV2: sub, NetNS: 7, Addr: addrPort("10.0.0.7:80"), Open: 1, Queue: 10, QueueLimit: 100, Drops: 50},
		bpf.Listener{CgroupV2: sub, NetNS: 8, Addr: addrPort("10.0.0.7:80"), Open: 0, Drops: 500},
	)
	want := []ListenQueue{{ListenAddr: "10.0.0.7:80", Open: true, Overflows: 555, Queue: 13, Limit: 500}}
	c := h.container()
	if diff := cmp.Diff(want, c.Queues); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantOpen(t, c, "10.0.0.7:80")
}

func overflows(c Container) map[string]uint64 {
	m := map[string]uint64{}
	for _, q := range c.Queues {
		m[q.ListenAddr] += q.Overflows
	}
	return m
}

func TestOverflowsPastTakeListener(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	id := h.cgroup("docker/"+hexA, 0)
	l := bpf.Listener{CgroupV2: id, NetNS: 7, Addr: addrPort("10.0.0.7:80"), Drops: 5}
	h.kernel.listen(l)
	check := func(when string, want uint64) {
		t.Helper()
		if diff := cmp.Diff(map[string]uint64{"10.0.0.7:80": want}, overflows(h.container())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("closed", 5)
	h.later(keep + cleanEvery)
	if n := h.kernelListeners(); n != 0 {
		t.Fatalf("%d left in the kernel's table", n)
	}
	h.kernel.set(errors.New("no"))
	check("taken, and the next pass fails", 5)
	h.kernel.set(nil)
	check("taken", 5)

	h.kernel.listen(l)
	check("closed again", 10)
	h.kernel.mu.Lock()
	h.kernel.onClose = func(l *bpf.Listener) { l.Open, l.Drops = 1, l.Drops+1 } // somebody listens between pass and Take
	h.kernel.mu.Unlock()
	h.later(keep + cleanEvery)
	h.kernel.mu.Lock()
	h.kernel.onClose = nil
	h.kernel.mu.Unlock()
	check("listens again just then", 11)
	wantOpen(t, h.container(), "10.0.0.7:80")
	if n := h.kernelListeners(); n != 1 {
		t.Errorf("%d in the kernel's table, want the open one", n)
	}
}

// As with edges, what the sum has got stays there.
func TestOverflowsOfOthersDoNotGoBack(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle, MaxListeners: 2}})
	id := h.cgroup("docker/"+hexA, 0)
	listen := func(addr string, open int64, drops uint64) {
		h.kernel.listen(bpf.Listener{CgroupV2: id, NetNS: 7, Addr: addrPort(addr), Open: open, Drops: drops})
	}
	listen("10.0.0.7:81", 0, 1)
	listen("10.0.0.7:82", 0, 2)
	h.container()
	listen("10.0.0.7:83", 1, 4) // past the limit, and stays
	h.container()
	h.later(idle + keep + 2*cleanEvery)
	if diff := cmp.Diff(map[string]uint64{OtherDestination: 4, "10.0.0.7:83": 0}, overflows(h.container())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	listen("10.0.0.7:83", 0, 5)
	h.later(keep + cleanEvery)
	if diff := cmp.Diff(map[string]uint64{OtherDestination: 4, "10.0.0.7:83": 1}, overflows(h.container())); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
}

// Listeners that are not given are no part of the sum either when they leave the kernel's table.
func TestOverflowsOfWhatIsNotGiven(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	id := h.cgroup("docker/"+hexA, 0)
	h.kernel.listen(
		bpf.Listener{CgroupV2: id, NetNS: 7, Open: 1, Drops: 1}, // overflow of the kernel's table
		bpf.Listener{CgroupV2: id, NetNS: 7, Addr: addrPort("127.0.0.1:80"), Drops: 10},
		bpf.Listener{CgroupV2: id, NetNS: 7, Addr: addrPort("10.0.0.7:50000"), Drops: 100},
	)
	h.container()
	h.later(keep + cleanEvery)
	if n := h.kernelListeners(); n != 1 {
		t.Fatalf("%d left in the kernel's table, want the open one", n)
	}
	if diff := cmp.Diff(map[string]uint64{OtherDestination: 1}, overflows(h.container())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// proxyLine is the command line of Docker's proxy.
func proxyLine(hostPort int, container string) string {
	to := netip.MustParseAddrPort(container)
	words := []string{
		"/usr/bin/docker-proxy", "-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", fmt.Sprint(hostPort),
		"-container-ip", to.Addr().String(), "-container-port", fmt.Sprint(to.Port()), "-use-listen-fd",
	}
	return strings.Join(words, "\x00") + "\x00"
}

func TestPublishedPorts(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true, IdleTimeout: idle}})
	server, docker := h.cgroup("docker/"+hexA, 0), h.cgroup("system.slice/docker.service", 0)
	h.process(1, hostNS, "192.0.2.1")
	h.process(100, "own", "172.17.0.2")
	h.process(200, hostNS, "192.0.2.1")
	h.procFile(200, "cmdline", proxyLine(8081, "172.17.0.2:80"))
	h.process(201, hostNS, "192.0.2.1")
	h.procFile(201, "cmdline", "/usr/bin/dockerd\x00")
	host, own := h.netns(hostNS), h.netns("own")

	proxy := bpf.Listener{CgroupV2: docker, NetNS: host, Addr: addrPort("0.0.0.0:8081"), TGID: 200, Open: 1, QueueLimit: 9}
	h.kernel.listen(proxy, bpf.Listener{CgroupV2: docker, NetNS: host, Addr: addrPort("0.0.0.0:2375"), TGID: 201, Open: 1})
	both := func() (server, docker Container) {
		t.Helper()
		got := h.snapshot()
		return got["/docker/"+hexA], got["/system.slice/docker.service"]
	}
	s, d := both()
	wantOpen(t, s) // nobody listens behind it
	wantOpen(t, d, "127.0.0.1:2375", "192.0.2.1:2375")

	h.kernel.listen(bpf.Listener{CgroupV2: server, NetNS: own, Addr: addrPort("0.0.0.0:80"), TGID: 100, Open: 1})
	s, d = both()
	wantOpen(t, s, "172.17.0.2:80", "127.0.0.1:8081dockerd", "192.0.2.1:8081dockerd")
	wantOpen(t, d, "127.0.0.1:2375", "192.0.2.1:2375")
	if len(s.Queues) != 1 || s.Queues[0].ListenAddr != "0.0.0.0:80" || len(d.Queues) != 1 {
		t.Errorf("queues %+v and %+v: that of the proxy is nobody's", s.Queues, d.Queues)
	}

	proxy.Open = 0
	h.kernel.listen(proxy)
	h.exit(200)
	s, _ = both()
	wantOpen(t, s, "172.17.0.2:80")
	if n := len(s.Listeners); n != 3 {
		t.Errorf("%d listeners, want the two closed ones as well", n)
	}
	h.later(idle + cleanEvery)
	s, d = both()
	for _, l := range s.Listeners {
		if l.Ended != (l.Proxy != "") {
			t.Errorf("got %+v", l)
		}
	}
	for _, l := range d.Listeners {
		if !l.Open {
			t.Errorf("the proxy's port has come to %+v", l)
		}
	}
}

// The id of a proxy that has ended comes again.
func TestProxyIsAskedAnewWhenItsIDComesAgain(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{Enabled: true}})
	server := h.cgroup("docker/"+hexA, 0)
	h.process(1, hostNS)
	h.process(200, hostNS)
	h.procFile(200, "cmdline", proxyLine(8081, "172.17.0.2:80"))
	host := h.netns(hostNS)
	target := bpf.Listener{CgroupV2: server, NetNS: h.netns("own"), Addr: addrPort("172.17.0.2:80"), Open: 1}
	h.kernel.listen(target, bpf.Listener{CgroupV2: 1 << 40, NetNS: host, Addr: addrPort("0.0.0.0:8081"), TGID: 200, Open: 1})
	wantOpen(t, h.container(), "172.17.0.2:80", "127.0.0.1:8081dockerd")
	h.kernel.mu.Lock()
	h.kernel.listeners = h.kernel.listeners[:1]
	h.kernel.mu.Unlock()
	wantOpen(t, h.container(), "172.17.0.2:80")
	h.procFile(200, "cmdline", "something\x00else\x00")
	h.kernel.listen(bpf.Listener{CgroupV2: 1 << 40, NetNS: host, Addr: addrPort("0.0.0.0:8082"), TGID: 200, Open: 1})
	wantOpen(t, h.container(), "172.17.0.2:80")
}

func TestParseDockerProxy(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     string // "" for no proxy
	}{
		{name: "IPv4", in: proxyLine(8081, "172.17.0.2:80"), want: "172.17.0.2:80"},
		{name: "IPv6", in: proxyLine(8081, "[fd00::2]:80"), want: "[fd00::2]:80"},
		{name: "without a path", in: strings.TrimPrefix(proxyLine(1, "10.0.0.1:1"), "/usr/bin/"), want: "10.0.0.1:1"},
		{name: "without the last NUL", in: strings.TrimSuffix(proxyLine(1, "10.0.0.1:1"), "\x00"), want: "10.0.0.1:1"},
		{name: "listening socket given first", in: strings.Replace(proxyLine(1, "10.0.0.1:1"), "\x00", "\x00-use-listen-fd\x00", 1), want: "10.0.0.1:1"},
		{name: "UDP", in: strings.Replace(proxyLine(1, "10.0.0.1:1"), "tcp", "udp", 1)},
		{name: "another program", in: strings.Replace(proxyLine(1, "10.0.0.1:1"), "docker-proxy", "docker-proxy2", 1)},
		{name: "no port", in: "docker-proxy\x00-proto\x00tcp\x00-container-ip\x0010.0.0.1\x00"},
		{name: "port 0", in: strings.Replace(proxyLine(1, "10.0.0.1:99"), "99", "0", 1)},
		{name: "port too large", in: strings.Replace(proxyLine(1, "10.0.0.1:99"), "99", "65536", 1)},
		{name: "no address", in: "docker-proxy\x00-proto\x00tcp\x00-container-port\x001\x00"},
		{name: "bad address", in: strings.Replace(proxyLine(1, "10.0.0.1:1"), "10.0.0.1", "10.0.0.1.1", 1)},
		{name: "flag without a value", in: "docker-proxy\x00-proto\x00"},
		{name: "name alone", in: "docker-proxy\x00"},
		{name: "empty"},
		{name: "NULs", in: "\x00\x00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := parseDockerProxy([]byte(tt.in))
			if (got == nil) != (tt.want == "") || got != nil && got.to.String() != tt.want {
				t.Errorf("got %v, want %q", got, tt.want)
			}
		})
	}
}

func FuzzParseDockerProxy(f *testing.F) {
	f.Add([]byte(proxyLine(8081, "172.17.0.2:80")))
	f.Add([]byte(proxyLine(1, "[fd00::2]:65535")))
	f.Add([]byte("docker-proxy\x00--container-ip\x00-\x00-\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p := parseDockerProxy(b); p != nil && (!p.to.IsValid() || p.to.Port() == 0) {
			t.Errorf("got %v", p.to)
		}
	})
}
