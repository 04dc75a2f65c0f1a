// SPDX-License-Identifier: Apache-2.0

package apptype

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"strings"
	"testing"
)

// content is what a section of a file made by makeELF has.
type content struct {
	name string
	data string
}

// makeELF returns a little-endian 64-bit file with the sections given, and a segment of notes when there are any.
func makeELF(note string, sections ...content) []byte {
	le := binary.LittleEndian
	sections = append([]content{{}}, sections...)
	sections = append(sections, content{name: ".shstrtab"})
	names := ""
	for _, s := range sections {
		names += s.name + "\x00"
	}
	sections[len(sections)-1].data = names
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint64(b[0x20:], 64)
	le.PutUint16(b[0x36:], 56)
	le.PutUint16(b[0x38:], 1)
	segment := make([]byte, 56)
	le.PutUint32(segment, 4)
	le.PutUint64(segment[0x08:], 120)
	le.PutUint64(segment[0x20:], uint64(len(note)))
	b = append(append(b, segment...), note...)
	var table []byte
	at := 0
	for _, s := range sections {
		entry := make([]byte, 64)
		le.PutUint32(entry, uint32(at))
		le.PutUint32(entry[4:], 1)
		le.PutUint64(entry[0x18:], uint64(len(b)))
		le.PutUint64(entry[0x20:], uint64(len(s.data)))
		b, table, at = append(b, s.data...), append(table, entry...), at+len(s.name)+1
	}
	le.PutUint64(b[0x28:], uint64(len(b)))
	le.PutUint16(b[0x3a:], 64)
	le.PutUint16(b[0x3c:], uint16(len(sections)))
	le.PutUint16(b[0x3e:], uint16(len(sections)-1))
	return append(b, table...)
}

const (
	goNote     = "\x04\x00\x00\x00\x08\x00\x00\x00\x04\x00\x00\x00Go\x00\x00abcdefgh"
	gnuNote    = "\x04\x00\x00\x00\x05\x00\x00\x00\x03\x00\x00\x00GNU\x00abcde\x00\x00\x00"
	rustSource = "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/core/src/str/mod.rs"
)

func TestELFMarks(t *testing.T) {
	withoutSections := makeELF(gnuNote + goNote)
	clear(withoutSections[0x28:0x30])
	clear(withoutSections[0x3a:0x40])
	far := strings.Repeat("x", maxScan)
	for _, tt := range []struct {
		name             string
		in               []byte
		golang, rs, dotn bool
	}{
		{name: "empty"},
		{name: "script", in: []byte("#!/bin/sh\n" + strings.Repeat("# /rustc\n", 20))},
		{name: "plain", in: makeELF("", content{".text", "x"}, content{".rodata", "hello"})},
		{name: "build information", in: makeELF("", content{".go.buildinfo", "x"}), golang: true},
		{name: "build id", in: makeELF("", content{".note.go.buildid", "x"}), golang: true},
		{name: "build id without sections", in: withoutSections, golang: true},
		{name: "other notes", in: makeELF(gnuNote)},
		{name: "rustup's compiler", in: makeELF("", content{".rodata", "abc" + rustSource}), rs: true},
		{name: "across chunks", in: makeELF("", content{".rodata", far[:scanChunk-30] + rustSource}), rs: true},
		{name: "at the limit", in: makeELF("", content{".rodata", far + rustSource})},
		{name: "debian's compiler", in: makeELF("", content{".rodata", "/usr/src/rustc-1.63.0/library/core/src/fmt/mod.rs"}), rs: true},
		{name: "alpine's compiler", in: makeELF("", content{".rodata", "/src/rustc-1.85.0-src/library/std/src/io/mod.rs"}), rs: true},
		{name: "a word", in: makeELF("", content{".rodata", "/rustc /rustc/ /rustc- /rustc/x/library/ /rustc-x/library/ /rustc"})},
		{name: "not in a section that is looked at", in: makeELF("", content{".debug_str", rustSource})},
		{name: "compiled ahead of time", in: makeELF("", content{"__managedcode", "x"}), dotn: true},
		{name: "in a single file", in: makeELF("", content{".data", "12345678" + string(bundleMarker)}), dotn: true},
		{name: "cut off", in: makeELF(goNote, content{".go.buildinfo", "x"})[:100]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := bytes.NewReader(tt.in)
			if got := IsGo(r); got != tt.golang {
				t.Errorf("IsGo: got %v", got)
			}
			if got := IsRust(r); got != tt.rs {
				t.Errorf("IsRust: got %v", got)
			}
			if got := IsDotnet(r); got != tt.dotn {
				t.Errorf("IsDotnet: got %v", got)
			}
		})
	}
}

func TestIsGoKnowsThisTest(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !IsGo(f) {
		t.Error("IsGo of the test itself: got false")
	}
}

// TestELFReadsAreBounded gives files whose headers promise everything.
func TestELFReadsAreBounded(t *testing.T) {
	file := makeELF(gnuNote, content{".rodata", "x"}, content{".data", "x"})
	le := binary.LittleEndian
	le.PutUint16(file[0x38:], 0xffff)
	le.PutUint16(file[0x3c:], 0xffff)
	shoff := int(le.Uint64(file[0x28:]))
	for at := shoff; at+64 <= len(file); at += 64 {
		le.PutUint64(file[at+0x20:], 1<<63)
	}
	for _, read := range []struct {
		name  string
		f     func(io.ReaderAt) bool
		limit int
	}{{"IsGo", IsGo, 120 << 10}, {"IsRust", IsRust, maxScan + 120<<10}, {"IsDotnet", IsDotnet, maxScan + 240<<10}} {
		r := &endless{head: file}
		if read.f(r) {
			t.Errorf("%s: got true", read.name)
		}
		if r.read > read.limit {
			t.Errorf("%s read %d bytes, want %d at most", read.name, r.read, read.limit)
		}
	}
}

// endless is a file of zeros without an end, after its head.
type endless struct {
	head []byte
	read int
}

func (e *endless) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(e.head)) {
		copy(b, e.head[at:])
	}
	e.read += len(b)
	return len(b), nil
}

func addELFSeeds(f *testing.F) {
	f.Add([]byte("\x7fELF"))
	f.Add(makeELF(gnuNote+goNote, content{".rodata", rustSource}))
	f.Add(makeELF("", content{".data", string(bundleMarker)}, content{"__managedcode", "x"}))
	small := makeELF(goNote)
	small[4], small[5] = 1, 2
	f.Add(small)
}

func FuzzIsGo(f *testing.F) {
	addELFSeeds(f)
	f.Fuzz(func(_ *testing.T, b []byte) { IsGo(bytes.NewReader(b)) })
}

func FuzzIsRust(f *testing.F) {
	addELFSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if IsRust(bytes.NewReader(b)) && !bytes.Contains(b, rustPath) {
			t.Error("true without the path")
		}
		IsDotnet(bytes.NewReader(b))
	})
}

func BenchmarkELF(b *testing.B) {
	file := bytes.NewReader(makeELF(gnuNote, content{".rodata", strings.Repeat("/rust", maxScan/5)}))
	for _, bb := range []struct {
		name string
		f    func(io.ReaderAt) bool
	}{{"go", IsGo}, {"rust", IsRust}, {"dotnet", IsDotnet}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bb.f(file)
			}
		})
	}
}
