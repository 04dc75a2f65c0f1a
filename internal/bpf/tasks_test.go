// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// usageOf returns the usage of one cgroup.
func usageOf(t testing.TB, tr *Tracer, c cgroup) (found Usage) {
	t.Helper()
	if err := tr.ReadUsages(func(u *Usage) {
		if u.CgroupV2 == c.v2 && u.CgroupV1 == c.v1 {
			found = *u
		}
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// told reads what tasks.c says: how long its processes were on a CPU and how long they waited for one.
func told(t testing.TB, line string) (cpu, delay time.Duration) {
	t.Helper()
	if _, err := fmt.Sscan(line, &cpu, &delay); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return cpu, delay
}

// isNear tells that got is want within a part of it and slack.
func isNear(got, want time.Duration, part float64, slack time.Duration) bool {
	return math.Abs(float64(got-want)) <= part*float64(want)+float64(slack)
}

// cgroupCPU is what the kernel itself has summed up.
func cgroupCPU(t *testing.T, c cgroup) time.Duration {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dirs[0], "cpu.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var usec int64
		if n, _ := fmt.Sscanf(line, "usage_usec %d", &usec); n == 1 {
			return time.Duration(usec) * time.Microsecond
		}
	}
	t.Fatalf("no usage_usec in %s", text)
	return 0
}

// watchUsage reads the usage of c until stop is called, and complains when anything falls.
func watchUsage(t *testing.T, tr *Tracer, c cgroup) (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		var last Usage
		for {
			u := usageOf(t, tr, c)
			if u.CPU < last.CPU || u.Delays[DelayCPU] < last.Delays[DelayCPU] || u.ProcessesEnded < last.ProcessesEnded {
				t.Errorf("%+v after %+v", u, last)
			}
			last = u
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	return func() { close(end); wg.Wait() }
}

// TestUsageOfShortProcesses: processes that nobody can have looked at while they were alive.
func TestUsageOfShortProcesses(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	for _, tt := range []struct {
		name                       string
		lanes, processes, threads  int // a lane is a process that makes the others, one after the other
		burn                       time.Duration
		processesEnded, tasksEnded uint64
	}{
		{"50 ms", 5, 40, 1, 10 * time.Millisecond, 205, 205},
		{"5 ms", 2, 150, 1, 2500 * time.Microsecond, 302, 302},
		{"threads", 2, 5, 20, 4 * time.Millisecond, 12, 202},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := h.makeCgroup(t, "short")
			var lanes []*program
			for range tt.lanes {
				p := runTasks(t, c, "burn", fmt.Sprint(tt.processes), fmt.Sprint(tt.threads), fmt.Sprint(tt.burn.Microseconds()))
				var one unix.CPUSet
				one.Set(0) // so that they wait
				if err := unix.SchedSetaffinity(p.pid(), &one); err != nil {
					t.Fatal(err)
				}
				lanes = append(lanes, p)
			}
			stop := watchUsage(t, tr, c)
			var cpu, delay time.Duration
			for _, p := range lanes {
				c, d := told(t, p.line())
				cpu, delay = cpu+c, delay+d
				p.wait()
			}
			stop()
			want := cgroupCPU(t, c)
			var u Usage
			eventually(t, "all CPU time is counted", func() bool { // the kernel takes a while to let go of tasks
				u = usageOf(t, tr, c)
				return isNear(u.CPU, want, 0.005, 0)
			})
			t.Logf("CPU %v, told %v, of the cgroup %v; waited %v, told %v: %.4f", u.CPU, cpu, want,
				u.Delays[DelayCPU], delay, float64(u.Delays[DelayCPU])/float64(delay))
			if u.CPU < cpu {
				t.Errorf("CPU %v, told %v", u.CPU, cpu)
			}
			// After they have told they still wait, on a busy machine for longer. What is lost would show below.
			untold := float64(u.CPU-cpu) / float64(cpu)
			if got := float64(u.Delays[DelayCPU]) / float64(delay); got < 0.95 || got > 1.25+2*untold {
				t.Errorf("waited %v, told %v", u.Delays[DelayCPU], delay)
			}
			if u.ProcessesEnded != tt.processesEnded || u.TasksEnded != tt.tasksEnded {
				t.Errorf("%d processes and %d tasks ended", u.ProcessesEnded, u.TasksEnded)
			}
		})
	}
}

// ownV1 is this process's own cgroup in the v1 hierarchy, 0 on a pure v2 host.
func (h host) ownV1(t *testing.T) uint64 {
	t.Helper()
	if h.legacy == "" {
		return 0
	}
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if _, path, ok := strings.Cut(sc.Text(), ":memory:"); ok {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(h.legacy, path), &st); err != nil {
				t.Fatal(err)
			}
			return st.Ino
		}
	}
	t.Fatal("no memory cgroup")
	return 0
}

