// SPDX-License-Identifier: Apache-2.0

package delayacct

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// The processes take turns on one CPU. Each says how long it has waited just before it ends; what it has left behind when
// it has ended says it too, and the record is made between the two.
func TestStarvedProcessesAddUp(t *testing.T) {
	needShell(t)
	each := 500
	if testing.Short() {
		each = 50
	}
	w := watch(t, Options{})
	cpu := someCPU(t)
	lives := make(chan []life)
	const atOnce = 4
	for range atOnce {
		go func() { lives <- starve(t, cpu, each) }()
	}
	var all []life
	for range atOnce {
		all = append(all, <-lives...)
	}
	if len(all) != atOnce*each {
		t.Fatal("not all have lived")
	}
	lived := map[uint32]life{} // under load a process id may come again
	for _, l := range all {
		sum := lived[l.pid]
		lived[l.pid] = life{l.pid, sum.before + l.before, sum.after + l.after}
	}
	told, elapsed, left := map[uint32]time.Duration{}, time.Duration(0), 0
	for _, e := range w.wait(t, len(all), func(e *Exit) bool { return lived[e.PID].pid != 0 }) {
		elapsed += e.Elapsed
		left += e.Delays.Clamp(e.Elapsed)
		told[e.PID] += e.Delays.CPU.Time
	}
	var sum, before, after time.Duration
	for pid, l := range lived {
		if told[pid] < l.before || told[pid] > l.after {
			t.Errorf("%d waited for %v, before it ended for %v, after for %v", pid, told[pid], l.before, l.after)
		}
		sum += told[pid]
		before += l.before
		after += l.after
	}
	t.Logf("%d processes lived for %v and waited for %v; before they ended %v, after %v; left out %d",
		len(all), elapsed, sum, before, after, left)
	if !within(sum, after, 0.05) || sum < elapsed/4 || left > 0 {
		t.Error("not within 5 %, or they did not starve, or some were left out")
	}
	if w.Lost() != 0 || w.Malformed() != 0 {
		t.Errorf("lost %d, malformed %d", w.Lost(), w.Malformed())
	}
}

// life is how long a process has waited for a CPU, by itself right before it ended and in all.
type life struct {
	pid           uint32
	before, after time.Duration
}

// starve runs so many processes on one CPU, one after the other.
func starve(t *testing.T, cpu, n int) []life {
	runtime.LockOSThread() // and never unlocked: the processes inherit its CPU, and it ends
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Error(err)
		return nil
	}
	var lives []life
	for range n {
		cmd := exec.Command("sh", "-c", "j=0; while [ $j -lt 8000 ]; do j=$((j+1)); done; read ran waited rest </proc/self/schedstat; echo $waited")
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return nil
		}
		pid := cmd.Process.Pid
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		stat, statErr := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid)) // it has ended, but is not reaped
		var ran, before, after int64
		if err := errors.Join(err, statErr, cmd.Wait()); err != nil {
			t.Error(err)
			return nil
		}
		fmt.Sscan(out.String(), &before)
		fmt.Sscan(string(stat), &ran, &after)
		lives = append(lives, life{uint32(pid), time.Duration(before), time.Duration(after)})
	}
	return lives
}

func TestThreads(t *testing.T) {
	w := watch(t, Options{})
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=threads", endAtOnce, "GOMAXPROCS=8")
	cpu := someCPU(t)
	out := make(chan []byte)
	go func() { // on a thread of its own, which the child inherits its CPU from
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(cpu)
		_ = unix.SchedSetaffinity(0, &set)
		b, _ := cmd.Output()
		out <- b
	}()
	var ns, threads int64
	if b := <-out; len(b) == 0 {
		t.Fatal("the child says nothing")
	} else if _, err := fmt.Sscan(string(b), &ns, &threads); err != nil {
		t.Fatal(err)
	}
	said, pid := time.Duration(ns), uint32(cmd.Process.Pid)

	group := w.wait(t, 1, func(e *Exit) bool { return e.Group && e.TGID == pid })[0]
	tasks := w.wait(t, int(threads), func(e *Exit) bool { return !e.Group && e.TGID == pid })
	var sum Delays
	last := 0
	for i := range tasks {
		sum.Add(&tasks[i].Delays)
		if tasks[i].Flags&LastOne != 0 {
			last++
		}
	}
	t.Logf("%d threads waited for %v, their group for %v; they themselves say %d and %v",
		len(tasks), sum.CPU.Time, group.Delays.CPU.Time, threads, said)
	if !within(sum.CPU.Time, said, 0.05) {
		t.Error("not within 5 %")
	}
	if group.Delays.CPU != sum.CPU || last != 1 || group.PID != pid {
		t.Errorf("group %+v, %d last ones", group, last)
	}
}

