/*
 * What the files of rtnl share: the view that a dump builds, and one exchange with the
 * kernel over the asking socket. Nobody else includes this.
 */
#pragma once

#include "rtnl/rtnl.h"

#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

/* An array that grows up to a bound; what does not fit is counted. */
struct view_list {
	void *items;
	size_t count, capacity, refused;
};

/* The whole state as of one dump; built aside, then swapped in. */
struct view {
	struct view_list interfaces; /* struct rtnl_interface */
	struct view_list addresses;  /* struct rtnl_address */
	struct view_list routes;     /* struct rtnl_route */
	struct view_list rules;	     /* struct rtnl_rule */
};

/* The socket that asks: requests and dumps, one at a time. */
struct asker {
	struct mnl_socket *socket;
	uint32_t seq;
	char buffer[32768]; /* the largest piece of a dump that the kernel sends */
};

int asker_init(struct asker *asker) __attribute__((warn_unused_result));
void asker_done(struct asker *asker);
/* Send the request and run cb on each message of the answer, up to its end or its
 * acknowledgement. -EINTR: the dump was inconsistent, ask again. */
int asker_run(struct asker *asker, struct nlmsghdr *request, mnl_cb_t cb, void *arg)
	__attribute__((warn_unused_result));

void view_done(struct view *view);
/* Fill an empty view from the kernel. On error the view is to be freed all the same. */
int view_read(struct view *view, struct asker *asker) __attribute__((warn_unused_result));
int view_read_interfaces(struct view *view, struct asker *asker)
	__attribute__((warn_unused_result));

/* Requests that change rules and routes: one message, one acknowledgement. */
int request_rule_add(struct asker *asker, const struct rtnl_rule *rule);
int request_rule_delete(struct asker *asker, const struct rtnl_rule *rule);
int request_route_add(struct asker *asker, const struct rtnl_route *route);
int request_route_delete(struct asker *asker, const struct rtnl_route *route);
int request_count_filters(struct asker *asker, int ifindex, uint32_t parent, size_t *ret_count);
int request_has_qdisc(struct asker *asker, int ifindex, const char *kind, bool *ret_has);

int neighbour_v4_of(struct asker *asker, const struct ip *ip, struct ip *ret_ip);

static inline struct ip attr_ip(const struct nlattr *attr)
{
	uint32_t v4;

	if (mnl_attr_get_payload_len(attr) >= 16)
		return ip_from_v6(mnl_attr_get_payload(attr));
	v4 = mnl_attr_get_payload_len(attr) >= 4 ? mnl_attr_get_u32(attr) : 0;
	return ip_from_v4(v4);
}
/* Bits of a family's own count in the mapped form. */
static inline uint8_t family_bits(int family, uint8_t bits)
{
	return family == AF_INET ? 96 + bits : bits;
}
