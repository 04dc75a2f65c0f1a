// SPDX-License-Identifier: Apache-2.0

package mounts

import "slices"

// Place is where some of a container's I/O is given: the sum of what it has done on some disks.
type Place struct {
	MountPoint, Device, Volume string         // labels; no two places of a container have the same
	Disks                      []DeviceNumber // never empty
}

// PlaceIO tells where the I/O of a container is given. devices are those that its cgroup counts I/O by, mounts what Look
// returned for it, disk is Reader.Disk.
//
// The I/O of a disk is given once: at the mount that GivesIO, or if none is known with an empty mount point and volume and the
// disk's name. What disks are made of is left out where these disks are counted themselves, since it is the same I/O once more;
// what else the container does on such a disk below, on another partition, is left out with it. Where they are not counted,
// as block tracepoints do not count those of dm and md, the I/O of the disks below is given at the mount above.
func PlaceIO(devices []DeviceNumber, mounts []Mount, disk func(DeviceNumber) Disk) []Place {
	places := make([]Place, 0, len(devices))
	for i, n := range devices {
		if slices.Contains(devices[:i], n) || countedAbove(devices, n, disk) {
			continue
		}
		p := Place{Disks: []DeviceNumber{n}}
		if m := mountOf(mounts, n, disk); m != nil {
			p.MountPoint, p.Device, p.Volume = m.MountPoint, m.Device, m.Volume
			if i := slices.IndexFunc(places, p.isSame); i >= 0 {
				places[i].Disks = append(places[i].Disks, n)
				continue
			}
		} else {
			p.Device = disk(n).Name
		}
		places = append(places, p)
	}
	return places
}

// isSame needs no more: mount points are not empty, and names of disks differ.
func (p Place) isSame(other Place) bool {
	return p.MountPoint == other.MountPoint && p.Device == other.Device
}

// countedAbove tells that the I/O of a device is counted once more at another one.
func countedAbove(devices []DeviceNumber, n DeviceNumber, disk func(DeviceNumber) Disk) bool {
	if len(devices) == 1 {
		return false
	}
	if whole := disk(n).Whole; whole != n && slices.Contains(devices, whole) {
		return true
	}
	return slices.ContainsFunc(devices, func(other DeviceNumber) bool {
		return other != n && slices.Contains(disk(other).Below, n)
	})
}

// mountOf finds the mount on a disk, or else on one that is made of it. mounts are sorted.
func mountOf(mounts []Mount, n DeviceNumber, disk func(DeviceNumber) Disk) *Mount {
	for i := range mounts {
		if m := &mounts[i]; m.GivesIO && m.IODevice == n {
			return m
		}
	}
	for i := range mounts {
		if m := &mounts[i]; m.GivesIO && slices.Contains(disk(m.IODevice).Below, n) {
			return m
		}
	}
	return nil
}
