/* Fails the corpus: passes all, but writes into it. */
#include <holdfast/program.h>

HF_PROGRAM("writes", "1.0.0");

SEC("xdp")
int writes(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + 12 <= end)
		*(__u8 *)(data + 11) ^= 1;
	return XDP_PASS;
}
