/*
 * DNS messages (RFC 1035, EDNS of RFC 6891): questions read, replies written and read,
 * names between text and wire. Pure: bytes in, structs out, no I/O.
 *
 * The text of a name is canonical: no dot at the end ("." for the root), and bytes other
 * than letters, digits, '-' and '_' are escaped (RFC 1035, 5.1), so that equal names in
 * lower case have equal texts.
 */
#pragma once

#include "base/ip.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	DNS_HEADER_SIZE = 12,
	DNS_NAME_WIRE_MAX = 255,
	DNS_LABEL_MAX = 63,
	DNS_UDP_SIZE = 512,   /* without EDNS */
	DNS_EDNS_SIZE = 1232, /* the most that is said and sent over UDP: unfragmented anywhere */
};

enum dns_type {
	DNS_TYPE_A = 1,
	DNS_TYPE_CNAME = 5,
	DNS_TYPE_SOA = 6,
	DNS_TYPE_PTR = 12,
	DNS_TYPE_AAAA = 28,
	DNS_TYPE_OPT = 41,
	DNS_TYPE_SVCB = 64,
	DNS_TYPE_HTTPS = 65,
};

enum { DNS_CLASS_IN = 1 };

enum dns_rcode {
	DNS_NOERROR = 0,
	DNS_FORMERR = 1,
	DNS_SERVFAIL = 2,
	DNS_NXDOMAIN = 3,
	DNS_NOTIMP = 4,
	DNS_REFUSED = 5,
	DNS_BADVERS = 16,
};

struct dns_name {
	uint8_t len; /* with the root octet; 0: no name */
	uint8_t wire[DNS_NAME_WIRE_MAX];
};

/* 0; -EINVAL for an empty label or a bad escape, -ENAMETOOLONG. A dot at the end is fine. */
int dns_name_from_text(const char *text, struct dns_name *ret_name)
	__attribute__((warn_unused_result));
/* 0 or -ENAMETOOLONG when the text with its NUL does not fit (escapes make it long). */
int dns_name_to_text(const struct dns_name *name, char *buffer, size_t size)
	__attribute__((warn_unused_result));
void dns_name_lower(struct dns_name *name);
/* Without regard to case. */
bool dns_name_equal(const struct dns_name *a, const struct dns_name *b);
/* Number of labels, the root not counted. */
unsigned dns_name_labels(const struct dns_name *name);

struct dns_question {
	uint16_t id;
	uint8_t opcode;
	bool recursion_desired, checking_disabled;
	enum dns_rcode error; /* why it cannot be answered as asked; DNS_NOERROR: it can */
	struct dns_name name; /* case as asked; len 0 when there is none to echo */
	uint16_t type, class;
	bool has_edns, dnssec_ok;
	uint16_t udp_size; /* what the asker takes over UDP, at least DNS_UDP_SIZE */
};

/* 0, with ret_question->error telling what to refuse with; -EINVAL when there is nothing that
 * could be answered: shorter than a header, or itself a response. */
int dns_question_read(const uint8_t *message, size_t len, struct dns_question *ret_question)
	__attribute__((warn_unused_result));
/* A question to a server: recursion desired, no EDNS. Returns its length, 0 if size is too
 * small. */
size_t dns_question_write(uint8_t *buffer, size_t size, uint16_t id, const struct dns_name *name,
			  uint16_t type);

/* What to answer: addresses of the question's family (others are left out), all with ttl. */
struct dns_answer {
	enum dns_rcode rcode;
	uint32_t ttl; /* seconds */
	const struct ip *addresses;
	size_t count;
};

/* Write the reply, at most size bytes: with TC and no records when they do not fit. Echoes the
 * question as it was asked. Returns the length, 0 when not even that fits. */
size_t dns_reply_write(uint8_t *buffer, size_t size, const struct dns_question *question,
		       const struct dns_answer *answer);
/* Write a server's reply under the app's question: id, flags and case are the app's, the
 * server's EDNS is taken off and our own put on. 0 when the reply does not fit the question
 * or is malformed; too long for size: TC and no records. */
size_t dns_reply_relay(uint8_t *buffer, size_t size, const struct dns_question *question,
		       const uint8_t *reply, size_t len);
/* How many bytes a reply to the question may have over UDP. */
size_t dns_udp_limit(const struct dns_question *question);

/* What a server said to a question for addresses. */
struct dns_result {
	enum dns_rcode rcode;
	bool truncated;
	uint32_t ttl; /* seconds: the least of the chain, or how long a negative one holds (RFC
			 2308) */
	struct ip addresses[DNS_ADDRESSES_MAX];
	size_t count; /* those beyond the array are left out */
};
/* Follows aliases from the name within the answer. 0, or -EBADMSG: malformed, not a response, or
 * one to another question. */
int dns_reply_read(const uint8_t *message, size_t len, const struct dns_name *name, uint16_t type,
		   struct dns_result *ret_result) __attribute__((warn_unused_result));
