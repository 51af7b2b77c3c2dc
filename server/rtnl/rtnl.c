#include "rtnl/rtnl.h"
#include "base/limits.h"
#include "base/log.h"
#include "rtnl/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { SUBSCRIBERS_MAX = 8, MONITOR_BUFFER = 1 << 20 };

/*
 * Any event makes the view dirty; a short time later everything is read again. So an
 * event that was lost to an overrun, or that is not understood, cannot leave the view
 * wrong.
 */
struct rtnl {
	struct asker asker;
	struct view view;
	uv_loop_t *loop; /* NULL: nobody listens */
	struct mnl_socket *monitor;
	uv_poll_t poll;
	uv_timer_t settle;
	unsigned handles; /* not closed yet */
	bool closing;
	struct {
		rtnl_changed_cb cb;
		void *arg;
	} subscribers[SUBSCRIBERS_MAX];
	size_t subscriber_count;
};

static const unsigned monitor_groups[] = {
	RTNLGRP_LINK,	    RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
	RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE,	 RTNLGRP_IPV6_RULE,   RTNLGRP_TC,
};

static int open_monitor(struct mnl_socket **ret_monitor)
{
	struct mnl_socket *monitor = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int size = MONITOR_BUFFER, r;

	if (!monitor)
		return -errno;
	if (mnl_socket_bind(monitor, 0, MNL_SOCKET_AUTOPID) < 0)
		goto fail;
	for (size_t i = 0; i < sizeof(monitor_groups) / sizeof(*monitor_groups); i++) {
		int group = (int)monitor_groups[i];

		/* A kernel without IPv6 still has its groups. */
		if (mnl_socket_setsockopt(monitor, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)))
			goto fail;
	}
	/* An overrun is mended by the next reading; a larger buffer makes it rare. */
	(void)setsockopt(mnl_socket_get_fd(monitor), SOL_SOCKET, SO_RCVBUFFORCE, &size,
			 sizeof(size));
	*ret_monitor = monitor;
	return 0;
fail:
	r = -errno;
	mnl_socket_close(monitor);
	return r;
}

static void on_settled(uv_timer_t *timer)
{
	struct rtnl *rtnl = timer->data;
	int r;

	if (rtnl->closing)
		return;
	r = rtnl_refresh(rtnl);
	if (r < 0) {
		log_warning("rtnl", "cannot read the network state: %s", strerror(-r));
		(void)uv_timer_start(&rtnl->settle, on_settled, RTNL_SETTLE_TIME * 10, 0);
		return;
	}
	for (size_t i = 0; i < rtnl->subscriber_count && !rtnl->closing; i++)
		rtnl->subscribers[i].cb(rtnl->subscribers[i].arg);
}

/* The contents do not matter; reading to the end keeps the socket quiet. */
static void on_monitor(uv_poll_t *poll, int status, int events)
{
	struct rtnl *rtnl = poll->data;
	char bytes[4096];
	ssize_t n;

	if (rtnl->closing)
		return;
	do {
		n = recv(poll->io_watcher.fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC);
	} while (n > 0 || (n < 0 && (errno == ENOBUFS || errno == EINTR)));
	if (!uv_is_active((uv_handle_t *)&rtnl->settle))
		(void)uv_timer_start(&rtnl->settle, on_settled, RTNL_SETTLE_TIME, 0);
}

static void rtnl_free(struct rtnl *rtnl)
{
	view_done(&rtnl->view);
	asker_done(&rtnl->asker);
	if (rtnl->monitor)
		mnl_socket_close(rtnl->monitor);
	free(rtnl);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct rtnl *rtnl = handle->data;

	if (--rtnl->handles == 0)
		rtnl_free(rtnl);
}

static int start_monitor(struct rtnl *rtnl)
{
	int r = open_monitor(&rtnl->monitor);

	if (r < 0)
		return r;
	r = uv_timer_init(rtnl->loop, &rtnl->settle);
	if (r < 0)
		return r;
	rtnl->settle.data = rtnl;
	rtnl->handles++;
	r = uv_poll_init(rtnl->loop, &rtnl->poll, mnl_socket_get_fd(rtnl->monitor));
	if (r < 0)
		return r;
	rtnl->poll.data = rtnl;
	rtnl->handles++;
	return uv_poll_start(&rtnl->poll, UV_READABLE, on_monitor);
}

int rtnl_new(uv_loop_t *loop, struct rtnl **ret_rtnl)
{
	struct rtnl *rtnl = calloc(1, sizeof(*rtnl));
	int r;

	if (!rtnl)
		return -ENOMEM;
	rtnl->loop = loop;
	r = asker_init(&rtnl->asker);
	/* Listen before reading, so that nothing falls between. */
	if (r == 0 && loop)
		r = start_monitor(rtnl);
	if (r == 0)
		r = rtnl_refresh(rtnl);
	if (r < 0) {
		rtnl_close(rtnl);
		return r;
	}
	*ret_rtnl = rtnl;
	return 0;
}

