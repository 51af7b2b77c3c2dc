/* Policy rules and tables: the wanted ones, compared with the kernel's. */
#include "steer/internal.h"

#include "base/log.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

static const int families[] = {AF_INET, AF_INET6};

static int add_rule(struct rule_list *list, const struct rtnl_rule *rule)
{
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? list->capacity * 2 : 32;
		struct rtnl_rule *items = realloc(list->items, capacity * sizeof(*items));

		if (!items)
			return -ENOMEM;
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->count] = *rule;
	list->items[list->count++].protocol = STEER_PROTOCOL;
	return 0;
}

static bool same_key(const struct rtnl_route *a, const struct rtnl_route *b)
{
	return a->family == b->family && a->table == b->table && a->metric == b->metric &&
	       a->has_destination == b->has_destination &&
	       (!a->has_destination || (a->destination.bits == b->destination.bits &&
					ip_equal(&a->destination.ip, &b->destination.ip)));
}

/* The kernel holds one route for a table, destination and metric as we ask for them (the
 * second would replace the first, for ever): the first one is wanted. */
static int add_route(struct route_list *list, const struct rtnl_route *route)
{
	for (size_t i = 0; i < list->count; i++)
		if (same_key(&list->items[i], route))
			return 0;
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? list->capacity * 2 : 32;
		struct rtnl_route *items = realloc(list->items, capacity * sizeof(*items));

		if (!items)
			return -ENOMEM;
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->count] = *route;
	list->items[list->count++].protocol = STEER_PROTOCOL;
	return 0;
}

static int want_mark_rules(const struct wanted *wanted, int family, struct rule_list *list)
{
	struct rtnl_rule own = {.family = family,
				.priority = STEER_RULE_OWN,
				.table = RT_TABLE_MAIN,
				.mark = HF_MARK_OWN,
				.mark_mask = HF_MARK_OWN};
	int r = 0;

	for (size_t i = 0; i < wanted->link_count && r == 0; i++) {
		struct rtnl_rule rule = {
			.family = family, .priority = STEER_RULE_LINK, .mark_mask = HF_MARK_MASK};

		rule.mark = HF_MARK_OWN | wanted->links[i].number << HF_MARK_LINK_SHIFT;
		rule.table = STEER_TABLE_LINK + wanted->links[i].number;
		r = add_rule(list, &rule);
	}
	if (r == 0)
		r = add_rule(list, &own);
	for (size_t i = 0; i < wanted->exempt_uid_count && r == 0; i++) {
		struct rtnl_rule rule = {.family = family,
					 .priority = STEER_RULE_EXEMPT,
					 .table = RT_TABLE_MAIN,
					 .has_uid_range = true,
					 .uid_first = wanted->exempt_uids[i],
					 .uid_last = wanted->exempt_uids[i]};

		r = add_rule(list, &rule);
	}
	return r;
}

/* from LINK_ADDRESS: replies and bound sockets of a link; without them the reverse-path
 * look-up of the daemon's own replies finds the steering route and drops them. */
static int want_source_rules(struct steer *steer, struct rule_list *list)
{
	size_t count;
	const struct rtnl_address *addresses = rtnl_addresses(steer->rtnl, &count);
	int r = 0;

	for (size_t i = 0; i < steer->wanted.link_count; i++) {
		const struct steer_link *link = &steer->wanted.links[i];
		const struct rtnl_interface *interface =
			rtnl_interface_by_name(steer->rtnl, link->interface);

		for (size_t n = 0; interface && n < count && r == 0; n++) {
			struct rtnl_rule rule = {.priority = STEER_RULE_SOURCE, .has_source = true};

			if (addresses[n].ifindex != interface->index)
				continue;
			rule.family = ip_is_v4(&addresses[n].ip) ? AF_INET : AF_INET6;
			rule.table = STEER_TABLE_LINK + link->number;
			rule.source.ip = addresses[n].ip;
			rule.source.bits = 128;
			r = add_rule(list, &rule);
		}
	}
	return r;
}

