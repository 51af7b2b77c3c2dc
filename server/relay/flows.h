/*
 * The table of UDP flows: who may have one, and which has to go. Pure: times are the caller's,
 * no I/O. A flow's socket is the business of whoever embeds struct flow_entry.
 *
 * RFC 4787, REQ-5: a flow lives for two minutes without a datagram in either direction. At a
 * bound, in all or of one source, the least recently used flow makes room if it has been idle
 * for RELAY_FLOW_SPARE; else the new one is refused.
 */
#pragma once

#include "base/ip.h"
#include "base/limits.h"

#include <stddef.h>
#include <sys/queue.h>
#include <uthash.h>

/* An app's address and port, and what it sends to. scope: of a link-local app, else 0. */
struct flow_key {
	struct ip app, destination;
	uint16_t app_port, port;
	uint32_t scope;
};

struct flow_source;

struct flow_entry {
	struct flow_key key;
	uint64_t used; /* ms */
	struct flow_source *source;
	UT_hash_handle hh;
	TAILQ_ENTRY(flow_entry) by_use, of_source;
};
TAILQ_HEAD(flow_list, flow_entry);

/* All that one source has at once. */
struct flow_source {
	struct ip ip;
	size_t count;
	struct flow_list flows; /* least recently used first */
	UT_hash_handle hh;
};

struct flows {
	struct flow_entry *entries;
	struct flow_source *sources;
	struct flow_list by_use; /* least recently used first */
	size_t count, max, max_of_source;
};

void flows_init(struct flows *flows, size_t max, size_t max_of_source);
struct flow_entry *flows_find(const struct flows *flows, const struct flow_key *key);
/* Which flow has to go before this source may have another: NULL with *ret_full false: none;
 * NULL with *ret_full true: the bound is reached and nobody is idle. */
struct flow_entry *flows_in_the_way(const struct flows *flows, const struct ip *source,
				    uint64_t now, bool *ret_full);
/* entry->key is filled. 0, -ENOMEM; the caller has made room. */
int flows_add(struct flows *flows, struct flow_entry *entry, uint64_t now)
	__attribute__((warn_unused_result));
void flows_touch(struct flows *flows, struct flow_entry *entry, uint64_t now);
void flows_remove(struct flows *flows, struct flow_entry *entry);
/* The least recently used one that has been idle for so long, or NULL. */
struct flow_entry *flows_idle(const struct flows *flows, uint64_t now, uint64_t time);
