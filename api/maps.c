/* Every BPF map of the programs in service, and its entries. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void get_maps(struct call *call)
{
	struct steer_map_info *maps = NULL;
	struct json_object *array;
	size_t count = 0;
	int r = daemon_maps(call->api->daemon, &maps, &count);

	if (r < 0) {
		call_error(call, r, NULL, "the maps of the kernel");
		return;
	}
	array = json_object_new_array();
	for (size_t i = 0; array && i < count; i++)
		json_object_array_add(array, view_map(&maps[i], true));
	free(maps);
	call_json(call, 200, view_list(array, NULL));
}

static void answer_page(struct call *call, const struct steer_map_info *info,
			struct json_object *items, const char *next, const char *note)
{
	struct json_object *object = view_map(info, false);

	if (!object) {
		json_object_put(items);
		call_json(call, 200, NULL);
		return;
	}
	json_object_object_add(object, "items", items);
	json_object_object_add(object, "next", next ? json_object_new_string(next) : NULL);
	if (note)
		json_object_object_add(object, "note", json_object_new_string(note));
	call_json(call, 200, object);
}

void get_map(struct call *call)
{
	struct json_object *items = NULL;
	struct steer_map_info info;
	char *next = NULL;
	size_t limit;
	int r;

	if (!call_limit(call, &limit))
		return;
	r = daemon_map_info(call->api->daemon, call->param, &info);
	if (r == 0)
		r = daemon_map_entries(call->api->daemon, call->param, call_cursor(call), limit,
				       &items, &next);
	if (r == 0)
		answer_page(call, &info, items, next, NULL);
	else if (r == -EOPNOTSUPP)
		answer_page(call, &info, json_object_new_array(), NULL,
			    "the kernel does not list the entries of such a map");
	else if (r == -EINVAL)
		call_problem(call, 400, "cursor", "not a cursor of this map");
	else
		call_error(call, r, NULL, "this map");
	free(next);
}
