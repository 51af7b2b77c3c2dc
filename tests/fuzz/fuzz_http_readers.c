/*
 * What two readers might read in two ways: our parser against llhttp (strict), and against itself
 * fed in other pieces. A message that we take must be the same message there: as long, with the
 * same fields and the same body. That llhttp takes more than we do is no finding.
 *
 * Built by hand, with llhttp's sources (Debian: node-llhttp):
 *   clang -g -O1 -D_GNU_SOURCE -DLLHTTP_STRICT_MODE=1 -fsanitize=fuzzer,address,undefined \
 *     -I server -I /usr/share/include/llhttp tests/fuzz/fuzz_http_readers.c server/msg/http_*.c \
 *     server/base/{buf,ip}.c /usr/share/llhttp/*.c -o fuzz
 *   ./fuzz -dict=tests/fuzz/http.dict -max_len=2000 FOLDER tests/corpus/smuggling
 * What begins like a response is one; a byte in the middle chooses the pieces.
 */
#include "msg/http_msg.h"

#include <errno.h>
#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { ROOM = 8 << 20 };

static const char LENGTH[] = "content-length:";

#define INSIST(what)                                                                       \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			abort();                                                           \
		}                                                                          \
	} while (0)

/* One message as a reader saw it: "name:value\n" of each field in lower case but for
 * Content-Length, which the body's own length shows, and its body. */
struct message {
	struct buf fields, body;
	size_t end;  /* in what was fed */
	size_t line; /* where the last field begins */
	bool whole, is_connect, until_close, has_head;
};

static void message_init(struct message *message)
{
	memset(message, 0, sizeof(*message));
	buf_init(&message->fields, ROOM);
	buf_init(&message->body, ROOM);
}

static void message_done(struct message *message)
{
	buf_done(&message->fields);
	buf_done(&message->body);
}

static void put(struct buf *out, const void *bytes, size_t len)
{
	INSIST(buf_append(out, bytes, len) == 0);
}

/* --- ours --- */

struct ours {
	struct buf told; /* everything, in the order of telling */
	struct message message;
};

static void put_fields(struct buf *out, const struct http_head *head)
{
	for (uint32_t i = 0; i < head->field_count; i++) {
		const char *name = http_text(head, head->fields[i].name);
		const char *value = http_text(head, head->fields[i].value);

		if (strcasecmp(name, "content-length") == 0)
			continue;
		for (; *name; name++) {
			char c = *name >= 'A' && *name <= 'Z' ? *name | 0x20 : *name;

			put(out, &c, 1);
		}
		put(out, ":", 1);
		put(out, value, strlen(value));
		put(out, "\n", 1);
	}
}

static int on_head(void *arg, struct http_head *head)
{
	struct ours *ours = arg;
	bool is_request = head->kind == HTTP_KIND_REQUEST;

	message_done(&ours->message);
	message_init(&ours->message);
	put_fields(&ours->message.fields, head);
	put(&ours->told, buf_bytes(&ours->message.fields), buf_len(&ours->message.fields));
	INSIST(buf_printf(&ours->told, "%s %s %d %d %d %d %d %llu\n",
			  is_request ? http_method(head) : "",
			  is_request ? http_target(head) : http_text(head, head->reason),
			  head->status, head->minor, head->framing, head->keep_alive, head->upgrade,
			  (unsigned long long)head->content_length) == 0);
	ours->message.is_connect = is_request && strcmp(http_method(head), "CONNECT") == 0;
	ours->message.until_close = head->framing == HTTP_UNTIL_CLOSE;
	return 0;
}

static int on_body(void *arg, const uint8_t *data, size_t len)
{
	struct ours *ours = arg;

	put(&ours->message.body, data, len);
	put(&ours->told, data, len);
	return 0;
}

static int on_trailers(void *arg, const struct http_head *trailers)
{
	put_fields(&((struct ours *)arg)->told, trailers);
	return 0;
}

