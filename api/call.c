#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char page_policy[] =
	"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
	"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct call *call_ref(struct call *call)
{
	call->refs++;
	return call;
}

void call_unref(struct call *call)
{
	if (--call->refs > 0)
		return;
	if (call->response)
		MHD_destroy_response(call->response);
	buf_done(&call->body);
	free(call->path);
	free(call);
}

static void waiting_add(struct call *call)
{
	call->suspended = true;
	call->next_waiting = call->api->waiting;
	call->prev_waiting = &call->api->waiting;
	if (call->next_waiting)
		call->next_waiting->prev_waiting = &call->next_waiting;
	call->api->waiting = call;
}

static void waiting_remove(struct call *call)
{
	call->suspended = false;
	*call->prev_waiting = call->next_waiting;
	if (call->next_waiting)
		call->next_waiting->prev_waiting = call->prev_waiting;
}

void calls_refuse_waiting(struct api *api)
{
	while (api->waiting)
		call_problem(api->waiting, 503, NULL, "the daemon is stopping");
}

void call_respond(struct call *call, unsigned status, struct MHD_Response *response)
{
	if (!call->connection || call->answered) {
		/* The client is gone, or was answered as the API closed. */
		if (response)
			MHD_destroy_response(response);
		return;
	}
	call->answered = true;
	call->status = status;
	call->response = response;
	if (response) {
		MHD_add_response_header(response, "Cache-Control", "no-store");
		MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
		if (!MHD_get_response_header(response, "Content-Security-Policy"))
			MHD_add_response_header(response, "Content-Security-Policy", page_policy);
	}
	if (call->suspended) {
		waiting_remove(call);
		MHD_resume_connection(call->connection);
		api_listener_wake(call->listener);
	}
}

void call_add_header(struct call *call, const char *name, const char *value)
{
	if (call->response)
		MHD_add_response_header(call->response, name, value);
}

void call_bytes(struct call *call, unsigned status, const char *type, const void *bytes, size_t len)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(len, (void *)bytes, MHD_RESPMEM_MUST_COPY);

	if (response)
		MHD_add_response_header(response, "Content-Type", type);
	call_respond(call, status, response);
}

static void answer_object(struct call *call, unsigned status, const char *type,
			  struct json_object *object)
{
	const char *text = NULL;
	size_t len = 0;

	if (object)
		text = json_object_to_json_string_length(
			object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	if (text)
		call_bytes(call, status, type, text, len);
	else
		call_bytes(call, 503, "text/plain", "out of memory\n", 14);
	json_object_put(object);
}

void call_json(struct call *call, unsigned status, struct json_object *object)
{
	answer_object(call, status, "application/json", object);
}

static const char *status_title(unsigned status)
{
	static const struct {
		unsigned status;
		const char *title;
	} titles[] = {
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{409, "Conflict"},
		{411, "Length Required"},
		{413, "Content Too Large"},
		{415, "Unsupported Media Type"},
		{421, "Misdirected Request"},
		{422, "Unprocessable Content"},
		{503, "Service Unavailable"},
		{507, "Insufficient Storage"},
	};

	for (size_t i = 0; i < sizeof(titles) / sizeof(titles[0]); i++)
		if (titles[i].status == status)
			return titles[i].title;
	return "Internal Server Error";
}

static struct json_object *__attribute__((format(printf, 2, 0)))
problem_new(unsigned status, const char *format, va_list args)
{
	struct json_object *object = json_object_new_object();
	char detail[512];

	vsnprintf(detail, sizeof(detail), format, args);
	if (!object)
		return NULL;
	json_object_object_add(object, "type", json_object_new_string("about:blank"));
	json_object_object_add(object, "title", json_object_new_string(status_title(status)));
	json_object_object_add(object, "status", json_object_new_int((int)status));
	json_object_object_add(object, "detail", json_object_new_string(detail));
	return object;
}

static void problem_add(struct json_object *object, const char *key, const char *text)
{
	if (object && text && text[0])
		json_object_object_add(object, key, json_object_new_string(text));
}

void call_problem(struct call *call, unsigned status, const char *field, const char *format, ...)
{
	struct json_object *object;
	va_list args;

	va_start(args, format);
	object = problem_new(status, format, args);
	va_end(args);
	problem_add(object, "field", field);
	answer_object(call, status, "application/problem+json", object);
}

void call_problem_of(struct call *call, unsigned status, const char *check, const char *log,
		     const char *format, ...)
{
	struct json_object *object;
	va_list args;

	va_start(args, format);
	object = problem_new(status, format, args);
	va_end(args);
	problem_add(object, "check", check);
	problem_add(object, "log", log);
	answer_object(call, status, "application/problem+json", object);
}

void call_error(struct call *call, int error, const struct input_error *err, const char *what)
{
	static const struct {
		int error;
		unsigned status;
		const char *text;
	} table[] = {
		{ENOENT, 404, "there is no such thing"},
		{EBUSY, 409, "it is being sent at this moment"},
		{EALREADY, 409, "it has its answer already"},
		{ENODATA, 409, "it was given up when the queue was full, and its body is gone"},
		{EDQUOT, 503, "the queue is full"},
		{ENOSPC, 507, "the disk is full"},
		{EROFS, 507, "the disk takes no changes"},
		{EIO, 507, "the disk fails"},
		{EBADMSG, 507, "the database is corrupt, and is put aside"},
		{E2BIG, 413, "the body is larger than queue.max_request"},
		{EINVAL, 400, "not valid"},
		{EAGAIN, 503, "too much waits for the disk"},
		{ENOMEM, 503, "out of memory"},
		{ECANCELED, 503, "the daemon is stopping"},
	};
	unsigned status = 500;
	const char *text = strerror(-error);

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].error != -error)
			continue;
		status = table[i].status;
		text = table[i].text;
	}
	call_problem(call, status, err ? err->path : NULL, "%s: %s", what,
		     err && err->text[0] ? err->text : text);
	if (status == 503)
		call_add_header(call, "Retry-After", "5");
}

