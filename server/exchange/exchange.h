/*
 * One HTTP request of an app and what becomes of it.
 *
 *   receiving --whole--> matching --none--> ready --link--> sending --response--> (over)
 *       |                   |  \                \             |  ^
 *       |                   |   \--behind--+     \--no link--v  |  not sent, or idempotent:
 *       |                   |              +---------------> held  next link, or held again
 *       |                   \--owes--> waiting --paid to        | hold over
 *       |                                   |    another: matching again
 *       \--too large, streamed--> sending       \              +--> storing --> (202, 503)
 *                                                \--answer--> fetching           (504)
 *
 * The exchanges own the list of what is held and the one timer for it, and bound how many are
 * under way at once: the others are held until it is their turn. An exchange belongs to
 * whoever made it (the app's connection). What the app hears is told through exchange_ops.
 * Knows no socket of an app. Chooses links through links_choose, sends through upstream, stores
 * through queue.
 */
#pragma once

#include "config/config.h"
#include "link/link.h"
#include "msg/http_msg.h"
#include "queue/queue.h"
#include "upstream/upstream.h"

struct exchanges;
struct exchange;

int exchanges_new(uv_loop_t *loop, struct config *config, struct links *links, struct queue *queue,
		  struct upstream *upstream, struct spools *spools,
		  struct exchanges **ret_exchanges) __attribute__((warn_unused_result));
/* Every exchange must be gone. */
void exchanges_close(struct exchanges *exchanges);
/* A link came or went: what is held is tried again, one after the other, some at a time. */
void exchanges_wake(struct exchanges *exchanges);
/* A backlog got shorter: so is what waits behind one. */
void exchanges_backlog_changed(struct exchanges *exchanges);

/* What a person should see though no exchange is stored: TLS that failed. */
typedef void (*exchanges_event_cb)(void *arg, const char *id, const char *what);
void exchanges_set_observer(struct exchanges *exchanges, exchanges_event_cb event, void *arg);

/* What the app hears from us rather than from the origin. */
struct exchange_answer {
	int status;
	const char *title;    /* the problem's, a short phrase */
	const char *detail;   /* one sentence for a person */
	const char *id;	      /* of the stored exchange: Location; or NULL */
	unsigned retry_after; /* seconds; 0: not said */
	bool preference_applied;
};

struct exchange_ops {
	/* The origin's response, live or stored. Borrowed. */
	void (*on_head)(void *arg, const struct http_head *head);
	void (*on_body)(void *arg, const uint8_t *data, size_t len);
	/* Over: the exchange may be freed in this call and the following. */
	void (*on_end)(void *arg);
	/* The response broke in the middle: the app's connection cannot be used again. */
	void (*on_abort)(void *arg, const char *what);
	void (*on_answer)(void *arg, const struct exchange_answer *answer);
	/* It is held, and the app has shut its side: is there anybody? */
	void (*on_held)(void *arg);
	/* More of the request's body is wanted. */
	void (*on_drain)(void *arg);
	/* A 1xx before the response: the origin's; NULL: 100 of our own, as the body is wanted. */
	void (*on_interim)(void *arg, const struct http_head *head);
	/* The trailers of a chunked response, before on_end. */
	void (*on_trailers)(void *arg, const struct http_head *trailers);
	/* 101: from here on the app's connection and this one are a tunnel over `link`. The conn is
	 * the callee's, the exchange is over. */
	void (*on_upgrade)(void *arg, const struct http_head *head, struct conn *conn,
			   struct link *link, const uint8_t *rest, size_t len);
};

/* Everything is borrowed until the exchange is freed. */
struct exchange_request {
	struct http_head *head; /* origin-form target; Host is there; Expect is removed */
	const char *source;	/* "host", or the app's address */
	struct ip source_ip;
	const char *source_interface; /* or NULL */
	struct ip destination;	      /* the original one */
	uint16_t port;
	const char *name;      /* the virtual address's name; NULL for a real one */
	const char *authority; /* "name" or "name:port", lower case */
	bool secure;	       /* it was asked for by an https URI: only TLS will do */
	bool expects;	       /* Expect: 100-continue was there, and a body is to come */
};

/* Begins at once; callbacks never come before exchange_start returns. */
int exchange_new(struct exchanges *exchanges, const struct exchange_request *request,
		 const struct exchange_ops *ops, void *arg, struct exchange **ret_exchange)
	__attribute__((warn_unused_result));
/* The rest of the request, as it comes. Callbacks may come from inside. */
void exchange_start(struct exchange *exchange);
void exchange_body(struct exchange *exchange, const uint8_t *data, size_t len);
/* The trailers of a chunked body, before its end. They go with a body that is streamed; one that is
 * read whole is sent with its length, without them. */
void exchange_trailers(struct exchange *exchange, const struct http_head *trailers);
void exchange_body_end(struct exchange *exchange);
/* Should the app's side stop reading the body? Until on_drain. */
bool exchange_is_full(const struct exchange *exchange);
/* Backpressure of the app on the response. */
void exchange_pause(struct exchange *exchange);
void exchange_resume(struct exchange *exchange);
/* The app is gone: cancelled and counted, or stored when the rule says so; freed either way. */
void exchange_app_gone(struct exchange *exchange);
/* The app has shut its side. It may still read an answer, or be gone: on_held asks, once the
 * exchange is held, or at once if it is. */
void exchange_app_shut(struct exchange *exchange);
/* When it is over. */
void exchange_free(struct exchange *exchange);

/* --- for the API --- */
/* Held ones, newest first; rows as of queue.h, without bodies unless one is asked for by id. */
struct queue_row *exchanges_row(struct exchanges *exchanges, const char *id, bool bodies);
/* Up to `max` rows that the filter lets through; returns how many. */
size_t exchanges_rows(struct exchanges *exchanges, const struct queue_filter *filter,
		      struct queue_row **ret_rows, size_t max);
/* Cancel a held one: its app gets 503. -ENOENT. */
int exchanges_cancel(struct exchanges *exchanges, const char *id);

struct exchanges_statistics {
	uint64_t started, held, cancelled, stored, refused, answered, failed, moved;
	uint64_t waited; /* for others to end: as many were under way as may be */
	size_t held_now; /* or waiting for a stored answer */
	size_t sending;	 /* under way to an origin */
	size_t released; /* of what was held: sending, or looked up in the queue */
	size_t in_line;	 /* held, and sent as soon as others end */
};
void exchanges_statistics(const struct exchanges *exchanges, struct exchanges_statistics *ret);

/* --- identity --- */
/* A new id, UUIDv7 (RFC 9562), from the wall clock and the kernel's random numbers. */
void exchange_make_id(int64_t now_ms, char ret_id[ID_TEXT_MAX]);
/* SHA-256 over source, method, scheme, authority, target, the fields named in
 * hash_headers (NULL-terminated) and the body's own SHA-256; each part with its length. */
int exchange_hash(const struct http_head *head, const char *source, const char *scheme,
		  const char *authority, char *const *hash_headers, const uint8_t body_hash[32],
		  uint8_t ret_hash[32]) __attribute__((warn_unused_result));
int64_t exchange_wall_ms(void);
