// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"bytes"
	"time"
)

const (
	maxBatch = 2048 // lines that are given at once
	// minRecord is room for a record of Docker, whose 16 KiB of text may take six bytes each.
	minRecord = 128 << 10
)

// record is what a runtime writes for a line or for a part of one.
type record struct {
	text    []byte
	at      time.Time
	stream  Stream
	partial bool
}

// join is a message of which more parts are to come. Its text is only ever appended to, so that an older copy stays true.
type join struct {
	text []byte
	at   time.Time
	open bool
	cut  bool
}

// joins are those of a source: parts may go on in the next file.
type joins [streams]join

// splitter makes lines of bytes. The lines live in its buffers and in what was given to it, until reset.
type splitter struct {
	maxLine int
	lines   []Line
	scratch []byte
	cut     uint64
	invalid uint64
}

func newSplitter(maxLine, chunk int) *splitter {
	return &splitter{maxLine: maxLine, lines: make([]Line, 0, maxBatch+streams+1), scratch: make([]byte, 0, chunk)}
}

func (s *splitter) reset() {
	s.lines, s.scratch, s.cut, s.invalid = s.lines[:0], s.scratch[:0], 0, 0
}

// maxRecord is the length from which on a record that has no end yet is cut.
func maxRecord(f Format, maxLine int) int {
	if f == Plain {
		return maxLine + 2 // the text may fill the limit, and a carriage return come before its end
	}
	return max(minRecord, 2*maxLine)
}

// split takes records from data until the batch is full, and returns how many bytes it took. With skip they begin with
// the end of a record that was cut; skipping says that they end in one.
func (s *splitter) split(data []byte, format Format, j *joins, skip bool) (n int, skipping bool) {
	if format == DockerLocal {
		return s.splitFrames(data, j, skip)
	}
	for len(s.lines) < maxBatch {
		i := bytes.IndexByte(data[n:], '\n')
		if i < 0 {
			if !skip && len(data)-n >= maxRecord(format, s.maxLine) {
				s.record(data[n:], format, j)
				skip = true
			}
			if skip {
				n = len(data)
			}
			return n, skip
		}
		if skip {
			skip = false
		} else {
			s.record(data[n:n+i], format, j)
		}
		n += i + 1
	}
	return n, false
}

func (s *splitter) record(b []byte, format Format, j *joins) {
	if format == Plain {
		s.give(b, time.Time{}, StreamUnknown, false)
		return
	}
	var r record
	var ok bool
	switch format {
	case DockerJSON:
		r, s.scratch, ok = parseDocker(b, s.scratch)
	case DockerLocal:
		r, ok = parseDockerLocal(b)
	default:
		r, ok = parseCRI(b)
	}
	if !ok {
		s.invalid++
		return
	}
	w := &j[r.stream]
	if !w.open && !r.partial {
		s.give(r.text, r.at, r.stream, false)
		return
	}
	if !w.open {
		*w = join{at: r.at, open: true}
	}
	// One byte more than the limit, for a carriage return at the end.
	room := s.maxLine + 1 - len(w.text)
	if len(r.text) > room {
		r.text, w.cut = r.text[:room], true
	}
	w.text = append(w.text, r.text...)
	if !r.partial {
		s.give(w.text, w.at, r.stream, w.cut)
		*w = join{}
	}
}

// flush gives what was joined so far.
func (s *splitter) flush(j *joins) {
	for i := range j {
		if w := &j[i]; w.open {
			s.give(w.text, w.at, Stream(i), w.cut)
			*w = join{}
		}
	}
}

func (s *splitter) give(text []byte, at time.Time, stream Stream, cut bool) {
	if n := len(text); n > 0 && text[n-1] == '\r' && !cut {
		text = text[:n-1]
	}
	if len(text) > s.maxLine {
		text, cut = text[:s.maxLine], true
	}
	if cut {
		s.cut++
	}
	s.lines = append(s.lines, Line{Text: text, Time: at, Stream: stream, Cut: cut})
}
