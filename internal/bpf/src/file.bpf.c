// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Files that containers write to, told once each. A log file must be found while it is there, also when it is written once and
 * closed within a millisecond.
 *
 * The kernel says in the writer's own context when a page of a file becomes dirty, which is before the size of the file grows,
 * and when the times of a file change. A second write to a page that is still dirty says nothing, nor does one to a file whose
 * times were changed within the same tick.
 */
#include "kernel.h"
#include "owner.h"
#include "vfs.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	FILE_PATH_DEPTH = 32,
	FILE_PATH_ENOUGH = 512, // bytes, after which no further name is added
	FILE_NAME_SIZE = 256,   // with the final NUL
	WINDOW_NS = 100000000,
	TOLD_A_WINDOW = 200,
	LOG = 'l' | 'o' << 8 | 'g' << 16, // four bytes as they are in memory, the last one NUL
};

// file_key is what is told once. On btrfs files of two subvolumes could be the same here, if they were made at the same time; on
// ext4 a file and a told one that had its inode before, once in 2^32, as generations there are random.
struct file_key {
	struct owner owner;
	__u64 inode;
	__u32 dev; // of the superblock, the major number above the low 20 bits
	__u32 generation;
};

struct file_write {
	struct owner owner;
	__u64 inode;
	__u64 size; // bytes, before the write
	__u32 dev;
	__u32 pid; // in the host's PID namespace
	__u32 names_len;
	__u32 cut; // 1 if the names of directories are missing
	// each with a final NUL, that of the file first, then its directory up to the root of the file system
	__u8 names[FILE_PATH_ENOUGH + FILE_NAME_SIZE];
};

// file_writes: inserted here, taken out by user space as soon as they come. What finds it full is counted in writes_lost and told
// at the next chance.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
	__type(value, struct file_write);
} file_writes SEC(".maps");

// told_files: inserted here, nobody deletes. When it is full those go that were not written to for longest; they are told again.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct file_key);
	__type(value, __u8);
} told_files SEC(".maps");

struct desk {
	struct file_key last; // which is mostly the next one, too
	__u64 skipped_in;     // the window in which last was not told for want of a turn, 0 if there is none
	__u64 at;             // struct inode of last
	__u32 pid;            // of the thread that wrote to it
	__u32 pad;
	struct file_write write;
};

// desks: one, which a program has to itself: tracepoints run with preemption off.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct desk);
} desks SEC(".maps");

__u64 writes_lost = 0;
__u64 writes_skipped = 0;

// The running window and what was told in it.
__u64 window = 0;
__u64 told_in_window = 0;

static __always_inline __u64 current_window(void)
{
	return bpf_ktime_get_ns() / WINDOW_NS + 1;
}

// is_turn takes one of the tellings of a window.
static __always_inline bool is_turn(__u64 now)
{
	__u64 old = window;

	if (old != now && __sync_val_compare_and_swap(&window, old, now) == old)
		told_in_window = 0;
	if (told_in_window >= TOLD_A_WINDOW)
		return false;
	return __sync_fetch_and_add(&told_in_window, 1) < TOLD_A_WINDOW;
}

static __always_inline bool is_same_file(const struct file_key *a, const struct file_key *b)
{
	return a->inode == b->inode && a->owner.cgroup_v2 == b->owner.cgroup_v2 && a->owner.cgroup_v1 == b->owner.cgroup_v1 &&
	       a->dev == b->dev && a->generation == b->generation;
}

// is_equal is 1 or 0 without a branch: the verifier goes each way of a branch in a loop.
static __always_inline __u32 is_equal(__u32 a, __u32 b)
{
	return ((__u64)(a ^ b) - 1) >> 63;
}

static __always_inline __u32 four_bytes(const __u8 *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (__u32)p[3] << 24;
}

// collect_names fills the names of w and tells whether one of the directories has a name as those of logs have.
static __always_inline bool collect_names(struct file_write *w, struct inode___file *inode)
{
	struct dentry *root = BPF_CORE_READ(inode, i_sb, s_root), *dentry = name_of(inode), *parent;
	__u32 len = 0, in_logs = 0, first_four;
	const unsigned char *name;
	long n;

	for (int i = 0; i < FILE_PATH_DEPTH && dentry && dentry != root && len < FILE_PATH_ENOUGH; i++) {
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry) // not connected, as a file opened by its handle
			break;
		name = BPF_CORE_READ(dentry, d_name.name);
		n = bpf_probe_read_kernel_str(&w->names[len], FILE_NAME_SIZE, name);
		if (n <= 1)
			break;
		first_four = four_bytes(&w->names[len]);
		if (i > 0) // a directory
			in_logs |= is_equal(first_four, LOG) | (is_equal(first_four, LOG | 's' << 24) & is_equal(n, sizeof("logs")));
		len += n;
		dentry = parent;
	}
	w->cut = dentry != root;
	w->names_len = len;
	return in_logs;
}

