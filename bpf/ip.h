/* Addresses of both families in their one form, for all programs. */
#pragma once

#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "maps.h"

/* RFC 792. <linux/icmp.h> pulls in the C library, which has no BPF target. */
#define ICMP_ECHOREPLY	   0
#define ICMP_DEST_UNREACH  3
#define ICMP_ECHO	   8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12
#define ICMP_NET_UNREACH   0
#define ICMP_HOST_UNREACH  1
#define ICMP_PROT_UNREACH  2
#define ICMP_PORT_UNREACH  3
#define ICMP_PKT_FILTERED  13

static __always_inline void ip_from_v4(struct hf_ip *ip, __be32 address)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->bytes[10] = ip->bytes[11] = 0xff;
	__builtin_memcpy(ip->bytes + 12, &address, 4);
}

static __always_inline void ip_from_v6(struct hf_ip *ip, const void *address)
{
	__builtin_memcpy(ip->bytes, address, sizeof(ip->bytes));
}

static __always_inline int ip_same(const struct hf_ip *a, const struct hf_ip *b)
{
	const __u64 *x = (const __u64 *)a->bytes, *y = (const __u64 *)b->bytes;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline int ip_is_v4(const struct hf_ip *ip)
{
	const __u32 *word = (const __u32 *)ip->bytes;

	return !word[0] && !word[1] && word[2] == bpf_htonl(0xffff);
}

static __always_inline int ip_is_loopback(const struct hf_ip *ip)
{
	const __u32 *word = (const __u32 *)ip->bytes;

	if (ip_is_v4(ip))
		return ip->bytes[12] == 127;
	return !word[0] && !word[1] && !word[2] && word[3] == bpf_htonl(1);
}

/* Multicast, limited broadcast, or no address at all. */
static __always_inline int ip_is_multicast(const struct hf_ip *ip)
{
	const __u32 *word = (const __u32 *)ip->bytes;

	if (ip_is_v4(ip))
		return (ip->bytes[12] & 0xf0) == 0xe0 || word[3] == 0xffffffff || word[3] == 0;
	return ip->bytes[0] == 0xff || (!word[0] && !word[1] && !word[2] && !word[3]);
}

/* No address at all: 0.0.0.0 or ::. */
static __always_inline int ip_is_unspecified(const struct hf_ip *ip)
{
	const __u32 *word = (const __u32 *)ip->bytes;

	return !word[3] && !word[0] && !word[1] && (!word[2] || word[2] == bpf_htonl(0xffff));
}

static __always_inline int ip_is_link_local(const struct hf_ip *ip)
{
	if (ip_is_v4(ip))
		return ip->bytes[12] == 169 && ip->bytes[13] == 254;
	return ip->bytes[0] == 0xfe && (ip->bytes[1] & 0xc0) == 0x80;
}

static __always_inline int ip_is_device(const struct hf_ip *ip)
{
	return ip_is_loopback(ip) || bpf_map_lookup_elem(&device_addresses, ip) != 0;
}

/* bits: of the mapped form, 0 to 128. */
static __always_inline int ip_in_prefix(const struct hf_ip *ip, const struct hf_ip *prefix,
					__u32 bits)
{
	const __u32 *a = (const __u32 *)ip->bytes, *b = (const __u32 *)prefix->bytes;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 here = bits >= 32 ? 32 : bits;
		__u32 mask = here ? bpf_htonl(0xffffffffu << (32 - here)) : 0;

		if ((a[i] ^ b[i]) & mask)
			return 0;
		bits -= here;
	}
	return 1;
}
