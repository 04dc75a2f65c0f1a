// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroup is a cgroup in all hierarchies of the host that count: the v1 controllers and the v2 tree beside them, or the
// one v2 tree.
type cgroup struct{ path string }

// makeCgroup makes the cgroup. When the test ends it is removed with what still runs in it, and with the parents that
// had to be made.
func makeCgroup(t *testing.T, path string) cgroup {
	t.Helper()
	c := cgroup{path: path}
	var made []string
	t.Cleanup(func() {
		for _, dir := range slices.Backward(made) {
			if !slices.Contains(c.dirs(), dir) {
				_ = os.Remove(dir) // a parent, in which others may have made cgroups meanwhile
			} else if err := removeCgroupDir(dir); err != nil {
				t.Errorf("remove cgroup: %v", err)
			}
		}
	})
	for _, dir := range c.dirs() {
		if err := makeCgroupDir(dir, &made); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// makeCgroupDir makes one directory and its parents, and appends those that were not there to made. In a v2 tree the
// controllers are passed down.
func makeCgroupDir(dir string, made *[]string) error {
	if dir == cgroupRoot {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := makeCgroupDir(parent, made); err != nil {
		return err
	}
	switch err := os.Mkdir(dir, 0o755); {
	case err == nil:
		*made = append(*made, dir)
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	for _, controller := range []string{"+cpu", "+memory", "+io", "+pids"} {
		// Only v2 has the file, and not every parent may be written to: statistics are then missing, which the
		// assertions say better.
		if f, err := os.OpenFile(filepath.Join(parent, "cgroup.subtree_control"), os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteString(controller)
			_ = f.Close()
		}
	}
	return nil
}

// dirs returns the directory of the cgroup in each hierarchy.
func (c cgroup) dirs() []string {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot + c.path}
	}
	var dirs []string
	for _, hierarchy := range []string{"cpu", "cpuacct", "memory", "pids", "blkio", "systemd", "unified"} {
		if _, err := os.Stat(filepath.Join(cgroupRoot, hierarchy)); err == nil {
			dirs = append(dirs, filepath.Join(cgroupRoot, hierarchy)+c.path)
		}
	}
	return dirs
}

// inside returns the command that runs command in the cgroup, from its first instruction on, with the load program's
// help.
func (c cgroup) inside(load string, command ...string) []string {
	return append([]string{load, "enter", strings.Join(c.dirs(), ":")}, command...)
}

// cpuSeconds reads the CPU time of the cgroup.
func (c cgroup) cpuSeconds() (float64, error) {
	if b, err := os.ReadFile(cgroupRoot + "/cpuacct" + c.path + "/cpuacct.usage"); err == nil {
		ns, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
		return ns / 1e9, err
	}
	us, err := c.statField("cpu.stat", "usage_usec")
	return us / 1e6, err
}

// rssBytes reads the resident memory of the cgroup as the collector defines it: anonymous and mapped file pages.
func (c cgroup) rssBytes() (float64, error) {
	fields := []string{"total_rss", "total_mapped_file"}
	if _, err := os.Stat(cgroupRoot + "/memory"); err != nil {
		fields = []string{"anon", "file_mapped"}
	}
	sum := 0.0
	for _, field := range fields {
		v, err := c.statField("memory.stat", field)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// statField reads one value of a file of "name value" lines, from the v1 memory hierarchy or the v2 tree.
func (c cgroup) statField(file, field string) (float64, error) {
	b, err := os.ReadFile(cgroupRoot + "/memory" + c.path + "/" + file)
	if err != nil {
		b, err = os.ReadFile(cgroupRoot + c.path + "/" + file)
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == field {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("no %s in %s of %s", field, file, c.path)
}

// removeNewParents removes, when the test ends, the parents of a cgroup path that are not there yet: container runtimes
// make them, in every hierarchy, and leave them behind.
func removeNewParents(t *testing.T, path string) {
	t.Helper()
	hierarchies, err := filepath.Glob(cgroupRoot + "/*")
	if err != nil {
		t.Fatal(err)
	}
	var missing []string // outer ones first
	for _, hierarchy := range append(hierarchies, cgroupRoot) {
		for i, r := range path {
			if dir := filepath.Join(hierarchy, path[:i]); r == '/' && i > 0 {
				if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
					missing = append(missing, dir)
				}
			}
		}
	}
	t.Cleanup(func() {
		for _, dir := range slices.Backward(missing) {
			_ = os.Remove(dir) // others may use it by now
		}
	})
}

// removeCgroupDir kills what runs in a cgroup and removes its directory.
func removeCgroupDir(dir string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		killAll(dir)
		// EBUSY until the kernel has let go of the processes.
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// killAll kills the processes of one cgroup.
func killAll(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for field := range strings.FieldsSeq(string(b)) {
		kill(field)
	}
}

// kill kills the process whose id is written in pid.
func kill(pid string) {
	if n, err := strconv.Atoi(pid); err == nil && n > 1 {
		_ = syscall.Kill(n, syscall.SIGKILL)
	}
}
