/*
 * The relay of datagrams: UDP flows and echo requests of apps, each over the link that its rule
 * chooses.
 *
 * Owns one listening UDP socket a family, which the lookup program gives the apps' datagrams to;
 * one raw socket a family for answers, since only a raw socket can send from any address and
 * port without binding them; one connected own socket of a link for each flow; and the raw
 * sockets of echo requests. Never holds or stores a datagram, but the first few of a flow while
 * its name is resolved: what no link can carry is refused at once, with an ICMP error from the
 * address that the app sent to. What cannot be sent on is dropped and counted.
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

/* Opens the sockets and hands the listening ones to steer. The parts must outlive the relay. */
int relay_new(uv_loop_t *loop, const struct relay_parts *parts, struct relay **ret_relay)
	__attribute__((warn_unused_result));
void relay_close(struct relay *relay); /* NULL is fine */
/* A link is gone: its flows end; their next datagrams find another link, or are refused. */
void relay_link_lost(struct relay *relay, struct link *link);

struct relay_statistics {
	uint64_t flows_opened;
	uint64_t flows_refused; /* by a rule, for want of a link, or of a name */
	uint64_t flows_full;	/* refused at a bound */
	uint64_t flows_evicted; /* idle ones that made room */
	uint64_t datagrams_in;	/* of apps, sent on */
	uint64_t datagrams_out; /* to apps */
	uint64_t echoes_sent, echoes_answered, echoes_refused;
	uint64_t errors_told,
		errors_limited;		   /* ICMP errors to apps; not sent, to bound their rate */
	uint64_t dropped;		   /* datagrams and echo requests that got lost here */
	uint64_t flows, flows_max, echoes; /* now */
};
void relay_statistics(const struct relay *relay, struct relay_statistics *ret);
