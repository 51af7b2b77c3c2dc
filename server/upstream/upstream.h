/*
 * Requests and streams to origins, over one link each.
 *
 * upstream_send carries one HTTP request over a link that the caller chose: resolves the
 * name when it has no address, connects (or takes an idle connection of the same link,
 * address, port and scheme), sends, and gives the response as it comes. upstream_connect opens
 * a plain stream. Owns the pool. Never chooses a link, never retries, never stores: the
 * caller hears how far it came and decides.
 */
#pragma once

#include "conn/conn.h"
#include "link/link.h"
#include "msg/http_msg.h"
#include "resolver/resolver.h"

struct upstream;
struct upstream_request;

int upstream_new(uv_loop_t *loop, struct resolver *resolver, struct upstream **ret_upstream)
	__attribute__((warn_unused_result));
void upstream_close(struct upstream *upstream);
/* The link is gone: idle connections over it are closed, running ones fail with -ENETDOWN. */
void upstream_link_lost(struct upstream *upstream, struct link *link);

/* Where to: a literal address, or a name that is resolved over the link. */
struct upstream_target {
	const char *host; /* used when address is NULL; borrowed for the call */
	const struct ip *address;
	uint16_t port;
	/* TLS to the origin, which must prove that it is `server_name` (a name, or an address as
	 * text; borrowed for the call). NULL: plain TCP. */
	const char *server_name;
	const struct rule_policy *policy; /* with server_name: its trust and client certificate */
};

/* How far a request came when it failed: may it be sent again elsewhere? */
enum upstream_stage {
	UPSTREAM_NOT_SENT,   /* resolving or connecting: nothing reached the origin */
	UPSTREAM_SENT,	     /* some of the request was written, no response byte came */
	UPSTREAM_RESPONDING, /* response bytes came */
};

struct upstream_ops {
	/* The final response's head. Borrowed. */
	void (*on_head)(void *arg, const struct http_head *head);
	void (*on_body)(void *arg, const uint8_t *data, size_t len);
	/* The response is complete; the request object is gone after this call. */
	void (*on_end)(void *arg);
	/* It failed; gone after this call. status: -ECONNREFUSED, -ETIMEDOUT, -ENOENT (name),
	 * -ECONNRESET, -EPROTO, -ENETDOWN ... -EKEYREJECTED: by TLS the origin is not who it should
	 * be, or refuses us; another try by another way could hide an attack. */
	void (*on_fail)(void *arg, int status, enum upstream_stage stage, const char *what);
	/* More of a streamed body may be written: once when the connection stands, then after
	 * upstream_is_full. NULL when the body was given whole. */
	void (*on_drain)(void *arg);
	/* A 1xx before it, but for 101. NULL: not wanted. */
	void (*on_interim)(void *arg, const struct http_head *head);
	/* The trailers of a chunked response, before on_end. NULL: not wanted. */
	void (*on_trailers)(void *arg, const struct http_head *trailers);
	/* 101: the connection is no longer HTTP and now the callee's, with what was read beyond the
	 * head; the request object is gone after this call. NULL: an upgrade is a failure
	 * (-EPROTO). Asked for with the head's Upgrade field, see upstream_send. */
	void (*on_upgrade)(void *arg, const struct http_head *head, struct conn *conn,
			   struct link *link, const uint8_t *rest, size_t len);
};

/* head: the request to send, hop-by-hop fields are left out and `extra` lines added; it is
 * borrowed for the call, body until the request ends. stream: the body, of head's framing,
 * follows with upstream_write once on_drain was called; body is NULL then. With a whole body
 * Content-Length is added where the head has none. Callbacks never come before the call
 * returns. 0 or negative errno (then no callback). */
int upstream_send(struct upstream *upstream, struct link *link,
		  const struct upstream_target *target, const struct http_head *head,
		  const char *request_target, const char *extra, const uint8_t *body,
		  size_t body_len, bool stream, const struct upstream_ops *ops, void *arg,
		  struct upstream_request **ret_request) __attribute__((warn_unused_result));
/* Streamed body: framed as the head says (length or chunked). */
int upstream_write(struct upstream_request *request, const uint8_t *data, size_t len)
	__attribute__((warn_unused_result));
/* trailers: "Name: value" lines, for a chunked one; may be NULL. */
int upstream_write_end(struct upstream_request *request, const struct buf *trailers)
	__attribute__((warn_unused_result));
bool upstream_is_full(const struct upstream_request *request);
/* Backpressure from the app: stop and go on reading the response. */
void upstream_pause(struct upstream_request *request);
void upstream_resume(struct upstream_request *request);
/* Give up; no callback after this. */
void upstream_cancel(struct upstream_request *request);
struct link *upstream_request_link(const struct upstream_request *request);

/* A plain stream over a link, e.g. for TLS. One callback; on 0 the conn is the callee's. */
typedef void (*upstream_stream_cb)(void *arg, int status, struct conn *conn, const char *what);
struct upstream_dial;
int upstream_connect(struct upstream *upstream, struct link *link,
		     const struct upstream_target *target, upstream_stream_cb cb, void *arg,
		     struct upstream_dial **ret_dial) __attribute__((warn_unused_result));
void upstream_dial_cancel(struct upstream_dial *dial);

struct upstream_statistics {
	uint64_t requests, connects, reused, failed;
	uint64_t handshakes, resumed, rejected; /* TLS: done; of them short ones; -EKEYREJECTED */
	size_t active, idle;
};
void upstream_statistics(const struct upstream *upstream, struct upstream_statistics *ret);
