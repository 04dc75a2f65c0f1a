// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
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
	made := uint64(lanes)
	for _, p := range all {
		made += p.count()
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
	t.Logf("%.0f exits/s; CPU %v, of the cgroup %v; %+v", float64(made)/took.Seconds(), u.CPU, want, s)
	if u.ProcessesEnded != made || u.TasksEnded != made {
		t.Errorf("%d processes, %d tasks ended, want %d", u.ProcessesEnded, u.TasksEnded, made)
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

// TestKnownTasksFull: times come when tasks end, and are right at last. The process of two that end together may count twice.
func TestKnownTasksFull(t *testing.T) {
	h := findHost(t)
	tr := openSmall(t, map[string]uint32{"known_tasks": 1})
	c := h.makeCgroup(t, "unknown")
	p := runTasks(t, c, "burn", "50", "2", "1000")
	cpu, _ := told(t, p.line())
	p.wait()
	u, want := usageOf(t, tr, c), cgroupCPU(t, c)
	if u.ProcessesEnded < 51 || u.ProcessesEnded > 101 || u.CPU < cpu || u.CPU > want {
		t.Errorf("%+v, want CPU between %v and %v", u, cpu, want)
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
