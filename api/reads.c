/* Handlers that read, but for requests, and the assets. */
#include "assets.h"
#include "internal.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

void get_status(struct call *call)
{
	call_json(call, 200, view_status(call->api->daemon, call->listener->kind == LISTENER_APPS));
}

void get_links(struct call *call)
{
	call_json(call, 200, view_links(call->api->daemon));
}

void get_counters(struct call *call)
{
	struct json_object *object = view_counters(call->api->daemon);

	if (object)
		call_json(call, 200, object);
	else
		call_problem(call, 503, NULL, "the counters of the kernel cannot be read now");
}

void get_names(struct call *call)
{
	size_t limit;

	if (call_limit(call, &limit))
		call_json(call, 200, view_names(call->api->daemon, call_cursor(call), limit));
}

/* The tag is the content's hash: equal configurations have equal tags, over restarts too. */
static bool make_etag(const char *text, size_t len, char *etag, size_t size)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned n;

	if (EVP_Digest(text, len, hash, &n, EVP_sha256(), NULL) != 1)
		return false;
	etag[0] = '"';
	for (size_t i = 0; i < 16; i++)
		snprintf(etag + 1 + 2 * i, size - 1 - 2 * i, "%02x", hash[i]);
	strcat(etag, "\"");
	return true;
}

void get_config(struct call *call)
{
	struct json_object *object = config_to_json(daemon_config(call->api->daemon));
	const char *match = call_header(call, "If-None-Match"), *text = NULL;
	char etag[40];
	size_t len;

	if (object)
		text = json_object_to_json_string_length(
			object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	if (!text || !make_etag(text, len, etag, sizeof(etag)))
		call_problem(call, 503, NULL, "out of memory");
	else if (match && (strcmp(match, "*") == 0 || strstr(match, etag)))
		call_bytes(call, 304, "application/json", "", 0);
	else
		call_bytes(call, 200, "application/json", text, len);
	if (call->status == 200 || call->status == 304)
		call_add_header(call, "ETag", etag);
	json_object_put(object);
}

void get_metrics(struct call *call)
{
	struct buf out;

	buf_init(&out, 4 << 20);
	if (metrics_write(call->api->daemon, &out) < 0)
		call_problem(call, 503, NULL, "the counters of the kernel cannot be read now");
	else
		call_bytes(call, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8",
			   buf_bytes(&out), buf_len(&out));
	buf_done(&out);
}

void get_healthz(struct call *call)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "status", json_object_new_string("ok"));
	call_json(call, 200, object);
}

void get_readyz(struct call *call)
{
	struct json_object *object = json_object_new_object();
	struct daemon_status status;
	bool ready;

	daemon_status(call->api->daemon, &status);
	ready = status.steering && status.queue_open;
	json_object_object_add(object, "ready", json_object_new_boolean(ready));
	json_object_object_add(object, "steering", json_object_new_boolean(status.steering));
	json_object_object_add(object, "queue_open", json_object_new_boolean(status.queue_open));
	call_json(call, ready ? 200 : 503, object);
}

static const char *type_of(const char *name)
{
	static const char *const types[][2] = {
		{".html", "text/html; charset=utf-8"},
		{".js", "text/javascript; charset=utf-8"},
		{".css", "text/css; charset=utf-8"},
		{".yaml", "application/yaml; charset=utf-8"},
	};
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(dot, types[i][0]) == 0)
			return types[i][1];
	return "application/octet-stream";
}

static const char text_for_apps[] = "This is Holdfast. Apps may use:\n"
				    "  GET    /v1/status              online or not\n"
				    "  GET    /v1/links\n"
				    "  POST   /v1/requests            hand a request over\n"
				    "  GET    /v1/requests            your own\n"
				    "  GET    /v1/requests/{id}       and .../body, .../response\n"
				    "  DELETE /v1/requests/{id}\n";

void get_asset(struct call *call)
{
	const char *name = call->path[1] ? call->path + 1 : "index.html";

	if (call->listener->kind == LISTENER_APPS) {
		call_bytes(call, 200, "text/plain; charset=utf-8", text_for_apps,
			   sizeof(text_for_apps) - 1);
		return;
	}
	for (size_t i = 0; i < asset_count; i++) {
		if (strcmp(assets[i].name, name) != 0)
			continue;
		call_bytes(call, 200, type_of(name), assets[i].data, assets[i].len);
		return;
	}
	call_problem(call, 404, NULL, "there is nothing at this path");
}
