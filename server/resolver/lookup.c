#include "resolver/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

enum { PARTS = 2 }; /* IPv6, IPv4: the order of answers */

struct part {
	struct resolver_query *query;
	uint16_t type;
	bool asked;   /* the channel will call back */
	bool settled; /* an answer, or none to come */
	int status;
	struct ip addresses[DNS_ADDRESSES_MAX];
	size_t count;
};

/* Lives until its timer is closed and both parts were called back. */
struct resolver_query {
	struct resolver *resolver;
	struct link *link;
	char name[NAME_TEXT_MAX];
	struct dns_name wire;
	resolver_cb cb; /* NULL once called, or cancelled */
	void *arg;
	uv_timer_t timer;
	bool closed;
	struct part parts[PARTS];
	struct resolver_query *prev, *next;
};

static void query_maybe_free(struct resolver_query *query)
{
	if (query->closed && !query->parts[0].asked && !query->parts[1].asked)
		free(query);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct resolver_query *query = handle->data;

	query->closed = true;
	query_maybe_free(query);
}

static void query_end(struct resolver_query *query)
{
	if (uv_is_closing((uv_handle_t *)&query->timer))
		return;
	query->cb = NULL;
	DL_DELETE(query->resolver->queries, query);
	uv_close((uv_handle_t *)&query->timer, on_timer_closed);
}

void resolver_cancel(struct resolver_query *query)
{
	if (query)
		query_end(query);
}

/* IPv6 and IPv4 in turn. */
static size_t interleave(const struct resolver_query *query, struct ip *ret)
{
	size_t count = 0;

	for (size_t i = 0; i < DNS_ADDRESSES_MAX; i++)
		for (int p = 0; p < PARTS; p++)
			if (i < query->parts[p].count)
				ret[count++] = query->parts[p].addresses[i];
	return count;
}

static int query_status(const struct resolver_query *query)
{
	for (int p = 0; p < PARTS; p++)
		if (query->parts[p].status < 0 && query->parts[p].status != -ENOENT)
			return query->parts[p].status;
	return -ENOENT;
}

static void query_deliver(struct resolver_query *query, int status)
{
	struct ip addresses[PARTS * DNS_ADDRESSES_MAX];
	size_t count = status < 0 ? 0 : interleave(query, addresses);
	resolver_cb cb = query->cb;
	void *arg = query->arg;

	if (status == 0 && !count)
		status = query_status(query);
	query_end(query);
	if (cb)
		cb(arg, status, addresses, count);
}

static void on_timer(uv_timer_t *timer)
{
	query_deliver(timer->data, 0);
}

void lookup_close_all(struct resolver *r)
{
	while (r->queries)
		query_deliver(r->queries, -ECANCELED);
}

/* What is known is told when both are settled, or a moment after the first good one (as
 * RFC 8305, 3): from the timer, so never inside resolver_lookup. */
static void part_settle(struct part *part, int status)
{
	struct resolver_query *query = part->query;

	part->settled = true;
	part->status = status;
	if (uv_is_closing((uv_handle_t *)&query->timer))
		return;
	if (query->parts[0].settled && query->parts[1].settled)
		uv_timer_start(&query->timer, on_timer, 0, 0);
	else if (part->count)
		uv_timer_start(&query->timer, on_timer, DNS_SECOND_WAIT, 0);
}

/* Never a virtual address: it would lead back to us. */
static void part_take(struct part *part, const struct ip *addresses, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!virtual_contains(part->query->resolver->virtual, &addresses[i]))
			part->addresses[part->count++] = addresses[i];
	part_settle(part, part->count ? 0 : -ENOENT);
}

static void part_fail(struct part *part, int status)
{
	struct resolver_query *query = part->query;
	struct resolver *r = query->resolver;
	struct cached *old = cache_find(r->cache, query->name, part->type);

	if (old && old->link == link_number(query->link) &&
	    cached_is_usable_stale(old, resolver_now(r)))
		part_take(part, old->addresses, old->count);
	else
		part_settle(part,
			    status == -EREMOTEIO || status == -ENOTCONN ? -ECONNREFUSED : status);
}

