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
