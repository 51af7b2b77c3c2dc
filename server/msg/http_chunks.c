#include "msg/http_chunks.h"

#include "base/limits.h"

#include <errno.h>
#include <string.h>

enum { DIGITS_MAX = 16 };

void http_chunks_begin(struct http_chunks *chunks)
{
	*chunks = (struct http_chunks){.step = HTTP_CHUNK_SIZE};
}

static int digit_of(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What may follow the size. */
static const char *read_after_size(struct http_chunks *chunks, uint8_t c)
{
	if (c == '\r' && chunks->step == HTTP_CHUNK_SIZE)
		chunks->step = HTTP_CHUNK_LF;
	else if (c == ';')
		chunks->step = HTTP_CHUNK_EXTENSION;
	else if (c == ' ' || c == '\t')
		chunks->step = HTTP_CHUNK_BLANK;
	else
		return "not a chunk size";
	return NULL;
}

static const char *read_size(struct http_chunks *chunks, uint8_t c)
{
	int digit = digit_of(c);

	if (digit < 0)
		return chunks->digits ? read_after_size(chunks, c) : "not a chunk size";
	if (chunks->left >> 59 || ++chunks->digits > DIGITS_MAX)
		return "a chunk size that is too large";
	chunks->left = chunks->left << 4 | (unsigned)digit;
	return NULL;
}

static const char *read_extension(struct http_chunks *chunks, uint8_t c)
{
	if (c == '\r')
		chunks->step = HTTP_CHUNK_LF;
	else if ((c < ' ' && c != '\t') || c == 0x7f)
		return "control characters in a chunk extension";
	return NULL;
}

static const char *expect(struct http_chunks *chunks, uint8_t c, uint8_t want,
			  enum http_chunk_step next)
{
	chunks->step = next;
	return c == want ? NULL : "a chunk that does not end with CRLF";
}

static const char *read_byte(struct http_chunks *chunks, uint8_t c)
{
	if (chunks->step == HTTP_CHUNK_BLANK || chunks->step == HTTP_CHUNK_EXTENSION)
		if (++chunks->extensions > HTTP_EXTENSIONS_MAX)
			return "too many chunk extensions";
	switch (chunks->step) {
	case HTTP_CHUNK_SIZE:
		return read_size(chunks, c);
	case HTTP_CHUNK_BLANK:
		return read_after_size(chunks, c);
	case HTTP_CHUNK_EXTENSION:
		return read_extension(chunks, c);
	case HTTP_CHUNK_LF:
		chunks->digits = 0;
		return expect(chunks, c, '\n', chunks->left ? HTTP_CHUNK_DATA : HTTP_CHUNK_OVER);
	case HTTP_CHUNK_DATA_CR:
		return expect(chunks, c, '\r', HTTP_CHUNK_DATA_LF);
	case HTTP_CHUNK_DATA_LF:
		return expect(chunks, c, '\n', HTTP_CHUNK_SIZE);
	case HTTP_CHUNK_DATA:
	case HTTP_CHUNK_OVER:
		break;
	}
	return "not a chunk";
}

int http_chunks_read(struct http_chunks *chunks, const uint8_t *bytes, size_t len, size_t *ret_used,
		     const uint8_t **ret_data, size_t *ret_data_len, const char **ret_wrong)
{
	size_t used = 0;

	*ret_data = NULL;
	*ret_data_len = 0;
	*ret_wrong = NULL;
	while (used < len && chunks->step != HTTP_CHUNK_DATA && chunks->step != HTTP_CHUNK_OVER) {
		*ret_wrong = read_byte(chunks, bytes[used++]);
		if (*ret_wrong)
			return -EPROTO;
	}
	if (chunks->step == HTTP_CHUNK_DATA && used < len) {
		*ret_data = bytes + used;
		*ret_data_len = len - used < chunks->left ? len - used : (size_t)chunks->left;
		chunks->left -= *ret_data_len;
		used += *ret_data_len;
		if (!chunks->left)
			chunks->step = HTTP_CHUNK_DATA_CR;
	}
	*ret_used = used;
	return 0;
}
