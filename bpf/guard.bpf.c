/*
 * tc egress on every link: lets out what the daemon itself sends, what a link needs, and what
 * the configuration allows. An own socket is known by its storage, which only the holder of
 * the map can set; the mark alone proves nothing, CAP_NET_RAW is enough for it.
 *
 * What a packet is, its own octets say: skb->protocol is whatever the sender of a packet socket
 * wrote there.
 *
 * In observe mode what would be dropped is counted as a drop and let through.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/version.h>

#include "ip.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct hf_own);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} own_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct hf_allow);
	__uint(max_entries, HF_ALLOW_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} guard_allow SEC(".maps");

extern int LINUX_KERNEL_VERSION __kconfig; /* libbpf knows it without the kernel's config */

#define ERRORS_WINDOW 100000000ull /* ns */
#define ERRORS_MOST   50	   /* ICMP errors in a window, by link */

struct errors {
	__u64 window;
	__u32 sent, pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u32);
	__type(value, struct errors);
	__uint(max_entries, 256);
} link_errors SEC(".maps");

#define DHCP_OP	       8   /* behind the UDP header */
#define DHCP_COOKIE    244 /* behind the fields of BOOTP */
#define EXTENSIONS_MAX 6
#define VLAN_TAGS_MAX  2
#define ETH_P_EAPOL    0x888e
#define SOCK_RAW       3
#define TCP_SYN	       0x02
#define TCP_RST	       0x04

struct out {
	__u8 family, protocol;
	__u8 fragment; /* not the first one: there is no header of layer 4 */
	__u8 piece;    /* any fragment, the first one and IPv6's atomic ones too */
	__u8 icmp_type, tcp_flags;
	__u8 hops;
	__u8 multicast;
	__u8 empty;		       /* TCP without payload */
	__u16 local_port, remote_port; /* host order */
	__u32 l4, len;		       /* its offset, and its length */
	__u32 total;		       /* of the IP packet */
	__u32 pad;		       /* all of it is written: a global function takes it */
	struct hf_ip remote;
};

static __always_inline int read_l4(struct __sk_buff *skb, __u32 at, __u32 len, struct out *out)
{
	__u8 first[20];

	out->l4 = at;
	out->len = len;

	if (out->fragment)
		return 0;
	if (out->protocol == IPPROTO_TCP) {
		if (len < sizeof(first) || bpf_skb_load_bytes(skb, at, first, sizeof(first)) < 0)
			return -1;
		out->tcp_flags = first[13];
		out->empty = (first[12] >> 4) * 4 == len;
	} else if (out->protocol == IPPROTO_UDP || out->protocol == IPPROTO_ICMP ||
		   out->protocol == IPPROTO_ICMPV6) {
		if (len < 8 || bpf_skb_load_bytes(skb, at, first, 8) < 0)
			return -1;
	} else {
		return 0;
	}
	out->icmp_type = first[0];
	out->local_port = (__u16)(first[0] << 8 | first[1]);
	out->remote_port = (__u16)(first[2] << 8 | first[3]);
	return 0;
}

static __always_inline int read_v4(struct __sk_buff *skb, __u32 at, struct out *out)
{
	struct iphdr ip;
	__u32 header, total;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) < 0)
		return -1;
	header = ip.ihl * 4;
	/* A segment that is cut later has its own length there. */
	total = skb->gso_segs > 1 ? skb->len - at : bpf_ntohs(ip.tot_len);
	/* Octets behind the end are nobody's, and would go along. */
	if (ip.version != 4 || header < sizeof(ip) || total < header || at + total != skb->len)
		return -1;
	out->family = 4;
	out->hops = ip.ttl;
	out->multicast = (bpf_ntohl(ip.daddr) >> 28) == 14;
	out->protocol = ip.protocol;
	out->fragment = (ip.frag_off & bpf_htons(0x1fff)) != 0;
	out->piece = (ip.frag_off & bpf_htons(0x3fff)) != 0;
	out->total = total;
	ip_from_v4(&out->remote, ip.daddr);
	return read_l4(skb, at + header, total - header, out);
}

