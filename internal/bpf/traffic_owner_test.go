// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConnectionBelongsToItsConnector has descriptors wander: bytes and active stay with the cgroup that connected, until
// the last copy is closed.
func TestConnectionBelongsToItsConnector(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})

	t.Run("dup", func(t *testing.T) {
		x := newTraffic(t, h, tr)
		p := listenPeer(t, "")
		c := x.open(p, p.addr, "plain")
		twin := x.ch.call("dup %d", c.fd)
		x.ch.call("end %d", c.fd)
		want := counts{Connects: 1, Active: 1}
		x.settles("one copy closed", p.addr, want)
		c.fd = twin
		want.Sent = 1001
		c.send(1001, "write", p.addr, want)
		want.Received = 2001
		c.receive(2001, "read", p.addr, want)
		x.ch.call("end %d", twin)
		want.Active = 0
		x.settles("both copies closed", p.addr, want)
		c.peer.awaitEOF()
	})

	t.Run("passed to another cgroup", func(t *testing.T) {
		x, y := newTraffic(t, h, tr), newTraffic(t, h, tr)
		p := listenPeer(t, "")
		c := x.open(p, p.addr, "plain")
		inbox := fmt.Sprintf("@bpf-test-%d", os.Getpid())
		in := y.ch.call("inbox %s", inbox)
		x.ch.call("pass %d %s", c.fd, inbox)
		x.ch.call("end %d", c.fd) // no process has it now
		want := counts{Connects: 1, Active: 1}
		x.settles("on its way", p.addr, want)
		passed := &conn{x: &traffic{t: t, h: h, tr: tr, c: x.c, ch: y.ch}, fd: y.ch.call("take %d", in), peer: c.peer}
		x.ch.kill()
		x.settles("taken, its connector gone", p.addr, want)
		want.Sent = 10_001
		passed.send(10_001, "write", p.addr, want)
		want.Received = 20_001
		passed.receive(20_001, "read", p.addr, want)
		y.ch.call("end %d", passed.fd)
		want.Active = 0
		x.settles("last copy closed", p.addr, want)
		c.peer.awaitEOF()
		if e, ok := edgesOf(t, tr, y.c)[p.addr]; ok {
			t.Errorf("edge of the cgroup that was given the socket: %+v", e)
		}
	})

	t.Run("passed before it connects again", func(t *testing.T) {
		x, y := newTraffic(t, h, tr), newTraffic(t, h, tr)
		p, q := listenPeer(t, ""), listenPeer(t, "")
		c := x.open(p, p.addr, "plain")
		want := counts{Connects: 1, Active: 1, Sent: 1001}
		c.send(1001, "write", p.addr, want)
		x.ch.call("undial %d", c.fd)
		inbox := fmt.Sprintf("@bpf-test-%d", os.Getpid())
		in := y.ch.call("inbox %s", inbox)
		x.ch.call("pass %d %s", c.fd, inbox)
		second := &conn{x: y, fd: y.ch.call("take %d", in)}
		y.ch.call("dial %d %s plain", second.fd, q.addr)
		second.peer = q.accept()
		x.ch.call("end %d", c.fd)
		y.settles("connected", q.addr, counts{Connects: 1, Active: 1})
		second.exchange(q.addr, counts{Connects: 1, Active: 1})
		want.Active = 0
		x.settles("disconnected", p.addr, want)
		if e, ok := edgesOf(t, tr, x.c)[q.addr]; ok {
			t.Errorf("edge of the cgroup that gave the socket away: %+v", e)
		}
	})

	t.Run("inherited", func(t *testing.T) {
		x := newTraffic(t, h, tr)
		p := listenPeer(t, "")
		c := x.open(p, p.addr, "plain")
		heir := x.bequeath(c)
		want := counts{Connects: 1, Active: 1, Sent: 501}
		c.send(501, "write", p.addr, want)
		x.ch.kill()
		x.settles("its connector gone", p.addr, want)
		want.Sent += 1001
		heir.do("send 3 1001 write")
		x.settles("the heir has written", p.addr, want)
		c.peer.await(1502)
		want.Received = 2001
		heir.do("receive 3 2001 read")
		c.peer.write(2001)
		x.settles("the heir reads", p.addr, want)
		heir.kill()
		want.Active = 0
		x.settles("the heir was killed", p.addr, want)
		<-c.peer.ended
	})
}

// heir is a process that inherited a connection as descriptor 3, and outlives its parent.
type heir struct {
	t     *testing.T
	pidfd int
	fifo  *os.File
}

func (x *traffic) bequeath(c *conn) *heir {
	x.t.Helper()
	name := filepath.Join(x.t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		x.t.Fatal(err)
	}
	// For reading as well: opening does not wait for the heir.
	fifo, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		x.t.Fatal(err)
	}
	pid := x.ch.call("bequeath %d %s", c.fd, name)
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		x.t.Fatal(err)
	}
	y := &heir{t: x.t, pidfd: pidfd, fifo: fifo}
	x.t.Cleanup(func() {
		unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		unix.Close(pidfd)
		fifo.Close()
	})
	return y
}

// do has the heir do a verb, some time.
func (y *heir) do(verb string) {
	y.t.Helper()
	if _, err := fmt.Fprintln(y.fifo, verb); err != nil {
		y.t.Fatal(err)
	}
}

func (y *heir) kill() {
	y.t.Helper()
	if err := unix.PidfdSendSignal(y.pidfd, unix.SIGKILL, nil, 0); err != nil {
		y.t.Fatal(err)
	}
}
