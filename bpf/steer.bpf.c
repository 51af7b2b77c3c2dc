/*
 * XDP on app interfaces and lo: decides what becomes of every packet of an app. What each kind
 * comes to stands in docs/fates.md.
 *
 * Answers what it can (DNS, echo requests to virtual addresses), refuses what is not carried,
 * passes what the proxy, the resolver, the relay or the device itself must see, drops the rest;
 * counts each by interface, verdict and reason. Its own answers come by again on lo: they go to
 * an address of the device and pass.
 */
#include "direct.h"
#include "raise.h"
#include "refuse.h"

char LICENSE[] SEC("license") = "GPL";

/*
 * How a refusal is told, where it is not a reset: the code of ICMP's and ICMPv6's "unreachable".
 * Linux tells a UDP socket of PORT and not of NET or HOST, which may be over soon (RFC 1122,
 * 4.2.3.9): what is to fail at once must be told as PORT.
 */
#define TELL(v4, v6) ((v4) | (v6) << 4)
enum tell {
	TELL_NET = TELL(ICMP_NET_UNREACH, 0),
	TELL_HOST = TELL(ICMP_HOST_UNREACH, 3),
	TELL_PROTOCOL = TELL(ICMP_PROT_UNREACH, 1),
	TELL_PORT = TELL(ICMP_PORT_UNREACH, 4),
	TELL_PROHIBITED = TELL(ICMP_PKT_FILTERED, 1),
};
#define TELL_V4 0x0f
#define TELL_V6 4

/* Connection attempts passed to the proxy. When none of them shows in lookup's counters, somebody
 * stands in between. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} attempts SEC(".maps");

static __always_inline void count_attempt(void)
{
	__u32 zero = 0;
	__u64 *attempt = bpf_map_lookup_elem(&attempts, &zero);

	if (attempt)
		*attempt += 1;
}

struct decision {
	int action; /* XDP_*; XDP_TX with verdict REFUSE: still to be built */
	__u8 verdict, reason;
	__u8 tell; /* enum tell */
};

