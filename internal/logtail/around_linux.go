// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// lookAround opens what rotation has made of the source's files since the path was last seen: those that are closed, found by
// their inode, copies of old, and files that came and went meanwhile. It returns those that are not in s.files.
func (r *run) lookAround(s *source, old *file, current fileID) []*file {
	var found []*file
	err := s.place.siblings(func(dir int, all []sibling) {
		slices.SortFunc(all, func(a, b sibling) int {
			return cmp.Or(cmp.Compare(a.modified, b.modified), cmp.Compare(a.id.Born, b.id.Born))
		})
		since := s.newSince()
		olds := r.reopenKnown(s, old, current, dir, all)
		for _, sib := range all {
			taken := slices.ContainsFunc(found, func(f *file) bool { return f.id.same(sib.id) }) // a hard link
			if taken || sib.id.same(current) || s.known(sib.id) {
				continue
			}
			isNew := sib.rotated && sib.id.Born >= since && s.seenAt > 0
			isCopy := sib.rotated && slices.ContainsFunc(olds, func(o *file) bool { return o.HeadLen >= minCopy && sib.size >= uint64(o.HeadLen) })
			if !isNew && !isCopy || len(found) >= maxRotated || s.isClosed(sib.id) >= 0 || r.isOthers(s, sib.id) {
				continue
			}
			fd, info, err := openSibling(dir, sib)
			if err != nil {
				continue
			}
			f := &file{id: info.id, fd: -1, lookedAt: time.Now().UnixNano()}
			kind, was := other, (*file)(nil)
			for i := 0; i < len(olds) && isCopy && kind == other; i++ {
				was = olds[i]
				kind = r.compare(fd, info, was)
			}
			switch {
			case kind == readBefore:
				unix.Close(fd)
				r.change(func() { s.remember(info.id) })
			case kind == readLater:
				unix.Close(fd)
			case kind == goesOn:
				f.position, f.goesOn = was.position, true
				found = slices.Insert(found, 0, f)
				r.opened(s, f, fd)
			case isNew:
				f.know(fd, r.buf)
				found = append(found, f)
				r.opened(s, f, fd)
			default:
				unix.Close(fd)
			}
		}
	})
	if err != nil && !isGone(err) { // with its directory, as when a container is removed
		r.failed(s, err)
	}
	return found
}

// newSince is when a rotated file is born at the earliest that nobody can have seen.
func (s *source) newSince() int64 {
	t := s.lookedAt()
	for _, f := range s.files {
		switch {
		case !f.isEmpty():
		case f.EmptyAt != 0:
			t = min(t, f.EmptyAt)
		case f.id.Born != 0:
			t = min(t, f.id.Born)
		}
	}
	return max(t-bornSlack, s.oldDone+1)
}

// isClosed returns which file of s that is not open one is, or -1.
func (s *source) isClosed(id fileID) int {
	return slices.IndexFunc(s.files, func(f *file) bool { return f.fd < 0 && f.id.same(id) })
}

// reopenKnown opens the siblings that are closed files of s. It returns those of which there may be copies, as they were read: old,
// open if that is what it still has, and those that were truncated since.
func (r *run) reopenKnown(s *source, old *file, current fileID, dir int, all []sibling) (olds []*file) {
	if old != nil {
		copied := *old
		olds = append(olds, &copied)
	}
	for _, sib := range all {
		i := s.isClosed(sib.id)
		if i < 0 || sib.id.same(current) {
			continue
		}
		fd, _, err := openSibling(dir, sib)
		if err != nil {
			continue
		}
		f := s.files[i]
		before := *f
		if r.reopen(s, f, fd, sib); f != old && f.position != before.position {
			olds = append(olds, &before)
		}
	}
	if old != nil {
		olds[0].fd = -1
		if old.position == olds[0].position {
			olds[0].fd = old.fd
		}
	}
	return olds
}

// likeness is what a file has of another one that was read.
type likeness int

const (
	other      likeness = iota
	goesOn              // all that was read, and maybe more
	readBefore          // nothing that was not read, or will be from the other one
	readLater           // what the other one has lost, which is about to be found out
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
		if ok, err := matches(old.fd, &old.position, r.buf); !ok || err != nil {
			return readLater
		}
		return readBefore
	}
	return goesOn
}

// dropCopy drops a file that nobody has read if it is a copy of the one at the path, or about to be, which is not truncated yet.
// It is younger then, which no file is that was at the path before.
func (r *run) dropCopy(s *source, f *file, fd int, current fileID) bool {
	if f.Offset > 0 || current.Born == 0 || f.id.Born < current.Born {
		return false
	}
	copied, err := readAt(f.fd, r.buf[:maxHead], 0)
	here, err2 := readAt(fd, r.probe[:], 0)
	if err != nil || err2 != nil || copied > here || !bytes.Equal(r.buf[:copied], r.probe[:copied]) {
		return false
	}
	r.drop(s, f)
	return true
}

// reopen takes a descriptor of a file that was closed. What it holds is new if it was truncated meanwhile, before it was renamed.
func (r *run) reopen(s *source, f *file, fd int, sib sibling) {
	ok, err := matches(fd, &f.position, r.buf)
	switch {
	case err == nil && ok:
	case err == nil && sib.rotated && sib.id.Born != 0:
		at := time.Now().UnixNano()
		seen, p := r.firstLook(fd, f.seen)
		r.beginAnew(f, seen, p, at)
		f.read, f.skipZero = false, true
		r.count(func(t *Stats) { t.Truncations++ })
	default:
		unix.Close(fd)
		return
	}
	r.opened(s, f, fd)
}
