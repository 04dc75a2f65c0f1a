// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Walk calls fn for every cgroup of the v2 hierarchy and of that of LegacyController, parents before their children.
//
// Cgroups that vanish meanwhile are passed over. One that cannot be looked into is too, with what is below it; the
// error is then the first of these, after all others were given. The end of ctx ends the walk.
func (f *FS) Walk(ctx context.Context, fn func(Dir)) error {
	var first error
	for _, r := range f.walks {
		if err := walk(ctx, r, fn); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// walk goes through one hierarchy. A directory costs one fstatat, and if it has sub directories an open, a few getdents
// and a close: the link count of a cgroup's directory, like that of most file systems, is two and one for each of them.
func walk(ctx context.Context, root walkRoot, fn func(Dir)) error {
	rootFD, err := openDir(unix.AT_FDCWD, root.dir)
	if err != nil {
		return fmt.Errorf("walk %s: %w", root.dir, err)
	}
	defer closeFD(rootFD)
	var st unix.Stat_t
	if err := unix.Fstat(rootFD, &st); err != nil {
		return fmt.Errorf("walk %s: %w", root.dir, err)
	}
	fn(Dir{ID: ID{root.hierarchy, st.Ino}, Path: "/"})

	var first error
	w := walker{buf: make([]byte, 32<<10)}
	for todo := []string{"/"}; len(todo) > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		parent := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		err := w.list(rootFD, parent, func(fd int, name string) error {
			if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				return nil
			}
			path := parent + "/" + name
			if parent == "/" {
				path = parent + name
			}
			fn(Dir{ID: ID{root.hierarchy, st.Ino}, Path: path})
			if st.Nlink != 2 {
				todo = append(todo, path)
			}
			return nil
		})
		if err != nil && first == nil {
			first = fmt.Errorf("walk %s%s: %w", root.dir, parent, err)
		}
	}
	return first
}

// walker holds the room for directory entries.
type walker struct{ buf []byte }

// list calls each for the sub directories of path, which is below the directory rootFD. What has vanished is no error.
func (w *walker) list(rootFD int, path string, each func(fd int, name string) error) error {
	fd, err := openDir(rootFD, "."+path)
	if err != nil {
		return unlessVanished(err)
	}
	defer closeFD(fd)
	var first error
	for {
		n, err := retryInterrupted(func() (int, error) { return unix.ReadDirent(fd, w.buf) })
		if err != nil {
			return unlessVanished(err)
		}
		if n == 0 {
			return first
		}
		for entries := w.buf[:n]; ; {
			var name []byte
			var isDir, ok bool
			if name, isDir, entries, ok = nextEntry(entries); !ok {
				break
			}
			if !isDir || string(name) == "." || string(name) == ".." {
				continue
			}
			if err := unlessVanished(each(fd, string(name))); err != nil && first == nil {
				first = err
			}
		}
	}
}

// nextEntry takes the first struct linux_dirent64 off b: inode (8 bytes), offset (8), length (2), type (1), name, NUL.
func nextEntry(b []byte) (name []byte, isDir bool, rest []byte, ok bool) {
	const header = 8 + 8 + 2 + 1
	if len(b) < header {
		return nil, false, nil, false
	}
	length := int(binary.NativeEndian.Uint16(b[16:]))
	if length < header || length > len(b) {
		return nil, false, nil, false
	}
	name = b[header:length]
	for i, c := range name {
		if c == 0 {
			name = name[:i]
			break
		}
	}
	typ := b[18]
	return name, typ == unix.DT_DIR || typ == unix.DT_UNKNOWN, b[length:], true
}

func openDir(dirFD int, path string) (int, error) {
	return retryInterrupted(func() (int, error) {
		return unix.Openat(dirFD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
}

// unlessVanished returns err unless it says that the directory is no more, or that it lies deeper than a path can tell,
// which no container does but what runs inside one may bring about.
func unlessVanished(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENAMETOOLONG) {
		return nil
	}
	return err
}
