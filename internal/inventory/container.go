// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// dir is a cgroup directory: the container's own or one below it. Directories of no container are known as well, so
// that their edges are told from those of a container that was not found yet.
type dir struct {
	seq    uint64    // of the change that added it
	place  place     // the container's own directory, where there is a container
	life   *life     // nil for no container, or one that is not wanted
	top    bool      // the container's own directory
	deadAt time.Time // zero while it exists
	inUse  bool      // dead, but the kernel's table still has edges to take in
}

// place is where a container has its own directory.
type place struct {
	hierarchy cgroups.Hierarchy
	path      string
}

// container returns whose directory it is, nil for nobody's.
func (d *dir) container() *container {
	if d == nil || d.life == nil || d.life.container.dropped {
		return nil
	}
	return d.life.container
}

// container is everything known under one name. Fields are guarded by Inventory.mu, network by Inventory.edgesMu.
type container struct {
	naming
	name       string // path form
	ref        cgroups.Ref
	start      time.Time
	goneAt     time.Time // zero while the current life has a directory
	dropped    bool      // its end has been told
	current    *life
	past       cgroups.Stats // totals of the lives before the current one
	tasks      taskTotals
	io         map[diskNumber]*cgroups.Device // as the kernel program has counted it
	disks      diskState
	logs       logState
	types      []string // of application, as last seen
	endedTypes []endedType

	network network
}

// life is the time from the making of a container's cgroup to its removal. A restart under the same name begins a new
// one.
type life struct {
	container *container
	born      time.Time
	young     bool         // born while we watched; others are much older than we know
	top       [2]*dir      // by hierarchy: the container's own directories, those that are dead included
	readAt    atomic.Int64 // when it was last read, in nanoseconds since 1970
	tasks     lifeTasks
	looked    lookedAt

	stats atomic.Pointer[cgroups.Stats] // as last read, never changed after that

	mu     sync.Mutex // guards what follows, so that a file is read by one at a time
	cgroup *cgroups.Cgroup
	closed bool
}

// at tells whether the container has a directory of its own in a hierarchy.
func (l *life) at(h cgroups.Hierarchy) bool { return l.top[h] != nil && l.top[h].deadAt.IsZero() }

func (l *life) over() bool {
	for _, d := range l.top {
		if d != nil && d.deadAt.IsZero() {
			return false
		}
	}
	return true
}

// read brings stats up to date. Totals that it cannot read stay as they were, and so does all else once the cgroup is
// being removed.
func (l *life) read(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	was := l.stats.Load()
	s := &cgroups.Stats{Devices: make([]cgroups.Device, 0, len(was.Devices))}
	err := l.cgroup.Read(s)
	keepTotals(s, was)
	if errors.Is(err, fs.ErrNotExist) {
		keepGauges(s, was)
		err = nil
	}
	l.stats.Store(s)
	l.readAt.Store(now.UnixNano())
	return err
}

// lastRead is the time of the last reading, or that of birth.
func (l *life) lastRead() time.Time {
	if ns := l.readAt.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return l.born
}

// birth is the zero time if it was not seen.
func (l *life) birth() time.Time {
	if l.young {
		return l.born
	}
	return time.Time{}
}

// lastStats returns a copy; its Devices must not be changed.
func (l *life) lastStats() cgroups.Stats { return *l.stats.Load() }

func (l *life) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		_ = l.cgroup.Close()
	}
}

// phase tells where c is in its life; dropped is true when even its end need not be told any more.
func (c *container) phase(now time.Time, keep time.Duration) (p Phase, dropped bool) {
	if c.goneAt.IsZero() {
		return Live, false
	}
	switch gone := now.Sub(c.goneAt); {
	case gone <= keep:
		return Gone, false
	case gone <= 2*keep:
		return Ended, false
	}
	return Ended, true
}

// age is how long c has lived, or did live.
func (c *container) age(now time.Time) time.Duration {
	if c.goneAt.IsZero() {
		return now.Sub(c.start)
	}
	return c.goneAt.Sub(c.start)
}

// addPast adds the totals of lives that are over to those of a later one. Gauges and limits are the later one's alone.
func addPast(s, past *cgroups.Stats) {
	to, from := counts(s), counts(past)
	for i := range to {
		add(to[i], from[i])
	}
	toTimes, fromTimes := times(s), times(past)
	for i := range toTimes {
		add(toTimes[i], fromTimes[i])
	}
	s.Devices = addDevices(s.Devices, past.Devices)
}

// keepTotals fills in from an earlier reading the totals that the cgroup does not tell any more: its controller was
// switched off, or a file could not be read.
func keepTotals(s, was *cgroups.Stats) {
	carryOver(counts(s), counts(was))
	carryOver(times(s), times(was))
	if len(s.Devices) == 0 {
		s.Devices = was.Devices
	}
}

// keepGauges does the same for the rest.
func keepGauges(s, was *cgroups.Stats) {
	carryOver(gauges(s), gauges(was))
	if !s.CPU.LimitCores.OK {
		s.CPU.LimitCores = was.CPU.LimitCores
	}
}

func carryOver[T any](values, was []*cgroups.Opt[T]) {
	for i, v := range values {
		if !v.OK {
			*v = *was[i]
		}
	}
}

// counts lists the totals of s that are numbers, times those that are durations, gauges what is no total.
func counts(s *cgroups.Stats) []*cgroups.Opt[uint64] {
	m := &s.Memory
	return []*cgroups.Opt[uint64]{
		&s.CPU.Periods, &s.CPU.ThrottledPeriods, &m.MinorFaults, &m.MajorFaults,
		&m.Events.Low, &m.Events.High, &m.Events.Max, &m.Events.OOM, &m.Events.OOMKill,
	}
}

func times(s *cgroups.Stats) []*cgroups.Opt[time.Duration] {
	p := &s.Pressure
	return []*cgroups.Opt[time.Duration]{
		&s.CPU.Usage, &s.CPU.User, &s.CPU.System, &s.CPU.Throttled,
		&p.CPU.Some, &p.CPU.Full, &p.Memory.Some, &p.Memory.Full, &p.IO.Some, &p.IO.Full,
	}
}

func gauges(s *cgroups.Stats) []*cgroups.Opt[uint64] {
	m := &s.Memory
	return []*cgroups.Opt[uint64]{
		&m.Usage, &m.WorkingSet, &m.RSS, &m.Cache, &m.Swap, &m.Kernel, &m.Peak, &m.Limit, &s.PIDs.Current, &s.PIDs.Limit,
	}
}

func add[T uint64 | time.Duration](to, from *cgroups.Opt[T]) {
	if from.OK {
		to.V += from.V
		to.OK = true
	}
}

// addDevices returns the sum in a slice of its own.
func addDevices(a, b []cgroups.Device) []cgroups.Device {
	sum := make([]cgroups.Device, len(a), len(a)+len(b))
	copy(sum, a)
next:
	for _, d := range b {
		for i := range sum {
			if sum[i].Major == d.Major && sum[i].Minor == d.Minor {
				sum[i].ReadBytes += d.ReadBytes
				sum[i].WriteBytes += d.WriteBytes
				sum[i].Reads += d.Reads
				sum[i].Writes += d.Writes
				continue next
			}
		}
		sum = append(sum, d)
	}
	return sum
}
