#include "link/internal.h"
#include "link/nameservers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void links_tell(struct links *links)
{
	for (size_t i = 0; i < links->count && !links->closing; i++) {
		struct link *link = &links->items[i];
		bool lost = link->lost;

		if (!link->changed)
			continue;
		link->changed = link->lost = false;
		links->on_change(links->arg, link, lost, link->what);
	}
}

static void on_tell(uv_timer_t *timer)
{
	links_tell(timer->data);
}

/* From inside a call: the caller is told when it is back on the loop. */
static void tell_later(struct links *links)
{
	uv_timer_start(&links->tell, on_tell, 0, 0);
}

static void update_all(struct links *links)
{
	struct ip servers[LINK_DNS_SERVERS_MAX];
	size_t count = nameservers_read(links->rtnl, servers, LINK_DNS_SERVERS_MAX);

	for (size_t i = 0; i < links->count; i++) {
		struct link *link = &links->items[i];

		memcpy(link->system_dns, servers, count * sizeof(*servers));
		link->system_dns_count = count;
		link_update(link);
	}
}

static void on_network_changed(void *arg)
{
	struct links *links = arg;

	if (!links->started || links->closing)
		return;
	update_all(links);
	links_tell(links);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct links *links = handle->data;

	if (--links->handles)
		return;
	config_unref(links->config);
	free(links);
}

static void on_link_handle_closed(uv_handle_t *handle)
{
	struct link *link = handle->data;

	handle->data = link->links;
	on_handle_closed(handle);
}

static void link_init(struct links *links, size_t index)
{
	struct link *link = &links->items[index];
	const struct link_config *config = &links->config->links[index];

	link->links = links;
	link->config = config;
	link->index = (unsigned)index;
	link->state = config->enabled ? LINK_ABSENT : LINK_DISABLED;
	link->priority = config->priority;
	link->enabled = config->enabled;
	link->metered = config->metered;
	snprintf(link->evidence, sizeof(link->evidence), "%s",
		 config->enabled ? "no such interface yet" : "disabled");
	uv_timer_init(links->loop, &link->timer);
	link->timer.data = link;
	links->handles++;
}

int links_new(uv_loop_t *loop, struct config *config, struct rtnl *rtnl, struct steer *steer,
	      link_changed_cb on_change, void *arg, struct links **ret_links)
{
	struct links *links = calloc(1, sizeof(*links));
	int r;

	if (!links)
		return -ENOMEM;
	links->loop = loop;
	links->rtnl = rtnl;
	links->steer = steer;
	links->on_change = on_change;
	links->arg = arg;
	r = rtnl_subscribe(rtnl, on_network_changed, links);
	if (r < 0) {
		free(links);
		return r;
	}
	links->config = config_ref(config);
	uv_timer_init(loop, &links->tell);
	links->tell.data = links;
	links->handles = 1;
	links->count = config->link_count;
	for (size_t i = 0; i < links->count; i++)
		link_init(links, i);
	*ret_links = links;
	return 0;
}

void links_set_resolve(struct links *links, links_resolve resolve, void *arg)
{
	links->resolve = resolve;
	links->resolve_arg = arg;
}

void links_start(struct links *links)
{
	links->started = true;
	update_all(links);
	tell_later(links);
}

void links_close(struct links *links)
{
	if (links->closing)
		return;
	links->closing = true;
	rtnl_unsubscribe(links->rtnl, on_network_changed, links);
	for (size_t i = 0; i < links->count; i++) {
		link_stop_probe(&links->items[i]);
		uv_close((uv_handle_t *)&links->items[i].timer, on_link_handle_closed);
	}
	uv_close((uv_handle_t *)&links->tell, on_handle_closed);
}

size_t links_count(const struct links *links)
{
	return links->count;
}

struct link *links_at(struct links *links, size_t index)
{
	return index < links->count ? &links->items[index] : NULL;
}

struct link *links_by_name(struct links *links, const char *name)
{
	for (size_t i = 0; i < links->count; i++)
		if (!strcmp(links->items[i].config->name, name))
			return &links->items[i];
	return NULL;
}

static bool is_better(const struct link *a, const struct link *b)
{
	if (a->suspect != b->suspect)
		return b->suspect;
	return a->priority < b->priority;
}

struct link *links_choose(struct links *links, const struct rule_policy *policy, uint32_t tried)
{
	uint32_t allowed = policy->link_mask & ~tried;
	struct link *best = NULL;

	for (size_t i = 0; i < links->count; i++) {
		struct link *link = &links->items[i];

		if (link->state != LINK_ONLINE || !(allowed & link_bit(link)) ||
		    (link->metered && !policy->metered))
			continue;
		if (!best || is_better(link, best))
			best = link;
	}
	return best;
}

bool links_any_online(const struct links *links)
{
	for (size_t i = 0; i < links->count; i++)
		if (links->items[i].state == LINK_ONLINE)
			return true;
	return false;
}

void link_patch(struct link *link, const struct link_patch *patch)
{
	if (patch->has_priority && patch->priority != link->priority) {
		link->priority = patch->priority;
		link_note(link, "priority %d", patch->priority);
	}
	if (patch->has_metered && patch->metered != link->metered) {
		link->metered = patch->metered;
		link_note(link, patch->metered ? "metered" : "not metered");
	}
	if (patch->has_enabled && patch->enabled != link->enabled) {
		link->enabled = patch->enabled;
		link_note(link, patch->enabled ? "enabled" : "disabled");
		if (link->links->started)
			link_update(link);
	}
	tell_later(link->links);
}

int links_order(struct links *links, const char *const *names, size_t count,
		struct input_error *err)
{
	struct link *order[LINKS_MAX];
	uint32_t seen = 0;
	char path[32];

	if (count != links->count)
		return input_error_set(err, "", 0, "every link is named once: %zu of them",
				       links->count);
	for (size_t i = 0; i < count; i++) {
		order[i] = links_by_name(links, names[i]);
		snprintf(path, sizeof(path), "[%zu]", i);
		if (!order[i])
			return input_error_set(err, path, 0, "there is no link \"%s\"", names[i]);
		if (seen & link_bit(order[i]))
			return input_error_set(err, path, 0, "\"%s\" stands here twice", names[i]);
		seen |= link_bit(order[i]);
	}
	for (size_t i = 0; i < count; i++) {
		struct link_patch patch = {.has_priority = true, .priority = (int32_t)(i + 1) * 10};

		link_patch(order[i], &patch);
	}
	return 0;
}
