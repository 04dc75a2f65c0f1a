// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// childEnv makes the test binary burn CPU for the time that it says, after making one connection to childAddr.
const childEnv, childAddr = "INVENTORY_TEST_BURN", "INVENTORY_TEST_ADDR"

func burn() {
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n') // by now we are in the cgroup
	if addr := os.Getenv(childAddr); addr != "" {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
		}
	}
	d, _ := time.ParseDuration(os.Getenv(childEnv))
	runtime.LockOSThread()
	for {
		var ru syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
		if time.Duration(ru.Utime.Nano()+ru.Stime.Nano()) >= d {
			return
		}
	}
}

// realContainer is a cgroup as Docker would make it, in each hierarchy of this machine.
type realContainer struct {
	t    *testing.T
	name string
	dirs []string
}

func newRealContainer(t *testing.T) *realContainer {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes cgroups and loads BPF programs")
	}
	return &realContainer{t: t, name: fmt.Sprintf("/docker/%064x", time.Now().UnixNano())}
}

func (c *realContainer) make() {
	c.t.Helper()
	const root = "/sys/fs/cgroup"
	hierarchies := []string{root}
	if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
		hierarchies = nil
		for _, h := range []string{"unified", "memory", "cpu", "cpuacct", "pids", "blkio"} {
			if _, err := os.Stat(filepath.Join(root, h)); err == nil {
				hierarchies = append(hierarchies, filepath.Join(root, h))
			}
		}
	}
	c.dirs = nil
	for _, h := range hierarchies {
		parent := filepath.Join(h, "docker")
		if err := os.Mkdir(parent, 0o755); err == nil {
			c.t.Cleanup(func() { _ = os.Remove(parent) })
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory"), 0) // v2 only
		}
		dir := filepath.Join(h, c.name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			c.t.Fatal(err)
		}
		c.dirs = append(c.dirs, dir)
		c.t.Cleanup(func() { _ = os.Remove(dir) })
	}
}

// run burns CPU in the cgroup and returns how much the kernel says it was.
func (c *realContainer) run(cpu time.Duration, addr string) time.Duration {
	c.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+cpu.String(), childAddr+"="+addr)
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	for _, dir := range c.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(cmd.Process.Pid)), 0); err != nil {
			c.t.Fatal(err)
		}
	}
	_, _ = in.Write([]byte("\n"))
	if err := cmd.Wait(); err != nil {
		c.t.Fatal(err)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// remove does as runtimes do: a process of its own, started after the container's has ended, removes the cgroups.
func (c *realContainer) remove() {
	c.t.Helper()
	if err := exec.Command("/proc/self/exe", "-test.run=^$").Run(); err != nil {
		c.t.Fatal(err)
	}
	for _, dir := range c.dirs {
		eventually(c.t, "remove "+dir, func() bool { return syscall.Rmdir(dir) == nil })
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 10 s: %s", what)
}

func openReal(t *testing.T, names ...string) *Inventory {
	t.Helper()
	var include []*regexp.Regexp
	for _, name := range names {
		include = append(include, regexp.MustCompile("^"+name+"$"))
	}
	inv, err := Open(t.Context(), Options{
		CgroupRoot: "/sys/fs/cgroup",
		Include:    include,
		Keep:       30 * time.Second,
		Network:    NetworkOptions{Enabled: true},
		Logger:     zaptest.NewLogger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := inv.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, f := range inv.Status().Features {
		switch f.Name {
		case FeatureHostNetwork, FeatureDelayAccounting:
		case FeatureConntrack, bpf.FeatureNetworkNAT: // modules that are loaded when somebody uses them
			if f.Err != nil && !errors.Is(f.Err, errors.ErrUnsupported) {
				t.Fatalf("%s: %v", f.Name, f.Err)
			}
		default:
			if f.Err != nil {
				t.Fatalf("%s: %v", f.Name, f.Err)
			}
		}
	}
	return inv
}

func find(t *testing.T, inv *Inventory, name string) (Container, bool) {
	t.Helper()
	s, err := inv.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.Containers {
		if c.Name == name {
			return c, true
		}
	}
	return Container{}, false
}

func TestRealContainerAppearsWithinASecond(t *testing.T) {
	rc := newRealContainer(t)
	inv := openReal(t, rc.name)
	rc.make()
	made := time.Now()
	eventually(t, "container found", func() bool { _, ok := find(t, inv, rc.name); return ok })
	if d := time.Since(made); d > time.Second {
		t.Errorf("took %v", d)
	}
}

// Nobody takes a snapshot while the container lives.
func TestRealContainerBetweenTwoCollections(t *testing.T) {
	rc := newRealContainer(t)
	inv := openReal(t, rc.name)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var truth time.Duration
	for range 3 { // restarts under its name: totals go on
		rc.make()
		truth += rc.run(300*time.Millisecond, l.Addr().String())
		rc.remove()
	}
	eventually(t, "container gone", func() bool { c, ok := find(t, inv, rc.name); return ok && c.Phase == Gone })

	c, _ := find(t, inv, rc.name)
	if got := c.Stats.CPU.Usage.V; got < truth*9/10 || got > truth*11/10 {
		t.Errorf("CPU usage %v, the processes say %v", got, truth)
	}
	if c.Stats.Memory.Peak.V == 0 { // v2 has it since Linux 5.19
		t.Errorf("no memory peak: %+v", c.Stats.Memory)
	}
	if len(c.Edges) != 1 || c.Edges[0].Connects != 3 || c.Edges[0].Destination != l.Addr().String() {
		t.Errorf("edges %+v, want 3 connects to %v", c.Edges, l.Addr())
	}
}
