#define HASH_NONFATAL_OOM 1
#include "resolver/virtual.h"

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

enum { NUMBER_FIRST = 2 };

static const char SCHEMA[] = "CREATE TABLE IF NOT EXISTS names("
			     "number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)";

struct virtual_waiter {
	virtual_cb cb;
	void *arg;
	struct virtual_waiter *next;
};

/* Lives until the store has called back, whatever becomes of the names. */
struct virtual_commit {
	struct store_job job;
	struct virtual_names *names; /* NULL: they are gone */
	struct virtual_name *name;
	uint32_t number;
	char text[];
};

/* All names, on their way from a database or to one; lives as a commit does. */
struct virtual_rows {
	struct store_job job;
	struct virtual_names *names; /* NULL: nobody waits for what is read */
	struct buf rows;	     /* number, text, NUL; number ... */
};

struct virtual_names {
	struct store *store;
	struct store_listener listener;
	/* Until the file is read no number may be given: it may be another's. */
	bool loaded;
	struct virtual_rows *reading;
	struct ip_prefix v4, v6;
	struct virtual_name *by_text, *by_number;
	uint32_t next, end; /* the next number never tried; the first that is too large */
	uint32_t *returned; /* numbers whose commit failed, so that nobody heard of them */
	size_t returned_count, returned_capacity;
};

/* --- addresses --- */

static uint64_t low64(const struct ip *ip)
{
	uint64_t value = 0;

	for (int i = 8; i < 16; i++)
		value = value << 8 | ip->bytes[i];
	return value;
}

struct ip virtual_address(const struct virtual_names *names, uint32_t number, int family)
{
	return ip_prefix_nth(family == AF_INET ? &names->v4 : &names->v6, number);
}

bool virtual_contains(const struct virtual_names *names, const struct ip *address)
{
	return ip_prefix_contains(&names->v4, address) || ip_prefix_contains(&names->v6, address);
}

struct virtual_name *virtual_by_address(struct virtual_names *names, const struct ip *address)
{
	const struct ip_prefix *pool =
		ip_prefix_contains(&names->v4, address) ? &names->v4 : &names->v6;
	struct ip base = ip_prefix_nth(pool, 0);
	uint64_t distance = low64(address) - low64(&base);
	uint32_t number = (uint32_t)distance;
	struct virtual_name *name;

	if (!ip_prefix_contains(pool, address) || distance >= names->end)
		return NULL;
	HASH_FIND(by_number, names->by_number, &number, sizeof(number), name);
	return name && name->committed ? name : NULL;
}

/* The first number past the smaller pool, its last address (IPv4's broadcast) left out. */
static uint32_t numbers_end(const struct ip_prefix *v4, const struct ip_prefix *v6)
{
	uint64_t end = NUMBER_FIRST + VIRTUAL_NAMES_MAX;

	if (v4->bits > 96 && (1ull << (128 - v4->bits)) - 1 < end)
		end = (1ull << (128 - v4->bits)) - 1;
	if (v6->bits > 96 && (1ull << (128 - v6->bits)) - 1 < end)
		end = (1ull << (128 - v6->bits)) - 1;
	return (uint32_t)end;
}

/* --- the table --- */

static struct virtual_name *find_any(struct virtual_names *names, const char *text)
{
	struct virtual_name *name;

	HASH_FIND(by_text, names->by_text, text, strlen(text), name);
	return name;
}

static struct virtual_name *name_add(struct virtual_names *names, const char *text, uint32_t number)
{
	size_t len = strlen(text);
	struct virtual_name *name = calloc(1, sizeof(*name) + len + 1);

	if (!name)
		return NULL;
	memcpy(name->text, text, len + 1);
	name->number = number;
	HASH_ADD(by_text, names->by_text, text, len, name);
	if (!name->by_text.tbl)
		goto fail;
	HASH_ADD(by_number, names->by_number, number, sizeof(number), name);
	if (!name->by_number.tbl)
		goto fail_number;
	return name;
fail_number:
	HASH_DELETE(by_text, names->by_text, name);
fail:
	free(name);
	return NULL;
}

