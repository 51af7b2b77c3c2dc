/*
 * Inside of the API: one listener is one MHD daemon; one call is one HTTP request on it.
 *
 *   listener.c  sockets, MHD and the loop
 *   call.c      a request's life: body, answer now or later
 *   routes.c    the table of routes and the dispatch
 *   access.c    who may do what
 *   reads.c, requests.c, changes.c, programs.c, events.c   the handlers
 *   bodies.c    bodies of exchanges, streamed as the client takes them
 *   views.c     snapshot to JSON; metrics.c snapshot to OpenMetrics
 *   commands.c  JSON to command; explain.c likewise, and back
 */
#pragma once

#include "api/api.h"
#include "base/buf.h"

#include <json-c/json.h>
#include <microhttpd.h>

enum listener_kind { LISTENER_TCP, LISTENER_UNIX, LISTENER_APPS };

struct listener {
	struct api *api;
	enum listener_kind kind;
	struct ip ip; /* TCP: as bound */
	uint16_t port;
	char path[108]; /* UNIX: unlinked at close */
	struct MHD_Daemon *mhd;
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned handles; /* open uv handles; freed at 0 */
	bool closing;
};

struct api {
	uv_loop_t *loop;
	struct daemon *daemon;
	struct listener *listeners[API_LISTENERS_MAX];
	size_t listener_count;
	uv_timer_t keepalive; /* of event streams */
	unsigned open;	      /* listeners and the keepalive timer, while closing */
	bool closing;
	void (*closed)(void *arg);
	void *closed_arg;
	struct call *waiting;	    /* suspended calls */
	struct stream *streams;	    /* events.c */
	struct download *downloads; /* bodies.c */
	size_t stream_count;
	size_t uploading; /* bytes of request bodies in memory */
};

/* --- routes --- */
struct call;
enum route_access {
	ROUTE_OPEN,  /* no secret in it: also without a token on any listener */
	ROUTE_READ,  /* open on loopback and local sockets, else with the token */
	ROUTE_CHANGE /* with the token when there is one */
};
enum route_body {
	BODY_NONE,
	BODY_JSON,
	BODY_OPTIONAL, /* JSON or nothing */
	BODY_HANDOVER, /* JSON with a request's body in it */
	BODY_OBJECT    /* a compiled program as it is */
};
struct route {
	const char *method, *pattern; /* "{x}" stands for one segment */
	void (*handler)(struct call *call);
	enum route_access access;
	bool apps; /* at holdfast.internal too */
	enum route_body body;
	const char *query; /* names of query parameters, blank between */
};
/* The whole table; for dispatch and for the test against openapi.yaml. */
const struct route *api_routes(size_t *ret_count);
/* The route, or NULL: then allow is empty for a path that does not exist, else the methods. */
const struct route *route_find(const char *method, const char *path, char *param, size_t param_size,
			       char *allow, size_t allow_size);

/* --- listeners --- */
int api_listener_open(struct api *api, const char *text, char *ret_error, size_t error_size);
int api_listener_open_apps(struct api *api, int fd, char *ret_error, size_t error_size);
void api_listener_wake(struct listener *listener); /* run MHD soon */
void api_listener_close(struct listener *listener);
void api_unhold(struct api *api); /* one of api->open is gone */
/* The port that listener n got; for tests that ask for port 0. */
uint16_t api_port(const struct api *api, size_t n);

/* --- calls --- */
struct call {
	unsigned refs; /* the connection, and one while an answer is awaited */
	struct listener *listener;
	struct api *api;
	struct MHD_Connection *connection; /* NULL once it is gone */
	const struct route *route;
	char param[256];
	char *path;
	struct buf body;
	size_t counted; /* of its bytes, in api->uploading: to the end of the call */
	bool refused;	/* the rest of the body is read and thrown away */
	size_t discarded;
	bool suspended;
	struct call *next_waiting, **prev_waiting;
	unsigned status;
	bool answered; /* with response NULL for want of memory */
	struct MHD_Response *response;
	char source[64];     /* of the peer, as exchanges have it */
	bool wants_response; /* requests.c: /response rather than /body */
	size_t limit;	     /* of a list */
};

/* MHD's callbacks. */
enum MHD_Result call_handle(void *arg, struct MHD_Connection *connection, const char *url,
			    const char *method, const char *version, const char *upload,
			    size_t *upload_size, void **state);
void call_completed(void *arg, struct MHD_Connection *connection, void **state,
		    enum MHD_RequestTerminationCode code);
/* The connection is MHD's no longer: answer those who wait, as the API closes. */
void calls_refuse_waiting(struct api *api);

/* For an answer that comes by callback: take a reference before asking; the callback answers
 * and then puts it. An answer before the handler returned is fine. */
struct call *call_ref(struct call *call);
void call_unref(struct call *call);

