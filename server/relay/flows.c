#define HASH_NONFATAL_OOM 1
#include "relay/flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void flows_init(struct flows *flows, size_t max, size_t max_of_source)
{
	*flows = (struct flows){.max = max, .max_of_source = max_of_source};
	TAILQ_INIT(&flows->by_use);
}

struct flow_entry *flows_find(const struct flows *flows, const struct flow_key *key)
{
	struct flow_entry *entry;

	HASH_FIND(hh, flows->entries, key, sizeof(*key), entry);
	return entry;
}

static struct flow_source *source_find(const struct flows *flows, const struct ip *ip)
{
	struct flow_source *source;

	HASH_FIND(hh, flows->sources, ip, sizeof(*ip), source);
	return source;
}

static struct flow_entry *if_idle(struct flow_entry *entry, uint64_t now, uint64_t time)
{
	return entry && now - entry->used >= time ? entry : NULL;
}

struct flow_entry *flows_idle(const struct flows *flows, uint64_t now, uint64_t time)
{
	return if_idle(TAILQ_FIRST(&flows->by_use), now, time);
}

struct flow_entry *flows_in_the_way(const struct flows *flows, const struct ip *ip, uint64_t now,
				    bool *ret_full)
{
	const struct flow_source *source = source_find(flows, ip);
	const struct flow_list *list;

	*ret_full = false;
	if (source && source->count >= flows->max_of_source)
		list = &source->flows;
	else if (flows->count >= flows->max)
		list = &flows->by_use;
	else
		return NULL;
	*ret_full = !if_idle(TAILQ_FIRST(list), now, RELAY_FLOW_SPARE);
	return *ret_full ? NULL : TAILQ_FIRST(list);
}

static struct flow_source *source_get(struct flows *flows, const struct ip *ip)
{
	struct flow_source *source = source_find(flows, ip);

	if (source)
		return source;
	source = calloc(1, sizeof(*source));
	if (!source)
		return NULL;
	source->ip = *ip;
	TAILQ_INIT(&source->flows);
	HASH_ADD(hh, flows->sources, ip, sizeof(source->ip), source);
	if (!source_find(flows, ip)) {
		free(source);
		return NULL;
	}
	return source;
}

static void source_put(struct flows *flows, struct flow_source *source)
{
	if (source->count)
		return;
	HASH_DEL(flows->sources, source);
	free(source);
}

int flows_add(struct flows *flows, struct flow_entry *entry, uint64_t now)
{
	struct flow_source *source = source_get(flows, &entry->key.app);

	if (!source)
		return -ENOMEM;
	HASH_ADD(hh, flows->entries, key, sizeof(entry->key), entry);
	if (flows_find(flows, &entry->key) != entry) {
		source_put(flows, source);
		return -ENOMEM;
	}
	entry->source = source;
	entry->used = now;
	source->count++;
	flows->count++;
	TAILQ_INSERT_TAIL(&flows->by_use, entry, by_use);
	TAILQ_INSERT_TAIL(&source->flows, entry, of_source);
	return 0;
}

void flows_touch(struct flows *flows, struct flow_entry *entry, uint64_t now)
{
	if (entry->used == now)
		return;
	entry->used = now;
	TAILQ_REMOVE(&flows->by_use, entry, by_use);
	TAILQ_INSERT_TAIL(&flows->by_use, entry, by_use);
	TAILQ_REMOVE(&entry->source->flows, entry, of_source);
	TAILQ_INSERT_TAIL(&entry->source->flows, entry, of_source);
}

void flows_remove(struct flows *flows, struct flow_entry *entry)
{
	struct flow_source *source = entry->source;

	HASH_DEL(flows->entries, entry);
	TAILQ_REMOVE(&flows->by_use, entry, by_use);
	TAILQ_REMOVE(&source->flows, entry, of_source);
	flows->count--;
	source->count--;
	source_put(flows, source);
}
