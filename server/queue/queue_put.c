/* Exchanges stored and matched: the side of the queue that the proxy sees. */
#include "base/limits.h"
#include "queue/queue_op.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

/* A disk without room for the results of replays would never get room again: new rows stop
 * before that. Twice the row: it stands in the log before it does in the file. */
static bool has_room(sqlite3 *db, uint64_t cost)
{
	const char *path = sqlite3_db_filename(db, "main");
	struct statvfs fs;

	if (!path || !*path || statvfs(path, &fs) < 0)
		return true; /* the write itself will tell */
	return (uint64_t)fs.f_bavail * fs.f_frsize >= QUEUE_DISK_SPARE + 2 * cost;
}

static int put_body(sqlite3 *db, int64_t seq, const struct queue_request *q,
		    const struct body *body)
{
	const uint8_t *bytes;
	uint8_t *heap;
	int r = body_bytes(body, &bytes, &heap);

	if (r < 0)
		return r;
	r = sql_run(db, "INSERT INTO request_bodies (seq, fields, body) VALUES (?, ?, ?)", "ibb",
		    seq, q->fields, q->fields_len, bytes,
		    body_is_short(body) ? (size_t)body->len : 0);
	free(heap);
	if (r == 0 && !body_is_short(body))
		r = body_write_pieces(db, seq, QUEUE_REQUEST, body);
	return r;
}

static int run_put(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	const struct queue_request *q = &op->request;
	struct body body = body_of(q->body, q->body_len, op->spool);
	int64_t seq;
	int r;

	if (!has_room(db, op->reserved))
		return -ENOSPC;
	r = op->crowded ? make_room(op, db) : 0;
	if (r < 0)
		return r;
	r = sql_run(
		db,
		"INSERT INTO requests (id, state, rule, source, method, scheme, authority, target,"
		" hash, body_hash, idempotency_key, owes, ordered, importance, attempts_max,"
		" received, expires, next_attempt, bytes, body_bytes, blocked)"
		" VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,"
		" ?16, 0, ?17, ?18, ?12 AND EXISTS (SELECT 1 FROM requests o WHERE o.source = ?3"
		" AND o.scheme = ?5 AND o.authority = ?6 AND o.ordered = 1 AND o.state IN (1, 2)))",
		"tttttttbbtiiiiiiii", q->id, q->rule, q->source, q->method, q->scheme, q->authority,
		q->target, q->hash, sizeof(q->hash), q->body_hash, sizeof(q->body_hash),
		q->idempotency_key, (int64_t)q->owes, (int64_t)q->ordered, (int64_t)q->importance,
		(int64_t)q->attempts_max, q->received, q->expires, (int64_t)op->reserved,
		(int64_t)body.len);

	if (r < 0)
		return r;
	seq = sqlite3_last_insert_rowid(db);
	r = put_body(db, seq, q, &body);
	if (r == 0)
		r = sql_run(db, "INSERT INTO request_events (seq, n, at, what) VALUES (?, 1, ?, ?)",
			    "iit", seq, q->received, op->what);
	if (r == 0)
		r = op_note(op, q->id, REQUEST_STORED, op->what);
	op->delta.rows[REQUEST_STORED]++;
	op->delta.owing += q->owes;
	op->delta.bytes += (int64_t)op->reserved;
	op->wake = true;
	return r;
}

/* For the event log: nobody will find it in the queue. */
static void tell_refused(struct queue *queue, const char *id)
{
	queue->totals.refused_full++;
	if (queue->observer && !queue->closing)
		queue->observer(queue->observer_arg, id, REQUEST_HELD,
				"not stored: the queue is full");
}

static void finish_put(struct op *op, int status)
{
	struct queue *queue = op->queue;

	if (status == 0) {
		queue->totals.put++;
		queue->next_due = 1;
		queue_read(queue); /* the disk takes changes */
	} else if (status == -ENOSPC || status == -EDQUOT) {
		tell_refused(queue, op->id);
	}
	if (op->status_cb)
		op->status_cb(op->arg, status);
}

static uint64_t cost_of(const struct queue_request *q)
{
	uint64_t body_len = q->spool ? spool_len(q->spool) : q->body_len;

	return q->fields_len + body_len + text_size(q->target) + QUEUE_ROW_BYTES;
}

/* As far as the loop knows: the lane looks again. */
static bool is_crowded(const struct queue *queue, uint64_t cost)
{
	const struct queue_totals *t = &queue->totals;

	return t->bytes + queue->pending_bytes + cost > queue->limits.max_bytes ||
	       (queue->limits.max_count &&
		t->stored + t->sending + queue->pending_puts >= queue->limits.max_count);
}

