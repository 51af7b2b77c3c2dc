/* Reaches for the map that says what the guard lets out. */
#include <holdfast/program.h>

HF_PROGRAM("map-guard", "1.0.0");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct hf_allow);
	__uint(max_entries, HF_ALLOW_MAX);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} guard_allow SEC(".maps");

SEC("xdp")
int map_guard(struct xdp_md *ctx)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&guard_allow, &zero) ? XDP_PASS : XDP_DROP;
}
