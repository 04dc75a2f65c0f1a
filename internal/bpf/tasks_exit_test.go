// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// exitLog is what ProcessExits has told, by PID.
type exitLog struct {
	mu  sync.Mutex
	all map[int][]ProcessExit
}

// openExitLog opens a Tracer and reads its exits until the end of the test.
func openExitLog(t *testing.T) (*Tracer, *exitLog) {
	t.Helper()
	h := findHost(t)
	var reader sync.WaitGroup
	t.Cleanup(reader.Wait) // when the Tracer is closed
	tr := openTracer(t, Options{LegacyController: h.controller()})
	l := &exitLog{all: map[int][]ProcessExit{}}
	reader.Go(func() {
		if err := tr.ProcessExits(func(e ProcessExit) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.all[e.PID] = append(l.all[e.PID], e)
		}); err != nil {
			t.Error(err)
		}
	})
	return tr, l
}

// take returns all that was told of a cgroup's processes, and at least n.
func (l *exitLog) take(t *testing.T, c cgroup, n int) (taken []ProcessExit) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " exits are told"), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for pid, all := range l.all {
			for _, e := range all {
				if e.CgroupV2 == c.v2 && e.CgroupV1 == c.v1 {
					taken = append(taken, e)
					delete(l.all, pid)
				}
			}
		}
		return len(taken) >= n
	})
	return taken
}

// limitMemory limits a cgroup to so many bytes without swap, or skips the test.
func limitMemory(t *testing.T, c cgroup, limit int) {
	t.Helper()
	for _, dir := range c.dirs {
		for _, files := range [][2]string{{"memory.max", "memory.swap.max"}, {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}} {
			if err := os.WriteFile(filepath.Join(dir, files[0]), []byte(fmt.Sprint(limit)), 0); err == nil {
				swap := limit
				if strings.Contains(files[1], ".swap.") {
					swap = 0
				}
				_ = os.WriteFile(filepath.Join(dir, files[1]), []byte(fmt.Sprint(swap)), 0) // where it exists
				return
			}
		}
	}
	t.Skip("no memory controller")
}

var ignoreTimes = cmpopts.IgnoreFields(Usage{}, "CgroupV2", "CgroupV1", "CPU", "Delays", "TasksEnded")

func exits(reason ExitReason) (e [NumExitReasons]uint64) {
	e[reason] = 1
	return e
}

var newPIDNS = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}

