// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// begin is where the clock of test hosts counts from.
var begin = time.Unix(1_800_000_000, 0)

// fakeKernel has the tables that a test gives it. In them Touched is the time since begin, 0 for now.
type fakeKernel struct {
	now func() time.Time

	mu        sync.Mutex
	edges     []bpf.Edge
	index     map[edgeID]int // of edges; nil for not known
	listeners []bpf.Listener
	listened  bpf.ListenedPorts
	rtts      []bpf.LiveRTT
	usages    []bpf.Usage
	usagesErr error
	diskIO    []bpf.DiskIO
	takeErr   error
	taken     []bpf.Usage   // by TakeUsage
	exits     chan toldExit // see exit
	stats     bpf.Stats
	err       error
	onTake    func(*bpf.Edge) // what comes in between a pass and Take; changes the edge
	onClose   func(*bpf.Listener)
	onUsage   func(*bpf.Usage)
	done      chan struct{}
}

// edgeID is the key of the real table.
type edgeID struct {
	v2, v1                     uint64
	netns                      uint32
	inbound                    bool
	destination, actual, local netip.AddrPort
}

func idOf(e *bpf.Edge) edgeID {
	id := edgeID{e.CgroupV2, e.CgroupV1, e.NetNS, e.Inbound, e.Destination, e.Actual, e.Local}
	if !e.Inbound && !e.Actual.IsValid() {
		id.actual = e.Destination
	}
	return id
}

func (k *fakeKernel) CgroupEvents(func(bpf.CgroupEvent)) error { <-k.done; return nil }
func (k *fakeKernel) Features() []bpf.Feature {
	return []bpf.Feature{{Name: bpf.FeatureCgroupEvents}, {Name: bpf.FeatureTasks}}
}
func (k *fakeKernel) Close() error { close(k.done); return nil }
func (k *fakeKernel) Adopt() error { return nil }
func (k *fakeKernel) RetryNAT()    {}

func (k *fakeKernel) AddTranslation(_, _, _ netip.AddrPort) error { return nil }

func (k *fakeKernel) Stats() bpf.Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stats
}

func (k *fakeKernel) Listened(p *bpf.ListenedPorts) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	*p = k.listened
	return nil
}

func (k *fakeKernel) set(err error, edges ...bpf.Edge) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.edges, k.err, k.index = edges, err, nil
}

func (k *fakeKernel) all() []bpf.Edge {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.edges)
}

// count adds to the edges what has just happened, as the programs do: when there are stats.EdgesMax of them, to the
// overflow edge of the cgroup.
func (k *fakeKernel) count(more ...bpf.Edge) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range more {
		k.countOne(&more[i])
	}
}

func (k *fakeKernel) countOne(e *bpf.Edge) {
	id := idOf(e)
	i, ok := k.byID()[id]
	if !ok && k.stats.EdgesMax > 0 && len(k.edges) >= k.stats.EdgesMax {
		id = edgeID{v2: e.CgroupV2, v1: e.CgroupV1, inbound: e.Inbound}
		i, ok = k.index[id]
	}
	if !ok {
		i = len(k.edges)
		k.index[id] = i
		k.edges = append(k.edges, bpf.Edge{
			CgroupV2: id.v2, CgroupV1: id.v1, NetNS: id.netns, Inbound: id.inbound,
			Destination: id.destination, Actual: id.actual, Local: id.local,
		})
		k.stats.Edges = len(k.edges)
	}
	addTo(&k.edges[i], e)
	k.edges[i].Touched = k.now().Sub(begin)
}

func addTo(to, e *bpf.Edge) {
	to.Connects += e.Connects
	to.ConnectTime += e.ConnectTime
	to.Active += e.Active
	to.BytesSent += e.BytesSent
	to.BytesReceived += e.BytesReceived
	to.Retransmits += e.Retransmits
	to.ResetsSent += e.ResetsSent
	to.ResetsReceived += e.ResetsReceived
	to.RTTSum += e.RTTSum
	for i, n := range e.RTT {
		to.RTT[i] += n
	}
	for i, n := range e.Failed {
		to.Failed[i] += n
	}
}

func (k *fakeKernel) byID() map[edgeID]int {
	if k.index == nil {
		k.index = map[edgeID]int{}
		for i := range k.edges {
			k.index[idOf(&k.edges[i])] = i
		}
	}
	return k.index
}

// touched puts the time of a table entry on the kernel's clock.
func (k *fakeKernel) touched(since time.Duration) time.Duration {
	if since == 0 {
		return bpf.Now()
	}
	return bpf.Now() - k.now().Sub(begin.Add(since))
}

