// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfcontainer/ebpfcontainer/internal/apptype"
)

const (
	// maxPrograms is how many processes of a container are looked at.
	maxPrograms = 128
	// maxCmdline is how much of a command line is read.
	maxCmdline = 64 << 10
	// maxExecutables is how many files are remembered.
	maxExecutables = 4096
	// What a container runs is looked at when it is born, soon after it has begun a program, and from time to time, since
	// processes change their titles. lookAgain is by how often it was looked at.
	lookAtProgramsAtMostEvery = time.Second
)

var lookAgain = [...]time.Duration{time.Second, 5 * time.Second, 30 * time.Second, time.Minute}

// programs tells of what type processes are. It is not safe for concurrent use.
type programs struct {
	procRoot    string
	table       *apptype.Table
	executables map[fileID][]string // types that the file itself tells
}

// fileID tells files apart, also from those that later take their place.
type fileID struct {
	dev, ino uint64
	mtime    int64
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

// lookAtPrograms finds out anew of what type the containers are whose turn it is.
func (inv *Inventory) lookAtPrograms(now time.Time) {
	type due struct {
		life   *life
		places []place
	}
	var all []due
	inv.mu.Lock()
	for _, c := range inv.containers {
		l := c.current
		if !c.goneAt.IsZero() || !l.looked.due(now) {
			continue
		}
		if l.looked.changed {
			l.looked.times = 0
		}
		l.looked = lookedAt{times: l.looked.times + 1, last: now}
		all = append(all, due{l, placesOf(c)})
	}
	inv.mu.Unlock()
	for _, d := range all {
		types := inv.programs.typesOf(inv.processesOf(d.places))
		inv.mu.Lock()
		if d.life.container.current == d.life && (len(types) > 0 || d.life.container.goneAt.IsZero()) {
			d.life.container.types = types
		}
		inv.mu.Unlock()
	}
}

func (inv *Inventory) processesOf(places []place) []int {
	for _, p := range places {
		if pids, err := inv.fs.Processes(p.hierarchy, p.path, maxPrograms); err == nil && len(pids) > 0 {
			return pids[:min(len(pids), maxPrograms)]
		}
	}
	return nil
}

// typesOf gives the types of some processes, sorted. Those that have gone have none.
func (p *programs) typesOf(pids []int) []string {
	var types []string
	for _, pid := range pids {
		types = append(types, p.typesOfOne(filepath.Join(p.procRoot, strconv.Itoa(pid)))...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

func (p *programs) typesOfOne(dir string) []string {
	cmdline := readSome(filepath.Join(dir, "cmdline"), maxCmdline)
	if len(cmdline) == 0 {
		return nil // a kernel thread, a zombie, or gone
	}
	exe, _ := os.Readlink(filepath.Join(dir, "exe")) // may be forbidden
	comm := readSome(filepath.Join(dir, "comm"), 64)
	types := p.table.Find(apptype.Process{
		Args: apptype.ParseCmdline(cmdline),
		Exe:  exe,
		Comm: string(bytes.TrimSuffix(comm, []byte("\n"))),
	})
	return append(types, p.typesOfFile(filepath.Join(dir, "exe"))...)
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
