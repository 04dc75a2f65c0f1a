// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// openFiles opens files of this process for as long as the benchmark runs.
func openFiles(b *testing.B, n int, flags int) {
	b.Helper()
	dir := b.TempDir()
	for i := range n {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(i)), os.O_CREATE|flags, 0o600)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { f.Close() })
	}
}

// BenchmarkFiles looks at 1000 files of one process, none of which is on a mount that is looked for.
func BenchmarkFiles(b *testing.B) {
	r := openReader(b, Options{})
	scan := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			wanted := map[int]*candidate{-1: {entry: &entry{id: -1}}}
			r.findWritten([]int{os.Getpid()}, wanted)
		}
	}
	b.Run("written", func(b *testing.B) { openFiles(b, 1000, os.O_RDWR); scan(b) })
	b.Run("read", func(b *testing.B) { openFiles(b, 1000, os.O_RDONLY); scan(b) })
	b.Run("sockets", func(b *testing.B) {
		for range 1000 {
			conn, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { conn.Close() })
		}
		scan(b)
	})
}

// BenchmarkLook is a container of which all is known already.
func BenchmarkLook(b *testing.B) {
	r := openReader(b, Options{})
	openFiles(b, 1, os.O_RDWR)
	pids := []int{os.Getpid()}
	before, err := r.Look(pids, nil)
	if err != nil || len(before) == 0 {
		b.Skipf("needs a disk: %v", err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if before, err = r.Look(pids, before); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSizes asks for the roots of 500 containers: on one file system without quotas, and each for itself.
func BenchmarkSizes(b *testing.B) {
	r := openReader(b, Options{})
	openFiles(b, 1, os.O_RDWR)
	pids := []int{os.Getpid()}
	mounts, err := r.Look(pids, nil)
	if err != nil || len(mounts) == 0 {
		b.Skipf("needs a disk: %v", err)
	}
	for _, own := range []bool{false, true} {
		b.Run(fmt.Sprintf("quotas=%v", own), func(b *testing.B) {
			requests := make([]SizeRequest, 500)
			for i := range requests {
				m := mounts[0]
				if own {
					m.SizedBy = fmt.Sprint(i)
				}
				requests[i] = SizeRequest{PIDs: func() []int { return pids }, Mounts: []Mount{m}}
			}
			b.ReportAllocs()
			for b.Loop() {
				got, err := r.Sizes(b.Context(), requests)
				if err != nil || !got[499][0].Known {
					b.Fatal(err, r.Stats())
				}
			}
		})
	}
}

func BenchmarkReadTable(b *testing.B) {
	line := "%d 20 0:%d / /run/containerd/%d/rootfs rw,relatime shared:9 - overlay overlay rw,lowerdir=/var/lib/containerd/io.containerd." +
		"snapshotter.v1.overlayfs/snapshots/1/fs:/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/2/fs,upperdir=/var/lib/x/%d/fs\n"
	var text string
	for i := range 1000 {
		text += fmt.Sprintf(line, 100+i, i, i, i)
	}
	b.ReportAllocs()
	for b.Loop() {
		tableOf(b, text)
	}
}

func BenchmarkPlaceIO(b *testing.B) {
	disks := []DeviceNumber{{8, 0}, {253, 0}}
	mounts := []Mount{{MountPoint: "/", Device: "dm-0", IODevice: DeviceNumber{253, 0}, HasIO: true, GivesIO: true}}
	r := openReader(b, Options{})
	b.ReportAllocs()
	for b.Loop() {
		PlaceIO(disks, mounts, r.Disk)
	}
}
