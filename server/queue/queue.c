#include "queue/queue.h"

#include "base/clock.h"
#include "base/log.h"
#include "queue/queue_op.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bodies are in tables of their own: SQLite writes a row whole when a column changes. A body of
 * more than one piece is in request_pieces, `at` being where the piece begins, and the column
 * `body` is empty then (but in rows of version 1, which knew no pieces).
 * `blocked`: an older ordered row of the same lane (source, scheme, authority) waits. So only
 * the heads of lanes are in the index that a lease looks through. next_attempt is 0 for what is
 * due: what is put off is in an index of its own and brought back when its time has come.
 * The triggers keep the totals in the transaction that changes them, whoever changes a row. An
 * index that is empty for a new row costs a store nothing. */
static const char schema[] =
	"CREATE TABLE IF NOT EXISTS requests ("
	" seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
	" state INTEGER NOT NULL, rule TEXT NOT NULL, source TEXT NOT NULL, method TEXT NOT NULL,"
	" scheme TEXT NOT NULL, authority TEXT NOT NULL, target TEXT NOT NULL,"
	" hash BLOB NOT NULL, body_hash BLOB NOT NULL, idempotency_key TEXT,"
	" owes INTEGER NOT NULL, ordered INTEGER NOT NULL, blocked INTEGER NOT NULL,"
	" importance INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,"
	" attempts_max INTEGER NOT NULL, received INTEGER NOT NULL, expires INTEGER NOT NULL,"
	" next_attempt INTEGER NOT NULL, link TEXT, bytes INTEGER NOT NULL,"
	" response_status INTEGER NOT NULL DEFAULT 0, finished INTEGER,"
	" body_bytes INTEGER NOT NULL DEFAULT 0, response_bytes INTEGER NOT NULL DEFAULT 0);"
	"CREATE TABLE IF NOT EXISTS request_bodies ("
	" seq INTEGER PRIMARY KEY REFERENCES requests ON DELETE CASCADE,"
	" fields BLOB NOT NULL, body BLOB NOT NULL);"
	"CREATE TABLE IF NOT EXISTS request_responses ("
	" seq INTEGER PRIMARY KEY REFERENCES requests ON DELETE CASCADE,"
	" head BLOB NOT NULL, body BLOB NOT NULL);"
	"CREATE TABLE IF NOT EXISTS request_pieces ("
	" seq INTEGER NOT NULL REFERENCES requests ON DELETE CASCADE, part INTEGER NOT NULL,"
	" at INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (seq, part, at));"
	"CREATE TABLE IF NOT EXISTS request_events ("
	" seq INTEGER NOT NULL REFERENCES requests ON DELETE CASCADE, n INTEGER NOT NULL,"
	" at INTEGER NOT NULL, what TEXT NOT NULL, PRIMARY KEY (seq, n)) WITHOUT ROWID;"
	"DROP INDEX IF EXISTS requests_head; DROP INDEX IF EXISTS requests_sending;"
	"CREATE INDEX IF NOT EXISTS requests_ready ON requests (importance DESC, seq)"
	" WHERE state = 1 AND blocked = 0 AND next_attempt = 0;"
	"CREATE INDEX IF NOT EXISTS requests_delayed ON requests (next_attempt)"
	" WHERE state = 1 AND blocked = 0 AND next_attempt > 0;"
	"CREATE INDEX IF NOT EXISTS requests_importance ON requests (importance, seq)"
	" WHERE state = 1;"
	"CREATE INDEX IF NOT EXISTS requests_expires ON requests (expires) WHERE state = 1;"
	"CREATE INDEX IF NOT EXISTS requests_lane ON requests (source, scheme, authority, seq)"
	" WHERE ordered = 1 AND state IN (1, 2);"
	"CREATE INDEX IF NOT EXISTS requests_leased ON requests (source, scheme, authority)"
	" WHERE state = 2;"
	"CREATE INDEX IF NOT EXISTS requests_debt ON requests (source, hash) WHERE owes = 1;"
	"CREATE INDEX IF NOT EXISTS requests_key ON requests (source, idempotency_key)"
	" WHERE owes = 1 AND idempotency_key IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS requests_finished ON requests (finished)"
	" WHERE finished IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS requests_over ON requests (state, id)"
	" WHERE finished IS NOT NULL;"
	"CREATE INDEX IF NOT EXISTS requests_droppable ON requests (owes, finished)"
	" WHERE finished IS NOT NULL AND bytes > 0;"
	"CREATE INDEX IF NOT EXISTS requests_evicted ON requests (finished)"
	" WHERE finished IS NOT NULL AND bytes = 0;"
	"CREATE TABLE IF NOT EXISTS request_totals (state INTEGER PRIMARY KEY,"
	" rows INTEGER NOT NULL, owing INTEGER NOT NULL, bytes INTEGER NOT NULL);"
	"WITH s (value) AS (VALUES (1), (2), (3), (4), (5))"
	" INSERT INTO request_totals SELECT s.value, coalesce(sum(r.state = s.value), 0),"
	" coalesce(sum(r.owes * (r.state = s.value)), 0),"
	" coalesce(sum(r.bytes * (r.state = s.value)), 0)"
	" FROM s LEFT JOIN requests r"
	" WHERE NOT EXISTS (SELECT 1 FROM request_totals) GROUP BY s.value;"
	"CREATE TRIGGER IF NOT EXISTS requests_added AFTER INSERT ON requests BEGIN"
	" UPDATE request_totals SET rows = rows + 1, owing = owing + NEW.owes,"
	" bytes = bytes + NEW.bytes WHERE state = NEW.state; END;"
	"CREATE TRIGGER IF NOT EXISTS requests_removed AFTER DELETE ON requests BEGIN"
	" UPDATE request_totals SET rows = rows - 1, owing = owing - OLD.owes,"
	" bytes = bytes - OLD.bytes WHERE state = OLD.state; END;"
	"CREATE TRIGGER IF NOT EXISTS requests_changed AFTER UPDATE OF state, owes, bytes ON "
	"requests"
	" BEGIN UPDATE request_totals SET rows = rows - 1, owing = owing - OLD.owes,"
	" bytes = bytes - OLD.bytes WHERE state = OLD.state;"
	" UPDATE request_totals SET rows = rows + 1, owing = owing + NEW.owes,"
	" bytes = bytes + NEW.bytes WHERE state = NEW.state; END;";

