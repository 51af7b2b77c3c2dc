/* The parts, built from low floor to high and wired. */
#include "daemon/internal.h"

#include "base/log.h"
#include "conn/listen.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { QUEUE_SWEEP = 10000 /* ms */, APP_PORT = 80, APP_BACKLOG = 64 };

/* --- wiring: what a part tells upward --- */

static void on_steer_event(void *arg, const char *what, const char *detail)
{
	struct daemon *daemon = arg;

	log_info("steer", "%s: %s", what, detail);
	daemon_event(daemon, EVENT_PROGRAM, detail, "%s", what);
}

/* The choice of links changed: told once, after the callbacks of this turn of the loop. */
static void on_link_changed(void *arg, struct link *link, bool lost, const char *what)
{
	struct daemon *daemon = arg;

	daemon_event(daemon, EVENT_LINK, link_name(link), "%s", what);
	daemon->links_changed = true;
	daemon_changed(daemon);
	if (daemon->closing)
		return;
	if (lost && daemon->upstream)
		upstream_link_lost(daemon->upstream, link);
	if (lost && daemon->proxy)
		proxy_link_lost(daemon->proxy, link);
	if (lost && daemon->relay)
		relay_link_lost(daemon->relay, link);
}

static void on_queue_changed(void *arg, const char *id, enum request_state state, const char *what)
{
	struct daemon *daemon = arg;

	daemon->queue_changed = true;
	daemon_changed(daemon);
	daemon_event(daemon, EVENT_REQUEST, id, "%s: %s", request_state_name(state), what);
}

static void on_queue_stuck(void *arg)
{
	struct daemon *daemon = arg;

	log_warning("queue", "the disk takes no changes: nothing stored is sent, and nobody waits "
			     "behind it");
	daemon_changed(daemon);
}

static void on_exchange_event(void *arg, const char *id, const char *what)
{
	log_warning("exchange", "%s", what);
	daemon_event(arg, EVENT_REQUEST, id, "%s", what);
}

/* Who waits behind stored ones need wait no more, or must: looked at again. */
static void on_store_reopened(void *arg, bool empty)
{
	struct daemon *daemon = arg;
	struct store_statistics store;

	store_statistics(daemon->store, &store);
	if (empty && store.corrupt)
		daemon_event(daemon, EVENT_REQUEST, "store",
			     "the database was corrupt: put aside as %s, a new one is begun",
			     store.aside);
	else
		daemon_event(daemon, EVENT_REQUEST, "store", "the database can be used");
	daemon_changed(daemon);
}

static bool lists_port(const struct rule_match *match, uint16_t port)
{
	for (size_t i = 0; i < match->port_count; i++)
		if (match->port[i].first <= port && port <= match->port[i].last)
			return true;
	return false;
}

/* UDP port 443 is QUIC, which is refused so that clients use TCP: a rule must name the port. */
static bool relays_quic(const struct config *config)
{
	for (size_t i = 0; i < config->rule_count; i++) {
		const struct rule *rule = &config->rules[i];

		if (rule->match.protocol == PROTOCOL_UDP && rule->policy.action == ACTION_PROXY &&
		    lists_port(&rule->match, 443))
			return true;
	}
	return false;
}

/* What programs may pass to the relay. */
static void set_flags(struct daemon *daemon)
{
	uint32_t flags = links_any_online(daemon->links) ? HF_FLAG_ONLINE : 0;
	int r;

	if (relays_quic(daemon->config))
		flags |= HF_FLAG_RELAY_QUIC;
	r = steer_set_flags(daemon->steer, flags);
	if (r < 0)
		log_warning("daemon", "the programs' flags: %s", strerror(-r));
}

static void on_changed(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;

	if (daemon->links_changed) {
		daemon->links_changed = false;
		set_flags(daemon);
		resolver_links_changed(daemon->resolver);
		replay_links_changed(daemon->replay);
		proxy_wake(daemon->proxy);
		exchanges_wake(daemon->exchanges);
	}
	daemon->queue_changed = false;
	exchanges_backlog_changed(daemon->exchanges);
}

void daemon_changed(struct daemon *daemon)
{
	if (daemon->built && !daemon->closing)
		uv_timer_start(&daemon->changed, on_changed, 0, 0);
}

static void swept(void *arg, int status)
{
}

