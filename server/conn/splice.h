/*
 * Two sockets joined in the kernel: splice(2) from one into a pipe, from the pipe into the other,
 * without the bytes ever being copied to user space. One pipe a direction.
 *
 * Owns both descriptors and the pipes. Used by duplex.c for large flows; for small ones the pipes
 * cost more than they save.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct splice;

/* See duplex_over_cb. The splice is gone after this call. */
typedef void (*splice_over_cb)(void *arg, int status);

/* Takes the connected, non-blocking sockets on success only. -EMFILE and the like. */
int splice_new(uv_loop_t *loop, int fd_a, int fd_b, splice_over_cb over, void *arg,
	       struct splice **ret_splice) __attribute__((warn_unused_result));
/* Reset both; no callback after it. */
void splice_close(struct splice *splice);
uint64_t splice_bytes(const struct splice *splice, bool from_a);
