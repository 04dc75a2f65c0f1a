// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// traffic is one case: a child in a cgroup of its own and the peers that it talks to, which know the truth.
type traffic struct {
	t  *testing.T
	h  host
	tr *Tracer
	c  cgroup
	ch *child
}

func newTraffic(t *testing.T, h host, tr *Tracer) *traffic {
	t.Helper()
	c := h.makeCgroup(t, fmt.Sprintf("traffic-%d", time.Now().UnixNano()))
	return &traffic{t: t, h: h, tr: tr, c: c, ch: startChild(t, c)}
}

// reply is what runTraffic returned.
type reply struct {
	value int
	errno unix.Errno
	err   error // of the pipe
}

// begin sends a verb of runTraffic to the child, which will reply.
func (c *child) begin(verb string) <-chan reply {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in, verb); err != nil {
		c.t.Fatal(err)
	}
	replies := make(chan reply, 1)
	go func() {
		var r reply
		_, r.err = fmt.Fscanln(c.out, &r.value, &r.errno)
		replies <- r
	}()
	return replies
}

// ask is begin with a result that waits for the reply.
func (c *child) ask(format string, args ...any) (answer func() (int, unix.Errno)) {
	c.t.Helper()
	verb := fmt.Sprintf(format, args...)
	replies := c.begin(verb)
	return func() (int, unix.Errno) {
		c.t.Helper()
		select {
		case r := <-replies:
			if r.err != nil {
				c.t.Fatalf("%s: %v", verb, r.err)
			}
			return r.value, r.errno
		case <-time.After(2 * trafficTimeout):
			c.t.Fatalf("%s: no answer", verb)
			return 0, 0
		}
	}
}

// call is a verb that must succeed.
func (c *child) call(format string, args ...any) int {
	c.t.Helper()
	n, errno := c.ask(format, args...)()
	if errno != 0 {
		c.t.Fatalf("%s: %v", fmt.Sprintf(format, args...), errno)
	}
	return n
}

// counts is what must be exact of an edge.
type counts struct {
	Connects       uint64
	Active         int64
	Sent, Received uint64
}

func (x *traffic) counts(dst netip.AddrPort) counts {
	x.t.Helper()
	e := edgesOf(x.t, x.tr, x.c)[dst]
	return counts{e.Connects, e.Active, e.BytesSent, e.BytesReceived}
}

// settleTimeout is long enough for a packet to be lost seven times.
const settleTimeout = 30 * time.Second

// settles polls an edge until it is as wanted. No total may ever fall, be larger than that on the way, or change
// afterwards.
func (x *traffic) settles(when string, dst netip.AddrPort, want counts) {
	x.t.Helper()
	var was counts
	exact := 0
	for end := time.Now().Add(settleTimeout); exact < 3; {
		got := x.counts(dst)
		switch {
		case got.Connects > want.Connects || got.Sent > want.Sent || got.Received > want.Received:
			x.t.Fatalf("%s: too much (-want +got):\n%s", when, cmp.Diff(want, got))
		case got.Connects < was.Connects || got.Sent < was.Sent || got.Received < was.Received:
			x.t.Fatalf("%s: totals fell (-before +after):\n%s", when, cmp.Diff(was, got))
		case got == want:
			exact++
		case exact > 0:
			x.t.Fatalf("%s: did not stay (-want +got):\n%s", when, cmp.Diff(want, got))
		case time.Now().After(end):
			x.t.Fatalf("%s: not within %v (-want +got):\n%s", when, settleTimeout, cmp.Diff(want, got))
		default:
			time.Sleep(2 * time.Millisecond)
		}
		was = got
	}
}

// conn is a connection from the child, which knows it as fd, and its peer's end.
type conn struct {
	x    *traffic
	fd   int
	peer *peerConn
}

func (x *traffic) open(p *peer, dst netip.AddrPort, how string) *conn {
	x.t.Helper()
	return &conn{x: x, fd: x.ch.call("open %s %s", dst, how), peer: p.accept()}
}

// send has the child send n bytes, and watches the edge meanwhile. want is what it is afterwards.
func (c *conn) send(n int, how string, dst netip.AddrPort, want counts) {
	c.x.t.Helper()
	before := c.peer.received()
	answer := c.x.ch.ask("send %d %d %s", c.fd, n, how)
	c.x.settles("sending by "+how, dst, want)
	if _, errno := answer(); errno != 0 {
		c.x.t.Fatalf("send by %s: %v", how, errno)
	}
	c.peer.await(before + uint64(n))
}

