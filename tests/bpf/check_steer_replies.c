/* links: PkgConfig::LIBBPF PkgConfig::LIBELF */
/*
 * What the steer program sends back to an app, octet by octet: ICMP errors and echo replies.
 */
#include "steer_bench.h"

#include <time.h>
#include <unistd.h>

/* --- refusals ---------------------------------------------------------------------------- */

/* The ICMP error about `in` from its destination, its first octets quoted (RFC 792, RFC 4443). */
static void build_refusal(struct frame *want, const struct frame *in, unsigned type, unsigned code)
{
	const uint8_t *ip = in->bytes + in->l3;
	size_t quote = in->l4 - in->l3 + 8;
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
	int family = in->family == 4 ? AF_INET : AF_INET6;
	size_t source = in->family == 4 ? 12 : 8, size = in->family == 4 ? 4 : 16;

	want->len = 0;
	if (in->l3) {
		frame_add(want, APP_MAC, 6);
		frame_add(want, DEVICE_MAC, 6);
		frame_add(want, in->bytes + 12, in->l3 - 12); /* tags stay */
	}
	inet_ntop(family, ip + source + size, from, sizeof(from));
	inet_ntop(family, ip + source, to, sizeof(to));
	frame_ip(want, from, to, in->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	if (in->family == 4) {
		want->bytes[want->l3 + 1] = 0xc0;
		memset(want->bytes + want->l3 + 4, 0, 4);
		want->bytes[want->l3 + 8] = 64;
	} else {
		memcpy(want->bytes + want->l3, (const uint8_t[]){0x60, 0, 0, 0}, 4);
		want->bytes[want->l3 + 7] = 64;
	}
	frame_u16(want, type << 8 | code);
	frame_add(want, NULL, 6);
	frame_add(want, ip, quote);
	frame_end(want);
	frame_checksum(want, 2, in->family == 4 ? 0 : pseudo_sum(want, IPPROTO_ICMPV6));
}

START_TEST(a_refusal_quotes_the_packet_and_comes_from_its_destination)
{
	static const struct {
		struct row row;
		unsigned type, code;
	} cases[] = {
		{{"udp", FAR4, UDP, 123, V(REFUSE, NO_LINK)}, 3, 3},
		{{"quic", FAR4, UDP, 443, V(REFUSE, QUIC_REFUSED)}, 3, 3},
		{{"echo", FAR4, IPPROTO_ICMP, 8, V(REFUSE, NO_LINK)}, 3, 0},
		{{"sctp", FAR4, 132, 0, V(REFUSE, PROTOCOL_REFUSED)}, 3, 2},
		{{"udp6", FAR6, UDP, 123, V(REFUSE, NO_LINK)}, 1, 4},
		{{"quic6", FAR6, UDP, 443, V(REFUSE, QUIC_REFUSED)}, 1, 4},
		{{"echo6", FAR6, IPPROTO_ICMPV6, 128, V(REFUSE, NO_LINK)}, 1, 0},
		{{"sctp6", FAR6, 132, 0, V(REFUSE, PROTOCOL_REFUSED)}, 1, 1},
	};
	struct frame f, want;

	for (int shape = 0; shape < SHAPES; shape++) {
		put_interface(HF_ROLE_APP, shape != BARE);
		for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
			const struct row *row = &cases[i].row;

			build(&f, (enum shape)shape, row);
			build_refusal(&want, &f, cases[i].type, cases[i].code);
			expect_reply(row->name, &f, row->verdict, row->reason, &want);
		}
	}
}
END_TEST

START_TEST(a_refusal_quotes_options_and_extension_headers)
{
	struct frame f, want;

	begin_ip(&f, PLAIN, FAR4, UDP);
	f.bytes[f.l3] = 0x47;
	frame_u32(&f, 0x01010101);
	frame_u32(&f, 0x01010100);
	frame_udp(&f, 40000, 123);
	frame_add(&f, NULL, 30);
	frame_end_udp(&f);
	build_refusal(&want, &f, 3, 3);
	expect_reply("with options", &f, V(REFUSE, NO_LINK), &want);
	begin_ip(&f, PLAIN, FAR6, 60);
	extend(&f, UDP, 2);
	frame_udp(&f, 40000, 123);
	frame_add(&f, NULL, 31);
	frame_end_udp(&f);
	build_refusal(&want, &f, 1, 4);
	expect_reply("with destination options", &f, V(REFUSE, NO_LINK), &want);
	begin_ip(&f, PLAIN, FAR6, 60);
	extend(&f, UDP, 12);
	frame_udp(&f, 40000, 123);
	frame_end_udp(&f);
	expect("more than is quoted", &f, V(DROP, NO_LINK));
}
END_TEST

