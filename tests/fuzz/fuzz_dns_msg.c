/*
 * libFuzzer: any bytes as a question, as a server's reply, and as a name's text. What is
 * written must be readable again and say the same.
 *
 *   clang -fsanitize=fuzzer,address,undefined -Iserver tests/fuzz/fuzz_dns_msg.c \
 *         server/msg/dns_msg.c server/msg/dns_name.c server/base/ip.c
 */
#include "msg/dns_msg.h"

#include <stdlib.h>
#include <string.h>

static void must(int condition)
{
	if (!condition)
		abort();
}

static void fuzz_name(const struct dns_name *name)
{
	char text[4 * DNS_NAME_WIRE_MAX + 1];
	struct dns_name again;

	must(dns_name_to_text(name, text, sizeof(text)) == 0);
	must(dns_name_from_text(text, &again) == 0);
	must(again.len == name->len && !memcmp(again.wire, name->wire, name->len));
}

static void fuzz_question(const struct dns_question *q)
{
	uint8_t reply[DNS_MESSAGE_MAX];
	struct ip ips[2] = {{{[10] = 0xff, [11] = 0xff, [15] = 1}}, {{0x20, 1, 0x0d, 0xb8}}};
	struct dns_answer answer = {.rcode = q->error, .ttl = 1, .addresses = ips, .count = 2};
	struct dns_result result;
	size_t len = dns_reply_write(reply, sizeof(reply), q, &answer);

	must(len >= DNS_HEADER_SIZE);
	must(q->udp_size >= DNS_UDP_SIZE);
	if (q->error != DNS_NOERROR || q->class != DNS_CLASS_IN)
		return;
	fuzz_name(&q->name);
	must(dns_reply_read(reply, len, &q->name, q->type, &result) == 0);
	if (q->type == DNS_TYPE_A || q->type == DNS_TYPE_AAAA)
		must(result.count == 1 && result.ttl == 1);
}

/* The bytes as a reply to whatever they themselves ask. */
static void fuzz_reply(const uint8_t *data, size_t size)
{
	uint8_t copy[DNS_MESSAGE_MAX], out[DNS_MESSAGE_MAX];
	struct dns_question q;
	struct dns_result result;
	size_t len;

	if (size < DNS_HEADER_SIZE || size > sizeof(copy))
		return;
	memcpy(copy, data, size);
	memset(copy + 6, 0, 6); /* counts but the question's */
	copy[2] &= 0x07;
	if (dns_question_read(copy, size, &q) < 0 || !q.name.len)
		return;
	memcpy(copy, data, size);
	copy[2] |= 0x80;
	if (dns_reply_read(copy, size, &q.name, q.type, &result) == 0)
		must(result.count <= DNS_ADDRESSES_MAX);
	len = dns_reply_relay(out, sizeof(out), &q, copy, size);
	must(len <= sizeof(out));
	if (len)
		must(!memcmp(out + DNS_HEADER_SIZE, q.name.wire, q.name.len));
	len = dns_reply_relay(out, DNS_UDP_SIZE, &q, copy, size);
	must(len <= DNS_UDP_SIZE);
}

static void fuzz_text(const uint8_t *data, size_t size)
{
	char text[1024];
	struct dns_name name;

	if (size >= sizeof(text))
		return;
	memcpy(text, data, size);
	text[size] = 0;
	if (dns_name_from_text(text, &name) == 0)
		fuzz_name(&name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dns_question q;

	if (dns_question_read(data, size, &q) == 0)
		fuzz_question(&q);
	fuzz_reply(data, size);
	fuzz_text(data, size);
	return 0;
}
