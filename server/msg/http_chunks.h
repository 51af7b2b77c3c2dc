/*
 * The chunked coding up to its trailers, strictly (RFC 9112, 7.1); for the files of msg alone.
 * Extensions are read over and bounded: one message may not bring more of them than
 * HTTP_EXTENSIONS_MAX.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_chunk_step {
	HTTP_CHUNK_SIZE,
	HTTP_CHUNK_BLANK, /* spaces, which an extension must follow */
	HTTP_CHUNK_EXTENSION,
	HTTP_CHUNK_LF, /* of the size's line */
	HTTP_CHUNK_DATA,
	HTTP_CHUNK_DATA_CR,
	HTTP_CHUNK_DATA_LF,
	HTTP_CHUNK_OVER, /* the last chunk's line is read: trailers follow */
};

struct http_chunks {
	enum http_chunk_step step;
	unsigned digits;
	uint64_t left; /* of this chunk */
	size_t extensions;
};

void http_chunks_begin(struct http_chunks *chunks);
/* One step on: up to one run of data. ret_data is NULL where there was none. 0 or -EPROTO with
 * what was wrong. */
int http_chunks_read(struct http_chunks *chunks, const uint8_t *bytes, size_t len, size_t *ret_used,
		     const uint8_t **ret_data, size_t *ret_data_len, const char **ret_wrong)
	__attribute__((warn_unused_result));
