// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needTools skips the test where a program is missing: the test machine of other kernels has none.
func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s in PATH", tool)
		}
	}
}

// netns is a network namespace of the test's own. It vanishes with the test, and with what it holds.
type netns struct {
	t  *testing.T
	ns *os.File
}

// makeNetns makes a namespace with its loopback up.
func makeNetns(t *testing.T) *netns {
	t.Helper()
	n := &netns{t: t}
	apart(t, func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() {
		ns, err := os.Open(threadNetns)
		if err != nil {
			t.Fatal(err)
		}
		n.ns = ns
		t.Cleanup(func() { _ = ns.Close() })
		if err := raiseLoopback(); err != nil {
			t.Fatal(err)
		}
	})
	n.sysctl("ipv6/conf/default/accept_dad", "0") // an address is good at once
	return n
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

const threadNetns = "/proc/thread-self/ns/net"

// apart calls fn on a thread that enter has moved to another network namespace, and moves it back.
func apart(t *testing.T, enter func() error, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	own, err := os.Open(threadNetns)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = own.Close() }()
	if err := enter(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err) // the thread stays locked: nobody else gets it
			return
		}
		runtime.UnlockOSThread()
	}()
	fn()
}

// do calls fn in the namespace: sockets and processes that fn makes stay there.
func (n *netns) do(fn func()) {
	n.t.Helper()
	apart(n.t, func() error { return unix.Setns(int(n.ns.Fd()), unix.CLONE_NEWNET) }, fn)
}

// path is the namespace for other programs.
func (n *netns) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.ns.Fd()) }

// run runs a command line of plain words in the namespace.
func (n *netns) run(format string, args ...any) {
	n.t.Helper()
	line := append([]string{"--net=" + n.path(), "--"}, strings.Fields(fmt.Sprintf(format, args...))...)
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "nsenter", line...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(line, " "), err, out)
	}
}

// sysctl sets a value below net, of which each namespace has its own.
func (n *netns) sysctl(name, value string) {
	n.t.Helper()
	n.do(func() {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			n.t.Fatal(err)
		}
	})
}

// startChild starts a child in the namespace.
func (n *netns) startChild(t *testing.T, c cgroup) (ch *child) {
	t.Helper()
	n.do(func() { ch = startChild(t, c) })
	return ch
}

// inode is what Edge.NetNS says of the namespace.
func (n *netns) inode() uint32 {
	n.t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(n.ns.Fd()), &st); err != nil {
		n.t.Fatal(err)
	}
	return uint32(st.Ino)
}

// wire joins two namespaces by a link with an address, and its prefix length, at each end; an IPv6 network beside.
func wire(a *netns, addrA string, b *netns, addrB string, subnet byte) {
	a.t.Helper()
	left, right := fmt.Sprintf("to%da", subnet), fmt.Sprintf("to%db", subnet)
	a.run("ip link add %s type veth peer name %s netns %s", left, right, b.path())
	for _, end := range []struct {
		ns      *netns
		dev, v4 string
		host    int
	}{{a, left, addrA, 2}, {b, right, addrB, 1}} {
		end.ns.run("ip link set %s up", end.dev)
		end.ns.run("ip addr add %s dev %s", end.v4, end.dev)
		end.ns.run("ip addr add fd77:%d::%d/64 dev %s nodad", subnet, end.host, end.dev)
	}
}

// world is a client and a server with a router between them.
type world struct{ client, router, server *netns }

// Addresses of a world. The service has no host: only a rule makes it reachable.
const (
	addrService  = "10.96.0.10:80"
	addrService6 = "[fd96::10]:80"
	addrBackendA = "10.77.2.2:8080"
	addrBackendB = "10.77.2.3:8080"
	addrBackend6 = "[fd77:2::2]:8080"
	addrClosed   = "10.77.2.2:9"
	addrClosed6  = "[fd77:2::2]:9"
)

