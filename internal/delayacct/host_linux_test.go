// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary do what it names and end.
const childEnv = "DELAYACCT_TEST_CHILD"

// endAtOnce keeps the race detector from sleeping for a second at a child's end.
const endAtOnce = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "listen":
		listenChild()
	case "threads":
		threadsChild()
	}
}

// needTaskstats skips the test where this process may not use taskstats, or fails it where it must.
func needTaskstats(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: taskstats answers nobody else")
	}
	r, err := OpenReader()
	if err == nil {
		defer r.Close()
		_, err = r.Thread(os.Getpid())
	}
	switch {
	case err == nil:
	case os.Getenv("EBPFCONTAINER_REQUIRE_ROOT_TESTS") == "1":
		t.Fatalf("required by EBPFCONTAINER_REQUIRE_ROOT_TESTS: %v", err)
	default:
		t.Skipf("taskstats: %v", err)
	}
}

func needShell(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("needs a shell")
	}
}

// watcher keeps the records of this process's children and of those of its shells. All others are dropped at once.
type watcher struct {
	*Listener
	parents sync.Map // pid as uint32 -> nothing
	hold    atomic.Pointer[chan struct{}]
	lost    atomic.Uint64

	mu    sync.Mutex
	exits []Exit
}

func watch(t testing.TB, o Options) *watcher {
	t.Helper()
	needTaskstats(t)
	w := &watcher{}
	w.parents.Store(uint32(os.Getpid()), nil)
	o.OnLost = func(n uint64) { w.lost.Add(n) }
	l, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	w.Listener = l
	done := make(chan error, 1)
	go func() { done <- l.Receive(w.take) }()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Receive goes on after Close")
		}
	})
	return w
}

func (w *watcher) take(e *Exit) {
	if ch := w.hold.Load(); ch != nil {
		<-*ch
	}
	if _, mine := w.parents.Load(e.PPID); !mine && !e.Group {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Group { // tells no parent: it follows the record of its last task
		if n := len(w.exits); n == 0 || w.exits[n-1].TGID != e.TGID {
			return
		}
	}
	w.exits = append(w.exits, *e)
}

// wait waits for n records that are wanted.
func (w *watcher) wait(t testing.TB, n int, want func(*Exit) bool) []Exit {
	t.Helper()
	var found []Exit
	for end := time.Now().Add(10 * time.Second); w.count(want) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d records after 10 s (%d lost)", w.count(want), n, w.Lost())
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.exits {
		if want(&w.exits[i]) {
			found = append(found, w.exits[i])
		}
	}
	return found
}

func (w *watcher) count(want func(*Exit) bool) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for i := range w.exits {
		if want(&w.exits[i]) {
			n++
		}
	}
	return n
}

func childOf(pid int) func(*Exit) bool {
	return func(e *Exit) bool { return !e.Group && e.PPID == uint32(pid) }
}

// shell runs what it is told, one line after the other.
type shell struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// startShell starts a shell whose children w keeps.
func startShell(t testing.TB, w *watcher) *shell {
	t.Helper()
	needShell(t)
	s := &shell{t: t, cmd: exec.Command("sh")}
	s.cmd.Stderr = os.Stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.parents.Store(uint32(s.pid()), nil)
	t.Cleanup(func() {
		s.in.Close()
		if err := s.cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *shell) pid() int { return s.cmd.Process.Pid }

func (s *shell) tell(format string, args ...any) {
	s.t.Helper()
	if _, err := fmt.Fprintf(s.in, format+"\n", args...); err != nil {
		s.t.Fatal(err)
	}
}

// lines gives what the shell says until it says "done".
func (s *shell) lines() []string {
	s.t.Helper()
	var lines []string
	for s.out.Scan() {
		if s.out.Text() == "done" {
			return lines
		}
		lines = append(lines, s.out.Text())
	}
	s.t.Fatalf("shell: %v", s.out.Err())
	return nil
}

// forks tells the shell to do something in as many processes, one after the other.
func (s *shell) forks(n int, what string) {
	s.t.Helper()
	s.tell("i=0; while [ $i -lt %d ]; do (%s); i=$((i+1)); done; echo done", n, what)
}

// someCPU is one that this process may use.
func someCPU(t testing.TB) int {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !set.IsSet(cpu) {
		cpu++
	}
	return cpu
}

// setSwitch sets the host's switch of delay accounting for the duration of the test. The lock on it keeps away others
// that do the same.
func setSwitch(t *testing.T, value string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join("/proc", switchFile), os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs to switch delay accounting: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	before := make([]byte, 1)
	if _, err := f.ReadAt(before, 0); err != nil {
		t.Fatal(err)
	}
	set := func(s string) {
		if _, err := f.WriteAt([]byte(s+"\n"), 0); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { set(string(before)) })
	set(value)
}

func within(got, want time.Duration, share float64) bool {
	return (got - want).Abs().Seconds() <= share*want.Seconds()
}

// threadsChild lets six threads compete for a CPU, and says how long they and the threads of the Go runtime waited.
func threadsChild() {
	var wg sync.WaitGroup
	ready := make(chan struct{})
	for range 6 {
		wg.Add(1)
		go func() {
			runtime.LockOSThread()
			wg.Done()
			<-ready
			for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); { // burns
			}
			wg.Done()
			select {}
		}()
	}
	wg.Wait()
	wg.Add(6)
	close(ready)
	wg.Wait()
	sum, threads := int64(0), 0
	files, _ := filepath.Glob("/proc/self/task/*/schedstat")
	for _, name := range files {
		b, _ := os.ReadFile(name)
		ns, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
		sum += ns
		threads++
	}
	fmt.Println(sum, threads)
	os.Exit(0)
}

func listenChild() {
	l, err := Listen(Options{})
	switch {
	case errors.Is(err, ErrNotPermitted):
		fmt.Println("not permitted:", err)
	case errors.Is(err, ErrNotSupported):
		fmt.Println("not supported:", err)
	default:
		fmt.Println(err)
	}
	if err == nil {
		_ = l.Close()
	}
}
