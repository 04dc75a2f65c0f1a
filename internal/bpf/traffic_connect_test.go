// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// exchange sends and receives over a connection and closes it. before is what the edge has at the start, Active included.
func (c *conn) exchange(dst netip.AddrPort, before counts) (after counts) {
	c.x.t.Helper()
	want := before
	want.Sent += 10_001
	c.send(10_001, "write", dst, want)
	want.Received += 20_001
	c.receive(20_001, "read", dst, want)
	c.x.ch.call("end %d", c.fd)
	want.Active--
	c.x.settles("closed", dst, want)
	c.peer.awaitEOF()
	return want
}

func TestEveryKindOfConnect(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})

	for _, how := range []string{"poll", "uring", "uring-worker", "uring-sqpoll"} {
		for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(how+" "+listen, func(t *testing.T) {
				x := newTraffic(t, h, tr)
				if strings.HasPrefix(how, "uring") {
					skipWithoutURing(t, x, how)
				}
				p := listenPeer(t, listen)
				c := x.open(p, p.addr, how)
				want := counts{Connects: 1, Active: 1}
				x.settles("connected", p.addr, want)
				c.exchange(p.addr, want)
			})
		}
	}

	t.Run("again after a failure", func(t *testing.T) {
		x := newTraffic(t, h, tr)
		p, nobody := listenPeer(t, ""), closedPort(t)
		c := &conn{x: x, fd: x.ch.call("socket %s", p.addr)}
		for range 2 {
			if _, errno := x.ch.ask("dial %d %s plain", c.fd, nobody)(); !errors.Is(errno, unix.ECONNREFUSED) {
				t.Fatal(errno)
			}
		}
		x.ch.call("dial %d %s plain", c.fd, p.addr)
		c.peer = p.accept()
		want := counts{Connects: 1, Active: 1}
		x.settles("connected", p.addr, want)
		c.exchange(p.addr, want)
		x.settles("refused", nobody, counts{})
	})

	t.Run("again after a disconnect", func(t *testing.T) {
		x := newTraffic(t, h, tr)
		peers := []*peer{listenPeer(t, ""), listenPeer(t, "")}
		fd := x.ch.call("socket %s", peers[0].addr)
		want := make([]counts, len(peers))
		for i := range 6 {
			p, w := peers[i/2%2], &want[i/2%2]
			x.ch.call("dial %d %s plain", fd, p.addr)
			c := &conn{x: x, fd: fd, peer: p.accept()}
			w.Connects, w.Active = w.Connects+1, 1
			x.settles("connected", p.addr, *w)
			w.Sent += 1001
			c.send(1001, "write", p.addr, *w)
			w.Received += 501
			c.receive(501, "read", p.addr, *w)
			x.ch.call("undial %d", fd)
			w.Active = 0
			x.settles("disconnected", p.addr, *w)
		}
		x.ch.call("end %d", fd)
		for i, p := range peers {
			x.settles("closed", p.addr, want[i])
		}
	})

	t.Run("to itself", func(t *testing.T) { // both ends of a simultaneous open are one socket
		x := newTraffic(t, h, tr)
		fd := x.ch.call("socket 127.0.0.1:0")
		self := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(x.ch.call("bind %d 0", fd)))
		x.ch.call("dial %d %s plain", fd, self)
		x.settles("connected", self, counts{Connects: 1, Active: 1})
		x.ch.call("send %d 1001 write", fd)
		x.settles("sent", self, counts{Connects: 1, Active: 1, Sent: 1001, Received: 1001})
		x.ch.call("receive %d 1001 read", fd)
		x.ch.call("end %d", fd)
		x.settles("closed", self, counts{Connects: 1, Sent: 1001, Received: 1001})
	})

	t.Run("one source port, two destinations", func(t *testing.T) {
		x := newTraffic(t, h, tr)
		a, b := listenPeer(t, ""), listenPeer(t, "")
		const ports = 50
		var conns []*conn
		for range ports {
			port := 0
			for _, p := range []*peer{a, b} {
				fd := x.ch.call("socket %s", p.addr)
				port = x.ch.call("bind %d %d", fd, port)
				x.ch.call("dial %d %s plain", fd, p.addr)
				c := &conn{x: x, fd: fd, peer: p.accept()}
				if from := c.peer.RemoteAddr().(*net.TCPAddr).Port; from != port {
					t.Fatalf("from port %d, want %d", from, port)
				}
				x.ch.call("send %d %d write", fd, port)
				c.peer.write(port % 1000)
				conns = append(conns, c)
			}
		}
		var sum counts // of each of the two
		for i, c := range conns {
			port := c.peer.RemoteAddr().(*net.TCPAddr).Port
			x.ch.call("receive %d %d read", c.fd, port%1000)
			c.peer.await(uint64(port))
			if i%2 == 0 {
				sum.Connects, sum.Active = sum.Connects+1, sum.Active+1
				sum.Sent, sum.Received = sum.Sent+c.peer.received(), sum.Received+c.peer.sent()
			}
		}
		x.settles("all open", a.addr, sum)
		x.settles("all open", b.addr, sum)
		x.ch.kill()
		sum.Active = 0
		x.settles("all closed", a.addr, sum)
		x.settles("all closed", b.addr, sum)
	})

	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run("MPTCP "+listen, func(t *testing.T) { multipath(t, newTraffic(t, h, tr), listen) })
	}

	t.Run("slow", func(t *testing.T) {
		for _, how := range []string{"poll", "interrupted", "restarted"} {
			t.Run(how, func(t *testing.T) {
				t.Parallel() // each waits a second for the kernel to send its SYN again
				slowHandshake(t, newTraffic(t, h, tr), how)
			})
		}
	})
}