START_TEST(the_smallest_packet_can_be_refused)
{
	struct frame f, want;

	begin_ip(&f, PLAIN, FAR4, UDP);
	frame_udp(&f, 40000, 123);
	frame_end_udp(&f);
	build_refusal(&want, &f, 3, 3);
	expect_reply("an empty datagram", &f, V(REFUSE, NO_LINK), &want);
	begin_ip(&f, PLAIN, FAR4, 132);
	frame_add(&f, NULL, 7);
	frame_end(&f);
	expect("too short to quote", &f, V(DROP, PROTOCOL_REFUSED));
}
END_TEST

/* --- resets ------------------------------------------------------------------------------ */

struct segment {
	const char *what;
	unsigned flags;
	size_t payload;
	uint32_t seq, ack; /* of the reset to a segment with sequence 1000, acknowledging 2000 */
	unsigned reset;	   /* its flags; 0: none is sent */
};

/* RFC 9293, 3.10.7.1 */
static const struct segment segments[] = {
	{"syn", 0x02, 0, 0, 1001, 0x14},       {"syn with data", 0x02, 100, 0, 1101, 0x14},
	{"syn ack", 0x12, 0, 2000, 0, 0x04},   {"ack", 0x10, 0, 2000, 0, 0x04},
	{"data", 0x18, 333, 2000, 0, 0x04},    {"fin ack", 0x11, 5, 2000, 0, 0x04},
	{"fin alone", 0x01, 5, 0, 1006, 0x14}, {"nothing", 0x00, 7, 0, 1007, 0x14},
	{"reset", 0x04, 0, 0, 0, 0},	       {"reset ack", 0x14, 0, 0, 0, 0},
};
enum { SEGMENTS = sizeof(segments) / sizeof(*segments) };

static void build_reset(struct frame *want, const struct frame *in, const struct segment *segment,
			const char *from)
{
	want->len = 0;
	if (in->l3) {
		frame_add(want, APP_MAC, 6);
		frame_add(want, DEVICE_MAC, 6);
		frame_add(want, in->bytes + 12, in->l3 - 12);
	}
	frame_ip(want, from, in->family == 4 ? APP4 : APP6, TCP);
	if (in->family == 4)
		memset(want->bytes + want->l3 + 4, 0, 4);
	else
		memcpy(want->bytes + want->l3, (const uint8_t[]){0x60, 0, 0, 0}, 4);
	want->bytes[want->l3 + (in->family == 4 ? 8 : 7)] = 64;
	want->l4 = want->len;
	frame_u16(want, 443);
	frame_u16(want, 40000);
	frame_u32(want, segment->seq);
	frame_u32(want, segment->ack);
	frame_u16(want, 0x5000 | segment->reset);
	frame_add(want, NULL, 6);
	frame_end(want);
	frame_checksum(want, 16, pseudo_sum(want, TCP));
}

/* With options, IPv4's and TCP's, or extension headers: the reset has none. */
static void build_segment(struct frame *f, enum shape shape, const char *to,
			  const struct segment *segment, bool more)
{
	begin_ip(f, shape, to, more && strchr(to, ':') ? 60 : TCP);
	if (more && f->family == 4) {
		f->bytes[f->l3] = 0x46;
		frame_u32(f, 0x01010100);
	} else if (more) {
		extend(f, TCP, 2);
	}
	frame_tcp(f, 40000, 443, segment->flags);
	if (more) {
		f->bytes[f->l4 + 12] = 0x70;
		frame_u32(f, 0x020405b4);
		frame_u32(f, 0x01010101);
	}
	frame_add(f, NULL, segment->payload);
	frame_end(f);
}

START_TEST(a_connection_to_where_nothing_listens_is_reset)
{
	static const char *const to[] = {INTERNAL4, INTERNAL6};
	struct frame f, want;

	for (int n = 0; n < SHAPES * 4 * SEGMENTS; n++) {
		const struct segment *segment = &segments[n / 4 / SHAPES];
		enum shape shape = (enum shape)(n / 4 % SHAPES);
		const char *address = to[n % 2];

		put_interface(HF_ROLE_APP, shape != BARE);
		build_segment(&f, shape, address, segment, n & 2);
		build_reset(&want, &f, segment, address);
		if (segment->reset)
			expect_reply(segment->what, &f, V(REFUSE, INTERNAL_PORT), &want);
		else
			expect(segment->what, &f, V(DROP, INTERNAL_PORT));
		if (n % 80 == 79) /* no more than may be refused at once */
			usleep(110000);
	}
}
END_TEST

/* --- how many ---------------------------------------------------------------------------- */

