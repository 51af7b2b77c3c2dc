/*
 * Refusals that the kernel cannot send for steered addresses: ICMP errors, resets and echo
 * replies, built in the packet itself and sent back where it came from. Their rate is bounded.
 */
#pragma once

#include "checksum.h"
#include "dns.h"
#include "packet.h"

#define REFUSALS_WINDOW	   100000000ull /* ns */
#define REFUSALS_MOST	   100		/* in a window, to one source */
#define REFUSALS_INTERFACE 400		/* and to all of an interface */
#define QUOTE_MAX	   128		/* octets of the refused packet that are quoted */
#define L2_MAX		   22		/* Ethernet with two tags */

struct refusals_key {
	__u32 ifindex;
	__u16 port, pad;
	struct hf_ip source; /* ::: all of the interface */
};

struct refusals {
	__u64 window;
	__u32 sent, pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct refusals_key);
	__type(value, struct refusals);
	__uint(max_entries, 4096);
} refusals SEC(".maps");

/* The count may be off by the packets of the other CPUs at the same moment; it is a bound on
 * noise, not an account. */
static __always_inline int is_within(const struct refusals_key *key, __u64 window, __u32 most)
{
	struct refusals first = {.window = window, .sent = 1};
	struct refusals *r = bpf_map_lookup_elem(&refusals, key);

	if (!r) {
		bpf_map_update_elem(&refusals, key, &first, BPF_ANY);
		return 1;
	}
	if (r->window != window) {
		r->window = window;
		r->sent = 0;
	}
	return ++r->sent <= most;
}

/* The device's own apps have one address: there it is one socket that may not silence others. */
static __always_inline int refusal_allowed(__u32 ifindex, const struct packet *p)
{
	__u64 window = bpf_ktime_get_ns() / REFUSALS_WINDOW;
	struct refusals_key key = {.ifindex = ifindex, .source = p->source};

	if (p->role == HF_ROLE_HOST)
		key.port = p->source_port;
	if (!is_within(&key, window, REFUSALS_MOST))
		return 0;
	key = (struct refusals_key){.ifindex = ifindex};
	return is_within(&key, window, REFUSALS_INTERFACE);
}

struct icmp_error {
	__u8 type, code;
	__be16 check;
	__be32 unused; /* or MTU, pointer */
};

/* Move the frame's header to the new front, sender and receiver changed. */
static __always_inline int move_l2(void *data, void *end, __u32 len, __u32 by)
{
	struct ethhdr *eth;

	if (!len)
		return 0;
	if (data + L2_MAX > end || data + L2_MAX + 48 > end)
		return -1;
	/* by is 28 or 48, len 14, 18 or 22: the two do not overlap. */
	if (by == 28)
		__builtin_memcpy(data, data + 28, L2_MAX);
	else
		__builtin_memcpy(data, data + 48, L2_MAX);
	eth = data;
	swap_macs(eth);
	return 0;
}

static __always_inline int refuse_v4(struct xdp_md *ctx, void *data, void *end,
				     const struct packet *p, __u32 quote, __u8 type, __u8 code)
{
	struct iphdr *ip = data + (p->l3 & 0x1f), *quoted;
	struct icmp_error *icmp = (void *)(ip + 1);
	__u64 sum;

	quoted = (void *)(icmp + 1);
	if ((void *)(quoted + 1) > end)
		return -1;
	*icmp = (struct icmp_error){.type = type, .code = code};
	sum = checksum_add(ctx, p->l3 + sizeof(*ip), quote + sizeof(*icmp), 0);
	if (sum == (__u64)-1)
		return -1;
	icmp->check = checksum_fold(sum);
	*ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tos = 0xc0, /* internetwork control, as the kernel sends errors */
		.tot_len = bpf_htons(sizeof(*ip) + sizeof(*icmp) + quote),
		.ttl = 64,
		.protocol = IPPROTO_ICMP,
		.saddr = quoted->daddr,
		.daddr = quoted->saddr,
	};
	sum = checksum_add(ctx, p->l3, sizeof(*ip), 0);
	ip->check = checksum_fold(sum);
	return 0;
}

