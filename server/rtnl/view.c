#include "base/limits.h"
#include "base/log.h"
#include "rtnl/internal.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <stdlib.h>
#include <string.h>

enum { ATTR_MAX = 128, DUMP_ATTEMPTS = 8 };

/* Attributes by their type, and where what is made of them goes. */
struct attrs {
	const struct nlattr *by_type[ATTR_MAX];
};
struct dump {
	struct view *view;
	int error;
};

static int on_attr(const struct nlattr *attr, void *arg)
{
	struct attrs *attrs = arg;
	unsigned type = mnl_attr_get_type(attr);

	if (type < ATTR_MAX)
		attrs->by_type[type] = attr;
	return MNL_CB_OK;
}

static void *list_add(struct view_list *list, size_t size, size_t limit, int *ret_error)
{
	if (list->count >= limit) {
		list->refused++;
		return NULL;
	}
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? list->capacity * 2 : 16;
		void *items = realloc(list->items, capacity * size);

		if (!items) {
			*ret_error = -ENOMEM;
			return NULL;
		}
		list->items = items;
		list->capacity = capacity;
	}
	void *item = (char *)list->items + size * list->count++;

	memset(item, 0, size);
	return item;
}

static void copy_text(char *to, size_t size, const struct nlattr *attr)
{
	size_t len = attr ? strnlen(mnl_attr_get_payload(attr), mnl_attr_get_payload_len(attr)) : 0;

	if (len >= size)
		len = size - 1;
	if (len)
		memcpy(to, mnl_attr_get_payload(attr), len);
	to[len] = '\0';
}

static uint32_t attr_u32(const struct nlattr *attr)
{
	return attr && mnl_attr_get_payload_len(attr) >= 4 ? mnl_attr_get_u32(attr) : 0;
}

static void read_statistics(struct rtnl_interface *interface, const struct nlattr *attr)
{
	struct rtnl_link_stats64 stats = {0};
	size_t len = attr ? mnl_attr_get_payload_len(attr) : 0;

	if (len)
		memcpy(&stats, mnl_attr_get_payload(attr),
		       len < sizeof(stats) ? len : sizeof(stats));
	interface->rx_bytes = stats.rx_bytes;
	interface->tx_bytes = stats.tx_bytes;
}

static int on_interface(const struct nlmsghdr *nlh, void *arg)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(nlh);
	struct attrs attrs = {0}, nested = {0}, xdp = {0};
	struct rtnl_interface *interface;
	struct dump *dump = arg;
	const struct nlattr *carrier;

	if (nlh->nlmsg_type != RTM_NEWLINK)
		return MNL_CB_OK;
	interface = list_add(&dump->view->interfaces, sizeof(*interface), RTNL_INTERFACES_MAX,
			     &dump->error);
	if (!interface)
		return MNL_CB_OK;
	mnl_attr_parse(nlh, sizeof(*info), on_attr, &attrs);
	if (attrs.by_type[IFLA_LINKINFO])
		mnl_attr_parse_nested(attrs.by_type[IFLA_LINKINFO], on_attr, &nested);
	if (attrs.by_type[IFLA_XDP])
		mnl_attr_parse_nested(attrs.by_type[IFLA_XDP], on_attr, &xdp);
	interface->index = info->ifi_index;
	interface->type = info->ifi_type;
	interface->flags = info->ifi_flags;
	copy_text(interface->name, sizeof(interface->name), attrs.by_type[IFLA_IFNAME]);
	copy_text(interface->kind, sizeof(interface->kind), nested.by_type[IFLA_INFO_KIND]);
	interface->xdp_prog_id = attr_u32(xdp.by_type[IFLA_XDP_PROG_ID]);
	read_statistics(interface, attrs.by_type[IFLA_STATS64]);
	carrier = attrs.by_type[IFLA_CARRIER];
	interface->carrier = (info->ifi_flags & IFF_UP) && (info->ifi_flags & IFF_RUNNING) &&
			     (!carrier || mnl_attr_get_u8(carrier));
	return MNL_CB_OK;
}

