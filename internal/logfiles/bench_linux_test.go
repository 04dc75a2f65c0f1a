// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkOpen is a process with 50 descriptors more than the test has; one is a log.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for range 49 {
		hold(b, filepath.Join(b.TempDir(), "data"), os.O_CREATE|os.O_RDWR)
	}
	hold(b, filepath.Join(dir, "x.log"), os.O_CREATE|os.O_WRONLY)
	f := New(Options{Roots: []string{dir}})
	b.ReportAllocs()
	for b.Loop() {
		if files, err := f.Open(os.Getpid()); err != nil || len(files) != 1 {
			b.Fatalf("%d files, %v", len(files), err)
		}
	}
}

// BenchmarkWritten is a container.
func BenchmarkWritten(b *testing.B) {
	c := newChild(b)
	c.container("image.log")
	c.open("/var/log/x.log")
	c.open("/data.db.0001")
	log := writeTo(b, c.path("overlay2/0123/diff/var/log/x.log"))
	data := writeTo(b, c.path("overlay2/0123/diff/data.db.0001"))
	run := func(name string, w Write, want bool, before func(f *Finder)) {
		b.Run(name, func(b *testing.B) {
			f := New(Options{})
			b.ReportAllocs()
			for b.Loop() {
				if before != nil {
					before(f)
				}
				if _, ok := f.Written(c.pid, w); ok != want {
					b.Fatal(ok)
				}
			}
		})
	}
	run("miss", data, false, nil)
	run("miss, cut", cut(data, 4), false, nil)
	run("miss, first", data, false, func(f *Finder) { clear(f.views) })
	run("log", log, true, nil)
	run("name is none", Write{Device: log.Device, Inode: unix.Mkdev(1, 1), Path: "/var/lib/x.db"}, false, nil)
}
