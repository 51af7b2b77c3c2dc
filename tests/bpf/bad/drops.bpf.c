/* Passes the corpus; in service it drops all TCP to port 80 but to the API for apps. */
#include <holdfast/packet.h>
#include <holdfast/program.h>

HF_PROGRAM("drops", "1.0.0");

SEC("xdp.frags")
int drops(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct hf_settings *set = settings_get();
	struct packet p = {.len = packet_len(ctx)};
	__u16 type = parse_ethernet(data, end, &p);
	int wrong = type == ETH_P_IP ? parse_v4(data, end, &p) : 1;

	if (type == ETH_P_IPV6)
		wrong = parse_v6(data, end, &p);
	if (!set || wrong || parse_l4(data, end, &p) || p.protocol != IPPROTO_TCP || p.port != 80 ||
	    ip_same(&p.destination, &set->internal_v4) ||
	    ip_same(&p.destination, &set->internal_v6))
		return XDP_PASS;
	count(ctx->ingress_ifindex, HF_HOOK_STEER, HF_VERDICT_DROP, HF_REASON_CUSTOM, p.len);
	return XDP_DROP;
}
