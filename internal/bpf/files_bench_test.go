// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// benchWrites are what a container may do to files; %s is a directory.
var benchWrites = []struct {
	name, dir, do string
	writes        float64
}{
	{"pages", "disk", "small %s/file 4096 4096", 4096},
	{"lines", "disk", "small %s/file 40960 100", 40960},
	{"lines in memory", "memory", "small %s/file 40960 100", 40960},
	{"files", "disk", "many %s 4000 .txt 1", 4000},
	{"log files", "disk", "many %s 4000 .log 1", 4000},
}

func benchWriter(b *testing.B) (w writer, dirs map[string]string) {
	b.Helper()
	w = startWriter(b, cgroup{dirs: benchCgroup(b, 0)})
	dirs = map[string]string{"disk": b.TempDir(), "memory": b.TempDir()}
	mount(b, "tmpfs", dirs["memory"], "")
	return w, dirs
}

func openFilesForBench(b *testing.B) *Tracer {
	b.Helper()
	files, err := openFiles(Options{})
	if err != nil {
		b.Skip(err)
	}
	return &Tracer{files: files}
}

// BenchmarkFilePrograms is what the programs cost for each of their runs.
func BenchmarkFilePrograms(b *testing.B) {
	w, dirs := benchWriter(b)
	tr := openFilesForBench(b)
	watch := watchWrites(b, tr)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Skip(err)
	}
	defer stats.Close()
	programs := map[string]*ebpf.Program{"folio": tr.files.objs.OnDirtyFolio, "inode": tr.files.objs.OnDirtyInode}
	for _, tt := range benchWrites {
		b.Run(tt.name, func(b *testing.B) {
			ran := map[string]*ebpf.ProgramStats{}
			for name, p := range programs {
				if ran[name], err = p.Stats(); err != nil {
					b.Fatal(err)
				}
			}
			told, s := len(watch.all), tr.Stats()
			for b.Loop() {
				w.do(strings.ReplaceAll(tt.do, "%s", dirs[tt.dir]))
			}
			for name, p := range programs {
				now, err := p.Stats()
				if err != nil {
					b.Fatal(err)
				}
				runs := float64(now.RunCount - ran[name].RunCount)
				b.ReportMetric(float64((now.Runtime-ran[name].Runtime).Nanoseconds())/max(runs, 1), name+"-ns/run")
				b.ReportMetric(runs/tt.writes/float64(b.N), name+"-runs/write")
			}
			now := tr.Stats()
			b.ReportMetric(float64(now.FileWritesSkipped-s.FileWritesSkipped)/float64(b.N), "skipped/op")
			b.ReportMetric(float64(now.FileWritesLost-s.FileWritesLost)/float64(b.N), "lost/op")
			watch.mu.Lock()
			defer watch.mu.Unlock()
			b.ReportMetric(float64(len(watch.all)-told)/float64(b.N), "told/op")
		})
	}
}

// BenchmarkWritersSlowdown is what a writer itself feels of them, off and on by turns.
func BenchmarkWritersSlowdown(b *testing.B) {
	w, dirs := benchWriter(b)
	tr := openFilesForBench(b)
	watchWrites(b, tr)
	programs := []*ebpf.Program{tr.files.objs.OnDirtyFolio, tr.files.objs.OnDirtyInode}
	for _, tt := range benchWrites {
		b.Run(tt.name, func(b *testing.B) {
			var took [2][]time.Duration
			for b.Loop() {
				for on := range took {
					err := closeLinks(tr.files.links)
					tr.files.links = nil
					if on == 1 && err == nil {
						tr.files.links, err = attach(programs...)
					}
					if err != nil {
						b.Fatal(err)
					}
					took[on] = append(took[on], w.do(strings.ReplaceAll(tt.do, "%s", dirs[tt.dir])))
				}
			}
			for on, unit := range []string{"off-median-ns/write", "on-median-ns/write"} {
				slices.Sort(took[on])
				b.ReportMetric(float64(took[on][len(took[on])/2].Nanoseconds())/tt.writes, unit)
			}
		})
	}
}
