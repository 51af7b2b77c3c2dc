/*
 * One side of one HTTP/1.x connection, message after message.
 *
 *   between --a line begins--> head --empty line--> body --its end--> (between)
 *                                \--no body----------^ \--last chunk--> trailers --empty line--^
 *
 * Heads are gathered and parsed line by line (http_line.c), and bodies cut out by length, by
 * chunks (http_chunks.c) or up to the end of the stream. What two readers might read in two
 * ways is refused: a CR or LF alone, folded lines, Transfer-Encoding beside Content-Length or
 * other than chunked, numbers that are not plain, several Host fields.
 */
#include "msg/http_chunks.h"
#include "msg/http_line.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum step { STEP_BETWEEN, STEP_HEAD, STEP_BODY, STEP_TRAILERS, STEP_END };

struct http_parser {
	struct http_parser_ops ops;
	void *arg;
	enum http_kind kind;
	enum step step;
	struct http_head head;
	struct http_head *trailers; /* NULL until a message has some */
	size_t line;		    /* where the one being gathered begins in its head's text */
	unsigned empty_lines;	    /* before this message */
	bool after_cr, first_line, head_request;
	uint64_t left; /* HTTP_LENGTH */
	struct http_chunks chunks;
	const char *wrong;
};

int http_parser_new(enum http_kind kind, const struct http_parser_ops *ops, void *arg,
		    struct http_parser **ret_parser)
{
	struct http_parser *parser = calloc(1, sizeof(*parser));

	if (!parser)
		return -ENOMEM;
	parser->kind = kind;
	parser->ops = *ops;
	parser->arg = arg;
	parser->wrong = "";
	http_head_init(&parser->head, kind);
	*ret_parser = parser;
	return 0;
}

static void drop_trailers(struct http_parser *parser)
{
	if (parser->trailers)
		http_head_done(parser->trailers);
	free(parser->trailers);
	parser->trailers = NULL;
}

void http_parser_free(struct http_parser *parser)
{
	if (!parser)
		return;
	drop_trailers(parser);
	http_head_done(&parser->head);
	free(parser);
}

void http_parser_expect(struct http_parser *parser, const char *request_method)
{
	parser->head_request = strcmp(request_method, "HEAD") == 0;
}

static int refuse(struct http_parser *parser, int error, const char *wrong)
{
	parser->wrong = wrong;
	return error;
}

/* --- what the fields say of the body --- */

struct framing_fields {
	unsigned encodings, lengths, hosts;
	const char *encoding, *length;
};

static void count_framing(const struct http_head *head, struct framing_fields *ret)
{
	*ret = (struct framing_fields){0};
	for (uint32_t i = 0; i < head->field_count; i++) {
		const char *name = http_text(head, head->fields[i].name);
		const char *value = http_text(head, head->fields[i].value);

		switch (name[0] | 0x20) {
		case 'c':
			if (strcasecmp(name, "content-length") != 0)
				break;
			ret->lengths++;
			ret->length = value;
			break;
		case 'h':
			ret->hosts += strcasecmp(name, "host") == 0;
			break;
		case 't':
			if (strcasecmp(name, "transfer-encoding") != 0)
				break;
			ret->encodings++;
			ret->encoding = value;
			break;
		}
	}
}

/* Digits and nothing else. RFC 9110, 8.6 allows zeros in front; some read them as octal. */
static bool read_length(const char *text, uint64_t *ret_length)
{
	uint64_t length = 0;
	size_t digits = strspn(text, "0123456789");

	if (!digits || digits > 18 || text[digits] || (digits > 1 && text[0] == '0'))
		return false;
	for (size_t i = 0; i < digits; i++)
		length = length * 10 + (uint64_t)(text[i] - '0');
	*ret_length = length;
	return true;
}

