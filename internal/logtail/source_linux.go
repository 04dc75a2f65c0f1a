// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxRotated = 16 // files of a source that are read beside the one at its path
	maxDone    = 32 // files that are remembered to have been read
	// deletedFor is how long a deleted file is kept open that nobody has written to, while there is no other at its path.
	deletedFor = 10 * time.Minute
	// bornSlack is how much a file may be older than the clock says: the kernel stamps files by the tick.
	bornSlack = int64(20 * time.Millisecond)
)

// source is what is known of a Source. Run's goroutine owns it; what Checkpoint, Follow and Forget see is written under
// Follower.mu.
type source struct {
	Source            // Path and Root under mu
	leaving bool      // under mu
	joins   joins     // under mu, as the next four
	files   []*file   // oldest first
	cur     *file     // the one at the path when it was last seen there; in files
	done    []fileID  // read and closed, so as not to be taken for new
	seenAt  int64     // wall time when cur was last seen at the path, ns
	started bool      // had a file, in this life or before
	place   place     // copy of Path and Root for the poll
	due     time.Time // of the next poll
	idle    int       // polls without news
	fails   int       // polls in a row that failed
	logged  string    // the last failure that was logged
}

func (s *source) remember(id fileID) {
	if len(s.done) >= maxDone {
		s.done = slices.Delete(s.done, 0, 1)
	}
	s.done = append(s.done, id)
}

// known says whether the file is being read, or was.
func (s *source) known(id fileID) bool {
	return slices.ContainsFunc(s.files, func(f *file) bool { return f.fd >= 0 && f.id.same(id) }) ||
		slices.ContainsFunc(s.done, id.same)
}

// arrive is called when another file is at the path than before, or the first.
func (r *run) arrive(s *source) error {
	fd, info, err := s.place.open()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(s.files, func(f *file) bool { return f.id.same(info.id) }); i >= 0 {
		return r.comeBack(s, s.files[i], fd)
	}
	f := &file{id: info.id, fd: -1}
	old := s.cur
	var found []*file
	switch {
	case !s.started:
		if err := r.start(s, &f.position, fd, info); err != nil {
			unix.Close(fd)
			return err
		}
	case old != nil && r.replaces(fd, info, old):
		f.position = old.position
		r.drop(s, old)
	default:
		found = r.lookAround(s, old, info.id)
		r.dropClosed(s)
		r.count(func(t *Stats) { t.Rotations++ })
	}
	r.change(func() {
		s.files = append(append(s.files, found...), f)
		s.cur, s.started = f, true
	})
	r.opened(s, f, fd)
	return nil
}

// comeBack makes a file current that was renamed and is at the path again, or that was closed.
func (r *run) comeBack(s *source, f *file, fd int) error {
	if f.fd >= 0 {
		unix.Close(fd)
	} else {
		r.opened(s, f, fd)
	}
	r.change(func() {
		s.cur = f
		i := slices.Index(s.files, f)
		s.files = append(slices.Delete(s.files, i, i+1), f)
	})
	return nil
}

// start puts the place where the source is to begin.
func (r *run) start(s *source, p *position, fd int, info fileInfo) error {
	offset := info.size
	if s.Start.kind == startAt {
		if s.Start.offset == 0 || s.Start.offset > info.size {
			return nil
		}
		offset = s.Start.offset
	}
	return p.seek(fd, offset, r.buf[:r.options.MaxLine])
}

// replaces says whether a file that took the place of another goes on with what that held: written by an editor, or by an
// overlay file system that copied the file up when it was opened for writing.
func (r *run) replaces(fd int, info fileInfo, old *file) bool {
	if info.size < old.Offset || old.Offset < minCopy {
		return false
	}
	if info.id.Ino != old.id.Ino && old.fd >= 0 {
		if now, err := statAt(old.fd, "", 0); err != nil || now.links > 0 {
			return false // it was renamed, this is a new one
		}
	}
	ok, err := matches(fd, &old.position, r.buf)
	return ok && err == nil
}

