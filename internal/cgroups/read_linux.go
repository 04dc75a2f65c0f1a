// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What a slot holds that holds no descriptor.
const (
	slotClosed int32 = -1
	slotAbsent int32 = -2 // the file or directory did not exist at the last look
	slotGone   int32 = -3 // the directory was removed
)

// retryEvery is how many reads a file that did not exist is left alone at most. Controllers can be enabled at any time.
const retryEvery = 16

// Cgroup reads the totals of one cgroup. It keeps the files open, since a read then costs a quarter, and belongs to one
// goroutine at a time.
//
// It stays with the directories that it has found: a cgroup that is made at the same path later is another one.
type Cgroup struct {
	fs     *FS
	path   string
	dirs   []int32  // descriptor of the directory in each hierarchy of fs.dirs, or one of the above
	inodes []uint64 // of the directories that it has found, 0 for none
	slots  []int32  // descriptor of each file, or one of the above
	id     ID       // to be checked by the next Read; its Inode is 0 when there is nothing to check
	reads  uint
	phase  uint // spreads the second looks of all Cgroups

	suspect  uint // set of dirs in which a file has vanished during this Read
	borrowed uint // set of dirs that are open for this Read alone

	// inhabited is true once the v2 cgroup was seen with processes. It is used on hybrid hosts only.
	inhabited bool
}

// buffer is what one Read needs for its duration.
type buffer struct {
	reading
	b []byte
}

// newBuffer makes room for memory.stat, the longest file on most hosts. Read makes it larger where needed.
func newBuffer() *buffer { return &buffer{b: make([]byte, 8<<10)} }

// fileState is the outcome of one file.
type fileState uint8

const (
	fileRead fileState = iota
	fileAbsent
	fileBad // there, but of no use
)

// Read fills s anew with the totals of the cgroup, and of what is below it; the room of s.Devices is used again.
//
// A file that cannot be read or understood leaves its values absent and is part of the error; all others are filled.
// The error is fs.ErrNotExist when no hierarchy has the cgroup, and when one that had it has no more: s then holds what
// the others still tell.
//
// On hybrid hosts the v1 controller counts wherever the cgroup is in it, even where v2 has a cgroup of the same path.
// Values of v2 are then taken only once that cgroup has been seen with processes, so that an empty mirror does not tell
// zeros; from then on they are given until the cgroup goes.
func (c *Cgroup) Read(s *Stats) error {
	if !c.isRight() {
		*s = Stats{Devices: s.Devices[:0]}
		return fmt.Errorf("cgroup %s: replaced by another: %w", c.path, fs.ErrNotExist)
	}
	buf, _ := c.fs.buffers.Get().(*buffer)
	*s = Stats{Devices: s.Devices[:0]}
	buf.reading = reading{s: s, tick: c.fs.tick}
	c.reads++

	var errs []error
	alive := false
	useUnified := true
	if c.fs.v2 && c.fs.mode == ModeHybrid {
		var err error
		if alive, err = c.lookAtUnified(buf); err != nil {
			errs = append(errs, err)
		}
		useUnified = c.inhabited || c.path == "/"
	}
	for _, g := range c.fs.plan {
		for i := range g {
			if c.fs.v2 && g[i].dir == 0 && !useUnified {
				continue
			}
			found, err := c.readSource(&g[i], buf)
			if err != nil {
				errs = append(errs, err)
			}
			if found {
				alive = true
				break
			}
		}
	}
	buf.finish()
	buf.s = nil
	c.fs.buffers.Put(buf)
	gone := c.findGone()
	c.giveBack()
	if gone || !alive && len(errs) == 0 {
		return fmt.Errorf("cgroup %s: %w", c.path, fs.ErrNotExist)
	}
	return errors.Join(errs...)
}

