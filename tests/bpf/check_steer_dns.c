/* links: PkgConfig::LIBBPF PkgConfig::LIBELF */
/*
 * DNS questions that the steer program answers by itself, octet by octet, and those that it
 * leaves to the resolver.
 */
#include "steer_bench.h"

#include <ctype.h>
#include <time.h>
#include <unistd.h>

enum { A = 1, AAAA = 28, NS = 2, HTTPS = 65, IN = 1, CH = 3, OPT = 41 };

#define VIRTUAL_A    "198.18.7.7"
#define VIRTUAL_AAAA "fd5a:fe00::7"

static const char *const reals4[] = {"203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"};
static const char *const reals6[] = {"2001:db8:5::1", "2001:db8:5::2", "2001:db8:5::3",
				     "2001:db8:5::4"};

/* --- names ------------------------------------------------------------------------------- */

/* Wire form of "www.Example", capitals kept. Its length. */
static size_t to_wire(const char *name, uint8_t *wire)
{
	size_t len = 0;

	for (const char *label = name; *label;) {
		size_t n = strcspn(label, ".");

		wire[len++] = (uint8_t)n;
		memcpy(wire + len, label, n);
		len += n;
		label += n + (label[n] == '.');
	}
	wire[len++] = 0;
	return len;
}

static uint64_t from_now(int64_t ms)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)((int64_t)now.tv_sec * 1000000000 + now.tv_nsec + ms * 1000000);
}

static void put_name(const char *name, unsigned qtype, const struct hf_name *value)
{
	struct hf_name_key key = {.qtype = (uint16_t)qtype};
	uint8_t wire[256];
	size_t len = to_wire(name, wire);

	ck_assert_uint_le(len, sizeof(key.wire));
	for (size_t i = 0; i < len; i++)
		key.wire[i] = (uint8_t)tolower(wire[i]);
	key.len = (uint16_t)len;
	put(bpf_map__fd(steer->maps.names), &key, value);
}

/* `count` real addresses, good for so long; a virtual one of the same family. */
static struct hf_name make_name(unsigned qtype, unsigned count, int64_t ms)
{
	struct hf_name name = {
		.real_until = from_now(ms),
		.real_count = (uint8_t)count,
		.virtual_known = 1,
		.virtual_address = to_ip(qtype == A ? VIRTUAL_A : VIRTUAL_AAAA),
	};

	for (int i = 0; i < HF_ADDRESSES_MAX; i++)
		name.real[i] = to_ip(qtype == A ? reals4[i] : reals6[i]);
	return name;
}

static void mode(enum hf_names_mode names_mode)
{
	settings.names_mode = names_mode;
	put_settings();
}

/* --- messages ---------------------------------------------------------------------------- */

struct question {
	const char *name;
	unsigned qtype, qclass;
	unsigned flags;
	enum { NO_EDNS, EDNS, COOKIE, DO, VERSION1, TRAILING, CUT_OPT, NAMED_OPT } opt;
	enum shape shape;
	bool v6;
	size_t padding; /* behind the IP packet */
	unsigned id;
};

static void add_opt(struct frame *f, const struct question *q)
{
	size_t start = f->len;

	if (q->opt == NO_EDNS)
		return;
	frame_u8(f, q->opt == NAMED_OPT);
	if (q->opt == NAMED_OPT)
		frame_u16(f, 'x' << 8);
	frame_u16(f, OPT);
	frame_u16(f, 4096);
	frame_u8(f, 0);
	frame_u8(f, q->opt == VERSION1);
	frame_u16(f, q->opt == DO ? 0x8000 : 0);
	frame_u16(f, q->opt == COOKIE ? 12 : 0);
	if (q->opt == COOKIE) {
		frame_u16(f, 10);
		frame_u16(f, 8);
		frame_u32(f, 0x01020304);
		frame_u32(f, 0x05060708);
	}
	if (q->opt == TRAILING)
		frame_u8(f, 0);
	if (q->opt == CUT_OPT)
		f->len = start + 10;
}

static void add_question(struct frame *f, const struct question *q)
{
	uint8_t wire[256];
	size_t len = to_wire(q->name, wire);

	frame_add(f, wire, len);
	frame_u16(f, q->qtype);
	frame_u16(f, q->qclass ? q->qclass : IN);
}