static int want_steer_rules(const struct wanted *wanted, int family, struct rule_list *list)
{
	struct rtnl_rule connected = {
		.family = family, .priority = STEER_RULE_CONNECTED, .table = STEER_TABLE_CONNECTED};
	struct rtnl_rule host = {.family = family,
				 .priority = STEER_RULE_HOST,
				 .table = STEER_TABLE_STEER,
				 .iif = "lo"};
	int r = add_rule(list, &connected);

	for (size_t i = 0; i < wanted->app_interface_count && r == 0; i++) {
		struct rtnl_rule rule = {
			.family = family, .priority = STEER_RULE_APP, .table = STEER_TABLE_STEER};

		memcpy(rule.iif, wanted->app_interfaces[i], sizeof(rule.iif));
		r = add_rule(list, &rule);
	}
	if (r == 0 && wanted->host)
		r = add_rule(list, &host);
	return r;
}

/* The source is the same whatever link there is: it is a part of a request's identity. */
static int want_local_route(struct steer *steer, int family, struct route_list *list)
{
	const struct rtnl_interface *lo = rtnl_interface_by_name(steer->rtnl, "lo");
	struct rtnl_route route = {.family = family,
				   .table = STEER_TABLE_STEER,
				   .type = RTN_LOCAL,
				   .scope = RT_SCOPE_HOST,
				   .has_source = true,
				   .metric = 1};

	if (!lo)
		return -ENODEV;
	route.oif = lo->index;
	if (ip_parse(family == AF_INET ? "127.0.0.1" : "::1", &route.source) < 0)
		return -EINVAL;
	return add_route(list, &route);
}

/* Ends each link's table, so that a packet meant for one link never leaves by another. */
static int want_unreachable(const struct steer_link *link, int family, struct route_list *list)
{
	struct rtnl_route route = {.family = family,
				   .table = STEER_TABLE_LINK + link->number,
				   .type = RTN_UNREACHABLE,
				   .metric = UINT32_MAX};

	return add_route(list, &route);
}

/* Where a route of main belongs: to a link's table, to the connected one, or nowhere (0).
 * Only what the kernel connects is taken for direct: "0.0.0.0/1 dev vpn0" is an escape. */
static uint32_t table_for(struct steer *steer, const struct rtnl_route *route)
{
	const struct rtnl_interface *interface = rtnl_interface_by_index(steer->rtnl, route->oif);

	if (!interface || !strcmp(interface->name, "lo"))
		return 0;
	for (size_t i = 0; i < steer->wanted.link_count; i++)
		if (!strcmp(steer->wanted.links[i].interface, interface->name))
			return STEER_TABLE_LINK + steer->wanted.links[i].number;
	if (!route->has_destination)
		return 0;
	if (steer_is_app(steer, interface->name) ||
	    (route->protocol == RTPROT_KERNEL && !route->has_gateway))
		return STEER_TABLE_CONNECTED;
	return 0;
}

static int want_copies(struct steer *steer, struct route_list *list)
{
	size_t count;
	const struct rtnl_route *routes = rtnl_routes(steer->rtnl, &count);
	int r = 0;

	for (size_t i = 0; i < count && r == 0; i++) {
		struct rtnl_route copy = routes[i];

		if (copy.table != RT_TABLE_MAIN || copy.type != RTN_UNICAST)
			continue;
		copy.table = table_for(steer, &copy);
		if (copy.table)
			r = add_route(list, &copy);
	}
	return r;
}

static int want(struct steer *steer, struct rule_list *rules, struct route_list *routes)
{
	int r = want_copies(steer, routes);

	for (size_t f = 0; f < 2 && r == 0; f++) {
		r = want_local_route(steer, families[f], routes);
		for (size_t i = 0; i < steer->wanted.link_count && r == 0; i++)
			r = want_unreachable(&steer->wanted.links[i], families[f], routes);
		if (r == 0)
			r = want_mark_rules(&steer->wanted, families[f], rules);
		if (r == 0)
			r = want_steer_rules(&steer->wanted, families[f], rules);
	}
	return r < 0 ? r : want_source_rules(steer, rules);
}

static bool same_rule(const struct rtnl_rule *a, const struct rtnl_rule *b)
{
	return a->family == b->family && a->priority == b->priority && a->table == b->table &&
	       a->protocol == b->protocol && a->mark == b->mark && a->mark_mask == b->mark_mask &&
	       !strcmp(a->iif, b->iif) && a->has_source == b->has_source &&
	       (!a->has_source ||
		(a->source.bits == b->source.bits && ip_equal(&a->source.ip, &b->source.ip))) &&
	       a->has_uid_range == b->has_uid_range &&
	       (!a->has_uid_range || (a->uid_first == b->uid_first && a->uid_last == b->uid_last));
}

