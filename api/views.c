/* Snapshots to JSON. Out of memory inside a view leaves out a member; json-c has no better way. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void add(struct json_object *object, const char *key, struct json_object *value)
{
	json_object_object_add(object, key, value);
}

static struct json_object *text_or_null(const char *text)
{
	return text && text[0] ? json_object_new_string(text) : NULL;
}

static void add_count(struct json_object *object, const char *key, uint64_t value)
{
	add(object, key, json_object_new_uint64(value));
}

struct json_object *view_time(int64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	char text[48], day[32];
	struct tm tm;

	if (ms <= 0 || !gmtime_r(&seconds, &tm))
		return NULL;
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%03dZ", day, (int)(ms % 1000));
	return json_object_new_string(text);
}

struct json_object *view_list(struct json_object *items, const char *next)
{
	struct json_object *list = json_object_new_object();

	if (!list) {
		json_object_put(items);
		return NULL;
	}
	add(list, "items", items);
	add(list, "next", text_or_null(next));
	return list;
}

/* --- status --- */

static void add_probation(struct json_object *object, const struct program_info *info)
{
	add(object, "probation_left",
	    info->state == PROGRAM_PROBATION
		    ? json_object_new_double((double)info->probation_left / 1000)
		    : NULL);
}

static struct json_object *view_current_program(struct daemon *daemon,
						const struct daemon_status *status)
{
	struct json_object *object = json_object_new_object();
	struct program_info info;

	daemon_program_current(daemon, &info);
	add(object, "id", json_object_new_string(info.id));
	add(object, "name", json_object_new_string(info.name));
	add(object, "version", json_object_new_string(info.version));
	/* Before steering begins, and after it is taken down, nothing is in service. */
	add(object, "state",
	    json_object_new_string(status->steering ? program_state_name(info.state) : "loaded"));
	add_probation(object, &info);
	return object;
}

static void add_store_warnings(struct json_object *array, const struct store_statistics *store)
{
	char text[256];

	if (array && store->stands_in)
		json_object_array_add(
			array,
			json_object_new_string("the database cannot be opened: nothing is stored, "
					       "and what was stored waits; it is tried again"));
	if (!array || !store->corrupt)
		return;
	snprintf(text, sizeof(text),
		 "the database was corrupt: it was put aside as %s, and a new one begun; what was "
		 "stored in it is not sent",
		 store->aside);
	json_object_array_add(array, json_object_new_string(text));
}

static struct json_object *view_warnings(struct daemon *daemon,
					 const struct store_statistics *store)
{
	struct json_object *array = json_object_new_array();
	const char *obstacle = daemon_obstacle(daemon);
	struct program_warnings warnings;

	add_store_warnings(array, store);
	daemon_program_warnings(daemon, &warnings);
	for (size_t i = 0; array && i < warnings.count; i++)
		json_object_array_add(array, json_object_new_string(warnings.text[i]));
	if (array && obstacle)
		json_object_array_add(array, json_object_new_string(obstacle));
	return array;
}

static struct json_object *view_queue(const struct daemon_status *status)
{
	struct json_object *object = json_object_new_object();
	const struct queue_totals *queue = &status->queue;

	add_count(object, "held", status->held);
	add_count(object, "stored", queue->stored);
	add_count(object, "sending", queue->sending);
	add_count(object, "done", queue->done);
	add_count(object, "failed", queue->failed);
	add_count(object, "expired", queue->expired);
	add_count(object, "owing", queue->owing);
	add_count(object, "bytes", queue->bytes);
	add_count(object, "max_bytes", queue->max_bytes);
	add_count(object, "max_count", queue->max_count);
	return object;
}

static struct json_object *view_store(const struct store_statistics *store)
{
	struct json_object *object = json_object_new_object();

	add_count(object, "commits", store->commits);
	add_count(object, "failures", store->failures);
	add_count(object, "waiting", store->waiting);
	add_count(object, "bytes", store->database_bytes);
	add_count(object, "corrupt", store->corrupt);
	add(object, "aside", store->aside[0] ? json_object_new_string(store->aside) : NULL);
	return object;
}

