/* A map of its own that takes too much memory. */
#include <holdfast/program.h>

HF_PROGRAM("map-large", "1.0.0");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__uint(value_size, 4096);
	__uint(max_entries, 4096);
} large SEC(".maps");

SEC("xdp")
int map_large(struct xdp_md *ctx)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&large, &zero) ? XDP_PASS : XDP_PASS;
}
