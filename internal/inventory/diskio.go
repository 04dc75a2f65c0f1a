// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// diskNumber names a disk.
type diskNumber struct {
	major, minor uint32
}

// diskKey names an entry of the kernel's table of disk I/O.
type diskKey struct {
	cgroupV2, cgroupV1 uint64
	disk               diskNumber
}

// diskUse is one entry of it. Guarded by Inventory.tasksMu.
type diskUse struct {
	dir  *dir // nil while it is not known whose it is
	last bpf.DiskIO
	born time.Time
}

// passDiskIO brings the I/O of all containers up to date with the kernel's table, which there is only where cgroup files do
// not tell it. tasksMu is held.
func (inv *Inventory) passDiskIO() {
	inv.diskTable = inv.diskTable[:0]
	err := inv.kernel.ReadDiskIO(func(io *bpf.DiskIO) { inv.diskTable = append(inv.diskTable, *io) })
	now := inv.now()
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if err != nil {
		inv.status.ReadErrors++
		if text := err.Error(); text != inv.diskError {
			inv.diskError = text
			inv.log.Warn("disk I/O is as it was before", zap.Error(err))
		}
		return
	}
	for i := range inv.diskTable {
		inv.addDiskIO(&inv.diskTable[i], now)
	}
}

// addDiskIO adds to its container what is new in an entry of the kernel's table. tasksMu and mu are held.
func (inv *Inventory) addDiskIO(io *bpf.DiskIO, now time.Time) {
	key := diskKey{io.CgroupV2, io.CgroupV1, diskNumber{io.Major, io.Minor}}
	known := inv.diskUses[key]
	if known == nil {
		known = &diskUse{born: now}
		inv.diskUses[key] = known
	}
	if known.dir == nil {
		if known.dir = inv.dirOf(io.CgroupV2, io.CgroupV1); known.dir == nil {
			return
		}
	}
	c, last := known.dir.container(), &known.last
	if c == nil {
		return
	}
	if c.io == nil {
		c.io = map[diskNumber]*cgroups.Device{}
	}
	to := c.io[key.disk]
	if to == nil {
		to = &cgroups.Device{Major: io.Major, Minor: io.Minor}
		c.io[key.disk] = to
	}
	to.Reads += rise(&last.Reads, io.Reads)
	to.Writes += rise(&last.Writes, io.Writes)
	to.ReadBytes += rise(&last.ReadBytes, io.ReadBytes)
	to.WriteBytes += rise(&last.WrittenBytes, io.WrittenBytes)
}

// dirOf finds the directory of a cgroup of which the id in one of the hierarchies may not be known. mu is held.
func (inv *Inventory) dirOf(cgroupV2, cgroupV1 uint64) *dir {
	switch {
	case cgroupV2 == 0:
		return inv.dirs[cgroups.ID{Hierarchy: cgroups.Legacy, Inode: cgroupV1}]
	case cgroupV1 == 0:
		return inv.dirs[cgroups.ID{Hierarchy: cgroups.Unified, Inode: cgroupV2}]
	}
	return inv.resolve(cgroupV2, cgroupV1)
}

// cleanDiskIO takes out of the kernel's table the I/O of cgroups that are gone. tasksMu is held.
func (inv *Inventory) cleanDiskIO(now time.Time) {
	var over []bpf.DiskIO
	inv.mu.Lock()
	for key, known := range inv.diskUses {
		if inv.isOver(known.dir, known.born, now) {
			over = append(over, bpf.DiskIO{CgroupV2: key.cgroupV2, CgroupV1: key.cgroupV1, Major: key.disk.major, Minor: key.disk.minor})
		}
	}
	inv.mu.Unlock()
	for i := range over {
		io := &over[i]
		err := inv.kernel.TakeDiskIO(io)
		inv.mu.Lock()
		if err != nil {
			inv.status.ReadErrors++
		} else {
			inv.addDiskIO(io, now)
			delete(inv.diskUses, diskKey{io.CgroupV2, io.CgroupV1, diskNumber{io.Major, io.Minor}})
		}
		inv.mu.Unlock()
	}
}

// isOver tells whether what the kernel counts of a cgroup, which it has done since born, is to be taken out of its table.
// mu is held.
func (inv *Inventory) isOver(d *dir, born, now time.Time) bool {
	if d == nil {
		return now.Sub(born) > unresolvedFor
	}
	return !d.deadAt.IsZero() && now.Sub(d.deadAt) > inv.opts.Keep
}

// devicesOf gives the I/O of c by disk: what its cgroups' files tell, or the kernel program where that is more. mu is held.
func (c *container) devicesOf(files []cgroups.Device) []cgroups.Device {
	if len(c.io) == 0 {
		return files
	}
	all := make([]cgroups.Device, len(files), len(files)+len(c.io))
	copy(all, files)
	known := make(map[diskNumber]int, len(files))
	for i, d := range all {
		known[diskNumber{d.Major, d.Minor}] = i
	}
	for number, io := range c.io {
		i, ok := known[number]
		if !ok {
			all = append(all, *io)
			continue
		}
		d := &all[i]
		d.Reads, d.Writes = max(d.Reads, io.Reads), max(d.Writes, io.Writes)
		d.ReadBytes, d.WriteBytes = max(d.ReadBytes, io.ReadBytes), max(d.WriteBytes, io.WriteBytes)
	}
	return all
}