func multipath(t *testing.T, x *traffic, listen string) {
	lc := &net.ListenConfig{}
	lc.SetMultipathTCP(true)
	p := listenWith(t, lc, listen)
	fd, errno := x.ch.ask("open %s mptcp", p.addr)()
	if errors.Is(errno, unix.EPROTONOSUPPORT) || errors.Is(errno, unix.ENOPROTOOPT) {
		t.Skipf("no MPTCP: %v", errno)
	}
	if errno != 0 {
		t.Fatal(errno)
	}
	c := &conn{x: x, fd: fd, peer: p.accept()}
	if multi, err := c.peer.MultipathTCP(); err != nil || !multi {
		t.Fatalf("fell back to TCP: %v", err)
	}
	want := counts{Connects: 1, Active: 1}
	x.settles("connected", p.addr, want)
	want.Sent = 10_001
	c.send(10_001, "write", p.addr, want)
	want.Received = 20_001
	c.receive(20_001, "read", p.addr, want)
	x.ch.call("end %d", c.fd)
	c.peer.awaitEOF()
	c.peer.Close() // until then the TCP connection below stays as it was
	want.Active = 0
	x.settles("closed by both", p.addr, want)
}

// slowHandshake connects to a listener that does not answer the first SYN.
func slowHandshake(t *testing.T, x *traffic, how string) {
	p, filler := fullPeer(t)
	answer := x.ch.ask("open %s %s", p.addr, how)
	eventually(t, "a SYN is sent", func() bool { return connecting(t, p.addr) })
	x.settles("unanswered", p.addr, counts{})
	filler.Close()
	p.accept().Close()
	fd, errno := answer()
	if errno != 0 {
		t.Fatal(errno)
	}
	c := &conn{x: x, fd: fd, peer: p.accept()}
	want := counts{Connects: 1, Active: 1}
	x.settles("connected", p.addr, want)
	if e := edgesOf(t, x.tr, x.c)[p.addr]; e.ConnectTime < 500*time.Millisecond || e.ConnectTime > 10*time.Second {
		t.Errorf("connect time %v, want about a second", e.ConnectTime)
	}
	c.exchange(p.addr, want)
}

// fullPeer listens with an accept queue that one connection has filled: the kernel drops SYNs until that is accepted.
func fullPeer(t *testing.T) (*peer, net.Conn) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	filler, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { filler.Close() })
	return &peer{t: t, l: l.(*net.TCPListener), addr: netip.MustParseAddrPort(l.Addr().String())}, filler
}

// connecting tells whether some socket is in SYN_SENT to an address of 127.0.0.1.
func connecting(t *testing.T, addr netip.AddrPort) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(table), fmt.Sprintf(" 0100007F:%04X 02 ", addr.Port())) // little endian only
}
