/* What the files of daemon share; for nobody else. */
#pragma once

#include "daemon/daemon.h"

#include "exchange/exchange.h"
#include "proxy/proxy.h"
#include "relay/relay.h"
#include "replay/replay.h"
#include "store/spool.h"
#include "store/store.h"
#include "upstream/upstream.h"

enum { SUBSCRIBERS_MAX = 64, EVENT_LOG_MAX = 256 };

struct subscriber {
	daemon_event_cb cb; /* NULL: free */
	void *arg;
};

/* counters.c: the counters at the last look, sorted as steer gives them, and their rates. */
struct sampler {
	uv_timer_t timer;
	struct steer_counter *counters;
	struct daemon_rate *rates;
	size_t count;
	uint64_t at;	      /* uv_hrtime(); 0: never */
	uint64_t asked_until; /* loop ms: somebody looks */
};

/* obstacle.c */
struct obstacle {
	unsigned looks;	   /* that saw attempts and nothing arrive */
	uint64_t attempts; /* at the last look */
	bool there;
};

struct daemon {
	uv_loop_t *loop;
	struct config *config;
	struct rtnl *rtnl;
	struct steer *steer;
	struct links *links;
	struct store *store;
	struct store_listener listener;
	struct spools *spools;
	struct programs *programs;
	struct resolver *resolver;
	struct queue *queue;
	struct upstream *upstream;
	struct exchanges *exchanges;
	struct proxy *proxy;
	struct relay *relay;
	struct replay *replay;
	uv_timer_t sweep; /* the queue's expiry */
	uv_timer_t
		changed; /* something changed in this turn of the loop: acted on once, after it */
	struct sampler sampler;
	struct obstacle obstacle;
	unsigned handles;	 /* and work under way: the daemon outlives both */
	struct explain *explain; /* NULL: nobody has asked yet */
	bool built, links_changed, queue_changed, closing;
	int app_fd4, app_fd6;
	int64_t started;     /* wall ms */
	uint64_t started_at; /* loop ms */
	uint64_t next_event;
	struct subscriber subscribers[SUBSCRIBERS_MAX];
	void (*closed)(void *arg);
	void *closed_arg;
};

/* daemon.c: act on changes once, after the callbacks of this turn of the loop. */
void daemon_changed(struct daemon *daemon);

/* The interface that packets of this address come in on; NULL: not known. */
const char *daemon_interface_of(const struct daemon *daemon, const struct ip *source);

/* programs.c */
int daemon_build_programs(struct daemon *daemon) __attribute__((warn_unused_result));

/* One of daemon->handles is gone; with the last one the store is closed, and then the rest. */
void daemon_unhold(struct daemon *daemon);

/* explain.c: answers who waits with -ECANCELED */
void explain_close(struct daemon *daemon);

/* counters.c */
void sampler_start(struct daemon *daemon);
void sampler_done(struct daemon *daemon);

/* obstacle.c: arrived: connections that lookup gave to the proxy since the last look */
void obstacle_look(struct daemon *daemon, uint64_t arrived);

/* events.c */
void daemon_event(struct daemon *daemon, enum daemon_event_type type, const char *subject,
		  const char *format, ...) __attribute__((format(printf, 4, 5)));
