/*
 * The durable queue: exchanges that were stored, their answers and their debts.
 *
 * Owns the tables `requests` and `request_...` of the store. Every change is a store
 * job; callbacks come on the loop after the commit. Never sends anything: replay asks for
 * work and says what came of it. Knows no app connection. Bodies are stored and read in pieces,
 * in the one transaction with their row; none is whole in memory unless it is one piece.
 *
 *   stored --lease--> sending --answer--> done --keep_response--> (gone)
 *     ^                  | \--attempts or expiry over--> failed / expired
 *     +--- backoff ------+     (a lease that a crash left behind is stored again at start)
 *
 * A row that `owes` an answer is matched by the same request coming again (queue_match).
 * The debt is paid when its response has been handed over (queue_paid).
 */
#pragma once

#include "base/limits.h"
#include "store/spool.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue;

#define REQUEST_STATES(X)     \
	X(HELD, "held")       \
	X(STORED, "stored")   \
	X(SENDING, "sending") \
	X(DONE, "done")       \
	X(FAILED, "failed")   \
	X(EXPIRED, "expired")
#define REQUEST_STATE_ENUM(id, name) REQUEST_##id,
enum request_state { REQUEST_STATES(REQUEST_STATE_ENUM) REQUEST_STATE_COUNT };
const char *request_state_name(enum request_state state);
int request_state_parse(const char *name, enum request_state *ret_state);

/* A response as it is stored; borrowed as a request is. */
struct queue_response {
	int status;
	const uint8_t *head; /* status line and fields, as received */
	size_t head_len;
	const uint8_t *body;
	size_t body_len;
	struct spool *spool; /* or this one, as in queue_request */
};

/* A request as it is stored. Strings and bytes are borrowed for the call. Times are wall
 * clock in ms. */
struct queue_request {
	char id[ID_TEXT_MAX]; /* UUIDv7, so ids sort by time */
	const char *rule, *source, *method, *scheme, *authority, *target;
	const uint8_t *fields; /* "Name: value\r\n" lines, hop-by-hop ones removed, no empty line */
	size_t fields_len;
	const uint8_t *body;
	size_t body_len;
	/* or this one, which has ended: `body` is not looked at then. A reference is taken. */
	struct spool *spool;
	uint8_t hash[32];	     /* what "the same request" is compared by; see exchange_hash */
	const char *idempotency_key; /* or NULL: as the app sent it */
	uint8_t body_hash[32];	     /* to find another body under the same key */
	bool owes, ordered;
	uint32_t importance, attempts_max;
	int64_t received, expires;
};

struct queue_event {
	int64_t at;
	char what[160];
};

/* One row as the API shows it. Heap, freed with queue_row_free. */
struct queue_row {
	char id[ID_TEXT_MAX];
	enum request_state state;
	char *rule, *source, *method, *scheme, *authority, *target, *link; /* link may be NULL */
	/* only when asked for; bodies only up to SPOOL_PIECE bytes, else NULL: queue_reader_new */
	uint8_t *fields, *body;
	size_t fields_len, body_len;
	struct spool *spool; /* the body of one that is held, when asked for; or NULL */
	uint64_t body_bytes; /* known also when the body was not asked for */
	int64_t received, expires, next_attempt;
	uint32_t attempts, attempts_max, importance;
	bool owes, ordered;
	char *idempotency_key;			/* or NULL */
	int response_status;			/* 0: none */
	uint8_t *response_head, *response_body; /* head: status line and fields, as received */
	size_t response_head_len, response_body_len;
	uint64_t response_bytes;
	struct queue_event *events; /* only when asked for */
	size_t event_count;
};
void queue_row_free(struct queue_row *row);

struct queue_limits {
	uint64_t max_bytes;	/* bodies and heads of all rows */
	uint64_t max_count;	/* rows that wait, and as many that are finished; 0: no bound */
	uint64_t keep_response; /* ms */
};

/* Makes its tables, takes back leases of a daemon that died, counts what is there. Blocking,
 * before the loop runs. On a disk that takes nothing the latter two are tried again with each
 * sweep, and nothing is leased before. */
int queue_new(uv_loop_t *loop, struct store *store, const struct queue_limits *limits,
	      struct queue **ret_queue) __attribute__((warn_unused_result));
/* Operations under way still call back; watches do not. New calls give -ECANCELED. */
void queue_close(struct queue *queue);
void queue_set_limits(struct queue *queue, const struct queue_limits *limits);

