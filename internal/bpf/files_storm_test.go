// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestStormOfFiles: log files are told all, of others as many as there is time for, and what was not is counted.
func TestStormOfFiles(t *testing.T) {
	h := findHost(t)
	for i, tt := range []struct {
		name, dir, suffix string
		every             int
		logs              int
	}{
		{name: "by name", dir: "build", suffix: ".log.1", every: 10, logs: stormFiles / 10},
		{name: "by directory", dir: "logs/nginx", suffix: ".txt", every: 10, logs: stormFiles},
		{name: "not by half a name", dir: "logs2", suffix: ".lo", every: 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr, watch := openFileTracer(t)
			_, dir := mountDisk(t)
			c := h.makeCgroup(t, fmt.Sprint("storm", i))
			w := startWriter(t, c)
			dir = makeDir(t, dir, tt.dir)
			took := w.do("many", dir, stormFiles, tt.suffix, tt.every)
			eventually(t, "the end is told", func() bool { // not the first time if there is no place for it
				w.do("append", filepath.Join(dir, "end.log"), 1)
				return slices.ContainsFunc(watch.now(c), func(f FileWrite) bool { return filepath.Base(f.Path) == "end.log" })
			})
			s := tr.Stats()
			logs, others := 0, 0
			for _, f := range watch.now(c) {
				name := filepath.Base(f.Path)
				switch isLog := strings.Contains(name, ".log") || strings.HasPrefix(f.Path, "/logs/"); {
				case name == "end.log":
				case isLog:
					logs++
				default:
					others++
				}
				if f.Size != 0 || f.Cut || filepath.Dir(f.Path) != "/"+tt.dir {
					t.Fatalf("told: %+v", f)
				}
			}
			t.Logf("%d files in %v: told %d log files and %d others, lost %d, skipped %d", stormFiles, took, logs, others, s.FileWritesLost, s.FileWritesSkipped)
			if logs+int(s.FileWritesLost) < tt.logs || logs > tt.logs {
				t.Errorf("%d log files told, %d lost, of %d", logs, s.FileWritesLost, tt.logs)
			}
			// Others write files as well, and one that was skipped may count again when its writer moves to another CPU.
			if n, want := others+int(s.FileWritesSkipped), stormFiles-tt.logs; n < want || n > want+stormFiles/50 {
				t.Errorf("%d others told and skipped, of %d", n, want)
			}
			if most := 200 * (int(took/(100*time.Millisecond)) + 2); others > most {
				t.Errorf("%d others told in %v, at most %d", others, took, most)
			}
		})
	}
}

const stormFiles = 20_000

// TestFileWritesFull: what has no place is counted, and told when there is place again and the file is written to.
func TestFileWritesFull(t *testing.T) {
	h := findHost(t)
	spec, err := fileSpec(Options{LegacyController: h.controller()})
	if err != nil {
		t.Fatal(err)
	}
	spec.Maps[fileMapFileWrites].MaxEntries = uint32(os.Getpagesize())
	files, err := startFiles(spec)
	if err != nil {
		t.Fatal(err)
	}
	tr := &Tracer{files: files}
	_, dir := mountDisk(t)
	c := h.makeCgroup(t, "full")
	w := startWriter(t, c)
	for i := range 150 {
		w.do("append", filepath.Join(dir, fmt.Sprint(i, ".log")), 10)
	}
	lost := tr.Stats().FileWritesLost
	watch := watchWrites(t, tr)
	eventually(t, "something is told", func() bool { return len(watch.now(c)) > 0 })
	name := filepath.Join(dir, "149.log")
	makeOlder(t, name)
	w.do("append", name, 10)
	told := watch.of(c, "/149.log")
	if got := told[len(told)-1]; lost == 0 || got.Size != 10 {
		t.Errorf("lost %d, told with %d bytes", lost, got.Size)
	}
}

