// SPDX-License-Identifier: Apache-2.0

// Package delayacct reads the kernel's delay accounting: the time that tasks were kept from running by something other
// than themselves.
//
// Accounting and Enable are the switch. A Listener receives what the kernel counted for each task that ends, a Reader asks
// for tasks that live; both use taskstats, the kernel's interface for this, over generic netlink. Taskstats answers only
// processes of the host's own user, process and network namespaces that have CAP_NET_ADMIN.
//
// It knows no containers, and keeps nothing of a task beyond the call that gives it. Whoever joins records by PID remembers
// that on a busy host the same one comes again within seconds.
package delayacct

import (
	"bytes"
	"errors"
	"math"
	"time"
)

var (
	// ErrNotPermitted reports that this process may not use taskstats.
	ErrNotPermitted = errors.New("not permitted")
	// ErrNotSupported reports that the kernel has no taskstats, or none for the namespaces of this process.
	ErrNotSupported = errors.New("not supported")
	// ErrGone reports that there is no such task any more.
	ErrGone = errors.New("no such task")
)

// Delay is a time that adds up over the life of a task. OK is false where the kernel does not tell it.
type Delay struct {
	Time time.Duration
	OK   bool
}

// Delays are those of a task or of a set of tasks.
//
// CPU is told whether accounting is on or not since Linux 5.14. The others are told while accounting is on, and of a task
// whose delays were counted before it was switched off. A task that is older than the switch has 0: the kernel does
// not tell it from one that never waited.
type Delays struct {
	CPU       Delay // runnable, waiting for a CPU; throttling by a CPU quota is in it
	BlockIO   Delay // waiting for block I/O that the task itself asked for
	SwapIn    Delay // waiting for a page to come back from swap
	Reclaim   Delay // freeing memory before getting some
	Thrashing Delay // waiting for a page of the page cache that had just been evicted; since Linux 4.20
	Compact   Delay // moving pages to get adjacent ones; since Linux 5.17
	WPCopy    Delay // copying a page at a write to it; since Linux 6.0
	IRQ       Delay // interrupted by the work of interrupts; since Linux 6.4, with CONFIG_IRQ_TIME_ACCOUNTING or PARAVIRT
}

func (d *Delays) each() [8]*Delay {
	return [...]*Delay{&d.CPU, &d.BlockIO, &d.SwapIn, &d.Reclaim, &d.Thrashing, &d.Compact, &d.WPCopy, &d.IRQ}
}

// Add adds what o tells. A sum is told as soon as one of its parts is.
func (d *Delays) Add(o *Delays) {
	from := o.each()
	for i, to := range d.each() {
		if !from[i].OK {
			continue
		}
		to.OK = true
		if to.Time > math.MaxInt64-from[i].Time {
			to.Time = math.MaxInt64
			continue
		}
		to.Time += from[i].Time
	}
}

// Clamp makes each delay that is longer than limit one that is not told, and returns how many were.
//
// A task cannot wait for longer than it lives: limit is its Elapsed, for a thread group that times its threads. Longer
// ones are a fault of the kernel: when a task is woken twice, or before it notes when it began to wait, the uptime of the host is
// added to its block I/O delay (seen on 6.18). The clocks of delays and of Elapsed differ a little, which is allowed for.
func (d *Delays) Clamp(limit time.Duration) int {
	if slack := limit>>10 + time.Millisecond; limit <= math.MaxInt64-slack {
		limit += slack
	}
	left := 0
	for _, k := range d.each() {
		if k.OK && (k.Time > limit || k.Time < 0) {
			*k = Delay{}
			left++
		}
	}
	return left
}

// Flags of a task, as in the kernel's process accounting (include/uapi/linux/acct.h).
type Flags uint8

// What a task's Flags say of it.
const (
	Forked    Flags = 0x01 // forked and did not exec
	SuperUser Flags = 0x02 // used a privilege
	Dumped    Flags = 0x08 // left a core dump
	Killed    Flags = 0x10 // ended by a signal
	LastOne   Flags = 0x20 // last task of its thread group to end; since Linux 5.19
)

// Stats are what the kernel tells of one task (a thread), or of a thread group (a process).
type Stats struct {
	PID   uint32 // of the task or the thread group; in an Exit as the host sees it, from a Reader as the reader sees it
	TGID  uint32 // thread group; 0 where that of a task is not told: before Linux 5.19
	Group bool   // sums over a thread group; only PID, TGID and Delays are told, by a Reader Elapsed, User and System too

	PPID    uint32
	UID     uint32
	Flags   Flags
	Begin   time.Time     // by the wall clock, in whole seconds
	Elapsed time.Duration // since the task began; of a Group the sum over its living tasks
	User    time.Duration // CPU time in user mode; as the next often counted in timer ticks, so that it may exceed Elapsed
	System  time.Duration // CPU time in the kernel

	Delays Delays

	comm [commLen]byte
}

// Comm returns the name of the task, as a copy.
func (s *Stats) Comm() string {
	name, _, _ := bytes.Cut(s.comm[:], []byte{0})
	return string(name)
}

// Exit is what the kernel tells of a task when it ends, or of a thread group when its last task ends.
//
// A Group repeats what was told of its tasks: whoever sums takes either. It is told only of those that had more than one
// task, and lacks the tasks that ended before a second one ended.
type Exit struct {
	Stats
	Status uint32 // as from wait(2): exit code << 8 | signal; before Linux 5.17 only of the first task of a thread group
}
