// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
	"github.com/ebpfcontainer/ebpfcontainer/internal/delayacct"
)

const (
	// maxProcsFiles of one container are read.
	maxProcsFiles = 4096
	// bornSlack is for taskstats telling lives in microseconds.
	bornSlack = time.Millisecond
)

// learnProcesses looks which processes the containers have.
func (inv *Inventory) learnProcesses() {
	ts := inv.taskstats
	if ts == nil {
		return
	}
	ts.passing.Lock()
	defer ts.passing.Unlock()
	lost := ts.lost.Swap(false)
	found := inv.listProcesses()
	for pid, o := range found {
		inv.learnProcess(pid, o.container, lost)
	}
	if lost {
		for _, p := range ts.living() {
			if found[p.pid].container == nil {
				inv.learnProcess(p.pid, nil, lost)
			}
		}
	}
	inv.forgetOrphans()
}

// learnProcess takes in that a process was seen in the cgroup of c, in nobody's if c is nil. It looks again whether a known one
// is the same as before.
func (inv *Inventory) learnProcess(pid uint32, c *container, again bool) {
	ts := inv.taskstats
	ts.mu.Lock()
	p := ts.known[pid]
	settled := p != nil && p.over.IsZero() && p.container == c
	ts.mu.Unlock()
	if settled && !again {
		return
	}
	began := inv.now()
	s, err := ts.source.Thread(int(pid))
	next := &process{pid: pid, container: c, bornBefore: inv.now()}
	switch {
	case err == nil:
		next.bornAfter, next.bornBefore = began.Add(-s.Elapsed-bornSlack), next.bornBefore.Add(-s.Elapsed+bornSlack)
	case !errors.Is(err, delayacct.ErrGone): // one that is gone by now has left a record, or will
		return
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	another := p == nil || next.bornAfter.After(p.bornBefore)
	switch {
	case ts.known[pid] != p, !another && (c == nil || p.final): // its end has just been told; or it is nobody's now
		return
	case c == nil:
		delete(ts.known, pid)
		return
	case another:
		ts.known[pid] = next
	default: // it has moved, or before Linux 5.19 only its first thread has ended
		if g, err := ts.source.Group(int(pid)); err == nil && p.container != c {
			p.living = max(p.living, g.Elapsed)
			inv.countDelays(p, &g)
		}
		p.container, p.over = c, time.Time{}
		next = p
	}
	if parent := ts.known[s.PPID]; parent != nil && parent.container != c {
		parent.spawner = true
	}
	inv.claimOrphans(next)
}

// owner is whose a process is by one of its cgroups.
type owner struct {
	container *container
	place     place
	unit      bool // a service, which may be the one that a container's runtime is in
}

// listProcesses reads whose each process is. Where its two cgroups do not agree it is as with resolve.
func (inv *Inventory) listProcesses() map[uint32]owner {
	var all []owner
	inv.mu.Lock()
	for _, c := range inv.containers {
		for _, p := range placesOf(c) {
			all = append(all, owner{c, p, c.ref.Kind == cgroups.Systemd})
		}
	}
	inv.mu.Unlock()
	roots := [...]string{
		cgroups.Unified: inv.fs.UnifiedDir(),
		cgroups.Legacy:  filepath.Join(inv.opts.CgroupRoot, inv.fs.LegacyController()),
	}
	found := map[uint32]owner{}
	for _, o := range all {
		eachProcess(roots[o.place.hierarchy], o.place.path, func(pid uint32) {
			other, ok := found[pid]
			better := other.unit
			if o.place.hierarchy == cgroups.Unified {
				better = !o.unit
			}
			if !ok || better {
				found[pid] = o
			}
		})
	}
	return found
}

// eachProcess gives the processes of a container: those in its cgroup and in those below that are no other container's.
// What cannot be read is gone, or threaded and listed further up.
func eachProcess(root, own string, fn func(pid uint32)) {
	todo := []string{own}
	for n := 0; n < len(todo) && n < maxProcsFiles; n++ {
		dir := filepath.Join(root, todo[n])
		b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for line := range strings.Lines(string(b)) {
			pid, err := strconv.ParseUint(strings.TrimSpace(line), 10, 32)
			if err == nil && pid > 0 { // 0 is outside of our PID namespace
				fn(uint32(pid))
			}
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if below := path.Join(todo[n], e.Name()); e.IsDir() && cgroups.ParsePath(below).Path == own {
				todo = append(todo, below)
			}
		}
	}
}
