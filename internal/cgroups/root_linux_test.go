// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// needRoot opens the cgroups of this machine, or skips the test when it may not change them.
func needRoot(t testing.TB) *FS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	f, err := Open("/sys/fs/cgroup")
	if err != nil {
		t.Skipf("cgroups are not mounted here: %v", err)
	}
	return f
}

// makeCgroup makes a cgroup in every hierarchy that is read, those above it too. The test's end removes it.
func makeCgroup(t testing.TB, f *FS, path string) {
	t.Helper()
	for _, dir := range f.dirs {
		if err := os.MkdirAll(dir+path, 0o755); err != nil {
			t.Skipf("cgroups cannot be made here: %v", err)
		}
	}
	t.Cleanup(func() { removeCgroup(t, f, path) })
}

// removeCgroup removes a cgroup, and those above it when they are empty. Processes that were killed may take a moment to
// leave it.
func removeCgroup(t testing.TB, f *FS, path string) {
	t.Helper()
	for _, dir := range f.dirs {
		err := os.Remove(dir + path)
		for end := time.Now().Add(5 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
			err = os.Remove(dir + path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a cgroup is left: %v", err)
		}
		for p := filepath.Dir(path); p != "/" && os.Remove(dir+p) == nil; {
			p = filepath.Dir(p)
		}
	}
}

func testCgroup(name string) string {
	return fmt.Sprintf("/ebpfcontainer-test-%d-%s", os.Getpid(), name)
}

// burn runs a process inside the cgroup until done is true, and waits for its end.
func burn(t *testing.T, dirs []string, path string, done func() bool) {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read line; while :; do :; done")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for _, dir := range dirs {
		writeFile(t, dir+path+"/cgroup.procs", strconv.Itoa(cmd.Process.Pid))
	}
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatal("the condition never came true")
		}
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fileNumber returns the number of a file, or the one that follows key.
func fileNumber(t *testing.T, name, key string) uint64 {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, key); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no %q: %s", name, key, b)
	return 0
}

// controllerDir is the hierarchy of a v1 controller, "" when it is not mounted.
func controllerDir(f *FS, controller string) string {
	for _, dir := range f.dirs {
		for c := range strings.SplitSeq(filepath.Base(dir), ",") {
			if c == controller {
				return dir
			}
		}
	}
	return ""
}

func TestRootReadEqualsTheFiles(t *testing.T) {
	f := needRoot(t)
	path := testCgroup("read")
	makeCgroup(t, f, path)
	cpu, memory, pids := controllerDir(f, "cpu"), controllerDir(f, "memory"), controllerDir(f, "pids")
	if cpu != "" {
		writeFile(t, cpu+path+"/cpu.cfs_quota_us", "50000")
	}
	if memory != "" {
		writeFile(t, memory+path+"/memory.limit_in_bytes", strconv.Itoa(64<<20))
	}
	if pids != "" {
		writeFile(t, pids+path+"/pids.max", "77")
	}
	c := f.Cgroup(path)
	defer c.Close()
	var s Stats
	burn(t, f.dirs, path, func() bool {
		if err := c.Read(&s); err != nil {
			t.Fatal(err)
		}
		return s.CPU.Usage.V > 150*time.Millisecond && (pids == "" || s.PIDs.Current == Some[uint64](1))
	})
	if err := c.Read(&s); err != nil {
		t.Fatal(err)
	}

	if acct := controllerDir(f, "cpuacct"); acct != "" {
		checkEqual(t, "usage", time.Duration(fileNumber(t, acct+path+"/cpuacct.usage", "")), s.CPU.Usage)
		checkEqual(t, "user", f.tick*time.Duration(fileNumber(t, acct+path+"/cpuacct.stat", "user ")), s.CPU.User)
	} else {
		checkEqual(t, "usage", time.Microsecond*time.Duration(fileNumber(t, f.dirs[0]+path+"/cpu.stat", "usage_usec ")), s.CPU.Usage)
	}
	if sum := s.CPU.User.V + s.CPU.System.V; sum < s.CPU.Usage.V*3/4 || sum > s.CPU.Usage.V*5/4 {
		t.Errorf("user and system are %v together, usage is %v", sum, s.CPU.Usage.V)
	}
	if cpu != "" {
		checkEqual(t, "quota", 0.5, s.CPU.LimitCores)
		checkEqual(t, "throttled", time.Duration(fileNumber(t, cpu+path+"/cpu.stat", "throttled_time ")), s.CPU.Throttled)
		checkEqual(t, "periods", fileNumber(t, cpu+path+"/cpu.stat", "nr_periods "), s.CPU.Periods)
	}
	if memory != "" {
		checkEqual(t, "limit", 64<<20, s.Memory.Limit)
		checkEqual(t, "peak", fileNumber(t, memory+path+"/memory.max_usage_in_bytes", ""), s.Memory.Peak)
		checkEqual(t, "OOM kills", 0, s.Memory.Events.OOMKill)
	}
	if pids != "" {
		checkEqual(t, "pids", 0, s.PIDs.Current)
		checkEqual(t, "pids limit", 77, s.PIDs.Limit)
	}
}