_Static_assert(REQUEST_STORED == 1 && REQUEST_SENDING == 2 && REQUEST_DONE == 3 &&
		       REQUEST_FAILED == 4 && REQUEST_EXPIRED == 5,
	       "the numbers stand in the database");

#define STATE_NAME(id, name) name,
static const char *const state_names[] = {REQUEST_STATES(STATE_NAME)};

const char *request_state_name(enum request_state state)
{
	return state < REQUEST_STATE_COUNT ? state_names[state] : "deleted";
}

int request_state_parse(const char *name, enum request_state *ret_state)
{
	for (int i = 0; i < REQUEST_STATE_COUNT; i++)
		if (strcmp(name, state_names[i]) == 0) {
			*ret_state = i;
			return 0;
		}
	return -EINVAL;
}

void queue_row_free(struct queue_row *row)
{
	if (!row)
		return;
	free(row->rule);
	free(row->source);
	free(row->method);
	free(row->scheme);
	free(row->authority);
	free(row->target);
	free(row->link);
	free(row->fields);
	free(row->body);
	free(row->idempotency_key);
	free(row->response_head);
	free(row->response_body);
	spool_unref(row->spool);
	free(row->events);
	free(row);
}

/* --- operations --- */

void queue_unref(struct queue *queue)
{
	if (--queue->refs)
		return;
	free(queue->hints);
	free(queue);
}

void op_free(struct op *op)
{
	for (size_t i = 0; i < op->row_count; i++)
		queue_row_free(op->rows[i]);
	free(op->rows);
	queue_row_free(op->row);
	spool_unref(op->spool);
	free(op->hints);
	free(op->changes);
	free(op->copy);
	free(op);
}

static uint64_t *total_of(struct queue *queue, enum request_state state)
{
	switch (state) {
	case REQUEST_STORED:
		return &queue->totals.stored;
	case REQUEST_SENDING:
		return &queue->totals.sending;
	case REQUEST_DONE:
		return &queue->totals.done;
	case REQUEST_FAILED:
		return &queue->totals.failed;
	case REQUEST_EXPIRED:
		return &queue->totals.expired;
	case REQUEST_HELD:
	case REQUEST_STATE_COUNT:
		break;
	}
	abort();
}

