// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/delayacct"
)

func TestTaskstatsOfProcesses(t *testing.T) {
	const s = 100 * time.Microsecond // so little that it need not be lived
	for _, tt := range []struct {
		name        string
		do          func(h *taskstatsHost) // process 10 lives in A, 20 in B, 99 is the host's
		a, b        time.Duration
		unaccounted uint64
	}{
		{name: "a living one", do: func(h *taskstatsHost) { h.waits(10, s); h.snapshot(); h.waits(10, 2*s) }, a: 2 * s},
		{name: "one that was asked for before", do: func(h *taskstatsHost) { h.waits(10, s); h.snapshot(); h.exits(10, 3*s) }, a: 3 * s},
		{name: "one that was never asked for", do: func(h *taskstatsHost) { h.exits(10, 3*s) }, a: 3 * s},
		{name: "zombie", do: func(h *taskstatsHost) {
			h.waits(10, s)
			h.snapshot()
			e := h.record(10, 3*s)
			h.change(10, func(p *fakeProcess) { p.zombie = true })
			h.tell(e)
		}, a: 3 * s},
		{name: "child nobody has seen", do: func(h *taskstatsHost) { h.starts(11, 10, containerA); h.exits(11, s) }, a: s},
		{name: "child of the host", do: func(h *taskstatsHost) { h.starts(11, 99, ""); h.exits(11, s) }},
		{name: "grandchild, its parent ends too", do: func(h *taskstatsHost) {
			h.starts(11, 10, containerA)
			h.starts(12, 11, containerA)
			h.starts(13, 12, containerA)
			h.exits(13, s)
			h.exits(12, s)
			h.exits(11, s)
		}, a: 3 * s},
		{name: "grandchild, its parent is seen later", do: func(h *taskstatsHost) {
			h.starts(11, 10, containerB)
			h.starts(12, 11, containerB)
			h.exits(12, s)
			h.inv.learnProcesses()
		}, b: s},
		{name: "grandchild, its parent is seen too late", do: func(h *taskstatsHost) {
			h.starts(11, 99, "")
			h.starts(12, 11, "")
			h.exits(12, s)
			h.pass(waitFor + 1)
			h.inv.learnProcesses()
			h.moves(11, containerA)
		}},
		{name: "main process, its record comes before it is looked at", do: func(h *taskstatsHost) {
			h.starts(11, 99, containerA)
			e := h.record(11, s)
			h.tell(e)
			h.change(11, func(p *fakeProcess) { p.delays = cpuDelay(s) })
			h.inv.learnProcesses()
			h.goes(11)
		}, a: s},
		{name: "main process, gone between list and look", do: func(h *taskstatsHost) {
			h.starts(11, 99, containerA)
			e := h.record(11, s)
			delete(h.source.processes, 11)
			h.inv.learnProcesses()
			h.tell(e)
		}, a: s},
		{name: "several threads", do: func(h *taskstatsHost) {
			h.starts(11, 10, containerA)
			last := h.record(11, s)
			last.PID = 12
			first := h.record(11, 2*s)
			first.Flags = 0
			h.goes(11)
			h.tell(first, last, group(11, 3*s))
		}, a: 3 * s},
		{name: "several threads, learned", do: func(h *taskstatsHost) {
			first := h.record(10, s)
			first.PID, first.Flags = 12, 0
			h.waits(10, 2*s)
			h.tell(first)
			h.snapshot()
			last := h.record(10, s)
			h.tell(last, group(10, 4*s))
		}, a: 4 * s},
		{name: "several threads, known later", do: func(h *taskstatsHost) {
			h.starts(11, 10, containerA)
			h.starts(12, 11, containerA)
			last := h.record(12, s)
			h.tell(last, group(12, 4*s))
			h.goes(12)
			h.exits(11, s)
		}, a: 5 * s},
		{name: "move", do: func(h *taskstatsHost) {
			h.waits(10, s)
			h.snapshot()
			h.waits(10, 2*s)
			h.moves(10, containerB)
			h.inv.learnProcesses()
			h.exits(10, 5*s)
		}, a: 2 * s, b: 3 * s},
		{name: "move out of all", do: func(h *taskstatsHost) { h.moves(10, ""); h.snapshot(); h.exits(10, s) }, a: s},
		{name: "the pid comes again", do: func(h *taskstatsHost) {
			h.exits(10, s)
			h.starts(10, 99, containerB)
			h.waits(10, s)
			h.snapshot()
			h.exits(10, 2*s)
			h.starts(10, 20, containerB)
			h.exits(10, 4*s)
		}, a: s, b: 6 * s},
		{name: "the pid comes again, elsewhere, before the record", do: func(h *taskstatsHost) {
			e := h.record(10, s)
			e.PPID = 9
			h.pass(time.Second)
			h.starts(10, 99, containerB)
			h.inv.learnProcesses()
			h.tell(e)
			h.exits(10, s)
		}, b: s},
		{name: "the record was lost", do: func(h *taskstatsHost) {
			h.goes(10)
			h.snapshot()
			h.pass(missingFor + 1)
			h.snapshot()
			if n := len(h.inv.taskstats.known); n != 1 {
				h.t.Errorf("%d processes are remembered", n)
			}
			h.lose(3)
		}, unaccounted: 3},
		{name: "the record was lost, the pid comes again", do: func(h *taskstatsHost) {
			h.waits(10, 4*s)
			h.waits(20, 4*s)
			h.snapshot()
			h.lose(1)
			h.pass(time.Second)
			h.starts(10, 99, containerA)
			h.starts(20, 99, "")
			h.waits(10, s)
			h.waits(20, 8*s)
		}, a: 5 * s, b: 4 * s, unaccounted: 1},
		{name: "others go on after a loss", do: func(h *taskstatsHost) {
			h.waits(10, 4*s)
			h.moves(20, "")
			h.snapshot()
			h.lose(1)
			h.snapshot()
			h.exits(20, s)
		}, a: 4 * s, b: s, unaccounted: 1},
		{name: "parent that begins processes of other containers", do: func(h *taskstatsHost) {
			h.starts(21, 20, containerA)
			h.inv.learnProcesses()
			h.starts(22, 20, "")
			h.exits(22, s)
			h.inv.learnProcesses()
			h.pass(waitFor + 1)
			h.inv.learnProcesses()
			h.exits(21, s)
		}, a: s, unaccounted: 1},
		{name: "old kernel", do: func(h *taskstatsHost) {
			e := h.record(10, s)
			h.goes(10)
			h.tell(before519(e))
		}, a: s},
		{name: "old kernel, the first thread ends first", do: func(h *taskstatsHost) {
			h.waits(10, s)
			h.tell(before519(h.record(10, s)))
			h.pass(time.Second)
			h.waits(10, 2*s)
			h.snapshot()
			thread := before519(h.record(10, s))
			thread.PID, thread.Flags, thread.PPID = 14, delayacct.Forked, 99
			h.tell(thread, group(10, 5*s))
		}, a: 5 * s},
		{name: "old kernel, children that began a program, and that did not", do: func(h *taskstatsHost) {
			h.starts(11, 10, containerA)
			h.starts(12, 10, containerA)
			program, fork := before519(h.record(11, s)), before519(h.record(12, 2*s))
			fork.Flags = delayacct.Forked
			h.goes(11)
			h.goes(12)
			h.tell(program, fork)
			h.pass(waitFor + 1)
			h.inv.learnProcesses()
		}, a: s, unaccounted: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newTaskstatsHost(t)
			h.starts(99, 1, "")
			h.starts(10, 99, containerA)
			h.starts(20, 99, containerB)
			h.pass(time.Minute)
			h.inv.learnProcesses()
			tt.do(h)
			for range 2 {
				all := h.snapshot()
				a, b := all[containerA].Tasks.Delays[DelayCPU].V, all[containerB].Tasks.Delays[DelayCPU].V
				if a != tt.a || b != tt.b {
					t.Errorf("got %v and %v, want %v and %v", a, b, tt.a, tt.b)
				}
			}
			if got := h.inv.Status().TasksUnaccounted; got != tt.unaccounted {
				t.Errorf("%d unaccounted, want %d", got, tt.unaccounted)
			}
		})
	}
}

