/*
 * Two byte streams joined: what one side says goes to the other until both have ended or one
 * breaks. With splice(2) through a pipe where that pays, else through memory; backpressure either
 * way. Owns both conns from the start on. Knows nothing of links, rules or protocols.
 */
#pragma once

#include "conn/conn.h"

struct duplex;

/* Over: both sides have ended (0), or one broke (negative errno; both are reset). The duplex and
 * its conns are gone after this call. */
typedef void (*duplex_over_cb)(void *arg, int status);

/* `first_a` was read from a already, `first_b` from b; both are copied. a_ended: a has shut its
 * side before. Takes both conns, also on error. */
struct duplex_side {
	struct conn *conn;
	const uint8_t *first;
	size_t first_len;
	bool ended;
};
int duplex_new(const struct duplex_side *a, const struct duplex_side *b, duplex_over_cb over,
	       void *arg, struct duplex **ret_duplex) __attribute__((warn_unused_result));
/* Reset both sides; no callback after it. */
void duplex_close(struct duplex *duplex);
/* Bytes so far from a to b and from b to a. */
uint64_t duplex_bytes(const struct duplex *duplex, bool from_a);