static void on_sweep(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;

	queue_sweep(daemon->queue, exchange_wall_ms(), swept, NULL);
}

const char *daemon_interface_of(const struct daemon *daemon, const struct ip *source)
{
	size_t count;
	const struct rtnl_address *addresses = rtnl_addresses(daemon->rtnl, &count);

	if (ip_is_loopback(source))
		return "lo";
	for (size_t i = 0; i < count; i++) {
		const struct rtnl_interface *interface;
		struct ip_prefix prefix = {.ip = addresses[i].ip, .bits = addresses[i].bits};

		if (ip_is_v4(&prefix.ip))
			prefix.bits = (uint8_t)(prefix.bits + 96);
		if (!ip_prefix_contains(&prefix, source))
			continue;
		interface = rtnl_interface_by_index(daemon->rtnl, addresses[i].ifindex);
		return interface ? interface->name : NULL;
	}
	return NULL;
}

static const char *interface_of(void *arg, const struct ip *source)
{
	return daemon_interface_of(arg, source);
}

static bool v4_of(void *arg, const struct ip *source, struct ip *ret_source)
{
	const struct daemon *daemon = arg;

	return rtnl_neighbour_v4(daemon->rtnl, source, ret_source) == 0;
}

static int resolve_for_link(void *arg, struct link *link, const char *name, links_resolve_cb cb,
			    void *cb_arg)
{
	struct daemon *daemon = arg;
	struct resolver_query *query;

	return resolver_lookup(daemon->resolver, link, name, cb, cb_arg, &query);
}

/* --- building --- */

_Static_assert(CONFIG_ALLOW_MAX == HF_ALLOW_MAX, "what passes the check fits the kernel's map");

static void link_settings(const struct config *config, struct steer_link *links)
{
	for (size_t i = 0; i < config->link_count; i++) {
		snprintf(links[i].name, sizeof(links[i].name), "%s", config->links[i].name);
		snprintf(links[i].interface, sizeof(links[i].interface), "%s",
			 config->links[i].interface);
		links[i].number = (unsigned)i + 1;
	}
}

static void allow_settings(const struct config *config, struct steer_allow *allow)
{
	for (size_t i = 0; i < config->guard.allow_count; i++)
		allow[i] = (struct steer_allow){
			.protocol = config->guard.allow[i].protocol,
			.local_port = config->guard.allow[i].local_port,
			.remote_port = config->guard.allow[i].remote_port,
			.has_remote = config->guard.allow[i].has_remote,
			.remote = config->guard.allow[i].remote,
		};
}

static int build_steer(struct daemon *daemon, char *ret_error, size_t error_size)
{
	static const enum hf_guard_mode modes[] = {
		[GUARD_ENFORCE] = HF_GUARD_ENFORCE,
		[GUARD_OBSERVE] = HF_GUARD_OBSERVE,
		[GUARD_OFF] = HF_GUARD_OFF,
	};
	const struct config *config = daemon->config;
	struct steer_link links[LINKS_MAX];
	struct steer_allow allow[HF_ALLOW_MAX];
	struct steer_settings settings = {
		.host = config->apps.host,
		.app_interfaces = (const char *const *)config->apps.interfaces,
		.exempt_uids = config->apps.exempt_uids,
		.exempt_uid_count = config->apps.exempt_uid_count,
		.links = links,
		.link_count = config->link_count,
		.allow = allow,
		.allow_count = config->guard.allow_count,
		.guard_mode = modes[config->guard.mode],
		.virtual_v4 = config->dns.virtual_v4,
		.virtual_v6 = config->dns.virtual_v6,
		.virtual_ttl = (uint32_t)(config->dns.virtual_ttl / 1000),
	};

	while (config->apps.interfaces && config->apps.interfaces[settings.app_interface_count])
		settings.app_interface_count++;
	link_settings(config, links);
	allow_settings(config, allow);
	return steer_new(daemon->loop, daemon->rtnl, &settings, on_steer_event, daemon, ret_error,
			 error_size, &daemon->steer);
}

