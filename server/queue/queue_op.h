/*
 * Inside the queue: one operation as a store job, from its copied arguments to what it
 * changed. `run` works on the lane and writes only its own op; totals, watches and callbacks
 * belong to the loop and follow after the commit.
 */
#pragma once

#include "queue/queue.h"
#include "queue/sql.h"

#include <uv.h>

enum { GONE = REQUEST_STATE_COUNT }; /* the state of what was deleted */

static inline bool state_is_final(enum request_state state)
{
	return state == REQUEST_DONE || state == REQUEST_FAILED || state == REQUEST_EXPIRED;
}

/* What an op changed in the sums; added to the totals when it is committed. */
struct delta {
	int64_t rows[REQUEST_STATE_COUNT], owing, bytes, unclaimed, evicted;
};

struct change {
	char id[ID_TEXT_MAX];
	enum request_state state; /* GONE: deleted */
	char what[160];
};

struct op {
	struct store_job job; /* first: the store gives it back */
	struct queue *queue;
	void (*finish)(struct op *op, int status); /* on the loop: the caller's callback */
	queue_status_cb status_cb;
	queue_row_cb row_cb;
	queue_rows_cb rows_cb;
	queue_match_cb match_cb;
	void *arg;

	/* in; strings and bytes point into `copy` */
	char id[ID_TEXT_MAX];
	struct queue_request request;
	struct queue_filter filter;
	uint8_t *copy;
	size_t copy_len, copy_size;
	const char *link, *what;
	bool has_response;
	struct queue_response response;
	struct spool *spool; /* a reference: the body's */
	const uint8_t *hash, *body_hash;
	int64_t now, next_attempt, step;
	struct queue_limits limits;
	bool flag; /* bodies wanted; count the attempt; leases are left of before */
	uint64_t reserved;
	bool crowded; /* a put that may find the queue full */
	struct queue_watch *watch;
	struct hints *hints; /* owned */
	struct queue_reader *reader;
	enum queue_part part;
	uint64_t offset;

	/* out */
	struct queue_row *row, **rows;
	size_t row_count;
	struct queue_match match;
	size_t piece_len; /* in `copy` */
	int64_t stamp;	  /* of the response that is read, in and out; when the queue started */
	int64_t next_due, last_seq;
	bool has_next_due, wake, again, paid;
	struct delta delta;
	struct change *changes;
	size_t change_count, change_capacity;
};

struct watch_list;

struct queue {
	uv_loop_t *loop;
	struct store *store;
	struct store_listener listener; /* to another database than before */
	struct queue_limits limits;
	struct queue_totals totals;
	unsigned refs; /* the owner's and one an op */
	bool closing;
	uint64_t pending_bytes; /* of puts that are not committed yet */
	size_t pending_puts;
	struct hints *hints;
	unsigned hints_loading; /* until then they know nothing */
	bool unread;		/* what is there is not counted yet; leases may be left of before */
	bool counting;		/* it is at this moment */
	int told;		/* why it could not be, in the log */
	bool is_stuck;		/* the disk takes no lease: nothing moves */
	int64_t next_due;
	int64_t first_seq;	    /* rows after this one were stored since the start */
	int64_t started;	    /* wall ms, by the clock as it is now */
	struct watch_list *watches; /* uthash by id */
	size_t watch_count;
	void (*wakeup)(void *arg);
	void *wakeup_arg;
	void (*stuck)(void *arg);
	void *stuck_arg;
	void (*observer)(void *arg, const char *id, enum request_state state, const char *what);
	void *observer_arg;
};

/* Count what is there, when that could not be done before. */
void queue_read(struct queue *queue);
void queue_unref(struct queue *queue);
void op_free(struct op *op); /* one that was not submitted */

/* copy_size: room for op_text and op_bytes. NULL: no memory. */
struct op *op_new(struct queue *queue, store_run run, bool read_only, size_t copy_size);
const char *op_text(struct op *op, const char *text); /* NULL stays NULL */
const uint8_t *op_bytes(struct op *op, const uint8_t *bytes, size_t len);
/* Frees the op on error; afterwards it belongs to the store. */
int op_submit(struct op *op) __attribute__((warn_unused_result));
/* The usual op: an id, a status callback. */
struct op *op_for_id(struct queue *queue, store_run run, const char *id, queue_status_cb cb,
		     void *arg, size_t copy_size);
static inline size_t text_size(const char *text)
{
	return text ? __builtin_strlen(text) + 1 : 0;
}

/* --- on the lane --- */

/* What a change of state needs to know of a row. */
struct brief {
	int64_t seq, bytes, received, expires;
	enum request_state state;
	bool owes, ordered;
	uint32_t attempts;
	char id[ID_TEXT_MAX];
};
int brief_read(sqlite3 *db, const char *id, struct brief *ret_brief) /* -ENOENT */
	__attribute__((warn_unused_result));
int op_note(struct op *op, const char *id, enum request_state state, const char *what)
	__attribute__((warn_unused_result));
/* One line in the row's history, at most QUEUE_EVENTS_MAX of them. */
int event_add(sqlite3 *db, int64_t seq, int64_t at, const char *what)
	__attribute__((warn_unused_result));
/* The row is no longer waiting: the next one of its lane may go. */
int lane_advance(sqlite3 *db, const struct brief *row) __attribute__((warn_unused_result));
int row_read(sqlite3 *db, const char *id, bool bodies, bool events, struct queue_row **ret_row)
	__attribute__((warn_unused_result));
/* Bodies: one piece in its parent's table, a longer one in request_pieces. */
struct body {
	const uint8_t *bytes; /* or NULL: */
	struct spool *spool;
	uint64_t len;
};
struct body body_of(const uint8_t *bytes, size_t len, struct spool *spool);
static inline bool body_is_short(const struct body *body)
{
	return body->len <= SPOOL_PIECE;
}
/* The bytes of a short one, on the heap when they are in a file: free *ret_heap. */
int body_bytes(const struct body *body, const uint8_t **ret_bytes, uint8_t **ret_heap)
	__attribute__((warn_unused_result));
/* Those of a long one. */
int body_write_pieces(sqlite3 *db, int64_t seq, enum queue_part part, const struct body *body)
	__attribute__((warn_unused_result));
/* Takes the row out, and what belongs to it. */
int remove_row(struct op *op, sqlite3 *db, const struct brief *row, const char *what)
	__attribute__((warn_unused_result));
/* Makes room for the op's request at the cost of what matters less; -EDQUOT when that does not
 * suffice (the caller's savepoint takes back what was done). */
int make_room(struct op *op, sqlite3 *db) __attribute__((warn_unused_result));
/* Finished rows beyond limits.max_count go, oldest first; at most QUEUE_SWEEP_BATCH. */
int trim_finished(struct op *op, sqlite3 *db) __attribute__((warn_unused_result));
/* Rows past `now` become expired, at most QUEUE_SWEEP_BATCH. */
int expire_rows(struct op *op, sqlite3 *db, int64_t now) __attribute__((warn_unused_result));

/* --- on the loop --- */
/* All who are there and have nothing yet. */
void watches_tell(struct queue *queue, const char *id, enum queue_news news);
int hints_new(struct hints **ret_hints) __attribute__((warn_unused_result));
/* Before it is stored. */
void hints_note(struct queue *queue, const struct queue_request *request);
/* From what is in the database; until that is read, the hints say yes to all. */
void hints_load(struct queue *queue);
void watches_clear(struct queue *queue);
/* All hear QUEUE_GONE, but those who have the answer in their hands. */
void watches_gone(struct queue *queue);