static __always_inline int read_v6(struct __sk_buff *skb, __u32 at, struct out *out)
{
	struct ipv6hdr ip;
	__u32 next = at + sizeof(ip), stop;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) < 0 || ip.version != 6)
		return -1;
	stop = skb->gso_segs > 1 ? skb->len : next + bpf_ntohs(ip.payload_len);
	if (stop != skb->len)
		return -1;
	out->family = 6;
	out->total = stop - at;
	out->hops = ip.hop_limit;
	out->multicast = ip.daddr.in6_u.u6_addr8[0] == 0xff;
	out->protocol = ip.nexthdr;
	ip_from_v6(&out->remote, &ip.daddr);
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		__u8 extension[8];
		__u8 kind = out->protocol;

		if (kind != IPPROTO_HOPOPTS && kind != IPPROTO_ROUTING && kind != IPPROTO_DSTOPTS &&
		    kind != IPPROTO_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, next, extension, sizeof(extension)) < 0)
			return -1;
		out->protocol = extension[0];
		if (kind == IPPROTO_FRAGMENT) {
			out->piece = 1;
			out->fragment = (extension[2] | (extension[3] & 0xf8)) != 0;
			next += sizeof(extension);
			if (out->fragment)
				break;
		} else {
			next += (extension[1] + 1) * 8;
		}
	}
	return next > stop ? -1 : read_l4(skb, next, stop - next, out);
}

/* Neighbour discovery (RFC 4861) and MLD (RFC 3810), whose hop limits keep them on the link; never
 * in fragments (RFC 6980). */
static __always_inline int is_neighbour(const struct out *out)
{
	__u8 t = out->icmp_type;

	if (out->family != 6 || out->protocol != IPPROTO_ICMPV6 || out->piece)
		return 0;
	if (t >= 133 && t <= 137)
		return out->hops == 255;
	return ((t >= 130 && t <= 132) || t == 143) && out->hops == 1 && out->multicast;
}

/* RFC 2131: a request of a client, told by its cookie. A lease may be renewed from anywhere. */
static __always_inline int is_dhcp_v4(struct __sk_buff *skb, const struct out *out)
{
	__u8 op;
	__be32 cookie;

	if (out->local_port != 68 || out->remote_port != 67 || out->multicast)
		return 0;
	return bpf_skb_load_bytes(skb, out->l4 + DHCP_OP, &op, sizeof(op)) == 0 && op == 1 &&
	       bpf_skb_load_bytes(skb, out->l4 + DHCP_COOKIE, &cookie, sizeof(cookie)) == 0 &&
	       cookie == bpf_htonl(0x63825363);
}

/* RFC 8415: a client asks a group of the link, or a server on it: 1 to 11 are their messages,
 * but for ADVERTISE, REPLY and RECONFIGURE (2, 7, 10), which are a server's. */
static __always_inline int is_dhcp_v6(struct __sk_buff *skb, const struct out *out)
{
	__u8 type;

	if (out->local_port != 546 || out->remote_port != 547 ||
	    (!out->multicast && !ip_is_link_local(&out->remote)))
		return 0;
	return bpf_skb_load_bytes(skb, out->l4 + DHCP_OP, &type, sizeof(type)) == 0 && type >= 1 &&
	       type <= 11 && type != 2 && type != 7 && type != 10;
}

static __always_inline int is_link_control(struct __sk_buff *skb, const struct out *out)
{
	if (out->piece)
		return 0;
	if (out->protocol == IPPROTO_IGMP)
		return out->family == 4 && out->hops == 1 && out->multicast;
	if (out->protocol != IPPROTO_UDP)
		return 0;
	return out->family == 4 ? is_dhcp_v4(skb, out) : is_dhcp_v6(skb, out);
}

/* No larger than an error may be (RFC 1812, 4.3.2.3, and RFC 4443, 2.4), and about a packet of
 * whoever it is sent to: the kernel's own are, and there is little room for anything else. */
