/*
 * The transparent proxy: takes the apps' steered TCP connections, finds out what they are, and
 * makes exchanges of HTTP and streams of the rest.
 *
 * Owns the listening sockets (transparent, on the first virtual addresses) and every
 * connection of an app. Chooses no link and stores nothing itself.
 */
#pragma once

#include "config/config.h"
#include "exchange/exchange.h"
#include "link/link.h"
#include "resolver/resolver.h"
#include "steer/steer.h"
#include "upstream/upstream.h"

struct proxy;

/* Which interface an app's packets come from, by its address; NULL: not known. */
typedef const char *(*proxy_interface_of)(void *arg, const struct ip *source);

/* The IPv4 address of the app that has this IPv6 address: an app with both is one app,
 * whichever family it comes by. false: not known to have one. */
typedef bool (*proxy_v4_of)(void *arg, const struct ip *source, struct ip *ret_source);

struct proxy_parts {
	struct config *config;
	struct steer *steer;
	struct links *links;
	struct resolver *resolver;
	struct upstream *upstream;
	struct exchanges *exchanges;
	proxy_interface_of interface_of;
	proxy_v4_of v4_of;
	void *network_arg; /* of both */
};

/* Opens the listeners and hands them to steer. The parts must outlive the proxy. */
int proxy_new(uv_loop_t *loop, const struct proxy_parts *parts, struct proxy **ret_proxy)
	__attribute__((warn_unused_result));
/* Ends every connection. */
void proxy_close(struct proxy *proxy);
/* A link came or went: held streams are tried again. */
void proxy_wake(struct proxy *proxy);
/* A link is gone: streams over it are cut, so that apps connect again. */
void proxy_link_lost(struct proxy *proxy, struct link *link);

struct proxy_statistics {
	uint64_t accepted, refused, http_requests, tls_streams, tcp_streams, upgraded_streams,
		bad_requests, timed_out, held_streams, held_over, no_descriptors;
	uint64_t spliced,
		no_pipes; /* large streams that the kernel carries; or not, for lack of pipes */
	size_t sessions, pipes;
};
void proxy_statistics(const struct proxy *proxy, struct proxy_statistics *ret);
/* "host" for the device's own apps, else the address, IPv4 where the app has both: how an
 * exchange names its app. */
void proxy_source_text(struct proxy *proxy, const struct ip *source, char *ret, size_t size);
