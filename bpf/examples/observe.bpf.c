/*
 * observe: counts every packet under the reason "custom" and passes it. Nothing is steered by
 * the program itself; see it in GET /v1/counters.
 */
#include <holdfast/maps.h>
#include <holdfast/program.h>

HF_PROGRAM("observe", "1.0.0");

/* xdp.frags: large packets in several buffers come as they are (kernel 5.18). */
SEC("xdp.frags")
int observe(struct xdp_md *ctx)
{
	count(ctx->ingress_ifindex, HF_HOOK_STEER, HF_VERDICT_PASS, HF_REASON_CUSTOM,
	      bpf_xdp_get_buff_len(ctx));
	return XDP_PASS;
}

#define APP	192, 0, 2, 77
#define FAR	203, 0, 113, 9
#define SYN	HF_ETHERNET(0x0800), HF_IPV4(6, 20, APP, FAR), HF_TCP_SYN(40000, 443)
#define SYN_LEN (14 + 20 + 20)

HF_GOLDEN = {
	{.name = "an app's TCP SYN passes",
	 .role = HF_ROLE_APP,
	 .action = XDP_PASS,
	 .len = SYN_LEN,
	 .out_len = SYN_LEN,
	 .in = {SYN},
	 .out = {SYN}},
	{.name = "half a header passes",
	 .role = HF_ROLE_HOST,
	 .action = XDP_PASS,
	 .len = 20,
	 .in = {SYN}},
};
