// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxHead = 1024 // first bytes of a file that are hashed
	maxTail = 256  // bytes before the place that are hashed, and read again with each read
	// minCopy is how much must agree before a file is taken for a copy of another.
	minCopy = 16
	// tick is how old a change is at least in whose tick of the kernel's clock there can be no other: that would leave the time
	// as it is, so what is younger is looked at twice. In ns.
	tick = int64(50 * time.Millisecond)
)

// position is what is known of a file that was read up to a place. It changes when lines were given, never before.
type position struct {
	Offset   uint64 `json:"offset"` // of the first record that was not given
	Skip     bool   `json:"skip,omitempty"`
	HeadLen  uint32 `json:"head_len,omitempty"`
	HeadHash uint64 `json:"head,omitempty"`
	TailLen  uint32 `json:"tail_len,omitempty"`
	TailHash uint64 `json:"tail,omitempty"`
	EmptyAt  int64  `json:"empty_at,omitempty"` // when it was last seen to be empty, ns since 1970, if it was
}

// isEmpty says whether the file had nothing when it was last looked at.
func (p *position) isEmpty() bool { return p.Offset == 0 && p.HeadLen == 0 }

// valid says whether the lengths can be true: the place is behind the last bytes that are hashed.
func (p *position) valid() bool {
	return p.HeadLen <= maxHead && p.TailLen <= maxTail && p.Offset <= 1<<62 && uint64(p.TailLen) <= p.Offset
}

// file is a file of a source. Run's goroutine owns it; position is written under Follower.mu.
type file struct {
	id fileID
	position
	fd   int           // -1 while it is closed
	open *list.Element // in Follower.open, while it is not

	seen     fileInfo  // when it was last looked at
	checked  int64     // wall time of that
	lookedAt int64     // wall time when it was last known to be as it was seen, ns; under Follower.mu
	read     bool      // all that seen tells of was read, but for an unfinished record
	grew     time.Time // when it last changed
	goesOn   bool      // is a copy of one that was truncated
	wanted   bool      // another source was refused it; under Follower.mu
	skipZero bool      // was truncated under a writer that goes on at its old place: what it left out reads as zeros
}

// hash is FNV-1a: it must stay the same over releases, since checkpoints carry it.
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// readAt fills b as far as the file goes.
func readAt(fd int, b []byte, offset uint64) (int, error) {
	n := 0
	for n < len(b) {
		m, err := unix.Pread(fd, b[n:], int64(offset)+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("read: %w", err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

// changed says whether the file may hold anything that was not read, or not hold what was.
func (f *file) changed(now fileInfo) bool {
	return !f.read || now.size != f.seen.size || now.modified != f.seen.modified || f.checked-f.seen.modified < tick
}

// matchesHead says whether the first bytes are those that were there.
func matchesHead(fd int, p *position, buf []byte) (bool, error) {
	if p.HeadLen == 0 {
		return true, nil
	}
	n, err := readAt(fd, buf[:p.HeadLen], 0)
	return n == int(p.HeadLen) && hash(buf[:n]) == p.HeadHash, err
}

// matches says whether the file is the one that was read up to p, or a copy of it.
func matches(fd int, p *position, buf []byte) (bool, error) {
	ok, err := matchesHead(fd, p, buf)
	if !ok || err != nil {
		return false, err
	}
	n, err := readAt(fd, buf[:p.TailLen], p.Offset-uint64(p.TailLen))
	return n == int(p.TailLen) && (n == 0 || hash(buf[:n]) == p.TailHash), err
}

// growHead hashes first bytes that were given since. before ends at the place. What is not as it was read is not hashed: the file
// may be written anew at any time.
func (p *position) growHead(fd int, before, buf []byte) {
	want := min(p.Offset, maxHead)
	if uint64(p.HeadLen) >= want {
		return
	}
	n, err := readAt(fd, buf[:want], 0)
	if err != nil || uint64(n) < want || hash(buf[:p.HeadLen]) != p.HeadHash && p.HeadLen > 0 {
		return
	}
	from := p.Offset - uint64(len(before)) // of before
	if from < want && !bytes.HasPrefix(before, buf[from:want]) {
		return
	}
	p.HeadLen, p.HeadHash = uint32(n), hash(buf[:n]) //nolint:gosec // bounded
}

// behind returns the place that is n bytes on, where before ends.
func (f *file) behind(n int, before, buf []byte) position {
	next := f.position
	next.Offset += uint64(n)
	next.EmptyAt = 0
	next.setTail(before)
	next.growHead(f.fd, before, buf)
	return next
}

// know hashes the first bytes of a file that is to be read from its beginning: it may be truncated before it is.
func (p *position) know(fd int, buf []byte) {
	if p.Offset > 0 {
		return
	}
	now := time.Now()
	if n, err := readAt(fd, buf[:maxHead], 0); err == nil {
		p.HeadLen, p.HeadHash = uint32(n), hash(buf[:n]) //nolint:gosec // bounded
		if n == 0 {
			p.EmptyAt = now.UnixNano()
		}
	}
}

// setTail takes the last bytes of before, which ends at the place.
func (p *position) setTail(before []byte) {
	if len(before) > maxTail {
		before = before[len(before)-maxTail:]
	}
	p.TailLen, p.TailHash = uint32(len(before)), hash(before)
}

// seek puts the place where the line that holds offset begins, if that is less than the length of buf before it.
func (p *position) seek(fd int, offset uint64, buf []byte) error {
	from := offset - min(offset, uint64(len(buf)))
	n, err := readAt(fd, buf[:offset-from], from)
	if err != nil {
		return err
	}
	end := n
	if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 || from == 0 {
		end = i + 1
	}
	*p = position{Offset: from + uint64(end)}
	p.setTail(buf[:end])
	p.growHead(fd, nil, buf)
	return nil
}

// seekFrame is seek for DockerLocal: all frames before are looked at. Where one is wrong the next one is looked for from offset on.
func (p *position) seekFrame(fd int, offset uint64, buf []byte, most int) error {
	at, end := uint64(0), 0 // of buf in the file; of the frames in buf that are before the place
	n, err := readAt(fd, buf, at)
	for err == nil {
		b, state := cutFrame(buf[end:n], most)
		next := end + len(b) + frame
		switch {
		case state == frameWhole && at+uint64(next) <= offset:
			end = next
			continue
		case state == frameTorn && n == len(buf) && end > maxTail:
			at, end = at+uint64(end-maxTail), maxTail
			n, err = readAt(fd, buf, at)
			continue
		case state == frameWrong && at+uint64(end) < offset:
			*p = position{Offset: offset, Skip: true}
		default:
			*p = position{Offset: at + uint64(end)}
			p.setTail(buf[:end])
		}
		p.growHead(fd, nil, buf)
		return nil
	}
	return err
}

// skipHole returns how many zeros the bytes at the place begin with, without reading a hole.
func skipHole(fd int, p *position, data []byte) (zeros uint64, all bool) {
	rest := bytes.TrimLeft(data, "\x00")
	if len(rest) > 0 {
		return uint64(len(data) - len(rest)), false
	}
	end := p.Offset + uint64(len(data))
	if at, err := unix.Seek(fd, int64(end), unix.SEEK_DATA); err == nil && uint64(at) > end {
		end = uint64(at)
	}
	return end - p.Offset, true
}
