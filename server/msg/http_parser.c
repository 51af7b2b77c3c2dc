/*
 * One side of one HTTP/1.x connection, message after message.
 *
 * llhttp finds the parts; what it lets pass and RFC 9112 does not is refused here: a CR
 * without LF and an LF without CR (llhttp 8.1.0 takes either for a line end), obs-fold,
 * Transfer-Encoding beside Content-Length, several Host fields.
 */
#include "msg/http_msg.h"

#include <errno.h>
#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct http_parser {
	llhttp_t llhttp;
	llhttp_settings_t settings;
	struct http_parser_ops ops;
	void *arg;
	enum http_kind kind;
	struct http_head head;
	struct http_field field; /* the one being read */
	bool in_message, in_trailer, head_request, complete;
	size_t trailer_bytes, leading_bytes;
	/* the line scanner over the raw head */
	bool scanning, after_cr, line_start, first_line;
	int stopped; /* what a callback of ours gave */
	char error[96];
};

static int parser_fail(struct http_parser *parser, int error, const char *what)
{
	snprintf(parser->error, sizeof(parser->error), "%s", what);
	parser->stopped = error;
	return HPE_USER;
}

static int append(struct http_parser *parser, const char *at, size_t len)
{
	if (parser->in_trailer) {
		/* Trailers are read and left out; they are bounded all the same. */
		parser->trailer_bytes += len;
		if (parser->trailer_bytes > HTTP_HEAD_MAX)
			return parser_fail(parser, -EMSGSIZE, "trailers too large");
		return 0;
	}
	if (buf_append(&parser->head.text, at, len) < 0)
		return parser_fail(parser, -EMSGSIZE, "head too large");
	return 0;
}

static int on_text(llhttp_t *llhttp, const char *at, size_t len)
{
	return append(llhttp->data, at, len);
}

/* The text begins with a NUL, so that a response without a reason has an empty one. */
static int on_reason(llhttp_t *llhttp, const char *at, size_t len)
{
	struct http_parser *parser = llhttp->data;

	if (!parser->head.reason)
		parser->head.reason = (uint32_t)buf_len(&parser->head.text);
	return append(parser, at, len);
}

static int on_url(llhttp_t *llhttp, const char *at, size_t len)
{
	struct http_parser *parser = llhttp->data;

	if (buf_len(&parser->head.text) - parser->head.target + len > HTTP_TARGET_MAX)
		return parser_fail(parser, -EMSGSIZE, "request target too long");
	return append(parser, at, len);
}

static int on_method_complete(llhttp_t *llhttp)
{
	struct http_parser *parser = llhttp->data;
	const char *method = llhttp_method_name(llhttp_get_method(llhttp));

	parser->head.method = (uint32_t)buf_len(&parser->head.text);
	if (append(parser, method, strlen(method) + 1))
		return HPE_USER;
	parser->head.target = (uint32_t)buf_len(&parser->head.text);
	return 0;
}

/* RFC 9110, 5.6.2. llhttp lets a space before the colon through, which the next server may take
 * for another field than we do (RFC 9112, 5.1). */
