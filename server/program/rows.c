#include "program/rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char SCHEMA[] =
	"CREATE TABLE IF NOT EXISTS program("
	"id TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, abi INTEGER NOT NULL, "
	"digest BLOB NOT NULL, signature BLOB, signed_by TEXT NOT NULL, size INTEGER NOT NULL, "
	"uploaded INTEGER NOT NULL, activated INTEGER NOT NULL, confirmed INTEGER NOT NULL, "
	"confirm_order INTEGER NOT NULL, probation INTEGER NOT NULL, dropped INTEGER NOT NULL, "
	"counted INTEGER NOT NULL);"
	"CREATE TABLE IF NOT EXISTS program_elf(id TEXT PRIMARY KEY, elf BLOB NOT NULL);"
	"CREATE TABLE IF NOT EXISTS program_event("
	"number INTEGER PRIMARY KEY, id TEXT NOT NULL, at INTEGER NOT NULL, what TEXT NOT NULL);"
	"CREATE TABLE IF NOT EXISTS program_newest(name TEXT PRIMARY KEY, version TEXT NOT NULL)";

#define COLUMNS                                                                             \
	"id, name, version, abi, digest, signature, signed_by, size, uploaded, activated, " \
	"confirmed, confirm_order, probation, dropped, counted"

enum { SAVE_EVENTS_MAX = 2 * (PROGRAMS_MAX + 1) };

struct save {
	struct store_job job;
	struct program_row rows[PROGRAMS_MAX];
	size_t row_count;
	struct {
		char id[ID_TEXT_MAX];
		struct program_event event;
	} events[SAVE_EVENTS_MAX];
	size_t event_count;
	bool has_newest;
	struct program_newest newest;
	rows_cb cb;
	void *arg;
};

/* --- statements --- */

static int prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret_statement)
{
	return store_errno(sqlite3_prepare_v2(db, sql, -1, ret_statement, NULL));
}

/* Runs a statement that gives no rows, and ends it. */
static int finish(sqlite3_stmt *statement)
{
	int code = sqlite3_step(statement);

	sqlite3_finalize(statement);
	return store_errno(code);
}

static void bind_text(sqlite3_stmt *statement, int at, const char *text)
{
	sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC);
}

static void bind_row(sqlite3_stmt *statement, const struct program_row *row)
{
	bind_text(statement, 1, row->id);
	bind_text(statement, 2, row->name);
	bind_text(statement, 3, row->version);
	sqlite3_bind_int64(statement, 4, row->abi);
	sqlite3_bind_blob(statement, 5, row->digest, sizeof(row->digest), SQLITE_STATIC);
	if (row->has_signature)
		sqlite3_bind_blob(statement, 6, row->signature, sizeof(row->signature),
				  SQLITE_STATIC);
	bind_text(statement, 7, row->signed_by);
	sqlite3_bind_int64(statement, 8, (int64_t)row->size);
	sqlite3_bind_int64(statement, 9, row->uploaded);
	sqlite3_bind_int64(statement, 10, row->activated);
	sqlite3_bind_int64(statement, 11, row->confirmed);
	sqlite3_bind_int64(statement, 12, row->order);
	sqlite3_bind_int64(statement, 13, row->probation);
	sqlite3_bind_int64(statement, 14, (int64_t)row->dropped);
	sqlite3_bind_int64(statement, 15, (int64_t)row->counted);
}

static void take_text(sqlite3_stmt *statement, int at, char *text, size_t size)
{
	const char *found = (const char *)sqlite3_column_text(statement, at);

	snprintf(text, size, "%s", found ? found : "");
}

static bool take_blob(sqlite3_stmt *statement, int at, uint8_t *bytes, size_t size)
{
	const void *found = sqlite3_column_blob(statement, at);

	if (!found || (size_t)sqlite3_column_bytes(statement, at) != size)
		return false;
	memcpy(bytes, found, size);
	return true;
}

