// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkReadUsages is a pass over tasks that are alive and, as most are, idle, and the reading of the table.
func BenchmarkReadUsages(b *testing.B) {
	for _, n := range []int{100, 2000, 10_000} {
		b.Run(fmt.Sprint("tasks=", n), func(b *testing.B) {
			tr := openForBench(b, Options{})
			for left := n; left > 0; left -= 1000 {
				runTasks(b, cgroup{dirs: benchCgroup(b, left)}, "steps", fmt.Sprint(min(left, 1000)), "1").line()
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := tr.ReadUsages(func(*Usage) {}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/task")
		})
	}
}

// benchCgroup makes a cgroup in the unified hierarchy.
func benchCgroup(b *testing.B, n int) []string {
	b.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(root, fmt.Sprintf("bpf-bench-tasks-%d-%d", os.Getpid(), n))
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			for end := time.Now().Add(5 * time.Second); os.Remove(dir) != nil && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
		})
		return []string{dir}
	}
	b.Skip("no unified hierarchy")
	return nil
}

// BenchmarkTaskPrograms is what each program costs at a fork, exec or exit in a container.
func BenchmarkTaskPrograms(b *testing.B) {
	tr := openForBench(b, Options{})
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Skip(err)
	}
	defer stats.Close()
	dirs := benchCgroup(b, 0)
	for b.Loop() {
		for range 100 {
			runTasks(b, cgroup{dirs: dirs}, "storm", "50").wait()
		}
	}
	o := &tr.tasks.objs
	for _, p := range []*ebpf.Program{o.OnFork, o.OnExec, o.OnAttach, o.OnExit, o.OnFree} {
		info, err := p.Info()
		if err != nil {
			b.Fatal(err)
		}
		ran, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(ran.Runtime.Nanoseconds())/float64(max(ran.RunCount, 1)), strings.TrimPrefix(info.Name, "on_")+"-ns/run")
	}
}
