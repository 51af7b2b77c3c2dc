/* No XDP program. */
#include <holdfast/program.h>

HF_PROGRAM("wrong-type", "1.0.0");

SEC("tc")
int wrong_type(struct __sk_buff *skb)
{
	return 0;
}
