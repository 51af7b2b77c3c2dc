#include "store/store.h"

#include "base/limits.h"
#include "base/log.h"
#include "store/holder.h"
#include "store/statements.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct job_list {
	struct store_job *first, **last;
	size_t count;
};

struct store {
	uv_loop_t *loop;
	struct holder holder; /* the worker's while `busy`, else the loop's */
	struct store_listener *listeners;
	struct job_list waiting, batch;
	uv_work_t work;
	uv_prepare_t turn; /* active while jobs wait for the end of the loop's turn */
	bool busy, closing;
	void (*closed)(void *arg);
	void *closed_arg;
	/* what the worker found, read by the loop after it */
	int batch_error;
	bool batch_wrote;
	struct store_statistics statistics;
};

static void job_list_init(struct job_list *list)
{
	*list = (struct job_list){.first = NULL};
	list->last = &list->first;
}

static void job_list_push(struct job_list *list, struct store_job *job)
{
	job->next = NULL;
	*list->last = job;
	list->last = &job->next;
	list->count++;
}

static struct store_job *job_list_pop(struct job_list *list)
{
	struct store_job *job = list->first;

	list->first = job->next;
	if (!list->first)
		list->last = &list->first;
	list->count--;
	return job;
}

int store_errno(int sqlite_code)
{
	switch (sqlite_code & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EBADMSG;
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_CONSTRAINT:
		return -EEXIST;
	case SQLITE_TOOBIG:
		return -E2BIG;
	case SQLITE_NOTFOUND:
		return -ENOENT;
	case SQLITE_MISUSE:
	case SQLITE_ERROR:
	case SQLITE_RANGE:
	case SQLITE_MISMATCH:
		return -EINVAL;
	default:
		return -EIO;
	}
}

static int execute(struct store *store, const char *sql)
{
	return store_errno(sqlite3_exec(store->holder.db, sql, NULL, NULL, NULL));
}

/* Without a savepoint there is no way back from half a job. */
static void run_unguarded(struct store *store, struct store_job *job, bool *ret_lost)
{
	int64_t before = sqlite3_total_changes64(store->holder.db);

	job->status = job->run(job, store->holder.db);
	if (job->status < 0 && sqlite3_total_changes64(store->holder.db) != before)
		*ret_lost = true;
	if (sqlite3_get_autocommit(store->holder.db))
		*ret_lost = true;
}

/* One job in a savepoint of its own. SQLite may end the whole transaction by itself after a
 * full disk or an I/O error; *ret_lost then says that the batch is gone. */
static void run_in_savepoint(struct store *store, struct store_job *job, bool *ret_lost)
{
	job->status = statement_run(store->holder.db, "SAVEPOINT job");
	if (job->status == 0) {
		job->status = job->run(job, store->holder.db);
		if (sqlite3_get_autocommit(store->holder.db)) {
			*ret_lost = true;
			return;
		}
		if (job->status < 0)
			*ret_lost |= statement_run(store->holder.db, "ROLLBACK TO job") < 0;
		if (statement_run(store->holder.db, "RELEASE job") < 0)
			*ret_lost = true;
	} else {
		*ret_lost = true;
	}
}

static int run_writers(struct store *store)
{
	bool lost = false;
	int error = statement_run(store->holder.db, "BEGIN IMMEDIATE");

	/* A commit that writes nothing proves nothing. */
	if (error == 0 && store->statistics.last_error)
		error = database_touch(store->holder.db);
	for (struct store_job *job = store->batch.first; job; job = job->next) {
		if (job->read_only) {
			job->status = job->run(job, store->holder.db);
		} else if (error == 0) {
			if (job->unguarded)
				run_unguarded(store, job, &lost);
			else
				run_in_savepoint(store, job, &lost);
			if (lost)
				error = job->status < 0 ? job->status : -EIO;
		}
	}
	if (error == 0)
		error = statement_run(store->holder.db, "COMMIT");
	if (error < 0 && !sqlite3_get_autocommit(store->holder.db))
		execute(store, "ROLLBACK");
	return error;
}

