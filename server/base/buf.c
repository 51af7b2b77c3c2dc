#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 512 };

void buf_init(struct buf *b, size_t limit)
{
	*b = (struct buf){.limit = limit};
}

void buf_done(struct buf *b)
{
	free(b->data);
	*b = (struct buf){.limit = b->limit};
}

static void buf_compact(struct buf *b)
{
	if (!b->start)
		return;
	memmove(b->data, b->data + b->start, b->len);
	b->start = 0;
}

static int buf_reserve(struct buf *b, size_t more)
{
	size_t want, capacity;
	uint8_t *data;

	if (more > b->limit || b->len > b->limit - more)
		return -ENOBUFS;
	want = b->len + more;
	if (b->start + want <= b->capacity)
		return 0;
	buf_compact(b);
	if (want <= b->capacity)
		return 0;
	capacity = b->capacity ? b->capacity : FIRST_CAPACITY;
	while (capacity < want)
		capacity *= 2;
	data = realloc(b->data, capacity);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->capacity = capacity;
	return 0;
}

int buf_append(struct buf *b, const void *bytes, size_t len)
{
	int r;

	if (!len)
		return 0;
	r = buf_reserve(b, len);
	if (r < 0)
		return r;
	memcpy(b->data + b->start + b->len, bytes, len);
	b->len += len;
	return 0;
}

uint8_t *buf_room(struct buf *b, size_t len)
{
	return buf_reserve(b, len) == 0 ? b->data + b->start + b->len : NULL;
}

void buf_commit(struct buf *b, size_t len)
{
	b->len += len;
}

int buf_printf(struct buf *b, const char *format, ...)
{
	char small[512], *text = small;
	va_list args;
	int n, r;

	va_start(args, format);
	n = vsnprintf(small, sizeof(small), format, args);
	va_end(args);
	if (n < 0)
		return -EINVAL;
	if ((size_t)n >= sizeof(small)) {
		va_start(args, format);
		n = vasprintf(&text, format, args);
		va_end(args);
		if (n < 0)
			return -ENOMEM;
	}
	r = buf_append(b, text, (size_t)n);
	if (text != small)
		free(text);
	return r;
}

const uint8_t *buf_bytes(const struct buf *b)
{
	return b->data ? b->data + b->start : (const uint8_t *)"";
}

void buf_consume(struct buf *b, size_t len)
{
	if (len > b->len)
		abort();
	b->start += len;
	b->len -= len;
	if (!b->len)
		b->start = 0;
}

void buf_clear(struct buf *b)
{
	b->start = 0;
	b->len = 0;
}

void buf_shrink(struct buf *b, size_t keep)
{
	if (!b->len && b->capacity > keep)
		buf_done(b);
}

uint8_t *buf_take(struct buf *b, size_t *ret_len)
{
	uint8_t *data;

	buf_compact(b);
	data = b->data;
	*ret_len = b->len;
	if (!b->len) {
		free(data);
		data = NULL;
	}
	*b = (struct buf){.limit = b->limit};
	return data;
}