int queue_put(struct queue *queue, const struct queue_request *q, const char *what,
	      queue_status_cb cb, void *arg)
{
	uint64_t cost = cost_of(q);
	struct op *op;

	if (cost > queue->limits.max_bytes) {
		tell_refused(queue, q->id);
		return -EDQUOT;
	}
	op = op_for_id(queue, run_put, q->id, cb, arg,
		       q->fields_len + (q->spool ? 0 : q->body_len) + text_size(q->rule) +
			       text_size(q->source) + text_size(q->method) + text_size(q->scheme) +
			       text_size(q->authority) + text_size(q->target) +
			       text_size(q->idempotency_key) + text_size(what));
	if (!op)
		return -ENOMEM;
	op->request = *q;
	op->request.rule = op_text(op, q->rule);
	op->request.source = op_text(op, q->source);
	op->request.method = op_text(op, q->method);
	op->request.scheme = op_text(op, q->scheme);
	op->request.authority = op_text(op, q->authority);
	op->request.target = op_text(op, q->target);
	op->request.idempotency_key = op_text(op, q->idempotency_key);
	op->request.fields = op_bytes(op, q->fields, q->fields_len);
	op->spool = spool_ref(q->spool);
	if (!q->spool)
		op->request.body = op_bytes(op, q->body, q->body_len);
	op->what = op_text(op, what);
	op->reserved = cost;
	op->crowded = is_crowded(queue, cost);
	/* A file may fail to be read half-way, and room not suffice. */
	op->job.unguarded = !op->crowded && (!q->spool || spool_bytes(q->spool));
	op->finish = finish_put;
	hints_note(queue, q);
	return op_submit(op);
}

/* --- matching --- */

static void match_take(struct op *op, sqlite3_stmt *stmt)
{
	snprintf(op->match.id, sizeof(op->match.id), "%s",
		 (const char *)sqlite3_column_text(stmt, 0));
	op->match.state = (enum request_state)sqlite3_column_int(stmt, 1);
	op->match.kind = MATCH_OWES;
}

/* A key means something to one origin: the same key at another one is another request. */
static int match_by_key(struct op *op, sqlite3 *db)
{
	const struct queue_request *q = &op->request;
	sqlite3_stmt *stmt;
	int r = sql_row(db, &stmt,
			"SELECT id, state, body_hash FROM requests WHERE source = ? AND"
			" idempotency_key = ? AND scheme = ? AND authority = ? AND owes = 1"
			" ORDER BY seq LIMIT 1",
			"tttt", q->source, q->idempotency_key, q->scheme, q->authority);

	if (r <= 0)
		return r;
	match_take(op, stmt);
	if (op->body_hash && (sqlite3_column_bytes(stmt, 2) != 32 ||
			      memcmp(sqlite3_column_blob(stmt, 2), op->body_hash, 32) != 0))
		op->match.kind = MATCH_KEY_CONFLICT;
	sql_end(stmt);
	return 0;
}

static int match_by_hash(struct op *op, sqlite3 *db)
{
	sqlite3_stmt *stmt;
	int r = sql_row(db, &stmt,
			"SELECT id, state FROM requests WHERE source = ? AND hash = ? AND owes = 1"
			" ORDER BY seq LIMIT 1",
			"tb", op->request.source, op->hash, (size_t)32);

	if (r <= 0)
		return r;
	match_take(op, stmt);
	sql_end(stmt);
	return 0;
}

static int run_match(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	const struct queue_request *q = &op->request;
	sqlite3_stmt *stmt;
	int r = 0;

	if (op->hash && q->idempotency_key)
		r = match_by_key(op, db);
	else if (op->hash)
		r = match_by_hash(op, db);
	if (r < 0)
		return r;
	r = sql_row(db, &stmt,
		    "SELECT 1 FROM requests WHERE source = ? AND scheme = ? AND authority = ?"
		    " AND ordered = 1 AND state IN (1, 2) LIMIT 1",
		    "ttt", q->source, q->scheme, q->authority);
	if (r < 0)
		return r;
	op->match.behind = r == 1;
	if (r == 1)
		sql_end(stmt);
	return 0;
}

static void finish_match(struct op *op, int status)
{
	if (status == 0)
		op->queue->totals.matched += op->match.kind == MATCH_OWES;
	op->match_cb(op->arg, status, &op->match);
}

int queue_match(struct queue *queue, const char *source, const char *scheme, const char *authority,
		const uint8_t *hash, const char *idempotency_key, const uint8_t *body_hash,
		queue_match_cb cb, void *arg)
{
	struct op *op = op_new(queue, run_match, true,
			       text_size(source) + text_size(scheme) + text_size(authority) +
				       text_size(idempotency_key) + (size_t)64);

	if (!op)
		return -ENOMEM;
	op->request.source = op_text(op, source);
	op->request.scheme = op_text(op, scheme);
	op->request.authority = op_text(op, authority);
	op->request.idempotency_key = op_text(op, idempotency_key);
	op->hash = hash ? op_bytes(op, hash, 32) : NULL;
	op->body_hash = body_hash ? op_bytes(op, body_hash, 32) : NULL;
	op->finish = finish_match;
	op->match_cb = cb;
	op->arg = arg;
	return op_submit(op);
}