static __always_inline int is_icmp_error(struct __sk_buff *skb, const struct out *out)
{
	__u8 t = out->icmp_type;
	struct hf_ip quoted;
	__u8 source[16];

	if (out->piece)
		return 0;
	if (out->family == 4) {
		if (out->protocol != IPPROTO_ICMP || out->total > 576 ||
		    (t != ICMP_DEST_UNREACH && t != ICMP_TIME_EXCEEDED &&
		     t != ICMP_PARAMETERPROB) ||
		    bpf_skb_load_bytes(skb, out->l4 + 8 + 12, source, 4) < 0)
			return 0;
		ip_from_v4(&quoted, *(__be32 *)source);
	} else {
		if (out->protocol != IPPROTO_ICMPV6 || out->total > 1280 || t < 1 || t > 4 ||
		    bpf_skb_load_bytes(skb, out->l4 + 8 + 8, source, 16) < 0)
			return 0;
		ip_from_v6(&quoted, source);
	}
	return ip_same(&quoted, &out->remote);
}

/* More errors than a link has any use for. */
static __always_inline int errors_exhausted(__u32 ifindex)
{
	__u64 window = bpf_ktime_get_ns() / ERRORS_WINDOW;
	struct errors first = {.window = window, .sent = 1};
	struct errors *errors = bpf_map_lookup_elem(&link_errors, &ifindex);

	if (!errors) {
		bpf_map_update_elem(&link_errors, &ifindex, &first, BPF_ANY);
		return 0;
	}
	if (errors->window != window) {
		errors->window = window;
		errors->sent = 0;
	}
	return ++errors->sent > ERRORS_MOST;
}

/* Global, and so looked at once by the verifier, not once for each entry: loading took 170 ms. */
__attribute__((noinline)) int allow_matches(const struct hf_allow *allow, const struct out *out)
{
	int ports;

	if (!allow || !out)
		return 0;
	ports = out->protocol == IPPROTO_TCP || out->protocol == IPPROTO_UDP;
	if (allow->protocol && allow->protocol != out->protocol)
		return 0;
	if ((allow->local_port || allow->remote_port) && (!ports || out->fragment))
		return 0;
	if (allow->local_port && allow->local_port != out->local_port)
		return 0;
	if (allow->remote_port && allow->remote_port != out->remote_port)
		return 0;
	if (!allow->remote_family)
		return 1;
	return allow->remote_family == out->family &&
	       ip_in_prefix(&out->remote, &allow->remote, allow->remote_bits);
}

static __always_inline int is_allowed(const struct out *out)
{
	for (__u32 i = 0; i < HF_ALLOW_MAX; i++) {
		__u32 key = i;
		const struct hf_allow *allow = bpf_map_lookup_elem(&guard_allow, &key);

		if (!allow || !allow->used)
			return 0;
		if (allow_matches(allow, out))
			return 1;
	}
	return 0;
}

static __always_inline int is_exempt(struct __sk_buff *skb, const struct hf_settings *set)
{
	struct bpf_sock *sk = skb->sk;
	__u32 uid;

	/* Without a socket of its own, or a listener's behind a request, a packet would be the
	 * overflow user's. */
	if (!sk || (sk->state != BPF_TCP_NEW_SYN_RECV && !bpf_sk_fullsock(sk)))
		return 0;
	uid = bpf_get_socket_uid(skb);
#pragma unroll
	for (__u32 i = 0; i < 16; i++)
		if (i < set->exempt_uid_count && set->exempt_uids[i] == uid)
			return 1;
	return 0;
}

/*
 * Of a segment without payload that no own socket sent: is it the end of an own connection? Its
 * TIME_WAIT socket is not a full one. Before 6.13 IPv4 sends such ACKs from a raw socket of the
 * kernel's, which looks like anybody's; who may open one can send resets all the same.
 */
static __always_inline int is_timewait(struct __sk_buff *skb, struct bpf_sock *sk)
{
	if (!(skb->mark & HF_MARK_OWN))
		return 0;
	if (!sk)
		return 1;
	return LINUX_KERNEL_VERSION < KERNEL_VERSION(6, 13, 0) && sk->type == SOCK_RAW &&
	       sk->protocol == IPPROTO_TCP;
}

/*
 * The kernel's own word: neither forwarded nor from a socket of a user's. Its control sockets
 * belong to whoever made the network namespace.
 */
static __always_inline int is_of_kernel(struct __sk_buff *skb, struct bpf_sock *sk)
{
	return !skb->ingress_ifindex && (!sk || !bpf_get_socket_uid(skb));
}