void rtnl_close(struct rtnl *rtnl)
{
	if (!rtnl || rtnl->closing)
		return;
	rtnl->closing = true;
	if (!rtnl->handles) {
		rtnl_free(rtnl);
		return;
	}
	uv_close((uv_handle_t *)&rtnl->settle, on_handle_closed);
	if (rtnl->handles > 1)
		uv_close((uv_handle_t *)&rtnl->poll, on_handle_closed);
}

int rtnl_subscribe(struct rtnl *rtnl, rtnl_changed_cb cb, void *arg)
{
	if (rtnl->subscriber_count == SUBSCRIBERS_MAX)
		return -ENOSPC;
	rtnl->subscribers[rtnl->subscriber_count].cb = cb;
	rtnl->subscribers[rtnl->subscriber_count++].arg = arg;
	return 0;
}

void rtnl_unsubscribe(struct rtnl *rtnl, rtnl_changed_cb cb, void *arg)
{
	for (size_t i = 0; i < rtnl->subscriber_count; i++) {
		if (rtnl->subscribers[i].cb != cb || rtnl->subscribers[i].arg != arg)
			continue;
		rtnl->subscriber_count--;
		memmove(&rtnl->subscribers[i], &rtnl->subscribers[i + 1],
			(rtnl->subscriber_count - i) * sizeof(rtnl->subscribers[0]));
		return;
	}
}

int rtnl_refresh(struct rtnl *rtnl)
{
	struct view view = {0};
	int r = view_read(&view, &rtnl->asker);

	if (r < 0) {
		view_done(&view);
		return r;
	}
	view_done(&rtnl->view);
	rtnl->view = view;
	return 0;
}

int rtnl_refresh_statistics(struct rtnl *rtnl)
{
	struct view view = {0};
	int r = view_read_interfaces(&view, &rtnl->asker);

	if (r < 0) {
		view_done(&view);
		return r;
	}
	free(rtnl->view.interfaces.items);
	rtnl->view.interfaces = view.interfaces;
	return 0;
}

const struct rtnl_interface *rtnl_interfaces(const struct rtnl *rtnl, size_t *ret_count)
{
	*ret_count = rtnl->view.interfaces.count;
	return rtnl->view.interfaces.items;
}

const struct rtnl_interface *rtnl_interface_by_name(const struct rtnl *rtnl, const char *name)
{
	const struct rtnl_interface *interfaces = rtnl->view.interfaces.items;

	for (size_t i = 0; i < rtnl->view.interfaces.count; i++)
		if (!strcmp(interfaces[i].name, name))
			return &interfaces[i];
	return NULL;
}

const struct rtnl_interface *rtnl_interface_by_index(const struct rtnl *rtnl, int index)
{
	const struct rtnl_interface *interfaces = rtnl->view.interfaces.items;

	for (size_t i = 0; i < rtnl->view.interfaces.count; i++)
		if (interfaces[i].index == index)
			return &interfaces[i];
	return NULL;
}

const struct rtnl_address *rtnl_addresses(const struct rtnl *rtnl, size_t *ret_count)
{
	*ret_count = rtnl->view.addresses.count;
	return rtnl->view.addresses.items;
}

const struct rtnl_route *rtnl_routes(const struct rtnl *rtnl, size_t *ret_count)
{
	*ret_count = rtnl->view.routes.count;
	return rtnl->view.routes.items;
}

const struct rtnl_rule *rtnl_rules(const struct rtnl *rtnl, size_t *ret_count)
{
	*ret_count = rtnl->view.rules.count;
	return rtnl->view.rules.items;
}

bool rtnl_is_device_address(const struct rtnl *rtnl, const struct ip *ip)
{
	const struct rtnl_address *addresses = rtnl->view.addresses.items;

	if (ip_is_loopback(ip))
		return true;
	for (size_t i = 0; i < rtnl->view.addresses.count; i++)
		if (ip_equal(&addresses[i].ip, ip))
			return true;
	return false;
}

int rtnl_rule_add(struct rtnl *rtnl, const struct rtnl_rule *rule)
{
	return request_rule_add(&rtnl->asker, rule);
}

int rtnl_rule_delete(struct rtnl *rtnl, const struct rtnl_rule *rule)
{
	return request_rule_delete(&rtnl->asker, rule);
}

int rtnl_route_add(struct rtnl *rtnl, const struct rtnl_route *route)
{
	return request_route_add(&rtnl->asker, route);
}

int rtnl_route_delete(struct rtnl *rtnl, const struct rtnl_route *route)
{
	return request_route_delete(&rtnl->asker, route);
}

int rtnl_count_filters(struct rtnl *rtnl, int ifindex, uint32_t parent, size_t *ret_count)
{
	return request_count_filters(&rtnl->asker, ifindex, parent, ret_count);
}

int rtnl_has_qdisc(struct rtnl *rtnl, int ifindex, const char *kind, bool *ret_has)
{
	return request_has_qdisc(&rtnl->asker, ifindex, kind, ret_has);
}

int rtnl_neighbour_v4(struct rtnl *rtnl, const struct ip *ip, struct ip *ret_ip)
{
	return neighbour_v4_of(&rtnl->asker, ip, ret_ip);
}
