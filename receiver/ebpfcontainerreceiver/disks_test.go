// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ebpfcontainerreceiver

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/inventory"
)

// fullDisks has a different value in each field.
func fullDisks(c *inventory.Container) {
	c.Disks = []inventory.Disk{
		{Device: "sdb", IO: cgroups.Some(cgroups.Device{Reads: 6101, Writes: 6102, ReadBytes: 6103, WriteBytes: 6104})},
		{
			MountPoint: "/", Device: "sda1",
			Usage: cgroups.Some(inventory.DiskUsage{Size: 6201, Used: 6202, Reserved: 6203}),
			IO:    cgroups.Some(cgroups.Device{Reads: 6301, Writes: 6302, ReadBytes: 6303, WriteBytes: 6304}),
		},
		{
			MountPoint: "/data", Device: "sda2", Volume: "pvc-11111111-2222-3333-4444-555555555555",
			Usage: cgroups.Some(inventory.DiskUsage{Size: 6401, Used: 6402}),
		},
	}
}

func TestMetricsOfDisks(t *testing.T) {
	c := at("/docker/" + idA)
	c.Disks = []inventory.Disk{
		{MountPoint: "/nfs", Device: "server:/export"}, // did not answer
		{MountPoint: "/odd\xff", Device: "sda1", Volume: "v", IO: cgroups.Some(cgroups.Device{ReadBytes: 1})},
	}
	const odd = `map[device:sda1 mount_point:/odd\xff volume:v]`
	want := map[string]float64{
		"resources.disk.reads" + odd: 0, "resources.disk.writes" + odd: 0,
		"resources.disk.read" + odd: 1, "resources.disk.written" + odd: 0,
		noInfo: 1,
	}
	if diff := cmp.Diff(want, values(t, c)); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

func TestDisksThatAreNoMoreEnd(t *testing.T) {
	c := full(at("/docker/" + idA))
	c.Disks[2].Ended = true
	ended := 0
	points(testWriter(createDefaultConfig().(*Config)).write(inventory.Snapshot{At: testNow, Containers: []inventory.Container{c}}),
		func(name string, dp testPoint) {
			if mount, ok := dp.Attributes().Get("mount_point"); ok && mount.Str() == "/data" {
				ended++
				if !dp.flags.NoRecordedValue() {
					t.Errorf("%s has a value", name)
				}
			}
		})
	if ended != 3 {
		t.Errorf("%d ended, want 3", ended)
	}
}

func TestInfoThatChangesEnds(t *testing.T) {
	c := at("/system.slice/nginx.service")
	c.InfoLabels = inventory.InfoLabels{UnitType: "notify"}
	c.EndedLabels = []inventory.InfoLabels{{}}
	got := map[string]bool{}
	points(testWriter(createDefaultConfig().(*Config)).write(inventory.Snapshot{At: testNow, Containers: []inventory.Container{c}}),
		func(name string, dp testPoint) { got[series(name, dp)] = dp.flags.NoRecordedValue() })
	want := map[string]bool{
		"container.infomap[image: systemd_triggered_by: systemd_type:]":       true,
		"container.infomap[image: systemd_triggered_by: systemd_type:notify]": false,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ended (-want +got):\n%s", diff)
	}
}
