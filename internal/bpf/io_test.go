// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// diskTally is the part of a DiskIO that is counted.
type diskTally struct{ Reads, Writes, ReadBytes, WrittenBytes uint64 }

// isOf tells whether d is the I/O of c.
func (d *DiskIO) isOf(c cgroup) bool {
	if c.v1 != 0 {
		return d.CgroupV1 == c.v1 && d.CgroupV2 == 0
	}
	return d.CgroupV2 == c.v2 && d.CgroupV1 == 0
}

// tallyOf returns what c has done with the disk.
func (d *disk) tallyOf(tr *Tracer, c cgroup) (found diskTally) {
	d.t.Helper()
	if err := tr.ReadDiskIO(func(io *DiskIO) {
		if io.isOf(c) && io.Major == d.major && io.Minor == d.minor {
			found = diskTally{io.Reads, io.Writes, io.ReadBytes, io.WrittenBytes}
		}
	}); err != nil {
		d.t.Fatal(err)
	}
	return found
}

// wantIOStat compares with io.stat, where the host has that.
func (d *disk) wantIOStat(tr *Tracer, c cgroup) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dirs[0], "io.stat"))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		d.t.Fatal(err)
	}
	var want diskTally
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, fmt.Sprintf("%d:%d ", d.major, d.minor)); ok {
			if _, err := fmt.Sscanf(rest, "rbytes=%d wbytes=%d rios=%d wios=%d",
				&want.ReadBytes, &want.WrittenBytes, &want.Reads, &want.Writes); err != nil {
				d.t.Fatalf("%q: %v", line, err)
			}
		}
	}
	if diff := cmp.Diff(want, d.tallyOf(tr, c)); diff != "" {
		d.t.Errorf("io.stat and what was counted (-want +got):\n%s", diff)
	}
}

// ioTold reads what a child says: what the kernel accounts to the process itself.
func ioTold(t testing.TB, line string) (read, written uint64) {
	t.Helper()
	if _, err := fmt.Sscan(line, &read, &written); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return read, written
}

// isAbout tells that got is want and a little more, such as the file system's own blocks.
func isAbout(got, want uint64) bool { return got >= want && got <= want+want/50+64<<10 }

// diskWays are ways to move 8 MiB to or from a file.
var diskWays = []struct {
	name, verb, how string
	later           func(t testing.TB, dir, file string) // writes back, if the child does not
}{
	{name: "direct write", verb: "write", how: "direct"},
	{name: "direct read", verb: "read", how: "direct"},
	{name: "buffered read", verb: "read", how: "lazy"},
	{name: "write and fsync", verb: "write", how: "synced"},
	{name: "write, fsync by another", verb: "write", how: "lazy", later: func(t testing.TB, _, file string) { syncFile(t, file) }},
	{name: "write, written back by the kernel", verb: "write", how: "lazy", later: func(t testing.TB, dir, _ string) { syncDir(t, dir) }},
}

const waySize = 8 * mib

// TestDiskIOByWay: who has used a file pays, whoever writes it back, and nobody else.
func TestDiskIOByWay(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), DiskIO: true})
	d, dir := mountDisk(t)
	idle := h.makeCgroup(t, "idle")
	for i := range 40 {
		// The blocks that everybody needs are in memory because of it.
		runTask(t, idle, nil, "write", filepath.Join(dir, fmt.Sprint("idle", i)), "4096", "synced").wait()
	}
	unchanged := d.tallyOf(tr, idle)
	for i, tt := range diskWays {
		t.Run(tt.name, func(t *testing.T) {
			c := h.makeCgroup(t, fmt.Sprint("way", i))
			file := filepath.Join(dir, "file")
			if tt.verb == "read" {
				writeFile(t, file, waySize)
			} else {
				file = filepath.Join(dir, fmt.Sprint("file", i))
			}
			read, written := d.blockStat()
			p := runTask(t, c, nil, tt.verb, file, strconv.Itoa(waySize), tt.how)
			toldRead, toldWritten := ioTold(t, p.line())
			p.wait()
			if tt.later != nil {
				tt.later(t, dir, file)
			}
			got := d.tallyOf(tr, c)
			nowRead, nowWritten := d.blockStat()
			t.Logf("%+v, told by the process: read %d, written %d; the disk: %d, %d", got, toldRead, toldWritten, nowRead-read, nowWritten-written)
			if tt.verb == "read" && (!isAbout(got.ReadBytes, waySize) || !isAbout(toldRead, got.ReadBytes)) {
				t.Errorf("read %d bytes, the process says %d", got.ReadBytes, toldRead)
			}
			if tt.verb == "write" && (!isAbout(got.WrittenBytes, waySize) || !isAbout(got.WrittenBytes, toldWritten)) {
				t.Errorf("written %d bytes, the process says %d", got.WrittenBytes, toldWritten)
			}
			if got.ReadBytes > nowRead-read || got.WrittenBytes > nowWritten-written {
				t.Error("more than the disk itself")
			}
			d.wantIOStat(tr, c)
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
		})
	}
	if diff := cmp.Diff(unchanged, d.tallyOf(tr, idle)); diff != "" {
		t.Errorf("the idle cgroup (-before +after):\n%s", diff)
	}
	if s := tr.Stats(); s.DiskIOUnaccounted != 0 || s.DiskIOMissed != 0 || s.DiskIOs == 0 {
		t.Errorf("%+v", s)
	}
}

