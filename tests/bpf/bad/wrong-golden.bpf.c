/* Says that it drops, and passes. */
#include <holdfast/program.h>

HF_PROGRAM("wrong-golden", "1.0.0");

SEC("xdp")
int wrong_golden(struct xdp_md *ctx)
{
	return XDP_PASS;
}

HF_GOLDEN = {
	{.name = "this one is right", .role = HF_ROLE_APP, .action = XDP_PASS, .len = 60},
	{.name = "ARP is dropped",
	 .role = HF_ROLE_APP,
	 .action = XDP_DROP,
	 .len = 60,
	 .in = {HF_ETHERNET(0x0806)}},
};
