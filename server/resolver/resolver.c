#include "resolver/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- links and their servers --- */

struct channel *resolver_channel(struct resolver *r, struct link *link)
{
	struct channel **slot = &r->channels[link_number(link) - 1], *old;
	int status;

	if (*slot && channel_is_current(*slot))
		return *slot;
	old = *slot;
	*slot = NULL;
	channel_close(old);
	if (*slot) /* made anew by a question that was called back */
		return *slot;
	status = channel_new(r->loop, link, slot);
	if (status < 0)
		log_debug("resolver", "link %s: no DNS: %s", link_name(link), strerror(-status));
	return *slot;
}

static void set_mode(struct resolver *r)
{
	enum dns_answers wanted = r->online ? r->config->dns.online : r->config->dns.offline;
	enum hf_names_mode mode = wanted == DNS_VIRTUAL ? HF_NAMES_VIRTUAL : HF_NAMES_REAL;
	int status;

	if (r->mode_known && r->mode == mode)
		return;
	status = steer_names_mode(r->steer, mode);
	r->mode_known = status == 0;
	r->mode = mode;
	if (status < 0)
		log_error("resolver", "the kernel's answers cannot be switched: %s",
			  strerror(-status));
	else
		log_info("resolver", "names are answered with %s addresses",
			 mode == HF_NAMES_REAL ? "real" : "virtual");
}

static uint32_t online_mask(struct resolver *r)
{
	uint32_t mask = 0;

	for (size_t i = 0; i < links_count(r->links); i++)
		if (link_state(links_at(r->links, i)) == LINK_ONLINE)
			mask |= 1u << i;
	return mask;
}

/* A channel does not live longer than its link is online: its questions go to other links at
 * once, and no server stays marked as dead. */
void resolver_links_changed(struct resolver *r)
{
	uint32_t online = online_mask(r), changed = online ^ r->online;
	struct channel *gone[LINKS_MAX] = {0};

	if (r->closing)
		return;
	r->online = online;
	set_mode(r);
	for (size_t i = 0; i < LINKS_MAX; i++) {
		if (!(changed & 1u << i))
			continue;
		gone[i] = r->channels[i];
		r->channels[i] = NULL;
	}
	/* only now: what is called back asks the other links, over channels made anew */
	for (size_t i = 0; i < LINKS_MAX; i++)
		channel_close(gone[i]);
}

struct cached *resolver_learn(struct resolver *r, const char *name, uint16_t type,
			      const struct link *link, const struct dns_result *result)
{
	return cache_put(r->cache, name, type, link_number(link), result, resolver_now(r));
}

/* --- life --- */

/* The kernel forgets the real answer at its time; an evicted one that is still fresh stays
 * there until then, but must be forgotten with the entry. */
static void on_evicted(void *arg, struct cached *entry)
{
	struct resolver *r = arg;

	entry->expires = 0;
	publish_name(r, entry->name, entry->type);
}

static int resolver_open(struct resolver *r, struct store *store)
{
	int status = cache_new(on_evicted, r, &r->cache);

	if (status == 0)
		status = limiter_new(&r->limiter);
	if (status == 0)
		status = virtual_new(store, &r->config->dns.virtual_v4, &r->config->dns.virtual_v6,
				     &r->virtual);
	if (status == 0)
		status = publish_internal(r);
	if (status == 0)
		status = listener_new(r->loop, r->steer, &r->internal_v4, &r->internal_v6,
				      answer_message, r, &r->listener);
	return status;
}

int resolver_new(uv_loop_t *loop, struct config *config, struct links *links, struct steer *steer,
		 struct store *store, struct resolver **ret_resolver)
{
	struct resolver *r = calloc(1, sizeof(*r));
	int status;

	if (!r)
		return -ENOMEM;
	r->loop = loop;
	r->config = config_ref(config);
	r->links = links;
	r->steer = steer;
	r->internal_v4 = ip_prefix_nth(&config->dns.virtual_v4, 1);
	r->internal_v6 = ip_prefix_nth(&config->dns.virtual_v6, 1);
	status = resolver_open(r, store);
	if (status < 0) {
		resolver_close(r);
		return status;
	}
	r->online = online_mask(r);
	set_mode(r);
	*ret_resolver = r;
	return 0;
}