static void ask(struct frame *f, const struct question *q)
{
	begin_ip(f, q->shape, q->v6 ? FAR6 : FAR4, IPPROTO_UDP);
	frame_udp(f, 41000, 53);
	frame_u16(f, q->id);
	frame_u16(f, q->flags);
	frame_u16(f, 1);
	frame_u32(f, 0);
	frame_u16(f, q->opt != NO_EDNS);
	add_question(f, q);
	add_opt(f, q);
	frame_end_udp(f);
	frame_add(f, NULL, q->padding);
}

struct answer {
	unsigned count, ttl;
	const char *const *addresses;
};

/* The whole packet that has to come back. */
static void build_answer(struct frame *f, const struct frame *in, const struct question *q,
			 const struct answer *answer)
{
	f->len = 0;
	if (in->l3) {
		frame_add(f, APP_MAC, 6);
		frame_add(f, DEVICE_MAC, 6);
		frame_add(f, in->bytes + 12, in->l3 - 12);
	}
	frame_ip(f, q->v6 ? FAR6 : FAR4, q->v6 ? APP6 : APP4, IPPROTO_UDP);
	f->bytes[f->l3 + (q->v6 ? 7 : 8)] = 64;
	frame_udp(f, 53, 41000);
	frame_u16(f, q->id);
	frame_u16(f, 0x8080 | (q->flags & 0x0110)); /* QR, RA; RD and CD as asked */
	frame_u16(f, 1);
	frame_u16(f, answer->count);
	frame_u16(f, 0);
	frame_u16(f, q->opt != NO_EDNS);
	add_question(f, q);
	for (unsigned i = 0; i < answer->count; i++) {
		frame_u16(f, 0xc00c);
		frame_u16(f, q->qtype);
		frame_u16(f, IN);
		frame_u32(f, answer->ttl);
		frame_u16(f, q->qtype == A ? 4 : 16);
		frame_address(f, q->qtype == A ? AF_INET : AF_INET6, answer->addresses[i]);
	}
	if (q->opt != NO_EDNS) {
		frame_u8(f, 0);
		frame_u16(f, OPT);
		frame_u16(f, 1232);
		frame_u32(f, 0);
		frame_u16(f, 0);
	}
	frame_end_udp(f);
	if (!q->v6) {
		put_u16(f->bytes + f->l4 + 6, 0);
		return;
	}
	frame_checksum(f, 6, pseudo_sum(f, IPPROTO_UDP));
	if (!get_u16(f->bytes + f->l4 + 6)) /* 0 would be none at all (RFC 768) */
		put_u16(f->bytes + f->l4 + 6, 0xffff);
}

static void expect_answer(const struct question *q, const struct answer *answer)
{
	struct frame in, want;

	ask(&in, q);
	build_answer(&want, &in, q, answer);
	expect_reply(q->name, &in, V(ANSWER, DNS_KERNEL), &want);
}

static void expect_resolver(const struct question *q)
{
	struct frame in;

	ask(&in, q);
	expect(q->name, &in, V(STEER, DNS_RESOLVER));
}

static void expect_virtual(const struct question *q, unsigned ttl)
{
	const char *const address[] = {q->qtype == A ? VIRTUAL_A : VIRTUAL_AAAA};

	expect_answer(q, &(struct answer){1, ttl, address});
}

static void put_both(const char *name, unsigned count, int64_t ms)
{
	struct hf_name a = make_name(A, count, ms), aaaa = make_name(AAAA, count, ms);

	put_name(name, A, &a);
	put_name(name, AAAA, &aaaa);
}

/* --- what is answered -------------------------------------------------------------------- */

START_TEST(a_known_name_is_answered_in_every_shape_and_size)
{
	/* Half a second above: the test has that long. */
	static const int64_t ms = 300500;

	for (unsigned count = 0; count <= HF_ADDRESSES_MAX; count++) {
		put_both("www.fleet.example", count, ms);
		for (int i = 0; i < SHAPES * 2 * 2 * 3; i++) {
			struct question q = {
				.name = "www.fleet.example",
				.shape = (enum shape)(i % SHAPES),
				.v6 = i / SHAPES % 2,
				.qtype = i / SHAPES / 2 % 2 ? A : AAAA,
				.opt = i / SHAPES / 4 % 3, /* none, EDNS, with a cookie */
				.flags = 0x0100,
				.id = 0x4711 + (unsigned)i,
			};
			struct answer answer = {count, 300, q.qtype == A ? reals4 : reals6};

			put_interface(HF_ROLE_APP, q.shape != BARE);
			expect_answer(&q, &answer);
		}
	}
}
END_TEST

