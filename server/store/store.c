#include "store/store.h"

#include "base/limits.h"
#include "base/log.h"
#include "store/database.h"
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
	char *dir;
	sqlite3 *db;	   /* the worker's while `busy`, else the loop's */
	uint64_t tried_at; /* to open the file when another stands in, uv_hrtime */
	bool checked;	   /* after a job met corruption; the next time it is put aside unseen */
	const char *schemas[STORE_PARTS_MAX];
	size_t schema_count;
	struct store_listener *listeners;
	struct job_list waiting, batch;
	uv_work_t work;
	uv_prepare_t turn; /* active while jobs wait for the end of the loop's turn */
	bool busy, closing;
	void (*closed)(void *arg);
	void *closed_arg;
	/* what the worker found, read by the loop after it */
	int batch_error;
	bool batch_wrote, batch_changed;
	bool reopened; /* and the listeners are to be told */
	bool found;    /* it is the one that could not be opened before */
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

static struct job_list job_list_take(struct job_list *list)
{
	struct job_list taken = *list;

	job_list_init(list);
	return taken;
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
	return store_errno(sqlite3_exec(store->db, sql, NULL, NULL, NULL));
}

/* Without a savepoint there is no way back from half a job. */
static void run_unguarded(struct store *store, struct store_job *job, bool *ret_lost)
{
	int64_t before = sqlite3_total_changes64(store->db);

	job->status = job->run(job, store->db);
	if (job->status < 0 && sqlite3_total_changes64(store->db) != before)
		*ret_lost = true;
	if (sqlite3_get_autocommit(store->db))
		*ret_lost = true;
}

/* One job in a savepoint of its own. SQLite may end the whole transaction by itself after a
 * full disk or an I/O error; *ret_lost then says that the batch is gone. */
static void run_in_savepoint(struct store *store, struct store_job *job, bool *ret_lost)
{
	job->status = statement_run(store->db, "SAVEPOINT job");
	if (job->status == 0) {
		job->status = job->run(job, store->db);
		if (sqlite3_get_autocommit(store->db)) {
			*ret_lost = true;
			return;
		}
		if (job->status < 0)
			*ret_lost |= statement_run(store->db, "ROLLBACK TO job") < 0;
		if (statement_run(store->db, "RELEASE job") < 0)
			*ret_lost = true;
	} else {
		*ret_lost = true;
	}
}