/* The network protocol, and where its header begins; 0: truncated. */
static __always_inline __u16 read_l2(struct __sk_buff *skb, const struct hf_interface *link,
				     __u32 *ret_at)
{
	__be16 tag[2];
	__u8 first;

	*ret_at = 0;
	if (!link->has_mac) {
		if (bpf_skb_load_bytes(skb, 0, &first, 1) < 0)
			return 0;
		return (first >> 4) == 6 ? ETH_P_IPV6 : ETH_P_IP;
	}
	*ret_at = ETH_HLEN;
	if (bpf_skb_load_bytes(skb, 2 * ETH_ALEN, &tag[1], sizeof(tag[1])) < 0)
		return 0;
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		if (tag[1] != bpf_htons(ETH_P_8021Q) && tag[1] != bpf_htons(ETH_P_8021AD))
			break;
		if (bpf_skb_load_bytes(skb, *ret_at, tag, sizeof(tag)) < 0)
			return 0;
		*ret_at += sizeof(tag);
	}
	return bpf_ntohs(tag[1]);
}

/* The reason to let it out, or the one to drop it. */
static __always_inline __u8 judge(struct __sk_buff *skb, const struct hf_settings *set,
				  const struct hf_interface *link, __u8 *verdict)
{
	struct out out = {};
	struct bpf_sock *sk = skb->sk;
	__u32 at;
	__u16 type;
	int wrong;

	*verdict = HF_VERDICT_PASS;
	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (sk && bpf_sk_storage_get(&own_sockets, sk, 0, 0))
		return HF_REASON_OWN_SOCKET;
	type = read_l2(skb, link, &at);
	if (type == ETH_P_ARP)
		return HF_REASON_NEIGHBOUR;
	if (type == ETH_P_EAPOL)
		return HF_REASON_LINK_CONTROL;
	*verdict = HF_VERDICT_DROP;
	if (!type)
		return HF_REASON_MALFORMED;
	if (type == ETH_P_IP)
		wrong = read_v4(skb, at, &out);
	else if (type == ETH_P_IPV6)
		wrong = read_v6(skb, at, &out);
	else
		return HF_REASON_ETHERTYPE;
	if (wrong)
		return HF_REASON_MALFORMED;
	*verdict = HF_VERDICT_PASS;
	if (is_neighbour(&out))
		return HF_REASON_NEIGHBOUR;
	if (is_link_control(skb, &out))
		return HF_REASON_LINK_CONTROL;
	if (is_icmp_error(skb, &out) && is_of_kernel(skb, sk)) {
		if (!errors_exhausted(skb->ifindex))
			return HF_REASON_NO_SOCKET_ICMP;
		*verdict = HF_VERDICT_DROP;
		return HF_REASON_RATE_LIMITED;
	}
	if (out.protocol == IPPROTO_TCP && out.empty && !(out.tcp_flags & TCP_SYN)) {
		if ((out.tcp_flags & TCP_RST) && is_of_kernel(skb, sk))
			return HF_REASON_NO_SOCKET_RESET;
		if (is_timewait(skb, sk))
			return HF_REASON_OWN_TIMEWAIT;
	}
	if (is_allowed(&out))
		return HF_REASON_ALLOWED_SERVICE;
	if (is_exempt(skb, set))
		return HF_REASON_EXEMPT_USER;
	*verdict = HF_VERDICT_DROP;
	return HF_REASON_NOT_OURS;
}

SEC("tc")
int hf_guard(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	const struct hf_settings *set = settings_get();
	const struct hf_interface *link = bpf_map_lookup_elem(&interfaces, &ifindex);
	__u8 verdict, reason;

	if (!set || !link || set->guard_mode == HF_GUARD_OFF)
		return TC_ACT_UNSPEC;
	reason = judge(skb, set, link, &verdict);
	count(ifindex, HF_HOOK_GUARD, verdict, reason, skb->len);
	if (verdict == HF_VERDICT_DROP && set->guard_mode == HF_GUARD_ENFORCE)
		return TC_ACT_SHOT;
	return TC_ACT_UNSPEC;
}