void resolver_reconfigure(struct resolver *r, struct config *config)
{
	struct config *old = r->config;

	r->config = config_ref(config);
	config_unref(old);
	set_mode(r);
}

void resolver_close(struct resolver *r)
{
	if (!r)
		return;
	r->closing = true;
	lookup_close_all(r);
	for (size_t i = 0; i < LINKS_MAX; i++)
		channel_close(r->channels[i]);
	virtual_free(r->virtual);
	listener_close(r->listener);
	limiter_free(r->limiter);
	cache_free(r->cache);
	config_unref(r->config);
	free(r);
}

/* --- addresses --- */

const char *resolver_name_of(const struct resolver *r, const struct ip *address)
{
	struct virtual_name *name = virtual_by_address(r->virtual, address);

	return name ? name->text : NULL;
}

bool resolver_is_virtual(const struct resolver *r, const struct ip *address)
{
	return virtual_contains(r->virtual, address);
}

bool resolver_is_internal(const struct resolver *r, const struct ip *address)
{
	return ip_equal(address, &r->internal_v4) || ip_equal(address, &r->internal_v6);
}

/* --- what can be seen --- */

static void info_real(struct resolver *r, const struct cached *cached,
		      struct resolver_name_info *info)
{
	uint64_t now = resolver_now(r);
	int64_t left;

	if (!cached || !cached->count)
		return;
	left = ((int64_t)cached->expires - (int64_t)now) / 1000;
	for (size_t i = 0; i < cached->count; i++)
		info->real[info->real_count++] = cached->addresses[i];
	if (info->real_ttl < left)
		info->real_ttl = left;
	info->link = link_name(links_at(r->links, cached->link - 1));
	info->published |= cached->published && cached_is_fresh(cached, now);
}

static void info_fill(struct resolver *r, const char *name, struct resolver_name_info *info)
{
	struct virtual_name *virtual = virtual_find(r->virtual, name);

	*info = (struct resolver_name_info){.name = name, .real_ttl = -1};
	info_real(r, cache_find(r->cache, name, DNS_TYPE_A), info);
	info_real(r, cache_find(r->cache, name, DNS_TYPE_AAAA), info);
	if (!virtual)
		return;
	info->virtual_v4 = virtual_address(r->virtual, virtual->number, AF_INET);
	info->virtual_v6 = virtual_address(r->virtual, virtual->number, AF_INET6);
	info->published |= virtual->published;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void resolver_names_each(struct resolver *r, const char *after,
			 bool (*each)(void *arg, const struct resolver_name_info *info), void *arg)
{
	size_t most = virtual_count(r->virtual) + cache_count(r->cache), count = 0;
	const char **names = calloc(most ? most : 1, sizeof(*names));
	struct resolver_name_info info;

	if (!names)
		return;
	for (struct virtual_name *v = virtual_first(r->virtual); v; v = v->by_text.next)
		if (v->committed && (!after || strcmp(v->text, after) > 0))
			names[count++] = v->text;
	for (struct cached *c = cache_first(r->cache); c; c = c->hh.next)
		if (!after || strcmp(c->name, after) > 0)
			names[count++] = c->name;
	qsort(names, count, sizeof(*names), compare);
	for (size_t i = 0; i < count; i++) {
		if (i && !strcmp(names[i], names[i - 1]))
			continue;
		info_fill(r, names[i], &info);
		if (!each(arg, &info))
			break;
	}
	free(names);
}

size_t resolver_names_flush(struct resolver *r)
{
	size_t count = 0;
	struct cached *entry;

	while ((entry = cache_first(r->cache))) {
		on_evicted(r, entry);
		cache_remove(r->cache, entry);
		count++;
	}
	return count;
}

void resolver_statistics(const struct resolver *r, struct resolver_statistics *ret)
{
	*ret = r->statistics;
	ret->virtual_names = virtual_count(r->virtual);
	ret->cached = cache_count(r->cache);
}
