/* Any XDP program. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("xdp")
int no_metadata(struct xdp_md *ctx)
{
	return XDP_PASS;
}
