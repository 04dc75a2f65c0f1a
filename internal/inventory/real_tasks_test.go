// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// waitGone waits until the end of a container is known, without a collection.
func waitGone(t *testing.T, inv *Inventory, name string) {
	t.Helper()
	eventually(t, "container gone", func() bool {
		inv.mu.Lock()
		defer inv.mu.Unlock()
		c := inv.containers[name]
		return c != nil && !c.goneAt.IsZero()
	})
}

// Containers that live for 300 ms, one after the other: all of what each has done is in the collection after them.
func TestRealTasksBetweenTwoCollections(t *testing.T) {
	const runs = 10
	var names []string
	var all []*realContainer
	for range runs {
		rc := newRealContainer(t)
		all, names = append(all, rc), append(names, rc.name)
	}
	inv := openReal(t, names...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	find(t, inv, "")

	var cpu, delay, after [runs]time.Duration // after the processes told their delay, summed over both
	for i, rc := range all {
		rc.make()
		var both [2]*realProcess
		for n := range both {
			both[n] = startMain(t, rc.dirs, 0)
			both[n].want("ok", "dial %s", l.Addr())
			cpu[i] -= both[n].duration("before")
		}
		for _, p := range both { // on one CPU: each waits while the other one runs
			fmt.Fprintln(p.in, "burn 100ms")
		}
		for code, p := range both {
			if !p.answers.Scan() || p.answers.Text() != "ok" {
				t.Fatalf("got %q", p.answers.Text())
			}
			asked := time.Now()
			delay[i] += p.duration("delay")
			cpu[i] += p.end("exit %d", code)
			after[i] += time.Since(asked)
		}
		rc.remove()
	}
	waitGone(t, inv, names[runs-1])
	typed, exact := 0, 0
	for i, name := range names {
		c, ok := find(t, inv, name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		got := c.Tasks.Delays[DelayCPU].V
		t.Logf("CPU %v of %v, delay %v of %v", c.Stats.CPU.Usage.V, cpu[i], got, delay[i])
		// After they told they still have to end.
		if got := c.Stats.CPU.Usage.V; got < cpu[i]*19/20 || got > cpu[i]*21/20+after[i] {
			t.Errorf("run %d: CPU %v, the processes say %v", i, c.Stats.CPU.Usage.V, cpu[i])
		}
		if got < delay[i]*19/20 || got < 50*time.Millisecond {
			t.Errorf("run %d: delay %v, the processes say %v", i, got, delay[i])
		}
		if got <= delay[i]*21/20+after[i] {
			exact++
		}
		if want := [NumExitReasons]uint64{ExitCompleted: 1, ExitError: 1}; c.Tasks.Exits.V != want {
			t.Errorf("run %d: exits %v, want %v", i, c.Tasks.Exits.V, want)
		}
		if len(c.Edges) != 1 || c.Edges[0].Connects != 2 {
			t.Errorf("run %d: edges %+v", i, c.Edges)
		}
		if slices.Equal(c.ApplicationTypes, []string{"golang"}) {
			typed++
		} else if len(c.ApplicationTypes) > 0 {
			t.Errorf("run %d: types %v", i, c.ApplicationTypes)
		}
	}
	// On a busy machine nobody looks in time what it is, and threads wait long to end: those that end with the begin of the
	// program, or after it has told, it does not tell of.
	if typed < runs/2 {
		t.Errorf("of %d containers it is known what they are", typed)
	}
	if exact == 0 {
		t.Error("delays are longer than the processes say")
	}
}

func (p *realProcess) duration(command string) time.Duration {
	p.t.Helper()
	answer := p.do("%s", command)
	d, err := time.ParseDuration(answer)
	if err != nil {
		p.t.Fatalf("%s: %q", command, answer)
	}
	return d
}

// Two inventories see the same restarts, as containers and as services do them.
func TestRealRestarts(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags uintptr
		per   int // processes in each life, such as ExecStartPre and ExecStart
	}{
		{name: "container", flags: unix.CLONE_NEWPID, per: 1},
		{name: "service", per: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rc := newRealContainer(t)
			both := []*Inventory{openReal(t, rc.name), openReal(t, rc.name)}
			const lives = 6
			began := time.Now()
			for range lives {
				rc.make()
				for range tt.per {
					startMain(t, rc.dirs, tt.flags).end("exit 1")
				}
				for _, dir := range rc.dirs {
					eventually(t, "remove "+dir, func() bool { return syscall.Rmdir(dir) == nil })
				}
			}
			t.Logf("%d lives in %v", lives, time.Since(began))
			for _, inv := range both {
				waitGone(t, inv, rc.name)
				for range 2 {
					c, _ := find(t, inv, rc.name)
					if c.Tasks.Restarts != cgroups.Some[uint64](lives-1) || c.Tasks.Exits.V[ExitError] != uint64(lives*tt.per) {
						t.Errorf("restarts %v, exits %v, want %d restarts", c.Tasks.Restarts, c.Tasks.Exits, lives-1)
					}
				}
			}
		})
	}
}

