// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/delayacct"
)

const containerB = "/docker/" + hexB

func (k *fakeKernel) Taskstats(func(uint64)) (taskSource, error) {
	return nil, errors.New("the fake kernel has no taskstats")
}

// kernelWithoutTasks refuses the program that accounts tasks, and tells of no cgroups.
type kernelWithoutTasks struct {
	*fakeKernel
	taskstats func(onLost func(uint64)) (taskSource, error)
}

func (k kernelWithoutTasks) Taskstats(onLost func(uint64)) (taskSource, error) {
	return k.taskstats(onLost)
}

func (k kernelWithoutTasks) Features() []bpf.Feature {
	return []bpf.Feature{
		{Name: bpf.FeatureCgroupEvents, Err: errors.ErrUnsupported}, {Name: bpf.FeatureTasks, Err: errors.ErrUnsupported},
	}
}

func (k kernelWithoutTasks) DelaysTold() [bpf.NumDelays]bool { return [bpf.NumDelays]bool{} }

// fakeProcess is one that lives.
type fakeProcess struct {
	parent int
	born   time.Time
	cgroup string
	delays delayacct.Delays
	zombie bool // not reaped, and in no cgroup
}

// fakeTaskstats tells of the processes that a test makes.
type fakeTaskstats struct {
	now     func() time.Time
	onLost  func(uint64)
	records chan func(fn func(*delayacct.Exit))
	closed  chan struct{}
	asked   chan struct{} // Group waits for Close once it has been received from; nil for not

	mu        sync.Mutex
	processes map[int]*fakeProcess
}

func (s *fakeTaskstats) Receive(fn func(*delayacct.Exit)) error {
	for {
		select {
		case <-s.closed:
			return nil
		case give := <-s.records:
			give(fn)
		}
	}
}

func (s *fakeTaskstats) Close() error { close(s.closed); return nil }

func (s *fakeTaskstats) ask(pid int) (delayacct.Stats, *fakeProcess, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.processes[pid]
	if p == nil {
		return delayacct.Stats{}, nil, fmt.Errorf("%d: %w", pid, delayacct.ErrGone)
	}
	return delayacct.Stats{PID: uint32(pid), PPID: uint32(p.parent), Elapsed: s.now().Sub(p.born), Delays: p.delays}, p, nil
}

func (s *fakeTaskstats) Thread(tid int) (delayacct.Stats, error) {
	st, _, err := s.ask(tid)
	return st, err
}

func (s *fakeTaskstats) Group(tgid int) (delayacct.Stats, error) {
	if s.asked != nil {
		s.asked <- struct{}{}
		<-s.closed
		return delayacct.Stats{}, os.ErrClosed
	}
	st, p, err := s.ask(tgid)
	if err == nil && p.zombie {
		st.Delays, st.Elapsed = delayacct.Delays{}, 0
	}
	return delayacct.Stats{PID: st.PID, TGID: st.PID, Group: true, Elapsed: st.Elapsed, Delays: st.Delays}, err
}

// taskstatsHost is a test host on which nothing but taskstats tells of tasks.
type taskstatsHost struct {
	*testHost
	source *fakeTaskstats
}

func newTaskstatsHost(t *testing.T) *taskstatsHost {
	t.Helper()
	h := &taskstatsHost{testHost: &testHost{t: t, root: t.TempDir(), proc: t.TempDir(), clock: begin.Add(time.Hour)}}
	h.testHost.kernel = &fakeKernel{now: h.now, done: make(chan struct{})}
	h.source = &fakeTaskstats{
		now: h.now, records: make(chan func(func(*delayacct.Exit))), closed: make(chan struct{}), processes: map[int]*fakeProcess{},
	}
	h.process(1, hostNS)
	h.write("cgroup.controllers", "cpu memory io pids\n")
	h.accounting("1")
	k := kernelWithoutTasks{h.testHost.kernel, func(onLost func(uint64)) (taskSource, error) {
		h.source.onLost = onLost
		return h.source, nil
	}}
	h.inv = openWithout(t, Options{CgroupRoot: h.root, ProcRoot: h.proc, Keep: keep}, k, h.now)
	h.alone()
	h.cgroup(containerA, 0)
	h.cgroup(containerB, 0)
	return h
}

