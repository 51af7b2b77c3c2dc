/*
 * A DNS question answered where it arrives: one question, A or AAAA, class IN, whole and
 * unfragmented, with or without EDNS (RFC 6891) but without DO. Anything else is for the
 * resolver. The question is echoed octet for octet; an OPT record is built anew behind the
 * answers.
 */
#pragma once

#include "checksum.h"
#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct hf_name_key);
	__type(value, struct hf_name);
	__uint(max_entries, HF_NAMES_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} names SEC(".maps");

/* The key is too large for the stack beside everything else. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct hf_name_key);
	__uint(max_entries, 1);
} name_scratch SEC(".maps");

#define DNS_A	     1
#define DNS_AAAA     28
#define DNS_IN	     1
#define DNS_OPT	     41
#define DNS_UDP_SIZE 1232
#define DNS_TTL	     64 /* of the IP packet */
#define DNS_LEN_MAX  512
#define NSEC	     1000000000ull

struct dns_header {
	__be16 id;
	__u8 flags, code; /* QR opcode AA TC RD; RA Z AD CD rcode */
	__be16 questions, answers, authorities, additionals;
};

struct dns_question_tail {
	__be16 qtype, qclass;
} __attribute__((packed));

struct dns_record {
	__be16 name, type, class;
	__be32 ttl;
	__be16 len;
} __attribute__((packed));

struct dns_opt {
	__u8 root;
	__be16 type, size;
	__u8 code, version;
	__be16 flags, len;
} __attribute__((packed));

struct dns_reply {
	__u32 question_end; /* offset in the packet */
	__u32 ttl;
	__u16 qtype;
	__u8 count, edns;
	const struct hf_ip *addresses;
};

/*
 * Reads the name at that offset into name_scratch, in lower case. Its length, or 0. Global, as are
 * the other steps that end in many states: the verifier looks at each once.
 */
__attribute__((noinline)) int dns_read_name(struct xdp_md *ctx, __u32 offset)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *at = data + (offset & OFFSET_MASK);
	__u32 zero = 0, left = 0;
	struct hf_name_key *key = bpf_map_lookup_elem(&name_scratch, &zero);

	if (!key)
		return 0;
	__builtin_memset(key, 0, sizeof(*key));
	for (int i = 0; i < HF_NAME_WIRE_MAX; i++) {
		__u8 octet;

		if (at + i + 1 > end)
			return 0;
		octet = *(__u8 *)(at + i);
		if (!left) {
			if (octet > 63)
				return 0; /* compressed: not in a question */
			key->wire[i] = octet;
			if (!octet) {
				key->len = i + 1;
				return i + 1;
			}
			left = octet;
			continue;
		}
		if (octet >= 'A' && octet <= 'Z')
			octet += 'a' - 'A';
		key->wire[i] = octet;
		left--;
	}
	return 0;
}

/* RFC 6891: nothing but an OPT record of version 0, without DO. 1: there is one, 0: none. */
static __always_inline int dns_read_opt(void *at, void *end, __u32 rest)
{
	struct dns_opt *opt = at;

	if (!rest)
		return 0;
	if (rest < sizeof(*opt) || (void *)(opt + 1) > end || opt->root ||
	    opt->type != bpf_htons(DNS_OPT) || opt->code || opt->version || opt->flags ||
	    bpf_ntohs(opt->len) != rest - sizeof(*opt))
		return -1;
	return 1;
}

static __always_inline int dns_choose(const struct hf_settings *set, struct hf_name *name,
				      struct dns_reply *reply)
{
	__u64 now;

	if (name->always || set->names_mode == HF_NAMES_VIRTUAL) {
		if (!name->virtual_known ||
		    ip_is_v4(&name->virtual_address) != (reply->qtype == DNS_A))
			return -1;
		reply->addresses = &name->virtual_address;
		reply->count = 1;
		reply->ttl = set->virtual_ttl;
		return 0;
	}
	now = bpf_ktime_get_ns();
	if (name->real_until <= now || name->real_count > HF_ADDRESSES_MAX)
		return -1;
	reply->addresses = name->real;
	reply->count = name->real_count;
	reply->ttl = (name->real_until - now) / NSEC;
	if (!reply->ttl)
		reply->ttl = 1;
	return 0;
}

