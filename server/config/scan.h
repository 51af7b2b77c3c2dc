/*
 * The lexical pass over a configuration, before json-c reads it: json-c takes single
 * quotes, NaN and duplicate keys even when strict, and comments only when not. Internal.
 */
#pragma once

#include "config/config.h"

/* Blank the comments in place, newlines stay, and check that the rest is JSON (RFC 8259)
 * without duplicate keys. 0 or -EINVAL with errors: the first of syntax, all duplicates. */
int config_scan(char *text, size_t len, struct config_errors *errors)
	__attribute__((warn_unused_result));
