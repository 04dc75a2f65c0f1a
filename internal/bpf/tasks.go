// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// Usage is what the tasks of one pair of cgroups have come to since the Tracer is there: all that ever ran in it, of
// those that are older all their life. A task that moves between cgroups leaves behind what it had until then. Nothing in
// it ever falls, but when the entry was taken.
type Usage struct {
	CgroupV2 uint64 // in the unified hierarchy
	CgroupV1 uint64 // in the hierarchy of Options.LegacyController, 0 if there is none

	CPU    time.Duration            // on a CPU; what of a task that is just running since the last tick is not in it
	Delays [NumDelays]time.Duration // by Delay; one that is not in DelaysTold is zero

	// Exits are those of main processes, by ExitReason. A main process has begun a program in this cgroup while its parent
	// was in another one, either as the first of a PID namespace, or, in a cgroup that had no such, while there was no
	// other main process. When one of the latter kind has ended with status 0, what it has left to a parent in another
	// cgroup is main: a service that forks into the background.
	Exits          [NumExitReasons]uint64
	OOMKills       uint64 // processes that the OOM killer has killed, main or not
	Inits          uint64 // main processes that have begun as the first of a PID namespace
	Others         uint64 // other main processes that have begun
	Execs          uint64 // programs that have begun
	ProcessesEnded uint64
	TasksEnded     uint64 // threads
}

// Delay is a kind of waiting that the kernel accounts to tasks. All but DelayCPU need its delay accounting, see
// Documentation/accounting/delay-accounting.rst.
type Delay uint8

// The kinds of Delay, enum delay of the programs.
const (
	DelayCPU          Delay = iota // runnable, waiting for a CPU; time in which a quota holds it up is in here as well
	DelayBlockIO                   // synchronous block I/O
	DelaySwapIn                    // pages swapped in
	DelayReclaim                   // direct reclaim of memory
	DelayThrashing                 // pages read again shortly after they were reclaimed
	DelayCompact                   // compaction of memory; Linux 5.17
	DelayWriteProtect              // copies of write-protected pages; Linux 6.0
	DelayIRQ                       // interrupts while it ran; Linux 6.5

	NumDelays = len(taskUsage{}.Times.Delays)
)

// ExitReason is how a main process has ended.
type ExitReason uint8

// The kinds of ExitReason, enum exit_reason of the programs.
const (
	ExitCompleted ExitReason = iota // with status 0
	ExitError                       // with another one
	ExitSignal                      // killed by a signal
	ExitOOMKilled                   // killed by the OOM killer

	NumExitReasons = len(taskUsage{}.Exits)
)

// ProcessExit is the end of a main process, or of one that the OOM killer has killed.
type ProcessExit struct {
	CgroupV2, CgroupV1 uint64
	PID, InnerPID      int    // in the host's PID namespace and in its own
	Command            string // at most 15 bytes
	Main               bool
	Reason             ExitReason
	Code               int           // status, 0 when killed by a signal
	Signal             int           // 0 when not killed by one
	Life               time.Duration // from its fork
	// MaxRSS is the most memory that it had, in bytes. Before Linux 6.16 it is not less than what it had before its exec,
	// where it may have shared its parent's; since then what is so small is right within some hundred KiB.
	MaxRSS uint64
}

type taskTracer struct {
	objs   taskObjects
	links  []link.Link
	living *link.Iter
	events *ringbuf.Reader

	mu     sync.Mutex // guards what follows, and that nobody reads while it is closed
	closed bool
	keys   []taskOwner
	values []taskUsage
	n      int // entries seen by the last ReadUsages
}

func openTasks(o Options) (*taskTracer, error) {
	spec, err := taskSpec(o)
	if err != nil {
		return nil, err
	}
	return startTasks(spec)
}

func taskSpec(o Options) (*ebpf.CollectionSpec, error) {
	spec, err := loadTask()
	if err != nil || o.LegacyController == "" {
		return spec, err
	}
	subsys, err := subsysID(o.LegacyController)
	if err != nil {
		return nil, err
	}
	id, err := hierarchyID(o.ProcRoot, o.LegacyController)
	if err != nil {
		return nil, err
	}
	return spec, errors.Join(spec.Variables[taskVarV1Subsys].Set(subsys), spec.Variables[taskVarV1Hierarchy].Set(id))
}

func startTasks(spec *ebpf.CollectionSpec) (*taskTracer, error) {
	t := &taskTracer{keys: make([]taskOwner, batchSize), values: make([]taskUsage, batchSize)}
	err := spec.LoadAndAssign(&t.objs, nil)
	if err != nil {
		return nil, err
	}
	// on_free first: what is noted before it is there might never be let go.
	if t.links, err = attach(t.objs.OnFree, t.objs.OnExit, t.objs.OnAttach, t.objs.OnExec, t.objs.OnFork); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if t.living, err = link.AttachIter(link.IterOptions{Program: t.objs.AddLiving}); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if t.events, err = ringbuf.NewReader(t.objs.ExitEvents); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if err := t.addLiving(); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *taskTracer) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	errs := []error{closeLinks(t.links)}
	if t.events != nil {
		errs = append(errs, t.events.Close())
	}
	if t.living != nil {
		errs = append(errs, t.living.Close())
	}
	return errors.Join(append(errs, t.objs.Close())...)
}