static __always_inline int refuse_v6(struct xdp_md *ctx, void *data, void *end,
				     const struct packet *p, __u32 quote, __u8 type, __u8 code)
{
	struct ipv6hdr *ip = data + (p->l3 & 0x1f), *quoted;
	struct icmp_error *icmp = (void *)(ip + 1);
	__u32 len = quote + sizeof(*icmp);
	__u64 sum;

	quoted = (void *)(icmp + 1);
	if ((void *)(quoted + 1) > end)
		return -1;
	*icmp = (struct icmp_error){.type = type, .code = code};
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->payload_len = bpf_htons(len);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = 64;
	ip->saddr = quoted->daddr;
	ip->daddr = quoted->saddr;
	sum = checksum_pseudo_v6(&ip->saddr, &ip->daddr, len, IPPROTO_ICMPV6);
	sum = checksum_add(ctx, p->l3 + sizeof(*ip), len, sum);
	if (sum == (__u64)-1)
		return -1;
	icmp->check = checksum_fold(sum);
	return 0;
}

/*
 * Turn the packet into an ICMP error about itself, from the address that it was sent to.
 * XDP_TX, or XDP_DROP when it cannot be quoted.
 */
__attribute__((noinline)) int refuse(struct xdp_md *ctx, const struct packet *p, __u8 type,
				     __u8 code)
{
	__u32 quote, by;
	void *data, *end;

	if (!p)
		return XDP_DROP;
	quote = p->l4 - p->l3 + 8;
	by = p->family == 4 ? 28 : 48;
	if (p->l4_len < 8 || quote > QUOTE_MAX || p->l3 > L2_MAX)
		return XDP_DROP;
	if (bpf_xdp_adjust_tail(ctx, (int)(p->l3 + quote) - (int)p->len) ||
	    bpf_xdp_adjust_head(ctx, -(int)by))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (p->has_mac && move_l2(data, end, p->l3, by) < 0)
		return XDP_DROP;
	if (p->family == 4 ? refuse_v4(ctx, data, end, p, quote, type, code)
			   : refuse_v6(ctx, data, end, p, quote, type, code))
		return XDP_DROP;
	return XDP_TX;
}

/* The header of a reply to p with `len` octets behind it, from where p was going. The sum of
 * its pseudo-header for TCP, or -1. */
static __always_inline __u64 reply_v4(struct xdp_md *ctx, struct iphdr *ip, const struct packet *p,
				      __u32 len)
{
	__be32 from = *(const __be32 *)(p->destination.bytes + 12);
	__be32 to = *(const __be32 *)(p->source.bytes + 12);

	*ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(sizeof(*ip) + len),
		.ttl = 64,
		.protocol = IPPROTO_TCP,
		.saddr = from,
		.daddr = to,
	};
	ip->check = checksum_fold(checksum_add(ctx, p->l3, sizeof(*ip), 0));
	return checksum_pseudo_v4(from, to, len, IPPROTO_TCP);
}

static __always_inline __u64 reply_v6(struct ipv6hdr *ip, const struct packet *p, __u32 len)
{
	__builtin_memset(ip, 0, 8);
	ip->version = 6;
	ip->payload_len = bpf_htons(len);
	ip->nexthdr = IPPROTO_TCP;
	ip->hop_limit = 64;
	__builtin_memcpy(&ip->saddr, p->destination.bytes, 16);
	__builtin_memcpy(&ip->daddr, p->source.bytes, 16);
	return checksum_pseudo_v6(&ip->saddr, &ip->daddr, len, IPPROTO_TCP);
}

