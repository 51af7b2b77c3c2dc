/* Handlers that change something, but for requests. */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NULL: answered. */
static struct json_object *read_body(struct call *call)
{
	struct input_error err = {0};
	struct json_object *object = NULL;
	int r = json_read((const char *)buf_bytes(&call->body), buf_len(&call->body), &err,
			  &object);

	if (r == 0 && !object)
		r = input_error_set(&err, "", 0, "null is no command");
	if (r == 0) {
		buf_done(&call->body); /* the text may be long */
		return object;
	}
	call_error(call, r, &err, "the body");
	return NULL;
}

static bool find_link(struct call *call, struct link_info *ret_info)
{
	struct link_info links[LINKS_MAX];
	size_t count = daemon_links(call->api->daemon, links, LINKS_MAX);

	for (size_t i = 0; i < count; i++) {
		if (strcmp(links[i].name, call->param) != 0)
			continue;
		*ret_info = links[i];
		return true;
	}
	call_problem(call, 404, NULL, "there is no link of that name");
	return false;
}

void patch_link(struct call *call)
{
	struct input_error err = {0};
	struct json_object *object;
	struct link_patch patch;
	struct link_info info;
	int r;

	if (!find_link(call, &info))
		return;
	object = read_body(call);
	if (!object)
		return;
	r = command_link_patch(object, &patch, &err);
	json_object_put(object);
	if (r == 0)
		r = daemon_link_patch(call->api->daemon, call->param, &patch);
	if (r < 0)
		call_error(call, r, &err, "the link");
	else if (find_link(call, &info))
		call_json(call, 200, view_link(&info));
}

void put_order(struct call *call)
{
	struct input_error err = {0};
	struct json_object *object = read_body(call);
	const char **names = NULL;
	size_t count;
	int r;

	if (!object)
		return;
	r = command_order(object, &names, &count, &err);
	if (r == 0)
		r = daemon_links_order(call->api->daemon, names, count, &err);
	if (r == -EINVAL && !err.path[0])
		strcpy(err.path, "order");
	if (r < 0)
		call_error(call, r, &err, "the order");
	else
		call_json(call, 200, view_links(call->api->daemon));
	free(names);
	json_object_put(object);
}

void delete_names(struct call *call)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "forgotten",
			       json_object_new_uint64(daemon_names_flush(call->api->daemon)));
	call_json(call, 200, object);
}

/* --- handing a request over --- */

static void on_submitted(void *arg, int status, const char *id, const struct input_error *err)
{
	struct call *call = arg;
	struct json_object *object;

	if (status < 0) {
		call_error(call, status, err, "the request");
	} else {
		object = json_object_new_object();
		json_object_object_add(object, "id", json_object_new_string(id));
		json_object_object_add(object, "state", json_object_new_string("stored"));
		call_json(call, 202, object);
		call_add_location(call, "/v1/requests/", id);
	}
	call_unref(call);
}

void post_request(struct call *call)
{
	struct input_error err = {0};
	struct json_object *object = read_body(call);
	struct handover handover;
	int r;

	if (!object)
		return;
	r = command_handover(object, &handover, &err);
	if (r < 0) {
		call_error(call, r, &err, "the request");
		json_object_put(object);
		return;
	}
	access_find_source(call);
	handover.submit.source = call->source;
	r = daemon_submit(call->api->daemon, &handover.submit, on_submitted, call_ref(call));
	if (r < 0) {
		call_error(call, r, NULL, "the request");
		call_unref(call);
	}
	handover_done(&handover);
	json_object_put(object);
}
