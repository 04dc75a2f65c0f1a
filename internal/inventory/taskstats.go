// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/delayacct"
)

const (
	// maxAsked processes are asked for in one pass, in at most askFor. The others, another choice in each pass, keep what they had.
	maxAsked, askFor = 20_000, 2 * time.Second
	// maxOver processes that are over are remembered, for overFor.
	maxOver, overFor = 4096, 10 * time.Second
	// maxWaiting processes of which nobody knows whose they were wait for waitFor until one or their parent is known.
	maxWaiting, waitFor = 4096, 2 * time.Second
	// missingFor is how long it is waited for the record of a process that has gone.
	missingFor = 2 * time.Second
)

// taskSource is taskstats; tests have another.
type taskSource interface {
	Thread(tid int) (delayacct.Stats, error)
	Group(tgid int) (delayacct.Stats, error)
	Receive(fn func(*delayacct.Exit)) error
	Close() error
}

// host is the kernel of this host.
type host struct {
	*bpf.Tracer
	procRoot string
}

// Taskstats begins to listen. onLost is called with how many records did not come.
func (h host) Taskstats(onLost func(uint64)) (taskSource, error) {
	l, err := delayacct.Listen(delayacct.Options{ProcRoot: h.procRoot, OnLost: onLost})
	if err != nil {
		return nil, err
	}
	r, err := delayacct.OpenReader()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return hostTaskstats{r, l}, nil
}

type hostTaskstats struct {
	*delayacct.Reader
	listener *delayacct.Listener
}

func (h hostTaskstats) Receive(fn func(*delayacct.Exit)) error { return h.listener.Receive(fn) }
func (h hostTaskstats) Close() error                           { return errors.Join(h.Reader.Close(), h.listener.Close()) }

// taskstats sums up the delays of processes where no kernel program does. Taskstats tells no cgroup: a process belongs where
// cgroup.procs listed it last, or else where its parent does.
type taskstats struct {
	source taskSource
	lost   atomic.Bool // records were lost since the last look

	passing sync.Mutex // taken before mu: one look at all processes at a time
	mu      sync.Mutex // taken before Inventory.mu; guards what follows and all processes

	known    map[uint32]*process // living ones, and those in over
	over     []*process          // whose end was told, oldest first
	last     *process            // whose end was told last: the record of its group follows at once
	waiting  map[uint32]*orphan  // ended, nobody knows whose
	children map[uint32][]uint32 // of waiting, by parent
}

// process is a thread group of a container. A later one may have the same pid.
type process struct {
	pid                   uint32
	container             *container
	bornAfter, bornBefore time.Time
	counted               [NumDelays]time.Duration
	absurd                [NumDelays]bool // left out
	living, ended         time.Duration   // how long its threads have lived: those that lived when it was asked for, and others
	over                  time.Time       // when its end was told; zero while it lives
	final                 bool            // no thread of it has lived on
	spawner               bool            // it begins processes of other containers: a child of it can be anybody's
	missing               time.Time       // when it was asked for in vain
}

// orphan is a process that ended before anything told whose it was: its record and perhaps that of its group.
type orphan struct {
	records []delayacct.Exit
	at      time.Time
}

// openTaskstats begins to sum up delays, if taskstats can be had.
func (inv *Inventory) openTaskstats() {
	ts := &taskstats{known: map[uint32]*process{}, waiting: map[uint32]*orphan{}, children: map[uint32][]uint32{}}
	source, err := inv.kernel.Taskstats(func(n uint64) {
		ts.lost.Store(true)
		inv.countUnaccounted(n)
	})
	inv.features = append(inv.features, Feature{Name: FeatureTaskstats, Err: err})
	if err != nil {
		return
	}
	ts.source = source
	inv.taskstats = ts
	inv.delaysTold = [NumDelays]bool{} // until a record tells
	inv.follower.Go(func() {
		err := source.Receive(func(e *delayacct.Exit) {
			ts.mu.Lock()
			defer ts.mu.Unlock()
			inv.takeExit(e, inv.now())
		})
		if err != nil {
			inv.log.Error("no more records of taskstats, delays of processes that end are lost", zap.Error(err))
		}
	})
}

