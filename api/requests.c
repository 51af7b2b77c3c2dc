/* Handlers of /v1/requests: they ask the daemon and answer when it calls back. */
#include "internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An app knows only its own exchanges: others' are not there. */
static bool may_see(struct call *call, const struct queue_row *row)
{
	if (call->listener->kind != LISTENER_APPS)
		return true;
	return row->source && strcmp(row->source, call->source) == 0;
}

static bool is_id(const char *text)
{
	size_t len = strlen(text);

	for (const char *p = text; *p; p++)
		if (!isxdigit((unsigned char)*p) && *p != '-')
			return false;
	return len > 0 && len < ID_TEXT_MAX;
}

static void no_request(struct call *call)
{
	call_problem(call, 404, NULL, "there is no request of that id");
}

/* Ask for the row of the path's id; cb answers and puts the reference. */
static void ask(struct call *call, bool bodies, queue_row_cb cb)
{
	int r;

	if (!is_id(call->param)) {
		no_request(call);
		return;
	}
	access_find_source(call);
	r = daemon_request(call->api->daemon, call->param, bodies, cb, call_ref(call));
	if (r < 0) {
		call_error(call, r, NULL, "the request");
		call_unref(call);
	}
}

/* Is there a row that this caller may see, and does he still wait? Else answered. */
static bool check_row(struct call *call, int status, const struct queue_row *row)
{
	/* Without its connection the call may have outlived listener and API. */
	if (!call->connection || call->answered)
		return false;
	if (status == -ENOENT || (row && !may_see(call, row)))
		no_request(call);
	else if (status < 0 || !row)
		call_error(call, status < 0 ? status : -EIO, NULL, "the request");
	else
		return true;
	return false;
}

static void on_row(void *arg, int status, struct queue_row *row)
{
	struct call *call = arg;

	if (check_row(call, status, row))
		call_json(call, 200, view_request(row, true));
	queue_row_free(row);
	call_unref(call);
}

void get_request(struct call *call)
{
	ask(call, false, on_row);
}

/* --- bodies: an origin's bytes, so never a page of this origin --- */

/* The value of a field in "Name: value\r\n" lines; a status line in front does not match. */
static bool find_field(const uint8_t *lines, size_t len, const char *name, char *value, size_t size)
{
	size_t name_len = strlen(name);
	const char *p = (const char *)lines, *end = p + len;

	while (p && p < end) {
		const char *eol = memchr(p, '\n', (size_t)(end - p)), *stop = eol ? eol : end;

		if ((size_t)(stop - p) > name_len && p[name_len] == ':' &&
		    strncasecmp(p, name, name_len) == 0) {
			p += name_len + 1;
			while (p < stop && (*p == ' ' || *p == '\t'))
				p++;
			while (stop > p && (stop[-1] == '\r' || stop[-1] == ' '))
				stop--;
			snprintf(value, size, "%.*s", (int)(stop - p), p);
			return stop > p;
		}
		p = eol ? eol + 1 : NULL;
	}
	return false;
}

static void answer_body(struct call *call, const struct queue_row *row, enum queue_part part)
{
	bool request = part == QUEUE_REQUEST;
	const uint8_t *head = request ? row->fields : row->response_head;
	size_t head_len = request ? row->fields_len : row->response_head_len;
	uint64_t len = request ? row->body_bytes : row->response_bytes;
	struct MHD_Response *response =
		len ? body_response(call, row, part, len)
		    : MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
	char type[256];

	if (response) {
		if (!find_field(head, head_len, "Content-Type", type, sizeof(type)))
			strcpy(type, "application/octet-stream");
		MHD_add_response_header(response, "Content-Type", type);
		if (find_field(head, head_len, "Content-Encoding", type, sizeof(type)))
			MHD_add_response_header(response, "Content-Encoding", type);
		MHD_add_response_header(response, "Content-Disposition", "attachment");
		MHD_add_response_header(response, "Content-Security-Policy",
					"sandbox; default-src 'none'");
	}
	call_respond(call, 200, response);
}

