// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

func zone(t *testing.T, cidr, name string) Zone {
	t.Helper()
	z, err := ParseZone(cidr, name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestZonesFindTheSmallestNetwork(t *testing.T) {
	z, err := openZones(ZonesOptions{Zones: []Zone{
		zone(t, "10.0.0.0/8", "far"), zone(t, "10.1.0.0/16", "a"), zone(t, "10.1.2.0/24", "b"), zone(t, "10.1.2.3/32", "c"),
		zone(t, "2001:db8::/32", "six"), zone(t, "2001:db8:1::/48", "six-a"),
	}}, zap.NewNop(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"10.9.9.9": "far", "10.1.9.9": "a", "10.1.2.9": "b", "10.1.2.3": "c", "::ffff:10.1.2.3": "c", "192.0.2.1": "",
		"2001:db8:2::1": "six", "2001:db8:1::1": "six-a", "2001:db9::1": "",
	} {
		if got := z.of(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
}

func TestZonesFileIsReadAgain(t *testing.T) {
	name := filepath.Join(t.TempDir(), "zones")
	write := func(text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(1e9, 0)
	write("# networks\n\n10.1.0.0/16 \t a # of the first rack\n")
	z, err := openZones(ZonesOptions{Zones: []Zone{zone(t, "10.1.0.0/16", "config"), zone(t, "10.2.0.0/16", "config")}, File: name}, zap.NewNop(), now)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(first, second string) {
		t.Helper()
		got := []string{z.of(netip.MustParseAddr("10.1.0.1")), z.of(netip.MustParseAddr("10.2.0.1"))}
		if diff := cmp.Diff([]string{first, second}, got); diff != "" {
			t.Error(diff)
		}
	}
	expect("a", "config")
	write("10.1.0.0/16 b\n10.2.0.0/16 c\n")
	z.refresh(now.Add(time.Second)) // too soon
	expect("a", "config")
	z.refresh(now.Add(lookAtZonesEvery))
	expect("b", "c")
	write("10.1.0.0/16 d\n10.2.0.0 e\n")
	z.refresh(now.Add(2 * lookAtZonesEvery))
	expect("b", "c")
	z.refresh(now.Add(3 * lookAtZonesEvery))
	if n := z.errorCount(); n != 2 {
		t.Errorf("%d errors, want 2", n)
	}
	write("10.1.0.0/16 d\n" + strings.Repeat("#", maxZonesFile))
	z.refresh(now.Add(4 * lookAtZonesEvery))
	expect("b", "c")
	if n := z.errorCount(); n != 3 {
		t.Errorf("%d errors, want that of a file that is too long as well", n)
	}
	write("10.1.0.0/16 d\n")
	z.refresh(now.Add(5 * lookAtZonesEvery))
	expect("d", "config")
	if _, err := openZones(ZonesOptions{File: name + "x"}, zap.NewNop(), now); err == nil {
		t.Error("a file that is not there is no error at the start")
	}
}

func TestParseZonesTellsWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"10.1.0.0/16", "line 1: want a network and a zone"},
		{"\n10.1.0.0/16 a b", "line 2: want"},
		{"10.1.0.0 a", `line 1: "10.1.0.0" is not a network`},
		{"::ffff:10.1.0.0/112 a", "write IPv4 networks as IPv4"},
		{"10.1.0.0/16 " + strings.Repeat("a", 200), "has not between 1 and 128 bytes"},
	} {
		if _, err := parseZones(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.in, err, tt.want)
		}
	}
}

func FuzzParseZones(f *testing.F) {
	f.Add("10.1.0.0/16 a # b\n2001:db8::/32 c\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseZones(text)
		for _, z := range list {
			if !z.Prefix.IsValid() || z.Prefix != z.Prefix.Masked() || z.Name == "" {
				t.Errorf("%q: %v, %v", text, z, err)
			}
		}
	})
}

// The totals of zones have all bytes of edges, and outlive these.
func TestZonesAddUpWhatIsNew(t *testing.T) {
	z, _ := openZones(ZonesOptions{Zones: []Zone{zone(t, "10.1.0.0/16", "a"), zone(t, "10.2.0.0/16", "b")}}, zap.NewNop(), time.Now())
	key := func(actual string) edgeKey {
		return edgeKey{netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort(actual)}
	}
	one, two, none := &edge{}, &edge{}, &edge{}
	n := &network{edges: map[edgeKey]*edge{
		key("10.1.0.1:80"): one, key("10.2.0.1:80"): two, key("172.16.0.1:80"): none, {otherKey, otherKey}: {sum: totals{sent: 9}},
	}}
	one.sum.sent, two.sum.received, none.sum.sent = 100, 10, 1
	n.sumZones(z)
	n.sumZones(z) // nothing is new
	one.sum.sent, one.sum.received = 150, 5
	n.sumZones(z)
	delete(n.edges, key("10.1.0.1:80"))
	n.sumZones(z)
	other := &network{edges: map[edgeKey]*edge{key("10.1.0.1:80"): {sum: totals{sent: 7}}}}
	other.sumZones(z)
	n.absorb(other, NetworkOptions{})
	n.sumZones(z)
	want := []ZoneTraffic{{"a", 157, 5}, {"b", 0, 10}}
	if diff := cmp.Diff(want, n.giveZones()); diff != "" {
		t.Error(diff)
	}
}

// An edge whose peer is said to be elsewhere tells where it was, for as long as ended series are given.
func TestEdgesTellTheirFormerZone(t *testing.T) {
	z, err := openZones(ZonesOptions{}, zap.NewNop(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort("10.1.0.1:80")
	n := &network{edges: map[edgeKey]*edge{{addr, addr}: {}}}
	const keep = time.Minute
	now := time.Unix(1e9, 0)
	for i, tt := range []struct {
		after  time.Duration
		says   string // the file, of 10.1.0.0/16
		zone   string
		former Opt[string]
	}{
		{0, "", "", Opt[string]{}},
		{time.Second, "a", "a", cgroups.Some("")},
		{keep, "a", "a", cgroups.Some("")},
		{time.Second, "a", "a", Opt[string]{}},
		{time.Second, "b", "b", cgroups.Some("a")},
		{time.Second, "c", "b", cgroups.Some("a")}, // one after the other
		{keep, "c", "c", cgroups.Some("b")},
		{2 * keep, "", "", cgroups.Some("c")},
		{2 * keep, "", "", Opt[string]{}},
	} {
		now = now.Add(tt.after)
		var list []Zone
		if tt.says != "" {
			list = append(list, zone(t, "10.1.0.0/16", tt.says))
		}
		z.set(list)
		edges, _ := n.giveEdges(z, now, keep)
		if got := edges[0]; got.Zone != tt.zone || got.FormerZone != tt.former {
			t.Errorf("%d: got %q, formerly %+v, want %q, %+v", i, got.Zone, got.FormerZone, tt.zone, tt.former)
		}
	}
}
