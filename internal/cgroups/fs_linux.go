// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// FS is the cgroup file systems of a host. Its methods are safe for concurrent use.
type FS struct {
	mode   Mode
	dirs   []string // roots of the hierarchies that are read, the v2 one first if there is one
	v2     bool     // dirs[0] is v2
	legacy string   // see LegacyController
	walks  []walkRoot

	plan  []plannedGroup
	files int // slots that one Cgroup needs

	tick    time.Duration
	maxOpen int64        // descriptors that all Cgroups together may keep
	open    atomic.Int64 // descriptors that they keep
	handles atomic.Uint64
	buffers sync.Pool // of *buffer
}

// plannedGroup is a group on this host: the sources that can exist, in the order in which they count.
type plannedGroup []plannedSource

// plannedSource is a source in one of the hierarchies.
type plannedSource struct {
	files []file
	dir   int // in FS.dirs
	slot  int // of the first file, in Cgroup.slots
}

// walkRoot is a hierarchy that Walk goes through.
type walkRoot struct {
	hierarchy Hierarchy
	dir       string
}

// finders are the v1 controllers by which containers can be found, best first.
var finders = [...]string{"memory", "pids", "cpu", "cpuacct"}

// legacyHierarchies are what v1 hierarchies are named after; any of them makes a host that has cgroups.
var legacyHierarchies = [...]string{
	"memory", "pids", "cpu", "cpuacct", "blkio", "cpuset", "devices", "freezer", "hugetlb", "misc", "net_cls", "net_prio",
	"perf_event", "rdma", "systemd", "elogind",
}

// Open takes stock of the cgroup file systems under root, which is /sys/fs/cgroup or where a container has that of its
// host. It holds nothing open. A host without any is an error.
//
// What counts is which files are there, not the type of the file system, since root may be a bind mount or a copy.
func Open(root string) (*FS, error) {
	f := &FS{tick: clockTick(), maxOpen: shareOfDescriptors()}
	unified := root
	var legacy map[string]string
	if !exists(root, "cgroup.controllers") {
		f.mode = ModeHybrid
		if unified = filepath.Join(root, "unified"); !exists(unified, "cgroup.controllers") {
			unified = ""
		}
		var err error
		if legacy, err = legacyMounts(root); err != nil {
			return nil, err
		}
	}
	switch {
	case unified == "" && len(legacy) == 0:
		return nil, fmt.Errorf("%s: no cgroup file system", root)
	case unified == "":
		f.mode = ModeLegacy
	case len(legacy) == 0:
		f.mode = ModeUnified
	}
	if unified != "" {
		f.v2 = true
		f.dirs = append(f.dirs, unified)
		f.walks = append(f.walks, walkRoot{Unified, unified})
	}
	for _, c := range finders {
		if dir := legacy[c]; dir != "" {
			f.legacy = c
			f.walks = append(f.walks, walkRoot{Legacy, dir})
			break
		}
	}
	f.planReads(legacy)
	f.buffers.New = func() any { return newBuffer() }
	return f, nil
}

// legacyMounts finds the v1 hierarchies under root: directories named after their controllers, "cpu,cpuacct", with or
// without a symbolic link for each of them. A directory counts before a link to it.
func legacyMounts(root string) (map[string]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("cgroup file systems: %w", err)
	}
	slices.SortStableFunc(entries, func(a, b os.DirEntry) int { // links last
		return int(a.Type()&os.ModeSymlink) - int(b.Type()&os.ModeSymlink)
	})
	mounts := map[string]string{}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		for c := range strings.SplitSeq(e.Name(), ",") {
			if mounts[c] == "" && slices.Contains(legacyHierarchies[:], c) && exists(dir, "cgroup.procs") {
				mounts[c] = dir
			}
		}
	}
	return mounts, nil
}

// planReads decides which files give what on this host.
func (f *FS) planReads(legacy map[string]string) {
	if f.v2 {
		f.files = 1 // slot 0 is cgroup.events
	}
	for _, g := range groups {
		var pg plannedGroup
		for _, src := range g {
			p := plannedSource{files: src.files, slot: f.files}
			if src.controller == "" {
				if !f.v2 {
					continue
				}
			} else {
				dir, ok := legacy[src.controller]
				if !ok {
					continue
				}
				p.dir = slices.Index(f.dirs, dir)
				if p.dir < 0 {
					p.dir = len(f.dirs)
					f.dirs = append(f.dirs, dir)
				}
			}
			f.files += len(src.files)
			pg = append(pg, p)
		}
		if len(pg) > 0 {
			f.plan = append(f.plan, pg)
		}
	}
}

// Mode tells how the host mounts its cgroup file systems.
func (f *FS) Mode() Mode { return f.mode }

// LegacyController is the v1 controller by which containers are found: memory, else pids, else cpu, else cpuacct. It is
// "" where there is no v1 or none of them.
func (f *FS) LegacyController() string { return f.legacy }

// HasIOController tells whether the v2 hierarchy has the io controller. Where it has not, the files of the v1 controller stay
// empty for most cgroups on newer kernels.
func (f *FS) HasIOController() bool {
	if !f.v2 {
		return false
	}
	controllers, err := os.ReadFile(filepath.Join(f.dirs[0], "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(controllers)), "io")
}

// UnifiedDir is where the v2 hierarchy is mounted, "" for nowhere.
func (f *FS) UnifiedDir() string {
	if !f.v2 {
		return ""
	}
	return f.dirs[0]
}

// Cgroup returns a handle by which the totals of the cgroup at path, which is below the root of each hierarchy, are
// read. It touches no file. The caller closes it.
func (f *FS) Cgroup(cgroup string) *Cgroup {
	return &Cgroup{
		fs:     f,
		path:   path.Clean("/" + cgroup),
		dirs:   closedSlots(len(f.dirs)),
		inodes: make([]uint64, len(f.dirs)),
		slots:  closedSlots(f.files),
		phase:  uint(f.handles.Add(1)),
	}
}

// CgroupOf is like Cgroup, for the cgroup that has the given id: another one that has taken its place before the first
// Read is not read.
func (f *FS) CgroupOf(id ID, cgroup string) *Cgroup {
	c := f.Cgroup(cgroup)
	c.id = id
	return c
}

func closedSlots(n int) []int32 {
	s := make([]int32, n)
	for i := range s {
		s[i] = slotClosed
	}
	return s
}

func exists(elem ...string) bool {
	_, err := os.Stat(filepath.Join(elem...))
	return err == nil
}

// shareOfDescriptors returns a quarter of the descriptors that this process may have, which may have two receivers. A host of 200 containers needs some
// 3,000 to 4,000; past the bound a file is opened for each read.
func shareOfDescriptors() int64 {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur < 2 {
		return 0
	}
	return int64(min(lim.Cur, 1<<20) / 4)
}

// clockTick returns the unit of cpuacct.stat, 1/USER_HZ seconds.
func clockTick() time.Duration {
	const atClkTck, usual = 17, 100
	hz := uint64(usual)
	if aux, err := unix.Auxv(); err == nil {
		for _, a := range aux {
			if uint64(a[0]) == atClkTck && a[1] != 0 {
				hz = uint64(a[1])
			}
		}
	}
	return time.Second / time.Duration(hz)
}
