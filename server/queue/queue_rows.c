/* Rows read from the database: on the lane, for leases and for the API. */
#include "base/limits.h"
#include "queue/queue_op.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROW_COLUMNS                                                                          \
	"r.seq, r.id, r.state, r.rule, r.source, r.method, r.scheme, r.authority, r.target," \
	" r.link, r.idempotency_key, r.owes, r.ordered, r.importance, r.attempts,"           \
	" r.attempts_max, r.received, r.expires, r.next_attempt, r.response_status,"         \
	" r.body_bytes, r.response_bytes"

static int row_texts(sqlite3_stmt *stmt, struct queue_row *row)
{
	char **const texts[] = {&row->rule,	 &row->source, &row->method, &row->scheme,
				&row->authority, &row->target, &row->link,   &row->idempotency_key};
	int r = 0;

	for (int i = 0; i < 8 && r == 0; i++)
		r = sql_text(stmt, 3 + i, texts[i]);
	return r;
}

/* What no daemon ever wrote is damage: nobody reckons with it. */
static bool is_state(int64_t n)
{
	return n >= REQUEST_STORED && n < REQUEST_STATE_COUNT;
}

static bool is_sum(int64_t n)
{
	return n >= 0 && n <= QUEUE_TOTAL_MAX;
}

/* One with now added to it is still a number. */
static bool is_time(int64_t n)
{
	return n >= 0 && n <= INT64_MAX / 2;
}

static int row_from(sqlite3_stmt *stmt, struct queue_row **ret_row)
{
	struct queue_row *row;
	int r;

	if (!is_state(sqlite3_column_int64(stmt, 2)))
		return -EBADMSG;
	for (int i = 16; i <= 18; i++)
		if (!is_time(sqlite3_column_int64(stmt, i)))
			return -EBADMSG;
	for (int i = 19; i <= 21; i++)
		if (!is_sum(sqlite3_column_int64(stmt, i)))
			return -EBADMSG;
	row = calloc(1, sizeof(*row));
	if (!row)
		return -ENOMEM;
	snprintf(row->id, sizeof(row->id), "%s", (const char *)sqlite3_column_text(stmt, 1));
	row->state = (enum request_state)sqlite3_column_int(stmt, 2);
	row->owes = sqlite3_column_int(stmt, 11);
	row->ordered = sqlite3_column_int(stmt, 12);
	row->importance = (uint32_t)sqlite3_column_int64(stmt, 13);
	row->attempts = (uint32_t)sqlite3_column_int64(stmt, 14);
	row->attempts_max = (uint32_t)sqlite3_column_int64(stmt, 15);
	row->received = sqlite3_column_int64(stmt, 16);
	row->expires = sqlite3_column_int64(stmt, 17);
	row->next_attempt = sqlite3_column_int64(stmt, 18);
	row->response_status = sqlite3_column_int(stmt, 19);
	row->body_bytes = (uint64_t)sqlite3_column_int64(stmt, 20);
	row->response_bytes = (uint64_t)sqlite3_column_int64(stmt, 21);
	r = row_texts(stmt, row);
	if (r < 0) {
		queue_row_free(row);
		return r;
	}
	*ret_row = row;
	return 0;
}

static int read_pair(sqlite3 *db, const char *sql, int64_t seq, uint8_t **ret_a, size_t *ret_a_len,
		     uint8_t **ret_b, size_t *ret_b_len)
{
	sqlite3_stmt *stmt;
	int r = sql_row(db, &stmt, sql, "ii", seq, (int64_t)SPOOL_PIECE);

	if (r <= 0)
		return r;
	r = sql_blob(stmt, 0, ret_a, ret_a_len);
	if (r == 0)
		r = sql_blob(stmt, 1, ret_b, ret_b_len);
	sql_end(stmt);
	return r;
}

static int read_bodies(sqlite3 *db, int64_t seq, struct queue_row *row)
{
	int r = read_pair(db,
			  "SELECT fields, CASE WHEN length(body) <= ?2 THEN body END"
			  " FROM request_bodies WHERE seq = ?1",
			  seq, &row->fields, &row->fields_len, &row->body, &row->body_len);

	if (r < 0)
		return r;
	return read_pair(db,
			 "SELECT head, CASE WHEN length(body) <= ?2 THEN body END"
			 " FROM request_responses WHERE seq = ?1",
			 seq, &row->response_head, &row->response_head_len, &row->response_body,
			 &row->response_body_len);
}

