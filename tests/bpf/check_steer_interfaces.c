/* links: PkgConfig::LIBBPF PkgConfig::LIBELF */
/*
 * The steer program on several interfaces, in a network namespace of the test's own: each has its
 * own role, header, counters and bound of refusals. And who gets no reply at all.
 */
#include "steer_bench.h"

#include <net/if.h>
#include <sched.h>

static uint32_t first, second; /* ends of a veth pair */

static void setup(void)
{
	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "needs root");
	/* Numbers that no other interface of this machine's has by chance. */
	ck_assert_int_eq(system("ip link add e0 index 4711 type veth peer name e1 index 4712"), 0);
	first = if_nametoindex("e0");
	second = if_nametoindex("e1");
	ck_assert_uint_eq(first, 4711);
	ck_assert_uint_eq(second, 4712);
	bench_open(true);
}

static void put_role(uint32_t ifindex, enum hf_role role, bool has_mac)
{
	struct hf_interface in = {.role = (uint8_t)role, .has_mac = has_mac};

	put(bpf_map__fd(steer->maps.interfaces), &ifindex, &in);
}

static void run_on(uint32_t ifindex, const struct frame *in, struct outcome *ret)
{
	struct xdp_md ctx = {.data_end = (__u32)in->len, .ingress_ifindex = ifindex};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->bytes, .data_size_in = (__u32)in->len,
		    .data_out = ret->out.bytes, .data_size_out = sizeof(ret->out.bytes),
		    .ctx_in = &ctx, .ctx_size_in = sizeof(ctx));
	int counters = bpf_map__fd(steer->maps.counters);
	int r;

	counters_clear(counters);
	r = bpf_prog_test_run_opts(bpf_program__fd(steer->progs.hf_steer), &opts);
	ck_assert_msg(r == 0, "test run on %u: %s", ifindex, strerror(-r));
	ret->action = opts.retval;
	ret->out.len = opts.data_size_out;
	ret->counted = counters_only(counters, &ret->key, &ret->counter);
}

static void expect_on(uint32_t ifindex, const struct frame *in, enum hf_verdict verdict,
		      enum hf_reason reason)
{
	struct outcome o;

	run_on(ifindex, in, &o);
	ck_assert_msg(o.counted, "interface %u: not counted", ifindex);
	ck_assert_msg(o.key.verdict == verdict && o.key.reason == reason,
		      "interface %u: verdict %u reason %u, not %u %u", ifindex, o.key.verdict,
		      o.key.reason, verdict, reason);
	ck_assert_uint_eq(o.key.ifindex, ifindex);
	ck_assert_uint_eq(o.counter.packets, 1);
	ck_assert_uint_eq(o.counter.bytes, in->len);
}

/* --- interfaces -------------------------------------------------------------------------- */

static const struct row tcp = {"tcp", FAR4, TCP, 443, V(STEER, TCP_PROXY)};
static const struct row udp = {"udp", FAR4, UDP, 123, V(REFUSE, NO_LINK)};

START_TEST(each_interface_has_counters_of_its_own)
{
	struct frame f;

	put_role(first, HF_ROLE_APP, true);
	put_role(second, HF_ROLE_APP, true);
	put_role(LO, HF_ROLE_HOST, true);
	build(&f, PLAIN, &tcp);
	expect_on(first, &f, tcp.verdict, tcp.reason);
	expect_on(second, &f, tcp.verdict, tcp.reason);
	expect_on(LO, &f, tcp.verdict, tcp.reason);
	f.len--;
	expect_on(second, &f, V(DROP, MALFORMED));
}
END_TEST

START_TEST(the_header_is_looked_for_where_the_interface_has_one)
{
	struct frame framed, bare;

	put_role(first, HF_ROLE_APP, true);
	put_role(second, HF_ROLE_APP, false);
	build(&framed, PLAIN, &tcp);
	build(&bare, BARE, &tcp);
	expect_on(first, &framed, V(STEER, TCP_PROXY));
	expect_on(second, &bare, V(STEER, TCP_PROXY));
	expect_on(second, &framed, V(DROP, MALFORMED));
	expect_on(first, &bare, V(DROP, ETHERTYPE));
}
END_TEST

