/* Snapshots and commands for the API. */
#include "daemon/internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static uint64_t read_rss_anon(void)
{
	char line[128];
	unsigned long kib = 0;
	FILE *file = fopen("/proc/self/status", "re");

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "RssAnon: %lu kB", &kib) == 1)
			break;
	fclose(file);
	return kib << 10;
}

void daemon_status(struct daemon *daemon, struct daemon_status *ret)
{
	struct exchanges_statistics exchanges;
	struct proxy_statistics proxy;

	exchanges_statistics(daemon->exchanges, &exchanges);
	proxy_statistics(daemon->proxy, &proxy);
	*ret = (struct daemon_status){
		.started = daemon->started,
		.uptime = uv_now(daemon->loop) - daemon->started_at,
		.online = links_any_online(daemon->links),
		.steering = steer_is_steering(daemon->steer),
		.held = exchanges.held_now,
		.under_way = exchanges.sending,
		.in_line = exchanges.in_line,
		.held_total = exchanges.held,
		.waited = exchanges.waited,
		.cancelled = exchanges.cancelled,
		.refused = exchanges.refused + proxy.refused,
		.sessions = proxy.sessions,
		.http_requests = proxy.http_requests,
		.tls_streams = proxy.tls_streams,
		.tcp_streams = proxy.tcp_streams,
		.upgraded_streams = proxy.upgraded_streams,
		.bad_requests = proxy.bad_requests,
		.proxy = proxy,
		.rss_anon = read_rss_anon(),
	};
	queue_totals(daemon->queue, &ret->queue);
	store_statistics(daemon->store, &ret->store);
	resolver_statistics(daemon->resolver, &ret->resolver);
	relay_statistics(daemon->relay, &ret->relay);
	upstream_statistics(daemon->upstream, &ret->upstream);
	spools_statistics(daemon->spools, &ret->bodies);
	ret->queue_open = ret->store.last_error == 0;
}

struct config *daemon_config(struct daemon *daemon)
{
	return daemon->config;
}

size_t daemon_links(struct daemon *daemon, struct link_info *ret_links, size_t max)
{
	size_t count = links_count(daemon->links);

	for (size_t i = 0; i < count && i < max; i++)
		link_info(links_at(daemon->links, i), &ret_links[i]);
	return count < max ? count : max;
}

int daemon_counters(struct daemon *daemon, struct steer_counter **ret, size_t *ret_count)
{
	return steer_counters(daemon->steer, ret, ret_count);
}

int daemon_programs(struct daemon *daemon, struct steer_program_info **ret, size_t *ret_count)
{
	return steer_programs(daemon->steer, ret, ret_count);
}

void daemon_names_each(struct daemon *daemon, const char *after,
		       bool (*each)(void *arg, const struct resolver_name_info *info), void *arg)
{
	resolver_names_each(daemon->resolver, after, each, arg);
}

size_t daemon_names_flush(struct daemon *daemon)
{
	return resolver_names_flush(daemon->resolver);
}

/* --- exchanges: held ones are in memory, the others in the queue --- */

struct listing {
	queue_rows_cb cb;
	void *arg;
	struct queue_row **held;
	size_t held_count, limit;
};

static void rows_free(struct queue_row **rows, size_t from, size_t count)
{
	for (size_t i = from; i < count; i++)
		queue_row_free(rows[i]);
}

static void listing_end(struct listing *listing, int status, struct queue_row **rows, size_t count)
{
	listing->cb(listing->arg, status, rows, count);
	free(listing->held);
	free(listing);
}

/* Both lists are newest first: merge them by id. */
static void on_stored_rows(void *arg, int status, struct queue_row **rows, size_t count)
{
	struct listing *listing = arg;
	size_t all = listing->held_count + count, a = 0, b = 0, n = 0;
	struct queue_row **merged = calloc(all + 1, sizeof(*merged));

	if (status < 0 || !merged) {
		rows_free(listing->held, 0, listing->held_count);
		if (status == 0)
			rows_free(rows, 0, count);
		free(rows);
		free(merged);
		listing_end(listing, status < 0 ? status : -ENOMEM, NULL, 0);
		return;
	}
	while (n < all) {
		bool held = b == count || (a < listing->held_count &&
					   strcmp(listing->held[a]->id, rows[b]->id) > 0);

		merged[n++] = held ? listing->held[a++] : rows[b++];
	}
	free(rows);
	if (n > listing->limit) {
		rows_free(merged, listing->limit, n);
		n = listing->limit;
	}
	listing_end(listing, 0, merged, n);
}