static int on_address(const struct nlmsghdr *nlh, void *arg)
{
	const struct ifaddrmsg *info = mnl_nlmsg_get_payload(nlh);
	struct rtnl_address *address;
	struct attrs attrs = {0};
	struct dump *dump = arg;
	const struct nlattr *ip;
	uint32_t flags;

	if (nlh->nlmsg_type != RTM_NEWADDR)
		return MNL_CB_OK;
	mnl_attr_parse(nlh, sizeof(*info), on_attr, &attrs);
	/* On a point-to-point interface IFA_ADDRESS is the peer's. */
	ip = attrs.by_type[IFA_LOCAL] ? attrs.by_type[IFA_LOCAL] : attrs.by_type[IFA_ADDRESS];
	if (!ip)
		return MNL_CB_OK;
	address = list_add(&dump->view->addresses, sizeof(*address), RTNL_ADDRESSES_MAX,
			   &dump->error);
	if (!address)
		return MNL_CB_OK;
	flags = attrs.by_type[IFA_FLAGS] ? attr_u32(attrs.by_type[IFA_FLAGS]) : info->ifa_flags;
	address->ifindex = (int)info->ifa_index;
	address->ip = attr_ip(ip);
	address->bits = info->ifa_prefixlen;
	address->scope = info->ifa_scope;
	address->usable = !(flags & (IFA_F_TENTATIVE | IFA_F_DEPRECATED | IFA_F_DADFAILED));
	return MNL_CB_OK;
}

/* RTA_VIA: an IPv4 route by an IPv6 neighbour. */
static bool read_gateway(const struct attrs *attrs, struct ip *ret_ip)
{
	const struct nlattr *via = attrs->by_type[RTA_VIA];

	if (attrs->by_type[RTA_GATEWAY]) {
		*ret_ip = attr_ip(attrs->by_type[RTA_GATEWAY]);
		return true;
	}
	if (via && mnl_attr_get_payload_len(via) >= 2 + 16) {
		*ret_ip = ip_from_v6((const char *)mnl_attr_get_payload(via) + 2);
		return true;
	}
	return false;
}

static void add_route(struct dump *dump, const struct rtnl_route *route)
{
	struct rtnl_route *added =
		list_add(&dump->view->routes, sizeof(*route), RTNL_ROUTES_MAX, &dump->error);

	if (added)
		*added = *route;
}

/* A route with several next hops becomes one route for each. */
static void add_multipath(struct dump *dump, struct rtnl_route *route, const struct nlattr *attr)
{
	const struct rtnexthop *hop = mnl_attr_get_payload(attr);
	int len = mnl_attr_get_payload_len(attr);

	while (RTNH_OK(hop, len)) {
		struct attrs attrs = {0};

		mnl_attr_parse_payload(RTNH_DATA(hop), hop->rtnh_len - sizeof(*hop), on_attr,
				       &attrs);
		route->oif = hop->rtnh_ifindex;
		route->has_gateway = read_gateway(&attrs, &route->gateway);
		add_route(dump, route);
		len -= NLMSG_ALIGN(hop->rtnh_len);
		hop = RTNH_NEXT(hop);
	}
}

static int on_route(const struct nlmsghdr *nlh, void *arg)
{
	const struct rtmsg *info = mnl_nlmsg_get_payload(nlh);
	struct rtnl_route route = {0};
	struct attrs attrs = {0};
	struct dump *dump = arg;

	if (nlh->nlmsg_type != RTM_NEWROUTE || (info->rtm_flags & RTM_F_CLONED) ||
	    (info->rtm_family != AF_INET && info->rtm_family != AF_INET6))
		return MNL_CB_OK;
	mnl_attr_parse(nlh, sizeof(*info), on_attr, &attrs);
	route.family = info->rtm_family;
	route.table =
		attrs.by_type[RTA_TABLE] ? attr_u32(attrs.by_type[RTA_TABLE]) : info->rtm_table;
	/* The kernel keeps that one by itself, and it may be long. */
	if (route.table == RT_TABLE_LOCAL)
		return MNL_CB_OK;
	route.type = info->rtm_type;
	route.protocol = info->rtm_protocol;
	route.scope = info->rtm_scope;
	route.has_destination = attrs.by_type[RTA_DST] != NULL;
	if (route.has_destination)
		route.destination.ip = attr_ip(attrs.by_type[RTA_DST]);
	else if (route.family == AF_INET)
		route.destination.ip = ip_from_v4(0);
	route.destination.bits = family_bits(info->rtm_family, info->rtm_dst_len);
	route.has_source = attrs.by_type[RTA_PREFSRC] != NULL;
	if (route.has_source)
		route.source = attr_ip(attrs.by_type[RTA_PREFSRC]);
	route.metric = attr_u32(attrs.by_type[RTA_PRIORITY]);
	if (attrs.by_type[RTA_MULTIPATH]) {
		add_multipath(dump, &route, attrs.by_type[RTA_MULTIPATH]);
		return MNL_CB_OK;
	}
	route.oif = (int)attr_u32(attrs.by_type[RTA_OIF]);
	route.has_gateway = read_gateway(&attrs, &route.gateway);
	add_route(dump, &route);
	return MNL_CB_OK;
}