START_TEST(a_link_is_left_alone_beside_an_app)
{
	struct outcome o;
	struct frame f;

	put_role(first, HF_ROLE_APP, true);
	put_role(second, HF_ROLE_LINK, true);
	build(&f, PLAIN, &udp);
	run_on(second, &f, &o);
	ck_assert_uint_eq(o.action, XDP_PASS);
	ck_assert(!o.counted);
	expect_on(first, &f, V(REFUSE, NO_LINK));
}
END_TEST

START_TEST(a_flood_on_one_interface_takes_no_refusal_from_another)
{
	struct outcome o = {0};
	struct frame f;

	put_role(first, HF_ROLE_APP, true);
	put_role(second, HF_ROLE_APP, true);
	build(&f, PLAIN, &udp);
	for (int i = 0; i < 20000 && o.key.reason != HF_REASON_RATE_LIMITED; i++)
		run_on(first, &f, &o);
	ck_assert_uint_eq(o.key.reason, HF_REASON_RATE_LIMITED);
	ck_assert_uint_eq(o.action, XDP_DROP);
	expect_on(second, &f, V(REFUSE, NO_LINK));
}
END_TEST

static void exhaust(struct frame *f)
{
	struct outcome o = {0};

	for (int i = 0; i < 20000 && o.key.reason != HF_REASON_RATE_LIMITED; i++)
		run_on(first, f, &o);
	ck_assert_uint_eq(o.key.reason, HF_REASON_RATE_LIMITED);
}

START_TEST(a_flood_from_one_app_takes_no_refusal_from_another)
{
	struct frame f;

	put_role(first, HF_ROLE_APP, true);
	build(&f, PLAIN, &udp);
	exhaust(&f);
	put_u16(f.bytes + f.l4, 40001);
	exhaust(&f);
	f.bytes[f.l3 + 15]++; /* the next address */
	frame_end(&f);
	expect_on(first, &f, V(REFUSE, NO_LINK));
}
END_TEST

START_TEST(a_flood_from_one_socket_of_the_device_takes_no_refusal_from_another)
{
	struct frame f;

	put_role(first, HF_ROLE_HOST, true);
	build(&f, PLAIN, &udp);
	exhaust(&f);
	put_u16(f.bytes + f.l4, 40001);
	expect_on(first, &f, V(REFUSE, NO_LINK));
}
END_TEST

/* --- who gets no reply ------------------------------------------------------------------- */

START_TEST(a_frame_for_many_gets_no_reply)
{
	static const struct row rows[] = {
		{"udp", FAR4, UDP, 123, V(DROP, MARTIAN)},
		{"quic6", FAR6, UDP, 443, V(DROP, MARTIAN)},
		{"sctp", FAR4, 132, 0, V(DROP, MARTIAN)},
		{"echo", FAR4, IPPROTO_ICMP, 8, V(DROP, MARTIAN)},
		{"virtual echo", VIRTUAL4, IPPROTO_ICMP, 8, V(DROP, MARTIAN)},
		{"virtual echo6", VIRTUAL6, IPPROTO_ICMPV6, 128, V(DROP, MARTIAN)},
	};
	static const uint8_t group[] = {0x01, 0x33, 0xff};
	struct frame f;

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		for (int shape = PLAIN; shape < BARE; shape++) {
			build(&f, (enum shape)shape, &rows[i]);
			f.bytes[0] = group[shape];
			expect(rows[i].name, &f, rows[i].verdict, rows[i].reason);
		}
	}
}
END_TEST