// closeTaskstats lets a pass that is under way end, too.
func (inv *Inventory) closeTaskstats() error {
	if inv.taskstats == nil {
		return nil
	}
	return inv.taskstats.source.Close()
}

func (inv *Inventory) countUnaccounted(n uint64) {
	inv.mu.Lock()
	inv.status.TasksUnaccounted += n
	inv.mu.Unlock()
}

// passTaskstats brings the delays of living processes up to date.
func (inv *Inventory) passTaskstats() {
	ts := inv.taskstats
	if ts == nil {
		return
	}
	inv.learnProcesses()
	ts.passing.Lock()
	defer ts.passing.Unlock()
	living := ts.living()
	until := time.Now().Add(askFor)
	for _, p := range living[:min(len(living), maxAsked)] {
		if time.Now().After(until) {
			return
		}
		g, err := ts.source.Group(int(p.pid))
		if errors.Is(err, os.ErrClosed) {
			return
		}
		inv.takeAnswer(p, &g, err)
	}
}

// living lists the processes that live, in no order.
func (ts *taskstats) living() []*process {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	all := make([]*process, 0, len(ts.known))
	for _, p := range ts.known {
		if p.over.IsZero() {
			all = append(all, p)
		}
	}
	return all
}

func (inv *Inventory) takeAnswer(p *process, g *delayacct.Stats, err error) {
	ts, now := inv.taskstats, inv.now()
	ts.mu.Lock()
	defer ts.mu.Unlock()
	switch {
	case ts.known[p.pid] != p || !p.over.IsZero(): // its end has just been told
	case err == nil:
		p.missing = time.Time{}
		p.living = max(p.living, g.Elapsed)
		inv.countDelays(p, g)
	case !errors.Is(err, delayacct.ErrGone):
		inv.mu.Lock()
		inv.status.ReadErrors++
		inv.mu.Unlock()
	case p.missing.IsZero():
		p.missing = now
	case now.Sub(p.missing) > missingFor: // its record was lost
		delete(ts.known, p.pid)
	}
}