static void fail_writers(struct store *store, int error)
{
	for (struct store_job *job = store->batch.first; job; job = job->next)
		if (!job->read_only)
			job->status = error;
}

static void run_readers(struct store *store)
{
	for (struct store_job *job = store->batch.first; job; job = job->next)
		if (job->read_only)
			job->status = job->run(job, store->holder.db);
}

static bool met_corruption(const struct store *store)
{
	for (const struct store_job *job = store->batch.first; job; job = job->next)
		if (job->status == -EBADMSG)
			return true;
	return false;
}

/* What a batch wrote goes with a file that is put aside. Before the loop runs an empty database in
 * memory takes what makes the parts begin. */
static void run_batch(struct store *store, bool before_the_loop)
{
	int error = 0;

	holder_retry(&store->holder);
	store->batch_wrote = false;
	for (const struct store_job *job = store->batch.first; job; job = job->next)
		if (!job->read_only)
			store->batch_wrote = true;
	if (store->batch_wrote && (!store->holder.error || before_the_loop)) {
		error = run_writers(store);
	} else {
		error = store->batch_wrote ? store->holder.error : 0;
		run_readers(store);
	}
	if (error < 0)
		fail_writers(store, error);
	if (met_corruption(store) && holder_mend(&store->holder)) {
		error = store->batch_wrote ? -EBADMSG : 0;
		fail_writers(store, -EBADMSG);
	}
	store->batch_error = error;
}

static int64_t pragma_value(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *stmt;
	int64_t value = 0;

	if (statement_take(db, sql, &stmt) < 0)
		return 0;
	if (sqlite3_step(stmt) == SQLITE_ROW)
		value = sqlite3_column_int64(stmt, 0);
	statement_give(stmt);
	return value;
}

static uint64_t database_bytes(sqlite3 *db)
{
	return (uint64_t)(pragma_value(db, "PRAGMA page_count") *
			  pragma_value(db, "PRAGMA page_size"));
}

static void look_at_holder(struct store *store)
{
	struct store_statistics *s = &store->statistics;

	s->put_aside = store->holder.put_aside;
	memcpy(s->aside, store->holder.aside, sizeof(s->aside));
	s->stands_in = store->holder.error;
	if (s->stands_in)
		s->last_error = s->stands_in;
	s->database_bytes = database_bytes(store->holder.db);
}

/* On the loop, when the worker has given the database back. */
static void count_batch(struct store *store)
{
	struct store_statistics *s = &store->statistics;

	s->jobs += store->batch.count;
	if (store->batch_wrote || store->holder.replaced)
		look_at_holder(store);
	if (!store->batch_wrote)
		return;
	if (store->batch_error == 0) {
		s->commits++;
	} else {
		s->failures++;
		if (s->last_error != store->batch_error)
			log_error("store", "the database takes no changes: %s",
				  strerror(-store->batch_error));
	}
	if (s->last_error && !store->batch_error)
		log_info("store", "the database takes changes again");
	s->last_error = store->batch_error;
}

static void pump(struct store *store);

static void tell_listeners(struct store *store)
{
	struct store_listener *listener, *next;

	if (!store->holder.replaced || store->closing)
		return;
	store->holder.replaced = false;
	for (listener = store->listeners; listener; listener = next) {
		next = listener->next;
		listener->replaced(listener->arg);
	}
}

static void on_turn(uv_prepare_t *turn)
{
	struct store *store = turn->data;

	uv_prepare_stop(turn);
	tell_listeners(store);
	pump(store);
}

/* What one turn of the loop brings is one batch: the first must not go alone and make the others
 * wait for its commit. */
static void pump_soon(struct store *store)
{
	if (!store->busy)
		uv_prepare_start(&store->turn, on_turn);
}

static void on_work(uv_work_t *work)
{
	run_batch(work->data, false);
}