START_TEST(an_echo_that_cannot_be_answered_whole_is_dropped)
{
	struct frame f;

	begin_ip(&f, PLAIN, VIRTUAL4, IPPROTO_ICMP);
	f.bytes[f.l3] = 0x46;
	frame_u32(&f, 0x01010100);
	frame_icmp(&f, 8, 0);
	frame_end(&f);
	expect("with options", &f, V(DROP, ECHO_VIRTUAL));
	begin_ip(&f, PLAIN, VIRTUAL6, 60);
	extend(&f, IPPROTO_ICMPV6, 0);
	frame_icmp(&f, 128, 0);
	frame_end(&f);
	expect("with destination options", &f, V(DROP, ECHO_VIRTUAL));
	begin_ip(&f, PLAIN, VIRTUAL4, IPPROTO_ICMP);
	frame_icmp(&f, 8, 0);
	frame_add(&f, NULL, 1600);
	frame_end(&f);
	expect("more than is summed", &f, V(DROP, ECHO_VIRTUAL));
	frame_add(&f, NULL, FRAME_MAX - f.len);
	frame_end(&f);
	expect("in several buffers", &f, V(DROP, ECHO_VIRTUAL));
}
END_TEST

/* www.example, known: a question that would be answered. */
static void ask_known(struct frame *f)
{
	static const uint8_t wire[] = "\3www\7example";
	struct hf_name_key key = {.qtype = 1, .len = sizeof(wire)};
	struct hf_name name = {.virtual_known = 1, .virtual_address = to_ip(VIRTUAL4)};

	settings.names_mode = HF_NAMES_VIRTUAL;
	put_settings();
	memcpy(key.wire, wire, sizeof(wire));
	put(bpf_map__fd(steer->maps.names), &key, &name);
	frame_udp(f, 41000, 53);
	frame_u32(f, 0x47110100);
	frame_u32(f, 0x00010000);
	frame_u32(f, 0);
	frame_add(f, wire, sizeof(wire));
	frame_u32(f, 0x00010001);
	frame_end_udp(f);
}

/* An answer would go to a group, or to nobody; the kernel takes no packet from there either. */
START_TEST(nobody_in_particular_is_not_answered)
{
	static const char *const sources[] = {"224.0.0.1", "255.255.255.255", "0.0.0.0", "ff02::1",
					      "::"};
	struct frame f;

	for (size_t i = 0; i < sizeof(sources) / sizeof(*sources); i++) {
		int v6 = strchr(sources[i], ':') != NULL;

		begin(&f, PLAIN, v6 ? 0x86dd : 0x0800);
		frame_ip(&f, sources[i], v6 ? FAR6 : FAR4, UDP);
		ask_known(&f);
		expect(sources[i], &f, V(DROP, MARTIAN));
		begin(&f, PLAIN, v6 ? 0x86dd : 0x0800);
		frame_ip(&f, sources[i], v6 ? VIRTUAL6 : VIRTUAL4,
			 v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
		frame_icmp(&f, v6 ? 128 : 8, 0);
		frame_end(&f);
		expect(sources[i], &f, V(DROP, MARTIAN));
	}
	begin_ip(&f, PLAIN, FAR4, UDP);
	ask_known(&f);
	expect("somebody", &f, V(ANSWER, DNS_KERNEL));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("steer program, interfaces");
	TCase *tcase = tcase_create("interfaces");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, bench_close);
	tcase_add_test(tcase, each_interface_has_counters_of_its_own);
	tcase_add_test(tcase, the_header_is_looked_for_where_the_interface_has_one);
	tcase_add_test(tcase, a_link_is_left_alone_beside_an_app);
	tcase_add_test(tcase, a_flood_on_one_interface_takes_no_refusal_from_another);
	tcase_add_test(tcase, a_flood_from_one_app_takes_no_refusal_from_another);
	tcase_add_test(tcase, a_flood_from_one_socket_of_the_device_takes_no_refusal_from_another);
	tcase_add_test(tcase, a_frame_for_many_gets_no_reply);
	tcase_add_test(tcase, an_echo_that_cannot_be_answered_whole_is_dropped);
	tcase_add_test(tcase, nobody_in_particular_is_not_answered);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
