/* A map of programs: a way to others that nobody tried. */
#include <holdfast/program.h>

HF_PROGRAM("map-calls", "1.0.0");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
	__uint(max_entries, 2);
} calls SEC(".maps");

SEC("xdp")
int map_calls(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &calls, 0);
	return XDP_PASS;
}
