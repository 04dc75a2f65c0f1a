// SPDX-License-Identifier: Apache-2.0

// Package mounts tells which file systems the processes of a container write to, how full these are, and at which of
// them the I/O of a disk is given.
//
// A mount counts once a process of the container was seen with a file on it open for writing, and then as long as it is
// mounted; named volumes and persistent volumes of Kubernetes count without that. What is written only by mapped memory
// whose descriptor is closed, or only between two looks, is not seen. Disk numbers are those of io.stat: it counts whole
// disks, so partitions are mapped to theirs. The disks of a btrfs of several devices cannot be told apart: the one that
// the mount table names stands for all.
//
// Only the mount table, /proc and sysfs are read without a deadline. Whatever may ask a file system is done by a bounded
// number of goroutines, and a file system that does not answer is not asked again until it has.
package mounts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrClosed is returned by a Reader after Close.
var ErrClosed = errors.New("mounts: reader is closed")

// Options tell where the host is.
type Options struct {
	ProcRoot string // the host's /proc; "" is /proc
	SysRoot  string // the host's /sys; "" is /sys
	HostRoot string // where the host's own root is seen, to find the disks of overlays; "" is /
	Tmpfs    bool   // whether file systems in memory count
}

// DeviceNumber is the number of a block device or, with a Major of 0, of a file system that has none.
type DeviceNumber struct{ Major, Minor uint32 }

// String returns the number as the kernel writes it, such as 8:1.
func (n DeviceNumber) String() string {
	return strconv.FormatUint(uint64(n.Major), 10) + ":" + strconv.FormatUint(uint64(n.Minor), 10)
}

func parseDeviceNumber(s string) (DeviceNumber, error) {
	major, minor, ok := strings.Cut(s, ":")
	if !ok {
		return DeviceNumber{}, fmt.Errorf("device number %q: no colon", s)
	}
	a, err := strconv.ParseUint(major, 10, 32)
	if err != nil {
		return DeviceNumber{}, fmt.Errorf("device number: %w", err)
	}
	b, err := strconv.ParseUint(minor, 10, 32)
	if err != nil {
		return DeviceNumber{}, fmt.Errorf("device number: %w", err)
	}
	return DeviceNumber{uint32(a), uint32(b)}, nil
}

// Mount is a mount that a container writes to. What Look returns is given back to it the next time, and to Sizes.
//
// Text is as the kernel has it: it may be of any bytes but NUL, and need not be UTF-8.
type Mount struct {
	MountPoint string // as the container's processes see it
	Device     string // kernel name of the block device (sda1, dm-0), or what a file system without one is mounted from
	Volume     string // name of the persistent volume, pvc-UUID, or ""
	FSType     string

	ID        int // of the mount; given anew after it is gone
	Namespace uint64
	Number    DeviceNumber // of the file system
	Root      string       // directory of the file system that is mounted
	Source    string

	// SizedBy is equal for mounts that have the same sizes: these are asked for once.
	SizedBy string

	IODevice DeviceNumber // disk that its I/O is counted by, if HasIO
	HasIO    bool
	GivesIO  bool // of the mounts with its IODevice this one has the I/O
}

// Usage is how full a file system is, in bytes. Reserved is free, but only for root; it is not in Used.
type Usage struct {
	Size, Used, Reserved uint64

	Known bool // otherwise the file system did not answer, or not in time
}

// SizeRequest asks for the sizes of a container's mounts.
type SizeRequest struct {
	// PIDs returns live processes of the container. It is called when they are needed, perhaps not at all, from other
	// goroutines, also after Sizes has returned.
	PIDs   func() []int
	Mounts []Mount
}

// Stats count what could not be told since Open.
type Stats struct {
	SlowSizes     uint64 // sizes of mounts not told since the file system did not answer in time
	FailedSizes   uint64 // sizes of mounts not told since it could not be asked
	SlowLooks     uint64 // mounts that a look left for the next one since their file system did not answer in time
	FilesSkipped  uint64 // open files not looked at, since a process or a container had too many; at least so many
	MountsSkipped uint64 // mounts left out since a container has too many; each look counts anew
	TablesCut     uint64 // times that only the begin of a mount table was read, since it was too long

	Stuck int // calls now waiting in the kernel, each with a goroutine and a thread
}

const (
	maxFilesPerProcess = 1024
	maxFilesPerLook    = 4096
	// maxFilesListed is up to how many files of a process are counted as left out.
	maxFilesListed = 16 << 10
	// maxMounts is how many lines of a mount table are read, maxMountLine how much of one.
	maxMounts    = 16 << 10
	maxMountLine = 1 << 20
	// maxCandidates is how many mounts of a container are looked at, maxMountsOfOne how many may count.
	maxCandidates  = 1024
	maxMountsOfOne = 256
	// maxDevice bounds names that a container may choose.
	maxDevice = 255
)

// assignIO chooses, for each disk, the mount at which its I/O is given: the one that has it already, or else the root, or else
// the first one. mounts are sorted.
func assignIO(mounts []Mount) {
	has := map[DeviceNumber]bool{}
	for i := range mounts {
		m := &mounts[i]
		m.GivesIO = m.GivesIO && m.HasIO && !has[m.IODevice]
		if m.GivesIO {
			has[m.IODevice] = true
		}
	}
	for i := range mounts { // "/" sorts before all others
		if m := &mounts[i]; m.HasIO && !has[m.IODevice] {
			m.GivesIO, has[m.IODevice] = true, true
		}
	}
}
