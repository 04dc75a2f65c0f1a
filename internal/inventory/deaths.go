// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ebpfcontainer/ebpfcontainer/internal/bpf"
	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// Event is something that happened to a container at one moment.
type Event struct {
	Kind EventKind
	At   time.Time
	Name string      // of the container
	Ref  cgroups.Ref // likewise
	Info *Info       // likewise

	PID, InnerPID int    // of the process, in the host's PID namespace and in its own
	Command       string // at most 15 bytes, as the process has it: not always valid UTF-8
	Reason        ExitReason
	Code, Signal  int           // exit status, or by which signal it was killed; the other one is 0
	Life          time.Duration // of the process
	MaxRSS        uint64        // bytes, the most that it had
	MemoryLimit   Opt[uint64]   // bytes, of the container

	Message *LogMessage // of EventLog; what is above but for the container is not set then. Shared, not to be changed
}

// EventKind is what happened.
type EventKind uint8

// The kinds of Event.
const (
	EventExit    EventKind = iota // the main process has ended
	EventOOMKill                  // the OOM killer has killed a process; if it was the main one EventExit follows
	EventLog                      // a message was logged that Options.Logs asks for
)

const (
	// maxEvents wait for their follower.
	maxEvents = 1024
	// maxStrangeExits wait for their cgroup to become known, for strangeExitFor.
	maxStrangeExits = 256
	strangeExitFor  = 5 * time.Second
)

// strangeExit is one of a cgroup that is not known yet: its events and those of exits come by different ways.
type strangeExit struct {
	exit bpf.ProcessExit
	at   time.Time
}

// FollowEvents calls fn for each event, in order, until ctx ends. Events from before are not given, but for the messages of logs,
// which wait for the first follower. There can be one follower at a time; what it is too slow for is in Status.EventsDropped.
func (inv *Inventory) FollowEvents(ctx context.Context, fn func(Event)) {
	queue := make(chan Event, maxEvents)
	inv.mu.Lock()
	inv.events, inv.eventsEnd = queue, ctx.Done()
	select {
	case <-inv.followed:
	default:
		close(inv.followed)
	}
	inv.mu.Unlock()
	defer func() {
		inv.mu.Lock()
		defer inv.mu.Unlock()
		if inv.events == queue { // nobody else has taken over
			inv.events = nil
		}
	}()
	for {
		select {
		case e := <-queue:
			fn(e)
			continue
		case <-ctx.Done():
		}
		for { // what was told before
			select {
			case e := <-queue:
				fn(e)
			default:
				return
			}
		}
	}
}

// followExits runs until the kernel is closed.
func (inv *Inventory) followExits() {
	err := inv.kernel.ProcessExits(func(e bpf.ProcessExit) {
		now := inv.now()
		inv.mu.Lock()
		switch {
		case inv.events == nil:
		case len(inv.strangeExits) < maxStrangeExits:
			inv.strangeExits = append(inv.strangeExits, strangeExit{e, now})
		default:
			inv.status.EventsDropped++
		}
		inv.mu.Unlock()
		inv.retryStrangeExits(now)
	})
	if err != nil {
		inv.log.Error("no more records of exits and OOM kills", zap.Error(err))
	}
}

// retryStrangeExits tells of the exits whose cgroup is known by now, in their order.
func (inv *Inventory) retryStrangeExits(now time.Time) {
	inv.readUnread()
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if inv.events == nil {
		inv.strangeExits = nil
		return
	}
	inv.strangeExits = slices.DeleteFunc(inv.strangeExits, func(s strangeExit) bool {
		d := inv.resolve(s.exit.CgroupV2, s.exit.CgroupV1)
		switch {
		case d.container() != nil && !d.container().isShown(now) && now.Sub(s.at) <= namesWithin:
			return false // its name may come
		case d != nil:
			inv.tellExit(&s, d)
		case now.Sub(s.at) > strangeExitFor:
			inv.status.EventsDropped++
		default:
			return false
		}
		return true
	})
}

// readUnread reads the files of containers of which a process has ended before they were read for the first time: nothing
// knows of their limits yet.
func (inv *Inventory) readUnread() {
	var unread []*life
	inv.mu.Lock()
	for i := range inv.strangeExits {
		e := &inv.strangeExits[i].exit
		if d := inv.resolve(e.CgroupV2, e.CgroupV1); d.container() != nil && d.life.readAt.Load() == 0 {
			unread = append(unread, d.life)
		}
	}
	inv.mu.Unlock()
	for _, l := range unread {
		if err := l.read(inv.now()); err != nil {
			inv.mu.Lock()
			inv.countRead(err)
			inv.mu.Unlock()
		}
	}
}

// tellExit tells of an exit in the cgroup d. mu is held.
func (inv *Inventory) tellExit(s *strangeExit, d *dir) {
	c := d.container()
	if c == nil || c.hidden {
		return
	}
	e := Event{
		Kind: EventOOMKill,
		At:   s.at,
		Name: c.name,
		Ref:  c.ref,
		Info: c.info,
		PID:  s.exit.PID, InnerPID: s.exit.InnerPID,
		Command: s.exit.Command,
		Reason:  s.exit.Reason,
		Code:    s.exit.Code, Signal: s.exit.Signal,
		Life:        s.exit.Life,
		MaxRSS:      s.exit.MaxRSS,
		MemoryLimit: d.life.stats.Load().Memory.Limit,
	}
	if e.Reason == bpf.ExitOOMKilled {
		inv.tell(e)
	}
	if s.exit.Main {
		e.Kind = EventExit
		inv.tell(e)
	}
}

// tell gives an event to who follows. mu is held.
func (inv *Inventory) tell(e Event) {
	if inv.events == nil {
		return
	}
	select {
	case inv.events <- e:
	default:
		inv.status.EventsDropped++
	}
}