// receive has the peer send n bytes to the child, and watches the edge meanwhile.
func (c *conn) receive(n int, how string, dst netip.AddrPort, want counts) {
	c.x.t.Helper()
	answer := c.x.ch.ask("receive %d %d %s", c.fd, n, how)
	if how == "oob" {
		c.peer.writeUrgent()
		n--
	}
	c.peer.write(n)
	c.x.settles("receiving by "+how, dst, want)
	if got, errno := answer(); errno != 0 {
		c.x.t.Fatalf("receive by %s: %d bytes, %v", how, got, errno)
	}
}

func TestBytesOfEveryKindOfCall(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for _, tt := range []struct {
		name          string
		send, receive string
		listen        string // 127.0.0.1:0
		mapped        bool   // from an IPv6 socket to an IPv4 address
		large         int    // bytes of the largest transfer each way
		slow          bool   // the peer reads slowly
		optional      bool   // not each kernel has it
	}{
		{name: "write and read", send: "write", receive: "read"},
		{name: "IPv6", send: "write", receive: "read", listen: "[::1]:0"},
		{name: "IPv4 mapped", send: "write", receive: "read", mapped: true},
		{name: "writev and readv", send: "writev", receive: "readv"},
		{name: "sendmmsg and recvmmsg", send: "sendmmsg", receive: "recvmmsg"},
		{name: "sendfile", send: "sendfile", receive: "read"},
		{name: "sendfile, IPv6", send: "sendfile", receive: "splice", listen: "[::1]:0"},
		{name: "splice", send: "splice", receive: "splice"},
		{name: "MSG_ZEROCOPY", send: "zerocopy", receive: "read"},
		{name: "MSG_MORE", send: "more", receive: "read"},
		{name: "MSG_PEEK", send: "write", receive: "peek"},
		{name: "MSG_TRUNC", send: "write", receive: "truncate"},
		{name: "MSG_OOB", send: "oob", receive: "oob"},
		{name: "short writes", send: "short", receive: "read", slow: true},
		{name: "io_uring", send: "uring", receive: "uring", optional: true},
		{name: "io_uring, worker", send: "uring-worker", receive: "uring-worker", optional: true},
		{name: "io_uring, SQPOLL", send: "uring-sqpoll", receive: "uring-sqpoll", optional: true},
		{name: "io_uring, zero copy", send: "uring-zerocopy", receive: "read", optional: true},
		{name: "64 MiB", send: "write", receive: "read", large: 64 << 20},
		{name: "64 MiB, sendfile and splice", send: "sendfile", receive: "splice", large: 64 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newTraffic(t, h, tr)
			p := listenPeer(t, tt.listen)
			p.slow = tt.slow
			dial := p.addr
			if tt.mapped {
				dial = netip.AddrPortFrom(netip.AddrFrom16(dial.Addr().As16()), dial.Port())
			}
			c := x.open(p, dial, "plain")
			if tt.optional {
				skipWithoutURing(t, x, tt.send)
			}
			want := counts{Connects: 1, Active: 1}
			x.settles("connected", p.addr, want)
			up, down := 150_001, 30_001
			if tt.large > 0 {
				up, down = tt.large, tt.large
			}
			if tt.slow {
				up = 60_001
			}
			for _, n := range []struct{ up, down int }{{2, 3}, {up, down}, {1001, 9}} {
				want.Sent += uint64(n.up)
				c.send(n.up, tt.send, p.addr, want)
				want.Received += uint64(n.down)
				c.receive(n.down, tt.receive, p.addr, want)
			}
			if sent, received := c.peer.received(), c.peer.sent(); sent != want.Sent || received != want.Received {
				t.Fatalf("the peer read %d and wrote %d, want %+v", sent, received, want)
			}
			x.ch.call("end %d", c.fd)
			want.Active = 0
			x.settles("closed", p.addr, want)
			c.peer.awaitEOF()
			c.peer.Close()
			x.settles("closed by both", p.addr, want)
		})
	}
}

// skipWithoutURing skips the test if io_uring, or the request that how needs, is not to be had here.
func skipWithoutURing(t *testing.T, x *traffic, how string) {
	t.Helper()
	p := listenPeer(t, "")
	fd := x.ch.call("open %s plain", p.addr)
	_, errno := x.ch.ask("send %d 1 %s", fd, how)()
	switch {
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EPERM):
		t.Skipf("no io_uring: %v (see kernel.io_uring_disabled)", errno)
	case errors.Is(errno, unix.EINVAL) && how == "uring-zerocopy":
		t.Skip("io_uring cannot send without copying: needs Linux 6.0")
	case errno != 0:
		t.Fatal(errno)
	}
	x.ch.call("end %d", fd)
}
