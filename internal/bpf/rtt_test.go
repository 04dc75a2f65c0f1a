// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestRTTIsSampledEachPassAndAtClose(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "rtt")
	ch := startChild(t, c)
	at := serveEcho(t, "127.0.0.1:0")
	samples := func() (n uint64, sum time.Duration) {
		e := edgesOf(t, tr, c)[at]
		for _, count := range e.RTT {
			n += count
		}
		return n, e.RTTSum
	}
	if err := tr.Read(Pass{LiveRTT: func(*LiveRTT) {}}); err != nil {
		t.Errorf("without any connection: %v", err)
	}
	ch.do("hold 3 %s", at)
	ch.do("echo 100")
	if n, _ := samples(); n != 0 {
		t.Errorf("%d samples before a pass that samples", n)
	}
	for pass := 1; pass <= 2; pass++ {
		var live []LiveRTT
		if err := tr.Read(Pass{LiveRTT: func(r *LiveRTT) {
			if r.CgroupV2 == c.v2 && r.CgroupV1 == c.v1 {
				live = append(live, *r)
			}
		}}); err != nil {
			t.Fatal(err)
		}
		if len(live) != 3 {
			t.Errorf("pass %d: %d live connections, want 3", pass, len(live))
		}
		for _, r := range live {
			if r.Addr != at.Addr() || r.RTT <= 0 || r.RTT > time.Second {
				t.Errorf("pass %d: %+v", pass, r)
			}
		}
		if n, sum := samples(); n != uint64(3*pass) || sum <= 0 {
			t.Errorf("pass %d: %d samples of %v in all, want %d", pass, n, sum, 3*pass)
		}
	}
	ch.do("close 0")
	eventually(t, "a sample at each close", func() bool { n, _ := samples(); return n == 9 })
}

func TestRTTBoundsAreThoseOfThePrograms(t *testing.T) {
	spec, err := loadTcp()
	if err != nil {
		t.Fatal(err)
	}
	var bounds [NumRTTBuckets - 1]uint32
	if err := spec.Variables[tcpVarRttBoundsUs].Get(&bounds); err != nil {
		t.Fatal(err)
	}
	for i, us := range bounds {
		if got := time.Duration(us) * time.Microsecond; got != RTTBounds[i] {
			t.Errorf("bound %d: %v in the programs, %v in RTTBounds", i, got, RTTBounds[i])
		}
	}
}

func TestResetsInBothDirections(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "resets")
	ch := startChild(t, c)
	resetting := resetEach(t)
	silent := listenOnly(t)

	ch.do("hold 2 %s", resetting)
	eventually(t, "resets received", func() bool { return edgesOf(t, tr, c)[resetting].ResetsReceived == 2 })
	e := edgesOf(t, tr, c)[resetting]
	if e.ResetsSent != 0 || e.Connects != 2 || e.FailedTotal() != 0 || e.Active != 0 {
		t.Errorf("reset by the peer: %+v", e)
	}
	ch.do("close 0")
	ch.do("reset 3 %s", silent)
	eventually(t, "resets sent", func() bool { return edgesOf(t, tr, c)[silent].ResetsSent == 3 })
	if e := edgesOf(t, tr, c)[silent]; e.ResetsReceived != 0 || e.Connects != 3 || e.Active != 0 {
		t.Errorf("reset by the child: %+v", e)
	}
	closed := closedPort(t)
	ch.do("connect 2 %s", closed)
	if e := edgesOf(t, tr, c)[closed]; e.ResetsReceived != 0 || e.Failed[FailedRefused] != 2 {
		t.Errorf("a refused connect is no reset: %+v", e)
	}
}

// resetEach accepts connections and resets them.
func resetEach(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// resetConnections makes n connections to addr and resets them.
func resetConnections(n int, addr string) (done, failed int) {
	for range n {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			failed++
			continue
		}
		_, _ = io.WriteString(c, "x")
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		done++
	}
	return done, failed
}
