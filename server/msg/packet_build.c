#include "msg/packet_build.h"
#include "msg/dns_msg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
	TYPE_IP = 0x0800,
	TYPE_ARP = 0x0806,
	TYPE_IPV6 = 0x86dd,
	TYPE_VLAN = 0x8100,
	TYPE_VLAN_OUTER = 0x88a8,
	VLAN_TAGS = 2,
	EXTENSIONS = 6,
	ECHO = 8,
	ECHO6 = 128,
};

static uint16_t read16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static void write16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static uint32_t sum_up(const uint8_t *bytes, size_t len, uint32_t sum)
{
	for (size_t i = 0; i + 1 < len; i += 2)
		sum += read16(bytes + i);
	return len % 2 ? sum + (uint32_t)(bytes[len - 1] << 8) : sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* --- building --- */

static size_t header_size(uint8_t protocol)
{
	return protocol == IPPROTO_TCP ? 20 : 8;
}

/* RFC 793 and 8200, 8.1; of ICMP in IPv4 there is no pseudo-header. */
static void put_checksum(uint8_t *l4, size_t len, size_t at, uint8_t protocol,
			 const struct packet_wanted *wanted)
{
	bool v4 = ip_is_v4(&wanted->source);
	size_t from = v4 ? 12 : 0;
	uint32_t sum = 0;
	uint16_t check;

	if (protocol != IPPROTO_ICMP) {
		sum = sum_up(wanted->source.bytes + from, 16 - from, (uint32_t)(protocol + len));
		sum = sum_up(wanted->destination.bytes + from, 16 - from, sum);
	}
	check = fold(sum_up(l4, len, sum));
	/* 0 says that UDP has none */
	write16(l4 + at, !check && protocol == IPPROTO_UDP ? 0xffff : check);
}

static void put_l4(uint8_t *l4, size_t len, uint8_t protocol, const struct packet_wanted *wanted)
{
	if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) {
		write16(l4, wanted->source_port);
		write16(l4 + 2, wanted->port);
	}
	if (protocol == IPPROTO_TCP) {
		l4[12] = 5 << 4;
		l4[13] = PACKET_TCP_SYN;
		write16(l4 + 14, 0xffff);
		put_checksum(l4, len, 16, protocol, wanted);
		return;
	}
	if (wanted->payload_len)
		memcpy(l4 + 8, wanted->payload, wanted->payload_len);
	if (protocol == IPPROTO_UDP) {
		write16(l4 + 4, len);
		put_checksum(l4, len, 6, protocol, wanted);
		return;
	}
	l4[0] = protocol == IPPROTO_ICMP ? ECHO : ECHO6;
	l4[7] = 1; /* the sequence number */
	put_checksum(l4, len, 2, protocol, wanted);
}

static void put_l3(uint8_t *l3, size_t l4_len, uint8_t protocol, const struct packet_wanted *wanted)
{
	if (ip_is_v4(&wanted->source)) {
		l3[0] = 0x45;
		write16(l3 + 2, 20 + l4_len);
		l3[8] = 64;
		l3[9] = protocol;
		memcpy(l3 + 12, wanted->source.bytes + 12, 4);
		memcpy(l3 + 16, wanted->destination.bytes + 12, 4);
		write16(l3 + 10, fold(sum_up(l3, 20, 0)));
		return;
	}
	l3[0] = 0x60;
	write16(l3 + 4, l4_len);
	l3[6] = protocol;
	l3[7] = 64;
	memcpy(l3 + 8, wanted->source.bytes, 16);
	memcpy(l3 + 24, wanted->destination.bytes, 16);
}

size_t packet_build(uint8_t *buffer, size_t size, const struct packet_wanted *wanted)
{
	/* locally administered, from no maker */
	static const uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
	bool v4 = ip_is_v4(&wanted->source);
	uint8_t protocol = wanted->protocol == IPPROTO_ICMP && !v4 ? (uint8_t)IPPROTO_ICMPV6
								   : wanted->protocol;
	size_t l2 = wanted->has_mac ? PACKET_ETHERNET : 0, l3 = v4 ? 20 : 40;
	size_t l4 = header_size(protocol) + (protocol == IPPROTO_TCP ? 0 : wanted->payload_len);

	if (v4 != ip_is_v4(&wanted->destination) || l4 > 0xffff - l3 || l2 + l3 + l4 > size)
		return 0;
	memset(buffer, 0, l2 + l3 + l4);
	if (l2) {
		memcpy(buffer, macs, sizeof(macs));
		write16(buffer + 12, v4 ? TYPE_IP : TYPE_IPV6);
	}
	put_l3(buffer + l2, l4, protocol, wanted);
	put_l4(buffer + l2 + l3, l4, protocol, wanted);
	return l2 + l3 + l4;
}

