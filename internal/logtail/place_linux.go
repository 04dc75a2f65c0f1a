// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxSiblings is how many files of a directory are looked at whatever their names are. In a larger one only the names
	// that rotation gives count.
	maxSiblings = 4096
	maxNames    = 1 << 16
)

// fileID is what tells a file from others. Inodes are used again at once, which Born tells where the file system keeps it.
type fileID struct {
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	Born int64  `json:"born,omitempty"` // ns since 1970, 0 if not known
}

// same compares device numbers only where there is nothing better: they may change when the host starts anew.
func (a fileID) same(b fileID) bool {
	if a.Born != 0 && b.Born != 0 {
		return a.Ino == b.Ino && a.Born == b.Born
	}
	return a.Ino == b.Ino && a.Dev == b.Dev
}

// fileInfo is what statx tells.
type fileInfo struct {
	id       fileID
	size     uint64
	modified int64 // ns since 1970
	links    uint32
}

const statxMask = unix.STATX_TYPE | unix.STATX_INO | unix.STATX_SIZE | unix.STATX_MTIME | unix.STATX_NLINK | unix.STATX_BTIME

// statAt stats path in dir, or dir itself if path is "".
func statAt(dir int, path string, flags int) (fileInfo, error) {
	var x unix.Statx_t
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(dir, path, flags, statxMask, &x); err != nil {
		return fileInfo{}, err
	}
	if x.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileInfo{}, ErrNotRegular
	}
	i := fileInfo{
		id:       fileID{Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Ino: x.Ino},
		size:     x.Size,
		modified: x.Mtime.Sec*1e9 + int64(x.Mtime.Nsec),
		links:    x.Nlink,
	}
	if x.Mask&unix.STATX_BTIME != 0 {
		i.id.Born = x.Btime.Sec*1e9 + int64(x.Btime.Nsec)
	}
	return i, nil
}

// place is where a source's path is looked up.
type place struct{ root, path string }

// inRoot calls do with a descriptor of what the path leads to, opened with flags.
func (p place) inRoot(path string, flags uint64, do func(fd int) error) error {
	root, err := unix.Open(p.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, strings.TrimLeft(path, "/"), &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return err
	}
	return do(fd)
}

// hasRoot says whether it is known that a path that is not there is not there: the root of a process ends with it.
func (p place) hasRoot() bool {
	return p.root == "" || unix.Access(p.root, unix.F_OK) == nil
}

func (p place) stat() (info fileInfo, err error) {
	if p.root == "" {
		return statAt(unix.AT_FDCWD, p.path, 0)
	}
	err = p.inRoot(p.path, unix.O_PATH, func(fd int) error {
		defer unix.Close(fd)
		info, err = statAt(fd, "", 0)
		return err
	})
	return info, err
}

// maxLinks is how many symlinks a path may lead through, as in the kernel.
const maxLinks = 40

// target returns where the file is that the path leads to, whether it is there or not: what a symlink leads to is rotated there.
func (p place) target() string {
	path := p.path
	for range maxLinks {
		var b [unix.PathMax]byte
		n, err := 0, error(nil)
		if p.root == "" {
			n, err = unix.Readlink(path, b[:])
		} else {
			err = p.inRoot(path, unix.O_PATH|unix.O_NOFOLLOW, func(fd int) error {
				defer unix.Close(fd)
				n, err = unix.Readlinkat(fd, "", b[:])
				return err
			})
		}
		if err != nil || n == 0 {
			return path
		}
		if link := string(b[:n]); link[0] == '/' {
			path = link
		} else {
			path = dirOf(path) + "/" + link
		}
	}
	return path
}

// dirOf is the directory of a path that may lead through symlinks: "..", which is what is above the one that a symlink leads to,
// stays.
func dirOf(path string) string {
	switch i := strings.LastIndexByte(path, '/'); i {
	case -1:
		return "."
	case 0:
		return "/."
	default:
		return path[:i]
	}
}

// dirModified returns when a file of the path's directory was made, renamed or removed last, 0 if that cannot be told.
func (p place) dirModified() (ns int64) {
	path := dirOf(p.target())
	stat := func(dir int, path string, flags int) error {
		var x unix.Statx_t
		err := unix.Statx(dir, path, flags, unix.STATX_MTIME, &x)
		if err == nil {
			ns = x.Mtime.Sec*1e9 + int64(x.Mtime.Nsec)
		}
		return err
	}
	if p.root == "" {
		_ = stat(unix.AT_FDCWD, path, 0)
		return ns
	}
	_ = p.inRoot(path, unix.O_PATH|unix.O_DIRECTORY, func(fd int) error {
		defer unix.Close(fd)
		return stat(fd, "", unix.AT_EMPTY_PATH)
	})
	return ns
}

// open opens what the path leads to now, and never waits for a writer of a pipe.
func (p place) open() (int, fileInfo, error) {
	if _, err := p.stat(); err != nil { // to open a device may do something
		return -1, fileInfo{}, err
	}
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	if p.root == "" {
		fd, err := openAt(unix.AT_FDCWD, p.path, flags)
		if err != nil {
			return -1, fileInfo{}, err
		}
		return checkOpen(fd)
	}
	fd := -1
	var info fileInfo
	err := p.inRoot(p.path, flags, func(opened int) (err error) {
		fd, info, err = checkOpen(opened)
		return err
	})
	return fd, info, err
}

func openAt(dir int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func checkOpen(fd int) (int, fileInfo, error) {
	info, err := statAt(fd, "", 0)
	if err != nil {
		unix.Close(fd)
		return -1, info, err
	}
	return fd, info, nil
}

// sibling is a file in the directory of a source's file.
type sibling struct {
	fileInfo
	name    string
	rotated bool // its name is that of the source with a number or a date
}

// siblings calls do with the directory that the path's file is in, which is that of the target if the path is a symlink.
func (p place) siblings(do func(dir int, all []sibling)) error {
	path := p.target()
	if p.root == "" {
		dir, err := openAt(unix.AT_FDCWD, dirOf(path), unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		return listSiblings(dir, filepath.Base(path), do)
	}
	return p.inRoot(dirOf(path), unix.O_RDONLY|unix.O_DIRECTORY, func(dir int) error {
		return listSiblings(dir, filepath.Base(path), do)
	})
}

func listSiblings(fd int, base string, do func(dir int, all []sibling)) error {
	dir := os.NewFile(uintptr(fd), "siblings of "+base)
	defer dir.Close()
	names, err := dir.Readdirnames(maxNames)
	if err != nil && !errors.Is(err, io.EOF) { // which is that of one that is empty
		return fmt.Errorf("list %s: %w", dir.Name(), err)
	}
	var all []sibling
	for _, name := range names {
		rotated := isRotated(base, name)
		if name == base || (!rotated && len(names) > maxSiblings) {
			continue
		}
		info, err := statAt(fd, name, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			continue // gone, or no file
		}
		all = append(all, sibling{info, name, rotated})
	}
	do(fd, all)
	return nil
}

// openSibling opens a file of a directory that siblings gave.
func openSibling(dir int, s sibling) (int, fileInfo, error) {
	fd, err := openAt(dir, s.name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW)
	if err != nil {
		return -1, fileInfo{}, err
	}
	fd, info, err := checkOpen(fd)
	if err == nil && !info.id.same(s.id) {
		unix.Close(fd)
		return -1, fileInfo{}, unix.ENOENT
	}
	return fd, info, err
}