/* RFC 9293, 3.10.7.1: what a closed port says to a segment that is no reset itself. */
static __always_inline void reset_for(struct tcphdr *tcp, const struct tcphdr *to, __u32 payload)
{
	*tcp = (struct tcphdr){.source = to->dest, .dest = to->source, .doff = 5, .rst = 1};
	if (to->ack) {
		tcp->seq = to->ack_seq;
		return;
	}
	tcp->ack = 1;
	tcp->ack_seq = bpf_htonl(bpf_ntohl(to->seq) + payload + to->syn + to->fin);
}

/* Turn the segment into a reset of its connection. XDP_TX, or XDP_DROP. */
__attribute__((noinline)) int refuse_tcp(struct xdp_md *ctx, const struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct tcphdr *tcp, segment;
	__u32 at;
	__u64 sum;

	if (!p)
		return XDP_DROP;
	tcp = data + (p->l4 & OFFSET_MASK);
	if (p->fragment || p->l3 > L2_MAX || (void *)(tcp + 1) > end)
		return XDP_DROP;
	segment = *tcp;
	at = p->l3 + (p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
	if (bpf_xdp_adjust_tail(ctx, (int)(at + sizeof(*tcp)) - (int)p->len))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	tcp = data + (at & 0x3f);
	if (data + sizeof(struct ethhdr) > end || (void *)(tcp + 1) > end)
		return XDP_DROP;
	if (p->has_mac)
		swap_macs(data);
	reset_for(tcp, &segment, p->l4_len - segment.doff * 4);
	if (p->family == 4) {
		struct iphdr *ip = data + (p->l3 & L3_MASK);

		if ((void *)(ip + 1) > end)
			return XDP_DROP;
		sum = reply_v4(ctx, ip, p, sizeof(*tcp));
	} else {
		struct ipv6hdr *ip = data + (p->l3 & L3_MASK);

		if ((void *)(ip + 1) > end)
			return XDP_DROP;
		sum = reply_v6(ip, p, sizeof(*tcp));
	}
	sum = checksum_add(ctx, at, sizeof(*tcp), sum);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	tcp = data + (at & 0x3f);
	if (sum == (__u64)-1 || (void *)(tcp + 1) > end)
		return XDP_DROP;
	tcp->check = checksum_fold(sum);
	return XDP_TX;
}

/* An echo request becomes its reply; all that changes is the type, the sums by as much
 * (RFC 1624 needs a sum that is whole, so it is built anew). */
__attribute__((noinline)) int answer_echo(struct xdp_md *ctx, const struct packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct icmp_error *icmp;
	__u64 sum = 0;

	if (!p)
		return XDP_DROP;
	icmp = data + (p->l4 & OFFSET_MASK);
	if (data + sizeof(struct ethhdr) > end || (void *)(icmp + 1) > end ||
	    p->l4_len > 2 * CHECKSUM_WORDS_MAX || p->l4 - p->l3 != (p->family == 4 ? 20 : 40))
		return XDP_DROP;
	if (p->family == 4) {
		struct iphdr *ip = data + (p->l3 & 0x1f);
		__be32 address;

		if ((void *)(ip + 1) > end)
			return XDP_DROP;
		address = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = address;
		icmp->type = ICMP_ECHOREPLY;
	} else {
		struct ipv6hdr *ip = data + (p->l3 & 0x1f);
		struct in6_addr address;

		if ((void *)(ip + 1) > end)
			return XDP_DROP;
		address = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = address;
		icmp->type = ICMPV6_ECHO_REPLY;
		sum = checksum_pseudo_v6(&ip->saddr, &ip->daddr, p->l4_len, IPPROTO_ICMPV6);
	}
	icmp->check = 0;
	sum = checksum_add(ctx, p->l4, p->l4_len, sum);
	if (sum == (__u64)-1)
		return XDP_DROP;
	/* The call made the verifier forget what was checked. */
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	icmp = data + (p->l4 & OFFSET_MASK);
	if (data + sizeof(struct ethhdr) > end || (void *)(icmp + 1) > end)
		return XDP_DROP;
	icmp->check = checksum_fold(sum);
	if (p->has_mac)
		swap_macs(data);
	return XDP_TX;
}
