/*
 * For whoever writes a program to upload: what it says of itself, and its golden packets.
 * See docs/programs.md.
 *
 *     #include <holdfast/program.h>
 *
 *     HF_PROGRAM("observe", "1.0.0");
 *
 *     SEC("xdp")
 *     int observe(struct xdp_md *ctx)
 *     {
 *             return XDP_PASS;
 *     }
 */
#pragma once

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "abi.h"

/* Once in an object. The version is three numbers; an older one than was confirmed before under
 * the same name is refused. */
#define HF_PROGRAM(program_name, program_version)                   \
	char LICENSE[] SEC("license") = "GPL";                      \
	const struct hf_program hf_program SEC(HF_PROGRAM_SECTION)  \
		__attribute__((used)) = {.magic = HF_PROGRAM_MAGIC, \
					 .abi = HF_ABI_VERSION,     \
					 .name = program_name,      \
					 .version = program_version}

/* An array of struct hf_golden: HF_GOLDEN = { {.name = ...}, ... }; */
#define HF_GOLDEN const struct hf_golden hf_golden[] SEC(HF_GOLDEN_SECTION) __attribute__((used))

/*
 * Headers of golden packets, as octets in an initializer. Addresses are octets too:
 * `#define APP 192, 0, 2, 77`. payload: octets behind the header. Checksums are 0: no program is
 * right to check them, because packets of the device itself carry none that is whole.
 */
#define HF_U16(value)	  (__u8)((value) >> 8), (__u8)(value)
#define HF_ETHERNET(type) 0x02, 0, 0, 0, 0, 0x0d, 0x02, 0, 0, 0, 0, 0x0a, HF_U16(type)
#define HF_IPV4(protocol, payload, source_and_destination...) \
	0x45, 0, HF_U16(20 + (payload)), 0, 0, 0x40, 0, 64, protocol, 0, 0, source_and_destination
#define HF_IPV6(protocol, payload, source_and_destination...) \
	0x60, 0, 0, 0, HF_U16(payload), protocol, 64, source_and_destination
#define HF_UDP(from, to, payload) HF_U16(from), HF_U16(to), HF_U16(8 + (payload)), 0, 0
#define HF_TCP_SYN(from, to) \
	HF_U16(from), HF_U16(to), 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0
