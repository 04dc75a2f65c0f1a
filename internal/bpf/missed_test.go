// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTimersInterruptPrograms: a softirq may come while the same program runs on the same CPU for a task, and from Linux 6.1
// on the kernel then does not run it a second time.
func TestTimersInterruptPrograms(t *testing.T) {
	h := findHost(t)
	w := makeFailingWorld(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
	c := h.makeCgroup(t, "timers")
	const n, children, refused = 4000, 2, "127.0.0.1:9"
	var wg sync.WaitGroup
	var refusals atomic.Uint64
	for range children {
		ch := w.client.startChild(t, c)
		wg.Go(func() {
			var done, failed int
			answer := ch.do("attempt expire %d %d %s %s", n, unix.ETIMEDOUT, silent, refused)
			if _, err := fmt.Sscan(answer, &done, &failed); err != nil || failed != n {
				t.Errorf("refused and timed out: %q: %v", answer, err)
			}
			refusals.Add(uint64(done))
		})
	}
	wg.Wait()
	wantTallies(t, tr, c, map[path]tally{
		plain(silent):  {Failed: failures{FailedTimeout: n * children}},
		plain(refused): {Failed: failures{FailedRefused: refusals.Load()}},
	})
}

// awaitSynSent waits until the child connects to port 80.
func (c *child) awaitSynSent() {
	c.t.Helper()
	eventually(c.t, "SYN_SENT", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", c.cmd.Process.Pid))
		return err == nil && strings.Contains(string(b), ":0050 02 ")
	})
}

// goBlind makes a Tracer miss all further changes of state.
func goBlind(t *testing.T, tr *Tracer) {
	t.Helper()
	if err := closeLinks(tr.tcp.links[:2]); err != nil {
		t.Fatal(err)
	}
	tr.tcp.links = tr.tcp.links[2:]
}

// TestMissedChanges: what on_tcp_state did not see the passes over open sockets and their end make up for.
func TestMissedChanges(t *testing.T) {
	h := findHost(t)
	w := makeFailingWorld(t)
	w.server.serve(t, addrBackendA)
	for _, tt := range []struct {
		name       string
		to, rule   string // how the router begins to answer
		open, over tally
	}{
		{
			name: "established", to: addrBackendA, rule: "iptables -D FORWARD -d 10.77.2.2 -j DROP",
			open: tally{Connects: 3, Active: 3}, over: tally{Connects: 3},
		}, {
			name: "refused", to: silent, rule: "iptables -R FORWARD 1 -d 192.0.2.1 -p tcp -j REJECT --reject-with tcp-reset",
			open: tally{Failed: failures{FailedRefused: 3}}, over: tally{Failed: failures{FailedRefused: 3}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
			c := h.makeCgroup(t, "missed")
			if tt.to == addrBackendA {
				w.router.run("iptables -A FORWARD -d 10.77.2.2 -j DROP")
			}
			ch := w.client.startChild(t, c)
			if got := ch.do("attempt pending 3 %d %s", unix.EINPROGRESS, tt.to); got != "0 3" {
				t.Fatalf("connected and failed: got %q", got)
			}
			goBlind(t, tr)
			w.router.run("%s", tt.rule)
			wantTallies(t, tr, c, map[path]tally{plain(tt.to): tt.open})
			ch.kill()
			wantTallies(t, tr, c, map[path]tally{plain(tt.to): tt.over})
		})
	}
	t.Run("timed out and closed", func(t *testing.T) {
		tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
		c := h.makeCgroup(t, "missed")
		ch := w.client.startChild(t, c)
		if _, err := fmt.Fprintf(ch.in, "attempt usertimeout 1 %d 192.0.2.13:80\n", unix.ETIMEDOUT); err != nil {
			t.Fatal(err)
		}
		ch.awaitSynSent()
		goBlind(t, tr)
		if got, err := ch.out.ReadString('\n'); err != nil || got != "0 1\n" {
			t.Fatalf("connected and failed: got %q, %v", got, err)
		}
		wantTallies(t, tr, c, map[path]tally{plain("192.0.2.13:80"): {Failed: failures{FailedTimeout: 1}}})
	})
	t.Run("accepted", func(t *testing.T) {
		tr := openTracer(t, Options{LegacyController: h.controller(), Network: true})
		c := h.makeCgroup(t, "missed")
		addr := startChild(t, c).serve("serve", 16, "127.0.0.1:0")
		goBlind(t, tr)
		conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "one open connection with 5 bytes", func() bool {
			e := inboundOf(t, tr, c)[addr]
			return e.Connects == 1 && e.Active == 1 && e.BytesReceived == 5
		})
		conn.Close()
		eventually(t, "no open connection", func() bool {
			e := inboundOf(t, tr, c)[addr]
			return e.Connects == 1 && e.Active == 0 && e.BytesReceived == 5 && e.BytesSent == 5
		})
	})
}