/* One answer each. Out of memory closes the connection. */
void call_json(struct call *call, unsigned status, struct json_object *object); /* takes it */
void call_bytes(struct call *call, unsigned status, const char *type, const void *bytes,
		size_t len); /* copies */
void call_problem(struct call *call, unsigned status, const char *field, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* With the members check and log where they are not NULL or empty. */
void call_problem_of(struct call *call, unsigned status, const char *check, const char *log,
		     const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The problem that belongs to a negative errno; what names the thing. */
void call_error(struct call *call, int error, const struct input_error *err, const char *what);
void call_respond(struct call *call, unsigned status, struct MHD_Response *response); /* takes */
void call_add_header(struct call *call, const char *name, const char *value);
/* To an answer: Location of path and id, absolute where the listener has an authority. */
void call_add_location(struct call *call, const char *path, const char *id);
const char *call_header(struct call *call, const char *name);
const char *call_query(struct call *call, const char *name);
/* The query's limit, API_PAGE_DEFAULT without; false: answered with a problem. */
bool call_limit(struct call *call, size_t *ret_limit);
const char *call_cursor(struct call *call);

/* --- access --- */
bool access_check_host(struct call *call);  /* false: answered */
bool access_check_route(struct call *call); /* false: answered */
void access_find_source(struct call *call);
void access_find_caller(struct call *call, struct daemon_caller *ret_caller);

/* --- JSON --- */
/* Strict RFC 8259: no duplicate keys, no comments, bounded depth. */
int json_read(const char *text, size_t len, struct input_error *err,
	      struct json_object **ret_object) __attribute__((warn_unused_result));

/* --- views; NULL: no memory --- */
struct json_object *view_time(int64_t ms);				    /* null for 0 */
struct json_object *view_list(struct json_object *items, const char *next); /* takes items */
struct json_object *view_status(struct daemon *daemon, bool reduced);
struct json_object *view_link(const struct link_info *info);
struct json_object *view_links(struct daemon *daemon);
struct json_object *view_request(const struct queue_row *row, bool events);
struct json_object *view_counters(struct daemon *daemon);
struct json_object *view_map(const struct steer_map_info *info, bool entries);
struct json_object *view_names(struct daemon *daemon, const char *after, size_t limit);
struct json_object *view_program(const struct program_info *info);
struct json_object *view_event(const struct daemon_event *event);
const char *event_type_name(enum daemon_event_type type);
/* OpenMetrics 1.0 text. */
int metrics_write(struct daemon *daemon, struct buf *out) __attribute__((warn_unused_result));

/* --- commands; -EINVAL with err --- */
int command_link_patch(struct json_object *object, struct link_patch *ret_patch,
		       struct input_error *err) __attribute__((warn_unused_result));
/* names point into object; the array is the caller's. */
int command_order(struct json_object *object, const char ***ret_names, size_t *ret_count,
		  struct input_error *err) __attribute__((warn_unused_result));
/* Lets what is not given as it is. */
int command_activation(struct json_object *object, struct daemon_activation *activation,
		       struct input_error *err) __attribute__((warn_unused_result));
struct handover {
	struct daemon_submit submit; /* its strings point into the object */
	const char **fields;
	uint8_t *decoded; /* body_base64 */
};
int command_handover(struct json_object *object, struct handover *ret_handover,
		     struct input_error *err) __attribute__((warn_unused_result));
void handover_done(struct handover *handover);

/* --- events --- */
void events_notify(void *arg, const struct daemon_event *event); /* daemon_event_cb, arg: api */
void events_keepalive(struct api *api);
void events_end(struct api *api);

/* --- bodies of exchanges --- */
/* A response that reads the body as the client takes it; NULL: no memory. */
struct MHD_Response *body_response(struct call *call, const struct queue_row *row,
				   enum queue_part part, uint64_t len);
void bodies_end(struct api *api);

/* --- handlers --- */
void get_status(struct call *call);
void get_links(struct call *call);
void patch_link(struct call *call);
void put_order(struct call *call);
void list_requests(struct call *call);
void post_request(struct call *call);
void get_request(struct call *call);
void get_request_body(struct call *call);
void get_request_response(struct call *call);
void retry_request(struct call *call);
void delete_request(struct call *call);
void get_counters(struct call *call);
void get_maps(struct call *call);
void get_map(struct call *call);
void get_names(struct call *call);
void delete_names(struct call *call);
void list_programs(struct call *call);
void post_program(struct call *call);
void get_program(struct call *call);
void activate_program(struct call *call);
void confirm_program(struct call *call);
void rollback_program(struct call *call);
void delete_program(struct call *call);
void post_explain(struct call *call);
void get_config(struct call *call);
void get_events(struct call *call);
void get_metrics(struct call *call);
void get_healthz(struct call *call);
void get_readyz(struct call *call);
void get_asset(struct call *call);
