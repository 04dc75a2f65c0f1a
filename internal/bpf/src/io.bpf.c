// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the containers of the host read from and write to each disk, for hosts where the kernel does not tell.
 *
 * It is counted where io.stat of cgroup v2 counts it: when a bio is submitted, to each of the disks that it goes through, and
 * once more, without its bytes, for each part that it is split into. Nothing is sent to user space.
 */
#include "kernel.h"
#include "disk.h"
#include "owner.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct disk_key {
	struct owner owner; // one of its ids is zero
	__u32 dev;          // of the whole disk, the major number above the low 20 bits
	__u32 pad;
};

struct disk_io {
	__u64 reads;
	__u64 writes;
	__u64 read_bytes;
	__u64 written_bytes;
};

enum io_stat {
	IO_STAT_UNACCOUNTED,       // operations that were lost because disk_ios was full
	IO_STAT_UNACCOUNTED_BYTES, // their bytes
	IO_STAT_MAX,
};

// disk_ios: inserted here; deleted by user space when the cgroup is gone. What finds it full is counted in
// IO_STAT_UNACCOUNTED. Preallocated: a bio may be submitted in order to free memory.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384); // resized at load
	__type(key, struct disk_key);
	__type(value, struct disk_io);
} disk_ios SEC(".maps");

// io_stats: fixed size, indexed by enum io_stat.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, IO_STAT_MAX);
	__type(key, enum io_stat);
	__type(value, __u64);
} io_stats SEC(".maps");

static const struct disk_io new_disk_io = {};

static __always_inline void count_io_stat(enum io_stat stat, __u64 n)
{
	__u64 *total = bpf_map_lookup_elem(&io_stats, &stat);

	if (total)
		*total += n;
}

static __always_inline struct disk_io *disk_io_of(const struct disk_key *key)
{
	struct disk_io *d = bpf_map_lookup_elem(&disk_ios, key);

	for (int i = 0; !d && i < 3; i++) { // as in find_or_insert of edges.h
		long err = bpf_map_update_elem(&disk_ios, key, &new_disk_io, BPF_NOEXIST);

		d = bpf_map_lookup_elem(&disk_ios, key);
		if (err != -EBUSY)
			break;
	}
	return d;
}

// count_bio counts one operation of so many bytes.
static __always_inline int count_bio(struct bio *bio, __u32 bytes)
{
	__u32 op = bio->bi_opf & REQ_OP_MASK;
	struct disk_key key = {};
	struct disk_io *d;

	if (op == REQ_OP_DISCARD || !owner_of_io(&key.owner, bio))
		return 0;
	key.dev = bio->bi_bdev->bd_disk->part0->bd_dev;
	d = disk_io_of(&key);
	if (!d) {
		count_io_stat(IO_STAT_UNACCOUNTED, 1);
		count_io_stat(IO_STAT_UNACCOUNTED_BYTES, bytes);
		return 0;
	}
	__sync_fetch_and_add(op & REQ_OP_WRITE ? &d->writes : &d->reads, 1);
	if (bytes)
		__sync_fetch_and_add(op & REQ_OP_WRITE ? &d->written_bytes : &d->read_bytes, bytes);
	return 0;
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(on_bio_queue, struct bio *bio)
{
	return count_bio(bio, bio->bi_iter.bi_size);
}

// on_bio_split: what is left of a bio is submitted again, without block_bio_queue.
SEC("tp_btf/block_split")
int BPF_PROG(on_bio_split, struct bio *first)
{
	return count_bio(first, 0);
}