static bool same_route(const struct rtnl_route *a, const struct rtnl_route *b)
{
	/* IPv6 shows lo as the interface of an unreachable route, IPv4 none. */
	return same_key(a, b) && a->type == b->type && a->protocol == b->protocol &&
	       (a->type == RTN_UNREACHABLE || a->oif == b->oif) &&
	       a->has_gateway == b->has_gateway &&
	       (!a->has_gateway || ip_equal(&a->gateway, &b->gateway)) &&
	       a->has_source == b->has_source &&
	       (!a->has_source || ip_equal(&a->source, &b->source));
}

static bool has_rule(const struct rtnl_rule *rules, size_t count, const struct rtnl_rule *rule)
{
	for (size_t i = 0; i < count; i++)
		if (same_rule(&rules[i], rule))
			return true;
	return false;
}

static bool has_route(const struct rtnl_route *routes, size_t count, const struct rtnl_route *route,
		      bool key_only)
{
	for (size_t i = 0; i < count; i++)
		if (key_only ? same_key(&routes[i], route) : same_route(&routes[i], route))
			return true;
	return false;
}

static bool is_our_table(uint32_t table)
{
	return table >= STEER_TABLE_STEER && table <= STEER_TABLE_LAST;
}

static bool is_our_rule(const struct rtnl_rule *rule)
{
	return rule->protocol == STEER_PROTOCOL && rule->priority >= STEER_RULE_LINK &&
	       rule->priority <= STEER_RULE_HOST;
}

/* A device may have no IPv6, as a whole or on one interface. */
static int tolerate(struct steer *steer, int family, int r)
{
	if (r == 0 || family != AF_INET6)
		return r;
	if (!steer->v6_warned)
		log_warning("steer", "going on without a rule or route for IPv6: %s", strerror(-r));
	steer->v6_warned = true;
	return 0;
}

static int compare_routes(struct steer *steer, const struct route_list *wanted)
{
	size_t count;
	const struct rtnl_route *now = rtnl_routes(steer->rtnl, &count);
	int first = 0;

	for (size_t i = 0; i < wanted->count; i++) {
		const struct rtnl_route *route = &wanted->items[i];
		int r;

		if (has_route(now, count, route, false))
			continue;
		r = tolerate(steer, route->family, rtnl_route_add(steer->rtnl, route));
		if (r < 0 && !first)
			first = r;
		else if (r == 0 &&
			 has_route(steer->routes.items, steer->routes.count, route, false))
			steer_tell(steer, "route restored", "table %u", route->table);
	}
	for (size_t i = 0; i < count; i++)
		if (is_our_table(now[i].table) &&
		    !has_route(wanted->items, wanted->count, &now[i], false) &&
		    /* one that was replaced is gone; deleting by key would hit the new one */
		    !has_route(wanted->items, wanted->count, &now[i], true))
			(void)rtnl_route_delete(steer->rtnl, &now[i]);
	return first;
}

static int compare_rules(struct steer *steer, const struct rule_list *wanted)
{
	size_t count;
	const struct rtnl_rule *now = rtnl_rules(steer->rtnl, &count);
	int first = 0;

	for (size_t i = 0; i < wanted->count; i++) {
		const struct rtnl_rule *rule = &wanted->items[i];
		int r;

		if (has_rule(now, count, rule))
			continue;
		r = tolerate(steer, rule->family, rtnl_rule_add(steer->rtnl, rule));
		if (r < 0 && !first)
			first = r;
		else if (r == 0 && has_rule(steer->rules.items, steer->rules.count, rule))
			steer_tell(steer, "rule restored", "%s priority %u table %u",
				   rule->family == AF_INET ? "IPv4" : "IPv6", rule->priority,
				   rule->table);
	}
	for (size_t i = 0; i < count; i++)
		if (is_our_rule(&now[i]) && !has_rule(wanted->items, wanted->count, &now[i]))
			(void)rtnl_rule_delete(steer->rtnl, &now[i]);
	return first;
}

