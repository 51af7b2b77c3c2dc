/* links: hf_queue test_power */
/*
 * The power goes at random moments on a disk that forgets what was not synced (power_disk.h).
 * Whatever the queue said was done before must be there and whole afterwards; the rest may or
 * may not be. A disk that lies about a sync must be found out, or the test would prove nothing.
 *
 * POWER_SEED=N repeats a run; HOLDFAST_LONG=1, or POWER_ROUNDS=N, makes it longer.
 */
#include "power_disk.h"
#include "queue/queue.h"

#include "base/log.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	ROUNDS = 60,
	ROUNDS_LONG = 1000,
	LIE_ROUNDS = 40,      /* until one that must be noticed is */
	ROUNDS_OF_A_LIFE = 5, /* then the folder is new */
	ROWS_MAX = 20000,
	IN_FLIGHT = 6,
	LANES = 3,
	BODY_MAX = 260000,
	DAY = 86400000,
};

/* What was acknowledged of row n. */
struct fact {
	bool put, done, failed, paid, deleting, deleted;
	unsigned leases;
};

static char root[64], dir[80];
static struct fact facts[ROWS_MAX];
static unsigned seed;
static int next_n, last_leased[LANES];

static uv_loop_t loop;
static struct store *store;
static struct queue *queue;
static struct queue_watch *watches[ROWS_MAX]; /* of who wants the answer of row n */
static int complaints;
static char complaint[200];
static struct {
	unsigned puts, dones, fails, retries, paid, deleted, again, outages, starts;
} did;

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...)
{
	va_list args;

	complaints++;
	va_start(args, format);
	vsnprintf(complaint, sizeof(complaint), format, args);
	va_end(args);
}

static int64_t now(void)
{
	return (int64_t)time(NULL) * 1000;
}

static char *id_of(int n, char id[ID_TEXT_MAX])
{
	snprintf(id, ID_TEXT_MAX, "id-%08d", n);
	return id;
}

static size_t body_of(int n, uint8_t *body)
{
	size_t len = n % 9 == 0 ? (size_t)(n * 7919 % BODY_MAX) : (size_t)(n * 977 % 9000);

	for (size_t i = 0; i < len; i++)
		body[i] = (uint8_t)((size_t)n * 31 + i * 7 + (i >> 12));
	return len;
}

/* --- work, until the power goes --- */

static void put_next(void);
static void lease_next(void);

/* Without power nothing may succeed that has to be written. */
static bool went_well(int status, const char *what)
{
	if (status < 0 && !power_is_off())
		complain("%s: %s with the power on", what, strerror(-status));
	return status == 0;
}

static void on_put(void *arg, int status)
{
	int n = (int)(intptr_t)arg;

	if (went_well(status, "put")) {
		facts[n].put = true;
		did.puts++;
	}
	put_next();
}

static void put_next(void)
{
	static const char *const origins[LANES] = {"a.example", "b.example", "c.example"};
	static uint8_t body[BODY_MAX];
	int n = next_n++;
	struct queue_request q = {.rule = "r",
				  .source = "app",
				  .method = "POST",
				  .scheme = "http",
				  .authority = origins[n % LANES],
				  .target = "/",
				  .fields = (const uint8_t *)"A: b\r\n",
				  .fields_len = 6,
				  .body = body,
				  .owes = true,
				  .ordered = true,
				  .attempts_max = 20,
				  .received = now(),
				  .expires = now() + DAY};

	ck_assert_int_lt(n, ROWS_MAX);
	if (power_is_off())
		return;
	id_of(n, q.id);
	q.body_len = body_of(n, body);
	memcpy(q.hash, &n, sizeof(n));
	ck_assert_int_eq(queue_put(queue, &q, "stored", on_put, (void *)(intptr_t)n), 0);
}

static void on_deleted(void *arg, int status)
{
	if (went_well(status, "delete")) {
		facts[(intptr_t)arg].deleted = true;
		did.deleted++;
	}
}

static void on_paid(void *arg, int status)
{
	if (went_well(status, "paid")) {
		facts[(intptr_t)arg].paid = true;
		did.paid++;
	}
}

static void on_answer(void *arg, enum queue_news news)
{
	ck_assert_int_eq(news, QUEUE_YOURS);
	ck_assert_int_eq(queue_paid(watches[(intptr_t)arg], on_paid, arg), 0);
}

