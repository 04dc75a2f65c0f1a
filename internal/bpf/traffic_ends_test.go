// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBytesWhateverTheEnd ends connections in every order: a FIN is not a byte.
func TestBytesWhateverTheEnd(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for _, tt := range []struct {
		name string
		end  func(x *traffic, p *peer, c *conn, want *counts)
	}{
		{name: "client first, then data from the peer", end: func(x *traffic, p *peer, c *conn, want *counts) {
			x.ch.call("shut %d", c.fd)
			c.peer.awaitEOF()
			x.settles("shut", p.addr, *want)
			want.Received += 5001
			c.receive(5001, "read", p.addr, *want)
			c.peer.Close()
			x.ch.call("eof %d", c.fd)
			want.Active = 0
			x.settles("shut by both", p.addr, *want)
		}},
		{name: "peer first, then data from the client", end: func(x *traffic, p *peer, c *conn, want *counts) {
			if err := c.peer.CloseWrite(); err != nil {
				x.t.Fatal(err)
			}
			x.ch.call("eof %d", c.fd)
			x.settles("shut", p.addr, *want)
			want.Sent += 5001
			c.send(5001, "write", p.addr, *want)
		}},
		{name: "peer first, with its last data", end: func(x *traffic, p *peer, c *conn, want *counts) {
			c.peer.writeAndFinish(10_001)
			want.Received += 10_001
			x.settles("shut, not read", p.addr, *want)
			x.ch.call("eof %d", c.fd)
			x.settles("shut, read", p.addr, *want)
			want.Sent += 5001
			c.send(5001, "write", p.addr, *want)
		}},
		{name: "peer closes what the client has not read", end: func(x *traffic, p *peer, c *conn, want *counts) {
			c.peer.write(5001)
			c.peer.Close()
			want.Received += 5001
			x.settles("closed by the peer", p.addr, *want)
		}},
		{name: "client has not read", end: func(x *traffic, p *peer, c *conn, want *counts) {
			c.peer.write(5001)
			want.Received += 5001
			x.settles("written", p.addr, *want)
		}},
		{name: "peer writes to a client that has closed", end: func(x *traffic, p *peer, c *conn, want *counts) {
			x.ch.call("end %d", c.fd)
			c.peer.awaitEOF()
			want.Active = 0
			x.settles("closed", p.addr, *want)
			c.peer.write(5001) // nobody gets this
			c.fd = x.ch.call("socket %s", p.addr)
			x.settles("written to", p.addr, *want)
		}},
		{name: "reset by the peer", end: func(x *traffic, p *peer, c *conn, want *counts) {
			c.peer.reset()
			if _, errno := x.ch.ask("eof %d", c.fd)(); !errors.Is(errno, unix.ECONNRESET) {
				x.t.Fatalf("%v, want a reset", errno)
			}
			want.Active = 0
			x.settles("reset", p.addr, *want)
		}},
		{name: "reset by the peer after half a close", end: func(x *traffic, p *peer, c *conn, want *counts) {
			x.ch.call("shut %d", c.fd)
			c.peer.awaitEOF()
			c.peer.reset()
			if _, errno := x.ch.ask("eof %d", c.fd)(); !errors.Is(errno, unix.ECONNRESET) {
				x.t.Fatalf("%v, want a reset", errno)
			}
			want.Active = 0
			x.settles("reset", p.addr, *want)
		}},
		{name: "disconnected", end: func(x *traffic, p *peer, c *conn, want *counts) {
			x.ch.call("undial %d", c.fd)
			want.Active = 0
			x.settles("disconnected", p.addr, *want)
		}},
		{name: "killed", end: func(x *traffic, p *peer, c *conn, want *counts) {
			x.ch.kill()
			c.peer.awaitEOF()
			want.Active = 0
			x.settles("killed", p.addr, *want)
		}},
		{name: "closed with data on its way", end: func(x *traffic, p *peer, c *conn, want *counts) {
			p.slow = true
			slow := x.open(p, p.addr, "plain")
			want.Connects++
			x.ch.call("send %d 60001 write", slow.fd)
			x.ch.call("end %d", slow.fd) // long before the peer has read it
			want.Sent += 60_001
			x.settles("closed", p.addr, *want)
			slow.peer.awaitEOF()
			slow.peer.await(60_001)
		}},
		{name: "killed with data on its way", end: func(x *traffic, p *peer, c *conn, want *counts) {
			p.slow = true
			slow := x.open(p, p.addr, "plain")
			want.Connects++
			x.ch.call("send %d 60001 write", slow.fd)
			x.ch.kill()
			want.Sent += 60_001
			want.Active = 0
			x.settles("killed", p.addr, *want)
			slow.peer.awaitEOF()
			slow.peer.await(60_001)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newTraffic(t, h, tr)
			p := listenPeer(t, "")
			c := x.open(p, p.addr, "plain")
			want := counts{Connects: 1, Active: 1, Sent: 1001}
			c.send(1001, "write", p.addr, want)
			want.Received = 2001
			c.receive(2001, "read", p.addr, want)
			tt.end(x, p, c, &want)
			if x.ch.cmd.ProcessState == nil {
				x.ch.call("end %d", c.fd)
			}
			want.Active = 0
			x.settles("closed", p.addr, want)
			c.peer.Close()
			<-c.peer.ended
			x.settles("closed by both", p.addr, want)
		})
	}
}

// TestNoBytesAreNoBytes ends connections on which nothing was ever said.
func TestNoBytesAreNoBytes(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for _, tt := range []struct {
		name      string
		peerFirst bool
	}{
		{name: "client first"},
		{name: "peer first", peerFirst: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newTraffic(t, h, tr)
			p := listenPeer(t, "")
			c := x.open(p, p.addr, "plain")
			if tt.peerFirst {
				c.peer.Close()
				x.ch.call("eof %d", c.fd)
				x.settles("closed by the peer", p.addr, counts{Connects: 1, Active: 1})
			}
			x.ch.call("end %d", c.fd)
			x.settles("closed", p.addr, counts{Connects: 1})
			c.peer.Close()
			<-c.peer.ended
			x.settles("closed by both", p.addr, counts{Connects: 1})
		})
	}
}
