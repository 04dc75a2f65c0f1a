/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel types that our programs look into, and of those only the fields that they read. CO-RE finds the
 * offsets on the running kernel, so order and padding mean nothing here. A field that has moved or changed its type
 * between supported versions gets a second type with a ___suffix and a choice at load time.
 */
#ifndef EBPF_CONTAINER_KERNEL_H
#define EBPF_CONTAINER_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"

struct kernfs_node {
	__u64 id; /* since Linux 5.5; the inode number on 64-bit hosts */
};

struct cgroup_root {
	int hierarchy_id; /* 0 is the unified hierarchy */
};

struct cgroup {
	int level; /* 0 is the root of its hierarchy */
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct cgroup_subsys;

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys *ss;
};

struct css_set {
	struct cgroup_subsys_state *subsys[16]; /* indexed by enum cgroup_subsys_id */
	struct cgroup *dfl_cgrp;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

struct sched_info {
	unsigned long long run_delay; /* ns on a run queue */
};

struct sched_entity {
	__u64 sum_exec_runtime; /* ns */
};

/* All in ns. */
struct task_delay_info {
	__u64 blkio_delay;
	__u64 swapin_delay;
	__u64 freepages_delay;
	__u64 thrashing_delay;
	__u64 compact_delay; /* since Linux 5.17 */
	__u64 wpcopy_delay;  /* since Linux 6.0 */
	__u64 irq_delay;     /* since Linux 6.5 */
	__u32 blkio_count;   /* waits in blkio_delay */
};

struct pid_namespace {
	unsigned int level;
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1]; /* level + 1 of them */
};

struct list_head {
	struct list_head *next; /* of an RCU list: right also for one that has just left it */
};

typedef struct {
	int counter;
} atomic_t;

struct percpu_counter {
	__s64 count; /* what of it is in the CPUs' own counters is missing */
};

struct mm_struct {
	unsigned long hiwater_rss; /* pages; brought up to date when memory is given back */
	struct percpu_counter rss_stat[4]; /* pages; of this type since Linux 6.2 */
};

struct signal_struct {
	atomic_t live; /* threads that have not begun to exit */
	struct list_head thread_head;
	int group_exit_code;
	unsigned int flags;
	unsigned long maxrss; /* pages; set at exec, to what was before it, and when the last thread exits */
	struct mm_struct *oom_mm; /* set for a victim of the OOM killer */
};

struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	int exit_code;
	unsigned int in_iowait : 1; /* in a wait for block I/O, from before its start until it runs again */
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm; /* NULL after exit_mm() */
	struct pid *thread_pid;
	struct list_head thread_node; /* in signal->thread_head */
	__u64 start_time; /* CLOCK_MONOTONIC, ns; a thread that becomes the leader by exec takes over the old one's */
	struct sched_entity se;
	struct sched_info sched_info;
	struct task_delay_info *delays; /* NULL if delay accounting was off when it was made */
	struct signal_struct *signal;
	char comm[16];
	struct css_set *cgroups;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num; /* local port, host byte order */
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_ipv6only : 1;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	unsigned long skc_flags;
};

/* The lock word of a socket; on PREEMPT_RT kernels it is another type. */
struct qspinlock {
	atomic_t val;
};

struct raw_spinlock {
	struct qspinlock raw_lock;
};

typedef struct spinlock {
	struct raw_spinlock rlock;
} spinlock_t;

typedef struct {
	spinlock_t slock; /* held by softirqs that work on the socket, and while owned changes */
	int owned;        /* by a task */
} socket_lock_t;

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *prev; /* the last one */
	__u32 qlen;
};

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_error_queue;
	socket_lock_t sk_lock;
	atomic_t sk_drops;
	int sk_err;
	int sk_err_soft; /* such as of an ICMP message that came while the socket was in use */
	struct socket *sk_socket; /* NULL when no file has the socket */
	__u32 sk_ack_backlog;     /* 32 bits wide since Linux 5.4 */
	__u32 sk_max_ack_backlog; /* likewise */
	__u8 sk_shutdown;
	__u8 sk_userlocks : 4;
	__u16 sk_protocol; /* 16 bits wide since Linux 5.6 */
};

struct inet_bind_bucket {
	signed char fastreuse;
};

struct inet_connection_sock {
	struct inet_bind_bucket *icsk_bind_hash;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_received;
	__u64 bytes_sent;    /* since Linux 4.19 */
	__u64 bytes_retrans; /* since Linux 4.19 */
	__u32 total_retrans;
	__u32 segs_in;
	__u32 segs_out;
	__u32 srtt_us; /* smoothed round-trip time, in eighths of a microsecond; 0 before the first measurement */
};

struct socket {
	struct sock *sk;
};

struct file;

union nf_inet_addr {
	__u32 all[4];
};

union nf_conntrack_man_proto {
	__be16 all;
};

struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
	__u16 l3num; /* address family */
};

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} u;
		__u8 protonum;
	} dst;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};

struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2]; /* the original direction and the reply */
	unsigned long status;
};

struct sk_buff {
	char cb[48];
	unsigned long _nfct; /* struct nf_conn *, with enum ip_conntrack_info in the low three bits */
};

struct sock_extended_err {
	__u32 ee_errno;
	__u8 ee_origin;
};

/* What cb is while the packet waits in an error queue. */
struct sock_exterr_skb {
	struct sock_extended_err ee;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
};

struct obj_cgroup {
	struct mem_cgroup *memcg;
};

struct inode {
	unsigned short i_mode;
};

struct address_space {
	struct inode *host;
};

struct page {
	unsigned long compound_head;    /* of a tail: its head, plus 1 */
	struct address_space *mapping;  /* of a head, as what follows; moved to struct folio in Linux 5.16 */
	unsigned long memcg_data;       /* likewise; enum page_memcg_data_flags in the low bits */
};

struct page___with_info {
	unsigned long compound_info; /* since Linux 7.1: compound_head, or a mask that makes a tail its head, plus 1 */
};

struct folio {
	struct address_space *mapping;
	unsigned long memcg_data;
};

struct gendisk {
	struct block_device *part0; /* the whole disk */
};

struct block_device {
	struct gendisk *bd_disk;
	__u32 bd_dev;
	void *bd_holder; /* such as the file system that is mounted from it */
};

struct bdev_inode {
	struct block_device bdev;
	struct inode vfs_inode;
};

struct bio_vec {
	struct page *bv_page;
};

struct bvec_iter {
	unsigned int bi_size; /* bytes */
	unsigned int bi_idx;  /* in bi_io_vec */
};

struct bio {
	struct block_device *bi_bdev; /* since Linux 5.12 */
	__u32 bi_opf;
	struct bvec_iter bi_iter;
	struct bio_vec *bi_io_vec;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task; /* NULL after the last one */
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang diagnostic pop
#pragma clang attribute pop

/* The values of these depend on the kernel's version and configuration: bpf_core_enum_value() has them. */
enum cgroup_subsys_id {
	memory_cgrp_id,
};

enum req_flag_bits {
	__REQ_META = 1,
	__REQ_SWAP = 2,
};

enum {
	AF_INET = 2,
	AF_INET6 = 10,
	IPPROTO_TCP = 6,
	IPPROTO_MPTCP = 262,
};

/* include/linux/mm_types_task.h */
enum {
	MM_FILEPAGES = 0,
	MM_ANONPAGES = 1,
	MM_SHMEMPAGES = 3,
};

/* include/linux/memcontrol.h, enum page_memcg_data_flags; one more bit has no name here */
enum {
	MEMCG_DATA_OBJEXTS = 1, /* memory of kmalloc() and the like */
	MEMCG_DATA_KMEM = 2,    /* other pages of the kernel's own */
	MEMCG_DATA_FLAGS = 7,
};

/* Low bits of the mapping of a page, include/linux/page-flags.h. */
enum {
	PAGE_MAPPING_ANON = 1,
	PAGE_MAPPING_FLAGS = 3,
};

/* include/linux/blk_types.h */
enum {
	REQ_OP_WRITE = 1, /* this bit is in all operations that write */
	REQ_OP_DISCARD = 3,
	REQ_OP_MASK = 255,
};

/* include/uapi/linux/stat.h */
enum {
	S_IFMT = 0170000,
	S_IFBLK = 0060000,
};

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_FIN_WAIT2 = 5,
	TCP_CLOSE = 7,
	TCP_LISTEN = 10,
};

/* include/net/sock.h */
enum {
	SOCK_DONE = 1,          /* enum sock_flags: the peer's FIN has come */
	RCV_SHUTDOWN = 1,
	SHUTDOWN_MASK = 3,      /* both ways */
	SOCK_BINDADDR_LOCK = 4, /* the local address is the application's choice */
	SOCK_BINDPORT_LOCK = 8, /* the port is the application's choice */
};

/* include/uapi/linux/errqueue.h */
enum {
	SO_EE_ORIGIN_ICMP = 2,
	SO_EE_ORIGIN_ICMP6 = 3,
};

/* include/uapi/linux/netfilter/nf_conntrack_common.h */
enum {
	IP_CT_NEW = 2,
	IP_CT_ESTABLISHED_REPLY = 3,
	IP_CT_INFO_MASK = 7,
	IPS_ASSURED = 1 << 2,
};

/* include/uapi/asm-generic/errno.h */
enum {
	EBUSY = 16,
	EPIPE = 32,
	ENONET = 64,
	ENETDOWN = 100,
	ENETUNREACH = 101,
	ECONNRESET = 104,
	ETIMEDOUT = 110,
	ECONNREFUSED = 111,
	EHOSTDOWN = 112,
	EHOSTUNREACH = 113,
};

#endif