// makeWorld makes the namespaces, addresses and routes.
func makeWorld(t *testing.T) *world {
	t.Helper()
	needTools(t, "ip", "nsenter", "iptables", "ip6tables")
	w := &world{client: makeNetns(t), router: makeNetns(t), server: makeNetns(t)}
	wire(w.client, "10.77.1.2/24", w.router, "10.77.1.1/24", 1)
	wire(w.server, "10.77.2.2/24", w.router, "10.77.2.1/24", 2)
	w.server.run("ip addr add 10.77.2.3/24 dev to2a")
	w.router.sysctl("ipv4/ip_forward", "1")
	w.router.sysctl("ipv6/conf/all/forwarding", "1")
	for ns, subnet := range map[*netns]int{w.client: 1, w.server: 2} {
		ns.run("ip route add default via 10.77.%d.1", subnet)
		ns.run("ip -6 route add default via fd77:%d::1", subnet)
	}
	return w
}

// backend is a listener that counts what it accepts: the truth of where connections really went.
type backend struct {
	addr     netip.AddrPort
	accepted atomic.Uint64

	mu      sync.Mutex
	clients []netip.AddrPort // of those accepted, as seen here
}

func (b *backend) sources() []netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.clients)
}

// serve accepts on addr in the namespace until the test ends. It reads until the client closes.
func (n *netns) serve(t *testing.T, addr string) *backend {
	return n.serveWith(t, addr, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
}

// serveResets does the same, but resets each connection at once.
func (n *netns) serveResets(t *testing.T, addr string) *backend {
	return n.serveWith(t, addr, func(c *net.TCPConn) { _ = c.SetLinger(0) })
}

func (n *netns) serveWith(t *testing.T, addr string, use func(*net.TCPConn)) *backend {
	t.Helper()
	b := &backend{addr: netip.MustParseAddrPort(addr)}
	n.do(func() {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(b.addr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go b.accept(l, use)
	})
	return b
}

func (b *backend) accept(l *net.TCPListener, use func(*net.TCPConn)) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		b.mu.Lock()
		b.clients = append(b.clients, c.RemoteAddr().(*net.TCPAddr).AddrPort())
		b.mu.Unlock()
		b.accepted.Add(1)
		go func() {
			use(c)
			_ = c.Close()
		}()
	}
}

// wantAccepted waits until the backends have accepted so many connections, all together.
func wantAccepted(t *testing.T, want uint64, backends ...*backend) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d connections accepted", want), func() bool {
		var n uint64
		for _, b := range backends {
			n += b.accepted.Load()
		}
		return n == want
	})
}

// path is where connections went, as dialled and really.
type path struct{ Destination, Actual netip.AddrPort }

// plain is a path without translation.
func plain(addr string) path { return via(addr, addr) }

func via(destination, actual string) path {
	return path{netip.MustParseAddrPort(destination), netip.MustParseAddrPort(actual)}
}

// within waits for a condition and tells whether it came true.
func within(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

func (p path) String() string { return fmt.Sprintf("%v (%v)", p.Destination, p.Actual) }

// tally is what one cgroup did on one path. Failed leaves out reasons without a failure.
type tally struct {
	Connects uint64
	Active   int64
	Failed   failures
}

type failures map[Failure]uint64

// tallies returns what a cgroup did, over all network namespaces. Edges that nothing was counted in are left out.
func tallies(t *testing.T, tr *Tracer, c cgroup) map[path]tally {
	t.Helper()
	all := map[path]tally{}
	if err := tr.EachEdge(func(e *Edge) {
		if e.CgroupV2 != c.v2 || e.CgroupV1 != c.v1 || e.Inbound || e.Connects+e.FailedTotal() == 0 && e.Active == 0 {
			return
		}
		p := path{e.Destination, e.Actual}
		sum := all[p]
		sum.Connects += e.Connects
		sum.Active += e.Active
		for reason, n := range e.Failed {
			if n == 0 {
				continue
			}
			if sum.Failed == nil {
				sum.Failed = failures{}
			}
			sum.Failed[Failure(reason)] += n
		}
		all[p] = sum
	}); err != nil {
		t.Fatal(err)
	}
	return all
}
