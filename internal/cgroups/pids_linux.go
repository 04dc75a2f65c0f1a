// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxPIDs is how many process ids PIDs returns of one directory.
	maxPIDs = 32
	// maxPIDDirs is how many directories it looks into.
	maxPIDDirs = 64
	// maxPIDBytes is how much it reads of one file: the first ids are as good as the others.
	maxPIDBytes = 4096
)

// PIDs returns some processes of a cgroup, its descendants included, at most a few: enough to look at what all of them
// share. The ids are those of our own PID namespace; processes outside of it are left out. A cgroup that has vanished
// has none. The error matches fs.ErrNotExist when the hierarchy is not there.
func (f *FS) PIDs(h Hierarchy, cgroup string) ([]int, error) {
	return f.pids(h, cgroup, 1)
}

// Processes is PIDs for whoever wants to look at all of them: it returns the ids of atLeast processes where there are so many,
// and a few more.
func (f *FS) Processes(h Hierarchy, cgroup string, atLeast int) ([]int, error) {
	return f.pids(h, cgroup, atLeast)
}

func (f *FS) pids(h Hierarchy, cgroup string, atLeast int) ([]int, error) {
	for _, r := range f.walks {
		if r.hierarchy == h {
			return pidsBelow(filepath.Join(r.dir, cgroup), atLeast)
		}
	}
	return nil, fmt.Errorf("cgroup hierarchy %v: %w", h, fs.ErrNotExist)
}

func pidsBelow(dir string, atLeast int) ([]int, error) {
	var pids []int
	todo := []string{dir}
	for looked := 0; len(todo) > 0 && len(pids) < atLeast && looked < maxPIDDirs; looked++ {
		dir := todo[0]
		todo = todo[1:]
		found, err := readPIDs(filepath.Join(dir, "cgroup.procs"), max(maxPIDs, atLeast-len(pids)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, found...)
		if len(pids) >= atLeast {
			break
		}
		entries, err := os.ReadDir(dir)
		if err := unlessVanished(err); err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				todo = append(todo, filepath.Join(dir, e.Name()))
			}
		}
	}
	return pids, nil
}

// readPIDs reads the first ids of a cgroup.procs file.
func readPIDs(name string, limit int) ([]int, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, unlessVanished(err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxPIDBytes))
	// EOPNOTSUPP is the answer of a threaded cgroup, whose processes are listed in its parent.
	if err := unlessVanished(err); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, err
	}
	return parsePIDs(string(b), len(b) == maxPIDBytes, limit), nil
}

// parsePIDs reads the lines of cgroup.procs. 0 is a process outside of our PID namespace. The last line may be cut.
func parsePIDs(s string, cut bool, limit int) []int {
	if cut {
		s = s[:strings.LastIndexByte(s, '\n')+1]
	}
	var pids []int
	for line := range strings.Lines(s) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err == nil && pid > 0 && len(pids) < limit {
			pids = append(pids, pid)
		}
	}
	return pids
}
