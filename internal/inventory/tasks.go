// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
)

// Tasks is what the processes of a container have come to, those that are over included.
type Tasks struct {
	// Delays are by Delay. Unset is what the kernel does not account.
	Delays [NumDelays]Opt[time.Duration]
	// OOMKills are the processes that the OOM killer has killed, main or not; unset where neither the kernel program nor the
	// memory controller tells.
	OOMKills Opt[uint64]
	// Exits of main processes, by ExitReason, and Restarts: the begins of one after the first. Unset without the kernel
	// program.
	Exits    Opt[[NumExitReasons]uint64]
	Restarts Opt[uint64]
}

// taskTotals are those of a container over all its lives. Guarded by Inventory.mu.
type taskTotals struct {
	delays   [NumDelays]time.Duration
	exits    [NumExitReasons]uint64
	oomKills uint64
	starts   uint64
	cpu      time.Duration // what the cgroups of lives that are over did not tell of before they were removed
}

// lifeTasks is what the kernel program tells of one life, and how much of it is in taskTotals. Guarded by Inventory.mu.
type lifeTasks struct {
	cpu                  time.Duration
	oomKills             uint64
	oomKillsBefore       Opt[uint64] // of a life that is not young: what its file told when it was read for the first time
	exits                uint64
	inits, others, execs uint64
	beginSeen            bool // of one that is not young: its main process has begun since all the same
	counted              struct {
		cpu              time.Duration
		oomKills, starts uint64
	}
}

// usage is one entry of the kernel's table of usages. Guarded by Inventory.tasksMu.
type usage struct {
	dir  *dir // nil while it is not known whose it is
	last bpf.Usage
	born time.Time
}

// unresolvedFor is how long it is waited for the cgroup of a usage to become known.
const unresolvedFor = time.Minute

// passTasks brings the totals of all containers up to date with the kernel's table of usages.
func (inv *Inventory) passTasks() error {
	inv.tasksMu.Lock()
	defer inv.tasksMu.Unlock()
	inv.closeOver()
	inv.passTaskstats()
	inv.passDiskIO()
	inv.usageTable = inv.usageTable[:0]
	if err := inv.kernel.ReadUsages(func(u *bpf.Usage) { inv.usageTable = append(inv.usageTable, *u) }); err != nil {
		inv.mu.Lock()
		inv.status.ReadErrors++
		inv.mu.Unlock()
		if text := err.Error(); text != inv.usageError {
			inv.usageError = text
			inv.log.Warn("delays and exits are as they were before", zap.Error(err))
		}
		return err
	}
	now := inv.now()
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for i := range inv.usageTable {
		inv.addUsage(&inv.usageTable[i], now)
	}
	for _, d := range inv.dirs { // files may know of kills that the program does not, also those of lives that are over
		if d.top {
			d.life.container.settle(d.life)
		}
	}
	return nil
}

// addUsage adds to its container what is new in an entry of the kernel's table. tasksMu and mu are held.
func (inv *Inventory) addUsage(u *bpf.Usage, now time.Time) {
	id := [2]uint64{u.CgroupV2, u.CgroupV1}
	known := inv.usages[id]
	if known == nil {
		known = &usage{born: now}
		inv.usages[id] = known
	}
	if known.dir == nil {
		if known.dir = inv.resolve(u.CgroupV2, u.CgroupV1); known.dir == nil {
			return
		}
	}
	l := known.dir.life
	if l == nil {
		return // nobody's
	}
	c, t, last := l.container, &l.tasks, &known.last
	for i, d := range u.Delays {
		c.tasks.delays[i] += rise(&last.Delays[i], d)
	}
	for i, n := range u.Exits {
		by := rise(&last.Exits[i], n)
		c.tasks.exits[i] += by
		t.exits += by
	}
	t.cpu += rise(&last.CPU, u.CPU)
	t.oomKills += rise(&last.OOMKills, u.OOMKills)
	t.others += rise(&last.Others, u.Others)
	if n := rise(&last.Inits, u.Inits); n > 0 {
		// While none has ended that we have not seen begin there was none before: the runtime was about to start it when we
		// came. What it begins in the cgroup by itself is among the others.
		t.beginSeen = t.beginSeen || t.inits == 0 && t.exits <= t.others
		t.inits += n
	}
	if n := rise(&last.Execs, u.Execs); n > 0 {
		t.execs += n
		l.looked.changed = true
	}
	c.settle(l)
}

