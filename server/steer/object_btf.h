/*
 * The BTF of an object file as bytes: are its names and types within it, and do references end?
 * What the kernel checks for itself when it is given BTF, checked before libbpf follows it in our
 * own process.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* NULL: it can be given to libbpf; else what is wrong with it, a static text. */
const char *object_btf_check(const uint8_t *bytes, size_t size);