// writeFile writes a file from this process, and leaves nothing of it in memory.
func writeFile(t testing.TB, name string, size int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}

// TestDiskIOIsOfTheWholeDisk: what goes to a partition counts for its disk, byte by byte.
func TestDiskIOIsOfTheWholeDisk(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), DiskIO: true})
	raw := makeRawDisk(t)
	parted, partition := makePartition(t)
	for _, target := range []struct {
		d      *disk
		device string
	}{{raw, raw.name}, {parted, partition}} {
		d := target.d
		for i, tt := range diskWays {
			t.Run(filepath.Base(target.device)+"/"+tt.name, func(t *testing.T) {
				c := h.makeCgroup(t, fmt.Sprint("device", i))
				part, err := unix.Open(target.device, unix.O_RDWR|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(part)
				(&disk{t: t, fd: part}).dropCache()
				read, written := d.blockStat()
				runTask(t, c, nil, tt.verb, target.device, strconv.Itoa(waySize), tt.how).wait()
				syncFile(t, target.device)
				got := d.tallyOf(tr, c)
				nowRead, nowWritten := d.blockStat()
				if got.ReadBytes != nowRead-read || got.WrittenBytes != nowWritten-written {
					t.Errorf("%+v, of the disk: read %d, written %d", got, nowRead-read, nowWritten-written)
				}
				if got.ReadBytes+got.WrittenBytes < waySize {
					t.Errorf("%+v of %d bytes", got, waySize)
				}
				// The kernel gives what is written back to the cgroup that has first written to the device at all.
				if tt.verb == "read" || tt.how == "direct" {
					d.wantIOStat(tr, c)
				}
			})
		}
	}
}

// TestDiskIOOfSplits: an operation that is too large for the disk counts as often as the disk gets a part.
func TestDiskIOOfSplits(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), DiskIO: true})
	d := makeRawDisk(t)
	limit := filepath.Join("/sys/class/block", filepath.Base(d.name), "queue/max_sectors_kb")
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(limit, before, 0) })
	if err := os.WriteFile(limit, []byte("64"), 0); err != nil {
		t.Fatal(err)
	}
	c := h.makeCgroup(t, "splits")
	runTask(t, c, nil, "write", d.name, strconv.Itoa(4*mib), "direct").wait()
	runTask(t, c, nil, "read", d.name, strconv.Itoa(2*mib), "direct").wait()
	want := diskTally{Reads: 32, Writes: 64, ReadBytes: 2 * mib, WrittenBytes: 4 * mib}
	if diff := cmp.Diff(want, d.tallyOf(tr, c)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	d.wantIOStat(tr, c)
}

// TestDiskIOOfShortLives: nothing is lost of processes that are gone at once, and of files that several cgroups write.
func TestDiskIOOfShortLives(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), DiskIO: true})
	d, dir := mountDisk(t)
	const files, size, rounds = 40, 20 << 10, 5
	cgroups := []cgroup{h.makeCgroup(t, "short0"), h.makeCgroup(t, "short1")}
	for round := range rounds {
		var all []*program
		for i, c := range cgroups {
			sub := filepath.Join(dir, fmt.Sprint(i, "-", round))
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			all = append(all, runTask(t, c, nil, "files", sub, strconv.Itoa(files), strconv.Itoa(size), "lazy"))
		}
		for _, p := range all {
			line := p.line()
			if _, life := p.wait(); round == 0 {
				t.Logf("%s us at work, %v in all", line[strings.LastIndexByte(line, ' ')+1:], life)
			}
		}
	}
	syncDir(t, dir)
	for _, c := range cgroups {
		got := d.tallyOf(tr, c)
		t.Logf("%+v", got)
		if !isAbout(got.WrittenBytes, files*size*rounds) {
			t.Errorf("written %d bytes, want %d", got.WrittenBytes, files*size*rounds)
		}
	}
}