/* Is it a question that is known here? Fills reply. 0, or -1: for the resolver. */
static __always_inline int dns_read(struct xdp_md *ctx, const struct packet *p,
				    const struct hf_settings *set, struct dns_reply *reply)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0, at = p->l4 + sizeof(struct udphdr);
	struct dns_header *header = data + (at & OFFSET_MASK);
	struct udphdr *udp = data + (p->l4 & OFFSET_MASK);
	struct hf_name_key *key = bpf_map_lookup_elem(&name_scratch, &zero);
	struct dns_question_tail *tail;
	struct hf_name *name;
	__u32 dns_end;
	__be16 additionals;
	int edns, name_len;

	if (!key || (void *)(udp + 1) > end || (void *)(header + 1) > end)
		return -1;
	dns_end = p->l4 + bpf_ntohs(udp->len);
	if (bpf_ntohs(udp->len) != p->l4_len || p->l4_len > DNS_LEN_MAX)
		return -1;
	/* A query, of which only RD, AD and CD may be set. */
	if ((header->flags & 0xfe) || (header->code & 0xcf) || header->questions != bpf_htons(1) ||
	    header->answers || header->authorities ||
	    (header->additionals && header->additionals != bpf_htons(1)))
		return -1;
	additionals = header->additionals;
	name_len = dns_read_name(ctx, at + sizeof(*header));
	if (name_len <= 0 || name_len > HF_NAME_WIRE_MAX)
		return -1;
	at += sizeof(*header) + name_len;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	tail = data + (at & OFFSET_MASK);
	if ((void *)(tail + 1) > end || tail->qclass != bpf_htons(DNS_IN))
		return -1;
	reply->qtype = key->qtype = bpf_ntohs(tail->qtype);
	reply->question_end = at + sizeof(*tail);
	if (reply->question_end > dns_end || (reply->qtype != DNS_A && reply->qtype != DNS_AAAA))
		return -1;
	edns = dns_read_opt(data + (reply->question_end & OFFSET_MASK), end,
			    dns_end - reply->question_end);
	if (edns < 0 || (edns == 1) != (additionals != 0))
		return -1;
	reply->edns = edns;
	name = bpf_map_lookup_elem(&names, key);
	return name ? dns_choose(set, name, reply) : -1;
}

static __always_inline void swap_macs(struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
}

/* Answers, then OPT, from question_end on; the packet has room for them. 0, or -1. */
static __always_inline int dns_write(void *data, void *end, const struct dns_reply *reply)
{
	__u32 at = reply->question_end, size = reply->qtype == DNS_A ? 4 : 16;
	struct dns_opt *opt;

#pragma unroll
	for (int i = 0; i < HF_ADDRESSES_MAX; i++) {
		struct dns_record *record = data + (at & OFFSET_MASK);
		__u8 *address = (void *)(record + 1);

		if (i >= reply->count)
			break;
		if ((void *)(record + 1) > end)
			return -1;
		record->name = bpf_htons(0xc00c); /* the question's */
		record->type = bpf_htons(reply->qtype);
		record->class = bpf_htons(DNS_IN);
		record->ttl = bpf_htonl(reply->ttl);
		record->len = bpf_htons(size);
		if (size == 4) {
			if ((void *)(address + 4) > end)
				return -1;
			__builtin_memcpy(address, reply->addresses[i].bytes + 12, 4);
		} else {
			if ((void *)(address + 16) > end)
				return -1;
			__builtin_memcpy(address, reply->addresses[i].bytes, 16);
		}
		at += sizeof(*record) + size;
	}
	if (!reply->edns)
		return 0;
	opt = data + (at & OFFSET_MASK);
	if ((void *)(opt + 1) > end)
		return -1;
	*opt = (struct dns_opt){.type = bpf_htons(DNS_OPT), .size = bpf_htons(DNS_UDP_SIZE)};
	return 0;
}

