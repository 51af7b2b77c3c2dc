/* Fails the corpus: drops TCP to port 7080, where the API listens. */
#include <holdfast/packet.h>
#include <holdfast/program.h>

HF_PROGRAM("drops-api", "1.0.0");

SEC("xdp.frags")
int drops_api(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct packet p = {.len = packet_len(ctx)};

	if (parse_ethernet(data, end, &p) == ETH_P_IP && !parse_v4(data, end, &p) &&
	    !parse_l4(data, end, &p) && p.protocol == IPPROTO_TCP && p.port == 7080)
		return XDP_DROP;
	return XDP_PASS;
}
