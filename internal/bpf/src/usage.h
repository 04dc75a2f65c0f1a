/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the tasks of a cgroup have come to, those that are over included.
 */
#ifndef EBPF_CONTAINER_USAGE_H
#define EBPF_CONTAINER_USAGE_H

#include "kernel.h"
#include "owner.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

// enum delay is what a task has waited for, besides for a CPU of its own accord; tasks.go has it again.
enum delay {
	DELAY_CPU,
	DELAY_BLKIO,
	DELAY_SWAPIN,
	DELAY_RECLAIM,
	DELAY_THRASHING,
	DELAY_COMPACT,
	DELAY_WPCOPY,
	DELAY_IRQ,
	DELAY_MAX,
};

// enum exit_reason is how a main process has ended; tasks.go has it again.
enum exit_reason {
	EXIT_COMPLETED,
	EXIT_ERROR,
	EXIT_SIGNAL,
	EXIT_OOM_KILLED,
	EXIT_REASON_MAX,
};

// task_times are what the scheduler and the delay accounting know of tasks, in ns.
struct task_times {
	__u64 cpu;
	__u64 delays[DELAY_MAX];
};

// usage of one owner; only mains ever goes back.
struct usage {
	struct task_times times;
	__u64 exits[EXIT_REASON_MAX]; // of main processes
	__u64 oom_kills;              // of processes
	__u64 inits;  // main processes that have begun: the first ones of a PID namespace
	__u64 others; // other main processes that have begun
	__u64 execs;  // programs that have begun
	__u64 processes_ended;
	__u64 tasks_ended; // threads
	__s64 mains;       // main processes alive
	__u32 traits;      // enum usage_trait
	__u32 pad;
};

enum usage_trait {
	USAGE_HAS_INIT = 1,      // the first process of a PID namespace was begun in it from outside
	USAGE_IN_BACKGROUND = 2, // its last main process has ended well, and may have left another to go on
};

// known_task is what is kept of a task from its fork until the kernel has no more use for it.
struct known_task {
	struct owner owner; // zero while it belongs to the host itself
	struct task_times counted; // what of its times is in a usage or before our time
	__u64 rss_before; // its process's maxrss at its exec
	__u64 looked_ns;  // when it was last looked at while it did not wait for block I/O
	__u32 io_waits;   // waits for block I/O in counted
	__u32 flags;      // enum task_flag
};

// task_look is what a task shows at one moment.
struct task_look {
	struct task_times times;
	__u64 at_ns;
	__u64 life_ns;
	__u32 io_waits;
	__u32 in_io;
};

enum {
	USUAL_WAIT_NS = 1000000, // for block I/O; with a queue it is more
	TICK_NS = 10000000, // CPU time may come so late; and waiting is measured with another clock than life
};

enum task_flag {
	TASK_EXECED = 1, // has begun a program since it came to its owner; its threads have this too
	TASK_MAIN = 2,   // is of a main process; its threads have this too
	TASK_OVER = 4,   // the end of this leader's process is counted
	TASK_MOVING = 8, // somebody is about to change its owner
};

enum task_stat {
	TASK_STAT_UNACCOUNTED, // tasks whose times were lost because usages was full
	TASK_STAT_UNKNOWN,     // tasks that could not be noted: their times come when they end, and not split by moves
	TASK_STAT_ANOMALIES,   // times left out or cut because the task cannot have waited so long
	TASK_STAT_EVENTS_LOST, // records of exits that found the ring buffer full
	TASK_STAT_MAX,
};

// usages: inserted here; deleted by user space when the cgroup is gone. What finds it full is counted in
// TASK_STAT_UNACCOUNTED. Preallocated: no allocation can fail on the way.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192); // resized at load
	__type(key, struct owner);
	__type(value, struct usage);
} usages SEC(".maps");

// known_tasks: by address of the task, which is its alone until on_free. Inserted at fork, by a move and by the pass; deleted by
// on_free, so that no program finds an entry that is another task's by now. What finds it full is counted in TASK_STAT_UNKNOWN.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 18);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct known_task);
} known_tasks SEC(".maps");

// task_stats: fixed size, indexed by enum task_stat.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TASK_STAT_MAX);
	__type(key, enum task_stat);
	__type(value, __u64);
} task_stats SEC(".maps");

static const struct usage new_usage = {};

__u32 delays_told = 0; // one bit for each enum delay that the kernel has; set by the pass

static __always_inline void count_task(enum task_stat stat)
{
	__u64 *n = bpf_map_lookup_elem(&task_stats, &stat);

	if (n)
		__sync_fetch_and_add(n, 1); // on_free may interrupt
}

static __always_inline struct usage *usage_of(const struct owner *owner)
{
	struct usage *u = bpf_map_lookup_elem(&usages, owner);

	for (int i = 0; !u && i < 3; i++) { // as in find_or_insert of edges.h
		long err = bpf_map_update_elem(&usages, owner, &new_usage, BPF_NOEXIST);

		u = bpf_map_lookup_elem(&usages, owner);
		if (err != -EBUSY)
			break;
	}
	return u;
}

#define READ_DELAY(to, from, field)                                                                  \
	do {                                                                                         \
		if (bpf_core_field_exists(((struct task_delay_info *)0)->field))                     \
			(to) = is_trusted ? (from)->field : BPF_CORE_READ(from, field);              \
	} while (0)

static __always_inline bool has_run_delay(void)
{
	return bpf_core_field_exists(((struct sched_info *)0)->run_delay);
}

