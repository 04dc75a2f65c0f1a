/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A connection from connect() until it is established, or why it is not.
 */
#ifndef EBPF_CONTAINER_CONNECT_H
#define EBPF_CONTAINER_CONNECT_H

#include "kernel.h"
#include "owner.h"
#include "edges.h"
#include "nat.h"
#include "cilium.h"
#include "conns.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum {
	SYN_TIMEOUT_NS = 1000000000, // nobody gives up before the first SYN was sent again
};

// resolve_actual finds out whether the peer is another one than was dialled.
static __always_inline void resolve_actual(struct conn *c, struct sock *sk)
{
	struct endpoint actual = {};
	struct flow flow = {};

	if (c->key.kind != EDGE_OUTBOUND || find_backend(&c->key, sk) || !has_translations)
		return;
	local_addr(flow.source.addr, sk);
	flow.source.port = sk->__sk_common.skc_num;
	__builtin_memcpy(flow.destination.addr, c->key.addr, sizeof(c->key.addr));
	flow.destination.port = c->key.port;
	if (!translate(&actual, &flow, c->began_ns))
		return;
	__builtin_memcpy(c->key.actual, actual.addr, sizeof(actual.addr));
	c->key.actual_port = actual.port;
}

// begin_open counts a connection that has become established, which it may have been for a while if we have missed that.
// The caller has moved c to CONN_OPENING.
static __always_inline void begin_open(struct sock *sk, struct conn *c, bool missed)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct edge *e;

	resolve_actual(c, sk);
	e = edge_of(&c->key);
	// What is not in active must not be taken out of it later.
	c->phase = e ? CONN_OPEN : CONN_NONE;
	if (!e)
		return;
	__sync_fetch_and_add(&e->connects, 1);
	__sync_fetch_and_add(&e->active, 1);
	if (missed && tp)
		__sync_fetch_and_add(&e->connect_ns, (tp->srtt_us >> 3) * 1000ULL);
	else if (c->began_ns)
		__sync_fetch_and_add(&e->connect_ns, bpf_ktime_get_ns() - c->began_ns);
	touch(&e->touched_ns);
}

static __always_inline void fail(struct conn *c, enum failure why)
{
	struct edge *e = edge_of(&c->key);

	if (!e || why >= FAILURE_MAX)
		return;
	__sync_fetch_and_add(&e->failed[why], 1);
	touch(&e->touched_ns);
}

// icmp_error gives the error of the last ICMP message that waits to be read, 0 for none. One that comes while connect() is
// at work, as between namespaces of one host, does not end the attempt; asked for SO_ERROR the kernel tells of it once and
// clears sk_err_soft.
static __always_inline int icmp_error(struct sock *sk)
{
	struct sock_exterr_skb *err;
	struct sk_buff *skb;
	__u8 origin;

	if (!sk->sk_error_queue.qlen)
		return 0;
	skb = sk->sk_error_queue.prev;
	err = (struct sock_exterr_skb *)__builtin_preserve_access_index(&skb->cb[0]);
	origin = BPF_CORE_READ(err, ee.ee_origin);
	if (origin != SO_EE_ORIGIN_ICMP && origin != SO_EE_ORIGIN_ICMP6)
		return 0;
	return BPF_CORE_READ(err, ee.ee_errno);
}

// missed_failure guesses why an attempt has ended when the process has already taken the error. A connect() that has waited
// has also cleared the counters.
static __always_inline enum failure missed_failure(struct conn *c, struct tcp_sock *tp)
{
	if (tp->segs_out)
		return tp->segs_in ? FAILURE_REFUSED : FAILURE_TIMEOUT;
	return bpf_ktime_get_ns() - c->began_ns < SYN_TIMEOUT_NS ? FAILURE_REFUSED : FAILURE_TIMEOUT;
}

static __always_inline enum failure failure_of(struct sock *sk, struct tcp_sock *tp)
{
	int err = sk->sk_err;

	if (!err)
		err = sk->sk_err_soft;
	if (!err)
		err = icmp_error(sk);
	switch (err) {
	case 0:
		// connect() undoes its own change of state when no packet could be made: no free source port, no memory.
		return tp->segs_out ? FAILURE_ABORTED : FAILURE_OTHER;
	case ECONNREFUSED:
		return FAILURE_REFUSED;
	case ETIMEDOUT:
		return FAILURE_TIMEOUT;
	case ECONNRESET:
		return FAILURE_RESET;
	case EHOSTUNREACH:
	case EHOSTDOWN:
		return FAILURE_HOST_UNREACHABLE;
	case ENETUNREACH:
	case ENETDOWN:
	case ENONET:
		return FAILURE_NETWORK_UNREACHABLE;
	}
	return FAILURE_OTHER;
}

// end_attempt counts a connect that has failed. The caller has moved c out of CONN_CONNECTING.
static __always_inline void end_attempt(struct sock *sk, struct conn *c, bool missed)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct edge *e = edge_of(&c->key);
	enum failure why;

	if (!tp || !e)
		return;
	why = failure_of(sk, tp);
	fail(c, missed && (why == FAILURE_ABORTED || why == FAILURE_OTHER) ? missed_failure(c, tp) : why);
	fold_retransmits(e, c, tp->total_retrans); // of its SYNs; data that went with one was not received
}

static __always_inline void begin_connect(struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct owner owner;
	struct conn *c;

	if (!tp || !owner_of_current(&owner))
		return;
	c = bpf_sk_storage_get(&conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(TCP_STAT_UNTRACKED);
		return;
	}
	// A socket may connect again after it failed or was disconnected: its storage is still there.
	name_edge(&c->key, &owner, sk, EDGE_OUTBOUND);
	name_service(&c->key, sk);
	read_totals(&c->folded, sk, tp, true);
	c->began_ns = bpf_ktime_get_ns();
	c->phase = CONN_CONNECTING;
}

// begin_attempt notes a call of connect(). If the kernel finds no route the socket never changes its state: the next call
// or the end of the socket tells that this one has failed.
static __always_inline void begin_attempt(struct bpf_sock_addr *ctx, const __u8 addr[16])
{
	struct tcp_sock *tp;
	struct owner owner;
	struct conn *c;
	struct sock *sk;

	if (ctx->protocol != IPPROTO_TCP || !ctx->sk)
		return;
	tp = bpf_skc_to_tcp_sock(ctx->sk);
	if (!tp || !owner_of_current(&owner))
		return;
	sk = (struct sock *)tp;
	c = bpf_sk_storage_get(&conns, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(TCP_STAT_UNTRACKED);
		return;
	}
	if (c->phase == CONN_ATTEMPTED)
		fail(c, FAILURE_UNROUTED);
	else if (c->phase != CONN_NONE && c->phase != CONN_OVER)
		return;
	name_edge(&c->key, &owner, sk, EDGE_OUTBOUND);
	__builtin_memcpy(c->key.addr, addr, sizeof(c->key.addr));
	c->key.port = bpf_ntohs(ctx->user_port);
	c->phase = CONN_ATTEMPTED;
}

#endif
