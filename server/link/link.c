#include "base/log.h"
#include "link/internal.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BIT(state) (1u << (state))
#define FROM_BELOW (BIT(LINK_ABSENT) | BIT(LINK_DOWN) | BIT(LINK_CONFIGURING) | BIT(LINK_DISABLED))

/* From which states each may be entered. Events of the kernel come in bursts, so a link may
 * jump upward over states that it went through in one; probes alone lead to LIMITED. */
static const uint32_t may_come_from[LINK_STATE_COUNT] = {
	[LINK_ABSENT] = ~BIT(LINK_ABSENT),
	[LINK_DOWN] = ~BIT(LINK_DOWN),
	[LINK_CONFIGURING] = ~BIT(LINK_CONFIGURING),
	[LINK_PROBING] = FROM_BELOW,
	[LINK_ONLINE] = FROM_BELOW | BIT(LINK_PROBING) | BIT(LINK_LIMITED),
	[LINK_LIMITED] = BIT(LINK_PROBING) | BIT(LINK_ONLINE),
	[LINK_DISABLED] = ~BIT(LINK_DISABLED),
};

const char *link_state_name(enum link_state state)
{
#define LINK_STATE_NAME(id, name) [LINK_##id] = name,
	static const char *const names[LINK_STATE_COUNT] = {LINK_STATES(LINK_STATE_NAME)};

	return names[state];
}

static int64_t wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool link_has_probe(const struct link *link)
{
	return link->config->probe.url || link->config->probe.connect;
}

static bool is_configured(enum link_state state)
{
	return state == LINK_PROBING || state == LINK_ONLINE || state == LINK_LIMITED;
}

void link_note(struct link *link, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(link->what, sizeof(link->what), format, args);
	va_end(args);
	link->changed = true;
}

void link_stop_probe(struct link *link)
{
	if (link->probe)
		probe_cancel(link->probe);
	link->probe = NULL;
	uv_timer_stop(&link->timer);
}

static void start_probe(struct link *link);

static void schedule(struct link *link, uint64_t ms)
{
	uv_timer_start(&link->timer, link_on_timer, ms, 0);
}

/* A probe as soon as there may be one: one in flight, LINK_PROBE_GAP apart. */
static void probe_soon(struct link *link)
{
	uint64_t next = link->probe_started + LINK_PROBE_GAP, now = uv_now(link->links->loop);

	if (link->probe)
		return;
	if (link->probe_started && next > now)
		schedule(link, next - now);
	else
		start_probe(link);
}

static void forget_evidence(struct link *link)
{
	link->suspect = false;
	link->reported[0] = '\0';
	link->good_run = link->bad_run = 0;
	link->last_good = 0;
}

/* The one place that writes the state. */
static void link_enter(struct link *link, enum link_state state, const char *evidence)
{
	enum link_state old = link->state;

	if (!(may_come_from[state] & BIT(old))) {
		log_error("link", "%s: impossible: %s -> %s", link->config->name,
			  link_state_name(old), link_state_name(state));
		abort();
	}
	link->state = state;
	link->since = wall_ms();
	snprintf(link->evidence, sizeof(link->evidence), "%s", evidence);
	log_info("link", "%s: %s -> %s: %s", link->config->name, link_state_name(old),
		 link_state_name(state), evidence);
	link->lost |= old == LINK_ONLINE;
	link_note(link, "%s -> %s: %s", link_state_name(old), link_state_name(state), evidence);
	if (!is_configured(state)) {
		link_stop_probe(link);
		forget_evidence(link);
	}
	if (state == LINK_PROBING) {
		forget_evidence(link);
		probe_soon(link);
	}
}

/* --- what probes say --- */

static void judge_bad(struct link *link, enum probe_outcome outcome, const char *evidence)
{
	uint32_t fall = link->config->probe.fall;
	char text[320];

	link->good_run = 0;
	link->bad_run++;
	link->probes_bad++;
	link->last_good = 0;
	link->suspect = true;
	if (link->reported[0])
		snprintf(text, sizeof(text), "%s; %s (live traffic)", evidence, link->reported);
	else
		snprintf(text, sizeof(text), "%s", evidence);
	if (link->state == LINK_LIMITED)
		snprintf(link->evidence, sizeof(link->evidence), "%s", evidence);
	else if (outcome == PROBE_PORTAL || link->reported[0] || link->bad_run >= fall)
		link_enter(link, LINK_LIMITED, text);
	link->reported[0] = '\0';
}

