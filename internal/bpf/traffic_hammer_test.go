// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// hammerPeer serves the connections of the hammer and counts.
type hammerPeer struct {
	*peer
	wg sync.WaitGroup // a connection each

	connects, ended atomic.Uint64
	read, wrote     atomic.Uint64
	promised        atomic.Uint64 // what it is about to write is in here before
	failed          atomic.Pointer[error]
}

func (p *hammerPeer) serve() {
	for {
		c, err := p.l.AcceptTCP()
		if err != nil {
			return
		}
		p.connects.Add(1)
		p.wg.Go(func() {
			defer p.ended.Add(1)
			if err := p.talk(c); err != nil {
				p.failed.Store(&err)
			}
		})
	}
}

func (p *hammerPeer) talk(c *net.TCPConn) error {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(trafficTimeout)); err != nil {
		return err
	}
	head := make([]byte, hammerPlanSize)
	n, err := io.ReadFull(c, head)
	p.read.Add(uint64(n))
	if err != nil {
		return err
	}
	plan := decodeHammerPlan(head)
	if plan.order == clientEndsFirst {
		return errors.Join(p.readToEnd(c), p.write(c, plan.down))
	}
	// Both at once: neither side may wait for the other's buffer.
	wrote := make(chan error, 1)
	go func() {
		err := p.write(c, plan.down)
		if plan.order != clientCloses {
			err = errors.Join(err, c.CloseWrite())
		}
		wrote <- err
	}()
	return errors.Join(p.readToEnd(c), <-wrote)
}

func (p *hammerPeer) readToEnd(c *net.TCPConn) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		p.read.Add(uint64(n))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *hammerPeer) write(c *net.TCPConn, size uint32) error {
	p.promised.Add(uint64(size))
	n, err := c.Write(make([]byte, size))
	p.wrote.Add(uint64(n))
	return err
}

func TestFoldRacesWithClose(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	inNetNS(t) // its ports run out
	x := newTraffic(t, h, tr)
	var peers []*hammerPeer
	var addrs []string
	for _, listen := range []string{"127.0.0.1:0", "127.0.0.1:0", "[::1]:0"} {
		p := &hammerPeer{peer: listenPeer(t, listen)}
		p.wg.Go(p.serve)
		t.Cleanup(func() {
			p.l.Close()
			p.wg.Wait()
		})
		peers, addrs = append(peers, p), append(addrs, p.addr.String())
	}
	rounds := 6
	if os.Getenv("BPF_TEST_LONG") != "" {
		rounds = 120
	}
	polls, made := 0, 0
	was := map[netip.AddrPort]counts{}
	for round := range rounds {
		replies := x.ch.begin(fmt.Sprintf("hammer 500 %d %s", round, strings.Join(addrs, ",")))
		for loading := true; loading; polls++ {
			select {
			case r := <-replies:
				if r.err != nil || r.errno != 0 {
					t.Fatalf("the child after %d connections: %v, %v", r.value, r.errno, r.err)
				}
				made += r.value
				loading = false
			default:
			}
			x.watch(peers, was)
		}
		compareTruth(x, made, peers)
	}
	t.Logf("%d connections, %d polls", made, polls)
}

// watch looks at the edges while they change. No total may fall, and what was received must have been promised.
func (x *traffic) watch(peers []*hammerPeer, was map[netip.AddrPort]counts) {
	x.t.Helper()
	now := edgesOf(x.t, x.tr, x.c)
	for _, p := range peers {
		e := now[p.addr]
		got, before := counts{e.Connects, e.Active, e.BytesSent, e.BytesReceived}, was[p.addr]
		if got.Connects < before.Connects || got.Sent < before.Sent || got.Received < before.Received {
			x.t.Fatalf("totals fell (-before +after):\n%s", cmp.Diff(before, got))
		}
		if most := p.promised.Load(); got.Received > most {
			x.t.Fatalf("received %d, the peer has sent %d at most", got.Received, most)
		}
		if got.Active < 0 || got.Active > hammerThreads {
			x.t.Fatalf("%d active connections of %d threads", got.Active, hammerThreads)
		}
		was[p.addr] = got
	}
}

// compareTruth waits for the peers' ends of all connections made, and wants every edge to be exact.
func compareTruth(x *traffic, made int, peers []*hammerPeer) {
	x.t.Helper()
	eventually(x.t, "the peers are done", func() bool {
		var n uint64
		for _, p := range peers {
			n += p.ended.Load()
		}
		return n == uint64(made)
	})
	for _, p := range peers {
		if err := p.failed.Load(); err != nil {
			x.t.Fatalf("peer: %v", *err)
		}
		x.settles("after a round of the hammer", p.addr, counts{
			Connects: p.connects.Load(),
			Sent:     p.read.Load(),
			Received: p.wrote.Load(),
		})
	}
}
