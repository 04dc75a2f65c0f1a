/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Files as the kernel has them: the types, as those of kernel.h, and what is read out of them.
 */
#ifndef EBPF_CONTAINER_VFS_H
#define EBPF_CONTAINER_VFS_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"

struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent; /* itself at the root of a file system */
	struct qstr d_name;
	union {
		struct hlist_node d_alias; /* in i_dentry */
	} d_u;
};

struct dentry___unnamed {
	struct hlist_node d_alias; /* since Linux 7.1, whose d_u has no name */
};

struct super_block {
	__u32 s_dev;
	struct dentry *s_root;
};

/* struct inode, of which the other programs need less. */
struct inode___file {
	unsigned short i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
	__s64 i_size;
	__s64 i_atime_sec; /* these since Linux 6.11 */
	__s64 i_mtime_sec;
	__s64 i_ctime_sec;
	__u32 i_atime_nsec;
	__u32 i_mtime_nsec;
	__u32 i_ctime_nsec;
	__u32 i_generation;
	struct hlist_head i_dentry;
};

struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};

struct inode___times {
	struct timespec64 __i_atime; /* since Linux 6.7 */
	struct timespec64 __i_mtime; /* likewise */
	struct timespec64 __i_ctime; /* since Linux 6.6 */
};

struct inode___old_times {
	struct timespec64 i_atime;
	struct timespec64 i_mtime;
	struct timespec64 i_ctime;
};

#pragma clang diagnostic pop
#pragma clang attribute pop

enum {
	S_IFREG = 0100000,     /* include/uapi/linux/stat.h */
	PF_KTHREAD = 0x200000, /* include/linux/sched.h */
};

#define assign_time(to, from) ((to).tv_sec = (from).tv_sec, (to).tv_nsec = (from).tv_nsec)

/*
 * is_just_modified tells whether the last change of a file's times was one that writes make. Who reads sets the time of access
 * alone, who changes mode, owner or name that of change.
 */
static __always_inline bool is_just_modified(struct inode___file *inode)
{
	struct inode___old_times *old = (void *)inode;
	struct inode___times *newer = (void *)inode;
	struct timespec64 atime, mtime, ctime;

	if (bpf_core_field_exists(inode->i_mtime_sec)) {
		atime = (struct timespec64){inode->i_atime_sec, inode->i_atime_nsec};
		mtime = (struct timespec64){inode->i_mtime_sec, inode->i_mtime_nsec};
		ctime = (struct timespec64){inode->i_ctime_sec, inode->i_ctime_nsec};
	} else {
		if (bpf_core_field_exists(newer->__i_mtime)) {
			assign_time(atime, newer->__i_atime);
			assign_time(mtime, newer->__i_mtime);
		} else {
			assign_time(atime, old->i_atime);
			assign_time(mtime, old->i_mtime);
		}
		if (bpf_core_field_exists(newer->__i_ctime))
			assign_time(ctime, newer->__i_ctime);
		else
			assign_time(ctime, old->i_ctime);
	}
	if (mtime.tv_sec != ctime.tv_sec || mtime.tv_nsec != ctime.tv_nsec)
		return false;
	return mtime.tv_sec > atime.tv_sec || (mtime.tv_sec == atime.tv_sec && mtime.tv_nsec > atime.tv_nsec);
}

/* name_of gives one of the names of a file, the last that was made or looked up; NULL if there is none. */
static __always_inline struct dentry *name_of(struct inode___file *inode)
{
	__u64 alias = (__u64)BPF_CORE_READ(inode, i_dentry.first);

	if (!alias)
		return NULL;
	if (bpf_core_field_exists(struct dentry, d_u.d_alias))
		return (void *)(alias - bpf_core_field_offset(struct dentry, d_u.d_alias));
	if (bpf_core_field_exists(struct dentry___unnamed, d_alias))
		return (void *)(alias - bpf_core_field_offset(struct dentry___unnamed, d_alias));
	return NULL;
}

#endif
