/*
 * What servers answered: addresses or their absence by name and type, with the link they
 * came over. Kept past their time for when servers fail (RFC 8767). Bounded: the entry
 * that was put in longest ago goes first. Pure memory; publishes nothing.
 */
#pragma once

#include "msg/dns_msg.h"

#include <uthash.h>

struct cached {
	UT_hash_handle hh;
	unsigned link; /* number */
	enum dns_rcode rcode;
	struct ip addresses[DNS_ADDRESSES_MAX];
	size_t count;
	uint64_t expires; /* ms, the loop's clock */
	uint16_t type;
	bool published;	  /* the kernel answers from it */
	const char *name; /* points into key */
	char key[];	  /* "TYPE NAME" */
};

struct cache;

/* evicted: called before an entry goes for want of room. */
int cache_new(void (*evicted)(void *arg, struct cached *entry), void *arg, struct cache **ret_cache)
	__attribute__((warn_unused_result));
void cache_free(struct cache *cache);

/* Fresh or not; NULL: unknown. Valid until the next put or flush. */
struct cached *cache_find(struct cache *cache, const char *name, uint16_t type);
bool cached_is_fresh(const struct cached *entry, uint64_t now);
/* May it be answered when servers fail? Only addresses, and not for ever. */
bool cached_is_usable_stale(const struct cached *entry, uint64_t now);
/* Whole seconds, at least 1 while fresh; 0 when not. */
uint32_t cached_ttl(const struct cached *entry, uint64_t now);
/* NULL: no memory. */
struct cached *cache_put(struct cache *cache, const char *name, uint16_t type, unsigned link,
			 const struct dns_result *result, uint64_t now);
/* The first of all entries, oldest first; go on with hh.next. Removing while walking: take
 * the next before. */
struct cached *cache_first(struct cache *cache);
void cache_remove(struct cache *cache, struct cached *entry);
size_t cache_count(const struct cache *cache);