// isRight checks once that the path is still that of c.id.
func (c *Cgroup) isRight() bool {
	if c.id.Inode == 0 {
		return true
	}
	for _, w := range c.fs.walks {
		var st unix.Stat_t
		if w.hierarchy == c.id.Hierarchy && (unix.Stat(w.dir+c.path, &st) != nil || st.Ino != c.id.Inode) {
			return false
		}
	}
	c.id = ID{}
	return true
}

// Close lets go of the files. No Read may follow it.
func (c *Cgroup) Close() error {
	for i := range c.slots {
		c.drop(&c.slots[i])
	}
	for i := range c.dirs {
		c.drop(&c.dirs[i])
	}
	return nil
}

// findGone looks at the directories in which a file has vanished and tells whether any was removed, now or before.
func (c *Cgroup) findGone() bool {
	gone := false
	for dir, fd := range c.dirs {
		if fd >= 0 && c.suspect&(1<<dir) != 0 && unix.Faccessat(int(fd), "cgroup.procs", unix.F_OK, 0) != nil {
			c.dropDir(dir)
			c.dirs[dir] = slotGone
		}
		gone = gone || c.dirs[dir] == slotGone
	}
	c.suspect = 0
	return gone
}

// lookAtUnified tells whether the cgroup exists in v2 beside v1, and sets inhabited.
func (c *Cgroup) lookAtUnified(buf *buffer) (exists bool, err error) {
	state, err := c.readFile(0, 0, &eventsFile, buf)
	c.inhabited = state == fileRead && (c.inhabited || buf.populated)
	return state == fileRead || state == fileBad, err
}

// readSource reads the files of a source and tells whether there is any.
func (c *Cgroup) readSource(src *plannedSource, buf *buffer) (found bool, err error) {
	before := fileRead
	var errs []error
	for i := range src.files {
		f := &src.files[i]
		if f.second && before != fileAbsent || f.unless != nil && f.unless(&buf.reading) {
			continue
		}
		state, err := c.readFile(src.slot+i, src.dir, f, buf)
		if err != nil {
			errs = append(errs, err)
		}
		found = found || state == fileRead || state == fileBad
		before = state
	}
	return found, errors.Join(errs...)
}

// looksAgain tells whether this Read tries files that did not exist: often at first, since runtimes take a while to set
// up a container, later every retryEvery reads.
func (c *Cgroup) looksAgain() bool {
	return c.reads < retryEvery && c.reads&(c.reads-1) == 0 || (c.reads+c.phase)%retryEvery == 0
}

// readFile reads and parses one file.
func (c *Cgroup) readFile(slot, dir int, f *file, buf *buffer) (fileState, error) {
	fd, kept := c.slots[slot], true
	if fd == slotAbsent && !c.looksAgain() {
		return fileAbsent, nil
	}
	if fd < 0 {
		var err error
		if fd, kept, err = c.openFile(slot, dir, f.name); err != nil {
			return c.failed(slot, dir, f, err)
		}
	}
	n, err := buf.fill(int(fd))
	if !kept {
		closeFD(int(fd))
	}
	if err != nil {
		return c.failed(slot, dir, f, err)
	}
	if err := f.parse(&buf.reading, buf.b[:n]); err != nil {
		return fileBad, c.wrap(dir, f, err)
	}
	return fileRead, nil
}

