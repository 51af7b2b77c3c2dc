#include "msg/dns_msg.h"

#include <errno.h>
#include <string.h>

/* Flag bits of the header's second word (RFC 1035, 4.1.1; CD of RFC 4035) */
enum {
	FLAG_QR = 0x8000,
	FLAG_TC = 0x0200,
	FLAG_RD = 0x0100,
	FLAG_RA = 0x0080,
	FLAG_CD = 0x0010,
};

enum { ALIASES_MAX = 16, OPT_SIZE = 11 };

/* --- reading: one cursor, one bounds check each --- */

struct cursor {
	const uint8_t *message;
	size_t at, len;
	bool bad; /* something was read past the end: all reads since gave zero */
};

static bool take(struct cursor *c, size_t n)
{
	if (c->bad || c->len - c->at < n) {
		c->bad = true;
		return false;
	}
	c->at += n;
	return true;
}

static uint16_t read16(struct cursor *c)
{
	const uint8_t *p = c->message + c->at;

	return take(c, 2) ? (uint16_t)(p[0] << 8 | p[1]) : 0;
}

static uint32_t read32(struct cursor *c)
{
	uint32_t high = read16(c);

	return high << 16 | read16(c);
}

/* A name, compressed or not, comes out whole. Pointers must go backwards, so it ends. */
static void read_name(struct cursor *c, struct dns_name *ret)
{
	size_t at = c->at, before = c->at;
	bool jumped = false;

	ret->len = 0;
	while (!c->bad && at < c->len) {
		uint8_t octet = c->message[at];

		if (octet >= 0xc0) {
			if (c->len - at < 2)
				break;
			if (!jumped)
				c->at = at + 2;
			jumped = true;
			at = (size_t)(octet & 0x3f) << 8 | c->message[at + 1];
			if (at >= before)
				break;
			before = at;
			continue;
		}
		if (octet > DNS_LABEL_MAX || c->len - at < 1u + octet ||
		    ret->len + 1u + octet + (octet ? 1u : 0u) > DNS_NAME_WIRE_MAX)
			break;
		memcpy(ret->wire + ret->len, c->message + at, 1u + octet);
		ret->len = (uint8_t)(ret->len + 1u + octet);
		at += 1u + octet;
		if (!octet) {
			if (!jumped)
				c->at = at;
			return;
		}
	}
	ret->len = 0;
	c->bad = true;
}

struct record {
	struct dns_name owner;
	uint16_t type, class;
	uint32_t ttl;
	size_t data, data_len; /* offsets into the message */
};

static void read_record(struct cursor *c, struct record *ret)
{
	read_name(c, &ret->owner);
	ret->type = read16(c);
	ret->class = read16(c);
	ret->ttl = read32(c);
	ret->data_len = read16(c);
	ret->data = c->at;
	take(c, ret->data_len);
	if (ret->ttl > INT32_MAX) /* RFC 2181, 8 */
		ret->ttl = 0;
}

struct header {
	uint16_t id, flags, questions, answers, authorities, additionals;
};

static struct header read_header(struct cursor *c)
{
	struct header h;

	h.id = read16(c);
	h.flags = read16(c);
	h.questions = read16(c);
	h.answers = read16(c);
	h.authorities = read16(c);
	h.additionals = read16(c);
	return h;
}

/* RFC 6891: at most one OPT, at the root; its class is a size, its TTL flags and version. */
static enum dns_rcode read_edns(struct cursor *c, unsigned records, struct dns_question *q)
{
	while (records--) {
		struct record r;
		uint32_t flags;
		size_t at = c->at;

		read_record(c, &r);
		if (c->bad)
			return DNS_FORMERR;
		if (r.type != DNS_TYPE_OPT)
			continue;
		if (q->has_edns || c->message[at] != 0)
			return DNS_FORMERR;
		/* read_record bounds TTLs; here the word is flags */
		memcpy(&flags, c->message + at + 5, 4);
		flags = ntohl(flags);
		q->has_edns = true;
		q->udp_size = r.class < DNS_UDP_SIZE ? DNS_UDP_SIZE : r.class;
		q->dnssec_ok = flags & 0x8000;
		if (flags >> 16 & 0xff)
			return DNS_BADVERS;
	}
	return DNS_NOERROR;
}

