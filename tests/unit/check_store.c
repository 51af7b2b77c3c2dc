/* links: hf_store */
#include "base/limits.h"
#include "store/statements.h"
#include "store/store.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/check_store_XXXXXX", dir[128], file[160];
static uv_loop_t loop;
static struct store *store;

static const char schema[] = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, bytes BLOB)";

struct job {
	struct store_job job;
	const char *sql;
	int result, done, order;
	int64_t value;
	struct job *then; /* submitted from done */
};
static int order;

static int run_sql(struct store_job *base, sqlite3 *db)
{
	struct job *job = (struct job *)base;
	sqlite3_stmt *stmt;
	int r = sqlite3_prepare_v2(db, job->sql, -1, &stmt, NULL);

	if (r != SQLITE_OK)
		return store_errno(r);
	r = sqlite3_step(stmt);
	if (r == SQLITE_ROW)
		job->value = sqlite3_column_int64(stmt, 0);
	r = sqlite3_finalize(stmt);
	return store_errno(r);
}

static void on_done(struct store_job *base, int status)
{
	struct job *job = (struct job *)base;

	job->result = status;
	job->done++;
	job->order = order++;
	if (job->then)
		ck_assert_int_eq(store_submit(store, &job->then->job), 0);
}

static struct job job_of(const char *sql, bool read_only)
{
	return (struct job){.job = {.run = run_sql, .done = on_done, .read_only = read_only},
			    .sql = sql};
}

