/*
 * Both sides of the HTTP parser, fed in pieces whose size the first byte chooses.
 * Built by hand: clang -fsanitize=fuzzer,address,undefined, with server/msg/http_*.c and
 * server/base; run it on tests/fuzz/corpus/http_msg and tests/corpus/smuggling.
 */
#include "msg/http_target.h"

#include <stdlib.h>
#include <string.h>

/* Where it goes: what is taken is a plain host and a path. */
static void route(struct http_head *head)
{
	struct http_authority authority;
	enum http_target_form form;
	const char *host;

	http_drop_named(head);
	if (http_to_origin_form(head, &form) < 0 || http_count_forward(head) < 0)
		return;
	if (http_target(head)[0] != '/' && strcmp(http_target(head), "*") != 0)
		abort();
	host = http_field(head, "host");
	if (host && http_read_authority(host, &authority) == 0 &&
	    (!authority.host[0] || strpbrk(authority.host, "/@ \t,%?#\\")))
		abort();
}

static int on_head(void *arg, struct http_head *head)
{
	struct buf out;
	int r;

	if (head->kind == HTTP_KIND_REQUEST)
		route(head);
	buf_init(&out, 4 * HTTP_HEAD_MAX);
	r = head->kind == HTTP_KIND_REQUEST
		    ? http_write_request_head(&out, head, http_target(head), NULL)
		    : http_write_response_head(&out, head, NULL);
	buf_done(&out);
	return r < 0 && r != -105 /* ENOBUFS */ ? abort(), -1 : 0;
}

static int on_body(void *arg, const uint8_t *data, size_t len)
{
	volatile uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum ^= data[i];
	return 0;
}

static int on_trailers(void *arg, const struct http_head *trailers)
{
	struct buf out;
	int r;

	buf_init(&out, 4 * HTTP_HEAD_MAX);
	r = http_write_fields(&out, trailers);
	buf_done(&out);
	return r < 0 ? abort(), -1 : 0;
}

static int on_end(void *arg)
{
	return 0;
}

static void feed(enum http_kind kind, const uint8_t *data, size_t len, size_t step)
{
	static const struct http_parser_ops ops = {.on_head = on_head,
						   .on_body = on_body,
						   .on_trailers = on_trailers,
						   .on_end = on_end};
	struct http_parser *parser;
	size_t used;

	if (http_parser_new(kind, &ops, NULL, &parser) < 0)
		return;
	while (len) {
		size_t n = len < step ? len : step;

		if (http_parser_feed(parser, data, n, &used) < 0)
			break;
		if (!used)
			abort();
		data += used;
		len -= used;
	}
	if (!len && http_parser_eof(parser) < 0 && !http_parser_in_message(parser))
		abort();
	http_parser_free(parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t step;

	if (!len)
		return 0;
	step = (size_t)(data[0] & 0x3f) + 1;
	feed(HTTP_KIND_REQUEST, data + 1, len - 1, step);
	feed(HTTP_KIND_RESPONSE, data + 1, len - 1, step);
	return 0;
}
