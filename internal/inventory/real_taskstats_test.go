// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/delayacct"
)

// starveEnv makes TestStarve the process of which TestRealTaskstats counts the delays.
const starveEnv = "INVENTORY_TEST_STARVE"

// TestStarve runs processes that take turns on one CPU, 25 in each of four rows, and one that goes on. It says the pid of that
// one, how long the others have waited for their CPU, and how long it has itself.
func TestStarve(t *testing.T) {
	if os.Getenv(starveEnv) == "" {
		t.Skip("is run by others")
	}
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n')
	const rows, each = 4, 25
	waits, end := make(chan time.Duration), make(chan struct{})
	spinner := exec.Command("sh", "-c", "while :; do :; done")
	spinner.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // of the thread, which stays
	started := make(chan error)
	for row := range rows {
		go func() {
			takeOneCPU(t)
			if row == 0 {
				started <- spinner.Start()
			}
			for range each {
				waits <- waitOfOne(t)
			}
			<-end // a thread that ends would take what it has waited with it
		}()
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	var sum time.Duration
	for range rows * each {
		sum += <-waits
	}
	fmt.Println(spinner.Process.Pid, sum.Nanoseconds(), waitedFor(t, os.Getpid()).Nanoseconds())
	_, _ = in.ReadString('\n')
	_ = spinner.Process.Kill()
	_ = spinner.Wait()
	close(end)
}

// takeOneCPU keeps the thread, and the processes that it begins, to one CPU.
func takeOneCPU(t *testing.T) {
	runtime.LockOSThread()
	var all, one unix.CPUSet
	err := unix.SchedGetaffinity(0, &all)
	for cpu := 0; one.Count() == 0 && cpu < 1024; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := errors.Join(err, unix.SchedSetaffinity(0, &one)); err != nil {
		t.Error(err)
	}
}

// waitOfOne runs a process and returns how long it has waited: it has ended, but is not reaped.
func waitOfOne(t *testing.T) (waited time.Duration) {
	cmd := exec.Command("sh", "-c", "j=0; while [ $j -lt 16000 ]; do j=$((j+1)); done")
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return 0
	}
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Error(err)
	}
	waited = waitedFor(t, cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return waited
}

// waitedFor is how long the threads of a process have waited for a CPU so far.
func waitedFor(t *testing.T, pid int) (waited time.Duration) {
	t.Helper()
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if len(names) == 0 {
		t.Errorf("no threads of %d", pid)
	}
	for _, name := range names {
		var ran, wait int64
		b, err := os.ReadFile(name)
		if err == nil {
			_, err = fmt.Sscan(string(b), &ran, &wait)
		}
		if err != nil {
			t.Error(err)
		}
		waited += time.Duration(wait)
	}
	return waited
}

// openRealTaskstats is an inventory of one container, without our kernel programs.
func openRealTaskstats(t *testing.T, name string) *Inventory {
	t.Helper()
	k := kernelWithoutTasks{&fakeKernel{now: time.Now, done: make(chan struct{})}, host{}.Taskstats}
	inv := openWithout(t, Options{
		CgroupRoot: "/sys/fs/cgroup",
		Include:    []*regexp.Regexp{regexp.MustCompile("^" + name + "$")},
		Keep:       30 * time.Second,
	}, k, time.Now)
	for _, f := range inv.Status().Features {
		if f.Name != FeatureTaskstats || f.Err == nil {
			continue
		}
		if os.Getenv("EBPFCONTAINER_REQUIRE_ROOT_TESTS") == "1" {
			t.Fatal(f.Err)
		}
		if errors.Is(f.Err, delayacct.ErrNotSupported) || errors.Is(f.Err, delayacct.ErrNotPermitted) {
			t.Skip(f.Err)
		}
		t.Fatal(f.Err)
	}
	return inv
}

// startStarve starts TestStarve in a container, and lets it go on when the inventory knows it.
func startStarve(t *testing.T, rc *realContainer, inv *Inventory) (cmd *exec.Cmd, in io.Writer, out io.Reader) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe", "-test.run=^TestStarve$")
	cmd.Env = append(os.Environ(), starveEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	for _, dir := range rc.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the process is known", func() bool { known, _ := inv.knows(cmd.Process.Pid); return known })
	if _, err := io.WriteString(stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
	return cmd, stdin, stdout
}

// knows tells whether a process is a container's, and whether its end is known.
func (inv *Inventory) knows(pid int) (known, over bool) {
	inv.taskstats.mu.Lock()
	defer inv.taskstats.mu.Unlock()
	p := inv.taskstats.known[uint32(pid)]
	return p != nil, p != nil && !p.over.IsZero()
}

// 100 processes of some 50 ms that are gone when somebody looks, and two that are not.
func TestRealTaskstats(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skipf("needs a shell: %v", err)
	}
	rc := newRealContainer(t)
	rc.make()
	inv := openRealTaskstats(t, rc.name)
	cmd, in, out := startStarve(t, rc, inv)
	var spinner int
	var short, own int64
	if _, err := fmt.Fscan(out, &spinner, &short, &own); err != nil {
		t.Fatal(err)
	}
	c, _ := find(t, inv, rc.name)
	living := c.Tasks.Delays[DelayCPU].V // the records of the last ones may not have come
	least := time.Duration(short + own)
	spun := waitedFor(t, spinner)
	if _, err := io.WriteString(in, "end\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end is known, and with it that of the others", func() bool { _, over := inv.knows(cmd.Process.Pid); return over })
	c, _ = find(t, inv, rc.name)
	got, want := c.Tasks.Delays[DelayCPU].V, least+spun
	t.Logf("%v, while two lived %v: the 100 say %v, their parent %v, the one that spins %v", got, living, time.Duration(short), time.Duration(own), spun)
	if got < want*9/10 || got > want*11/10 || time.Duration(short) < time.Second || living < want*8/10 {
		t.Errorf("got %v, the processes say %v", got, want)
	}
	if got := inv.Status().TasksUnaccounted; got != 0 {
		t.Errorf("%d unaccounted", got)
	}
	rc.remove()
}
