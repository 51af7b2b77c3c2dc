/* Would leave a pin of its own. */
#include <holdfast/program.h>

HF_PROGRAM("map-pinned", "1.0.0");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} left_behind SEC(".maps");

SEC("xdp")
int map_pinned(struct xdp_md *ctx)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&left_behind, &zero) ? XDP_PASS : XDP_DROP;
}
