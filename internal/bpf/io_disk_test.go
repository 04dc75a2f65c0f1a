// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	diskSize = 64 << 20
	mib      = 1 << 20

	// imageName is an empty ext4 of diskSize, looked for in PATH where there is no mkfs.ext4.
	imageName = "ebpfcontainer-test-ext4"

	ramDisk = "/dev/ram0"
)

// disk is a disk of the test's own: a loop device on a file.
type disk struct {
	t            testing.TB
	name         string // of its device
	major, minor uint32
	fd           int
}

// makeDisk makes a disk of a file, which becomes diskSize long.
func makeDisk(t testing.TB, f *os.File, flags uint32) *disk {
	t.Helper()
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no loop devices: ", err)
	}
	defer unix.Close(control)
	d := &disk{t: t}
	eventuallyDo(t, "a loop device", func() error {
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return err
		}
		d.name = fmt.Sprint("/dev/loop", n)
		if d.fd, err = unix.Open(d.name, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		config := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: flags | unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(d.fd, &config); err != nil {
			_ = unix.Close(d.fd) // somebody was faster
		}
		return err
	})
	t.Cleanup(func() {
		d.dropCache()
		_ = unix.Close(d.fd)
	})
	d.number()
	return d
}

func (d *disk) number() {
	d.t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		d.t.Fatal(err)
	}
	d.major, d.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
}

func eventuallyDo(t testing.TB, what string, do func() error) {
	t.Helper()
	var err error
	for range 50 {
		if err = do(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func makeRawDisk(t testing.TB) *disk {
	t.Helper()
	return makeDisk(t, tempFile(t), 0)
}

// makePartition makes a disk with one partition and gives the name of its device.
func makePartition(t testing.TB) (d *disk, partition string) {
	t.Helper()
	d = makeDisk(t, tempFile(t), unix.LO_FLAGS_PARTSCAN)
	const add = 1
	part := struct { // struct blkpg_partition
		start, length int64
		number        int32
		names         [128]byte
	}{start: mib, length: diskSize - mib, number: 1}
	arg := struct { // struct blkpg_ioctl_arg
		op, flags, size int32
		data            *byte
	}{op: add, size: int32(unsafe.Sizeof(part)), data: (*byte)(unsafe.Pointer(&part))}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		t.Fatal(errno)
	}
	return d, d.name + "p1"
}

// mountDisk makes a disk with an ext4 and gives the directory where it is mounted.
func mountDisk(t testing.TB) (d *disk, dir string) {
	t.Helper()
	f := tempFile(t)
	if mkfs, err := exec.LookPath("mkfs.ext4"); err == nil {
		if err := f.Truncate(diskSize); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(mkfs, "-q", "-F", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0", f.Name()).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	} else {
		copyImage(t, f)
	}
	d = makeDisk(t, f, 0)
	dir = t.TempDir()
	if err := unix.Mount(d.name, dir, "ext4", 0, ""); err != nil {
		t.Skip("this kernel has no ext4: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d, dir
}

func copyImage(t testing.TB, to *os.File) {
	t.Helper()
	name, err := exec.LookPath(imageName)
	if err != nil {
		t.Skip("needs mkfs.ext4")
	}
	from, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
}

// dropCache writes back what the device itself has in the page cache and forgets it: whoever reads it again is its next owner.
func (d *disk) dropCache() {
	d.t.Helper()
	if err := unix.Fsync(d.fd); err != nil {
		d.t.Error(err)
	}
	if err := unix.Fadvise(d.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		d.t.Error(err)
	}
}

// syncDir lets the kernel write back all of a file system.
func syncDir(t testing.TB, dir string) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		t.Fatal(err)
	}
}

// syncFile writes a file back from this process.
func syncFile(t testing.TB, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// makeSwapDisk is makeRawDisk, or takes a disk in memory that nobody uses where the file would be in memory that is swapped out.
func makeSwapDisk(t testing.TB) *disk {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(t.TempDir(), &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.TMPFS_MAGIC {
		return makeRawDisk(t)
	}
	if isBefore(6, 4) {
		t.Skip("before Linux 6.4 a page that is swapped to memory is no operation of a disk")
	}
	d := &disk{t: t, name: ramDisk}
	fd, err := unix.Open(d.name, unix.O_RDWR|unix.O_CLOEXEC|unix.O_EXCL, 0)
	if err != nil {
		t.Skip("no disk to swap to: ", err)
	}
	_ = unix.Close(fd)
	if d.fd, err = unix.Open(d.name, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(d.fd) })
	d.number()
	return d
}

// isBefore tells whether this kernel is older.
func isBefore(major, minor int) bool {
	var ourMajor, ourMinor int
	_, _ = fmt.Sscanf(kernelRelease(), "%d.%d", &ourMajor, &ourMinor)
	return ourMajor < major || ourMajor == major && ourMinor < minor
}

// swapOn makes the disk one to swap to, before any other.
func (d *disk) swapOn(size int) {
	d.t.Helper()
	page := make([]byte, os.Getpagesize())
	header := page[1024:]
	binary.NativeEndian.PutUint32(header[0:], 1)
	binary.NativeEndian.PutUint32(header[4:], uint32(size/len(page)-1))
	copy(page[len(page)-10:], "SWAPSPACE2")
	if _, err := unix.Pwrite(d.fd, page, 0); err != nil {
		d.t.Fatal(err)
	}
	d.dropCache()
	const preferred = 0x8000 | 0x7fff
	name, err := unix.BytePtrFromString(d.name)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(name)), preferred, 0); errno != 0 {
		d.t.Skip("no swapping here: ", errno)
	}
	d.t.Cleanup(func() {
		if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(name)), 0, 0); errno != 0 {
			d.t.Error(errno)
		}
	})
}

// blockStat is what the kernel tells of the whole disk, whoever used it.
func (d *disk) blockStat() (read, written uint64) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(d.name), "stat"))
	if err != nil {
		d.t.Fatal(err)
	}
	var f [7]uint64
	if _, err := fmt.Sscan(string(text), &f[0], &f[1], &f[2], &f[3], &f[4], &f[5], &f[6]); err != nil {
		d.t.Fatal(err)
	}
	return f[2] * 512, f[6] * 512
}
