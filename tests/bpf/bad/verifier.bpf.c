/* Reads past what it checked. */
#include <holdfast/program.h>

HF_PROGRAM("verifier", "1.0.0");

SEC("xdp")
int verifier(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;

	return data[20] == 6 ? XDP_DROP : XDP_PASS;
}