static enum dns_rcode read_question_body(struct cursor *c, const struct header *h,
					 struct dns_question *q)
{
	if (q->opcode != 0)
		return DNS_NOTIMP;
	if (h->questions != 1 || h->answers || h->authorities)
		return DNS_FORMERR;
	read_name(c, &q->name);
	q->type = read16(c);
	q->class = read16(c);
	if (c->bad) {
		q->name.len = 0;
		return DNS_FORMERR;
	}
	return read_edns(c, h->additionals, q);
}

int dns_question_read(const uint8_t *message, size_t len, struct dns_question *ret_question)
{
	struct cursor c = {.message = message, .len = len};
	struct dns_question q = {.udp_size = DNS_UDP_SIZE};
	struct header h = read_header(&c);

	if (c.bad || h.flags & FLAG_QR)
		return -EINVAL;
	q.id = h.id;
	q.opcode = h.flags >> 11 & 0xf;
	q.recursion_desired = h.flags & FLAG_RD;
	q.checking_disabled = h.flags & FLAG_CD;
	q.error = read_question_body(&c, &h, &q);
	*ret_question = q;
	return 0;
}

/* --- writing --- */

struct writer {
	uint8_t *data;
	size_t len, size;
	bool full; /* something did not fit: the length no longer means anything */
};

static void put(struct writer *w, const void *bytes, size_t n)
{
	if (w->full || w->size - w->len < n) {
		w->full = true;
		return;
	}
	memcpy(w->data + w->len, bytes, n);
	w->len += n;
}

static void put16(struct writer *w, unsigned value)
{
	uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)value};

	put(w, bytes, sizeof(bytes));
}

static void put32(struct writer *w, uint32_t value)
{
	put16(w, value >> 16);
	put16(w, value & 0xffff);
}

