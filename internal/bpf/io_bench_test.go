// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkDiskIOProgram is what the program costs for each operation that a container submits.
func BenchmarkDiskIOProgram(b *testing.B) {
	for _, how := range []string{"direct", "synced"} {
		b.Run(how, func(b *testing.B) {
			tr := openForBench(b, Options{DiskIO: true})
			if tr.io == nil {
				b.Skip("no programs")
			}
			stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
			if err != nil {
				b.Skip(err)
			}
			defer stats.Close()
			d := makeRawDisk(b)
			dirs := benchCgroup(b, 0)
			for b.Loop() {
				runTask(b, cgroup{dirs: dirs}, nil, "write", d.name, fmt.Sprint(diskSize), how).wait()
			}
			for _, p := range []*ebpf.Program{tr.io.objs.OnBioQueue, tr.io.objs.OnBioSplit} {
				info, err := p.Info()
				if err != nil {
					b.Fatal(err)
				}
				ran, err := p.Stats()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(ran.Runtime.Nanoseconds())/float64(max(ran.RunCount, 1)), strings.TrimPrefix(info.Name, "on_")+"-ns/run")
				b.ReportMetric(float64(ran.RunCount)/float64(b.N), strings.TrimPrefix(info.Name, "on_")+"-runs/op")
			}
		})
	}
}

// BenchmarkReadDiskIO is the reading of the table.
func BenchmarkReadDiskIO(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint("entries=", n), func(b *testing.B) {
			tr := openForBench(b, Options{DiskIO: true})
			if tr.io == nil {
				b.Skip("no programs")
			}
			keys, values := make([]ioDiskKey, n), make([]ioDiskIo, n)
			for i := range keys {
				keys[i].Owner.CgroupV1, keys[i].Dev = uint64(1<<40+i/4), uint32(i%4)
			}
			if _, err := tr.io.objs.DiskIos.BatchUpdate(keys, values, nil); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := tr.ReadDiskIO(func(*DiskIO) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
