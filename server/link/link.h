/*
 * The ways out of the device: one state machine a link, and the choice between them.
 *
 *                    interface gone
 *      +--------+ <------------------- (any)
 *      | absent |
 *      +--------+ --appears--> down --carrier--> configuring --address and route--> probing
 *                                ^                                                   |  |
 *                                +--carrier lost (from any)             probe good --+  +-- portal,
 *                                                                            v          no data
 *                                                       online <--good-- suspect -----> limited
 *      disabled: by configuration or API, from any; enabling goes on where the kernel stands.
 *
 * Driven by rtnetlink, probes bound to the link, and what live traffic tells
 * (link_report_*). Owns the probes. Never carries an exchange itself; chooses among links
 * and prepares sockets for one.
 */
#pragma once

#include "config/config.h"
#include "rtnl/rtnl.h"
#include "steer/steer.h"

#include <uv.h>

struct links;
struct link;

#define LINK_STATES(X)                \
	X(ABSENT, "absent")           \
	X(DOWN, "down")               \
	X(CONFIGURING, "configuring") \
	X(PROBING, "probing")         \
	X(ONLINE, "online")           \
	X(LIMITED, "limited")         \
	X(DISABLED, "disabled")
#define LINK_STATE_ENUM(id, name) LINK_##id,
enum link_state { LINK_STATES(LINK_STATE_ENUM) LINK_STATE_COUNT };
const char *link_state_name(enum link_state state);

/* A link changed state, order or flags: what was chosen before may be wrong now.
 * `lost`: it was online and is no longer. Called on the loop, never from inside a links_*
 * call of the receiver. what: one line for the event log. */
typedef void (*link_changed_cb)(void *arg, struct link *link, bool lost, const char *what);

/* How a probe's name becomes addresses: the resolver is a higher floor, so the owner wires
 * it. The function asks over the link and calls back once, never before it returns; a
 * negative return means that no callback comes. status is 0 or negative errno. */
typedef void (*links_resolve_cb)(void *arg, int status, const struct ip *addresses, size_t count);
typedef int (*links_resolve)(void *arg, struct link *link, const char *name, links_resolve_cb cb,
			     void *cb_arg);

int links_new(uv_loop_t *loop, struct config *config, struct rtnl *rtnl, struct steer *steer,
	      link_changed_cb on_change, void *arg, struct links **ret_links)
	__attribute__((warn_unused_result));
/* Until it is set, probes of names are bad; those of addresses need nothing. */
void links_set_resolve(struct links *links, links_resolve resolve, void *arg);
void links_start(struct links *links);
/* No callback after it; frees itself on the loop. */
void links_close(struct links *links);

/* Links keep their position in the configuration; number is index + 1 (the mark's). */
size_t links_count(const struct links *links);
struct link *links_at(struct links *links, size_t index);
struct link *links_by_name(struct links *links, const char *name);

/* The best online link that the policy allows (policy->link_mask, policy->metered), by
 * priority and then order of configuration; `tried`: mask of links to leave out. NULL: none. */
struct link *links_choose(struct links *links, const struct rule_policy *policy, uint32_t tried);
bool links_any_online(const struct links *links);

const char *link_name(const struct link *link);
unsigned link_number(const struct link *link); /* from 1 */
static inline uint32_t link_bit(const struct link *link)
{
	return 1u << (link_number(link) - 1);
}
enum link_state link_state(const struct link *link);
/* Is the evidence of data both fresh and good? What replay asks (captive portals). True for a
 * link without a probe while it is online. */
bool link_is_proven(const struct link *link);
/* The DNS servers: of the configuration, else what the system was given. */
size_t link_dns_servers(const struct link *link, const struct ip **ret_servers);
/* Does the link have a usable address and a default route of that family (AF_INET, AF_INET6)? */
bool link_has_family(const struct link *link, int family);

/* Make a new socket one of this link's: mark, storage, binding. 0 or negative errno. */
int link_own_socket(struct link *link, int fd) __attribute__((warn_unused_result));

/* What live traffic tells. A failed connect puts the link under suspicion at once: an
 * immediate probe decides, and until it is back links_choose prefers other links. */
void link_report_failure(struct link *link, const char *what);
void link_report_success(struct link *link);
/* Bytes of live traffic, for the counters. */
void link_count_bytes(struct link *link, uint64_t in, uint64_t out);

/* Commands. They take effect on the next choice. */
struct link_patch {
	bool has_priority, has_enabled, has_metered;
	int32_t priority;
	bool enabled, metered;
};
void link_patch(struct link *link, const struct link_patch *patch);
/* names: every link once, best first; priorities become 10, 20, 30 ... -EINVAL with err. */
int links_order(struct links *links, const char *const *names, size_t count,
		struct input_error *err) __attribute__((warn_unused_result));

struct link_info {
	char name[32], interface[IF_NAMESIZE];
	enum link_state state;
	int32_t priority;
	bool enabled, metered, suspect;
	int64_t since; /* wall clock, ms */
	char evidence[192];
	uint64_t bytes_in, bytes_out;
	uint64_t probes_good, probes_bad;
};
void link_info(const struct link *link, struct link_info *ret_info);
