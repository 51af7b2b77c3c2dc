/* links: hf_msg */
/* Packets that are built, read back and told as text. */
#include "msg/dns_msg.h"
#include "msg/packet_build.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct ip to_ip(const char *text)
{
	struct ip ip;

	ck_assert_int_eq(ip_parse(text, &ip), 0);
	return ip;
}

static const struct {
	const char *source, *destination;
	uint8_t protocol, seen; /* seen: in the packet */
	size_t checksum;	/* offset behind the IP header */
	size_t l4_len;
	const char *text;
} rows[] = {
	{"192.0.2.2", "203.0.113.9", IPPROTO_TCP, IPPROTO_TCP, 16, 20,
	 "TCP SYN from 192.0.2.2 to 203.0.113.9"},
	{"192.0.2.2", "203.0.113.9", IPPROTO_UDP, IPPROTO_UDP, 6, 15,
	 "UDP from 192.0.2.2 to 203.0.113.9"},
	{"192.0.2.2", "203.0.113.9", IPPROTO_ICMP, IPPROTO_ICMP, 2, 15,
	 "ICMP echo request from 192.0.2.2 to 203.0.113.9"},
	{"2001:db8::1", "::1", IPPROTO_TCP, IPPROTO_TCP, 16, 20, "TCP SYN from 2001:db8::1 to ::1"},
	{"2001:db8::1", "::1", IPPROTO_UDP, IPPROTO_UDP, 6, 15, "UDP from 2001:db8::1 to ::1"},
	{"2001:db8::1", "::1", IPPROTO_ICMP, IPPROTO_ICMPV6, 2, 15,
	 "ICMPv6 echo request from 2001:db8::1 to ::1"},
};
enum { ROWS = sizeof(rows) / sizeof(*rows) };

static size_t build(int i, bool has_mac, uint8_t *packet, size_t size)
{
	struct packet_wanted wanted = {.has_mac = has_mac,
				       .source = to_ip(rows[i].source),
				       .destination = to_ip(rows[i].destination),
				       .protocol = rows[i].protocol,
				       .source_port = 40000,
				       .port = 123,
				       .payload = (const uint8_t *)"payload",
				       .payload_len = 7};

	return packet_build(packet, size, &wanted);
}

/* RFC 1071: the sum over all of it, its checksum too, is all ones. */
static uint32_t add(const uint8_t *bytes, size_t len, uint32_t sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

START_TEST(what_is_built_is_read_back)
{
	struct packet_facts facts;
	char text[PACKET_TEXT_MAX];
	uint8_t packet[256];

	for (int mac = 0; mac < 2; mac++) {
		size_t len = build(_i, mac, packet, sizeof(packet));
		struct ip source = to_ip(rows[_i].source), to = to_ip(rows[_i].destination);

		ck_assert_int_eq(packet_read(packet, len, mac, &facts), 0);
		ck_assert(facts.whole && !facts.fragment);
		ck_assert_uint_eq(facts.protocol, rows[_i].seen);
		ck_assert(ip_equal(&facts.source, &source) && ip_equal(&facts.destination, &to));
		if (rows[_i].protocol != IPPROTO_ICMP)
			ck_assert_uint_eq(facts.port, 123);
		ck_assert_str_eq(packet_text(packet, len, mac, text), rows[_i].text);
	}
}
END_TEST

START_TEST(its_checksums_are_whole)
{
	bool v4 = !strchr(rows[_i].source, ':');
	uint8_t packet[256];
	size_t len = build(_i, false, packet, sizeof(packet)), l3 = v4 ? 20 : 40;
	uint32_t sum = 0;

	ck_assert_uint_eq(len, l3 + rows[_i].l4_len);
	if (v4)
		ck_assert_uint_eq(add(packet, 20, 0), 0xffff);
	if (rows[_i].seen != IPPROTO_ICMP) {
		sum = rows[_i].seen + (uint32_t)rows[_i].l4_len;
		sum = v4 ? add(packet + 12, 8, sum) : add(packet + 8, 32, sum);
	}
	ck_assert_uint_eq(add(packet + l3, rows[_i].l4_len, sum), 0xffff);
	ck_assert(packet[l3 + rows[_i].checksum] || packet[l3 + rows[_i].checksum + 1]);
}
END_TEST

START_TEST(cut_off_anywhere_it_is_not_read)
{
	struct packet_facts facts;
	uint8_t packet[256];
	size_t len = build(_i, true, packet, sizeof(packet));

	for (size_t cut = 0; cut < len; cut++) {
		/* a buffer of just that size, for the sanitizer */
		uint8_t *copy = malloc(cut + 1);
		char text[PACKET_TEXT_MAX];

		ck_assert_ptr_nonnull(copy);
		memcpy(copy, packet, cut);
		ck_assert_int_eq(packet_read(copy, cut, true, &facts), -EBADMSG);
		ck_assert_str_eq(packet_text(copy, cut, true, text),
				 "a packet that cannot be read");
		free(copy);
	}
}
END_TEST

START_TEST(what_does_not_fit_is_not_built)
{
	uint8_t packet[256];
	size_t len = build(_i, true, packet, sizeof(packet));

	ck_assert_uint_eq(build(_i, true, packet, len), len);
	ck_assert_uint_eq(build(_i, true, packet, len - 1), 0);
}
END_TEST

START_TEST(two_families_are_no_packet)
{
	struct packet_wanted wanted = {
		.source = to_ip("192.0.2.2"), .destination = to_ip("::1"), .protocol = IPPROTO_TCP};
	uint8_t packet[256];

	ck_assert_uint_eq(packet_build(packet, sizeof(packet), &wanted), 0);
}
END_TEST

START_TEST(a_dns_answer_is_told_with_its_addresses)
{
	struct ip addresses[] = {to_ip("198.18.0.5"), to_ip("198.18.0.6")};
	struct dns_answer answer = {.ttl = 1, .addresses = addresses, .count = 2};
	struct packet_wanted wanted = {.source = to_ip("192.0.2.53"),
				       .destination = to_ip("192.0.2.2"),
				       .protocol = IPPROTO_UDP,
				       .source_port = 53,
				       .port = 40000};
	struct dns_question question;
	struct dns_name name;
	uint8_t message[512], reply[512], packet[1024];
	char text[PACKET_TEXT_MAX];
	size_t len;

	ck_assert_int_eq(dns_name_from_text("x.example", &name), 0);
	len = dns_question_write(message, sizeof(message), 7, &name, DNS_TYPE_A);
	ck_assert_int_eq(dns_question_read(message, len, &question), 0);
	wanted.payload_len = dns_reply_write(reply, sizeof(reply), &question, &answer);
	wanted.payload = reply;
	len = packet_build(packet, sizeof(packet), &wanted);
	ck_assert_str_eq(packet_text(packet, len, false, text),
			 "DNS answer x.example A 198.18.0.5, 198.18.0.6 ttl 1");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("packet_build");
	TCase *each = tcase_create("packets");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(each, what_is_built_is_read_back, 0, ROWS);
	tcase_add_loop_test(each, its_checksums_are_whole, 0, ROWS);
	tcase_add_loop_test(each, cut_off_anywhere_it_is_not_read, 0, ROWS);
	tcase_add_loop_test(each, what_does_not_fit_is_not_built, 0, ROWS);
	tcase_add_test(each, two_families_are_no_packet);
	tcase_add_test(each, a_dns_answer_is_told_with_its_addresses);
	suite_add_tcase(suite, each);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
