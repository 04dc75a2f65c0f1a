// SPDX-License-Identifier: Apache-2.0

// Package logfiles tells which log files a process writes to: those that it holds open, and those that the kernel tells it
// wrote to.
//
// A log file is a regular file below one of the roots, such as /var/log, as the process sees it: it may have a root
// directory and mounts of its own, and its files are looked for nowhere else. It must still be where its path leads to;
// whoever was deleted or moved out of sight cannot be followed by a path. Packed, binary and lock files are left out by
// their names, and so is what Kubernetes and journald keep below /var/log, which is read in other ways.
//
// What may ask a file system of the process is asked without a deadline, but only for files below the roots, and without
// waiting for a server to bring attributes up to date.
package logfiles

import (
	"path"
	"time"
)

// Options of a Finder. The zero value is good.
type Options struct {
	ProcRoot string // the host's /proc; "" is /proc

	// Roots are directories, as processes see them, in which files are logs; none is /var/log. Each may be a symlink, which is
	// followed within the root directory of the process.
	Roots []string
}

func (o *Options) setDefaults() {
	if o.ProcRoot == "" {
		o.ProcRoot = "/proc"
	}
	if len(o.Roots) == 0 {
		o.Roots = []string{"/var/log"}
	}
	roots := make([]string, len(o.Roots))
	for i, r := range o.Roots {
		roots[i] = path.Clean("/" + r)
	}
	o.Roots = roots
}

// File is a log file that a process writes to, or has written to.
type File struct {
	// Path is as the process sees it, clean and without symlinks. It may be of any bytes but NUL, and need not be UTF-8.
	Path string
	Root string // directory in which Path is found: PID/root in Options.ProcRoot

	// Dev and Inode are as stat tells them through Root: in an overlay they are not those of the layer that was written to.
	Dev, Inode uint64
	Size       uint64

	// Offset is where the descriptor stands, the largest if the process has several; 0 from Written.
	Offset uint64
	Born   time.Time // zero if the file system does not tell
}

// Write is a file that was written to, as the kernel knows it. In an overlay this is the file of the upper layer.
type Write struct {
	Device uint64 // of the superblock, as unix.Mkdev makes it; that of stat is another one on btrfs
	Inode  uint64

	// Path is made of the names of directory entries from the root of the file system, not of a mount.
	Path string
	Cut  bool // the beginning of Path is missing; what is left begins with a whole name
}

// Stats count since New what was left out since there was too much of it.
type Stats struct {
	Descriptors uint64 // of a process that has more than 4096; at least so many, each call of Open counts anew
	Files       uint64 // descriptors of log files after the 256th file of a process; each call of Open counts anew
	Mounts      uint64 // mounts at or below the roots of a process that has more than 256; each reading of its table counts anew
}