static void apply_delta(struct queue *queue, const struct delta *delta)
{
	for (int i = REQUEST_STORED; i < REQUEST_STATE_COUNT; i++)
		*total_of(queue, i) += (uint64_t)delta->rows[i];
	queue->totals.owing += (uint64_t)delta->owing;
	queue->totals.bytes += (uint64_t)delta->bytes;
	queue->totals.unclaimed += (uint64_t)delta->unclaimed;
	queue->totals.evicted += (uint64_t)delta->evicted;
}

static void tell_changes(struct op *op)
{
	struct queue *queue = op->queue;

	for (size_t i = 0; i < op->change_count && !queue->closing; i++) {
		const struct change *c = &op->changes[i];

		if (queue->observer)
			queue->observer(queue->observer_arg, c->id, c->state, c->what);
		if (c->state == (enum request_state)GONE)
			watches_tell(queue, c->id, QUEUE_GONE);
		else if (state_is_final(c->state))
			watches_tell(queue, c->id, op->paid ? QUEUE_PAID : QUEUE_YOURS);
	}
}

/* On the loop, after the commit. The op's own callback comes before the watchers, so that
 * who acknowledged an answer knows it first. */
static void on_op_done(struct store_job *job, int status)
{
	struct op *op = (struct op *)job;
	struct queue *queue = op->queue;

	queue->pending_bytes -= op->reserved;
	queue->pending_puts -= op->reserved != 0;
	if (status == 0)
		apply_delta(queue, &op->delta);
	if (op->has_next_due)
		queue->next_due = op->next_due;
	/* What finished may have been the head of a lane: the next in it is due now. */
	if (status == 0 && op->wake && queue->totals.stored)
		queue->next_due = 1;
	op->finish(op, status);
	if (status == 0)
		tell_changes(op);
	if (status == 0 && op->wake && queue->wakeup && !queue->closing)
		queue->wakeup(queue->wakeup_arg);
	op_free(op);
	queue_unref(queue);
}

static void finish_status(struct op *op, int status)
{
	if (op->status_cb)
		op->status_cb(op->arg, status);
}

struct op *op_new(struct queue *queue, store_run run, bool read_only, size_t copy_size)
{
	struct op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->copy = malloc(copy_size + 1);
	if (!op->copy) {
		free(op);
		return NULL;
	}
	op->copy_size = copy_size;
	op->queue = queue;
	op->job = (struct store_job){.run = run, .done = on_op_done, .read_only = read_only};
	op->finish = finish_status;
	op->now = clock_wall();
	op->limits = queue->limits;
	return op;
}

const uint8_t *op_bytes(struct op *op, const uint8_t *bytes, size_t len)
{
	uint8_t *at = op->copy + op->copy_len;

	if (len > op->copy_size - op->copy_len)
		abort();
	if (len)
		memcpy(at, bytes, len);
	op->copy_len += len;
	return at;
}

const char *op_text(struct op *op, const char *text)
{
	return text ? (const char *)op_bytes(op, (const uint8_t *)text, strlen(text) + 1) : NULL;
}

int op_submit(struct op *op)
{
	struct queue *queue = op->queue;
	int r = queue->closing ? -ECANCELED : store_submit(queue->store, &op->job);

	if (r < 0) {
		op_free(op);
		return r;
	}
	queue->refs++;
	queue->pending_bytes += op->reserved;
	queue->pending_puts += op->reserved != 0;
	return 0;
}

struct op *op_for_id(struct queue *queue, store_run run, const char *id, queue_status_cb cb,
		     void *arg, size_t copy_size)
{
	struct op *op = op_new(queue, run, false, copy_size);

	if (!op)
		return NULL;
	snprintf(op->id, sizeof(op->id), "%s", id);
	op->status_cb = cb;
	op->arg = arg;
	return op;
}

int op_note(struct op *op, const char *id, enum request_state state, const char *what)
{
	struct change *change;

	if (op->change_count == op->change_capacity) {
		size_t capacity = op->change_capacity ? op->change_capacity * 2 : 1;
		struct change *changes = realloc(op->changes, capacity * sizeof(*changes));

		if (!changes)
			return -ENOMEM;
		op->changes = changes;
		op->change_capacity = capacity;
	}
	change = &op->changes[op->change_count++];
	snprintf(change->id, sizeof(change->id), "%s", id);
	snprintf(change->what, sizeof(change->what), "%s", what);
	change->state = state;
	return 0;
}

