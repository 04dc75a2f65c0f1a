/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which processes are main: those whose begin and end are a container's or a service's.
 */
#ifndef EBPF_CONTAINER_MAINS_H
#define EBPF_CONTAINER_MAINS_H

#include "kernel.h"
#include "owner.h"
#include "usage.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

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

// id_in_namespace gives the id of a task in its PID namespace, and whether that is another one than the host's.
static __always_inline __u32 id_in_namespace(struct task_struct *task, bool *is_inner)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *upid = (struct upid *)((char *)pid + bpf_core_field_offset(struct pid, numbers) +
					    level * bpf_core_type_size(struct upid));

	*is_inner = level > 0;
	return BPF_CORE_READ(upid, nr);
}

static __always_inline bool is_init(struct task_struct *leader)
{
	bool is_inner;

	return id_in_namespace(leader, &is_inner) == 1 && is_inner;
}

static __always_inline bool is_from_outside(struct task_struct *leader, const struct owner *owner)
{
	struct owner of_parent;

	read_owner(&of_parent, BPF_CORE_READ(leader, real_parent));
	return !is_same_owner(&of_parent, owner);
}

static __always_inline void add_main(struct known_task *k, struct usage *u, bool init)
{
	__sync_fetch_and_or(&k->flags, TASK_MAIN);
	__sync_fetch_and_and(&u->traits, ~USAGE_IN_BACKGROUND);
	if (init)
		__sync_fetch_and_or(&u->traits, USAGE_HAS_INIT);
	__sync_fetch_and_add(&u->mains, 1);
}

// make_main makes a process that has begun a program main: if its parent is not of its cgroup, and it is the first one of a PID
// namespace or there is no other. What is begun in a container that runs already (docker exec) is neither.
static __always_inline bool make_main(struct task_struct *leader, struct known_task *k, struct usage *u, bool init)
{
	if (!is_from_outside(leader, &k->owner) || (!init && (u->mains > 0 || u->traits & USAGE_HAS_INIT)))
		return false;
	add_main(k, u, init);
	return true;
}

// is_left_over tells that a process goes on for a main process that has ended well: a service that has gone to the background.
// Its parent is the one that processes are left to.
static __always_inline bool is_left_over(struct task_struct *leader, const struct owner *owner, struct usage *u)
{
	return u->mains <= 0 && (u->traits & (USAGE_IN_BACKGROUND | USAGE_HAS_INIT)) == USAGE_IN_BACKGROUND &&
	       is_from_outside(leader, owner);
}

#endif
