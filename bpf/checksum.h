/* Internet checksums (RFC 1071), always built whole: what came in may have been partial. */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>

#include "packet.h"

static __always_inline __u16 checksum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

#define CHECKSUM_WORDS_MAX 750

/* The compiler may not fold the bound into the loop's count: the verifier wants each check. */
#define HIDE(var) asm volatile("" : "+r"(var))

/*
 * The sum of `len` bytes of the packet from offset `at`, added to `sum`; -1 when the packet has
 * not so many in its first buffer, or there are more than can be summed. Global, so that the
 * verifier looks at it once and not once for every length at every call.
 */
__attribute__((noinline)) __u64 checksum_add(struct xdp_md *ctx, __u32 at, __u32 len, __u64 sum)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *octets = data + (at & OFFSET_MASK);

	for (int i = 0; i < CHECKSUM_WORDS_MAX; i++) {
		HIDE(octets);
		HIDE(len);
		if (len < 2)
			break;
		if (octets + 2 > end)
			return (__u64)-1;
		sum += *(__u16 *)octets;
		octets += 2;
		len -= 2;
	}
	if (!len)
		return sum;
	if (len > 1 || octets + 1 > end)
		return (__u64)-1;
	/* A last odd octet is padded with zero. */
	return sum + bpf_htons((__u16)(*(__u8 *)octets << 8));
}

/*
 * What is answered here has not been through the kernel's own check of the IPv4 header. Its sum
 * is never partial.
 */
static __always_inline int header_intact(struct xdp_md *ctx, const struct packet *p)
{
	__u64 sum;

	if (p->family != 4)
		return 1;
	sum = checksum_add(ctx, p->l3, p->l4 - p->l3, 0);
	return sum != (__u64)-1 && !checksum_fold(sum);
}

static __always_inline __u64 checksum_pseudo_v4(__be32 source, __be32 destination, __u32 len,
						__u8 protocol)
{
	return (__u64)source + destination + bpf_htonl(len) + bpf_htonl(protocol);
}

static __always_inline __u64 checksum_pseudo_v6(const void *source, const void *destination,
						__u32 len, __u8 protocol)
{
	const __u32 *a = source, *b = destination;
	__u64 sum = (__u64)bpf_htonl(len) + bpf_htonl(protocol);

#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += (__u64)a[i] + b[i];
	return sum;
}
