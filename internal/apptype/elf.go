// SPDX-License-Identifier: Apache-2.0

package apptype

import (
	"bytes"
	"encoding/binary"
	"io"
)

// What is read of one file at most. Real executables have some 30 to 60 sections and a few hundred bytes of names.
const (
	maxSections = 512
	maxSegments = 128
	maxNames    = 64 << 10
	maxNotes    = 4 << 10
	maxScan     = 4 << 20
	scanChunk   = 64 << 10
)

// IsGo reports whether an ELF executable was built by Go, stripped or not: it has the section of the build information or
// of the build ID, or, where the section table was removed, a segment with the note of the build ID. A program in another
// language with a Go library linked into it has them too; one compressed by a packer such as UPX shows nothing.
//
// It reads less than 120 KiB. A file that is not ELF or cannot be read is not Go.
func IsGo(r io.ReaderAt) bool {
	f, ok := openELF(r)
	if !ok {
		return false
	}
	for name := range f.sections() {
		if name == ".go.buildinfo" || name == ".note.go.buildid" {
			return true
		}
	}
	return f.hasGoNote()
}

// IsRust reports whether an ELF executable has parts of Rust's standard library in it: panic messages name its source
// files, and those are in .rodata, stripped or not. A program in another language with a Rust library linked into it has
// them too; one built with -Zlocation-detail=none or without the standard library, or compressed by a packer, has not.
//
// It reads at most the first 4 MiB of .rodata. A file that is not ELF or cannot be read is not Rust.
func IsRust(r io.ReaderAt) bool {
	return scanSections(r, findRustPath, ".rodata", ".rodata.str")
}

// IsDotnet reports whether an ELF executable is a .NET application that needs no dotnet host: the launcher that is built
// beside an application's DLL, the application in a single file, or one compiled ahead of time.
//
// The first two have a marker in .data or .rodata, SHA-256 of ".net core bundle\n", the last a section __managedcode. It
// reads at most 4 MiB. A file that is not ELF or cannot be read is not .NET.
func IsDotnet(r io.ReaderAt) bool {
	f, ok := openELF(r)
	if !ok {
		return false
	}
	for name := range f.sections() {
		if name == "__managedcode" {
			return true
		}
	}
	return scanSections(r, findBundleMarker, ".data", ".rodata")
}

// elfFile is the little that is needed of an ELF file; debug/elf reads and keeps much more of one.
type elfFile struct {
	r            io.ReaderAt
	order        binary.ByteOrder
	wide         bool // 64 bit
	phoff, shoff uint64
	phnum, shnum int
	shstrndx     int
}

// section is where a section lies in the file.
type section struct {
	offset, size uint64
}

// openELF reads the header of an ELF file; ok is false for all else.
func openELF(r io.ReaderAt) (*elfFile, bool) {
	var h [64]byte
	if n, _ := r.ReadAt(h[:], 0); n < 52 || string(h[:4]) != "\x7fELF" {
		return nil, false
	}
	f := &elfFile{r: r, order: binary.LittleEndian, wide: h[4] == 2}
	if h[5] == 2 {
		f.order = binary.BigEndian
	}
	var rest []byte
	if f.wide {
		f.phoff, f.shoff = f.order.Uint64(h[0x20:]), f.order.Uint64(h[0x28:])
		rest = h[0x36:]
	} else {
		f.phoff, f.shoff = uint64(f.order.Uint32(h[0x1c:])), uint64(f.order.Uint32(h[0x20:]))
		rest = h[0x2a:]
	}
	// e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
	phentsize, shentsize := f.order.Uint16(rest), f.order.Uint16(rest[4:])
	if int(phentsize) == f.segmentSize() {
		f.phnum = min(int(f.order.Uint16(rest[2:])), maxSegments)
	}
	if int(shentsize) == f.sectionSize() {
		f.shnum = min(int(f.order.Uint16(rest[6:])), maxSections)
	}
	f.shstrndx = int(f.order.Uint16(rest[8:]))
	return f, true
}

func (f *elfFile) segmentSize() int {
	if f.wide {
		return 56
	}
	return 32
}

func (f *elfFile) sectionSize() int {
	if f.wide {
		return 64
	}
	return 40
}

// read returns up to n bytes at an offset of the file, fewer at its end.
func (f *elfFile) read(at, n uint64) []byte {
	if at > 1<<62 || n == 0 {
		return nil
	}
	b := make([]byte, n)
	got, _ := f.r.ReadAt(b, int64(at))
	return b[:max(0, got)]
}