static void on_row_bodies(void *arg, int status, struct queue_row *row)
{
	struct call *call = arg;
	char text[16];

	if (!check_row(call, status, row))
		goto out;
	if (!call->wants_response) {
		answer_body(call, row, QUEUE_REQUEST);
	} else if (row->response_status == 0) {
		call_problem(call, 404, NULL, "this request has no response yet");
	} else {
		answer_body(call, row, QUEUE_RESPONSE);
		snprintf(text, sizeof(text), "%d", row->response_status);
		call_add_header(call, "Holdfast-Status", text);
	}
out:
	queue_row_free(row);
	call_unref(call);
}

void get_request_body(struct call *call)
{
	ask(call, true, on_row_bodies);
}

void get_request_response(struct call *call)
{
	call->wants_response = true;
	ask(call, true, on_row_bodies);
}

/* --- the list --- */

static void on_rows(void *arg, int status, struct queue_row **rows, size_t count)
{
	struct call *call = arg;
	size_t shown = count < call->limit ? count : call->limit;
	struct json_object *items;

	if (status < 0) {
		call_error(call, status, NULL, "the requests");
	} else {
		items = json_object_new_array();
		for (size_t i = 0; items && i < shown; i++)
			json_object_array_add(items, view_request(rows[i], false));
		call_json(call, 200, view_list(items, count > shown ? rows[shown - 1]->id : NULL));
	}
	for (size_t i = 0; i < count; i++)
		queue_row_free(rows[i]);
	free(rows);
	call_unref(call);
}

static bool read_filter(struct call *call, struct queue_filter *filter)
{
	const char *state = call_query(call, "state");

	filter->host = call_query(call, "host");
	filter->rule = call_query(call, "rule");
	filter->source = call_query(call, "source");
	filter->before = call_cursor(call);
	if (state && request_state_parse(state, &filter->state) < 0) {
		call_problem(call, 400, "state",
			     "held, stored, sending, done, failed or expired, not %.40s", state);
		return false;
	}
	filter->has_state = state != NULL;
	if (filter->before && !is_id(filter->before)) {
		call_problem(call, 400, "cursor", "not a cursor that a list gave");
		return false;
	}
	if (!call_limit(call, &call->limit))
		return false;
	filter->limit = call->limit + 1; /* one more tells whether there is a next page */
	return true;
}

void list_requests(struct call *call)
{
	struct queue_filter filter = {0};
	int r;

	if (!read_filter(call, &filter))
		return;
	if (call->listener->kind == LISTENER_APPS) {
		access_find_source(call);
		filter.source = call->source;
	}
	r = daemon_requests(call->api->daemon, &filter, on_rows, call_ref(call));
	if (r < 0) {
		call_error(call, r, NULL, "the requests");
		call_unref(call);
	}
}

/* --- commands --- */

static void on_retried(void *arg, int status)
{
	struct call *call = arg;
	struct json_object *object;

	if (status < 0) {
		call_error(call, status, NULL, "the request");
	} else {
		object = json_object_new_object();
		json_object_object_add(object, "id", json_object_new_string(call->param));
		call_json(call, 202, object);
	}
	call_unref(call);
}

void retry_request(struct call *call)
{
	int r;

	if (!is_id(call->param)) {
		no_request(call);
		return;
	}
	r = daemon_request_retry(call->api->daemon, call->param, on_retried, call_ref(call));
	if (r < 0)
		on_retried(call, r);
}

static void on_deleted(void *arg, int status)
{
	struct call *call = arg;

	if (status < 0)
		call_error(call, status, NULL, "the request");
	else
		call_respond(
			call, 204,
			MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT));
	call_unref(call);
}

static void on_row_to_delete(void *arg, int status, struct queue_row *row)
{
	struct call *call = arg;
	int r;

	if (!check_row(call, status, row)) {
		/* answered, or nobody waits */
	} else if (call->api->closing) {
		call_error(call, -ECANCELED, NULL, "the request");
	} else {
		r = daemon_request_delete(call->api->daemon, call->param, on_deleted,
					  call_ref(call));
		if (r < 0)
			on_deleted(call, r);
	}
	queue_row_free(row);
	call_unref(call);
}

void delete_request(struct call *call)
{
	ask(call, false, on_row_to_delete);
}
