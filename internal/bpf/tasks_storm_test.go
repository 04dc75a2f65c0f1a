// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestStormOfExits: all are counted, and nothing is left of them in the kernel.
func TestStormOfExits(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	c := h.makeCgroup(t, "storm")
	const lanes, n = 2, 10_000
	before := knownTasks(t, tr)
	began := time.Now()
	var all []*program
	for range lanes {
		all = append(all, runTasks(t, c, "storm", fmt.Sprint(n)))
	}
	stop := watchUsage(t, tr, c)
	for _, p := range all {
		p.wait()
	}
	stop()
	took := time.Since(began)
	want := cgroupCPU(t, c)
	var u Usage
	eventually(t, "all CPU time is counted", func() bool {
		u = usageOf(t, tr, c)
		return isNear(u.CPU, want, 0.01, 0)
	})
	s := tr.Stats()
	t.Logf("%.0f exits/s; CPU %v, of the cgroup %v; %+v", lanes*n/took.Seconds(), u.CPU, want, s)
	if u.ProcessesEnded != lanes*(n+1) || u.TasksEnded != lanes*(n+1) {
		t.Errorf("%d processes, %d tasks ended, want %d", u.ProcessesEnded, u.TasksEnded, lanes*(n+1))
	}
	if s.TasksUnaccounted != 0 || s.TasksUnknown != 0 || s.ExitsLost != 0 {
		t.Errorf("lost: %+v", s)
	}
	eventually(t, "the kernel has let go of them", func() bool { return knownTasks(t, tr) < before+n/20 })
}

// knownTasks counts the entries of the programs' own table.
func knownTasks(t *testing.T, tr *Tracer) (n int) {
	t.Helper()
	var key uint64
	var value taskKnownTask
	it := tr.tasks.objs.KnownTasks.Iterate()
	for it.Next(&key, &value) {
		n++
	}
	return n
}

