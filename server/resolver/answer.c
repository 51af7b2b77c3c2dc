#include "resolver/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An app's question from its message to its reply. */
struct question {
	struct resolver *resolver;
	struct origin origin;
	struct dns_question dns;
	char name[NAME_TEXT_MAX]; /* canonical, in lower case */
	struct link *link;	  /* that is asked */
	uint32_t tried;		  /* mask of links */
	bool servers_spoke;	  /* some server answered, if only with a failure */
};

static bool wants_address(const struct question *q)
{
	return q->dns.type == DNS_TYPE_A || q->dns.type == DNS_TYPE_AAAA;
}

/* --- replying --- */

static void send_and_free(struct question *q, size_t len)
{
	struct resolver *r = q->resolver;

	listener_reply(r->listener, &q->origin, r->reply, r->closing ? 0 : len);
	r->pending--;
	free(q);
}

static size_t reply_size(const struct question *q)
{
	return q->origin.client ? sizeof(q->resolver->reply) : dns_udp_limit(&q->dns);
}

static void reply_addresses(struct question *q, const struct ip *ips, size_t count, uint32_t ttl)
{
	struct dns_answer answer = {.ttl = ttl, .addresses = ips, .count = count};

	send_and_free(q, dns_reply_write(q->resolver->reply, reply_size(q), &q->dns, &answer));
}

static void reply_rcode(struct question *q, enum dns_rcode rcode)
{
	struct dns_answer answer = {.rcode = rcode};

	if (rcode == DNS_SERVFAIL)
		q->resolver->statistics.failed++;
	send_and_free(q, dns_reply_write(q->resolver->reply, reply_size(q), &q->dns, &answer));
}

static void reply_cached(struct question *q, const struct cached *cached, uint32_t ttl)
{
	if (cached->rcode != DNS_NOERROR)
		reply_rcode(q, cached->rcode);
	else
		reply_addresses(q, cached->addresses, cached->count, ttl);
}

/* --- virtual addresses --- */

static void reply_virtual(struct question *q, struct virtual_name *name)
{
	struct resolver *r = q->resolver;
	struct ip ip = virtual_address(r->virtual, name->number,
				       q->dns.type == DNS_TYPE_A ? AF_INET : AF_INET6);

	r->statistics.answered_virtual++;
	publish_name(r, q->name, q->dns.type);
	reply_addresses(q, &ip, 1, (uint32_t)(r->config->dns.virtual_ttl / 1000));
}

static void on_assigned(void *arg, int status, struct virtual_name *name)
{
	struct question *q = arg;

	if (status < 0)
		reply_rcode(q, DNS_SERVFAIL);
	else
		reply_virtual(q, name);
}

static void answer_virtual(struct question *q)
{
	struct resolver *r = q->resolver;
	struct virtual_name *name = virtual_find(r->virtual, q->name);

	if (name) {
		reply_virtual(q, name);
	} else if (dns_name_labels(&q->dns.name) < 2) {
		reply_rcode(q, DNS_NXDOMAIN);
	} else if (!virtual_is_pending(r->virtual, q->name) &&
		   !limiter_take(r->limiter, &q->origin.source, resolver_now(r))) {
		r->statistics.rate_limited++;
		reply_rcode(q, DNS_REFUSED);
	} else if (virtual_assign(r->virtual, q->name, on_assigned, q) < 0) {
		reply_rcode(q, DNS_SERVFAIL);
	}
}

/* --- asking the links' servers --- */

static void ask_next(struct question *q);

/* No link is left to ask. Old addresses are better than none (RFC 8767), and virtual ones are
 * for when nobody could be reached: a server that says it cannot know is believed. */
static void give_up(struct question *q)
{
	struct resolver *r = q->resolver;
	struct cached *old = wants_address(q) ? cache_find(r->cache, q->name, q->dns.type) : NULL;

	if (q->tried && old && cached_is_usable_stale(old, resolver_now(r))) {
		r->statistics.answered_stale++;
		reply_addresses(q, old->addresses, old->count, DNS_STALE_TTL);
	} else if (wants_address(q) && !q->servers_spoke && r->config->dns.offline == DNS_VIRTUAL) {
		answer_virtual(q);
	} else {
		reply_rcode(q, DNS_SERVFAIL);
	}
}

