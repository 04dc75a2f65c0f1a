// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const page = 4096

// readBytes reads a file that is only in memory.
func readBytes(data []byte) ([]record, Stats, error) {
	r := &Reader{streams: map[streamKey]*stream{}, flushed: map[ID]bootTime{}, done: map[string]fingerprint{}, refused: map[string]refusal{}}
	r.lastScan = time.Now()
	r.decoder = decoder{blocks: &r.blocks, limit: 64 << 10}
	defer r.decoder.unpacker.close()
	in := bytes.NewReader(data)
	f := r.newFile(in, func() (os.FileInfo, error) { return fakeInfo{size: in.Size()}, nil })
	f.closer = nopCloser{}
	if err := f.init(); err != nil {
		return nil, Stats{}, err
	}
	f.path = "system.journal~"
	r.join(f)
	r.files = []*file{f}
	all := pollAll(r)
	return all, r.Stats(), nil
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

type fakeInfo struct {
	os.FileInfo
	size int64
}

func (i fakeInfo) Size() int64      { return i.size }
func (fakeInfo) ModTime() time.Time { return time.Time{} }

// checkDamaged checks what was read of a damaged file: nothing that was never written, in order, and enough of it.
func checkDamaged(t *testing.T, what string, want, got []record, stats Stats, least int) {
	t.Helper()
	at := map[string]int{}
	for i, rec := range want {
		at[rec.Cursor] = i
	}
	last, whole := -1, 0
	for _, rec := range got {
		i, ok := at[rec.Cursor]
		if !ok || i <= last {
			t.Fatalf("%s: entry %s is unknown or out of order", what, rec.Cursor)
		}
		last = i
		if cmp.Equal(want[i].Fields, rec.Fields) {
			whole++
			continue
		}
		for name, values := range rec.Fields {
			for _, v := range values {
				if !bytes.Contains(fmt.Append(nil, want[i].Fields[name]), fmt.Append(nil, v)) {
					t.Fatalf("%s: entry %d has %s=%q", what, i, name, v)
				}
			}
		}
	}
	if whole < len(want) && stats.Damaged+stats.DamagedFields == 0 {
		t.Errorf("%s: %d of %d entries are whole, but no damage is counted", what, whole, len(want))
	}
	if len(got) < least {
		t.Errorf("%s: got %d of %d entries (%d whole), want %d at least", what, len(got), len(want), whole, least)
	}
}

// entriesUpTo tells how many of the entries end, with all of their fields, before an offset.
func entriesUpTo(data []byte, offset uint64) int {
	n := 0
	f := &file{source: bytes.NewReader(data), blocks: &blocks{}, id: 1, damage: func(uint64) {}}
	f.stat = func() (os.FileInfo, error) { return fakeInfo{size: int64(len(data))}, nil }
	if f.init() != nil {
		return 0
	}
	for f.advance() && f.head.offset+f.head.size <= offset {
		n++
	}
	return n
}

func TestReaderGivesWhatIsIntactAroundAZeroedPage(t *testing.T) {
	eachShape(t, func(t *testing.T, b *builder) {
		want := b.fill(120)
		for at := 0; at < len(b.file); at += page {
			data := bytes.Clone(b.file)
			clear(data[at:min(at+page, len(data))])
			got, stats, err := readBytes(data)
			if at == 0 {
				if err == nil {
					t.Error("a file without a header is not refused")
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			// A page has 40 entries or fewer, but their shared fields may be of all.
			checkDamaged(t, fmt.Sprintf("page at %d", at), want, got, stats, len(want)-40)
		}
	})
}

func TestReaderGivesWhatIsBeforeACut(t *testing.T) {
	for _, compact := range []bool{false, true} {
		b := newBuilder(compact, true, flagZstd)
		want := b.fill(200)
		for size := 0; size < len(b.file); size += 397 {
			got, stats, err := readBytes(b.file[:size])
			if err != nil {
				if size >= minHeader {
					t.Errorf("cut to %d: %v", size, err)
				}
				continue
			}
			checkDamaged(t, fmt.Sprintf("cut to %d", size), want, got, stats, entriesUpTo(b.file, uint64(size)))
		}
	}
}

func TestReaderRefusesWhatItDoesNotKnow(t *testing.T) {
	dir := t.TempDir()
	b := newBuilder(true, true, 0)
	b.fill(3)
	writeFile(t, filepath.Join(dir, "good.journal"), b.file)
	newer := bytes.Clone(b.file)
	binary.LittleEndian.PutUint32(newer[12:], 1<<5)
	writeFile(t, filepath.Join(dir, "newer.journal"), newer)
	writeFile(t, filepath.Join(dir, "empty.journal"), nil)
	r := openDir(t, dir, Options{Start: Beginning})
	if got := len(pollAll(r)); got != 3 {
		t.Errorf("got %d entries, want 3", got)
	}
	got := map[string]bool{}
	for _, err := range r.Refused() {
		got[err.Error()] = true
	}
	want := map[string]bool{
		filepath.Join(dir, "newer.journal") + ": incompatible flags 0x20: journal file needs a newer reader": true,
		filepath.Join(dir, "empty.journal") + ": not a journal file":                                         true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// journald makes the file before it writes the header.
	b.setID(ID{99})
	writeFile(t, filepath.Join(dir, "empty.journal"), b.file)
	deadline := time.Now().Add(5 * time.Second)
	for r.Stats().Refused > 1 && time.Now().Before(deadline) {
		r.Poll()
	}
	if got := r.Stats().Refused; got != 1 {
		t.Errorf("got %d files refused, want 1", got)
	}
}

// FuzzFile reads any file: it must end, without a panic, and give no entry twice.
func FuzzFile(f *testing.F) {
	for _, compact := range []bool{false, true} {
		for _, compression := range []byte{0, flagXZ, flagLZ4, flagZstd} {
			b := newBuilder(compact, true, compression)
			b.fill(10)
			f.Add(b.file)
			f.Add(append(bytes.Clone(b.file[:len(b.file)/2]), make([]byte, 500)...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, _, err := readBytes(data)
		if err != nil {
			return
		}
		if len(got) > len(data)/entryHeader {
			t.Errorf("%d entries in %d bytes", len(got), len(data))
		}
	})
}

// FuzzUnpack unpacks anything: it must end, and never give more than the limit.
func FuzzUnpack(f *testing.F) {
	for _, flags := range []byte{flagXZ, flagLZ4, flagZstd} {
		f.Add(flags, pack(bytes.Repeat([]byte("MESSAGE=abcdefg"), 100), flags))
	}
	var u unpacker
	f.Fuzz(func(t *testing.T, flags byte, packed []byte) {
		if got, _ := u.unpack(nil, packed, flags, 5000, true); len(got) > 5000 {
			t.Errorf("got %d bytes", len(got))
		}
	})
}
