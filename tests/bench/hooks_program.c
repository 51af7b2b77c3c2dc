/*
 * One run of `./dev bench steer`'s first part: nanoseconds that each hook's program takes for a
 * packet, by what it decides, by the kernel's own clock (BPF_PROG_TEST_RUN). Prints a JSON
 * object; fails when a verdict is another one.
 *
 * What leaves the packet alone runs many times in one go. What answers changes the packet, so
 * that it runs once at a time, and the cost of a single run is taken off, as the first row,
 * measured in both ways, tells it.
 */
#include "../bpf/steer_bench.h"
#include "guard.skel.h"
#include "lookup.skel.h"

#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REPEAT = 100000, SINGLES = 1001, SINGLES_MIN = 100, PAUSE_US = 500, SSH = 22 };

static struct guard_bpf *guard;
static struct lookup_bpf *lookup;
static double single_cost;
static const char *separator = "{";

static void print(const char *hook, const char *what, double ns)
{
	printf("%s\"%s %s\": %.1f", separator, hook, what, ns);
	separator = ", ";
}

static bool is_verdict(int counters, enum hf_verdict verdict, enum hf_reason reason)
{
	struct hf_counter_key key;
	struct hf_counter counter;

	return counters_only(counters, &key, &counter) && key.verdict == verdict &&
	       key.reason == reason;
}

static double run_often(int program, int counters, struct bpf_test_run_opts *opts,
			enum hf_verdict verdict, enum hf_reason reason)
{
	opts->repeat = REPEAT;
	counters_clear(counters);
	ck_assert_int_eq(bpf_prog_test_run_opts(program, opts), 0);
	ck_assert(is_verdict(counters, verdict, reason));
	return opts->duration;
}

static int by_size(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The median; runs with another verdict, such as a refusal over its rate, do not count. */
static double run_singly(const struct frame *in, enum hf_verdict verdict, enum hf_reason reason)
{
	int counters = bpf_map__fd(steer->maps.counters), count = 0;
	static struct frame out;
	uint32_t times[SINGLES];

	for (int i = 0; i < SINGLES; i++) {
		LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->bytes,
			    .data_size_in = (__u32)in->len, .data_out = out.bytes,
			    .data_size_out = sizeof(out.bytes), .repeat = 1);

		counters_clear(counters);
		ck_assert_int_eq(
			bpf_prog_test_run_opts(bpf_program__fd(steer->progs.hf_steer), &opts), 0);
		if (is_verdict(counters, verdict, reason))
			times[count++] = opts.duration;
		usleep(verdict == HF_VERDICT_REFUSE ? PAUSE_US : 0);
	}
	ck_assert_int_ge(count, SINGLES_MIN);
	qsort(times, (size_t)count, sizeof(*times), by_size);
	return times[count / 2];
}

/* --- steer --- */

static double steer_often(const struct frame *f, enum hf_verdict verdict, enum hf_reason reason)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = f->bytes, .data_size_in = (__u32)f->len);

	return run_often(bpf_program__fd(steer->progs.hf_steer), bpf_map__fd(steer->maps.counters),
			 &opts, verdict, reason);
}

static void add_dns(struct frame *f)
{
	static const uint8_t question[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
					  "\x05"
					  "bench\x07"
					  "example\x00\x00\x01\x00\x01";

	begin_ip(f, PLAIN, FAR4, UDP);
	frame_udp(f, 41000, 53);
	frame_add(f, question, sizeof(question) - 1);
	frame_end_udp(f);
}

static void publish(void)
{
	struct hf_name_key key = {.wire = "\x05"
					  "bench\x07"
					  "example",
				  .qtype = 1,
				  .len = 15};
	struct hf_name name = {.real_until = UINT64_MAX, .real_count = 1, .real = {to_ip(FAR4)}};

	put(bpf_map__fd(steer->maps.names), &key, &name);
}

START_TEST(measure_steer)
{
	static const struct row rows[] = {
		{"pass device-address", DEVICE4, TCP, 22, V(PASS, DEVICE_ADDRESS)},
		{"steer tcp-proxy", FAR4, TCP, 443, V(STEER, TCP_PROXY)},
		{"steer udp-relay", FAR4, UDP, 5000, V(STEER, UDP_RELAY)},
	};
	struct frame f;

	open_with_frags();
	settings.flags = HF_FLAG_ONLINE;
	put_settings();
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		build(&f, PLAIN, &rows[i]);
		double ns = steer_often(&f, rows[i].verdict, rows[i].reason);

		if (i == 0)
			single_cost = run_singly(&f, rows[i].verdict, rows[i].reason) - ns;
		print("steer", rows[i].name, ns);
	}
	f.len = f.l4 + 4; /* half a UDP header */
	print("steer", "drop malformed", steer_often(&f, V(DROP, MALFORMED)));
	add_dns(&f);
	print("steer", "steer dns-resolver", steer_often(&f, V(STEER, DNS_RESOLVER)));
	publish();
	print("steer", "answer dns-kernel", run_singly(&f, V(ANSWER, DNS_KERNEL)) - single_cost);
	build(&f, PLAIN, &(struct row){"", FAR4, UDP, 443, V(REFUSE, QUIC_REFUSED)});
	print("steer", "refuse quic-refused",
	      run_singly(&f, V(REFUSE, QUIC_REFUSED)) - single_cost);
	bench_close();
}
END_TEST

