/* Of a daemon that is not there yet. */
#include <holdfast/program.h>

char LICENSE[] SEC("license") = "GPL";
const struct hf_program hf_program SEC(HF_PROGRAM_SECTION) __attribute__((used)) = {
	.magic = HF_PROGRAM_MAGIC, .abi = 77, .name = "unknown-abi", .version = "1.0.0"};

SEC("xdp")
int unknown_abi(struct xdp_md *ctx)
{
	return XDP_PASS;
}
