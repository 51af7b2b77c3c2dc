/*
 * The sockets that apps' questions come to: UDP and TCP, IPv4 and IPv6, port 53, bound
 * transparently, so that steered packets to any address arrive and answers leave from the
 * address that was asked. Carries messages; does not look into them.
 */
#pragma once

#include "base/ip.h"
#include "steer/steer.h"

#include <uv.h>

struct listener;
struct client;

/* Where a message came from, and so where its reply goes. */
struct origin {
	struct ip source, local;
	struct client *client;	      /* TCP; a reference, which listener_reply gives back */
	struct sockaddr_storage peer; /* UDP */
	int interface;		      /* UDP from a link-local address; else 0 */
	bool from_link;		      /* UDP that came in over a link: not from an app */
};

/* message is borrowed. Each call needs exactly one listener_reply, at once or later. */
typedef void (*listener_cb)(void *arg, const struct origin *origin, const uint8_t *message,
			    size_t len);

/* Opens what the machine can (a missing family is logged) and hands the sockets to steer. */
int listener_new(uv_loop_t *loop, struct steer *steer, const struct ip *v4, const struct ip *v6,
		 listener_cb cb, void *arg, struct listener **ret_listener)
	__attribute__((warn_unused_result));
/* All replies must have been given before. Frees itself when its handles are closed. */
void listener_close(struct listener *listener);
/* len 0: no reply. */
void listener_reply(struct listener *listener, const struct origin *origin, const uint8_t *reply,
		    size_t len);
