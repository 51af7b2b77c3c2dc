/*
 * The daemon: builds every part from the configuration, wires their callbacks, and is what
 * the API sees: snapshots out, commands in. The API never reaches into a part.
 */
#pragma once

#include "config/config.h"
#include "link/link.h"
#include "program/program.h"
#include "proxy/proxy.h"
#include "queue/queue.h"
#include "relay/relay.h"
#include "resolver/resolver.h"
#include "steer/explain.h"
#include "steer/inspect.h"
#include "steer/steer.h"
#include "upstream/upstream.h"

#include <uv.h>

struct daemon;

/* Builds and starts everything; the loop is the caller's. error says which step failed. */
int daemon_new(uv_loop_t *loop, struct config *config, char *ret_error, size_t error_size,
	       struct daemon **ret_daemon) __attribute__((warn_unused_result));
/* Ordinary stop: as when_stopped says. Calls back when all is closed. */
void daemon_close(struct daemon *daemon, void (*closed)(void *arg), void *arg);

/* --- snapshots --- */
struct daemon_status {
	int64_t started; /* wall ms */
	uint64_t uptime; /* ms */
	bool online, steering, queue_open;
	struct queue_totals queue;
	struct store_statistics store;
	size_t held, sessions;
	uint64_t under_way, in_line; /* sent to an origin; held, and next when others end */
	/* since start */
	uint64_t http_requests, tls_streams, tcp_streams, upgraded_streams, held_total, cancelled,
		refused, bad_requests, waited;
	struct resolver_statistics resolver;
	struct relay_statistics relay;
	struct proxy_statistics proxy;
	struct upstream_statistics upstream;
	struct spools_statistics bodies; /* on their way, and of what is held */
	uint64_t rss_anon;		 /* bytes */
};
void daemon_status(struct daemon *daemon, struct daemon_status *ret);
struct config *daemon_config(struct daemon *daemon); /* borrowed */

size_t daemon_links(struct daemon *daemon, struct link_info *ret_links, size_t max);
int daemon_counters(struct daemon *daemon, struct steer_counter **ret, size_t *ret_count);
/* Each second, over the last 1 s or 2 s; whoever asks makes it 1 s for a minute. */
struct daemon_rate {
	double packets, bytes;
};
struct daemon_rate daemon_counter_rate(struct daemon *daemon, const struct steer_counter *counter);
uint64_t daemon_counter_overflow(struct daemon *daemon);
/* What keeps steered connections from the proxy, for people; NULL: nothing that is known. */
const char *daemon_obstacle(const struct daemon *daemon);
/* As in steer/inspect.h. */
int daemon_maps(struct daemon *daemon, struct steer_map_info **ret_maps, size_t *ret_count);
int daemon_map_info(struct daemon *daemon, const char *name, struct steer_map_info *ret_info);
int daemon_map_entries(struct daemon *daemon, const char *name, const char *after, size_t limit,
		       struct json_object **ret_items, char **ret_next);
int daemon_programs(struct daemon *daemon, struct steer_program_info **ret, size_t *ret_count);
void daemon_names_each(struct daemon *daemon, const char *after,
		       bool (*each)(void *arg, const struct resolver_name_info *info), void *arg);

/* Held (in memory) and stored exchanges as one list, newest first. filter->before: cursor.
 * source_only: see queue_filter.source. Callbacks on the loop, possibly before the call
 * returns. Rows as in queue.h: the callee frees them. */
int daemon_requests(struct daemon *daemon, const struct queue_filter *filter, queue_rows_cb cb,
		    void *arg);
int daemon_request(struct daemon *daemon, const char *id, bool bodies, queue_row_cb cb, void *arg);

/* A body of one of these rows, held or stored, piece by piece; see queue_reader. */
struct daemon_body;
int daemon_body_new(struct daemon *daemon, const struct queue_row *row, enum queue_part part,
		    spool_piece_cb piece, void *arg, struct daemon_body **ret_body)
	__attribute__((warn_unused_result));
int daemon_body_next(struct daemon_body *body) __attribute__((warn_unused_result));
void daemon_body_close(struct daemon_body *body); /* no callback after it */

/* --- commands; a listener's name is for the event --- */
int daemon_link_patch(struct daemon *daemon, const char *name, const struct link_patch *patch);
int daemon_links_order(struct daemon *daemon, const char *const *names, size_t count,
		       struct input_error *err);
int daemon_request_retry(struct daemon *daemon, const char *id, queue_status_cb cb, void *arg);
/* A held one is cancelled; a stored one deleted. */
int daemon_request_delete(struct daemon *daemon, const char *id, queue_status_cb cb, void *arg);
size_t daemon_names_flush(struct daemon *daemon);