static int read_events(sqlite3 *db, int64_t seq, struct queue_row *row)
{
	sqlite3_stmt *stmt;
	int r;

	row->events = calloc(QUEUE_EVENTS_MAX, sizeof(*row->events));
	if (!row->events)
		return -ENOMEM;
	r = sql_row(db, &stmt, "SELECT at, what FROM request_events WHERE seq = ? ORDER BY n", "i",
		    seq);
	if (r <= 0)
		return r;
	while (r == 1 && row->event_count < QUEUE_EVENTS_MAX) {
		struct queue_event *event = &row->events[row->event_count++];

		event->at = sqlite3_column_int64(stmt, 0);
		snprintf(event->what, sizeof(event->what), "%s",
			 (const char *)sqlite3_column_text(stmt, 1));
		r = sql_next(stmt);
	}
	sql_end(stmt);
	return r < 0 ? r : 0;
}

int row_read(sqlite3 *db, const char *id, bool bodies, bool events, struct queue_row **ret_row)
{
	struct queue_row *row = NULL;
	sqlite3_stmt *stmt;
	int64_t seq;
	int r = sql_row(db, &stmt, "SELECT " ROW_COLUMNS " FROM requests r WHERE r.id = ?", "t",
			id);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	seq = sqlite3_column_int64(stmt, 0);
	r = row_from(stmt, &row);
	sql_end(stmt);
	if (r == 0 && bodies)
		r = read_bodies(db, seq, row);
	if (r == 0 && events)
		r = read_events(db, seq, row);
	if (r < 0) {
		queue_row_free(row);
		return r;
	}
	*ret_row = row;
	return 0;
}

static int take_brief(sqlite3_stmt *stmt, struct brief *ret_brief)
{
	int64_t state = sqlite3_column_int64(stmt, 4);

	*ret_brief = (struct brief){
		.seq = sqlite3_column_int64(stmt, 0),
		.bytes = sqlite3_column_int64(stmt, 1),
		.received = sqlite3_column_int64(stmt, 2),
		.expires = sqlite3_column_int64(stmt, 3),
		.state = (enum request_state)state,
		.owes = sqlite3_column_int(stmt, 5),
		.ordered = sqlite3_column_int(stmt, 6),
		.attempts = (uint32_t)sqlite3_column_int64(stmt, 7),
	};
	return is_state(state) && is_sum(ret_brief->bytes) && is_time(ret_brief->received) &&
			       is_time(ret_brief->expires)
		       ? 0
		       : -EBADMSG;
}

int brief_read(sqlite3 *db, const char *id, struct brief *ret_brief)
{
	sqlite3_stmt *stmt;
	int r = sql_row(db, &stmt,
			"SELECT seq, bytes, received, expires, state, owes, ordered, attempts"
			" FROM requests WHERE id = ?",
			"t", id);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = take_brief(stmt, ret_brief);
	snprintf(ret_brief->id, sizeof(ret_brief->id), "%s", id);
	sql_end(stmt);
	return r;
}

int event_add(sqlite3 *db, int64_t seq, int64_t at, const char *what)
{
	int r = sql_run(
		db,
		"INSERT INTO request_events (seq, n, at, what) VALUES (?1,"
		" (SELECT coalesce(max(n), 0) + 1 FROM request_events WHERE seq = ?1), ?2, ?3)",
		"iit", seq, at, what);

	if (r < 0)
		return r;
	return sql_run(db,
		       "DELETE FROM request_events WHERE seq = ?1 AND n <="
		       " (SELECT max(n) FROM request_events WHERE seq = ?1) - ?2",
		       "ii", seq, (int64_t)QUEUE_EVENTS_MAX);
}

/* --- for the API --- */

static void finish_row(struct op *op, int status)
{
	struct queue_row *row = status == 0 ? op->row : NULL;

	if (status == 0)
		op->row = NULL;
	op->row_cb(op->arg, status, row);
}

static int run_get(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;

	return row_read(db, op->id, op->flag, true, &op->row);
}

int queue_get(struct queue *queue, const char *id, bool bodies, queue_row_cb cb, void *arg)
{
	struct op *op = op_new(queue, run_get, true, 0);

	if (!op)
		return -ENOMEM;
	snprintf(op->id, sizeof(op->id), "%s", id);
	op->flag = bodies;
	op->finish = finish_row;
	op->row_cb = cb;
	op->arg = arg;
	return op_submit(op);
}

/* A listing looks at QUEUE_LIST_SCAN rows in one job, so that one whose filter fits hardly any
 * keeps nobody waiting; the row before `floor` is where the next job goes on. It goes along an
 * index that a new row need not pay for: finished rows have one by state, leased ones are few, and
 * all else goes by id. A host is asked for without its port; authorities are in lower case. */
