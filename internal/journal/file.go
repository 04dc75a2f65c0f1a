// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
)

// file is one journal file and a place in it.
type file struct {
	id         uint32 // of its blocks, never 0
	generation uint32 // counts the states of the file that were read: a block of another one is stale
	source     io.ReaderAt
	closer     io.Closer
	stat       func() (os.FileInfo, error)
	size       uint64
	hdr        header
	blocks     *blocks
	damage     func(n uint64)

	path         string
	info         os.FileInfo
	volatile     bool
	archivedName bool
	gone         bool // has no name any more
	stream       *stream

	// The place: array says where the entry with number next is, unless walking, and a walk over all objects goes on at walkAt.
	array           uint64 // offset of an array of entries, 0 before the first
	slot, slots     uint64
	next            uint64
	walking, gaveUp bool
	walkAt          uint64
	lost            bool // in the middle of damage that is counted
	skipped         uint64
	last            entryHead // the last intact one

	head    entryHead
	hasHead bool
}

// init reads the header.
func (f *file) init() error {
	hdr, size, err := f.readHeader()
	if err != nil {
		return err
	}
	f.hdr, f.size = hdr, size
	return nil
}

func (f *file) readHeader() (header, uint64, error) {
	var b [headerRead]byte
	n, err := f.source.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return header{}, 0, err
	}
	hdr, err := parseHeader(b[:n])
	if err != nil {
		return header{}, 0, err
	}
	info, err := f.stat()
	if err != nil {
		return header{}, 0, err
	}
	return hdr, uint64(max(info.Size(), 0)), nil
}

// refresh looks whether there is more.
func (f *file) refresh() {
	hdr, size, err := f.readHeader()
	if err != nil || hdr.fileID != f.hdr.fileID || hdr.compact != f.hdr.compact || hdr.keyed != f.hdr.keyed {
		// journald empties what it deletes.
		if info, err := os.Stat(f.path); !f.gaveUp && err == nil && os.SameFile(info, f.info) {
			f.damage(1)
		}
		f.gaveUp = true
		return
	}
	if hdr.entries != f.hdr.entries || hdr.tailObject != f.hdr.tailObject || size != f.size {
		f.generation++
	}
	f.hdr, f.size = hdr, size
}

// advance moves to the next intact entry with a higher number than all before, and tells whether there is one.
func (f *file) advance() bool {
	for !f.walking && !f.gaveUp && f.next < f.hdr.entries {
		offset, err := f.nextSlot()
		if err != nil {
			// The list of the entries is damaged: look at all objects behind the last good one instead.
			f.damage(1)
			f.startWalk()
			break
		}
		head, err := f.entryAt(offset)
		if err != nil || head.seqnum <= f.last.seqnum {
			f.damage(1)
			continue
		}
		f.head, f.last = head, head
		return true
	}
	return f.walking && f.walk()
}

// nextSlot returns where the next entry is.
func (f *file) nextSlot() (uint64, error) {
	for f.slot == f.slots {
		if err := f.nextArray(); err != nil {
			return 0, err
		}
	}
	offset, err := f.slotAt(f.slot)
	if err != nil {
		return 0, err
	}
	if offset%8 != 0 || offset <= f.last.offset || offset < f.hdr.size {
		return 0, fmt.Errorf("entry %d at %d: %w", f.next, offset, errDamaged)
	}
	f.slot++
	f.next++
	return offset, nil
}

func (f *file) slotAt(i uint64) (uint64, error) {
	if f.hdr.compact {
		b, err := f.blocks.view(f, f.array+arrayHeader+4*i, 4)
		if err != nil {
			return 0, err
		}
		return uint64(binary.LittleEndian.Uint32(b)), nil
	}
	b, err := f.blocks.view(f, f.array+arrayHeader+8*i, 8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// nextArray goes to the next array of the chain. Writers append, so it is behind the one before, and no chain is a ring.
func (f *file) nextArray() error {
	offset := f.hdr.array
	if f.array != 0 {
		b, err := f.blocks.view(f, f.array, arrayHeader)
		if err != nil {
			return err
		}
		offset = binary.LittleEndian.Uint64(b[16:])
	}
	if offset <= f.array || offset%8 != 0 || offset < f.hdr.size {
		return fmt.Errorf("entry array at %d: %w", offset, errDamaged)
	}
	b, err := f.blocks.view(f, offset, arrayHeader)
	if err != nil {
		return err
	}
	o := parseObject(b)
	width := uint64(8)
	if f.hdr.compact {
		width = 4
	}
	if o.kind != objectArray || o.size < arrayHeader+width || o.size > f.size-offset {
		return fmt.Errorf("entry array at %d: %w", offset, errDamaged)
	}
	f.array, f.slot, f.slots = offset, 0, (o.size-arrayHeader)/width
	return nil
}

// entryAt reads an entry without its fields.
func (f *file) entryAt(offset uint64) (entryHead, error) {
	b, err := f.blocks.view(f, offset, entryHeader)
	if err != nil {
		return entryHead{}, err
	}
	head, err := parseEntryHead(b, offset)
	if err != nil {
		return entryHead{}, err
	}
	if head.size > f.size-offset {
		return entryHead{}, fmt.Errorf("entry at %d of %d bytes: %w", offset, head.size, errDamaged)
	}
	return head, nil
}

// seek moves before the first entry above seqnum, or to some earlier place when damage hides where that is.
func (f *file) seek(seqnum uint64) {
	f.array, f.slot, f.slots, f.next, f.hasHead = 0, 0, 0, 0, false
	if seqnum == 0 {
		return
	}
	for f.next < f.hdr.entries && f.nextArray() == nil {
		n := min(f.slots, f.hdr.entries-f.next)
		above := func(i int) bool {
			offset, err := f.slotAt(uint64(i))
			if err != nil || offset%8 != 0 {
				return true
			}
			head, err := f.entryAt(offset)
			return err != nil || head.seqnum > seqnum
		}
		passed := n
		if above(int(n - 1)) { // most arrays are passed as a whole
			passed = uint64(sort.Search(int(n-1), above))
		}
		f.slot += passed
		f.next += passed
		if f.slot < f.slots {
			return
		}
	}
}

// tail returns the last entry, or only its number when damage hides it.
func (f *file) tail() entryHead {
	probe := *f
	probe.damage = func(uint64) {}
	var last entryHead
	for probe.next < probe.hdr.entries && probe.nextArray() == nil {
		n := min(probe.slots, probe.hdr.entries-probe.next)
		if offset, err := probe.slotAt(n - 1); err == nil {
			if head, err := probe.entryAt(offset); err == nil && head.seqnum > last.seqnum {
				last = head
			}
		}
		probe.next += n
	}
	if probe.next < probe.hdr.entries || f.hdr.entries > 0 && last.seqnum == 0 {
		last = entryHead{seqnum: f.hdr.tailSeqnum}
	}
	return last
}
