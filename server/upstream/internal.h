/* What the files of upstream share; for nobody else. */
#pragma once

#include "upstream/trust.h"
#include "upstream/upstream.h"

#include <sys/queue.h>

#define TARGET_TEXT_MAX (NAME_TEXT_MAX + 8)

enum { POOL_BUCKETS = 256 };

TAILQ_HEAD(dial_list, upstream_dial);
TAILQ_HEAD(request_list, upstream_request);
TAILQ_HEAD(lane_list, lane);

/* Over TLS: what the origin must prove to be, and whom we trust in that and come as. Shared. */
struct identity {
	unsigned refs;
	struct trust *trust;
	char server_name[];
};

struct upstream {
	uv_loop_t *loop;
	struct trusts *trusts;
	struct resolver *resolver;
	struct dial_list dials;
	struct request_list requests;
	struct lane_list idle;		     /* newest first */
	struct lane_list pool[POOL_BUCKETS]; /* the same by target, newest first */
	size_t idle_count, idle_max;
	uv_timer_t sweep;
	struct upstream_statistics statistics;
};

/*
 * One HTTP/1.1 connection to an origin: carries one request at a time, is idle in the pool
 * between two. Only lanes of the same link, target, port and identity are used again.
 */
struct lane {
	TAILQ_ENTRY(lane) entry, pool_entry; /* in upstream->idle and pool, while it is */
	struct upstream *upstream;
	struct conn *conn;
	struct link *link;
	char target[TARGET_TEXT_MAX]; /* see target_text */
	struct identity *identity;    /* NULL: plain */
	struct http_parser *parser;
	struct upstream_request *request; /* NULL: idle */
	uint64_t idle_since;
	uint64_t counted_in, counted_out; /* bytes that the link was told of */
	unsigned served;		  /* requests that are over */
	bool idle, reused, reusable, feeding, dead;
	bool deaf;			  /* the origin takes no more, but may have spoken */
	const struct http_head *switched; /* the parser's, once a 101 has come */
};

/* pool.c */
void pool_init(struct upstream *upstream);
/* fresh: only one that the origin used a moment ago and has not closed, as far as is known here. */
struct lane *pool_take(struct upstream *upstream, struct link *link, const char *target,
		       const struct identity *identity, bool fresh);
int lane_new(struct upstream *upstream, struct link *link, const char *target,
	     struct identity *identity, struct conn *conn, struct lane **ret_lane)
	__attribute__((warn_unused_result));
void lane_release(struct lane *lane); /* back to the pool, or closed when it cannot be used again */
void lane_close(struct lane *lane);
/* The conn becomes the caller's; the lane is gone, at once or when its parser returns. */
struct conn *lane_give(struct lane *lane) __attribute__((warn_unused_result));
void lane_count(struct lane *lane); /* tell the link of the bytes since the last time */
void pool_close_link(struct upstream *upstream, struct link *link); /* NULL: all */
void pool_sweep(struct upstream *upstream);

/* request.c: what a lane tells its request. */
int request_on_head(struct upstream_request *request, struct http_head *head);
int request_on_body(struct upstream_request *request, const uint8_t *data, size_t len);
int request_on_trailers(struct upstream_request *request, const struct http_head *trailers);
int request_on_end(struct upstream_request *request);
/* After a 101; the lane is gone afterwards. */
void request_on_upgrade(struct upstream_request *request, const uint8_t *rest, size_t len);
void request_on_drain(struct upstream_request *request);
void request_lane_failed(struct upstream_request *request, int status, const char *what);
void request_fail(struct upstream_request *request, int status, const char *what);
void requests_count(struct upstream *upstream);
struct upstream_request *requests_first_of(struct upstream *upstream, struct link *link);

/* dial.c */
void dials_fail_link(struct upstream *upstream, struct link *link); /* NULL: all, silently */
void target_text(const struct upstream_target *target, char *buffer);
/* As upstream_connect, with the identity in place of the target's name and policy. */
int dial_start(struct upstream *upstream, struct link *link, const struct upstream_target *target,
	       struct identity *identity, upstream_stream_cb cb, void *arg,
	       struct upstream_dial **ret_dial) __attribute__((warn_unused_result));

/* identity.c */
/* *ret: NULL for a target without TLS. 0 or -ENOMEM. */
int identity_new(struct upstream *upstream, const struct upstream_target *target,
		 struct identity **ret_identity) __attribute__((warn_unused_result));
struct identity *identity_ref(struct identity *identity); /* NULL is fine here and below */
void identity_unref(struct identity *identity);
bool identity_equal(const struct identity *a, const struct identity *b);