func TestShortLives(t *testing.T) {
	w := watch(t, Options{})
	needShell(t)
	for _, tt := range []struct {
		script  string
		status  uint32
		flags   Flags
		atLeast time.Duration
	}{
		{"exec sleep 0.005", 0, LastOne, 5 * time.Millisecond},
		{"exit 3", 3 << 8, LastOne, 0},
		{"kill -KILL $$", 9, LastOne | Killed, 0},
	} {
		cmd := exec.Command("sh", "-c", tt.script)
		began := time.Now()
		_ = cmd.Run()
		took := time.Since(began)
		e := w.wait(t, 1, func(e *Exit) bool { return int(e.PID) == cmd.Process.Pid })[0]
		comm := "sh"
		if tt.atLeast > 0 {
			comm = "sleep"
		}
		if e.Status != tt.status || e.Flags&(LastOne|Killed) != tt.flags || e.Comm() != comm || e.Group ||
			e.TGID != e.PID || int(e.PPID) != os.Getpid() || e.UID != 0 {
			t.Errorf("%s: %+v %q", tt.script, e, e.Comm())
		}
		if e.Elapsed < tt.atLeast || e.Elapsed > took || e.Begin.Sub(began).Abs() > 2*time.Second {
			t.Errorf("%s: elapsed %v of %v, begin %v", tt.script, e.Elapsed, took, e.Begin)
		}
		if !e.Delays.CPU.OK || e.Delays.CPU.Time > e.Elapsed {
			t.Errorf("%s: %+v in %v", tt.script, e.Delays.CPU, e.Elapsed)
		}
	}
}

func TestBlockIO(t *testing.T) {
	needTaskstats(t)
	if _, err := exec.LookPath("dd"); err != nil {
		t.Skip("needs dd")
	}
	file := filepath.Join(t.TempDir(), "data")
	if out, err := exec.Command("dd", "if=/dev/urandom", "of="+file, "bs=1M", "count=16", "oflag=direct").CombinedOutput(); err != nil {
		t.Skipf("needs direct I/O: %v: %s", err, out)
	}
	for _, on := range []string{"1", "0"} {
		t.Run(on, func(t *testing.T) {
			setSwitch(t, on)
			w := watch(t, Options{})
			cmd := exec.Command("dd", "if="+file, "of=/dev/null", "bs=4k", "iflag=direct", "status=none")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := cmd.Process.Pid
			if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
				t.Error(err)
			}
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // it has ended, but is not reaped
			if err := errors.Join(err, cmd.Wait()); err != nil {
				t.Fatal(err)
			}
			_, after, _ := strings.Cut(string(stat), ") ")
			var ticks time.Duration
			fmt.Sscan(strings.Fields(after)[42-3], &ticks) // delayacct_blkio_ticks of proc(5)
			said := ticks * 10 * time.Millisecond

			e := w.wait(t, 1, func(e *Exit) bool { return int(e.PID) == pid })[0]
			got := e.Delays.BlockIO
			t.Logf("switch %s: %+v in %v, /proc says %v", on, got, e.Elapsed, said)
			if got.OK != (on == "1") || got.OK && (got.Time == 0 || (got.Time-said).Abs() > 20*time.Millisecond) {
				t.Errorf("block I/O delay %+v, /proc says %v", got, said)
			}
			if left := e.Delays.Clamp(e.Elapsed); (left > 0) != (got.Time > e.Elapsed+e.Elapsed>>10+time.Millisecond) {
				t.Errorf("clamp left out %d", left)
			}
			if !e.Delays.CPU.OK {
				t.Error("CPU delay not told")
			}
		})
	}
}

// 20,000 processes as fast as a shell can make them.
func TestNothingIsLost(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 2_000
	}
	w := watch(t, Options{})
	s := startShell(t, w)
	began := time.Now()
	s.forks(n, ":")
	s.lines()
	took := time.Since(began)
	exits := w.wait(t, n, childOf(s.pid()))
	t.Logf("%d processes in %v; lost %d", len(exits), took, w.Lost())
	if len(exits) != n || w.Lost() != 0 || w.Overflows() != 0 || w.Malformed() != 0 {
		t.Errorf("%d of %d records; lost %d, overflows %d, malformed %d", len(exits), n, w.Lost(), w.Overflows(), w.Malformed())
	}
}

