// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the processes of each cgroup have used and waited for, and how they have ended.
 *
 * A task's times are added to its cgroup when it exits. Those that are alive add_living adds up before user space reads the
 * table. A task that moves to another cgroup leaves behind what it had until then; the kernel tells of a move when it is done,
 * so the cgroup of each task is noted at fork. Nothing is sent to user space but a record when a main process ends or one is
 * killed for memory.
 */
#include "kernel.h"
#include "owner.h"
#include "usage.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	PF_EXITING = 0x4,          // include/linux/sched.h
	PF_KTHREAD = 0x200000,     // likewise
	SIGNAL_GROUP_EXIT = 0x4,   // include/linux/sched/signal.h
	SIGKILL = 9,
	MAX_THREADS_MOVED = 64, // at once with their process; the times of others are split at the next pass
};

struct exit_event {
	struct owner owner;
	__u64 life_ns;
	__u64 max_rss; // pages
	__u32 pid;     // in the host's PID namespace
	__u32 inner_pid;
	__s32 code; // as wait() gives it
	enum exit_reason reason;
	__u32 is_main;
	__u32 pad;
	char comm[16];
};

// exit_events: inserted here, taken out by user space as soon as they come. What finds it full is counted in
// TASK_STAT_EVENTS_LOST; the numbers in usages are right all the same.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
	__type(value, struct exit_event);
} exit_events SEC(".maps");

// ended: processes whose last thread has been seen, because the last two may both believe to be that one.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); // start_time of the leader
	__type(value, __u32);
} ended SEC(".maps");

// id of the hierarchy of the v1 controller by which containers are told apart, negative on a pure v2 host
const volatile __s32 v1_hierarchy = -1;
// inode number of the PID namespace in which the service manager lives
const volatile __u32 host_pidns = 0;

__u64 pass = 0; // number of the pass of add_living, set by user space

static __always_inline bool is_same_owner(const struct owner *a, const struct owner *b)
{
	return a->cgroup_v2 == b->cgroup_v2 && a->cgroup_v1 == b->cgroup_v1;
}

// read_owner is owner_of for a pointer that the verifier does not know.
static __always_inline bool read_owner(struct owner *o, struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup *v2 = BPF_CORE_READ(set, dfl_cgrp);
	struct cgroup_subsys_state *css = NULL;
	bool contained = BPF_CORE_READ(v2, level) > 0;

	o->cgroup_v2 = BPF_CORE_READ(v2, kn, id);
	o->cgroup_v1 = 0;
	if (v1_subsys >= 0 && v1_subsys < 16) {
		bpf_probe_read_kernel(&css, sizeof(css), (char *)set + bpf_core_field_offset(struct css_set, subsys) +
							     v1_subsys * sizeof(css));
		o->cgroup_v1 = BPF_CORE_READ(css, cgroup, kn, id);
		contained |= BPF_CORE_READ(css, cgroup, level) > 0;
	}
	return contained;
}

static __always_inline void note_task(struct task_struct *task, const struct owner *owner, const struct task_times *base)
{
	struct known_task known = {.owner = *owner, .start_time = BPF_CORE_READ(task, start_time)};
	__u32 pid = BPF_CORE_READ(task, pid);

	if (base)
		known.base = *base;
	if (bpf_map_update_elem(&known_tasks, &pid, &known, BPF_ANY))
		count_task(TASK_STAT_UNKNOWN);
}

static __always_inline struct known_task *known(struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, pid);
	struct known_task *k = bpf_map_lookup_elem(&known_tasks, &pid);

	return k && k->start_time == BPF_CORE_READ(task, start_time) ? k : NULL;
}

// namespace_of gives the id of a task in its PID namespace and that.
static __always_inline struct pid_namespace *namespace_of(struct task_struct *task, __u32 *id)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid upid = {};

	bpf_core_read(&upid, sizeof(upid), (void *)((char *)pid + bpf_core_field_offset(struct pid, numbers) +
						    level * bpf_core_type_size(struct upid)));
	*id = upid.nr;
	return upid.ns;
}