static void on_work_done(uv_work_t *work, int status)
{
	struct store *store = work->data;

	(void)status; /* nobody cancels it */
	count_batch(store);
	/* Still busy: a callback that submits must not start a batch before its elders are told. */
	while (store->batch.count) {
		struct store_job *job = job_list_pop(&store->batch);

		if (job->done)
			job->done(job, job->status);
	}
	tell_listeners(store);
	store->busy = false;
	pump_soon(store);
}

static void on_close_work(uv_work_t *work)
{
	struct store *store = work->data;

	holder_close(&store->holder);
}

static void on_turn_closed(uv_handle_t *handle)
{
	struct store *store = handle->data;
	void (*closed)(void *arg) = store->closed;
	void *arg = store->closed_arg;

	free(store);
	if (closed)
		closed(arg);
}

static void on_close_done(uv_work_t *work, int status)
{
	struct store *store = work->data;

	(void)status;
	uv_close((uv_handle_t *)&store->turn, on_turn_closed);
}

static void queue_work(struct store *store, uv_work_cb work, uv_after_work_cb after)
{
	store->busy = true;
	store->work.data = store;
	if (uv_queue_work(store->loop, &store->work, work, after) < 0)
		abort(); /* fails only for a NULL callback */
}

static void pump(struct store *store)
{
	if (store->busy)
		return;
	if (!store->waiting.count) {
		if (store->closing)
			queue_work(store, on_close_work, on_close_done);
		return;
	}
	while (store->waiting.count && store->batch.count < STORE_BATCH_MAX)
		job_list_push(&store->batch, job_list_pop(&store->waiting));
	queue_work(store, on_work, on_work_done);
}

int store_open(uv_loop_t *loop, const char *dir, struct store **ret_store)
{
	struct store *store = calloc(1, sizeof(*store));
	int r;

	if (!store)
		return -ENOMEM;
	store->loop = loop;
	job_list_init(&store->waiting);
	job_list_init(&store->batch);
	r = holder_open(&store->holder, dir);
	if (r < 0) {
		free(store);
		return r;
	}
	look_at_holder(store);
	uv_prepare_init(loop, &store->turn);
	store->turn.data = store;
	*ret_store = store;
	return 0;
}

void store_listen(struct store *store, struct store_listener *listener)
{
	listener->next = store->listeners;
	store->listeners = listener;
}

void store_unlisten(struct store *store, struct store_listener *listener)
{
	struct store_listener **at = &store->listeners;

	while (*at && *at != listener)
		at = &(*at)->next;
	if (*at)
		*at = listener->next;
}

int store_stands_in(const struct store *store)
{
	return store->statistics.stands_in;
}

int store_schema(struct store *store, const char *sql)
{
	int r = store->busy ? -EBUSY : holder_schema(&store->holder, sql);

	if (store->holder.replaced)
		pump_soon(store);
	return r;
}

int store_run_now(struct store *store, struct store_job *job)
{
	if (store->busy)
		return -EBUSY;
	/* The first time the file is read whole, the second time it is put aside. */
	for (int tries = 3; tries > 0; tries--) {
		job_list_push(&store->batch, job);
		run_batch(store, true);
		count_batch(store);
		job_list_init(&store->batch);
		if (job->status != -EBADMSG)
			break;
	}
	if (store->holder.replaced)
		pump_soon(store);
	return job->status;
}

int store_submit(struct store *store, struct store_job *job)
{
	if (store->closing)
		return -ECANCELED;
	if (store->waiting.count >= STORE_JOBS_MAX) {
		store->statistics.refused++;
		return -EAGAIN;
	}
	job->status = 0;
	job_list_push(&store->waiting, job);
	pump_soon(store);
	return 0;
}

void store_close(struct store *store, void (*closed)(void *arg), void *arg)
{
	if (store->closing)
		return;
	store->closing = true;
	store->closed = closed;
	store->closed_arg = arg;
	pump_soon(store);
}

void store_statistics(const struct store *store, struct store_statistics *ret)
{
	*ret = store->statistics;
	ret->waiting = store->waiting.count + store->batch.count;
}