static struct json_object *part_health(bool good, const char *why)
{
	struct json_object *object = json_object_new_object();

	add(object, "ok", json_object_new_boolean(good));
	add(object, "detail", good ? NULL : json_object_new_string(why));
	return object;
}

static struct json_object *view_health(const struct daemon_status *status)
{
	struct json_object *object = json_object_new_object();
	char why[96];

	snprintf(why, sizeof(why), "%s: %s",
		 status->store.stands_in ? "the database cannot be opened"
					 : "the last commit failed",
		 strerror(-status->store.last_error));
	add(object, "steer", part_health(status->steering, "traffic is not steered"));
	add(object, "queue", part_health(status->queue_open, "the queue is not open"));
	add(object, "store", part_health(status->store.last_error == 0, why));
	add(object, "links", part_health(status->online, "no link is online"));
	return object;
}

static struct json_object *view_traffic(const struct daemon_status *status)
{
	struct json_object *object = json_object_new_object();

	add_count(object, "http", status->http_requests);
	add_count(object, "tls", status->tls_streams);
	add_count(object, "tcp", status->tcp_streams);
	add_count(object, "upgraded", status->upgraded_streams);
	add_count(object, "sessions", status->sessions);
	add_count(object, "under_way", status->under_way);
	add_count(object, "in_line", status->in_line);
	add_count(object, "held_total", status->held_total);
	add_count(object, "waited", status->waited);
	add_count(object, "cancelled", status->cancelled);
	add_count(object, "refused", status->refused);
	add_count(object, "bad", status->bad_requests);
	add_count(object, "timed_out", status->proxy.timed_out);
	add_count(object, "stored_total", status->queue.put);
	add_count(object, "refused_full", status->queue.refused_full);
	add_count(object, "evicted", status->queue.evicted);
	add_count(object, "answered", status->queue.answered);
	add_count(object, "matched", status->queue.matched);
	add_count(object, "paid", status->queue.paid);
	return object;
}

static struct json_object *view_streams(const struct proxy_statistics *proxy)
{
	struct json_object *object = json_object_new_object();

	add_count(object, "held_total", proxy->held_streams);
	add_count(object, "held_over", proxy->held_over);
	add_count(object, "spliced", proxy->spliced);
	add_count(object, "no_pipes", proxy->no_pipes);
	add_count(object, "pipes", proxy->pipes);
	return object;
}

static struct json_object *view_relay(const struct relay_statistics *relay)
{
	struct json_object *object = json_object_new_object();

	add_count(object, "flows", relay->flows);
	add_count(object, "flows_max", relay->flows_max);
	add_count(object, "flows_opened", relay->flows_opened);
	add_count(object, "flows_refused", relay->flows_refused);
	add_count(object, "flows_full", relay->flows_full);
	add_count(object, "flows_evicted", relay->flows_evicted);
	add_count(object, "datagrams_in", relay->datagrams_in);
	add_count(object, "datagrams_out", relay->datagrams_out);
	add_count(object, "echoes", relay->echoes);
	add_count(object, "echoes_sent", relay->echoes_sent);
	add_count(object, "echoes_answered", relay->echoes_answered);
	add_count(object, "echoes_refused", relay->echoes_refused);
	add_count(object, "errors_told", relay->errors_told);
	add_count(object, "errors_limited", relay->errors_limited);
	add_count(object, "dropped", relay->dropped);
	return object;
}

static struct json_object *view_upstream(const struct upstream_statistics *upstream)
{
	struct json_object *object = json_object_new_object();

	add_count(object, "connects", upstream->connects);
	add_count(object, "reused", upstream->reused);
	add_count(object, "tls_handshakes", upstream->handshakes);
	add_count(object, "tls_resumed", upstream->resumed);
	add_count(object, "tls_rejected", upstream->rejected);
	return object;
}

static struct json_object *view_bodies(const struct spools_statistics *bodies)
{
	struct json_object *object = json_object_new_object();

	add_count(object, "open", bodies->open);
	add_count(object, "memory", bodies->memory);
	add_count(object, "bytes", bodies->bytes);
	add_count(object, "max_bytes", bodies->max_bytes);
	add_count(object, "files", bodies->files);
	add_count(object, "max_files", bodies->max_files);
	add_count(object, "filed", bodies->filed);
	add_count(object, "refused", bodies->refused);
	return object;
}

