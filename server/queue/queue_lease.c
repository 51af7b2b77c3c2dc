/*
 * Leases and what comes of them, expiry and removal: every change of a row's state after
 * it was stored. The one lane is a lock: a job sees the rows as they are.
 */
#include "base/limits.h"
#include "queue/queue_op.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void move(struct op *op, enum request_state from, enum request_state to)
{
	op->delta.rows[from]--;
	op->delta.rows[to]++;
}

/* `blocked` of a lane follows from who is its oldest that waits. */
#define LANE_OF                                                             \
	"ordered = 1 AND state IN (1, 2) AND (source, scheme, authority) =" \
	" (SELECT source, scheme, authority FROM requests WHERE seq = ?1)"

int lane_advance(sqlite3 *db, const struct brief *row)
{
	if (!row->ordered)
		return 0;
	return sql_run(db,
		       "UPDATE requests SET blocked = 0 WHERE blocked = 1 AND seq ="
		       " (SELECT min(seq) FROM requests WHERE " LANE_OF " AND seq <> ?1)",
		       "i", row->seq);
}

/* A row that waits again may be older than the head of its lane, or behind it. */
static int lane_rejoin(sqlite3 *db, const struct brief *row)
{
	int r;

	if (!row->ordered)
		return 0;
	r = sql_run(
		db,
		"UPDATE requests SET blocked = seq <> (SELECT min(seq) FROM requests WHERE " LANE_OF
		") WHERE seq = ?1",
		"i", row->seq);
	/* No other than the oldest may go: the one that was it is the next one now. */
	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET blocked = 1 WHERE blocked = 0 AND seq ="
			    " (SELECT min(seq) FROM requests WHERE " LANE_OF " AND seq > ?1)",
			    "i", row->seq);
	return r;
}

/* --- expiry --- */

static int expire_one(struct op *op, sqlite3 *db, const char *id, int64_t now)
{
	struct brief row;
	int r = brief_read(db, id, &row);

	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET state = 5, blocked = 0, finished = ?"
			    " WHERE seq = ?",
			    "ii", now, row.seq);
	if (r == 0)
		r = event_add(db, row.seq, now, "expired");
	if (r == 0)
		r = lane_advance(db, &row);
	if (r == 0)
		r = op_note(op, id, REQUEST_EXPIRED, "expired");
	if (r == 0)
		move(op, REQUEST_STORED, REQUEST_EXPIRED);
	return r;
}

int expire_rows(struct op *op, sqlite3 *db, int64_t now)
{
	for (int i = 0; i < QUEUE_SWEEP_BATCH; i++) {
		char id[ID_TEXT_MAX];
		sqlite3_stmt *stmt;
		int r = sql_row(db, &stmt,
				"SELECT id FROM requests WHERE state = 1 AND expires <= ?"
				" ORDER BY expires LIMIT 1",
				"i", now);

		if (r <= 0)
			return r;
		snprintf(id, sizeof(id), "%s", (const char *)sqlite3_column_text(stmt, 0));
		sql_end(stmt);
		r = expire_one(op, db, id, now);
		if (r < 0)
			return r;
	}
	op->again = true;
	return 0;
}

/* --- lease --- */

#define IS_FREE                                                                          \
	" NOT (r.ordered = 1 AND EXISTS (SELECT 1 FROM requests o WHERE o.state = 2 AND" \
	" o.ordered = 1 AND o.source = r.source AND o.scheme = r.scheme AND"             \
	" o.authority = r.authority))"

/* What was put off until now is due. A clock that was set back must not hold a row for years:
 * nothing is ever put off longer than REPLAY_RETRY_AFTER_MAX. */
static int bring_back(sqlite3 *db, int64_t now)
{
	return sql_run(
		db,
		"UPDATE requests SET next_attempt = 0 WHERE seq IN (SELECT seq FROM requests"
		" INDEXED BY requests_delayed WHERE state = 1 AND blocked = 0 AND"
		" next_attempt > 0 AND (next_attempt <= ?1 OR next_attempt > ?1 + ?2) LIMIT ?3)",
		"iii", now, (int64_t)REPLAY_RETRY_AFTER_MAX, (int64_t)QUEUE_PROMOTE_MAX);
}