func (k *fakeKernel) Read(p bpf.Pass) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.edges {
		e := k.edges[i]
		if !e.Inbound && !e.Actual.IsValid() {
			e.Actual = e.Destination
		}
		e.Touched = k.touched(e.Touched)
		p.Edge(&e)
	}
	for i := range k.listeners {
		l := k.listeners[i]
		l.Touched = k.touched(l.Touched)
		p.Listener(&l)
	}
	if p.LiveRTT != nil {
		for i := range k.rtts {
			p.LiveRTT(&k.rtts[i])
		}
	}
	return k.err
}

func (k *fakeKernel) Take(e *bpf.Edge) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := idOf(e)
	i, ok := k.byID()[id]
	if !ok {
		*e = bpf.Edge{CgroupV2: e.CgroupV2, CgroupV1: e.CgroupV1, NetNS: e.NetNS, Inbound: e.Inbound, Destination: e.Destination, Actual: e.Actual, Local: e.Local}
		return nil
	}
	if k.onTake != nil {
		k.onTake(&k.edges[i])
	}
	*e = k.edges[i]
	last := len(k.edges) - 1
	k.index[idOf(&k.edges[last])] = i
	delete(k.index, id)
	k.edges[i] = k.edges[last]
	k.edges = k.edges[:last]
	k.stats.Edges = last
	return nil
}

// listen puts entries in the table of listeners in the place of those of the same cgroup, namespace and address.
func (k *fakeKernel) listen(entries ...bpf.Listener) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range entries {
		l.Touched = k.now().Sub(begin)
		if i := slices.IndexFunc(k.listeners, isListener(l)); i >= 0 {
			k.listeners[i] = l
		} else {
			k.listeners = append(k.listeners, l)
		}
		k.listened[l.Addr.Port()/64] |= 1 << (l.Addr.Port() % 64)
	}
}

func isListener(l bpf.Listener) func(bpf.Listener) bool {
	return func(f bpf.Listener) bool { return l.CgroupV2 == f.CgroupV2 && l.NetNS == f.NetNS && l.Addr == f.Addr }
}

func (k *fakeKernel) TakeListener(l *bpf.Listener) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.listeners, isListener(*l))
	if i < 0 {
		return nil
	}
	now := &k.listeners[i]
	if k.onClose != nil {
		k.onClose(now)
	}
	*l = *now
	if now.Open > 0 {
		now.Drops = 0
		return nil
	}
	k.listeners = slices.Delete(k.listeners, i, i+1)
	return nil
}

// hostNS is the network namespace of the test host.
const hostNS = "host"

// netns makes a network namespace, if there is none of this name, and returns its number.
func (h *testHost) netns(name string) uint32 {
	h.t.Helper()
	file := h.namespace(name)
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		h.t.Fatal(err)
	}
	return uint32(st.Ino)
}

func (h *testHost) namespace(name string) string {
	h.t.Helper()
	file := filepath.Join(h.proc, "namespace-"+name)
	f, err := os.OpenFile(file, os.O_CREATE, 0o644)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = f.Close()
	return file
}

// process makes a process in a network namespace that has these addresses, loopback and a link-local one beside.
func (h *testHost) process(pid int, netns string, addrs ...string) {
	h.t.Helper()
	dir := filepath.Join(h.proc, strconv.Itoa(pid))
	for _, sub := range []string{"ns", "net"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	_ = os.Remove(filepath.Join(dir, "ns/net"))
	if err := os.Symlink(h.namespace(netns), filepath.Join(dir, "ns/net")); err != nil {
		h.t.Fatal(err)
	}
	var trie, inet6 strings.Builder
	trie.WriteString("Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\nLocal:\n")
	for _, a := range append([]string{"127.0.0.1", "::1", "fe80::1", "169.254.7.7"}, addrs...) {
		if addr := netip.MustParseAddr(a); addr.Is4() {
			fmt.Fprintf(&trie, "     |-- %s\n        /32 host LOCAL\n", addr)
		} else {
			b := addr.As16()
			fmt.Fprintf(&inet6, "%s 02 40 00 80     eth0\n", hex.EncodeToString(b[:]))
		}
	}
	h.procFile(pid, "net/fib_trie", trie.String())
	h.procFile(pid, "net/if_inet6", inet6.String())
}

func (h *testHost) procFile(pid int, name, content string) {
	h.t.Helper()
	name = filepath.Join(h.proc, strconv.Itoa(pid), name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *testHost) exit(pid int) {
	h.t.Helper()
	if err := os.RemoveAll(filepath.Join(h.proc, strconv.Itoa(pid))); err != nil {
		h.t.Fatal(err)
	}
}

// container is the one that tests of traffic have.
func (h *testHost) container() (c Container) {
	h.t.Helper()
	c, ok := h.snapshot()["/docker/"+hexA]
	if !ok {
		h.t.Fatal("no container")
	}
	return c
}

func addrPort(s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(s)
}
