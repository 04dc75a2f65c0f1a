/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a connection really goes. The first packet of a translated flow passes a device with its conntrack entry attached:
 * the entry knows both what was dialled and who answers. The socket asks when its handshake is done.
 */
#ifndef EBPF_CONTAINER_NAT_H
#define EBPF_CONTAINER_NAT_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// endpoint is an address, IPv4 mapped, and a port in host byte order.
struct endpoint {
	__u8 addr[16];
	__u16 port;
};

// flow is a connection as its client sees it.
struct flow {
	struct endpoint source;
	struct endpoint destination;
};

// translation is where a flow goes.
struct translation {
	__u64 noted_ns; // CLOCK_MONOTONIC
	struct endpoint actual;
	__u8 pad[6];
};

// translations: inserted by note_translation, and by user space for what was there before; deleted when the connection is
// established. A flow that finds it full takes the place of one that was not used for long.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct translation);
} translations SEC(".maps");

// set by user space when translations are noted
__u32 has_translations = 0;

static __always_inline void fill_endpoint(struct endpoint *e, const union nf_inet_addr *a, __u16 family, __be16 port)
{
	if (family == AF_INET)
		map_ipv4(e->addr, a->all[0]);
	else
		__builtin_memcpy(e->addr, a->all, sizeof(e->addr));
	e->port = bpf_ntohs(port);
}

static __always_inline bool is_same_addr(const union nf_inet_addr *a, const union nf_inet_addr *b)
{
	return a->all[0] == b->all[0] && a->all[1] == b->all[1] && a->all[2] == b->all[2] && a->all[3] == b->all[3];
}

static __always_inline void note_translation(struct nf_conn *ct, bool is_answer)
{
	struct nf_conntrack_tuple asked = {}, answers = {};
	struct translation to = {};
	struct flow flow = {};

	if (BPF_CORE_READ(ct, tuplehash[0].tuple.dst.protonum) != IPPROTO_TCP)
		return;
	asked.src.l3num = BPF_CORE_READ(ct, tuplehash[0].tuple.src.l3num);
	BPF_CORE_READ_INTO(&asked.src.u3, ct, tuplehash[0].tuple.src.u3);
	BPF_CORE_READ_INTO(&asked.src.u.all, ct, tuplehash[0].tuple.src.u.all);
	BPF_CORE_READ_INTO(&asked.dst.u3, ct, tuplehash[0].tuple.dst.u3);
	BPF_CORE_READ_INTO(&asked.dst.u.all, ct, tuplehash[0].tuple.dst.u.all);
	BPF_CORE_READ_INTO(&answers.src.u3, ct, tuplehash[1].tuple.src.u3);
	BPF_CORE_READ_INTO(&answers.src.u.all, ct, tuplehash[1].tuple.src.u.all);

	// A host that takes what has arrived to another port of its own is still the peer that was dialled, and from another
	// host nobody could tell.
	if (is_same_addr(&asked.dst.u3, &answers.src.u3) && (is_answer || asked.dst.u.all == answers.src.u.all))
		return;
	fill_endpoint(&flow.source, &asked.src.u3, asked.src.l3num, asked.src.u.all);
	fill_endpoint(&flow.destination, &asked.dst.u3, asked.src.l3num, asked.dst.u.all);
	fill_endpoint(&to.actual, &answers.src.u3, asked.src.l3num, answers.src.u.all);
	to.noted_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&translations, &flow, &to, BPF_ANY);
}

// see_packet looks at a packet that leaves over a device. The first one of a flow passes here on its way to the real peer;
// if that is this host itself, only its answer does.
static __always_inline void see_packet(unsigned long nfct)
{
	unsigned long info = nfct & IP_CT_INFO_MASK;
	struct nf_conn *ct = (struct nf_conn *)(nfct & ~(unsigned long)IP_CT_INFO_MASK);

	if ((info != IP_CT_NEW && info != IP_CT_ESTABLISHED_REPLY) || !ct)
		return;
	// Once the handshake is done the flow is assured. The mark IPS_DST_NAT is not asked for: IPVS does without.
	if (info == IP_CT_NEW || !(BPF_CORE_READ(ct, status) & IPS_ASSURED))
		note_translation(ct, info != IP_CT_NEW);
}

// translate puts into actual where a flow that began at began_ns goes and returns true, or returns false if that is where
// it was sent.
static __always_inline bool translate(struct endpoint *actual, struct flow *flow, __u64 began_ns)
{
	bool found = false;

	if (!has_translations)
		return false;
	// One on the host may follow one in the container's own namespace.
	for (int i = 0; i < 2; i++) {
		struct translation *to = bpf_map_lookup_elem(&translations, flow);

		// An older one was that of another connection with the same ports.
		if (!to || to->noted_ns < began_ns)
			break;
		*actual = to->actual;
		found = true;
		bpf_map_delete_elem(&translations, flow);
		flow->destination = *actual;
	}
	return found;
}

#endif