static int find_due(struct op *op, sqlite3 *db)
{
	sqlite3_stmt *stmt;
	int r = bring_back(db, op->now);

	if (r == 0)
		r = sql_row(
			db, &stmt,
			"SELECT r.id FROM requests r INDEXED BY requests_ready WHERE r.state = 1"
			" AND r.blocked = 0 AND r.next_attempt = 0 AND r.expires > ?1 AND" IS_FREE
			" ORDER BY r.importance DESC, r.seq LIMIT 1",
			"i", op->now);
	if (r < 0)
		return r;
	if (r == 1) {
		snprintf(op->id, sizeof(op->id), "%s", (const char *)sqlite3_column_text(stmt, 0));
		sql_end(stmt);
		return 0;
	}
	r = sql_row(db, &stmt,
		    "SELECT min(next_attempt) FROM requests INDEXED BY requests_delayed"
		    " WHERE state = 1 AND blocked = 0 AND next_attempt > 0",
		    "");
	if (r == 1) {
		op->next_due = sqlite3_column_int64(stmt, 0);
		op->has_next_due = true;
		sql_end(stmt);
	}
	return r < 0 ? r : 0;
}

static int run_lease(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	struct brief row;
	int r = expire_rows(op, db, op->now);

	if (r == 0)
		r = find_due(op, db);
	if (r < 0 || !op->id[0])
		return r;
	r = brief_read(db, op->id, &row);
	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET state = 2, attempts = attempts + 1"
			    " WHERE seq = ?",
			    "i", row.seq);
	if (r == 0)
		r = row_read(db, op->id, true, false, &op->row);
	if (r == 0)
		r = op_note(op, op->id, REQUEST_SENDING, "sending");
	if (r == 0)
		move(op, REQUEST_STORED, REQUEST_SENDING);
	return r;
}

/* -ENOENT is said only here: an error from run would undo what expired on the way. */
static void finish_lease(struct op *op, int status)
{
	struct queue_row *row = status == 0 ? op->row : NULL;
	struct queue *queue = op->queue;
	bool was_stuck = queue->is_stuck;

	if (status == 0)
		op->row = NULL;
	/* Live ones need not wait behind a backlog that cannot move. */
	queue->is_stuck = status < 0 && status != -ENOENT;
	if (queue->is_stuck && !was_stuck && queue->stuck && !queue->closing)
		queue->stuck(queue->stuck_arg);
	op->row_cb(op->arg, status == 0 && !row ? -ENOENT : status, row);
}

int queue_lease(struct queue *queue, int64_t now, queue_row_cb cb, void *arg)
{
	struct op *op;

	if (queue->unread)
		return -EAGAIN; /* it would be taken for one that is left of before */
	op = op_new(queue, run_lease, false, 0);
	if (!op)
		return -ENOMEM;
	op->now = now;
	op->finish = finish_lease;
	op->row_cb = cb;
	op->arg = arg;
	return op_submit(op);
}

/* --- what came of it --- */

static int leased(struct op *op, sqlite3 *db, struct brief *ret_row)
{
	int r = brief_read(db, op->id, ret_row);

	if (r == 0 && ret_row->state != REQUEST_SENDING)
		return -ESTALE;
	return r;
}

static int drop_response(struct op *op, sqlite3 *db, const struct brief *row)
{
	sqlite3_stmt *stmt;
	int64_t bytes;
	int r = sql_row(db, &stmt,
			"SELECT length(p.head) + r.response_bytes FROM request_responses p"
			" JOIN requests r ON r.seq = p.seq WHERE p.seq = ?",
			"i", row->seq);

	if (r <= 0)
		return r;
	bytes = sqlite3_column_int64(stmt, 0);
	sql_end(stmt);
	op->delta.bytes -= bytes;
	r = sql_run(db, "DELETE FROM request_responses WHERE seq = ?", "i", row->seq);
	if (r == 0)
		r = sql_run(db, "DELETE FROM request_pieces WHERE seq = ? AND part = ?", "ii",
			    row->seq, (int64_t)QUEUE_RESPONSE);
	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET bytes = bytes - ?, response_bytes = 0"
			    " WHERE seq = ?",
			    "ii", bytes, row->seq);
	return r;
}

static int insert_response(sqlite3 *db, int64_t seq, const struct queue_response *p,
			   const struct body *body)
{
	const uint8_t *bytes;
	uint8_t *heap;
	int r = body_bytes(body, &bytes, &heap);

	if (r < 0)
		return r;
	r = sql_run(db, "INSERT INTO request_responses (seq, head, body) VALUES (?, ?, ?)", "ibb",
		    seq, p->head, p->head_len, bytes, body_is_short(body) ? (size_t)body->len : 0);
	free(heap);
	if (r == 0 && !body_is_short(body))
		r = body_write_pieces(db, seq, QUEUE_RESPONSE, body);
	return r;
}