static void on_addresses(struct question *q, const uint8_t *reply, size_t len)
{
	struct resolver *r = q->resolver;
	struct dns_result result;
	struct cached *cached;

	q->servers_spoke = true;
	if (dns_reply_read(reply, len, &q->dns.name, q->dns.type, &result) < 0 ||
	    (result.rcode != DNS_NOERROR && result.rcode != DNS_NXDOMAIN)) {
		ask_next(q);
		return;
	}
	r->statistics.answered_upstream++;
	cached = resolver_learn(r, q->name, q->dns.type, q->link, &result);
	publish_name(r, q->name, q->dns.type);
	if (cached)
		reply_cached(q, cached, cached_ttl(cached, resolver_now(r)));
	else
		reply_rcode(q, DNS_SERVFAIL);
}

static void on_other(struct question *q, const uint8_t *reply, size_t len)
{
	struct resolver *r = q->resolver;
	size_t size = dns_reply_relay(r->reply, reply_size(q), &q->dns, reply, len);

	if (!size) {
		ask_next(q);
		return;
	}
	r->statistics.answered_upstream++;
	send_and_free(q, size);
}

static void on_reply(void *arg, int status, const uint8_t *reply, size_t len)
{
	struct question *q = arg;

	if (q->resolver->closing) {
		send_and_free(q, 0);
		return;
	}
	if (status < 0) {
		q->servers_spoke |= status == -EREMOTEIO;
		if (status == -ETIMEDOUT)
			link_report_failure(q->link, "its DNS servers do not answer");
		ask_next(q);
	} else if (wants_address(q)) {
		on_addresses(q, reply, len);
	} else {
		on_other(q, reply, len);
	}
}

static void ask_next(struct question *q)
{
	struct resolver *r = q->resolver;
	struct rule_facts facts = {.host = q->name, .source = q->origin.source};
	const struct rule *rule = config_match(r->config, &facts);
	struct channel *channel;

	while ((q->link = links_choose(r->links, &rule->policy, q->tried))) {
		q->tried |= link_bit(q->link);
		channel = resolver_channel(r, q->link);
		if (channel && channel_ask(channel, &q->dns.name, q->dns.type, DNS_LINK_TIMEOUT,
					   on_reply, q) == 0)
			return;
	}
	give_up(q);
}

/* --- deciding --- */

static bool is_below(const char *name, const char *zone)
{
	size_t len = strlen(name), zone_len = strlen(zone);

	return len >= zone_len && !strcmp(name + len - zone_len, zone) &&
	       (len == zone_len || name[len - zone_len - 1] == '.');
}

static bool is_reverse(const char *name)
{
	return is_below(name, "in-addr.arpa") || is_below(name, "ip6.arpa");
}

/* Zones that never belong on the Internet: RFC 6761, 6762, 7686. */
static const char *const NOWHERE[] = {"invalid", "local", "onion", INTERNAL_NAME};

static bool is_nowhere(const char *name)
{
	for (size_t i = 0; i < sizeof(NOWHERE) / sizeof(*NOWHERE); i++)
		if (is_below(name, NOWHERE[i]))
			return true;
	return false;
}

bool name_is_special(const char *name)
{
	return is_nowhere(name) || is_below(name, "localhost") || is_reverse(name);
}

/* The address that a reverse name asks about; false when it is not a whole one. */
static bool reverse_address(const char *name, struct ip *ret)
{
	struct ip ip = {0};
	unsigned a, b, c, d;
	int end = 0;

	if (sscanf(name, "%3u.%3u.%3u.%3u.in-addr.arpa%n", &a, &b, &c, &d, &end) == 4 && end &&
	    !name[end] && a < 256 && b < 256 && c < 256 && d < 256) {
		*ret = ip_from_v4(htonl(d << 24 | c << 16 | b << 8 | a));
		return true;
	}
	if (strlen(name) != 64 + strlen("ip6.arpa"))
		return false;
	for (unsigned i = 0; i < 32; i++) {
		char digit[2] = {name[2 * i]};

		if (name[2 * i + 1] != '.' || !strchr("0123456789abcdef", digit[0]))
			return false;
		ip.bytes[15 - i / 2] |= (uint8_t)(strtoul(digit, NULL, 16) << (i % 2 * 4));
	}
	*ret = ip;
	return true;
}

