/* links: PkgConfig::LIBBPF PkgConfig::LIBELF */
/*
 * The lookup program: which socket gets what, told by the cookie of the socket that a test run
 * chose; and once with real connections in a network namespace of the test's own.
 */
#include "golden.h"

#include "lookup.skel.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEVICE4	  "192.0.2.1"
#define DEVICE6	  "2001:db8:a::1"
#define FAR4	  "203.0.113.9"
#define FAR6	  "2001:db8:ff::9"
#define INTERNAL4 "198.18.0.1"
#define INTERNAL6 "fd5a:fe00::1"
#define NOBODY	  HF_SOCKET_COUNT /* left to the kernel, or dropped */
#define UNCOUNTED HF_VERDICT_COUNT

static struct lookup_bpf *lookup;
static int fds[HF_SOCKET_COUNT];
static uint64_t cookies[HF_SOCKET_COUNT];

static bool is_udp(enum hf_socket which)
{
	return which == HF_SOCKET_DNS_UDP4 || which == HF_SOCKET_DNS_UDP6 ||
	       which == HF_SOCKET_RELAY_UDP4 || which == HF_SOCKET_RELAY_UDP6;
}

/* The sockets share a group: the program must choose the very one. */
static void make_socket(enum hf_socket which)
{
	int family = which % 2 ? AF_INET6 : AF_INET, one = 1;
	socklen_t len = sizeof(cookies[which]);
	struct sockaddr_in6 any = {.sin6_family = (sa_family_t)family};
	uint32_t key = which;
	uint64_t fd;

	fds[which] = socket(family, is_udp(which) ? SOCK_DGRAM : SOCK_STREAM, 0);
	ck_assert_int_ge(fds[which], 0);
	ck_assert_int_eq(setsockopt(fds[which], SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), 0);
	if (family == AF_INET6)
		ck_assert_int_eq(
			setsockopt(fds[which], SOL_IPV6, 26 /* IPV6_V6ONLY */, &one, sizeof(one)),
			0);
	ck_assert_int_eq(bind(fds[which], (struct sockaddr *)&any,
			      family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(any)),
			 0);
	if (!is_udp(which))
		ck_assert_int_eq(listen(fds[which], 8), 0);
	ck_assert_int_eq(
		getsockopt(fds[which], SOL_SOCKET, 57 /* SO_COOKIE */, &cookies[which], &len), 0);
	fd = (uint64_t)fds[which];
	put(bpf_map__fd(lookup->maps.sockets), &key, &fd);
}

static void setup(void)
{
	struct hf_settings settings = {
		.abi = HF_ABI_VERSION,
		.internal_v4 = to_ip(INTERNAL4),
		.internal_v6 = to_ip(INTERNAL6),
	};
	uint32_t zero = 0;

	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "needs root");
	lookup = lookup_bpf__open();
	ck_assert_ptr_nonnull(lookup);
	load_unpinned(lookup->obj);
	put(bpf_map__fd(lookup->maps.settings), &zero, &settings);
	put_device_address(bpf_map__fd(lookup->maps.device_addresses), DEVICE4);
	put_device_address(bpf_map__fd(lookup->maps.device_addresses), DEVICE6);
	for (int i = 0; i < HF_SOCKET_COUNT; i++)
		make_socket((enum hf_socket)i);
}

static void teardown(void)
{
	for (int i = 0; i < HF_SOCKET_COUNT; i++)
		close(fds[i]);
	lookup_bpf__destroy(lookup);
}

struct row {
	const char *to;
	int protocol;
	unsigned port;
	unsigned socket;  /* enum hf_socket or NOBODY */
	unsigned verdict; /* or UNCOUNTED */
	enum hf_reason reason;
};

#define UDP		   IPPROTO_UDP
#define TCP		   IPPROTO_TCP
#define LEFT_ALONE	   NOBODY, UNCOUNTED, HF_REASON_NONE
#define TO(socket, reason) HF_SOCKET_##socket, HF_VERDICT_STEER, HF_REASON_##reason

