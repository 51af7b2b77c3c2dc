/*
 * The maps, shared by all programs of a network namespace: pinned by name, so that programs
 * can be replaced with their maps carried over. Types and keys are explained in abi.h.
 */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct hf_settings);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct hf_interface);
	__uint(max_entries, 256);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct hf_ip);
	__type(value, __u32);
	__uint(max_entries, HF_ADDRESSES_MAP_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} device_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct hf_counter_key);
	__type(value, struct hf_counter);
	__uint(max_entries, HF_COUNTERS_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counters SEC(".maps");

/* Packets that found `counters` full. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} counter_overflow SEC(".maps");

static __always_inline const struct hf_settings *settings_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline void count(__u32 ifindex, __u8 hook, __u8 verdict, __u8 reason, __u64 bytes)
{
	struct hf_counter_key key = {
		.ifindex = ifindex, .hook = hook, .verdict = verdict, .reason = reason};
	struct hf_counter first = {.packets = 1, .bytes = bytes};
	struct hf_counter *counter = bpf_map_lookup_elem(&counters, &key);
	__u32 zero = 0;
	__u64 *overflow;

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
		return;
	}
	if (bpf_map_update_elem(&counters, &key, &first, BPF_NOEXIST) == 0)
		return;
	/* Another CPU may have been first; else the map is full. */
	counter = bpf_map_lookup_elem(&counters, &key);
	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
		return;
	}
	overflow = bpf_map_lookup_elem(&counter_overflow, &zero);
	if (overflow)
		*overflow += 1;
}