// openFile opens a file and keeps its descriptor unless too many are kept.
func (c *Cgroup) openFile(slot, dir int, name string) (fd int32, kept bool, err error) {
	at, err := c.openDir(dir)
	if err != nil {
		return 0, false, err
	}
	n, err := retryInterrupted(func() (int, error) {
		return unix.Openat(int(at), name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return 0, false, err
	}
	return int32(n), c.keep(&c.slots[slot], n), nil
}

// openDir returns the descriptor of the cgroup's directory. It is open for this Read alone if too many are kept.
func (c *Cgroup) openDir(dir int) (int32, error) {
	switch fd := c.dirs[dir]; {
	case fd >= 0:
		return fd, nil
	case fd == slotGone, fd == slotAbsent && !c.looksAgain():
		return 0, unix.ENOENT
	}
	n, err := retryInterrupted(func() (int, error) {
		return unix.Open(c.fs.dirs[dir]+c.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		c.dirs[dir] = slotAbsent
		if c.inodes[dir] != 0 {
			c.dirs[dir] = slotGone
		}
		return 0, err
	}
	if !c.isTheSame(dir, n) {
		closeFD(n)
		c.dirs[dir] = slotGone
		return 0, unix.ENOENT
	}
	if !c.keep(&c.dirs[dir], n) {
		c.dirs[dir] = int32(n)
		c.borrowed |= 1 << dir
	}
	return int32(n), nil
}

// isTheSame tells that an open directory is the one that was found there first.
func (c *Cgroup) isTheSame(dir, fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || c.inodes[dir] != 0 && c.inodes[dir] != st.Ino {
		return false
	}
	c.inodes[dir] = st.Ino
	return true
}

// giveBack closes the directories that were open for one Read.
func (c *Cgroup) giveBack() {
	for dir := range c.dirs {
		if c.borrowed&(1<<dir) != 0 && c.dirs[dir] >= 0 {
			closeFD(int(c.dirs[dir]))
			c.dirs[dir] = slotClosed
		}
	}
	c.borrowed = 0
}

// keep puts a descriptor in a slot unless too many are kept.
func (c *Cgroup) keep(slot *int32, fd int) bool {
	if c.fs.open.Add(1) > c.fs.maxOpen {
		c.fs.open.Add(-1)
		*slot = slotClosed
		return false
	}
	*slot = int32(fd)
	return true
}

// failed tells what an error of opening or reading means and leaves the slot accordingly.
func (c *Cgroup) failed(slot, dir int, f *file, err error) (fileState, error) {
	c.drop(&c.slots[slot])
	switch {
	case errors.Is(err, unix.ENODEV): // removed with its cgroup, or hidden by cgroup.pressure
		c.suspect |= 1 << dir
		fallthrough
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EOPNOTSUPP):
		c.slots[slot] = slotAbsent // pressure files of a kernel that has it switched off give EOPNOTSUPP
		return fileAbsent, nil
	}
	return fileBad, c.wrap(dir, f, err)
}

func (c *Cgroup) wrap(dir int, f *file, err error) error {
	return fmt.Errorf("%s: %w", filepath.Join(c.fs.dirs[dir], c.path, f.name), err)
}

// drop closes the descriptor of a slot, if it holds one.
func (c *Cgroup) drop(slot *int32) {
	if fd := *slot; fd >= 0 {
		closeFD(int(fd))
		c.fs.open.Add(-1)
	}
	*slot = slotClosed
}

// dropDir closes a directory and all files in it.
func (c *Cgroup) dropDir(dir int) {
	if c.borrowed&(1<<dir) == 0 {
		c.drop(&c.dirs[dir])
	} else {
		closeFD(int(c.dirs[dir]))
		c.borrowed &^= 1 << dir
	}
	if c.fs.v2 && dir == 0 {
		c.drop(&c.slots[0])
	}
	for _, g := range c.fs.plan {
		for _, src := range g {
			if src.dir != dir {
				continue
			}
			for i := range src.files {
				c.drop(&c.slots[src.slot+i])
			}
		}
	}
}

// fill reads the whole file. The kernel makes the text of these files in one piece for a read at offset 0, so one that
// does not fill the buffer has all; a longer one is read again from the start, in order not to mix two moments.
func (b *buffer) fill(fd int) (int, error) {
	for {
		n, err := retryInterrupted(func() (int, error) { return unix.Pread(fd, b.b, 0) })
		if err != nil || n < len(b.b) {
			return n, err
		}
		b.b = make([]byte, 2*len(b.b))
	}
}

// closeFD closes a file that was only read, of which an error has nothing to tell.
func closeFD(fd int) { _ = unix.Close(fd) }

func retryInterrupted(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err == nil || !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