static void judge_good(struct link *link, const char *evidence)
{
	link->bad_run = 0;
	link->good_run++;
	link->probes_good++;
	link->last_good = uv_now(link->links->loop);
	link->suspect = false;
	link->reported[0] = '\0';
	if (link->state == LINK_ONLINE)
		snprintf(link->evidence, sizeof(link->evidence), "%s", evidence);
	else if (link->good_run >= link->config->probe.rise)
		link_enter(link, LINK_ONLINE, evidence);
}

static void schedule_next(struct link *link)
{
	uint64_t interval = link->config->probe.interval;
	bool settled = link->state == LINK_LIMITED ? !link->good_run : !link->bad_run;

	if (link->state == LINK_PROBING)
		settled = false;
	schedule(link, settled || interval < LINK_PROBE_QUICK ? interval : LINK_PROBE_QUICK);
}

static void on_probe_done(void *arg, enum probe_outcome outcome, const char *evidence)
{
	struct link *link = arg;

	link->probe = NULL;
	if (outcome == PROBE_GOOD)
		judge_good(link, evidence);
	else
		judge_bad(link, outcome, evidence);
	schedule_next(link);
	links_tell(link->links);
}

static int on_probe_resolve(void *arg, const char *name, links_resolve_cb cb, void *cb_arg)
{
	struct link *link = arg;
	struct links *links = link->links;

	if (!links->resolve)
		return -ENOTSUP;
	return links->resolve(links->resolve_arg, link, name, cb, cb_arg);
}

static int on_probe_prepare(void *arg, int fd)
{
	return link_own_socket(arg, fd);
}

static void start_probe(struct link *link)
{
	static const struct probe_ops ops = {on_probe_resolve, on_probe_prepare, on_probe_done};
	struct links *links = link->links;
	int r;

	uv_timer_stop(&link->timer);
	link->probe_started = uv_now(links->loop);
	r = probe_start(links->loop, &link->config->probe, &ops, link, &link->probe);
	if (r < 0) {
		log_error("link", "%s: probe: %s", link->config->name, strerror(-r));
		schedule(link, LINK_PROBE_QUICK);
	}
}

void link_on_timer(uv_timer_t *timer)
{
	struct link *link = timer->data;

	if (!link_has_probe(link)) {
		link->suspect = false;
		link->reported[0] = '\0';
		link_note(link, "no longer under suspicion");
		links_tell(link->links);
	} else if (is_configured(link->state) && !link->probe) {
		start_probe(link);
	}
}

/* --- what the kernel says --- */

static bool is_ours(const struct rtnl_route *route)
{
	return route->table >= STEER_TABLE_STEER && route->table <= STEER_TABLE_LAST;
}

static bool has_default_route(const struct rtnl *rtnl, int ifindex, int family)
{
	size_t count;
	const struct rtnl_route *routes = rtnl_routes(rtnl, &count);

	for (size_t i = 0; i < count; i++)
		if (routes[i].oif == ifindex && routes[i].family == family &&
		    !routes[i].has_destination && routes[i].type == RTN_UNICAST &&
		    !is_ours(&routes[i]))
			return true;
	return false;
}

static bool has_address(const struct rtnl *rtnl, int ifindex, bool v4)
{
	size_t count;
	const struct rtnl_address *addresses = rtnl_addresses(rtnl, &count);

	for (size_t i = 0; i < count; i++)
		if (addresses[i].ifindex == ifindex && addresses[i].usable &&
		    ip_is_v4(&addresses[i].ip) == v4 && !ip_is_link_local(&addresses[i].ip))
			return true;
	return false;
}

static void read_families(struct link *link)
{
	const struct rtnl *rtnl = link->links->rtnl;

	link->v4 = has_address(rtnl, link->ifindex, true) &&
		   has_default_route(rtnl, link->ifindex, AF_INET);
	link->v6 = has_address(rtnl, link->ifindex, false) &&
		   has_default_route(rtnl, link->ifindex, AF_INET6);
}

static void move_to(struct link *link, enum link_state state, const char *evidence)
{
	if (link->state != state)
		link_enter(link, state, evidence);
}