func checkEqual[T comparable](t *testing.T, what string, want T, got Opt[T]) {
	t.Helper()
	if got != Some(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestRootPressureOfAnEmptyMirrorIsAbsent(t *testing.T) {
	f := needRoot(t)
	if f.Mode() != ModeHybrid {
		t.Skip("this is no hybrid host")
	}
	path := testCgroup("mirror")
	makeCgroup(t, f, path)
	if _, err := os.Stat(f.dirs[0] + path + "/cpu.pressure"); err != nil {
		t.Skipf("this kernel has pressure switched off: %v", err)
	}
	c := f.Cgroup(path)
	defer c.Close()
	var s Stats
	burn(t, f.dirs[1:], path, func() bool {
		if err := c.Read(&s); err != nil {
			t.Fatal(err)
		}
		return s.CPU.Usage.V > 20*time.Millisecond
	})
	if diff := cmp.Diff(Pressure{}, s.Pressure); diff != "" {
		t.Errorf("the v2 cgroup never had processes: (-want +got)\n%s", diff)
	}
	burn(t, f.dirs, path, func() bool {
		if err := c.Read(&s); err != nil {
			t.Fatal(err)
		}
		return s.Pressure.CPU.Some.OK
	})
	if err := c.Read(&s); err != nil || !s.Pressure.CPU.Some.OK {
		t.Errorf("pressure went away with the last process: %v, error %v", s.Pressure.CPU.Some, err)
	}
}

func TestRootReadOutlivesPressureSwitchedOff(t *testing.T) {
	f := needRoot(t)
	if !f.v2 {
		t.Skip("this host has no v2")
	}
	path := testCgroup("psi")
	makeCgroup(t, f, path)
	file := f.dirs[0] + path + "/cgroup.pressure"
	if _, err := os.Stat(file); err != nil {
		t.Skipf("cgroup.pressure needs Linux 6.1 with pressure switched on: %v", err)
	}
	c := f.Cgroup(path)
	defer c.Close()
	var s Stats
	read := func() {
		if err := c.Read(&s); err != nil {
			t.Fatal(err)
		}
	}
	burn(t, f.dirs, path, func() bool { read(); return s.Pressure.IO.Full.OK })
	writeFile(t, file, "0")
	if read(); s.Pressure != (Pressure{}) || !s.CPU.Usage.OK {
		t.Errorf("off: got %+v and usage %v", s.Pressure, s.CPU.Usage)
	}
	writeFile(t, file, "1")
	for range retryEvery {
		read()
	}
	if !s.Pressure.CPU.Some.OK || !s.Pressure.IO.Some.OK {
		t.Errorf("on again: got %+v", s.Pressure)
	}
}

func TestRootReadStaysWithItsCgroup(t *testing.T) {
	f := needRoot(t)
	path := testCgroup("stay")
	makeCgroup(t, f, path)
	c := f.Cgroup(path)
	var s Stats
	burn(t, f.dirs, path, func() bool {
		if err := c.Read(&s); err != nil {
			t.Fatal(err)
		}
		return s.CPU.Usage.V > 20*time.Millisecond
	})

	removeCgroup(t, f, path)
	makeCgroup(t, f, path) // another one
	for range 2 * retryEvery {
		if err := c.Read(&s); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got error %v, want %v", err, fs.ErrNotExist)
		}
		if s.CPU.Usage.OK || s.Memory.Usage.OK {
			t.Fatalf("got usage %v and memory %v of the cgroup that took its place", s.CPU.Usage, s.Memory.Usage)
		}
	}
	if n := f.open.Load(); n != 0 {
		t.Errorf("%d descriptors of a cgroup that is gone are kept", n)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	other := f.Cgroup(path)
	defer other.Close()
	if err := other.Read(&s); err != nil || !s.CPU.Usage.OK || s.CPU.Usage.V > 10*time.Millisecond {
		t.Errorf("the other one: usage %v, error %v", s.CPU.Usage, err)
	}
}

func TestRootReadOfACgroupThatIsHalfGone(t *testing.T) {
	f := needRoot(t)
	if f.mode == ModeUnified {
		t.Skip("a pure v2 host has one hierarchy")
	}
	path := testCgroup("half")
	makeCgroup(t, f, path)
	c := f.Cgroup(path)
	defer c.Close()
	var s Stats
	if err := c.Read(&s); err != nil || !s.CPU.Usage.OK || !s.Memory.Usage.OK {
		t.Fatalf("got %+v, %v", s, err)
	}
	if err := os.Remove(controllerDir(f, "memory") + path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Read(&s); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got error %v, want %v", err, fs.ErrNotExist)
		}
		if s.Memory.Usage.OK || !s.CPU.Usage.OK {
			t.Errorf("got memory %v, CPU %v, want the second alone", s.Memory.Usage, s.CPU.Usage)
		}
	}
}

// TestRootOwnPath checks that paths of /proc are those of Walk.
func TestRootOwnPath(t *testing.T) {
	f := needRoot(t)
	path := testCgroup("proc")
	makeCgroup(t, f, path)
	burn(t, f.dirs, path, func() bool {
		procs, err := os.ReadFile(f.dirs[len(f.dirs)-1] + path + "/cgroup.procs")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile("/proc/" + string(bytes.TrimSpace(procs)) + "/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), ":"+path+"\n") {
			t.Errorf("no %s in\n%s", path, text)
		}
		return true
	})
}