/* --- lookup --- */

START_TEST(measure_lookup)
{
	struct hf_settings set = {.abi = HF_ABI_VERSION};
	uint32_t zero = 0, which = HF_SOCKET_PROXY_TCP4;
	struct bpf_sk_lookup ctx = {.family = AF_INET,
				    .protocol = TCP,
				    .remote_port = htons(40000),
				    .local_port = 443,
				    .local_ip4 = htonl(0xcb007109)};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &ctx, .ctx_size_in = sizeof(ctx));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t value = (uint64_t)fd;

	lookup = lookup_bpf__open();
	ck_assert_ptr_nonnull(lookup);
	load_unpinned(lookup->obj);
	ck_assert_int_eq(listen(fd, 1), 0);
	put(bpf_map__fd(lookup->maps.settings), &zero, &set);
	put(bpf_map__fd(lookup->maps.sockets), &which, &value);
	print("lookup", "steer tcp-proxy",
	      run_often(bpf_program__fd(lookup->progs.hf_lookup),
			bpf_map__fd(lookup->maps.counters), &opts, V(STEER, TCP_PROXY)));
	lookup_bpf__destroy(lookup);
	close(fd);
}
END_TEST

/* --- guard --- */

static double guard_often(unsigned from_port, enum hf_verdict verdict, enum hf_reason reason)
{
	struct __sk_buff ctx = {0};
	struct frame f = {.len = 0};

	frame_mac(&f, APP_MAC, DEVICE_MAC, 0x0800);
	frame_ip(&f, "192.0.2.5", FAR4, TCP);
	frame_tcp(&f, from_port, 443, 0x10);
	frame_end(&f);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = f.bytes, .data_size_in = (__u32)f.len,
		    .ctx_in = &ctx, .ctx_size_in = sizeof(ctx));

	return run_often(bpf_program__fd(guard->progs.hf_guard), bpf_map__fd(guard->maps.counters),
			 &opts, verdict, reason);
}

START_TEST(measure_guard)
{
	struct hf_settings set = {.abi = HF_ABI_VERSION, .guard_mode = HF_GUARD_ENFORCE};
	struct hf_interface link = {.role = HF_ROLE_LINK, .has_mac = 1, .link = 1};
	struct hf_allow allow = {.used = 1, .protocol = TCP, .local_port = SSH};
	uint32_t zero = 0, lo = LO;

	guard = guard_bpf__open();
	ck_assert_ptr_nonnull(guard);
	load_unpinned(guard->obj);
	put(bpf_map__fd(guard->maps.settings), &zero, &set);
	put(bpf_map__fd(guard->maps.interfaces), &lo, &link);
	put(bpf_map__fd(guard->maps.guard_allow), &zero, &allow);
	print("guard", "drop not-ours", guard_often(40000, V(DROP, NOT_OURS)));
	print("guard", "pass allowed-service", guard_often(SSH, V(PASS, ALLOWED_SERVICE)));
	guard_bpf__destroy(guard);
}
END_TEST

/* As a test, because what builds packets and maps for tests says what fails to Check. */
int main(void)
{
	Suite *suite = suite_create("hooks");
	TCase *tests = tcase_create("hooks");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(tests, measure_steer);
	tcase_add_test(tests, measure_lookup);
	tcase_add_test(tests, measure_guard);
	suite_add_tcase(suite, tests);
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_SILENT);
	failed = srunner_ntests_failed(runner);
	if (failed)
		srunner_print(runner, CK_NORMAL);
	srunner_free(runner);
	printf("}\n");
	return failed != 0;
}
