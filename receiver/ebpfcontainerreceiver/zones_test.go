// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cloudmeta"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
)

// oneContainer has all that a container can have, and lives.
func oneContainer() inventory.Snapshot {
	s := testSnapshot()
	s.Containers = s.Containers[:1]
	return s
}

func TestTrafficOfTheOwnZoneIsNotBetweenZones(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	w := testWriter(cfg)
	zonesOf := func() map[string]int {
		got := map[string]int{}
		points(w.write(oneContainer()), func(name string, dp testPoint) {
			if zone, ok := dp.Attributes().Get("zone"); ok && name == "container.net.tcp.inter_zone_bytes" && !dp.flags.NoRecordedValue() {
				got[zone.Str()]++
			}
		})
		return got
	}
	if diff := cmp.Diff(map[string]int{"eu-central-1a": 2, "eu-central-1b": 2}, zonesOf()); diff != "" {
		t.Errorf("own zone not known:\n%s", diff)
	}
	w.where = func() cloudmeta.Instance { return cloudmeta.Instance{AvailabilityZone: "eu-central-1a"} }
	w.write(oneContainer())
	if diff := cmp.Diff(map[string]int{"eu-central-1b": 2}, zonesOf()); diff != "" {
		t.Errorf("own zone known:\n%s", diff)
	}
}

func TestZonesOfDestinationsAreAskedFor(t *testing.T) {
	for _, asked := range []bool{false, true} {
		cfg := createDefaultConfig().(*Config)
		cfg.Network.ZoneAttribute = asked
		n := 0
		points(testWriter(cfg).write(oneContainer()), func(name string, dp testPoint) {
			actual, isEdge := dp.Attributes().Get("actual_destination")
			zone, has := dp.Attributes().Get(zoneAttribute)
			if has != (asked && isEdge) {
				t.Errorf("asked %v: %s: has a zone: %v", asked, series(name, dp), has)
			}
			if has && actual.Str() == "10.244.0.7:53" && zone.Str() == "eu-central-1b" {
				n++
			}
		})
		if (n > 0) != asked {
			t.Errorf("asked %v: %d points with the zone", asked, n)
		}
	}
}

// The file of zones was read again: what a peer's series were called until now ends, and that alone.
func TestSeriesOfAFormerZoneEnd(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Network.ZoneAttribute = true
	w := testWriter(cfg)
	edges := func(s inventory.Snapshot) (live, ended map[string]int) {
		md := w.write(s)
		expectEndsAlone(t, md)
		live, ended = map[string]int{}, map[string]int{}
		points(md, func(name string, dp testPoint) {
			actual, _ := dp.Attributes().Get("actual_destination")
			zone, ok := dp.Attributes().Get(zoneAttribute)
			if !ok || actual.Str() != "10.244.0.7:53" {
				return
			}
			if dp.flags.NoRecordedValue() {
				ended[name+" "+zone.Str()]++
			} else {
				live[name+" "+zone.Str()]++
			}
		})
		return live, ended
	}
	before, _ := edges(oneContainer())
	moved := oneContainer()
	for i := range moved.Containers[0].Edges {
		if e := &moved.Containers[0].Edges[i]; e.Actual == "10.244.0.7:53" {
			e.Zone, e.FormerZone = "elsewhere", cgroups.Some(e.Zone)
		}
	}
	live, ended := edges(moved)
	if diff := cmp.Diff(before, ended); diff != "" || len(before) == 0 {
		t.Errorf("ended (-before +now):\n%s", diff)
	}
	if len(live) != len(before) {
		t.Errorf("got %v, before %v", live, before)
	}
}

// The cloud answers when the first metrics are out: all series begin anew under another resource, and the former ones end.
func TestWhereTheHostIsBecomesKnown(t *testing.T) {
	// That of some peers is the host's then.
	for _, zone := range []string{"eu-central-1a", "eu-central-1c"} {
		t.Run(zone, func(t *testing.T) { testWhereTheHostIsBecomesKnown(t, zone) })
	}
}