// is_log_name tells whether a name has ".log" in it.
static __always_inline bool is_log_name(const __u8 *name)
{
	__u32 last_four = 0, found = 0;

	for (int i = 0; i < FILE_NAME_SIZE && name[i]; i++) {
		last_four = last_four >> 8 | (__u32)name[i] << 24;
		found |= is_equal(last_four, '.' | LOG << 8);
	}
	return found;
}

// tell sends a record of the desk's last file, if it is its turn.
static __always_inline void tell(struct desk *desk, struct inode___file *inode)
{
	struct file_write *w = &desk->write;
	bool in_logs;
	__u64 now = current_window(), len;
	__u8 told = 1;

	w->names[0] = 0;
	in_logs = collect_names(w, inode);
	if (!is_turn(now) && !in_logs && !is_log_name(w->names)) {
		desk->skipped_in = now;
		desk->pid = 0;
		__sync_fetch_and_add(&writes_skipped, 1);
		return;
	}
	w->owner = desk->last.owner;
	w->inode = desk->last.inode;
	w->size = inode->i_size;
	w->dev = desk->last.dev;
	w->pid = bpf_get_current_pid_tgid() >> 32;
	len = w->names_len;
	if (len > sizeof(w->names))
		len = sizeof(w->names);
	if (bpf_ringbuf_output(&file_writes, w, offsetof(struct file_write, names) + len, 0)) {
		__sync_fetch_and_add(&writes_lost, 1);
		desk->last.inode = 0; // not told
		return;
	}
	bpf_map_update_elem(&told_files, &desk->last, &told, BPF_ANY);
}

// is_news tells whether a file was not told yet; it is then the last one of the desk.
static __always_inline bool is_news(struct desk *desk, const struct file_key *key)
{
	if (is_same_file(&desk->last, key) && (!desk->skipped_in || desk->skipped_in == current_window()))
		return false;
	desk->last = *key;
	desk->skipped_in = 0;
	return !bpf_map_lookup_elem(&told_files, key);
}

// is_again tells whether on_dirty_folio has just seen the same write: it and on_dirty_inode run one after the other for each page.
static __always_inline bool is_again(const struct desk *desk, struct task_struct *task, struct inode___file *inode)
{
	return desk->pid == (__u32)task->pid && desk->at == (__u64)inode && desk->last.inode == inode->i_ino &&
	       desk->last.generation == inode->i_generation;
}

// note_write tells that the current task writes to a file, if it is a container's.
static __always_inline int note_write(struct inode___file *inode, bool is_seen_by_times)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file_key key = {};
	struct desk *desk;
	__u32 zero = 0;

	if ((inode->i_mode & S_IFMT) != S_IFREG || task->flags & PF_KTHREAD)
		return 0;
	desk = bpf_map_lookup_elem(&desks, &zero);
	if (!desk || (is_seen_by_times && is_again(desk, task, inode)) || !owner_of(&key.owner, task))
		return 0;
	// A file without a name cannot be found. It may be one that is about to become the copy of another, in overlayfs.
	if (!inode->i_nlink || (is_seen_by_times && !is_just_modified(inode)))
		return 0;
	key.inode = inode->i_ino;
	key.dev = inode->i_sb->s_dev;
	key.generation = inode->i_generation;
	desk->pid = task->pid;
	desk->at = (__u64)inode;
	if (is_news(desk, &key))
		tell(desk, inode);
	return 0;
}

// on_dirty_folio is attached to writeback_dirty_page before Linux 5.18, whose second argument is the same.
SEC("tp_btf/writeback_dirty_folio")
int BPF_PROG(on_dirty_folio, void *folio, struct address_space *mapping)
{
	if (!mapping) // the verifier asks for this since Linux 6.14
		return 0;
	return note_write((void *)mapping->host, false);
}

// on_dirty_inode finds what on_dirty_folio does not: files of tmpfs, and those with a page that was dirty before, as in the copy
// that overlayfs has just made of an older file.
SEC("tp_btf/writeback_mark_inode_dirty")
int BPF_PROG(on_dirty_inode, struct inode *inode)
{
	return note_write((void *)inode, true);
}
