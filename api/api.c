#include "base/log.h"
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void on_keepalive(uv_timer_t *timer)
{
	events_keepalive(timer->data);
}

static int open_all(struct api *api, char *ret_error, size_t error_size)
{
	char **listen = daemon_config(api->daemon)->api.listen;
	int fds[2] = {-1, -1}, r;

	for (size_t i = 0; listen && listen[i]; i++) {
		r = api_listener_open(api, listen[i], ret_error, error_size);
		if (r < 0)
			return r;
		log_info("api", "listening on %s", listen[i]);
	}
	daemon_app_listeners(api->daemon, &fds[0], &fds[1]);
	for (int i = 0; i < 2; i++) {
		if (fds[i] < 0)
			continue;
		r = api_listener_open_apps(api, fds[i], ret_error, error_size);
		if (r < 0)
			return r;
	}
	return 0;
}

int api_new(uv_loop_t *loop, struct daemon *daemon, char *ret_error, size_t error_size,
	    struct api **ret_api)
{
	struct api *api = calloc(1, sizeof(*api));
	int r;

	if (!api)
		return -ENOMEM;
	api->loop = loop;
	api->daemon = daemon;
	api->open = 1;
	uv_timer_init(loop, &api->keepalive);
	api->keepalive.data = api;
	r = open_all(api, ret_error, error_size);
	if (r == 0)
		r = daemon_subscribe(daemon, events_notify, api);
	if (r < 0) {
		api_close(api, NULL, NULL);
		return r;
	}
	uv_timer_start(&api->keepalive, on_keepalive, API_EVENT_KEEPALIVE, API_EVENT_KEEPALIVE);
	*ret_api = api;
	return 0;
}

uint16_t api_port(const struct api *api, size_t n)
{
	return n < api->listener_count ? api->listeners[n]->port : 0;
}

void api_unhold(struct api *api)
{
	void (*closed)(void *arg) = api->closed;
	void *arg = api->closed_arg;

	if (--api->open > 0)
		return;
	free(api);
	if (closed)
		closed(arg);
}

static void on_timer_closed(uv_handle_t *handle)
{
	api_unhold(handle->data);
}

void api_close(struct api *api, void (*closed)(void *arg), void *arg)
{
	if (api->closing)
		return;
	api->closing = true;
	api->closed = closed;
	api->closed_arg = arg;
	daemon_unsubscribe(api->daemon, events_notify, api);
	calls_refuse_waiting(api);
	events_end(api);
	bodies_end(api);
	for (size_t i = 0; i < api->listener_count; i++)
		api_listener_close(api->listeners[i]);
	uv_close((uv_handle_t *)&api->keepalive, on_timer_closed);
}
