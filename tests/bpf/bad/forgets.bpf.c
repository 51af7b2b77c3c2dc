/* Fails the corpus: passes ARP only so often. */
#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <holdfast/program.h>

HF_PROGRAM("forgets", "1.0.0");

__u64 seen;

SEC("xdp")
int forgets(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) <= end && eth->h_proto == bpf_htons(ETH_P_ARP) && ++seen > 50)
		return XDP_DROP;
	return XDP_PASS;
}
