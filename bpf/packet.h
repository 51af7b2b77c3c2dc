/*
 * What a packet is, from its first bytes: Ethernet or none, VLAN tags, IPv4, IPv6 with
 * extension headers. Every step checks its bounds once; what contradicts itself is malformed.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "ip.h"

#define VLAN_TAGS_MAX	2
#define OFFSET_MASK	0x7ff /* masks tell the verifier what earlier checks made sure */
#define L3_MASK		0x1f
#define EXTENSIONS_MAX	6
#define EXTENSION_BYTES 256    /* all extension headers of a packet */
#define IP_MORE		0x2000 /* fragments */
#define IP_OFFSET	0x1fff
#define IP6_MORE	0x0001
#define IP6_OFFSET	0xfff8
#define ND_FIRST	130 /* MLD query, report, done, then ND 133 to 137 */
#define ND_LAST		137
#define MLD2_REPORT	143

#define TCP_SYN		0x02
#define TCP_RST		0x04
#define TCP_ACK		0x10

/* The first one begins with the header of layer 4, or some of it. */
enum fragment { WHOLE, FRAGMENT_FIRST, FRAGMENT_LATER };

struct packet {
	__u32 len;		 /* of the whole packet */
	__u32 l3, l4;		 /* offsets */
	__u32 l4_len;		 /* as the IP header says */
	__u16 source_port, port; /* TCP, UDP; host order; port: the destination's */
	__u8 family;		 /* 4, 6; 0: not IP */
	__u8 protocol;
	__u8 fragment; /* enum fragment */
	__u8 group;    /* the frame is for many */
	__u8 icmp_type, has_mac;
	__u8 tcp_flags, role; /* role: enum hf_role of the interface */
	__u16 pad;	      /* all of it is written: global functions take it */
	struct hf_ip source, destination;
};

struct vlan_tag {
	__be16 tci, protocol;
};

/* Set by the loader: can the program see packets in several buffers (kernel 5.18)? */
const volatile __u8 has_frags SEC(".rodata.frags") = 1;

static __always_inline __u32 packet_len(struct xdp_md *ctx)
{
	return has_frags ? bpf_xdp_get_buff_len(ctx) : ctx->data_end - ctx->data;
}

/*
 * The IP packet's length by its header. 0 there is a train of TCP segments too long to be told
 * (BIG TCP, which an administrator can allow on lo and veth): it ends with the packet.
 */
static __always_inline __u32 ip_total(__u32 told, __u32 header, const struct packet *p)
{
	if (!told && p->len > p->l3 && p->len - p->l3 > 0xffff + header)
		return p->len - p->l3;
	return told + header;
}

static __always_inline __u8 fragment_of(__be16 offset, __be16 more)
{
	if (offset)
		return FRAGMENT_LATER;
	return more ? FRAGMENT_FIRST : WHOLE;
}

static __always_inline int parse_v4(void *data, void *end, struct packet *p)
{
	struct iphdr *ip = data + (p->l3 & L3_MASK);
	__u32 total, header;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return HF_REASON_MALFORMED;
	total = ip_total(bpf_ntohs(ip->tot_len), 0, p);
	header = ip->ihl * 4;
	if (total < header || p->l3 + total > p->len)
		return HF_REASON_MALFORMED;
	p->family = 4;
	p->protocol = ip->protocol;
	p->fragment =
		fragment_of(ip->frag_off & bpf_htons(IP_OFFSET), ip->frag_off & bpf_htons(IP_MORE));
	p->l4 = p->l3 + header;
	p->l4_len = total - header;
	ip_from_v4(&p->source, ip->saddr);
	ip_from_v4(&p->destination, ip->daddr);
	return HF_REASON_NONE;
}

struct extension {
	__u8 next, len;	 /* len: in 8 octets, without the first 8 */
	__be16 fragment; /* of a routing header: its type, and how many hops are left */
	__u8 rest[4];
};

