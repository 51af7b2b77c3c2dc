/* What a full queue gives up, and for whom. */
#include "base/limits.h"
#include "queue/queue_op.h"

#include <errno.h>
#include <stdio.h>

#define EVICTED "evicted: the queue is full"

/* What is there, as this transaction sees it. */
struct load {
	int64_t waiting, finished, bytes;
};

static int load_read(sqlite3 *db, struct load *ret_load)
{
	sqlite3_stmt *stmt;
	int r = sql_row(db, &stmt,
			"SELECT sum(rows * (state < 3)), sum(rows * (state >= 3)), sum(bytes)"
			" FROM request_totals",
			"");

	if (r <= 0)
		return r < 0 ? r : -EBADMSG;
	ret_load->waiting = sqlite3_column_int64(stmt, 0);
	ret_load->finished = sqlite3_column_int64(stmt, 1);
	ret_load->bytes = sqlite3_column_int64(stmt, 2);
	sql_end(stmt);
	return 0;
}

/* -ENOENT: there is none. */
static int find_brief(sqlite3 *db, const char *sql, int64_t parameter, struct brief *ret_row)
{
	char id[ID_TEXT_MAX];
	sqlite3_stmt *stmt;
	int r = sql_row(db, &stmt, sql, "i", parameter);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	snprintf(id, sizeof(id), "%s", (const char *)sqlite3_column_text(stmt, 0));
	sql_end(stmt);
	return brief_read(db, id, ret_row);
}

static int drop_finished(struct op *op, sqlite3 *db)
{
	struct brief row;
	int r = find_brief(db,
			   "SELECT id FROM requests INDEXED BY requests_droppable WHERE"
			   " finished IS NOT NULL AND bytes > 0 ORDER BY owes, finished LIMIT ?",
			   1, &row);

	if (r == 0)
		r = remove_row(op, db, &row, "no longer kept: the queue is full");
	if (r == 0)
		op->delta.unclaimed += row.owes;
	return r;
}

/* Those that were evicted weigh nothing; so they are bounded by their number. */
static int forget_evicted(struct op *op, sqlite3 *db)
{
	struct brief row;
	int r = find_brief(
		db,
		"SELECT id FROM requests WHERE finished IS NOT NULL AND bytes = 0"
		" AND finished <= (SELECT finished FROM requests WHERE finished IS NOT NULL"
		" AND bytes = 0 ORDER BY finished DESC LIMIT 1 OFFSET ?)"
		" ORDER BY finished LIMIT 1",
		QUEUE_EVICTED_MAX - 1, &row);

	if (r == 0)
		r = remove_row(op, db, &row, "no longer kept");
	return r == -ENOENT ? 0 : r;
}

static int drop_bodies(sqlite3 *db, int64_t seq)
{
	static const char *const deletes[] = {"DELETE FROM request_bodies WHERE seq = ?",
					      "DELETE FROM request_responses WHERE seq = ?",
					      "DELETE FROM request_pieces WHERE seq = ?"};
	int r = 0;

	for (size_t i = 0; i < sizeof(deletes) / sizeof(deletes[0]) && r == 0; i++)
		r = sql_run(db, deletes[i], "i", seq);
	return r;
}

static int evict_row(struct op *op, sqlite3 *db, const struct brief *row)
{
	int r = drop_bodies(db, row->seq);

	if (r == 0)
		r = sql_run(db,
			    "UPDATE requests SET state = 4, blocked = 0, finished = ?, bytes = 0,"
			    " body_bytes = 0, response_bytes = 0 WHERE seq = ?",
			    "ii", op->now, row->seq);
	if (r == 0)
		r = event_add(db, row->seq, op->now, EVICTED);
	if (r == 0)
		r = lane_advance(db, row);
	if (r == 0)
		r = op_note(op, row->id, REQUEST_FAILED, EVICTED);
	if (r < 0)
		return r;
	op->delta.rows[REQUEST_STORED]--;
	op->delta.rows[REQUEST_FAILED]++;
	op->delta.bytes -= row->bytes;
	op->delta.evicted++;
	return forget_evicted(op, db);
}

static int evict_least(struct op *op, sqlite3 *db)
{
	struct brief row;
	int r = find_brief(db,
			   "SELECT id FROM requests INDEXED BY requests_importance WHERE state = 1"
			   " AND importance < ? ORDER BY importance, seq LIMIT 1",
			   op->request.importance, &row);

	return r == 0 ? evict_row(op, db, &row) : r;
}

int make_room(struct op *op, sqlite3 *db)
{
	const struct queue_limits *limits = &op->limits;

	for (int i = 0; i < QUEUE_EVICT_MAX; i++) {
		struct load load;
		int r = load_read(db, &load);
		bool bytes = r == 0 && (uint64_t)load.bytes + op->reserved > limits->max_bytes;
		bool count =
			r == 0 && limits->max_count && (uint64_t)load.waiting >= limits->max_count;

		if (r < 0 || (!bytes && !count))
			return r;
		r = count ? -ENOENT : drop_finished(op, db);
		if (r == -ENOENT)
			r = evict_least(op, db);
		if (r < 0)
			return r == -ENOENT ? -EDQUOT : r;
	}
	return -EDQUOT;
}

int trim_finished(struct op *op, sqlite3 *db)
{
	for (int i = 0; i < QUEUE_SWEEP_BATCH; i++) {
		struct load load;
		int r = load_read(db, &load);

		if (r < 0 || !op->limits.max_count ||
		    (uint64_t)load.finished <= op->limits.max_count)
			return r;
		r = drop_finished(op, db);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
	}
	op->again = true;
	return 0;
}
