/*
 * dns-port: on lo, moves DNS from port 53 to port 54, and the answers back. A server on port 54
 * of the device answers its programs, which ask port 53. The smallest example that changes a
 * packet.
 *
 * Checksums: what the device sends to itself is never on a wire, so its TCP and UDP checksums
 * are "partial": the field has the sum of the addresses, the protocol and the length alone, for
 * a network card to complete, and on lo nobody ever completes it, nor checks it. A port is not
 * in that sum, so there is nothing to mend. A packet that came from a wire has the whole sum,
 * with the ports in it: there the checksum must follow (RFC 1624), and where both kinds come by,
 * as on a bridge, XDP cannot tell which one it sees. That is why this example keeps to lo. (A
 * raw socket that sends a whole checksum over lo is the exception: the kernel drops what is
 * changed here.)
 */
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <holdfast/maps.h>
#include <holdfast/program.h>

HF_PROGRAM("dns-port", "1.0.0");

#define DNS_PORT   bpf_htons(53)
#define MOVED_PORT bpf_htons(54)

/* The ports, source first, which TCP and UDP have in the same place; NULL: neither, or cut off. */
static __always_inline __be16 *find_ports(void *data, void *end)
{
	struct ethhdr *eth = data;
	struct iphdr *v4 = (void *)(eth + 1);
	struct ipv6hdr *v6 = (void *)(eth + 1);
	__be16 *ports = 0;
	__u8 protocol = 0;

	if ((void *)(v4 + 1) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP) && v4->ihl == 5 &&
	    !(v4->frag_off & bpf_htons(0x1fff))) {
		protocol = v4->protocol;
		ports = (void *)(v4 + 1);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6) && (void *)(v6 + 1) <= end) {
		protocol = v6->nexthdr;
		ports = (void *)(v6 + 1);
	}
	if (protocol != IPPROTO_UDP && protocol != IPPROTO_TCP)
		return 0;
	return (void *)(ports + 2) > end ? 0 : ports;
}

SEC("xdp.frags")
int dns_port(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	const struct hf_interface *in = bpf_map_lookup_elem(&interfaces, &ifindex);
	__be16 *ports;

	if (!in || in->role != HF_ROLE_HOST)
		return XDP_PASS;
	ports = find_ports((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	if (ports && ports[1] == DNS_PORT)
		ports[1] = MOVED_PORT;
	else if (ports && ports[0] == MOVED_PORT)
		ports[0] = DNS_PORT;
	return XDP_PASS;
}

#define HERE_V4		 127, 0, 0, 1
#define HERE_V6		 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1
#define UDP_V4(from, to) HF_ETHERNET(0x0800), HF_IPV4(17, 8, HERE_V4, HERE_V4), HF_UDP(from, to, 0)
#define UDP_V6(from, to) HF_ETHERNET(0x86dd), HF_IPV6(17, 8, HERE_V6, HERE_V6), HF_UDP(from, to, 0)
#define TCP_V4(from, to) HF_ETHERNET(0x0800), HF_IPV4(6, 20, HERE_V4, HERE_V4), HF_TCP_SYN(from, to)
enum { UDP_V4_LEN = 14 + 20 + 8, UDP_V6_LEN = 14 + 40 + 8, TCP_V4_LEN = 14 + 20 + 20 };

/* A kind of packet from one port to another, and the ports that it must have afterwards. */
#define CASE(what, where, kind, from, to, new_from, new_to)                                   \
	{                                                                                     \
		.name = what, .role = HF_ROLE_##where, .action = XDP_PASS, .len = kind##_LEN, \
		.out_len = kind##_LEN, .in = {kind(from, to)},                                \
		.out = { kind(new_from, new_to) }                                             \
	}

HF_GOLDEN = {
	CASE("a question goes to port 54", HOST, UDP_V4, 40000, 53, 40000, 54),
	CASE("its answer comes from port 53", HOST, UDP_V4, 54, 40000, 53, 40000),
	CASE("a question over IPv6", HOST, UDP_V6, 40000, 53, 40000, 54),
	CASE("a question over TCP", HOST, TCP_V4, 40000, 53, 40000, 54),
	CASE("another port stays", HOST, UDP_V4, 40000, 5353, 40000, 5353),
	CASE("another interface is left alone", APP, UDP_V4, 40000, 53, 40000, 53),
};