static void name_remove(struct virtual_names *names, struct virtual_name *name)
{
	HASH_DELETE(by_text, names->by_text, name);
	HASH_DELETE(by_number, names->by_number, name);
	free(name);
}

static void answer_waiters(struct virtual_waiter *waiters, int status, struct virtual_name *name)
{
	struct virtual_waiter *waiter, *next;

	LL_FOREACH_SAFE(waiters, waiter, next)
	{
		waiter->cb(waiter->arg, status, name);
		free(waiter);
	}
}

/* --- all of them, from a database and to another --- */

enum { ROWS_MAX = VIRTUAL_NAMES_MAX * (sizeof(uint32_t) + NAME_TEXT_MAX) };

static int rows_add(struct buf *rows, uint32_t number, const char *text)
{
	int r = buf_append(rows, &number, sizeof(number));

	return r == 0 ? buf_append(rows, text, strlen(text) + 1) : r;
}

/* NULL at the end; valid until the next call. */
static const char *rows_next(struct buf *rows, uint32_t *ret_number)
{
	const char *text;

	if (!buf_len(rows))
		return NULL;
	memcpy(ret_number, buf_bytes(rows), sizeof(*ret_number));
	text = (const char *)buf_bytes(rows) + sizeof(*ret_number);
	buf_consume(rows, sizeof(*ret_number) + strlen(text) + 1);
	return text;
}

static int read_row(sqlite3_stmt *statement, struct buf *rows)
{
	int64_t number = sqlite3_column_int64(statement, 0);
	const char *text = (const char *)sqlite3_column_text(statement, 1);

	if (!text || number < NUMBER_FIRST || number >= UINT32_MAX || strlen(text) >= NAME_TEXT_MAX)
		return 0;
	return rows_add(rows, (uint32_t)number, text);
}

static int run_read(struct store_job *job, sqlite3 *db)
{
	struct buf *rows = &((struct virtual_rows *)job)->rows;
	sqlite3_stmt *statement;
	int r = 0, code = sqlite3_prepare_v2(db, "SELECT number, name FROM names ORDER BY number",
					     -1, &statement, NULL);

	buf_clear(rows); /* it may run twice */
	if (code != SQLITE_OK)
		return store_errno(code);
	while (r == 0 && (code = sqlite3_step(statement)) == SQLITE_ROW)
		r = read_row(statement, rows);
	sqlite3_finalize(statement);
	return r < 0 ? r : store_errno(code);
}

/* Numbers past the pools' end (the pools were made smaller) are kept from being given again,
 * but have no address. */
static int take_rows(struct virtual_names *names, struct buf *rows)
{
	struct virtual_name *name;
	const char *text;
	uint32_t number;

	while ((text = rows_next(rows, &number))) {
		if (number >= names->next)
			names->next = number + 1;
		if (number >= names->end)
			continue;
		name = name_add(names, text, number);
		if (!name)
			return -ENOMEM;
		name->committed = true;
	}
	names->loaded = true;
	return 0;
}

/* OR REPLACE takes away only rows of a commit that was told to have failed and yet reached the
 * disk: nobody ever heard of those. */
static int put_name(sqlite3 *db, uint32_t number, const char *text)
{
	sqlite3_stmt *statement;
	int code = sqlite3_prepare_v2(db, "INSERT OR REPLACE INTO names(number, name) VALUES(?, ?)",
				      -1, &statement, NULL);

	if (code != SQLITE_OK)
		return store_errno(code);
	sqlite3_bind_int64(statement, 1, number);
	sqlite3_bind_text(statement, 2, text, -1, SQLITE_STATIC);
	code = sqlite3_step(statement);
	sqlite3_finalize(statement);
	return code == SQLITE_DONE ? 0 : store_errno(code);
}

static int run_write(struct store_job *job, sqlite3 *db)
{
	struct buf *rows = &((struct virtual_rows *)job)->rows;
	const char *text;
	uint32_t number;
	int r = 0;

	while (r == 0 && (text = rows_next(rows, &number)))
		r = put_name(db, number, text);
	return r;
}