/* --- reading --- */

static int read_l4(const uint8_t *l4, size_t len, struct packet_facts *facts)
{
	size_t header = 8;

	if (facts->fragment)
		return 0;
	if (facts->protocol == IPPROTO_TCP) {
		header = len < 20 ? SIZE_MAX : (size_t)(l4[12] >> 4) * 4;
		if (header < 20)
			return -EBADMSG;
	} else if (facts->protocol != IPPROTO_UDP && facts->protocol != IPPROTO_ICMP &&
		   facts->protocol != IPPROTO_ICMPV6) {
		return 0;
	}
	if (len < header)
		return -EBADMSG;
	if (facts->protocol == IPPROTO_UDP) {
		size_t told = read16(l4 + 4);

		if (told < header || told > len)
			return -EBADMSG;
		len = told;
	}
	facts->source_port = read16(l4);
	facts->port = read16(l4 + 2);
	facts->icmp_type = l4[0];
	facts->icmp_code = l4[1];
	facts->tcp_flags = facts->protocol == IPPROTO_TCP ? l4[13] : 0;
	facts->payload = l4 + header;
	facts->payload_len = len - header;
	facts->whole = true;
	return 0;
}

static int read_v4(const uint8_t *l3, size_t len, struct packet_facts *facts)
{
	uint32_t address[2];
	size_t header, total;

	if (len < 20 || l3[0] >> 4 != 4)
		return -EBADMSG;
	header = (size_t)(l3[0] & 15) * 4;
	total = read16(l3 + 2);
	if (header < 20 || total < header || total > len)
		return -EBADMSG;
	memcpy(address, l3 + 12, sizeof(address));
	facts->family = 4;
	facts->protocol = l3[9];
	facts->fragment = (read16(l3 + 6) & 0x3fff) != 0;
	facts->source = ip_from_v4(address[0]);
	facts->destination = ip_from_v4(address[1]);
	return read_l4(l3 + header, total - header, facts);
}

static bool is_extension(uint8_t protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_FRAGMENT;
}

static int read_v6(const uint8_t *l3, size_t len, struct packet_facts *facts)
{
	size_t at = 40, total;

	if (len < 40 || l3[0] >> 4 != 6)
		return -EBADMSG;
	total = 40u + read16(l3 + 4);
	if (total > len)
		return -EBADMSG;
	facts->family = 6;
	facts->protocol = l3[6];
	facts->source = ip_from_v6(l3 + 8);
	facts->destination = ip_from_v6(l3 + 24);
	for (int i = 0; i < EXTENSIONS && is_extension(facts->protocol) && !facts->fragment; i++) {
		const uint8_t *extension = l3 + at;

		if (total - at < 8)
			return -EBADMSG;
		if (facts->protocol == IPPROTO_FRAGMENT) {
			/* all of a packet in one fragment is none (RFC 6946) */
			facts->fragment = (read16(extension + 2) & 0xfff9) != 0;
			at += 8;
		} else {
			at += (extension[1] + 1u) * 8;
		}
		facts->protocol = extension[0];
		if (at > total)
			return -EBADMSG;
	}
	return read_l4(l3 + at, total - at, facts);
}

int packet_read(const uint8_t *packet, size_t len, bool has_mac, struct packet_facts *ret_facts)
{
	struct packet_facts facts = {0};
	size_t at = 0;
	int r = 0;

	if (len < (has_mac ? PACKET_ETHERNET : 1))
		return -EBADMSG;
	if (has_mac) {
		facts.ethertype = read16(packet + 12);
		at = PACKET_ETHERNET;
		for (int i = 0; i < VLAN_TAGS && (facts.ethertype == TYPE_VLAN ||
						  facts.ethertype == TYPE_VLAN_OUTER);
		     i++, at += 4) {
			if (len - at < 4)
				return -EBADMSG;
			facts.ethertype = read16(packet + at + 2);
		}
	} else {
		facts.ethertype = packet[0] >> 4 == 6 ? TYPE_IPV6 : TYPE_IP;
	}
	if (facts.ethertype == TYPE_IP)
		r = read_v4(packet + at, len - at, &facts);
	else if (facts.ethertype == TYPE_IPV6)
		r = read_v6(packet + at, len - at, &facts);
	if (r == 0)
		*ret_facts = facts;
	return r;
}

/* --- text --- */

