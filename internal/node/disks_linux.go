// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"
)

// sectorSize is what /proc/diskstats and sysfs count in, whatever the disk's own is.
const sectorSize = 512

// noDisk matches block devices that are no disks.
var noDisk = regexp.MustCompile(`^(?:loop|ram|zram|sr|fd|mtdblock)\d`)

func (r *Reader) readDisks(_ context.Context, st *Stats) error {
	lines, err := r.disks.ProcDiskstats()
	if err != nil {
		return err
	}
	seen := make(map[string]*diskTimes, len(r.times))
	for i := range lines {
		name := lines[i].DeviceName
		if noDisk.MatchString(name) || !r.isWholeDisk(name) {
			continue
		}
		times := r.times[name]
		if times == nil {
			times = &diskTimes{}
		}
		seen[name] = times
		disk := newDisk(&lines[i].IOStats, times)
		disk.Name, disk.Stacked = validName(name), r.isStacked(name)
		st.Disks = append(st.Disks, disk)
	}
	r.times = seen
	if len(st.Disks) == 0 {
		_, err = os.Stat(r.sysBlock("")) // without it disks cannot be told from partitions
	}
	return err
}

// sysBlock is the folder of a disk in sysfs, or of a file in it. Partitions have none there.
func (r *Reader) sysBlock(disk string, elem ...string) string {
	disk = strings.ReplaceAll(disk, "/", "!") // as sysfs writes cciss/c0d0
	return filepath.Join(append([]string{r.root, "sys/block", disk}, elem...)...)
}

// isWholeDisk reports whether the device is no partition, has a size, and is no path of NVMe multipath (since 4.15).
func (r *Reader) isWholeDisk(name string) bool {
	size, err := os.ReadFile(r.sysBlock(name, "size"))
	if err != nil || firstLine(string(size)) == "0" {
		return false
	}
	hidden, _ := os.ReadFile(r.sysBlock(name, "hidden")) // since 4.15
	return firstLine(string(hidden)) != "1"
}

func (r *Reader) isStacked(name string) bool {
	below, _ := os.ReadDir(r.sysBlock(name, "slaves"))
	return len(below) > 0
}

// diskTimes makes one count of those that the kernel cuts off: it writes milliseconds in 32 bits (block/genhd.c), which is
// 50 days of operations one after the other, but only three days of 16 at once.
type diskTimes struct {
	operations            uint64
	readMS, writeMS, ioMS wrapping
}

type wrapping struct{ last, wraps uint64 }

func (w *wrapping) add(ms uint64) time.Duration {
	if ms < w.last && w.last-ms > math.MaxUint32/2 {
		w.wraps++
	}
	w.last = ms
	return time.Duration(ms+w.wraps<<32) * time.Millisecond //nolint:gosec // 2^32 ms at a time
}

func newDisk(s *blockdevice.IOStats, times *diskTimes) Disk {
	operations := s.ReadIOs + s.WriteIOs
	if operations < times.operations {
		*times = diskTimes{} // another disk of this name
	}
	times.operations = operations
	return Disk{
		Reads:     s.ReadIOs,
		Writes:    s.WriteIOs,
		Read:      s.ReadSectors * sectorSize,
		Written:   s.WriteSectors * sectorSize,
		ReadTime:  times.readMS.add(s.ReadTicks),
		WriteTime: times.writeMS.add(s.WriteTicks),
		IOTime:    times.ioMS.add(s.IOsTotalTicks),
	}
}

func (r *Reader) readArrays(_ context.Context, st *Stats) error {
	arrays, err := r.proc.MDStat()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no array was ever made
	}
	if err != nil {
		return err
	}
	for i := range arrays {
		st.Arrays = append(st.Arrays, newArray(&arrays[i]))
	}
	return nil
}

func newArray(md *procfs.MDStat) Array {
	count := func(n int64) uint64 { return uint64(max(n, 0)) } //nolint:gosec // not negative
	a := Array{
		Name:   validName(md.Name),
		Level:  validName(md.Type),
		State:  validName(md.ActivityState),
		Active: count(md.DisksActive),
		Total:  count(md.DisksTotal),
		Failed: count(md.DisksFailed),
		Spare:  count(md.DisksSpare),
		Down:   count(md.DisksDown),
	}
	if md.BlocksToBeSynced > 0 && isSyncing(a.State) {
		a.Synced = Some(float64(md.BlocksSynced) / float64(md.BlocksToBeSynced))
	}
	return a
}

func isSyncing(state string) bool {
	switch state {
	case "recovering", "resyncing", "reshaping", "checking":
		return true
	}
	return false
}
