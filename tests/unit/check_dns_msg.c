/* links: hf_msg */
#include "msg/dns_msg.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct dns_name name_of(const char *text)
{
	struct dns_name name;

	ck_assert_int_eq(dns_name_from_text(text, &name), 0);
	return name;
}

static const char *text_of(const struct dns_name *name)
{
	static char text[4 * DNS_NAME_WIRE_MAX];

	ck_assert_int_eq(dns_name_to_text(name, text, sizeof(text)), 0);
	return text;
}

static unsigned get16(const uint8_t *p)
{
	return (unsigned)(p[0] << 8 | p[1]);
}

/* A question as an app sends it; edns: 0 none, else the size it tells. */
static size_t ask(uint8_t *out, const char *text, unsigned type, unsigned edns)
{
	struct dns_name name = name_of(text);
	size_t len = dns_question_write(out, 512, 0x1234, &name, (uint16_t)type);

	ck_assert_uint_gt(len, 0);
	if (edns) {
		uint8_t opt[11] = {0, 0, 41, (uint8_t)(edns >> 8), (uint8_t)edns};

		memcpy(out + len, opt, sizeof(opt));
		out[11] = 1;
		len += sizeof(opt);
	}
	return len;
}

static struct dns_question question_of(const char *text, unsigned type, unsigned edns)
{
	uint8_t message[512];
	struct dns_question q;
	size_t len = ask(message, text, type, edns);

	ck_assert_int_eq(dns_question_read(message, len, &q), 0);
	ck_assert_int_eq(q.error, DNS_NOERROR);
	return q;
}

static struct ip ip_of(const char *text)
{
	struct ip ip;

	ck_assert_int_eq(ip_parse(text, &ip), 0);
	return ip;
}

START_TEST(a_name_survives_text_and_wire)
{
	struct dns_name name = name_of("Www.Example.COM.");

	ck_assert_uint_eq(name.len, 17);
	ck_assert_mem_eq(name.wire, "\3Www\7Example\3COM\0", 17);
	ck_assert_str_eq(text_of(&name), "Www.Example.COM");
	dns_name_lower(&name);
	ck_assert_str_eq(text_of(&name), "www.example.com");
	ck_assert_uint_eq(dns_name_labels(&name), 3);
}
END_TEST

START_TEST(the_root_is_a_dot)
{
	struct dns_name name = name_of(".");

	ck_assert_uint_eq(name.len, 1);
	ck_assert_str_eq(text_of(&name), ".");
	ck_assert_uint_eq(dns_name_labels(&name), 0);
}
END_TEST

START_TEST(odd_bytes_are_escaped_both_ways)
{
	struct dns_name name = name_of("a\\.b\\000\\255.x"), again;

	ck_assert_mem_eq(name.wire, "\5a.b\0\377\1x\0", 9);
	ck_assert_str_eq(text_of(&name), "a\\046b\\000\\255.x");
	again = name_of(text_of(&name));
	ck_assert(dns_name_equal(&name, &again));
}
END_TEST

START_TEST(bad_names_are_refused)
{
	static const char *const bad[] = {"", "..", "a..b", ".a", "a\\", "a\\25", "a\\256"};
	char label[66], longest[300];
	struct dns_name name;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		ck_assert_int_eq(dns_name_from_text(bad[i], &name), -EINVAL);
	memset(label, 'a', 65);
	label[64] = 0;
	ck_assert_int_eq(dns_name_from_text(label, &name), -ENAMETOOLONG);
	label[63] = 0;
	ck_assert_int_eq(dns_name_from_text(label, &name), 0);
	longest[0] = 0;
	for (int i = 0; i < 127; i++)
		strcat(longest, "a.");
	ck_assert_int_eq(dns_name_from_text(longest, &name), 0);
	ck_assert_uint_eq(name.len, 255);
	strcat(longest, "a");
	ck_assert_int_eq(dns_name_from_text(longest, &name), -ENAMETOOLONG);
}
END_TEST

START_TEST(text_that_does_not_fit_is_an_error)
{
	struct dns_name name = name_of("abc.de");
	char small[7];

	ck_assert_int_eq(dns_name_to_text(&name, small, 6), -ENAMETOOLONG);
	ck_assert_int_eq(dns_name_to_text(&name, small, 7), 0);
	ck_assert_str_eq(small, "abc.de");
}
END_TEST

