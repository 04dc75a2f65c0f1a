// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	// maxFields is how many fields of an entry are looked at; journald itself refuses more than 1024.
	maxFields = 4096
	maxName   = 256

	keptFields     = 2048
	keptFieldBytes = 512
)

// decoder reads the fields of entries. Values that many entries share are kept, 1 MiB of them at most.
type decoder struct {
	blocks   *blocks
	unpacker unpacker
	wanted   map[string]struct{} // nil: all
	limit    int                 // bytes of one payload

	kept  [keptFields]keptField
	items []item
	arena []byte // the payloads of the entry
	spans []span
	entry Entry

	damagedFields, cutFields uint64 // of the entry
}

// keptField is a payload that was read before.
type keptField struct {
	file    uint32
	offset  uint64
	wanted  bool
	name    int
	payload []byte
}

type item struct{ offset, hash uint64 }

// span is a field of the entry: its payload in the arena.
type span struct {
	start, name, end int
	cut              bool
}

// decode fills the entry. It fails when not one field can be read.
func (d *decoder) decode(f *file, head entryHead) error {
	d.damagedFields, d.cutFields = 0, 0
	d.arena, d.spans = d.arena[:0], d.spans[:0]
	if err := d.readItems(f, head); err != nil {
		return err
	}
	for _, it := range d.items {
		if err := d.field(f, it); err != nil {
			d.damagedFields++
		}
	}
	if len(d.items) == 0 || d.damagedFields == uint64(len(d.items)) {
		return fmt.Errorf("entry at %d has no fields: %w", head.offset, errDamaged)
	}
	fields := d.entry.fields[:0]
	for _, s := range d.spans {
		fields = append(fields, Field{Name: d.arena[s.start:s.name:s.name], Value: d.arena[s.name+1 : s.end : s.end], Cut: s.cut})
	}
	d.entry = Entry{
		Realtime:  time.UnixMicro(int64(head.realtime)),
		Monotonic: time.Duration(min(head.monotonic, 1<<63/1000-1)) * time.Microsecond,
		BootID:    head.boot,
		MachineID: f.hdr.machineID,
		Seqnum:    head.seqnum,
		SeqnumID:  f.hdr.seqnumID,
		Damaged:   d.damagedFields > 0,
		xorHash:   head.xorHash,
		fields:    fields,
	}
	return nil
}

// readItems copies where the fields are: blocks may change under a view.
func (d *decoder) readItems(f *file, head entryHead) error {
	width := uint64(16)
	if f.hdr.compact {
		width = 4
	}
	n := (head.size - entryHeader) / width
	if n > maxFields {
		d.cutFields += n - maxFields
		n = maxFields
	}
	b, err := d.blocks.view(f, head.offset+entryHeader, n*width)
	if err != nil {
		return err
	}
	d.items = d.items[:0]
	for ; len(b) > 0; b = b[width:] {
		if f.hdr.compact {
			d.items = append(d.items, item{offset: uint64(binary.LittleEndian.Uint32(b))})
		} else {
			d.items = append(d.items, item{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])})
		}
	}
	return nil
}

// field appends one field to the entry, unless it is not wanted.
func (d *decoder) field(f *file, it item) error {
	k := &d.kept[(it.offset>>3*0x9e3779b97f4a7c15>>32^uint64(f.id))%keptFields]
	if k.file == f.id && k.offset == it.offset {
		if k.wanted {
			start := len(d.arena)
			d.arena = append(d.arena, k.payload...)
			d.spans = append(d.spans, span{start: start, name: start + k.name, end: len(d.arena)})
		}
		return nil
	}
	start := len(d.arena)
	s, shared, err := d.payload(f, it)
	if err != nil {
		d.arena = d.arena[:start]
		return err
	}
	wanted := d.wanted == nil
	if !wanted {
		_, wanted = d.wanted[string(d.arena[start:s.name])]
	}
	if shared && !s.cut && s.end-start <= keptFieldBytes {
		*k = keptField{file: f.id, offset: it.offset, wanted: wanted, name: s.name - start, payload: append(k.payload[:0], d.arena[start:]...)}
	}
	if !wanted {
		d.arena = d.arena[:start]
		return nil
	}
	if s.cut {
		d.cutFields++
	}
	d.spans = append(d.spans, s)
	return nil
}

// payload reads a data object to the end of the arena. shared tells that several entries have it.
func (d *decoder) payload(f *file, it item) (s span, shared bool, err error) {
	hdrSize := uint64(dataHeader)
	if f.hdr.compact {
		hdrSize += 8
	}
	if it.offset%8 != 0 || it.offset < f.hdr.size {
		return span{}, false, fmt.Errorf("data at %d: %w", it.offset, errDamaged)
	}
	b, err := d.blocks.view(f, it.offset, hdrSize)
	if err != nil {
		return span{}, false, err
	}
	o, hash := parseObject(b), binary.LittleEndian.Uint64(b[16:])
	shared = binary.LittleEndian.Uint64(b[56:]) > 1
	if o.kind != objectData || o.size <= hdrSize || o.size > f.size-it.offset || !f.hdr.compact && hash != it.hash {
		return span{}, false, fmt.Errorf("data at %d: %w", it.offset, errDamaged)
	}
	start := len(d.arena)
	limit := max(min(d.limit, 4*d.limit-start), maxName)
	size := o.size - hdrSize
	cut := false
	if flags := o.flags & flagCompressed; flags == 0 {
		cut = size > uint64(limit)
		b, err = d.blocks.view(f, it.offset+hdrSize, min(size, uint64(limit)))
		d.arena = append(d.arena, b...)
	} else {
		read := min(size, uint64(limit)+compressedSlack)
		if b, err = d.blocks.view(f, it.offset+hdrSize, read); err == nil {
			// One byte more than the limit tells whether it is cut.
			d.arena, err = d.unpacker.unpack(d.arena, b, flags, limit+1, read == size)
			if cut = len(d.arena)-start > limit; cut {
				d.arena = d.arena[:start+limit]
			}
		}
	}
	if err != nil {
		return span{}, false, err
	}
	name := bytes.IndexByte(d.arena[start:min(len(d.arena), start+maxName)], '=')
	if name <= 0 || !cut && f.hdr.hash(d.arena[start:]) != hash {
		return span{}, false, fmt.Errorf("data at %d: %w", it.offset, errDamaged)
	}
	return span{start: start, name: start + name, end: len(d.arena), cut: cut}, shared, nil
}