// rise moves last up to now and returns by how much. A total that seems to fall will be made up for in a later pass.
func rise[T uint64 | time.Duration](last *T, now T) T {
	if now <= *last {
		return 0
	}
	by := now - *last
	*last = now
	return by
}

// settle brings into the totals of c what can be known in two ways: the kernel program may have missed what the cgroup's
// files told before they were removed, and these may have been read too early. mu is held.
func (c *container) settle(l *life) {
	stats, t := l.stats.Load(), &l.tasks
	told := stats.Memory.Events.OOMKill
	if !l.young && told.OK && !t.oomKillsBefore.OK {
		t.oomKillsBefore = Opt[uint64]{V: told.V - min(told.V, t.oomKills), OK: true}
	}
	c.tasks.oomKills += rise(&t.counted.oomKills, max(t.oomKillsBefore.V+t.oomKills, told.V))
	c.tasks.starts += rise(&t.counted.starts, l.starts())
	if l.young && stats.CPU.Usage.V < t.cpu && l.isClosed() {
		c.tasks.cpu += rise(&t.counted.cpu, t.cpu-stats.CPU.Usage.V)
	}
}

// isClosed tells that no reading of l will come any more. One that is under way may hold l.mu for a while: then it is
// false, as mu is held.
func (l *life) isClosed() bool {
	if !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	return l.closed
}

// starts is how often a main process has begun. A service's manager may begin several in one life, such as ExecStartPre and
// ExecStart of systemd, which are one start; the processes of a container that has joined the PID namespace of another are
// none of the kernel program's main ones.
func (l *life) starts() uint64 {
	t := &l.tasks
	switch {
	case !l.young && !t.beginSeen:
		return t.inits + 1 // the first has begun before we were here
	case t.inits == 0 && (t.others > 0 || t.execs > 0):
		return 1
	}
	return t.inits
}

// giveTasks fills in what the tasks of c have come to. mu is held.
func (inv *Inventory) giveTasks(one *Container, c *container) {
	if c.tasks.cpu > 0 {
		one.Stats.CPU.Usage = Opt[time.Duration]{V: one.Stats.CPU.Usage.V + c.tasks.cpu, OK: true}
	}
	if one.Stats.Memory.Events.OOMKill.OK || inv.hasTasks {
		one.Tasks.OOMKills = Opt[uint64]{V: c.tasks.oomKills, OK: true}
	}
	if inv.hasTasks || inv.taskstats != nil {
		for i, d := range c.tasks.delays {
			told := inv.delaysTold[i] && (Delay(i) == bpf.DelayCPU || inv.accountsDelays)
			one.Tasks.Delays[i] = Opt[time.Duration]{V: d, OK: told}
		}
	}
	if !inv.hasTasks {
		return
	}
	one.Tasks.Exits = Opt[[NumExitReasons]uint64]{V: c.tasks.exits, OK: true}
	one.Tasks.Restarts = Opt[uint64]{V: max(c.tasks.starts, 1) - 1, OK: true}
	if c.info != nil && c.info.Restarts > 0 { // those before the container had this cgroup
		told := uint64(c.info.Restarts) + max(c.current.starts(), 1) - 1 //nolint:gosec // positive
		one.Tasks.Restarts.V = max(one.Tasks.Restarts.V, told)
	}
}

// cleanTasks takes out of the kernel's table the usages of cgroups that are gone.
func (inv *Inventory) cleanTasks(now time.Time) {
	if err := inv.passTasks(); err != nil {
		return
	}
	inv.tasksMu.Lock()
	defer inv.tasksMu.Unlock()
	inv.cleanDiskIO(now)
	var over []bpf.Usage
	inv.mu.Lock()
	for id, known := range inv.usages {
		if inv.isOver(known.dir, known.born, now) {
			over = append(over, bpf.Usage{CgroupV2: id[0], CgroupV1: id[1]})
		}
	}
	inv.mu.Unlock()
	for i := range over {
		u := &over[i]
		err := inv.kernel.TakeUsage(u)
		inv.mu.Lock()
		if err != nil {
			inv.status.ReadErrors++
		} else {
			inv.addUsage(u, now)
			delete(inv.usages, [2]uint64{u.CgroupV2, u.CgroupV1})
		}
		inv.mu.Unlock()
	}
}
