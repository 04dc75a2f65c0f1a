/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef EBPF_CONTAINER_OWNER_H
#define EBPF_CONTAINER_OWNER_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>

/*
 * struct owner says which cgroups a task was in. Both are given where both exist: only user space, which knows the
 * paths, can tell which of them is the container. Some runtimes make a container's cgroup in the v1 hierarchies alone,
 * some systemd versions make a unit's in the v2 hierarchy alone.
 */
struct owner {
	__u64 cgroup_v2; /* id in the unified hierarchy */
	__u64 cgroup_v1; /* id in the v1 hierarchy of v1_subsys, 0 where there is none */
};

/* enum cgroup_subsys_id of the v1 controller by which containers are told apart, negative on a pure v2 host */
const volatile __s32 v1_subsys = -1;

/* owner_of fills o and returns false if the task belongs to the host itself: the root of every hierarchy. */
static __always_inline bool owner_of(struct owner *o, struct task_struct *task)
{
	struct css_set *set = task->cgroups;
	struct cgroup *v2 = set->dfl_cgrp;
	bool contained = v2->level > 0;

	o->cgroup_v2 = v2->kn->id;
	o->cgroup_v1 = 0;
	if (v1_subsys >= 0 && v1_subsys < 16) {
		struct cgroup *v1 = set->subsys[v1_subsys]->cgroup;

		o->cgroup_v1 = v1->kn->id;
		contained |= v1->level > 0;
	}
	return contained;
}

static __always_inline bool owner_of_current(struct owner *o)
{
	return owner_of(o, bpf_get_current_task_btf());
}

#endif
