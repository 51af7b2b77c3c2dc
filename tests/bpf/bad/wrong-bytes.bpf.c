/* Says that it changes an octet, and does not. */
#include <holdfast/program.h>

HF_PROGRAM("wrong-bytes", "1.0.0");

SEC("xdp")
int wrong_bytes(struct xdp_md *ctx)
{
	return XDP_PASS;
}

HF_GOLDEN = {
	{.name = "an octet is changed",
	 .role = HF_ROLE_APP,
	 .action = XDP_PASS,
	 .len = 14,
	 .out_len = 14,
	 .in = {HF_ETHERNET(0x0806)},
	 .out = {HF_ETHERNET(0x0807)}},
};