// countDelays gives p's container what is new in its delays. taskstats.mu is held.
func (inv *Inventory) countDelays(p *process, s *delayacct.Stats) {
	all := s.Delays
	told := kindsOf(&all)
	switch {
	case !s.Group:
		all.Clamp(s.Elapsed)
	case p.living > 0: // else nothing tells how long its threads have lived
		all.Clamp(p.living + p.ended)
		all.CPU = s.Delays.CPU // is never absurd, and may be that of many threads that have ended before we were here
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for i, d := range kindsOf(&all) {
		switch {
		case d.OK:
			inv.delaysTold[i] = true
			p.container.tasks.delays[i] += rise(&p.counted[i], d.Time)
		case told[i].OK && !p.absurd[i]:
			p.absurd[i] = true
			inv.status.DelayAnomalies++
		}
	}
}

// kindsOf lists delays by Delay.
func kindsOf(d *delayacct.Delays) [NumDelays]delayacct.Delay {
	return [NumDelays]delayacct.Delay{
		bpf.DelayCPU: d.CPU, bpf.DelayBlockIO: d.BlockIO, bpf.DelaySwapIn: d.SwapIn, bpf.DelayReclaim: d.Reclaim,
		bpf.DelayThrashing: d.Thrashing, bpf.DelayCompact: d.Compact, bpf.DelayWriteProtect: d.WPCopy, bpf.DelayIRQ: d.IRQ,
	}
}

// takeExit takes in a record that came at a time. taskstats.mu is held.
func (inv *Inventory) takeExit(e *delayacct.Exit, at time.Time) {
	ts := inv.taskstats
	id := e.PID
	if e.TGID != 0 {
		id = e.TGID
	}
	p := ts.holder(id, e, at)
	if !e.Group && e.TGID != 0 && e.Flags&delayacct.LastOne == 0 { // a thread
		if p != nil {
			p.ended += e.Elapsed
		}
		return
	}
	if p == nil {
		if p = ts.adopt(id, e, at); p == nil {
			inv.wait(id, e, at)
			return
		}
		if old := ts.known[id]; old == nil || !old.over.IsZero() {
			ts.known[id] = p
		}
	}
	if !e.Group {
		p.ended += e.Elapsed
	}
	inv.countDelays(p, &e.Stats)
	ts.last = p
	// Before Linux 5.19 nothing tells whether the first thread was the last one.
	p.final = p.final || e.Group || e.TGID != 0
	if p.over.IsZero() {
		ts.over = append(ts.over, p)
	}
	p.over = at
	ts.forgetOver(time.Time{})
	inv.claimOrphans(p)
}

// holder finds the process of a record, nil if it is not known.
func (ts *taskstats) holder(id uint32, e *delayacct.Exit, at time.Time) *process {
	if e.Group && ts.last != nil && ts.last.pid == id {
		return ts.last
	}
	p := ts.known[id]
	if p == nil || e.Group {
		return p
	}
	born := at.Add(-e.Elapsed)
	if born.Before(p.bornAfter) || !p.over.IsZero() && (p.final || born.After(p.over)) {
		return nil // an earlier one, or a later one
	}
	return p
}

// adopt makes a process of a record because its parent is a container's. Before Linux 5.19 what has not begun a program may be
// a thread.
func (ts *taskstats) adopt(id uint32, e *delayacct.Exit, at time.Time) *process {
	parent, born := ts.known[e.PPID], at.Add(-e.Elapsed)
	if e.Group || parent == nil || parent.spawner || e.TGID == 0 && e.Flags&delayacct.Forked != 0 {
		return nil
	}
	if !parent.over.IsZero() && born.After(parent.over) {
		return nil
	}
	return &process{pid: id, container: parent.container, bornBefore: born}
}

// wait keeps a record for the case that it will be known whose it is. taskstats.mu is held.
func (inv *Inventory) wait(id uint32, e *delayacct.Exit, at time.Time) {
	ts := inv.taskstats
	ts.last = nil
	o := ts.waiting[id]
	switch {
	case e.Group:
		if o != nil {
			o.records = append(o.records[:1], *e)
		}
	case o == nil && len(ts.waiting) >= maxWaiting:
		if ts.known[e.PPID] != nil {
			inv.countUnaccounted(1)
		}
	default:
		ts.waiting[id] = &orphan{records: []delayacct.Exit{*e}, at: at}
		ts.children[e.PPID] = append(ts.children[e.PPID], id)
	}
}

// claimOrphans takes in the records that have waited for p: its own, and those of its children. taskstats.mu is held.
func (inv *Inventory) claimOrphans(p *process) {
	ts := inv.taskstats
	take := func(id uint32, o *orphan) {
		delete(ts.waiting, id)
		for i := range o.records {
			inv.takeExit(&o.records[i], o.at)
		}
	}
	if o := ts.waiting[p.pid]; o != nil && p.over.IsZero() && !o.at.Add(-o.records[0].Elapsed).Before(p.bornAfter) {
		take(p.pid, o)
	}
	ids := ts.children[p.pid]
	delete(ts.children, p.pid)
	for _, id := range ids {
		if o := ts.waiting[id]; o != nil && o.records[0].PPID == p.pid {
			take(id, o)
		}
	}
}

// forgetOver forgets what was over before a time, and what there is no room for. mu is held.
func (ts *taskstats) forgetOver(before time.Time) {
	for len(ts.over) > maxOver || len(ts.over) > 0 && ts.over[0].over.Before(before) {
		p := ts.over[0]
		ts.over = ts.over[1:]
		if ts.known[p.pid] == p && !p.over.IsZero() {
			delete(ts.known, p.pid)
		}
	}
}

// forgetOrphans forgets those for whom nobody has come.
func (inv *Inventory) forgetOrphans() {
	ts, now := inv.taskstats, inv.now()
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.forgetOver(now.Add(-overFor))
	clear(ts.children)
	for id, o := range ts.waiting {
		parent := o.records[0].PPID
		if now.Sub(o.at) <= waitFor {
			ts.children[parent] = append(ts.children[parent], id)
			continue
		}
		delete(ts.waiting, id)
		if ts.known[parent] != nil {
			inv.countUnaccounted(1)
		}
	}
}
