/* links: hf_queue */
/*
 * Power goes at random moments: a child stores, leases, answers, pays and deletes, and
 * reports each step that was acknowledged over a pipe until it is killed. What was reported
 * must be in the database afterwards; what was not may or may not be.
 */
#include "queue/queue.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 40, ROWS_MAX = 100000, IN_FLIGHT = 8, LANES = 3 };
enum step { STEP_PUT = 1, STEP_LEASED, STEP_DONE, STEP_PAID, STEP_DELETING, STEP_DELETED };

struct report {
	int32_t step, n;
};

/* What was acknowledged of row n; shared with the children that verify. */
struct fact {
	uint16_t put, leases, done, paid, deleting, deleted;
};

static char dir[64];
static struct fact *facts;
static int last_leased[LANES];

/* --- the child that works --- */

static uv_loop_t loop;
static struct store *store;
static struct queue *queue;
static struct queue_watch *watches[ROWS_MAX]; /* of who wants the answer of row n */
static int out, next_n;

static void report(enum step step, int n)
{
	struct report r = {step, n};

	if (write(out, &r, sizeof(r)) != sizeof(r))
		_exit(3);
}

static void must(int r)
{
	if (r < 0)
		_exit(4);
}

static int number_of(const char *id)
{
	return atoi(id + 3);
}

static size_t body_of(int n, uint8_t *body)
{
	size_t len = (size_t)(n * 977 % 30000);

	for (size_t i = 0; i < len; i++)
		body[i] = (uint8_t)((size_t)n * 31 + i * 7);
	return len;
}

static void put_next(void);
static void lease_next(void);

static void on_put(void *arg, int status)
{
	must(status);
	report(STEP_PUT, (int)(intptr_t)arg);
	put_next();
}

static void put_next(void)
{
	static const char *const origins[LANES] = {"a.example", "b.example", "c.example"};
	static uint8_t body[30000];
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
				  .attempts_max = 20};

	if (n >= ROWS_MAX)
		_exit(5);
	snprintf(q.id, sizeof(q.id), "id-%08d", n);
	q.body_len = body_of(n, body);
	memcpy(q.hash, &n, sizeof(n));
	q.received = (int64_t)time(NULL) * 1000;
	q.expires = q.received + 86400000;
	must(queue_put(queue, &q, "stored", on_put, (void *)(intptr_t)n));
}

static void on_deleted(void *arg, int status)
{
	must(status);
	report(STEP_DELETED, (int)(intptr_t)arg);
}

static void on_paid(void *arg, int status)
{
	must(status);
	report(STEP_PAID, (int)(intptr_t)arg);
}

static void on_answer(void *arg, enum queue_news news)
{
	must(news == QUEUE_YOURS ? 0 : -1);
	must(queue_paid(watches[(intptr_t)arg], on_paid, arg));
}

static void on_done(void *arg, int status)
{
	int n = (int)(intptr_t)arg;
	char id[ID_TEXT_MAX];

	must(status);
	report(STEP_DONE, n);
	snprintf(id, sizeof(id), "id-%08d", n);
	if (n % 5 == 0) {
		report(STEP_DELETING, n);
		must(queue_delete(queue, id, on_deleted, arg));
	} else if (n % 2 == 0) {
		must(queue_watch(queue, id, on_answer, arg, &watches[n]));
	}
}

static void on_lease(void *arg, int status, struct queue_row *row)
{
	char answer[32];
	struct queue_response response = {.status = 200,
					  .head = (const uint8_t *)"H",
					  .head_len = 1,
					  .body = (const uint8_t *)answer};
	int n;

	if (status != -ENOENT) {
		must(status);
		n = number_of(row->id);
		report(STEP_LEASED, n);
		response.body_len = (size_t)snprintf(answer, sizeof(answer), "answer %d", n);
		must(queue_done(queue, row->id, "wifi", &response, on_done, (void *)(intptr_t)n));
		queue_row_free(row);
	}
	lease_next();
}

static void lease_next(void)
{
	must(queue_lease(queue, (int64_t)time(NULL) * 1000 + 1000, on_lease, NULL));
}

static void open_queue(void)
{
	struct queue_limits limits = {.max_bytes = (uint64_t)4 << 30, .keep_response = 86400000};

	uv_loop_init(&loop);
	must(store_open(&loop, dir, &store));
	must(queue_new(&loop, store, &limits, &queue));
}

static void work(int fd, int first)
{
	out = fd;
	next_n = first;
	open_queue();
	for (int i = 0; i < IN_FLIGHT; i++)
		put_next();
	lease_next();
	uv_run(&loop, UV_RUN_DEFAULT);
	_exit(6);
}

/* --- the child that verifies --- */

static int wrong, looked;
static uint64_t counted[REQUEST_STATE_COUNT], owing;

static void complain(int n, const char *what)
{
	fprintf(stderr, "row %d: %s\n", n, what);
	wrong++;
}

