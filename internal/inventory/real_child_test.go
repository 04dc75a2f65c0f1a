// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// trafficEnv makes the test binary a process that does what its standard input says, one command a line, and answers each
// with a line.
const trafficEnv = "INVENTORY_TEST_TRAFFIC"

// enterEnv makes it go into these cgroups first, and begin its program anew there, as runtimes do. That program is told how
// much CPU it had used, and how long waited for one, before it came there.
const (
	enterEnv       = "INVENTORY_TEST_ENTER"
	cpuBeforeEnv   = "INVENTORY_TEST_CPU_BEFORE"
	delayBeforeEnv = "INVENTORY_TEST_DELAY_BEFORE"
)

func obey(in io.Reader, out io.Writer) {
	if dirs := os.Getenv(enterEnv); dirs != "" {
		fmt.Fprintln(out, enter(strings.Split(dirs, ":")))
		return
	}
	listeners := map[string]net.Listener{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		words := strings.Fields(lines.Text())
		fmt.Fprintln(out, answerTo(words[0], words[1:], listeners))
	}
}

func answerTo(command string, args []string, listeners map[string]net.Listener) string {
	switch command {
	case "hello":
		return "hello"
	case "dial":
		c, err := net.DialTimeout("tcp", args[0], 10*time.Second)
		if err != nil {
			return err.Error()
		}
		_ = c.Close()
		return "ok"
	case "listen":
		network := "tcp"
		if strings.HasPrefix(args[0], "0.0.0.0:") {
			network = "tcp4" // Go takes it for both families
		}
		var config net.ListenConfig
		config.SetMultipathTCP(false) // the kernel keeps the queue of such a listener from us when it is older than we are
		l, err := config.Listen(context.Background(), network, args[0])
		if err != nil {
			return err.Error()
		}
		listeners[args[0]] = l
		go serve(l)
		return "ok"
	case "close":
		return fmt.Sprint(listeners[args[0]].Close())
	case "flood":
		return flood(args)
	}
	return answerOfTask(command, args)
}

// answerOfTask is for what a process does that is not traffic.
func answerOfTask(command string, args []string) string {
	switch command {
	case "burn":
		return burnOnFirstCPU(args[0])
	case "delay":
		before, _ := time.ParseDuration(os.Getenv(delayBeforeEnv))
		return fmt.Sprint(delayOf("/proc/self/task/*") - before)
	case "before":
		return os.Getenv(cpuBeforeEnv)
	case "exit":
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	case "signal":
		n, _ := strconv.Atoi(args[0])
		_ = unix.Kill(os.Getpid(), unix.Signal(n))
		select {}
	case "eat": // so many MiB, as the one that the OOM killer will take
		n, _ := strconv.Atoi(args[0])
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
			return err.Error()
		}
		b, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err.Error()
		}
		for i := 0; i < len(b); i += os.Getpagesize() {
			b[i] = 1
		}
		return "full"
	case "have": // a child do it
		cmd := exec.Command("/proc/self/exe")
		cmd.Stdin = strings.NewReader(strings.Join(args, " ") + "\n")
		err := cmd.Run()
		return fmt.Sprint(cmd.Process.Pid, " ", err)
	}
	return "what?"
}

func enter(dirs []string) error {
	runtime.LockOSThread() // of all threads this one goes on
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
	}
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, enterEnv+"=") })
	return syscall.Exec("/proc/self/exe", os.Args, append(env,
		fmt.Sprint(cpuBeforeEnv, "=", time.Duration(ru.Utime.Nano()+ru.Stime.Nano())),
		fmt.Sprint(delayBeforeEnv, "=", delayOf("/proc/thread-self")),
	))
}

// burnOnFirstCPU uses so much of it in one thread.
func burnOnFirstCPU(how string) string {
	d, err := time.ParseDuration(how)
	if err != nil {
		return err.Error()
	}
	runtime.LockOSThread() // never unlocked: the thread stays on that CPU
	var all, first unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err.Error()
	}
	for cpu := 0; first.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			first.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &first); err != nil {
		return err.Error()
	}
	var now, began unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &began)
	for now = began; now.Nano()-began.Nano() < d.Nanoseconds(); {
		_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)
	}
	return "ok"
}

