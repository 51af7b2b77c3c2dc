#include "rtnl/internal.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <string.h>

enum { REQUEST_MAX = 512 };

static void put_ip(struct nlmsghdr *nlh, uint16_t type, int family, const struct ip *ip)
{
	if (family == AF_INET)
		mnl_attr_put_u32(nlh, type, ip_v4(ip));
	else
		mnl_attr_put(nlh, type, 16, ip->bytes);
}

static uint8_t kernel_bits(int family, uint8_t bits)
{
	return family == AF_INET && bits >= 96 ? bits - 96 : bits;
}

static void put_rule(struct nlmsghdr *nlh, const struct rtnl_rule *rule)
{
	struct fib_rule_hdr *info = mnl_nlmsg_put_extra_header(nlh, sizeof(*info));

	info->family = (uint8_t)rule->family;
	info->action = FR_ACT_TO_TBL;
	info->table = rule->table < 256 ? (uint8_t)rule->table : RT_TABLE_UNSPEC;
	if (rule->has_source) {
		info->src_len = kernel_bits(rule->family, rule->source.bits);
		put_ip(nlh, FRA_SRC, rule->family, &rule->source.ip);
	}
	mnl_attr_put_u32(nlh, FRA_TABLE, rule->table);
	mnl_attr_put_u32(nlh, FRA_PRIORITY, rule->priority);
	if (rule->protocol)
		mnl_attr_put_u8(nlh, FRA_PROTOCOL, rule->protocol);
	if (rule->mark_mask) {
		mnl_attr_put_u32(nlh, FRA_FWMARK, rule->mark);
		mnl_attr_put_u32(nlh, FRA_FWMASK, rule->mark_mask);
	}
	if (rule->iif[0])
		mnl_attr_put_strz(nlh, FRA_IIFNAME, rule->iif);
	if (rule->has_uid_range) {
		struct fib_rule_uid_range range = {rule->uid_first, rule->uid_last};

		mnl_attr_put(nlh, FRA_UID_RANGE, sizeof(range), &range);
	}
}

static void put_gateway(struct nlmsghdr *nlh, const struct rtnl_route *route)
{
	struct {
		uint16_t family;
		uint8_t address[16];
	} via = {.family = AF_INET6};

	if (route->family == AF_INET6 || ip_is_v4(&route->gateway)) {
		put_ip(nlh, RTA_GATEWAY, route->family, &route->gateway);
		return;
	}
	for (int i = 0; i < 16; i++)
		via.address[i] = route->gateway.bytes[i];
	mnl_attr_put(nlh, RTA_VIA, sizeof(via), &via);
}

static void put_route(struct nlmsghdr *nlh, const struct rtnl_route *route)
{
	struct rtmsg *info = mnl_nlmsg_put_extra_header(nlh, sizeof(*info));

	info->rtm_family = (uint8_t)route->family;
	info->rtm_table = route->table < 256 ? (uint8_t)route->table : RT_TABLE_UNSPEC;
	info->rtm_type = route->type;
	info->rtm_protocol = route->protocol;
	info->rtm_scope = route->scope;
	/* The gateway is known to be on that link: no look-up through rules that steer. */
	if (route->has_gateway && route->oif)
		info->rtm_flags = RTNH_F_ONLINK;
	mnl_attr_put_u32(nlh, RTA_TABLE, route->table);
	if (route->has_destination) {
		info->rtm_dst_len = kernel_bits(route->family, route->destination.bits);
		put_ip(nlh, RTA_DST, route->family, &route->destination.ip);
	}
	if (route->oif)
		mnl_attr_put_u32(nlh, RTA_OIF, (uint32_t)route->oif);
	if (route->has_gateway)
		put_gateway(nlh, route);
	if (route->has_source)
		put_ip(nlh, RTA_PREFSRC, route->family, &route->source);
	if (route->metric)
		mnl_attr_put_u32(nlh, RTA_PRIORITY, route->metric);
}

static struct nlmsghdr *begin(char *buffer, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buffer);

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	return nlh;
}