/* --- life --- */

/* A lease that a dead daemon left behind: whether it was sent is not known. */
static int take_back(sqlite3 *db)
{
	sqlite3_stmt *stmt;
	int r, e = 0;

	while ((r = sql_row(db, &stmt, "SELECT seq FROM requests WHERE state = 2 LIMIT 1", "")) ==
	       1) {
		int64_t seq = sqlite3_column_int64(stmt, 0);

		sql_end(stmt);
		e = sql_run(db, "UPDATE requests SET state = 1, next_attempt = 0 WHERE seq = ?",
			    "i", seq);
		if (e == 0)
			e = event_add(db, seq, clock_wall(), "taken back after a restart");
		if (e < 0)
			return e;
	}
	return r;
}

/* Version 1 knew the lengths of bodies from the bodies alone. */
static int upgrade(sqlite3 *db)
{
	static const char *const steps[] = {
		"ALTER TABLE requests ADD COLUMN body_bytes INTEGER NOT NULL DEFAULT 0",
		"ALTER TABLE requests ADD COLUMN response_bytes INTEGER NOT NULL DEFAULT 0",
		"UPDATE requests SET body_bytes = coalesce((SELECT length(body) FROM"
		" request_bodies b WHERE b.seq = requests.seq), 0), response_bytes = coalesce("
		"(SELECT length(body) FROM request_responses p WHERE p.seq = requests.seq), 0)",
	};
	sqlite3_stmt *stmt;
	int r = sql_row(db, &stmt,
			"SELECT 1 FROM pragma_table_info('requests') WHERE name = 'body_bytes'",
			"");

	if (r == 1)
		sql_end(stmt);
	if (r != 0)
		return r < 0 ? r : 0;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && r == 0; i++)
		r = sql_run(db, steps[i], "");
	return r;
}

/* Sums that cannot be are damage. */
static int take_total(struct op *op, sqlite3_stmt *stmt)
{
	enum { STATE, ROWS, OWING, BYTES, COLUMNS };
	int64_t n[COLUMNS];

	for (int i = 0; i < COLUMNS; i++)
		n[i] = sqlite3_column_int64(stmt, i);
	if (n[STATE] < REQUEST_STORED || n[STATE] >= REQUEST_STATE_COUNT)
		return -EBADMSG;
	for (int i = ROWS; i < COLUMNS; i++)
		if (n[i] < 0 || n[i] > QUEUE_TOTAL_MAX)
			return -EBADMSG;
	op->delta.rows[n[STATE]] = n[ROWS];
	op->delta.owing += n[OWING];
	op->delta.bytes += n[BYTES];
	return 0;
}

static int run_start(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	sqlite3_stmt *stmt;
	int r = upgrade(db);

	op->delta = (struct delta){.owing = 0}; /* it may run twice */
	if (r == 0 && op->flag)
		r = take_back(db);
	if (r == 0)
		r = sql_row(db, &stmt, "SELECT coalesce(max(seq), 0) FROM requests", "");
	if (r <= 0)
		return r;
	op->last_seq = sqlite3_column_int64(stmt, 0);
	sql_end(stmt);
	r = sql_row(db, &stmt, "SELECT state, rows, owing, bytes FROM request_totals", "");
	if (r <= 0)
		return r;
	do {
		r = take_total(op, stmt);
		if (r < 0)
			break;
		r = sql_next(stmt);
	} while (r == 1);
	sql_end(stmt);
	return r;
}

/* In the order of the lane: what was committed before is in these sums, what comes after is added
 * to them. */
static void begin(struct queue *queue, const struct op *op)
{
	struct queue_totals *t = &queue->totals;

	t->stored = t->sending = t->done = t->failed = t->expired = t->owing = t->bytes = 0;
	apply_delta(queue, &op->delta);
	queue->first_seq = op->last_seq;
	queue->next_due = t->stored ? 1 : 0;
	if (queue_has_debts(queue) || queue_has_backlog(queue))
		hints_load(queue);
	if (t->stored)
		log_info("queue", "%llu stored exchanges wait", (unsigned long long)t->stored);
}

