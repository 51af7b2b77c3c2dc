/*
 * An object file as bytes: are its tables within the file and consistent with each other, and
 * what does it say of itself (steer_program_read)? Pure: no kernel, no library. Only what passes is
 * given to libelf and libbpf, which believe much of what stands in a file.
 */
#pragma once

#include "steer/candidate.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fill the report and return -EINVAL, so that a caller can return the call. */
int report_fail(struct steer_report *report, enum steer_check check, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Its golden packets; an array that the caller frees, NULL where there are none. 0, -EINVAL with
 * the report filled, or -ENOMEM. */
int object_golden(const uint8_t *elf, size_t size, struct hf_golden **ret_packets,
		  size_t *ret_count, struct steer_report *ret_report)
	__attribute__((warn_unused_result));