static int run(const char *sql, bool read_only, int64_t *ret_value)
{
	struct job job = job_of(sql, read_only);
	int r = store_submit(store, &job.job);

	ck_assert_int_eq(r, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(job.done, 1);
	if (ret_value)
		*ret_value = job.value;
	return job.result;
}

static void open_store(void)
{
	ck_assert_int_eq(store_open(&loop, dir, &store), 0);
	ck_assert_int_eq(store_schema(store, schema), 0);
}

static void on_closed(void *arg)
{
	(*(int *)arg)++;
}

static void close_store(void)
{
	int closed = 0;

	store_close(store, on_closed, &closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(closed, 1);
}

static void remove_all(void)
{
	char path[512];
	struct dirent *entry;
	DIR *d = opendir(dir);

	while (d && (entry = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		remove(path);
	}
	if (d)
		closedir(d);
	rmdir(dir);
	rmdir(root);
}

static void setup(void)
{
	strcpy(root, "/tmp/check_store_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	snprintf(dir, sizeof(dir), "%s/state", root);
	snprintf(file, sizeof(file), "%s/holdfast.db", dir);
	uv_loop_init(&loop);
	order = 0;
}

static void teardown(void)
{
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	remove_all();
}

static size_t count_named(const char *part)
{
	struct dirent *entry;
	DIR *d = opendir(dir);
	size_t n = 0;

	while ((entry = readdir(d)))
		n += strstr(entry->d_name, part) != NULL;
	closedir(d);
	return n;
}

static int64_t pragma(const char *name)
{
	char sql[64];
	int64_t value = -1;

	snprintf(sql, sizeof(sql), "PRAGMA %s", name);
	ck_assert_int_eq(run(sql, true, &value), 0);
	return value;
}

START_TEST(a_new_store_is_private_durable_and_marked)
{
	struct stat st;

	open_store();
	ck_assert_int_eq(stat(dir, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0700);
	ck_assert_int_eq(stat(file, &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	ck_assert_int_eq(pragma("synchronous"), 2);
	ck_assert_int_eq(pragma("auto_vacuum"), 2);
	ck_assert_int_eq(pragma("foreign_keys"), 1);
	ck_assert_int_ne(pragma("application_id"), 0);
	ck_assert_int_eq(pragma("user_version"), 2);
	close_store();
}
END_TEST

START_TEST(a_second_process_is_kept_out)
{
	struct store *second = NULL;

	open_store();
	ck_assert_int_eq(store_open(&loop, dir, &second), -EBUSY);
	ck_assert_ptr_null(second);
	close_store();
}
END_TEST

/* Twice the same text, one of them in use; then another text at the same address; then more
 * texts than there is room for. */
static int run_statements(struct store_job *base, sqlite3 *db)
{
	static char texts[STORE_STATEMENTS_MAX + 10][48];
	sqlite3_stmt *a, *b, *c;
	char sql[64] = "SELECT 7 UNION SELECT 8";

	(void)base;
	ck_assert_int_eq(statement_take(db, sql, &a), 0);
	ck_assert_int_eq(sqlite3_step(a), SQLITE_ROW);
	ck_assert_int_eq(statement_take(db, sql, &b), 0);
	ck_assert_ptr_ne(a, b);
	ck_assert_int_eq(sqlite3_step(b), SQLITE_ROW);
	statement_give(a);
	ck_assert_int_eq(sqlite3_column_int(b, 0), 7);
	ck_assert_int_eq(statement_take(db, sql, &c), 0);
	ck_assert_ptr_eq(a, c);
	statement_give(b);
	strcpy(sql, "SELECT 9");
	ck_assert_int_eq(statement_take(db, sql, &a), 0);
	ck_assert_int_eq(sqlite3_step(a), SQLITE_ROW);
	ck_assert_int_eq(sqlite3_column_int(a, 0), 9);
	statement_give(a);
	ck_assert_int_eq(statement_run(db, "no such thing"), -EINVAL);
	for (size_t i = 0; i < STORE_STATEMENTS_MAX + 10; i++) {
		snprintf(texts[i], sizeof(texts[i]), "INSERT INTO t VALUES (%zu, NULL)", i);
		ck_assert_int_eq(statement_run(db, texts[i]), 0);
	}
	return 0;
}

START_TEST(statements_are_kept_and_never_shared)
{
	struct job job = {.job = {.run = run_statements, .done = on_done}};
	int64_t rows = 0;

	open_store();
	ck_assert_int_eq(store_submit(store, &job.job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(job.result, 0);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &rows), 0);
	ck_assert_int_eq(rows, STORE_STATEMENTS_MAX + 10);
	close_store();
}
END_TEST

START_TEST(jobs_run_in_order_and_many_share_one_commit)
{
	struct job jobs[300];
	struct store_statistics before, after;
	char sql[300][64];

	open_store();
	store_statistics(store, &before);
	for (int i = 0; i < 300; i++) {
		snprintf(sql[i], sizeof(sql[i]), "INSERT INTO t VALUES (%d, NULL)", i);
		jobs[i] = job_of(sql[i], false);
		ck_assert_int_eq(store_submit(store, &jobs[i].job), 0);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	for (int i = 0; i < 300; i++) {
		ck_assert_int_eq(jobs[i].result, 0);
		ck_assert_int_eq(jobs[i].order, i);
	}
	store_statistics(store, &after);
	ck_assert_uint_eq(after.jobs - before.jobs, 300);
	ck_assert_uint_eq(after.commits - before.commits, 2);
	ck_assert_uint_eq(after.waiting, 0);
	ck_assert_uint_gt(after.database_bytes, 4096);
	close_store();
}
END_TEST

START_TEST(a_failing_job_is_rolled_back_alone)
{
	struct job jobs[3] = {job_of("INSERT INTO t VALUES (1, NULL)", false),
			      job_of("INSERT INTO t VALUES (1, NULL)", false),
			      job_of("INSERT INTO t VALUES (2, NULL)", false)};
	int64_t n;

	open_store();
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(store_submit(store, &jobs[i].job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(jobs[0].result, 0);
	ck_assert_int_eq(jobs[1].result, -EEXIST);
	ck_assert_int_eq(jobs[2].result, 0);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 2);
	close_store();
}
END_TEST

static int run_two_inserts(struct store_job *base, sqlite3 *db)
{
	struct job *job = (struct job *)base;
	int r = run_sql(base, db);

	job->sql = "INSERT INTO t VALUES (1, NULL)";
	return r == 0 ? run_sql(base, db) : r;
}

START_TEST(an_unguarded_job_that_fails_half_way_fails_its_batch)
{
	struct job jobs[3] = {job_of("INSERT INTO t VALUES (1, NULL)", false),
			      job_of("INSERT INTO t VALUES (1, NULL)", false),
			      job_of("INSERT INTO t VALUES (2, NULL)", false)};
	int64_t n;

	open_store();
	for (int i = 0; i < 3; i++) {
		jobs[i].job.unguarded = true;
		ck_assert_int_eq(store_submit(store, &jobs[i].job), 0);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	/* Before it has changed anything: alone. */
	ck_assert_int_eq(jobs[0].result, 0);
	ck_assert_int_eq(jobs[1].result, -EEXIST);
	ck_assert_int_eq(jobs[2].result, 0);
	jobs[0] = job_of("INSERT INTO t VALUES (3, NULL)", false);
	jobs[1] = job_of("INSERT INTO t VALUES (4, NULL)", false);
	jobs[1].job.run = run_two_inserts;
	jobs[1].job.unguarded = true;
	jobs[2] = job_of("INSERT INTO t VALUES (5, NULL)", false);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(store_submit(store, &jobs[i].job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(jobs[i].result, -EEXIST);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 2);
	close_store();
}
END_TEST

START_TEST(lookups_alone_need_no_commit)
{
	struct store_statistics before, after;

	open_store();
	store_statistics(store, &before);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, NULL), 0);
	store_statistics(store, &after);
	ck_assert_uint_eq(after.commits, before.commits);
	close_store();
}
END_TEST

START_TEST(a_full_database_fails_the_writers_only_and_recovers)
{
	struct job fill = job_of("INSERT INTO t VALUES (7, zeroblob(1000000))", false);
	struct job look = job_of("SELECT 5", true);
	struct store_statistics s;
	int64_t n;

	open_store();
	ck_assert_int_eq(run("INSERT INTO t VALUES (1, NULL)", false, NULL), 0);
	ck_assert_int_eq(run("PRAGMA max_page_count=20", true, NULL), 0);
	ck_assert_int_eq(store_submit(store, &fill.job), 0);
	ck_assert_int_eq(store_submit(store, &look.job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(fill.result, -ENOSPC);
	ck_assert_int_eq(look.result, 0);
	ck_assert_int_eq(look.value, 5);
	ck_assert_int_eq(run("PRAGMA max_page_count=100000", true, NULL), 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (2, NULL)", false, NULL), 0);
	store_statistics(store, &s);
	ck_assert_int_eq(s.last_error, 0);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 2);
	close_store();
}
END_TEST

START_TEST(a_batch_that_cannot_be_committed_fails_whole)
{
	struct job good = job_of("INSERT INTO t VALUES (1, NULL)", false);
	struct store_statistics s;
	int64_t n;

	open_store();
	ck_assert_int_eq(run("PRAGMA query_only=1", true, NULL), 0);
	ck_assert_int_eq(store_submit(store, &good.job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(good.result, -EROFS);
	ck_assert_int_eq(run("PRAGMA query_only=0", true, NULL), 0);
	ck_assert_int_eq(run("PRAGMA foreign_keys", true, NULL), 0);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 0);

	/* A deferred foreign key is refused by COMMIT itself. */
	ck_assert_int_eq(store_schema(store, "CREATE TABLE c (n REFERENCES t(n) "
					     "DEFERRABLE INITIALLY DEFERRED)"),
			 0);
	struct job bad = job_of("INSERT INTO c VALUES (99)", false);
	struct job with = job_of("INSERT INTO t VALUES (5, NULL)", false);
	struct job first = job_of("INSERT INTO t VALUES (4, NULL)", false);

	ck_assert_int_eq(store_submit(store, &first.job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(first.result, 0);
	ck_assert_int_eq(store_submit(store, &with.job), 0);
	ck_assert_int_eq(store_submit(store, &bad.job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_lt(with.result, 0);
	ck_assert_int_lt(bad.result, 0);
	store_statistics(store, &s);
	ck_assert_int_ge(s.failures, 1);
	ck_assert_int_lt(s.last_error, 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (6, NULL)", false, NULL), 0);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 2);
	close_store();
}
END_TEST

START_TEST(what_was_submitted_is_done_before_the_close)
{
	struct job jobs[10];
	int closed = 0;
	int64_t n;

	open_store();
	for (int i = 0; i < 10; i++) {
		jobs[i] = job_of("INSERT INTO t (bytes) VALUES ('x')", false);
		ck_assert_int_eq(store_submit(store, &jobs[i].job), 0);
	}
	store_close(store, on_closed, &closed);
	struct job late = job_of("SELECT 1", true);
	ck_assert_int_eq(store_submit(store, &late.job), -ECANCELED);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(closed, 1);
	open_store();
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 10);
	close_store();
}
END_TEST

START_TEST(a_callback_may_submit)
{
	struct job second = job_of("INSERT INTO t VALUES (2, NULL)", false);
	struct job first = job_of("INSERT INTO t VALUES (1, NULL)", false);

	open_store();
	first.then = &second;
	ck_assert_int_eq(store_submit(store, &first.job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(second.done, 1);
	ck_assert_int_eq(second.result, 0);
	close_store();
}
END_TEST

START_TEST(too_many_jobs_are_refused_and_counted)
{
	struct job *jobs = calloc(STORE_JOBS_MAX * 2, sizeof(*jobs));
	struct store_statistics s;
	int taken = 0, r = 0;

	open_store();
	for (int i = 0; i < STORE_JOBS_MAX * 2 && r == 0; i++) {
		jobs[i] = job_of("SELECT 1", true);
		r = store_submit(store, &jobs[i].job);
		taken += r == 0;
	}
	ck_assert_int_eq(r, -EAGAIN);
	ck_assert_int_ge(taken, STORE_JOBS_MAX);
	store_statistics(store, &s);
	ck_assert_uint_eq(s.refused, 1);
	uv_run(&loop, UV_RUN_DEFAULT);
	close_store();
	free(jobs);
}
END_TEST

static void write_at(const char *path, off_t at, const char *text, size_t len)
{
	int fd = open(path, O_WRONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, text, len, at), (ssize_t)len);
	close(fd);
}

START_TEST(a_file_that_is_no_database_is_put_aside)
{
	struct store_statistics s;
	int64_t n;

	open_store();
	ck_assert_int_eq(run("INSERT INTO t VALUES (1, NULL)", false, NULL), 0);
	close_store();
	write_at(file, 0, "this is not a database, is it?  ", 32);
	open_store();
	store_statistics(store, &s);
	ck_assert(s.corrupt);
	ck_assert_uint_eq(count_named("corrupt"), 1);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 0);
	close_store();
	open_store();
	store_statistics(store, &s);
	ck_assert(!s.corrupt);
	close_store();
}
END_TEST

/* Enough rows for many pages, then rubbish over all but the first three. */
static void damage_pages(void)
{
	char junk[4096];
	struct stat st;

	open_store();
	ck_assert_int_eq(
		run("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c LIMIT 2000)"
		    "INSERT INTO t SELECT i, randomblob(300) FROM c",
		    false, NULL),
		0);
	close_store();
	memset(junk, 0x5a, sizeof(junk));
	ck_assert_int_eq(stat(file, &st), 0);
	for (off_t at = 3 * 4096; at + 4096 <= st.st_size; at += 4096)
		write_at(file, at, junk, sizeof(junk));
}

struct heard {
	struct store_listener listener;
	int empty, found;
	struct job first; /* submitted as soon as it is heard */
};

static void on_reopened(void *arg, bool empty)
{
	struct heard *heard = arg;

	heard->empty += empty;
	heard->found += !empty;
	if (heard->first.sql)
		ck_assert_int_eq(store_submit(store, &heard->first.job), 0);
}

static void listen_to(struct heard *heard)
{
	heard->listener = (struct store_listener){.reopened = on_reopened, .arg = heard};
	store_listen(store, &heard->listener);
}

START_TEST(corruption_met_by_a_job_is_put_aside_and_work_goes_on)
{
	struct heard heard = {.first = job_of("INSERT INTO t VALUES (7, NULL)", false)};
	struct job bad = job_of("INSERT INTO t SELECT n + 10000, bytes FROM t", false);
	struct job with = job_of("INSERT INTO t VALUES (-1, NULL)", false);
	struct store_statistics s;
	int64_t n;

	damage_pages();
	open_store();
	listen_to(&heard);
	ck_assert_int_eq(store_submit(store, &with.job), 0);
	ck_assert_int_eq(store_submit(store, &bad.job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	/* Neither is in the new file, so neither may be told to be stored. */
	ck_assert_int_eq(bad.result, -EBADMSG);
	ck_assert_int_eq(with.result, -EBADMSG);
	ck_assert_int_eq(heard.empty, 1);
	ck_assert_int_eq(heard.first.done, 1);
	ck_assert_int_eq(heard.first.result, 0);
	store_statistics(store, &s);
	ck_assert_uint_eq(s.corrupt, 1);
	ck_assert_int_eq(s.last_error, 0);
	ck_assert_uint_eq(count_named(s.aside), 1);
	ck_assert_uint_eq(count_named("suspect"), 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (8, NULL)", false, NULL), 0);
	close_store();
	open_store();
	store_statistics(store, &s);
	ck_assert_uint_eq(s.corrupt, 0);
	ck_assert_int_eq(run("SELECT sum(n) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 15);
	close_store();
}
END_TEST

START_TEST(corruption_met_by_a_look_up_is_put_aside)
{
	struct heard heard = {.empty = 0};
	int64_t n;

	damage_pages();
	open_store();
	listen_to(&heard);
	ck_assert_int_eq(run("SELECT sum(length(bytes)) FROM t", true, &n), -EBADMSG);
	ck_assert_int_eq(heard.empty, 1);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 0);
	close_store();
	ck_assert_uint_eq(count_named("corrupt"), 1);
}
END_TEST

START_TEST(corruption_met_before_the_loop_runs_is_put_aside)
{
	struct job job = job_of("SELECT sum(length(bytes)) FROM t", true);
	struct heard heard = {.empty = 0};

	damage_pages();
	open_store();
	listen_to(&heard);
	ck_assert_int_eq(store_run_now(store, &job.job), 0);
	ck_assert_int_eq(heard.empty, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(heard.empty, 1);
	close_store();
	ck_assert_uint_eq(count_named("corrupt"), 1);
}
END_TEST

/* What no check of the file finds: a job says so twice, with the file being well as a whole. */
static int run_says_corrupt(struct store_job *base, sqlite3 *db)
{
	(void)base;
	(void)db;
	return -EBADMSG;
}

START_TEST(a_file_that_seems_well_is_believed_once)
{
	struct job job = {.job = {.run = run_says_corrupt, .done = on_done, .read_only = true}};
	int64_t n;

	open_store();
	ck_assert_int_eq(run("INSERT INTO t VALUES (1, NULL)", false, NULL), 0);
	ck_assert_int_eq(store_submit(store, &job.job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(job.result, -EBADMSG);
	ck_assert_uint_eq(count_named("corrupt"), 0);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 1);
	ck_assert_int_eq(store_submit(store, &job.job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(count_named("corrupt"), 1);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 0);
	close_store();
}
END_TEST

/* A header, the log, a table, an index: each of them overwritten or cut somewhere. */
static void damage(unsigned how)
{
	off_t size;
	struct stat st;
	char log[200];

	snprintf(log, sizeof(log), "%s-wal", file);
	ck_assert_int_eq(stat(file, &st), 0);
	size = st.st_size;
	switch (how) {
	case 0: /* cut in the middle of a page */
		ck_assert_int_eq(truncate(file, size / 2 + 100), 0);
		break;
	case 1: /* nothing is left but the first bytes */
		ck_assert_int_eq(truncate(file, 60), 0);
		break;
	case 2: /* a page size that cannot be */
		write_at(file, 16, "\377\377", 2);
		break;
	case 3: /* the mark of the program */
		write_at(file, 68, "\0\0\0\0", 4);
		break;
	case 4: /* a version that no program has */
		write_at(file, 60, "\177\377\377\377", 4);
		break;
	case 5: /* the page of the schema */
		write_at(file, 100, "\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20", 16);
		break;
	case 6: /* a folder in its place */
		ck_assert_int_eq(unlink(file), 0);
		ck_assert_int_eq(mkdir(file, 0700), 0);
		break;
	case 7: /* and where the log should be */
		ck_assert_int_eq(mkdir(log, 0700), 0);
		break;
	}
}

START_TEST(whatever_is_damaged_the_store_opens)
{
	struct store_statistics s;
	int64_t n = -1;

	open_store();
	ck_assert_int_eq(store_schema(store, "CREATE TABLE IF NOT EXISTS requests (x);"
					     "CREATE TABLE IF NOT EXISTS names (x)"),
			 0);
	ck_assert_int_eq(
		run("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c LIMIT 500)"
		    "INSERT INTO t SELECT i, randomblob(300) FROM c",
		    false, NULL),
		0);
	close_store();
	damage((unsigned)_i);
	open_store();
	run("SELECT count(*) FROM t", true, &n);
	ck_assert_int_eq(run("INSERT INTO t VALUES (1, NULL)", false, NULL), 0);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 1);
	store_statistics(store, &s);
	ck_assert_uint_eq(s.corrupt, 1);
	ck_assert_int_eq(s.last_error, 0);
	close_store();
	ck_assert_uint_ge(count_named("corrupt"), 1);
}
END_TEST

START_TEST(the_newest_of_those_put_aside_are_kept)
{
	struct store_statistics s;
	char last[sizeof(s.aside)] = "";

	for (int i = 0; i < STORE_ASIDE_MAX + 3; i++) {
		open_store();
		ck_assert_int_eq(run("INSERT INTO t VALUES (1, NULL)", false, NULL), 0);
		store_statistics(store, &s);
		ck_assert_uint_eq(s.corrupt, i > 0);
		ck_assert_str_ne(s.aside, i > 0 ? last : "x");
		strcpy(last, s.aside);
		close_store();
		write_at(file, 0, "this is not a database, is it?  ", 32);
	}
	ck_assert_uint_eq(count_named("corrupt"), STORE_ASIDE_MAX);
	ck_assert_uint_eq(count_named(last), 1);
}
END_TEST

static void remount(unsigned long flags)
{
	ck_assert_int_eq(mount("none", dir, NULL, MS_REMOUNT | flags, NULL), 0);
}

/* As it is mounted after the kernel found an error on it. */
START_TEST(a_disk_that_is_read_only_at_the_start_is_waited_for)
{
	struct heard heard = {.empty = 0};
	struct store_statistics s;
	uint64_t begun;
	int64_t n;

	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	ck_assert_int_eq(mount("none", dir, "tmpfs", 0, NULL), 0);
	open_store();
	ck_assert_int_eq(run("INSERT INTO t VALUES (3, NULL)", false, NULL), 0);
	close_store();

	remount(MS_RDONLY);
	open_store();
	listen_to(&heard);
	store_statistics(store, &s);
	ck_assert(s.stands_in);
	ck_assert_int_eq(s.last_error, -EROFS);
	ck_assert_int_eq(run("INSERT INTO t VALUES (4, NULL)", false, NULL), -EROFS);
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 0);

	remount(0);
	begun = uv_hrtime();
	while (!heard.found && (uv_hrtime() - begun) / 1000000 < 4 * STORE_OPEN_WAIT) {
		run("SELECT 1", true, NULL);
		usleep(50000);
	}
	ck_assert_int_eq(heard.found, 1);
	ck_assert_int_eq(heard.empty, 0);
	ck_assert_int_eq(run("INSERT INTO t VALUES (5, NULL)", false, NULL), 0);
	ck_assert_int_eq(run("SELECT sum(n) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 8);
	store_statistics(store, &s);
	ck_assert(!s.stands_in);
	ck_assert_int_eq(s.last_error, 0);
	ck_assert_uint_eq(s.corrupt, 0);
	close_store();
	ck_assert_int_eq(umount(dir), 0);
}
END_TEST

START_TEST(a_newer_version_is_refused_and_left_as_it_is)
{
	sqlite3 *db;
	int64_t n;

	open_store();
	ck_assert_int_eq(run("INSERT INTO t VALUES (1, NULL)", false, NULL), 0);
	close_store();
	ck_assert_int_eq(sqlite3_open(file, &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(db, "PRAGMA user_version=3", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	ck_assert_int_eq(store_open(&loop, dir, &store), -EMEDIUMTYPE);
	ck_assert_uint_eq(count_named("corrupt"), 0);
	ck_assert_int_eq(sqlite3_open(file, &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(db, "PRAGMA user_version=2", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	open_store();
	ck_assert_int_eq(run("SELECT count(*) FROM t", true, &n), 0);
	ck_assert_int_eq(n, 1);
	close_store();
}
END_TEST

START_TEST(a_database_of_another_program_is_left_alone)
{
	sqlite3 *db;

	ck_assert_int_eq(mkdir(dir, 0700), 0);
	ck_assert_int_eq(sqlite3_open(file, &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(db, "CREATE TABLE theirs (x)", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	ck_assert_int_eq(store_open(&loop, dir, &store), -EMEDIUMTYPE);
	ck_assert_uint_eq(count_named("corrupt"), 0);
}
END_TEST

START_TEST(a_job_can_run_before_the_loop)
{
	struct job job = job_of("INSERT INTO t VALUES (1, NULL)", false);

	open_store();
	ck_assert_int_eq(store_run_now(store, &job.job), 0);
	ck_assert_int_eq(job.done, 0);
	job.sql = "INSERT INTO t VALUES (1, NULL)";
	ck_assert_int_eq(store_run_now(store, &job.job), -EEXIST);
	job.sql = "SELECT count(*) FROM t";
	ck_assert_int_eq(store_run_now(store, &job.job), 0);
	ck_assert_int_eq(job.value, 1);
	close_store();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("store");
	TCase *tc = tcase_create("store");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_new_store_is_private_durable_and_marked);
	tcase_add_test(tc, a_second_process_is_kept_out);
	tcase_add_test(tc, statements_are_kept_and_never_shared);
	tcase_add_test(tc, jobs_run_in_order_and_many_share_one_commit);
	tcase_add_test(tc, a_failing_job_is_rolled_back_alone);
	tcase_add_test(tc, an_unguarded_job_that_fails_half_way_fails_its_batch);
	tcase_add_test(tc, lookups_alone_need_no_commit);
	tcase_add_test(tc, a_full_database_fails_the_writers_only_and_recovers);
	tcase_add_test(tc, a_batch_that_cannot_be_committed_fails_whole);
	tcase_add_test(tc, what_was_submitted_is_done_before_the_close);
	tcase_add_test(tc, a_callback_may_submit);
	tcase_add_test(tc, too_many_jobs_are_refused_and_counted);
	tcase_add_test(tc, a_file_that_is_no_database_is_put_aside);
	tcase_add_test(tc, corruption_met_by_a_job_is_put_aside_and_work_goes_on);
	tcase_add_test(tc, corruption_met_by_a_look_up_is_put_aside);
	tcase_add_test(tc, corruption_met_before_the_loop_runs_is_put_aside);
	tcase_add_test(tc, a_file_that_seems_well_is_believed_once);
	tcase_add_loop_test(tc, whatever_is_damaged_the_store_opens, 0, 8);
	tcase_add_test(tc, the_newest_of_those_put_aside_are_kept);
	tcase_add_test(tc, a_disk_that_is_read_only_at_the_start_is_waited_for);
	tcase_add_test(tc, a_newer_version_is_refused_and_left_as_it_is);
	tcase_add_test(tc, a_database_of_another_program_is_left_alone);
	tcase_add_test(tc, a_job_can_run_before_the_loop);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