// delayOf is how long some threads have waited for a CPU.
func delayOf(pattern string) (sum time.Duration) {
	files, _ := filepath.Glob(pattern + "/schedstat")
	for _, name := range files {
		var ran, waited int64
		b, _ := os.ReadFile(name)
		if _, err := fmt.Sscan(string(b), &ran, &waited); err == nil {
			sum += time.Duration(waited)
		}
	}
	return sum
}

// serve accepts and closes after the peer.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // a peer that is stopped in between does not close
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
}

// flood connects to a closed port of so many addresses of loopback, and so many times to a listener.
func flood(args []string) string {
	var destinations, connects int
	if _, err := fmt.Sscan(strings.Join(args[1:], " "), &destinations, &connects); err != nil {
		return err.Error()
	}
	server := netip.MustParseAddrPort(args[0])
	for n := range destinations {
		addr := netip.AddrFrom4([4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)})
		if err := connectAndReset(netip.AddrPortFrom(addr, closedPort)); !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Sprintf("%s: %v", addr, err)
		}
		if n%(destinations/connects) == 0 {
			if err := connectAndReset(server); err != nil {
				return err.Error()
			}
		}
	}
	return "ok"
}

// closedPort is one on which nobody listens.
const closedPort = 9

// connectAndReset leaves no socket in TIME_WAIT.
func connectAndReset(to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
}

// realProcess obeys.
type realProcess struct {
	t       *testing.T
	cmd     *exec.Cmd
	pid     int
	in      io.WriteCloser
	answers *bufio.Scanner
}

// startProcess starts one in cgroups, and in a network namespace of its own if it is to have one.
func startProcess(t *testing.T, cgroups []string, ownNetns bool) *realProcess {
	t.Helper()
	var flags uintptr
	if ownNetns {
		flags = unix.CLONE_NEWNET
	}
	p := newProcess(t, flags)
	for _, dir := range cgroups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, p.pid), 0); err != nil {
			t.Fatal(err)
		}
	}
	p.want("hello", "hello")
	return p
}

// startMain starts one as runtimes do: it enters the cgroups and begins its program there. flags are those of clone.
func startMain(t *testing.T, cgroups []string, flags uintptr) *realProcess {
	t.Helper()
	return newProcess(t, flags, enterEnv+"="+strings.Join(cgroups, ":"))
}

func newProcess(t *testing.T, flags uintptr, env ...string) *realProcess {
	t.Helper()
	t.Setenv("GORACE", "atexit_sleep_ms=0") // with the race detector each process would take a second to end
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), trafficEnv+"=1"), env...)
	cmd.Stderr = os.Stderr
	if flags != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &realProcess{t: t, cmd: cmd, pid: cmd.Process.Pid, in: in, answers: bufio.NewScanner(out)}
}

// end gives a command by which it ends, and returns how much CPU the kernel says that it has used.
func (p *realProcess) end(format string, args ...any) time.Duration {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
	return p.wait()
}

// wait waits for its end.
func (p *realProcess) wait() time.Duration {
	p.t.Helper()
	for p.answers.Scan() {
		p.t.Fatalf("still alive: %s", p.answers.Text())
	}
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// do gives a command and returns the answer.
func (p *realProcess) do(format string, args ...any) string {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
	if !p.answers.Scan() {
		p.t.Fatalf("no answer: %v", p.answers.Err())
	}
	return p.answers.Text()
}

func (p *realProcess) want(answer, format string, args ...any) {
	p.t.Helper()
	if got := p.do(format, args...); !strings.Contains(got, answer) {
		p.t.Errorf("%s: got %q, want %q", fmt.Sprintf(format, args...), got, answer)
	}
}

// ip runs commands of iproute2, one a line, in the process's network namespace.
func (p *realProcess) ip(script string) {
	p.t.Helper()
	for line := range strings.Lines(script) {
		args := append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", p.pid), "ip"}, strings.Fields(line)...)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			p.t.Fatalf("ip %s: %v: %s", strings.TrimSpace(line), err, out)
		}
	}
}
