/* links: hf_conn */
#include "conn/duplex.h"

#include "base/limits.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 *   far[0] ==TCP== near (conn a) ==duplex== near (conn b) ==TCP== far[1]
 */
static uv_loop_t loop;
static struct duplexes *duplexes;
static struct duplex *duplex;
static int far[2];
static bool over;
static int over_status;
static uint64_t over_bytes;

static const struct conn_ops none;

/* Two ends of one TCP connection; the first does not block. */
static void connected(int *ret_far, int *ret_near)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(listener, (struct sockaddr *)&sa, len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
	*ret_far = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(*ret_far, (struct sockaddr *)&sa, len), 0);
	*ret_near = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	ck_assert_int_ge(*ret_near, 0);
	ck_assert_int_eq(fcntl(*ret_far, F_SETFL, O_NONBLOCK), 0);
	close(listener);
}

static void on_over(void *arg, int status)
{
	over = true;
	over_status = status;
	over_bytes = duplex_bytes(duplex, true);
	duplex = NULL;
}

static struct conn *accepted(int fd)
{
	struct conn *conn;

	ck_assert_int_eq(conn_accept(&loop, fd, &(struct ip){0}, &none, NULL, &conn), 0);
	return conn;
}

static void join(const char *first)
{
	struct duplex_side a = {.first = (const uint8_t *)first, .first_len = strlen(first)};
	struct duplex_side b = {0};
	int near[2];

	connected(&far[0], &near[0]);
	connected(&far[1], &near[1]);
	a.conn = accepted(near[0]);
	b.conn = accepted(near[1]);
	over = false;
	ck_assert_int_eq(duplex_new(duplexes, &a, &b, on_over, NULL, &duplex), 0);
}

static void setup(void)
{
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(duplexes_new(&loop, &duplexes), 0);
	join("");
}

static void teardown(void)
{
	struct duplexes_statistics s;

	if (duplex)
		duplex_close(duplex);
	duplex = NULL;
	close(far[0]);
	close(far[1]);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	duplexes_statistics(duplexes, &s);
	ck_assert_uint_eq(s.pipes, 0);
	duplexes_free(duplexes);
}

static void turn(void)
{
	uv_run(&loop, UV_RUN_NOWAIT);
	poll(NULL, 0, 1);
}

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 7 + i / 251);
}

/* Writes as much as goes of `total` bytes; how many are written in all. */
static size_t send_some(int fd, size_t sent, size_t total)
{
	uint8_t bytes[16384];
	size_t n = total - sent < sizeof(bytes) ? total - sent : sizeof(bytes);
	ssize_t r;

	for (size_t i = 0; i < n; i++)
		bytes[i] = byte_at(sent + i);
	r = n ? write(fd, bytes, n) : 0;
	ck_assert(r >= 0 || errno == EAGAIN);
	return sent + (r > 0 ? (size_t)r : 0);
}

static size_t receive_some(int fd, size_t received)
{
	uint8_t bytes[65536];
	ssize_t r = read(fd, bytes, sizeof(bytes));

	ck_assert(r >= 0 || errno == EAGAIN);
	for (ssize_t i = 0; i < r; i++)
		if (bytes[i] != byte_at(received + (size_t)i))
			ck_abort_msg("another byte at %zu", received + (size_t)i);
	return received + (r > 0 ? (size_t)r : 0);
}

/* Until the peer says that it has ended: 0, or how its connection broke. */
static int wait_end(int fd)
{
	uint8_t byte;

	for (int i = 0; i < 2000; i++) {
		ssize_t r = read(fd, &byte, 1);

		if (r == 0)
			return 0;
		if (r < 0 && errno != EAGAIN)
			return -errno;
		turn();
	}
	ck_abort_msg("no end");
}

