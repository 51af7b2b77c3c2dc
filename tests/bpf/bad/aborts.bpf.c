/* Passes the corpus; in service it aborts on UDP port 9999. */
#include <holdfast/packet.h>
#include <holdfast/program.h>

HF_PROGRAM("aborts", "1.0.0");

SEC("xdp.frags")
int aborts(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p = {.len = packet_len(ctx)};

	if (parse_ethernet(data, end, &p) == ETH_P_IP && !parse_v4(data, end, &p) &&
	    !parse_l4(data, end, &p) && p.protocol == IPPROTO_UDP && p.port == 9999)
		return XDP_ABORTED;
	return XDP_PASS;
}
