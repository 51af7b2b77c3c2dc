/*
 * Two byte streams joined: what one side says goes to the other until both have ended or one
 * breaks. Small flows go through memory; one that turns out large goes on in the kernel (splice.h),
 * as long as there are pipes for it. Backpressure either way. Owns both conns from the start on.
 * Knows nothing of links, rules or protocols.
 */
#pragma once

#include "conn/conn.h"

struct duplexes;
struct duplex;

/* Those of one loop: their pipes together are bounded (DUPLEX_PIPES_MAX). */
int duplexes_new(uv_loop_t *loop, struct duplexes **ret_duplexes)
	__attribute__((warn_unused_result));
void duplexes_free(struct duplexes *duplexes); /* every duplex must be over */

/* Over: both sides have ended (0), or one broke (negative errno; both are reset). Inside this call
 * duplex_bytes may still be asked; the duplex is gone after it. */
typedef void (*duplex_over_cb)(void *arg, int status);

struct duplex_side {
	struct conn *conn;
	const uint8_t *first; /* was read from it already; copied */
	size_t first_len;
	bool ended; /* it has shut its side before */
};
/* Takes both conns, also on error (they are reset then). `over` never comes from inside. */
int duplex_new(struct duplexes *duplexes, const struct duplex_side *a, const struct duplex_side *b,
	       duplex_over_cb over, void *arg, struct duplex **ret_duplex)
	__attribute__((warn_unused_result));
/* Reset both sides; no callback after it. */
void duplex_close(struct duplex *duplex);
/* Bytes so far that came from a (else from b), without what was read before. */
uint64_t duplex_bytes(const struct duplex *duplex, bool from_a);

struct duplexes_statistics {
	uint64_t spliced;  /* flows that went on in the kernel */
	uint64_t no_pipes; /* large ones that did not: no pipe was left */
	size_t pipes;	   /* in use */
};
void duplexes_statistics(const struct duplexes *duplexes, struct duplexes_statistics *ret);