static struct json_object *view_links_summary(struct daemon *daemon)
{
	struct link_info links[LINKS_MAX];
	size_t count = daemon_links(daemon, links, LINKS_MAX);
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < count; i++) {
		struct json_object *link = json_object_new_object();

		add(link, "name", json_object_new_string(links[i].name));
		add(link, "state", json_object_new_string(link_state_name(links[i].state)));
		json_object_array_add(array, link);
	}
	return array;
}

static struct json_object *view_dns(const struct resolver_statistics *dns)
{
	struct json_object *object = json_object_new_object();

	add_count(object, "questions", dns->questions_udp + dns->questions_tcp);
	add_count(object, "answered_cache", dns->answered_cache);
	add_count(object, "answered_virtual", dns->answered_virtual);
	add_count(object, "answered_upstream", dns->answered_upstream);
	add_count(object, "answered_stale", dns->answered_stale);
	add_count(object, "failed", dns->failed);
	add_count(object, "refused",
		  dns->malformed + dns->rate_limited + dns->full + dns->from_link);
	add_count(object, "virtual_names", dns->virtual_names);
	add_count(object, "cached", dns->cached);
	return object;
}

struct json_object *view_status(struct daemon *daemon, bool reduced)
{
	struct json_object *object = json_object_new_object();
	struct daemon_status status;

	if (!object)
		return NULL;
	daemon_status(daemon, &status);
	add(object, "version", json_object_new_string(HOLDFAST_VERSION));
	add(object, "online", json_object_new_boolean(status.online));
	if (reduced)
		return object;
	add(object, "started", view_time(status.started));
	add(object, "uptime", json_object_new_double((double)status.uptime / 1000));
	add(object, "program", view_current_program(daemon, &status));
	add(object, "warnings", view_warnings(daemon, &status.store));
	add(object, "queue", view_queue(&status));
	add(object, "store", view_store(&status.store));
	add(object, "health", view_health(&status));
	add(object, "links", view_links_summary(daemon));
	add(object, "requests", view_traffic(&status));
	add(object, "streams", view_streams(&status.proxy));
	add(object, "relay", view_relay(&status.relay));
	add(object, "upstream", view_upstream(&status.upstream));
	add(object, "bodies", view_bodies(&status.bodies));
	add(object, "dns", view_dns(&status.resolver));
	add_count(object, "rss_anon", status.rss_anon);
	return object;
}

/* --- links --- */

struct json_object *view_link(const struct link_info *info)
{
	struct json_object *object = json_object_new_object();
	struct json_object *bytes = json_object_new_object();

	add(object, "name", json_object_new_string(info->name));
	add(object, "interface", json_object_new_string(info->interface));
	add(object, "state", json_object_new_string(link_state_name(info->state)));
	add(object, "suspect", json_object_new_boolean(info->suspect));
	add(object, "priority", json_object_new_int(info->priority));
	add(object, "enabled", json_object_new_boolean(info->enabled));
	add(object, "metered", json_object_new_boolean(info->metered));
	add(object, "since", view_time(info->since));
	add(object, "evidence", json_object_new_string(info->evidence));
	add_count(bytes, "in", info->bytes_in);
	add_count(bytes, "out", info->bytes_out);
	add(object, "bytes", bytes);
	add_count(object, "probes_good", info->probes_good);
	add_count(object, "probes_bad", info->probes_bad);
	return object;
}

struct json_object *view_links(struct daemon *daemon)
{
	struct link_info links[LINKS_MAX];
	size_t count = daemon_links(daemon, links, LINKS_MAX);
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < count; i++)
		json_object_array_add(array, view_link(&links[i]));
	return view_list(array, NULL);
}

/* --- requests --- */

static struct json_object *view_response(const struct queue_row *row)
{
	struct json_object *object;

	if (row->response_status == 0)
		return NULL;
	object = json_object_new_object();
	add(object, "status", json_object_new_int(row->response_status));
	add_count(object, "bytes", row->response_bytes);
	return object;
}

