// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Disk is what sysfs tells of a block device.
type Disk struct {
	Name  string         // of the kernel, such as sda1, nvme0n1, dm-0; its number if that is not known
	Whole DeviceNumber   // the disk that a partition is on, and of anything else its own number
	Below []DeviceNumber // whole disks that it is made of, as dm, md and bcache are, on all levels; I/O is counted at each

	known bool
}

const (
	// keepDisks is how long what sysfs told is believed: numbers are given anew.
	keepDisks = 10 * time.Second
	maxDisks  = 4096
	// maxLayers bounds how far devices made of devices are followed.
	maxLayers = 16
)

// disks reads and remembers block devices.
type disks struct {
	sysRoot, hostRoot string
	now               func() time.Time

	mu     sync.Mutex // guards what follows, and is held while files of sysfs are read
	byID   map[DeviceNumber]Disk
	readAt time.Time
}

func (d *disks) get(n DeviceNumber) Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.now(); now.Sub(d.readAt) >= keepDisks || len(d.byID) >= maxDisks {
		d.byID, d.readAt = map[DeviceNumber]Disk{}, now
	}
	disk, known := d.byID[n]
	if !known {
		disk = d.read(n, maxLayers)
		d.byID[n] = disk
	}
	return disk
}

func (d *disks) read(n DeviceNumber, layers int) Disk {
	disk := Disk{Name: n.String(), Whole: n}
	link := filepath.Join(d.sysRoot, "dev/block", n.String())
	target, err := os.Readlink(link)
	if err != nil {
		return disk
	}
	disk.Name, disk.known = kernelName(filepath.Base(target)), true
	dir := link
	if _, err := os.Stat(filepath.Join(link, "partition")); err == nil {
		parent := filepath.Join(filepath.Dir(link), filepath.Dir(target)) // targets are relative
		if whole, ok := readNumber(filepath.Join(parent, "dev")); ok {
			disk.Whole, dir = whole, parent
		}
	}
	slaves, _ := os.ReadDir(filepath.Join(dir, "slaves")) // most have none
	for _, slave := range slaves {
		number, ok := readNumber(filepath.Join(dir, "slaves", slave.Name(), "dev"))
		if !ok || layers == 0 {
			continue
		}
		below := d.read(number, layers-1)
		disk.Below = append(append(disk.Below, below.Whole), below.Below...)
	}
	slices.SortFunc(disk.Below, compareNumbers)
	disk.Below = slices.Compact(disk.Below)
	return disk
}

// numberOf finds a block device by the name that it was mounted by. File systems that may be on several devices have
// only that.
func (d *disks) numberOf(source string) (DeviceNumber, bool) {
	source, _, _ = strings.Cut(source, ":/dev/") // bcachefs names all of its devices
	name, ok := strings.CutPrefix(path.Clean(source), "/dev/")
	if !ok {
		return DeviceNumber{}, false
	}
	if n, ok := d.numberOfKernelName(name); ok {
		return n, true
	}
	if mapped, ok := strings.CutPrefix(name, "mapper/"); ok {
		all, _ := filepath.Glob(filepath.Join(d.sysRoot, "class/block/dm-*"))
		for _, dir := range all {
			if b, err := os.ReadFile(filepath.Join(dir, "dm/name")); err == nil && strings.TrimSuffix(string(b), "\n") == mapped {
				return readNumber(filepath.Join(dir, "dev"))
			}
		}
	}
	if target, err := os.Readlink(filepath.Join(d.hostRoot, "dev", name)); err == nil { // of udev
		return d.numberOfKernelName(filepath.Base(target))
	}
	return DeviceNumber{}, false
}

func (d *disks) numberOfKernelName(name string) (DeviceNumber, bool) {
	return readNumber(filepath.Join(d.sysRoot, "class/block", strings.ReplaceAll(name, "/", "!"), "dev"))
}

// kernelName undoes what sysfs does to names such as cciss/c0d0.
func kernelName(sysName string) string { return strings.ReplaceAll(sysName, "!", "/") }

func readNumber(name string) (DeviceNumber, bool) {
	b, err := os.ReadFile(name)
	if err != nil {
		return DeviceNumber{}, false
	}
	n, err := parseDeviceNumber(strings.TrimSpace(string(b)))
	return n, err == nil
}

func compareNumbers(a, b DeviceNumber) int {
	if a.Major != b.Major {
		return int(int64(a.Major) - int64(b.Major))
	}
	return int(int64(a.Minor) - int64(b.Minor))
}
