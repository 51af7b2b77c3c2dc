/*
 * lockdown: apps reach DNS and one host, nothing else. What the network and the device itself
 * need goes through too: ARP, neighbour discovery, the device's own addresses (the API among
 * them) and holdfast.internal. The rest is dropped and counted.
 */
#include <holdfast/packet.h>
#include <holdfast/program.h>

HF_PROGRAM("lockdown", "1.0.0");

/* The one host: yours goes here. */
#define HOST_V4	 203, 0, 113, 9
#define HOST_V6	 0x20, 0x01, 0x0d, 0xb8, 0xca, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9

#define DNS_PORT 53

static const struct hf_ip host_v4 = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, HOST_V4}};
static const struct hf_ip host_v6 = {{HOST_V6}};

static __always_inline int is_allowed(const struct packet *p, const struct hf_settings *set)
{
	int has_ports = p->protocol == IPPROTO_UDP || p->protocol == IPPROTO_TCP;

	/* a fragment has no port that can be believed */
	if (has_ports && !p->fragment && p->port == DNS_PORT)
		return 1;
	return is_neighbour(p) || ip_is_device(&p->destination) ||
	       ip_same(&p->destination, &set->internal_v4) ||
	       ip_same(&p->destination, &set->internal_v6) || ip_same(&p->destination, &host_v4) ||
	       ip_same(&p->destination, &host_v6);
}

static __always_inline int look(void *data, void *end, struct packet *p,
				const struct hf_settings *set)
{
	__u16 type = 0;

	if (p->has_mac)
		type = parse_ethernet(data, end, p);
	else if (data + 1 <= end) /* a tunnel: the packet begins with its IP header */
		type = (*(__u8 *)data >> 4) == 6 ? ETH_P_IPV6 : ETH_P_IP;
	if (type == ETH_P_ARP)
		return XDP_PASS;
	if (type != ETH_P_IP && type != ETH_P_IPV6)
		return XDP_DROP;
	if (type == ETH_P_IP ? parse_v4(data, end, p) : parse_v6(data, end, p))
		return XDP_DROP;
	if (parse_l4(data, end, p))
		return XDP_DROP;
	return is_allowed(p, set) ? XDP_PASS : XDP_DROP;
}

SEC("xdp.frags")
int lockdown(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	const struct hf_interface *in = bpf_map_lookup_elem(&interfaces, &ifindex);
	const struct hf_settings *set = settings_get();
	struct packet packet = {.len = packet_len(ctx)};
	int action;

	if (!in || !set)
		return XDP_PASS;
	packet.has_mac = in->has_mac;
	action = look((void *)(long)ctx->data, (void *)(long)ctx->data_end, &packet, set);
	count(ifindex, HF_HOOK_STEER, action == XDP_PASS ? HF_VERDICT_PASS : HF_VERDICT_DROP,
	      HF_REASON_CUSTOM, packet.len);
	return action;
}

/* --- golden packets: 192.0.2.1 and 2001:db8::1 are the device there --- */

#define APP_V4		 192, 0, 2, 77
#define APP_V6		 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 77
#define DEVICE_V4	 192, 0, 2, 1
#define OTHER_V4	 203, 0, 113, 10
#define OTHER_V6	 0x20, 0x01, 0x0d, 0xb8, 0xca, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10
#define INTERNAL	 198, 18, 0, 1

#define TCP_V4(to, port) HF_ETHERNET(0x0800), HF_IPV4(6, 20, APP_V4, to), HF_TCP_SYN(40000, port)
#define TCP_V6(to, port) HF_ETHERNET(0x86dd), HF_IPV6(6, 20, APP_V6, to), HF_TCP_SYN(40000, port)
#define UDP_V4(to, port) HF_ETHERNET(0x0800), HF_IPV4(17, 8, APP_V4, to), HF_UDP(40000, port, 0)
enum { TCP_V4_LEN = 14 + 20 + 20, TCP_V6_LEN = 14 + 40 + 20, UDP_V4_LEN = 14 + 20 + 8 };

#define CASE(what, where, does, octets, ...)                                                \
	{                                                                                   \
		.name = what, .role = HF_ROLE_##where, .action = XDP_##does, .len = octets, \
		.in = { __VA_ARGS__ }                                                       \
	}

HF_GOLDEN = {
	CASE("the host over TCP", APP, PASS, TCP_V4_LEN, TCP_V4(HOST_V4, 443)),
	CASE("the host over TCP and IPv6", APP, PASS, TCP_V6_LEN, TCP_V6(HOST_V6, 443)),
	CASE("another host", APP, DROP, TCP_V4_LEN, TCP_V4(OTHER_V4, 443)),
	CASE("another host over IPv6", HOST, DROP, TCP_V6_LEN, TCP_V6(OTHER_V6, 443)),
	CASE("DNS over TCP", APP, PASS, TCP_V4_LEN, TCP_V4(OTHER_V4, 53)),
	CASE("DNS over UDP", HOST, PASS, UDP_V4_LEN, UDP_V4(OTHER_V4, 53)),
	CASE("other UDP", APP, DROP, UDP_V4_LEN, UDP_V4(OTHER_V4, 123)),
	CASE("the device itself", APP, PASS, TCP_V4_LEN, TCP_V4(DEVICE_V4, 22)),
	CASE("holdfast.internal", APP, PASS, TCP_V4_LEN, TCP_V4(INTERNAL, 80)),
	CASE("ARP", APP, PASS, 60, HF_ETHERNET(0x0806)),
	CASE("a packet that is cut off", APP, DROP, TCP_V4_LEN - 1, TCP_V4(HOST_V4, 443)),
};