static void rows_free(struct virtual_rows *rows)
{
	buf_done(&rows->rows);
	free(rows);
}

static struct virtual_rows *rows_new(store_run run, store_done done)
{
	struct virtual_rows *rows = calloc(1, sizeof(*rows));

	if (!rows)
		return NULL;
	rows->job = (struct store_job){.run = run, .done = done, .read_only = run == run_read};
	buf_init(&rows->rows, ROWS_MAX);
	return rows;
}

static void on_read(struct store_job *job, int status)
{
	struct virtual_rows *rows = (struct virtual_rows *)job;

	if (rows->names) {
		rows->names->reading = NULL;
		if (status == 0)
			status = take_rows(rows->names, &rows->rows);
	}
	if (status < 0)
		log_error("resolver", "the virtual addresses cannot be read: %s",
			  strerror(-status));
	rows_free(rows);
}

static void on_written(struct store_job *job, int status)
{
	if (status < 0)
		log_error("resolver", "the virtual addresses will not survive a restart: %s",
			  strerror(-status));
	rows_free((struct virtual_rows *)job);
}

static int read_all(struct virtual_names *names)
{
	struct virtual_rows *rows = rows_new(run_read, on_read);
	int r = rows ? store_submit(names->store, &rows->job) : -ENOMEM;

	if (r == 0) {
		rows->names = names;
		names->reading = rows;
	} else if (rows) {
		rows_free(rows);
	}
	return r;
}

static int write_all(struct virtual_names *names)
{
	struct virtual_rows *rows = rows_new(run_write, on_written);
	struct virtual_name *name, *next;
	int r = rows ? 0 : -ENOMEM;

	HASH_ITER (by_text, names->by_text, name, next) {
		if (r == 0 && name->committed)
			r = rows_add(&rows->rows, name->number, name->text);
	}
	if (r == 0)
		r = store_submit(names->store, &rows->job);
	if (r < 0 && rows)
		rows_free(rows);
	return r;
}

/* The apps remember what they were told: the new database must know it, too. */
static void on_reopened(void *arg, bool empty)
{
	struct virtual_names *names = arg;
	int r = 0;

	(void)empty; /* what was read or given is in memory */
	if (names->loaded)
		r = write_all(names);
	else if (!names->reading)
		r = read_all(names);
	if (r < 0)
		log_error("resolver", "the virtual addresses and the database differ: %s",
			  strerror(-r));
}

/* --- life --- */

static bool file_is_there(struct store *store)
{
	struct store_statistics statistics;

	store_statistics(store, &statistics);
	return !statistics.stands_in;
}

static int load(struct virtual_names *names)
{
	struct virtual_rows *rows = rows_new(run_read, NULL);
	int r = rows ? store_schema(names->store, SCHEMA) : -ENOMEM;

	if (r == 0)
		r = store_run_now(names->store, &rows->job);
	if (r == 0 && file_is_there(names->store))
		r = take_rows(names, &rows->rows);
	if (rows)
		rows_free(rows);
	return r;
}

int virtual_new(struct store *store, const struct ip_prefix *v4, const struct ip_prefix *v6,
		struct virtual_names **ret_names)
{
	struct virtual_names *names = calloc(1, sizeof(*names));
	int r;

	if (!names)
		return -ENOMEM;
	names->store = store;
	names->v4 = *v4;
	names->v6 = *v6;
	names->next = NUMBER_FIRST;
	names->end = numbers_end(v4, v6);
	names->listener = (struct store_listener){.reopened = on_reopened, .arg = names};
	store_listen(store, &names->listener);
	r = load(names);
	if (r < 0) {
		virtual_free(names);
		return r;
	}
	*ret_names = names;
	return 0;
}

void virtual_free(struct virtual_names *names)
{
	struct virtual_name *name, *next;

	if (!names)
		return;
	store_unlisten(names->store, &names->listener);
	if (names->reading)
		names->reading->names = NULL;
	HASH_ITER (by_text, names->by_text, name, next) {
		struct virtual_waiter *waiters = name->waiters;

		if (name->commit)
			name->commit->names = NULL;
		name_remove(names, name);
		answer_waiters(waiters, -ECANCELED, NULL);
	}
	free(names->returned);
	free(names);
}

