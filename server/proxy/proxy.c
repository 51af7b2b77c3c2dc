#include "proxy/internal.h"

#include "base/log.h"
#include "conn/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	SWEEP_INTERVAL = 500, /* ms */
	ACCEPT_BATCH = 64,
	BACKLOG = 4096,
};

static void accept_all(struct listener *listener);

static void on_connection(uv_poll_t *poll, int status, int events)
{
	struct listener *listener = poll->data;

	if (status == 0 && !listener->proxy->closing)
		accept_all(listener);
}

static void pause_accepting(struct proxy *proxy)
{
	proxy->statistics.no_descriptors++;
	if (!proxy->out_of_descriptors)
		log_warning("proxy", "out of descriptors: connections wait until others end");
	proxy->out_of_descriptors = true;
	for (int i = 0; i < LISTENERS; i++)
		if (proxy->listeners[i].fd >= 0)
			uv_poll_stop(&proxy->listeners[i].poll);
}

static void resume_accepting(struct proxy *proxy)
{
	proxy->out_of_descriptors = false;
	for (int i = 0; i < LISTENERS; i++)
		if (proxy->listeners[i].fd >= 0)
			uv_poll_start(&proxy->listeners[i].poll, UV_READABLE, on_connection);
}

void proxy_connection_over(struct proxy *proxy)
{
	proxy->statistics.sessions--;
	if (proxy->out_of_descriptors && !proxy->closing)
		resume_accepting(proxy);
}

const char *proxy_date(struct proxy *proxy)
{
	int64_t now = time(NULL);

	if (now != proxy->date_at)
		http_date_line(now, proxy->date);
	proxy->date_at = now;
	return proxy->date;
}

static void begin(struct proxy *proxy, int fd, const struct ip *peer)
{
	static const struct conn_ops none;
	struct conn *conn;

	proxy->statistics.accepted++;
	if (proxy->statistics.sessions >= SESSIONS_MAX) {
		proxy->statistics.refused++;
		close(fd);
		return;
	}
	if (conn_accept(proxy->loop, fd, peer, &none, NULL, &conn) < 0)
		return;
	proxy->statistics.sessions++;
	session_begin(proxy, conn, NULL, 0);
}