START_TEST(refusals_are_bounded_and_come_back)
{
	enum { FLOOD = 3000, WINDOW = 100 };
	struct timespec start, stop;
	struct outcome o;
	struct frame f;
	unsigned refused = 0, windows;

	build(&f, PLAIN, &(struct row){"udp", FAR4, UDP, 123, V(REFUSE, NO_LINK)});
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < FLOOD; i++) {
		bench_run(&f, &o);
		if (o.action == XDP_TX)
			refused++;
		else
			ck_assert_uint_eq(o.key.reason, HF_REASON_RATE_LIMITED);
	}
	clock_gettime(CLOCK_MONOTONIC, &stop);
	windows = (unsigned)((stop.tv_sec - start.tv_sec) * 10 +
			     (stop.tv_nsec - start.tv_nsec) / 100000000 + 2);
	ck_assert_uint_ge(refused, WINDOW);
	ck_assert_uint_le(refused, windows * WINDOW);
	/* A machine too slow to flood proves nothing here. */
	ck_assert_uint_lt(refused, FLOOD);
	usleep(210000);
	expect("after a pause", &f, V(REFUSE, NO_LINK));
}
END_TEST

/* --- echo -------------------------------------------------------------------------------- */

static void expect_echo(const char *to, enum shape shape, size_t payload)
{
	static const uint8_t addresses[][2] = {{12, 4}, {8, 16}};
	int v6 = strchr(to, ':') != NULL;
	uint8_t at = addresses[v6][0], size = addresses[v6][1];
	struct frame f, want;

	begin_ip(&f, shape, to, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	frame_icmp(&f, v6 ? 128 : 8, 0);
	for (size_t i = 0; i < payload; i++)
		frame_u8(&f, (unsigned)(i * 7 + 255));
	frame_end(&f);
	frame_checksum(&f, 2, v6 ? pseudo_sum(&f, IPPROTO_ICMPV6) : 0);
	want = f;
	if (shape != BARE) {
		memcpy(want.bytes, APP_MAC, 6);
		memcpy(want.bytes + 6, DEVICE_MAC, 6);
	}
	memcpy(want.bytes + f.l3 + at, f.bytes + f.l3 + at + size, size);
	memcpy(want.bytes + f.l3 + at + size, f.bytes + f.l3 + at, size);
	want.bytes[f.l4] = v6 ? 129 : 0;
	frame_checksum(&want, 2, v6 ? pseudo_sum(&want, IPPROTO_ICMPV6) : 0);
	expect_reply("an echo", &f, V(ANSWER, ECHO_VIRTUAL), &want);
}

START_TEST(an_echo_to_a_virtual_address_is_answered)
{
	static const size_t sizes[] = {0, 1, 2, 55, 56, 57, 64, 999, 1400, 1472};

	for (int shape = 0; shape < SHAPES; shape++) {
		put_interface(HF_ROLE_APP, shape != BARE);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			expect_echo(VIRTUAL4, (enum shape)shape, sizes[i]);
			expect_echo(VIRTUAL6, (enum shape)shape, sizes[i]);
		}
	}
}
END_TEST

START_TEST(what_the_kernel_would_not_take_is_not_answered)
{
	static const struct row cases[] = {
		{"udp", FAR4, UDP, 123, V(REFUSE, NO_LINK)},
		{"dns", FAR4, UDP, 53, V(STEER, DNS_RESOLVER)},
		{"echo", VIRTUAL4, IPPROTO_ICMP, 8, V(ANSWER, ECHO_VIRTUAL)},
	};
	struct frame f;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		build(&f, PLAIN, &cases[i]);
		f.bytes[f.l3 + 10] ^= 0x10;
		expect("a wrong header checksum", &f, V(DROP, MALFORMED));
	}
}
END_TEST

static TCase *replies(const char *name, void (*open)(void))
{
	TCase *tcase = tcase_create(name);

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, open, bench_close);
	tcase_add_test(tcase, a_refusal_quotes_the_packet_and_comes_from_its_destination);
	tcase_add_test(tcase, a_refusal_quotes_options_and_extension_headers);
	tcase_add_test(tcase, the_smallest_packet_can_be_refused);
	tcase_add_test(tcase, a_connection_to_where_nothing_listens_is_reset);
	tcase_add_test(tcase, refusals_are_bounded_and_come_back);
	tcase_add_test(tcase, an_echo_to_a_virtual_address_is_answered);
	tcase_add_test(tcase, what_the_kernel_would_not_take_is_not_answered);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("steer program, replies");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, replies("with frags", open_with_frags));
	suite_add_tcase(suite, replies("without frags", open_without_frags));
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
