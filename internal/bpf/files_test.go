// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// writeWatch has what a Tracer has told.
type writeWatch struct {
	t   testing.TB
	mu  sync.Mutex
	all []FileWrite
}

func watchWrites(t testing.TB, tr *Tracer) *writeWatch {
	t.Helper()
	w := &writeWatch{t: t}
	done := make(chan error, 1)
	go func() {
		done <- tr.FileWrites(func(f FileWrite) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.all = append(w.all, f)
		})
	}()
	t.Cleanup(func() {
		if err := errors.Join(tr.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return w
}

// openFileTracer opens a Tracer that is closed by its watch.
func openFileTracer(t *testing.T) (*Tracer, *writeWatch) {
	t.Helper()
	tr := Open(Options{LegacyController: findHost(t).controller(), FileWrites: true})
	for _, f := range tr.Features() {
		if f.Err != nil {
			t.Errorf("%s: %v", f.Name, f.Err)
		}
	}
	return tr, watchWrites(t, tr)
}

// of gives what was told of a cgroup, once its last is of a file whose path ends so.
func (w *writeWatch) of(c cgroup, last string) (found []FileWrite) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		found = w.now(c)
		if n := len(found); n > 0 && strings.HasSuffix(found[n-1].Path, last) {
			return found
		}
	}
	w.t.Fatalf("nothing told of %s: %+v", last, found)
	return nil
}

func (w *writeWatch) now(c cgroup) (found []FileWrite) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.all {
		if f.CgroupV2 == c.v2 && f.CgroupV1 == c.v1 {
			found = append(found, f)
		}
	}
	return found
}

// expect gives what is to be told of a file that has so many bytes before it is written to.
func (w writer) expect(c cgroup, file, path string, size uint64) FileWrite {
	w.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		w.t.Fatal(err)
	}
	return FileWrite{CgroupV2: c.v2, CgroupV1: c.v1, PID: w.pid(), Device: st.Dev, Inode: st.Ino, Size: size, Path: path}
}

// makeFile makes a file of this process, and of the past.
func makeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, past, past); err != nil {
		t.Fatal(err)
	}
}