static int on_end(void *arg)
{
	struct ours *ours = arg;

	ours->message.whole = true;
	put(&ours->told, "|end\n", 5);
	return 0;
}

static const struct http_parser_ops ops = {
	.on_head = on_head, .on_body = on_body, .on_trailers = on_trailers, .on_end = on_end};

/* --- llhttp --- */

static int their_field(llhttp_t *parser, const char *at, size_t len)
{
	struct message *message = parser->data;

	for (size_t i = 0; i < len; i++) {
		char c = at[i] >= 'A' && at[i] <= 'Z' ? at[i] | 0x20 : at[i];

		put(&message->fields, &c, 1);
	}
	return 0;
}

static int their_field_over(llhttp_t *parser)
{
	struct message *message = parser->data;

	put(&message->fields, ":", 1);
	return 0;
}

static int their_value(llhttp_t *parser, const char *at, size_t len)
{
	struct message *message = parser->data;

	put(&message->fields, at, len);
	return 0;
}

/* White space at its end is left there. */
static int their_value_over(llhttp_t *parser)
{
	struct message *message = parser->data;
	struct buf *fields = &message->fields;

	while (buf_len(fields) && strchr(" \t", buf_bytes(fields)[buf_len(fields) - 1]))
		fields->len--;
	put(fields, "\n", 1);
	if (buf_len(fields) - message->line >= sizeof(LENGTH) &&
	    !memcmp(buf_bytes(fields) + message->line, LENGTH, sizeof(LENGTH) - 1))
		fields->len = message->line;
	message->line = buf_len(fields);
	return 0;
}

/* Those of the trailers are not compared. */
static int their_head(llhttp_t *parser)
{
	llhttp_settings_t *settings = parser->settings;
	struct message *message = parser->data;

	message->has_head = true;
	settings->on_header_field = settings->on_header_value = NULL;
	settings->on_header_field_complete = settings->on_header_value_complete = NULL;
	/* The owner must say so, as Node does. */
	return parser->type == HTTP_RESPONSE &&
	       (parser->status_code / 100 == 1 || parser->status_code == 204 ||
		parser->status_code == 304);
}

static int their_body(llhttp_t *parser, const char *at, size_t len)
{
	struct message *message = parser->data;

	put(&message->body, at, len);
	return 0;
}

static int their_end(llhttp_t *parser)
{
	struct message *message = parser->data;

	message->whole = true;
	return HPE_PAUSED;
}

static enum llhttp_errno read_theirs(enum http_kind kind, const uint8_t *data, size_t len,
				     struct message *ret, const char **ret_reason)
{
	llhttp_settings_t settings;
	llhttp_t parser;
	enum llhttp_errno r;

