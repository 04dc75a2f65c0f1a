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

// usage of one owner. Its tasks' times are ended, or, of the last pass that found any alive, before + living: before is
// what ended was when the pass came upon the first of them, so that no task is in both.
struct usage {
	struct task_times ended;
	struct task_times before;
	struct task_times living;
	__u64 pass; // in which before and living were written
	__u64 exits[EXIT_REASON_MAX]; // of main processes
	__u64 oom_kills;              // of processes
	__u64 inits;  // main processes that have begun: the first ones of a PID namespace
	__u64 others; // main processes that have begun in the host's PID namespace
	__u64 execs;  // programs that have begun
	__u64 processes_ended;
	__u64 tasks_ended; // threads
	__s64 mains;       // main processes alive
};

// known_task is what is kept of a task while it lives.
struct known_task {
	struct owner owner;
	__u64 start_time; // tells it from an earlier one with its id
	struct task_times base; // what it had when it came to its owner
	__u32 busy;  // one fold at a time
	__u32 flags; // enum task_flag
};

enum task_flag {
	TASK_EXECED = 1, // has begun a program since it came to its owner
	TASK_MAIN = 2,
};

enum task_stat {
	TASK_STAT_UNACCOUNTED, // tasks whose times were lost because usages was full
	TASK_STAT_UNKNOWN,     // tasks that could not be noted at their begin: a move would not split their times
	TASK_STAT_ANOMALIES,   // times left out because they were longer than the task's life
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

// known_tasks: by thread id; inserted at fork, by a move and by the pass; deleted at exit. What finds it full is counted in
// TASK_STAT_UNKNOWN.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
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
		*n += 1;
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

#define READ_DELAY(to, from, field)                                              \
	do {                                                                     \
		if (bpf_core_field_exists(((struct task_delay_info *)0)->field)) \
			(to) = BPF_CORE_READ(from, field);                       \
	} while (0)

// read_times works with any pointer to a task that is protected by RCU.
static __always_inline void read_times(struct task_times *t, struct task_struct *task)
{
	struct task_delay_info *d;

	__builtin_memset(t, 0, sizeof(*t));
	t->cpu = BPF_CORE_READ(task, se.sum_exec_runtime);
	if (bpf_core_field_exists(((struct task_struct *)0)->sched_info))
		t->delays[DELAY_CPU] = BPF_CORE_READ(task, sched_info.run_delay);
	if (!bpf_core_field_exists(((struct task_struct *)0)->delays))
		return;
	d = BPF_CORE_READ(task, delays);
	if (!d)
		return;
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

	if (bpf_core_field_exists(((struct task_struct *)0)->sched_info))
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

// since leaves in t what has come since base. The kernel sometimes accounts a task absurd waiting times: what is longer
// than its life is left out.
static __always_inline void since(struct task_times *t, const struct task_times *base, __u64 life)
{
	t->cpu = t->cpu > base->cpu ? t->cpu - base->cpu : 0;
	for (int i = 0; i < DELAY_MAX; i++) {
		t->delays[i] = t->delays[i] > base->delays[i] ? t->delays[i] - base->delays[i] : 0;
		if (t->delays[i] > life) {
			t->delays[i] = 0;
			count_task(TASK_STAT_ANOMALIES);
		}
	}
}

static __always_inline void add_ended(struct usage *u, const struct task_times *t)
{
	__sync_fetch_and_add(&u->ended.cpu, t->cpu);
	for (int i = 0; i < DELAY_MAX; i++)
		if (t->delays[i])
			__sync_fetch_and_add(&u->ended.delays[i], t->delays[i]);
}

#endif
