// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childServers are the listening sockets of a child.
type childServers struct{ fds []int }

// run listens with a backlog of n on addr and returns the port. serve sends back what it reads, listen does nothing.
func (s *childServers) run(verb string, n int, addr string) (port, failed int) {
	if verb == "unserve" {
		for _, fd := range s.fds {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR) // wakes up accept()
			_ = unix.Close(fd)
		}
		s.fds = nil
		return 0, 0
	}
	fd, port, err := listenOn(netip.MustParseAddrPort(addr), n)
	if err != nil {
		return 0, 1
	}
	s.fds = append(s.fds, fd)
	if verb == "serve" {
		go echoOn(fd)
	}
	return port, 0
}

func listenOn(addr netip.AddrPort, backlog int) (fd, port int, err error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err = unix.Bind(fd, sa); err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	bound, _ := unix.Getsockname(fd)
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		port = b.Port
	case *unix.SockaddrInet6:
		port = b.Port
	}
	return fd, port, nil
}

func echoOn(fd int) {
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		go func() {
			defer unix.Close(c)
			buf := make([]byte, 4096)
			for {
				n, err := unix.Read(c, buf)
				if err != nil || n == 0 {
					return
				}
				for b := buf[:n]; len(b) > 0; {
					w, err := unix.Write(c, b)
					if err != nil {
						return
					}
					b = b[w:]
				}
			}
		}()
	}
}