static int keep_response(struct op *op, sqlite3 *db, const struct brief *row)
{
	const struct queue_response *p = &op->response;
	struct body body = body_of(p->body, p->body_len, op->spool);
	int64_t bytes = (int64_t)(p->head_len + body.len);
	int r = drop_response(op, db, row);

	if (r < 0 || !op->has_response)
		return r;
	op->delta.bytes += bytes;
	r = insert_response(db, row->seq, p, &body);
	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET bytes = bytes + ?, response_bytes = ?"
			    " WHERE seq = ?",
			    "iii", bytes, (int64_t)body.len, row->seq);
	return r;
}

static int finish_as(struct op *op, sqlite3 *db, enum request_state state)
{
	struct brief row;
	int r = leased(op, db, &row);

	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET state = ?, blocked = 0, finished = ?, link = ?,"
			    " response_status = ? WHERE seq = ?",
			    "iitii", (int64_t)state, op->now, op->link,
			    (int64_t)op->response.status, row.seq);
	if (r == 0)
		r = keep_response(op, db, &row);
	if (r == 0)
		r = event_add(db, row.seq, op->now, op->what);
	if (r == 0)
		r = lane_advance(db, &row);
	if (r == 0)
		r = op_note(op, op->id, state, op->what);
	if (r == 0)
		move(op, REQUEST_SENDING, state);
	op->wake = true;
	return r;
}

static int run_done(struct store_job *job, sqlite3 *db)
{
	return finish_as((struct op *)job, db, REQUEST_DONE);
}

static int run_fail(struct store_job *job, sqlite3 *db)
{
	return finish_as((struct op *)job, db, REQUEST_FAILED);
}

static void finish_done(struct op *op, int status)
{
	op->queue->totals.answered += status == 0;
	if (op->status_cb)
		op->status_cb(op->arg, status);
}

static struct op *op_with_response(struct queue *queue, store_run run, const char *id,
				   const char *link, const struct queue_response *response,
				   const char *what, queue_status_cb cb, void *arg)
{
	size_t own = response ? response->head_len + (response->spool ? 0 : response->body_len) : 0;
	struct op *op = op_for_id(queue, run, id, cb, arg, own + text_size(link) + text_size(what));

	if (!op)
		return NULL;
	op->link = op_text(op, link);
	op->what = op_text(op, what);
	if (!response)
		return op;
	op->has_response = true;
	op->response = *response;
	op->response.head = op_bytes(op, response->head, response->head_len);
	op->spool = spool_ref(response->spool);
	if (!response->spool)
		op->response.body = op_bytes(op, response->body, response->body_len);
	return op;
}

int queue_done(struct queue *queue, const char *id, const char *link,
	       const struct queue_response *response, queue_status_cb cb, void *arg)
{
	char what[64];
	struct op *op;

	snprintf(what, sizeof(what), "answered with %d", response->status);
	op = op_with_response(queue, run_done, id, link, response, what, cb, arg);
	if (!op)
		return -ENOMEM;
	op->finish = finish_done;
	return op_submit(op);
}

int queue_fail(struct queue *queue, const char *id, const char *link,
	       const struct queue_response *response, const char *what, queue_status_cb cb,
	       void *arg)
{
	struct op *op = op_with_response(queue, run_fail, id, link, response, what, cb, arg);

	return op ? op_submit(op) : -ENOMEM;
}

/* What waits for a link lets all of its rule wait for it that would be leased next: one by one they
 * would stand before those that have a link, and wear the disk. */
static int put_off_alike(struct op *op, sqlite3 *db, const struct brief *row)
{
	if (op->link || op->next_attempt <= op->now)
		return 0;
	return sql_run(
		db,
		"UPDATE requests SET next_attempt = ?1, link = NULL WHERE seq IN (SELECT f.seq FROM"
		" (SELECT seq, rule, scheme FROM requests INDEXED BY requests_ready WHERE state = 1"
		" AND blocked = 0 AND next_attempt = 0 ORDER BY importance DESC, seq LIMIT ?2) f"
		" JOIN requests r ON r.seq = ?3 WHERE f.rule = r.rule AND f.scheme = r.scheme)",
		"iii", op->next_attempt, (int64_t)QUEUE_PROMOTE_MAX, row->seq);
}

