/* What link.c (the machine) and links.c (the set and the choice) share. Nobody else includes it. */
#pragma once

#include "link/link.h"
#include "link/probe.h"

struct link {
	struct links *links;
	const struct link_config *config; /* of links->config */
	unsigned index;
	enum link_state state;
	int32_t priority;
	bool enabled, metered;
	int ifindex; /* as the machine knows it; 0: none */
	bool v4, v6; /* a usable address and a default route of the family */
	int64_t since;
	char evidence[192];

	struct probe *probe;	/* in flight, or NULL */
	uint64_t probe_started; /* loop time of the latest */
	uint32_t good_run, bad_run;
	uint64_t last_good; /* loop time; 0: never */
	bool suspect;
	char reported[96]; /* what live traffic said that is not decided yet; "" nothing */
	uv_timer_t timer;  /* the next probe, or the end of suspicion without one */

	struct ip system_dns[LINK_DNS_SERVERS_MAX];
	size_t system_dns_count;
	uint64_t bytes_in, bytes_out, probes_good, probes_bad;

	bool changed, lost; /* to be told */
	char what[256];
};

struct links {
	uv_loop_t *loop;
	struct config *config;
	struct rtnl *rtnl;
	struct steer *steer;
	link_changed_cb on_change;
	void *arg;
	links_resolve resolve;
	void *resolve_arg;
	uv_timer_t tell; /* changes made inside a call are told after it */
	bool started, closing;
	unsigned handles;
	size_t count;
	struct link items[LINKS_MAX];
};

/* Compare with the kernel's view and act. */
void link_update(struct link *link);
/* Stop what runs of a probe. */
void link_stop_probe(struct link *link);
void link_on_timer(uv_timer_t *timer);
bool link_has_probe(const struct link *link);
/* Something that is no state changed: priority, flags. */
void link_note(struct link *link, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Tell what changed, now; only from an event of the loop, as its last act. */
void links_tell(struct links *links);
