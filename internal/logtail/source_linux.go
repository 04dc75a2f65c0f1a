// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxRotated = 256 // files of a source that are read beside the one at its path
	maxDone    = 512 // files that are remembered to have been read
	// knownFor is how long files of a checkpoint are left to those who had them. Then others go on with them.
	knownFor = 10 * time.Second
	maxLeft  = 4096 // files of which it is known up to where a source has read them that has let go of them
	// deletedFor is how long a deleted file is kept open that nobody writes to, while there is no other at its path; less if
	// Options.GoneAfter is.
	deletedFor = 10 * time.Minute
	// bornSlack is how much a file may be older than the clock says: the kernel stamps files by the tick.
	bornSlack = int64(20 * time.Millisecond)
)

// source is what is known of a Source. Run's goroutine owns it; what Checkpoint, Follow and Forget see is written under
// Follower.mu.
type source struct {
	Source            // Path and Root under mu, Key under that and the gate
	leaving bool      // under mu
	joins   joins     // under mu, as the next four
	files   []*file   // oldest first
	cur     *file     // the one at the path when it was last seen there; in files
	done    []fileID  // read and closed, so as not to be taken for new
	oldDone int64     // when the youngest was born of those that were read and are remembered no more, ns
	seenAt  int64     // wall time when cur was last seen at the path, ns
	started bool      // had a file, in this life or before
	here    bool      // there was a file at the path in the last look
	goneAt  time.Time // since when there is none, or was told to be none
	stirred int64     // when the directory was last changed by then, ns
	stirAt  time.Time // when that is asked again at the earliest
	told    bool      // was asked for again: there may have been a file at the path; under mu
	lane    *lane
	shared  bool      // the file at the path is another source's
	place   place     // copy of Path and Root for the poll
	due     time.Time // of the next poll
	idle    int       // polls without news
	fails   int       // polls in a row that failed
	logged  string    // the last failure that was logged
}

func (s *source) remember(id fileID) {
	s.done = append(s.done, id)
	if len(s.done) > maxDone {
		oldest := 0
		for i := range s.done {
			if s.done[i].Born < s.done[oldest].Born {
				oldest = i
			}
		}
		s.oldDone = max(s.oldDone, s.done[oldest].Born)
		s.done = slices.Delete(s.done, oldest, oldest+1)
	}
}

// lookedAt is when the path and all files had been looked at. Since then a file may have been copied and truncated, filled and copied
// again: others may have kept the reader from looking at it whenever the path was looked at.
func (s *source) lookedAt() int64 {
	t := s.seenAt
	for _, f := range s.files {
		if f.lookedAt != 0 {
			t = min(t, f.lookedAt)
		}
	}
	return t
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
	if r.isHeld(s, info.id) {
		unix.Close(fd)
		return errHeld
	}
	f := &file{id: info.id, fd: -1, lookedAt: time.Now().UnixNano()}
	f.seen, f.position = r.firstLook(fd, info)
	old := s.cur
	var found []*file
	switch {
	case !s.started:
		if found, err = r.start(s, f, fd, info); err != nil {
			unix.Close(fd)
			return err
		}
	case old != nil && r.replaces(fd, info, old):
		f.position = old.position
		r.drop(s, old)
	default:
		found = slices.DeleteFunc(r.lookAround(s, old, info.id), func(g *file) bool { return r.dropCopy(s, g, fd, info.id) })
		r.dropClosed(s)
		r.count(func(t *Stats) { t.Rotations++ })
	}
	r.change(func() {
		r.changes++
		s.files = append(append(s.files, found...), f)
		s.cur, s.started, s.shared = f, true, false
	})
	r.opened(s, f, fd)
	return nil
}

// errHeld tells that the file is being read for another source: a hard link, a volume of several containers, or one that was
// renamed and is found by its new name.
var errHeld = errors.New("another source has the file")

func (a fileID) inode() inode { return inode{a.Dev, a.Ino} }

// isHeld tells whether another source has a file, and counts that once.
func (r *run) isHeld(s *source, id fileID) (held bool) {
	r.change(func() {
		other := r.holder(s, id)
		held = other != nil
		if !held && !s.started {
			held = r.known[id.inode()].id.same(id) && time.Since(r.restored) < knownFor
		} else if held {
			for _, f := range other.files {
				f.wanted = f.wanted || f.id.same(id)
			}
		}
		if held && !s.shared {
			r.stats.Shared++
		}
		s.shared = held
	})
	return held
}