static void tell_unread(struct queue *queue, int error)
{
	if (error != queue->told)
		log_error("queue", "the queue cannot be read: %s; it is tried again",
			  strerror(-error));
	queue->told = error;
}

static void finish_start(struct op *op, int status)
{
	struct queue *queue = op->queue;

	queue->counting = false;
	if (status < 0) {
		tell_unread(queue, status);
		return;
	}
	queue->unread = false;
	queue->told = 0;
	begin(queue, op);
}

static int read_anew(struct queue *queue, bool leases_are_left)
{
	struct op *op = op_new(queue, run_start, false, 0);
	int r;

	if (!op)
		return -ENOMEM;
	op->finish = finish_start;
	op->flag = leases_are_left;
	op->wake = true;
	r = op_submit(op);
	queue->counting = r == 0;
	return r;
}

void queue_read(struct queue *queue)
{
	if (queue->unread && !queue->counting && read_anew(queue, true) < 0)
		tell_unread(queue, -EAGAIN);
}

/* Nobody will hear of the rows that were there; there may be others. */
static void on_reopened(void *arg, bool empty)
{
	struct queue *queue = arg;

	watches_gone(queue);
	queue->unread = true;
	if (read_anew(queue, !empty) < 0)
		tell_unread(queue, -EAGAIN);
}

/* A disk that takes nothing now: what is stored is counted when it does. */
static bool may_pass(int error)
{
	return error == -ENOSPC || error == -EDQUOT || error == -EROFS || error == -EIO;
}

static int read_now(struct queue *queue)
{
	struct op *op = op_new(queue, run_start, false, 0);
	int r;

	if (!op)
		return -ENOMEM;
	op->flag = true;
	r = store_run_now(queue->store, &op->job);
	if (r == 0)
		begin(queue, op);
	queue->unread = may_pass(r);
	if (queue->unread) {
		tell_unread(queue, r);
		hints_load(queue);
	}
	op_free(op);
	return queue->unread ? 0 : r;
}

int queue_new(uv_loop_t *loop, struct store *store, const struct queue_limits *limits,
	      struct queue **ret_queue)
{
	struct queue *queue = calloc(1, sizeof(*queue));
	int r;

	if (!queue)
		return -ENOMEM;
	*queue = (struct queue){.loop = loop,
				.store = store,
				.limits = *limits,
				.refs = 1,
				.started = clock_wall()};
	queue->listener = (struct store_listener){.reopened = on_reopened, .arg = queue};
	queue_set_limits(queue, limits);
	r = hints_new(&queue->hints);
	if (r == 0)
		r = store_schema(store, schema);
	if (r == 0)
		r = read_now(queue);
	if (r < 0) {
		log_error("queue", "cannot open the queue: %s", strerror(-r));
		queue_unref(queue);
		return r;
	}
	store_listen(store, &queue->listener);
	*ret_queue = queue;
	return 0;
}

void queue_close(struct queue *queue)
{
	if (queue->closing)
		return;
	queue->closing = true;
	store_unlisten(queue->store, &queue->listener);
	watches_clear(queue);
	queue_unref(queue);
}

void queue_set_limits(struct queue *queue, const struct queue_limits *limits)
{
	queue->limits = *limits;
	queue->totals.max_bytes = limits->max_bytes;
	queue->totals.max_count = limits->max_count;
}

void queue_set_wakeup(struct queue *queue, void (*wakeup)(void *arg), void *arg)
{
	queue->wakeup = wakeup;
	queue->wakeup_arg = arg;
}

void queue_set_stuck(struct queue *queue, void (*stuck)(void *arg), void *arg)
{
	queue->stuck = stuck;
	queue->stuck_arg = arg;
}

void queue_set_observer(struct queue *queue,
			void (*changed)(void *arg, const char *id, enum request_state state,
					const char *what),
			void *arg)
{
	queue->observer = changed;
	queue->observer_arg = arg;
}

bool queue_has_debts(const struct queue *queue)
{
	return queue->totals.owing || queue->pending_puts || queue->unread;
}

bool queue_has_backlog(const struct queue *queue)
{
	return queue->totals.stored || queue->totals.sending || queue->pending_puts ||
	       queue->unread;
}

int64_t queue_next_due(const struct queue *queue)
{
	return queue->next_due;
}

void queue_totals(const struct queue *queue, struct queue_totals *ret)
{
	*ret = queue->totals;
}