// is_from_outside tells that the process is main: its parent is not of its cgroup, and it is the first one of a PID namespace,
// or of the host's one. What is begun in a container that runs already (docker exec) is neither.
static __always_inline bool is_from_outside(struct task_struct *leader, const struct owner *owner, bool *is_init)
{
	struct task_struct *parent = BPF_CORE_READ(leader, real_parent);
	struct owner of_parent;
	struct pid_namespace *ns;
	__u32 id;

	read_owner(&of_parent, parent);
	if (is_same_owner(&of_parent, owner))
		return false;
	ns = namespace_of(leader, &id);
	*is_init = id == 1 && BPF_CORE_READ(ns, level) > 0;
	return *is_init || BPF_CORE_READ(ns, level) == 0 || (host_pidns && BPF_CORE_READ(ns, ns.inum) == host_pidns);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct owner owner;

	if (owner_of(&owner, child))
		note_task(child, &owner, NULL);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid)
{
	__u32 pid = task->pid, old = old_pid;
	struct known_task *k, moved;
	struct usage *u;
	struct owner owner;
	bool is_init;

	if (!owner_of(&owner, task))
		return 0;
	if (old != pid) { // another thread than the leader has become the leader
		k = bpf_map_lookup_elem(&known_tasks, &old);
		if (k) {
			moved = *k;
			bpf_map_update_elem(&known_tasks, &pid, &moved, BPF_ANY);
			bpf_map_delete_elem(&known_tasks, &old);
		}
	}
	k = known(task);
	if (!k) {
		note_task(task, &owner, NULL);
		k = known(task);
	}
	u = usage_of(&owner);
	if (!u) {
		count_task(TASK_STAT_UNACCOUNTED);
		return 0;
	}
	__sync_fetch_and_add(&u->execs, 1);
	if (!k || k->flags & TASK_EXECED)
		return 0;
	k->flags |= TASK_EXECED;
	if (!is_from_outside(task, &owner, &is_init))
		return 0;
	k->flags |= TASK_MAIN;
	__sync_fetch_and_add(is_init ? &u->inits : &u->others, 1);
	__sync_fetch_and_add(&u->mains, 1);
	return 0;
}

static __always_inline void add_to(const struct owner *owner, const struct task_times *times)
{
	struct usage *u = usage_of(owner);

	if (u)
		add_ended(u, times);
	else
		count_task(TASK_STAT_UNACCOUNTED);
}

static __always_inline __u64 life_of(struct task_struct *task)
{
	return bpf_ktime_get_ns() - BPF_CORE_READ(task, start_time);
}

// move_task ends what a task has been for its old owner. at is where the task is, a number so that the verifier looks at this
// once and not for each thread.
__noinline int move_task(__u64 at)
{
	struct task_struct *task = (struct task_struct *)at;
	struct known_task *k = known(task);
	struct task_times now, times;
	struct owner owner;
	bool contained;
	__u32 pid;

	contained = read_owner(&owner, task);
	read_times(&now, task);
	if (!k) {
		if (contained)
			note_task(task, &owner, &now);
		return 0;
	}
	if (is_same_owner(&k->owner, &owner) || __sync_val_compare_and_swap(&k->busy, 0, 1))
		return 0;
	times = now;
	since(&times, &k->base, life_of(task));
	add_to(&k->owner, &times);
	if (k->flags & TASK_MAIN) {
		struct usage *u = usage_of(&k->owner);

		if (u)
			__sync_fetch_and_add(&u->mains, -1);
	}
	if (!contained) {
		pid = BPF_CORE_READ(task, pid);
		bpf_map_delete_elem(&known_tasks, &pid);
		return 0;
	}
	k->base = now;
	k->owner = owner;
	k->flags = 0;
	k->busy = 0;
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_attach, struct cgroup *to, const char *path, struct task_struct *leader, bool threadgroup)
{
	__s32 hierarchy = to->root->hierarchy_id;
	struct task_struct *task;
	struct list_head *head, *node;

	if (hierarchy != 0 && hierarchy != v1_hierarchy)
		return 0;
	// Of all threads, also when only one has moved: those that have not are where they were.
	head = (struct list_head *)((char *)leader->signal + bpf_core_field_offset(struct signal_struct, thread_head));
	node = BPF_CORE_READ(head, next);
	for (int i = 0; i < MAX_THREADS_MOVED && node && node != head; i++) {
		task = (struct task_struct *)((char *)node - bpf_core_field_offset(struct task_struct, thread_node));
		if (!(BPF_CORE_READ(task, flags) & PF_EXITING))
			move_task((__u64)task);
		node = BPF_CORE_READ(node, next);
	}
	return 0;
}

// is_process_over tells that task was the last thread of its process, once. A leader that exits while others go on is not.
static __always_inline bool is_process_over(struct task_struct *task)
{
	struct signal_struct *signal = task->signal;
	__u64 id = task->group_leader->start_time;
	__u32 tgid = task->tgid;

	if (signal->live.counter)
		return false;
	// Two that exit at the same time may both find nobody left.
	return signal->nr_threads == 1 || !bpf_map_update_elem(&ended, &id, &tgid, BPF_NOEXIST);
}

static __always_inline __s32 exit_code_of(struct task_struct *task)
{
	struct signal_struct *signal = task->signal;

	return signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->group_leader->exit_code;
}

static __always_inline enum exit_reason reason_of(__s32 code, bool oom_killed)
{
	if (oom_killed)
		return EXIT_OOM_KILLED;
	if (code & 0x7f)
		return EXIT_SIGNAL;
	return code ? EXIT_ERROR : EXIT_COMPLETED;
}