/* The interface whose network the gateway is in; 0: none that the kernel connects. */
static int interface_of_gateway(const struct rtnl_route *routes, size_t count,
				const struct rtnl_route *lost)
{
	const struct rtnl_route *best = NULL;

	for (size_t i = 0; i < count; i++) {
		const struct rtnl_route *route = &routes[i];

		if (route->table != RT_TABLE_MAIN || route->type != RTN_UNICAST ||
		    route->family != lost->family || route->has_gateway ||
		    !route->has_destination || route->oif == lost->oif ||
		    !ip_prefix_contains(&route->destination, &lost->gateway))
			continue;
		if (!best || route->destination.bits > best->destination.bits)
			best = route;
	}
	return best ? best->oif : 0;
}

/*
 * While the host is steered the kernel finds the gateway of "ip route add N via G" in our
 * local route, and puts the route of whoever forgot "dev" on lo (fib_check_nh in
 * net/ipv4/fib_semantics.c; IPv6 looks in the route's own table first). Give it the interface
 * that it would have had without us. The change comes back over rtnetlink and is copied then.
 */
static void mend_gateways(struct steer *steer)
{
	const struct rtnl_interface *lo = rtnl_interface_by_name(steer->rtnl, "lo");
	size_t count;
	const struct rtnl_route *routes = rtnl_routes(steer->rtnl, &count);

	for (size_t i = 0; i < count && lo && steer->wanted.host; i++) {
		struct rtnl_route route = routes[i];

		if (route.table != RT_TABLE_MAIN || route.type != RTN_UNICAST ||
		    route.oif != lo->index || !route.has_gateway)
			continue;
		route.oif = interface_of_gateway(routes, count, &route);
		if (route.oif && rtnl_route_add(steer->rtnl, &route) == 0)
			steer_tell(steer, "route mended", "main: its gateway is not behind lo");
	}
}

/* Then its addresses are not there, and no route may name them as its source. */
static bool lo_is_down(struct steer *steer)
{
	const struct rtnl_interface *lo = rtnl_interface_by_name(steer->rtnl, "lo");

	return lo && !(lo->flags & IFF_UP);
}

/* Tables before the rules that lead to them. */
int routes_compare(struct steer *steer, char *error, size_t size)
{
	struct rule_list rules = {0};
	struct route_list routes = {0};
	int r = want(steer, &rules, &routes), rules_r, direct_r;

	if (r < 0) {
		free(rules.items);
		free(routes.items);
		return steer_fail(error, size, r, "rules and routes: %s", strerror(-r));
	}
	mend_gateways(steer);
	direct_r = maps_write_direct(steer, &routes);
	r = compare_routes(steer, &routes);
	rules_r = compare_rules(steer, &rules);
	routes_done(steer);
	steer->rules = rules;
	steer->routes = routes;
	if (r < 0 && lo_is_down(steer))
		return steer_fail(error, size, r, "lo is down: ip link set lo up");
	if (r < 0)
		return steer_fail(error, size, r, "route: %s", strerror(-r));
	if (rules_r < 0)
		return steer_fail(error, size, rules_r, "rule: %s", strerror(-rules_r));
	if (direct_r < 0)
		return steer_fail(error, size, direct_r, "direct networks: %s",
				  strerror(-direct_r));
	return 0;
}

int routes_release(struct rtnl *rtnl)
{
	size_t count;
	const struct rtnl_rule *rules = rtnl_rules(rtnl, &count);
	const struct rtnl_route *routes;
	int first = 0;

	for (size_t i = 0; i < count; i++) {
		int r = is_our_rule(&rules[i]) ? rtnl_rule_delete(rtnl, &rules[i]) : 0;

		if (r < 0 && !first)
			first = r;
	}
	routes = rtnl_routes(rtnl, &count);
	for (size_t i = 0; i < count; i++) {
		int r = is_our_table(routes[i].table) ? rtnl_route_delete(rtnl, &routes[i]) : 0;

		if (r < 0 && !first)
			first = r;
	}
	return first;
}

void routes_done(struct steer *steer)
{
	free(steer->rules.items);
	free(steer->routes.items);
	steer->rules = (struct rule_list){0};
	steer->routes = (struct route_list){0};
}