int daemon_requests(struct daemon *daemon, const struct queue_filter *filter, queue_rows_cb cb,
		    void *arg)
{
	struct listing *listing = calloc(1, sizeof(*listing));
	struct queue_row **none;
	int r;

	if (!listing)
		return -ENOMEM;
	*listing = (struct listing){.cb = cb, .arg = arg, .limit = filter->limit};
	listing->held = calloc(filter->limit + 1, sizeof(*listing->held));
	if (!listing->held) {
		free(listing);
		return -ENOMEM;
	}
	listing->held_count =
		exchanges_rows(daemon->exchanges, filter, listing->held, filter->limit);
	if (filter->has_state && filter->state == REQUEST_HELD) {
		none = calloc(1, sizeof(*none));
		on_stored_rows(listing, none ? 0 : -ENOMEM, none, 0);
		return 0;
	}
	r = queue_list(daemon->queue, filter, on_stored_rows, listing);
	if (r < 0) {
		rows_free(listing->held, 0, listing->held_count);
		free(listing->held);
		free(listing);
	}
	return r;
}

int daemon_request(struct daemon *daemon, const char *id, bool bodies, queue_row_cb cb, void *arg)
{
	struct queue_row *row = exchanges_row(daemon->exchanges, id, bodies);

	if (!row)
		return queue_get(daemon->queue, id, bodies, cb, arg);
	cb(arg, 0, row);
	return 0;
}

struct daemon_body {
	struct spool_reader *held;
	struct queue_reader *stored;
};

int daemon_body_new(struct daemon *daemon, const struct queue_row *row, enum queue_part part,
		    spool_piece_cb piece, void *arg, struct daemon_body **ret_body)
{
	struct daemon_body *body = calloc(1, sizeof(*body));
	int r;

	if (!body)
		return -ENOMEM;
	if (row->spool && part == QUEUE_REQUEST)
		r = spool_reader_new(row->spool, piece, arg, &body->held);
	else
		r = queue_reader_new(daemon->queue, row->id, part, piece, arg, &body->stored);
	if (r < 0) {
		free(body);
		return r;
	}
	*ret_body = body;
	return 0;
}

int daemon_body_next(struct daemon_body *body)
{
	if (body->stored)
		return queue_reader_next(body->stored);
	spool_reader_next(body->held);
	return 0;
}

void daemon_body_close(struct daemon_body *body)
{
	spool_reader_close(body->held);
	queue_reader_close(body->stored);
	free(body);
}

/* --- commands --- */

int daemon_link_patch(struct daemon *daemon, const char *name, const struct link_patch *patch)
{
	struct link *link = links_by_name(daemon->links, name);

	if (!link)
		return -ENOENT;
	link_patch(link, patch);
	daemon->links_changed = true;
	daemon_changed(daemon);
	return 0;
}

int daemon_links_order(struct daemon *daemon, const char *const *names, size_t count,
		       struct input_error *err)
{
	int r = links_order(daemon->links, names, count, err);

	if (r == 0) {
		daemon->links_changed = true;
		daemon_changed(daemon);
	}
	return r;
}

int daemon_request_retry(struct daemon *daemon, const char *id, queue_status_cb cb, void *arg)
{
	return queue_retry_now(daemon->queue, id, cb, arg);
}

int daemon_request_delete(struct daemon *daemon, const char *id, queue_status_cb cb, void *arg)
{
	if (exchanges_cancel(daemon->exchanges, id) == 0) {
		cb(arg, 0);
		return 0;
	}
	return queue_delete(daemon->queue, id, cb, arg);
}

void daemon_app_listeners(struct daemon *daemon, int *ret_fd4, int *ret_fd6)
{
	*ret_fd4 = daemon->app_fd4;
	*ret_fd6 = daemon->app_fd6;
}

void daemon_source_of(struct daemon *daemon, const struct ip *peer, char *ret_source, size_t size)
{
	proxy_source_text(daemon->proxy, peer, ret_source, size);
}
