// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// container is a cgroup of the shape that Docker gives, in each hierarchy of the host that tells containers apart.
type container struct {
	id   string // 64 hexadecimal digits, others for every run
	made []string
}

// makeContainer makes the cgroup. remove must be called, after an error too.
func makeContainer(name string) (*container, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "bench %s %d %d", name, os.Getpid(), time.Now().UnixNano()))
	c := &container{id: hex.EncodeToString(sum[:])}
	for _, dir := range cgroupDirs(c.path()) {
		for _, d := range []string{filepath.Dir(dir), dir} {
			switch err := os.Mkdir(d, 0o755); {
			case err == nil:
				c.made = append(c.made, d)
			case !errors.Is(err, fs.ErrExist):
				return c, err
			}
		}
	}
	return c, nil
}

// path is the name by which the collector knows the container.
func (c *container) path() string { return "/docker/" + c.id }

// remove waits for the kernel to let go of the last processes, which must have been killed.
func (c *container) remove() error {
	var errs []error
	for _, dir := range slices.Backward(c.made) {
		err := os.Remove(dir)
		for end := time.Now().Add(5 * time.Second); errors.Is(err, fs.ErrExist) || isBusy(err); err = os.Remove(dir) {
			if filepath.Base(dir) != c.id || time.Now().After(end) {
				break // a parent, in which others may have made cgroups meanwhile
			}
			time.Sleep(10 * time.Millisecond)
		}
		if filepath.Base(dir) == c.id && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// cgroupDirs is where a cgroup has its directories.
func cgroupDirs(path string) []string {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot + path}
	}
	var dirs []string
	for _, hierarchy := range []string{"cpu", "cpuacct", "memory", "pids", "blkio", "systemd", "unified"} {
		if dir := filepath.Join(cgroupRoot, hierarchy); isDir(dir) {
			dirs = append(dirs, dir+path)
		}
	}
	return dirs
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// inside gives the arguments of a bench that runs words in the container, and in a network namespace: that of a process,
// or a new one if there is none.
func (c *container) inside(netns *child, words ...string) []string {
	return insideCgroup(c.path(), netns, words...)
}

// outside is inside of no container: such sockets are nobody's.
func outside(netns *child, words ...string) []string { return insideCgroup("", netns, words...) }

func insideCgroup(path string, netns *child, words ...string) []string {
	ns := newNetns
	if netns != nil {
		ns = fmt.Sprintf("/proc/%d/ns/net", netns.cmd.Process.Pid)
	}
	return append([]string{"enter", strings.Join(cgroupDirs(path), ":"), ns}, words...)
}
