// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// fmtSscan reads numbers from what a child has answered.
func fmtSscan(s string, to ...any) (int, error) { return fmt.Sscan(s, to...) }

// cgroupLines are the paths of this process in all hierarchies.
func cgroupLines(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for line := range strings.Lines(string(b)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			paths = append(paths, parts[2])
		}
	}
	return paths
}

func TestOlderSocketsAreAdopted(t *testing.T) {
	h := findHost(t)
	client, server := h.makeCgroup(t, "client"), h.makeCgroup(t, "server")
	cli, srv := startChild(t, client), startChild(t, server)
	at := srv.serve("serve", 16, "127.0.0.1:0")
	cli.do("hold 4 %s", at)
	cli.do("echo 1000") // before us: not counted
	older, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer older.Close()

	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	if out := edgesOf(t, tr, client); len(out) != 0 {
		t.Errorf("before Adopt: %v", out)
	}
	for range 2 { // once is enough, twice does no harm
		if err := tr.Adopt(); err != nil {
			t.Fatal(err)
		}
	}
	if s := tr.Stats(); s.Adopted < 4+5+1 {
		t.Errorf("%d adopted, want at least 10", s.Adopted)
	}
	check := func(when string, active int64, bytes, more uint64) {
		t.Helper()
		out, in := edgesOf(t, tr, client), inboundOf(t, tr, server)
		if e := out[at]; len(out) != 1 || e.Connects != 0 || e.Active != active || e.BytesSent != bytes || e.BytesReceived != bytes {
			t.Errorf("%s: outbound %+v", when, out)
		}
		if e := in[at]; len(in) != 1 || e.BytesSent != bytes+more || e.BytesReceived != bytes+more {
			t.Errorf("%s: inbound %+v", when, in)
		}
	}
	check("adopted", 4, 0, 0)
	l := listenersOf(t, tr, server)[at]
	if l.Open != 1 || l.TGID != srv.cmd.Process.Pid {
		t.Errorf("listener %+v", l)
	}
	var ports ListenedPorts
	if err := tr.Listened(&ports); err != nil || !ports.Has(at.Port()) {
		t.Error("port of an older listener is not known")
	}

	cli.do("echo 10")
	buf := make([]byte, 3)
	if _, err := older.Write(buf); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(older, buf); err != nil {
		t.Fatal(err)
	}
	check("used", 4, 40, 3)
	if e := inboundOf(t, tr, server)[at]; e.Active != 5 || e.Connects != 0 {
		t.Errorf("inbound %+v, want 5 active", e)
	}
	cli.do("close 0")
	eventually(t, "closed on both sides", func() bool {
		return edgesOf(t, tr, client)[at].Active == 0 && inboundOf(t, tr, server)[at].Active == 1
	})
	check("closed", 0, 40, 3)
	// What an adopted listener accepts is its own.
	cli.do("connect 2 %s", at)
	if e := inboundOf(t, tr, server)[at]; e.Connects != 2 {
		t.Errorf("%d accepted after adoption, want 2", e.Connects)
	}
	if out := edgesOf(t, tr, client)[at]; out.Connects != 2 {
		t.Errorf("%d connects after adoption, want 2", out.Connects)
	}
}

func TestOlderTranslationsAreAdopted(t *testing.T) {
	h := findHost(t)
	client := h.makeCgroup(t, "client")
	cli := startChild(t, client)
	at := serveEcho(t, "127.0.0.1:0")
	cli.do("hold 1 %s", at)

	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	source := sourceOf(t, tr, at)
	actual := netip.MustParseAddrPort("192.0.2.7:8080")
	if err := tr.AddTranslation(source, at, actual); err != nil {
		t.Fatal(err)
	}
	if err := tr.Adopt(); err != nil {
		t.Fatal(err)
	}
	if e := edgesOf(t, tr, client)[at]; e.Actual != actual || e.Active != 1 {
		t.Errorf("got %+v, want actual %s", e, actual)
	}
}

// sourceOf finds the client's side of the only connection to addr.
func sourceOf(t *testing.T, _ *Tracer, addr netip.AddrPort) netip.AddrPort {
	t.Helper()
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	remote := fmt.Sprintf("0100007F:%04X", addr.Port())
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 3 && f[2] == remote && f[3] == "01" {
			var port uint16
			if _, err := fmt.Sscanf(f[1], "0100007F:%04X", &port); err == nil {
				return netip.AddrPortFrom(addr.Addr(), port)
			}
		}
	}
	t.Fatalf("no connection to %s", addr)
	return netip.AddrPort{}
}
