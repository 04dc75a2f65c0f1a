// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	// maxFiles is how many files are open at once; more wait until some have been read.
	maxFiles = 1024
	// racyTime is how long a change may leave a directory's modification time as it is: the kernel's clock for it is coarse.
	racyTime = time.Second
	// rescan is how often all is looked at even when no directory says that it changed.
	rescan = 30 * time.Second
)

// dir is one directory that may have journal files, and one level of directories below.
type dir struct {
	path     string
	volatile bool
	modTimes map[string]time.Time // of it and those below, as the last look saw them
}

func rootDirs(opts Options) []*dir {
	var dirs []*dir
	for _, path := range opts.Dirs {
		volatile := strings.HasPrefix(filepath.Clean(path)+"/", "/run/")
		dirs = append(dirs, &dir{path: filepath.Join("/", opts.Root, path), volatile: volatile})
	}
	return dirs
}

// found is a journal file in a directory.
type found struct {
	path     string
	info     os.FileInfo
	volatile bool
}

// scan looks for files that came, went or were renamed, if a directory changed.
func (r *Reader) scan(always bool) {
	now := time.Now()
	if !always && now.Sub(r.lastScan) < rescan && !r.dirsChanged() {
		return
	}
	r.lastScan = now
	var all []found
	for _, d := range r.dirs {
		all = append(all, r.list(d, now)...)
	}
	// Older files first, should there be too many: archived names sort by sequence and number.
	slices.SortFunc(all, func(a, b found) int {
		_, aArchived := streamName(a.path)
		_, bArchived := streamName(b.path)
		if aArchived != bArchived {
			if aArchived {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.path, b.path)
	})
	r.adopt(all)
	r.forget(all)
}

// scanUntilStable looks until two looks in a row agree: a look during a rename may miss the file.
func (r *Reader) scanUntilStable() {
	r.scan(true)
	for range 3 {
		before := r.lastID
		r.scan(true)
		if r.lastID == before {
			return
		}
	}
}

func (r *Reader) dirsChanged() bool {
	for _, d := range r.dirs {
		if len(d.modTimes) == 0 {
			if _, err := os.Stat(d.path); err == nil {
				return true
			}
		}
		for path, seen := range d.modTimes {
			info, err := os.Stat(path)
			if err != nil || !info.ModTime().Equal(seen) {
				return true
			}
		}
	}
	return false
}

// list reads a directory and those directly below it. What cannot be read is as if it were not there.
func (r *Reader) list(d *dir, now time.Time) []found {
	d.modTimes = map[string]time.Time{}
	var all []found
	paths := []string{d.path}
	for i := 0; i < len(paths); i++ {
		info, err := os.Stat(paths[i])
		if err != nil {
			continue
		}
		d.modTimes[paths[i]] = info.ModTime()
		if now.Sub(info.ModTime()) < racyTime {
			d.modTimes[paths[i]] = time.Time{} // look again
		}
		r.waiter.watch(paths[i])
		entries, err := os.ReadDir(paths[i])
		if err != nil {
			continue
		}
		for _, e := range entries {
			path := filepath.Join(paths[i], e.Name())
			switch {
			case i == 0 && e.IsDir():
				paths = append(paths, path)
			case e.Type().IsRegular() && (strings.HasSuffix(path, ".journal") || strings.HasSuffix(path, ".journal~")):
				if info, err := e.Info(); err == nil {
					all = append(all, found{path, info, d.volatile})
				}
			}
		}
	}
	return all
}

// adopt opens the files that are new and follows the renamed.
func (r *Reader) adopt(all []found) {
	byPath := map[string]*file{}
	for _, f := range r.files {
		byPath[f.path] = f
	}
	for _, n := range all {
		f := byPath[n.path]
		if f == nil || !os.SameFile(f.info, n.info) {
			f = nil
			if i := slices.IndexFunc(r.files, func(f *file) bool { return os.SameFile(f.info, n.info) }); i >= 0 {
				f = r.files[i]
			}
		}
		if f != nil {
			f.path = n.path
			_, f.archivedName = streamName(n.path)
			continue
		}
		if p, ok := r.done[n.path]; ok && p.same(n.info) {
			continue
		}
		if len(r.files) >= maxFiles || r.stillRefused(n) {
			continue
		}
		if err := r.open(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.refuse(n, err)
		}
	}
}

// forget drops what has no name any more: files read to their end, and what is known of others.
func (r *Reader) forget(all []found) {
	paths := map[string]os.FileInfo{}
	for _, n := range all {
		paths[n.path] = n.info
	}
	for _, f := range r.files {
		info, ok := paths[f.path]
		f.gone = !ok || !os.SameFile(f.info, info)
	}
	for path := range r.done {
		if _, ok := paths[path]; !ok {
			delete(r.done, path)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for path := range r.refused {
		if _, ok := paths[path]; !ok {
			delete(r.refused, path)
		}
	}
}

func (r *Reader) newFile(source io.ReaderAt, stat func() (os.FileInfo, error)) *file {
	r.lastID++
	return &file{id: r.lastID, source: source, stat: stat, blocks: &r.blocks, damage: r.countDamage}
}

// open begins to read a file behind what its stream has given.
func (r *Reader) open(n found) error {
	// Without O_NONBLOCK a pipe in the place of the file would hold us.
	file, err := os.OpenFile(n.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotJournal
	}
	f := r.newFile(file, file.Stat)
	f.closer = file
	if err == nil {
		err = f.init()
	}
	if err != nil {
		file.Close()
		return err
	}
	f.info, f.path, f.volatile = info, n.path, n.volatile
	_, f.archivedName = streamName(n.path)
	r.join(f)
	r.files = append(r.files, f)
	r.untilCheck = 0
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.refused, n.path)
	r.stats.Files = len(r.files)
	return nil
}

// stillRefused tells whether a file is as it was when it was refused. A new one may get its header only now, and writing through a
// mapping may leave its times as they are for a while.
func (r *Reader) stillRefused(n found) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, ok := r.refused[n.path]
	return ok && old.file.same(n.info) && time.Since(n.info.ModTime()) > racyTime
}

func (r *Reader) refuse(n found, err error) {
	err = fmt.Errorf("%s: %w", n.path, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	old, again := r.refused[n.path]
	r.refused[n.path] = refusal{err, fingerprint{n.info}}
	if !again || old.err.Error() != err.Error() {
		r.log.Warn("a journal file is left out", zap.Error(err))
	}
}