// sections returns the sections that have content in the file, by name; of two with one name the last.
func (f *elfFile) sections() map[string]section {
	size := f.sectionSize()
	table := f.read(f.shoff, uint64(f.shnum*size))
	if (f.shstrndx+1)*size > len(table) {
		return nil
	}
	_, place := f.sectionAt(table[f.shstrndx*size:])
	names := f.read(place.offset, min(place.size, maxNames))
	found := make(map[string]section, f.shnum)
	for ; len(table) >= size; table = table[size:] {
		const noBits = 8 // SHT_NOBITS
		if f.order.Uint32(table[4:]) == noBits {
			continue
		}
		at, place := f.sectionAt(table)
		if uint64(at) >= uint64(len(names)) {
			continue
		}
		name := names[at:]
		name = name[:min(64, len(name))]
		if end := bytes.IndexByte(name, 0); end > 0 {
			found[string(name[:end])] = place
		}
	}
	return found
}

// sectionAt reads an entry of the section table: where its name begins and where its content lies.
func (f *elfFile) sectionAt(entry []byte) (uint32, section) {
	if f.wide {
		return f.order.Uint32(entry), section{f.order.Uint64(entry[0x18:]), f.order.Uint64(entry[0x20:])}
	}
	return f.order.Uint32(entry), section{uint64(f.order.Uint32(entry[0x10:])), uint64(f.order.Uint32(entry[0x14:]))}
}

// hasGoNote looks for the note of type 4 and name "Go" in the first segments of notes.
func (f *elfFile) hasGoNote() bool {
	size := f.segmentSize()
	table := f.read(f.phoff, uint64(f.phnum*size))
	for looked := 0; len(table) >= size && looked < 4; table = table[size:] {
		const note = 4 // PT_NOTE
		if f.order.Uint32(table) != note {
			continue
		}
		looked++
		var place section
		if f.wide {
			place = section{f.order.Uint64(table[0x08:]), f.order.Uint64(table[0x20:])}
		} else {
			place = section{uint64(f.order.Uint32(table[0x04:])), uint64(f.order.Uint32(table[0x10:]))}
		}
		if f.notesHaveGo(f.read(place.offset, min(place.size, maxNotes))) {
			return true
		}
	}
	return false
}

func (f *elfFile) notesHaveGo(b []byte) bool {
	for len(b) >= 12 {
		nameSize, size, kind := f.order.Uint32(b), f.order.Uint32(b[4:]), f.order.Uint32(b[8:])
		b = b[12:]
		if kind == 4 && nameSize == 4 && bytes.HasPrefix(b, []byte("Go\x00\x00")) {
			return true
		}
		next := (uint64(nameSize)+3)&^3 + (uint64(size)+3)&^3
		if next > uint64(len(b)) {
			return false
		}
		b = b[next:]
	}
	return false
}

// scanSections reports whether find knows the content of one of the sections; of all together maxScan bytes are read.
func scanSections(r io.ReaderAt, find func([]byte) bool, names ...string) bool {
	f, ok := openELF(r)
	if !ok {
		return false
	}
	sections := f.sections()
	budget := uint64(maxScan)
	buf := make([]byte, 0, overlap+scanChunk)
	for _, name := range names {
		s := sections[name]
		buf = buf[:0]
		left := min(s.size, budget)
		budget -= left
		for left > 0 && s.offset < 1<<62 {
			keep := copy(buf[:cap(buf)], buf[max(0, len(buf)-overlap):])
			n, _ := r.ReadAt(buf[keep:keep+int(min(left, scanChunk))], int64(s.offset))
			if n <= 0 {
				break
			}
			buf = buf[:keep+n]
			if find(buf) {
				return true
			}
			s.offset, left = s.offset+uint64(n), left-uint64(n)
		}
	}
	return false
}

// overlap is what is kept of one chunk for the next: more than anything that is looked for.
const overlap = 256

var (
	rustPath     = []byte("/rustc")
	bundleMarker = []byte("\x8b\x12\x02\xb9\x6a\x61\x20\x38\x72\x7b\x93\x02\x14\xd7\xa0\x32" +
		"\x13\xf5\xb9\xe6\xef\xae\x33\x18\xee\x3b\x2d\xce\x24\xb3\x6a\xae")
)

func findBundleMarker(b []byte) bool { return bytes.Contains(b, bundleMarker) }

// findRustPath looks for /rustc/HASH/library/ or, where a distribution built the compiler, /rustc-1.63.0/library/ and
// /rustc-1.63.0-src/library/.
func findRustPath(b []byte) bool {
	for {
		i := bytes.Index(b, rustPath)
		if i < 0 {
			return false
		}
		b = b[i+len(rustPath):]
		if len(b) == 0 {
			return false
		}
		dir, rest, ok := bytes.Cut(b[1:min(len(b), 80)], []byte("/"))
		if !ok || !bytes.HasPrefix(rest, []byte("library/")) {
			continue
		}
		switch {
		case b[0] == '/' && len(dir) == 40 && len(bytes.Trim(dir, "0123456789abcdef")) == 0:
			return true
		case b[0] == '-' && len(dir) > 0 && dir[0] >= '1' && dir[0] <= '9':
			return true
		}
	}
}