static int build_queue(struct daemon *daemon)
{
	struct queue_limits limits = {
		.max_bytes = daemon->config->queue.max_bytes,
		.max_count = daemon->config->queue.max_count,
		.keep_response = daemon->config->queue.keep_response,
	};
	int r = queue_new(daemon->loop, daemon->store, &limits, &daemon->queue);

	if (r < 0)
		return r;
	queue_set_observer(daemon->queue, on_queue_changed, daemon);
	queue_set_stuck(daemon->queue, on_queue_stuck, daemon);
	return 0;
}

static int build_proxy(struct daemon *daemon)
{
	struct proxy_parts parts = {
		.config = daemon->config,
		.steer = daemon->steer,
		.links = daemon->links,
		.resolver = daemon->resolver,
		.upstream = daemon->upstream,
		.exchanges = daemon->exchanges,
		.interface_of = interface_of,
		.v4_of = v4_of,
		.network_arg = daemon,
	};

	return proxy_new(daemon->loop, &parts, &daemon->proxy);
}

static int build_relay(struct daemon *daemon)
{
	struct relay_parts parts = {
		.config = daemon->config,
		.steer = daemon->steer,
		.links = daemon->links,
		.resolver = daemon->resolver,
		.interface_of = interface_of,
		.network_arg = daemon,
	};

	return relay_new(daemon->loop, &parts, &daemon->relay);
}