// lookAround opens what rotation has made of the source's files since the path was last seen: those that are closed, found by
// their inode, copies of old, and files that came and went meanwhile. It returns those that are not in s.files.
func (r *run) lookAround(s *source, old *file, current fileID) []*file {
	var found []*file
	err := s.place.siblings(func(dir int, all []sibling) {
		slices.SortFunc(all, func(a, b sibling) int { return cmp.Compare(a.modified, b.modified) })
		for _, sib := range all {
			taken := slices.ContainsFunc(found, func(f *file) bool { return f.id.same(sib.id) }) // a hard link
			if taken || sib.id.same(current) || s.known(sib.id) {
				continue
			}
			i := slices.IndexFunc(s.files, func(f *file) bool { return f.fd < 0 && f.id.same(sib.id) })
			isNew := sib.rotated && sib.id.Born >= s.seenAt-bornSlack && s.seenAt > 0
			isCopy := sib.rotated && old != nil && old.Offset >= minCopy && sib.size >= uint64(old.HeadLen)
			if i < 0 && !isNew && !isCopy || len(found) >= maxRotated {
				continue
			}
			fd, info, err := openSibling(dir, sib)
			if err != nil {
				continue
			}
			if i >= 0 {
				r.reopen(s, s.files[i], fd)
				continue
			}
			f := &file{id: info.id, fd: -1}
			kind := other
			if isCopy {
				kind = r.compare(fd, info, old)
			}
			switch {
			case kind == readBefore:
				unix.Close(fd)
				r.change(func() { s.remember(info.id) })
			case kind == goesOn:
				f.position = old.position
				found = slices.Insert(found, 0, f)
				r.opened(s, f, fd)
			case isNew:
				found = append(found, f)
				r.opened(s, f, fd)
			default:
				unix.Close(fd)
			}
		}
	})
	if err != nil {
		r.failed(s, err)
	}
	return found
}

// likeness is what a file has of another one that was read.
type likeness int

const (
	other      likeness = iota
	goesOn              // all that was read, and maybe more
	readBefore          // nothing that was not read
)

// compare says whether a file is a copy of old. What has all that old had is read from old itself while that is open.
func (r *run) compare(fd int, info fileInfo, old *file) likeness {
	if info.size < old.Offset {
		// Copied before the last lines were read.
		if ok, err := matchesHead(fd, &old.position, r.buf); ok && err == nil && old.fd < 0 {
			return readBefore
		}
		return other
	}
	if ok, err := matches(fd, &old.position, r.buf); !ok || err != nil {
		return other
	}
	if old.fd >= 0 {
		return readBefore
	}
	return goesOn
}

// reopen takes a descriptor of a file that was closed, if it still holds what was read.
func (r *run) reopen(s *source, f *file, fd int) {
	if ok, err := matches(fd, &f.position, r.buf); !ok || err != nil {
		unix.Close(fd)
		return
	}
	r.opened(s, f, fd)
}

// dropClosed drops files that were not found again.
func (r *run) dropClosed(s *source) {
	for _, f := range slices.Clone(s.files) {
		if f.fd < 0 {
			if f.seen.size > f.Offset {
				r.count(func(t *Stats) { t.Lost.Deleted += f.seen.size - f.Offset })
			}
			r.drop(s, f)
		}
	}
}

// drop forgets a file of a source.
func (r *run) drop(s *source, f *file) {
	r.close(f)
	r.change(func() {
		s.files = slices.DeleteFunc(s.files, func(o *file) bool { return o == f })
		if s.cur == f {
			s.cur = nil
		}
	})
}

// truncated begins a file anew, after the rest of what was in it has been found in a copy, if there is one.
func (r *run) truncated(s *source, f *file) {
	old := &file{id: f.id, fd: -1, position: f.position, seen: f.seen}
	found := r.lookAround(s, old, f.id)
	if len(found) == 0 {
		r.flush(s)
	}
	r.change(func() {
		f.position = position{}
		if i := slices.Index(s.files, f); i >= 0 {
			s.files = slices.Insert(s.files, i, found...)
		}
	})
	f.read, f.skipZero = false, true
	r.count(func(t *Stats) {
		t.Truncations++
		if len(found) == 0 && old.seen.size > old.Offset {
			t.Lost.Truncated += old.seen.size - old.Offset
		}
	})
}