int request_rule_add(struct asker *asker, const struct rtnl_rule *rule)
{
	char buffer[REQUEST_MAX];
	struct nlmsghdr *nlh = begin(buffer, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
	int r;

	put_rule(nlh, rule);
	r = asker_run(asker, nlh, NULL, NULL);
	return r == -EEXIST ? 0 : r;
}

int request_rule_delete(struct asker *asker, const struct rtnl_rule *rule)
{
	char buffer[REQUEST_MAX];
	struct nlmsghdr *nlh = begin(buffer, RTM_DELRULE, 0);
	int r;

	put_rule(nlh, rule);
	r = asker_run(asker, nlh, NULL, NULL);
	return r == -ENOENT ? 0 : r;
}

int request_route_add(struct asker *asker, const struct rtnl_route *route)
{
	char buffer[REQUEST_MAX];
	struct nlmsghdr *nlh = begin(buffer, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
	int r;

	put_route(nlh, route);
	r = asker_run(asker, nlh, NULL, NULL);
	return r == -EEXIST ? 0 : r;
}

int request_route_delete(struct asker *asker, const struct rtnl_route *route)
{
	char buffer[REQUEST_MAX];
	struct nlmsghdr *nlh = begin(buffer, RTM_DELROUTE, 0);
	int r;

	put_route(nlh, route);
	r = asker_run(asker, nlh, NULL, NULL);
	return r == -ESRCH || r == -ENOENT || r == -ENODEV ? 0 : r;
}

static int on_filter(const struct nlmsghdr *nlh, void *arg)
{
	size_t *count = arg;
	const struct tcmsg *info = mnl_nlmsg_get_payload(nlh);

	/* A classifier without filters is listed too, with handle 0. */
	if (nlh->nlmsg_type == RTM_NEWTFILTER && info->tcm_handle)
		(*count)++;
	return MNL_CB_OK;
}

struct qdisc_search {
	int ifindex;
	const char *kind;
	bool found;
};

static int on_qdisc(const struct nlmsghdr *nlh, void *arg)
{
	struct qdisc_search *search = arg;
	const struct tcmsg *info = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *attr;

	if (nlh->nlmsg_type != RTM_NEWQDISC || info->tcm_ifindex != search->ifindex)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh,
			  sizeof(*info)) if (mnl_attr_get_type(attr) == TCA_KIND &&
					     mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) == 0 &&
					     !strcmp(mnl_attr_get_str(attr), search->kind))
		search->found = true;
	return MNL_CB_OK;
}

int request_has_qdisc(struct asker *asker, int ifindex, const char *kind, bool *ret_has)
{
	char buffer[REQUEST_MAX];
	struct nlmsghdr *nlh = begin(buffer, RTM_GETQDISC, NLM_F_DUMP);
	struct tcmsg *info = mnl_nlmsg_put_extra_header(nlh, sizeof(*info));
	struct qdisc_search search = {.ifindex = ifindex, .kind = kind};
	int r;

	nlh->nlmsg_flags &= (uint16_t)~NLM_F_ACK;
	info->tcm_family = AF_UNSPEC;
	info->tcm_ifindex = ifindex;
	r = asker_run(asker, nlh, on_qdisc, &search);
	if (r == 0)
		*ret_has = search.found;
	return r;
}

int request_count_filters(struct asker *asker, int ifindex, uint32_t parent, size_t *ret_count)
{
	char buffer[REQUEST_MAX];
	struct nlmsghdr *nlh = begin(buffer, RTM_GETTFILTER, NLM_F_DUMP);
	struct tcmsg *info = mnl_nlmsg_put_extra_header(nlh, sizeof(*info));
	size_t count = 0;
	int r;

	nlh->nlmsg_flags &= (uint16_t)~NLM_F_ACK;
	info->tcm_family = AF_UNSPEC;
	info->tcm_ifindex = ifindex;
	info->tcm_parent = parent;
	r = asker_run(asker, nlh, on_filter, &count);
	if (r == 0)
		*ret_count = count;
	return r;
}