static void on_finished(void *arg, int status)
{
	int n = (int)(intptr_t)arg;
	char id[ID_TEXT_MAX];

	if (!went_well(status, "finish"))
		return;
	facts[n].done = n % 7 != 0;
	facts[n].failed = n % 7 == 0;
	did.dones += facts[n].done;
	did.fails += facts[n].failed;
	if (n % 3 == 0) {
		facts[n].deleting = true;
		ck_assert_int_eq(queue_delete(queue, id_of(n, id), on_deleted, arg), 0);
	} else if (n % 2 == 0) {
		ck_assert_int_eq(queue_watch(queue, id_of(n, id), on_answer, arg, &watches[n]), 0);
	}
}

static void on_retried(void *arg, int status)
{
	did.retries += went_well(status, "retry");
}

static void leased(int n, const char *id)
{
	static uint8_t answer[BODY_MAX];
	struct queue_response response = {
		.status = n % 7 == 0 ? 500 : 200,
		.head = (const uint8_t *)"H",
		.head_len = 1,
		.body = answer,
		.body_len = body_of(n + 1, answer),
	};
	void *arg = (void *)(intptr_t)n;
	int r;

	if (n < last_leased[n % LANES])
		complain("row %d leased after %d of its lane", n, last_leased[n % LANES]);
	if (facts[n].done || facts[n].failed)
		complain("row %d leased after its end", n);
	last_leased[n % LANES] = n;
	did.again += facts[n].leases != 0;
	facts[n].leases++;
	if (rand_r(&seed) % 8 == 0)
		r = queue_retry(queue, id, "wifi", 0, true, "again", on_retried, arg);
	else if (n % 7 == 0)
		r = queue_fail(queue, id, "wifi", &response, "failed", on_finished, arg);
	else
		r = queue_done(queue, id, "wifi", &response, on_finished, arg);
	ck_assert_int_eq(r, 0);
}

static void on_lease(void *arg, int status, struct queue_row *row)
{
	if (row)
		leased(atoi(row->id + 3), row->id);
	else if (status != -ENOENT)
		went_well(status, "lease");
	queue_row_free(row);
	lease_next();
}

static void lease_next(void)
{
	if (!power_is_off())
		ck_assert_int_eq(queue_lease(queue, now() + 1000, on_lease, NULL), 0);
}

static void on_swept(void *arg, int status)
{
	went_well(status, "sweep");
}

/* For a test of the test: what the daemon is asked to do without, or NULL. */
static const char *omission;

static int run_omission(struct store_job *job, sqlite3 *db)
{
	return store_errno(sqlite3_exec(db, omission, NULL, NULL, NULL));
}

