// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Cgroups that come and go, told at once: a container that lives for a second must be found while it lives, and read
 * between the exit of its last process and the removal of its cgroup.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	CGROUP_PATH_MAX = 1024,
};

enum cgroup_event_kind {
	CGROUP_MADE = 1,
	CGROUP_EMPTIED = 2, // its last process, or that of a descendant, has gone
	CGROUP_REMOVED = 3,
};

struct cgroup_event {
	__u64 id;
	enum cgroup_event_kind kind;
	__u32 legacy;   // 1 for the v1 hierarchy, 0 for the unified one
	__s32 path_len; // with the final NUL; CGROUP_PATH_MAX may mean that it was cut
	__u32 pad;
	__u8 path[CGROUP_PATH_MAX];
};

// events: inserted here, taken out by user space as soon as they come. When it is full they are counted in events_lost
// and user space walks the tree anew.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
	__type(value, struct cgroup_event);
} events SEC(".maps");

// hierarchy id of the v1 controller by which containers are told apart, negative on a pure v2 host
const volatile __s32 v1_hierarchy = -1;

__u64 events_lost = 0;

static __always_inline int tell(struct cgroup *cgrp, const char *path, enum cgroup_event_kind kind)
{
	__s32 hierarchy = cgrp->root->hierarchy_id;
	struct cgroup_event *e;

	if (hierarchy != 0 && hierarchy != v1_hierarchy)
		return 0;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&events_lost, 1);
		return 0;
	}
	e->id = cgrp->kn->id;
	e->kind = kind;
	e->legacy = hierarchy != 0;
	e->pad = 0;
	e->path_len = bpf_probe_read_kernel_str(e->path, sizeof(e->path), path);
	bpf_ringbuf_submit(e, 0);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir, struct cgroup *cgrp, const char *path)
{
	return tell(cgrp, path, CGROUP_MADE);
}

SEC("tp_btf/cgroup_notify_populated")
int BPF_PROG(on_cgroup_notify_populated, struct cgroup *cgrp, const char *path, int val)
{
	return val ? 0 : tell(cgrp, path, CGROUP_EMPTIED);
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir, struct cgroup *cgrp, const char *path)
{
	return tell(cgrp, path, CGROUP_REMOVED);
}