#define DECIDE(act, ver, why) \
	((struct decision){.action = (act), .verdict = HF_VERDICT_##ver, .reason = HF_REASON_##why})
#define REFUSE(how, why)                                 \
	((struct decision){.action = XDP_TX,             \
			   .verdict = HF_VERDICT_REFUSE, \
			   .reason = HF_REASON_##why,    \
			   .tell = TELL_##how})

/* Build the refusal, in the packet. One that cannot be told is a drop for the same reason. */
static __always_inline struct decision carry_out(struct xdp_md *ctx, const struct packet *p,
						 struct decision d)
{
	int is_tcp = p->protocol == IPPROTO_TCP && !p->fragment, v4 = p->family == 4;

	if (d.verdict != HF_VERDICT_REFUSE)
		return d;
	d.action = XDP_DROP;
	d.verdict = HF_VERDICT_DROP;
	if (!header_intact(ctx, p))
		return DECIDE(XDP_DROP, DROP, MALFORMED);
	if (is_tcp && p->tcp_flags & TCP_RST)
		return d;
	if (!refusal_allowed(ctx->ingress_ifindex, p))
		return DECIDE(XDP_DROP, DROP, RATE_LIMITED);
	if (is_tcp)
		d.action = refuse_tcp(ctx, p);
	else
		d.action = refuse(ctx, p, v4 ? ICMP_DEST_UNREACH : ICMPV6_DEST_UNREACH,
				  v4 ? d.tell & TELL_V4 : d.tell >> TELL_V6);
	if (d.action == XDP_TX)
		d.verdict = HF_VERDICT_REFUSE;
	return d;
}

static __always_inline int is_internal(const struct packet *p, const struct hf_settings *set)
{
	return ip_same(&p->destination, &set->internal_v4) ||
	       ip_same(&p->destination, &set->internal_v6);
}

static __always_inline int is_virtual(const struct packet *p, const struct hf_settings *set)
{
	return p->family == 4
		       ? ip_in_prefix(&p->destination, &set->virtual_v4, set->virtual_v4_bits)
		       : ip_in_prefix(&p->destination, &set->virtual_v6, set->virtual_v6_bits);
}

static __always_inline int is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

/* RFC 1122, 3.2.1.3, and RFC 4291, 2.5: nobody sends from or to there. An app has no address of
 * the device; link-local ones may be the same on two interfaces. */
static __always_inline int is_martian(const struct packet *p)
{
	if (ip_is_unspecified(&p->destination) || ip_is_multicast(&p->source))
		return 1;
	if (p->role == HF_ROLE_HOST)
		return 0;
	return ip_is_loopback(&p->destination) || ip_is_loopback(&p->source) ||
	       (ip_is_device(&p->source) && !ip_is_link_local(&p->source));
}

/* A frame for many. One with a packet for a single machine is discarded (RFC 1122, 3.3.6): it
 * would reach sockets that may not answer it. A network's own broadcast address looks the same. */
static __always_inline struct decision decide_group(const struct packet *p)
{
	if (ip_is_multicast(&p->destination) || ip_is_device(&p->destination) ||
	    is_direct(&p->destination))
		return DECIDE(XDP_PASS, PASS, MULTICAST);
	return DECIDE(XDP_DROP, DROP, MARTIAN);
}

/* IPv6's own are the kernel's to know. One of IPv4 that is on no app's network is nowhere. */
static __always_inline struct decision decide_link_local(const struct packet *p)
{
	if (p->family == 6)
		return DECIDE(XDP_PASS, PASS, LOCAL_NETWORK);
	if (is_direct(&p->destination))
		return DECIDE(XDP_PASS, PASS, APP_NETWORK);
	if (p->fragment || (p->protocol == IPPROTO_ICMP && p->icmp_type != ICMP_ECHO))
		return DECIDE(XDP_DROP, DROP, LOCAL_NETWORK);
	if (p->protocol == IPPROTO_UDP)
		return REFUSE(PORT, LOCAL_NETWORK);
	return REFUSE(HOST, LOCAL_NETWORK);
}

static __always_inline struct decision decide_echo(struct xdp_md *ctx, struct packet *p,
						   const struct hf_settings *set)
{
	if (!header_intact(ctx, p))
		return DECIDE(XDP_DROP, DROP, MALFORMED);
	if (is_virtual(p, set)) {
		if (answer_echo(ctx, p) == XDP_TX)
			return DECIDE(XDP_TX, ANSWER, ECHO_VIRTUAL);
		return DECIDE(XDP_DROP, DROP, ECHO_VIRTUAL);
	}
	if (!is_alive())
		return REFUSE(NET, NO_LISTENER);
	if (!(set->flags & HF_FLAG_ONLINE))
		return REFUSE(NET, NO_LINK);
	switch (raise_packet(ctx, p)) {
	case 0:
		return DECIDE(XDP_DROP, STEER, ECHO_RELAY); /* the daemon has its copy */
	case -ENOBUFS:
		return REFUSE(HOST, RELAY_FULL);
	default:
		return REFUSE(PROHIBITED, ECHO_REFUSED);
	}
}

static __always_inline int is_icmp(const struct packet *p)
{
	return p->protocol == (p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static __always_inline int is_echo(const struct packet *p)
{
	return is_icmp(p) && p->icmp_type == (p->family == 4 ? ICMP_ECHO : ICMPV6_ECHO_REQUEST);
}

static __always_inline int is_icmp_error(const struct packet *p)
{
	__u8 t = p->icmp_type;

	if (!is_icmp(p))
		return 0;
	return p->family == 4 ? t == ICMP_DEST_UNREACH || t == ICMP_TIME_EXCEEDED ||
					t == ICMP_PARAMETERPROB
			      : t >= 1 && t <= 4;
}

/* The kernel puts together what it gets whole: lookup decides about it then. What ICMP says in
 * fragments is refused where it asks for an answer. */
static __always_inline struct decision decide_fragment(const struct packet *p)
{
	if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP)
		return DECIDE(XDP_PASS, STEER, FRAGMENT_STEERED);
	if (p->fragment == FRAGMENT_FIRST && (!is_icmp(p) || is_echo(p)))
		return REFUSE(PROHIBITED, FRAGMENT);
	return DECIDE(XDP_DROP, DROP, FRAGMENT);
}

static __always_inline struct decision decide_udp(const struct packet *p,
						  const struct hf_settings *set)
{
	if (is_internal(p, set))
		return REFUSE(PORT, INTERNAL_PORT);
	if (p->port == 443 && !(set->flags & HF_FLAG_RELAY_QUIC))
		return REFUSE(PORT, QUIC_REFUSED);
	if (!is_alive())
		return REFUSE(PORT, NO_LISTENER);
	if (!(set->flags & HF_FLAG_ONLINE))
		return REFUSE(PORT, NO_LINK);
	return DECIDE(XDP_PASS, STEER, UDP_RELAY);
}

/* Of a connection that was there before, the kernel knows more than we do. */
static __always_inline struct decision decide_tcp(const struct packet *p,
						  const struct hf_settings *set)
{
	int internal = is_internal(p, set);

	if (internal && p->port != 80)
		return REFUSE(PORT, INTERNAL_PORT);
	if (is_syn(p) && !is_alive())
		return REFUSE(PORT, NO_LISTENER);
	if (internal)
		return DECIDE(XDP_PASS, STEER, API_APPS);
	if (is_syn(p))
		count_attempt();
	return DECIDE(XDP_PASS, STEER, TCP_PROXY);
}

static __always_inline struct decision decide_dns(struct xdp_md *ctx, struct packet *p)
{
	int action = -1;

	if (!header_intact(ctx, p))
		return DECIDE(XDP_DROP, DROP, MALFORMED);
	if (p->protocol == IPPROTO_UDP)
		action = dns_answer(ctx, p);
	if (action == XDP_TX)
		return DECIDE(XDP_TX, ANSWER, DNS_KERNEL);
	if (action == XDP_DROP)
		return DECIDE(XDP_DROP, DROP, MALFORMED);
	if ((p->protocol == IPPROTO_UDP || is_syn(p)) && !is_alive())
		return REFUSE(PORT, NO_LISTENER);
	return DECIDE(XDP_PASS, STEER, DNS_RESOLVER);
}

static __always_inline struct decision decide(struct xdp_md *ctx, struct packet *p,
					      const struct hf_settings *set)
{
	int ports = !p->fragment && (p->protocol == IPPROTO_UDP || p->protocol == IPPROTO_TCP);

	if (is_neighbour(p))
		return DECIDE(XDP_PASS, PASS, NEIGHBOUR);
	/* A DHCP client has no address yet. */
	if (ip_is_multicast(&p->destination) && !ip_is_unspecified(&p->destination))
		return DECIDE(XDP_PASS, PASS, MULTICAST);
	if (is_martian(p))
		return DECIDE(XDP_DROP, DROP, MARTIAN);
	if (p->group)
		return decide_group(p);
	/* Before the device's own addresses and app networks: questions to a local stub and to an
	 * app's DNS server are ours too. */
	if (ports && p->port == 53)
		return decide_dns(ctx, p);
	if (ip_is_device(&p->destination))
		return DECIDE(XDP_PASS, PASS, DEVICE_ADDRESS);
	if (ip_is_link_local(&p->destination))
		return decide_link_local(p);
	if (is_direct(&p->destination))
		return DECIDE(XDP_PASS, PASS, APP_NETWORK);
	if (p->fragment)
		return decide_fragment(p);
	if (p->protocol == IPPROTO_TCP)
		return decide_tcp(p, set);
	if (p->protocol == IPPROTO_UDP)
		return decide_udp(p, set);
	if (is_echo(p))
		return decide_echo(ctx, p, set);
	if (is_icmp_error(p))
		return DECIDE(XDP_PASS, PASS, ICMP_ERROR);
	/* No error about what may be one itself (RFC 1122, 3.2.2). */
	if (is_icmp(p))
		return DECIDE(XDP_DROP, DROP, PROTOCOL_REFUSED);
	return REFUSE(PROTOCOL, PROTOCOL_REFUSED);
}

/* Layer 3 of a packet; what is not IP is decided here. */
static __always_inline struct decision look(struct xdp_md *ctx, struct packet *p,
					    const struct hf_settings *set)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 type = 0;
	int wrong;

	if (p->has_mac) {
		type = parse_ethernet(data, end, p);
		if (!type)
			return DECIDE(XDP_DROP, DROP, MALFORMED);
	} else if (data + 1 <= end) {
		type = (*(__u8 *)data >> 4) == 6 ? ETH_P_IPV6 : ETH_P_IP;
	}
	if (type == ETH_P_ARP)
		return DECIDE(XDP_PASS, PASS, NEIGHBOUR);
	if (type == ETH_P_PAE) /* the device may be the access point of its apps */
		return DECIDE(XDP_PASS, PASS, LINK_CONTROL);
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
	packet.role = in->role;
	d = carry_out(ctx, &packet, look(ctx, &packet, set));
	count(ifindex, HF_HOOK_STEER, d.verdict, d.reason, packet.len);
	return d.action;
}