static struct program_row take_row(sqlite3_stmt *statement)
{
	struct program_row row = {
		.abi = (uint32_t)sqlite3_column_int64(statement, 3),
		.size = (size_t)sqlite3_column_int64(statement, 7),
		.uploaded = sqlite3_column_int64(statement, 8),
		.activated = sqlite3_column_int64(statement, 9),
		.confirmed = sqlite3_column_int64(statement, 10),
		.order = sqlite3_column_int64(statement, 11),
		.probation = sqlite3_column_int64(statement, 12) != 0,
		.dropped = (uint64_t)sqlite3_column_int64(statement, 13),
		.counted = (uint64_t)sqlite3_column_int64(statement, 14),
	};

	take_text(statement, 0, row.id, sizeof(row.id));
	take_text(statement, 1, row.name, sizeof(row.name));
	take_text(statement, 2, row.version, sizeof(row.version));
	take_blob(statement, 4, row.digest, sizeof(row.digest));
	row.has_signature = take_blob(statement, 5, row.signature, sizeof(row.signature));
	take_text(statement, 6, row.signed_by, sizeof(row.signed_by));
	return row;
}

/* --- reading all --- */

struct load_job {
	struct store_job job;
	const struct rows_load *load;
};

static int each(sqlite3 *db, const char *sql, const struct rows_load *load,
		int (*take)(sqlite3_stmt *, const struct rows_load *))
{
	sqlite3_stmt *statement;
	int code = SQLITE_DONE, r = prepare(db, sql, &statement);

	if (r < 0)
		return r;
	while (r == 0 && (code = sqlite3_step(statement)) == SQLITE_ROW)
		r = take(statement, load);
	sqlite3_finalize(statement);
	return r < 0 ? r : store_errno(code);
}

static int load_row(sqlite3_stmt *statement, const struct rows_load *load)
{
	struct program_row row = take_row(statement);

	return load->on_row(load->arg, &row);
}

static int load_event(sqlite3_stmt *statement, const struct rows_load *load)
{
	struct program_event event = {.at = sqlite3_column_int64(statement, 1)};
	char id[ID_TEXT_MAX];

	take_text(statement, 0, id, sizeof(id));
	take_text(statement, 2, event.what, sizeof(event.what));
	return load->on_event(load->arg, id, &event);
}

static int load_newest(sqlite3_stmt *statement, const struct rows_load *load)
{
	struct program_newest newest;

	take_text(statement, 0, newest.name, sizeof(newest.name));
	take_text(statement, 1, newest.version, sizeof(newest.version));
	return load->on_newest(load->arg, &newest);
}

static int run_load(struct store_job *base, sqlite3 *db)
{
	const struct rows_load *load = ((struct load_job *)base)->load;
	int r = each(db, "SELECT " COLUMNS " FROM program ORDER BY uploaded, rowid", load,
		     load_row);

	if (r == 0)
		r = each(db, "SELECT id, at, what FROM program_event ORDER BY number", load,
			 load_event);
	if (r == 0)
		r = each(db, "SELECT name, version FROM program_newest", load, load_newest);
	return r;
}

int rows_open(struct store *store, const struct rows_load *load)
{
	struct load_job job = {.job = {.run = run_load, .read_only = true}, .load = load};
	int r = store_schema(store, SCHEMA);

	return r < 0 ? r : store_run_now(store, &job.job);
}

/* --- the object files --- */

struct elf_job {
	struct store_job job;
	char id[ID_TEXT_MAX];
	uint8_t *elf;
	size_t size;
	rows_elf_cb cb;
	void *arg;
};

static int run_elf(struct store_job *base, sqlite3 *db)
{
	struct elf_job *job = (struct elf_job *)base;
	sqlite3_stmt *statement;
	int code, r = prepare(db, "SELECT elf FROM program_elf WHERE id = ?", &statement);

	if (r < 0)
		return r;
	bind_text(statement, 1, job->id);
	code = sqlite3_step(statement);
	r = code == SQLITE_DONE ? -ENOENT : store_errno(code);
	if (code == SQLITE_ROW) {
		job->size = (size_t)sqlite3_column_bytes(statement, 0);
		job->elf = malloc(job->size + 1);
		if (job->elf)
			memcpy(job->elf, sqlite3_column_blob(statement, 0), job->size);
		r = job->elf ? 0 : -ENOMEM;
	}
	sqlite3_finalize(statement);
	return r;
}