static int run_retry(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	struct brief row;
	int r = leased(op, db, &row);

	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET state = 1, link = ?, next_attempt = ?,"
			    " attempts = max(attempts - ?, 0) WHERE seq = ?",
			    "tiii", op->link, op->next_attempt, (int64_t)!op->flag, row.seq);
	if (r == 0)
		r = lane_rejoin(db, &row);
	if (r == 0)
		r = put_off_alike(op, db, &row);
	if (r == 0 && op->link)
		r = event_add(db, row.seq, op->now, op->what);
	if (r == 0)
		r = op_note(op, op->id, REQUEST_STORED, op->what);
	if (r == 0)
		move(op, REQUEST_SENDING, REQUEST_STORED);
	return r;
}

static void finish_retry(struct op *op, int status)
{
	struct queue *queue = op->queue;

	if (status == 0 && (!queue->next_due || queue->next_due > op->next_attempt))
		queue->next_due = op->next_attempt ? op->next_attempt : 1;
	if (op->status_cb)
		op->status_cb(op->arg, status);
}

int queue_retry(struct queue *queue, const char *id, const char *link, int64_t next_attempt,
		bool count_attempt, const char *what, queue_status_cb cb, void *arg)
{
	struct op *op = op_with_response(queue, run_retry, id, link, NULL, what, cb, arg);

	if (!op)
		return -ENOMEM;
	op->next_attempt = next_attempt;
	op->flag = count_attempt;
	op->finish = finish_retry;
	return op_submit(op);
}

static void finish_woken(struct op *op, int status)
{
	if (status == 0 && op->wake)
		op->queue->next_due = 1;
	if (op->status_cb)
		op->status_cb(op->arg, status);
}

static int run_links_changed(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	int r = sql_run(db,
			"UPDATE requests SET next_attempt = 0 WHERE state = 1 AND blocked = 0"
			" AND link IS NULL AND next_attempt > 0",
			"");

	op->wake = sqlite3_changes(db) > 0;
	return r;
}

int queue_links_changed(struct queue *queue)
{
	struct op *op = op_new(queue, run_links_changed, false, 0);

	if (!op)
		return -ENOMEM;
	op->finish = finish_woken;
	return op_submit(op);
}

/* Which clock a row was stored under is seen from `received`: before a step forward it is at
 * most now - step; before a step back it may be later than now. */
static int run_clock_stepped(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	int r;

	op->wake = true;
	r = sql_run(db,
		    "UPDATE requests SET received = received + ?1, expires = expires + ?1,"
		    " next_attempt = CASE next_attempt WHEN 0 THEN 0 ELSE next_attempt + ?1 END,"
		    " finished = finished + ?1"
		    " WHERE seq > ?2 AND CASE WHEN ?1 > 0 THEN received <= ?3 - ?1"
		    " ELSE received > ?3 END",
		    "iii", op->step, op->queue->first_seq, op->now);
	/* Rows of before that were finished since the start: their answers are kept as long. */
	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET finished = finished + ?1 WHERE seq <= ?2"
			    " AND finished >= ?4 AND CASE WHEN ?1 > 0 THEN finished <= ?3 - ?1"
			    " ELSE finished > ?3 END",
			    "iiii", op->step, op->queue->first_seq, op->now, op->stamp);
	return r;
}

int queue_clock_stepped(struct queue *queue, int64_t now, int64_t step)
{
	struct op *op = op_new(queue, run_clock_stepped, false, 0);
	int r;

	if (!op)
		return -ENOMEM;
	op->now = now;
	op->step = step;
	op->stamp = queue->started;
	op->finish = finish_woken;
	r = op_submit(op);
	if (r == 0)
		queue->started += step;
	return r;
}

/* --- by hand --- */

static int run_retry_now(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	struct brief row;
	int r = brief_read(db, op->id, &row);

	if (r < 0)
		return r;
	if (row.state == REQUEST_SENDING || row.state == REQUEST_DONE)
		return row.state == REQUEST_SENDING ? -EBUSY : -EALREADY;
	if (!row.bytes)
		return -ENODATA;
	if (row.expires <= op->now || row.state == REQUEST_EXPIRED)
		row.expires = op->now + (row.expires - row.received);
	r = drop_response(op, db, &row);
	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET state = 1, attempts = 0, next_attempt = 0,"
			    " finished = NULL, response_status = 0, expires = ? WHERE seq = ?",
			    "ii", row.expires, row.seq);
	if (r == 0)
		r = lane_rejoin(db, &row);
	if (r == 0)
		r = event_add(db, row.seq, op->now, "to be tried again by request");
	if (r == 0)
		r = op_note(op, op->id, REQUEST_STORED, "to be tried again by request");
	if (r == 0)
		move(op, row.state, REQUEST_STORED);
	op->wake = true;
	return r;
}