void call_add_location(struct call *call, const char *path, const char *id)
{
	const char *host = NULL;
	char location[512];

	if (!call->connection)
		return; /* and the listener may be gone too */
	/* A local socket has no authority to be absolute with. */
	if (call->listener->kind == LISTENER_APPS)
		host = "holdfast.internal";
	else if (call->listener->kind == LISTENER_TCP)
		host = call_header(call, "Host");
	snprintf(location, sizeof(location), "%s%s%s%s", host ? "http://" : "", host ? host : "",
		 path, id);
	call_add_header(call, "Location", location);
}

const char *call_header(struct call *call, const char *name)
{
	return MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND, name);
}

const char *call_query(struct call *call, const char *name)
{
	return MHD_lookup_connection_value(call->connection, MHD_GET_ARGUMENT_KIND, name);
}

bool call_limit(struct call *call, size_t *ret_limit)
{
	const char *text = call_query(call, "limit");
	unsigned long limit = API_PAGE_DEFAULT;
	char *end;

	if (text) {
		limit = strtoul(text, &end, 10);
		if (text[0] < '0' || text[0] > '9' || *end || limit < 1 || limit > API_PAGE_MAX) {
			call_problem(call, 400, "limit", "a number from 1 to %d", API_PAGE_MAX);
			return false;
		}
	}
	*ret_limit = limit;
	return true;
}

const char *call_cursor(struct call *call)
{
	const char *cursor = call_query(call, "cursor");

	return cursor ? cursor : call_query(call, "next");
}

/* --- the life of a call --- */

static size_t body_limit(const struct call *call)
{
	const struct config *config = daemon_config(call->api->daemon);

	if (call->route->body == BODY_HANDOVER)
		return config->queue.max_request / 3 * 4 + API_JSON_MAX;
	return call->route->body == BODY_OBJECT ? HF_PROGRAM_BYTES_MAX : API_JSON_MAX;
}

static enum MHD_Result on_query(void *arg, enum MHD_ValueKind kind, const char *name,
				const char *value)
{
	struct call *call = arg;
	const char *known = call->route->query;
	size_t len = strlen(name);

	for (const char *p = known; *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");

		if (n == len && memcmp(p, name, n) == 0)
			return MHD_YES;
		p += n;
	}
	call_problem(call, 400, name, "no such query parameter; known: %s",
		     *known ? known : "none");
	return MHD_NO;
}

static bool has_type(struct call *call)
{
	const char *type = call_header(call, "Content-Type");
	static const char *const json[] = {"application/json", "application/merge-patch+json",
					   NULL};
	static const char *const object[] = {"application/octet-stream", NULL};
	size_t len = type ? strcspn(type, "; \t") : 0;

	for (const char *const *known = call->route->body == BODY_OBJECT ? object : json; *known;
	     known++)
		if (len == strlen(*known) && strncasecmp(type, *known, len) == 0)
			return true;
	return false;
}

static void answer_too_large(struct call *call)
{
	call_problem_of(call, 413, call->route->body == BODY_OBJECT ? "size" : NULL, NULL,
			"at most %zu bytes", body_limit(call));
}