static void omit(void)
{
	static struct store_job job;

	job = (struct store_job){.run = run_omission, .read_only = true};
	ck_assert_int_eq(store_submit(store, &job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert(job.status == 0 || power_is_off());
}

static int open_all(void)
{
	struct queue_limits limits = {.max_bytes = (uint64_t)4 << 30, .keep_response = DAY};
	int r;

	uv_loop_init(&loop);
	r = store_open(&loop, dir, &store);
	if (r < 0)
		return r;
	r = queue_new(&loop, store, &limits, &queue);
	if (r < 0) {
		store_close(store, NULL, NULL);
		uv_run(&loop, UV_RUN_DEFAULT);
	}
	return r;
}

static void close_all(void)
{
	queue_close(queue);
	store_close(store, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void work(void)
{
	int r = open_all();

	did.starts += power_is_off();
	if (r < 0) {
		if (!power_is_off())
			complain("cannot open: %s", strerror(-r));
		uv_loop_close(&loop);
		return;
	}
	if (omission)
		omit();
	for (int i = 0; i < IN_FLIGHT; i++)
		put_next();
	lease_next();
	ck_assert_int_eq(queue_sweep(queue, now(), on_swept, NULL), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	close_all();
	uv_loop_close(&loop);
}

/* --- what is there afterwards --- */

static uint64_t counted[REQUEST_STATE_COUNT], owing;
static int looked;

/* A body is read as it is stored: piece by piece. */
struct reading {
	struct queue_reader *reader;
	int n; /* of the row; the answer is that of n + 1 */
	bool answer;
	size_t at;
};

static void on_piece(void *arg, int status, const uint8_t *bytes, size_t len)
{
	static uint8_t wanted[BODY_MAX];
	struct reading *reading = arg;
	size_t all = body_of(reading->n + reading->answer, wanted);
	bool same = status == 0 && reading->at + len <= all &&
		    (!len || memcmp(bytes, wanted + reading->at, len) == 0);

	reading->at += len;
	if (same && len && queue_reader_next(reading->reader) == 0)
		return;
	if (!same || reading->at != all)
		complain("row %d has another %s", reading->n, reading->answer ? "answer" : "body");
	queue_reader_close(reading->reader);
	free(reading);
}

static void check_bytes(int n, const char *id, bool answer)
{
	struct reading *reading = calloc(1, sizeof(*reading));

	reading->n = n;
	reading->answer = answer;
	ck_assert_int_eq(queue_reader_new(queue, id, answer ? QUEUE_RESPONSE : QUEUE_REQUEST,
					  on_piece, reading, &reading->reader),
			 0);
	ck_assert_int_eq(queue_reader_next(reading->reader), 0);
}

static void check_row(int n, const struct queue_row *row)
{
	const struct fact *fact = &facts[n];
	enum request_state ends = n % 7 == 0 ? REQUEST_FAILED : REQUEST_DONE;

	check_bytes(n, row->id, false);
	if (row->attempts < fact->leases)
		complain("row %d forgot a lease", n);
	if (row->state != REQUEST_STORED && row->state != ends)
		complain("row %d is %s", n, request_state_name(row->state));
	if ((fact->done || fact->failed) && row->state != ends)
		complain("row %d lost its answer", n);
	if (fact->paid && row->owes)
		complain("row %d owes again", n);
	if (row->state == ends)
		check_bytes(n, row->id, true);
	counted[row->state]++;
	owing += row->owes;
}

static void on_looked(void *arg, int status, struct queue_row *row)
{
	int n = (int)(intptr_t)arg;
	const struct fact *fact = &facts[n];

	looked++;
	if (row && fact->deleted)
		complain("row %d came back after it was deleted", n);
	if (!row && status != -ENOENT)
		complain("row %d: %s", n, strerror(-status));
	if (!row && fact->put && !fact->deleting)
		complain("row %d is lost", n);
	if (row)
		check_row(n, row);
	queue_row_free(row);
}

struct check_job {
	struct store_job job;
	char text[80];
};

static int run_check(struct store_job *job, sqlite3 *db)
{
	struct check_job *check = (struct check_job *)job;
	sqlite3_stmt *stmt;
	int r = sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &stmt, NULL);

	if (r != SQLITE_OK)
		return store_errno(r);
	r = sqlite3_step(stmt);
	if (r == SQLITE_ROW)
		snprintf(check->text, sizeof(check->text), "%s",
			 (const char *)sqlite3_column_text(stmt, 0));
	sqlite3_finalize(stmt);
	return store_errno(r);
}

static void check_totals(void)
{
	struct queue_totals t;

	queue_totals(queue, &t);
	if (t.stored != counted[REQUEST_STORED] || t.done != counted[REQUEST_DONE] ||
	    t.failed != counted[REQUEST_FAILED] || t.sending || t.owing != owing)
		complain("the totals are not the rows");
}

static void on_check(struct store_job *job, int status)
{
	struct check_job *check = (struct check_job *)job;

	if (status < 0 || strcmp(check->text, "ok") != 0)
		complain("integrity: %s %s", status < 0 ? strerror(-status) : "", check->text);
}

static void verify(void)
{
	struct check_job check = {.job = {.run = run_check, .done = on_check, .read_only = true}};
	struct store_statistics s;
	char id[ID_TEXT_MAX];
	int r = open_all();

	if (r < 0) {
		complain("cannot open after the outage: %s", strerror(-r));
		return;
	}
	store_statistics(store, &s);
	if (s.corrupt || s.stands_in)
		complain("the database was corrupt, or could not be opened");
	looked = 0;
	owing = 0;
	memset(counted, 0, sizeof(counted));
	ck_assert_int_eq(store_submit(store, &check.job), 0);
	for (int n = 0; n < next_n; n++) {
		r = queue_get(queue, id_of(n, id), true, on_looked, (void *)(intptr_t)n);
		ck_assert_int_eq(r, 0);
		if (n % 500 == 499)
			uv_run(&loop, UV_RUN_DEFAULT);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(looked, next_n);
	check_totals();
	close_all();
	uv_loop_close(&loop);
}

/* --- rounds --- */

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
	rmdir(dir);
}

static void begin_life(enum power_lie lie)
{
	remove_all();
	power_watch(dir, lie);
	next_n = 0;
	memset(facts, 0, sizeof(facts));
	memset(last_leased, 0, sizeof(last_leased));
}

/* Each fourth time while it starts, else at work, now and then after a checkpoint (1000 pages). */
static unsigned when(int round)
{
	unsigned range = round % 4 == 0 ? 16 : round % 4 == 1 ? 9000 : 1200;

	return 1 + (unsigned)rand_r(&seed) % range;
}

static void round_of(int round)
{
	power_goes_after(when(round));
	work();
	did.outages += power_is_off();
	power_back(&seed);
	verify();
}

static int rounds_wanted(void)
{
	const char *text = getenv("POWER_ROUNDS"), *is_long = getenv("HOLDFAST_LONG");

	if (text)
		return atoi(text);
	return is_long && strcmp(is_long, "1") == 0 ? ROUNDS_LONG : ROUNDS;
}

static void setup(void)
{
	const char *text = getenv("POWER_SEED");

	seed = text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL) ^ (unsigned)getpid();
	printf("POWER_SEED=%u\n", seed);
	fflush(stdout);
	strcpy(root, "/tmp/check_queue_power_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	snprintf(dir, sizeof(dir), "%s/state", root);
	log_set_level(0); /* a disk without power says a lot */
	power_install();
	complaints = 0;
}

static void teardown(void)
{
	remove_all();
	rmdir(root);
}

START_TEST(nothing_that_was_acknowledged_is_lost_when_the_power_goes)
{
	int rounds = rounds_wanted();

	for (int i = 0; i < rounds; i++) {
		if (i % ROUNDS_OF_A_LIFE == 0)
			begin_life(POWER_HONEST);
		round_of(i);
		ck_assert_msg(!complaints, "round %d: %s (%d complaints)", i, complaint,
			      complaints);
	}
	printf("%u outages, %u at a start; %u put, %u done, %u failed, %u tried again, %u leased "
	       "again, %u paid, %u deleted\n",
	       did.outages, did.starts, did.puts, did.dones, did.fails, did.retries, did.again,
	       did.paid, did.deleted);
	ck_assert_uint_gt(did.outages, (unsigned)rounds / 2);
	ck_assert_uint_gt(did.starts, 0);
	ck_assert_uint_gt(did.dones, 0);
	ck_assert_uint_gt(did.fails, 0);
	ck_assert_uint_gt(did.again, 0);
	ck_assert_uint_gt(did.paid, 0);
	ck_assert_uint_gt(did.deleted, 0);
}
END_TEST

static void must_be_noticed(const char *what, enum power_lie lie)
{
	int i = 0;

	for (; i < LIE_ROUNDS && !complaints; i++) {
		if (i % 3 == 0)
			begin_life(lie);
		round_of(i);
	}
	printf("%s: after %d rounds: %s\n", what, i, complaint);
	ck_assert_msg(complaints, "nobody noticed");
}

START_TEST(a_disk_that_lies_about_a_sync_is_found_out)
{
	static const enum power_lie lies[] = {POWER_LIES_LOG, POWER_LIES_DATABASE,
					      POWER_LIES_FOLDER};
	static const char *const names[] = {"the log", "the database", "the folder"};

	must_be_noticed(names[_i], lies[_i]);
}
END_TEST

START_TEST(a_daemon_that_leaves_out_a_sync_is_found_out)
{
	static const char *const omissions[] = {"PRAGMA synchronous=OFF",
						"PRAGMA synchronous=NORMAL"};

	omission = omissions[_i];
	must_be_noticed(omission, POWER_HONEST);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("queue_power");
	TCase *tc = tcase_create("queue_power");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 600);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, nothing_that_was_acknowledged_is_lost_when_the_power_goes);
	tcase_add_loop_test(tc, a_disk_that_lies_about_a_sync_is_found_out, 0, 3);
	tcase_add_loop_test(tc, a_daemon_that_leaves_out_a_sync_is_found_out, 0, 2);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
