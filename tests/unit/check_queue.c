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

static char dir[64];
static uv_loop_t loop;
static struct store *store;
static struct queue *queue;
static struct queue_limits limits;

/* What the last callback told. */
static int status, calls;
static struct queue_row *row;
static struct queue_match match;
static struct queue_row **rows;
static size_t row_count;
static enum queue_news news;
static int seen, woken, changes;

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

static void on_match(void *arg, int r, const struct queue_match *result)
{
	match = *result;
	on_status(arg, r);
}

static void rows_free(void)
{
	for (size_t i = 0; i < row_count; i++)
		queue_row_free(rows[i]);
	free(rows);
	rows = NULL;
	row_count = 0;
}

static void on_rows(void *arg, int r, struct queue_row **result, size_t count)
{
	rows_free();
	rows = result;
	row_count = count;
	on_status(arg, r);
}

static void on_seen(void *arg, enum queue_news told)
{
	news = told;
	seen++;
	if (arg)
		++*(int *)arg;
}

/* Somebody who hears of it at once. */
static struct queue_watch *asks(const char *id, int *heard)
{
	struct queue_watch *watch;

	ck_assert_int_eq(queue_watch(queue, id, on_seen, heard, &watch), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	return watch;
}

static int pay(const char *id)
{
	struct queue_watch *watch = asks(id, NULL);

	ck_assert_int_eq(news, QUEUE_YOURS);
	ck_assert_int_eq(queue_paid(watch, on_status, NULL), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	return status;
}

static void on_wakeup(void *arg)
{
	woken++;
}

static void on_change(void *arg, const char *id, enum request_state state, const char *what)
{
	changes++;
}

/* Wait for the one callback of a call. */
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
	ck_assert_int_eq(store_open(&loop, dir, &store), 0);
	ck_assert_int_eq(queue_new(&loop, store, &limits, &queue), 0);
	queue_set_wakeup(queue, on_wakeup, NULL);
	queue_set_observer(queue, on_change, NULL);
}

static void close_queue(void)
{
	queue_close(queue);
	store_close(store, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void reopen(void)
{
	close_queue();
	open_queue();
}

static void setup(void)
{
	strcpy(dir, "/tmp/check_queue_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	uv_loop_init(&loop);
	limits = (struct queue_limits){
		.max_bytes = 64 << 20, .max_count = 100000, .keep_response = 600000};
	seen = woken = changes = 0;
	open_queue();
}

static void teardown(void)
{
	char path[400];
	struct dirent *entry;
	DIR *d;

	close_queue();
	queue_row_free(row);
	row = NULL;
	rows_free();
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	d = opendir(dir);
	while ((entry = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		unlink(path);
	}
	closedir(d);
	rmdir(dir);
}

/* A POST of "app" to origin.example; id "id-NNNN", body and hash from the number. */
static char body_text[32];
static struct queue_request request_of(int n)
{
	struct queue_request q = {.rule = "defaults",
				  .source = "app",
				  .method = "POST",
				  .scheme = "http",
				  .authority = "origin.example",
				  .target = "/things",
				  .fields = (const uint8_t *)"Host: origin.example\r\n",
				  .fields_len = 22,
				  .owes = true,
				  .ordered = true,
				  .importance = 5,
				  .attempts_max = 20};

	snprintf(q.id, sizeof(q.id), "id-%06d", n);
	q.body_len = (size_t)snprintf(body_text, sizeof(body_text), "body %d", n);
	q.body = (const uint8_t *)body_text;
	memcpy(q.hash, &n, sizeof(n));
	memcpy(q.body_hash, &n, sizeof(n));
	q.received = now_ms();
	q.expires = q.received + 86400000;
	return q;
}

static int put(const struct queue_request *q)
{
	return wait_for(queue_put(queue, q, "stored", on_status, NULL));
}

static void put_number(int n)
{
	struct queue_request q = request_of(n);

	ck_assert_int_eq(put(&q), 0);
}

static int lease(void)
{
	return wait_for(queue_lease(queue, now_ms(), on_row, NULL));
}

static int done(const char *id, int code)
{
	static const uint8_t head[] = "HTTP/1.1 200 OK\r\n\r\n";
	struct queue_response response = {.status = code,
					  .head = head,
					  .head_len = sizeof(head) - 1,
					  .body = (const uint8_t *)"fine",
					  .body_len = 4};

	return wait_for(queue_done(queue, id, "wifi", &response, on_status, NULL));
}

static int do_match(int n, const char *key, int body)
{
	uint8_t hash[32] = {0}, body_hash[32] = {0};

	memcpy(hash, &n, sizeof(n));
	memcpy(body_hash, &body, sizeof(body));
	return wait_for(queue_match(queue, "app", "http", "origin.example", hash, key, body_hash,
				    on_match, NULL));
}

static struct queue_totals totals(void)
{
	struct queue_totals t;

	queue_totals(queue, &t);
	return t;
}

static void get(const char *id)
{
	ck_assert_int_eq(wait_for(queue_get(queue, id, true, on_row, NULL)), 0);
}

START_TEST(what_was_put_comes_back_whole_from_a_lease)
{
	struct queue_request q = request_of(1);

	q.idempotency_key = "k1";
	ck_assert(!queue_has_backlog(queue));
	ck_assert_int_eq(put(&q), 0);
	ck_assert(queue_has_backlog(queue));
	ck_assert(queue_has_debts(queue));
	ck_assert_int_eq(woken, 1);
	ck_assert_int_eq(changes, 1);
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000001");
	ck_assert_int_eq(row->state, REQUEST_SENDING);
	ck_assert_str_eq(row->rule, "defaults");
	ck_assert_str_eq(row->target, "/things");
	ck_assert_str_eq(row->idempotency_key, "k1");
	ck_assert_mem_eq(row->fields, "Host: origin.example\r\n", 22);
	ck_assert_uint_eq(row->body_len, 6);
	ck_assert_mem_eq(row->body, "body 1", 6);
	ck_assert_uint_eq(row->attempts, 1);
	ck_assert_int_eq(done(row->id, 201), 0);
	get("id-000001");
	ck_assert_int_eq(row->state, REQUEST_DONE);
	ck_assert_int_eq(row->response_status, 201);
	ck_assert_uint_eq(row->response_body_len, 4);
	ck_assert_mem_eq(row->response_body, "fine", 4);
	ck_assert_str_eq(row->link, "wifi");
	ck_assert_uint_eq(row->event_count, 2);
	ck_assert_str_eq(row->events[0].what, "stored");
}
END_TEST

START_TEST(a_thousand_rows_keep_their_order_over_a_restart)
{
	const char *origins[] = {"a.example", "b.example", "c.example", "d.example"};
	int next[4] = {0, 1, 2, 3}, leased_one = 0;
	struct queue_totals t;

	for (int i = 0; i < 1000; i++) {
		struct queue_request q = request_of(i);

		q.authority = origins[i % 4];
		ck_assert_int_eq(queue_put(queue, &q, "stored", on_status, NULL), 0);
	}
	calls = 0;
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(calls, 1000);
	for (int i = 0; i < 1000; i++) {
		int n, lane;
		char id[ID_TEXT_MAX];

		if (i == 400) { /* a lease is under way when the daemon goes */
			ck_assert_int_eq(lease(), 0);
			leased_one = atoi(row->id + 3);
			reopen();
			ck_assert_uint_eq(totals().stored, 600);
			ck_assert_uint_eq(totals().sending, 0);
			ck_assert_uint_eq(totals().done, 400);
			ck_assert_int_ne(queue_next_due(queue), 0);
		}
		ck_assert_int_eq(lease(), 0);
		strcpy(id, row->id);
		n = atoi(id + 3);
		lane = n % 4;
		ck_assert_int_eq(n, next[lane]);
		next[lane] += 4;
		if (i == 400) {
			ck_assert_int_eq(n, leased_one);
			ck_assert_uint_eq(row->attempts, 2);
		}
		ck_assert_int_eq(done(id, 200), 0);
	}
	ck_assert_int_eq(lease(), -ENOENT);
	ck_assert_int_eq(queue_next_due(queue), 0);
	t = totals();
	ck_assert_uint_eq(t.done, 1000);
	ck_assert_uint_eq(t.stored, 0);
	ck_assert_uint_eq(t.owing, 1000);
}
END_TEST

START_TEST(one_lane_has_one_lease_and_others_go_beside_it)
{
	struct queue_request other = request_of(3);

	put_number(1);
	put_number(2);
	other.authority = "other.example";
	ck_assert_int_eq(put(&other), 0);
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000001");
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000003");
	ck_assert_int_eq(lease(), -ENOENT);
	ck_assert_int_eq(queue_next_due(queue), 0);
	ck_assert_int_eq(done("id-000001", 200), 0);
	ck_assert_int_ne(queue_next_due(queue), 0); /* who asks by it must not miss the next */
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000002");
}
END_TEST

START_TEST(the_head_of_a_lane_in_backoff_holds_the_lane)
{
	int64_t later = now_ms() + 60000;

	put_number(1);
	put_number(2);
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(wait_for(queue_retry(queue, "id-000001", "lte", later, true, "503",
					      on_status, NULL)),
			 0);
	ck_assert_int_eq(lease(), -ENOENT);
	ck_assert_int_eq(queue_next_due(queue), later);
	ck_assert_int_eq(wait_for(queue_lease(queue, later, on_row, NULL)), 0);
	ck_assert_str_eq(row->id, "id-000001");
	ck_assert_uint_eq(row->attempts, 2);
	ck_assert_int_eq(wait_for(queue_retry(queue, "id-000001", "lte", 0, false, "no link",
					      on_status, NULL)),
			 0);
	ck_assert_int_eq(lease(), 0);
	ck_assert_uint_eq(row->attempts, 2); /* the one before was not counted */
	ck_assert_int_eq(done("id-000001", 200), 0);
	ck_assert_int_eq(done("id-000001", 200), -ESTALE);
}
END_TEST

START_TEST(unordered_rows_wait_for_nobody_and_importance_goes_first)
{
	struct queue_request q;

	for (int i = 1; i <= 3; i++) {
		q = request_of(i);
		q.ordered = false;
		q.importance = (uint32_t)i;
		ck_assert_int_eq(put(&q), 0);
	}
	for (int i = 3; i >= 1; i--) {
		ck_assert_int_eq(lease(), 0);
		ck_assert_int_eq(atoi(row->id + 3), i);
	}
}
END_TEST

START_TEST(a_debt_is_matched_until_it_is_paid)
{
	put_number(7);
	ck_assert_int_eq(do_match(8, NULL, 8), 0);
	ck_assert_int_eq(match.kind, MATCH_NONE);
	ck_assert(match.behind);
	ck_assert_int_eq(do_match(7, NULL, 7), 0);
	ck_assert_int_eq(match.kind, MATCH_OWES);
	ck_assert_int_eq(match.state, REQUEST_STORED);
	ck_assert_str_eq(match.id, "id-000007");
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(done("id-000007", 200), 0);
	reopen();
	ck_assert(queue_has_debts(queue));
	ck_assert_int_eq(do_match(7, NULL, 7), 0);
	ck_assert_int_eq(match.kind, MATCH_OWES);
	ck_assert_int_eq(match.state, REQUEST_DONE);
	ck_assert(!match.behind);
	ck_assert_int_eq(pay("id-000007"), 0);
	ck_assert_uint_eq(totals().paid, 1);
	ck_assert(!queue_has_debts(queue));
	ck_assert_int_eq(do_match(7, NULL, 7), 0);
	ck_assert_int_eq(match.kind, MATCH_NONE);
	asks("id-000007", NULL);
	ck_assert_int_eq(news, QUEUE_PAID);
}
END_TEST

START_TEST(the_oldest_debt_is_matched_first_and_none_of_another_source)
{
	struct queue_request q = request_of(5);

	strcpy(q.id, "other-source");
	q.source = "other";
	ck_assert_int_eq(put(&q), 0);
	ck_assert_int_eq(do_match(5, NULL, 5), 0);
	ck_assert_int_eq(match.kind, MATCH_NONE);
	ck_assert(!match.behind);
	for (int i = 0; i < 2; i++) {
		q = request_of(5);
		snprintf(q.id, sizeof(q.id), "twin-%d", i);
		ck_assert_int_eq(put(&q), 0);
	}
	ck_assert_int_eq(do_match(5, NULL, 5), 0);
	ck_assert_str_eq(match.id, "twin-0");
}
END_TEST

START_TEST(a_key_matches_by_itself_and_another_body_is_a_conflict)
{
	struct queue_request q = request_of(1);

	q.idempotency_key = "key-1";
	ck_assert_int_eq(put(&q), 0);
	ck_assert_int_eq(do_match(99, "key-1", 1), 0);
	ck_assert_int_eq(match.kind, MATCH_OWES);
	ck_assert_int_eq(do_match(1, "key-1", 2), 0);
	ck_assert_int_eq(match.kind, MATCH_KEY_CONFLICT);
	ck_assert_int_eq(do_match(1, "key-2", 1), 0);
	ck_assert_int_eq(match.kind, MATCH_NONE);
}
END_TEST

static void on_put(void *arg, int r)
{
	*(int *)arg += r == 0;
	on_status(NULL, r);
}

static struct queue_about about_of(const char *source, const char *method, const char *target,
				   const char *key)
{
	return (struct queue_about){.source = source,
				    .scheme = "http",
				    .authority = "origin.example",
				    .method = method,
				    .target = target,
				    .idempotency_key = key};
}

static bool may_owe(const char *source, const char *method, const char *target, const char *key)
{
	struct queue_about about = about_of(source, method, target, key);

	return queue_may_owe(queue, &about);
}

static bool may_owe_same(int n, const char *key)
{
	struct queue_about about = about_of("app", "POST", "/things", key);
	uint8_t hash[32] = {0};

	memcpy(hash, &n, sizeof(n));
	return queue_may_owe_same(queue, &about, hash);
}

static bool may_be_behind(const char *source)
{
	struct queue_about about = about_of(source, "POST", "/any", NULL);

	return queue_may_be_behind(queue, &about);
}

static void only_what_is_there_is_known(void)
{
	ck_assert(may_owe("app", "POST", "/things", NULL));
	ck_assert(may_owe("app", "PATCH", "/elsewhere", "k1"));
	ck_assert(!may_owe("app", "POST", "/things", "k2"));
	ck_assert(!may_owe("app", "PUT", "/things", NULL));
	ck_assert(!may_owe("app", "POST", "/thing", NULL));
	ck_assert(!may_owe("ap", "POST", "/things", NULL));
	ck_assert(may_owe_same(1, NULL));
	ck_assert(!may_owe_same(2, NULL));
	ck_assert(may_owe_same(2, "k1"));
	ck_assert(may_be_behind("app"));
	ck_assert(!may_be_behind("other"));
}

START_TEST(whom_the_queue_cannot_concern_is_known_without_it)
{
	struct queue_request q = request_of(1);

	q.idempotency_key = "k1";
	ck_assert(!may_owe("app", "POST", "/things", NULL) && !may_be_behind("app"));
	ck_assert_int_eq(queue_put(queue, &q, "stored", on_status, NULL), 0);
	only_what_is_there_is_known(); /* before it is on the disk */
	uv_run(&loop, UV_RUN_DEFAULT);
	only_what_is_there_is_known();
	reopen();
	ck_assert(may_owe("other", "GET", "/", NULL)); /* it is not read yet */
	uv_run(&loop, UV_RUN_DEFAULT);
	only_what_is_there_is_known();
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(done("id-000001", 200), 0);
	ck_assert(may_owe("app", "POST", "/things", NULL) && !may_be_behind("app"));
	ck_assert_int_eq(pay("id-000001"), 0);
	ck_assert(!may_owe("app", "POST", "/things", NULL));
	put_number(2);
	ck_assert(!may_owe("app", "PATCH", "/elsewhere", "k1")); /* the first is forgotten */
}
END_TEST

START_TEST(one_that_is_tried_again_by_hand_is_in_its_lane_again)
{
	struct queue_request q = request_of(1);

	q.owes = false;
	ck_assert_int_eq(put(&q), 0);
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(wait_for(queue_fail(queue, q.id, "wifi", NULL, "no", on_status, NULL)), 0);
	q = request_of(2);
	q.source = "other";
	ck_assert_int_eq(put(&q), 0);
	ck_assert(!may_be_behind("app"));
	ck_assert_int_eq(wait_for(queue_retry_now(queue, "id-000001", on_status, NULL)), 0);
	ck_assert(may_be_behind("app"));
	ck_assert(may_be_behind("other") && !may_be_behind("third"));
}
END_TEST

START_TEST(the_quota_refuses_what_came_last)
{
	static uint8_t big[100000];
	struct queue_request q = request_of(1);
	int taken = 0;

	limits.max_bytes = 1000000;
	queue_set_limits(queue, &limits);
	q.body = big;
	q.body_len = sizeof(big);
	for (int i = 0; i < 10; i++) {
		snprintf(q.id, sizeof(q.id), "big-%d", i);
		ck_assert_int_eq(queue_put(queue, &q, "stored", on_put, &taken), 0);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(taken, 9);
	ck_assert_int_eq(status, -EDQUOT);
	ck_assert_uint_le(totals().bytes, 1000000);
	ck_assert_uint_eq(totals().refused_full, 1);
	reopen();
	ck_assert_uint_gt(totals().bytes, 900000);
	ck_assert_int_eq(wait_for(queue_delete(queue, "big-3", on_status, NULL)), 0);
	snprintf(q.id, sizeof(q.id), "again");
	ck_assert_int_eq(put(&q), 0);
	snprintf(q.id, sizeof(q.id), "no-room");
	ck_assert_int_eq(put(&q), -EDQUOT);
	q.body_len = 1;
	snprintf(q.id, sizeof(q.id), "again");
	ck_assert_int_eq(put(&q), -EEXIST);
}
END_TEST

START_TEST(all_who_wait_have_the_answer_and_each_may_pay)
{
	struct queue_watch *a, *b, *c;

	put_number(1);
	a = asks("id-000001", NULL);
	b = asks("id-000001", NULL);
	c = asks("id-000001", NULL);
	queue_unwatch(c);
	ck_assert_int_eq(seen, 0);
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(done("id-000001", 200), 0);
	ck_assert_int_eq(seen, 2);
	ck_assert_int_eq(news, QUEUE_YOURS);
	ck_assert_int_eq(wait_for(queue_paid(a, on_status, NULL)), 0);
	ck_assert_int_eq(wait_for(queue_paid(b, on_status, NULL)), 0);
	ck_assert_int_eq(seen, 2);
	ck_assert_uint_eq(totals().paid, 1);
	ck_assert_uint_eq(totals().owing, 0);
	get("id-000001");
	ck_assert_str_eq(row->events[row->event_count - 1].what, "the app has the answer");
	asks("unknown", NULL);
	ck_assert_int_eq(news, QUEUE_GONE);
}
END_TEST

static void answered(int n)
{
	put_number(n);
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(done(row->id, 200), 0);
}

START_TEST(who_comes_while_the_answer_is_handed_over_waits_and_then_asks_anew)
{
	struct queue_watch *first;
	int second = 0, third = 0;

	answered(1);
	first = asks("id-000001", NULL);
	ck_assert_int_eq(news, QUEUE_YOURS);
	asks("id-000001", &second);
	ck_assert_int_eq(second, 0);
	/* The payment is on its way, and not in the database yet. */
	ck_assert_int_eq(queue_paid(first, on_status, NULL), 0);
	asks("id-000001", &third);
	ck_assert_int_eq(second, 1);
	ck_assert_int_eq(third, 1);
	ck_assert_int_eq(news, QUEUE_PAID);
	ck_assert_uint_eq(totals().paid, 1);
}
END_TEST

START_TEST(an_answer_that_was_not_taken_goes_to_the_next_alone)
{
	struct queue_watch *first, *second, *third;
	int heard_second = 0, heard_third = 0;

	answered(1);
	first = asks("id-000001", NULL);
	second = asks("id-000001", &heard_second);
	third = asks("id-000001", &heard_third);
	queue_unwatch(first);
	ck_assert_int_eq(heard_second, 0); /* never from inside a call */
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(heard_second, 1);
	ck_assert_int_eq(heard_third, 0);
	ck_assert_int_eq(news, QUEUE_YOURS);
	/* The next one after it leaves before it is its turn. */
	queue_unwatch(third);
	queue_unwatch(second);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_uint_eq(totals().owing, 1);
	ck_assert_int_eq(pay("id-000001"), 0);
}
END_TEST

START_TEST(of_those_who_waited_one_that_takes_it_is_enough)
{
	struct queue_watch *gone, *slow;
	int late = 0;

	put_number(1);
	gone = asks("id-000001", NULL);
	slow = asks("id-000001", NULL);
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(done("id-000001", 200), 0);
	asks("id-000001", &late);
	queue_unwatch(gone);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(late, 0);
	ck_assert_int_eq(wait_for(queue_paid(slow, on_status, NULL)), 0);
	ck_assert_int_eq(late, 1);
	ck_assert_int_eq(news, QUEUE_PAID);
}
END_TEST

START_TEST(what_is_deleted_while_it_is_handed_over_owes_nobody)
{
	struct queue_watch *first;
	int second = 0;

	answered(1);
	first = asks("id-000001", NULL);
	asks("id-000001", &second);
	ck_assert_int_eq(wait_for(queue_delete(queue, "id-000001", on_status, NULL)), 0);
	ck_assert_int_eq(second, 1);
	ck_assert_int_eq(news, QUEUE_GONE);
	ck_assert_int_eq(wait_for(queue_paid(first, on_status, NULL)), -ENOENT);
}
END_TEST

START_TEST(a_queue_that_closes_while_a_debt_is_paid_forgets_who_waits)
{
	struct queue_watch *first;
	int second = 0;

	answered(1);
	first = asks("id-000001", NULL);
	asks("id-000001", &second);
	status = 1;
	ck_assert_int_eq(queue_paid(first, on_status, NULL), 0);
	reopen();
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(second, 0);
	ck_assert_uint_eq(totals().owing, 0);
}
END_TEST

START_TEST(what_is_over_expires_and_is_purged_later)
{
	struct queue_request q = request_of(1);
	struct queue_watch *watch;
	int64_t later;

	q.expires = q.received + 1000;
	ck_assert_int_eq(put(&q), 0);
	put_number(2);
	ck_assert_int_eq(queue_watch(queue, q.id, on_seen, NULL, &watch), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	later = q.expires + 1;
	ck_assert_int_eq(wait_for(queue_sweep(queue, later, on_status, NULL)), 0);
	ck_assert_int_eq(seen, 1);
	ck_assert_int_eq(news, QUEUE_YOURS);
	ck_assert_uint_eq(totals().expired, 1);
	ck_assert_int_eq(wait_for(queue_lease(queue, later, on_row, NULL)), 0);
	ck_assert_str_eq(row->id, "id-000002"); /* its lane goes on */
	ck_assert_int_eq(wait_for(queue_sweep(queue, later - 3600000, on_status, NULL)), 0);
	ck_assert_uint_eq(totals().expired, 1); /* a clock set back takes nothing */
	ck_assert_int_eq(wait_for(queue_sweep(queue, later + 600001, on_status, NULL)), 0);
	ck_assert_uint_eq(totals().expired, 0);
	ck_assert_uint_eq(totals().unclaimed, 1);
	ck_assert_int_eq(wait_for(queue_get(queue, q.id, true, on_row, NULL)), -ENOENT);
}
END_TEST

START_TEST(a_long_sweep_ends_with_nothing_left)
{
	for (int i = 0; i < 700; i++) {
		struct queue_request q = request_of(i);

		q.expires = q.received;
		ck_assert_int_eq(queue_put(queue, &q, "stored", on_status, NULL), 0);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(wait_for(queue_sweep(queue, now_ms() + 1, on_status, NULL)), 0);
	ck_assert_uint_eq(totals().expired, 700);
	ck_assert_int_eq(wait_for(queue_sweep(queue, now_ms() + 700000, on_status, NULL)), 0);
	ck_assert_uint_eq(totals().expired, 0);
	ck_assert_uint_eq(totals().bytes, 0);
	ck_assert_uint_eq(totals().owing, 0);
}
END_TEST

START_TEST(a_failed_row_stays_a_day_and_can_be_tried_again)
{
	static const uint8_t head[] = "HTTP/1.1 503 No\r\n\r\n";
	struct queue_response response = {
		.status = 503, .head = head, .head_len = sizeof(head) - 1};
	uint64_t bytes;

	put_number(1);
	bytes = totals().bytes;
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(wait_for(queue_retry_now(queue, "id-000001", on_status, NULL)), -EBUSY);
	ck_assert_int_eq(wait_for(queue_delete(queue, "id-000001", on_status, NULL)), -EBUSY);
	ck_assert_int_eq(wait_for(queue_fail(queue, "id-000001", "wifi", &response,
					     "no more attempts", on_status, NULL)),
			 0);
	ck_assert_uint_gt(totals().bytes, bytes);
	ck_assert_int_eq(do_match(1, NULL, 1), 0);
	ck_assert_int_eq(match.kind, MATCH_OWES);
	ck_assert_int_eq(match.state, REQUEST_FAILED);
	ck_assert_int_eq(wait_for(queue_sweep(queue, now_ms() + 3600000, on_status, NULL)), 0);
	get("id-000001");
	ck_assert_int_eq(row->response_status, 503);
	ck_assert_int_eq(wait_for(queue_retry_now(queue, "id-000001", on_status, NULL)), 0);
	ck_assert_uint_eq(totals().bytes, bytes);
	ck_assert_int_eq(lease(), 0);
	ck_assert_uint_eq(row->attempts, 1);
	ck_assert_int_eq(done("id-000001", 200), 0);
	ck_assert_int_eq(wait_for(queue_retry_now(queue, "id-000001", on_status, NULL)), -EALREADY);
}
END_TEST

START_TEST(an_older_row_tried_again_goes_first_but_never_beside)
{
	for (int i = 1; i <= 3; i++)
		put_number(i);
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(
		wait_for(queue_fail(queue, "id-000001", "wifi", NULL, "x", on_status, NULL)), 0);
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000002");
	ck_assert_int_eq(wait_for(queue_retry_now(queue, "id-000001", on_status, NULL)), 0);
	ck_assert_int_eq(lease(), -ENOENT); /* 2 is under way */
	ck_assert_int_eq(
		wait_for(queue_retry(queue, "id-000002", NULL, 0, true, "x", on_status, NULL)), 0);
	for (int i = 1; i <= 3; i++) {
		char id[ID_TEXT_MAX];

		ck_assert_int_eq(lease(), 0);
		ck_assert_int_eq(atoi(row->id + 3), i);
		strcpy(id, row->id);
		ck_assert_int_eq(done(id, 200), 0);
	}
}
END_TEST

START_TEST(an_expired_row_tried_again_lives_its_whole_time_anew)
{
	struct queue_request q = request_of(1);

	q.received -= 10000;
	q.expires = q.received + 5000;
	ck_assert_int_eq(put(&q), 0);
	ck_assert_int_eq(lease(), -ENOENT);
	ck_assert_uint_eq(totals().expired, 1);
	ck_assert_int_eq(wait_for(queue_retry_now(queue, q.id, on_status, NULL)), 0);
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_gt(row->expires, now_ms() + 3000);
}
END_TEST

START_TEST(a_clock_set_back_does_not_put_a_row_off_for_years)
{
	put_number(1);
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(wait_for(queue_retry(queue, "id-000001", NULL, now_ms() + 1000, true, "x",
					      on_status, NULL)),
			 0);
	ck_assert_int_eq(wait_for(queue_lease(queue, 86400000, on_row, NULL)), 0);
	ck_assert_str_eq(row->id, "id-000001");
}
END_TEST

START_TEST(lists_are_paged_from_the_newest_and_filtered)
{
	struct queue_filter filter = {.limit = 10};
	char cursor[ID_TEXT_MAX];
	int expect = 24;

	for (int i = 0; i < 25; i++) {
		struct queue_request q = request_of(i);

		q.authority = i % 2 ? "odd.example:8080" : "even.example";
		ck_assert_int_eq(put(&q), 0);
	}
	do {
		ck_assert_int_eq(wait_for(queue_list(queue, &filter, on_rows, NULL)), 0);
		for (size_t i = 0; i < row_count; i++) {
			ck_assert_int_eq(atoi(rows[i]->id + 3), expect--);
			ck_assert_ptr_null(rows[i]->body);
			ck_assert_uint_gt(rows[i]->body_bytes, 0);
		}
		if (row_count) {
			strcpy(cursor, rows[row_count - 1]->id);
			filter.before = cursor;
		}
	} while (row_count);
	ck_assert_int_eq(expect, -1);
	filter = (struct queue_filter){.limit = 100, .host = "ODD.example"};
	ck_assert_int_eq(wait_for(queue_list(queue, &filter, on_rows, NULL)), 0);
	ck_assert_uint_eq(row_count, 12);
	filter = (struct queue_filter){.limit = 100, .has_state = true, .state = REQUEST_DONE};
	ck_assert_int_eq(wait_for(queue_list(queue, &filter, on_rows, NULL)), 0);
	ck_assert_uint_eq(row_count, 0);
	filter = (struct queue_filter){.limit = 100, .source = "app", .rule = "defaults"};
	ck_assert_int_eq(wait_for(queue_list(queue, &filter, on_rows, NULL)), 0);
	ck_assert_uint_eq(row_count, 25);
}
END_TEST

START_TEST(a_deleted_row_is_gone_with_all_that_hung_on_it)
{
	struct queue_watch *watch;

	put_number(1);
	put_number(2);
	ck_assert_int_eq(queue_watch(queue, "id-000001", on_seen, NULL, &watch), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(wait_for(queue_delete(queue, "id-000001", on_status, NULL)), 0);
	ck_assert_int_eq(news, QUEUE_GONE);
	ck_assert_int_eq(wait_for(queue_delete(queue, "id-000001", on_status, NULL)), -ENOENT);
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000002");
	ck_assert_uint_eq(totals().owing, 1);
}
END_TEST

START_TEST(what_waits_for_a_link_is_due_when_links_change)
{
	put_number(1);
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(wait_for(queue_retry(queue, "id-000001", NULL, now_ms() + 15000, false,
					      "no link", on_status, NULL)),
			 0);
	ck_assert_int_eq(lease(), -ENOENT);
	woken = 0;
	ck_assert_int_eq(queue_links_changed(queue), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(woken, 1);
	ck_assert_int_eq(lease(), 0);
	ck_assert_uint_eq(row->attempts, 1);
	get("id-000001");
	ck_assert_uint_eq(row->event_count, 1);
}
END_TEST

START_TEST(a_clock_that_is_first_right_after_boot_expires_nothing)
{
	int64_t years = (int64_t)10 * 365 * 86400000, now = now_ms() + years;
	struct queue_request old = request_of(1), fresh = request_of(2);

	put_number(3);
	reopen(); /* a row of the boot before keeps its own times */
	ck_assert_int_eq(put(&old), 0);
	fresh.received = now;
	fresh.expires = now + 1000;
	ck_assert_int_eq(put(&fresh), 0);
	ck_assert_int_eq(queue_clock_stepped(queue, now, years), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(wait_for(queue_sweep(queue, now, on_status, NULL)), 0);
	get("id-000001");
	ck_assert_int_eq(row->state, REQUEST_STORED);
	ck_assert_int_eq(row->expires, old.expires + years);
	get("id-000002");
	ck_assert_int_eq(row->expires, fresh.expires);
	get("id-000003");
	ck_assert_int_eq(row->state, REQUEST_EXPIRED);
}
END_TEST

START_TEST(an_answer_that_came_before_the_clock_was_right_is_kept_as_long)
{
	static const struct queue_response ok = {.status = 200, .head = (const uint8_t *)"x"};
	int64_t years = (int64_t)10 * 365 * 86400000, now;

	put_number(1);
	reopen(); /* stored before this start, answered after it */
	ck_assert_int_eq(lease(), 0);
	ck_assert_int_eq(wait_for(queue_done(queue, "id-000001", "lte", &ok, on_status, NULL)), 0);
	now = now_ms() + years;
	ck_assert_int_eq(queue_clock_stepped(queue, now, years), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(wait_for(queue_sweep(queue, now, on_status, NULL)), 0);
	ck_assert_uint_eq(totals().done, 1);
	/* and set right once more, back by a year */
	now -= years / 10;
	ck_assert_int_eq(queue_clock_stepped(queue, now, -years / 10), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(wait_for(queue_sweep(queue, now + 700000, on_status, NULL)), 0);
	ck_assert_uint_eq(totals().done, 0);
}
END_TEST

START_TEST(rows_whose_links_are_away_do_not_stand_before_others)
{
	for (int i = 1; i <= 4; i++) {
		struct queue_request q = request_of(i);

		q.ordered = false;
		q.rule = i < 4 ? "wifi only" : "any link";
		ck_assert_int_eq(put(&q), 0);
	}
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000001");
	ck_assert_int_eq(wait_for(queue_retry(queue, "id-000001", NULL, now_ms() + 15000, false,
					      "no link", on_status, NULL)),
			 0);
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000004");
	ck_assert_int_eq(queue_links_changed(queue), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000001");
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000002");
	ck_assert_uint_eq(row->attempts, 1);
}
END_TEST

START_TEST(history_is_bounded)
{
	put_number(1);
	for (int i = 0; i < 100; i++) {
		char what[32];

		snprintf(what, sizeof(what), "try %d", i);
		ck_assert_int_eq(lease(), 0);
		ck_assert_int_eq(wait_for(queue_retry(queue, "id-000001", "lte", 0, true, what,
						      on_status, NULL)),
				 0);
	}
	get("id-000001");
	ck_assert_uint_eq(row->event_count, QUEUE_EVENTS_MAX);
	ck_assert_str_eq(row->events[QUEUE_EVENTS_MAX - 1].what, "try 99");
	ck_assert_uint_eq(row->attempts, 100);
}
END_TEST

static int run_corrupt(struct store_job *job, sqlite3 *db)
{
	(void)job;
	(void)db;
	return -EBADMSG;
}

/* A job says so, twice: the first time the file is read whole and believed. */
static void corrupt(void)
{
	static struct store_job job;

	job = (struct store_job){.run = run_corrupt, .read_only = true};
	ck_assert_int_eq(store_submit(store, &job), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(store_submit(store, &job), 0);
	uv_run(&loop, UV_RUN_NOWAIT); /* it is with the worker */
}

START_TEST(a_database_that_is_begun_anew_has_no_rows_and_takes_new_ones)
{
	struct queue_watch *watch;
	struct queue_request q = request_of(3);

	put_number(1);
	put_number(2);
	ck_assert_int_eq(queue_watch(queue, "id-000001", on_seen, NULL, &watch), 0);
	ck_assert_int_eq(lease(), 0);
	corrupt();
	/* On its way when it happens: into the new one. */
	ck_assert_int_eq(put(&q), 0);
	ck_assert_int_eq(seen, 1);
	ck_assert_int_eq(news, QUEUE_GONE);
	ck_assert_uint_eq(totals().stored, 1);
	ck_assert_uint_eq(totals().sending, 0);
	ck_assert_uint_eq(totals().owing, 1);
	ck_assert_uint_eq(totals().put, 3);
	ck_assert_int_eq(done("id-000001", 200), -ENOENT);
	ck_assert_int_eq(lease(), 0);
	ck_assert_str_eq(row->id, "id-000003");
	ck_assert_int_eq(done("id-000003", 200), 0);
	reopen();
	ck_assert_uint_eq(totals().done, 1);
	ck_assert_uint_eq(totals().stored, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("queue");
	TCase *tc = tcase_create("queue");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, what_was_put_comes_back_whole_from_a_lease);
	tcase_add_test(tc, a_thousand_rows_keep_their_order_over_a_restart);
	tcase_add_test(tc, one_lane_has_one_lease_and_others_go_beside_it);
	tcase_add_test(tc, the_head_of_a_lane_in_backoff_holds_the_lane);
	tcase_add_test(tc, unordered_rows_wait_for_nobody_and_importance_goes_first);
	tcase_add_test(tc, a_debt_is_matched_until_it_is_paid);
	tcase_add_test(tc, the_oldest_debt_is_matched_first_and_none_of_another_source);
	tcase_add_test(tc, a_key_matches_by_itself_and_another_body_is_a_conflict);
	tcase_add_test(tc, whom_the_queue_cannot_concern_is_known_without_it);
	tcase_add_test(tc, one_that_is_tried_again_by_hand_is_in_its_lane_again);
	tcase_add_test(tc, the_quota_refuses_what_came_last);
	tcase_add_test(tc, all_who_wait_have_the_answer_and_each_may_pay);
	tcase_add_test(tc, who_comes_while_the_answer_is_handed_over_waits_and_then_asks_anew);
	tcase_add_test(tc, an_answer_that_was_not_taken_goes_to_the_next_alone);
	tcase_add_test(tc, of_those_who_waited_one_that_takes_it_is_enough);
	tcase_add_test(tc, what_is_deleted_while_it_is_handed_over_owes_nobody);
	tcase_add_test(tc, a_queue_that_closes_while_a_debt_is_paid_forgets_who_waits);
	tcase_add_test(tc, what_is_over_expires_and_is_purged_later);
	tcase_add_test(tc, a_long_sweep_ends_with_nothing_left);
	tcase_add_test(tc, a_failed_row_stays_a_day_and_can_be_tried_again);
	tcase_add_test(tc, an_older_row_tried_again_goes_first_but_never_beside);
	tcase_add_test(tc, an_expired_row_tried_again_lives_its_whole_time_anew);
	tcase_add_test(tc, a_clock_set_back_does_not_put_a_row_off_for_years);
	tcase_add_test(tc, lists_are_paged_from_the_newest_and_filtered);
	tcase_add_test(tc, a_deleted_row_is_gone_with_all_that_hung_on_it);
	tcase_add_test(tc, what_waits_for_a_link_is_due_when_links_change);
	tcase_add_test(tc, a_clock_that_is_first_right_after_boot_expires_nothing);
	tcase_add_test(tc, an_answer_that_came_before_the_clock_was_right_is_kept_as_long);
	tcase_add_test(tc, rows_whose_links_are_away_do_not_stand_before_others);
	tcase_add_test(tc, history_is_bounded);
	tcase_add_test(tc, a_database_that_is_begun_anew_has_no_rows_and_takes_new_ones);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