static const struct row rows[] = {
	{FAR4, TCP, 443, TO(PROXY_TCP4, TCP_PROXY)},
	{FAR6, TCP, 443, TO(PROXY_TCP6, TCP_PROXY)},
	{FAR4, TCP, 80, TO(PROXY_TCP4, TCP_PROXY)},
	{INTERNAL4, TCP, 80, TO(API_TCP4, API_APPS)},
	{INTERNAL6, TCP, 80, TO(API_TCP6, API_APPS)},
	{INTERNAL4, TCP, 8080, NOBODY, HF_VERDICT_DROP, HF_REASON_INTERNAL_PORT},
	{INTERNAL6, TCP, 443, NOBODY, HF_VERDICT_DROP, HF_REASON_INTERNAL_PORT},
	{FAR4, UDP, 53, TO(DNS_UDP4, DNS_RESOLVER)},
	{FAR6, UDP, 53, TO(DNS_UDP6, DNS_RESOLVER)},
	{FAR4, TCP, 53, TO(DNS_TCP4, DNS_RESOLVER)},
	{FAR6, TCP, 53, TO(DNS_TCP6, DNS_RESOLVER)},
	{DEVICE4, UDP, 53, TO(DNS_UDP4, DNS_RESOLVER)},
	{DEVICE6, TCP, 53, TO(DNS_TCP6, DNS_RESOLVER)},
	{"127.0.0.53", UDP, 53, TO(DNS_UDP4, DNS_RESOLVER)},
	{"::1", UDP, 53, TO(DNS_UDP6, DNS_RESOLVER)},
	{DEVICE4, TCP, 22, LEFT_ALONE},
	{DEVICE6, TCP, 22, LEFT_ALONE},
	{DEVICE4, UDP, 68, LEFT_ALONE},
	{DEVICE6, UDP, 546, LEFT_ALONE},
	{"127.0.0.1", TCP, 7080, LEFT_ALONE},
	{"127.9.9.9", UDP, 7, LEFT_ALONE},
	{"::1", TCP, 7080, LEFT_ALONE},
	{"224.0.0.251", UDP, 5353, LEFT_ALONE},
	{"255.255.255.255", UDP, 67, LEFT_ALONE},
	{"ff02::fb", UDP, 5353, LEFT_ALONE},
	{"169.254.1.1", TCP, 80, LEFT_ALONE},
	{"fe80::1", UDP, 547, LEFT_ALONE},
	{FAR4, UDP, 123, TO(RELAY_UDP4, UDP_RELAY)},
	{FAR6, UDP, 123, TO(RELAY_UDP6, UDP_RELAY)},
	{FAR4, UDP, 443, NOBODY, HF_VERDICT_DROP, HF_REASON_QUIC_REFUSED},
	{FAR6, UDP, 443, NOBODY, HF_VERDICT_DROP, HF_REASON_QUIC_REFUSED},
	{INTERNAL4, UDP, 80, NOBODY, HF_VERDICT_DROP, HF_REASON_INTERNAL_PORT},
	{INTERNAL6, UDP, 5000, NOBODY, HF_VERDICT_DROP, HF_REASON_INTERNAL_PORT},
	{INTERNAL4, UDP, 53, TO(DNS_UDP4, DNS_RESOLVER)},
};
enum { ROWS = sizeof(rows) / sizeof(*rows) };

/* The cookie of the chosen socket, 0: none. */
static uint64_t run(const struct row *row, uint32_t *ret_action)
{
	struct hf_ip local = to_ip(row->to);
	struct bpf_sk_lookup ctx = {
		.family = strchr(row->to, ':') ? AF_INET6 : AF_INET,
		.protocol = (__u32)row->protocol,
		.remote_port = htons(40000),
		.local_port = row->port,
	};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &ctx, .ctx_size_in = sizeof(ctx),
		    .ctx_out = &ctx, .ctx_size_out = sizeof(ctx));
	int r;

	if (ctx.family == AF_INET)
		memcpy(&ctx.local_ip4, local.bytes + 12, 4);
	else
		memcpy(ctx.local_ip6, local.bytes, 16);
	counters_clear(bpf_map__fd(lookup->maps.counters));
	r = bpf_prog_test_run_opts(bpf_program__fd(lookup->progs.hf_lookup), &opts);
	ck_assert_msg(r == 0, "test run: %s", strerror(-r));
	*ret_action = opts.retval;
	return ctx.cookie;
}

static void expect_counter(const struct row *row, unsigned verdict, enum hf_reason reason)
{
	struct hf_counter_key key;
	struct hf_counter counter;
	bool counted = counters_only(bpf_map__fd(lookup->maps.counters), &key, &counter);

	ck_assert_msg(counted == (verdict != UNCOUNTED), "%s port %u: counted or not", row->to,
		      row->port);
	if (!counted)
		return;
	ck_assert_uint_eq(key.ifindex, 0);
	ck_assert_uint_eq(key.hook, HF_HOOK_LOOKUP);
	ck_assert_uint_eq(key.verdict, verdict);
	ck_assert_uint_eq(key.reason, reason);
	ck_assert_uint_eq(counter.packets, 1);
}

START_TEST(each_lookup_finds_its_socket)
{
	uint32_t action;

	for (int i = 0; i < ROWS; i++) {
		const struct row *row = &rows[i];
		uint64_t cookie = run(row, &action);

		ck_assert_msg(cookie == (row->socket == NOBODY ? 0 : cookies[row->socket]),
			      "%s protocol %d port %u: another socket", row->to, row->protocol,
			      row->port);
		ck_assert_uint_eq(action, row->verdict == HF_VERDICT_DROP ? SK_DROP : SK_PASS);
		expect_counter(row, row->verdict, row->reason);
	}
}
END_TEST