static void poke16(uint8_t *p, unsigned value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static void put_header(struct writer *w, unsigned id, unsigned flags, unsigned questions,
		       unsigned answers, unsigned additionals)
{
	put16(w, id);
	put16(w, flags);
	put16(w, questions);
	put16(w, answers);
	put16(w, 0);
	put16(w, additionals);
}

static void put_question(struct writer *w, const struct dns_name *name, unsigned type,
			 unsigned class)
{
	put(w, name->wire, name->len);
	put16(w, type);
	put16(w, class);
}

static void put_edns(struct writer *w, const struct dns_question *q, unsigned rcode)
{
	if (!q->has_edns)
		return;
	put(w, "", 1);
	put16(w, DNS_TYPE_OPT);
	put16(w, DNS_EDNS_SIZE);
	put32(w, (uint32_t)(rcode >> 4) << 24 | (q->dnssec_ok ? 0x8000 : 0));
	put16(w, 0);
}

size_t dns_question_write(uint8_t *buffer, size_t size, uint16_t id, const struct dns_name *name,
			  uint16_t type)
{
	struct writer w = {.data = buffer, .size = size};

	put_header(&w, id, FLAG_RD, 1, 0, 0);
	put_question(&w, name, type, DNS_CLASS_IN);
	return w.full ? 0 : w.len;
}

static unsigned reply_flags(const struct dns_question *q, unsigned rcode)
{
	return FLAG_QR | (unsigned)q->opcode << 11 | (q->recursion_desired ? FLAG_RD : 0) |
	       FLAG_RA | (q->checking_disabled ? FLAG_CD : 0) | (rcode & 0xf);
}

static bool is_of_type(const struct ip *ip, unsigned type)
{
	return type == (ip_is_v4(ip) ? DNS_TYPE_A : DNS_TYPE_AAAA);
}

/* The owner is a pointer to the question's name, which always stands behind the header. */
static void put_address(struct writer *w, const struct ip *ip, unsigned type, uint32_t ttl)
{
	uint32_t v4;

	put16(w, 0xc000 | DNS_HEADER_SIZE);
	put16(w, type);
	put16(w, DNS_CLASS_IN);
	put32(w, ttl);
	if (type == DNS_TYPE_A) {
		v4 = ip_v4(ip);
		put16(w, sizeof(v4));
		put(w, &v4, sizeof(v4));
	} else {
		put16(w, sizeof(ip->bytes));
		put(w, ip->bytes, sizeof(ip->bytes));
	}
}

static size_t write_empty(uint8_t *buffer, size_t size, const struct dns_question *q,
			  unsigned rcode, unsigned extra_flags)
{
	struct writer w = {.data = buffer, .size = size};

	put_header(&w, q->id, reply_flags(q, rcode) | extra_flags, q->name.len ? 1 : 0, 0,
		   q->has_edns ? 1 : 0);
	if (q->name.len)
		put_question(&w, &q->name, q->type, q->class);
	put_edns(&w, q, rcode);
	return w.full ? 0 : w.len;
}

size_t dns_reply_write(uint8_t *buffer, size_t size, const struct dns_question *question,
		       const struct dns_answer *answer)
{
	struct writer w = {.data = buffer, .size = size};
	unsigned count = 0;

	if (answer->rcode != DNS_NOERROR || !question->name.len)
		return write_empty(buffer, size, question, answer->rcode, 0);
	put_header(&w, question->id, reply_flags(question, DNS_NOERROR), 1, 0,
		   question->has_edns ? 1 : 0);
	put_question(&w, &question->name, question->type, question->class);
	for (size_t i = 0; i < answer->count; i++) {
		if (!is_of_type(&answer->addresses[i], question->type))
			continue;
		put_address(&w, &answer->addresses[i], question->type, answer->ttl);
		count++;
	}
	put_edns(&w, question, DNS_NOERROR);
	if (w.full)
		return write_empty(buffer, size, question, DNS_NOERROR, FLAG_TC);
	poke16(buffer + 6, count);
	return w.len;
}

size_t dns_udp_limit(const struct dns_question *question)
{
	return question->udp_size > DNS_EDNS_SIZE ? DNS_EDNS_SIZE : question->udp_size;
}

/* --- replies of servers --- */

/* Header and question of a reply; is it one to this question? */
static bool read_reply_head(struct cursor *c, struct header *h, const struct dns_name *name,
			    uint16_t type)
{
	struct dns_name asked;
	uint16_t asked_type, asked_class;

	*h = read_header(c);
	if (c->bad || !(h->flags & FLAG_QR) || h->questions != 1)
		return false;
	read_name(c, &asked);
	if (c->at != (size_t)DNS_HEADER_SIZE + asked.len) /* compressed: there is nothing before */
		return false;
	asked_type = read16(c);
	asked_class = read16(c);
	return !c->bad && dns_name_equal(&asked, name) && asked_type == type &&
	       asked_class == DNS_CLASS_IN;
}

/* Where the OPT record begins, or the end. Cutting there breaks no compression pointer, since
 * they go backwards only; *ret_additionals is what is left of that section. */
static size_t without_edns(struct cursor *c, const struct header *h, unsigned *ret_additionals)
{
	struct record r;

	for (unsigned i = 0; i < (unsigned)h->answers + h->authorities; i++)
		read_record(c, &r);
	for (unsigned i = 0; i < h->additionals; i++) {
		size_t at = c->at;

		read_record(c, &r);
		if (r.type == DNS_TYPE_OPT) {
			*ret_additionals = i;
			return at;
		}
	}
	*ret_additionals = h->additionals;
	return c->at;
}

size_t dns_reply_relay(uint8_t *buffer, size_t size, const struct dns_question *question,
		       const uint8_t *reply, size_t len)
{
	struct cursor c = {.message = reply, .len = len};
	struct writer w = {.data = buffer, .size = size};
	struct header h;
	unsigned additionals;
	size_t end;

	if (!read_reply_head(&c, &h, &question->name, question->type))
		return 0;
	end = without_edns(&c, &h, &additionals);
	if (c.bad)
		return 0;
	put(&w, reply, end);
	put_edns(&w, question, h.flags & 0xf);
	if (w.full || h.flags & FLAG_TC)
		return write_empty(buffer, size, question, h.flags & 0xf, FLAG_TC);
	poke16(buffer, question->id);
	poke16(buffer + 2, reply_flags(question, h.flags & 0xf));
	poke16(buffer + 10, additionals + (question->has_edns ? 1 : 0));
	memcpy(buffer + DNS_HEADER_SIZE, question->name.wire, question->name.len);
	return w.len;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* One step along the aliases: the target of `name`, if the answers have a CNAME for it. */
static bool follow_alias(struct cursor c, unsigned records, struct dns_name *name, uint32_t *ttl)
{
	struct record r;

	while (records--) {
		read_record(&c, &r);
		if (c.bad)
			return false;
		if (r.type != DNS_TYPE_CNAME || !dns_name_equal(&r.owner, name))
			continue;
		c.at = r.data;
		read_name(&c, name);
		*ttl = least(*ttl, r.ttl);
		return !c.bad;
	}
	return false;
}

static void collect(struct cursor *c, unsigned records, const struct dns_name *name, uint16_t type,
		    struct dns_result *result)
{
	size_t want = type == DNS_TYPE_A ? 4 : 16;

	while (records--) {
		struct record r;
		const uint8_t *data;
		uint32_t v4;

		read_record(c, &r);
		if (c->bad)
			return;
		if (r.type != type || r.class != DNS_CLASS_IN || r.data_len != want ||
		    !dns_name_equal(&r.owner, name) || result->count == DNS_ADDRESSES_MAX)
			continue;
		data = c->message + r.data;
		memcpy(&v4, data, sizeof(v4));
		result->addresses[result->count++] =
			type == DNS_TYPE_A ? ip_from_v4(v4) : ip_from_v6(data);
		result->ttl = least(result->ttl, r.ttl);
	}
}

/* RFC 2308, 5: the lesser of the SOA's TTL and its last field; without one nothing is kept. */
static uint32_t negative_ttl(struct cursor *c, unsigned records)
{
	while (records--) {
		struct record r;
		struct cursor minimum = *c;

		read_record(c, &r);
		if (c->bad)
			break;
		if (r.type != DNS_TYPE_SOA || r.data_len < 22)
			continue;
		minimum.at = r.data + r.data_len - 4;
		return least(r.ttl, read32(&minimum));
	}
	return 0;
}

int dns_reply_read(const uint8_t *message, size_t len, const struct dns_name *name, uint16_t type,
		   struct dns_result *ret_result)
{
	struct cursor c = {.message = message, .len = len};
	struct dns_result result = {.ttl = UINT32_MAX};
	struct dns_name target = *name;
	struct header h;

	if (!read_reply_head(&c, &h, name, type))
		return -EBADMSG;
	result.rcode = h.flags & 0xf;
	result.truncated = h.flags & FLAG_TC;
	for (unsigned i = 0; i < ALIASES_MAX; i++)
		if (!follow_alias(c, h.answers, &target, &result.ttl))
			break;
	collect(&c, h.answers, &target, type, &result);
	if (!result.count && !c.bad)
		result.ttl = least(result.ttl, negative_ttl(&c, h.authorities));
	if (c.bad && !result.truncated)
		return -EBADMSG;
	*ret_result = result;
	return 0;
}
