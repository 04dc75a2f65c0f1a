// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// taskProgramName is looked for in PATH before testdata/tasks.c is compiled.
const taskProgramName = "ebpfcontainer-test-tasks"

// taskProgram is a file that this process has open until its end.
var taskProgram = sync.OnceValues(func() (string, error) {
	if name, err := exec.LookPath(taskProgramName); err == nil {
		return name, nil
	}
	dir, err := os.MkdirTemp("", "bpf-tasks-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "tasks")
	if out, err := exec.Command("cc", "-O1", "-pthread", "-o", name, "testdata/tasks.c").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cc: %w %s", err, out)
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	return fmt.Sprintf("/proc/self/fd/%d", fd), err
})

// program is a process of a test.
type program struct {
	t              testing.TB
	cmd            *exec.Cmd
	in             io.WriteCloser
	out            *bufio.Reader
	began, started time.Time // before and after it was
}

// runTasks starts testdata/tasks.c, which enters c by itself and then begins anew, or skips the test.
func runTasks(t testing.TB, c cgroup, args ...string) *program {
	t.Helper()
	name, err := taskProgram()
	if err != nil {
		t.Skip("needs a C compiler: ", err)
	}
	return startProgram(t, exec.Command(name, append(append([]string{}, c.dirs...), args...)...))
}

// runTask is runTasks with this test binary, see runTaskChild.
func runTask(t testing.TB, c cgroup, attr *syscall.SysProcAttr, args ...string) *program {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append(append([]string{}, c.dirs...), args...)...)
	cmd.Env = append(os.Environ(), childEnv+"=task")
	cmd.SysProcAttr = attr
	return startProgram(t, cmd)
}

func startProgram(t testing.TB, cmd *exec.Cmd) *program {
	t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, cmd: cmd, in: in, out: bufio.NewReader(out), began: time.Now()}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.started = time.Now()
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return p
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// next sends a line and reads the answer.
func (p *program) next() string {
	p.t.Helper()
	if _, err := p.in.Write([]byte("\n")); err != nil {
		p.t.Fatal(err)
	}
	return p.line()
}

func (p *program) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

// count reads how many processes the program has made.
func (p *program) count() (n uint64) {
	p.t.Helper()
	if _, err := fmt.Sscan(p.line(), &n); err != nil {
		p.t.Fatal(err)
	}
	return n
}

// schedstat is what all threads were on a CPU and have waited for one, once they all sleep.
func (p *program) schedstat(t *testing.T) (cpu, delay time.Duration) {
	t.Helper()
	eventually(t, "all threads sleep", func() bool {
		dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.pid()))
		if err != nil || len(dirs) == 0 {
			t.Fatal("no threads of ", p.pid(), err)
		}
		before, asleep := cpu+delay, true
		cpu, delay = 0, 0
		for _, dir := range dirs {
			stat, err := os.ReadFile(filepath.Join(dir, "stat"))
			if err != nil {
				t.Fatal(err)
			}
			schedstat, err := os.ReadFile(filepath.Join(dir, "schedstat"))
			if err != nil {
				t.Fatal(err)
			}
			c, d := told(t, string(schedstat))
			cpu, delay = cpu+c, delay+d
			asleep = asleep && strings.Contains(string(stat), ") S ")
		}
		return asleep && cpu+delay == before
	})
	return cpu, delay
}

// wait ends the input, and returns how the program ended and how long it lived at most.
func (p *program) wait() (syscall.WaitStatus, time.Duration) {
	p.t.Helper()
	_ = p.in.Close()
	_, _ = io.Copy(io.Discard, p.out)
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus), time.Since(p.began)
}

// move puts the program into the cgroups of c.
func (p *program) move(c cgroup) {
	p.t.Helper()
	for _, dir := range c.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(p.pid())), 0); err != nil {
			p.t.Fatal(err)
		}
	}
}

// runTaskChild is the child's side: DIR... COMMAND ARGUMENT... It enters the cgroups and begins anew without them.
func runTaskChild(args []string) {
	n := 0
	for ; n < len(args) && strings.HasPrefix(args[n], "/"); n++ {
		if err := os.WriteFile(filepath.Join(args[n], "cgroup.procs"), []byte("0"), 0); err != nil {
			failChild(err)
		}
	}
	if n > 0 {
		failChild(syscall.Exec("/proc/self/exe", append([]string{"task"}, args[n:]...), os.Environ()))
	}
	arg := 0
	if len(args) > 1 {
		arg, _ = strconv.Atoi(args[1])
	}
	switch args[0] {
	case "exit":
		os.Exit(arg)
	case "wait":
		fmt.Println(os.Getpid())
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "eat": // so many MiB
		eat(arg)
	case "feed": // a child that eats
		fmt.Println(runSelf("eat", args[1]))
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "join": // PID DIR... COMMAND ARGUMENT...: in the PID namespace of another process
		runtime.LockOSThread()
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/pid", arg), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWPID)
		}
		if err != nil {
			failChild(err)
		}
		fmt.Println(runSelf(args[2:]...))
	default:
		runIOChild(args)
	}
}

func failChild(err error) {
	fmt.Fprintln(os.Stderr, "child:", err)
	os.Exit(99)
}

// runSelf runs this program as a child and says how it ended.
func runSelf(args ...string) string {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return err.Error()
	}
	return "fine"
}

func eat(mib int) {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	var held [][]byte
	for range mib {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += os.Getpagesize() {
			b[i] = 1
		}
		held = append(held, b)
	}
	fmt.Println(len(held))
}