func openWithout(t *testing.T, opts Options, k kernel, now func() time.Time) *Inventory {
	t.Helper()
	fs, err := cgroups.Open(opts.CgroupRoot)
	if err != nil {
		t.Fatal(err)
	}
	opts.Logger = zaptest.NewLogger(t)
	inv, err := open(t.Context(), opts, fs, k, openRuntimes, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := inv.Close(); err != nil {
			t.Error(err)
		}
	})
	return inv
}

func cpuDelay(d time.Duration) delayacct.Delays {
	return delayacct.Delays{CPU: delayacct.Delay{Time: d, OK: true}}
}

// starts makes a process. In cgroup "" it is the host's.
func (h *taskstatsHost) starts(pid, parent int, cgroup string) {
	h.source.mu.Lock()
	defer h.source.mu.Unlock()
	h.source.processes[pid] = &fakeProcess{parent: parent, born: h.now(), cgroup: cgroup}
	h.list()
}

// change lets something happen to a process.
func (h *taskstatsHost) change(pid int, fn func(*fakeProcess)) {
	h.source.mu.Lock()
	defer h.source.mu.Unlock()
	fn(h.source.processes[pid])
	h.list()
}

func (h *taskstatsHost) moves(pid int, cgroup string) {
	h.change(pid, func(p *fakeProcess) { p.cgroup = cgroup })
}

func (h *taskstatsHost) waits(pid int, cpu time.Duration) {
	h.change(pid, func(p *fakeProcess) { p.delays = cpuDelay(cpu) })
}

// list writes the cgroup.procs files.
func (h *taskstatsHost) list() {
	h.t.Helper()
	files := map[string][]string{containerA: nil, containerB: nil}
	for pid, p := range h.source.processes {
		if p.cgroup != "" && !p.zombie {
			files[p.cgroup] = append(files[p.cgroup], fmt.Sprintln(pid))
		}
	}
	for cgroup, pids := range files {
		if err := os.MkdirAll(filepath.Join(h.root, cgroup), 0o755); err != nil {
			h.t.Error(err)
		}
		h.write(cgroup+"/cgroup.procs", strings.Join(pids, ""))
	}
}

// goes ends a process without a record.
func (h *taskstatsHost) goes(pid int) {
	h.source.mu.Lock()
	defer h.source.mu.Unlock()
	delete(h.source.processes, pid)
	h.list()
}

// record is that of the end of a process as it is now, single-threaded and on Linux 5.19 or later.
func (h *taskstatsHost) record(pid int, cpu time.Duration) delayacct.Exit {
	st, err := h.source.Thread(pid)
	if err != nil {
		h.t.Fatal(err)
	}
	st.TGID, st.Flags, st.Delays = st.PID, delayacct.LastOne, cpuDelay(cpu)
	return delayacct.Exit{Stats: st}
}

// exits ends a process that has waited for a CPU.
func (h *taskstatsHost) exits(pid int, cpu time.Duration) {
	e := h.record(pid, cpu)
	h.goes(pid)
	h.tell(e)
}

// tell gives records, and returns when that is done.
func (h *taskstatsHost) tell(all ...delayacct.Exit) {
	done := make(chan struct{})
	h.source.records <- func(fn func(*delayacct.Exit)) {
		for i := range all {
			fn(&all[i])
		}
		close(done)
	}
	<-done
}

func (h *taskstatsHost) lose(n uint64) {
	done := make(chan struct{})
	h.source.records <- func(func(*delayacct.Exit)) {
		h.source.onLost(n)
		close(done)
	}
	<-done
}

func group(pid int, cpu time.Duration) delayacct.Exit {
	return delayacct.Exit{Stats: delayacct.Stats{PID: uint32(pid), TGID: uint32(pid), Group: true, Delays: cpuDelay(cpu)}}
}

// before519 is a record as older kernels give it.
func before519(e delayacct.Exit) delayacct.Exit {
	e.TGID = 0
	e.Flags &^= delayacct.LastOne
	return e
}
