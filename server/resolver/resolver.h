/*
 * Names: answers apps' DNS questions over UDP and TCP, asks the links' servers with
 * c-ares, gives virtual addresses when no link is online, and publishes both kinds of
 * answers to the kernel. Also resolves for upstream and replay, over the chosen link.
 *
 * Owns its sockets, one c-ares channel a link (made anew when the link comes up, so that
 * nothing remembered from an outage stays), the cache, and the mapping of names to virtual
 * addresses, which is written to the store before its first answer and never reused.
 */
#pragma once

#include "config/config.h"
#include "link/link.h"
#include "steer/steer.h"
#include "store/store.h"

#include <uv.h>

struct resolver;

/* Loads the virtual names from the store (blocking, before the loop runs), opens the
 * listening sockets on the first virtual addresses (transparent, port 53) and hands them
 * to steer. `holdfast.internal` is published at once. */
int resolver_new(uv_loop_t *loop, struct config *config, struct links *links, struct steer *steer,
		 struct store *store, struct resolver **ret_resolver)
	__attribute__((warn_unused_result));
void resolver_close(struct resolver *resolver);

/* Call when links change: flips real and virtual answers (one word in a kernel map), and
 * drops what was remembered of a link's servers. */
void resolver_links_changed(struct resolver *resolver);

/* Take other rules and kinds of answers into use. The pools stay those of the start: addresses
 * of them are in apps' hands. */
void resolver_reconfigure(struct resolver *resolver, struct config *config);

/* The name of a virtual address, or NULL: not virtual, or never given to anyone. Real
 * addresses are not mapped back. Owned by the resolver, valid until names are deleted:
 * copy what is kept. */
const char *resolver_name_of(const struct resolver *resolver, const struct ip *address);
bool resolver_is_virtual(const struct resolver *resolver, const struct ip *address);
/* holdfast.internal's addresses: the first of each pool. */
bool resolver_is_internal(const struct resolver *resolver, const struct ip *address);

/* Ask for a name's addresses over a link. One callback, never before the call returns.
 * status: 0, -ENOENT (no such name or no address), -ETIMEDOUT, -ECONNREFUSED (the servers
 * fail), -ECANCELED. addresses are borrowed for the callback; those of families the link
 * cannot carry are left out. IPv4 and IPv6 alternate, IPv6 first when the link has it. */
typedef void (*resolver_cb)(void *arg, int status, const struct ip *addresses, size_t count);
struct resolver_query;
int resolver_lookup(struct resolver *resolver, struct link *link, const char *name, resolver_cb cb,
		    void *arg, struct resolver_query **ret_query)
	__attribute__((warn_unused_result));
void resolver_cancel(struct resolver_query *query); /* no callback after this */

struct resolver_name_info {
	const char *name;
	struct ip virtual_v4, virtual_v6; /* all zero: none */
	struct ip real[2 * DNS_ADDRESSES_MAX];
	size_t real_count;
	int64_t real_ttl; /* seconds left; negative: stale or none */
	bool published;	  /* the kernel answers it */
	const char *link; /* that the real answer came over, or NULL */
};
/* Sorted by name, those after `after` (NULL: from the start); stops when each returns false. */
void resolver_names_each(struct resolver *resolver, const char *after,
			 bool (*each)(void *arg, const struct resolver_name_info *info), void *arg);
/* Forget real answers, cached and published (the virtual mapping stays: it may be cached
 * anywhere). Returns how many. */
size_t resolver_names_flush(struct resolver *resolver);

struct resolver_statistics {
	uint64_t questions_udp, questions_tcp, answered_cache, answered_virtual, answered_upstream,
		answered_stale, failed, malformed, rate_limited, full, from_link;
	size_t virtual_names, cached;
};
void resolver_statistics(const struct resolver *resolver, struct resolver_statistics *ret);