/* Callbacks of single results. row is NULL on error; else owned by the callee. */
typedef void (*queue_status_cb)(void *arg, int status);
typedef void (*queue_row_cb)(void *arg, int status, struct queue_row *row);

/* Store durably. Returns -EDQUOT at once when the request is larger than the whole queue, -EAGAIN
 * when too many wait; cb hears 0, -EDQUOT (the queue is full), -ENOSPC (disk full) or another error
 * of the database. The request is copied before the call returns; a negative return means that cb
 * is not called. `what` is the first event's text.
 * A full queue drops finished rows first (those that owe nothing, then the others, oldest first),
 * then evicts waiting ones of lower importance than the new one: they fail, without their body. */
int queue_put(struct queue *queue, const struct queue_request *request, const char *what,
	      queue_status_cb cb, void *arg) __attribute__((warn_unused_result));

/* Is there anything to match or wait behind? Cheap, from memory. */
bool queue_has_debts(const struct queue *queue);
bool queue_has_backlog(const struct queue *queue);

/* What a request's head tells. */
struct queue_about {
	const char *source, *scheme, *authority, *method, *target;
	const char *idempotency_key; /* or NULL */
};
/* For this one? When false, which needs no disk, queue_match need not be asked. Nobody is behind a
 * backlog that does not move because the disk fails. */
bool queue_may_owe(const struct queue *queue, const struct queue_about *about);
/* The same, when its body is known as well. */
bool queue_may_owe_same(const struct queue *queue, const struct queue_about *about,
			const uint8_t *hash);
bool queue_may_be_behind(const struct queue *queue, const struct queue_about *about);

enum queue_match_kind { MATCH_NONE, MATCH_OWES, MATCH_KEY_CONFLICT };
struct queue_match {
	enum queue_match_kind kind; /* KEY_CONFLICT: same key, another body (422) */
	char id[ID_TEXT_MAX];	    /* the stored exchange */
	enum request_state state;   /* STORED, SENDING; DONE or FAILED: its answer is there */
	bool behind;		    /* an ordered backlog of this source to this origin waits */
};
typedef void (*queue_match_cb)(void *arg, int status, const struct queue_match *match);
/* Look for a stored exchange that owes this request an answer (dedupe), and for an ordered
 * backlog. hash NULL: only the backlog is looked for. */
int queue_match(struct queue *queue, const char *source, const char *scheme, const char *authority,
		const uint8_t *hash, const char *idempotency_key, const uint8_t *body_hash,
		queue_match_cb cb, void *arg) __attribute__((warn_unused_result));

/* A place among those who want the answer of a stored exchange. The debt is paid once: to all who
 * wait when the answer comes, or to the first who comes later. In memory, and bounded (-EAGAIN).
 *
 *   waiting --answer--> QUEUE_YOURS --queue_paid--> committed: who came meanwhile hears QUEUE_PAID
 *                          \--queue_unwatch, or not committed: the next who came meanwhile has it
 *
 * The callback is never called from inside a call. After QUEUE_YOURS the watch stays until
 * queue_paid or queue_unwatch; after the others it is gone. */
struct queue_watch;
enum queue_news {
	QUEUE_YOURS, /* the answer is there (done, failed, expired), to be handed over now */
	QUEUE_PAID,  /* it was handed to another: who asks now asks anew */
	QUEUE_GONE,  /* deleted or unknown */
};
typedef void (*queue_watch_cb)(void *arg, enum queue_news news);
int queue_watch(struct queue *queue, const char *id, queue_watch_cb cb, void *arg,
		struct queue_watch **ret_watch) __attribute__((warn_unused_result));
void queue_unwatch(struct queue_watch *watch);
/* After QUEUE_YOURS: the response was handed to the app. Takes the watch, whatever it gives; `cb`
 * hears when it is durable. */
int queue_paid(struct queue_watch *watch, queue_status_cb cb, void *arg);

/* --- for replay --- */
/* Lease the next request that is due: oldest first within one source and origin, at most one
 * under way for each (source, origin) when ordered, higher importance first between origins.
 * `now` is wall clock ms. status -ENOENT and row NULL: nothing due; *next_due (wall ms, 0:
 * nothing waits) is in row-less callbacks' queue_next_due(). The row comes as with `bodies`. */
int queue_lease(struct queue *queue, int64_t now, queue_row_cb cb, void *arg)
	__attribute__((warn_unused_result));
int64_t queue_next_due(const struct queue *queue);
/* queue_done, queue_retry and queue_fail give -ESTALE to cb for a row that is not leased. */
/* An answer: state done, response kept, watchers told after the commit. */
int queue_done(struct queue *queue, const char *id, const char *link,
	       const struct queue_response *response, queue_status_cb cb, void *arg)
	__attribute__((warn_unused_result));
