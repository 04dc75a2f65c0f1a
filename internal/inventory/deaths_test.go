// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// followed is what a follower was told.
type followed struct {
	mu     sync.Mutex
	events []Event
	stop   func() // returns when it follows no more
}

func (f *followed) all() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

// wait gives the events when there are n.
func (f *followed) wait(t *testing.T, n int) []Event {
	t.Helper()
	eventually(t, "events", func() bool { return len(f.all()) >= n })
	return f.all()
}

// follow begins to follow; each event goes through before, if there is one.
func follow(t *testing.T, inv *Inventory, before func(Event)) *followed {
	t.Helper()
	f := &followed{}
	ctx, cancel := context.WithCancel(t.Context())
	var follower sync.WaitGroup
	queue := func() chan Event {
		inv.mu.Lock()
		defer inv.mu.Unlock()
		return inv.events
	}
	was := queue()
	follower.Go(func() {
		inv.FollowEvents(ctx, func(e Event) {
			if before != nil {
				before(e)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		})
	})
	eventually(t, "is followed", func() bool { return queue() != was })
	f.stop = func() {
		cancel()
		follower.Wait()
	}
	t.Cleanup(f.stop)
	return f
}

func mainExit(id uint64, pid int) bpf.ProcessExit {
	return bpf.ProcessExit{CgroupV2: id, PID: pid, Main: true}
}

// pids lists those of events.
func pids(events []Event) (list []int) {
	for _, e := range events {
		list = append(list, e.PID)
	}
	return list
}

func wantDropped(t *testing.T, h *testHost, want uint64) {
	t.Helper()
	if got := h.inv.Status().EventsDropped; got != want {
		t.Errorf("%d dropped, want %d", got, want)
	}
}

func TestEventsOfDeaths(t *testing.T) {
	h := newTestHost(t, Options{})
	id := h.unknown(containerA)
	h.write(filepath.Join(containerA, "memory.max"), "20971520\n") // read for the first time when its process has ended
	h.walk()
	nobody := h.cgroup("user.slice/user-1000.slice/session-1.scope", 0)
	unlimited := h.cgroup("system.slice/nginx.service", 0)
	f := follow(t, h.inv, nil)
	at := h.now()
	killed := bpf.ProcessExit{
		CgroupV2: id, PID: 4001, InnerPID: 7, Command: "worker", Reason: bpf.ExitOOMKilled, Signal: 9,
		Life: time.Minute, MaxRSS: 19 << 20,
	}
	killedMain := killed
	killedMain.PID, killedMain.InnerPID, killedMain.Main = 4000, 1, true
	h.kernel.exit(
		killed,
		mainExit(nobody, 5),
		killedMain,
		bpf.ProcessExit{CgroupV2: unlimited, PID: 80, InnerPID: 80, Command: "nginx", Main: true, Reason: bpf.ExitError, Code: 3, Life: time.Second},
	)
	ref := cgroups.ParsePath(containerA)
	limit := cgroups.Some[uint64](20 << 20)
	want := []Event{
		{
			Kind: EventOOMKill, At: at, Name: containerA, Ref: ref, PID: 4001, InnerPID: 7, Command: "worker",
			Reason: bpf.ExitOOMKilled, Signal: 9, Life: time.Minute, MaxRSS: 19 << 20, MemoryLimit: limit,
		},
		{
			Kind: EventOOMKill, At: at, Name: containerA, Ref: ref, PID: 4000, InnerPID: 1, Command: "worker",
			Reason: bpf.ExitOOMKilled, Signal: 9, Life: time.Minute, MaxRSS: 19 << 20, MemoryLimit: limit,
		},
		{
			Kind: EventExit, At: at, Name: containerA, Ref: ref, PID: 4000, InnerPID: 1, Command: "worker",
			Reason: bpf.ExitOOMKilled, Signal: 9, Life: time.Minute, MaxRSS: 19 << 20, MemoryLimit: limit,
		},
		{
			Kind: EventExit, At: at, Name: "/system.slice/nginx.service", Ref: cgroups.ParsePath("/system.slice/nginx.service"),
			PID: 80, InnerPID: 80, Command: "nginx", Reason: bpf.ExitError, Code: 3, Life: time.Second,
		},
	}
	if diff := cmp.Diff(want, f.wait(t, len(want))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantDropped(t, h, 0)
}

func TestEventOfACgroupThatIsKnownLater(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	id := h.unknown(containerA)
	h.write(filepath.Join(containerA, "memory.max"), "4096\n")
	f := follow(t, h.inv, nil)
	h.kernel.exit(mainExit(id, 1), mainExit(1<<40, 9), mainExit(id, 2))
	at := h.now()
	h.pass(strangeExitFor)
	h.inv.retryStrangeExits(h.now())
	h.walk()
	h.kernel.exit(mainExit(id, 3)) // those that wait come before it
	got := f.wait(t, 3)
	if diff := cmp.Diff([]int{1, 2, 3}, pids(got)); diff != "" {
		t.Errorf("pids (-want +got):\n%s", diff)
	}
	if !got[0].At.Equal(at) || got[0].MemoryLimit != cgroups.Some[uint64](4096) {
		t.Errorf("got %+v", got[0])
	}
	wantDropped(t, h, 0)
	h.pass(1)
	for range 2 {
		h.inv.retryStrangeExits(h.now())
		wantDropped(t, h, 1)
	}
}

// Housekeeping looks for the cgroup again.
func TestEventIsToldSoonAfterItsCgroup(t *testing.T) {
	h := newTestHost(t, Options{})
	f := follow(t, h.inv, nil)
	h.kernel.exit(mainExit(1<<40, 1))
	h.event(bpf.CgroupMade, 1<<40, containerA)
	began := time.Now()
	f.wait(t, 1)
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestTooManyEvents(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	h.event(bpf.CgroupMade, 100, containerA)
	goOn, reached := make(chan struct{}), make(chan struct{}, 1)
	var once sync.Once
	f := follow(t, h.inv, func(Event) {
		once.Do(func() { reached <- struct{}{}; <-goOn })
	})
	h.kernel.exit(mainExit(100, 0))
	<-reached
	var want []int
	for pid := range maxEvents + 11 {
		if pid > 0 {
			h.kernel.exit(mainExit(100, pid))
		}
		if pid <= maxEvents {
			want = append(want, pid)
		}
	}
	wantDropped(t, h, 10)
	close(goOn)
	if diff := cmp.Diff(want, pids(f.wait(t, len(want)))); diff != "" {
		t.Errorf("pids (-want +got):\n%s", diff)
	}
	for pid := range maxStrangeExits + 7 {
		h.kernel.exit(mainExit(1<<40, pid))
	}
	wantDropped(t, h, 17)
}

func TestNobodyFollows(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	h.event(bpf.CgroupMade, 100, containerA)
	many := func() {
		for pid := range maxEvents + 1 {
			h.kernel.exit(mainExit(100, pid))
		}
		for pid := range maxStrangeExits + 1 {
			h.kernel.exit(mainExit(1<<40, pid))
		}
		h.pass(strangeExitFor + 1)
		h.inv.retryStrangeExits(h.now())
	}
	many()
	f := follow(t, h.inv, nil)
	h.kernel.exit(mainExit(1<<40, 77), mainExit(100, 78))
	f.wait(t, 1)
	f.stop() // 77 is not told any more
	many()
	wantDropped(t, h, 0)
	again := follow(t, h.inv, nil)
	h.event(bpf.CgroupMade, 1<<40, "/docker/"+hexB)
	h.kernel.exit(mainExit(1<<40, 79))
	if diff := cmp.Diff([][]int{{78}, {79}}, [][]int{pids(f.all()), pids(again.wait(t, 1))}); diff != "" {
		t.Errorf("pids (-want +got):\n%s", diff)
	}
}

// A follower takes over from another one, which ends later.
func TestNextFollower(t *testing.T) {
	h := newTestHost(t, Options{})
	h.event(bpf.CgroupMade, 100, containerA)
	first := follow(t, h.inv, nil)
	h.kernel.exit(mainExit(100, 1))
	first.wait(t, 1)
	second := follow(t, h.inv, nil)
	first.stop()
	h.kernel.exit(mainExit(100, 2))
	if diff := cmp.Diff([][]int{{1}, {2}}, [][]int{pids(first.all()), pids(second.wait(t, 1))}); diff != "" {
		t.Errorf("pids (-want +got):\n%s", diff)
	}
}

// The last process of a container that was replaced at once.
func TestEventOfALifeThatIsOver(t *testing.T) {
	h := newTestHost(t, Options{})
	f := follow(t, h.inv, nil)
	h.event(bpf.CgroupMade, 100, containerA)
	h.event(bpf.CgroupRemoved, 100, containerA)
	h.event(bpf.CgroupMade, 102, containerA)
	h.kernel.exit(mainExit(100, 1), mainExit(102, 2))
	if diff := cmp.Diff([]int{1, 2}, pids(f.wait(t, 2))); diff != "" {
		t.Errorf("pids (-want +got):\n%s", diff)
	}
}

func TestEventsAllAtOnce(t *testing.T) {
	h := newTestHost(t, Options{})
	f := follow(t, h.inv, nil)
	over := make(chan struct{})
	var others sync.WaitGroup
	for _, fn := range []func(){
		func() { h.inv.retryStrangeExits(h.now()) },
		func() { h.snapshot() },
		func() { _ = h.inv.Status() },
	} {
		others.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					fn()
				}
			}
		})
	}
	const lives = 200
	for life := range lives {
		id := uint64(100 + life)
		h.kernel.exit(mainExit(id, 2*life))
		h.event(bpf.CgroupMade, id, containerA)
		h.kernel.exit(mainExit(id, 2*life+1))
		h.event(bpf.CgroupRemoved, id, containerA)
		h.pass(time.Millisecond)
	}
	got := pids(f.wait(t, 2*lives))
	close(over)
	others.Wait()
	if !slices.IsSorted(got) {
		t.Errorf("not in order: %v", got)
	}
	wantDropped(t, h, 0)
}
