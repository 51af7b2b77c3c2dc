/* links: hf_queue */
#include "queue/queue.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LONG = 5 * SPOOL_PIECE + 77, SHORT = 1000 };

static char dir[64];
static uv_loop_t loop;
static struct store *store;
static struct spools *spools;
static struct queue *queue;
static int status, calls;
static struct queue_row *row;

static const uint8_t head[] = "HTTP/1.1 200 OK\r\n\r\n";

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void on_status(void *arg, int r)
{
	status = r;
	calls++;
}

static void on_row(void *arg, int r, struct queue_row *result)
{
	queue_row_free(row);
	row = result;
	on_status(arg, r);
}

static int wait_for(int r)
{
	ck_assert_int_eq(r, 0);
	calls = 0;
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(calls, 1);
	return status;
}

static void open_queue(void)
{
	struct queue_limits limits = {.max_bytes = 64 << 20, .keep_response = 600000};

	ck_assert_int_eq(store_open(&loop, dir, &store), 0);
	ck_assert_int_eq(queue_new(&loop, store, &limits, &queue), 0);
}

static void close_queue(void)
{
	queue_close(queue);
	store_close(store, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void setup(void)
{
	strcpy(dir, "/tmp/check_bodies_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	uv_loop_init(&loop);
	ck_assert_int_eq(spools_new(&loop, dir, 64 << 20, &spools), 0);
}

static void remove_files(void)
{
	char path[400];
	struct dirent *entry;
	DIR *d = opendir(dir);

	while ((entry = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		if (entry->d_name[0] != '.')
			ck_assert_int_eq(unlink(path), 0);
	}
	closedir(d);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void teardown(void)
{
	queue_row_free(row);
	row = NULL;
	close_queue();
	spools_close(spools);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	remove_files();
}

static void with_queue(void)
{
	setup();
	open_queue();
}

/* --- bodies --- */

static void fill(uint8_t *bytes, uint64_t at, size_t len, int seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)((at + i) * 7 + (at + i) / 253 + (uint64_t)seed);
}

static struct spool *spool_of(size_t len, int seed)
{
	struct spool *spool;
	uint8_t piece[4096];

	ck_assert_int_eq(spool_new(spools, len, &spool), 0);
	for (size_t at = 0, n; at < len; at += n) {
		n = len - at < sizeof(piece) ? len - at : sizeof(piece);
		fill(piece, at, n, seed);
		while (spool_is_full(spool))
			uv_run(&loop, UV_RUN_ONCE);
		ck_assert_int_eq(spool_append(spool, piece, n), 0);
	}
	spool_end(spool, on_status, NULL);
	ck_assert_int_eq(wait_for(0), 0);
	return spool;
}

static struct queue_request request_of(const char *id)
{
	struct queue_request q = {
		.rule = "default",
		.source = "app",
		.method = "POST",
		.scheme = "http",
		.authority = "origin.example",
		.target = "/",
		.fields = (const uint8_t *)"A: b\r\n",
		.fields_len = 6,
		.attempts_max = 5,
		.received = now_ms(),
		.expires = now_ms() + 3600000,
	};

	snprintf(q.id, sizeof(q.id), "%s", id);
	return q;
}

static void put(const char *id, size_t len)
{
	struct queue_request q = request_of(id);

	q.spool = spool_of(len, 1);
	ck_assert_int_eq(queue_put(queue, &q, "stored", on_status, NULL), 0);
	spool_unref(q.spool); /* the queue has its own reference */
	ck_assert_int_eq(wait_for(0), 0);
}

static void answer(const char *id, size_t len, int seed)
{
	struct queue_response response = {
		.status = 200, .head = head, .head_len = sizeof(head) - 1};

	ck_assert_int_eq(wait_for(queue_lease(queue, now_ms(), on_row, NULL)), 0);
	response.spool = spool_of(len, seed);
	ck_assert_int_eq(
		wait_for(queue_fail(queue, id, "wifi", &response, "failed", on_status, NULL)), 0);
	spool_unref(response.spool);
}

struct reading {
	struct queue_reader *reader;
	uint64_t at;
	int seed, status, ends, pause_at;
};

static void on_piece(void *arg, int r, const uint8_t *bytes, size_t len)
{
	struct reading *reading = arg;
	uint8_t want[SPOOL_PIECE];

	reading->status = r;
	ck_assert_uint_le(len, SPOOL_PIECE);
	fill(want, reading->at, len, reading->seed);
	if (len)
		ck_assert_mem_eq(bytes, want, len);
	reading->at += len;
	reading->ends += r == 0 && !len;
	if (len && --reading->pause_at != 0)
		ck_assert_int_eq(queue_reader_next(reading->reader), 0);
}

static void begin(struct reading *reading, const char *id, enum queue_part part)
{
	ck_assert_int_eq(queue_reader_new(queue, id, part, on_piece, reading, &reading->reader), 0);
}

static void go_on(struct reading *reading)
{
	ck_assert_int_eq(queue_reader_next(reading->reader), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void check_body(const char *id, enum queue_part part, size_t len, int seed)
{
	struct reading reading = {.seed = seed};

	begin(&reading, id, part);
	go_on(&reading);
	ck_assert_int_eq(reading.status, 0);
	ck_assert_int_eq(reading.ends, 1);
	ck_assert_uint_eq(reading.at, len);
	queue_reader_close(reading.reader);
}

static int64_t count_pieces(void)
{
	char path[400];
	sqlite3 *db;
	sqlite3_stmt *stmt;
	int64_t count;

	close_queue();
	snprintf(path, sizeof(path), "%s/holdfast.db", dir);
	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	ck_assert_int_eq(
		sqlite3_prepare_v2(db, "SELECT count(*) FROM request_pieces", -1, &stmt, NULL),
		SQLITE_OK);
	ck_assert_int_eq(sqlite3_step(stmt), SQLITE_ROW);
	count = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	open_queue();
	return count;
}

START_TEST(a_body_of_any_length_comes_back_over_a_restart)
{
	static const size_t lengths[] = {0, SHORT, SPOOL_PIECE, SPOOL_PIECE + 1, LONG};
	size_t len = lengths[_i];

	put("a", len);
	close_queue();
	open_queue();
	check_body("a", QUEUE_REQUEST, len, 1);
	ck_assert_int_eq(wait_for(queue_lease(queue, now_ms(), on_row, NULL)), 0);
	ck_assert_uint_eq(row->body_bytes, len);
	if (len <= SPOOL_PIECE)
		ck_assert_uint_eq(row->body_len, len);
	else
		ck_assert_ptr_null(row->body);
}
END_TEST

START_TEST(a_response_of_any_length_comes_back_over_a_restart)
{
	static const size_t lengths[] = {0, SHORT, SPOOL_PIECE, SPOOL_PIECE + 1, LONG};
	size_t len = lengths[_i];

	put("a", SHORT);
	answer("a", len, 2);
	close_queue();
	open_queue();
	check_body("a", QUEUE_RESPONSE, len, 2);
	check_body("a", QUEUE_REQUEST, SHORT, 1);
	ck_assert_int_eq(wait_for(queue_get(queue, "a", true, on_row, NULL)), 0);
	ck_assert_uint_eq(row->response_bytes, len);
	ck_assert_uint_eq(row->response_head_len, sizeof(head) - 1);
	if (len <= SPOOL_PIECE)
		ck_assert_uint_eq(row->response_body_len, len);
	else
		ck_assert_ptr_null(row->response_body);
}
END_TEST

START_TEST(a_deleted_row_takes_its_pieces_along)
{
	struct queue_totals totals;

	put("a", LONG);
	put("b", LONG);
	answer("a", LONG, 2);
	ck_assert_int_eq(count_pieces(), 18);
	queue_totals(queue, &totals);
	ck_assert_uint_gt(totals.bytes, 3 * LONG);
	ck_assert_int_eq(wait_for(queue_delete(queue, "a", on_status, NULL)), 0);
	ck_assert_int_eq(count_pieces(), 6);
	ck_assert_int_eq(wait_for(queue_delete(queue, "b", on_status, NULL)), 0);
	ck_assert_int_eq(count_pieces(), 0);
	queue_totals(queue, &totals);
	ck_assert_uint_eq(totals.bytes, 0);
}
END_TEST

START_TEST(a_response_that_changes_while_it_is_read_is_told)
{
	struct reading reading = {.seed = 2, .pause_at = 2};
	struct queue_totals before, after;

	put("a", SHORT);
	queue_totals(queue, &before);
	answer("a", LONG, 2);
	begin(&reading, "a", QUEUE_RESPONSE);
	go_on(&reading);
	ck_assert_uint_eq(reading.at, 2 * SPOOL_PIECE);
	ck_assert_int_eq(wait_for(queue_retry_now(queue, "a", on_status, NULL)), 0);
	queue_totals(queue, &after);
	ck_assert_uint_eq(after.bytes, before.bytes);
	answer("a", LONG, 3);
	go_on(&reading);
	ck_assert_int_eq(reading.status, -ESTALE);
	queue_reader_close(reading.reader);
	check_body("a", QUEUE_RESPONSE, LONG, 3);
	ck_assert_int_eq(count_pieces(), 6);
}
END_TEST

START_TEST(a_row_that_is_deleted_while_it_is_read_is_told)
{
	struct reading reading = {.seed = 1, .pause_at = 1};

	put("a", LONG);
	begin(&reading, "a", QUEUE_REQUEST);
	go_on(&reading);
	ck_assert_int_eq(wait_for(queue_delete(queue, "a", on_status, NULL)), 0);
	go_on(&reading);
	ck_assert_int_eq(reading.status, -ENOENT);
	queue_reader_close(reading.reader);
}
END_TEST

START_TEST(a_reader_may_close_while_it_reads_and_outlive_the_queue)
{
	struct reading reading = {.seed = 1}, other = {.seed = 1, .pause_at = 1};

	put("a", LONG);
	begin(&reading, "a", QUEUE_REQUEST);
	ck_assert_int_eq(queue_reader_next(reading.reader), 0);
	queue_reader_close(reading.reader);
	begin(&other, "a", QUEUE_REQUEST);
	go_on(&other);
	ck_assert_uint_eq(reading.at, 0);
	close_queue();
	ck_assert_int_eq(queue_reader_next(other.reader), -ECANCELED);
	queue_reader_close(other.reader);
	open_queue();
}
END_TEST

START_TEST(a_body_counts_against_the_bound)
{
	struct queue_limits limits = {.max_bytes = 2 * LONG, .keep_response = 600000};
	struct queue_request q = request_of("b");

	put("a", LONG);
	queue_set_limits(queue, &limits);
	q.spool = spool_of(LONG, 1);
	ck_assert_int_eq(wait_for(queue_put(queue, &q, "stored", on_status, NULL)), -EDQUOT);
	spool_unref(q.spool);
}
END_TEST

/* --- a database of version 1: whole bodies in one column --- */

static const char version_1[] =
	"PRAGMA application_id=1212572787; PRAGMA user_version=1;"
	"CREATE TABLE requests (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
	" state INTEGER NOT NULL, rule TEXT NOT NULL, source TEXT NOT NULL, method TEXT NOT NULL,"
	" scheme TEXT NOT NULL, authority TEXT NOT NULL, target TEXT NOT NULL,"
	" hash BLOB NOT NULL, body_hash BLOB NOT NULL, idempotency_key TEXT,"
	" owes INTEGER NOT NULL, ordered INTEGER NOT NULL, blocked INTEGER NOT NULL,"
	" importance INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,"
	" attempts_max INTEGER NOT NULL, received INTEGER NOT NULL, expires INTEGER NOT NULL,"
	" next_attempt INTEGER NOT NULL, link TEXT, bytes INTEGER NOT NULL,"
	" response_status INTEGER NOT NULL DEFAULT 0, finished INTEGER);"
	"CREATE TABLE request_bodies (seq INTEGER PRIMARY KEY REFERENCES requests"
	" ON DELETE CASCADE, fields BLOB NOT NULL, body BLOB NOT NULL);"
	"CREATE TABLE request_responses (seq INTEGER PRIMARY KEY REFERENCES requests"
	" ON DELETE CASCADE, head BLOB NOT NULL, body BLOB NOT NULL);"
	"INSERT INTO requests VALUES (1, 'old', 4, 'default', 'app', 'POST', 'http',"
	" 'origin.example', '/', x'00', x'00', NULL, 1, 1, 0, 5, 1, 5, 1, 9000000000000, 0,"
	" 'wifi', 700000, 200, 2);";

static void make_version_1(void)
{
	static const char *const inserts[] = {"INSERT INTO request_bodies VALUES (1, x'41', ?)",
					      "INSERT INTO request_responses VALUES (1, x'48', ?)"};
	uint8_t *bytes = malloc(LONG);
	char path[400];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/holdfast.db", dir);
	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(db, version_1, NULL, NULL, NULL), SQLITE_OK);
	for (int i = 0; i < 2; i++) {
		sqlite3_stmt *stmt;

		fill(bytes, 0, LONG, 8 + i);
		ck_assert_int_eq(sqlite3_prepare_v2(db, inserts[i], -1, &stmt, NULL), SQLITE_OK);
		sqlite3_bind_blob(stmt, 1, bytes, LONG, SQLITE_STATIC);
		ck_assert_int_eq(sqlite3_step(stmt), SQLITE_DONE);
		sqlite3_finalize(stmt);
	}
	sqlite3_close(db);
	free(bytes);
}

START_TEST(a_database_of_version_1_is_upgraded_and_its_bodies_are_read)
{
	make_version_1();
	open_queue();
	close_queue();
	open_queue(); /* the second time nothing is to be done */
	check_body("old", QUEUE_REQUEST, LONG, 8);
	check_body("old", QUEUE_RESPONSE, LONG, 9);
	ck_assert_int_eq(wait_for(queue_get(queue, "old", true, on_row, NULL)), 0);
	ck_assert_uint_eq(row->body_bytes, LONG);
	ck_assert_uint_eq(row->response_bytes, LONG);
	ck_assert_ptr_null(row->body);
	ck_assert_int_eq(row->state, REQUEST_FAILED);
	ck_assert_int_eq(wait_for(queue_retry_now(queue, "old", on_status, NULL)), 0);
	put("new", LONG);
	check_body("new", QUEUE_REQUEST, LONG, 1);
	ck_assert_int_eq(wait_for(queue_delete(queue, "old", on_status, NULL)), 0);
	ck_assert_int_eq(count_pieces(), 6);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("queue_bodies");
	TCase *tc = tcase_create("queue_bodies"), *old = tcase_create("version 1");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, with_queue, teardown);
	tcase_add_loop_test(tc, a_body_of_any_length_comes_back_over_a_restart, 0, 5);
	tcase_add_loop_test(tc, a_response_of_any_length_comes_back_over_a_restart, 0, 5);
	tcase_add_test(tc, a_deleted_row_takes_its_pieces_along);
	tcase_add_test(tc, a_response_that_changes_while_it_is_read_is_told);
	tcase_add_test(tc, a_row_that_is_deleted_while_it_is_read_is_told);
	tcase_add_test(tc, a_reader_may_close_while_it_reads_and_outlive_the_queue);
	tcase_add_test(tc, a_body_counts_against_the_bound);
	suite_add_tcase(suite, tc);
	tcase_add_checked_fixture(old, setup, teardown);
	tcase_add_test(old, a_database_of_version_1_is_upgraded_and_its_bodies_are_read);
	suite_add_tcase(suite, old);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