START_TEST(a_question_is_read)
{
	struct dns_question q = question_of("Host.Example", DNS_TYPE_AAAA, 4096);

	ck_assert_uint_eq(q.id, 0x1234);
	ck_assert(q.recursion_desired);
	ck_assert_uint_eq(q.type, DNS_TYPE_AAAA);
	ck_assert_uint_eq(q.class, DNS_CLASS_IN);
	ck_assert_str_eq(text_of(&q.name), "Host.Example");
	ck_assert(q.has_edns);
	ck_assert(!q.dnssec_ok);
	ck_assert_uint_eq(q.udp_size, 4096);
	ck_assert_uint_eq(dns_udp_limit(&q), DNS_EDNS_SIZE);
}
END_TEST

START_TEST(every_shortened_question_is_refused)
{
	uint8_t message[512];
	struct dns_question q;
	size_t len = ask(message, "host.example", DNS_TYPE_A, 1232);

	for (size_t n = 0; n < DNS_HEADER_SIZE; n++)
		ck_assert_int_eq(dns_question_read(message, n, &q), -EINVAL);
	for (size_t n = DNS_HEADER_SIZE; n < len; n++) {
		uint8_t *exact = malloc(n); /* so that the sanitizer sees a byte too much */

		memcpy(exact, message, n);
		ck_assert_int_eq(dns_question_read(exact, n, &q), 0);
		ck_assert_int_eq(q.error, DNS_FORMERR);
		free(exact);
	}
}
END_TEST

START_TEST(errors_name_what_is_wrong)
{
	uint8_t message[512], reply[512];
	struct dns_question q;
	size_t len = ask(message, "host.example", DNS_TYPE_A, 1232);

	message[2] |= 0x80;
	ck_assert_int_eq(dns_question_read(message, len, &q), -EINVAL);
	message[2] = 0x28; /* opcode 5, UPDATE */
	ck_assert_int_eq(dns_question_read(message, len, &q), 0);
	ck_assert_int_eq(q.error, DNS_NOTIMP);
	ck_assert_uint_eq(
		dns_reply_write(reply, sizeof(reply), &q, &(struct dns_answer){.rcode = q.error}),
		DNS_HEADER_SIZE);
	ck_assert_uint_eq(get16(reply + 2), 0x8000 | 0x2800 | 0x80 | DNS_NOTIMP);
	message[2] = 1;
	message[5] = 2; /* two questions */
	ck_assert_int_eq(dns_question_read(message, len, &q), 0);
	ck_assert_int_eq(q.error, DNS_FORMERR);
	message[5] = 1;
	message[len - 5] = 1; /* EDNS version 1 */
	ck_assert_int_eq(dns_question_read(message, len, &q), 0);
	ck_assert_int_eq(q.error, DNS_BADVERS);
	len = dns_reply_write(reply, sizeof(reply), &q, &(struct dns_answer){.rcode = q.error});
	ck_assert_uint_eq(reply[3] & 0xf, 0);
	ck_assert_uint_eq(reply[len - 6], 1); /* the rcode's upper bits are in the OPT */
}
END_TEST

START_TEST(a_compression_loop_ends)
{
	uint8_t message[] = {0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0xc0, 12, 0, 1, 0, 1};
	struct dns_question q;

	ck_assert_int_eq(dns_question_read(message, sizeof(message), &q), 0);
	ck_assert_int_eq(q.error, DNS_FORMERR);
}
END_TEST

START_TEST(a_reply_echoes_the_question_and_holds_the_addresses)
{
	struct dns_question q = question_of("MiXed.example", DNS_TYPE_A, 1232);
	struct ip ips[] = {ip_of("192.0.2.7"), ip_of("2001:db8::1"), ip_of("192.0.2.8")};
	struct dns_answer answer = {.ttl = 77, .addresses = ips, .count = 3};
	struct dns_result result;
	uint8_t reply[512];
	size_t len = dns_reply_write(reply, sizeof(reply), &q, &answer);

	ck_assert_uint_eq(len, 12 + 15 + 4 + 2 * 16 + 11);
	ck_assert_uint_eq(get16(reply), 0x1234);
	ck_assert_uint_eq(get16(reply + 2), 0x8180);
	ck_assert_mem_eq(reply + 12, "\5MiXed\7example\0", 15);
	ck_assert_int_eq(dns_reply_read(reply, len, &q.name, DNS_TYPE_A, &result), 0);
	ck_assert_uint_eq(result.count, 2);
	ck_assert_uint_eq(result.ttl, 77);
	ck_assert(ip_equal(&result.addresses[0], &ips[0]));
	ck_assert(ip_equal(&result.addresses[1], &ips[2]));
}
END_TEST