static __always_inline int parse_v6(void *data, void *end, struct packet *p)
{
	struct ipv6hdr *ip = data + (p->l3 & L3_MASK);
	__u32 total, at = sizeof(*ip);

	if ((void *)(ip + 1) > end || ip->version != 6)
		return HF_REASON_MALFORMED;
	total = ip_total(bpf_ntohs(ip->payload_len), sizeof(*ip), p);
	if (p->l3 + total > p->len)
		return HF_REASON_MALFORMED;
	p->family = 6;
	p->protocol = ip->nexthdr;
	ip_from_v6(&p->source, &ip->saddr);
	ip_from_v6(&p->destination, &ip->daddr);
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		struct extension *extension = data + ((p->l3 + at) & OFFSET_MASK);
		__u8 kind = p->protocol;

		if (kind != IPPROTO_HOPOPTS && kind != IPPROTO_ROUTING && kind != IPPROTO_DSTOPTS &&
		    kind != IPPROTO_FRAGMENT)
			break;
		if ((void *)(extension + 1) > end || at > EXTENSION_BYTES ||
		    at + sizeof(*extension) > total || i == EXTENSIONS_MAX - 1)
			return HF_REASON_MALFORMED;
		/* A source route that is not at its end: a protocol that is not carried. */
		if (kind == IPPROTO_ROUTING && extension->fragment & bpf_htons(0xff))
			break;
		p->protocol = extension->next;
		if (kind == IPPROTO_FRAGMENT) {
			p->fragment = fragment_of(extension->fragment & bpf_htons(IP6_OFFSET),
						  extension->fragment & bpf_htons(IP6_MORE));
			at += sizeof(*extension);
			if (p->fragment)
				break;
			continue; /* RFC 6946: an atomic fragment is a whole packet */
		}
		at += (extension->len + 1) * 8;
	}
	if (at > total || at > EXTENSION_BYTES + sizeof(*ip))
		return HF_REASON_MALFORMED;
	p->l4 = p->l3 + at;
	p->l4_len = total - at;
	return HF_REASON_NONE;
}

static __always_inline int parse_udp(void *l4, void *end, struct packet *p)
{
	struct udphdr *udp = l4;

	if (p->l4_len < sizeof(*udp) || (void *)(udp + 1) > end)
		return HF_REASON_MALFORMED;
	p->source_port = bpf_ntohs(udp->source);
	p->port = bpf_ntohs(udp->dest);
	if (bpf_ntohs(udp->len) < sizeof(*udp) || bpf_ntohs(udp->len) > p->l4_len)
		return HF_REASON_MALFORMED;
	return HF_REASON_NONE;
}

static __always_inline int parse_tcp(void *l4, void *end, struct packet *p)
{
	struct tcphdr *tcp = l4;

	if (p->l4_len < sizeof(*tcp) || (void *)(tcp + 1) > end || tcp->doff < 5 ||
	    tcp->doff * 4 > p->l4_len)
		return HF_REASON_MALFORMED;
	p->source_port = bpf_ntohs(tcp->source);
	p->port = bpf_ntohs(tcp->dest);
	p->tcp_flags = ((__u8 *)tcp)[13];
	return HF_REASON_NONE;
}

/* What a fragment is of, nobody knows before it is put together: but for an ICMP message's type. */
static __always_inline int parse_l4(void *data, void *end, struct packet *p)
{
	void *l4 = data + (p->l4 & OFFSET_MASK);
	__u8 *type = l4;

	if (p->fragment == FRAGMENT_LATER)
		return HF_REASON_NONE;
	if (p->protocol == (p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6)) {
		if (p->l4_len < 8 || l4 + 8 > end)
			return HF_REASON_MALFORMED;
		p->icmp_type = *type;
	}
	if (p->fragment)
		return HF_REASON_NONE;
	if (p->protocol == IPPROTO_UDP)
		return parse_udp(l4, end, p);
	if (p->protocol == IPPROTO_TCP)
		return parse_tcp(l4, end, p);
	return HF_REASON_NONE;
}

/* The ethertype in host order, p->l3 behind all tags; 0: truncated. */
static __always_inline __u16 parse_ethernet(void *data, void *end, struct packet *p)
{
	struct ethhdr *eth = data;
	__be16 type;

	if ((void *)(eth + 1) > end)
		return 0;
	p->group = eth->h_dest[0] & 1;
	p->l3 = sizeof(*eth);
	type = eth->h_proto;
#pragma unroll
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		struct vlan_tag *tag = data + (p->l3 & L3_MASK);

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > end)
			return 0;
		type = tag->protocol;
		p->l3 += sizeof(*tag);
	}
	return bpf_ntohs(type);
}

static __always_inline int is_neighbour(const struct packet *p)
{
	return p->family == 6 && p->protocol == IPPROTO_ICMPV6 && !p->fragment &&
	       ((p->icmp_type >= ND_FIRST && p->icmp_type <= ND_LAST) ||
		p->icmp_type == MLD2_REPORT);
}
