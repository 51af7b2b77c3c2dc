/*
 * sk_lookup in the device's network namespace: gives what steer passed to the daemon's
 * sockets, whatever its destination address. Runs for look-ups of listening TCP and of
 * unconnected UDP only. It must not decide by interface: a test run has none.
 *
 * Without the daemon its sockets are not in the map: what would be theirs is dropped.
 */
#include <linux/bpf.h>
#include <linux/in.h>

#include "ip.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, HF_SOCKET_COUNT);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sockets SEC(".maps");

#define AF_INET	 2
#define AF_INET6 10

static __always_inline int give(struct bpf_sk_lookup *ctx, __u32 which, __u8 reason)
{
	struct bpf_sock *sk;
	long r;

	if (ctx->family == AF_INET6)
		which++; /* hf_socket: IPv6 follows IPv4 */
	sk = bpf_map_lookup_elem(&sockets, &which);
	if (!sk)
		goto drop;
	/* The very socket: a group with SO_REUSEPORT would choose another. */
	r = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(sk);
	if (r)
		goto drop;
	count(0, HF_HOOK_LOOKUP, HF_VERDICT_STEER, reason, 0);
	return SK_PASS;
drop:
	count(0, HF_HOOK_LOOKUP, HF_VERDICT_DROP, HF_REASON_NO_LISTENER, 0);
	return SK_DROP;
}

static __always_inline void local_address(const struct bpf_sk_lookup *ctx, struct hf_ip *ip)
{
	__u32 *word = (__u32 *)ip->bytes;

	if (ctx->family == AF_INET) {
		ip_from_v4(ip, ctx->local_ip4);
		return;
	}
	word[0] = ctx->local_ip6[0];
	word[1] = ctx->local_ip6[1];
	word[2] = ctx->local_ip6[2];
	word[3] = ctx->local_ip6[3];
}

SEC("sk_lookup")
int hf_lookup(struct bpf_sk_lookup *ctx)
{
	const struct hf_settings *set = settings_get();
	struct hf_ip local = {};
	int is_internal;

	if (!set || (ctx->family != AF_INET && ctx->family != AF_INET6))
		return SK_PASS;
	if (ctx->local_port == 53)
		return ctx->protocol == IPPROTO_TCP
			       ? give(ctx, HF_SOCKET_DNS_TCP4, HF_REASON_DNS_RESOLVER)
			       : give(ctx, HF_SOCKET_DNS_UDP4, HF_REASON_DNS_RESOLVER);
	local_address(ctx, &local);
	if (ip_is_device(&local) || ip_is_multicast(&local) || ip_is_link_local(&local))
		return SK_PASS;
	is_internal = ip_same(&local, &set->internal_v4) || ip_same(&local, &set->internal_v6);
	if (is_internal && (ctx->protocol != IPPROTO_TCP || ctx->local_port != 80)) {
		count(0, HF_HOOK_LOOKUP, HF_VERDICT_DROP, HF_REASON_INTERNAL_PORT, 0);
		return SK_DROP;
	}
	if (ctx->protocol != IPPROTO_TCP) {
		/* Steer has refused it, unless it came in fragments. */
		if (ctx->local_port == 443 && !(set->flags & HF_FLAG_RELAY_QUIC)) {
			count(0, HF_HOOK_LOOKUP, HF_VERDICT_DROP, HF_REASON_QUIC_REFUSED, 0);
			return SK_DROP;
		}
		return give(ctx, HF_SOCKET_RELAY_UDP4, HF_REASON_UDP_RELAY);
	}
	if (is_internal)
		return give(ctx, HF_SOCKET_API_TCP4, HF_REASON_API_APPS);
	return give(ctx, HF_SOCKET_PROXY_TCP4, HF_REASON_TCP_PROXY);
}