// openSmall opens a Tracer of tasks alone with tables of another size.
func openSmall(t *testing.T, maxEntries map[string]uint32) *Tracer {
	t.Helper()
	spec, err := taskSpec(Options{LegacyController: findHost(t).controller()})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range maxEntries {
		spec.Maps[name].MaxEntries = n
	}
	tasks, err := startTasks(spec)
	if err != nil {
		t.Fatal(err)
	}
	tr := &Tracer{tasks: tasks}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// TestUsagesFull: what has no place is counted as lost.
func TestUsagesFull(t *testing.T) {
	h := findHost(t)
	other, c := h.makeCgroup(t, "first"), h.makeCgroup(t, "second")
	first := runTasks(t, other, "daemon", "0")
	first.line()
	tr := openSmall(t, map[string]uint32{"usages": 1})
	runTasks(t, other, "exit", "0").wait()
	runTasks(t, c, "storm", "100").wait()
	first.wait()
	if s := tr.Stats(); s.TasksUnaccounted < 100 || s.UsagesMax != 1 {
		t.Errorf("%+v", s)
	}
}

// TestKnownTasksFull: times come when tasks end, and are right at last.
func TestKnownTasksFull(t *testing.T) {
	h := findHost(t)
	tr := openSmall(t, map[string]uint32{"known_tasks": 1})
	c := h.makeCgroup(t, "unknown")
	p := runTasks(t, c, "burn", "50", "2", "1000")
	cpu, _ := told(t, p.line())
	p.wait()
	if u := usageOf(t, tr, c); u.ProcessesEnded != 51 || !isNear(u.CPU, cpu, 0.2, 0) {
		t.Errorf("%+v, want CPU %v", u, cpu)
	}
	if s := tr.Stats(); s.TasksUnknown < 100 || s.TasksUnaccounted != 0 {
		t.Errorf("%+v", s)
	}
}

// TestExitsFull: what nobody reads in time is counted; the totals are right.
func TestExitsFull(t *testing.T) {
	h := findHost(t)
	tr := openSmall(t, map[string]uint32{"exit_events": uint32(os.Getpagesize())})
	c := h.makeCgroup(t, "unread")
	const n = 100
	for range n {
		runTasks(t, c, "exit", "1").wait()
	}
	u, s := usageOf(t, tr, c), tr.Stats()
	if u.Others != n || u.Exits[ExitError] != n || s.ExitsLost == 0 || s.ExitsLost >= n {
		t.Errorf("begun %d, exits %v, lost %d", u.Others, u.Exits, s.ExitsLost)
	}
	read := uint64(0)
	done := make(chan error, 1)
	all := make(chan struct{})
	go func() {
		done <- tr.ProcessExits(func(ProcessExit) {
			if read++; read == n-s.ExitsLost {
				close(all)
			}
		})
	}()
	select {
	case <-all:
	case <-time.After(10 * time.Second):
		t.Error("not all exits were told")
	}
	if err := errors.Join(tr.Close(), <-done, tr.ReadUsages(func(*Usage) { t.Error("read when closed") })); err != nil {
		t.Error(err)
	}
}

const delayAccountingName = "/proc/sys/kernel/task_delayacct"

// accountDelays switches delay accounting on for the time of the test.
func accountDelays(t *testing.T) {
	t.Helper()
	was, err := os.ReadFile(delayAccountingName)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no switch for delay accounting: older than Linux 5.14, or without it")
	}
	if err == nil {
		err = os.WriteFile(delayAccountingName, []byte("1"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(delayAccountingName, was, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestBlockIODelay: processes that wait for the disk, against field 42 of their /proc/self/stat.
func TestBlockIODelay(t *testing.T) {
	h := findHost(t)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("direct I/O: ", err)
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		t.Fatal(err)
	}
	accountDelays(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	for _, lanes := range []int{1, 4} {
		c := h.makeCgroup(t, fmt.Sprint("blkio", lanes))
		const processes, life = 5, 200 * time.Millisecond
		before := tr.Stats().DelayAnomalies
		var all []*program
		for range lanes {
			all = append(all, runTasks(t, c, "read", fmt.Sprint(processes), fmt.Sprint(life.Milliseconds()), name))
		}
		var slept, waited time.Duration
		var absurd int
		for _, p := range all {
			var one [3]int
			if _, err := fmt.Sscan(p.line(), &one[0], &one[1], &one[2]); err != nil {
				t.Fatal(err)
			}
			p.wait()
			slept += time.Duration(one[0]) * time.Microsecond
			waited += time.Duration(one[1]) * time.Microsecond
			absurd += one[2]
		}
		got, anomalies := usageOf(t, tr, c).Delays[DelayBlockIO], tr.Stats().DelayAnomalies-before
		t.Logf("%d lanes: waited %v; slept %v; %d processes told %v, %d what cannot be; %d anomalies", lanes, got, slept,
			lanes*processes-absurd, waited, absurd, anomalies)
		if now, err := os.ReadFile(delayAccountingName); err != nil || string(now) != "1\n" {
			t.Skipf("delay accounting was switched off meanwhile: %q, %v", now, err)
		}
		if slept < time.Duration(lanes)*processes*life/4 {
			t.Skip("the disk is too fast, or not one")
		}
		if float64(got) > 1.05*float64(slept) {
			t.Errorf("waited %v, but slept %v", got, slept)
		}
		if absurd == 0 && !isNear(got, waited, 0.1, 0) {
			t.Errorf("waited %v, told %v", got, waited)
		}
		if anomalies < uint64(absurd) {
			t.Errorf("%d anomalies, want %d", anomalies, absurd)
		}
	}
}

// BenchmarkReadUsages is a pass over tasks that are alive and, as most are, idle, and the reading of the table.
func BenchmarkReadUsages(b *testing.B) {
	for _, n := range []int{100, 2000, 10_000} {
		b.Run(fmt.Sprint("tasks=", n), func(b *testing.B) {
			tr := openForBench(b, Options{})
			for left := n; left > 0; left -= 1000 {
				runTasks(b, cgroup{dirs: benchCgroup(b, left)}, "steps", fmt.Sprint(min(left, 1000)), "1").line()
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := tr.ReadUsages(func(*Usage) {}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/task")
		})
	}
}

// benchCgroup makes a cgroup in the unified hierarchy.
func benchCgroup(b *testing.B, n int) []string {
	b.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(root, fmt.Sprintf("bpf-bench-tasks-%d-%d", os.Getpid(), n))
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			for end := time.Now().Add(5 * time.Second); os.Remove(dir) != nil && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
		})
		return []string{dir}
	}
	b.Skip("no unified hierarchy")
	return nil
}

// BenchmarkTaskPrograms is what each program costs at a fork, exec or exit in a container.
func BenchmarkTaskPrograms(b *testing.B) {
	tr := openForBench(b, Options{})
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Skip(err)
	}
	defer stats.Close()
	dirs := benchCgroup(b, 0)
	for b.Loop() {
		for range 100 {
			runTasks(b, cgroup{dirs: dirs}, "storm", "50").wait()
		}
	}
	o := &tr.tasks.objs
	for _, p := range []*ebpf.Program{o.OnFork, o.OnExec, o.OnAttach, o.OnExit, o.OnFree} {
		info, err := p.Info()
		if err != nil {
			b.Fatal(err)
		}
		ran, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(ran.Runtime.Nanoseconds())/float64(max(ran.RunCount, 1)), strings.TrimPrefix(info.Name, "on_")+"-ns/run")
	}
}
