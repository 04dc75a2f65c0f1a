// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/apptype"
)

const (
	// maxPrograms is how many processes of a container are looked at.
	maxPrograms = 128
	// maxCmdline is how much of a command line is read.
	maxCmdline = 64 << 10
	maxComm    = 64
	// maxExecutables is how many files are remembered.
	maxExecutables = 4096
	// What a container runs is looked at when it is born, when it has just begun, soon after it has begun a program, and from
	// time to time, since processes change their titles. lookAgain is by how often it was looked at, afterExec how often that
	// is said to be when it has begun a program.
	lookAtProgramsAtMostEvery = time.Second
	afterExec                 = 2
)

var lookAgain = [...]time.Duration{
	100 * time.Millisecond, 400 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second, time.Minute,
}

// programs tells of what type processes are.
type programs struct {
	procRoot string
	table    *apptype.Table

	mu          sync.Mutex          // one look at a time; guards what follows, and is held while files are read
	executables map[fileID][]string // types that the file itself tells
}

// fileID tells files apart, also from those that later take their place.
type fileID struct {
	dev, ino uint64
	mtime    int64
}

// endedType is a type of a container that none of its processes has any more.
type endedType struct {
	name string
	at   time.Time
}

// lookedAt is when it was looked what a life runs. Guarded by Inventory.mu.
type lookedAt struct {
	changed bool // it has begun a program since
	times   int
	last    time.Time
}

func (l *lookedAt) due(now time.Time) bool {
	since := now.Sub(l.last)
	if l.times == 0 || l.changed && since >= lookAtProgramsAtMostEvery {
		return true
	}
	return since >= lookAgain[min(l.times, len(lookAgain))-1]
}

// lookAtPrograms looks at the containers whose turn it is, if that is not being done: files of processes may take long to read.
func (inv *Inventory) lookAtPrograms(now time.Time) {
	if !inv.programs.mu.TryLock() {
		return
	}
	due := inv.dueForLook(now)
	if len(due) == 0 {
		inv.programs.mu.Unlock()
		return
	}
	inv.maintainer.Go(func() {
		defer inv.programs.mu.Unlock()
		inv.look(due)
	})
}

// dueLook is a life whose programs are looked at, and where they are found.
type dueLook struct {
	life   *life
	places []place
}

func (inv *Inventory) dueForLook(now time.Time) []dueLook {
	var all []dueLook
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for _, c := range inv.containers {
		l := c.current
		if !c.goneAt.IsZero() || !l.looked.due(now) {
			continue
		}
		times := l.looked.times
		if l.looked.changed {
			times = min(times, afterExec)
		}
		l.looked = lookedAt{times: times + 1, last: now}
		all = append(all, dueLook{l, placesOf(c)})
	}
	return all
}

// look finds out anew of what type some containers are. What has no process to look at stays what it was, so that the last
// that was known is given at its end. programs.mu is held.
func (inv *Inventory) look(all []dueLook) {
	for _, d := range all {
		pids := inv.processesOf(d.places)
		inv.lookAtMounts(d.life, pids)
		inv.lookAtLogFiles(d.life, pids)
		types, ok := inv.programs.typesOf(pids)
		if !ok {
			continue
		}
		inv.mu.Lock()
		if d.life.container.current == d.life {
			d.life.container.setTypes(types, inv.now())
		}
		inv.mu.Unlock()
	}
}

// setTypes also remembers those that are gone, until their end was told. mu is held.
func (c *container) setTypes(types []string, now time.Time) {
	for _, t := range c.types {
		if !slices.Contains(types, t) {
			c.endedTypes = append(c.endedTypes, endedType{t, now})
		}
	}
	c.types = types
}

// typesEndedSince gives the types that were told and are gone since then, sorted. mu is held.
func (c *container) typesEndedSince(since time.Time) []string {
	c.endedTypes = slices.DeleteFunc(c.endedTypes, func(e endedType) bool {
		return e.at.Before(since) || slices.Contains(c.types, e.name)
	})
	var names []string
	for _, e := range c.endedTypes {
		names = append(names, e.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (inv *Inventory) processesOf(places []place) []int {
	for _, p := range places {
		if pids, err := inv.fs.Processes(p.hierarchy, p.path, maxPrograms); err == nil && len(pids) > 0 {
			return pids[:min(len(pids), maxPrograms)]
		}
	}
	return nil
}

// typesOf gives the types of some processes, sorted. ok is false when none of them could be looked at. mu is held.
func (p *programs) typesOf(pids []int) (types []string, ok bool) {
	for _, pid := range pids {
		some, found := p.typesOfOne(filepath.Join(p.procRoot, strconv.Itoa(pid)))
		types = append(types, some...)
		ok = ok || found
	}
	slices.Sort(types)
	return slices.Compact(types), ok
}

func (p *programs) typesOfOne(dir string) (types []string, ok bool) {
	cmdline := readSome(filepath.Join(dir, "cmdline"), maxCmdline)
	exe, _ := os.Readlink(filepath.Join(dir, "exe")) // may be forbidden
	comm := string(bytes.TrimSuffix(readSome(filepath.Join(dir, "comm"), maxComm), []byte("\n")))
	args := apptype.ParseCmdline(cmdline)
	if len(cmdline) == 0 && exe == "" || isRuntimeInit(comm, args) {
		return nil, false // a kernel thread, a zombie, gone, or not what it will be
	}
	types = p.table.Find(apptype.Process{Args: args, Exe: exe, Comm: comm})
	return append(types, p.typesOfFile(filepath.Join(dir, "exe"))...), true
}

// isRuntimeInit tells that a process is a part of runc or youki that will run the container's program: these go by names
// such as runc:[2:INIT] until then, and before that by their own as runc init.
func isRuntimeInit(comm string, args []string) bool {
	for _, name := range []string{"runc", "youki"} {
		if comm == name || strings.HasPrefix(comm, name+":[") || len(args) == 2 && filepath.Base(args[0]) == name && args[1] == "init" {
			return true
		}
	}
	return false
}

// typesOfFile tells in which language an executable was written, where that is compiled.
func (p *programs) typesOfFile(exe string) []string {
	f, err := os.Open(exe)
	if err != nil {
		return nil
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil
	}
	id := fileID{st.Dev, st.Ino, st.Mtim.Nano()}
	types, known := p.executables[id]
	if known {
		return types
	}
	switch {
	case apptype.IsGo(f):
		types = []string{"golang"}
	case apptype.IsDotnet(f):
		types = []string{"dotnet"}
	case apptype.IsRust(f):
		types = []string{"rust"}
	}
	if len(p.executables) >= maxExecutables {
		clear(p.executables)
	}
	p.executables[id] = types
	return types
}

// readSome reads the begin of a file; what cannot be read is empty.
func readSome(name string, limit int64) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, limit))
	return b
}