// TestMainProcessExits: each way to end, of a service and of the first process of a PID namespace.
func TestMainProcessExits(t *testing.T) {
	h := findHost(t)
	tr, log := openExitLog(t)
	const limit = 64 << 20
	for _, tt := range []struct {
		name         string
		args         []string
		c            bool // needs tasks.c
		service      bool // no init ends so
		kill         syscall.Signal
		reason       ExitReason
		code, signal int
	}{
		{name: "status 0", args: []string{"exit", "0"}, reason: ExitCompleted},
		{name: "status 3", args: []string{"exit", "3"}, reason: ExitError, code: 3},
		{name: "status 255", args: []string{"exit", "255"}, reason: ExitError, code: 255},
		{name: "SIGTERM", args: []string{"wait"}, kill: syscall.SIGTERM, service: true, reason: ExitSignal, signal: 15},
		{name: "SIGKILL", args: []string{"wait"}, kill: syscall.SIGKILL, reason: ExitSignal, signal: 9},
		{name: "SIGABRT", args: []string{"signal", "6"}, c: true, service: true, reason: ExitSignal, signal: 6},
		{name: "OOM", args: []string{"eat", "128"}, reason: ExitOOMKilled, signal: 9},
	} {
		for kind, attr := range map[string]*syscall.SysProcAttr{"service": nil, "init": newPIDNS} {
			if tt.service && attr != nil {
				continue
			}
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				c := h.makeCgroup(t, "exits")
				if tt.reason == ExitOOMKilled {
					limitMemory(t, c, limit)
				}
				var p *program
				if tt.c {
					p = runTasks(t, c, tt.args...)
				} else {
					p = runTask(t, c, attr, tt.args...)
				}
				var atLeast time.Duration
				if tt.kill != 0 {
					p.line()
					time.Sleep(50 * time.Millisecond)
					atLeast = time.Since(p.started)
					if err := p.cmd.Process.Signal(tt.kill); err != nil {
						t.Fatal(err)
					}
				}
				_, atMost := p.wait()
				want := Usage{Execs: 1, ProcessesEnded: 1, Exits: exits(tt.reason)}
				wantExit := ProcessExit{
					CgroupV2: c.v2, CgroupV1: c.v1, PID: p.pid(), InnerPID: p.pid(), Command: "exe", Main: true,
					Reason: tt.reason, Code: tt.code, Signal: tt.signal,
				}
				if attr == nil {
					want.Others = 1
				} else {
					want.Inits, wantExit.InnerPID = 1, 1
				}
				if tt.reason == ExitOOMKilled {
					want.OOMKills = 1
				}
				if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
					t.Error(diff)
				}
				told := log.take(t, c, 1)
				if diff := cmp.Diff([]ProcessExit{wantExit}, told, cmpopts.IgnoreFields(ProcessExit{}, "Life", "MaxRSS")); diff != "" {
					t.Error(diff)
				}
				if life := told[0].Life; life < atLeast || life == 0 || life > atMost || told[0].MaxRSS == 0 {
					t.Errorf("lived %v, want %v to %v; MaxRSS %d", life, atLeast, atMost, told[0].MaxRSS)
				}
				if rss := told[0].MaxRSS; tt.reason == ExitOOMKilled && (rss < limit/2 || rss > 2*limit) {
					t.Errorf("MaxRSS %d, want about %d", rss, limit)
				}
			})
		}
	}
}

// TestOOMKillOfChild: the main process lives on.
func TestOOMKillOfChild(t *testing.T) {
	h := findHost(t)
	tr, log := openExitLog(t)
	c := h.makeCgroup(t, "oom")
	limitMemory(t, c, 64<<20)
	p := runTask(t, c, newPIDNS, "feed", "128")
	if got := p.line(); got != "signal: killed" {
		t.Fatalf("the child: %s", got)
	}
	want := Usage{Inits: 1, Execs: 2, OOMKills: 1}
	ignored := cmp.Options{ignoreTimes, cmpopts.IgnoreFields(Usage{}, "ProcessesEnded")} // os/exec forks more than the one
	if diff := cmp.Diff(want, usageOf(t, tr, c), ignored); diff != "" {
		t.Error(diff)
	}
	told := log.take(t, c, 1)
	if e := told[0]; len(told) != 1 || e.Main || e.Reason != ExitOOMKilled || e.InnerPID <= 1 || e.PID == p.pid() {
		t.Errorf("told %+v", told)
	}
	p.wait()
	want.Exits[ExitCompleted] = 1
	if diff := cmp.Diff(want, usageOf(t, tr, c), ignored); diff != "" {
		t.Error(diff)
	}
}

