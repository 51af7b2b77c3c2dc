/* links: hf_queue */
/*
 * Bytes or values of the database are spoiled at random, while nobody has it open and while the
 * queue does. Whatever they say then, nothing may break but what they said: no crash, no endless
 * loop, and what is put afterwards is stored, leased and answered.
 *
 * DAMAGE_SEED=N repeats a run; HOLDFAST_LONG=1, or DAMAGE_ROUNDS=N, makes it longer.
 */
#include "queue/queue.h"

#include "base/log.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	ROUNDS = 60,
	ROUNDS_LONG = 2000,
	ROWS = 60,
	PAGE = 4096,
	BODY_MAX = 200000, /* some pieces */
	TRIES = 8,	   /* until a put must succeed: each may find another damage */
	DAY = 86400000,
};

static char dir[64];
static uv_loop_t loop;
static struct store *store;
static struct queue *queue;
static unsigned seed;
static int next_n, status, calls, aside;
static struct queue_row *row;
static char last[200]; /* damage to values */

static int64_t now(void)
{
	return (int64_t)time(NULL) * 1000;
}

static unsigned lot(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

/* --- the queue --- */

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

static void on_rows(void *arg, int r, struct queue_row **rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		queue_row_free(rows[i]);
	free(rows);
	on_status(arg, r);
}

static void on_match(void *arg, int r, const struct queue_match *match)
{
	on_status(arg, r);
}

static int wait_for(int r)
{
	if (r < 0)
		return r;
	calls = 0;
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(calls, 1);
	return status;
}

static void open_queue(void)
{
	struct queue_limits limits = {
		.max_bytes = 64 << 20, .max_count = 1000, .keep_response = DAY};

	ck_assert_int_eq(store_open(&loop, dir, &store), 0);
	ck_assert_int_eq(queue_new(&loop, store, &limits, &queue), 0);
}

static void close_queue(void)
{
	struct store_statistics s;

	store_statistics(store, &s);
	aside += (int)s.corrupt;
	queue_close(queue);
	store_close(store, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
}

static int put(void)
{
	static uint8_t body[BODY_MAX];
	int n = next_n++;
	struct queue_request q = {.rule = "r",
				  .source = n % 3 ? "app" : "lamp",
				  .method = "POST",
				  .scheme = "http",
				  .authority = n % 2 ? "a.example" : "b.example",
				  .target = "/",
				  .fields = (const uint8_t *)"A: b\r\n",
				  .fields_len = 6,
				  .body = body,
				  .body_len = n % 7 ? (size_t)(n * 31 % 5000) : lot(BODY_MAX),
				  .idempotency_key = n % 4 ? NULL : "key",
				  .owes = n % 5,
				  .ordered = n % 3,
				  .importance = (uint32_t)n % 4,
				  .attempts_max = 20,
				  .received = now(),
				  .expires = now() + DAY};

	snprintf(q.id, sizeof(q.id), "id-%08d", n);
	memcpy(q.hash, &n, sizeof(n));
	return wait_for(queue_put(queue, &q, "stored", on_status, NULL));
}

static void on_piece(void *arg, int r, const uint8_t *bytes, size_t len)
{
	*(int *)arg = r < 0 ? r : (int)len;
}

static void read_body(const char *id, enum queue_part part)
{
	struct queue_reader *reader;
	int got = 1;

	if (queue_reader_new(queue, id, part, on_piece, &got, &reader) < 0)
		return;
	for (int i = 0; i < BODY_MAX / 1000 && got > 0; i++) {
		if (queue_reader_next(reader) < 0)
			break;
		uv_run(&loop, UV_RUN_DEFAULT);
	}
	queue_reader_close(reader);
}

static void answer(const char *id)
{
	static const uint8_t head[] = "HTTP/1.1 200 OK\r\n\r\n";
	static uint8_t body[100000];
	struct queue_response response = {.status = 200,
					  .head = head,
					  .head_len = sizeof(head) - 1,
					  .body = body,
					  .body_len = lot(sizeof(body))};

	wait_for(queue_done(queue, id, "wifi", &response, on_status, NULL));
}

static void on_news(void *arg, enum queue_news news)
{
	*(int *)arg = news == QUEUE_YOURS ? 1 : 2;
}

static void hand_over(const char *id)
{
	struct queue_watch *watch;
	int told = 0;

	if (queue_watch(queue, id, on_news, &told, &watch) < 0)
		return;
	uv_run(&loop, UV_RUN_DEFAULT);
	if (told == 1)
		wait_for(queue_paid(watch, on_status, NULL));
	else if (!told)
		queue_unwatch(watch);
}

static void lease(void)
{
	char id[ID_TEXT_MAX];

	if (wait_for(queue_lease(queue, now(), on_row, NULL)) < 0)
		return;
	snprintf(id, sizeof(id), "%s", row->id);
	read_body(id, QUEUE_REQUEST);
	if (lot(3))
		answer(id);
	else
		wait_for(queue_retry(queue, id, "wifi", now(), true, "again", on_status, NULL));
	read_body(id, QUEUE_RESPONSE);
	if (lot(2))
		hand_over(id);
}

/* One of all that can be asked for. */
static void use(void)
{
	struct queue_filter filter = {.limit = 50};
	uint8_t hash[32] = {0};
	char id[ID_TEXT_MAX];

	snprintf(id, sizeof(id), "id-%08d", (int)lot((unsigned)next_n));
	switch (lot(9)) {
	case 0:
		put();
		break;
	case 1:
	case 2:
		lease();
		break;
	case 3:
		wait_for(queue_get(queue, id, true, on_row, NULL));
		break;
	case 4:
		filter.has_state = lot(2);
		filter.state = (enum request_state)(1 + lot(5));
		wait_for(queue_list(queue, &filter, on_rows, NULL));
		break;
	case 5:
		wait_for(queue_delete(queue, id, on_status, NULL));
		break;
	case 6:
		wait_for(queue_retry_now(queue, id, on_status, NULL));
		break;
	case 7:
		memcpy(hash, &(int){(int)lot((unsigned)next_n)}, sizeof(int));
		wait_for(queue_match(queue, "app", "http", "a.example", hash, lot(2) ? "key" : NULL,
				     hash, on_match, NULL));
		break;
	case 8:
		queue_sweep(queue, now(), NULL, NULL);
		uv_run(&loop, UV_RUN_DEFAULT);
		break;
	}
}

/* --- the damage --- */

static void overwrite(int fd, off_t size)
{
	uint8_t page[PAGE];
	off_t at = (off_t)lot((unsigned)size);
	size_t len = 1 + lot(8);

	switch (lot(5)) {
	case 0: /* some bytes, here and there */
	case 1:
		for (unsigned n = 1 + lot(40); n; n--) {
			for (size_t i = 0; i < len; i++)
				page[i] = (uint8_t)lot(256);
			ck_assert(pwrite(fd, page, len, (off_t)lot((unsigned)size)) >= 0);
		}
		break;
	case 2: /* a page that another one took the place of */
		ck_assert(pread(fd, page, PAGE, (off_t)lot((unsigned)size) / PAGE * PAGE) >= 0);
		ck_assert(pwrite(fd, page, PAGE, at / PAGE * PAGE) >= 0);
		break;
	case 3: /* one that was never written */
		memset(page, 0, PAGE);
		ck_assert(pwrite(fd, page, PAGE, at / PAGE * PAGE) >= 0);
		break;
	case 4: /* the end is missing */
		ck_assert_int_eq(ftruncate(fd, at), 0);
		break;
	}
}

static void damage(const char *name)
{
	char path[100];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR);
	if (fd < 0)
		return;
	ck_assert_int_eq(fstat(fd, &st), 0);
	if (st.st_size > PAGE)
		overwrite(fd, st.st_size);
	close(fd);
}

/* Values that no daemon wrote, in a file that is well as far as SQLite knows. */
static void spoil_values(void)
{
	static const char *const columns[] = {"state",
					      "id",
					      "owes",
					      "ordered",
					      "blocked",
					      "importance",
					      "attempts",
					      "attempts_max",
					      "received",
					      "expires",
					      "next_attempt",
					      "bytes",
					      "body_bytes",
					      "response_bytes",
					      "response_status",
					      "finished",
					      "hash",
					      "body_hash",
					      "source",
					      "scheme",
					      "authority",
					      "target",
					      "idempotency_key",
					      "method",
					      "link"};
	static const char *const values[] = {"-1",
					     "99",
					     "4611686018427387904",
					     "''",
					     "x'00ff00'",
					     "'a' || char(0) || 'b'",
					     "1e300",
					     "zeroblob(70000)",
					     "-9223372036854775808"};
	static const char *const others[] = {
		"DELETE FROM request_bodies WHERE seq % 3 = 0",
		"DELETE FROM request_responses WHERE seq % 2 = 0",
		"DELETE FROM request_pieces WHERE at > 70000",
		"UPDATE request_pieces SET bytes = zeroblob(200000)",
		"UPDATE request_pieces SET at = at + 1",
		"DELETE FROM request_totals",
		"UPDATE request_totals SET rows = -5, bytes = 1 << 62",
		"UPDATE request_totals SET state = state + 90",
		"UPDATE request_responses SET head = x'00'",
		"UPDATE request_events SET n = n + 1000000, what = zeroblob(3000)",
		"DROP TABLE request_events",
		"DROP INDEX requests_ready",
		"ALTER TABLE requests RENAME COLUMN owes TO other"};
	char path[100], sql[200];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/holdfast.db", dir);
	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	if (lot(3) == 0)
		snprintf(sql, sizeof(sql), "%s", others[lot(sizeof(others) / sizeof(others[0]))]);
	else
		snprintf(sql, sizeof(sql),
			 "UPDATE OR IGNORE requests SET %s = %s WHERE seq %% 4 < %u",
			 columns[lot(sizeof(columns) / sizeof(columns[0]))],
			 values[lot(sizeof(values) / sizeof(values[0]))], 1 + lot(3));
	sqlite3_exec(db, sql, NULL, NULL, NULL);
	snprintf(last, sizeof(last), "%s", sql);
	sqlite3_close(db);
}

static void remove_all(void)
{
	char path[400];
	struct dirent *entry;
	DIR *d = opendir(dir);

	while (d && (entry = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		unlink(path);
	}
	if (d)
		closedir(d);
}

static void must_store(void)
{
	int r = -1;

	for (int i = 0; i < TRIES && r < 0; i++)
		r = put();
	ck_assert_msg(r == 0, "nothing can be stored: %s; %s", strerror(-r), last);
}

static void round_of(void)
{
	bool running = lot(2);

	remove_all();
	next_n = 0;
	open_queue();
	for (int i = 0; i < ROWS; i++)
		ck_assert_int_eq(put(), 0);
	for (int i = 0; i < 10; i++)
		lease();
	if (!running)
		close_queue();
	last[0] = 0;
	if (!running && lot(2))
		spoil_values();
	else
		damage(lot(4) ? "holdfast.db" : "holdfast.db-wal");
	if (!running)
		open_queue();
	for (int i = 0; i < 30; i++)
		use();
	must_store();
	for (int i = 0; i < 10; i++)
		use();
	must_store();
	close_queue();
	open_queue();
	must_store();
	close_queue();
}

static int rounds_wanted(void)
{
	const char *text = getenv("DAMAGE_ROUNDS"), *is_long = getenv("HOLDFAST_LONG");

	if (text)
		return atoi(text);
	return is_long && strcmp(is_long, "1") == 0 ? ROUNDS_LONG : ROUNDS;
}

START_TEST(whatever_is_damaged_the_queue_goes_on)
{
	const char *text = getenv("DAMAGE_SEED");
	int rounds = rounds_wanted();

	seed = text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL) ^ (unsigned)getpid();
	printf("DAMAGE_SEED=%u\n", seed);
	fflush(stdout);
	log_set_level(0); /* there is much to say */
	strcpy(dir, "/tmp/check_queue_damage_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	uv_loop_init(&loop);
	for (int i = 0; i < rounds; i++) {
		seed += 1000003;
		round_of();
	}
	queue_row_free(row);
	uv_loop_close(&loop);
	printf("%d rounds, %d databases put aside\n", rounds, aside);
	ck_assert_int_gt(aside, 0);
	remove_all();
	rmdir(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("queue_damage");
	TCase *tc = tcase_create("queue_damage");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 1200);
	tcase_add_test(tc, whatever_is_damaged_the_queue_goes_on);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
