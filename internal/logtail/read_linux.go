// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"time"

	"golang.org/x/sys/unix"
)

// readFile gives what is new in a file. known is what the path tells of it, or nil to ask the file. again says that it has
// more, grew that it was written to since.
func (r *run) readFile(s *source, f *file, known *fileInfo, at time.Time) (again, grew bool, err error) {
	if f.fd < 0 {
		if known == nil || (f.seen.id == known.id && !f.changed(*known)) {
			return false, false, nil
		}
		if ok, err := r.openAgain(s, f); !ok {
			return false, false, err
		}
	}
	var info fileInfo
	if known != nil {
		info = *known
	} else if info, err = statAt(f.fd, "", 0); err != nil {
		return false, false, err
	}
	if f.seen.id == info.id && !f.changed(info) {
		return false, false, nil
	}
	if info.size != f.seen.size || info.modified != f.seen.modified {
		f.grew, grew = at, true
		r.open.MoveToFront(f.open)
	}
	whole := info.size >= f.Offset
	if whole {
		if whole, err = matchesHead(f.fd, &f.position, r.buf); err != nil {
			return false, grew, err
		}
	}
	if whole {
		if again, whole, err = r.readOn(s, f); err != nil {
			return false, grew, err
		}
	}
	if !whole {
		r.truncated(s, f)
		return true, true, nil // it is read from its beginning after what was found
	}
	f.seen, f.checked, f.read = info, at.UnixNano(), !again
	if known != nil && !again {
		// An overlay file system gives another file to those who open it after the first writer.
		if now, err := statAt(f.fd, "", 0); err == nil && now.size < info.size {
			r.close(f)
			f.read = false
		}
	}
	return again, grew, nil
}

// openAgain opens the file at the path if it is still f.
func (r *run) openAgain(s *source, f *file) (bool, error) {
	fd, info, err := s.place.open()
	if err != nil {
		if isGone(err) {
			err = nil
		}
		return false, err
	}
	if !info.id.same(f.id) {
		unix.Close(fd) // the next look finds out
		return false, nil
	}
	r.opened(s, f, fd)
	return true, nil
}

// readOn gives the lines behind the place. whole is false if the bytes before it are not those that were read.
func (r *run) readOn(s *source, f *file) (again, whole bool, err error) {
	for range chunksPerPoll {
		tail := int(f.TailLen)
		n, err := readAt(f.fd, r.buf, f.Offset-uint64(tail))
		if err != nil {
			return false, true, err
		}
		if n < tail || (tail > 0 && hash(r.buf[:tail]) != f.TailHash) {
			return false, false, nil
		}
		if f.skipZero && n > tail {
			zeros, all := skipHole(f.fd, &f.position, r.buf[tail:n])
			if zeros > 0 {
				r.skipZeros(f, zeros)
			}
			if f.skipZero = all; zeros > 0 {
				continue
			}
		}
		r.giveLines(s, f, r.buf[:n])
		if r.stopped() {
			return true, true, nil
		}
		if n < len(r.buf) {
			return false, true, nil
		}
	}
	return true, true, nil
}

func (r *run) skipZeros(f *file, zeros uint64) {
	r.change(func() {
		head := f.HeadLen
		f.position = position{Offset: f.Offset + zeros, HeadLen: head, HeadHash: f.HeadHash}
	})
}

// giveLines gives the lines of b, which begins with the bytes before the place that are hashed.
func (r *run) giveLines(s *source, f *file, b []byte) {
	for at := int(f.TailLen); at < len(b) && !r.stopped(); {
		j := s.joins
		r.split.reset()
		n, skip := r.split.split(b[at:], s.Format, &j, f.Skip)
		if n == 0 {
			return
		}
		at += n
		r.deliver(s)
		next := f.position
		next.Offset += uint64(n)
		next.Skip = skip
		next.setTail(b[:at])
		next.growHead(f.fd, r.probe[:])
		r.change(func() {
			f.position, s.joins = next, j
			r.stats.Bytes += uint64(n)
		})
	}
}

func (r *run) deliver(s *source) {
	if len(r.split.lines) > 0 {
		r.give(s.Key, r.split.lines)
	}
	r.count(func(t *Stats) {
		t.Lines += uint64(len(r.split.lines))
		t.Cut += r.split.cut
		t.Invalid += r.split.invalid
	})
}

// flush gives messages whose last part has not come.
func (r *run) flush(s *source) {
	j := s.joins
	r.split.reset()
	if r.split.flush(&j); len(r.split.lines) > 0 {
		r.deliver(s)
		r.change(func() { s.joins = j })
	}
}

// finish gives a last line that has no end, and closes the file for good.
func (r *run) finish(s *source, f *file, force bool) {
	if f.fd >= 0 {
		r.giveRest(s, f, force)
	}
	r.drop(s, f)
	r.change(func() { s.remember(f.id) })
}

func (r *run) giveRest(s *source, f *file, force bool) {
	if force {
		_, _, _ = r.readOn(s, f) // what cannot be read is counted below
	}
	tail := int(f.TailLen)
	n, err := readAt(f.fd, r.buf, f.Offset-uint64(tail))
	if err != nil || n <= tail || (tail > 0 && hash(r.buf[:tail]) != f.TailHash) {
		return
	}
	rest := r.buf[tail:n]
	if info, err := statAt(f.fd, "", 0); err == nil && n == len(r.buf) {
		r.count(func(t *Stats) { t.Lost.Abandoned += info.size - min(info.size, f.Offset) })
		return
	}
	j := s.joins
	r.split.reset()
	if !f.Skip {
		r.split.record(rest, s.Format, &j)
	}
	r.deliver(s)
	r.change(func() {
		f.Offset += uint64(len(rest))
		s.joins = j
		r.stats.Bytes += uint64(len(rest))
	})
}