// isOthers tells whether another source has a file now.
func (r *run) isOthers(s *source, id fileID) (held bool) {
	r.change(func() { held = r.holder(s, id) != nil })
	return held
}

// holder returns the other source that has a file, or nil. mu is held.
func (w *Follower) holder(s *source, id fileID) *source {
	if other := w.held[id.inode()]; other != nil && other != s && w.sources[other.Key] == other && other.has(id) {
		return other
	}
	return nil
}

// has tells whether s reads a file. mu is held.
func (s *source) has(id fileID) bool {
	return slices.ContainsFunc(s.files, func(f *file) bool { return f.id.inode() == id.inode() && f.id.same(id) })
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

// start puts the place where the source is to begin, and finds what is to be read before.
func (r *run) start(s *source, f *file, fd int, info fileInfo) (found []*file, err error) {
	if r.startBehind(f, fd, info) {
		return nil, nil
	}
	offset := info.size
	if s.Start.kind == startAt {
		if s.Start.since != 0 {
			r.change(func() { s.seenAt = s.Start.since })
			return slices.DeleteFunc(r.lookAround(s, nil, info.id), func(g *file) bool { return r.dropCopy(s, g, fd, info.id) }), nil
		}
		if s.Start.offset == 0 || s.Start.offset > info.size {
			return nil, nil
		}
		offset = s.Start.offset
	}
	if s.Format == DockerLocal {
		return nil, f.seekFrame(fd, offset, r.buf, maxRecord(DockerLocal, r.options.MaxLine))
	}
	return nil, f.seek(fd, offset, r.buf[:r.options.MaxLine])
}

// startBehind puts the place where another source has left a file that it had, and tells whether there is such a place.
func (r *run) startBehind(f *file, fd int, info fileInfo) bool {
	var left leftFile
	r.change(func() {
		var ok bool
		if left, ok = r.left[info.id.inode()]; !ok {
			left = r.known[info.id.inode()]
		}
		delete(r.left, info.id.inode())
	})
	if !left.id.same(info.id) || info.size < left.Offset {
		return false
	}
	if ok, err := matches(fd, &left.position, r.buf); !ok || err != nil {
		return false
	}
	f.position = left.position
	return true
}

// leftAt notes where a file was left that another source was refused. mu is held.
func (w *Follower) leftAt(f *file) {
	if _, saved := w.known[f.id.inode()]; !saved && !f.wanted {
		return
	}
	if len(w.left) >= maxLeft {
		clear(w.left)
	}
	w.left[f.id.inode()] = leftFile{f.id, f.position}
}

// leftFile is one that is read no more, and up to where it was.
type leftFile struct {
	id fileID
	position
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
		r.changes++
		s.files = slices.DeleteFunc(s.files, func(o *file) bool { return o == f })
		if r.held[f.id.inode()] == s {
			delete(r.held, f.id.inode())
		}
		if s.cur == f {
			s.cur = nil
		}
	})
}

// truncated begins a file anew, after the rest of what was in it has been found in a copy, if there is one.
func (r *run) truncated(s *source, f *file) {
	old := &file{id: f.id, fd: -1, position: f.position, seen: f.seen}
	at := time.Now().UnixNano()
	seen, p := r.firstLook(f.fd, f.seen)
	found := r.lookAround(s, old, f.id)
	found = slices.DeleteFunc(found, func(g *file) bool { return r.dropCopy(s, g, f.fd, f.id) })
	if len(found) == 0 {
		r.flush(s)
	}
	r.beginAnew(f, seen, p, at)
	r.change(func() {
		if i := slices.Index(s.files, f); i >= 0 {
			s.files = slices.Insert(s.files, i, found...)
		}
	})
	f.read, f.skipZero = false, true
	copied := len(found) > 0 || slices.ContainsFunc(s.files, func(g *file) bool { // was found as a new file
		if g == f || g.fd < 0 || old.HeadLen < minCopy {
			return false
		}
		ok, err := matchesHead(g.fd, &old.position, r.buf)
		return ok && err == nil
	})
	r.count(func(t *Stats) {
		t.Truncations++
		if !copied && old.seen.size > old.Offset {
			t.Lost.Truncated += old.seen.size - old.Offset
		}
	})
}
