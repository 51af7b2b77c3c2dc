/*
 * Trusted keys and what they signed: Ed25519 (RFC 8032) over the 32 octets of a file's SHA-256,
 * so that the file need not be read twice and `openssl pkeyutl -rawin` can sign it.
 *
 * Reading keys blocks: before the loop runs, or on a worker.
 */
#pragma once

#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keys;

/* files: NULL-terminated, or NULL. A file that cannot be used is no error but a problem of the
 * set. 0 or -ENOMEM. */
int keys_read(char *const *files, struct keys **ret_keys) __attribute__((warn_unused_result));
void keys_free(struct keys *keys); /* NULL is fine */
/* What is wrong with the n-th unusable file, in words; NULL: there are no more. */
const char *keys_problem(const struct keys *keys, size_t n);

/* 0 and the file name of the key that verifies, or -EKEYREJECTED. */
int keys_verify(const struct keys *keys, const uint8_t digest[PROGRAM_DIGEST_BYTES],
		const uint8_t signature[PROGRAM_SIGNATURE_BYTES], char *ret_name, size_t name_size)
	__attribute__((warn_unused_result));

/* Base64 (RFC 4648, 4) of exactly 64 octets. 0 or -EINVAL. */
int signature_decode(const char *text, uint8_t ret_signature[PROGRAM_SIGNATURE_BYTES])
	__attribute__((warn_unused_result));
int signature_digest(const uint8_t *bytes, size_t size, uint8_t ret_digest[PROGRAM_DIGEST_BYTES])
	__attribute__((warn_unused_result));