START_TEST(ipv6_answers_too)
{
	struct dns_question q = question_of("six.example", DNS_TYPE_AAAA, 0);
	struct ip ip = ip_of("2001:db8::1");
	struct dns_answer answer = {.ttl = 1, .addresses = &ip, .count = 1};
	struct dns_result result;
	uint8_t reply[512];
	size_t len = dns_reply_write(reply, sizeof(reply), &q, &answer);

	ck_assert_int_eq(dns_reply_read(reply, len, &q.name, DNS_TYPE_AAAA, &result), 0);
	ck_assert_uint_eq(result.count, 1);
	ck_assert(ip_equal(&result.addresses[0], &ip));
}
END_TEST

START_TEST(what_does_not_fit_is_truncated)
{
	struct dns_question q = question_of("host.example", DNS_TYPE_AAAA, 0);
	struct ip ip = ip_of("2001:db8::1");
	struct dns_answer answer = {.ttl = 1, .addresses = &ip, .count = 1};
	uint8_t reply[512];
	size_t whole = dns_reply_write(reply, sizeof(reply), &q, &answer);
	size_t len = dns_reply_write(reply, whole - 1, &q, &answer);

	ck_assert_uint_eq(len, 12 + 14 + 4);
	ck_assert(reply[2] & 2);
	ck_assert_uint_eq(get16(reply + 6), 0);
	ck_assert_uint_eq(dns_reply_write(reply, 20, &q, &answer), 0);
}
END_TEST

/* www.example CNAME a.example (30), a.example A 192.0.2.1 (60) and one of another owner. */
static const uint8_t alias_reply[] = {0x99, 0x99, 0x81, 0xa0, 0,  1,	0,   3,	  0,   0,   0,
				      1, /* header */
				      3,    'w',  'w',	'w',  7,  'e',	'x', 'a', 'm', 'p', 'l',
				      'e',  0,	  0,	1,    0,  1, /* at 12 */
				      0xc0, 12,	  0,	5,    0,  1,	0,   0,	  0,   30,  0,
				      4,    1,	  'a',	0xc0, 16, /* 29 */
				      0xc0, 41,	  0,	1,    0,  1,	0,   0,	  0,   60,  0,
				      4,    192,  0,	2,    1,  0xc0, 16,  0,	  1,   0,   1,
				      0,    0,	  0,	5,    0,  4,	192, 0,	  2,   99,  0,
				      0,    41,	  4,	0xd0, 0,  0,	0,   0,	  0,   0};

START_TEST(aliases_are_followed)
{
	struct dns_name name = name_of("www.example");
	struct dns_result result;
	struct ip want = ip_of("192.0.2.1");

	ck_assert_int_eq(
		dns_reply_read(alias_reply, sizeof(alias_reply), &name, DNS_TYPE_A, &result), 0);
	ck_assert_uint_eq(result.count, 1);
	ck_assert(ip_equal(&result.addresses[0], &want));
	ck_assert_uint_eq(result.ttl, 30);
	ck_assert_int_eq(
		dns_reply_read(alias_reply, sizeof(alias_reply), &name, DNS_TYPE_AAAA, &result),
		-EBADMSG);
	name = name_of("other.example");
	ck_assert_int_eq(
		dns_reply_read(alias_reply, sizeof(alias_reply), &name, DNS_TYPE_A, &result),
		-EBADMSG);
}
END_TEST