func TestRealRestartOfAContainerThatWasThere(t *testing.T) {
	rc := newRealContainer(t)
	rc.make()
	p := startMain(t, rc.dirs, unix.CLONE_NEWPID)
	p.want("hello", "hello")
	inv := openReal(t, rc.name)
	if c, _ := find(t, inv, rc.name); c.Tasks.Restarts != cgroups.Some[uint64](0) {
		t.Errorf("found running: %v restarts", c.Tasks.Restarts)
	}
	p.end("exit 0")
	rc.remove()
	rc.make()
	startMain(t, rc.dirs, unix.CLONE_NEWPID).want("hello", "hello")
	c, _ := find(t, inv, rc.name)
	if c.Tasks.Restarts != cgroups.Some[uint64](1) || c.Tasks.Exits.V[ExitCompleted] != 1 {
		t.Errorf("begun anew: %v restarts, exits %v", c.Tasks.Restarts, c.Tasks.Exits.V)
	}
}

// withoutTimes drops from events what is another in each run, after a look at it.
func withoutTimes(t *testing.T, began time.Time, events []Event) []Event {
	t.Helper()
	for i := range events {
		e := &events[i]
		if e.At.Before(began) || e.At.After(time.Now()) || e.Life <= 0 || e.Life > time.Since(began) || e.MaxRSS < 1<<20 || e.MaxRSS > 1<<30 {
			t.Errorf("event %+v since %v", e, began)
		}
		e.At, e.Life, e.MaxRSS = time.Time{}, 0, 0
	}
	return events
}

// ownCommand is the name of a process that runs /proc/self/exe.
const ownCommand = "exe"

func TestRealExits(t *testing.T) {
	kill := func(p *realProcess) {
		if err := p.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		p.wait()
	}
	command := func(how string) func(*realProcess) { return func(p *realProcess) { p.end("%s", how) } }
	type death struct {
		end          func(*realProcess)
		reason       ExitReason
		code, signal int
	}
	deaths := []death{
		{end: command("exit 0"), reason: ExitCompleted},
		{end: command("exit 3"), reason: ExitError, code: 3},
		{end: command("exit 255"), reason: ExitError, code: 255},
		{end: kill, reason: ExitSignal, signal: 9},
	}
	for _, tt := range []struct {
		name   string
		flags  uintptr
		deaths []death
		want   [NumExitReasons]uint64
	}{
		{
			name: "container", flags: unix.CLONE_NEWPID, deaths: deaths,
			want: [NumExitReasons]uint64{ExitCompleted: 1, ExitError: 2, ExitSignal: 1},
		},
		{
			name: "service", deaths: append(deaths, death{end: command("signal 15"), reason: ExitSignal, signal: 15}),
			want: [NumExitReasons]uint64{ExitCompleted: 1, ExitError: 2, ExitSignal: 2},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rc := newRealContainer(t)
			inv := openReal(t, rc.name)
			f := follow(t, inv, nil)
			began := time.Now()
			rc.make()
			var want []Event
			for _, d := range tt.deaths {
				p := startMain(t, rc.dirs, tt.flags)
				p.want("exit status 4", "have exit 4") // a child, which is nobody's main process
				d.end(p)
				e := Event{
					Kind: EventExit, Name: rc.name, Ref: cgroups.ParsePath(rc.name), PID: p.pid, InnerPID: p.pid,
					Command: ownCommand, Reason: d.reason, Code: d.code, Signal: d.signal,
				}
				if tt.flags != 0 {
					e.InnerPID = 1
				}
				want = append(want, e)
			}
			got := withoutTimes(t, began, f.wait(t, len(want)))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c, _ := find(t, inv, rc.name); c.Tasks.Exits.V != tt.want {
				t.Errorf("exits %v, want %v", c.Tasks.Exits.V, tt.want)
			}
			if n := inv.Status().EventsDropped; n != 0 {
				t.Errorf("%d dropped", n)
			}
		})
	}
}