/* POST /v1/requests: an app hands a request over. Stored at once, sent when a link is there,
 * owes no answer. On status 0 id is the new exchange's. -EDQUOT, -ENOSPC, -E2BIG, -EINVAL. */
struct daemon_submit {
	const char *source, *method, *url;
	const char *const *fields; /* name, value, name, value ... NULL */
	const uint8_t *body;
	size_t body_len;
};
typedef void (*daemon_submit_cb)(void *arg, int status, const char *id,
				 const struct input_error *err);
int daemon_submit(struct daemon *daemon, const struct daemon_submit *submit, daemon_submit_cb cb,
		  void *arg);

/* --- programs of the steer hook; see program/program.h --- */
/* Whose command it is, so that a program cannot cut the connection off that commands it. */
struct daemon_caller {
	bool tcp; /* else a local socket, which no program sees */
	struct ip local, remote;
	uint16_t local_port, remote_port;
};
struct daemon_activation {
	uint64_t confirm_within; /* ms; 0: as configured */
	bool expect_drops;
};
int daemon_program_list(struct daemon *daemon, struct program_info **ret_infos, size_t *ret_count);
void daemon_program_current(struct daemon *daemon, struct program_info *ret_info);
void daemon_program_warnings(struct daemon *daemon, struct program_warnings *ret_warnings);
int daemon_program_upload(struct daemon *daemon, const uint8_t *elf, size_t size,
			  const char *signature, const struct daemon_caller *caller, program_cb cb,
			  void *arg);
int daemon_program_activate(struct daemon *daemon, const char *id,
			    const struct daemon_activation *activation,
			    const struct daemon_caller *caller, program_cb cb, void *arg);
int daemon_program_confirm(struct daemon *daemon, program_cb cb, void *arg);
int daemon_program_rollback(struct daemon *daemon, program_cb cb, void *arg);
int daemon_program_delete(struct daemon *daemon, const char *id, program_cb cb, void *arg);

/* POST /v1/explain: one packet through the programs in service. Either a frame, or what to build
 * one of. */
struct daemon_explain_ask {
	char interface[IF_NAMESIZE]; /* "": found by the source */
	bool has_source, has_destination;
	struct ip source, destination;
	uint8_t protocol;	    /* IPPROTO_TCP, _UDP, _ICMP; 0: none was named */
	uint16_t port, source_port; /* 0: none was named */
	char name[NAME_TEXT_MAX];   /* a DNS question; "": none */
	uint16_t type;		    /* of the question; 0: A */
	char host[NAME_TEXT_MAX], method[32], path[512]; /* of an HTTP request; "": not known */
	uint8_t frame[EXPLAIN_FRAME_MAX];
	size_t frame_len; /* 0: none */
};
enum { EXPLAIN_LINES_MAX = 16, EXPLAIN_LINE_MAX = 256 };
struct daemon_explained {
	struct steer_explanation steer;
	struct steer_step decisive; /* of the hook that decided */
	char interface[IF_NAMESIZE];
	char rule[NAME_TEXT_MAX], link[32]; /* "": none */
	char lines[EXPLAIN_LINES_MAX][EXPLAIN_LINE_MAX];
	size_t line_count;
};
/* On a status below 0 explained is NULL: -EINVAL with err, -EAGAIN (too many wait for the twins),
 * -ECANCELED or another errno. Possibly before the call returns; ask is borrowed until then. */
typedef void (*daemon_explain_cb)(void *arg, int status, const struct input_error *err,
				  const struct daemon_explained *explained);
void daemon_explain(struct daemon *daemon, const struct daemon_explain_ask *ask,
		    daemon_explain_cb cb, void *arg);

/* --- events for GET /v1/events --- */
enum daemon_event_type { EVENT_LINK, EVENT_REQUEST, EVENT_PROGRAM, EVENT_DROP, EVENT_CONFIG };
struct daemon_event {
	uint64_t id; /* counts up from 1 */
	int64_t at;
	enum daemon_event_type type;
	char subject[64]; /* the link's name, the exchange's id ... */
	char what[192];
};
typedef void (*daemon_event_cb)(void *arg, const struct daemon_event *event);
int daemon_subscribe(struct daemon *daemon, daemon_event_cb cb, void *arg);
void daemon_unsubscribe(struct daemon *daemon, daemon_event_cb cb, void *arg);

/* The sockets of holdfast.internal (listening, already with steer), for the API's listeners
 * for apps: fds stay the daemon's. -1: none of that family. */
void daemon_app_listeners(struct daemon *daemon, int *ret_fd4, int *ret_fd6);
/* Who talks on that listener: the exchange source of a peer address ("host" or the address). */
void daemon_source_of(struct daemon *daemon, const struct ip *peer, char *ret_source, size_t size);
