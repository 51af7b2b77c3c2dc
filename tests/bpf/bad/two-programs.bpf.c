/* Two of them. */
#include <holdfast/program.h>

HF_PROGRAM("two-programs", "1.0.0");

SEC("xdp")
int first(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp")
int second(struct xdp_md *ctx)
{
	return XDP_PASS;
}
