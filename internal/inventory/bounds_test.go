// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// address is another one for each n, in 10.0.0.0/8.
func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 10<<24|n)
	return netip.AddrFrom4(b)
}

// A million destinations, one connection each.
func TestAMillionDestinations(t *testing.T) {
	for _, tt := range []struct {
		name  string
		all   uint32
		idle  time.Duration
		exact bool // nothing is forgotten meanwhile
	}{
		{name: "in an hour", all: 1_000_000, idle: time.Hour, exact: true},
		{name: "idle ones are forgotten", all: 200_000, idle: time.Second},
		{name: "none is ever forgotten", all: 200_000, exact: true},
	} {
		t.Run(tt.name, func(t *testing.T) { runDestinations(t, tt.all, tt.idle, tt.exact) })
	}
}

func runDestinations(t *testing.T, all uint32, idle time.Duration, exact bool) {
	const (
		batch           = 10_000
		maxEdges        = 4096
		maxDestinations = 1000
		maxListeners    = 100
	)
	h := newTestHost(t, Options{Network: NetworkOptions{
		Enabled: true, MaxDestinations: maxDestinations, MaxListeners: maxListeners, IdleTimeout: idle,
	}})
	id := h.cgroup("docker/"+hexA, 0)
	h.kernel.mu.Lock()
	h.kernel.stats.EdgesMax = maxEdges
	h.kernel.mu.Unlock()
	edges := make([]bpf.Edge, 0, batch)
	var early uint64
	for n := uint32(0); n < all; {
		edges = edges[:0]
		for ; len(edges) < batch; n++ {
			e := bpf.Edge{CgroupV2: id, Connects: 1, BytesSent: uint64(n), ResetsSent: 1}
			switch addr := address(n); n % 4 {
			case 0:
				e.Inbound, e.Local = true, netip.AddrPortFrom(addr, 80)
			case 1:
				e.Destination = netip.AddrPortFrom(addr, 40000)
			default:
				e.Destination = netip.AddrPortFrom(addr, 80)
			}
			edges = append(edges, e)
		}
		h.kernel.count(edges...)
		h.pass(2 * restWhenFull)
		h.clean()
		c := h.container()
		if got := len(c.Edges); got > maxDestinations+2 {
			t.Fatalf("%d edges", got)
		}
		if got := len(c.Inbound); got > maxListeners+1 {
			t.Fatalf("%d inbound", got)
		}
		checkTotals(t, &c, n, exact)
		if n == 5*batch {
			early = heap()
		}
	}
	if late := heap(); late > early+2<<20 {
		t.Errorf("%d bytes in use, %d after the first 50,000", late, early)
	}
	h.inv.edgesMu.Lock()
	defer h.inv.edgesMu.Unlock()
	if got := len(h.inv.sums.last) + len(h.inv.sums.this); got > 2*maxEdges {
		t.Errorf("%d entries in sums remembered", got)
	}
}

