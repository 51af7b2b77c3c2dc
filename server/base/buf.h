/*
 * A byte buffer that grows up to a bound: append at the end, consume at the front.
 * Owns its bytes. Reaching the bound is an error (-ENOBUFS) that the caller counts.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data; /* the unread bytes begin at data + start */
	size_t start, len, capacity, limit;
};

/* limit: most bytes it may hold. Nothing is allocated before the first append. */
void buf_init(struct buf *b, size_t limit);
void buf_done(struct buf *b);

/* 0, -ENOBUFS over the limit, -ENOMEM; on error the content is unchanged. */
int buf_append(struct buf *b, const void *bytes, size_t len) __attribute__((warn_unused_result));
int buf_printf(struct buf *b, const char *format, ...)
	__attribute__((warn_unused_result, format(printf, 2, 3)));

/* Room for `len` more bytes at the end, to be written and then committed. NULL: over the limit,
 * or no memory. */
uint8_t *buf_room(struct buf *b, size_t len) __attribute__((warn_unused_result));
void buf_commit(struct buf *b, size_t len); /* at most what was asked for */

/* The unread bytes; valid until the next call that changes the buffer. */
const uint8_t *buf_bytes(const struct buf *b);
static inline size_t buf_len(const struct buf *b)
{
	return b->len;
}
void buf_consume(struct buf *b, size_t len);
/* Forget the content; the memory is kept for the next use. */
void buf_clear(struct buf *b);
/* Give back the memory of an empty one that has grown beyond `keep` bytes. */
void buf_shrink(struct buf *b, size_t keep);
/* Hand over the bytes to the caller, who frees them; the buffer is empty afterwards.
 * NULL for an empty buffer. */
uint8_t *buf_take(struct buf *b, size_t *ret_len);
