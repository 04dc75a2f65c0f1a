// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"time"

	"golang.org/x/sys/unix"
)

// recently is how long after a write it may be told.
const recently = time.Minute

// Written tells as what log file a process sees a file that was written to. The writer may have closed it already; if the
// process has ended, another one with the same root directory and mounts will do.
//
// The mount table of the process says where the file may be, and there must be one with its inode. Only a file of an overlay's
// lower layer that was copied before its first change keeps the inode that it had: it is taken if the path has at least two
// names of the upper directory in it, or all of it, and it was changed within a minute. The paths of the layers are of no use
// otherwise: they are of a mount namespace that is not known.
//
// Mounts and roots that change are seen after a second at the latest.
func (f *Finder) Written(pid int, w Write) (File, bool) {
	if !mayBeLog(w.Path) {
		return File{}, false
	}
	if !w.Cut && w.Path[0] != '/' {
		w.Path = "/" + w.Path
	}
	key, err := viewKeyAt(unix.AT_FDCWD, f.procDir(pid)+"/root")
	if err != nil {
		return File{}, false
	}
	var p *process
	v := f.knownView(key, true)
	if v == nil {
		if p, v, err = f.look(pid, true); err != nil {
			return File{}, false
		}
		defer p.close()
	}
	candidates := v.targets.candidates(&w)
	if len(candidates) == 0 {
		return File{}, false
	}
	if p == nil {
		if p, err = f.openProcess(pid); err != nil {
			return File{}, false
		}
		defer p.close()
	}
	return f.choose(p, pid, &w, candidates)
}

// choose returns the candidate that has the inode, or else the first one that may be believed without.
func (f *Finder) choose(p *process, pid int, w *Write, candidates []candidate) (file File, ok bool) {
	for i := range candidates {
		c := &candidates[i]
		x, err := p.stat(c.path)
		if err != nil || !isRegular(&x) || x.Mnt_id != c.mount {
			continue // gone, or something is mounted over it
		}
		// Only of disks the number that stat tells is always that of the superblock.
		if x.Ino == w.Inode && (x.Dev_major == 0 || unix.Mkdev(x.Dev_major, x.Dev_minor) == w.Device) {
			return f.newFile(pid, c.path, &x), true
		}
		// Others can set the time of a modification, but not that of a change.
		age := f.now().Sub(time.Unix(x.Ctime.Sec, int64(x.Ctime.Nsec))).Abs()
		if !ok && c.overlay && c.sure && age < recently {
			file, ok = f.newFile(pid, c.path, &x), true
		}
	}
	return file, ok
}