static __always_inline void tell_exit(struct task_struct *leader, const struct owner *owner, enum exit_reason reason, bool is_main)
{
	struct exit_event *e = bpf_ringbuf_reserve(&exit_events, sizeof(*e), 0);

	if (!e) {
		count_task(TASK_STAT_EVENTS_LOST);
		return;
	}
	e->owner = *owner;
	e->life_ns = bpf_ktime_get_ns() - leader->start_time;
	e->max_rss = leader->signal->maxrss;
	e->pid = leader->tgid;
	namespace_of(leader, &e->inner_pid);
	e->code = exit_code_of(leader);
	e->reason = reason;
	e->is_main = is_main;
	e->pad = 0;
	bpf_core_read(e->comm, sizeof(e->comm), &leader->comm);
	bpf_ringbuf_submit(e, 0);
}

// end_process counts the end of a process. flags are those of its leader.
static __always_inline void end_process(struct task_struct *task, struct usage *u, const struct owner *owner, __u32 flags)
{
	struct task_struct *leader = task->group_leader;
	__s32 code = exit_code_of(task);
	bool oom_killed = task->signal->oom_mm && (code & 0x7f) == SIGKILL;
	enum exit_reason reason = reason_of(code, oom_killed);
	bool is_main = flags & TASK_MAIN, is_init;

	__sync_fetch_and_add(&u->processes_ended, 1);
	if (is_main)
		__sync_fetch_and_add(&u->mains, -1);
	else if (u->mains <= 0) // a service that has gone to the background is main now
		is_main = is_from_outside(leader, owner, &is_init);
	if (oom_killed)
		__sync_fetch_and_add(&u->oom_kills, 1);
	if (is_main && reason < EXIT_REASON_MAX)
		__sync_fetch_and_add(&u->exits[reason], 1);
	if (is_main || oom_killed)
		tell_exit(leader, owner, reason, is_main);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	struct task_times times;
	struct known_task *k;
	struct usage *u;
	struct owner owner;
	__u32 pid = task->pid, flags = 0;
	bool contained;

	contained = owner_of(&owner, task);
	k = known(task);
	if (!contained && !k)
		return 0;
	read_times(&times, task);
	if (k) {
		if (__sync_val_compare_and_swap(&k->busy, 0, 1)) { // a move at this very moment has it
			count_task(TASK_STAT_UNACCOUNTED);
			__builtin_memset(&times, 0, sizeof(times));
		} else {
			since(&times, &k->base, life_of(task));
			owner = k->owner;
		}
		flags = k->flags;
	} else {
		struct task_times none = {};

		since(&times, &none, life_of(task));
	}
	u = usage_of(&owner);
	if (!u) {
		count_task(TASK_STAT_UNACCOUNTED);
		goto out;
	}
	add_ended(u, &times);
	__sync_fetch_and_add(&u->tasks_ended, 1);
	if (is_process_over(task)) {
		if (task->pid != task->tgid) { // the leader has gone before
			__u32 tgid = task->tgid;
			struct known_task *of_leader = bpf_map_lookup_elem(&known_tasks, &tgid);

			flags = of_leader ? of_leader->flags : 0;
			bpf_map_delete_elem(&known_tasks, &tgid);
		}
		end_process(task, u, &owner, flags);
	} else if (task->pid == task->tgid) {
		return 0; // known until the others are gone
	}
out:
	bpf_map_delete_elem(&known_tasks, &pid);
	return 0;
}

static __always_inline void add_alive(struct usage *u, const struct task_times *times)
{
	if (u->pass != pass) {
		u->before = u->ended;
		__builtin_memset(&u->living, 0, sizeof(u->living));
		u->pass = pass;
	}
	u->living.cpu += times->cpu;
	for (int i = 0; i < DELAY_MAX; i++)
		u->living.delays[i] += times->delays[i];
}

// add_living adds up the times of those that are alive. Who is about to exit is left out: it may be in ended already.
SEC("iter/task")
int add_living(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_times times, base = {};
	struct known_task *k;
	struct owner owner;
	struct usage *u;

	if (!task) {
		tell_delays();
		return 0;
	}
	if (task->flags & (PF_EXITING | PF_KTHREAD) || !owner_of(&owner, task))
		return 0;
	u = usage_of(&owner);
	if (!u)
		return 0;
	k = known(task);
	if (!k)
		note_task(task, &owner, NULL);
	// It may move or exit while we look, and its entry be that of another task.
	for (int i = 0; k && i < 2; i++) {
		base = k->base;
		if (k->start_time == task->start_time && is_same_owner(&k->owner, &owner) && !k->busy)
			break;
		if (i == 1)
			return 0; // in the next pass
	}
	// What it had is in ended of its owner if it has exited since.
	read_times(&times, task);
	since(&times, &base, life_of(task));
	if (*(volatile unsigned int *)&task->flags & PF_EXITING)
		return 0;
	add_alive(u, &times);
	return 0;
}