static __always_inline int dns_finish_v4(struct xdp_md *ctx, void *data, void *end,
					 const struct packet *p, __u32 udp_len)
{
	struct iphdr *ip = data + (p->l3 & 0x3f);
	struct udphdr *udp = (void *)(ip + 1);
	__u64 sum;
	__be32 address;
	__be16 port;

	if ((void *)(udp + 1) > end)
		return -1;
	address = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = address;
	ip->tot_len = bpf_htons(sizeof(*ip) + udp_len);
	ip->ttl = DNS_TTL;
	ip->check = 0;
	sum = checksum_add(ctx, p->l3, sizeof(*ip), 0);
	ip->check = checksum_fold(sum);
	port = udp->source;
	udp->source = udp->dest;
	udp->dest = port;
	udp->len = bpf_htons(udp_len);
	udp->check = 0; /* legal on IPv4 (RFC 768) */
	return 0;
}

static __always_inline int dns_finish_v6(struct xdp_md *ctx, void *data, void *end,
					 const struct packet *p, __u32 udp_len)
{
	struct ipv6hdr *ip = data + (p->l3 & 0x3f);
	struct udphdr *udp = (void *)(ip + 1);
	struct in6_addr address;
	__be16 port;
	__u64 sum;

	if ((void *)(udp + 1) > end)
		return -1;
	address = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = address;
	ip->payload_len = bpf_htons(udp_len);
	ip->hop_limit = DNS_TTL;
	port = udp->source;
	udp->source = udp->dest;
	udp->dest = port;
	udp->len = bpf_htons(udp_len);
	udp->check = 0;
	sum = checksum_pseudo_v6(&ip->saddr, &ip->daddr, udp_len, IPPROTO_UDP);
	sum = checksum_add(ctx, p->l4, udp_len, sum);
	if (sum == (__u64)-1)
		return -1;
	udp->check = checksum_fold(sum);
	if (!udp->check)
		udp->check = 0xffff;
	return 0;
}

/*
 * XDP_TX with the answer in the packet, or -1: the packet is untouched and for the resolver.
 * After the packet has been resized a failure cannot be undone: it is XDP_DROP then (it
 * cannot happen to a packet that dns_read accepted).
 */
__attribute__((noinline)) int dns_answer(struct xdp_md *ctx, const struct packet *p)
{
	const struct hf_settings *set = settings_get();
	void *data, *end;
	struct dns_reply reply = {};
	struct dns_header *header;
	__u32 new_end, udp_len;

	if (!p || !set)
		return -1;
	/* Whole in its first buffer. */
	if ((__u32)(ctx->data_end - ctx->data) < p->len)
		return -1;
	if (p->fragment || p->l4 - p->l3 != (p->family == 4 ? 20 : 40) || p->l3 > 0x3f)
		return -1;
	if (dns_read(ctx, p, set, &reply) < 0)
		return -1;
	new_end = reply.question_end + (reply.edns ? sizeof(struct dns_opt) : 0) +
		  reply.count * (sizeof(struct dns_record) + (reply.qtype == DNS_A ? 4 : 16));
	udp_len = new_end - p->l4;
	if (bpf_xdp_adjust_tail(ctx, (int)new_end - (int)p->len))
		return -1;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	header = data + ((p->l4 + sizeof(struct udphdr)) & OFFSET_MASK);
	if (data + sizeof(struct ethhdr) > end || (void *)(header + 1) > end)
		return XDP_DROP;
	if (p->has_mac)
		swap_macs(data);
	header->flags = 0x80 | (header->flags & 0x01); /* QR, RD as asked */
	header->code = 0x80 | (header->code & 0x10);   /* RA, CD as asked */
	header->answers = bpf_htons(reply.count);
	header->additionals = bpf_htons(reply.edns);
	if (dns_write(data, end, &reply) < 0)
		return XDP_DROP;
	if (p->family == 4 ? dns_finish_v4(ctx, data, end, p, udp_len)
			   : dns_finish_v6(ctx, data, end, p, udp_len))
		return XDP_DROP;
	return XDP_TX;
}
