// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// answered returns who answered, sorted, after a look at the times.
func answered(t *testing.T, times map[netip.Addr]time.Duration, timeout time.Duration) []netip.Addr {
	t.Helper()
	for addr, d := range times {
		if d <= 0 || d >= timeout {
			t.Errorf("%s: %v", addr, d)
		}
	}
	return slices.SortedFunc(maps.Keys(times), netip.Addr.Compare)
}

func TestEcho(t *testing.T) {
	a, b := joined(t)
	// The neighbour is there before the first request: its answer is not delayed by finding out its address.
	a.run("ip neigh add 10.7.0.99 lladdr 02:00:00:00:00:99 dev veth0")
	b.run("ip addr add 10.7.0.3/24 dev veth0")
	asked := addrs("10.7.0.2", "10.7.0.3", "10.7.0.99", "10.7.0.1", "127.0.0.1", "::1", "fd07::2", "fd07::99",
		"10.7.0.2", "::ffff:10.7.0.3", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1", "fe80::1%veth0", "10.7.0.255")
	want := addrs("10.7.0.1", "10.7.0.2", "10.7.0.3", "127.0.0.1", "::1", "fd07::2")
	const timeout = 500 * time.Millisecond
	begin := time.Now()
	times, err := a.ns.Echo(t.Context(), append(asked, netip.Addr{}), timeout)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < timeout || took > timeout+5*time.Second {
		t.Errorf("took %v although one did not answer", took)
	}
	if diff := cmp.Diff(want, answered(t, times, timeout), cmpAddrs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	t.Log(times)
}

func TestEchoEndsWhenAllHaveAnswered(t *testing.T) {
	l := newLab(t)
	l.run("ip link set lo up")
	var asked []netip.Addr
	for i := range MaxEchoes {
		asked = append(asked, netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}))
	}
	const timeout = time.Minute
	begin := time.Now()
	times, err := l.ns.Echo(t.Context(), asked, timeout)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > timeout/2 {
		t.Errorf("took %v", took)
	}
	if got := answered(t, times, timeout); len(got) != len(asked) {
		t.Errorf("%d of %d answered", len(got), len(asked))
	}
	if _, err := l.ns.Echo(t.Context(), append(asked, asked[0]), timeout); err == nil {
		t.Error("no error for too many addresses")
	}
	if times, err := l.ns.Echo(t.Context(), nil, timeout); err != nil || len(times) != 0 {
		t.Errorf("nobody: got %v, %v", times, err)
	}
}

func TestEchoEndsWithContext(t *testing.T) {
	l := newLab(t)
	l.run("ip link set lo up")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	times, err := l.ns.Echo(ctx, addrs("127.0.0.1", "192.0.2.1"), time.Minute)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if got := answered(t, times, time.Minute); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

// TestEchoStamps looks whether the kernel stamps what leaves and what arrives, of both kinds of sockets.
func TestEchoStamps(t *testing.T) {
	a, _ := joined(t)
	a.setPingGroups("0 0")
	for _, v6 := range []bool{false, true} {
		for _, ping := range []bool{false, true} {
			t.Run(fmt.Sprintf("v6=%v,ping=%v", v6, ping), func(t *testing.T) {
				s, err := a.ns.echoSocketOf(v6, ping)
				if err != nil {
					t.Fatal(err)
				}
				defer s.file.Close()
				to := netip.MustParseAddr("10.7.0.2")
				if v6 {
					to = netip.MustParseAddr("fd07::2")
				}
				ours := token{1, 2, 3}
				send := func() {
					if err := s.send(to, 1, 1, ours); err != nil {
						t.Error(err)
					}
				}
				send()
				_ = s.file.SetReadDeadline(time.Now().Add(10 * time.Second))
				var left, came bool
				err = s.receive(func(e echoEvent) {
					switch {
					case e.token != ours:
						t.Errorf("got %+v", e)
					case e.stamp.IsZero() && !e.left:
						send() // the kernel had not begun with stamps
						return
					case e.at.Sub(e.stamp).Abs() > 10*time.Second:
						t.Errorf("got %+v", e)
					}
					left, came = left || e.left, came || !e.left
					if left && came {
						_ = s.file.SetReadDeadline(time.Unix(1, 0))
					}
				})
				if err != nil || !left || !came {
					t.Errorf("left %v, came %v: %v", left, came, err)
				}
			})
		}
	}
}

func TestChecksum(t *testing.T) {
	b := appendEcho(nil, false, 0x1234, 7, token{1, 2, 3, 0xff})
	if got := checksum(b); got != 0 {
		t.Errorf("the checksum of a message with its checksum is %#x, want 0", got)
	}
}

func TestParseReply(t *testing.T) {
	ours := token{9, 8, 7}
	reply := appendEcho(nil, false, 1, 2, ours)
	reply[0] = icmpEchoReply
	reply6 := appendEcho(nil, true, 1, 2, ours)
	reply6[0] = icmp6EchoReply
	header := append([]byte{0x46}, make([]byte, 23)...)
	for _, tt := range []struct {
		name           string
		in             []byte
		v6, withHeader bool
		ok             bool
	}{
		{name: "empty"},
		{name: "empty, with header", withHeader: true},
		{name: "ping socket", in: reply, ok: true},
		{name: "raw socket", in: join(header, reply), withHeader: true, ok: true},
		{name: "header alone", in: header, withHeader: true},
		{name: "header cut off", in: header[:20], withHeader: true},
		{name: "request", in: appendEcho(nil, false, 1, 2, ours)},
		{name: "short", in: reply[:23]},
		{name: "long", in: append(slices.Clone(reply), 0)},
		{name: "IPv6", in: reply6, v6: true, ok: true},
		{name: "other family", in: reply, v6: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseReply(tt.in, tt.v6, tt.withHeader)
			if ok != tt.ok || ok && got != ours {
				t.Errorf("got %v, %v", got, ok)
			}
		})
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add(appendEcho([]byte{0x41, 0, 0, 0}, false, 1, 2, token{}), false, true)
	f.Fuzz(func(_ *testing.T, b []byte, v6, withHeader bool) {
		parseReply(b, v6, withHeader)
		tokenAtEnd(b)
		parseStamp(b)
	})
}

func TestRoundTrip(t *testing.T) {
	const ms = time.Millisecond
	sent := time.Now()
	at := sent.Add(100 * ms)
	for _, tt := range []struct {
		name        string
		left, stamp time.Time
		want        time.Duration
	}{
		{name: "both stamps", left: sent.Add(10 * ms), stamp: sent.Add(30 * ms), want: 20 * ms},
		{name: "no stamp when it left", stamp: sent.Add(30 * ms), want: 30 * ms},
		{name: "no stamps", want: 100 * ms},
		{name: "clock set back", left: sent.Add(10 * ms), stamp: sent.Add(-time.Hour), want: 100 * ms},
		{name: "clock set forth", left: sent.Add(10 * ms), stamp: sent.Add(time.Hour), want: 100 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := roundTrip(sent, tt.left.Round(0), tt.stamp.Round(0), at); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