static void answer_fixed(struct question *q, const struct ip *v4, const struct ip *v6)
{
	reply_addresses(q, q->dns.type == DNS_TYPE_A ? v4 : v6, wants_address(q) ? 1 : 0,
			DNS_INTERNAL_TTL);
}

/* Questions whose answer is the same with and without a link; false: not one of these. */
static bool answer_special(struct question *q)
{
	struct resolver *r = q->resolver;
	struct ip loopback4 = ip_from_v4(htonl(INADDR_LOOPBACK));
	struct ip loopback6 = ip_from_v6(&in6addr_loopback), asked;

	if (!strcmp(q->name, INTERNAL_NAME))
		answer_fixed(q, &r->internal_v4, &r->internal_v6);
	else if (is_below(q->name, "localhost"))
		answer_fixed(q, &loopback4, &loopback6);
	else if (is_nowhere(q->name))
		reply_rcode(q, DNS_NXDOMAIN);
	else if (is_reverse(q->name) && reverse_address(q->name, &asked) &&
		 virtual_contains(r->virtual, &asked))
		reply_rcode(q, DNS_NXDOMAIN);
	else if (q->dns.type == DNS_TYPE_HTTPS || q->dns.type == DNS_TYPE_SVCB)
		reply_addresses(q, NULL, 0, 0); /* so that clients do not go to QUIC */
	else
		return false;
	return true;
}

static void answer_addresses(struct question *q, bool online)
{
	struct resolver *r = q->resolver;
	enum dns_answers wanted = online ? r->config->dns.online : r->config->dns.offline;
	struct cached *cached = cache_find(r->cache, q->name, q->dns.type);

	if (wanted == DNS_VIRTUAL) {
		answer_virtual(q);
	} else if (cached && cached_is_fresh(cached, resolver_now(r))) {
		r->statistics.answered_cache++;
		publish_name(r, q->name, q->dns.type);
		reply_cached(q, cached, cached_ttl(cached, resolver_now(r)));
	} else if (online) {
		ask_next(q);
	} else {
		reply_rcode(q, DNS_SERVFAIL);
	}
}

static void answer(struct question *q)
{
	bool online = links_any_online(q->resolver->links);

	if (answer_special(q))
		return;
	if (!online && is_reverse(q->name))
		reply_rcode(q, DNS_NXDOMAIN); /* without an SOA nobody keeps it (RFC 2308, 5) */
	else if (wants_address(q) && !is_reverse(q->name))
		answer_addresses(q, online);
	else if (online)
		ask_next(q);
	else
		reply_rcode(q, DNS_SERVFAIL);
}

static enum dns_rcode question_check(struct question *q)
{
	struct dns_name lower = q->dns.name;

	if (q->dns.error != DNS_NOERROR) {
		q->resolver->statistics.malformed++;
		return q->dns.error;
	}
	if (q->dns.class != DNS_CLASS_IN)
		return DNS_REFUSED;
	dns_name_lower(&lower);
	if (dns_name_to_text(&lower, q->name, sizeof(q->name)) < 0)
		return DNS_REFUSED; /* only odd bytes make a text that long */
	if (q->resolver->pending > DNS_PENDING_MAX) {
		q->resolver->statistics.full++;
		return DNS_SERVFAIL;
	}
	return DNS_NOERROR;
}

void answer_message(void *arg, const struct origin *origin, const uint8_t *message, size_t len)
{
	struct resolver *r = arg;
	struct question *q = r->closing ? NULL : calloc(1, sizeof(*q));
	enum dns_rcode rcode;

	if (origin->client)
		r->statistics.questions_tcp++;
	else
		r->statistics.questions_udp++;
	/* The guard would keep the answer back; where it is off this is no open resolver either. */
	r->statistics.from_link += origin->from_link;
	if (!q || origin->from_link || dns_question_read(message, len, &q->dns) < 0) {
		r->statistics.malformed += q && !origin->from_link;
		listener_reply(r->listener, origin, NULL, 0);
		free(q);
		return;
	}
	q->resolver = r;
	q->origin = *origin;
	r->pending++;
	rcode = question_check(q);
	if (rcode == DNS_NOERROR)
		answer(q);
	else
		reply_rcode(q, rcode);
}