func TestOverflowIsCounted(t *testing.T) {
	const n = 1000
	w := watch(t, Options{ReceiveBuffer: 64 << 10})
	if got := w.ReceiveBuffer(); got != 64<<10 {
		t.Errorf("receive buffer %d", got)
	}
	s := startShell(t, w)
	held := make(chan struct{})
	w.hold.Store(&held)
	s.forks(n, ":")
	s.lines()
	w.hold.Store(nil)
	close(held)

	for end := time.Now().Add(5 * time.Second); w.Lost() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // until all that waited are received the kernel throws away what comes
	received := w.count(childOf(s.pid()))
	s.forks(1, "exit 7")
	s.lines()
	w.wait(t, 1, func(e *Exit) bool { return e.Status == 7<<8 }) // it goes on
	t.Logf("%d received, %d lost in %d overflows", received, w.Lost(), w.Overflows())
	if w.Overflows() == 0 || w.lost.Load() != w.Lost() || received >= n {
		t.Errorf("%d overflows, told of %d lost, %d received", w.Overflows(), w.lost.Load(), received)
	}
	if received+int(w.Lost()) < n { // others end too
		t.Errorf("%d received and %d lost of %d", received, w.Lost(), n)
	}
}

func TestCloseTwiceAndBeforeReceive(t *testing.T) {
	needTaskstats(t)
	l, err := Listen(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := l.Receive(func(*Exit) { t.Error("a record") }); err != nil {
		t.Error(err)
	}
}

// The kernel accepts a listener of another network namespace, and sends it nothing.
func TestOtherNetworkNamespace(t *testing.T) {
	needTaskstats(t)
	type opened struct {
		f   *os.File
		err error
	}
	ch := make(chan opened)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ch <- opened{err: err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		ch <- opened{f, err}
	}()
	ns := <-ch
	if ns.err != nil {
		t.Skipf("needs a network namespace: %v", ns.err)
	}
	defer ns.f.Close()
	l, err := Listen(Options{NetNS: int(ns.f.Fd())})
	if !errors.Is(err, ErrNotSupported) {
		t.Errorf("%v, want that it is not supported", err)
	}
	if err == nil {
		_ = l.Close()
	}
	own, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	l, err = Listen(Options{NetNS: int(own.Fd())})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestRefusals(t *testing.T) {
	needTaskstats(t)
	for _, tt := range []struct {
		name string
		attr syscall.SysProcAttr
		want string
	}{
		{"nobody", syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}, "not permitted: "},
		{"process namespace", syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, "not supported: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), childEnv+"=listen", endAtOnce)
			cmd.SysProcAttr = &tt.attr
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Skipf("needs a process %s: %v", tt.name, err)
			}
			t.Logf("%s", out)
			if !strings.HasPrefix(string(out), tt.want) {
				t.Errorf("%q, want %q", out, tt.want)
			}
		})
	}
}

// The offsets are those of the running kernel.
func TestOffsets(t *testing.T) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skipf("needs the kernel's types: %v", err)
	}
	var st *btf.Struct
	if err := spec.TypeByName("taskstats", &st); err != nil {
		t.Skipf("needs the kernel's struct taskstats: %v", err)
	}
	offsets := map[string]int{}
	for _, m := range st.Members {
		offsets[m.Name] = int(m.Offset.Bytes())
	}
	if gap := offsets["blkio_count"] - offsets["cpu_count"]; gap != 16 {
		t.Skip("version 15")
	}
	for name, off := range map[string]int{
		"version": offVersion, "ac_exitcode": offStatus, "ac_flag": offFlags, "cpu_count": offCPU, "blkio_count": offBlockIO,
		"swapin_count": offSwapIn, "ac_comm": offComm, "ac_uid": offUID, "ac_pid": offPID, "ac_ppid": offPPID,
		"ac_btime": offBegin, "ac_etime": offElapsed, "ac_utime": offUser, "ac_stime": offSystem,
		"freepages_count": offReclaim, "thrashing_count": offThrashing, "ac_btime64": offBegin64, "compact_count": offCompact,
		"ac_tgid": offTGID, "wpcopy_count": offWPCopy, "irq_count": offIRQ,
	} {
		if got, has := offsets[name]; has && got != off {
			t.Errorf("%s at %d, want %d", name, got, off)
		}
		if got, has := offsets[strings.Replace(name, "_count", "_delay_total", 1)]; has && strings.HasSuffix(name, "_count") && got != off+8 {
			t.Errorf("%s: total at %d, want %d", name, got, off+8)
		}
	}
}
