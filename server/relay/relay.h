/*
 * The relay of datagrams: UDP flows and echo requests of apps, each over the link that its rule
 * chooses.
 *
 * Owns the transparent UDP sockets that the lookup program gives first datagrams to, two
 * connected sockets for each flow (towards the app: bound to the original destination, so that
 * the kernel brings the flow's next datagrams to it; towards the world: an own socket of the
 * link), and the raw sockets of echo requests. Never holds or stores a datagram: what no link
 * can carry is refused at once, with an ICMP error from the address that the app sent to.
 */
#pragma once

#include "config/config.h"
#include "link/link.h"
#include "resolver/resolver.h"
#include "steer/steer.h"

#include <uv.h>

struct relay;

struct relay_parts {
	struct config *config;
	struct steer *steer;
	struct links *links;
	struct resolver *resolver;
	/* Which interface an app's packets come from, by its address; NULL: not known. */
	const char *(*interface_of)(void *arg, const struct ip *source);
	void *network_arg;
};

/* Opens the listening sockets and hands them to steer. The parts must outlive the relay. */
int relay_new(uv_loop_t *loop, const struct relay_parts *parts, struct relay **ret_relay)
	__attribute__((warn_unused_result));
void relay_close(struct relay *relay); /* NULL is fine */
/* A link is gone: its flows end; their next datagrams find another link, or are refused. */
void relay_link_lost(struct relay *relay, struct link *link);

struct relay_statistics {
	uint64_t flows_opened, flows_refused, flows_full, datagrams_in, datagrams_out, echoes_sent,
		echoes_answered, echoes_refused, errors_told, dropped;
	size_t flows, echoes; /* now */
};
void relay_statistics(const struct relay *relay, struct relay_statistics *ret);