static int on_rule(const struct nlmsghdr *nlh, void *arg)
{
	const struct fib_rule_hdr *info = mnl_nlmsg_get_payload(nlh);
	struct attrs attrs = {0};
	struct dump *dump = arg;
	struct rtnl_rule *rule;

	if (nlh->nlmsg_type != RTM_NEWRULE || (info->family != AF_INET && info->family != AF_INET6))
		return MNL_CB_OK;
	rule = list_add(&dump->view->rules, sizeof(*rule), RTNL_RULES_MAX, &dump->error);
	if (!rule)
		return MNL_CB_OK;
	mnl_attr_parse(nlh, sizeof(*info), on_attr, &attrs);
	rule->family = info->family;
	rule->priority = attr_u32(attrs.by_type[FRA_PRIORITY]);
	rule->table = attrs.by_type[FRA_TABLE] ? attr_u32(attrs.by_type[FRA_TABLE]) : info->table;
	rule->mark = attr_u32(attrs.by_type[FRA_FWMARK]);
	rule->mark_mask = attr_u32(attrs.by_type[FRA_FWMASK]);
	if (attrs.by_type[FRA_PROTOCOL])
		rule->protocol = mnl_attr_get_u8(attrs.by_type[FRA_PROTOCOL]);
	copy_text(rule->iif, sizeof(rule->iif), attrs.by_type[FRA_IIFNAME]);
	rule->has_source = attrs.by_type[FRA_SRC] != NULL;
	if (rule->has_source) {
		rule->source.ip = attr_ip(attrs.by_type[FRA_SRC]);
		rule->source.bits = family_bits(info->family, info->src_len);
	}
	const struct nlattr *uids = attrs.by_type[FRA_UID_RANGE];

	if (uids && mnl_attr_get_payload_len(uids) >= sizeof(struct fib_rule_uid_range)) {
		const struct fib_rule_uid_range *range = mnl_attr_get_payload(uids);

		rule->has_uid_range = true;
		rule->uid_first = range->start;
		rule->uid_last = range->end;
	}
	return MNL_CB_OK;
}

static void list_done(struct view_list *list)
{
	free(list->items);
	*list = (struct view_list){0};
}

void view_done(struct view *view)
{
	list_done(&view->interfaces);
	list_done(&view->addresses);
	list_done(&view->routes);
	list_done(&view->rules);
}

/* One whole dump; again from an empty list when the kernel's state changed under it. */
static int read_list(struct view *view, struct view_list *list, struct asker *asker, uint16_t type,
		     size_t header, mnl_cb_t cb)
{
	char request[MNL_ALIGN(sizeof(struct nlmsghdr)) + 64];
	int r = -EINTR;

	for (int i = 0; i < DUMP_ATTEMPTS && r == -EINTR; i++) {
		struct dump dump = {.view = view};
		struct nlmsghdr *nlh = mnl_nlmsg_put_header(request);

		list_done(list);
		nlh->nlmsg_type = type;
		nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
		mnl_nlmsg_put_extra_header(nlh, header);
		r = asker_run(asker, nlh, cb, &dump);
		if (r == 0)
			r = dump.error;
	}
	if (list->refused)
		log_warning("rtnl", "%zu entries of the kernel's network state left out: too many",
			    list->refused);
	return r;
}

int view_read_interfaces(struct view *view, struct asker *asker)
{
	return read_list(view, &view->interfaces, asker, RTM_GETLINK, sizeof(struct ifinfomsg),
			 on_interface);
}

int view_read(struct view *view, struct asker *asker)
{
	int r = view_read_interfaces(view, asker);

	if (r < 0)
		return r;
	r = read_list(view, &view->addresses, asker, RTM_GETADDR, sizeof(struct ifaddrmsg),
		      on_address);
	if (r < 0)
		return r;
	r = read_list(view, &view->routes, asker, RTM_GETROUTE, sizeof(struct rtmsg), on_route);
	if (r < 0)
		return r;
	return read_list(view, &view->rules, asker, RTM_GETRULE, sizeof(struct fib_rule_hdr),
			 on_rule);
}