static int app_listener(struct daemon *daemon, const struct ip_prefix *pool, enum hf_socket which,
			int *ret_fd)
{
	struct ip address = ip_prefix_nth(pool, 1);
	int fd, r = steer_take_listener(daemon->steer, which, &address, APP_PORT, &fd);

	if (r < 0)
		r = listen_transparent(&address, APP_PORT, APP_BACKLOG, &fd);
	if (r < 0)
		return r;
	r = steer_own_socket(daemon->steer, fd, 0);
	if (r == 0)
		r = steer_set_listener(daemon->steer, which, fd);
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static int build_app_listeners(struct daemon *daemon)
{
	int r = app_listener(daemon, &daemon->config->dns.virtual_v4, HF_SOCKET_API_TCP4,
			     &daemon->app_fd4);
	int r6 = app_listener(daemon, &daemon->config->dns.virtual_v6, HF_SOCKET_API_TCP6,
			      &daemon->app_fd6);

	if (r6 < 0)
		log_warning("daemon", "holdfast.internal has no IPv6: %s", strerror(-r6));
	return r;
}

#define STEP(call, what)                                                               \
	do {                                                                           \
		r = (call);                                                            \
		if (r < 0) {                                                           \
			snprintf(ret_error, error_size, "%s: %s", what, strerror(-r)); \
			return r;                                                      \
		}                                                                      \
	} while (0)

static int build(struct daemon *daemon, char *ret_error, size_t error_size)
{
	uv_loop_t *loop = daemon->loop;
	struct config *config = daemon->config;
	int r;

	STEP(rtnl_new(loop, &daemon->rtnl), "opening rtnetlink");
	r = build_steer(daemon, ret_error, error_size);
	if (r < 0)
		return r;
	r = store_open(loop, config->state_dir, &daemon->store);
	if (r < 0) {
		snprintf(ret_error, error_size, "%s: %s", config->state_dir,
			 r == -EBUSY	     ? "busy: another holdfastd uses it"
			 : r == -EMEDIUMTYPE ? "holdfast.db is of a newer holdfastd, or of another "
					       "program; it is left as it is"
					     : strerror(-r));
		return r;
	}
	daemon->listener = (struct store_listener){.reopened = on_store_reopened, .arg = daemon};
	store_listen(daemon->store, &daemon->listener);
	STEP(spools_new(loop, config->state_dir, config->queue.max_bytes, &daemon->spools),
	     "spools");
	STEP(daemon_build_programs(daemon), "programs");
	STEP(links_new(loop, config, daemon->rtnl, daemon->steer, on_link_changed, daemon,
		       &daemon->links),
	     "links");
	STEP(resolver_new(loop, config, daemon->links, daemon->steer, daemon->store,
			  &daemon->resolver),
	     "the resolver");
	links_set_resolve(daemon->links, resolve_for_link, daemon);
	STEP(build_queue(daemon), "the queue");
	STEP(upstream_new(loop, daemon->resolver, &daemon->upstream), "upstream");
	STEP(exchanges_new(loop, config, daemon->links, daemon->queue, daemon->upstream,
			   daemon->spools, &daemon->exchanges),
	     "exchanges");
	exchanges_set_observer(daemon->exchanges, on_exchange_event, daemon);
	STEP(build_proxy(daemon), "the proxy");
	STEP(build_relay(daemon), "the relay");
	STEP(replay_new(loop, config, daemon->queue, daemon->links, daemon->upstream,
			daemon->spools, &daemon->replay),
	     "replay");
	STEP(build_app_listeners(daemon), "the listener of holdfast.internal");
	set_flags(daemon);
	r = steer_start(daemon->steer, ret_error, error_size);
	if (r < 0)
		return r;
	links_start(daemon->links);
	return 0;
}

int daemon_new(uv_loop_t *loop, struct config *config, char *ret_error, size_t error_size,
	       struct daemon **ret_daemon)
{
	struct daemon *daemon = calloc(1, sizeof(*daemon));
	int r;

	if (!daemon)
		return -ENOMEM;
	daemon->loop = loop;
	daemon->config = config_ref(config);
	daemon->app_fd4 = daemon->app_fd6 = -1;
	daemon->started = exchange_wall_ms();
	daemon->started_at = uv_now(loop);
	uv_timer_init(loop, &daemon->sweep);
	uv_timer_init(loop, &daemon->changed);
	uv_timer_init(loop, &daemon->sampler.timer);
	daemon->sweep.data = daemon->changed.data = daemon->sampler.timer.data = daemon;
	daemon->handles = 3;
	r = build(daemon, ret_error, error_size);
	if (r < 0) {
		*ret_daemon = daemon;
		return r;
	}
	uv_timer_start(&daemon->sweep, on_sweep, 0, QUEUE_SWEEP);
	sampler_start(daemon);
	daemon->built = daemon->links_changed = true;
	daemon_changed(daemon);
	*ret_daemon = daemon;
	return 0;
}

/* --- taking down, in the reverse order --- */

static void finish(struct daemon *daemon)
{
	void (*closed)(void *) = daemon->closed;
	void *arg = daemon->closed_arg;

	if (daemon->steer)
		steer_close(daemon->steer);
	programs_free(daemon->programs);
	sampler_done(daemon);
	spools_close(daemon->spools);
	if (daemon->rtnl)
		rtnl_close(daemon->rtnl);
	config_unref(daemon->config);
	free(daemon);
	closed(arg);
}

static void on_store_closed(void *arg)
{
	struct daemon *daemon = arg;

	daemon->store = NULL;
	finish(daemon);
}

/* All that holds the store open is closed. */
static void release(void *arg)
{
	daemon_unhold(arg);
}

void daemon_unhold(struct daemon *daemon)
{
	if (--daemon->handles)
		return;
	if (daemon->store)
		store_close(daemon->store, on_store_closed, daemon);
	else
		on_store_closed(daemon);
}

static void on_handle_closed(uv_handle_t *handle)
{
	release(handle->data);
}

void daemon_close(struct daemon *daemon, void (*closed)(void *arg), void *arg)
{
	if (daemon->closing)
		return;
	daemon->closing = true;
	daemon->closed = closed;
	daemon->closed_arg = arg;
	explain_close(daemon);
	/* A start that failed opens nothing that was closed before it. */
	if (daemon->steer)
		steer_stop(daemon->steer,
			   daemon->built && daemon->config->when_stopped == STOP_RELEASE);
	if (daemon->replay)
		replay_close(daemon->replay);
	proxy_close(daemon->proxy);
	relay_close(daemon->relay);
	exchanges_close(daemon->exchanges);
	upstream_close(daemon->upstream);
	if (daemon->links)
		links_close(daemon->links);
	if (daemon->resolver)
		resolver_close(daemon->resolver);
	if (daemon->queue)
		queue_close(daemon->queue);
	if (daemon->app_fd4 >= 0)
		close(daemon->app_fd4);
	if (daemon->app_fd6 >= 0)
		close(daemon->app_fd6);
	if (daemon->programs) {
		daemon->handles++;
		programs_stop(daemon->programs, release, daemon);
	}
	uv_close((uv_handle_t *)&daemon->sweep, on_handle_closed);
	uv_close((uv_handle_t *)&daemon->changed, on_handle_closed);
	uv_close((uv_handle_t *)&daemon->sampler.timer, on_handle_closed);
}
