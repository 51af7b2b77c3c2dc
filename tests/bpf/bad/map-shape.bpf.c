/* A map that has the name of one in service and not its shape. */
#include <holdfast/program.h>

HF_PROGRAM("map-shape", "1.0.0");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} settings SEC(".maps");

SEC("xdp")
int map_shape(struct xdp_md *ctx)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero) ? XDP_PASS : XDP_DROP;
}
