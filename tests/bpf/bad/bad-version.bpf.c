/* Two numbers. */
#include <holdfast/program.h>

HF_PROGRAM("bad-version", "1.0");

SEC("xdp")
int bad_version(struct xdp_md *ctx)
{
	return XDP_PASS;
}
