// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the processes of each cgroup have used and waited for, and how they have ended.
 *
 * Each task's times are added to its cgroup's: by add_living before user space reads the table, when it moves to another cgroup,
 * when it exits, and for the rest when the kernel is done with it. All of these move the same mark in known_tasks by
 * compare-and-exchange, so that nothing is counted twice. The kernel tells of a move when it is done; therefore the cgroup of
 * each task is noted at its fork. Nothing is sent to user space but a record when a main process ends or one is killed for
 * memory.
 */
#include "kernel.h"
#include "mains.h"
#include "owner.h"
#include "usage.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	PF_EXITING = 0x4,        // include/linux/sched.h
	PF_FORKNOEXEC = 0x40,    // likewise: no exec since its fork
	PF_KTHREAD = 0x200000,   // likewise
	SIGNAL_GROUP_EXIT = 0x4, // include/linux/sched/signal.h
	SIGKILL = 9,
	MAX_THREADS_MOVED = 512, // at once with their process; the times of others are split when they are next looked at
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

// id of the hierarchy of the v1 controller by which containers are told apart, negative on a pure v2 host
const volatile __s32 v1_hierarchy = -1;

static __always_inline struct known_task *known(struct task_struct *task)
{
	__u64 key = (__u64)task;

	return bpf_map_lookup_elem(&known_tasks, &key);
}

static __always_inline struct known_task *note_task(struct task_struct *task, const struct known_task *noted)
{
	__u64 key = (__u64)task;

	if (bpf_map_update_elem(&known_tasks, &key, noted, BPF_ANY))
		count_task(TASK_STAT_UNKNOWN);
	return bpf_map_lookup_elem(&known_tasks, &key);
}

// leave ends what a task has been for its old owner.
static __always_inline void leave(struct known_task *k, const struct task_look *look, bool is_leader)
{
	struct owner owner = k->owner;
	struct usage *u;

	if (is_counted(k, look) && !(k->flags & TASK_MAIN))
		return; // on its way through, as where runtimes go into one hierarchy after the other
	u = usage_of(&owner);
	if (!u) {
		count_task(TASK_STAT_UNACCOUNTED);
		k->counted = look->times;
		return;
	}
	count_look(u, k, look);
	if (is_leader && k->flags & TASK_MAIN)
		__sync_fetch_and_add(&u->mains, -1);
}

// arrive goes on with a task for its new owner: a main process remains one.
static __always_inline void arrive(struct known_task *k, struct task_struct *task, bool is_leader)
{
	struct owner owner = k->owner;
	struct usage *u;

	if (!(k->flags & TASK_MAIN)) {
		__sync_fetch_and_and(&k->flags, ~TASK_EXECED);
		return;
	}
	if (!is_leader)
		return;
	u = usage_of(&owner);
	if (u)
		add_main(k, u, is_init(task));
}

