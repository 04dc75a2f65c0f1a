// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"math"
	"path/filepath"
	"strings"
	"time"
)

// streamKey names a sequence of files, each going on where rotation ended the one before: their entries have rising numbers.
// system.journal and user-1000.journal may share a sequence id, but an entry of one may be written late to the merged order.
type streamKey struct {
	machine, seqnumID ID
	name              string // "system", "user-1000"
}

type stream struct {
	key      streamKey
	position uint64 // number of the last entry given or passed over
	realtime uint64 // its time
	files    []*file
}

// bootTime is a place in the monotonic time of a boot, in microseconds.
type bootTime struct {
	boot      ID
	monotonic uint64
}

// streamName is the part of a file's name that rotation keeps: system@ID-SEQNUM-TIME.journal, system@TIME-RANDOM.journal~.
func streamName(path string) (name string, archived bool) {
	name = filepath.Base(path)
	name = strings.TrimSuffix(strings.TrimSuffix(name, "~"), ".journal")
	name, _, archived = strings.Cut(name, "@")
	return name, archived
}

// pick returns the file that has the next entry as its head. The file chosen last stays it as long as no other has an earlier one.
func (r *Reader) pick() *file {
	if r.untilCheck > 0 {
		r.untilCheck--
		if f := r.current; f != nil && f.fill() && f.head.seqnum < r.limitSeq && f.head.realtime <= r.limitTime {
			return f
		}
		if r.choose(); r.current != nil {
			return r.current
		}
	}
	r.look()
	r.choose()
	return r.current
}

// look finds out what is new: first files, then what all files have. In this order a file that rotation ended is known to its end
// before its successor gives anything.
func (r *Reader) look() {
	r.untilCheck = batch
	r.scan(false)
	for i := len(r.files) - 1; i >= 0; i-- {
		f := r.files[i]
		if f.fill() && f.hdr.archived {
			continue
		}
		before := f.hdr
		f.refresh()
		r.join(f)
		if f.fill() {
			continue
		}
		if f.gaveUp || f.gone || f.finished(before) {
			if !f.gone {
				r.done[f.path] = fingerprint{f.info}
			}
			r.drop(f)
		}
	}
}

// join makes a file part of its stream, and moves behind what that has given. journald fills in the machine's id after it made the
// file and before the first entry, so a file may have to leave the stream that it seemed to belong to.
func (r *Reader) join(f *file) {
	name, _ := streamName(f.path)
	key := streamKey{f.hdr.machineID, f.hdr.seqnumID, name}
	if old := f.stream; old != nil {
		if old.key == key {
			return
		}
		old.files = remove(old.files, f)
		if len(old.files) == 0 && old.position == 0 {
			delete(r.streams, old.key)
		}
	}
	if r.streams[key] == nil {
		r.streams[key] = &stream{key: key}
	}
	f.stream = r.streams[key]
	f.stream.files = append(f.stream.files, f)
	f.seek(f.stream.position)
}

// finished tells whether nothing can be written to the file any more. journald renames first and marks as archived later.
func (f *file) finished(before header) bool {
	if !f.archivedName && !f.hdr.archived {
		return false
	}
	info, err := f.stat()
	if err != nil {
		return false
	}
	f.info = info
	return f.hdr.archived || before == f.hdr && time.Since(info.ModTime()) > 10*time.Second
}

// fill makes sure that the file has a head, if it has one.
func (f *file) fill() bool {
	for !f.hasHead || f.head.seqnum <= f.stream.position {
		if f.hdr.tailSeqnum <= f.stream.position { // nor is it damage if what was read is gone
			f.hasHead = false
			return false
		}
		if f.hasHead = f.advance(); !f.hasHead {
			return false
		}
	}
	return true
}

// choose makes the file with the next entry the current one: of each stream the one with the lowest number, of those the
// earliest. Numbers come first: positions only rise, so what is passed over would never be given.
func (r *Reader) choose() {
	r.current, r.limitSeq, r.limitTime = nil, math.MaxUint64, math.MaxUint64
	for _, s := range r.streams {
		first, second := s.first()
		switch {
		case first == nil:
		case r.current == nil || earlier(first, r.current):
			if r.current != nil {
				r.limitTime = min(r.limitTime, r.current.head.realtime)
			}
			r.current, r.limitSeq = first, second
		default:
			r.limitTime = min(r.limitTime, first.head.realtime)
		}
	}
}

func earlier(a, b *file) bool {
	if a.head.realtime != b.head.realtime {
		return a.head.realtime < b.head.realtime
	}
	return a.head.seqnum < b.head.seqnum
}

// first returns the file with the lowest head, and the next higher head of another file.
func (s *stream) first() (best *file, second uint64) {
	second = math.MaxUint64
	for _, f := range s.files {
		switch {
		case !f.fill():
		case best == nil || f.head.seqnum < best.head.seqnum:
			if best != nil {
				second = best.head.seqnum
			}
			best = f
		default:
			second = min(second, f.head.seqnum)
		}
	}
	return best, second
}

// isCopy tells whether an entry is what journald copied from the volatile journal when it could write to /var: it has a new
// number, but the same monotonic time, and in one boot journald writes either to the one or to the other.
func (r *Reader) isCopy(f *file, head entryHead) bool {
	if f.volatile {
		r.noteVolatile(f, head)
		return false
	}
	seen, ok := r.flushed[f.hdr.machineID]
	return ok && f.stream.key.name == "system" && seen.boot == head.boot && head.monotonic <= seen.monotonic
}

func (r *Reader) noteVolatile(f *file, head entryHead) {
	seen := r.flushed[f.hdr.machineID]
	if f.stream.key.name == "system" && head.boot != (ID{}) && (seen.boot != head.boot || head.monotonic > seen.monotonic) {
		r.flushed[f.hdr.machineID] = bootTime{head.boot, head.monotonic}
	}
}

// skipToEnd passes over all that is there.
func (r *Reader) skipToEnd() {
	for _, f := range r.files {
		tail := f.tail()
		if tail.seqnum > f.stream.position {
			f.stream.position, f.stream.realtime = tail.seqnum, tail.realtime
		}
		if f.volatile {
			r.noteVolatile(f, tail)
		}
	}
	for _, f := range r.files {
		f.seek(f.stream.position)
	}
}