static void carry_both_ways(size_t total)
{
	size_t sent[2] = {0}, received[2] = {0};

	for (int i = 0; i < 100000 && (received[0] < total || received[1] < total); i++) {
		for (int side = 0; side < 2; side++) {
			sent[side] = send_some(far[side], sent[side], total);
			received[!side] = receive_some(far[!side], received[!side]);
		}
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	ck_assert_uint_eq(received[0], total);
	ck_assert_uint_eq(received[1], total);
}

static void end_both(void)
{
	shutdown(far[0], SHUT_WR);
	ck_assert_int_eq(wait_end(far[1]), 0);
	shutdown(far[1], SHUT_WR);
	ck_assert_int_eq(wait_end(far[0]), 0);
	for (int i = 0; i < 2000 && !over; i++)
		turn();
	ck_assert(over);
	ck_assert_int_eq(over_status, 0);
}

START_TEST(little_goes_both_ways_through_memory)
{
	struct duplexes_statistics s;

	carry_both_ways(1000);
	duplexes_statistics(duplexes, &s);
	ck_assert_uint_eq(s.spliced, 0);
	end_both();
	ck_assert_uint_eq(over_bytes, 1000);
}
END_TEST

START_TEST(much_goes_both_ways_in_the_kernel)
{
	struct duplexes_statistics s;

	carry_both_ways(20 << 20);
	duplexes_statistics(duplexes, &s);
	ck_assert_uint_eq(s.spliced, 1);
	ck_assert_uint_eq(s.pipes, 2);
	end_both();
	ck_assert_uint_eq(over_bytes, 20 << 20);
}
END_TEST

START_TEST(without_descriptors_much_goes_through_memory)
{
	struct rlimit before, few;
	struct duplexes_statistics s;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = (struct rlimit){.rlim_cur = (rlim_t)far[1] + 2, .rlim_max = before.rlim_max};
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	carry_both_ways(4 << 20);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	duplexes_statistics(duplexes, &s);
	ck_assert_uint_eq(s.spliced, 0);
	ck_assert_uint_eq(s.no_pipes, 1);
	end_both();
}
END_TEST

/* A sink that does not read stops the source; with it, what is between them is bounded. */
START_TEST(a_source_waits_for_its_sink)
{
	const size_t total = 32 << 20;
	size_t sent = 0, received = 0, before = 1;

	for (int i = 0; i < 200 && sent != before; i++) {
		before = sent;
		for (int j = 0; j < 50; j++) {
			sent = send_some(far[0], sent, total);
			turn();
		}
	}
	ck_assert_uint_lt(sent, total);
	for (int i = 0; i < 100000 && received < total; i++) {
		sent = send_some(far[0], sent, total);
		received = receive_some(far[1], received);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	ck_assert_uint_eq(received, total);
	end_both();
}
END_TEST

static void reset(int fd)
{
	struct linger linger = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

static void check_reset(void)
{
	reset(far[0]);
	far[0] = -1;
	ck_assert_int_eq(wait_end(far[1]), -ECONNRESET);
	ck_assert(over);
	ck_assert_int_eq(over_status, -ECONNRESET);
}

START_TEST(a_reset_resets_the_other_side)
{
	carry_both_ways(1000);
	check_reset();
}
END_TEST

START_TEST(a_reset_in_the_kernel_resets_the_other_side)
{
	carry_both_ways(4 << 20);
	check_reset();
}
END_TEST

START_TEST(one_side_ends_and_the_other_goes_on)
{
	for (int i = 0; i < 2; i++) {
		size_t sent = 0, received = 0;

		if (i == 1)
			carry_both_ways(4 << 20);
		shutdown(far[0], SHUT_WR);
		ck_assert_int_eq(wait_end(far[1]), 0);
		for (int j = 0; j < 100000 && received < 1 << 20; j++) {
			sent = send_some(far[1], sent, 1 << 20);
			received = receive_some(far[0], received);
			uv_run(&loop, UV_RUN_NOWAIT);
		}
		ck_assert_uint_eq(received, 1 << 20);
		end_both();
		close(far[0]);
		close(far[1]);
		join("");
	}
}
END_TEST

START_TEST(what_was_read_before_comes_first)
{
	char got[16] = {0};
	size_t n = 0;

	duplex_close(duplex);
	close(far[0]);
	close(far[1]);
	join("first ");
	ck_assert_int_eq(write(far[0], "then", 4), 4);
	for (int i = 0; i < 2000 && n < 10; i++) {
		ssize_t r = read(far[1], got + n, sizeof(got) - n);

		n += r > 0 ? (size_t)r : 0;
		turn();
	}
	ck_assert_str_eq(got, "first then");
}
END_TEST

START_TEST(a_close_resets_both_and_says_nothing)
{
	carry_both_ways(4 << 20);
	duplex_close(duplex);
	duplex = NULL;
	ck_assert_int_eq(wait_end(far[0]), -ECONNRESET);
	ck_assert_int_eq(wait_end(far[1]), -ECONNRESET);
	ck_assert(!over);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("duplex");
	TCase *tc = tcase_create("duplex");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, little_goes_both_ways_through_memory);
	tcase_add_test(tc, much_goes_both_ways_in_the_kernel);
	tcase_add_test(tc, without_descriptors_much_goes_through_memory);
	tcase_add_test(tc, a_source_waits_for_its_sink);
	tcase_add_test(tc, a_reset_resets_the_other_side);
	tcase_add_test(tc, a_reset_in_the_kernel_resets_the_other_side);
	tcase_add_test(tc, one_side_ends_and_the_other_goes_on);
	tcase_add_test(tc, what_was_read_before_comes_first);
	tcase_add_test(tc, a_close_resets_both_and_says_nothing);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