/* RFC 9112, 6.1: another coding ends nowhere that we could tell, or is one that we do not know. */
static int check_encoding(struct http_parser *parser, const struct framing_fields *f)
{
	size_t len = strlen(f->encoding);

	if (f->lengths)
		return refuse(parser, -EPROTO, "both Transfer-Encoding and Content-Length");
	if (parser->head.minor == 0)
		return refuse(parser, -EPROTO, "Transfer-Encoding in HTTP/1.0");
	if (f->encodings > 1)
		return refuse(parser, -EPROTO, "more than one Transfer-Encoding");
	if (strcasecmp(f->encoding, "chunked") == 0)
		return 0;
	if (parser->kind == HTTP_KIND_REQUEST && len > 9 &&
	    strcasecmp(f->encoding + len - 9, ", chunked") == 0)
		return refuse(parser, -EOPNOTSUPP, "Transfer-Encoding other than chunked");
	return refuse(parser, -EPROTO, "Transfer-Encoding other than chunked");
}

/* RFC 9112, 6: what makes the length of a message doubtful is refused. */
static int check_framing(struct http_parser *parser, uint64_t *ret_length, bool *ret_chunked)
{
	const struct http_head *head = &parser->head;
	struct framing_fields f;

	count_framing(head, &f);
	if (parser->kind == HTTP_KIND_REQUEST && f.hosts > 1)
		return refuse(parser, -EPROTO, "more than one Host");
	if (parser->kind == HTTP_KIND_REQUEST && head->minor == 1 && !f.hosts)
		return refuse(parser, -EPROTO, "no Host");
	if (f.lengths > 1)
		return refuse(parser, -EPROTO, "more than one Content-Length");
	if (f.lengths && !read_length(f.length, ret_length))
		return refuse(parser, -EPROTO, "Content-Length is not a plain number");
	*ret_chunked = f.encodings;
	return f.encodings ? check_encoding(parser, &f) : 0;
}

/* RFC 9112, 6.3. doubtful: it says that a body follows where none can. */
static int read_framing(struct http_parser *parser, bool *ret_doubtful)
{
	struct http_head *head = &parser->head;
	bool is_request = parser->kind == HTTP_KIND_REQUEST, chunked = false;
	uint64_t length = UINT64_MAX;
	int r = check_framing(parser, &length, &chunked);

	if (r < 0)
		return r;
	if (!is_request && (parser->head_request || head->status == 204 || head->status == 304 ||
			    head->status / 100 == 1))
		head->framing = HTTP_NO_BODY;
	else if (chunked)
		head->framing = HTTP_CHUNKED;
	else if (length != UINT64_MAX)
		head->framing = HTTP_LENGTH;
	else
		head->framing = is_request ? HTTP_NO_BODY : HTTP_UNTIL_CLOSE;
	head->content_length = head->framing == HTTP_LENGTH ? length : 0;
	/* RFC 9110, 8.6: some read one there all the same, and wait for a body. */
	if (!is_request && (head->status == 204 || head->status / 100 == 1)) {
		*ret_doubtful = chunked || (length && length != UINT64_MAX);
		http_field_remove(head, "content-length");
	}
	return 0;
}