#define SLICE(INDEX, WHERE)                                                                        \
	{                                                                                          \
		"SELECT r.id FROM requests r INDEXED BY " INDEX " WHERE " WHERE                    \
		" AND r.id < ?1 ORDER BY r.id DESC LIMIT 1 OFFSET ?2",                             \
			"SELECT " ROW_COLUMNS " FROM requests r INDEXED BY " INDEX " WHERE " WHERE \
			" AND r.id < ?1 AND r.id >= ?2 AND (?4 IS NULL OR"                         \
			" r.authority = ?4 OR substr(r.authority, 1, length(?4) + 1) = ?4 || ':')" \
			" AND (?5 IS NULL OR r.rule = ?5) AND (?6 IS NULL OR r.source = ?6)"       \
			" ORDER BY r.id DESC LIMIT ?7"                                             \
	}

static const struct slice {
	const char *floor, *rows;
} by_id = SLICE("sqlite_autoindex_requests_1", "(?3 < 0 OR r.state = ?3)"),
  by_over = SLICE("requests_over", "r.finished IS NOT NULL AND r.state = ?3"),
  by_leased = SLICE("requests_leased", "r.state = 2 AND ?3 = 2");

static const struct slice *slice_of(const struct queue_filter *f)
{
	if (!f->has_state || f->state == REQUEST_HELD || f->state == REQUEST_STORED)
		return &by_id;
	return f->state == REQUEST_SENDING ? &by_leased : &by_over;
}

/* "" and not `again`: the rest fits into this job. */
static int find_floor(struct op *op, sqlite3 *db, const char *before, int64_t state)
{
	sqlite3_stmt *stmt;
	int r = sql_row(db, &stmt, slice_of(&op->filter)->floor, "tii", before,
			(int64_t)QUEUE_LIST_SCAN - 1, state);

	op->again = r == 1;
	if (r <= 0)
		return r;
	snprintf(op->id, sizeof(op->id), "%s", (const char *)sqlite3_column_text(stmt, 0));
	sql_end(stmt);
	return 0;
}

static int run_list(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	const struct queue_filter *f = &op->filter;
	const char *before = f->before ? f->before : "~"; /* after every id */
	int64_t state = f->has_state ? (int64_t)f->state : (int64_t)-1;
	sqlite3_stmt *stmt;
	int r = find_floor(op, db, before, state);

	if (r < 0)
		return r;
	r = sql_row(db, &stmt, slice_of(f)->rows, "ttittti", before, op->id, state, f->host,
		    f->rule, f->source, (int64_t)(f->limit - op->row_count));
	if (r <= 0)
		return r;
	while (r == 1) {
		r = row_from(stmt, &op->rows[op->row_count]);
		if (r < 0)
			break;
		op->row_count++;
		r = sql_next(stmt);
	}
	sql_end(stmt);
	return r;
}

static int list_submit(struct queue *queue, const struct queue_filter *filter,
		       struct queue_row **rows, size_t count, queue_rows_cb cb, void *arg);

static void finish_rows(struct op *op, int status)
{
	struct queue_row **rows = op->rows;
	size_t count = op->row_count;

	if (status < 0) {
		op->rows_cb(op->arg, status, NULL, 0);
		return;
	}
	op->rows = NULL;
	op->row_count = 0;
	op->filter.before = op->id;
	if (!op->again || count == op->filter.limit)
		op->rows_cb(op->arg, 0, rows, count);
	else if ((status = list_submit(op->queue, &op->filter, rows, count, op->rows_cb, op->arg)) <
		 0)
		op->rows_cb(op->arg, status, NULL, 0);
}

static const char *op_lower(struct op *op, const char *text)
{
	char *copy = (char *)op_text(op, text);

	for (char *c = copy; c && *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return copy;
}

/* Takes the rows. */
static int list_submit(struct queue *queue, const struct queue_filter *filter,
		       struct queue_row **rows, size_t count, queue_rows_cb cb, void *arg)
{
	struct op *op = op_new(queue, run_list, true,
			       text_size(filter->host) + text_size(filter->rule) +
				       text_size(filter->source) + text_size(filter->before));

	if (!op) {
		for (size_t i = 0; i < count; i++)
			queue_row_free(rows[i]);
		free(rows);
		return -ENOMEM;
	}
	op->rows = rows;
	op->row_count = count;
	op->filter = *filter;
	op->filter.host = op_lower(op, filter->host);
	op->filter.rule = op_text(op, filter->rule);
	op->filter.source = op_text(op, filter->source);
	op->filter.before = op_text(op, filter->before);
	op->finish = finish_rows;
	op->rows_cb = cb;
	op->arg = arg;
	return op_submit(op);
}

int queue_list(struct queue *queue, const struct queue_filter *filter, queue_rows_cb cb, void *arg)
{
	struct queue_filter bounded = *filter;
	struct queue_row **rows;

	if (!filter->limit || filter->limit > QUEUE_LIST_MAX)
		bounded.limit = QUEUE_LIST_MAX;
	rows = calloc(bounded.limit, sizeof(struct queue_row *));
	if (!rows)
		return -ENOMEM;
	return list_submit(queue, &bounded, rows, 0, cb, arg);
}