// look_at works with any pointer to a task that is protected by RCU, faster if it is one that the verifier knows.
static __always_inline void look_at(struct task_look *l, struct task_struct *task, bool is_trusted)
{
	struct task_times *t = &l->times;
	struct task_delay_info *d;

	__builtin_memset(l, 0, sizeof(*l));
	l->in_io = BPF_CORE_READ_BITFIELD_PROBED(task, in_iowait);
	t->cpu = is_trusted ? task->se.sum_exec_runtime : BPF_CORE_READ(task, se.sum_exec_runtime);
	if (has_run_delay())
		t->delays[DELAY_CPU] = is_trusted ? task->sched_info.run_delay : BPF_CORE_READ(task, sched_info.run_delay);
	l->at_ns = bpf_ktime_get_ns();
	l->life_ns = l->at_ns - (is_trusted ? task->start_time : BPF_CORE_READ(task, start_time));
	if (!bpf_core_field_exists(((struct task_struct *)0)->delays))
		return;
	d = is_trusted ? task->delays : BPF_CORE_READ(task, delays);
	if (!d)
		return;
	READ_DELAY(l->io_waits, d, blkio_count);
	READ_DELAY(t->delays[DELAY_BLKIO], d, blkio_delay);
	READ_DELAY(t->delays[DELAY_SWAPIN], d, swapin_delay);
	READ_DELAY(t->delays[DELAY_RECLAIM], d, freepages_delay);
	READ_DELAY(t->delays[DELAY_THRASHING], d, thrashing_delay);
	READ_DELAY(t->delays[DELAY_COMPACT], d, compact_delay);
	READ_DELAY(t->delays[DELAY_WPCOPY], d, wpcopy_delay);
	READ_DELAY(t->delays[DELAY_IRQ], d, irq_delay);
}

// tell_delays notes which of them this kernel has.
static __always_inline void tell_delays(void)
{
	__u32 told = 0;

	if (has_run_delay())
		told |= 1 << DELAY_CPU;
	if (bpf_core_field_exists(((struct task_struct *)0)->delays)) {
		told |= 1 << DELAY_BLKIO | 1 << DELAY_SWAPIN | 1 << DELAY_RECLAIM | 1 << DELAY_THRASHING;
		if (bpf_core_field_exists(((struct task_delay_info *)0)->compact_delay))
			told |= 1 << DELAY_COMPACT;
		if (bpf_core_field_exists(((struct task_delay_info *)0)->wpcopy_delay))
			told |= 1 << DELAY_WPCOPY;
		if (bpf_core_field_exists(((struct task_delay_info *)0)->irq_delay))
			told |= 1 << DELAY_IRQ;
	}
	delays_told = told;
}

// count_up adds to total what has come since counted, and returns how much. Others may do so with the same task at the same
// time; what they leave comes at its end at the latest.
static __always_inline __u64 count_up(__u64 *total, __u64 *counted, __u64 now, __u64 longest, __u64 instead)
{
	__u64 before = *(volatile __u64 *)counted, by = now - before;

	if (now <= before || __sync_val_compare_and_swap(counted, before, now) != before)
		return 0;
	if (by > longest) {
		count_task(TASK_STAT_ANOMALIES);
		by = instead;
	}
	__sync_fetch_and_add(total, by);
	return by;
}

/*
 * count_io counts the waits for block I/O. The kernel sometimes does not note the begin of one, since Linux 6.12 often where
 * tasks compete for CPUs: dequeue_task() may put the sleep off, and __block_task() then notes it with another task. It takes
 * the begin of an earlier one instead, or the boot of the host. No task can have waited for longer than it has slept since it
 * was seen not to wait; what is longer is cut to a usual time for each wait.
 */
static __always_inline void count_io(struct usage *u, struct known_task *k, const struct task_look *l, __u64 ran)
{
	__u64 window = l->at_ns - k->looked_ns, slept, usual = (__u64)(l->io_waits - k->io_waits) * USUAL_WAIT_NS;

	if (window > l->life_ns)
		window = l->life_ns;
	slept = window > ran ? window - ran : 0;
	count_up(&u->times.delays[DELAY_BLKIO], &k->counted.delays[DELAY_BLKIO], l->times.delays[DELAY_BLKIO], slept + TICK_NS,
		 usual < slept ? usual : slept);
	k->io_waits = l->io_waits;
}

// count_look adds to u what has come since counted. What is longer than the life of the task is left out.
static __always_inline void count_look(struct usage *u, struct known_task *k, const struct task_look *l)
{
	__u64 ran = count_up(&u->times.cpu, &k->counted.cpu, l->times.cpu, ~0ULL, 0);

	for (int i = 0; i < DELAY_MAX; i++) {
		__u64 by = 0;

		if (i != DELAY_BLKIO)
			by = count_up(&u->times.delays[i], &k->counted.delays[i], l->times.delays[i], l->life_ns + TICK_NS, 0);
		if (i == DELAY_CPU)
			ran += by;
	}
	count_io(u, k, l, ran);
	if (!l->in_io)
		k->looked_ns = l->at_ns;
}

static __always_inline bool is_counted(const struct known_task *k, const struct task_look *l)
{
	bool counted = l->times.cpu <= k->counted.cpu;

	for (int i = 0; i < DELAY_MAX; i++)
		counted &= l->times.delays[i] <= k->counted.delays[i];
	return counted;
}

#endif
