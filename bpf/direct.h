/* What steer asks of its surroundings: is a destination reached directly, is the daemon alive? */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct hf_prefix);
	__type(value, __u32);
	__uint(max_entries, HF_DIRECT_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} direct SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} heartbeat SEC(".maps");

static __always_inline int is_direct(const struct hf_ip *ip)
{
	struct hf_prefix key = {.bits = 128};

	__builtin_memcpy(key.ip, ip->bytes, sizeof(key.ip));
	return bpf_map_lookup_elem(&direct, &key) != 0;
}

static __always_inline int is_alive(void)
{
	__u32 zero = 0;
	__u64 *until = bpf_map_lookup_elem(&heartbeat, &zero);

	return until && *until > bpf_ktime_get_ns();
}