static bool is_token(const uint8_t *text, size_t len)
{
	static const bool is[256] = {
		['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['!'] = true,
		['#'] = true,	      ['$'] = true,	    ['%'] = true,	  ['&'] = true,
		['\''] = true,	      ['*'] = true,	    ['+'] = true,	  ['-'] = true,
		['.'] = true,	      ['^'] = true,	    ['_'] = true,	  ['`'] = true,
		['|'] = true,	      ['~'] = true,
	};

	for (size_t i = 0; i < len; i++)
		if (!is[text[i]])
			return false;
	return len > 0;
}

static int on_field_complete(llhttp_t *llhttp)
{
	struct http_parser *parser = llhttp->data;
	const struct buf *text = &parser->head.text;
	uint32_t name = parser->field.name;

	if (!parser->in_trailer && !is_token(buf_bytes(text) + name, buf_len(text) - name))
		return parser_fail(parser, -EPROTO, "field name is not a token");
	if (append(parser, "", 1))
		return HPE_USER;
	parser->field.value = (uint32_t)buf_len(&parser->head.text);
	return 0;
}

/* RFC 9112, 5.1: white space around a value is no part of it. */
static void trim_value(struct http_parser *parser)
{
	struct buf *text = &parser->head.text;
	const uint8_t *bytes = buf_bytes(text);

	while (text->len > parser->field.value &&
	       (bytes[text->len - 1] == ' ' || bytes[text->len - 1] == '\t'))
		text->len--;
}

static int on_value_complete(llhttp_t *llhttp)
{
	struct http_parser *parser = llhttp->data;
	struct http_head *head = &parser->head;

	if (parser->in_trailer)
		return 0;
	trim_value(parser);
	if (append(parser, "", 1))
		return HPE_USER;
	if (head->field_count == HTTP_FIELDS_MAX)
		return parser_fail(parser, -EMSGSIZE, "too many fields");
	head->fields[head->field_count++] = parser->field;
	parser->field.name = (uint32_t)buf_len(&head->text);
	return 0;
}

static int on_status_complete(llhttp_t *llhttp)
{
	struct http_parser *parser = llhttp->data;

	if (append(parser, "", 1))
		return HPE_USER;
	parser->field.name = (uint32_t)buf_len(&parser->head.text);
	return 0;
}

/* What decides a message's length, counted in one pass. */
struct framing_fields {
	unsigned encodings, lengths, hosts;
	const char *encoding;
};

static void count_framing(const struct http_head *head, struct framing_fields *ret)
{
	*ret = (struct framing_fields){0};
	for (uint32_t i = 0; i < head->field_count; i++) {
		const char *name = http_text(head, head->fields[i].name);

		switch (name[0] | 0x20) {
		case 'c':
			ret->lengths += strcasecmp(name, "content-length") == 0;
			break;
		case 'h':
			ret->hosts += strcasecmp(name, "host") == 0;
			break;
		case 't':
			if (strcasecmp(name, "transfer-encoding") != 0)
				break;
			ret->encodings++;
			ret->encoding = http_text(head, head->fields[i].value);
			break;
		}
	}
}

/* RFC 9112, 6.1 and 6.3: what makes the length of a message doubtful is refused. */
static const char *framing_error(const struct http_parser *parser)
{
	const struct http_head *head = &parser->head;
	struct framing_fields f;

	count_framing(head, &f);
	if (parser->llhttp.http_major != 1 || parser->llhttp.http_minor > 1)
		return "HTTP version not supported";
	if (f.lengths > 1)
		return "more than one Content-Length";
	if (f.encodings && f.lengths)
		return "both Transfer-Encoding and Content-Length";
	if (f.encodings &&
	    (f.encodings > 1 || head->minor == 0 || strcasecmp(f.encoding, "chunked") != 0))
		return "Transfer-Encoding other than chunked";
	if (parser->kind == HTTP_KIND_REQUEST && f.hosts > 1)
		return "more than one Host";
	if (parser->kind == HTTP_KIND_REQUEST && head->minor == 1 && !f.hosts)
		return "no Host";
	return NULL;
}

static void read_framing(struct http_parser *parser)
{
	struct http_head *head = &parser->head;
	bool bodyless = parser->kind == HTTP_KIND_RESPONSE &&
			(parser->head_request || head->status == 204 || head->status == 304 ||
			 head->status / 100 == 1);

	if (bodyless)
		head->framing = HTTP_NO_BODY;
	else if (parser->llhttp.flags & F_CHUNKED)
		head->framing = HTTP_CHUNKED;
	else if (parser->llhttp.flags & F_CONTENT_LENGTH)
		head->framing = HTTP_LENGTH;
	else
		head->framing =
			parser->kind == HTTP_KIND_RESPONSE ? HTTP_UNTIL_CLOSE : HTTP_NO_BODY;
	head->content_length = head->framing == HTTP_LENGTH ? parser->llhttp.content_length : 0;
	if (head->framing == HTTP_LENGTH && !head->content_length)
		parser->llhttp.upgrade = 0;
}

/* RFC 9110, 7.8. What is asked with a body would have to wait for its end, and h2c would take
 * the requests out of the rules' sight: both are asked without it. */
static bool wants_upgrade(const struct http_head *head)
{
	char protocols[HTTP_UPGRADE_MAX];

	if (head->kind == HTTP_KIND_RESPONSE && head->status != 101)
		return false;
	return head->minor == 1 && !head->content_length &&
	       (head->framing == HTTP_NO_BODY || head->framing == HTTP_LENGTH) &&
	       http_field_has_token(head, "connection", "upgrade") &&
	       http_upgrade_of(head, protocols, sizeof(protocols));
}

static int on_headers_complete(llhttp_t *llhttp)
{
	struct http_parser *parser = llhttp->data;
	struct http_head *head = &parser->head;
	const char *wrong;
	int r;

	head->minor = llhttp->http_minor;
	head->status = (uint16_t)llhttp->status_code;
	wrong = framing_error(parser);
	if (wrong)
		return parser_fail(parser, -EPROTO, wrong);
	read_framing(parser);
	head->keep_alive = llhttp_should_keep_alive(llhttp);
	head->upgrade = wants_upgrade(head);
	head->expect_continue = http_field_has_token(head, "expect", "100-continue");
	/* Who gets the 101 sees to what follows it. */
	llhttp->upgrade = 0;
	parser->scanning = false;
	r = parser->ops.on_head(parser->arg, head);
	if (r < 0) {
		parser->stopped = r;
		return HPE_USER;
	}
	parser->in_trailer = true;
	return parser->kind == HTTP_KIND_RESPONSE && head->framing == HTTP_NO_BODY ? 1 : 0;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t len)
{
	struct http_parser *parser = llhttp->data;
	int r = parser->ops.on_body(parser->arg, (const uint8_t *)at, len);

	if (r < 0)
		parser->stopped = r;
	return r < 0 ? HPE_USER : 0;
}

static int on_message_complete(llhttp_t *llhttp)
{
	struct http_parser *parser = llhttp->data;

	parser->complete = true;
	return HPE_PAUSED;
}

int http_parser_new(enum http_kind kind, const struct http_parser_ops *ops, void *arg,
		    struct http_parser **ret_parser)
{
	struct http_parser *parser = calloc(1, sizeof(*parser));

	if (!parser)
		return -ENOMEM;
	parser->kind = kind;
	parser->ops = *ops;
	parser->arg = arg;
	http_head_init(&parser->head, kind);
	llhttp_settings_init(&parser->settings);
	parser->settings.on_method_complete = on_method_complete;
	parser->settings.on_url = on_url;
	parser->settings.on_url_complete = on_status_complete;
	parser->settings.on_status = on_reason;
	parser->settings.on_status_complete = on_status_complete;
	parser->settings.on_header_field = on_text;
	parser->settings.on_header_field_complete = on_field_complete;
	parser->settings.on_header_value = on_text;
	parser->settings.on_header_value_complete = on_value_complete;
	parser->settings.on_headers_complete = on_headers_complete;
	parser->settings.on_body = on_body;
	parser->settings.on_message_complete = on_message_complete;
	*ret_parser = parser;
	return 0;
}

void http_parser_free(struct http_parser *parser)
{
	if (!parser)
		return;
	http_head_done(&parser->head);
	free(parser);
}

void http_parser_expect(struct http_parser *parser, const char *request_method)
{
	parser->head_request = strcmp(request_method, "HEAD") == 0;
}

static int begin_message(struct http_parser *parser)
{
	llhttp_init(&parser->llhttp,
		    parser->kind == HTTP_KIND_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE,
		    &parser->settings);
	parser->llhttp.data = parser;
	http_head_clear(&parser->head);
	parser->in_message = true;
	parser->in_trailer = false;
	parser->trailer_bytes = parser->leading_bytes = 0;
	parser->complete = false;
	parser->scanning = parser->line_start = parser->first_line = true;
	parser->after_cr = false;
	parser->stopped = 0;
	parser->error[0] = '\0';
	if (buf_append(&parser->head.text, "", 1) < 0)
		return -ENOMEM;
	parser->field = (struct http_field){.name = 1};
	return 0;
}

/* Over the raw bytes of the head, up to its end: every line ends in CRLF and none is folded. */
static int lone(struct http_parser *parser)
{
	return parser_fail(parser, -EPROTO, "CR and LF only together"), -EPROTO;
}

/* A piece of one line, without its end. */
static int scan_piece(struct http_parser *parser, const uint8_t *piece, size_t len)
{
	if (!len)
		return 0;
	if (parser->line_start && !parser->first_line && (*piece == ' ' || *piece == '\t'))
		return parser_fail(parser, -EPROTO, "folded header line"), -EPROTO;
	parser->line_start = false;
	return 0;
}

static int scan_lines(struct http_parser *parser, const uint8_t *data, size_t len)
{
	while (len && parser->scanning) {
		const uint8_t *lf = memchr(data, '\n', len);
		size_t line = lf ? (size_t)(lf - data) : len;
		const uint8_t *cr = memchr(data, '\r', line);

		if (parser->after_cr && (!lf || line))
			return lone(parser);
		/* A CR is the last before LF, or the last that is here. */
		if (cr && cr != data + line - 1)
			return lone(parser);
		if (lf && !cr && !parser->after_cr)
			return lone(parser);
		if (scan_piece(parser, data, cr ? line - 1 : line) < 0)
			return -EPROTO;
		parser->after_cr = cr && !lf;
		if (!lf)
			return 0;
		parser->scanning = !parser->line_start;
		parser->line_start = true;
		parser->first_line = false;
		data += line + 1;
		len -= line + 1;
	}
	return 0;
}

/* RFC 9112, 2.2: empty lines before a request are skipped. */
static size_t skip_empty_lines(const uint8_t *data, size_t len)
{
	size_t n = 0;

	while (n < len && (data[n] == '\r' || data[n] == '\n'))
		n++;
	return n;
}

static int finish_message(struct http_parser *parser)
{
	parser->in_message = false;
	parser->complete = false;
	return parser->ops.on_end(parser->arg);
}

int http_parser_feed(struct http_parser *parser, const uint8_t *data, size_t len,
		     size_t *ret_consumed)
{
	size_t skipped = 0;
	llhttp_errno_t err;

	*ret_consumed = 0;
	if (!parser->in_message) {
		skipped = parser->kind == HTTP_KIND_REQUEST ? skip_empty_lines(data, len) : 0;
		if (skipped == len) {
			*ret_consumed = len;
			return 0;
		}
		if (begin_message(parser) < 0)
			return -ENOMEM;
	}
	if (parser->scanning && scan_lines(parser, data + skipped, len - skipped) < 0)
		return parser->stopped;
	err = llhttp_execute(&parser->llhttp, (const char *)data + skipped, len - skipped);
	if (parser->stopped)
		return parser->stopped;
	if (err == HPE_OK) {
		*ret_consumed = len;
		return 0;
	}
	if (err == HPE_PAUSED && parser->complete) {
		*ret_consumed =
			(size_t)((const uint8_t *)llhttp_get_error_pos(&parser->llhttp) - data);
		return finish_message(parser);
	}
	snprintf(parser->error, sizeof(parser->error), "%s",
		 llhttp_get_error_reason(&parser->llhttp));
	return -EPROTO;
}

int http_parser_eof(struct http_parser *parser)
{
	llhttp_errno_t err;

	if (!parser->in_message)
		return 0;
	err = llhttp_finish(&parser->llhttp);
	if (parser->complete && (err == HPE_OK || err == HPE_PAUSED))
		return finish_message(parser);
	snprintf(parser->error, sizeof(parser->error), "the stream ended inside a message");
	return -EPROTO;
}

bool http_parser_in_message(const struct http_parser *parser)
{
	return parser->in_message;
}

const char *http_parser_error(const struct http_parser *parser)
{
	return parser->error;
}

void http_parser_reset(struct http_parser *parser)
{
	parser->in_message = false;
	parser->complete = false;
}