/* No answer: back to stored with next_attempt, or failed when final (response may be NULL). */
int queue_retry(struct queue *queue, const char *id, const char *link, int64_t next_attempt,
		bool count_attempt, const char *what, queue_status_cb cb, void *arg)
	__attribute__((warn_unused_result));
/* A row put back with link NULL waits for a link (no event is noted for it): this makes all of
 * them due. */
int queue_links_changed(struct queue *queue) __attribute__((warn_unused_result));
/* The wall clock was set by `step` ms, and is `now`: times of rows that were stored under the old
 * clock since the start move along, so that a clock that is first right after boot expires none. */
int queue_clock_stepped(struct queue *queue, int64_t now, int64_t step)
	__attribute__((warn_unused_result));
int queue_fail(struct queue *queue, const char *id, const char *link,
	       const struct queue_response *response, const char *what, queue_status_cb cb,
	       void *arg) __attribute__((warn_unused_result));
/* Expire what is over, purge finished rows past keep_response (failed ones stay at least
 * QUEUE_KEEP_FAILED), give free pages back to the file system. */
int queue_sweep(struct queue *queue, int64_t now, queue_status_cb cb, void *arg);
/* Called on the loop when something new is due (put, manual retry): replay's wake-up. */
void queue_set_wakeup(struct queue *queue, void (*wakeup)(void *arg), void *arg);
/* Called on the loop when the disk takes no leases any more: nobody need wait behind a backlog. */
void queue_set_stuck(struct queue *queue, void (*stuck)(void *arg), void *arg);
/* Called after each committed change of an exchange, for the event log. */
void queue_set_observer(struct queue *queue,
			void (*changed)(void *arg, const char *id, enum request_state state,
					const char *what),
			void *arg);

/* --- bodies --- */

enum queue_part { QUEUE_REQUEST, QUEUE_RESPONSE };
/* Reads a stored body piece by piece, as spool_reader does: `piece` gets up to SPOOL_PIECE bytes
 * (borrowed), len 0 at the end, or a negative status: -ENOENT when the exchange was deleted,
 * -ESTALE when its response is another one by now. */
struct queue_reader;
int queue_reader_new(struct queue *queue, const char *id, enum queue_part part,
		     spool_piece_cb piece, void *arg, struct queue_reader **ret_reader)
	__attribute__((warn_unused_result));
/* Ask for the next piece, the first too; 0, -EAGAIN or another error (`piece` is not called
 * then). From inside `piece` it is fine. */
int queue_reader_next(struct queue_reader *reader) __attribute__((warn_unused_result));
/* No callback after it. NULL is fine. */
void queue_reader_close(struct queue_reader *reader);

/* --- for the API --- */
/* bodies: with fields, heads and short bodies. */
int queue_get(struct queue *queue, const char *id, bool bodies, queue_row_cb cb, void *arg)
	__attribute__((warn_unused_result));
struct queue_filter {
	bool has_state;
	enum request_state state;
	const char *host, *rule, *source; /* NULL: any */
	const char *before;		  /* id: only older ones; NULL: from the newest */
	size_t limit;
};
/* Newest first; rows and array are the callee's (queue_row_free each, free the array). */
typedef void (*queue_rows_cb)(void *arg, int status, struct queue_row **rows, size_t count);
int queue_list(struct queue *queue, const struct queue_filter *filter, queue_rows_cb cb, void *arg)
	__attribute__((warn_unused_result));
/* Manual retry of a stored, failed or expired row: due now, attempts counted from zero, an expired
 * one with its whole lifetime again. -ENOENT, -EBUSY while sending, -EALREADY when done, -ENODATA
 * when it was evicted and its body is gone. */
int queue_retry_now(struct queue *queue, const char *id, queue_status_cb cb, void *arg);
/* -ENOENT, -EBUSY while sending. */
int queue_delete(struct queue *queue, const char *id, queue_status_cb cb, void *arg);

struct queue_totals {
	uint64_t stored, sending, done, failed, expired; /* rows */
	uint64_t owing;
	uint64_t bytes, max_bytes, max_count;
	uint64_t put, refused_full, answered, matched, paid; /* since start */
	uint64_t unclaimed; /* purged while they still owed an answer */
	uint64_t evicted;   /* failed because the queue was full */
};
void queue_totals(const struct queue *queue, struct queue_totals *ret);
