// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// peer is the far side of a traffic test, in the test's own process: what it reads and writes is the truth.
type peer struct {
	t    *testing.T
	l    *net.TCPListener
	addr netip.AddrPort
	slow bool // connections accepted from now on read slowly
}

// listenPeer listens at addr, "" for any port of 127.0.0.1, with the given socket options of level IPPROTO_TCP.
func listenPeer(t *testing.T, addr string, tcpOptions ...int) *peer {
	t.Helper()
	lc := &net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var errs []error
		err := rc.Control(func(fd uintptr) {
			// Urgent data among the rest: reading past it would lose it.
			errs = append(errs, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1))
			for _, o := range tcpOptions {
				errs = append(errs, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, o, 16))
			}
		})
		return errors.Join(append(errs, err)...)
	}}
	lc.SetMultipathTCP(false)
	return listenWith(t, lc, addr)
}

func listenWith(t *testing.T, lc *net.ListenConfig, addr string) *peer {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &peer{t: t, l: l.(*net.TCPListener), addr: netip.MustParseAddrPort(l.Addr().String())}
}

// accept takes the next connection and begins to read it.
func (p *peer) accept() *peerConn {
	p.t.Helper()
	if err := p.l.SetDeadline(time.Now().Add(trafficTimeout)); err != nil {
		p.t.Fatal(err)
	}
	c, err := p.l.AcceptTCP()
	if err != nil {
		p.t.Fatal(err)
	}
	pc := &peerConn{TCPConn: c, t: p.t, ended: make(chan struct{})}
	if p.slow {
		if err := c.SetReadBuffer(4096); err != nil {
			p.t.Fatal(err)
		}
	}
	go pc.read(p.slow)
	p.t.Cleanup(func() {
		c.Close()
		<-pc.ended
	})
	return pc
}

// peerConn counts what its calls to read and write return.
type peerConn struct {
	*net.TCPConn
	t            *testing.T
	piece        int // the most that one call to write is given, if not 0
	nRead, nSent atomic.Uint64
	ended        chan struct{} // closed when there is no more to read
	err          error         // io.EOF or why reading ended; set before ended is closed
}

func (c *peerConn) read(slow bool) {
	defer close(c.ended)
	buf := make([]byte, 256<<10)
	if slow {
		buf = buf[:2048]
	}
	for {
		n, err := c.Read(buf)
		c.nRead.Add(uint64(n))
		if err != nil {
			c.err = err
			return
		}
		if slow {
			time.Sleep(500 * time.Microsecond)
		}
	}
}

func (c *peerConn) received() uint64 { return c.nRead.Load() }
func (c *peerConn) sent() uint64     { return c.nSent.Load() }

func (c *peerConn) write(n int) {
	c.t.Helper()
	if err := c.SetWriteDeadline(time.Now().Add(trafficTimeout)); err != nil {
		c.t.Fatal(err)
	}
	size := c.piece
	if size == 0 {
		size = 1 << 20
	}
	buf := make([]byte, min(n, size))
	for n > 0 {
		m, err := c.Write(buf[:min(n, len(buf))])
		c.nSent.Add(uint64(m))
		n -= m
		if err != nil {
			c.t.Fatalf("peer: %v", err)
		}
	}
}

// control runs fn on the descriptor.
func (c *peerConn) control(fn func(fd int) error) {
	c.t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	var fnErr error
	if err := errors.Join(rc.Control(func(fd uintptr) { fnErr = fn(int(fd)) }), fnErr); err != nil {
		c.t.Fatal(err)
	}
}

// writeUrgent writes one byte out of band.
func (c *peerConn) writeUrgent() {
	c.t.Helper()
	c.control(func(fd int) error {
		n, err := unix.SendmsgN(fd, []byte{1}, nil, nil, unix.MSG_OOB)
		c.nSent.Add(uint64(max(n, 0)))
		return err
	})
}

// writeAndFinish writes n bytes of which the last segment has the FIN.
func (c *peerConn) writeAndFinish(n int) {
	c.t.Helper()
	c.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
	c.write(n)
	if err := c.CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// reset closes the connection with a RST.
func (c *peerConn) reset() {
	c.t.Helper()
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
		c.t.Fatal(err)
	}
}

// await waits until n bytes have been read in all.
func (c *peerConn) await(n uint64) {
	c.t.Helper()
	for end := time.Now().Add(settleTimeout); c.received() < n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := c.received(); got != n {
		c.t.Fatalf("the peer has read %d, want %d", got, n)
	}
}

func (c *peerConn) awaitEOF() {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(trafficTimeout):
		c.t.Fatal("the peer waits for the end in vain")
	}
	if !errors.Is(c.err, io.EOF) {
		c.t.Fatalf("peer: %v, want the end", c.err)
	}
}