// TestDiskIOOfGoneCgroup: what a cgroup leaves behind is its, and goes when it is taken. Since Linux 7.1 it is soon
// its parent's.
func TestDiskIOOfGoneCgroup(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), DiskIO: true})
	d, dir := mountDisk(t)
	c := h.makeCgroup(t, "gone")
	runTask(t, c, nil, "write", filepath.Join(dir, "lazy"), strconv.Itoa(waySize), "lazy").wait()
	for _, dir := range c.dirs {
		removeCgroup(t, dir)
	}
	syncDir(t, dir)
	var found []DiskIO
	if err := tr.ReadDiskIO(func(io *DiskIO) {
		if io.isOf(c) && io.Major == d.major && io.Minor == d.minor {
			found = append(found, *io)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 && !isBefore(7, 1) {
		t.Skip("the kernel was quick")
	}
	if len(found) != 1 || !isAbout(found[0].WrittenBytes, waySize) {
		t.Fatalf("%+v", found)
	}
	taken := found[0]
	taken.WrittenBytes = 0
	if err := tr.TakeDiskIO(&taken); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(found[0], taken); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	if got := d.tallyOf(tr, c); got != (diskTally{}) {
		t.Errorf("still there: %+v", got)
	}
	if err := tr.TakeDiskIO(&taken); err != nil {
		t.Errorf("taken again: %v", err)
	}
}

// TestDiskIOOfSwap: pages of a process that others swap out are its, and so is what it swaps in.
func TestDiskIOOfSwap(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), DiskIO: true})
	d := makeSwapDisk(t)
	d.swapOn(12 * mib)
	c := h.makeCgroup(t, "swap")
	const size = 4 * mib
	p := runTask(t, c, nil, "swap", strconv.Itoa(size))
	at, err := strconv.ParseUint(p.line(), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	pageOut(t, p.pid(), at, size)
	eventually(t, "swapped out", func() bool { return d.tallyOf(tr, c).WrittenBytes >= size*9/10 })
	out := d.tallyOf(tr, c)
	if d.name != ramDisk { // what is swapped to memory is let go at once
		emptyMemory(h, c)
	}
	if _, err := p.in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	p.line()
	p.wait()
	got := d.tallyOf(tr, c)
	t.Logf("out: %+v, and in: %+v", out, got)
	if out.WrittenBytes > size+size/50 || got.ReadBytes < size*9/10 || got.ReadBytes > got.WrittenBytes {
		t.Errorf("out: %+v, and in: %+v", out, got)
	}
	d.wantIOStat(tr, c)
}

// emptyMemory lets go of pages that are on disk as well.
func emptyMemory(h host, c cgroup) {
	if h.legacy != "" {
		_ = os.WriteFile(filepath.Join(c.dirs[1], "memory.force_empty"), []byte("0"), 0)
	} else {
		_ = os.WriteFile(filepath.Join(c.dirs[0], "memory.reclaim"), []byte("4M"), 0) // says that it was too little
	}
}

// pageOut makes the kernel swap out memory of another process.
func pageOut(t *testing.T, pid int, at, size uint64) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	vec := [2]uint64{at, size}
	if _, _, errno := unix.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&vec)), 1, unix.MADV_PAGEOUT, 0, 0); errno != 0 {
		t.Skip("cannot page out: ", errno)
	}
}

// TestDiskIOFindsItsTableFull: what is lost is counted.
func TestDiskIOFindsItsTableFull(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller(), DiskIO: true, MaxDiskIOs: 1})
	d := makeRawDisk(t)
	var counted diskTally
	for i := range 3 {
		c := h.makeCgroup(t, fmt.Sprint("full", i))
		runTask(t, c, nil, "write", d.name, strconv.Itoa(waySize), "direct").wait()
		got := d.tallyOf(tr, c)
		counted.Writes, counted.WrittenBytes = counted.Writes+got.Writes, counted.WrittenBytes+got.WrittenBytes
	}
	s := tr.Stats()
	// Others write, too, such as the device that this one lies on.
	if counted.WrittenBytes+s.DiskIOUnaccountedBytes < 3*waySize || s.DiskIOUnaccountedBytes < 2*waySize || s.DiskIOUnaccounted < 16 {
		t.Errorf("%+v, lost %d of %d bytes", counted, s.DiskIOUnaccounted, s.DiskIOUnaccountedBytes)
	}
	if s.DiskIOs > 1 || s.DiskIOsMax != 1 {
		t.Errorf("%d of %d entries", s.DiskIOs, s.DiskIOsMax)
	}
}

// TestDiskIOIsOffUnlessAskedFor: there is nothing to read then.
func TestDiskIOIsOffUnlessAskedFor(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	for _, f := range tr.Features() {
		if f.Name == FeatureDiskIO {
			t.Error("listed")
		}
	}
	if err := tr.ReadDiskIO(func(*DiskIO) { t.Error("given") }); err != nil {
		t.Error(err)
	}
	if err := tr.TakeDiskIO(&DiskIO{}); err != nil {
		t.Error(err)
	}
}
