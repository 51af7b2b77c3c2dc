/*
 * The resolver's own state, shared by its files: resolver.c (life), answer.c (apps'
 * questions), lookup.c (the daemon's own), publish.c (the kernel's copy).
 */
#pragma once

#include "resolver/cache.h"
#include "resolver/channel.h"
#include "resolver/limiter.h"
#include "resolver/listener.h"
#include "resolver/resolver.h"
#include "resolver/virtual.h"

#define INTERNAL_NAME "holdfast.internal"

struct resolver {
	uv_loop_t *loop;
	struct config *config; /* a reference */
	struct links *links;
	struct steer *steer;
	struct listener *listener;
	struct cache *cache;
	struct virtual_names *virtual;
	struct limiter *limiter;
	struct channel *channels[LINKS_MAX]; /* by number - 1; NULL until first asked */
	uint32_t online;		     /* mask of links, when last looked at */
	struct ip internal_v4, internal_v6;
	bool mode_known;
	enum hf_names_mode mode;
	bool closing;
	size_t pending; /* apps' questions that wait */
	struct resolver_query *queries;
	struct resolver_statistics statistics;
	uint8_t reply[UINT16_MAX]; /* where replies are written before they are sent */
};

/* The link's channel, made when there is none or its servers changed. NULL: it cannot be. */
struct channel *resolver_channel(struct resolver *resolver, struct link *link);
/* Put what a link's server said into the cache. NULL: no memory. */
struct cached *resolver_learn(struct resolver *resolver, const char *name, uint16_t type,
			      const struct link *link, const struct dns_result *result);
static inline uint64_t resolver_now(const struct resolver *resolver)
{
	return uv_now(resolver->loop);
}

/* answer.c: a message from an app; arg is the resolver. */
void answer_message(void *arg, const struct origin *origin, const uint8_t *message, size_t len);
/* Names whose answer never depends on a link (RFC 6761 and the like): are they? */
bool name_is_special(const char *name);

/* publish.c: bring the kernel's copy of a name in line with cache and virtual names. */
void publish_name(struct resolver *resolver, const char *name, uint16_t type);
int publish_internal(struct resolver *resolver);

/* lookup.c */
void lookup_close_all(struct resolver *resolver);