// limit gives the container 60 MB more than it has, and returns how much that is.
func (c *realContainer) limit() uint64 {
	c.t.Helper()
	for _, dir := range c.dirs {
		for _, names := range [][3]string{
			{"memory.current", "memory.max", "memory.swap.max"},
			{"memory.usage_in_bytes", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
		} {
			b, err := os.ReadFile(filepath.Join(dir, names[0]))
			if err != nil {
				continue
			}
			usage, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
			if err != nil {
				c.t.Fatal(err)
			}
			limit := (usage + 60<<20) &^ 4095
			if err := os.WriteFile(filepath.Join(dir, names[1]), fmt.Append(nil, limit), 0); err != nil {
				c.t.Fatal(err)
			}
			swap := limit
			if names[2] == "memory.swap.max" {
				swap = 0
			}
			_ = os.WriteFile(filepath.Join(dir, names[2]), fmt.Append(nil, swap), 0) // where swap is accounted
			return limit
		}
	}
	c.t.Skip("no memory controller")
	return 0
}

// The OOM killer kills a child, which the main process survives, and then that one.
func TestRealOOMKills(t *testing.T) {
	rc := newRealContainer(t)
	inv := openReal(t, rc.name)
	f := follow(t, inv, nil)
	began := time.Now()
	rc.make()
	p := startMain(t, rc.dirs, unix.CLONE_NEWPID)
	p.want("<nil>", "have exit 0")
	limit := rc.limit()
	find(t, inv, rc.name)
	p.want("signal: killed", "have eat 160")
	c, _ := find(t, inv, rc.name)
	if c.Tasks.OOMKills != cgroups.Some[uint64](1) || c.Tasks.Exits.V != ([NumExitReasons]uint64{}) {
		t.Errorf("after the child: OOM kills %v, exits %v", c.Tasks.OOMKills, c.Tasks.Exits.V)
	}
	p.end("eat 160")
	rc.remove()
	waitGone(t, inv, rc.name)
	for range 2 {
		c, _ = find(t, inv, rc.name)
		if c.Tasks.OOMKills != cgroups.Some[uint64](2) || c.Tasks.Exits.V != ([NumExitReasons]uint64{ExitOOMKilled: 1}) {
			t.Errorf("after the main process: OOM kills %v, exits %v", c.Tasks.OOMKills, c.Tasks.Exits.V)
		}
	}
	event := Event{
		Kind: EventOOMKill, Name: rc.name, Ref: cgroups.ParsePath(rc.name), Command: ownCommand,
		Reason: ExitOOMKilled, Signal: 9, MemoryLimit: cgroups.Some(limit),
	}
	want := []Event{event, event, event}
	want[1].PID, want[1].InnerPID, want[2].PID, want[2].InnerPID = p.pid, 1, p.pid, 1
	want[2].Kind = EventExit
	got := withoutTimes(t, began, f.wait(t, len(want)))
	if got[0].PID == p.pid || got[0].InnerPID < 2 {
		t.Errorf("the child is %d, inside %d", got[0].PID, got[0].InnerPID)
	}
	got[0].PID, got[0].InnerPID = 0, 0
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A container whose main process is killed for memory as soon as it has begun, and that is replaced at once.
func TestRealOOMKilledAgainAndAgain(t *testing.T) {
	rc := newRealContainer(t)
	inv := openReal(t, rc.name)
	const lives = 5
	for range lives {
		rc.make()
		p := startMain(t, rc.dirs, unix.CLONE_NEWPID)
		p.want("hello", "hello")
		rc.limit()
		p.end("eat 160")
		for _, dir := range rc.dirs {
			eventually(t, "remove "+dir, func() bool { return syscall.Rmdir(dir) == nil })
		}
	}
	waitGone(t, inv, rc.name)
	c, _ := find(t, inv, rc.name)
	got := []uint64{c.Tasks.OOMKills.V, c.Tasks.Exits.V[ExitOOMKilled], c.Tasks.Restarts.V}
	if diff := cmp.Diff([]uint64{lives, lives, lives - 1}, got); diff != "" {
		t.Errorf("OOM kills, exits, restarts (-want +got):\n%s", diff)
	}
}