func testWhereTheHostIsBecomesKnown(t *testing.T, zone string) {
	t.Helper()
	w := testWriter(createDefaultConfig().(*Config))
	var where cloudmeta.Instance
	w.where = func() cloudmeta.Instance { return where }
	before := w.write(oneContainer())
	where = cloudmeta.Instance{Provider: cloudmeta.AWS, InstanceID: "i-0123456789abcdef0", Region: "eu-central-1", AvailabilityZone: zone}
	changed := w.write(oneContainer())
	after := w.write(oneContainer())

	if n, m := changed.ResourceMetrics().Len(), after.ResourceMetrics().Len(); n != 2 || m != 1 {
		t.Fatalf("%d resources at the change and %d after it, want 2 and 1", n, m)
	}
	old, now := changed.ResourceMetrics().At(0), changed.ResourceMetrics().At(1)
	if diff := cmp.Diff(before.ResourceMetrics().At(0).Resource().Attributes().AsRaw(), old.Resource().Attributes().AsRaw()); diff != "" {
		t.Errorf("the former resource:\n%s", diff)
	}
	if id, _ := now.Resource().Attributes().Get("host.id"); id.Str() != where.InstanceID {
		t.Errorf("host.id %q", id.Str())
	}
	expectEndsAlone(t, changed)
	ends := map[string]bool{}
	points(changed, func(name string, dp testPoint) {
		if dp.flags.NoRecordedValue() {
			ends[series(name, dp)] = true
		}
	})
	points(before, func(name string, dp testPoint) {
		if !ends[series(name, dp)] {
			t.Errorf("%s stops without an end", series(name, dp))
		}
	})
	isOwn := 0
	points(after, func(_ string, dp testPoint) {
		if of, ok := dp.Attributes().Get("zone"); ok && of.Str() == zone && !dp.flags.NoRecordedValue() {
			isOwn++
		}
	})
	if isOwn > 0 {
		t.Errorf("%d points of the host's own zone", isOwn)
	}
}

// What resources do not show ends no series, but for those of the zone that turns out to be the host's own.
func TestWhatResourcesDoNotShowEndsNothing(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Identity = IdentityCoroot // no zone without its region
	w := testWriter(cfg)
	var where cloudmeta.Instance
	w.where = func() cloudmeta.Instance { return where }
	write := func() (ended map[string]int, live int) {
		md := w.write(oneContainer())
		if n := md.ResourceMetrics().Len(); n != 1 {
			t.Errorf("%+v: %d resources", where, n)
		}
		expectEndsAlone(t, md)
		ended = map[string]int{}
		points(md, func(name string, dp testPoint) {
			if dp.flags.NoRecordedValue() {
				ended[series(name, dp)]++
			} else {
				live++
			}
		})
		return ended, live
	}
	always, all := write()
	for _, tt := range []struct {
		now  cloudmeta.Instance
		zone int // datapoints of the zone that is the host's own
	}{
		{cloudmeta.Instance{PublicIPv4: netip.MustParseAddr("203.0.113.7"), LifeCycle: "spot"}, 0},
		{cloudmeta.Instance{AvailabilityZone: "eu-central-1a"}, 2},
		{cloudmeta.Instance{AvailabilityZone: "eu-central-1c"}, 0},
	} {
		where = tt.now
		ended, live := write()
		if len(ended) != len(always)+tt.zone || live != all-tt.zone {
			t.Errorf("%+v: %d datapoints of %d, ended %v", where, live, all, ended)
		}
		for key := range ended {
			if always[key] == 0 && (!strings.Contains(key, "inter_zone_bytes") || !strings.Contains(key, tt.now.AvailabilityZone)) {
				t.Errorf("%+v: ended %s", where, key)
			}
		}
	}
}

func TestTheFirstMetricsEndNothing(t *testing.T) {
	w := testWriter(createDefaultConfig().(*Config))
	w.where = func() cloudmeta.Instance { return cloudmeta.Instance{Region: "eu-central-1"} }
	if n := w.write(oneContainer()).ResourceMetrics().Len(); n != 1 {
		t.Errorf("%d resources of one container", n)
	}
}