/* --- looking --- */

struct virtual_name *virtual_find(struct virtual_names *names, const char *text)
{
	struct virtual_name *name = find_any(names, text);

	return name && name->committed ? name : NULL;
}

bool virtual_is_pending(struct virtual_names *names, const char *text)
{
	struct virtual_name *name = find_any(names, text);

	return name && !name->committed;
}

struct virtual_name *virtual_first(struct virtual_names *names)
{
	return names->by_text;
}

size_t virtual_count(const struct virtual_names *names)
{
	return HASH_CNT(by_text, names->by_text);
}

/* --- giving --- */

/* On the store's lane. */
static int run_commit(struct store_job *job, sqlite3 *db)
{
	struct virtual_commit *commit = (struct virtual_commit *)job;

	return put_name(db, commit->number, commit->text);
}

/* Without memory to remember it the number is lost, which costs an address and no more. */
static void give_back(struct virtual_names *names, uint32_t number)
{
	if (names->returned_count == names->returned_capacity) {
		size_t capacity = names->returned_capacity ? names->returned_capacity * 2 : 16;
		uint32_t *grown = realloc(names->returned, capacity * sizeof(*grown));

		if (!grown)
			return;
		names->returned = grown;
		names->returned_capacity = capacity;
	}
	names->returned[names->returned_count++] = number;
}

static void on_committed(struct store_job *job, int status)
{
	struct virtual_commit *commit = (struct virtual_commit *)job;
	struct virtual_names *names = commit->names;
	struct virtual_name *name = commit->name;
	struct virtual_waiter *waiters;

	if (!names)
		goto out;
	waiters = name->waiters;
	name->waiters = NULL;
	name->commit = NULL;
	if (status < 0) {
		log_warning("resolver", "no virtual address for %s: %s", name->text,
			    strerror(-status));
		give_back(names, name->number);
		name_remove(names, name);
		name = NULL;
	} else {
		name->committed = true;
	}
	answer_waiters(waiters, status, name);
out:
	free(commit);
}

static int submit(struct virtual_names *names, struct virtual_name *name)
{
	size_t len = strlen(name->text);
	struct virtual_commit *commit = calloc(1, sizeof(*commit) + len + 1);
	int r;

	if (!commit)
		return -ENOMEM;
	commit->job.run = run_commit;
	commit->job.done = on_committed;
	commit->names = names;
	commit->name = name;
	commit->number = name->number;
	memcpy(commit->text, name->text, len + 1);
	r = store_submit(names->store, &commit->job);
	if (r < 0) {
		free(commit);
		return r;
	}
	name->commit = commit;
	return 0;
}

static int begin(struct virtual_names *names, const char *text, struct virtual_name **ret_name)
{
	bool again = names->returned_count;
	uint32_t number = again ? names->returned[names->returned_count - 1] : names->next;
	struct virtual_name *name;
	int r;

	if (!names->loaded)
		return -EROFS;
	if (number >= names->end)
		return -ENOSPC;
	name = name_add(names, text, number);
	if (!name)
		return -ENOMEM;
	r = submit(names, name);
	if (r < 0) {
		name_remove(names, name);
		return r;
	}
	if (again)
		names->returned_count--;
	else
		names->next++;
	*ret_name = name;
	return 0;
}

int virtual_assign(struct virtual_names *names, const char *text, virtual_cb cb, void *arg)
{
	struct virtual_name *name = find_any(names, text);
	struct virtual_waiter *waiter = calloc(1, sizeof(*waiter));
	int r = 0;

	if (!waiter)
		return -ENOMEM;
	if (!name)
		r = begin(names, text, &name);
	if (r < 0) {
		free(waiter);
		return r;
	}
	waiter->cb = cb;
	waiter->arg = arg;
	LL_APPEND(name->waiters, waiter);
	return 0;
}
