/* links: PkgConfig::LIBBPF PkgConfig::LIBELF */
/*
 * Echo requests to real addresses, which the steer program raises to the daemon: whole in the
 * ring, or refused with the reason why not.
 */
#include "steer_bench.h"

static unsigned records;
static struct hf_raised last;

static int on_record(void *arg, void *data, size_t len)
{
	ck_assert_uint_ge(len, sizeof(last));
	memcpy(&last, data, sizeof(last));
	records++;
	return 0;
}

static void drain(void)
{
	struct ring_buffer *ring =
		ring_buffer__new(bpf_map__fd(steer->maps.raised), on_record, NULL, NULL);

	ck_assert_ptr_nonnull(ring);
	records = 0;
	ck_assert_int_ge(ring_buffer__consume(ring), 0);
	ring_buffer__free(ring);
}

static void build_echo(struct frame *f, enum shape shape, const char *to, size_t payload)
{
	int v6 = strchr(to, ':') != NULL;

	begin_ip(f, shape, to, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	frame_icmp(f, v6 ? 128 : 8, 0);
	for (size_t i = 0; i < payload; i++)
		frame_u8(f, (unsigned)(i * 7 + 3));
	frame_end(f);
}

/* Steered, and dropped: the ring has it. */
static void expect_raised(const struct frame *f)
{
	struct outcome o;

	bench_run(f, &o);
	ck_assert(o.counted);
	ck_assert_uint_eq(o.key.verdict, HF_VERDICT_STEER);
	ck_assert_uint_eq(o.key.reason, HF_REASON_ECHO_RELAY);
	ck_assert_uint_eq(o.action, XDP_DROP);
}

static void online(void)
{
	settings.flags = HF_FLAG_ONLINE;
	put_settings();
}

START_TEST(an_echo_request_is_raised_whole)
{
	static const size_t sizes[] = {0, 1, 7, 8, 9, 56, 999, 1452, 1472};
	static const char *const to[] = {FAR4, FAR6};

	online();
	for (size_t n = 0; n < sizeof(sizes) / sizeof(*sizes) * SHAPES * 2; n++) {
		size_t size = sizes[n / 2 / SHAPES], len;
		enum shape shape = (enum shape)(n / 2 % SHAPES);
		struct frame f;

		put_interface(HF_ROLE_APP, shape != BARE);
		build_echo(&f, shape, to[n % 2], n % 2 && size > 1452 ? 1452 : size);
		len = f.len - f.l3;
		frame_add(&f, NULL, 6); /* padding is no part of it */
		expect_raised(&f);
		drain();
		ck_assert_uint_eq(records, 1);
		ck_assert_uint_eq(last.ifindex, LO);
		ck_assert_uint_eq(last.family, f.family);
		ck_assert_uint_eq(last.len, len);
		ck_assert(!memcmp(last.packet, f.bytes + f.l3, len));
	}
}
END_TEST

START_TEST(a_request_too_large_to_be_raised_is_refused)
{
	struct frame f;

	online();
	build_echo(&f, PLAIN, FAR4, HF_RAISED_MAX - 20 - 8);
	expect_raised(&f);
	build_echo(&f, PLAIN, FAR4, HF_RAISED_MAX - 20 - 8 + 1);
	expect("one octet more", &f, V(REFUSE, ECHO_REFUSED));
	build_echo(&f, PLAIN, FAR6, HF_RAISED_MAX - 40 - 8 + 1);
	expect("one octet more", &f, V(REFUSE, ECHO_REFUSED));
	drain();
	ck_assert_uint_eq(records, 1);
}
END_TEST

START_TEST(a_full_ring_refuses_and_goes_on_when_it_is_read)
{
	unsigned raised = 0;
	struct outcome o;
	struct frame f;

	online();
	build_echo(&f, PLAIN, FAR4, 56);
	for (;;) {
		bench_run(&f, &o);
		if (o.key.reason != HF_REASON_ECHO_RELAY)
			break;
		raised++;
	}
	ck_assert_uint_eq(o.key.reason, HF_REASON_RELAY_FULL);
	ck_assert_uint_eq(o.action, XDP_TX);
	ck_assert_uint_eq(raised, HF_RAISED_BYTES / 1520 - (HF_RAISED_BYTES % 1520 == 0));
	drain();
	ck_assert_uint_eq(records, raised);
	expect_raised(&f);
}
END_TEST

START_TEST(without_a_link_or_with_a_wrong_sum_nothing_is_raised)
{
	struct frame f;

	build_echo(&f, PLAIN, FAR4, 56);
	expect("no link", &f, V(REFUSE, NO_LINK));
	online();
	put_alive(false);
	build_echo(&f, PLAIN, FAR6, 56);
	expect("no daemon", &f, V(REFUSE, NO_LISTENER));
	put_alive(true);
	build_echo(&f, PLAIN, FAR4, 56);
	f.bytes[f.l3 + 10] ^= 1;
	expect("a wrong header checksum", &f, V(DROP, MALFORMED));
	drain();
	ck_assert_uint_eq(records, 0);
}
END_TEST

static TCase *echoes(const char *name, void (*open)(void))
{
	TCase *tcase = tcase_create(name);

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, open, bench_close);
	tcase_add_test(tcase, an_echo_request_is_raised_whole);
	tcase_add_test(tcase, a_request_too_large_to_be_raised_is_refused);
	tcase_add_test(tcase, a_full_ring_refuses_and_goes_on_when_it_is_read);
	tcase_add_test(tcase, without_a_link_or_with_a_wrong_sum_nothing_is_raised);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("steer program, raised packets");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, echoes("with frags", open_with_frags));
	suite_add_tcase(suite, echoes("without frags", open_without_frags));
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