func makeDir(t testing.TB, names ...string) string {
	t.Helper()
	dir := filepath.Join(names...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mount(t testing.TB, kind, dir, options string) {
	t.Helper()
	if err := unix.Mount(kind, dir, kind, 0, options); err != nil {
		t.Skipf("mount %s: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestFileWrites: each file is told once, by whoever writes to it. As all here they are log files: others may not get a turn while
// another container of this machine writes to many.
func TestFileWrites(t *testing.T) {
	h := findHost(t)
	_, watch := openFileTracer(t)
	_, dir := mountDisk(t)
	makeDir(t, dir, "log")
	file := func(name string) string { return filepath.Join(dir, "log", name) }
	for i, tt := range []struct {
		name string
		host func() // before the writer
		do   func(writer)
		file string // the one that is told, "" for none
		size uint64
	}{
		{name: "new", do: func(w writer) { w.do("append", file("new"), 10); w.do("append", file("new"), 10) }, file: "new"},
		{name: "old", host: func() { makeFile(t, file("old"), "seven\n\n"); syncFile(t, file("old")) },
			do: func(w writer) { w.do("append", file("old"), 10) }, file: "old", size: 7},
		{name: "old and dirty", host: func() { makeFile(t, file("dirty"), "seven\n\n") },
			do: func(w writer) { w.do("append", file("dirty"), 10) }, file: "dirty", size: 7},
		{name: "of several pages", do: func(w writer) { w.do("small", file("long"), 300, 1000) }, file: "long"},
		{name: "mapped", host: func() { makeFile(t, file("mapped"), "seven\n\n"); syncFile(t, file("mapped")) },
			do: func(w writer) { w.do("map", file("mapped")) }, file: "mapped", size: 7},
		{name: "renamed", host: func() { makeFile(t, file("before"), "seven\n\n") },
			do:   func(w writer) { w.do("rename", file("before"), file("after")); w.do("append", file("after"), 10) },
			file: "after", size: 7},
		{name: "renamed later", do: func(w writer) {
			w.do("append", file("first"), 10)
			w.do("rename", file("first"), file("second"))
			w.do("append", file("second"), 10)
		}, file: "first"},
		{name: "read", host: func() { makeFile(t, file("read"), "seven\n\n") }, do: func(w writer) { w.do("read", file("read")) }},
		{name: "mode", host: func() { makeFile(t, file("mode"), "seven\n\n") }, do: func(w writer) { w.do("chmod", file("mode")) }},
		{name: "read what was just written", host: func() { makeFile(t, file("fresh"), "") },
			do: func(w writer) {
				if err := appendTo(file("fresh"), []byte("seven\n\n")); err != nil {
					t.Fatal(err)
				}
				w.do("read", file("fresh"))
				w.do("chmod", file("fresh"))
			}},
		{name: "without a name", do: func(w writer) { w.do("unnamed", file("unnamed")) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := h.makeCgroup(t, fmt.Sprint("file", i))
			if tt.host != nil {
				tt.host()
			}
			w := startWriter(t, c)
			tt.do(w)
			var want []FileWrite
			if tt.file != "" {
				now := tt.file
				if _, err := os.Stat(file(now)); err != nil {
					now = "second"
				}
				want = append(want, w.expect(c, file(now), "/log/"+tt.file, tt.size))
			}
			end := fmt.Sprint("end", i)
			w.do("append", file(end), 1)
			want = append(want, w.expect(c, file(end), "/log/"+end, 0))
			if diff := cmp.Diff(want, watch.of(c, end)); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFileWritesOfTheHost: what is done in the root of every hierarchy is not told.
func TestFileWritesOfTheHost(t *testing.T) {
	h := findHost(t)
	_, watch := openFileTracer(t)
	_, dir := mountDisk(t)
	root := cgroup{dirs: []string{h.unified}}
	if h.legacy != "" {
		root.dirs = append(root.dirs, h.legacy)
	}
	startWriter(t, root).do("append", filepath.Join(dir, "of-the-host.log"), 1)
	c := h.makeCgroup(t, "other")
	startWriter(t, c).do("append", filepath.Join(dir, "of-another.log"), 1)
	watch.of(c, "of-another.log")
	watch.mu.Lock()
	defer watch.mu.Unlock()
	if i := slices.IndexFunc(watch.all, func(f FileWrite) bool { return f.Path == "/of-the-host.log" }); i >= 0 {
		t.Errorf("told: %+v", watch.all[i])
	}
}

// TestFileWritesOfTwo: a file that two cgroups write to is told of both.
func TestFileWritesOfTwo(t *testing.T) {
	h := findHost(t)
	_, watch := openFileTracer(t)
	_, dir := mountDisk(t)
	shared := filepath.Join(dir, "shared.log")
	for i := range 2 {
		c := h.makeCgroup(t, fmt.Sprint("sharer", i))
		w := startWriter(t, c)
		w.do("append", shared, 10)
		want := []FileWrite{w.expect(c, shared, "/shared.log", uint64(10*i))}
		if diff := cmp.Diff(want, watch.of(c, "/shared.log")); diff != "" {
			t.Errorf("told of %d (-want +got):\n%s", i, diff)
		}
		makeOlder(t, shared)
	}
}

func makeOlder(t testing.TB, name string) {
	t.Helper()
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, past, past); err != nil {
		t.Fatal(err)
	}
}

// TestFileWritesInOverlay: the path is that in the upper layer, also of a file that was in the lower one alone.
func TestFileWritesInOverlay(t *testing.T) {
	h := findHost(t)
	_, watch := openFileTracer(t)
	_, dir := mountDisk(t)
	lower, upper, work := makeDir(t, dir, "lower"), makeDir(t, dir, "upper"), makeDir(t, dir, "work")
	makeFile(t, filepath.Join(lower, "old.log"), "seven\n\n")
	merged := t.TempDir()
	mount(t, "overlay", merged, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work))
	c := h.makeCgroup(t, "overlay")
	w := startWriter(t, c)
	w.do("append", filepath.Join(merged, "new.log"), 10)
	w.do("append", filepath.Join(merged, "old.log"), 10)
	want := []FileWrite{
		w.expect(c, filepath.Join(upper, "new.log"), "/upper/new.log", 0),
		w.expect(c, filepath.Join(upper, "old.log"), "/upper/old.log", 7),
	}
	if diff := cmp.Diff(want, watch.of(c, "old.log")); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestFileWritesInMemory: on tmpfs a write is seen that changes the times of the file, and no reader is taken for a writer.
func TestFileWritesInMemory(t *testing.T) {
	h := findHost(t)
	_, watch := openFileTracer(t)
	dir := t.TempDir()
	mount(t, "tmpfs", dir, "")
	c := h.makeCgroup(t, "memory")
	w := startWriter(t, c)
	for _, name := range []string{"read.log", "written.log"} {
		makeFile(t, filepath.Join(dir, name), "seven\n\n")
	}
	w.do("read", filepath.Join(dir, "read.log"))
	w.do("append", filepath.Join(dir, "written.log"), 10)
	w.do("append", filepath.Join(dir, "written.log"), 10)
	want := []FileWrite{w.expect(c, filepath.Join(dir, "written.log"), "/written.log", 7)}
	if diff := cmp.Diff(want, watch.of(c, "written.log")); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	eventually(t, "a new file is told", func() bool {
		w.do("append", filepath.Join(dir, "new.log"), 10)
		told := watch.now(c)
		return told[len(told)-1].Path == "/new.log"
	})
}

// TestFileWritesCut: of a long path there is the end.
func TestFileWritesCut(t *testing.T) {
	h := findHost(t)
	_, watch := openFileTracer(t)
	_, dir := mountDisk(t)
	c := h.makeCgroup(t, "cut")
	w := startWriter(t, c)
	for _, tt := range []struct {
		name  string
		dirs  []string
		names int // that are told, all if 0
	}{
		{name: "within.log", dirs: slices.Repeat([]string{"d"}, 31)},
		{name: "deep.log", dirs: slices.Repeat([]string{"d"}, 40), names: 32},
		{name: "long.log", dirs: slices.Repeat([]string{strings.Repeat("é", 100)}, 5), names: 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(append(slices.Clone(tt.dirs), tt.name)...)
			makeDir(t, dir, filepath.Dir(path))
			w.do("append", filepath.Join(dir, path), 1)
			want := "/" + path
			if tt.names > 0 {
				names := strings.Split(path, "/")
				want = filepath.Join(names[len(names)-tt.names:]...)
			}
			told := watch.of(c, "/"+tt.name)
			if got := told[len(told)-1]; got.Path != want || got.Cut != (tt.names > 0) {
				t.Errorf("got %q, cut %v\nwant %q", got.Path, got.Cut, want)
			}
		})
	}
}
