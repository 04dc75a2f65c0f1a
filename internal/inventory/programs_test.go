// SPDX-License-Identifier: Apache-2.0

//go:build linux

package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// program makes a process that runs a program; exe is where its executable is found, "" for one that may not be looked at.
func (h *testHost) program(pid int, exe string, args ...string) {
	h.t.Helper()
	h.procFile(pid, "cmdline", strings.Join(args, "\x00")+"\x00")
	h.procFile(pid, "comm", filepath.Base(args[0])+"\n")
	link := filepath.Join(h.proc, strconv.Itoa(pid), "exe")
	_ = os.Remove(link)
	if exe == "" {
		return
	}
	if err := os.Symlink(exe, link); err != nil {
		h.t.Fatal(err)
	}
}

// inCgroup says which processes a cgroup has.
func (h *testHost) inCgroup(path string, pids ...int) {
	h.t.Helper()
	var list strings.Builder
	for _, pid := range pids {
		fmt.Fprintln(&list, pid)
	}
	h.write(filepath.Join(path, "cgroup.procs"), list.String())
}

// look has programs looked at as housekeeping does, and waits for that.
func (h *testHost) look() {
	h.inv.lookAtPrograms(h.now())
	h.inv.programs.mu.Lock()
	defer h.inv.programs.mu.Unlock()
}

func (h *testHost) wantTypes(want ...string) {
	h.t.Helper()
	c, ok := h.snapshot()[containerA]
	if !ok {
		h.t.Fatal("no container")
	}
	if diff := cmp.Diff(want, c.ApplicationTypes, cmpopts.EquateEmpty()); diff != "" {
		h.t.Errorf("types (-want +got):\n%s", diff)
	}
}

func TestTypesOfProcesses(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		make func(h *testHost)
		want []string
	}{
		{name: "by its arguments", make: func(h *testHost) { h.program(10, "/nowhere/postgres", "postgres", "-D", "/data") }, want: []string{"postgres"}},
		{name: "executable may not be looked at", make: func(h *testHost) { h.program(10, "", "/usr/sbin/nginx", "-g", "daemon off;") }, want: []string{"nginx"}},
		{name: "compiled", make: func(h *testHost) { h.program(10, self, "/app/server") }, want: []string{"golang"}},
		{name: "compiled, without arguments", make: func(h *testHost) { h.program(10, self, "server"); h.procFile(10, "cmdline", "") }, want: []string{"golang"}},
		{name: "a shell", make: func(h *testHost) { h.program(10, "/nowhere/sh", "sh", "-c", "postgres") }},
		{name: "a zombie", make: func(h *testHost) { h.program(10, "", "postgres"); h.procFile(10, "cmdline", "") }},
		{name: "gone", make: func(*testHost) {}},
		{name: "a directory in its place", make: func(h *testHost) {
			for _, name := range []string{"cmdline", "comm", "exe"} {
				h.procFile(10, name+"/x", "")
			}
		}},
		{name: "the runtime, which will run it", make: func(h *testHost) {
			h.program(10, self, "/proc/self/exe", "init")
			h.procFile(10, "comm", "runc:[2:INIT]\n")
		}},
		{name: "several, one of them gone", make: func(h *testHost) {
			h.program(10, "/nowhere/redis-server", "redis-server *:6379")
			h.program(12, self, "/app/server")
			h.program(13, self, "/app/server")
		}, want: []string{"golang", "redis"}},
		{name: "a title as long as a file can be", make: func(h *testHost) {
			h.program(10, "", "nginx: "+strings.Repeat("x", 4*maxCmdline))
		}, want: []string{"nginx"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newTestHost(t, Options{})
			h.alone()
			h.cgroup(containerA, 0)
			h.inCgroup(containerA, 10, 11, 12, 13)
			tt.make(h)
			h.look()
			h.wantTypes(tt.want...)
		})
	}
}