int rows_elf_now(struct store *store, const char *id, uint8_t **ret_elf, size_t *ret_size)
{
	struct elf_job job = {.job = {.run = run_elf, .read_only = true}};
	int r;

	snprintf(job.id, sizeof(job.id), "%s", id);
	r = store_run_now(store, &job.job);
	if (r < 0)
		return r;
	*ret_elf = job.elf;
	*ret_size = job.size;
	return 0;
}

static void on_elf(struct store_job *base, int status)
{
	struct elf_job *job = (struct elf_job *)base;

	job->cb(job->arg, status, job->elf, job->size);
	free(job);
}

int rows_elf(struct store *store, const char *id, rows_elf_cb cb, void *arg)
{
	struct elf_job *job = calloc(1, sizeof(*job));
	int r;

	if (!job)
		return -ENOMEM;
	job->job = (struct store_job){.run = run_elf, .done = on_elf, .read_only = true};
	snprintf(job->id, sizeof(job->id), "%s", id);
	job->cb = cb;
	job->arg = arg;
	r = store_submit(store, &job->job);
	if (r < 0)
		free(job);
	return r;
}

/* --- one program comes or goes --- */

struct change_job {
	struct store_job job;
	struct program_row row;
	struct program_event event;
	rows_cb cb;
	void *arg;
	uint8_t elf[];
};

static int put_event(sqlite3 *db, const char *id, const struct program_event *event)
{
	sqlite3_stmt *statement;
	int r = prepare(db, "INSERT INTO program_event(id, at, what) VALUES(?, ?, ?)", &statement);

	if (r < 0)
		return r;
	bind_text(statement, 1, id);
	sqlite3_bind_int64(statement, 2, event->at);
	bind_text(statement, 3, event->what);
	r = finish(statement);
	if (r == 0)
		r = prepare(
			db,
			"DELETE FROM program_event WHERE id = ?1 AND number NOT IN (SELECT "
			"number FROM program_event WHERE id = ?1 ORDER BY number DESC LIMIT ?2)",
			&statement);
	if (r < 0)
		return r;
	bind_text(statement, 1, id);
	sqlite3_bind_int(statement, 2, PROGRAM_EVENTS_MAX);
	return finish(statement);
}

static int run_insert(struct store_job *base, sqlite3 *db)
{
	const struct change_job *job = (const struct change_job *)base;
	sqlite3_stmt *statement;
	int r = prepare(db,
			"INSERT INTO program(" COLUMNS
			") VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			&statement);

	if (r < 0)
		return r;
	bind_row(statement, &job->row);
	r = finish(statement);
	if (r == 0)
		r = prepare(db, "INSERT INTO program_elf(id, elf) VALUES(?, ?)", &statement);
	if (r < 0)
		return r;
	bind_text(statement, 1, job->row.id);
	sqlite3_bind_blob64(statement, 2, job->elf, job->row.size, SQLITE_STATIC);
	r = finish(statement);
	return r < 0 ? r : put_event(db, job->row.id, &job->event);
}

static int run_delete(struct store_job *base, sqlite3 *db)
{
	static const char *const statements[] = {
		"DELETE FROM program WHERE id = ?",
		"DELETE FROM program_elf WHERE id = ?",
		"DELETE FROM program_event WHERE id = ?",
	};
	const struct change_job *job = (const struct change_job *)base;
	sqlite3_stmt *statement;
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(statements) / sizeof(statements[0]); i++) {
		r = prepare(db, statements[i], &statement);
		if (r < 0)
			return r;
		bind_text(statement, 1, job->row.id);
		r = finish(statement);
	}
	return r;
}

static void on_change(struct store_job *base, int status)
{
	struct change_job *job = (struct change_job *)base;

	job->cb(job->arg, status);
	free(job);
}

static int change_submit(struct store *store, struct change_job *job)
{
	int r = store_submit(store, &job->job);

	if (r < 0)
		free(job);
	return r;
}

int rows_insert(struct store *store, const struct program_row *row, const uint8_t *elf,
		const struct program_event *event, rows_cb cb, void *arg)
{
	struct change_job *job = calloc(1, sizeof(*job) + row->size);

	if (!job)
		return -ENOMEM;
	job->job = (struct store_job){.run = run_insert, .done = on_change};
	job->row = *row;
	job->event = *event;
	job->cb = cb;
	job->arg = arg;
	memcpy(job->elf, elf, row->size);
	return change_submit(store, job);
}