// addLiving runs the pass over the tasks that are alive. The kernel shows those of our own PID namespace.
func (t *taskTracer) addLiving() error {
	r, err := t.living.Open()
	if err != nil {
		return fmt.Errorf("read the tasks: %w", err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("read the tasks: %w", err)
	}
	return nil
}

// ReadUsages gives the usage of all cgroups; fn must not keep it. In a PID namespace other than the host's, the times of
// processes that are not in ours are only in it when they have ended or moved. Without FeatureTasks there is nothing.
func (t *Tracer) ReadUsages(fn func(*Usage)) error {
	if t.tasks == nil {
		return nil
	}
	return t.tasks.read(fn)
}

func (t *taskTracer) read(fn func(*Usage)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	if err := t.addLiving(); err != nil {
		return err
	}
	t.n = 0
	var cursor ebpf.MapBatchCursor
	for {
		n, err := t.objs.Usages.BatchLookup(&cursor, t.keys, t.values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read usages: %w", err)
		}
		for i := range n {
			u := t.usage(&t.keys[i], &t.values[i])
			fn(&u)
		}
		t.n += n
		if err != nil {
			return nil
		}
	}
}

func (t *taskTracer) usage(key *taskOwner, v *taskUsage) Usage {
	u := Usage{
		CgroupV2: key.CgroupV2, CgroupV1: key.CgroupV1,
		CPU:      time.Duration(v.Times.Cpu),
		OOMKills: v.OomKills, Inits: v.Inits, Others: v.Others, Execs: v.Execs,
		ProcessesEnded: v.ProcessesEnded, TasksEnded: v.TasksEnded,
		Exits: v.Exits,
	}
	for i, d := range v.Times.Delays {
		u.Delays[i] = time.Duration(d)
	}
	return u
}

// TakeUsage takes the entry of u out of the kernel's table and makes u what it was at last. The cgroup must be empty.
func (t *Tracer) TakeUsage(u *Usage) error {
	if t.tasks == nil {
		return nil
	}
	key := taskOwner{CgroupV2: u.CgroupV2, CgroupV1: u.CgroupV1}
	var v taskUsage
	t.tasks.mu.Lock()
	defer t.tasks.mu.Unlock()
	if t.tasks.closed {
		return nil
	}
	err := t.tasks.objs.Usages.Lookup(key, &v)
	if err == nil {
		err = t.tasks.objs.Usages.Delete(key)
	}
	switch {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("take usage: %w", err)
	}
	*u = t.tasks.usage(&key, &v)
	return nil
}

// DelaysTold tells which kinds of Delay the kernel knows; whether it accounts them is another question.
func (t *Tracer) DelaysTold() (told [NumDelays]bool) {
	if t.tasks == nil {
		return told
	}
	t.tasks.mu.Lock()
	defer t.tasks.mu.Unlock()
	var bits uint32
	if err := t.tasks.objs.DelaysTold.Get(&bits); err != nil {
		return told
	}
	for i := range told {
		told[i] = bits&(1<<i) != 0
	}
	return told
}

func (t *taskTracer) stats(s *Stats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for stat, field := range map[taskTaskStat]*uint64{
		taskTaskStatTASK_STAT_UNACCOUNTED: &s.TasksUnaccounted,
		taskTaskStatTASK_STAT_UNKNOWN:     &s.TasksUnknown,
		taskTaskStatTASK_STAT_ANOMALIES:   &s.DelayAnomalies,
		taskTaskStatTASK_STAT_EVENTS_LOST: &s.ExitsLost,
	} {
		var cpus []uint64
		if err := t.objs.TaskStats.Lookup(stat, &cpus); err != nil {
			continue
		}
		for _, n := range cpus {
			*field += n
		}
	}
	s.Usages = t.n
	s.UsagesMax = int(t.objs.Usages.MaxEntries())
}

// ProcessExits calls fn for each event, in order, until Close; it returns at once without FeatureTasks. Events that it was
// too slow for are in Stats.ExitsLost; what Usage counts is right all the same.
func (t *Tracer) ProcessExits(fn func(ProcessExit)) error {
	if t.tasks == nil {
		return nil
	}
	pageSize := uint64(os.Getpagesize())
	var rec ringbuf.Record
	for {
		switch err := t.tasks.events.ReadInto(&rec); {
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read exits: %w", err)
		}
		ev, err := decodeExit(rec.RawSample, pageSize)
		if err != nil {
			return err
		}
		fn(ev)
	}
}

// decodeExit reads a struct exit_event.
func decodeExit(rec []byte, pageSize uint64) (ProcessExit, error) {
	const size = 72
	if len(rec) < size {
		return ProcessExit{}, fmt.Errorf("exit event of %d bytes: %w", len(rec), errTruncated)
	}
	ne := binary.NativeEndian
	code := ne.Uint32(rec[40:])
	comm, _, _ := strings.Cut(string(rec[56:71]), "\x00")
	e := ProcessExit{
		CgroupV2: ne.Uint64(rec[0:]), CgroupV1: ne.Uint64(rec[8:]),
		Life:   time.Duration(ne.Uint64(rec[16:])),
		MaxRSS: ne.Uint64(rec[24:]) * pageSize,
		PID:    int(ne.Uint32(rec[32:])), InnerPID: int(ne.Uint32(rec[36:])),
		Reason:  ExitReason(ne.Uint32(rec[44:])),
		Main:    ne.Uint32(rec[48:]) != 0,
		Command: comm,
		Signal:  int(code & 0x7f),
	}
	if e.Signal == 0 {
		e.Code = int(code >> 8 & 0xff)
	}
	return e, nil
}
