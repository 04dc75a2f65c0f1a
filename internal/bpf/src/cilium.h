/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a connection really goes on a node where Cilium does the work of kube-proxy, which netfilter then knows nothing of.
 * docs/cilium.md says what of its maps is read. We look things up, with the keys that Cilium's own programs make.
 */
#ifndef EBPF_CONTAINER_CILIUM_H
#define EBPF_CONTAINER_CILIUM_H

#include "kernel.h"
#include "edges.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum {
	CILIUM_TO_SERVICE = 4, // flag of a flow
};

// set by user space where any of the maps below is Cilium's
const volatile bool has_cilium = false;

/*
 * Cilium inserts and deletes: user space puts its maps in the place of these. One that it does not have stays empty. Numbers
 * are in network byte order, addresses of the family's own length.
 */

// from {socket cookie, backend's address, its port, padding} to {service's address, its port, ...}
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, 16);
	__uint(value_size, 8);
} cilium_sockets4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, 32);
	__uint(value_size, 20);
} cilium_sockets6 SEC(".maps");

// from {destination's address, source's address, source's port, destination's port, protocol, flags} to
// {8 bytes, backend's number as __u64, ...}
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, 14);
	__uint(value_size, 56);
} cilium_flows4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, 38);
	__uint(value_size, 56);
} cilium_flows6 SEC(".maps");

// from the backend's number as __u32 to {address, port, ...}
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 12);
} cilium_backends4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 24);
} cilium_backends6 SEC(".maps");

// What follows is out of line, so that the verifier drops it with the calls where there is no Cilium.

static __always_inline bool is_ipv4(const struct edge_key *key)
{
	const __u32 *addr = (const __u32 *)key->addr;

	return !addr[0] && !addr[1] && addr[2] == bpf_htonl(0xffff);
}

// name_service_in looks into sockets of a family whose addresses have some words of 32 bits.
static __always_inline void name_service_in(void *sockets, __u32 words, struct edge_key *key, struct sock *sk)
{
	__u32 *addr = (__u32 *)&key->addr[sizeof(key->addr) - 4 * words], *service;
	__u64 asked[4] = {bpf_get_socket_cookie(sk)};
	__u32 *backend = (__u32 *)&asked[1];

	__builtin_memcpy(backend, addr, 4 * words);
	*(__be16 *)&backend[words] = bpf_htons(key->port);
	service = bpf_map_lookup_elem(sockets, asked);
	if (!service)
		return;
	__builtin_memcpy(addr, service, 4 * words);
	key->port = bpf_ntohs(*(__be16 *)&service[words]);
}

static __noinline void look_for_service(struct edge_key *key, struct sock *sk)
{
	if (is_ipv4(key))
		name_service_in(&cilium_sockets4, 1, key, sk);
	else
		name_service_in(&cilium_sockets6, 4, key, sk);
}

// name_service makes the service that was dialled the destination. Where Cilium balances the load at connect() the socket
// knows the backend alone.
static __always_inline void name_service(struct edge_key *key, struct sock *sk)
{
	if (has_cilium)
		look_for_service(key, sk);
}

// find_backend_in looks into flows and backends likewise.
static __always_inline bool find_backend_in(void *flows, void *backends, __u32 words, struct edge_key *key, struct sock *sk)
{
	__u8 local[16] __attribute__((aligned(8))) = {};
	__u32 skip = sizeof(local) - 4 * words;
	__u64 asked[5] = {}, *flow;
	__u32 *addrs = (__u32 *)asked, *backend, id;
	__u16 *rest = (__u16 *)&addrs[2 * words];

	local_addr(local, sk);
	__builtin_memcpy(addrs, (__u32 *)&key->addr[skip], 4 * words);
	__builtin_memcpy(&addrs[words], (__u32 *)&local[skip], 4 * words);
	rest[0] = bpf_htons(sk->__sk_common.skc_num);
	rest[1] = bpf_htons(key->port);
	rest[2] = IPPROTO_TCP | CILIUM_TO_SERVICE << 8;
	flow = bpf_map_lookup_elem(flows, asked);
	if (!flow)
		return false;
	id = flow[1];
	backend = bpf_map_lookup_elem(backends, &id);
	if (!backend)
		return false;
	__builtin_memcpy(key->actual, key->addr, skip); // of a mapped address
	__builtin_memcpy((__u32 *)&key->actual[skip], backend, 4 * words);
	key->actual_port = bpf_ntohs(*(__be16 *)&backend[words]);
	return true;
}

static __noinline bool look_for_backend(struct edge_key *key, struct sock *sk)
{
	__u8 remote[16] __attribute__((aligned(8))) = {};
	__u16 port = bpf_ntohs(sk->__sk_common.skc_dport);

	remote_addr(remote, sk);
	if (port != key->port || __builtin_memcmp(remote, key->addr, sizeof(remote))) {
		// name_service was here.
		__builtin_memcpy(key->actual, remote, sizeof(remote));
		key->actual_port = port;
		return true;
	}
	if (is_ipv4(key))
		return find_backend_in(&cilium_flows4, &cilium_backends4, 1, key, sk);
	return find_backend_in(&cilium_flows6, &cilium_backends6, 4, key, sk);
}

// find_backend fills in the actual destination and returns true, or returns false if Cilium knows of none.
static __always_inline bool find_backend(struct edge_key *key, struct sock *sk)
{
	return has_cilium && look_for_backend(key, sk);
}

#endif
