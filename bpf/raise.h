/* Packets for the daemon that no socket can take, copied whole into a ring. */
#pragma once

#include "checksum.h"
#include "packet.h"

#define E2BIG	7
#define ENOBUFS 105

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, HF_RAISED_BYTES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} raised SEC(".maps");

#define RAISE_STEP 8

/* The packet's octets from offset `at` on; what they are is known to be in its first buffer. */
static __always_inline int raise_copy(struct xdp_md *ctx, __u8 *to, __u32 at, __u32 len)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *octets = data + (at & OFFSET_MASK);
	__u32 i;

	for (i = 0; i < HF_RAISED_MAX - RAISE_STEP; i += RAISE_STEP) {
		HIDE(octets);
		HIDE(len);
		if (len < RAISE_STEP)
			break;
		if (octets + RAISE_STEP > end)
			return -1;
		__builtin_memcpy(to + i, octets, RAISE_STEP);
		octets += RAISE_STEP;
		len -= RAISE_STEP;
	}
	for (int n = 0; n < RAISE_STEP; n++) {
		HIDE(octets);
		HIDE(len);
		if (!len)
			return 0;
		if (octets + 1 > end || i + n >= HF_RAISED_MAX)
			return -1;
		to[i + n] = *(__u8 *)octets;
		octets++;
		len--;
	}
	return len ? -1 : 0;
}

/*
 * Copy the packet, from its IP header on, for the daemon. 0, -E2BIG where it is too large, -ENOBUFS
 * while the ring is full. Global, so that the verifier looks at the copying once.
 */
__attribute__((noinline)) int raise_packet(struct xdp_md *ctx, const struct packet *p)
{
	struct hf_raised *record;
	__u32 len;

	if (!p)
		return -E2BIG;
	len = p->l4 - p->l3 + p->l4_len;
	if (len > HF_RAISED_MAX || p->l3 + len > (__u32)(ctx->data_end - ctx->data))
		return -E2BIG;
	record = bpf_ringbuf_reserve(&raised, sizeof(*record), 0);
	if (!record)
		return -ENOBUFS;
	record->ifindex = ctx->ingress_ifindex;
	record->len = len;
	record->family = p->family;
	record->pad = 0;
	if (raise_copy(ctx, record->packet, p->l3, len) < 0) {
		bpf_ringbuf_discard(record, 0);
		return -E2BIG;
	}
	bpf_ringbuf_submit(record, 0);
	return 0;
}