static int run_writers(struct store *store)
{
	int64_t before = sqlite3_total_changes64(store->db);
	bool lost = false;
	int error = statement_run(store->db, "BEGIN IMMEDIATE");

	/* A commit that writes nothing proves nothing. */
	if (error == 0 && store->statistics.last_error)
		error = database_touch(store->db);
	for (struct store_job *job = store->batch.first; job; job = job->next) {
		if (job->read_only) {
			job->status = job->run(job, store->db);
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
		error = statement_run(store->db, "COMMIT");
	store->batch_changed = sqlite3_total_changes64(store->db) != before;
	if (error < 0 && !sqlite3_get_autocommit(store->db))
		execute(store, "ROLLBACK");
	return error;
}

/* --- the database goes and comes --- */

static int apply_schemas(struct store *store, size_t from)
{
	int r = execute(store, "BEGIN IMMEDIATE");

	for (size_t i = from; i < store->schema_count && r == 0; i++)
		r = execute(store, store->schemas[i]);
	if (r == 0)
		r = execute(store, "COMMIT");
	if (r < 0) {
		log_error("store", "schema: %s", sqlite3_errmsg(store->db));
		if (!sqlite3_get_autocommit(store->db))
			execute(store, "ROLLBACK");
	}
	return r;
}

static int open_and_apply(struct store *store, bool give_up)
{
	struct store_statistics *s = &store->statistics;
	char aside[sizeof(s->aside)] = "";
	int r = database_open(store->dir, give_up, &store->db, aside);

	if (aside[0]) {
		s->corrupt++;
		memcpy(s->aside, aside, sizeof(aside));
	}
	if (r < 0)
		return r;
	r = apply_schemas(store, 0);
	if (r < 0)
		database_close(store->db);
	return r;
}

/* The file, with the parts' tables. One that does not take them is damaged, too. */
static int open_file(struct store *store, bool give_up)
{
	int r = open_and_apply(store, give_up);

	return r == -EBADMSG || r == -EINVAL ? open_and_apply(store, true) : r;
}

/* Look-ups find nothing and changes fail, so that all but storing goes on. */
static int stand_in(struct store *store)
{
	int r = store_errno(sqlite3_open(":memory:", &store->db));

	if (r == 0)
		r = apply_schemas(store, 0);
	if (r < 0)
		sqlite3_close(store->db);
	store->statistics.stands_in = r == 0;
	store->tried_at = uv_hrtime();
	return r;
}

/* What passes by itself, or may; not a mistake of the configuration or a second daemon. */
static bool may_pass(int error)
{
	return error == -EROFS || error == -ENOSPC || error == -EDQUOT || error == -EIO ||
	       error == -EACCES;
}

static bool met_corruption(const struct store *store)
{
	for (const struct store_job *job = store->batch.first; job; job = job->next)
		if (job->status == -EBADMSG)
			return true;
	return false;
}

static void fail_batch(struct store *store, int error)
{
	for (struct store_job *job = store->batch.first; job; job = job->next)
		if (!job->read_only || job->status == -EBADMSG)
			job->status = error;
	store->batch_error = error;
}

/* What is corrupt is read whole and put aside; a file that seems well then is believed once, and
 * always on a disk that fails: what SQLite makes of that may look like corruption. What the batch
 * wrote goes with a file that is put aside. */
static void mend(struct store *store)
{
	uint64_t before = store->statistics.corrupt;
	int r;

	if (!store->statistics.stands_in)
		database_suspect(store->db);
	database_close(store->db);
	store->statistics.stands_in = false;
	r = open_file(store, store->checked);
	if (r < 0 && stand_in(store) < 0)
		abort(); /* no memory for an empty database */
	store->checked = store->statistics.last_error != -EIO;
	if (r == 0 && store->statistics.corrupt == before)
		return;
	store->reopened = true;
	store->checked = false;
	fail_batch(store, r < 0 ? r : -EBADMSG);
}

/* Before the loop runs one that stands in takes what makes the parts begin. */
static void run_batch(struct store *store, bool before_the_loop)
{
	bool writes = before_the_loop || !store->statistics.stands_in;
	struct store_job *job;
	int error = 0;

	store->batch_wrote = false;
	for (job = store->batch.first; job; job = job->next)
		if (!job->read_only)
			store->batch_wrote = true;
	if (store->batch_wrote)
		error = writes ? run_writers(store) : store->statistics.last_error;
	for (job = store->batch.first; job; job = job->next) {
		if (job->read_only && !(store->batch_wrote && writes))
			job->status = job->run(job, store->db);
		else if (error < 0 && !job->read_only)
			job->status = error;
	}
	store->batch_error = error;
	if (met_corruption(store))
		mend(store);
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

/* On the loop, when the worker has given the database back. */
static void count_batch(struct store *store)
{
	struct store_statistics *s = &store->statistics;

	s->jobs += store->batch.count;
	if (!store->batch_wrote || (s->stands_in && !store->batch_error))
		return; /* what memory took before the loop runs proves nothing */
	if (store->batch_error == 0) {
		s->commits++;
		s->database_bytes = database_bytes(store->db);
	} else {
		s->failures++;
		if (s->last_error != store->batch_error)
			log_error("store", "the database takes no changes: %s",
				  strerror(-store->batch_error));
	}
	if (!store->batch_error && !store->batch_changed)
		return; /* it says nothing of the disk */
	if (s->last_error && !store->batch_error)
		log_info("store", "the database takes changes again");
	s->last_error = store->batch_error;
}

static void pump(struct store *store);

static void tell_listeners(struct store *store)
{
	struct store_listener *listener, *next;
	bool empty = !store->found;

	if (store->busy || !store->reopened || store->closing)
		return;
	store->reopened = store->found = false;
	for (listener = store->listeners; listener; listener = next) {
		next = listener->next;
		listener->reopened(listener->arg, empty);
	}
}

/* --- the file again, after another one stood in --- */

static void on_try_work(uv_work_t *work)
{
	struct store *store = work->data;
	sqlite3 *memory = store->db;

	store->tried_at = uv_hrtime();
	if (open_file(store, false) < 0) {
		store->db = memory;
		return;
	}
	database_close(memory);
	store->reopened = store->found = true;
}

static void on_turn(uv_prepare_t *turn);

/* What was to be written was submitted when nothing could be stored, by parts that do not know yet
 * what is in the file: it fails as all before it did. */
static void fail_old_writers(struct store *store, size_t count)
{
	while (count--) {
		struct store_job *job = job_list_pop(&store->waiting);

		if (job->read_only) {
			job_list_push(&store->waiting, job);
			continue;
		}
		job->status = -EROFS;
		if (job->done)
			job->done(job, job->status);
	}
}

static void on_try_done(uv_work_t *work, int status)
{
	struct store *store = work->data;
	size_t count = store->reopened ? store->waiting.count : 0;

	(void)status;
	store->busy = false;
	if (store->reopened) {
		log_info("store", "the database can be used");
		store->statistics.stands_in = false;
		store->statistics.last_error = 0;
	}
	tell_listeners(store); /* what they submit comes after those */
	fail_old_writers(store, count);
	uv_prepare_start(&store->turn, on_turn);
}

static bool try_the_file(const struct store *store)
{
	return store->statistics.stands_in && !store->closing &&
	       (uv_hrtime() - store->tried_at) / 1000000 >= STORE_OPEN_WAIT;
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
	struct job_list done;

	(void)status; /* nobody cancels it */
	count_batch(store);
	done = job_list_take(&store->batch);
	store->busy = false;
	/* Who waits already is on the way to the disk while these are told; but of another database
	 * the listeners hear first. */
	if (store->waiting.count && !store->reopened)
		pump(store);
	while (done.count) {
		struct store_job *job = job_list_pop(&done);

		if (job->done)
			job->done(job, job->status);
	}
	tell_listeners(store);
	pump_soon(store);
}

static void on_close_work(uv_work_t *work)
{
	struct store *store = work->data;

	database_close(store->db);
}

static void on_turn_closed(uv_handle_t *handle)
{
	struct store *store = handle->data;
	void (*closed)(void *arg) = store->closed;
	void *arg = store->closed_arg;

	free(store->dir);
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
	if (try_the_file(store)) {
		queue_work(store, on_try_work, on_try_done);
		return;
	}
	while (store->waiting.count && store->batch.count < STORE_BATCH_MAX)
		job_list_push(&store->batch, job_list_pop(&store->waiting));
	queue_work(store, on_work, on_work_done);
}

int store_open(uv_loop_t *loop, const char *dir, struct store **ret_store)
{
	struct store *store = calloc(1, sizeof(*store));
	int r = -ENOMEM;

	if (!store)
		return r;
	/* SQLite's own sums of memory cost a lock at every allocation. Of no effect when it runs
	 * already: then this is not the first store. */
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	store->loop = loop;
	job_list_init(&store->waiting);
	job_list_init(&store->batch);
	store->dir = strdup(dir);
	if (store->dir)
		r = open_file(store, false);
	if (may_pass(r)) {
		store->statistics.last_error = r;
		r = stand_in(store);
	}
	if (r < 0) {
		free(store->dir);
		free(store);
		return r;
	}
	store->statistics.database_bytes = database_bytes(store->db);
	uv_prepare_init(loop, &store->turn);
	store->turn.data = store;
	store->reopened = store->statistics.corrupt;
	pump_soon(store);
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

int store_schema(struct store *store, const char *sql)
{
	int r;

	if (store->busy || store->schema_count == STORE_PARTS_MAX)
		return -EBUSY;
	store->schemas[store->schema_count++] = sql;
	r = apply_schemas(store, store->schema_count - 1);
	if (r != -EBADMSG && r != -EINVAL)
		return r;
	/* Its own tables are not what they should be: damaged in a way that no check finds. */
	database_close(store->db);
	r = open_file(store, true);
	if (r < 0)
		r = stand_in(store);
	store->reopened = true;
	pump_soon(store);
	return r;
}

int store_run_now(struct store *store, struct store_job *job)
{
	enum { TRIES = 3 }; /* the file is checked, at the next time put aside */

	if (store->busy)
		return -EBUSY;
	for (int i = 0; i < TRIES; i++) {
		job_list_push(&store->batch, job);
		run_batch(store, true);
		count_batch(store);
		job_list_init(&store->batch);
		if (job->status != -EBADMSG)
			break;
	}
	if (store->reopened)
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
