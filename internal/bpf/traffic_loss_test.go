// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// dropSome makes the kernel drop one of ten packets to the socket, as if the network had lost them.
func dropSome(fd int) error {
	const (
		ancillaryRandom = 0xfffff000 + 56 // SKF_AD_OFF + SKF_AD_RANDOM
		tenth           = 1 << 32 / 10
		all             = 1<<32 - 1
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: ancillaryRandom},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: tenth, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: all},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// TestBytesUnderLoss has packets lost both ways, the FIN among them: what is sent again is not counted again, what comes in
// another order is counted once.
func TestBytesUnderLoss(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	for _, name := range []string{"peer ends first", "client ends first"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it is mostly waiting for timeouts
			x := newTraffic(t, h, tr)
			p := listenPeer(t, "")
			c := x.open(p, p.addr, "plain")
			x.ch.call("lossy %d", c.fd)
			c.peer.control(dropSome)
			c.peer.piece = 777

			want := counts{Connects: 1, Active: 1}
			for rounds := 0; rounds < 3 || x.ch.call("retransmits %d", c.fd) == 0; rounds++ {
				want.Sent += 30_001
				c.send(30_001, "pieces", p.addr, want)
			}
			want.Received = 100_001
			c.receive(100_001, "read", p.addr, want)
			eventually(t, "the kernel's retransmits", func() bool {
				return uint64(x.ch.call("retransmits %d", c.fd)) == edgesOf(t, tr, x.c)[p.addr].Retransmits
			})

			if name == "peer ends first" {
				want.Received += 20_001
				c.peer.write(20_001)
				if err := c.peer.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				x.settles("ended by the peer", p.addr, want)
				x.ch.call("eof %d", c.fd)
				x.settles("ended by the peer, read", p.addr, want)
			}
			want.Sent += 20_001
			x.ch.call("send %d 20001 pieces", c.fd)
			x.ch.call("end %d", c.fd)
			want.Active = 0
			x.settles("closed", p.addr, want)
			c.peer.await(want.Sent)
			c.peer.awaitEOF()
			c.peer.Close()
			x.settles("closed by both", p.addr, want)
		})
	}
}
