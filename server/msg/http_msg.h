/*
 * HTTP/1.x messages: heads parsed and written, bodies framed (RFC 9112).
 * Pure: bytes in, structs out, no I/O. What is ambiguous is refused, on both sides:
 * Transfer-Encoding with Content-Length, bare CR or LF, more than one Host, obs-fold.
 */
#pragma once

#include "base/buf.h"
#include "base/error.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_kind { HTTP_KIND_REQUEST, HTTP_KIND_RESPONSE };
enum http_framing { HTTP_NO_BODY, HTTP_LENGTH, HTTP_CHUNKED, HTTP_UNTIL_CLOSE };

/* What an intermediary adds; the version is the received message's (RFC 9110, 7.6.3). */
#define HTTP_VIA "Via: 1.%u holdfast\r\n"

/* Offsets into the head's own text, so that a head can be moved and grown. */
struct http_field {
	uint32_t name, value; /* offsets of NUL-terminated strings in text */
};

struct http_head {
	enum http_kind kind;
	uint8_t minor;	 /* HTTP/1.minor */
	uint16_t status; /* response */
	uint32_t method; /* request: offset; "GET" */
	uint32_t target; /* request: offset, as sent */
	uint32_t reason; /* response: offset */
	struct http_field fields[HTTP_FIELDS_MAX + HTTP_FIELDS_OWN];
	uint32_t field_count;
	struct buf text;
	/* what the fields say */
	enum http_framing framing;
	uint64_t content_length; /* HTTP_LENGTH */
	bool keep_alive, expect_continue;
	/* A request without a body that asks for another protocol than h2c; a 101. */
	bool upgrade;
};

void http_head_init(struct http_head *head, enum http_kind kind);
void http_head_done(struct http_head *head);
void http_head_clear(struct http_head *head); /* for the next message; memory is kept */

static inline const char *http_text(const struct http_head *head, uint32_t offset)
{
	return (const char *)buf_bytes(&head->text) + offset;
}
static inline const char *http_method(const struct http_head *head)
{
	return http_text(head, head->method);
}
static inline const char *http_target(const struct http_head *head)
{
	return http_text(head, head->target);
}
/* First field of that name, case-insensitive, or NULL. */
const char *http_field(const struct http_head *head, const char *name);
/* Does a comma-separated list field (all of that name) contain the token? */
bool http_field_has_token(const struct http_head *head, const char *name, const char *token);
/* 0, -ENOBUFS, -ENOMEM. */
int http_field_add(struct http_head *head, const char *name, const char *value)
	__attribute__((warn_unused_result));
void http_field_remove(struct http_head *head, const char *name); /* all of that name */
/* What Upgrade offers or chooses, without h2c: "websocket". false: nothing, or too long. */
bool http_upgrade_of(const struct http_head *head, char *ret, size_t size);
/* Is the field only for one connection: Connection, what it names, Keep-Alive,
 * Transfer-Encoding, TE, Trailer, Upgrade, HTTP2-Settings, Proxy-*? (RFC 9110, 7.6.1) */
bool http_field_is_hop_by_hop(const struct http_head *head, const char *name);
/* May the field come after the body of that message? Not what frames, routes, guards or
 * describes it (RFC 9110, 6.5.1). */
bool http_field_may_trail(const struct http_head *head, const char *name);
/* Remove what Connection names, but for what frames, routes or is of the connection: from here on
 * nobody believes it to go on. */
void http_drop_named(struct http_head *head);
/* "Date: Mon, 23 Nov 2026 15:00:00 GMT\r\n", or "" when the clock was never set: such a moment is
 * no date (RFC 9110, 6.6.1). now: seconds of the wall clock. */
enum { HTTP_DATE_LINE_MAX = 48 };
void http_date_line(int64_t now, char ret_line[HTTP_DATE_LINE_MAX]);
bool http_method_is_safe(const char *method);	    /* GET, HEAD, OPTIONS, TRACE */
bool http_method_is_idempotent(const char *method); /* and PUT, DELETE */

/* Write a request head ("POST /x HTTP/1.1") or a response head with its fields and the empty
 * line. Hop-by-hop fields are left out, but for what is said anew to the next hop: the Upgrade of
 * a head that has `upgrade` set, TE: trailers, and the Trailer of a chunked message.
 * extra: more lines, each ending in CRLF, or NULL. */
int http_write_request_head(struct buf *out, const struct http_head *head, const char *target,
			    const char *extra) __attribute__((warn_unused_result));
int http_write_response_head(struct buf *out, const struct http_head *head, const char *extra)
	__attribute__((warn_unused_result));
/* Only the "Name: value" lines, for storing. */
int http_write_fields(struct buf *out, const struct http_head *head)
	__attribute__((warn_unused_result));
/* The reverse: lines into fields. -EINVAL. */
int http_read_fields(struct http_head *head, const uint8_t *lines, size_t len)
	__attribute__((warn_unused_result));

/*
 * The parser of one side of one connection, message after message.
 * Callbacks return 0, or negative to stop; http_parser_feed then returns that.
 */
struct http_parser;
struct http_parser_ops {
	int (*on_head)(void *arg,
		       struct http_head *head); /* the parser's head: copy what is kept */
	int (*on_body)(void *arg, const uint8_t *data, size_t len);
	int (*on_end)(void *arg); /* message complete; feeding stops here, see ret_consumed */
	/* The trailer fields of a chunked body, before on_end; only their fields are filled, those
	 * that may not be a trailer (RFC 9110, 6.5.1) are left out. NULL: not wanted. */
	int (*on_trailers)(void *arg, const struct http_head *trailers);
};
int http_parser_new(enum http_kind kind, const struct http_parser_ops *ops, void *arg,
		    struct http_parser **ret_parser) __attribute__((warn_unused_result));
void http_parser_free(struct http_parser *parser);
/* Before the next response: what was the request's method (HEAD and CONNECT have no body)? */
void http_parser_expect(struct http_parser *parser, const char *request_method);
/* 0; -EPROTO for what RFC 9112 forbids (http_parser_error says what), -EMSGSIZE for a head or
 * trailers over the limits, -ENAMETOOLONG for a target; -EPROTONOSUPPORT for another version of
 * HTTP, -EOPNOTSUPP for a transfer coding, of a request; or what a callback gave. Stops after one
 * whole message: *ret_consumed may be less than len; feed the rest later. */
int http_parser_feed(struct http_parser *parser, const uint8_t *data, size_t len,
		     size_t *ret_consumed) __attribute__((warn_unused_result));
/* End of stream: completes a body until close; 0, or -EPROTO in the middle of a message. */
int http_parser_eof(struct http_parser *parser) __attribute__((warn_unused_result));
/* Has a message begun and not ended? */
bool http_parser_in_message(const struct http_parser *parser);
const char *http_parser_error(const struct http_parser *parser);
/* Start over, for a new connection. */
void http_parser_reset(struct http_parser *parser);
