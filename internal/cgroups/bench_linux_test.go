// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"os"
	"testing"
)

func makeMany(b *testing.B, f *FS, n int) []string {
	b.Helper()
	parent := testCgroup("bench")
	var paths []string
	for i := range n {
		p := fmt.Sprintf("%s/%064x", parent, i)
		paths = append(paths, p)
		for _, dir := range f.dirs {
			if err := os.MkdirAll(dir+p, 0o755); err != nil {
				b.Skipf("cgroups cannot be made here: %v", err)
			}
		}
	}
	b.Cleanup(func() {
		for _, dir := range f.dirs {
			for _, p := range append(paths[:n:n], parent) {
				if err := os.Remove(dir + p); err != nil {
					b.Error(err)
				}
			}
		}
	})
	return paths
}

// BenchmarkRead reads 200 real cgroups at each step.
func BenchmarkRead(b *testing.B) {
	for _, bench := range []struct {
		name    string
		maxOpen int64
	}{{"kept", 1 << 20}, {"reopened", 0}} {
		b.Run(bench.name, func(b *testing.B) {
			f := needRoot(b)
			f.maxOpen = bench.maxOpen
			var cs []*Cgroup
			for _, p := range makeMany(b, f, 200) {
				cs = append(cs, f.Cgroup(p))
			}
			var s Stats
			read := func() {
				for _, c := range cs {
					if err := c.Read(&s); err != nil {
						b.Fatal(err)
					}
				}
			}
			read()
			b.ReportAllocs()
			b.ReportMetric(float64(f.open.Load()), "descriptors")
			for b.Loop() {
				read()
			}
			for _, c := range cs {
				c.Close()
			}
		})
	}
}

// BenchmarkWalk walks over 200 real cgroups and what else is there.
func BenchmarkWalk(b *testing.B) {
	f := needRoot(b)
	makeMany(b, f, 200)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n = 0
		if err := f.Walk(b.Context(), func(Dir) { n++ }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n), "cgroups")
}

func BenchmarkReadFixture(b *testing.B) {
	c := openHost(b, hostRoot("unified")).Cgroup("/system.slice/docker-" + id1 + ".scope")
	defer c.Close()
	var s Stats
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Read(&s); err != nil {
			b.Fatal(err)
		}
	}
}