// TestEnteringIsNotMain: docker exec, also when what was executed outlives the container's own process.
func TestEnteringIsNotMain(t *testing.T) {
	h := findHost(t)
	for _, older := range []bool{false, true} {
		t.Run(fmt.Sprint("older=", older), func(t *testing.T) {
			var tr *Tracer
			if !older {
				tr = openTracer(t, Options{LegacyController: h.controller()})
			}
			c := h.makeCgroup(t, "entered")
			init := runTask(t, c, newPIDNS, "wait")
			init.line()
			enter := func(args ...string) *program {
				args = append(append([]string{"join", fmt.Sprint(init.pid())}, c.dirs...), args...)
				return runTask(t, cgroup{}, nil, args...)
			}
			want := Usage{Inits: 1, Execs: 1}
			if older {
				tr = openTracer(t, Options{LegacyController: h.controller()})
				want = Usage{}
			}
			enter("exit", "1").wait()
			want.Execs, want.ProcessesEnded = want.Execs+1, 1
			if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
				t.Error(diff)
			}
			entered := enter("wait")
			entered.line()
			if err := init.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			init.wait()
			if got := entered.line(); got != "signal: killed" {
				t.Errorf("the process in the namespace: %s", got)
			}
			want.Execs, want.ProcessesEnded, want.Exits[ExitSignal] = want.Execs+1, 3, 1
			if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSharedPIDNamespace: a container that lives in another one's PID namespace has a main process of its own.
func TestSharedPIDNamespace(t *testing.T) {
	h := findHost(t)
	tr, log := openExitLog(t)
	sandbox, c := h.makeCgroup(t, "sandbox"), h.makeCgroup(t, "sharing")
	init := runTask(t, sandbox, newPIDNS, "wait")
	init.line()
	args := append(append([]string{"join", fmt.Sprint(init.pid())}, c.dirs...), "exit", "4")
	runTask(t, cgroup{}, nil, args...).wait()
	want := Usage{Others: 1, Execs: 1, ProcessesEnded: 1, Exits: exits(ExitError)}
	if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
		t.Error(diff)
	}
	if e := log.take(t, c, 1)[0]; e.InnerPID <= 1 || e.InnerPID == e.PID || e.Code != 4 {
		t.Errorf("told %+v", e)
	}
}

// TestMainProcessMoves: PID 1 may put itself into a cgroup below its container's. It remains main, and is not begun twice.
func TestMainProcessMoves(t *testing.T) {
	h := findHost(t)
	tr, log := openExitLog(t)
	from, to := h.makeCgroup(t, "main-from"), h.makeCgroup(t, "main-to")
	p := runTask(t, from, newPIDNS, "wait")
	p.line()
	p.move(to)
	p.wait()
	if diff := cmp.Diff(Usage{Inits: 1, Execs: 1}, usageOf(t, tr, from), ignoreTimes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Usage{ProcessesEnded: 1, Exits: exits(ExitCompleted)}, usageOf(t, tr, to), ignoreTimes); diff != "" {
		t.Error(diff)
	}
	log.take(t, to, 1)
}

// TestRestarts: fifty within a second or two, none forgotten; descendants of a main process are not main.
func TestRestarts(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	const n = 50
	same := h.makeCgroup(t, "same")
	for i := range n {
		runTasks(t, same, "storm", fmt.Sprint(i%3)).wait()
		c := h.makeCgroup(t, fmt.Sprint("new", i))
		runTasks(t, c, "exit", "1").wait()
		want := Usage{Others: 1, Execs: 1, ProcessesEnded: 1, Exits: exits(ExitError)}
		if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
			t.Error(diff)
		}
	}
	want := Usage{Others: n, Execs: n, ProcessesEnded: n + 49, Exits: [NumExitReasons]uint64{ExitCompleted: n}}
	if diff := cmp.Diff(want, usageOf(t, tr, same), ignoreTimes); diff != "" {
		t.Error(diff)
	}
}

// TestServiceInTheBackground: the end of what the main process has left is the service's end, but not that of its workers.
func TestServiceInTheBackground(t *testing.T) {
	h := findHost(t)
	tr, log := openExitLog(t)
	for _, tt := range []struct {
		name    string
		workers int
		seen    bool // while it is alive
	}{{"unseen", 0, false}, {"seen", 0, true}, {"unseen with workers", 2, false}, {"seen with workers", 2, true}} {
		t.Run(tt.name, func(t *testing.T) {
			c := h.makeCgroup(t, "daemon")
			p := runTasks(t, c, "daemon", fmt.Sprint(tt.workers))
			daemon := p.line()
			log.take(t, c, 1)
			want := Usage{Others: 1, Execs: 1, ProcessesEnded: 1, Exits: exits(ExitCompleted)}
			if tt.seen {
				if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
					t.Error(diff)
				}
			}
			if _, err := p.in.Write([]byte("\n")); err != nil {
				t.Fatal(err)
			}
			if e := log.take(t, c, 1)[0]; !e.Main || e.Code != 3 || fmt.Sprint(e.PID) != daemon {
				t.Errorf("told %+v", e)
			}
			for range tt.workers {
				p.line()
			}
			p.wait()
			eventually(t, "all are gone", func() bool { return usageOf(t, tr, c).ProcessesEnded == uint64(2+tt.workers) })
			want.ProcessesEnded, want.Exits[ExitError] = uint64(2+tt.workers), 1
			if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestServiceHelpers: what is begun from outside in the cgroup of a service that runs, as for ExecReload of systemd.
func TestServiceHelpers(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	c := h.makeCgroup(t, "helped")
	p := runTask(t, c, nil, "wait")
	p.line()
	runTask(t, c, nil, "exit", "1").wait()
	p.wait()
	want := Usage{Others: 1, Execs: 2, ProcessesEnded: 2, Exits: exits(ExitCompleted)}
	if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
		t.Error(diff)
	}
}

// TestLeaderExitsFirst: the process goes on with its other threads.
func TestLeaderExitsFirst(t *testing.T) {
	h := findHost(t)
	tr, log := openExitLog(t)
	c := h.makeCgroup(t, "leader")
	p := runTasks(t, c, "leader", "2", "5")
	eventually(t, "the leader is gone", func() bool {
		return usageOf(t, tr, c).TasksEnded == 1
	})
	want := Usage{Others: 1, Execs: 1}
	if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
		t.Error(diff)
	}
	status, _ := p.wait()
	want.ProcessesEnded, want.Exits[ExitError] = 1, 1
	if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
		t.Error(diff)
	}
	if e := log.take(t, c, 1)[0]; e.Code != status.ExitStatus() {
		t.Errorf("told status %d, want %d", e.Code, status.ExitStatus())
	}
}

// TestLastThreadsTogether: both may believe to be the last one.
func TestLastThreadsTogether(t *testing.T) {
	h := findHost(t)
	tr := openTracer(t, Options{LegacyController: h.controller()})
	for _, threads := range []int{2, 3} {
		c := h.makeCgroup(t, fmt.Sprint("together", threads))
		p := runTasks(t, c, "together", "1000", fmt.Sprint(threads))
		made := p.count()
		p.wait()
		u := usageOf(t, tr, c)
		if u.ProcessesEnded != made+1 || u.TasksEnded != 1+made*uint64(threads) {
			t.Errorf("%d processes of %d threads: %d processes, %d tasks ended", made, threads, u.ProcessesEnded, u.TasksEnded)
		}
		if u.Exits != exits(ExitCompleted) {
			t.Errorf("exits %v, want that of the one that made them", u.Exits)
		}
	}
}

// TestExecByThread: the thread becomes the leader of the process, which remains the same one.
func TestExecByThread(t *testing.T) {
	h := findHost(t)
	tr, log := openExitLog(t)
	c := h.makeCgroup(t, "exec")
	p := runTasks(t, c, "thread-exec", "exit", "7")
	p.wait()
	want := Usage{Others: 1, Execs: 2, ProcessesEnded: 1, Exits: exits(ExitError)}
	if diff := cmp.Diff(want, usageOf(t, tr, c), ignoreTimes); diff != "" {
		t.Error(diff)
	}
	if e := log.take(t, c, 1)[0]; e.Code != 7 || e.PID != p.pid() || !e.Main {
		t.Errorf("told %+v", e)
	}
}

func FuzzDecodeExit(f *testing.F) {
	f.Add(make([]byte, 72), uint64(4096))
	f.Add(make([]byte, 71), uint64(0))
	f.Add([]byte(strings.Repeat("0", 72)), uint64(4096)) // no NUL at the end of the name
	f.Fuzz(func(t *testing.T, rec []byte, pageSize uint64) {
		e, err := decodeExit(rec, pageSize)
		if err != nil && !errors.Is(err, errTruncated) {
			t.Errorf("unexpected error %v", err)
		}
		if (err == nil) != (len(rec) >= binary.Size(taskExitEvent{})) || len(e.Command) > 15 {
			t.Errorf("%d bytes: %+v, %v", len(rec), e, err)
		}
	})
}
