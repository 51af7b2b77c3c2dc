/*
 * XDP on app interfaces and lo: decides what becomes of every packet of an app.
 *
 * Answers what it can (DNS, echo requests to virtual addresses), refuses what is not carried,
 * passes what the proxy, the resolver or the device itself must see, drops the rest; counts
 * each by interface, verdict and reason. Its own answers come by again on lo: they go to an
 * address of the device and pass.
 */
#include "direct.h"
#include "raise.h"
#include "refuse.h"

char LICENSE[] SEC("license") = "GPL";

struct decision {
	int action; /* XDP_* */
	__u8 verdict, reason;
};

#define DECIDE(act, ver, why) \
	((struct decision){.action = (act), .verdict = HF_VERDICT_##ver, .reason = HF_REASON_##why})

struct refusal {
	__u8 v4_type, v4_code, v6_type, v6_code, reason;
};

static __always_inline struct decision decide_refusal(struct xdp_md *ctx, struct packet *p,
						      const struct refusal *how)
{
	struct decision d = {.action = XDP_DROP, .verdict = HF_VERDICT_DROP, .reason = how->reason};
	__u8 type = p->family == 4 ? how->v4_type : how->v6_type;
	__u8 code = p->family == 4 ? how->v4_code : how->v6_code;

	if (!header_intact(ctx, p))
		return DECIDE(XDP_DROP, DROP, MALFORMED);
	/* RFC 1122, 3.2.2: no error about a packet for many, or from nobody in particular. */
	if (p->group || ip_is_multicast(&p->source))
		return d;
	if (!refusal_allowed(ctx->ingress_ifindex))
		return DECIDE(XDP_DROP, DROP, RATE_LIMITED);
	d.action = refuse(ctx, p, type, code);
	if (d.action == XDP_TX)
		d.verdict = HF_VERDICT_REFUSE;
	return d;
}

static __always_inline struct decision decide_icmp(struct xdp_md *ctx, struct packet *p,
						   const struct hf_settings *set,
						   struct refusal *how)
{
	int v4 = p->family == 4;
	__u8 t = p->icmp_type;

	if (v4 ? t == ICMP_DEST_UNREACH || t == ICMP_TIME_EXCEEDED || t == ICMP_PARAMETERPROB
	       : t >= 1 && t <= 4)
		return DECIDE(XDP_PASS, PASS, ICMP_ERROR);
	if (t != (v4 ? ICMP_ECHO : ICMPV6_ECHO_REQUEST))
		return DECIDE(XDP_DROP, DROP, PROTOCOL_REFUSED);
	if (v4 ? ip_in_prefix(&p->destination, &set->virtual_v4, set->virtual_v4_bits)
	       : ip_in_prefix(&p->destination, &set->virtual_v6, set->virtual_v6_bits)) {
		if (!header_intact(ctx, p))
			return DECIDE(XDP_DROP, DROP, MALFORMED);
		if (!ip_is_multicast(&p->source) && answer_echo(ctx, p) == XDP_TX)
			return DECIDE(XDP_TX, ANSWER, ECHO_VIRTUAL);
		return DECIDE(XDP_DROP, DROP, ECHO_VIRTUAL);
	}
	*how = (struct refusal){ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, ICMPV6_DEST_UNREACH, 3,
				HF_REASON_ECHO_REFUSED};
	return decide_refusal(ctx, p, how);
}

static __always_inline struct decision decide_udp(struct xdp_md *ctx, struct packet *p,
						  struct refusal *how)
{
	*how = (struct refusal){ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, ICMPV6_DEST_UNREACH, 4,
				p->port == 443 ? HF_REASON_QUIC_REFUSED : HF_REASON_UDP_REFUSED};
	return decide_refusal(ctx, p, how);
}

static __always_inline struct decision decide_dns(struct xdp_md *ctx, struct packet *p)
{
	int action = -1;

	if (!header_intact(ctx, p))
		return DECIDE(XDP_DROP, DROP, MALFORMED);
	/* The kernel takes no packet from a group or from nobody: neither gets an answer here. */
	if (p->protocol == IPPROTO_UDP && !ip_is_multicast(&p->source))
		action = dns_answer(ctx, p);
	if (action == XDP_TX)
		return DECIDE(XDP_TX, ANSWER, DNS_KERNEL);
	if (action == XDP_DROP)
		return DECIDE(XDP_DROP, DROP, MALFORMED);
	return DECIDE(XDP_PASS, STEER, DNS_RESOLVER);
}

static __always_inline struct decision decide(struct xdp_md *ctx, struct packet *p,
					      const struct hf_settings *set)
{
	int ports = !p->fragment && (p->protocol == IPPROTO_UDP || p->protocol == IPPROTO_TCP);
	struct refusal how;

	if (is_neighbour(p))
		return DECIDE(XDP_PASS, PASS, NEIGHBOUR);
	if (p->group || ip_is_multicast(&p->destination))
		return DECIDE(XDP_PASS, PASS, MULTICAST);
	/* Before the device's own addresses: a local stub's questions are ours too. */
	if (ports && p->port == 53)
		return decide_dns(ctx, p);
	if (ip_is_device(&p->destination))
		return DECIDE(XDP_PASS, PASS, DEVICE_ADDRESS);
	if (ip_is_link_local(&p->destination))
		return DECIDE(XDP_PASS, PASS, LOCAL_NETWORK);
	if (p->fragment)
		return DECIDE(XDP_DROP, DROP, FRAGMENT);
	if (p->protocol == IPPROTO_TCP) {
		if (p->port == 80 && (ip_same(&p->destination, &set->internal_v4) ||
				      ip_same(&p->destination, &set->internal_v6)))
			return DECIDE(XDP_PASS, STEER, API_APPS);
		return DECIDE(XDP_PASS, STEER, TCP_PROXY);
	}
	if (p->protocol == IPPROTO_UDP)
		return decide_udp(ctx, p, &how);
	if (p->protocol == (p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return decide_icmp(ctx, p, set, &how);
	how = (struct refusal){ICMP_DEST_UNREACH, ICMP_PROT_UNREACH, ICMPV6_DEST_UNREACH, 1,
			       HF_REASON_PROTOCOL_REFUSED};
	return decide_refusal(ctx, p, &how);
}

/* Layer 3 of a packet; what is not IP is decided here. */
static __always_inline struct decision look(struct xdp_md *ctx, struct packet *p,
					    const struct hf_settings *set,
					    const struct hf_interface *in)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 type = 0;
	int wrong;

	if (in->has_mac) {
		type = parse_ethernet(data, end, p);
		if (!type)
			return DECIDE(XDP_DROP, DROP, MALFORMED);
	} else if (data + 1 <= end) {
		type = (*(__u8 *)data >> 4) == 6 ? ETH_P_IPV6 : ETH_P_IP;
	}
	if (type == ETH_P_ARP)
		return DECIDE(XDP_PASS, PASS, NEIGHBOUR);
	if (type == ETH_P_IP)
		wrong = parse_v4(data, end, p);
	else if (type == ETH_P_IPV6)
		wrong = parse_v6(data, end, p);
	else
		return DECIDE(XDP_DROP, DROP, ETHERTYPE);
	if (wrong || parse_l4(data, end, p))
		return DECIDE(XDP_DROP, DROP, MALFORMED);
	return decide(ctx, p, set);
}

/* The loader asks for fragments (xdp.frags) where the kernel knows them. */
SEC("xdp")
int hf_steer(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	const struct hf_interface *in = bpf_map_lookup_elem(&interfaces, &ifindex);
	const struct hf_settings *set = settings_get();
	struct packet packet = {.len = packet_len(ctx)};
	struct decision d;

	if (!in || !set || in->role == HF_ROLE_LINK)
		return XDP_PASS;
	packet.has_mac = in->has_mac;
	d = look(ctx, &packet, set, in);
	count(ifindex, HF_HOOK_STEER, d.verdict, d.reason, packet.len);
	return d.action;
}