static void accept_all(struct listener *listener)
{
	struct sockaddr_storage sa = {0};
	uint16_t port;

	for (int i = 0; i < ACCEPT_BATCH; i++) {
		socklen_t len = sizeof(sa);
		int fd = accept4(listener->fd, (struct sockaddr *)&sa, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			struct ip peer = ip_from_sockaddr((struct sockaddr *)&sa, &port);

			begin(listener->proxy, fd, &peer);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE)
			pause_accepting(listener->proxy);
		if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

/* The listener's own address and port lead nowhere: dialing them would be dialing ourselves. */
static bool is_ours(const struct proxy *proxy, const struct ip *address)
{
	return resolver_is_internal(proxy->parts.resolver, address);
}

bool flow_of(struct proxy *proxy, const struct conn *conn, struct flow *ret_flow)
{
	struct flow flow = {0};
	const char *name;

	flow.source = conn_peer(conn);
	flow.destination = conn_local(conn, &flow.port);
	if (is_ours(proxy, &flow.destination) ||
	    steer_is_device_address(proxy->parts.steer, &flow.destination))
		return false;
	flow.is_virtual = resolver_is_virtual(proxy->parts.resolver, &flow.destination);
	if (flow.is_virtual) {
		name = resolver_name_of(proxy->parts.resolver, &flow.destination);
		if (!name)
			return false;
		snprintf(flow.name, sizeof(flow.name), "%s", name);
	}
	if (proxy->parts.interface_of)
		flow.interface = proxy->parts.interface_of(proxy->parts.network_arg, &flow.source);
	*ret_flow = flow;
	return true;
}

/* Asking the kernel for each connection would cost; apps keep their addresses. */
static const struct ip *canonical(struct proxy *proxy, const struct ip *source)
{
	uint64_t now = uv_now(proxy->loop);
	struct known_app *app = &proxy->apps[source->bytes[15] % KNOWN_APPS];

	if (ip_is_v4(source) || !proxy->parts.v4_of)
		return source;
	if (app->until > now && ip_equal(&app->v6, source))
		return &app->name;
	*app = (struct known_app){.v6 = *source, .name = *source, .until = now + KNOWN_APP_TIME};
	if (!proxy->parts.v4_of(proxy->parts.network_arg, source, &app->name))
		app->until = now; /* it may be known the next time */
	return &app->name;
}

void proxy_source_text(struct proxy *proxy, const struct ip *source, char *ret, size_t size)
{
	char text[IP_TEXT_MAX];

	if (ip_is_loopback(source) || steer_is_device_address(proxy->parts.steer, source))
		snprintf(ret, size, "host");
	else
		snprintf(ret, size, "%s", ip_format(canonical(proxy, source), text));
}

static void on_flush(uv_prepare_t *prepare)
{
	https_flush(prepare->data);
}

static void on_sweep(uv_timer_t *timer)
{
	struct proxy *proxy = timer->data;
	uint64_t now = uv_now(proxy->loop);

	streams_sweep(proxy, now);
	https_sweep(proxy, now);
	if (proxy->out_of_descriptors)
		resume_accepting(proxy);
}

static int listener_open(struct proxy *proxy, struct listener *listener,
			 const struct ip_prefix *pool, enum hf_socket which)
{
	struct sockaddr_storage sa;
	struct ip address = ip_prefix_nth(pool, 1);
	socklen_t len = sizeof(sa);
	int r;

	r = steer_take_listener(proxy->parts.steer, which, &address, 0, &listener->fd);
	if (r < 0)
		r = listen_transparent(&address, 0, BACKLOG, &listener->fd);
	if (r < 0) {
		listener->fd = -1;
		return r;
	}
	if (getsockname(listener->fd, (struct sockaddr *)&sa, &len) == 0)
		ip_from_sockaddr((struct sockaddr *)&sa, &listener->port);
	/* Accepted sockets have it from their listener. */
	if (setsockopt(listener->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) < 0)
		log_warning("proxy", "TCP_NODELAY: %s", strerror(errno));
	r = steer_own_socket(proxy->parts.steer, listener->fd, 0);
	if (r == 0)
		r = steer_set_listener(proxy->parts.steer, which, listener->fd);
	if (r == 0)
		r = uv_poll_init(proxy->loop, &listener->poll, listener->fd);
	if (r < 0) {
		close(listener->fd);
		listener->fd = -1;
		return r;
	}
	proxy->handles++;
	listener->proxy = proxy;
	listener->poll.data = listener;
	return uv_poll_start(&listener->poll, UV_READABLE, on_connection);
}

static void on_handle_closed(uv_handle_t *handle);

int proxy_new(uv_loop_t *loop, const struct proxy_parts *parts, struct proxy **ret_proxy)
{
	struct proxy *proxy = calloc(1, sizeof(*proxy));
	int r;

	if (!proxy)
		return -ENOMEM;
	r = duplexes_new(loop, &proxy->duplexes);
	if (r < 0) {
		free(proxy);
		return r;
	}
	proxy->loop = loop;
	proxy->parts = *parts;
	config_ref(parts->config);
	TAILQ_INIT(&proxy->sessions);
	TAILQ_INIT(&proxy->streams);
	TAILQ_INIT(&proxy->https);
	TAILQ_INIT(&proxy->pending);
	uv_prepare_init(loop, &proxy->flush);
	uv_timer_init(loop, &proxy->sweep);
	proxy->flush.data = proxy->sweep.data = proxy;
	proxy->handles = 2;
	uv_prepare_start(&proxy->flush, on_flush);
	uv_timer_start(&proxy->sweep, on_sweep, SWEEP_INTERVAL, SWEEP_INTERVAL);
	proxy->listeners[0].fd = proxy->listeners[1].fd = -1;
	r = listener_open(proxy, &proxy->listeners[0], &parts->config->dns.virtual_v4,
			  HF_SOCKET_PROXY_TCP4);
	if (r < 0) {
		proxy_close(proxy);
		return r;
	}
	r = listener_open(proxy, &proxy->listeners[1], &parts->config->dns.virtual_v6,
			  HF_SOCKET_PROXY_TCP6);
	if (r < 0)
		log_warning("proxy", "no IPv6: %s", strerror(-r));
	*ret_proxy = proxy;
	return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct listener *listener = handle->data;
	struct proxy *proxy = handle->type == UV_POLL ? listener->proxy : handle->data;

	if (handle->type == UV_POLL)
		close(listener->fd);
	if (--proxy->handles)
		return;
	config_unref(proxy->parts.config);
	duplexes_free(proxy->duplexes);
	free(proxy);
}

void proxy_close(struct proxy *proxy)
{
	if (!proxy || proxy->closing)
		return;
	proxy->closing = true;
	sessions_close(proxy);
	streams_cut(proxy, NULL);
	https_close(proxy);
	for (int i = 0; i < LISTENERS; i++)
		if (proxy->listeners[i].fd >= 0)
			uv_close((uv_handle_t *)&proxy->listeners[i].poll, on_handle_closed);
	uv_close((uv_handle_t *)&proxy->flush, on_handle_closed);
	uv_close((uv_handle_t *)&proxy->sweep, on_handle_closed);
}

void proxy_wake(struct proxy *proxy)
{
	streams_wake(proxy);
}

void proxy_link_lost(struct proxy *proxy, struct link *link)
{
	streams_cut(proxy, link);
}

void proxy_statistics(const struct proxy *proxy, struct proxy_statistics *ret)
{
	struct duplexes_statistics duplexes;

	*ret = proxy->statistics;
	duplexes_statistics(proxy->duplexes, &duplexes);
	ret->spliced = duplexes.spliced;
	ret->no_pipes = duplexes.no_pipes;
	ret->pipes = duplexes.pipes;
}