static struct json_object *view_request_events(const struct queue_row *row)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < row->event_count; i++) {
		struct json_object *event = json_object_new_object();

		add(event, "at", view_time(row->events[i].at));
		add(event, "what", json_object_new_string(row->events[i].what));
		json_object_array_add(array, event);
	}
	return array;
}

static struct json_object *view_url(const struct queue_row *row)
{
	struct json_object *text = NULL;
	char *url = NULL;

	if (asprintf(&url, "%s://%s%s", row->scheme ? row->scheme : "http",
		     row->authority ? row->authority : "", row->target ? row->target : "") >= 0) {
		text = json_object_new_string(url);
		free(url);
	}
	return text;
}

struct json_object *view_request(const struct queue_row *row, bool events)
{
	struct json_object *object = json_object_new_object();

	if (!object)
		return NULL;
	add(object, "id", json_object_new_string(row->id));
	add(object, "state", json_object_new_string(request_state_name(row->state)));
	add(object, "rule", text_or_null(row->rule));
	add(object, "source", text_or_null(row->source));
	add(object, "method", text_or_null(row->method));
	add(object, "url", view_url(row));
	add(object, "received", view_time(row->received));
	add(object, "expires", view_time(row->expires));
	add_count(object, "bytes", row->body_bytes);
	add_count(object, "attempts", row->attempts);
	add_count(object, "attempts_max", row->attempts_max);
	add(object, "next_attempt", view_time(row->next_attempt));
	add_count(object, "importance", row->importance);
	add(object, "owes", json_object_new_boolean(row->owes));
	add(object, "ordered", json_object_new_boolean(row->ordered));
	add(object, "idempotency_key", text_or_null(row->idempotency_key));
	add(object, "link", text_or_null(row->link));
	add(object, "response", view_response(row));
	if (events)
		add(object, "events", view_request_events(row));
	return object;
}

/* --- programs --- */

static struct json_object *view_program_events(const struct program_info *info)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < info->event_count; i++) {
		struct json_object *event = json_object_new_object();

		add(event, "at", view_time(info->events[i].at));
		add(event, "what", json_object_new_string(info->events[i].what));
		json_object_array_add(array, event);
	}
	return array;
}

struct json_object *view_program(const struct program_info *info)
{
	struct json_object *object = json_object_new_object();

	if (!object)
		return NULL;
	add(object, "id", json_object_new_string(info->id));
	add(object, "name", json_object_new_string(info->name));
	add(object, "version", json_object_new_string(info->version));
	add_count(object, "abi", info->abi);
	add(object, "state", json_object_new_string(program_state_name(info->state)));
	add_probation(object, info);
	add(object, "builtin", json_object_new_boolean(info->builtin));
	add(object, "previous", json_object_new_boolean(info->previous));
	add(object, "sha256", text_or_null(info->sha256));
	add(object, "signed", json_object_new_boolean(info->has_signature));
	add(object, "signed_by", text_or_null(info->signed_by));
	add_count(object, "size", info->size);
	add(object, "uploaded", view_time(info->uploaded));
	add(object, "activated", view_time(info->activated));
	add(object, "confirmed", view_time(info->confirmed));
	add(object, "events", view_program_events(info));
	return object;
}

/* --- counters, maps, names, events --- */

static void add_rate(struct json_object *object, const char *key, double rate)
{
	char text[32];

	snprintf(text, sizeof(text), "%.1f", rate);
	add(object, key, json_object_new_double_s(rate, text));
}

static struct json_object *view_counter(struct daemon *daemon, const struct steer_counter *counter)
{
	struct daemon_rate rate = daemon_counter_rate(daemon, counter);
	struct json_object *object = json_object_new_object(), *rates = json_object_new_object();

	add(object, "interface", text_or_null(counter->interface));
	add(object, "hook", json_object_new_string(hf_hook_name(counter->hook)));
	add(object, "verdict", json_object_new_string(hf_verdict_name(counter->verdict)));
	add(object, "reason", json_object_new_string(hf_reason_name(counter->reason)));
	add(object, "meaning", json_object_new_string(hf_reason_text(counter->reason)));
	add_count(object, "packets", counter->packets);
	add_count(object, "bytes", counter->bytes);
	add_rate(rates, "packets", rate.packets);
	add_rate(rates, "bytes", rate.bytes);
	add(object, "rate", rates);
	return object;
}