/* It is in its lane again, and which one that is stands in the database alone. */
static void finish_retry_now(struct op *op, int status)
{
	if (status == 0)
		hints_load(op->queue);
	finish_woken(op, status);
}

int queue_retry_now(struct queue *queue, const char *id, queue_status_cb cb, void *arg)
{
	struct op *op = op_for_id(queue, run_retry_now, id, cb, arg, 0);

	if (!op)
		return -ENOMEM;
	op->finish = finish_retry_now;
	return op_submit(op);
}

int remove_row(struct op *op, sqlite3 *db, const struct brief *row, const char *what)
{
	int r = lane_advance(db, row);

	if (r == 0)
		r = sql_run(db, "DELETE FROM requests WHERE seq = ?", "i", row->seq);
	if (r == 0)
		r = op_note(op, row->id, (enum request_state)GONE, what);
	op->delta.rows[row->state]--;
	op->delta.owing -= row->owes;
	op->delta.bytes -= row->bytes;
	return r;
}

static int run_delete(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	struct brief row;
	int r = brief_read(db, op->id, &row);

	if (r < 0)
		return r;
	if (row.state == REQUEST_SENDING)
		return -EBUSY;
	op->wake = row.state == REQUEST_STORED;
	return remove_row(op, db, &row, "deleted");
}

int queue_delete(struct queue *queue, const char *id, queue_status_cb cb, void *arg)
{
	struct op *op = op_for_id(queue, run_delete, id, cb, arg, 0);

	if (!op)
		return -ENOMEM;
	op->finish = finish_woken;
	return op_submit(op);
}

/* --- the sweep --- */

static int purge_rows(struct op *op, sqlite3 *db)
{
	int64_t keep = (int64_t)op->limits.keep_response;
	int64_t keep_failed = keep > QUEUE_KEEP_FAILED ? keep : QUEUE_KEEP_FAILED;

	for (int i = 0; i < QUEUE_SWEEP_BATCH; i++) {
		char id[ID_TEXT_MAX];
		struct brief row;
		sqlite3_stmt *stmt;
		int r = sql_row(db, &stmt,
				"SELECT id FROM requests WHERE finished IS NOT NULL AND"
				" finished <= ?1 - CASE state WHEN 4 THEN ?3 ELSE ?2 END"
				" AND finished <= ?1 - ?2 ORDER BY finished LIMIT 1",
				"iii", op->now, keep, keep_failed);

		if (r <= 0)
			return r;
		snprintf(id, sizeof(id), "%s", (const char *)sqlite3_column_text(stmt, 0));
		sql_end(stmt);
		r = brief_read(db, id, &row);
		if (r == 0)
			r = remove_row(op, db, &row, "no longer kept");
		if (r < 0)
			return r;
		op->delta.unclaimed += row.owes;
	}
	op->again = true;
	return 0;
}

static int run_sweep(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	char sql[64];
	int r = expire_rows(op, db, op->now);

	if (r == 0)
		r = purge_rows(op, db);
	if (r == 0)
		r = trim_finished(op, db);
	op->wake = op->change_count != 0;
	snprintf(sql, sizeof(sql), "PRAGMA incremental_vacuum(%d)", QUEUE_VACUUM_PAGES);
	return r == 0 ? sql_run(db, sql, "") : r;
}

/* A full batch: the rest in jobs of their own, so that others get a turn between. */
static void finish_sweep(struct op *op, int status)
{
	if (status == 0 && op->again &&
	    queue_sweep(op->queue, op->now, op->status_cb, op->arg) == 0)
		return;
	finish_woken(op, status);
}

int queue_sweep(struct queue *queue, int64_t now, queue_status_cb cb, void *arg)
{
	struct op *op;

	queue_read(queue);
	op = op_new(queue, run_sweep, false, 0);
	if (!op)
		return -ENOMEM;
	op->now = now;
	op->status_cb = cb;
	op->arg = arg;
	op->finish = finish_sweep;
	return op_submit(op);
}
