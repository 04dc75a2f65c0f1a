// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

func TestTwentyLivesInASecond(t *testing.T) {
	h := newTestHost(t, Options{})
	h.snapshot()
	for id := range uint64(20) {
		h.event(bpf.CgroupMade, 100+id, containerA)
		h.kernel.use(bpf.Usage{CgroupV2: 100 + id, Inits: 1, Execs: 1, Exits: exitsOf(bpf.ExitError, 1), Delays: delaysOf(3)})
		h.event(bpf.CgroupEmptied, 100+id, containerA)
		h.event(bpf.CgroupRemoved, 100+id, containerA)
		h.pass(50 * time.Millisecond)
	}
	for range 2 {
		got := h.tasks(containerA)
		if got.Restarts.V != 19 || got.Exits.V[bpf.ExitError] != 20 || got.Delays[bpf.DelayCPU].V != 60 {
			t.Errorf("got %+v", got)
		}
		h.pass(keep + 1)
		h.inv.cleanTasks(h.now())
	}
}

// What the program counted is given where the files were read too early for the last time; but only then.
func TestCPUOfLivesThatAreOver(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		older                    bool
		program, file, live, all time.Duration // live is what is given while it lives, all when it is over
	}{
		{name: "file read too early", program: 5 * time.Second, file: time.Second, live: time.Second, all: 5 * time.Second},
		{name: "file knows more", program: time.Second, file: 5 * time.Second, live: 5 * time.Second, all: 5 * time.Second},
		{name: "older", older: true, program: 5 * time.Second, file: time.Second, live: time.Second, all: time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newTestHost(t, Options{})
			h.alone()
			h.watch(!tt.older)
			id := h.cgroup(containerA, tt.file)
			h.watch(true)
			h.kernel.use(bpf.Usage{CgroupV2: id, CPU: tt.program})
			want := func(want time.Duration) {
				t.Helper()
				if got := h.snapshot()[containerA].Stats.CPU.Usage; got != cgroups.Some(want) {
					t.Errorf("got %v, want %v", got, want)
				}
			}
			for range 2 {
				want(tt.live)
			}
			h.remove(containerA)
			for range 2 {
				want(tt.all)
				h.inv.cleanTasks(h.now())
			}
			h.kernel.use(bpf.Usage{CgroupV2: id, CPU: tt.program}) // told late
			if tt.all == tt.program {
				tt.all += tt.program
			}
			h.event(bpf.CgroupMade, 1<<40, containerA)
			want(tt.all)
			h.pass(keep + 1)
			h.inv.cleanTasks(h.now())
			h.kernel.use(bpf.Usage{CgroupV2: 1 << 40, CPU: time.Minute})
			want(tt.all)
		})
	}
}

// A container of which no file could be read has what the program tells.
func TestCPUWithoutFiles(t *testing.T) {
	h := newTestHost(t, Options{})
	h.event(bpf.CgroupMade, 100, containerA)
	h.kernel.use(bpf.Usage{CgroupV2: 100, CPU: 3})
	if got := h.snapshot()[containerA].Stats.CPU.Usage; got.OK {
		t.Errorf("live: %v", got)
	}
	h.event(bpf.CgroupRemoved, 100, containerA)
	eventually(t, "CPU is given", func() bool { return h.snapshot()[containerA].Stats.CPU.Usage == cgroups.Some[time.Duration](3) })
}

// While files are being read for the last time nothing is added to what they tell.
func TestReadingThatEndsAfterTheContainer(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	id := h.cgroup(containerA, time.Second)
	h.snapshot()
	h.inv.mu.Lock()
	l := h.inv.containers[containerA].current
	h.inv.mu.Unlock()
	h.kernel.use(bpf.Usage{CgroupV2: id, CPU: 5 * time.Second})
	l.mu.Lock() // a reading
	h.event(bpf.CgroupRemoved, id, containerA)
	passed := make(chan error)
	go func() { passed <- h.inv.passTasks() }() // waits for it
	eventually(t, "life is to be closed", func() bool {
		h.inv.mu.Lock()
		defer h.inv.mu.Unlock()
		return len(h.inv.over) == 0
	})
	s := l.lastStats()
	s.CPU.Usage = cgroups.Some(4 * time.Second)
	l.stats.Store(&s)
	l.mu.Unlock()
	if err := <-passed; err != nil {
		t.Error(err)
	}
	if got := h.snapshot()[containerA].Stats.CPU.Usage; got != cgroups.Some(5*time.Second) {
		t.Errorf("got %v", got)
	}
}

func TestTasksAllAtOnce(t *testing.T) {
	h := newTestHost(t, Options{})
	over := make(chan struct{})
	var others sync.WaitGroup
	for range 3 {
		others.Go(func() {
			w := watcher{totals: map[string]uint64{}}
			for {
				select {
				case <-over:
					return
				default:
				}
				c := h.snapshot()[containerA]
				w.see(t, "delay", uint64(c.Tasks.Delays[bpf.DelayCPU].V))
				w.see(t, "CPU", uint64(c.Stats.CPU.Usage.V))
				w.see(t, "kills", c.Tasks.OOMKills.V)
				w.see(t, "exits", c.Tasks.Exits.V[bpf.ExitOOMKilled])
				w.see(t, "restarts", c.Tasks.Restarts.V)
				h.inv.cleanTasks(h.now())
			}
		})
	}
	const lives = 100
	for id := range uint64(lives) {
		h.event(bpf.CgroupMade, 100+id, containerA)
		for range 5 {
			h.kernel.use(bpf.Usage{CgroupV2: 100 + id, Delays: delaysOf(1), CPU: 1})
			time.Sleep(time.Millisecond / 2)
		}
		h.kernel.use(bpf.Usage{CgroupV2: 100 + id, Inits: 1, Exits: exitsOf(bpf.ExitOOMKilled, 1), OOMKills: 1})
		h.event(bpf.CgroupRemoved, 100+id, containerA)
		h.pass(keep / 10)
	}
	close(over)
	others.Wait()
	h.inv.closeOver()
	c := h.snapshot()[containerA]
	got := []uint64{uint64(c.Tasks.Delays[bpf.DelayCPU].V), uint64(c.Stats.CPU.Usage.V), c.Tasks.OOMKills.V, c.Tasks.Exits.V[bpf.ExitOOMKilled], c.Tasks.Restarts.V}
	if diff := cmp.Diff([]uint64{5 * lives, 5 * lives, lives, lives, lives - 1}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A runtime begins programs of its own in a container's cgroup before that of the container. When we come in between, they are
// no reason to think that there was a container before.
func TestContainerThatBeginsAsWeCome(t *testing.T) {
	for _, tt := range []struct {
		name  string
		usage bpf.Usage
		want  uint64
	}{
		{"its own program alone", bpf.Usage{Inits: 1}, 0},
		{"one of the runtime before", bpf.Usage{Others: 1, Exits: exitsOf(bpf.ExitCompleted, 1), Inits: 1}, 0},
		{"one that was there has ended", bpf.Usage{Exits: exitsOf(bpf.ExitCompleted, 1), Inits: 1}, 1},
		{"both", bpf.Usage{Others: 1, Exits: exitsOf(bpf.ExitCompleted, 2), Inits: 1}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newTestHost(t, Options{})
			h.watch(false)
			tt.usage.CgroupV2 = h.cgroup(containerA, time.Second)
			h.watch(true)
			h.kernel.use(tt.usage)
			if got := h.tasks(containerA).Restarts.V; got != tt.want {
				t.Errorf("%d restarts, want %d", got, tt.want)
			}
		})
	}
}