START_TEST(names_of_every_length_are_answered)
{
	char name[128];

	mode(HF_NAMES_VIRTUAL);
	/* 114 characters are 116 octets on the wire. */
	for (size_t len = 1; len <= 114; len++) {
		for (size_t i = 0; i < len; i++)
			name[i] = i % 40 == 20 && i + 1 < len ? '.' : (char)('a' + i % 26);
		name[len] = 0;
		put_both(name, 1, 1000);
		for (int v6 = 0; v6 < 2; v6++) {
			struct question q = {.name = name, .qtype = A, .v6 = v6};

			expect_virtual(&q, 1);
			q.qtype = AAAA;
			q.opt = EDNS;
			expect_virtual(&q, 1);
		}
	}
}
END_TEST

START_TEST(a_longer_name_is_the_resolvers)
{
	char name[116];

	mode(HF_NAMES_VIRTUAL);
	memset(name, 'a', sizeof(name));
	name[60] = '.';
	name[115] = 0; /* 117 octets */
	expect_resolver(&(struct question){.name = name, .qtype = A});
}
END_TEST

START_TEST(capitals_are_echoed_and_do_not_matter)
{
	mode(HF_NAMES_VIRTUAL);
	put_both("www-1.fleet.example", 1, 1000);
	expect_virtual(&(struct question){.name = "WwW-1.FLEET.eXaMpLe", .qtype = A}, 1);
	expect_virtual(&(struct question){.name = "WWW-1.fleet.EXAMPLE", .qtype = AAAA}, 1);
	/* Neighbours of the letters in ASCII are not letters. */
	put_both("@[`{.example", 1, 1000);
	expect_virtual(&(struct question){.name = "@[`{.example", .qtype = A}, 1);
	expect_resolver(&(struct question){.name = "`{@[.example", .qtype = A});
}
END_TEST

