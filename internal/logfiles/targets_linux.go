// SPDX-License-Identifier: Apache-2.0

package logfiles

import (
	"path"
	"strings"
)

// target is where writes below a root may go: a directory of a file system, and where a process sees it.
type target struct {
	root  *root
	mount uint64 // id of the mount that the file must be on
	dir   string // as the process sees it
	fsDir string // the same from the root of the file system; within the upper directory if there is one

	// upper is the upper directory of an overlay. It is a path of whoever mounted that, so its beginning, where the file system is
	// mounted, says nothing to us.
	upper   string
	overlay bool // inodes may differ
}

// targets are those of a view.
type targets struct {
	byDevice map[uint64][]target
	uppers   []target // of overlays; nobody says on which device
	// loose have an fsDir that is only the end of the directory: the process has changed its root directory, and what that is on
	// is not in its mount table.
	loose []target
}

func newTargets(mounts []mount, roots []root, key viewKey) *targets {
	ts := &targets{byDevice: map[uint64][]target{}}
	for i := range roots {
		r, covered := &roots[i], false
		for j := range mounts {
			m := &mounts[j]
			t := target{root: r, mount: m.id, overlay: m.overlay}
			if rest, ok := cutDir(r.dir, m.point); ok {
				t.dir, t.fsDir, covered = r.dir, m.root+rest, true
			} else if _, ok := cutDir(m.point, r.dir); ok {
				t.dir, t.fsDir = m.point, m.root
			} else {
				continue
			}
			ts.byDevice[m.device] = append(ts.byDevice[m.device], t)
			for _, upper := range upperDirs(m.upper) {
				t.upper = upper
				ts.uppers = append(ts.uppers, t)
			}
		}
		if !covered {
			ts.loose = append(ts.loose, target{root: r, mount: key.mount, dir: r.dir, fsDir: r.dir})
		}
	}
	return ts
}

// upperDirs gives what an upper directory may be: before Linux 6.8 a backslash in the option's value could stand before a
// colon, a comma or another backslash to keep that from having a meaning.
func upperDirs(upper string) []string {
	if upper == "" {
		return nil
	}
	if !strings.Contains(upper, `\`) {
		return []string{path.Clean(upper)}
	}
	var plain strings.Builder
	for i := 0; i < len(upper); i++ {
		if upper[i] == '\\' && i+1 < len(upper) {
			i++
		}
		plain.WriteByte(upper[i])
	}
	return []string{path.Clean(upper), path.Clean(plain.String())}
}

// maxCandidates is how many places are thought of for one write.
const maxCandidates = 16

// candidate is where a file may be that was written to.
type candidate struct {
	*target
	path string // as the process sees it
	sure bool   // the text of the path tells enough to believe it without the inode
}

// candidates goes by what the text of the path says. Nearly all writes go elsewhere: for these it makes no garbage.
func (ts *targets) candidates(w *Write) (all []candidate) {
	left := maxCandidates
	add := func(t *target, rest string, sure bool) {
		if left--; left < 0 {
			return
		}
		c := candidate{t, t.dir + rest, sure}
		if !isClean(c.path) || len(c.path) < len(t.root.dir)+2 {
			return
		}
		if below := c.path[len(t.root.dir)+1:]; mayBeLog(below) && !isReadElsewhere(t.root.given, below) {
			all = append(all, c)
		}
	}
	byDevice := ts.byDevice[w.Device]
	for i := range byDevice {
		if t := &byDevice[i]; w.Cut {
			eachOverlap(t.fsDir, w.Path, func(_ int, rest string) { add(t, rest, false) })
		} else if rest, ok := cutDir(w.Path, t.fsDir); ok {
			add(t, rest, true)
		}
	}
	for i := range ts.uppers {
		ts.uppers[i].inUpper(w, add)
	}
	for i := range ts.loose {
		t := &ts.loose[i]
		eachAfter(w.Path, t.fsDir, func(_ int, rest string) { add(t, rest, false) })
		if w.Cut {
			eachOverlap(t.fsDir, w.Path, func(_ int, rest string) { add(t, rest, false) })
		}
	}
	return all
}

// inUpper finds the end of the upper directory in the path of a write. That what stands before it is no other directory is sure
// if two names are the same or if nothing else stands there.
func (t *target) inUpper(w *Write, add func(t *target, rest string, sure bool)) {
	last := t.upper[strings.LastIndexByte(t.upper, '/')+1:]
	eachAfter(w.Path, "/"+last+t.fsDir, func(at int, rest string) {
		before := w.Path[:at+1+len(last)]
		same, all := commonEnd(before, t.upper)
		add(t, rest, same >= 2 || (all && !w.Cut))
	})
	if w.Cut {
		inside := strings.Count(t.fsDir, "/")
		eachOverlap("/"+strings.TrimPrefix(t.upper, "/")+t.fsDir, w.Path, func(names int, rest string) {
			add(t, rest, names >= inside+2)
		})
	}
}

// eachAfter calls do for each place in a path at which dir stands, as whole names, with what comes after it.
func eachAfter(path, dir string, do func(at int, rest string)) {
	for from := 0; ; {
		at := strings.Index(path[from:], dir)
		if at < 0 || from+at+len(dir) >= len(path) {
			return
		}
		at += from
		if rest := path[at+len(dir):]; rest[0] == '/' {
			do(at, rest)
		}
		from = at + 1
	}
}

// eachOverlap calls do for each number of names with which dir may end and the path, of which the beginning is missing, begin.
func eachOverlap(dir, path string, do func(names int, rest string)) {
	path = strings.TrimPrefix(path, "/")
	for i, names := len(dir), 0; i > 0; {
		i = strings.LastIndexByte(dir[:i], '/')
		if i < 0 {
			return
		}
		names++
		if rest, ok := cutDir(path, dir[i+1:]); ok {
			do(names, rest)
		}
	}
}

// commonEnd returns how many names at the end of two paths are the same, and whether these are all of a.
func commonEnd(a, b string) (names int, all bool) {
	for a != "" && b != "" {
		i, j := strings.LastIndexByte(a, '/'), strings.LastIndexByte(b, '/')
		if a[i+1:] != b[j+1:] {
			return names, false
		}
		names++
		a, b = a[:max(i, 0)], b[:max(j, 0)]
	}
	return names, a == ""
}

// isClean tells whether a path is made of names only.
func isClean(p string) bool { return path.Clean(p) == p }