// TestUsageIsSplitByMoves: what a process has used and waited before it moves is its old cgroup's, also after its end.
func TestUsageIsSplitByMoves(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	type pair struct{ from, to cgroup }
	all := func(t *testing.T) pair { return pair{h.makeCgroup(t, "from"), h.makeCgroup(t, "to")} }
	roots := cgroup{dirs: []string{h.unified}}
	if h.legacy != "" {
		roots.dirs = append(roots.dirs, h.legacy)
	}
	for _, tt := range []struct {
		name    string
		threads int
		pair    func(t *testing.T) pair
	}{
		{"one thread", 1, all},
		{"10 threads", 10, all},
		{"100 threads", 100, all},
		{"more threads than a move splits", 600, all},
		{"v2 only", 10, func(t *testing.T) pair {
			p := all(t)
			p.from.dirs, p.from.v1 = p.from.dirs[:1], h.ownV1(t)
			p.to.dirs, p.to.v1 = p.to.dirs[:1], h.ownV1(t)
			return p
		}},
		{"v1 only", 10, func(t *testing.T) pair {
			if h.legacy == "" {
				t.Skip("no v1 hierarchy")
			}
			p := all(t)
			p.from.dirs = append([]string{h.unified}, p.from.dirs[1])
			p.from.v2 = 1
			p.to.dirs, p.to.v2 = p.to.dirs[1:], 1
			return p
		}},
		{"from the host", 10, func(t *testing.T) pair { return pair{roots, h.makeCgroup(t, "to")} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := tt.pair(t)
			const burn = 5 * time.Millisecond
			run := runTasks(t, p.from, "steps", fmt.Sprint(tt.threads), fmt.Sprint(burn.Microseconds()/int64(1+tt.threads/50)))
			before, delayBefore := told(t, run.line())
			cpu1, delay1 := run.schedstat(t)
			run.move(p.to)
			_ = usageOf(t, tr, p.to) // there may be more threads than are split at once
			run.next()
			cpu2, delay2 := run.schedstat(t)
			cpu2, delay2 = cpu2-cpu1, delay2-delay1
			cpu1, delay1 = cpu1-before, delay1-delayBefore
			check := func(when string, isOver bool) {
				t.Helper()
				slack := 2*time.Millisecond + before // to enter the old cgroup
				for _, half := range []struct {
					of         string
					c          cgroup
					cpu, delay time.Duration
				}{{"old", p.from, cpu1, delay1}, {"new", p.to, cpu2, delay2}} {
					u := usageOf(t, tr, half.c)
					t.Logf("%s: %s cgroup: CPU %v, told %v; waited %v, told %v", when, half.of, u.CPU, half.cpu, u.Delays[DelayCPU], half.delay)
					if half.c.v2 == 0 {
						continue // the host's own
					}
					cpu, delay := u.CPU, u.Delays[DelayCPU]
					if isOver && half.of == "new" { // threads that are killed run, and wait for that, once more
						cpu, delay = min(cpu, half.cpu), min(delay, half.delay)
					}
					if !isNear(cpu, half.cpu, 0.05, slack) || !isNear(delay, half.delay, 0.05, slack) {
						t.Errorf("%s: the %s cgroup has %v and %v", when, half.of, u.CPU, u.Delays[DelayCPU])
					}
				}
			}
			check("alive", false)
			run.wait()
			check("after its end", true)
			if u := usageOf(t, tr, p.from); p.from.v2 != 0 && u.ProcessesEnded != 0 {
				t.Errorf("%d processes have ended in the old cgroup", u.ProcessesEnded)
			}
			if u := usageOf(t, tr, p.to); u.ProcessesEnded != 1 || u.TasksEnded != uint64(tt.threads) {
				t.Errorf("%d processes, %d tasks have ended in the new cgroup", u.ProcessesEnded, u.TasksEnded)
			}
		})
	}
}

// TestUsageOfOlderProcesses: all that a process has used before there was a Tracer is its cgroup's, and counted once.
func TestUsageOfOlderProcesses(t *testing.T) {
	h := findHost(t)
	c := h.makeCgroup(t, "older")
	p := runTasks(t, c, "steps", "10", "5000")
	before, _ := told(t, p.line())
	cpu, _ := p.schedstat(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	u := usageOf(t, tr, c)
	if most, _ := p.schedstat(t); u.CPU < cpu || u.CPU > most { // it may have had something to do before it waits
		t.Errorf("alive: %v, told %v, then %v", u.CPU, cpu, most)
	}
	p.next()
	cpu, _ = p.schedstat(t)
	p.wait()
	u = usageOf(t, tr, c)
	if !isNear(u.CPU, cpu, 0.05, before+2*time.Millisecond) {
		t.Errorf("after its end: %v, told %v", u.CPU, cpu)
	}
	if u.Others != 0 || u.Exits[ExitCompleted] != 1 {
		t.Errorf("%d begun, exits %v, want none and one", u.Others, u.Exits)
	}
	if told := tr.DelaysTold(); !told[DelayCPU] || !told[DelayThrashing] {
		t.Errorf("delays told: %v", told)
	}
}

// TestTakeUsage: the entry is gone, and what comes later begins anew.
func TestTakeUsage(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	c := h.makeCgroup(t, "take")
	runTask(t, c, nil, "exit", "3").wait()
	u := Usage{CgroupV2: c.v2, CgroupV1: c.v1}
	if err := tr.TakeUsage(&u); err != nil || u.Exits[ExitError] != 1 || u.CPU == 0 {
		t.Errorf("got %+v, %v", u, err)
	}
	if u := usageOf(t, tr, c); u != (Usage{}) {
		t.Errorf("still there: %+v", u)
	}
	if s := tr.Stats(); s.UsagesMax == 0 || s.UsagesMax < s.Usages {
		t.Errorf("%d usages of %d", s.Usages, s.UsagesMax)
	}
}