// TestFileWritesForgotten: what falls out of the table is told again.
func TestFileWritesForgotten(t *testing.T) {
	h := findHost(t)
	spec, err := fileSpec(Options{LegacyController: h.controller()})
	if err != nil {
		t.Fatal(err)
	}
	spec.Maps[fileMapToldFiles].MaxEntries = 16
	files, err := startFiles(spec)
	if err != nil {
		t.Fatal(err)
	}
	tr := &Tracer{files: files}
	watch := watchWrites(t, tr)
	_, dir := mountDisk(t)
	c := h.makeCgroup(t, "forgotten")
	w := startWriter(t, c)
	name := filepath.Join(dir, "log")
	w.do("append", name, 10)
	eventually(t, "it is told again", func() bool { // not at once where it was the last one of its CPU
		w.do("many", dir, 500, ".log", 1)
		makeOlder(t, name)
		w.do("append", name, 10)
		n := 0
		for _, f := range watch.now(c) {
			if f.Path == "/log" {
				n++
			}
		}
		return n > 1
	})
}

// TestWithoutFileWrites: who does not ask for them has all else.
func TestWithoutFileWrites(t *testing.T) {
	tr := openTracer(t, Options{LegacyController: findHost(t).controller()})
	for _, f := range tr.Features() {
		if f.Name == FeatureFileWrites {
			t.Errorf("listed: %v", f)
		}
	}
	if err := tr.FileWrites(func(FileWrite) {}); err != nil {
		t.Error(err)
	}
	if s := tr.Stats(); s.FileWritesLost != 0 || s.FileWritesSkipped != 0 {
		t.Errorf("%+v", s)
	}
}

// fileRecord makes a struct file_write.
func fileRecord(names string, cut uint32) []byte {
	ne := binary.NativeEndian
	rec := ne.AppendUint64(nil, 11)
	for _, n := range []uint64{12, 13, 14} {
		rec = ne.AppendUint64(rec, n)
	}
	for _, n := range []uint32{259<<20 | 70000, 16, uint32(len(names)), cut} {
		rec = ne.AppendUint32(rec, n)
	}
	return append(rec, names...)
}

func TestDecodeFileWrite(t *testing.T) {
	long := fileRecord("app.log\x00", 0)
	for _, tt := range []struct {
		name string
		in   []byte
		path string
		cut  bool
		err  error
	}{
		{name: "whole", in: fileRecord("app.log\x00log\x00var\x00", 0), path: "/var/log/app.log"},
		{name: "at the root", in: fileRecord("app.log\x00", 0), path: "/app.log"},
		{name: "cut", in: fileRecord("app.log\x00log\x00", 1), path: "log/app.log", cut: true},
		{name: "unknown", in: fileRecord("", 1), cut: true},
		{name: "no end", in: fileRecord("app.log\x00lo", 1), path: "lo/app.log", cut: true},
		{name: "short", in: long[:47], err: errTruncated},
		{name: "short names", in: long[:len(long)-1], err: errTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := FileWrite{CgroupV2: 11, CgroupV1: 12, Inode: 13, Size: 14, Device: unix.Mkdev(259, 70000), PID: 16, Path: tt.path, Cut: tt.cut}
			if tt.err != nil {
				want = FileWrite{}
			}
			got, err := decodeFileWrite(tt.in)
			if !errors.Is(err, tt.err) {
				t.Errorf("got error %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzDecodeFileWrite(f *testing.F) {
	f.Add(fileRecord("app.log\x00log\x00var\x00", 0))
	f.Add(fileRecord("app.log\x00", 1))
	f.Add(make([]byte, 47))
	f.Fuzz(func(t *testing.T, rec []byte) {
		w, err := decodeFileWrite(rec)
		if err != nil && !errors.Is(err, errTruncated) {
			t.Errorf("unexpected error %v", err)
		}
		if len(w.Path) > len(rec) || strings.Contains(w.Path, "\x00") {
			t.Errorf("path %q", w.Path)
		}
	})
}
