/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whose an I/O is.
 *
 * The pages know it, also when a kernel thread writes back what a container has left in the page cache: each is charged to the
 * memory cgroup that has brought it in. Where that says nothing it is the task that submits the I/O. That comes first where
 * the page is only a buffer (direct I/O) and where it belongs to the file system itself, whose blocks everybody uses.
 */
#ifndef EBPF_CONTAINER_DISK_H
#define EBPF_CONTAINER_DISK_H

#include "kernel.h"
#include "owner.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* id of the hierarchy of v1_subsys, negative on a pure v2 host */
const volatile __s32 v1_hierarchy = -1;

/* enum page_kind is what a page of an I/O is used for. */
enum page_kind {
	PAGE_OF_FILE,
	PAGE_OF_PROCESS,     /* anonymous memory */
	PAGE_OF_FILE_SYSTEM, /* a block of a device that is mounted */
};

/* is_flagged tells whether one of enum req_flag_bits is set. */
#define is_flagged(bio, bit)                                   \
	(bpf_core_enum_value_exists(enum req_flag_bits, bit) && \
	 (bio)->bi_opf & 1U << bpf_core_enum_value(enum req_flag_bits, bit))

/* owner_of_submitter is owner_of_current, but o has one id alone, as where the page is asked. */
static __always_inline bool owner_of_submitter(struct owner *o)
{
	struct css_set *set = bpf_get_current_task_btf()->cgroups;

	o->cgroup_v2 = 0;
	o->cgroup_v1 = 0;
	if (v1_subsys >= 0 && v1_subsys < 16) {
		struct cgroup *v1 = set->subsys[v1_subsys]->cgroup;

		if (v1->level > 0) {
			o->cgroup_v1 = v1->kn->id;
			return true;
		}
	}
	if (set->dfl_cgrp->level > 0) {
		o->cgroup_v2 = set->dfl_cgrp->kn->id;
		return true;
	}
	return false;
}

/* head_of gives the page that stands for all of a compound one. */
static __always_inline struct page *head_of(struct page *page)
{
	struct page___with_info *with_info = (void *)page;
	__u64 info = 0;

	if (bpf_core_field_exists(page->compound_head))
		info = BPF_CORE_READ(page, compound_head);
	else if (bpf_core_field_exists(with_info->compound_info))
		info = BPF_CORE_READ(with_info, compound_info);
	if (!(info & 1))
		return page;
	/* No page is at so high an address. */
	if (info >> 32 == ~0U)
		return (struct page *)((__u64)page & (info - 1));
	return (struct page *)(info - 1);
}

/* first_page gives the first page of the data, NULL if there is none. */
static __always_inline struct page *first_page(struct bio *bio)
{
	/* Read so, it is a number to the verifier, which allows no index into what it knows. */
	struct bio_vec *vec = BPF_CORE_READ(bio, bi_io_vec);
	struct page *page;

	/* What writes zeroes has a size, but no vector. */
	if (!bio->bi_iter.bi_size || !vec)
		return NULL;
	vec = (void *)vec + bio->bi_iter.bi_idx * bpf_core_type_size(struct bio_vec);
	page = BPF_CORE_READ(vec, bv_page);
	return page ? head_of(page) : NULL;
}

static __always_inline enum page_kind kind_of(struct page *page)
{
	struct folio *folio = (void *)page;
	__u64 mapping = bpf_core_field_exists(folio->mapping) ? (__u64)BPF_CORE_READ(folio, mapping)
							      : (__u64)BPF_CORE_READ(page, mapping);
	struct block_device *bdev;
	struct inode *inode;

	if (mapping & PAGE_MAPPING_ANON)
		return PAGE_OF_PROCESS;
	if (!mapping || mapping & PAGE_MAPPING_FLAGS)
		return PAGE_OF_FILE;
	inode = BPF_CORE_READ((struct address_space *)mapping, host);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFBLK || !bpf_core_field_exists(struct bdev_inode, vfs_inode))
		return PAGE_OF_FILE;
	bdev = (void *)inode - bpf_core_field_offset(struct bdev_inode, vfs_inode) + bpf_core_field_offset(struct bdev_inode, bdev);
	return BPF_CORE_READ(bdev, bd_holder) ? PAGE_OF_FILE_SYSTEM : PAGE_OF_FILE;
}

/* memory_subsys gives what the states of all memory cgroups point at. */
static __always_inline struct cgroup_subsys *memory_subsys(void)
{
	return bpf_get_current_task_btf()->cgroups->subsys[bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id)]->ss;
}

/* memory_cgroup_of gives the memory cgroup that a page is charged to, NULL for none. */
static __always_inline struct cgroup *memory_cgroup_of(struct page *page)
{
	struct folio *folio = (void *)page;
	struct cgroup_subsys *memory;
	struct obj_cgroup *objcg;
	struct mem_cgroup *memcg;
	__u64 data;

	if (!bpf_core_type_exists(struct mem_cgroup) || !bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return NULL;
	if (bpf_core_field_exists(folio->memcg_data))
		data = BPF_CORE_READ(folio, memcg_data);
	else if (bpf_core_field_exists(page->memcg_data))
		data = BPF_CORE_READ(page, memcg_data);
	else
		return NULL;
	if (data & MEMCG_DATA_OBJEXTS || !(data & ~(__u64)MEMCG_DATA_FLAGS))
		return NULL;
	memory = memory_subsys();
	memcg = (void *)(data & ~(__u64)MEMCG_DATA_FLAGS);
	if (BPF_CORE_READ(memcg, css.ss) != memory) {
		/* Pages of the kernel's own have an object cgroup, all since Linux 7.1. */
		objcg = (void *)memcg;
		memcg = BPF_CORE_READ(objcg, memcg);
		if (BPF_CORE_READ(memcg, css.ss) != memory)
			return NULL;
	}
	return BPF_CORE_READ(memcg, css.cgroup);
}

/* owner_of_io fills o, with one of its ids, and returns false if the I/O is the host's own. */
static __always_inline bool owner_of_io(struct owner *o, struct bio *bio)
{
	bool contained = owner_of_submitter(o);
	struct page *page = first_page(bio);
	enum page_kind kind;
	struct cgroup *cgroup;
	__s32 hierarchy;

	if (!page || is_flagged(bio, __REQ_META))
		return contained;
	kind = kind_of(page);
	if (kind == PAGE_OF_FILE_SYSTEM || (kind == PAGE_OF_PROCESS && contained && !is_flagged(bio, __REQ_SWAP)))
		return contained;
	cgroup = memory_cgroup_of(page);
	if (!cgroup)
		return contained;
	hierarchy = BPF_CORE_READ(cgroup, root, hierarchy_id);
	if (hierarchy != 0 && hierarchy != v1_hierarchy)
		return contained;
	/* A unit of systemd may be in no memory cgroup. */
	if (BPF_CORE_READ(cgroup, level) == 0)
		return contained && hierarchy != 0 && !o->cgroup_v1;
	o->cgroup_v2 = hierarchy == 0 ? BPF_CORE_READ(cgroup, kn, id) : 0;
	o->cgroup_v1 = hierarchy == 0 ? 0 : BPF_CORE_READ(cgroup, kn, id);
	return true;
}

#endif
