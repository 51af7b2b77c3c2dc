/*
 * What the sockets of one cgroup have sent, by 5-tuple: the lab's own witness of what holdfastd
 * sends, which shares nothing with the guard. Which sockets are whose is the kernel's knowledge
 * of the cgroup that made them (witness.py); neither the guard's socket storage nor the mark is
 * asked.
 *
 * A cgroup's egress program sees every IPv4 and IPv6 packet that a socket sends, retransmits
 * and those of orphans too, after routing and before fragmentation and tc.
 */
#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define FLOWS_MAX  65536
#define ICMPV6	   58
#define LOOPBACK   1 /* the ifindex of lo in every namespace */
#define ECHO_V6	   128
#define ECHO_REPLY 129

struct flow {
	__u8 source[16], destination[16]; /* IPv4: the first four */
	__u8 family, protocol;		  /* 4 or 6 */
	__u8 ports[4];			  /* as sent; of an echo request: its identifier, 0 */
	__u8 pad[2];
	__u32 uid;
};

struct sent {
	__u64 packets, payload; /* octets after the transport header */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow);
	__type(value, struct sent);
	__uint(max_entries, FLOWS_MAX);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} missed SEC(".maps"); /* packets that found no room in flows */

/* The transport header's length, and the ports; 0 where nothing is known of the protocol. */
static __always_inline __u32 read_transport(struct __sk_buff *skb, __u32 at, struct flow *flow)
{
	__u8 first[16] = {};

	if (flow->protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, at, first, sizeof(first)) < 0)
			return 0;
		__builtin_memcpy(flow->ports, first, 4);
		return (first[12] >> 4) * 4;
	}
	if (flow->protocol != IPPROTO_UDP && flow->protocol != IPPROTO_ICMP &&
	    flow->protocol != ICMPV6)
		return 0;
	if (bpf_skb_load_bytes(skb, at, first, 8) < 0)
		return 0;
	if (flow->protocol == IPPROTO_UDP)
		__builtin_memcpy(flow->ports, first, 4);
	else if (first[0] == 0 || first[0] == 8 || first[0] == ECHO_V6 || first[0] == ECHO_REPLY)
		__builtin_memcpy(flow->ports, first + 4, 2);
	return 8;
}

/* The length of all headers. */
static __always_inline __u32 read_flow(struct __sk_buff *skb, struct flow *flow)
{
	__u8 ip[40] = {};
	__u32 at = 40;

	if (bpf_skb_load_bytes(skb, 0, ip, 20) < 0)
		return 0;
	flow->family = ip[0] >> 4;
	if (flow->family == 4) {
		at = (ip[0] & 15) * 4;
		flow->protocol = ip[9];
		__builtin_memcpy(flow->source, ip + 12, 4);
		__builtin_memcpy(flow->destination, ip + 16, 4);
	} else {
		if (bpf_skb_load_bytes(skb, 0, ip, sizeof(ip)) < 0)
			return 0;
		flow->protocol = ip[6];
		__builtin_memcpy(flow->source, ip + 8, 16);
		__builtin_memcpy(flow->destination, ip + 24, 16);
	}
	return at + read_transport(skb, at, flow);
}

SEC("cgroup_skb/egress")
int witness(struct __sk_buff *skb)
{
	struct sent one = {1, 0}, *sent;
	struct flow flow = {};
	__u32 zero = 0, headers;
	__u64 *lost;

	if (skb->ifindex == LOOPBACK)
		return 1;
	headers = read_flow(skb, &flow);
	flow.uid = bpf_get_socket_uid(skb);
	if (skb->len > headers)
		one.payload = skb->len - headers;
	sent = bpf_map_lookup_elem(&flows, &flow);
	if (!sent) {
		if (!bpf_map_update_elem(&flows, &flow, &one, BPF_NOEXIST))
			return 1;
		sent = bpf_map_lookup_elem(&flows, &flow);
	}
	if (sent) {
		__sync_fetch_and_add(&sent->packets, 1);
		__sync_fetch_and_add(&sent->payload, one.payload);
		return 1;
	}
	lost = bpf_map_lookup_elem(&missed, &zero);
	if (lost)
		__sync_fetch_and_add(lost, 1);
	return 1;
}
