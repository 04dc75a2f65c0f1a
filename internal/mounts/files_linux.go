// SPDX-License-Identifier: Apache-2.0

package mounts

import (
	"bytes"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// findWritten marks the candidates that some process has a regular file open on for writing. It stops when there are none
// left, and when it has looked at maxFilesPerLook files.
func (r *Reader) findWritten(pids []int, wanted map[int]*candidate) {
	s := fileScan{left: maxFilesPerLook, wanted: wanted, direntBuf: make([]byte, 16<<10)}
	for _, c := range wanted {
		if !c.written {
			s.open++
		}
	}
	for _, pid := range pids {
		if s.open == 0 {
			break
		}
		s.process(r.procDir(pid))
	}
	r.filesSkipped.Add(uint64(s.skipped))
}

// fileScan goes through the open files of processes.
type fileScan struct {
	wanted  map[int]*candidate
	open    int // how many of them were not found yet
	left    int // how many files may still be looked at
	skipped int

	direntBuf []byte
	names     []string
}

func (s *fileScan) process(dir string) {
	fds, err := unix.Open(filepath.Join(dir, "fd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // gone, or closed to us
	}
	defer unix.Close(fds)
	infos, err := unix.Open(filepath.Join(dir, "fdinfo"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(infos)
	looked, skipped := 0, 0
	for looked+skipped < maxFilesListed {
		n, err := unix.ReadDirent(fds, s.direntBuf)
		if err != nil || n <= 0 {
			break
		}
		_, _, s.names = unix.ParseDirent(s.direntBuf[:n], -1, s.names[:0])
		for _, name := range s.names {
			if s.open == 0 {
				return
			}
			if looked >= maxFilesPerProcess || s.left == 0 {
				skipped++
				continue
			}
			looked++
			s.left--
			s.file(fds, infos, name)
		}
	}
	s.skipped += skipped
}

// file looks at one open file. No step but the last asks a file system.
func (s *fileScan) file(fds, infos int, name string) {
	var start [1]byte
	if n, err := unix.Readlinkat(fds, name, start[:]); err != nil || n < 1 || start[0] != '/' {
		return // a socket, a pipe and the like
	}
	var link unix.Stat_t
	if err := unix.Fstatat(fds, name, &link, unix.AT_SYMLINK_NOFOLLOW); err != nil || link.Mode&unix.S_IWUSR == 0 {
		return // the link's mode tells how the file was opened
	}
	info, err := unix.Openat(infos, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	var buf [256]byte // position, flags and mount come first
	n, err := unix.Read(info, buf[:])
	unix.Close(info)
	if err != nil {
		return
	}
	written, id, ok := parseFileInfo(buf[:n])
	c := s.wanted[id]
	if !ok || !written || c == nil || c.written {
		return
	}
	if !mayHang(c.entry.fsType) {
		if _, mode, _, err := mountIDOf(fds, name, 0); err != nil || mode&unix.S_IFMT != unix.S_IFREG {
			return // a device, a named pipe
		}
	}
	c.written = true
	s.open--
}

// parseFileInfo reads the begin of /proc/PID/fdinfo/FD: whether the file is open for writing, and the id of its mount.
// See Documentation/filesystems/proc.rst, "/proc/<pid>/fdinfo".
func parseFileInfo(b []byte) (written bool, mountID int, ok bool) {
	haveFlags := false
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if b = rest; !whole {
			break // may be cut off
		}
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(key) {
		case "flags":
			flags, err := strconv.ParseUint(string(value), 8, 64)
			if err != nil {
				return false, 0, false
			}
			written, haveFlags = flags&unix.O_ACCMODE != unix.O_RDONLY, true
		case "mnt_id":
			id, err := strconv.Atoi(string(value))
			return written, id, err == nil && haveFlags
		}
	}
	return false, 0, false
}