	llhttp_settings_init(&settings);
	settings.on_header_field = their_field;
	settings.on_header_field_complete = their_field_over;
	settings.on_header_value = their_value;
	settings.on_header_value_complete = their_value_over;
	settings.on_headers_complete = their_head;
	settings.on_body = their_body;
	settings.on_message_complete = their_end;
	llhttp_init(&parser, kind == HTTP_KIND_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
	parser.data = ret;
	message_init(ret);
	r = llhttp_execute(&parser, (const char *)data, len);
	if (r == HPE_OK) {
		r = llhttp_finish(&parser);
		ret->end = len;
	} else {
		ret->end = (size_t)(llhttp_get_error_pos(&parser) - (const char *)data);
	}
	*ret_reason = llhttp_get_error_reason(&parser);
	return r;
}

/* What we take and llhttp does not, for reasons of its own that part no two messages: methods and
 * targets that it does not know, what chunk extensions say; and it reads lengths and codings in
 * trailers, where we leave them out. */
static bool is_theirs_alone(const struct message *theirs, enum llhttp_errno r, bool has_extensions)
{
	if (theirs->has_head)
		return r == HPE_INVALID_CONTENT_LENGTH || r == HPE_UNEXPECTED_CONTENT_LENGTH ||
		       r == HPE_INVALID_TRANSFER_ENCODING ||
		       (has_extensions && (r == HPE_STRICT || r == HPE_INVALID_CHUNK_SIZE));
	return r == HPE_INVALID_METHOD || r == HPE_INVALID_URL;
}

/* White space behind a value is none of it (RFC 9110, 5.5); llhttp sees another coding, or no
 * number. */
static bool has_blank_at_line_end(const uint8_t *data, size_t len)
{
	for (size_t i = 1; i < len; i++)
		if (data[i] == '\r' && (data[i - 1] == ' ' || data[i - 1] == '\t'))
			return true;
	return false;
}

static void compare(enum http_kind kind, const uint8_t *data, size_t len,
		    const struct message *ours)
{
	const char *reason;
	struct message theirs;
	enum llhttp_errno r;

	if (has_blank_at_line_end(data, len))
		return;
	r = read_theirs(kind, data, len, &theirs, &reason);

	if (!is_theirs_alone(&theirs, r, memchr(data, ';', len))) {
		if (!theirs.whole)
			fprintf(stderr, "llhttp: %s, %s\n", llhttp_errno_name(r), reason);
		INSIST(theirs.whole);
		INSIST(buf_len(&theirs.body) == buf_len(&ours->body));
		INSIST(!memcmp(buf_bytes(&theirs.body), buf_bytes(&ours->body),
			       buf_len(&ours->body)));
		INSIST(buf_len(&theirs.fields) == buf_len(&ours->fields));
		INSIST(!memcmp(buf_bytes(&theirs.fields), buf_bytes(&ours->fields),
			       buf_len(&ours->fields)));
		INSIST(theirs.end == ours->end || ours->until_close);
	}
	message_done(&theirs);
}

/* --- both --- */

/* All that is in data, in pieces; compared with llhttp when it comes whole. */
static int read_ours(enum http_kind kind, const uint8_t *data, size_t len, size_t step,
		     struct buf *ret_told)
{
	struct ours ours = {0};
	struct http_parser *parser;
	const uint8_t *begin = data;
	int r = 0;

	message_init(&ours.message);
	buf_init(&ours.told, ROOM);
	INSIST(http_parser_new(kind, &ops, &ours, &parser) == 0);
	while (len && r == 0) {
		size_t used = 0;

		r = http_parser_feed(parser, data, len < step ? len : step, &used);
		INSIST(r < 0 || used);
		data += used;
		len -= used;
		if (ours.message.whole && step == SIZE_MAX && !ours.message.is_connect) {
			ours.message.end = (size_t)(data - begin);
			compare(kind, begin, ours.message.end + len, &ours.message);
		}
		if (ours.message.whole)
			begin = data;
		ours.message.whole = false;
	}
	if (r == 0)
		r = http_parser_eof(parser);
	if (ours.message.whole && step == SIZE_MAX)
		compare(kind, begin, (size_t)(data - begin), &ours.message);
	http_parser_free(parser);
	message_done(&ours.message);
	*ret_told = ours.told;
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	bool is_response = len > 5 && memcmp(data, "HTTP/", 5) == 0;
	enum http_kind kind = is_response ? HTTP_KIND_RESPONSE : HTTP_KIND_REQUEST;
	size_t step = 1 + (len ? data[len / 2] % 64 : 0);
	struct buf whole, pieces;
	int r = read_ours(kind, data, len, SIZE_MAX, &whole);

	INSIST(read_ours(kind, data, len, step, &pieces) == r);
	INSIST(buf_len(&whole) == buf_len(&pieces));
	INSIST(!memcmp(buf_bytes(&whole), buf_bytes(&pieces), buf_len(&whole)));
	buf_done(&whole);
	buf_done(&pieces);
	return 0;
}