struct json_object *view_counters(struct daemon *daemon)
{
	struct steer_counter *counters = NULL;
	struct json_object *array, *list;
	size_t count = 0;

	if (daemon_counters(daemon, &counters, &count) < 0)
		return NULL;
	array = json_object_new_array();
	for (size_t i = 0; array && i < count; i++)
		json_object_array_add(array, view_counter(daemon, &counters[i]));
	free(counters);
	list = view_list(array, NULL);
	if (list)
		add_count(list, "overflow", daemon_counter_overflow(daemon));
	return list;
}

static struct json_object *view_ip(const struct ip *ip)
{
	static const struct ip none;
	char text[IP_TEXT_MAX];

	return ip_equal(ip, &none) ? NULL : json_object_new_string(ip_format(ip, text));
}

struct names {
	struct json_object *items;
	size_t limit;
	char next[NAME_TEXT_MAX], last[NAME_TEXT_MAX];
};

static bool on_name(void *arg, const struct resolver_name_info *info)
{
	struct names *names = arg;
	struct json_object *object, *virtual_ips, *real;

	if (json_object_array_length(names->items) == names->limit) {
		memcpy(names->next, names->last, sizeof(names->next));
		return false;
	}
	snprintf(names->last, sizeof(names->last), "%s", info->name);
	object = json_object_new_object();
	virtual_ips = json_object_new_object();
	real = json_object_new_array();
	add(object, "name", json_object_new_string(info->name));
	add(virtual_ips, "ipv4", view_ip(&info->virtual_v4));
	add(virtual_ips, "ipv6", view_ip(&info->virtual_v6));
	add(object, "virtual", virtual_ips);
	for (size_t i = 0; i < info->real_count; i++)
		json_object_array_add(real, view_ip(&info->real[i]));
	add(object, "real", real);
	add(object, "ttl", info->real_ttl < 0 ? NULL : json_object_new_int64(info->real_ttl));
	add(object, "published", json_object_new_boolean(info->published));
	add(object, "link", text_or_null(info->link));
	json_object_array_add(names->items, object);
	return true;
}

struct json_object *view_names(struct daemon *daemon, const char *after, size_t limit)
{
	struct names names = {.items = json_object_new_array(), .limit = limit};

	if (!names.items)
		return NULL;
	daemon_names_each(daemon, after, on_name, &names);
	return view_list(names.items, names.next);
}

const char *event_type_name(enum daemon_event_type type)
{
	switch (type) {
	case EVENT_LINK:
		return "link";
	case EVENT_REQUEST:
		return "request";
	case EVENT_PROGRAM:
		return "program";
	case EVENT_DROP:
		return "drop";
	case EVENT_CONFIG:
		return "config";
	}
	abort();
}

struct json_object *view_event(const struct daemon_event *event)
{
	struct json_object *object = json_object_new_object();

	if (!object)
		return NULL;
	add(object, "at", view_time(event->at));
	add(object, "subject", json_object_new_string(event->subject));
	add(object, "what", json_object_new_string(event->what));
	return object;
}

struct json_object *view_map(const struct steer_map_info *info, bool entries)
{
	struct json_object *object = json_object_new_object();

	if (!object)
		return NULL;
	add(object, "name", json_object_new_string(info->name));
	add(object, "type", json_object_new_string(info->type));
	add_count(object, "id", info->id);
	add_count(object, "key_size", info->key_size);
	add_count(object, "value_size", info->value_size);
	add_count(object, "max_entries", info->max_entries);
	add_count(object, "flags", info->flags);
	add(object, "pinned", json_object_new_boolean(info->pinned));
	add(object, "per_cpu", json_object_new_boolean(info->per_cpu));
	if (entries)
		add(object, "entries",
		    info->entries < 0 ? NULL : json_object_new_int64(info->entries));
	return object;
}
