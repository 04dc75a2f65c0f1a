// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFastOpen has data in the SYN. It needs a namespace of its own: the server's side is off by default.
func TestFastOpen(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(listen, func(t *testing.T) {
			inNetNS(t)
			if err := os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("3"), 0); err != nil {
				t.Fatal(err)
			}
			x := newTraffic(t, h, tr)
			p := listenPeer(t, listen, unix.TCP_FASTOPEN)
			var want counts
			for i, bytes := range []int{1001, 1001, 1, 100_001} {
				fd := x.ch.call("socket %s", p.addr)
				answer := x.ch.ask("fastopen %d %s %d", fd, p.addr, bytes)
				want.Connects, want.Active, want.Sent = want.Connects+1, 1, want.Sent+uint64(bytes)
				c := &conn{x: x, fd: fd, peer: p.accept()}
				x.settles(fmt.Sprintf("opened with %d bytes", bytes), p.addr, want)
				if n, errno := answer(); errno != 0 || n != bytes {
					t.Fatalf("sent %d of %d: %v", n, bytes, errno)
				}
				c.peer.await(uint64(bytes))
				// The first asks for the cookie that lets the others have data in their SYN.
				if early := x.ch.call("fastopened %d", fd); (early == 1) != (i > 0) {
					t.Fatalf("connection %d: data in the SYN: %d", i, early)
				}
				want = c.exchange(p.addr, want)
			}

			// TCP_FASTOPEN_CONNECT: connect() does nothing yet.
			c := &conn{x: x, fd: x.ch.call("open %s fastopen", p.addr)}
			x.settles("only noted", p.addr, want)
			x.ch.call("send %d 1001 write", c.fd)
			c.peer = p.accept()
			want.Connects, want.Active, want.Sent = want.Connects+1, 1, want.Sent+1001
			x.settles("opened by write", p.addr, want)
			c.peer.await(1001)
			if x.ch.call("fastopened %d", c.fd) != 1 {
				t.Fatal("TCP_FASTOPEN_CONNECT: no data in the SYN")
			}
			want = c.exchange(p.addr, want)

			// A listener that has no use for the data of the SYN: it is sent again.
			other := listenPeer(t, listen)
			fd := x.ch.call("socket %s", other.addr)
			x.ch.call("fastopen %d %s 1001", fd, other.addr)
			c = &conn{x: x, fd: fd, peer: other.accept()}
			c.peer.await(1001)
			if x.ch.call("fastopened %d", fd) != 0 {
				t.Fatal("a listener without TCP_FASTOPEN has taken data from the SYN")
			}
			x.settles("not taken", other.addr, counts{Connects: 1, Active: 1, Sent: 1001})
			c.exchange(other.addr, counts{Connects: 1, Active: 1, Sent: 1001})

			t.Run("refused", func(t *testing.T) { // what its SYN had was not sent to anybody
				x.t = t
				p.l.Close()
				fd := x.ch.call("socket %s", p.addr)
				if _, errno := x.ch.ask("fastopen %d %s 1001", fd, p.addr)(); !errors.Is(errno, unix.ECONNREFUSED) {
					t.Fatal(errno)
				}
				x.ch.call("end %d", fd)
				x.settles("refused", p.addr, want)
			})
		})
	}
}

// inNetNS takes the test, what it opens and what it starts into a network namespace of its own until it ends.
func inNetNS(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer own.Close()
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err) // the thread stays locked: nobody else gets it
			return
		}
		runtime.UnlockOSThread()
	})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}
