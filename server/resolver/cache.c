#define HASH_NONFATAL_OOM 1
#include "resolver/cache.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cache {
	struct cached *entries;
	void (*evicted)(void *arg, struct cached *entry);
	void *arg;
};

enum { KEY_MAX = NAME_TEXT_MAX + 8 };

static size_t key_write(char *key, const char *name, uint16_t type)
{
	int n = snprintf(key, KEY_MAX, "%u %s", type, name);

	return n < KEY_MAX ? (size_t)n : KEY_MAX - 1;
}

int cache_new(void (*evicted)(void *arg, struct cached *entry), void *arg, struct cache **ret_cache)
{
	struct cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	cache->evicted = evicted;
	cache->arg = arg;
	*ret_cache = cache;
	return 0;
}

void cache_free(struct cache *cache)
{
	if (!cache)
		return;
	while (cache->entries)
		cache_remove(cache, cache->entries);
	free(cache);
}

struct cached *cache_find(struct cache *cache, const char *name, uint16_t type)
{
	char key[KEY_MAX];
	size_t len = key_write(key, name, type);
	struct cached *entry;

	HASH_FIND(hh, cache->entries, key, len, entry);
	return entry;
}

bool cached_is_fresh(const struct cached *entry, uint64_t now)
{
	return entry->expires > now;
}

bool cached_is_usable_stale(const struct cached *entry, uint64_t now)
{
	return entry->count && now < entry->expires + DNS_STALE_MAX;
}

uint32_t cached_ttl(const struct cached *entry, uint64_t now)
{
	return cached_is_fresh(entry, now) ? (uint32_t)((entry->expires - now + 999) / 1000) : 0;
}

void cache_remove(struct cache *cache, struct cached *entry)
{
	HASH_DEL(cache->entries, entry);
	free(entry);
}

/* The entry is put at the end of the order of insertion, where the youngest are. */
static struct cached *entry_renew(struct cache *cache, const char *name, uint16_t type)
{
	struct cached *entry = cache_find(cache, name, type);
	char key[KEY_MAX];
	size_t len = key_write(key, name, type);

	if (entry) {
		HASH_DEL(cache->entries, entry);
	} else {
		entry = calloc(1, sizeof(*entry) + len + 1);
		if (!entry)
			return NULL;
		memcpy(entry->key, key, len + 1);
		entry->name = strchr(entry->key, ' ') + 1;
		entry->type = type;
	}
	HASH_ADD(hh, cache->entries, key, len, entry);
	if (!entry->hh.tbl) {
		free(entry);
		return NULL;
	}
	return entry;
}

struct cached *cache_put(struct cache *cache, const char *name, uint16_t type, unsigned link,
			 const struct dns_result *result, uint64_t now)
{
	uint32_t most = result->count ? DNS_TTL_MAX : DNS_NEGATIVE_MAX;
	struct cached *entry;

	if (HASH_COUNT(cache->entries) >= DNS_CACHE_MAX && !cache_find(cache, name, type)) {
		cache->evicted(cache->arg, cache->entries);
		cache_remove(cache, cache->entries);
	}
	entry = entry_renew(cache, name, type);
	if (!entry)
		return NULL;
	entry->link = link;
	entry->rcode = result->rcode;
	entry->count = result->count;
	memcpy(entry->addresses, result->addresses, sizeof(entry->addresses));
	entry->expires = now + (result->ttl < most ? result->ttl : most) * (uint64_t)1000;
	return entry;
}

struct cached *cache_first(struct cache *cache)
{
	return cache->entries;
}

size_t cache_count(const struct cache *cache)
{
	return HASH_COUNT(cache->entries);
}