START_TEST(quic_is_for_the_relay_only_when_a_rule_relays_it)
{
	struct row row = {FAR6, UDP, 443, TO(RELAY_UDP6, UDP_RELAY)};
	struct hf_settings settings = {.abi = HF_ABI_VERSION, .flags = HF_FLAG_RELAY_QUIC};
	uint32_t zero = 0, action;

	put(bpf_map__fd(lookup->maps.settings), &zero, &settings);
	ck_assert_uint_eq(run(&row, &action), cookies[row.socket]);
	ck_assert_uint_eq(action, SK_PASS);
	expect_counter(&row, row.verdict, row.reason);
}
END_TEST

START_TEST(without_the_daemon_nothing_of_its_is_let_through)
{
	uint32_t action;

	/* A socket leaves the map by itself when it is closed. */
	for (int i = 0; i < HF_SOCKET_COUNT; i++)
		close(fds[i]);
	for (int i = 0; i < ROWS; i++) {
		const struct row *row = &rows[i];

		ck_assert_uint_eq(run(row, &action), 0);
		if (row->socket == NOBODY) {
			expect_counter(row, row->verdict, row->reason);
			continue;
		}
		ck_assert_uint_eq(action, SK_DROP);
		expect_counter(row, HF_VERDICT_DROP, HF_REASON_NO_LISTENER);
	}
	for (int i = 0; i < HF_SOCKET_COUNT; i++)
		fds[i] = -1;
}
END_TEST

/* --- with real packets: everything is local to this namespace ------------------------------ */

static void make_all_local(void)
{
	ck_assert_int_eq(system("ip link set lo up; ip route add local default dev lo;"
				"ip -6 route add local default dev lo"),
			 0);
}

static int attach(void)
{
	int netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), fd;

	ck_assert_int_ge(netns, 0);
	fd = bpf_link_create(bpf_program__fd(lookup->progs.hf_lookup), netns, BPF_SK_LOOKUP, NULL);
	ck_assert_int_ge(fd, 0);
	close(netns);
	return fd;
}

static int dial(const char *to, unsigned port, int type)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&sa;
	int family = strchr(to, ':') ? AF_INET6 : AF_INET;
	int fd = socket(family, type, 0);

	if (family == AF_INET) {
		v4->sin_family = AF_INET;
		ck_assert_int_eq(inet_pton(AF_INET, to, &v4->sin_addr), 1);
	} else {
		ck_assert_int_eq(inet_pton(AF_INET6, to, &sa.sin6_addr), 1);
	}
	ck_assert_int_ge(fd, 0);
	ck_assert_msg(connect(fd, (struct sockaddr *)&sa,
			      family == AF_INET ? sizeof(*v4) : sizeof(sa)) == 0,
		      "%s: %s", to, strerror(errno));
	return fd;
}

/* The accepted socket sees the address that was dialled. */
static void expect_accepted(enum hf_socket which, const char *to, unsigned port)
{
	struct sockaddr_in6 sa;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&sa;
	socklen_t len = sizeof(sa);
	int client = dial(to, port, SOCK_STREAM), fd = accept(fds[which], NULL, NULL);
	char text[INET6_ADDRSTRLEN];

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	if (sa.sin6_family == AF_INET)
		inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
	else
		inet_ntop(AF_INET6, &sa.sin6_addr, text, sizeof(text));
	ck_assert_str_eq(text, to);
	ck_assert_uint_eq(ntohs(sa.sin6_port), port);
	close(fd);
	close(client);
}

START_TEST(connections_reach_the_sockets_with_their_destination)
{
	char byte;
	int link, fd;

	make_all_local();
	link = attach();
	expect_accepted(HF_SOCKET_PROXY_TCP4, FAR4, 8883);
	expect_accepted(HF_SOCKET_PROXY_TCP6, FAR6, 8883);
	expect_accepted(HF_SOCKET_API_TCP4, INTERNAL4, 80);
	expect_accepted(HF_SOCKET_API_TCP6, INTERNAL6, 80);
	expect_accepted(HF_SOCKET_DNS_TCP4, FAR4, 53);
	expect_accepted(HF_SOCKET_DNS_TCP6, FAR6, 53);
	fd = dial(FAR6, 53, SOCK_DGRAM);
	ck_assert_int_eq(send(fd, "?", 1, 0), 1);
	ck_assert_int_eq(recv(fds[HF_SOCKET_DNS_UDP6], &byte, 1, 0), 1);
	close(fd);
	fd = dial("127.0.0.53", 53, SOCK_DGRAM);
	ck_assert_int_eq(send(fd, "?", 1, 0), 1);
	ck_assert_int_eq(recv(fds[HF_SOCKET_DNS_UDP4], &byte, 1, 0), 1);
	close(fd);
	close(link);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lookup program");
	TCase *tcase = tcase_create("lookups");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, each_lookup_finds_its_socket);
	tcase_add_test(tcase, quic_is_for_the_relay_only_when_a_rule_relays_it);
	tcase_add_test(tcase, without_the_daemon_nothing_of_its_is_let_through);
	tcase_add_test(tcase, connections_reach_the_sockets_with_their_destination);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