START_TEST(flags_are_copied_as_the_rfc_says)
{
	static const unsigned good[] = {0x0000, 0x0100, 0x0010, 0x0120, 0x0020, 0x0130};
	static const unsigned bad[] = {0x8000, 0x0800, 0x2800, 0x0400,
				       0x0200, 0x0080, 0x0040, 0x0001};

	mode(HF_NAMES_VIRTUAL);
	put_both("x.example", 1, 1000);
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		expect_virtual(
			&(struct question){.name = "x.example", .qtype = A, .flags = good[i]}, 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		expect_resolver(
			&(struct question){.name = "x.example", .qtype = A, .flags = bad[i]});
}
END_TEST

START_TEST(the_mode_chooses_between_real_and_virtual)
{
	struct question a = {.name = "x.example", .qtype = A};
	struct question aaaa = {.name = "x.example", .qtype = AAAA, .v6 = true};

	settings.virtual_ttl = 7;
	put_both("x.example", 2, 60500);
	mode(HF_NAMES_REAL);
	expect_answer(&a, &(struct answer){2, 60, reals4});
	expect_answer(&aaaa, &(struct answer){2, 60, reals6});
	mode(HF_NAMES_VIRTUAL);
	expect_virtual(&a, 7);
	expect_virtual(&aaaa, 7);
}
END_TEST

START_TEST(a_virtual_answer_needs_a_virtual_address_of_the_family)
{
	struct hf_name name = make_name(A, 4, 60000);
	struct question q = {.name = "x.example", .qtype = A};

	mode(HF_NAMES_VIRTUAL);
	name.virtual_known = 0;
	put_name("x.example", A, &name);
	expect_resolver(&q);
	name.virtual_known = 1;
	name.virtual_address = to_ip(VIRTUAL_AAAA);
	put_name("x.example", A, &name);
	expect_resolver(&q);
	name = make_name(AAAA, 4, 60000);
	name.virtual_address = to_ip(VIRTUAL_A);
	put_name("x.example", AAAA, &name);
	q.qtype = AAAA;
	expect_resolver(&q);
}
END_TEST

START_TEST(some_names_are_virtual_in_either_mode)
{
	struct hf_name name = make_name(A, 4, 60000);
	struct question q = {.name = "holdfast.internal", .qtype = A};

	name.always = 1;
	put_name("holdfast.internal", A, &name);
	mode(HF_NAMES_REAL);
	expect_virtual(&q, 1);
	mode(HF_NAMES_VIRTUAL);
	expect_virtual(&q, 1);
}
END_TEST

START_TEST(real_answers_run_out)
{
	struct question q = {.name = "x.example", .qtype = A};
	struct hf_name name = make_name(A, 1, 900);

	put_name("x.example", A, &name);
	expect_answer(&q, &(struct answer){1, 1, reals4}); /* less than a second is one */
	name = make_name(A, 1, 30);
	put_name("x.example", A, &name);
	usleep(40000);
	expect_resolver(&q);
	name.real_until = 0;
	put_name("x.example", A, &name);
	expect_resolver(&q);
	name = make_name(A, HF_ADDRESSES_MAX + 1, 60000);
	put_name("x.example", A, &name);
	expect_resolver(&q); /* what no daemon of this version writes */
}
END_TEST

START_TEST(padding_of_the_frame_is_not_sent_back)
{
	struct question q = {.name = "a", .qtype = A};

	mode(HF_NAMES_VIRTUAL);
	put_both("a", 1, 1000);
	for (q.padding = 1; q.padding < 90; q.padding += 11)
		expect_virtual(&q, 1);
}
END_TEST

START_TEST(a_checksum_that_comes_to_nothing_is_all_ones)
{
	const char *const address[] = {VIRTUAL_AAAA};
	struct question q = {.name = "x.example", .qtype = AAAA, .v6 = true, .id = 1};
	struct answer answer = {1, 1, address};
	struct frame in, want;

	mode(HF_NAMES_VIRTUAL);
	put_both("x.example", 1, 1000);
	ask(&in, &q);
	build_answer(&want, &in, &q, &answer);
	/* The id is summed too: this one makes up what is missing. */
	q.id += get_u16(want.bytes + want.l4 + 6);
	ask(&in, &q);
	build_answer(&want, &in, &q, &answer);
	ck_assert_uint_eq(get_u16(want.bytes + want.l4 + 6), 0xffff);
	expect_reply("all ones", &in, V(ANSWER, DNS_KERNEL), &want);
}
END_TEST

/* --- what is not ------------------------------------------------------------------------- */

START_TEST(what_is_not_simple_is_the_resolvers)
{
	static const struct question questions[] = {
		{.name = "unknown.example", .qtype = A},
		{.name = "x.example", .qtype = NS},
		{.name = "x.example", .qtype = HTTPS},
		{.name = "x.example", .qtype = 255},
		{.name = "x.example", .qtype = A, .qclass = CH},
		{.name = "x.example", .qtype = A, .qclass = 255},
		{.name = "x.example", .qtype = A, .opt = DO},
		{.name = "x.example", .qtype = A, .opt = VERSION1},
		{.name = "x.example", .qtype = A, .opt = TRAILING},
		{.name = "x.example", .qtype = A, .opt = CUT_OPT},
		{.name = "x.example", .qtype = A, .opt = NAMED_OPT},
	};

	mode(HF_NAMES_VIRTUAL);
	put_both("x.example", 1, 1000);
	for (size_t i = 0; i < sizeof(questions) / sizeof(*questions); i++) {
		struct question q = questions[i];

		expect_resolver(&q);
		q.v6 = true;
		expect_resolver(&q);
	}
}
END_TEST

START_TEST(a_question_in_several_buffers_is_the_resolvers)
{
	mode(HF_NAMES_VIRTUAL);
	put_both("x.example", 1, 1000);
	expect_resolver(&(struct question){.name = "x.example", .qtype = A, .padding = 3900});
}
END_TEST

/* Two octets of a good question changed, the sums right. */
static void expect_changed(const struct frame *good, size_t at, unsigned value)
{
	struct frame f = *good;

	put_u16(f.bytes + at, value);
	expect("a changed question", &f, V(STEER, DNS_RESOLVER));
}

START_TEST(counts_and_lengths_must_agree)
{
	struct question q = {.name = "x.example", .qtype = A};
	struct frame f;
	size_t dns;

	mode(HF_NAMES_VIRTUAL);
	put_both("x.example", 1, 1000);
	ask(&f, &q);
	dns = f.l4 + 8;
	expect_changed(&f, dns + 4, 0);
	expect_changed(&f, dns + 4, 2);
	expect_changed(&f, dns + 6, 1);
	expect_changed(&f, dns + 8, 1);
	expect_changed(&f, dns + 10, 1); /* an OPT is promised and not there */
	expect_changed(&f, dns + 10, 2);
	expect_changed(&f, dns + 12, 0xc00c); /* a compressed name */
	expect_changed(&f, dns + 12, 0x4078); /* a label type that is none */
	expect_changed(&f, dns + 12, 0x3f78); /* a label beyond the message */
	expect_changed(&f, f.l4 + 4, get_u16(f.bytes + f.l4 + 4) - 1);
	frame_u32(&f, 0); /* in the IP packet, behind the datagram */
	frame_end(&f);
	expect("octets behind the datagram", &f, V(STEER, DNS_RESOLVER));
	q.opt = EDNS;
	ask(&f, &q);
	expect_changed(&f, dns + 10, 0); /* an OPT is there and not promised */
	expect_changed(&f, dns + 10, 2);
}
END_TEST

START_TEST(options_fragments_and_extension_headers_are_the_resolvers)
{
	static const uint8_t nops[4] = {1, 1, 1, 0};
	struct question q = {.name = "x.example", .qtype = A};
	struct frame f, in;

	mode(HF_NAMES_VIRTUAL);
	put_both("x.example", 1, 1000);
	ask(&in, &q);
	begin_ip(&f, PLAIN, FAR4, IPPROTO_UDP);
	f.bytes[f.l3] = 0x46;
	frame_add(&f, nops, sizeof(nops));
	frame_add(&f, in.bytes + in.l4, in.len - in.l4);
	frame_end(&f);
	expect("with options", &f, V(STEER, DNS_RESOLVER));
	begin_ip(&f, PLAIN, FAR6, 60);
	extend(&f, IPPROTO_UDP, 0);
	frame_add(&f, in.bytes + in.l4, in.len - in.l4);
	frame_end(&f);
	expect("with destination options", &f, V(STEER, DNS_RESOLVER));
	put_u16(in.bytes + in.l3 + 6, 0x2000);
	expect("a first fragment", &in, V(STEER, FRAGMENT_STEERED));
}
END_TEST

/* Cut off at every octet with lengths that agree: never an answer to half a question. */
START_TEST(half_a_question_is_never_answered)
{
	mode(HF_NAMES_VIRTUAL);
	put_both("x.example", 1, 1000);
	put_both("x", 1, 1000);
	for (int i = 0; i < 4; i++) {
		struct question q = {.name = "x.example", .qtype = A, .v6 = i & 1};
		struct frame f;

		q.opt = i & 2 ? COOKIE : NO_EDNS;
		ask(&f, &q);
		for (f.len--; f.len >= f.l4 + 8; f.len--) {
			/* With what was cut off behind it, and without. */
			struct frame padded = f;

			frame_end_udp(&padded);
			expect("half a question", &padded, V(STEER, DNS_RESOLVER));
			padded.len = f.len + 20;
			expect("half a question, padded", &padded, V(STEER, DNS_RESOLVER));
		}
	}
}
END_TEST

/* Every octet of the message changed: what is answered is a right answer to what was asked. */
START_TEST(a_changed_question_gets_a_whole_answer_or_none)
{
	struct question q = {.name = "x.example", .qtype = A, .opt = COOKIE};
	unsigned answered = 0;
	struct frame in, f;
	struct outcome o;

	mode(HF_NAMES_VIRTUAL);
	put_both("x.example", 1, 1000);
	for (int v6 = 0; v6 < 2; v6++) {
		q.v6 = v6;
		ask(&in, &q);
		for (size_t at = in.l4 + 8; at < in.len; at++) {
			for (unsigned value = 1; value < 256; value++) {
				f = in;
				f.bytes[at] ^= (uint8_t)value;
				bench_run(&f, &o);
				ck_assert(o.counted);
				if (o.action == XDP_PASS) {
					ck_assert_uint_eq(o.key.reason, HF_REASON_DNS_RESOLVER);
					continue;
				}
				ck_assert_uint_eq(o.key.reason, HF_REASON_DNS_KERNEL);
				ck_assert_uint_eq(o.action, XDP_TX);
				check_reply(&f, &o.out, f.l3);
				/* Id and question are echoed. */
				ck_assert(!memcmp(o.out.bytes + f.l4 + 8, f.bytes + f.l4 + 8, 2));
				ck_assert(!memcmp(o.out.bytes + f.l4 + 20, f.bytes + f.l4 + 20,
						  11 + 4));
				answered++;
			}
		}
	}
	/* Id, RD, AD, CD, capitals, the client's size, the cookie: many changes are harmless. */
	ck_assert_uint_gt(answered, 2 * 255 * 2);
}
END_TEST

START_TEST(the_devices_own_address_and_stub_answer_too)
{
	static const char *const servers[] = {DEVICE4, "127.0.0.53", "169.254.7.7"};
	struct question q = {.name = "x.example", .qtype = A};
	struct outcome o;
	struct frame f;

	mode(HF_NAMES_VIRTUAL);
	put_interface(HF_ROLE_HOST, true);
	put_both("x.example", 1, 1000);
	for (size_t i = 0; i < sizeof(servers) / sizeof(*servers); i++) {
		ask(&f, &q);
		ck_assert_int_eq(inet_pton(AF_INET, servers[i], f.bytes + f.l3 + 16), 1);
		put_u16(f.bytes + f.l3 + 10, 0);
		put_u16(f.bytes + f.l3 + 10, ~internet_sum(f.bytes + f.l3, 20, 0) & 0xffff);
		expect_outcome(servers[i], &f, V(ANSWER, DNS_KERNEL), &o);
		check_reply(&f, &o.out, f.l3);
	}
}
END_TEST

START_TEST(an_answer_that_comes_by_again_passes)
{
	struct question q = {.name = "x.example", .qtype = AAAA, .opt = EDNS};
	const char *const address[] = {VIRTUAL_AAAA};
	struct frame in, back;

	put_interface(HF_ROLE_HOST, true);
	put_device_address(bpf_map__fd(steer->maps.device_addresses), APP4);
	put_device_address(bpf_map__fd(steer->maps.device_addresses), APP6);
	for (int v6 = 0; v6 < 2; v6++) {
		q.v6 = v6;
		ask(&in, &q);
		build_answer(&back, &in, &q, &(struct answer){1, 1, address});
		expect("an answer on lo", &back, V(PASS, DEVICE_ADDRESS));
	}
}
END_TEST

static TCase *questions(const char *name, void (*open)(void))
{
	TCase *tcase = tcase_create(name);

	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, open, bench_close);
	tcase_add_test(tcase, a_known_name_is_answered_in_every_shape_and_size);
	tcase_add_test(tcase, names_of_every_length_are_answered);
	tcase_add_test(tcase, a_longer_name_is_the_resolvers);
	tcase_add_test(tcase, capitals_are_echoed_and_do_not_matter);
	tcase_add_test(tcase, flags_are_copied_as_the_rfc_says);
	tcase_add_test(tcase, the_mode_chooses_between_real_and_virtual);
	tcase_add_test(tcase, a_virtual_answer_needs_a_virtual_address_of_the_family);
	tcase_add_test(tcase, some_names_are_virtual_in_either_mode);
	tcase_add_test(tcase, real_answers_run_out);
	tcase_add_test(tcase, padding_of_the_frame_is_not_sent_back);
	tcase_add_test(tcase, a_checksum_that_comes_to_nothing_is_all_ones);
	tcase_add_test(tcase, what_is_not_simple_is_the_resolvers);
	tcase_add_test(tcase, counts_and_lengths_must_agree);
	tcase_add_test(tcase, options_fragments_and_extension_headers_are_the_resolvers);
	tcase_add_test(tcase, half_a_question_is_never_answered);
	tcase_add_test(tcase, a_changed_question_gets_a_whole_answer_or_none);
	tcase_add_test(tcase, the_devices_own_address_and_stub_answer_too);
	tcase_add_test(tcase, an_answer_that_comes_by_again_passes);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("steer program, DNS");
	TCase *frags = questions("with frags", open_with_frags);
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(frags, a_question_in_several_buffers_is_the_resolvers);
	suite_add_tcase(suite, frags);
	suite_add_tcase(suite, questions("without frags", open_without_frags));
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