static const char *unreachable(const struct packet_facts *facts)
{
	static const char *const v4[] = {"network unreachable", "host unreachable",
					 "protocol unreachable", "port unreachable"};
	static const char *const v6[] = {"no route", "administratively prohibited",
					 "beyond the scope", "address unreachable",
					 "port unreachable"};

	if (facts->family == 4)
		return facts->icmp_code < 4 ? v4[facts->icmp_code] : "unreachable";
	return facts->icmp_code < 5 ? v6[facts->icmp_code] : "unreachable";
}

static const char *icmp_name(const struct packet_facts *facts)
{
	bool v4 = facts->family == 4;

	if (facts->icmp_type == (v4 ? 3 : 1))
		return unreachable(facts);
	if (facts->icmp_type == (v4 ? 0 : 129))
		return "echo reply";
	if (facts->icmp_type == (v4 ? ECHO : ECHO6))
		return "echo request";
	if (facts->icmp_type == (v4 ? 11 : 3))
		return "time exceeded";
	return "message";
}

/* The end of the text so far. */
static void add_addresses(const struct dns_result *result, char *buffer)
{
	char text[IP_TEXT_MAX];

	for (size_t i = 0; i < result->count; i++) {
		size_t len = strlen(buffer);

		snprintf(buffer + len, PACKET_TEXT_MAX - len, "%s%s", i ? ", " : " ",
			 ip_format(&result->addresses[i], text));
	}
}

/* false: it is no answer to a question for addresses. */
static bool dns_text(const struct packet_facts *facts, char *buffer)
{
	struct dns_question question;
	struct dns_result result;
	uint8_t asked[DNS_NAME_WIRE_MAX * 2 + 64];
	char name[NAME_TEXT_MAX];
	size_t len = facts->payload_len < sizeof(asked) ? facts->payload_len : sizeof(asked);

	if (facts->source_port != 53 || len < DNS_HEADER_SIZE || !(facts->payload[2] & 0x80))
		return false;
	/* The question of an answer: the answer without what follows, read as a question. */
	memcpy(asked, facts->payload, len);
	asked[2] &= 0x79;
	asked[3] = 0;
	memset(asked + 6, 0, 6);
	if (dns_question_read(asked, len, &question) < 0 || !question.name.len ||
	    dns_name_to_text(&question.name, name, sizeof(name)) < 0 ||
	    (question.type != DNS_TYPE_A && question.type != DNS_TYPE_AAAA) ||
	    dns_reply_read(facts->payload, facts->payload_len, &question.name, question.type,
			   &result) < 0)
		return false;
	snprintf(buffer, PACKET_TEXT_MAX, "DNS answer %s %s%s", name,
		 question.type == DNS_TYPE_A ? "A" : "AAAA", result.count ? "" : " (none)");
	add_addresses(&result, buffer);
	len = strlen(buffer);
	if (result.count)
		snprintf(buffer + len, PACKET_TEXT_MAX - len, " ttl %u", result.ttl);
	return true;
}

const char *packet_text(const uint8_t *packet, size_t len, bool has_mac, char *buffer)
{
	char source[IP_TEXT_MAX], destination[IP_TEXT_MAX], what[64];
	struct packet_facts facts;

	if (packet_read(packet, len, has_mac, &facts) < 0) {
		snprintf(buffer, PACKET_TEXT_MAX, "a packet that cannot be read");
		return buffer;
	}
	if (!facts.family) {
		snprintf(buffer, PACKET_TEXT_MAX, "%s, ethertype 0x%04x",
			 facts.ethertype == TYPE_ARP ? "ARP" : "not IP", facts.ethertype);
		return buffer;
	}
	if (facts.whole && facts.protocol == IPPROTO_UDP && dns_text(&facts, buffer))
		return buffer;
	if (!facts.whole)
		snprintf(what, sizeof(what), "%sprotocol %u", facts.fragment ? "fragment of " : "",
			 facts.protocol);
	else if (facts.protocol == IPPROTO_TCP)
		snprintf(what, sizeof(what), "TCP %s",
			 facts.tcp_flags & PACKET_TCP_RST   ? "RST"
			 : facts.tcp_flags & PACKET_TCP_SYN ? "SYN"
							    : "segment");
	else if (facts.protocol == IPPROTO_UDP)
		snprintf(what, sizeof(what), "UDP");
	else
		snprintf(what, sizeof(what), "%s %s",
			 facts.protocol == IPPROTO_ICMP ? "ICMP" : "ICMPv6", icmp_name(&facts));
	snprintf(buffer, PACKET_TEXT_MAX, "%s from %s to %s", what,
		 ip_format(&facts.source, source), ip_format(&facts.destination, destination));
	return buffer;
}