START_TEST(a_relayed_reply_has_the_apps_id_case_and_edns)
{
	struct dns_question q = question_of("WWW.example", DNS_TYPE_A, 1232);
	struct dns_result result;
	uint8_t reply[512];
	size_t len = dns_reply_relay(reply, sizeof(reply), &q, alias_reply, sizeof(alias_reply));

	ck_assert_uint_eq(len, sizeof(alias_reply));
	ck_assert_uint_eq(get16(reply), 0x1234);
	ck_assert_uint_eq(get16(reply + 2), 0x8180); /* AD is not ours to say */
	ck_assert_mem_eq(reply + 12, "\3WWW", 4);
	ck_assert_uint_eq(get16(reply + 10), 1);
	ck_assert_int_eq(dns_reply_read(reply, len, &q.name, DNS_TYPE_A, &result), 0);
	ck_assert_uint_eq(result.count, 1);
	q = question_of("www.example", DNS_TYPE_A, 0);
	len = dns_reply_relay(reply, sizeof(reply), &q, alias_reply, sizeof(alias_reply));
	ck_assert_uint_eq(len, sizeof(alias_reply) - 11);
	ck_assert_uint_eq(get16(reply + 10), 0);
	len = dns_reply_relay(reply, 60, &q, alias_reply, sizeof(alias_reply));
	ck_assert_uint_eq(len, 29);
	ck_assert(reply[2] & 2);
	q = question_of("elsewhere.example", DNS_TYPE_A, 0);
	ck_assert_uint_eq(
		dns_reply_relay(reply, sizeof(reply), &q, alias_reply, sizeof(alias_reply)), 0);
}
END_TEST

START_TEST(a_shortened_reply_is_refused)
{
	struct dns_name name = name_of("www.example");
	struct dns_result result;
	size_t whole = sizeof(alias_reply) - 11; /* the OPT is not looked at */

	for (size_t n = 0; n < whole; n++) {
		uint8_t *exact = malloc(n + 1);

		memcpy(exact, alias_reply, n);
		ck_assert_int_eq(dns_reply_read(exact, n, &name, DNS_TYPE_A, &result), -EBADMSG);
		free(exact);
	}
}
END_TEST

START_TEST(a_negative_answer_holds_as_long_as_its_soa_says)
{
	uint8_t reply[512];
	struct dns_name name = name_of("no.example");
	struct dns_result result;
	size_t len = dns_question_write(reply, sizeof(reply), 1, &name, DNS_TYPE_A);
	static const uint8_t soa[] = {0xc0, 15, 0, 6, 0, 1, 0, 0, 0, 200, 0, 22, 0, 0, 0, 0, 0,
				      1,    0,	0, 0, 2, 0, 0, 0, 3, 0,	  0, 0,	 4, 0, 0, 0, 90};

	reply[2] |= 0x80;
	reply[3] = DNS_NXDOMAIN;
	ck_assert_int_eq(dns_reply_read(reply, len, &name, DNS_TYPE_A, &result), 0);
	ck_assert_int_eq(result.rcode, DNS_NXDOMAIN);
	ck_assert_uint_eq(result.ttl, 0);
	memcpy(reply + len, soa, sizeof(soa));
	reply[9] = 1;
	ck_assert_int_eq(dns_reply_read(reply, len + sizeof(soa), &name, DNS_TYPE_A, &result), 0);
	ck_assert_uint_eq(result.ttl, 90);
	ck_assert_uint_eq(result.count, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dns_msg");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, a_name_survives_text_and_wire);
	tcase_add_test(tc, the_root_is_a_dot);
	tcase_add_test(tc, odd_bytes_are_escaped_both_ways);
	tcase_add_test(tc, bad_names_are_refused);
	tcase_add_test(tc, text_that_does_not_fit_is_an_error);
	tcase_add_test(tc, a_question_is_read);
	tcase_add_test(tc, every_shortened_question_is_refused);
	tcase_add_test(tc, errors_name_what_is_wrong);
	tcase_add_test(tc, a_compression_loop_ends);
	tcase_add_test(tc, a_reply_echoes_the_question_and_holds_the_addresses);
	tcase_add_test(tc, ipv6_answers_too);
	tcase_add_test(tc, what_does_not_fit_is_truncated);
	tcase_add_test(tc, aliases_are_followed);
	tcase_add_test(tc, a_relayed_reply_has_the_apps_id_case_and_edns);
	tcase_add_test(tc, a_shortened_reply_is_refused);
	tcase_add_test(tc, a_negative_answer_holds_as_long_as_its_soa_says);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