/* RFC 9112, 9.3 */
static bool stays_open(const struct http_head *head)
{
	if (http_field_has_token(head, "connection", "close") || head->framing == HTTP_UNTIL_CLOSE)
		return false;
	return head->minor == 1 || http_field_has_token(head, "connection", "keep-alive");
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

/* --- lines --- */

static void begin_message(struct http_parser *parser)
{
	http_head_clear(&parser->head);
	drop_trailers(parser);
	parser->step = STEP_HEAD;
	parser->first_line = true;
	parser->line = 0;
	parser->wrong = "";
}

/* RFC 9112, 2.2: empty lines before a request are skipped, some. */
static int skip_empty_lines(struct http_parser *parser, const uint8_t *data, size_t len,
			    size_t *ret_used)
{
	size_t n = 0;

	for (; n < len && (parser->after_cr || data[n] == '\r'); n++) {
		if (parser->after_cr && data[n] != '\n')
			return refuse(parser, -EPROTO, "CR and LF only together");
		if (parser->after_cr && ++parser->empty_lines > HTTP_EMPTY_LINES_MAX)
			return refuse(parser, -EPROTO, "too many empty lines");
		parser->after_cr = !parser->after_cr;
	}
	*ret_used = n;
	if (n == len)
		return 0;
	parser->empty_lines = 0;
	begin_message(parser);
	return 0;
}

static int head_over(struct http_parser *parser)
{
	struct http_head *head = &parser->head;
	bool doubtful = false;
	int r = read_framing(parser, &doubtful);

	if (r < 0)
		return r;
	head->keep_alive = stays_open(head) && !doubtful;
	head->upgrade = wants_upgrade(head);
	head->expect_continue = http_field_has_token(head, "expect", "100-continue");
	parser->left = head->content_length;
	http_chunks_begin(&parser->chunks);
	parser->step =
		head->framing == HTTP_NO_BODY || (head->framing == HTTP_LENGTH && !parser->left)
			? STEP_END
			: STEP_BODY;
	return parser->ops.on_head(parser->arg, head);
}

static int first_line(struct http_parser *parser)
{
	parser->first_line = false;
	return parser->kind == HTTP_KIND_REQUEST
		       ? http_line_request(&parser->head, parser->line, &parser->wrong)
		       : http_line_status(&parser->head, parser->line, &parser->wrong);
}

static int field_line(struct http_parser *parser, struct http_head *head)
{
	if (head->field_count == HTTP_FIELDS_MAX)
		return refuse(parser, -EMSGSIZE, "too many fields");
	return http_line_field(head, parser->line, &parser->wrong);
}

static int trailer_line(struct http_parser *parser)
{
	struct http_head *trailers = parser->trailers;
	int r = field_line(parser, trailers);

	if (r < 0)
		return r;
	if (!http_field_may_trail(&parser->head, http_text(trailers, (uint32_t)parser->line))) {
		trailers->field_count--;
		trailers->text.len = parser->line;
	}
	return 0;
}

/* A line is in the text, with its CR; the LF was read. */
static int line_over(struct http_parser *parser, struct http_head *head)
{
	struct buf *text = &head->text;
	int r;

	if (text->len == parser->line || buf_bytes(text)[text->len - 1] != '\r')
		return refuse(parser, -EPROTO, "CR and LF only together");
	text->len--;
	if (text->len == parser->line) {
		if (parser->step == STEP_HEAD && !parser->first_line)
			return head_over(parser);
		if (parser->step == STEP_HEAD)
			return refuse(parser, -EPROTO, "an empty line for a status line");
		parser->step = STEP_END;
		return 0;
	}
	if (parser->step == STEP_TRAILERS)
		r = trailer_line(parser);
	else if (parser->first_line)
		r = first_line(parser);
	else
		r = field_line(parser, head);
	parser->line = text->len;
	return r;
}

/* The target's bound is told apart: it has a status of its own. */
static int check_line(struct http_parser *parser, const struct http_head *head)
{
	size_t len = buf_len(&head->text) - parser->line;

	if (parser->step == STEP_HEAD && parser->first_line && parser->kind == HTTP_KIND_REQUEST &&
	    len > HTTP_TARGET_MAX)
		return refuse(parser, -ENAMETOOLONG, "request target too long");
	return 0;
}

/* What is received, without the room for what is added. */
static size_t room_of(const struct http_parser *parser)
{
	return parser->step == STEP_HEAD ? HTTP_HEAD_MAX : HTTP_TRAILERS_MAX;
}

static int read_line(struct http_parser *parser, struct http_head *head, const uint8_t *data,
		     size_t len, size_t *ret_used)
{
	const uint8_t *lf = memchr(data, '\n', len);
	size_t n = lf ? (size_t)(lf - data) : len;
	int r;

	if (buf_len(&head->text) + n > room_of(parser) || buf_append(&head->text, data, n) < 0)
		return refuse(parser, -EMSGSIZE,
			      parser->step == STEP_HEAD ? "head too large" : "trailers too large");
	*ret_used = lf ? n + 1 : n;
	r = check_line(parser, head);
	return r == 0 && lf ? line_over(parser, head) : r;
}

/* --- bodies --- */

static int begin_trailers(struct http_parser *parser)
{
	parser->trailers = malloc(sizeof(*parser->trailers));
	if (!parser->trailers)
		return refuse(parser, -ENOMEM, "out of memory");
	http_head_init(parser->trailers, parser->kind);
	parser->step = STEP_TRAILERS;
	parser->line = 0;
	return 0;
}

static int read_chunks(struct http_parser *parser, const uint8_t *data, size_t len,
		       size_t *ret_used)
{
	const uint8_t *piece;
	size_t piece_len;
	int r = http_chunks_read(&parser->chunks, data, len, ret_used, &piece, &piece_len,
				 &parser->wrong);

	if (r == 0 && piece)
		r = parser->ops.on_body(parser->arg, piece, piece_len);
	if (r == 0 && parser->chunks.step == HTTP_CHUNK_OVER)
		r = begin_trailers(parser);
	return r;
}

static int read_body(struct http_parser *parser, const uint8_t *data, size_t len, size_t *ret_used)
{
	if (parser->head.framing == HTTP_CHUNKED)
		return read_chunks(parser, data, len, ret_used);
	if (parser->head.framing == HTTP_LENGTH) {
		len = len < parser->left ? len : (size_t)parser->left;
		parser->left -= len;
		if (!parser->left)
			parser->step = STEP_END;
	}
	*ret_used = len;
	return parser->ops.on_body(parser->arg, data, len);
}

/* --- one after another --- */

static int finish_message(struct http_parser *parser)
{
	struct http_head *trailers = parser->trailers;
	int r = 0;

	parser->step = STEP_BETWEEN;
	if (trailers && trailers->field_count && parser->ops.on_trailers)
		r = parser->ops.on_trailers(parser->arg, trailers);
	return r == 0 ? parser->ops.on_end(parser->arg) : r;
}

static int take_step(struct http_parser *parser, const uint8_t *data, size_t len, size_t *ret_used)
{
	switch (parser->step) {
	case STEP_BETWEEN:
		if (parser->kind == HTTP_KIND_REQUEST)
			return skip_empty_lines(parser, data, len, ret_used);
		begin_message(parser);
		return 0;
	case STEP_HEAD:
		return read_line(parser, &parser->head, data, len, ret_used);
	case STEP_BODY:
		return read_body(parser, data, len, ret_used);
	case STEP_TRAILERS:
		return read_line(parser, parser->trailers, data, len, ret_used);
	case STEP_END:
		break;
	}
	return -EPROTO;
}

int http_parser_feed(struct http_parser *parser, const uint8_t *data, size_t len,
		     size_t *ret_consumed)
{
	size_t at = 0;

	while (at < len) {
		size_t used = 0;
		int r = take_step(parser, data + at, len - at, &used);

		at += used;
		*ret_consumed = at;
		if (r < 0)
			return r;
		if (parser->step == STEP_END)
			return finish_message(parser);
	}
	*ret_consumed = at;
	return 0;
}

int http_parser_eof(struct http_parser *parser)
{
	if (parser->step == STEP_BETWEEN)
		return 0;
	if (parser->step == STEP_BODY && parser->head.framing == HTTP_UNTIL_CLOSE)
		return finish_message(parser);
	return refuse(parser, -EPROTO, "the stream ended inside a message");
}

bool http_parser_in_message(const struct http_parser *parser)
{
	return parser->step != STEP_BETWEEN;
}

const char *http_parser_error(const struct http_parser *parser)
{
	return parser->wrong;
}

void http_parser_reset(struct http_parser *parser)
{
	parser->step = STEP_BETWEEN;
	parser->after_cr = false;
	parser->empty_lines = 0;
}
