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

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct css_set {
	struct cgroup_subsys_state *subsys[16]; /* indexed by enum cgroup_subsys_id */
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	struct css_set *cgroups;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
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
	__be16 skc_dport;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	unsigned long skc_flags;
};

struct sock {
	struct sock_common __sk_common;
	__u8 sk_shutdown;
	__u16 sk_protocol; /* 16 bits wide since Linux 5.6 */
};

struct tcp_sock {
	__u64 bytes_received;
	__u64 bytes_sent;    /* since Linux 4.19 */
	__u64 bytes_retrans; /* since Linux 4.19 */
	__u32 total_retrans;
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

#pragma clang diagnostic pop
#pragma clang attribute pop

enum {
	AF_INET = 2,
	AF_INET6 = 10,
	IPPROTO_TCP = 6,
};

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_CLOSE = 7,
};

/* enum sock_flags, include/net/sock.h: set when the peer's FIN has come */
enum {
	SOCK_DONE = 1,
};

/* include/net/sock.h */
enum {
	SHUTDOWN_MASK = 3,
};

#endif
