// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// readFile gives what is new in a file. known is what the path tells of it, or nil to ask the file. again says that it has
// more, grew that it was written to since.
func (r *run) readFile(s *source, f *file, known *fileInfo, at time.Time) (again, grew bool, err error) {
	if f.fd < 0 {
		if known == nil {
			return false, false, nil
		}
		if f.seen.id == known.id && !f.changed(*known) {
			r.looked(f, at.UnixNano())
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
	if info.size == 0 && f.isEmpty() {
		if f == s.cur && f.changed(info) && r.filled(s, f, info) { // and truncated since
			return true, true, nil
		}
		r.change(func() { f.EmptyAt = at.UnixNano() })
	}
	if f.seen.id == info.id && !f.changed(info) {
		f.seen.links = info.links
		r.looked(f, at.UnixNano())
		return false, false, nil
	}
	if info.size != f.seen.size || info.modified != f.seen.modified {
		f.grew, grew = at, true
		r.open.MoveToFront(f.open)
	}
	if f == s.cur && f.isEmpty() && info.size > 0 {
		if r.filled(s, f, info) {
			return true, true, nil // what was found is read before
		}
	}
	whole := info.size >= f.Offset && (f.Offset > 0 || info.size >= f.seen.size)
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
	r.looked(f, f.checked)
	if known != nil && !again {
		// An overlay file system gives another file to those who open it after the first writer.
		if now, err := statAt(f.fd, "", 0); err == nil && now.size < info.size && now.links > 0 {
			r.close(f)
			f.read = false
		}
	}
	return again, grew, nil
}

// filled is called when a file has something that was empty. That may not be the first that it has had since: what it was copied
// to then is found, and true returned if there is such a copy.
func (r *run) filled(s *source, f *file, info fileInfo) bool {
	at := time.Now().UnixNano()
	seen, p := r.firstLook(f.fd, info)
	found := slices.DeleteFunc(r.lookAround(s, nil, f.id), func(g *file) bool { return r.dropCopy(s, g, f.fd, f.id) })
	r.beginAnew(f, seen, p, at)
	r.change(func() {
		if i := slices.Index(s.files, f); i >= 0 {
			s.files = slices.Insert(s.files, i, found...)
		}
	})
	return len(found) > 0
}

// firstLook tells what a file has that is to be read from its beginning. That is asked before what rotation has made of the
// file is looked for, and noted after: of what is copied and truncated in between, either the copy is found then, or these bytes
// are not found again.
func (r *run) firstLook(fd int, seen fileInfo) (fileInfo, position) {
	var p position
	for range 3 {
		if info, err := statAt(fd, "", 0); err == nil {
			seen = info
		}
		p = position{}
		p.know(fd, r.buf)
		if now, err := statAt(fd, "", 0); err != nil || now.size >= seen.size {
			break // else it was truncated meanwhile, and these may be bytes of before or after
		}
	}
	return seen, p
}

// beginAnew has a file read from its beginning, as it was at that time.
func (r *run) beginAnew(f *file, seen fileInfo, p position, at int64) {
	f.seen = seen
	r.change(func() {
		r.changes++
		f.position, f.lookedAt = p, at
	})
}

func (r *run) looked(f *file, at int64) { r.change(func() { f.lookedAt = at }) }

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
		if r.options.Pace != nil {
			r.options.Pace(r.ctx)
		}
		tail := int(f.TailLen)
		n, err := readAt(f.fd, r.buf, f.Offset-uint64(tail))
		if err != nil {
			return false, true, err
		}
		if n < tail || (tail > 0 && hash(r.buf[:tail]) != f.TailHash) {
			return false, false, nil
		}
		if head := int(f.HeadLen); f.Offset == 0 && head > 0 && (n < head || hash(r.buf[:head]) != f.HeadHash) {
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
		next := f.behind(n, b[:at], r.probe[:]) // before the lines are on their way: a disk may hang
		next.Skip = skip
		r.deliver(s, func() {
			f.position, s.joins = next, j
			r.stats.Bytes += uint64(n)
		})
	}
}

// deliver gives the lines of the splitter, and notes what place they are behind.
func (r *run) deliver(s *source, note func()) {
	r.gate.RLock()
	defer r.gate.RUnlock()
	if len(r.split.lines) > 0 {
		r.give(s.Key, r.split.lines)
	}
	r.change(func() {
		r.changes++
		note()
		r.stats.Lines += uint64(len(r.split.lines))
		r.stats.Cut += r.split.cut
		r.stats.Invalid += r.split.invalid
	})
}

// flush gives messages whose last part has not come.
func (r *run) flush(s *source) {
	j := s.joins
	r.split.reset()
	if r.split.flush(&j); len(r.split.lines) > 0 {
		r.deliver(s, func() { s.joins = j })
	}
}

// finish gives what is left of a file, up to about most bytes, and a last line that has no end, and closes the file for good. It
// goes on with the file when Run ends meanwhile.
func (r *run) finish(s *source, f *file, most uint64) {
	var left uint64
	if f.fd >= 0 {
		left = r.giveRest(s, f, most)
	}
	if r.stopped() {
		return
	}
	r.drop(s, f)
	r.change(func() {
		s.remember(f.id)
		r.leftAt(f)
		r.stats.Lost.Abandoned += left
	})
}

// giveRest gives what the file has now, up to about most bytes, and then what one more read brings. It returns how many bytes it has
// left.
func (r *run) giveRest(s *source, f *file, most uint64) (left uint64) {
	info, err := statAt(f.fd, "", 0)
	if err != nil {
		return 0
	}
	begun := info.size < f.Offset
	if begun {
		r.truncated(s, f)
	}
	end := min(info.size, f.Offset+most)
	for again := true; again && f.Offset < end && !r.stopped(); {
		var whole bool
		if again, whole, err = r.readOn(s, f); err != nil {
			break
		}
		if !whole && !begun {
			r.truncated(s, f)
			again, begun = true, true
		}
	}
	if r.stopped() {
		return 0
	}
	tail, from := int(f.TailLen), f.Offset
	n, err := readAt(f.fd, r.buf, from-uint64(tail))
	if err != nil || n <= tail || (tail > 0 && hash(r.buf[:tail]) != f.TailHash) {
		return 0
	}
	r.giveLines(s, f, r.buf[:n])
	if r.stopped() {
		return 0
	}
	if info, err := statAt(f.fd, "", 0); err == nil && n == len(r.buf) {
		return info.size - min(info.size, f.Offset)
	}
	rest := r.buf[tail+int(f.Offset-from) : n] //nolint:gosec // bounded
	if len(rest) == 0 {
		return 0
	}
	j := s.joins
	r.split.reset()
	if !f.Skip {
		r.split.record(rest, s.Format, &j)
	}
	next := f.behind(len(rest), r.buf[:n], r.probe[:])
	next.Skip = f.Skip
	r.deliver(s, func() {
		f.position, s.joins = next, j
		r.stats.Bytes += uint64(len(rest))
	})
	return 0
}