static void check_body(struct call *call)
{
	const char *length = call_header(call, "Content-Length");

	bool chunked = call_header(call, "Transfer-Encoding");

	if (call->route->body == BODY_NONE)
		return;
	if (call->route->body == BODY_OPTIONAL && !chunked &&
	    (!length || strtoull(length, NULL, 10) == 0))
		return;
	if (!has_type(call))
		call_problem(call, 415, "Content-Type", "the body must be %s",
			     call->route->body == BODY_OBJECT ? "application/octet-stream"
							      : "application/json");
	else if (!length && !chunked)
		call_problem(call, 411, NULL, "a body with its Content-Length is needed");
	else if (length && strtoull(length, NULL, 10) > body_limit(call))
		answer_too_large(call);
}

/* What can be said after the head alone. */
static void begin(struct call *call, const char *method)
{
	char allow[64];

	if (!access_check_host(call))
		return;
	call->route = route_find(method, call->path, call->param, sizeof(call->param), allow,
				 sizeof(allow));
	if (!call->route && allow[0]) {
		call_problem(call, 405, NULL, "%s does not take %.32s", call->path, method);
		call_add_header(call, "Allow", allow);
		return;
	}
	if (!call->route) {
		call_problem(call, 404, NULL, "there is nothing at this path");
		return;
	}
	if (!access_check_route(call))
		return;
	MHD_get_connection_values(call->connection, MHD_GET_ARGUMENT_KIND, on_query, call);
	if (!call->answered) {
		check_body(call);
		buf_init(&call->body, body_limit(call));
	}
}

static struct call *call_new(struct listener *listener, struct MHD_Connection *connection,
			     const char *url)
{
	struct call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->path = strdup(url);
	if (!call->path) {
		free(call);
		return NULL;
	}
	call->refs = 1;
	call->listener = listener;
	call->api = listener->api;
	call->connection = connection;
	buf_init(&call->body, 0);
	return call;
}

/* MHD takes an answer only before the body or after it: what is too much is read and thrown
 * away, up to as much again. */
static enum MHD_Result take_upload(struct call *call, const char *bytes, size_t len)
{
	size_t allowed = API_UPLOADS_MAX, limit;

	if (call->refused || !call->route || call->route->body == BODY_NONE) {
		call->discarded += len;
		return call->discarded > API_DISCARD_MAX + call->body.limit ? MHD_NO : MHD_YES;
	}
	limit = body_limit(call);
	if (allowed < 2 * limit)
		allowed = 2 * limit;
	if (call->api->uploading + len > allowed) {
		call->refused = true;
		call_problem(call, 503, NULL, "too many bodies are being received");
	} else if (buf_append(&call->body, bytes, len) < 0) {
		call->refused = true;
		answer_too_large(call);
	} else {
		call->api->uploading += len;
		call->counted += len;
	}
	return MHD_YES;
}

/* A client that is still sending when the connection closes may never see the answer. One that
 * waits for 100 Continue has sent nothing yet. */
static bool worth_reading(struct call *call)
{
	const char *length = call_header(call, "Content-Length");
	unsigned long long len = length ? strtoull(length, NULL, 10) : 0;

	return len > 0 && len <= API_DISCARD_MAX && !call_header(call, "Expect");
}

static enum MHD_Result queue_answer(struct call *call)
{
	return call->response ? MHD_queue_response(call->connection, call->status, call->response)
			      : MHD_NO;
}

enum MHD_Result call_handle(void *arg, struct MHD_Connection *connection, const char *url,
			    const char *method, const char *version, const char *upload,
			    size_t *upload_size, void **state)
{
	struct call *call = *state;

	if (!call) {
		call = call_new(arg, connection, url);
		if (!call)
			return MHD_NO;
		*state = call;
		begin(call, method);
		call->refused = call->answered && worth_reading(call);
		return call->answered && !call->refused ? queue_answer(call) : MHD_YES;
	}
	if (*upload_size > 0) {
		enum MHD_Result result = take_upload(call, upload, *upload_size);

		*upload_size = 0;
		return result;
	}
	/* While the API closes nobody may begin to wait: MHD cannot stop with a call suspended. */
	if (!call->answered && call->api->closing)
		call_problem(call, 503, NULL, "the daemon is stopping");
	if (call->answered)
		return queue_answer(call);
	call_ref(call);
	call->route->handler(call);
	if (call->answered) {
		enum MHD_Result result = queue_answer(call);

		call_unref(call);
		return result;
	}
	/* A handler that neither answered nor waits: close rather than hang. */
	if (call->refs == 2) {
		call_unref(call);
		return MHD_NO;
	}
	call_unref(call);
	waiting_add(call);
	MHD_suspend_connection(connection);
	return MHD_YES;
}

void call_completed(void *arg, struct MHD_Connection *connection, void **state,
		    enum MHD_RequestTerminationCode code)
{
	struct call *call = *state;

	if (!call)
		return;
	*state = NULL;
	call->api->uploading -= call->counted;
	buf_done(&call->body);
	buf_init(&call->body, 0);
	call->connection = NULL;
	call_unref(call);
}