int rows_delete(struct store *store, const char *id, rows_cb cb, void *arg)
{
	struct change_job *job = calloc(1, sizeof(*job));

	if (!job)
		return -ENOMEM;
	job->job = (struct store_job){.run = run_delete, .done = on_change};
	snprintf(job->row.id, sizeof(job->row.id), "%s", id);
	job->cb = cb;
	job->arg = arg;
	return change_submit(store, job);
}

/* --- many changes at once --- */

static int update_row(sqlite3 *db, const struct program_row *row)
{
	sqlite3_stmt *statement;
	int r = prepare(db,
			"UPDATE program SET signature = ?, signed_by = ?, activated = ?, "
			"confirmed = ?, confirm_order = ?, probation = ?, dropped = ?, "
			"counted = ? WHERE id = ?",
			&statement);

	if (r < 0)
		return r;
	if (row->has_signature)
		sqlite3_bind_blob(statement, 1, row->signature, sizeof(row->signature),
				  SQLITE_STATIC);
	bind_text(statement, 2, row->signed_by);
	sqlite3_bind_int64(statement, 3, row->activated);
	sqlite3_bind_int64(statement, 4, row->confirmed);
	sqlite3_bind_int64(statement, 5, row->order);
	sqlite3_bind_int64(statement, 6, row->probation);
	sqlite3_bind_int64(statement, 7, (int64_t)row->dropped);
	sqlite3_bind_int64(statement, 8, (int64_t)row->counted);
	bind_text(statement, 9, row->id);
	return finish(statement);
}

static int put_newest(sqlite3 *db, const struct program_newest *newest)
{
	sqlite3_stmt *statement;
	int r = prepare(db, "INSERT OR REPLACE INTO program_newest(name, version) VALUES(?, ?)",
			&statement);

	if (r < 0)
		return r;
	bind_text(statement, 1, newest->name);
	bind_text(statement, 2, newest->version);
	return finish(statement);
}

static int run_save(struct store_job *base, sqlite3 *db)
{
	const struct save *save = (const struct save *)base;
	int r = 0;

	for (size_t i = 0; r == 0 && i < save->row_count; i++)
		r = update_row(db, &save->rows[i]);
	for (size_t i = 0; r == 0 && i < save->event_count; i++)
		r = put_event(db, save->events[i].id, &save->events[i].event);
	if (r == 0 && save->has_newest)
		r = put_newest(db, &save->newest);
	return r;
}

static void on_save(struct store_job *base, int status)
{
	struct save *save = (struct save *)base;

	if (save->cb)
		save->cb(save->arg, status);
	save_free(save);
}

struct save *save_new(void)
{
	struct save *save = calloc(1, sizeof(*save));

	if (save)
		save->job = (struct store_job){.run = run_save, .done = on_save};
	return save;
}

void save_free(struct save *save)
{
	free(save);
}

void save_row(struct save *save, const struct program_row *row)
{
	if (save->row_count == PROGRAMS_MAX)
		abort(); /* there are no more programs */
	save->rows[save->row_count++] = *row;
}

void save_changed(struct save *save, const struct program_row *row)
{
	for (size_t i = 0; i < save->row_count; i++)
		if (strcmp(save->rows[i].id, row->id) == 0)
			save->rows[i] = *row;
}

void save_event(struct save *save, const char *id, const struct program_event *event)
{
	if (save->event_count == SAVE_EVENTS_MAX)
		return;
	snprintf(save->events[save->event_count].id, ID_TEXT_MAX, "%s", id);
	save->events[save->event_count++].event = *event;
}

void save_newest(struct save *save, const struct program_newest *newest)
{
	save->newest = *newest;
	save->has_newest = true;
}

int save_submit(struct store *store, struct save *save, rows_cb cb, void *arg)
{
	int r;

	save->cb = cb;
	save->arg = arg;
	r = store_submit(store, &save->job);
	if (r < 0)
		save_free(save);
	return r;
}

int save_now(struct store *store, struct save *save)
{
	int r = store_run_now(store, &save->job);

	save_free(save);
	return r;
}
