#include "internal.h"

#include <stdio.h>
#include <string.h>

/* One table: dispatch, 405, access, query names, and the test against openapi.yaml. */
static const struct route routes[] = {
	{"GET", "/v1/status", get_status, ROUTE_READ, true, BODY_NONE, ""},
	{"GET", "/v1/links", get_links, ROUTE_READ, true, BODY_NONE, ""},
	{"PUT", "/v1/links/order", put_order, ROUTE_CHANGE, false, BODY_JSON, ""},
	{"PATCH", "/v1/links/{name}", patch_link, ROUTE_CHANGE, false, BODY_JSON, ""},
	{"GET", "/v1/requests", list_requests, ROUTE_READ, true, BODY_NONE,
	 "state host rule source limit cursor next"},
	{"POST", "/v1/requests", post_request, ROUTE_CHANGE, true, BODY_HANDOVER, ""},
	{"GET", "/v1/requests/{id}", get_request, ROUTE_READ, true, BODY_NONE, ""},
	{"DELETE", "/v1/requests/{id}", delete_request, ROUTE_CHANGE, true, BODY_NONE, ""},
	{"GET", "/v1/requests/{id}/body", get_request_body, ROUTE_READ, true, BODY_NONE, ""},
	{"GET", "/v1/requests/{id}/response", get_request_response, ROUTE_READ, true, BODY_NONE,
	 ""},
	{"POST", "/v1/requests/{id}/retry", retry_request, ROUTE_CHANGE, false, BODY_NONE, ""},
	{"GET", "/v1/counters", get_counters, ROUTE_READ, false, BODY_NONE, ""},
	{"GET", "/v1/maps", get_maps, ROUTE_READ, false, BODY_NONE, ""},
	{"GET", "/v1/maps/{name}", get_map, ROUTE_READ, false, BODY_NONE, "limit cursor next"},
	{"GET", "/v1/names", get_names, ROUTE_READ, false, BODY_NONE, "limit cursor next"},
	{"DELETE", "/v1/names", delete_names, ROUTE_CHANGE, false, BODY_NONE, ""},
	{"GET", "/v1/programs", list_programs, ROUTE_READ, false, BODY_NONE, ""},
	{"POST", "/v1/programs", post_program, ROUTE_CHANGE, false, BODY_OBJECT, ""},
	{"POST", "/v1/programs/confirm", confirm_program, ROUTE_CHANGE, false, BODY_NONE, ""},
	{"POST", "/v1/programs/rollback", rollback_program, ROUTE_CHANGE, false, BODY_NONE, ""},
	{"GET", "/v1/programs/{id}", get_program, ROUTE_READ, false, BODY_NONE, ""},
	{"DELETE", "/v1/programs/{id}", delete_program, ROUTE_CHANGE, false, BODY_NONE, ""},
	{"POST", "/v1/programs/{id}/activate", activate_program, ROUTE_CHANGE, false, BODY_OPTIONAL,
	 ""},
	{"POST", "/v1/explain", post_explain, ROUTE_READ, false, BODY_JSON, ""},
	{"GET", "/v1/config", get_config, ROUTE_READ, false, BODY_NONE, ""},
	{"GET", "/v1/events", get_events, ROUTE_READ, false, BODY_NONE, ""},
	{"GET", "/metrics", get_metrics, ROUTE_READ, false, BODY_NONE, ""},
	{"GET", "/healthz", get_healthz, ROUTE_OPEN, true, BODY_NONE, ""},
	{"GET", "/readyz", get_readyz, ROUTE_OPEN, false, BODY_NONE, ""},
	{"GET", "/openapi.yaml", get_asset, ROUTE_OPEN, false, BODY_NONE, ""},
	{"GET", "/app.js", get_asset, ROUTE_OPEN, false, BODY_NONE, ""},
	{"GET", "/style.css", get_asset, ROUTE_OPEN, false, BODY_NONE, ""},
	{"GET", "/", get_asset, ROUTE_OPEN, true, BODY_NONE, ""},
};

const struct route *api_routes(size_t *ret_count)
{
	*ret_count = sizeof(routes) / sizeof(routes[0]);
	return routes;
}

static bool matches(const char *pattern, const char *path, char *param, size_t size)
{
	while (*pattern) {
		if (*pattern != '{') {
			if (*pattern++ != *path++)
				return false;
			continue;
		}
		size_t len = strcspn(path, "/");

		if (len == 0 || len >= size)
			return false;
		memcpy(param, path, len);
		param[len] = '\0';
		path += len;
		pattern = strchr(pattern, '}') + 1;
	}
	return *path == '\0';
}

static void allow_add(char *allow, size_t size, const char *method)
{
	size_t len = strlen(allow);

	snprintf(allow + len, size - len, "%s%s%s", len ? ", " : "", method,
		 strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

const struct route *route_find(const char *method, const char *path, char *param, size_t param_size,
			       char *allow, size_t allow_size)
{
	const char *pattern = NULL;

	if (strcmp(method, "HEAD") == 0)
		method = "GET";
	allow[0] = '\0';
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		const struct route *route = &routes[i];

		/* The first pattern that fits is the resource: "order" is not a link's name. */
		if (pattern ? strcmp(pattern, route->pattern) != 0
			    : !matches(route->pattern, path, param, param_size))
			continue;
		pattern = route->pattern;
		if (strcmp(route->method, method) == 0)
			return route;
		allow_add(allow, allow_size, route->method);
	}
	return NULL;
}
