// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIOOfADiskIsGivenAtOneMount(t *testing.T) {
	sda, dm0 := DeviceNumber{8, 0}, DeviceNumber{253, 0}
	io := func(point string, disk DeviceNumber, gives bool) Mount {
		return Mount{MountPoint: point, IODevice: disk, HasIO: true, GivesIO: gives}
	}
	for _, tt := range []struct {
		name     string
		in, want []Mount
	}{
		{"none", nil, nil},
		{"root first", []Mount{io("/", sda, false), io("/data", sda, false)}, []Mount{io("/", sda, true), io("/data", sda, false)}},
		{"sorted", []Mount{io("/a", sda, false), io("/b", sda, false)}, []Mount{io("/a", sda, true), io("/b", sda, false)}},
		{"whoever had it", []Mount{io("/", sda, false), io("/data", sda, true)}, []Mount{io("/", sda, false), io("/data", sda, true)}},
		{"never two", []Mount{io("/a", sda, true), io("/b", sda, true)}, []Mount{io("/a", sda, true), io("/b", sda, false)}},
		{"each disk", []Mount{io("/", dm0, false), io("/data", sda, false)}, []Mount{io("/", dm0, true), io("/data", sda, true)}},
		{"no disk", []Mount{{MountPoint: "/nfs", GivesIO: true}}, []Mount{{MountPoint: "/nfs"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assignIO(tt.in)
			if d := cmp.Diff(tt.want, tt.in); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPlaceIO(t *testing.T) {
	var (
		sda, sda1, sdb = DeviceNumber{8, 0}, DeviceNumber{8, 1}, DeviceNumber{8, 16}
		md0, dm0, dm1  = DeviceNumber{9, 0}, DeviceNumber{253, 0}, DeviceNumber{253, 1}
		loop0, nbd     = DeviceNumber{7, 0}, DeviceNumber{43, 0}
	)
	topology := map[DeviceNumber]Disk{
		sda: {Name: "sda", Whole: sda}, sda1: {Name: "sda1", Whole: sda}, sdb: {Name: "sdb", Whole: sdb},
		md0:   {Name: "md0", Whole: md0, Below: []DeviceNumber{sda, sdb}},
		dm0:   {Name: "dm-0", Whole: dm0, Below: []DeviceNumber{sda, sdb, md0}},
		dm1:   {Name: "dm-1", Whole: dm1, Below: []DeviceNumber{sda, sdb, md0, dm0}},
		loop0: {Name: "loop0", Whole: loop0},
	}
	disk := func(n DeviceNumber) Disk {
		if d, ok := topology[n]; ok {
			return d
		}
		return Disk{Name: n.String(), Whole: n}
	}
	root := Mount{MountPoint: "/", Device: "sda1", IODevice: sda, HasIO: true, GivesIO: true}
	data := Mount{MountPoint: "/data", Device: "dm-1", Volume: "pvc-1", IODevice: dm1, HasIO: true, GivesIO: true}
	other := Mount{MountPoint: "/var", Device: "sda2", IODevice: sda, HasIO: true}
	for _, tt := range []struct {
		name    string
		devices []DeviceNumber
		mounts  []Mount
		want    []Place
	}{
		{"nothing", nil, []Mount{root}, []Place{}},
		{"partition", []DeviceNumber{sda}, []Mount{root, other}, []Place{{"/", "sda1", "", []DeviceNumber{sda}}}},
		{"mount unknown", []DeviceNumber{sda, nbd}, nil, []Place{{"", "sda", "", []DeviceNumber{sda}}, {"", "43:0", "", []DeviceNumber{nbd}}}},
		{"twice the same", []DeviceNumber{sda, sda}, []Mount{root}, []Place{{"/", "sda1", "", []DeviceNumber{sda}}}},
		{"layers", []DeviceNumber{sdb, sda, md0, dm0, dm1}, []Mount{data}, []Place{{"/data", "dm-1", "pvc-1", []DeviceNumber{dm1}}}},
		{"layer below without a mount", []DeviceNumber{sda, md0}, nil, []Place{{"", "md0", "", []DeviceNumber{md0}}}},
		{"only below", []DeviceNumber{sda, sdb}, []Mount{data}, []Place{{"/data", "dm-1", "pvc-1", []DeviceNumber{sda, sdb}}}},
		{
			"only below, and itself",
			[]DeviceNumber{sda, sdb},
			[]Mount{root, data},
			[]Place{{"/", "sda1", "", []DeviceNumber{sda}}, {"/data", "dm-1", "pvc-1", []DeviceNumber{sdb}}},
		},
		{"root on what is below", []DeviceNumber{sda, dm1}, []Mount{root, data}, []Place{{"/data", "dm-1", "pvc-1", []DeviceNumber{dm1}}}},
		{"loop is other I/O", []DeviceNumber{sda, loop0}, []Mount{root}, []Place{{"/", "sda1", "", []DeviceNumber{sda}}, {"", "loop0", "", []DeviceNumber{loop0}}}},
		{"partition and its disk", []DeviceNumber{sda1, sda}, []Mount{root}, []Place{{"/", "sda1", "", []DeviceNumber{sda}}}},
		{"partition alone", []DeviceNumber{sda1}, []Mount{root}, []Place{{"", "sda1", "", []DeviceNumber{sda1}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, PlaceIO(tt.devices, tt.mounts, disk)); d != "" {
				t.Error(d)
			}
		})
	}
}
