/* Fails the corpus: aborts on ARP. */
#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <holdfast/program.h>

HF_PROGRAM("aborts-on-arp", "1.0.0");

SEC("xdp")
int aborts_on_arp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) <= end && eth->h_proto == bpf_htons(ETH_P_ARP))
		return XDP_ABORTED;
	return XDP_PASS;
}
