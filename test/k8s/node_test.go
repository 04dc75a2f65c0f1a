// SPDX-License-Identifier: Apache-2.0

//go:build linux

package k8s

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	nodeName   = "node-1"
	nodeIP     = "198.18.255.2"
	// serviceIP is where pods find the API server. Without kube-proxy it must be an address of the node.
	serviceIP = "198.18.2.1"
)

// node is a network namespace and a mount namespace with the host's file systems, but other directories in the places
// where the parts of Kubernetes keep their state.
type node struct {
	dir    string // on the host; dir/run is the node's /run and so on
	netns  string
	cgroup string   // path of the cgroup that all pods are below
	holder *process // keeps the mount namespace
}

// makeNode makes the namespaces and ends all that lives in them when the test ends.
func makeNode(t *testing.T) *node {
	t.Helper()
	n := &node{dir: makeDir(t), netns: fmt.Sprintf("k8s%d", os.Getpid()), cgroup: fmt.Sprintf("/k8s-test-%d", os.Getpid())}
	run(t, "ip", "netns", "add", n.netns)
	t.Cleanup(func() {
		n.sweep(t)
		if _, err := output(exec.Command("ip", "netns", "delete", n.netns)); err != nil {
			t.Error(err)
		}
	})
	n.makeCgroups(t)
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", serviceIP + "/32", "dev", "lo"},
		{"link", "add", "k8s0", "type", "veth", "peer", "name", "k8s1"},
		{"link", "set", "k8s1", "up"},
		{"link", "set", "k8s0", "up"},
		{"addr", "add", nodeIP + "/30", "dev", "k8s0"},
		{"route", "add", "default", "via", "198.18.255.1"},
	} {
		run(t, "ip", append([]string{"-netns", n.netns}, args...)...)
	}

	cmd := exec.Command("sleep", "3600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	n.holder = start(t, "holder", cmd)
	for _, dir := range []string{"/run", "/var/lib", "/var/log"} {
		n.bind(t, n.makeDir(t, dir), dir)
	}
	// The kubelet sets these for the whole host; here it writes to files of ours.
	for _, name := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
		"kernel/keys/root_maxbytes",
	} {
		sysctl := filepath.Join("/proc/sys", name)
		file := filepath.Join(n.makeDir(t, "sysctl"), filepath.Base(name))
		b, err := os.ReadFile(sysctl)
		if err == nil {
			err = os.WriteFile(file, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		n.bind(t, file, sysctl)
	}
	run(t, "nsenter", n.mountNamespace(), "mount", "--make-rshared", "/") // as systemd does, for volumes
	return n
}

// makeDir makes a directory in the node's own part of the host's file system.
func (n *node) makeDir(t *testing.T, path string) string {
	t.Helper()
	dir := filepath.Join(n.dir, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (n *node) bind(t *testing.T, from, to string) {
	t.Helper()
	run(t, "nsenter", n.mountNamespace(), "mount", "--bind", from, to)
}

func (n *node) mountNamespace() string {
	return fmt.Sprintf("--mount=/proc/%d/ns/mnt", n.holder.cmd.Process.Pid)
}

// command returns a command that runs on the node.
func (n *node) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + n.netns, n.mountNamespace(), "--", name}, args...)...)
}

// makeCgroups makes the cgroup in each hierarchy. In a v2 tree the controllers are passed down.
func (n *node) makeCgroups(t *testing.T) {
	t.Helper()
	for _, dir := range n.cgroups(t) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, controller := range []string{"+cpu", "+cpuset", "+io", "+memory", "+pids"} {
			if f, err := os.OpenFile(filepath.Join(filepath.Dir(dir), "cgroup.subtree_control"), os.O_WRONLY, 0); err == nil {
				_, _ = f.WriteString(controller) // the kubelet says better what is missing
				_ = f.Close()
			}
		}
	}
}

// cgroups returns the directories of the cgroup, one for each hierarchy.
func (n *node) cgroups(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat(cgroupRoot + "/cgroup.controllers"); err == nil {
		return []string{cgroupRoot + n.cgroup}
	}
	hierarchies, err := filepath.Glob(cgroupRoot + "/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range hierarchies {
		hierarchies[i] = filepath.Dir(file) + n.cgroup
	}
	return hierarchies
}

// sweep ends what the kubelet and containerd left running: all that is in the network namespace or in a pod's cgroup.
func (n *node) sweep(t *testing.T) {
	t.Helper()
	pids, err := output(exec.Command("ip", "netns", "pids", n.netns))
	if err != nil {
		t.Error(err)
	}
	for _, pid := range strings.Fields(pids) {
		kill(pid)
	}
	for _, dir := range n.cgroups(t) {
		if err := removeCgroups(dir); err != nil {
			t.Errorf("remove cgroup: %v", err)
		}
	}
}

// removeCgroups kills what runs in a cgroup and those below it, and removes them.
func removeCgroups(root string) error {
	var dirs []string // outer ones first
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what is gone is gone
	})
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var left error
		for _, dir := range slices.Backward(dirs) {
			b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for pid := range strings.FieldsSeq(string(b)) {
				kill(pid)
			}
			// EBUSY until the kernel has let go of the processes.
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				left = err
			}
		}
		if left == nil || time.Now().After(deadline) {
			return left
		}
	}
}

// kill kills the process whose id is written in pid.
func kill(pid string) {
	if n, err := strconv.Atoi(pid); err == nil && n > 1 {
		_ = syscall.Kill(n, syscall.SIGKILL)
	}
}

// makeDir makes a directory with a path so short that sockets fit in, and removes it when the test ends.
func makeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ebpfcontainer-k8s-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