// serve makes a child listen and returns the address under which it is reached.
func (c *child) serve(verb string, backlog int, addr string) netip.AddrPort {
	c.t.Helper()
	var port, failed int
	if _, err := fmtSscan(c.do("%s %d %s", verb, backlog, addr), &port, &failed); err != nil || failed != 0 {
		c.t.Fatalf("%s %s: %v", verb, addr, err)
	}
	at := netip.MustParseAddrPort(addr)
	host := at.Addr()
	switch {
	case host == netip.IPv4Unspecified():
		host = netip.MustParseAddr("127.0.0.1")
	case host == netip.IPv6Unspecified():
		host = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(host, uint16(port))
}

// inboundOf returns what others began with one cgroup, by local address.
func inboundOf(t *testing.T, tr *Tracer, c cgroup) map[netip.AddrPort]Edge {
	t.Helper()
	m := map[netip.AddrPort]Edge{}
	if err := tr.EachEdge(func(e *Edge) {
		if e.CgroupV2 == c.v2 && e.CgroupV1 == c.v1 && e.Inbound {
			m[e.Local] = *e
		}
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

func listenersOf(t *testing.T, tr *Tracer, c cgroup) map[netip.AddrPort]Listener {
	t.Helper()
	m := map[netip.AddrPort]Listener{}
	if err := tr.Read(Pass{Listener: func(l *Listener) {
		if l.CgroupV2 == c.v2 && l.CgroupV1 == c.v1 {
			m[l.Addr] = *l
		}
	}}); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestInboundBelongsToTheListener(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	server := h.makeCgroup(t, "server")
	ch := startChild(t, server)
	for _, addr := range []string{"0.0.0.0:0", "127.0.0.1:0", "[::]:0", "[::1]:0"} {
		at := ch.serve("serve", 16, addr)
		var conns []net.Conn
		for range 5 {
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			msg := []byte("seven b")
			if _, err := c.Write(msg); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, msg); err != nil {
				t.Fatal(err)
			}
		}
		e := inboundOf(t, tr, server)[at]
		if e.Connects != 5 || e.Active != 5 || e.BytesReceived != 35 || e.BytesSent != 35 {
			t.Errorf("%s: %d accepted, %d active, %d/%d bytes; want 5, 5, 35/35", addr, e.Connects, e.Active, e.BytesReceived, e.BytesSent)
		}
		for _, c := range conns {
			_ = c.Close()
		}
		eventually(t, "connections closed", func() bool { return inboundOf(t, tr, server)[at].Active == 0 })
		e = inboundOf(t, tr, server)[at]
		if e.Connects != 5 || e.BytesReceived != 35 || e.BytesSent != 35 || e.ConnectTime != 0 {
			t.Errorf("%s: closed: %+v", addr, e)
		}
	}
}

func TestInboundIsCountedUnderLoad(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	server, client := h.makeCgroup(t, "server"), h.makeCgroup(t, "client")
	srv, cli := startChild(t, server), startChild(t, client)
	at := srv.serve("serve", 1024, "127.0.0.1:0")
	var made, failed uint64
	if _, err := fmtSscan(cli.do("connect 3000 %s", at), &made, &failed); err != nil || made < 2900 {
		t.Fatalf("connected %d: %v", made, err) // on a busy machine one may take longer than its time
	}
	eventually(t, "all closed", func() bool { return inboundOf(t, tr, server)[at].Active == 0 })
	in, out := inboundOf(t, tr, server)[at], edgesOf(t, tr, client)[at]
	if in.Connects < made || out.Connects != made || out.FailedTotal() != failed {
		t.Errorf("accepted %d, connected %d, failed %d, want %d, %d, %d", in.Connects, out.Connects, out.FailedTotal(), made, made, failed)
	}
}

func TestListenersOpenAndClose(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "listen")
	ch := startChild(t, c)
	at := ch.serve("listen", 7, "0.0.0.0:0")
	wild := netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())

	l := listenersOf(t, tr, c)[wild]
	if l.Open != 1 || l.QueueLimit != 7 || l.Queue != 0 || l.TGID != ch.cmd.Process.Pid {
		t.Errorf("got %+v", l)
	}
	var ports ListenedPorts
	if err := tr.Listened(&ports); err != nil || !ports.Has(at.Port()) {
		t.Errorf("port %d is not among those listened on: %v", at.Port(), err)
	}
	for range 3 {
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if l := listenersOf(t, tr, c)[wild]; l.Queue != 3 {
		t.Errorf("3 wait for accept(): queue is %d", l.Queue)
	}
	// Another socket on the same port.
	second := ch.serve("listen", 5, wild.String())
	if l := listenersOf(t, tr, c)[wild]; second.Port() != at.Port() || l.Open != 2 || l.QueueLimit != 12 {
		t.Errorf("two sockets: %+v", l)
	}
	ch.do("unserve 0")
	if l := listenersOf(t, tr, c)[wild]; l.Open != 0 || l.Queue != 0 || l.QueueLimit != 0 {
		t.Errorf("closed: %+v", l)
	}
	gone := listenersOf(t, tr, c)[wild]
	if err := tr.TakeListener(&gone); err != nil {
		t.Fatal(err)
	}
	if len(listenersOf(t, tr, c)) != 0 {
		t.Error("still there after TakeListener")
	}
	// A killed process.
	ch.serve("listen", 7, "127.0.0.1:0")
	ch.kill()
	eventually(t, "closed by the end of the process", func() bool {
		for _, l := range listenersOf(t, tr, c) {
			if l.Open != 0 {
				return false
			}
		}
		return true
	})
}

func TestListenWithoutBindHasItsPort(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	port := uint16(sa.(*unix.SockaddrInet4).Port)
	var found bool
	for range 2 {
		if err := tr.Read(Pass{Listener: func(l *Listener) { found = found || l.Addr.Port() == port && l.Open == 1 }}); err != nil {
			t.Fatal(err)
		}
	}
	if !found && !ownedByHost(t) {
		t.Errorf("no listener on port %d", port)
	}
}

// ownedByHost tells whether this process is in the root of all hierarchies, which is not counted.
func ownedByHost(t *testing.T) bool {
	t.Helper()
	for _, line := range cgroupLines(t) {
		if line != "/" {
			return false
		}
	}
	return true
}

func TestFullAcceptQueueOverflows(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "overflow")
	ch := startChild(t, c)
	at := ch.serve("listen", 1, "127.0.0.1:0") // room for two
	for range 6 {
		conn, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
		if err == nil {
			defer conn.Close()
		}
	}
	l := listenersOf(t, tr, c)[at]
	if l.Queue != 2 || l.QueueLimit != 1 || l.Drops < 4 {
		t.Errorf("got queue %d of %d, %d drops; want 2 of 1 and at least 4", l.Queue, l.QueueLimit, l.Drops)
	}
	ch.do("unserve 0")
	if closed := listenersOf(t, tr, c)[at]; closed.Drops < l.Drops || closed.Queue != 0 {
		t.Errorf("closed: %+v", closed)
	}
}

func TestManyListenersFoldIntoOne(t *testing.T) {
	h := findHost(t)
	const max, n = 8, 30
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true, MaxListeners: max})
	c := h.makeCgroup(t, "many")
	ch := startChild(t, c)
	for range n {
		ch.serve("listen", 1, "127.0.0.1:0")
	}
	var open int64
	all := listenersOf(t, tr, c)
	for _, l := range all {
		open += l.Open
	}
	if open != n || len(all) > max+1 {
		t.Errorf("%d open in %d entries, want %d in at most %d", open, len(all), n, max+1)
	}
	if s := tr.Stats(); s.ListenersFolded == 0 || s.ListenersMax != max {
		t.Errorf("stats %+v", s)
	}
	ch.do("unserve 0")
	for addr, l := range listenersOf(t, tr, c) {
		if l.Open != 0 {
			t.Errorf("%s: %d open after all were closed", addr, l.Open)
		}
	}
}
