// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The layout is that of systemd's journal-def.h, described at systemd.io/JOURNAL_FILE_FORMAT. All numbers are little endian, all
// offsets count from the beginning of the file, and objects begin at multiples of 8.
const (
	signature = "LPKSHHRH"

	minHeader  = 208 // up to n_data, which each version has
	headerRead = 272 // what is known to us

	incompatibleXZ      = 1 << 0
	incompatibleLZ4     = 1 << 1
	incompatibleKeyed   = 1 << 2
	incompatibleZstd    = 1 << 3
	incompatibleCompact = 1 << 4
	incompatibleKnown   = incompatibleXZ | incompatibleLZ4 | incompatibleKeyed | incompatibleZstd | incompatibleCompact

	stateArchived = 2

	objectHeader = 16
	objectData   = 1
	objectField  = 2
	objectEntry  = 3
	objectArray  = 6
	objectTag    = 7

	flagXZ         = 1 << 0
	flagLZ4        = 1 << 1
	flagZstd       = 1 << 2
	flagCompressed = flagXZ | flagLZ4 | flagZstd

	entryHeader = 64
	arrayHeader = 24
	dataHeader  = 64 // 8 more in compact files

	// maxTime is the latest real time in microseconds that an entry may have, as in systemd: the year 3111.
	maxTime = 1 << 55
)

var (
	errNotJournal  = errors.New("not a journal file")
	errUnsupported = errors.New("journal file needs a newer reader")
	errDamaged     = errors.New("damaged")
)

// ID is a 128-bit id of systemd: of a machine, a boot, a file or a sequence of numbers.
type ID [16]byte

// header is what we use of a file's header.
type header struct {
	compact, keyed     bool
	archived           bool
	fileID, machineID  ID
	seqnumID           ID
	arenaEnd           uint64 // header and arena
	size               uint64 // of the header
	tailObject         uint64
	entries            uint64
	tailSeqnum         uint64
	array              uint64
	tailTime, tailMono uint64 // of the last entry that was linked
}

func parseHeader(b []byte) (header, error) {
	le := binary.LittleEndian
	if len(b) < minHeader || string(b[:8]) != signature {
		return header{}, errNotJournal
	}
	flags := le.Uint32(b[12:])
	if unknown := flags &^ incompatibleKnown; unknown != 0 {
		return header{}, fmt.Errorf("incompatible flags %#x: %w", unknown, errUnsupported)
	}
	h := header{
		compact:    flags&incompatibleCompact != 0,
		keyed:      flags&incompatibleKeyed != 0,
		archived:   b[16] == stateArchived,
		fileID:     ID(b[24:]),
		machineID:  ID(b[40:]),
		seqnumID:   ID(b[72:]),
		size:       le.Uint64(b[88:]),
		tailObject: le.Uint64(b[136:]),
		entries:    le.Uint64(b[152:]),
		tailSeqnum: le.Uint64(b[160:]),
		array:      le.Uint64(b[176:]),
		tailTime:   le.Uint64(b[192:]),
		tailMono:   le.Uint64(b[200:]),
	}
	arena := le.Uint64(b[96:])
	if h.size < minHeader || h.size%8 != 0 || h.size > 1<<20 || arena > 1<<62 {
		return header{}, fmt.Errorf("header of %d bytes, arena of %d: %w", h.size, arena, errNotJournal)
	}
	h.arenaEnd = h.size + arena
	return h, nil
}

// object is the beginning that all objects share.
type object struct {
	kind, flags byte
	reserved    bool // some reserved byte is set
	size        uint64
}

func parseObject(b []byte) object {
	o := object{kind: b[0], flags: b[1], size: binary.LittleEndian.Uint64(b[8:])}
	for _, c := range b[2:8] {
		o.reserved = o.reserved || c != 0
	}
	return o
}

// plausible tells whether an object may look like that. Writers set reserved bytes to 0.
func (o object) plausible() bool {
	least := uint64(objectHeader)
	switch o.kind {
	case objectData:
		least = dataHeader + 1
	case objectField:
		least = 40 + 1
	case objectEntry:
		least = entryHeader + 4
	case objectArray:
		least = arrayHeader + 4
	case objectTag:
		least = 64
	case 0:
		return false
	}
	return o.kind <= objectTag && o.size >= least && !o.reserved && o.flags <= flagCompressed && (o.flags == 0 || o.kind == objectData)
}

// entryHead is an entry without its fields.
type entryHead struct {
	offset, size        uint64
	seqnum              uint64
	realtime, monotonic uint64 // microseconds
	boot                ID
	xorHash             uint64
}

func parseEntryHead(b []byte, offset uint64) (entryHead, error) {
	le := binary.LittleEndian
	o := parseObject(b)
	h := entryHead{
		offset:    offset,
		size:      o.size,
		seqnum:    le.Uint64(b[16:]),
		realtime:  le.Uint64(b[24:]),
		monotonic: le.Uint64(b[32:]),
		boot:      ID(b[40:]),
		xorHash:   le.Uint64(b[56:]),
	}
	if o.kind != objectEntry || o.flags != 0 || o.size < entryHeader+4 || h.seqnum == 0 || h.realtime == 0 || h.realtime > maxTime ||
		h.monotonic > maxTime || h.boot == (ID{}) {
		return entryHead{}, fmt.Errorf("entry at %d: %w", offset, errDamaged)
	}
	return h, nil
}

// align8 rounds up to where the next object begins. Callers bound n by the size of a file first.
func align8(n uint64) uint64 { return (n + 7) &^ 7 }