static void part_read(struct part *part, const uint8_t *reply, size_t len)
{
	struct resolver_query *query = part->query;
	struct resolver *r = query->resolver;
	struct cached *cached = cache_find(r->cache, query->name, part->type);
	struct dns_result result;

	if (dns_reply_read(reply, len, &query->wire, part->type, &result) < 0 ||
	    (result.rcode != DNS_NOERROR && result.rcode != DNS_NXDOMAIN)) {
		part_fail(part, -EREMOTEIO);
		return;
	}
	/* what apps were told over another link stays until its time is over */
	if (!cached || cached->link == link_number(query->link) ||
	    !cached_is_fresh(cached, resolver_now(r)))
		resolver_learn(r, query->name, part->type, query->link, &result);
	part_take(part, result.addresses, result.count);
}

static void on_reply(void *arg, int status, const uint8_t *reply, size_t len)
{
	struct part *part = arg;
	struct resolver_query *query = part->query;

	part->asked = false;
	if (uv_is_closing((uv_handle_t *)&query->timer)) {
		query_maybe_free(query);
		return;
	}
	if (status == 0)
		part_read(part, reply, len);
	else
		part_fail(part, status);
}

static void part_start(struct part *part)
{
	struct resolver_query *query = part->query;
	struct resolver *r = query->resolver;
	struct cached *cached = cache_find(r->cache, query->name, part->type);
	struct channel *channel;
	int status = -ENOTCONN;

	if (cached && cached->link == link_number(query->link) &&
	    cached_is_fresh(cached, resolver_now(r))) {
		part_take(part, cached->addresses, cached->count);
		return;
	}
	channel = resolver_channel(r, query->link);
	if (channel)
		status = channel_ask(channel, &query->wire, part->type, DNS_ASK_TIMEOUT, on_reply,
				     part);
	if (status < 0)
		part_fail(part, status);
	else
		part->asked = true;
}

/* A family that the link cannot carry is not asked for. */
static void query_start(struct resolver_query *query, bool possible)
{
	static const int families[PARTS] = {AF_INET6, AF_INET};
	struct ip literal;

	for (int p = 0; p < PARTS; p++) {
		query->parts[p].query = query;
		query->parts[p].type = families[p] == AF_INET ? DNS_TYPE_A : DNS_TYPE_AAAA;
	}
	if (ip_parse(query->name, &literal) == 0) {
		part_settle(&query->parts[1], -ENOENT);
		part_take(&query->parts[0], &literal, 1);
		return;
	}
	for (int p = 0; p < PARTS; p++) {
		if (possible && link_has_family(query->link, families[p]))
			part_start(&query->parts[p]);
		else
			part_settle(&query->parts[p], -ENOENT);
	}
}

int resolver_lookup(struct resolver *r, struct link *link, const char *name, resolver_cb cb,
		    void *arg, struct resolver_query **ret_query)
{
	struct resolver_query *query;
	struct dns_name wire;
	int status = 0;

	if (r->closing)
		return -ECANCELED;
	query = calloc(1, sizeof(*query));
	if (!query)
		return -ENOMEM;
	/* an IPv6 literal is no name in wire form, but it is kept as it is */
	if (dns_name_from_text(name, &wire) == 0) {
		dns_name_lower(&wire);
		query->wire = wire;
		status = dns_name_to_text(&wire, query->name, sizeof(query->name));
		if (strchr(name, ':') && strlen(name) < sizeof(query->name))
			strcpy(query->name, name);
	} else {
		status = -EINVAL;
	}
	if (status < 0) {
		free(query);
		return -EINVAL;
	}
	query->resolver = r;
	query->link = link;
	query->cb = cb;
	query->arg = arg;
	uv_timer_init(r->loop, &query->timer);
	query->timer.data = query;
	DL_APPEND(r->queries, query);
	query_start(query, !name_is_special(query->name));
	*ret_query = query;
	return 0;
}
