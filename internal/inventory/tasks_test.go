// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

const containerA = "/docker/" + hexA

func delaysOf(cpu time.Duration) (d [NumDelays]time.Duration) {
	d[bpf.DelayCPU] = cpu
	return d
}

func exitsOf(reason ExitReason, n uint64) (e [NumExitReasons]uint64) {
	e[reason] = n
	return e
}

// The owners of one container: its own cgroup, one below, and in the kernel's table each with two ids of the other
// hierarchy. Its lives follow each other under one name. However often somebody looks, totals are the same.
func TestTasksAddUp(t *testing.T) {
	const lives = 3
	for _, looks := range []int{0, 1, 2} {
		t.Run(fmt.Sprintf("%d looks", looks), func(t *testing.T) {
			h := newTestHost(t, Options{})
			look := func() {
				for range looks {
					h.snapshot()
				}
				if looks > 1 {
					h.inv.cleanTasks(h.now())
				}
			}
			for life := range uint64(lives) {
				top, below := 100+2*life, 101+2*life
				h.event(bpf.CgroupMade, top, containerA)
				h.event(bpf.CgroupMade, below, containerA+"/init.scope")
				h.kernel.use(bpf.Usage{CgroupV2: top, Inits: 1, Execs: 1, Delays: delaysOf(time.Second)})
				look()
				for _, u := range []bpf.Usage{
					{CgroupV2: top, Delays: delaysOf(2 * time.Second), Exits: exitsOf(bpf.ExitError, 1)},
					{CgroupV2: below, Delays: delaysOf(4 * time.Second), OOMKills: 1},
					{CgroupV2: below, CgroupV1: 7, Delays: delaysOf(8 * time.Second), OOMKills: 2},
					{CgroupV2: below, CgroupV1: 8, Exits: exitsOf(bpf.ExitSignal, 1)},
				} {
					h.kernel.use(u)
					look()
				}
				h.event(bpf.CgroupRemoved, below, containerA+"/init.scope")
				h.event(bpf.CgroupRemoved, top, containerA)
				look()
			}
			want := Tasks{
				OOMKills: cgroups.Some[uint64](3 * lives),
				Exits:    cgroups.Some([NumExitReasons]uint64{bpf.ExitError: lives, bpf.ExitSignal: lives}),
				Restarts: cgroups.Some[uint64](lives - 1),
			}
			want.Delays[bpf.DelayCPU] = cgroups.Some(15 * lives * time.Second)
			for range 3 { // the last time when all are out of the kernel's table
				got := h.tasks(containerA)
				for i := range got.Delays[1:] {
					got.Delays[1+i] = Opt[time.Duration]{}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				h.pass(keep * 3 / 4)
				h.inv.cleanTasks(h.now())
			}
			if n := len(h.kernel.usages); n != 0 {
				t.Errorf("%d usages left in the kernel", n)
			}
		})
	}
}

func TestTasksDoNotGoBack(t *testing.T) {
	h := newTestHost(t, Options{})
	h.event(bpf.CgroupMade, 100, containerA)
	for _, tt := range []struct{ is, want uint64 }{{5, 5}, {3, 5}, {4, 5}, {6, 6}, {0, 6}, {7, 7}} {
		h.kernel.change(func() {
			h.kernel.usages = []bpf.Usage{{
				CgroupV2: 100, Delays: delaysOf(time.Duration(tt.is)), Exits: exitsOf(bpf.ExitCompleted, tt.is), OOMKills: tt.is, Inits: tt.is,
			}}
		})
		got := h.tasks(containerA)
		all := []uint64{uint64(got.Delays[bpf.DelayCPU].V), got.Exits.V[bpf.ExitCompleted], got.OOMKills.V, got.Restarts.V + 1}
		if diff := cmp.Diff([]uint64{tt.want, tt.want, tt.want, tt.want}, all); diff != "" {
			t.Errorf("at %d (-want +got):\n%s", tt.is, diff)
		}
	}
}

func TestUsageOfACgroupThatIsKnownLater(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	id := h.unknown(containerA)
	h.kernel.use(bpf.Usage{CgroupV2: id, Delays: delaysOf(3), Inits: 1})
	h.snapshot()
	h.kernel.use(bpf.Usage{CgroupV2: id, Delays: delaysOf(4)})
	h.pass(unresolvedFor)
	h.inv.cleanTasks(h.now())
	h.walk()
	if got := h.tasks(containerA); got.Delays[bpf.DelayCPU] != cgroups.Some[time.Duration](7) {
		t.Errorf("got %v", got.Delays[bpf.DelayCPU])
	}
	if len(h.kernel.taken) != 0 {
		t.Errorf("taken %v", h.kernel.taken)
	}
}

func TestUsagesOfNobodyAndOfTheUnknown(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	session := h.cgroup("user.slice/user-1000.slice/session-1.scope", 0)
	h.kernel.use(bpf.Usage{CgroupV2: session, OOMKills: 1}, bpf.Usage{CgroupV2: 1 << 40, OOMKills: 1}, bpf.Usage{CgroupV2: 1 << 41, OOMKills: 1})
	wantNames(t, h.snapshot())
	left := func(want ...uint64) {
		t.Helper()
		h.inv.cleanTasks(h.now())
		var got []uint64
		for _, u := range h.kernel.usages {
			got = append(got, u.CgroupV2)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in the kernel (-want +got):\n%s", diff)
		}
		if n := len(h.inv.usages); n != len(want) {
			t.Errorf("%d remembered, want %d", n, len(want))
		}
	}
	h.pass(unresolvedFor)
	left(session, 1<<40, 1<<41)
	// One becomes known at the last moment: between the pass and TakeUsage.
	h.kernel.onUsage = func(u *bpf.Usage) {
		if u.CgroupV2 == 1<<40 {
			h.event(bpf.CgroupMade, 1<<40, containerA)
			u.OOMKills++
		}
	}
	h.pass(time.Second)
	left(session)
	if got := h.tasks(containerA).OOMKills.V; got != 2 {
		t.Errorf("%d OOM kills, want 2", got)
	}
	h.remove("user.slice/user-1000.slice/session-1.scope")
	h.pass(keep)
	left(session)
	h.pass(1)
	left()
}

func TestLastUsageIsCountedOnce(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	h.event(bpf.CgroupMade, 100, containerA)
	u := bpf.Usage{CgroupV2: 100, Delays: delaysOf(5), Exits: exitsOf(bpf.ExitCompleted, 1), Inits: 1}
	h.kernel.use(u)
	h.event(bpf.CgroupRemoved, 100, containerA)
	h.event(bpf.CgroupMade, 102, containerA)
	want := func(n uint64) {
		t.Helper()
		got := h.tasks(containerA)
		if d := got.Delays[bpf.DelayCPU].V; uint64(d) != 5*n || got.Exits.V[bpf.ExitCompleted] != n || got.Restarts.V != n-1 {
			t.Errorf("delay %d, exits %v, restarts %v, want %d times all", d, got.Exits.V, got.Restarts.V, n)
		}
	}
	want(1)
	h.kernel.onUsage = func(at *bpf.Usage) { addUsageTo(at, &u) }
	h.kernel.takeErr = errors.New("no")
	h.pass(keep + 1)
	before := h.inv.Status().ReadErrors
	for range 2 {
		h.inv.cleanTasks(h.now())
		want(1)
	}
	if got := h.inv.Status().ReadErrors - before; got != 2 {
		t.Errorf("%d errors counted, want 2", got)
	}
	h.kernel.takeErr = nil
	for range 3 {
		h.inv.cleanTasks(h.now())
		want(2)
	}
}

func TestUsagesThatCannotBeRead(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	h.event(bpf.CgroupMade, 100, containerA)
	h.kernel.use(bpf.Usage{CgroupV2: 100, Delays: delaysOf(5), Inits: 1})
	was := h.tasks(containerA)
	h.kernel.use(bpf.Usage{CgroupV2: 100, Delays: delaysOf(5), Inits: 1})
	h.event(bpf.CgroupRemoved, 100, containerA)
	h.pass(keep + 1)
	h.kernel.usagesErr = errors.New("no")
	before := h.inv.Status().ReadErrors
	for range 3 {
		if diff := cmp.Diff(was, h.tasks(containerA)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	h.inv.cleanTasks(h.now())
	if n := h.inv.Status().ReadErrors - before; n != 4 || len(h.kernel.taken) != 0 {
		t.Errorf("%d errors counted and %v taken, want 4 and none", n, h.kernel.taken)
	}
	h.kernel.usagesErr = nil
	if got := h.tasks(containerA); got.Delays[bpf.DelayCPU].V != 10 || got.Restarts.V != 1 {
		t.Errorf("afterwards %+v", got)
	}
}

func TestOOMKills(t *testing.T) {
	for _, tt := range []struct {
		name         string
		older        bool
		file         []string // what memory.events tells, one pass after the other; "" for no file
		kernel       []uint64 // by then, of the program
		without      bool     // the program
		passesAtOnce bool     // none before the cgroup is replaced
		want         uint64
	}{
		{name: "none", file: []string{"0"}, kernel: []uint64{0}},
		{name: "file alone", file: []string{"0", "1"}, kernel: []uint64{0, 0}, want: 1},
		{name: "program alone", file: []string{"", ""}, kernel: []uint64{0, 1}, want: 1},
		{name: "both", file: []string{"0", "1", "3"}, kernel: []uint64{0, 1, 3}, want: 3},
		{name: "file first", file: []string{"1", "1", "2"}, kernel: []uint64{0, 1, 2}, want: 2},
		{name: "file read too early", file: []string{"0", "0"}, kernel: []uint64{0, 1}, want: 1},
		{name: "without the program", file: []string{"0", "2"}, without: true, want: 2},
		{name: "replaced at once", file: []string{"1"}, kernel: []uint64{1}, passesAtOnce: true, want: 1},
		{name: "replaced at once, file alone", file: []string{"1"}, kernel: []uint64{0}, passesAtOnce: true, want: 1},
		{name: "replaced at once, without the program", file: []string{"1"}, without: true, passesAtOnce: true, want: 1},
		{name: "found running", older: true, file: []string{"5", "6"}, kernel: []uint64{0, 1}, want: 6},
		{name: "found running, file read too early", older: true, file: []string{"5", "5"}, kernel: []uint64{0, 1}, want: 6},
		{name: "found running, first read after a kill", older: true, file: []string{"6", "6"}, kernel: []uint64{1, 2}, want: 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newTestHost(t, Options{})
			h.alone()
			h.inv.hasTasks = !tt.without
			var id uint64
			h.watch(!tt.older)
			id = h.unknown(containerA)
			h.walk()
			h.watch(true)
			for i, n := range tt.file {
				if n != "" {
					h.kills(containerA, n)
				}
				if !tt.without {
					h.kernel.change(func() { h.kernel.usages = []bpf.Usage{{CgroupV2: id, OOMKills: tt.kernel[i]}} })
				}
				if !tt.passesAtOnce {
					h.snapshot()
				}
			}
			h.event(bpf.CgroupEmptied, id, containerA) // in the last case this is how the file is read
			h.remove(containerA)
			h.event(bpf.CgroupMade, 1<<40, containerA)
			for range 3 { // the last time when the first life is forgotten
				if got := h.tasks(containerA).OOMKills; got.V != tt.want || got.OK == (tt.without && tt.file[0] == "") {
					t.Errorf("got %v, want %d", got, tt.want)
				}
				h.pass(keep)
				h.inv.cleanTasks(h.now())
				h.clean()
			}
		})
	}
}

func TestOOMKillsAreUnknown(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	h.inv.hasTasks = false
	h.cgroup(containerA, 0)
	if got := h.tasks(containerA); got != (Tasks{}) {
		t.Errorf("got %+v", got)
	}
}

func TestRestarts(t *testing.T) {
	var (
		init   = bpf.Usage{Inits: 1, Execs: 1}
		exit   = bpf.Usage{Exits: exitsOf(bpf.ExitError, 1)}
		other  = bpf.Usage{Others: 1, Execs: 1}
		begins = bpf.Usage{Execs: 1}
		both   = bpf.Usage{Inits: 1, Execs: 1, Exits: exitsOf(bpf.ExitError, 1)}
	)
	for _, tt := range []struct {
		name  string
		older bool
		lives [][]bpf.Usage // by pass
		want  uint64
	}{
		{name: "a container", lives: [][]bpf.Usage{{init, exit}}},
		{name: "nothing yet", lives: [][]bpf.Usage{{}}},
		{name: "twice", lives: [][]bpf.Usage{{init, exit}, {init}}, want: 1},
		{name: "without a new cgroup", lives: [][]bpf.Usage{{init, exit, init, exit, init}}, want: 2},
		{name: "a service", lives: [][]bpf.Usage{{other, exit, other, begins}}},
		{name: "a service, three times", lives: [][]bpf.Usage{{other, exit, other, exit}, {other, other}, {other}}, want: 2},
		{name: "in the PID namespace of another", lives: [][]bpf.Usage{{begins, begins}, {begins}}, want: 1},
		{name: "prepared by another process", lives: [][]bpf.Usage{{other, init}, {other, init}}, want: 1},
		{name: "a life without a process", lives: [][]bpf.Usage{{init}, {}, {init}}, want: 1},
		{name: "found running", older: true, lives: [][]bpf.Usage{{}}},
		{name: "found running, ended", older: true, lives: [][]bpf.Usage{{exit}}},
		{name: "found running, then again", older: true, lives: [][]bpf.Usage{{exit}, {init, exit}, {init}}, want: 2},
		{name: "found running, then again in its cgroup", older: true, lives: [][]bpf.Usage{{both}}, want: 1},
		{name: "found running, begun anew in two steps", older: true, lives: [][]bpf.Usage{{exit, init, exit, init}}, want: 2},
		{name: "found running, a service", older: true, lives: [][]bpf.Usage{{other, exit, other}, {other, other}}, want: 1},
		{name: "found when about to begin", older: true, lives: [][]bpf.Usage{{init, exit}}},
		{name: "found when about to begin, then again", older: true, lives: [][]bpf.Usage{{init, exit}, {init}}, want: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newTestHost(t, Options{})
			h.watch(!tt.older)
			for i, life := range tt.lives {
				id := uint64(100 + i)
				h.event(bpf.CgroupMade, id, containerA)
				h.watch(true)
				for _, u := range life {
					u.CgroupV2 = id
					h.kernel.use(u)
					h.snapshot()
				}
				if i < len(tt.lives)-1 {
					h.event(bpf.CgroupRemoved, id, containerA)
				}
			}
			if got := h.tasks(containerA).Restarts; got != cgroups.Some(tt.want) {
				t.Errorf("got %v, want %d", got, tt.want)
			}
		})
	}
}
