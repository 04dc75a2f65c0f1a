// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// maxDescriptors is how many descriptors of a process are looked at, maxListed up to how many are counted as left out.
	maxDescriptors = 4096
	maxListed      = 16 << 10
	// maxFiles is how many files Open returns.
	maxFiles = 256
)

// Open returns the log files that a process holds open for writing, each once. One that ends meanwhile has none; one that has
// too many descriptors or files is looked at in part, see Stats.
//
// The error is fs.ErrPermission if the process may not be looked at, and errors.ErrUnsupported before Linux 5.8. With hidepid=2
// a process of another user looks like one that has ended.
func (f *Finder) Open(pid int) ([]File, error) {
	p, v, err := f.look(pid, false)
	var found []File
	if err == nil {
		defer p.close()
		s := openFiles{f: f, pid: pid, process: p, view: v}
		err = s.run()
		found = s.found
	}
	if err != nil && !hasGone(err) {
		return nil, fmt.Errorf("open files of process %d: %w", pid, err)
	}
	return found, nil
}

// openFiles goes through the descriptors of a process.
type openFiles struct {
	f       *Finder
	pid     int
	process *process
	view    *view

	fds, infos int // directories
	buf        [unix.PathMax]byte
	found      []File
}

func (s *openFiles) run() (err error) {
	if s.fds, err = unix.Openat(s.process.dir, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	defer unix.Close(s.fds)
	if s.infos, err = unix.Openat(s.process.dir, "fdinfo", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	defer unix.Close(s.infos)
	var names []string
	var dirents [8 << 10]byte
	for listed := 0; listed < maxListed; {
		n, err := unix.ReadDirent(s.fds, dirents[:])
		if err != nil || n <= 0 {
			return err
		}
		_, _, names = unix.ParseDirent(dirents[:n], -1, names[:0])
		for _, name := range names {
			if listed++; listed > maxDescriptors {
				s.f.descriptors.Add(1)
				continue
			}
			s.look(name)
		}
	}
	return nil
}

// look looks at one descriptor. What is closed meanwhile is left out. Only files below the roots ask their file system.
func (s *openFiles) look(name string) {
	n, err := unix.Readlinkat(s.fds, name, s.buf[:])
	if err != nil || n <= 0 || n == len(s.buf) || s.buf[0] != '/' {
		return // a socket, a pipe and the like
	}
	r, path := s.below(s.buf[:n])
	if r == nil || !mayBeLog(path) || isReadElsewhere(r.given, path[len(r.dir)+1:]) {
		return
	}
	offset, written := s.position(name)
	if !written {
		return
	}
	if len(s.found) == maxFiles {
		s.f.files.Add(1)
		return
	}
	var open unix.Statx_t
	if err := unix.Statx(s.fds, name, unix.AT_STATX_DONT_SYNC, statxMask, &open); err != nil || !isRegular(&open) {
		return
	}
	// The link of a deleted file is its old path and " (deleted)", which may be a file, too: the inode tells. That of a file that
	// was opened in another root directory or under what is mounted there now may look like any other.
	x, err := s.process.stat(path)
	if err != nil || x.Ino != open.Ino || x.Dev_major != open.Dev_major || x.Dev_minor != open.Dev_minor {
		return
	}
	file := s.f.newFile(s.pid, path, &x)
	file.Offset = offset
	s.add(file)
}

// below finds the root that a link leads below, and the path as the process sees it.
func (s *openFiles) below(link []byte) (*root, string) {
	for i := range s.view.roots {
		if r := &s.view.roots[i]; len(link) > len(r.link) && string(link[:len(r.link)]) == r.link {
			return r, r.dir + "/" + string(link[len(r.link):])
		}
	}
	return nil, ""
}

func (s *openFiles) position(name string) (offset uint64, written bool) {
	info, err := unix.Openat(s.infos, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(info)
	var buf [256]byte // position and flags come first
	n, err := unix.Read(info, buf[:])
	if err != nil {
		return 0, false
	}
	return parseFileInfo(buf[:n])
}

func (s *openFiles) add(file File) {
	for i := range s.found {
		if have := &s.found[i]; have.Inode == file.Inode && have.Dev == file.Dev {
			have.Offset = max(have.Offset, file.Offset)
			return
		}
	}
	s.found = append(s.found, file)
}

// parseFileInfo reads the begin of /proc/PID/fdinfo/FD: where the descriptor stands, and whether it is open for writing.
// See Documentation/filesystems/proc.rst, "/proc/<pid>/fdinfo".
func parseFileInfo(b []byte) (offset uint64, written bool) {
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if b = rest; !whole {
			break // may be cut off
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(key) {
		case "pos":
			pos, err := strconv.ParseUint(string(value), 10, 63)
			if err != nil {
				return 0, false
			}
			offset = pos
		case "flags":
			flags, err := strconv.ParseUint(string(value), 8, 64)
			if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY {
				return 0, false
			}
			return offset, true
		}
	}
	return 0, false
}