// Housekeeping looks as soon as there is a container.
func TestTypesAreFoundAtBirth(t *testing.T) {
	h := newTestHost(t, Options{})
	h.program(10, "", "redis-server")
	h.unknown(containerA)
	h.inCgroup(containerA, 10)
	h.walk()
	began := time.Now()
	eventually(t, "type", func() bool { return len(h.snapshot()[containerA].ApplicationTypes) == 1 })
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestTypesChange(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	id := h.cgroup(containerA, 0)
	h.inCgroup(containerA, 10)
	h.program(10, "", "sh", "entrypoint.sh")
	for range 10 { // until it is looked at from time to time only
		h.look()
		h.pass(time.Minute)
	}
	h.look()
	h.wantTypes()

	h.program(10, "", "redis-server") // has been begun
	h.kernel.use(bpf.Usage{CgroupV2: id, Execs: 1})
	h.snapshot()
	h.look()
	h.wantTypes() // it was looked at just before
	h.pass(lookAtProgramsAtMostEvery)
	h.look()
	h.wantTypes("redis")

	h.program(10, "", "postgres: checkpointer") // a title
	h.pass(lookAgain[afterExec])
	h.look()
	h.wantTypes("postgres")
	h.program(10, "", "nginx: worker process")
	h.pass(lookAgain[len(lookAgain)-1])
	h.look()
	h.wantTypes("nginx")
	h.program(10, "", "sh")
	h.pass(lookAgain[len(lookAgain)-1])
	h.look()
	h.wantTypes()
}

// What was known last is given as long as the container is, and until its next life is known.
func TestTypesStayAtTheEnd(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	id := h.cgroup(containerA, 0)
	h.inCgroup(containerA, 10)
	h.program(10, "", "redis-server")
	h.look()
	h.wantTypes("redis")
	h.exit(10) // and the cgroup still lists it
	h.pass(time.Minute)
	h.look()
	h.wantTypes("redis")
	h.inCgroup(containerA)
	h.pass(time.Minute)
	h.look()
	h.wantTypes("redis")
	h.event(bpf.CgroupRemoved, id, containerA)
	h.pass(keep)
	h.look()
	h.wantTypes("redis")

	h.event(bpf.CgroupMade, 1<<40, containerA)
	h.look()
	h.wantTypes("redis")
	h.inCgroup(containerA, 20)
	h.program(20, "", "nginx")
	h.pass(lookAgain[0])
	h.look()
	h.wantTypes("nginx")
}

// A look that is under way when a container is replaced says nothing of the new life.
func TestLookThatIsLate(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	h.cgroup(containerA, 0)
	h.inCgroup(containerA, 10)
	h.program(10, "", "redis-server")
	due := h.inv.dueForLook(h.now())
	h.event(bpf.CgroupRemoved, h.unknown(containerA), containerA)
	h.event(bpf.CgroupMade, 1<<40, containerA)
	h.inv.look(due)
	h.wantTypes()
}

func TestLooksAreBounded(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	id := h.cgroup(containerA, 0)
	count := func(d, step time.Duration, execs uint64) (looks int) {
		for end := h.now().Add(d); h.now().Before(end); h.pass(step) {
			h.kernel.use(bpf.Usage{CgroupV2: id, Execs: execs})
			h.snapshot()
			looks += len(h.inv.dueForLook(h.now()))
		}
		return looks
	}
	if got := count(time.Second, 100*time.Millisecond, 0); got != 3 {
		t.Errorf("%d looks in the first second", got)
	}
	if got := count(time.Hour, 500*time.Millisecond, 0); got > 65 {
		t.Errorf("%d looks in an hour", got)
	}
	if got := count(time.Minute, 100*time.Millisecond, 1); got > 61 {
		t.Errorf("%d looks in a minute in which programs begin all the time", got)
	}
	h.remove(containerA)
	if got := count(keep, time.Second, 0); got != 0 {
		t.Errorf("%d looks at what has gone", got)
	}
}

func TestManyProcesses(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	const perCgroup = 32
	for i := range maxPrograms/perCgroup + 2 {
		path := filepath.Join(containerA, "worker-"+strconv.Itoa(i))
		h.cgroup(path, 0)
		var pids []int
		for n := range perCgroup {
			pid := 100 + i*perCgroup + n
			pids = append(pids, pid)
			program := "redis-server"
			if pid >= 100+maxPrograms {
				program = "nginx" // not looked at
			}
			h.program(pid, "", program)
		}
		h.inCgroup(path, pids...)
	}
	h.inCgroup(containerA)
	h.look()
	h.wantTypes("redis")
}

func TestExecutablesAreRemembered(t *testing.T) {
	h := newTestHost(t, Options{})
	h.alone()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.cgroup(containerA, 0)
	h.inCgroup(containerA, 10, 11)
	h.program(10, self, "server")
	h.program(11, self, "server")
	p := &h.inv.programs
	for n := range uint64(maxExecutables) {
		p.executables[fileID{ino: n}] = nil
	}
	h.look()
	if n := len(p.executables); n != 1 {
		t.Errorf("%d remembered", n)
	}
	for id := range p.executables {
		p.executables[id] = []string{"as remembered"}
	}
	h.pass(time.Minute)
	h.look()
	h.wantTypes("as remembered")
}

// Processes that take long to look at hold nothing up.
func TestLookThatTakesLong(t *testing.T) {
	h := newTestHost(t, Options{})
	h.inv.programs.mu.Lock() // a look
	h.cgroup(containerA, 0)
	h.inCgroup(containerA, 10)
	h.program(10, "", "redis-server")
	f := follow(t, h.inv, nil)
	h.kernel.exit(mainExit(1<<40, 1))
	h.event(bpf.CgroupMade, 1<<40, "/docker/"+hexB)
	f.wait(t, 1) // by housekeeping
	h.inv.programs.mu.Unlock()
	eventually(t, "type", func() bool { return len(h.snapshot()[containerA].ApplicationTypes) == 1 })
}