// follow_task splits the times of a task that is in another cgroup than at our last look. at is where the task is, a number so
// that the verifier looks at this once and not for each thread.
__noinline int follow_task(__u64 at)
{
	struct task_struct *task = (struct task_struct *)at;
	struct known_task *k = known(task), noted = {};
	bool is_leader, contained = read_owner(&noted.owner, task);
	struct task_look look;

	if (!k && !contained)
		return 0;
	if (!contained)
		__builtin_memset(&noted.owner, 0, sizeof(noted.owner));
	if (k && is_same_owner(&k->owner, &noted.owner))
		return 0;
	look_at(&look, task, false);
	if (!k) {
		noted.counted = look.times;
		noted.io_waits = look.io_waits;
		note_task(task, &noted);
		return 0;
	}
	if (__sync_fetch_and_or(&k->flags, TASK_MOVING) & TASK_MOVING)
		return 0; // the pass and on_attach have met
	is_leader = BPF_CORE_READ(task, pid) == BPF_CORE_READ(task, tgid);
	if (k->owner.cgroup_v2)
		leave(k, &look, is_leader);
	else
		k->counted = look.times;
	k->owner = noted.owner;
	if (contained)
		arrive(k, task, is_leader);
	__sync_fetch_and_and(&k->flags, contained ? ~TASK_MOVING : TASK_OVER);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct known_task noted = {}, *k;
	__u64 key = (__u64)child;
	struct usage *u;

	if (!owner_of(&noted.owner, child)) {
		bpf_map_delete_elem(&known_tasks, &key); // of an earlier task there, whose on_free did not run
		return 0;
	}
	if (child->pid != child->tgid) {
		k = known(parent);
		if (k && is_same_owner(&k->owner, &noted.owner))
			noted.flags = k->flags & (TASK_EXECED | TASK_MAIN);
	} else if (is_init(child) && is_from_outside(child, &noted.owner)) {
		u = usage_of(&noted.owner);
		if (u)
			__sync_fetch_and_or(&u->traits, USAGE_HAS_INIT);
	}
	note_task(child, &noted);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task)
{
	struct known_task noted = {}, *k;
	struct usage *u;
	bool init;

	if (!owner_of(&noted.owner, task))
		return 0;
	follow_task(bpf_get_current_task()); // on_attach may be late
	u = usage_of(&noted.owner);
	if (!u)
		return 0;
	__sync_fetch_and_add(&u->execs, 1);
	k = known(task);
	if (!k)
		return 0;
	k->rss_before = task->signal->maxrss;
	if (__sync_fetch_and_or(&k->flags, TASK_EXECED) & TASK_EXECED)
		return 0;
	init = is_init(task);
	if (make_main(task, k, u, init))
		__sync_fetch_and_add(init ? &u->inits : &u->others, 1);
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_attach, struct cgroup *to, const char *path, struct task_struct *leader, bool threadgroup)
{
	__s32 hierarchy = to->root->hierarchy_id;
	struct list_head *head, *node;

	if (hierarchy != 0 && hierarchy != v1_hierarchy)
		return 0;
	// All threads, also when only one has moved: those that have not are where they were.
	head = (struct list_head *)((char *)leader->signal + bpf_core_field_offset(struct signal_struct, thread_head));
	node = BPF_CORE_READ(head, next);
	for (int i = 0; i < MAX_THREADS_MOVED && node && node != head; i++) {
		follow_task((__u64)node - bpf_core_field_offset(struct task_struct, thread_node));
		node = BPF_CORE_READ(node, next);
	}
	return 0;
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

// max_rss_of gives the most memory that a process had. What the kernel tells may be of the time before its exec, as after vfork
// of its parent. Since Linux 6.16 there still is the memory itself to ask.
static __always_inline __u64 max_rss_of(struct task_struct *task)
{
	struct known_task *k = known(task->group_leader);
	__u64 all = task->signal->maxrss, own;
	struct mm_struct *mm = task->mm;

	if (!k || all > k->rss_before || !mm || !bpf_core_field_exists(mm->rss_stat[0].count))
		return all;
	own = mm->rss_stat[MM_FILEPAGES].count + mm->rss_stat[MM_ANONPAGES].count + mm->rss_stat[MM_SHMEMPAGES].count;
	return own > mm->hiwater_rss ? own : mm->hiwater_rss;
}

static __always_inline void tell_exit(struct task_struct *task, const struct owner *owner, __s32 code, enum exit_reason reason,
				      bool is_main)
{
	struct task_struct *leader = task->group_leader;
	struct exit_event *e = bpf_ringbuf_reserve(&exit_events, sizeof(*e), 0);
	bool is_inner;

	if (!e) {
		count_task(TASK_STAT_EVENTS_LOST);
		return;
	}
	e->owner = *owner;
	e->life_ns = bpf_ktime_get_ns() - leader->start_time;
	e->max_rss = max_rss_of(task);
	e->pid = leader->tgid;
	e->inner_pid = id_in_namespace(leader, &is_inner);
	e->code = code;
	e->reason = reason;
	e->is_main = is_main;
	e->pad = 0;
	bpf_core_read(e->comm, sizeof(e->comm), &leader->comm);
	bpf_ringbuf_submit(e, 0);
}

// end_process counts the end of a process. flags are those of its leader.
static __always_inline void end_process(struct task_struct *task, const struct owner *owner, struct usage *u, __u32 flags)
{
	struct task_struct *leader = task->group_leader;
	__s32 code = exit_code_of(task);
	bool oom_killed = task->signal->oom_mm && (code & 0x7f) == SIGKILL;
	enum exit_reason reason = reason_of(code, oom_killed);
	bool is_main = flags & TASK_MAIN;

	__sync_fetch_and_add(&u->processes_ended, 1);
	if (is_main) {
		// What a runtime leaves in the cgroup before the container's own first process is not its.
		if (u->traits & USAGE_HAS_INIT)
			is_main = is_init(leader);
	} else {
		is_main = is_left_over(leader, owner, u);
	}
	if (is_main && code)
		__sync_fetch_and_and(&u->traits, ~USAGE_IN_BACKGROUND);
	else if (is_main)
		__sync_fetch_and_or(&u->traits, USAGE_IN_BACKGROUND);
	if (oom_killed)
		__sync_fetch_and_add(&u->oom_kills, 1);
	if (is_main)
		__sync_fetch_and_add(&u->exits[reason], 1);
	if (is_main || oom_killed)
		tell_exit(task, owner, code, reason, is_main);
}

// end_task counts the end of a thread and, if it is the last one, of its process. Of two that exit at the same time both may
// find nobody left.
static __always_inline void end_task(struct task_struct *task, const struct owner *owner, struct usage *u)
{
	struct owner of_leader;
	struct usage *main_in;
	struct known_task *k;
	__u32 flags = 0;

	__sync_fetch_and_add(&u->tasks_ended, 1);
	if (task->signal->live.counter)
		return;
	k = known(task->group_leader);
	if (k) {
		flags = __sync_fetch_and_or(&k->flags, TASK_OVER);
		if (flags & TASK_OVER)
			return;
		of_leader = k->owner;
		main_in = bpf_map_lookup_elem(&usages, &of_leader);
		if (main_in && flags & TASK_MAIN)
			__sync_fetch_and_add(&main_in->mains, -1);
	}
	end_process(task, owner, u, flags);
}

// count_last adds to u what a task that ends has come to. A function of its own, so that its stack is not that of on_exit.
static __noinline int count_last(struct usage *u, struct task_struct *task)
{
	struct known_task unknown = {}, *k = known(task);
	struct task_look look;

	look_at(&look, task, true);
	count_look(u, k ?: &unknown, &look);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	struct usage *u;
	struct owner owner;

	if (known(task))
		follow_task(bpf_get_current_task()); // one of more than MAX_THREADS_MOVED
	if (!owner_of(&owner, task))
		return 0;
	u = usage_of(&owner);
	if (!u) {
		count_task(TASK_STAT_UNACCOUNTED);
		return 0;
	}
	count_last(u, task);
	end_task(task, &owner, u);
	return 0;
}

// on_free counts what a task came to after on_exit: the end of its memory, and waiting in between.
SEC("tp_btf/sched_process_free")
int BPF_PROG(on_free, struct task_struct *task)
{
	struct known_task *k = known(task);
	__u64 key = (__u64)task;
	struct task_look look;
	struct owner owner;
	struct usage *u;

	if (!k)
		return 0;
	owner = k->owner;
	u = bpf_map_lookup_elem(&usages, &owner); // not anew: user space may have taken it for the last time
	if (u) {
		look_at(&look, task, true);
		count_look(u, k, &look);
	}
	bpf_map_delete_elem(&known_tasks, &key);
	return 0;
}

// note_older takes in a task that is older than the programs, or whose fork found known_tasks full.
static __always_inline struct known_task *note_older(struct task_struct *task, const struct owner *owner)
{
	struct known_task noted = {.owner = *owner}, *k;
	struct usage *u;

	if (!(task->flags & PF_FORKNOEXEC))
		noted.flags = TASK_EXECED;
	k = note_task(task, &noted);
	if (!k || task->pid != task->tgid || !(noted.flags & TASK_EXECED))
		return k;
	u = usage_of(owner);
	if (u)
		make_main(task, k, u, is_init(task));
	return k;
}

// add_living adds up the times of those that are alive.
SEC("iter/task")
int add_living(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task, *leader;
	struct known_task *k, *of_leader;
	struct task_look look;
	struct owner owner;
	struct usage *u;
	__u64 at;

	if (!task) {
		tell_delays();
		return 0;
	}
	// Of one that exits on_exit and on_free count all; known_tasks may lose it while we look.
	if (task->flags & (PF_EXITING | PF_KTHREAD))
		return 0;
	k = known(task);
	if (!owner_of(&owner, task))
		return 0;
	if (!k) {
		// First its leader: when that exits before the others it never comes here.
		leader = task->group_leader;
		of_leader = known(leader) ?: note_older(leader, &owner);
		k = leader == task ? of_leader : note_older(task, &owner);
		if (!k)
			return 0;
		if (of_leader)
			__sync_fetch_and_or(&k->flags, of_leader->flags & (TASK_EXECED | TASK_MAIN));
	} else if (!is_same_owner(&k->owner, &owner)) {
		bpf_probe_read_kernel(&at, sizeof(at), &ctx->task);
		follow_task(at);
		return 0;
	}
	look_at(&look, task, true);
	if (is_counted(k, &look)) {
		if (!look.in_io)
			k->looked_ns = look.at_ns;
		return 0;
	}
	u = usage_of(&owner);
	if (!u)
		return 0;
	count_look(u, k, &look);
	if (task->pid == task->tgid && !(k->flags & TASK_MAIN) && is_left_over(task, &owner, u))
		add_main(k, u, false);
	return 0;
}
