// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// viewKey tells apart what processes see. A mount is in one namespace only, so the root directory stands for both.
type viewKey struct{ mount, dev, inode uint64 }

// view is what the processes with one root directory see of the roots. It does not change.
type view struct {
	at    time.Time
	roots []root

	// targets are where writes below the roots may go, by device if they have one. They are nil until they were asked for:
	// Open does not need the mount table.
	targets *targets
}

// root is one of Options.Roots as a process sees it. Where one is "/", dir is "".
type root struct {
	given string
	dir   string // without symlinks
	link  string // what links in /proc/PID/fd to files below it begin with
}

// viewOf returns the view of an open process, with targets if they are wanted.
func (f *Finder) viewOf(p *process, withTargets bool) (*view, error) {
	if v := f.knownView(p.key, withTargets); v != nil {
		return v, nil
	}
	v := &view{at: f.now(), roots: f.findRoots(p)}
	if withTargets {
		mounts, left, err := p.readMounts(v.roots)
		if err != nil {
			return nil, err
		}
		f.mounts.Add(uint64(left))
		v.targets = newTargets(mounts, v.roots, p.key)
	}
	// What was read may be of two root directories.
	if key, err := viewKeyAt(p.dir, "root"); err != nil {
		return nil, err
	} else if key != p.key {
		return nil, errRootChanged
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.views) >= maxViews {
		f.dropOldViews()
	}
	f.views[p.key] = v
	return v, nil
}

// knownView returns nil if there is no view that is new enough.
func (f *Finder) knownView(key viewKey, withTargets bool) *view {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.views[key]
	if v == nil || (withTargets && v.targets == nil) {
		return nil
	}
	if age := f.now().Sub(v.at); age < 0 || age >= keepView {
		delete(f.views, key)
		return nil
	}
	return v
}

// dropOldViews is called with the lock.
func (f *Finder) dropOldViews() {
	now := f.now()
	for key, v := range f.views {
		if now.Sub(v.at) >= keepView {
			delete(f.views, key)
		}
	}
	if len(f.views) >= maxViews {
		clear(f.views)
	}
}

// findRoots finds where the roots are. One that is not there, or that may not be looked at, is taken as it was given.
func (f *Finder) findRoots(p *process) []root {
	top := readLink(p.dir, "root") // "/", or where the process has changed its root directory to
	if top == "/" {
		top = ""
	}
	roots := make([]root, 0, len(f.options.Roots))
	for _, given := range f.options.Roots {
		dir := strings.TrimSuffix(given, "/")
		r := root{given: dir, dir: dir, link: top + dir + "/"}
		if fd, err := p.openIn(dir, unix.O_DIRECTORY, 0); err == nil {
			link := readLink(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd))
			unix.Close(fd)
			if below, ok := cutDir(link, top); ok {
				r.dir = strings.TrimSuffix(below, "/")
				r.link = top + r.dir + "/"
			}
		}
		roots = append(roots, r)
	}
	return roots
}

// readLink returns "" if there is none.
func readLink(dir int, path string) string {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(dir, path, buf[:])
	if err != nil || n <= 0 || n == len(buf) {
		return ""
	}
	return string(buf[:n])
}

// cutDir takes a directory from the beginning of a path. The root of everything is "". What is left begins with a slash or
// is "".
func cutDir(path, dir string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}
