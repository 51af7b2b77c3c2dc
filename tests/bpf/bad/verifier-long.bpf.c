/* Reads past what it checked, after so much that the kernel's log of it is long. */
#include <holdfast/program.h>

HF_PROGRAM("verifier-long", "1.0.0");

SEC("xdp")
int verifier_long(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	volatile __u32 sum = 0;

	if (data + 200 > end)
		return XDP_PASS;
#pragma unroll
	for (int i = 0; i < 200; i++)
		sum += data[i];
	return data[200] == sum ? XDP_DROP : XDP_PASS;
}
