/*
 * The version of a program: "MAJOR.MINOR.PATCH", three whole numbers without leading zeros.
 */
#pragma once

#include <stdint.h>

struct version {
	uint32_t part[3];
};

/* 0 or -EINVAL. */
int version_parse(const char *text, struct version *ret_version)
	__attribute__((warn_unused_result));
/* Negative: a is older; 0: the same; positive: a is newer. */
int version_compare(const struct version *a, const struct version *b);
