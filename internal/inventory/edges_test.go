// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"errors"
	"net/netip"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

func TestEdgesOfAFailedPassStayAsTheyWere(t *testing.T) {
	h := newTestHost(t, Options{})
	id := h.cgroup("docker/"+hexA, 0)
	h.kernel.set(nil, []bpf.Edge{{CgroupV2: id, Destination: netip.MustParseAddrPort("10.0.0.1:80"), Connects: 7}}...)
	h.snapshot()
	h.kernel.set(errors.New("no"))
	if e := h.snapshot()["/docker/"+hexA].Edges; len(e) != 1 || e[0].Connects != 7 {
		t.Errorf("got %+v", e)
	}
	if h.inv.Status().ReadErrors == 0 {
		t.Error("not counted")
	}
}

func TestEdgesOfNobodyAreClearedAway(t *testing.T) {
	h := newTestHost(t, Options{Exclude: []*regexp.Regexp{regexp.MustCompile("^/docker/b")}})
	mine, excluded := h.cgroup("docker/"+hexA, 0), h.cgroup("docker/"+hexB, 0)
	dst := netip.MustParseAddrPort("10.0.0.1:80")
	h.kernel.set(nil, []bpf.Edge{{CgroupV2: mine, Destination: dst}, {CgroupV2: excluded, Destination: dst}, {CgroupV2: 1 << 40, Destination: dst}}...)
	h.snapshot() // sees that there are some
	h.clean()
	if left := h.kernel.all(); len(left) != 1 || left[0].CgroupV2 != mine {
		t.Errorf("left %+v", left)
	}
	if n := h.inv.Status().CgroupsUnresolved; n != 1 {
		t.Errorf("%d unresolved, want 1", n)
	}
}

func TestDestinations(t *testing.T) {
	h := newTestHost(t, Options{Network: NetworkOptions{
		MaxDestinations: 4, TrackPublic: []netip.Prefix{netip.MustParsePrefix("8.8.8.0/24"), netip.MustParsePrefix("2001:4860::/32")},
	}})
	h.inv.mu.Lock() // of a pass
	h.inv.hostNetNS = 1
	h.inv.mu.Unlock()
	id := h.cgroup("docker/"+hexA, 0)
	add := func(netns uint32, dst string) {
		e := bpf.Edge{CgroupV2: id, NetNS: netns, Connects: 1}
		if dst != "" {
			e.Destination = netip.MustParseAddrPort(dst)
		}
		h.kernel.set(nil, append(h.kernel.all(), e)...)
	}
	add(1, "127.0.0.1:80")       // host network
	add(2, "127.0.0.1:81")       // a container's own
	add(2, "169.254.169.254:80") // link-local
	add(2, "[fe80::1]:80")       // link-local
	add(2, "8.8.8.8:53")         // public, tracked
	add(2, "[2001:4860::1]:53")  // public, tracked
	add(2, "1.1.1.1:53")         // public
	add(2, "[2606:4700::1]:53")  // public
	add(2, "100.64.0.1:80")      // shared address space
	add(2, "10.0.0.1:80")        // past the limit
	add(2, "[fd00::1]:80")       // past the limit
	add(2, "")                   // overflow of the kernel's table

	want := map[string]uint64{
		"127.0.0.1:80": 1, "8.8.8.8:53": 1, "[2001:4860::1]:53": 1, PublicDestination: 2, OtherDestination: 4,
	}
	for range 2 { // and again the same
		got := map[string]uint64{}
		for _, e := range h.snapshot()["/docker/"+hexA].Edges {
			got[e.Destination] = e.Connects
			if e.Actual != e.Destination {
				t.Errorf("actual destination %q of %q", e.Actual, e.Destination)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("connects by destination (-want +got):\n%s", diff)
		}
	}
}

func TestResolveBetweenTwoHierarchies(t *testing.T) {
	lifeOf := func(kind cgroups.Kind) *life { return &life{container: &container{ref: cgroups.Ref{Kind: kind}}} }
	service, docker, plain := &dir{life: lifeOf(cgroups.Systemd)}, &dir{life: lifeOf(cgroups.Docker)}, &dir{}
	dropped := &dir{life: lifeOf(cgroups.Docker)}
	dropped.life.container.dropped = true
	for _, tt := range []struct {
		name         string
		legacyOnly   bool
		v2, v1, want *dir
	}{
		{name: "container in v1 only, its tasks in the runtime's service", v2: service, v1: docker, want: docker},
		{name: "unit in v2 only", v2: service, v1: plain, want: service},
		{name: "container in both", v2: docker, v1: docker, want: docker},
		{name: "container in v2, unit in v1", v2: docker, v1: service, want: docker},
		{name: "container in v1, v2 not found yet", v1: docker, want: docker},
		{name: "container in v2, v1 not found yet", v2: docker, want: docker},
		{name: "unit in v2, v1 not found yet", v2: service},
		{name: "nothing in v2, v1 not found yet", v2: plain},
		{name: "unit in v1, v2 not found yet", v1: service},
		{name: "unit in v1, no v2", legacyOnly: true, v1: service, want: service},
		{name: "dropped container beside a unit", v2: service, v1: dropped, want: dropped},
		{name: "plain in both", v2: plain, v1: plain, want: plain},
		{name: "both unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inv := &Inventory{dirs: map[cgroups.ID]*dir{}, legacyOnly: tt.legacyOnly}
			if tt.v2 != nil {
				inv.dirs[cgroups.ID{Hierarchy: cgroups.Unified, Inode: 5}] = tt.v2
			}
			if tt.v1 != nil {
				inv.dirs[cgroups.ID{Hierarchy: cgroups.Legacy, Inode: 5}] = tt.v1
			}
			if got := inv.resolve(5, 5); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}
