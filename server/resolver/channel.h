/*
 * One link's DNS servers: a c-ares channel whose sockets are the link's own. Asks literally:
 * no search domains, no hosts file. Made anew when the link comes back, so that no server
 * stays marked as dead; knows nothing of names, caches or apps.
 */
#pragma once

#include "link/link.h"
#include "msg/dns_msg.h"

struct channel;

/* status 0 with the server's reply (borrowed for the call, its rcode unseen), or -ETIMEDOUT,
 * -ECONNREFUSED, -EREMOTEIO (the servers answered, but refuse or fail), -ECANCELED. */
typedef void (*channel_cb)(void *arg, int status, const uint8_t *reply, size_t len);

/* -ENOTCONN when the link has no servers. */
int channel_new(uv_loop_t *loop, struct link *link, struct channel **ret_channel)
	__attribute__((warn_unused_result));
/* What waits is called back with -ECANCELED before this returns. */
void channel_close(struct channel *channel);
/* Are the link's servers still those that the channel was made with? */
bool channel_is_current(const struct channel *channel);
/* One callback, never before the call returns, at the latest after timeout ms. */
int channel_ask(struct channel *channel, const struct dns_name *name, uint16_t type,
		uint64_t timeout, channel_cb cb, void *arg) __attribute__((warn_unused_result));
