/*
 * The kernel's network state over rtnetlink, with libmnl: interfaces, addresses and
 * routes as a view that is kept up to date, and requests that change rules and routes.
 *
 * Owns one socket that listens and one that asks. Decides nothing: steer and link read
 * the view and are told of changes through the callback. No call to ip(8).
 */
#pragma once

#include "base/ip.h"

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct rtnl;

struct rtnl_interface {
	int index;
	char name[IF_NAMESIZE];
	char kind[16];	/* IFLA_INFO_KIND: "veth", "bridge", "tun", "" for a device of its own */
	uint16_t type;	/* ARPHRD_ETHER, ARPHRD_NONE, ARPHRD_LOOPBACK ... */
	unsigned flags; /* IFF_UP, IFF_RUNNING, IFF_LOWER_UP */
	bool carrier;	/* up, running and IFLA_CARRIER */
	uint64_t rx_bytes, tx_bytes;
	uint32_t xdp_prog_id; /* attached XDP program; 0: none */
};

struct rtnl_address {
	int ifindex;
	struct ip ip;
	uint8_t bits;  /* as the kernel counts: 24 for 192.0.2.1/24 */
	uint8_t scope; /* RT_SCOPE_* */
	bool usable;   /* not tentative, not deprecated, no failed DAD */
};

struct rtnl_route {
	int family; /* AF_INET, AF_INET6 */
	uint32_t table;
	uint8_t type; /* RTN_UNICAST, RTN_LOCAL ... */
	uint8_t protocol, scope;
	struct ip_prefix destination; /* bits 96 (IPv4) or 0 with has_destination false: default */
	bool has_destination;
	int oif; /* 0: none */
	bool has_gateway, has_source;
	struct ip gateway, source; /* source: RTA_PREFSRC */
	uint32_t metric;	   /* RTA_PRIORITY */
};

struct rtnl_rule {
	int family;
	uint32_t priority;
	uint32_t table;
	uint8_t protocol;	  /* who made it: RTPROT_*; 0: not said */
	uint32_t mark, mark_mask; /* mask 0: not by mark */
	char iif[IF_NAMESIZE];	  /* "": any */
	bool has_source;
	struct ip_prefix source;
	bool has_uid_range;
	uint32_t uid_first, uid_last;
};

/* Called on the loop, once for a burst of kernel events, after the view is up to date. */
typedef void (*rtnl_changed_cb)(void *arg);

/* Opens the sockets and reads the whole state, so the view is complete on return.
 * 0 or negative errno. The callback list is set by rtnl_subscribe. loop NULL: the view is
 * what was read at first (rtnl_refresh reads it again) and nobody is told of changes. */
int rtnl_new(uv_loop_t *loop, struct rtnl **ret_rtnl) __attribute__((warn_unused_result));
/* Closes on the loop and frees itself; no callback after this call. */
void rtnl_close(struct rtnl *rtnl);
/* Up to 8 subscribers, called in the order they came. -ENOSPC over that. */
int rtnl_subscribe(struct rtnl *rtnl, rtnl_changed_cb cb, void *arg)
	__attribute__((warn_unused_result));
/* No more callbacks for this pair; one that is not there is fine. */
void rtnl_unsubscribe(struct rtnl *rtnl, rtnl_changed_cb cb, void *arg);
/* Re-read everything now, without telling the subscribers. */
int rtnl_refresh(struct rtnl *rtnl) __attribute__((warn_unused_result));
/* Re-read what sends no events (interface byte counters). */
int rtnl_refresh_statistics(struct rtnl *rtnl);

/* The view: arrays owned by rtnl, valid until the loop runs again. */
const struct rtnl_interface *rtnl_interfaces(const struct rtnl *rtnl, size_t *ret_count);
const struct rtnl_interface *rtnl_interface_by_name(const struct rtnl *rtnl, const char *name);
const struct rtnl_interface *rtnl_interface_by_index(const struct rtnl *rtnl, int index);
const struct rtnl_address *rtnl_addresses(const struct rtnl *rtnl, size_t *ret_count);
/* Every table but the kernel's own local one; one entry for each next hop. */
const struct rtnl_route *rtnl_routes(const struct rtnl *rtnl, size_t *ret_count);
const struct rtnl_rule *rtnl_rules(const struct rtnl *rtnl, size_t *ret_count);
bool rtnl_is_device_address(const struct rtnl *rtnl, const struct ip *ip);

/* Synchronous requests; 0 or negative errno. Adding what is there and deleting what is
 * not there is no error. A route replaces one with the same table, destination and metric;
 * its gateway is taken as on-link. They need CAP_NET_ADMIN and work without a loop too. */
int rtnl_rule_add(struct rtnl *rtnl, const struct rtnl_rule *rule);
int rtnl_rule_delete(struct rtnl *rtnl, const struct rtnl_rule *rule);
int rtnl_route_add(struct rtnl *rtnl, const struct rtnl_route *route);
int rtnl_route_delete(struct rtnl *rtnl, const struct rtnl_route *route);
/* tc filters in a hook of an interface; parent: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_*). */
int rtnl_count_filters(struct rtnl *rtnl, int ifindex, uint32_t parent, size_t *ret_count)
	__attribute__((warn_unused_result));
/* Whether the interface has a qdisc of this kind. */
int rtnl_has_qdisc(struct rtnl *rtnl, int ifindex, const char *kind, bool *ret_has)
	__attribute__((warn_unused_result));
/* The IPv4 address of the neighbour that has this IPv6 address: the same link-layer address
 * on the same interface; the smallest of several. -ENOENT: none is known. */
int rtnl_neighbour_v4(struct rtnl *rtnl, const struct ip *ip, struct ip *ret_ip)
	__attribute__((warn_unused_result));
