// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestConnectsAreCountedExactly(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "exact")
	ch := startChild(t, c)
	v4, v6 := serveEcho(t, "127.0.0.1:0"), serveEcho(t, "[::1]:0")
	mapped := serveEcho(t, "127.0.0.1:0")
	closed := closedPort(t)

	ch.do("connect 3000 %s", v4)
	ch.do("connect 200 %s", v6)
	ch.do("mapped 100 %s", mapped)
	ch.do("connect 37 %s", closed)

	type counts struct{ Connects, Failed uint64 }
	got := map[netip.AddrPort]counts{}
	for dst, e := range edgesOf(t, tr, c) {
		got[dst] = counts{e.Connects, e.FailedTotal()}
		if (e.ConnectTime > 0) != (e.Connects > 0) {
			t.Errorf("%v: connect time %v of %d connects", dst, e.ConnectTime, e.Connects)
		}
	}
	want := map[netip.AddrPort]counts{v4: {3000, 0}, v6: {200, 0}, mapped: {100, 0}, closed: {0, 37}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("edges (-want +got):\n%s", diff)
	}
	if s := tr.Stats(); s.Untracked+s.EdgesFolded+s.EdgesUnaccounted != 0 || s.Edges < 4 || s.EdgesMax != 32768 {
		t.Errorf("stats %+v", s)
	}
}

// closedPort returns an address where nobody listens: bound, so that nobody else gets it.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
}

func TestConnectGivenUpIsAFailure(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "giveup")
	ch := startChild(t, c)
	full := fullListener(t)

	ch.do("giveup 100 %s", full)

	e := edgesOf(t, tr, c)[full]
	if e.Failed[FailedAborted] != 1 || e.Connects != 0 || e.Active != 0 {
		t.Errorf("got %+v, want one failure", e)
	}
}

// fullListener returns a listener whose accept queue is full: the kernel drops further SYNs.
func fullListener(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, _ := unix.Getsockname(fd)
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	conn, err := net.Dial("tcp", addr.String()) // listen(0) has room for one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return addr
}

func TestActiveFollowsOpenAndClose(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "active")
	ch := startChild(t, c)
	addr := listenOnly(t)
	active := func() int64 { return edgesOf(t, tr, c)[addr].Active }

	ch.do("hold 5 %s", addr)
	if n := active(); n != 5 {
		t.Errorf("5 open: active is %d", n)
	}
	ch.do("halfclose")
	if n := active(); n != 5 {
		t.Errorf("5 half closed by the client, which may still read: active is %d", n)
	}
	ch.do("close")
	eventually(t, "active is 0 after close", func() bool { return active() == 0 })
	ch.do("hold 3 %s", addr)
	if n := active(); n != 3 {
		t.Errorf("3 open: active is %d", n)
	}
	ch.kill()
	eventually(t, "active is 0 after the process was killed", func() bool { return active() == 0 })
	if e := edgesOf(t, tr, c)[addr]; e.Connects != 8 {
		t.Errorf("got %d connects, want 8", e.Connects)
	}
}

// listenOnly returns a listener on which the kernel completes handshakes and nobody ever reads or closes.
func listenOnly(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestBytesOfOpenAndClosedConnections(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "bytes")
	ch := startChild(t, c)
	addr := serveEcho(t, "127.0.0.1:0")

	for _, step := range []struct {
		do   string
		want uint64
	}{
		{do: fmt.Sprintf("hold 4 %s", addr), want: 0},
		{do: "echo 1000", want: 4000},
		{do: "echo 7", want: 4028},
		{do: "close", want: 4028},
	} {
		ch.do(step.do)
		if step.do == "close" {
			eventually(t, "connections closed", func() bool { return edgesOf(t, tr, c)[addr].Active == 0 })
		}
		for range 2 { // a second look changes nothing
			e := edgesOf(t, tr, c)[addr]
			if e.BytesSent != step.want || e.BytesReceived != step.want {
				t.Errorf("%s: sent %d, received %d, want %d", step.do, e.BytesSent, e.BytesReceived, step.want)
			}
		}
	}
}

func TestFullTableFoldsIntoOverflow(t *testing.T) {
	h := findHost(t)
	const max = 16
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true, MaxEdges: max})
	c := h.makeCgroup(t, "full")
	ch := startChild(t, c)
	const listeners = 40
	for range listeners {
		ch.do("connect 2 %s", serveEcho(t, "127.0.0.1:0"))
	}

	var sum uint64
	edges := edgesOf(t, tr, c)
	for _, e := range edges {
		sum += e.Connects
	}
	if sum != 2*listeners {
		t.Errorf("counted %d of %d connects", sum, 2*listeners)
	}
	over := edges[netip.AddrPort{}]
	if s := tr.Stats(); over.Connects == 0 || s.EdgesFolded < over.Connects || s.EdgesUnaccounted != 0 {
		t.Errorf("overflow %+v, stats %+v", over, s)
	}
}

func TestTakeDeletes(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "forget")
	ch := startChild(t, c)
	a, b := serveEcho(t, "127.0.0.1:0"), serveEcho(t, "127.0.0.1:0")
	ch.do("connect 1 %s", a)
	ch.do("connect 1 %s", b)
	gone := edgesOf(t, tr, c)[a]
	if err := tr.Take(&gone); err != nil {
		t.Fatal(err)
	}
	edges := edgesOf(t, tr, c)
	if _, ok := edges[a]; ok || edges[b].Connects != 1 {
		t.Errorf("got %v", edges)
	}
}

func TestHostItselfIsNotCounted(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	addr := serveEcho(t, "127.0.0.1:0")
	root := cgroup{dirs: []string{h.unified}}
	if h.legacy != "" {
		root.dirs = append(root.dirs, h.legacy)
	}
	ch := startChild(t, root)
	ch.do("connect 5 %s", addr)
	if err := tr.EachEdge(func(e *Edge) {
		if e.Destination == addr {
			t.Errorf("edge of the host: %+v", e)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