static void update_configured(struct link *link, bool families_changed)
{
	char text[64];

	snprintf(text, sizeof(text), "address and default route: %s%s%s", link->v4 ? "IPv4" : "",
		 link->v4 && link->v6 ? ", " : "", link->v6 ? "IPv6" : "");
	if (!is_configured(link->state)) {
		link_enter(link, link_has_probe(link) ? LINK_PROBING : LINK_ONLINE, text);
	} else if (families_changed) {
		link_note(link, "%s", text);
		if (link_has_probe(link))
			probe_soon(link);
	}
}

void link_update(struct link *link)
{
	const struct rtnl_interface *interface =
		rtnl_interface_by_name(link->links->rtnl, link->config->interface);
	int ifindex = interface ? interface->index : 0;
	bool v4 = link->v4, v6 = link->v6;

	/* an interface that was made anew under the same name is another one */
	if (ifindex != link->ifindex && is_configured(link->state))
		link_enter(link, LINK_ABSENT, "interface gone");
	link->ifindex = ifindex;
	link->v4 = link->v6 = false;
	if (ifindex)
		read_families(link);
	if (!link->enabled)
		move_to(link, LINK_DISABLED, "disabled");
	else if (!interface)
		move_to(link, LINK_ABSENT, "interface gone");
	else if (!interface->carrier)
		move_to(link, LINK_DOWN,
			is_configured(link->state) ? "carrier lost" : "no carrier");
	else if (!link->v4 && !link->v6)
		move_to(link, LINK_CONFIGURING, "no usable address with a default route");
	else
		update_configured(link, v4 != link->v4 || v6 != link->v6);
}

/* --- what live traffic says --- */

void link_report_failure(struct link *link, const char *what)
{
	if (link->state != LINK_ONLINE)
		return;
	if (!link->suspect)
		log_info("link", "%s: under suspicion: %s", link->config->name, what);
	link->suspect = true;
	snprintf(link->reported, sizeof(link->reported), "%s", what);
	if (link_has_probe(link))
		probe_soon(link);
	else
		schedule(link, LINK_SUSPECT_TIME);
}

void link_report_success(struct link *link)
{
	/* with a probe, the probe decides: a portal answers live traffic too */
	if (!link->suspect || link_has_probe(link))
		return;
	link->suspect = false;
	link->reported[0] = '\0';
	uv_timer_stop(&link->timer);
}

void link_count_bytes(struct link *link, uint64_t in, uint64_t out)
{
	link->bytes_in += in;
	link->bytes_out += out;
}

/* --- what others see --- */

const char *link_name(const struct link *link)
{
	return link->config->name;
}

unsigned link_number(const struct link *link)
{
	return link->index + 1;
}

enum link_state link_state(const struct link *link)
{
	return link->state;
}

bool link_is_proven(const struct link *link)
{
	const struct probe_config *probe = &link->config->probe;

	if (link->state != LINK_ONLINE || link->suspect)
		return false;
	if (!link_has_probe(link))
		return true;
	return link->last_good &&
	       uv_now(link->links->loop) - link->last_good <= 2 * probe->interval + probe->timeout;
}

size_t link_dns_servers(const struct link *link, const struct ip **ret_servers)
{
	bool own = link->config->dns_count;

	*ret_servers = own ? link->config->dns : link->system_dns;
	return own ? link->config->dns_count : link->system_dns_count;
}

bool link_has_family(const struct link *link, int family)
{
	return family == AF_INET ? link->v4 : link->v6;
}

int link_own_socket(struct link *link, int fd)
{
	return steer_own_socket(link->links->steer, fd, link_number(link));
}

void link_info(const struct link *link, struct link_info *ret_info)
{
	*ret_info = (struct link_info){
		.state = link->state,
		.priority = link->priority,
		.enabled = link->enabled,
		.metered = link->metered,
		.suspect = link->suspect,
		.since = link->since,
		.bytes_in = link->bytes_in,
		.bytes_out = link->bytes_out,
		.probes_good = link->probes_good,
		.probes_bad = link->probes_bad,
	};
	snprintf(ret_info->name, sizeof(ret_info->name), "%s", link->config->name);
	snprintf(ret_info->interface, sizeof(ret_info->interface), "%s", link->config->interface);
	snprintf(ret_info->evidence, sizeof(ret_info->evidence), "%s", link->evidence);
}