func checkTotals(t *testing.T, c *Container, n uint32, exact bool) {
	t.Helper()
	if c.ResetsSent != cgroups.Some(uint64(n)) {
		t.Fatalf("%v resets of %d", c.ResetsSent, n)
	}
	if !exact {
		return
	}
	var connects, bytes uint64
	for _, e := range c.Edges {
		connects, bytes = connects+e.Connects, bytes+e.BytesSent
	}
	for _, i := range c.Inbound {
		connects, bytes = connects+i.Accepted, bytes+i.BytesSent
	}
	if want := uint64(n) * uint64(n-1) / 2; connects != uint64(n) || bytes != want {
		t.Fatalf("%d connections with %d bytes, want %d with %d", connects, bytes, n, want)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What one who looks again and again may see: totals of what has one Start do not go back.
type watcher struct{ totals map[string]uint64 }

func (w *watcher) look(t *testing.T, c *Container) {
	for _, e := range c.Edges {
		w.see(t, "edge "+e.Destination+e.Actual+e.Start.String(), e.Connects)
		w.see(t, "bytes "+e.Destination+e.Actual+e.Start.String(), e.BytesSent)
		if e.Active > 1<<20 {
			t.Errorf("%d connections to %s open", e.Active, e.Destination)
		}
	}
	for _, d := range c.Destinations {
		w.see(t, "failures "+d.Destination+d.Start.String(), d.Failed[ConnectRefused])
	}
	for _, i := range c.Inbound {
		w.see(t, "inbound "+i.ListenAddr+i.Start.String(), i.Accepted)
	}
	for _, q := range c.Queues {
		w.see(t, "queue "+q.ListenAddr+q.Start.String(), q.Overflows)
	}
	w.see(t, "resets", c.ResetsSent.V)
}

func (w *watcher) see(t *testing.T, what string, total uint64) {
	if was := w.totals[what]; total < was {
		t.Errorf("%s went back from %d to %d", what, was, total)
	}
	w.totals[what] = total
}

// traffic makes connections of all kinds at random, some of which stay open for a while.
type traffic struct {
	h     *testHost
	id    uint64
	rand  *rand.Rand
	open  []bpf.Edge
	total uint64 // connections
}

func (f *traffic) step() {
	port := uint16(80)
	if f.rand.IntN(4) == 0 {
		port = 40000 + uint16(f.rand.IntN(10))
	}
	addr := netip.AddrPortFrom(address(f.rand.Uint32N(60)), port)
	e := bpf.Edge{CgroupV2: f.id, Connects: 1, BytesSent: 5, ResetsSent: 1}
	switch f.rand.IntN(4) {
	case 0:
		e.Inbound, e.Local = true, addr
	case 1:
		e.Destination, e.Actual = addr, netip.AddrPortFrom(address(100+f.rand.Uint32N(3)), 8080)
	case 2:
		e.Destination = addr
		failed := bpf.Edge{CgroupV2: f.id, Destination: addr}
		failed.Failed[bpf.FailedRefused] = 1
		f.h.kernel.count(failed)
	default:
		e.Destination = addr
	}
	f.total++
	if f.rand.IntN(2) == 0 {
		e.Active = 1
		f.open = append(f.open, e)
	}
	f.h.kernel.count(e)
	if len(f.open) > 20 {
		i := f.rand.IntN(len(f.open))
		closed := f.open[i]
		f.open = slices.Delete(f.open, i, i+1)
		closed.Connects, closed.ResetsSent, closed.Active = 0, 0, -1
		f.h.kernel.count(closed)
	}
	if f.rand.IntN(20) == 0 {
		f.h.kernel.listen(bpf.Listener{
			CgroupV2: f.id, NetNS: 7, Addr: netip.AddrPortFrom(address(9), 40000+uint16(f.rand.IntN(10))),
			Open: int64(f.rand.IntN(2)),
		})
	}
}

func TestTotalsDoNotGoBack(t *testing.T) {
	for seed := range uint64(6) {
		h := newTestHost(t, Options{Network: NetworkOptions{
			Enabled: true, MaxDestinations: 20, MaxListeners: 10, IdleTimeout: time.Minute,
		}})
		f := &traffic{h: h, id: h.cgroup("docker/"+hexA, 0), rand: rand.New(rand.NewPCG(seed, 1))}
		w := watcher{totals: map[string]uint64{}}
		for range 1000 {
			for range f.rand.IntN(4) {
				f.step()
			}
			if f.rand.IntN(10) == 0 {
				h.pass(time.Duration(f.rand.IntN(100)) * time.Second)
			} else {
				h.pass(time.Second)
			}
			if f.rand.IntN(3) == 0 {
				h.clean()
			}
			c := h.container()
			w.look(t, &c)
			if c.ResetsSent.V != f.total {
				t.Errorf("%d resets, want %d", c.ResetsSent.V, f.total)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// Snapshots, housekeeping, events and echoes all at once.
func TestAllAtOnce(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{
		Enabled: true, MaxDestinations: 20, MaxListeners: 10, IdleTimeout: time.Minute,
	}})
	f := &traffic{h: h, id: h.cgroup("docker/"+hexA, 0), rand: rand.New(rand.NewPCG(1, 2))}
	h.process(100, "own", "10.0.0.7")
	h.kernel.listen(bpf.Listener{CgroupV2: f.id, NetNS: h.netns("own"), Addr: addrPort("0.0.0.0:81"), TGID: 100, Open: 1})
	h.kernel.measure(live(f.id, 7, "10.0.0.1", 5))
	over := make(chan struct{})
	var others sync.WaitGroup
	repeat := func(fn func()) {
		others.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					fn()
				}
			}
		})
	}
	for range 4 {
		w := watcher{totals: map[string]uint64{}}
		repeat(func() {
			s, err := h.inv.Snapshot(t.Context())
			if err != nil {
				t.Error(err)
			}
			for i := range s.Containers {
				if s.Containers[i].Name == "/docker/"+hexA {
					w.look(t, &s.Containers[i])
				}
			}
		})
	}
	repeat(func() {
		if err := h.inv.clean(t.Context(), h.now()); err != nil {
			t.Error(err)
		}
	})
	repeat(func() {
		h.inv.onEvent(bpf.CgroupEvent{Kind: bpf.CgroupMade, ID: 1 << 40, Path: "/docker/" + hexB})
		h.inv.onEvent(bpf.CgroupEvent{Kind: bpf.CgroupRemoved, ID: 1 << 40, Path: "/docker/" + hexB})
		_ = h.inv.Status()
	})
	repeat(func() { h.answer(h.inv.echoTasks(), map[string]time.Duration{"10.0.0.1": 3}) })
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		f.step()
		h.pass(100 * time.Millisecond)
	}
	close(over)
	others.Wait()
	if c := h.container(); c.ResetsSent.V != f.total {
		t.Errorf("%d resets, want %d", c.ResetsSent.V, f.total)
	}
}