func TestTaskstatsTellsOfDelaysAlone(t *testing.T) {
	h := newTaskstatsHost(t)
	h.starts(10, 99, containerA)
	if got := h.tasks(containerA); got != (Tasks{}) {
		t.Errorf("before any record: %+v", got)
	}
	h.pass(time.Minute)
	h.kills(containerA, "3")
	told := delayacct.Delay{Time: time.Second, OK: true}
	h.change(10, func(p *fakeProcess) { p.delays = delayacct.Delays{CPU: told, Reclaim: told} })
	want := Tasks{OOMKills: cgroups.Some[uint64](3)}
	want.Delays[DelayCPU], want.Delays[DelayReclaim] = cgroups.Some(time.Second), cgroups.Some(time.Second)
	got := h.tasks(containerA)
	for i := range got.Delays {
		if !got.Delays[i].OK {
			got.Delays[i].V = 0
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	h.accounting("0")
	h.inv.checkDelayAccounting()
	if got := h.tasks(containerA); got.Delays[DelayReclaim].OK || !got.Delays[DelayCPU].OK {
		t.Errorf("with the switch off: %+v", got.Delays)
	}
}

func TestTaskstatsLeavesOutTheAbsurd(t *testing.T) {
	h := newTaskstatsHost(t)
	h.starts(10, 99, containerA)
	h.starts(20, 99, containerB)
	h.pass(time.Minute)
	absurd := delayacct.Delay{Time: time.Hour, OK: true}
	delays := cpuDelay(time.Second)
	delays.BlockIO = absurd
	h.change(10, func(p *fakeProcess) { p.delays = delays })
	h.snapshot()
	h.snapshot()
	last := h.record(10, 0)
	last.Delays = delays
	h.tell(last)
	last = h.record(20, 0)
	last.Delays = delays
	h.tell(last)
	for _, name := range []string{containerA, containerB} {
		if got := h.tasks(name).Delays; got[DelayCPU].V != time.Second || got[DelayBlockIO].V != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := h.inv.Status().DelayAnomalies; got != 2 {
		t.Errorf("%d anomalies, want one for each process", got)
	}
}

func TestTaskstatsFeature(t *testing.T) {
	find := func(inv *Inventory) []error {
		var errs []error
		for _, f := range inv.Status().Features {
			if f.Name == FeatureTaskstats {
				errs = append(errs, f.Err)
			}
		}
		return errs
	}
	if got := find(newTaskstatsHost(t).inv); !slices.Equal(got, []error{nil}) {
		t.Errorf("on: %v", got)
	}
	if got := find(newTestHost(t, Options{}).inv); got != nil {
		t.Errorf("with the kernel program: %v", got)
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "cgroup.controllers"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	k := kernelWithoutTasks{&fakeKernel{now: time.Now, done: make(chan struct{})}, func(func(uint64)) (taskSource, error) {
		return nil, delayacct.ErrNotPermitted
	}}
	inv := openWithout(t, Options{CgroupRoot: root, ProcRoot: t.TempDir()}, k, time.Now)
	if got := find(inv); !slices.Equal(got, []error{delayacct.ErrNotPermitted}) {
		t.Errorf("off: %v", got)
	}
	if _, err := inv.Snapshot(t.Context()); err != nil {
		t.Error(err)
	}
}

// Cgroups below a container's own are its own, unless they are another container's; a cgroup may have any number of processes.
func TestTaskstatsFindsAllProcesses(t *testing.T) {
	h := newTaskstatsHost(t)
	nested := containerA + "/docker/" + strings.Repeat("c", 64)
	h.cgroup(nested, 0)
	n := 10
	for cgroup, processes := range map[string]int{containerA: 1, containerA + "/init.scope/x": 2000, nested: 10} {
		for range processes {
			n++
			h.source.processes[n] = &fakeProcess{parent: 99, born: h.now(), cgroup: cgroup, delays: cpuDelay(time.Second)}
		}
	}
	h.list()
	h.walk()
	h.pass(time.Minute)
	got := map[string]time.Duration{}
	for name, c := range h.snapshot() {
		got[name] = c.Tasks.Delays[DelayCPU].V
	}
	want := map[string]time.Duration{containerA: 2001 * time.Second, containerB: 0, "/docker/" + strings.Repeat("c", 64): 10 * time.Second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTaskstatsRemembersNoMoreThanItMust(t *testing.T) {
	h := newTaskstatsHost(t)
	h.starts(10, 99, containerA)
	h.inv.learnProcesses()
	var all []delayacct.Exit
	for i := range 2*maxOver + 2*maxWaiting {
		e := group(1000+i, time.Millisecond)
		e.Group, e.Flags, e.Elapsed, e.PPID = false, delayacct.LastOne, time.Second, 10
		if i%2 == 1 {
			e.PPID = 98
		}
		all = append(all, e)
	}
	h.tell(all...)
	ts := h.inv.taskstats
	sizes := func() [4]int { return [4]int{len(ts.known), len(ts.over), len(ts.waiting), len(ts.children)} }
	if got, want := sizes(), [4]int{1 + maxOver, maxOver, maxWaiting, 1}; got != want {
		t.Errorf("remembered %v, want %v", got, want)
	}
	if got, want := h.tasks(containerA).Delays[DelayCPU].V, (maxOver+maxWaiting)*time.Millisecond; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	h.pass(overFor + 1)
	h.inv.learnProcesses()
	if got := sizes(); got != [4]int{1, 0, 0, 0} {
		t.Errorf("after a while %v", got)
	}
}

func TestTaskstatsCloseEndsAPass(t *testing.T) {
	h := newTaskstatsHost(t)
	h.starts(10, 99, containerA)
	h.source.asked = make(chan struct{})
	h.inv.maintainer.Go(h.inv.passTaskstats) // as the housekeeping does
	<-h.source.asked
}

// Processes begin, wait and end while others look.
func TestTaskstatsAtTheSameTime(t *testing.T) {
	h := newTaskstatsHost(t)
	h.starts(10, 99, containerA)
	h.pass(time.Hour)
	h.inv.learnProcesses()
	var wg sync.WaitGroup
	end := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					h.inv.passTaskstats()
					h.inv.learnProcesses()
				}
			}
		})
	}
	const n = 300
	for i := range n {
		pid := 100 + i
		h.starts(pid, 10+min(i, 1)*(pid-11), containerA)
		h.pass(10 * time.Millisecond)
		h.waits(pid, time.Millisecond)
		if i > 0 {
			h.exits(pid-1, 2*time.Millisecond)
		}
	}
	close(end)
	wg.Wait()
	if got, want := h.tasks(containerA).Delays[DelayCPU].V, (2*n-1)*time.Millisecond; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