static void check_row(int n, const struct queue_row *row)
{
	const struct fact *fact = &facts[n];
	static uint8_t body[30000];
	char answer[32];
	size_t len = body_of(n, body);

	if (row->body_len != len || (len && memcmp(row->body, body, len) != 0))
		complain(n, "another body");
	if (row->attempts < fact->leases)
		complain(n, "a lease was forgotten");
	if (row->state != REQUEST_STORED && row->state != REQUEST_DONE)
		complain(n, "in a state that cannot be");
	if (fact->done && row->state != REQUEST_DONE)
		complain(n, "an answer was lost");
	if (fact->paid && row->owes)
		complain(n, "a payment was lost");
	if (row->state == REQUEST_DONE) {
		int answer_len = snprintf(answer, sizeof(answer), "answer %d", n);

		if (row->response_body_len != (size_t)answer_len ||
		    memcmp(row->response_body, answer, (size_t)answer_len) != 0)
			complain(n, "another answer");
	}
	counted[row->state]++;
	owing += row->owes;
}

static void on_looked(void *arg, int status, struct queue_row *row)
{
	int n = (int)(intptr_t)arg;
	const struct fact *fact = &facts[n];

	looked++;
	if (row && fact->deleted)
		complain(n, "came back after it was deleted");
	if (!row && status != -ENOENT)
		complain(n, strerror(-status));
	if (!row && fact->put && !fact->deleting)
		complain(n, "lost");
	if (row)
		check_row(n, row);
	queue_row_free(row);
}

static void verify(int rows)
{
	struct store_statistics s;
	struct queue_totals t;
	char id[ID_TEXT_MAX];

	open_queue();
	store_statistics(store, &s);
	if (s.corrupt)
		complain(-1, "the database was corrupt");
	for (int n = 0; n < rows; n++) {
		snprintf(id, sizeof(id), "id-%08d", n);
		must(queue_get(queue, id, true, on_looked, (void *)(intptr_t)n));
		if (n % 500 == 499)
			uv_run(&loop, UV_RUN_DEFAULT);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	queue_totals(queue, &t);
	if (t.stored != counted[REQUEST_STORED] || t.done != counted[REQUEST_DONE] || t.sending ||
	    t.owing != owing)
		complain(-1, "the totals are not the rows");
	if (looked != rows)
		complain(-1, "not all rows were looked at");
	queue_close(queue);
	store_close(store, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	_exit(wrong ? 1 : 0);
}

/* --- the parent --- */

static void learn(const struct report *r, int *rows)
{
	struct fact *fact = &facts[r->n];

	if (r->n >= *rows)
		*rows = r->n + 1;
	switch ((enum step)r->step) {
	case STEP_PUT:
		fact->put = 1;
		break;
	case STEP_LEASED: /* in order, and again only after a crash */
		ck_assert_int_ge(r->n, last_leased[r->n % LANES]);
		ck_assert(!fact->done);
		last_leased[r->n % LANES] = r->n;
		fact->leases++;
		break;
	case STEP_DONE:
		ck_assert(!fact->done);
		fact->done = 1;
		break;
	case STEP_PAID:
		fact->paid = 1;
		break;
	case STEP_DELETING:
		fact->deleting = 1;
		break;
	case STEP_DELETED:
		fact->deleted = 1;
		break;
	}
}

static void round_of(int *rows, unsigned *seed)
{
	int pipes[2], status, reports = 0, before;
	struct report r;
	pid_t child;

	ck_assert_int_eq(pipe(pipes), 0);
	before = *rows;
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		close(pipes[0]);
		work(pipes[1], before + IN_FLIGHT);
	}
	close(pipes[1]);
	int kill_at = rand_r(seed) % 120;

	while (read(pipes[0], &r, sizeof(r)) == sizeof(r)) {
		learn(&r, rows);
		if (reports++ == kill_at) {
			usleep((useconds_t)(rand_r(seed) % 8000));
			kill(child, SIGKILL);
		}
	}
	close(pipes[0]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		      "the child ended by itself: %x", status);
	ck_assert_int_gt(reports, 0);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0)
		verify(*rows + IN_FLIGHT);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "verification: %x", status);
}

START_TEST(nothing_acknowledged_is_lost_when_the_daemon_is_killed)
{
	unsigned seed = (unsigned)time(NULL) ^ (unsigned)getpid();
	int rows = 0, done = 0, leased_again = 0, deleted = 0, paid = 0;
	char path[400];
	struct dirent *entry;
	DIR *d;

	printf("seed %u\n", seed);
	strcpy(dir, "/tmp/check_queue_crash_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	facts = mmap(NULL, sizeof(*facts) * ROWS_MAX, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(facts, MAP_FAILED);
	for (int i = 0; i < ROUNDS; i++)
		round_of(&rows, &seed);
	for (int n = 0; n < rows; n++) {
		done += facts[n].done;
		leased_again += facts[n].leases > 1;
		deleted += facts[n].deleted;
		paid += facts[n].paid;
	}
	printf("%d rows, %d done, %d leased again, %d paid, %d deleted\n", rows, done, leased_again,
	       paid, deleted);
	/* The test would mean nothing if the kills had missed the interesting moments. */
	ck_assert_int_gt(done, ROUNDS);
	ck_assert_int_gt(leased_again, 0);
	ck_assert_int_gt(paid, 0);
	ck_assert_int_gt(deleted, 0);
	munmap(facts, sizeof(*facts) * ROWS_MAX);
	d = opendir(dir);
	while ((entry = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		unlink(path);
	}
	closedir(d);
	rmdir(dir);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("queue_crash");
	TCase *tc = tcase_create("queue_crash");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, nothing_acknowledged_is_lost_when_the_daemon_is_killed);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
