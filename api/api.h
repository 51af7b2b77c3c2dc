/*
 * The HTTP/JSON API over libmicrohttpd: routes, views (snapshot to JSON) and commands (JSON to
 * command). No thread of its own: the epoll descriptor of each listener is polled by the loop.
 * Talks to the daemon only, never to a part below it.
 */
#pragma once

#include "daemon/daemon.h"

struct api;

/* Opens the listeners of the configuration and those for apps. error names the step. */
int api_new(uv_loop_t *loop, struct daemon *daemon, char *ret_error, size_t error_size,
	    struct api **ret_api) __attribute__((warn_unused_result));
/* Stops listening, answers what waits with 503, calls back when closed. */
void api_close(struct api *api, void (*closed)(void *arg), void *arg);
