/* Exchanges that wait: for a link, behind a backlog, or for a stored answer. */
/* Deadlines in a heap, ids in a hash table: ten thousand may wait. */
#include "exchange/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t next_of(const struct exchange *exchange)
{
	if (exchange->app_shut)
		return 0;
	return exchange->retry_at && exchange->retry_at < exchange->deadline ? exchange->retry_at
									     : exchange->deadline;
}

static void arm(struct exchanges *exchanges)
{
	const struct heap_node *first = heap_first(&exchanges->due);
	uint64_t now = uv_now(exchanges->loop), at = first ? first->at : UINT64_MAX;

	if (at == exchanges->timer_at)
		return;
	exchanges->timer_at = at;
	if (first)
		uv_timer_start(&exchanges->timer, on_hold_timer, at > now ? at - now : 0, 0);
	else
		uv_timer_stop(&exchanges->timer);
}

void exchange_due(struct exchange *exchange)
{
	if (!exchange->listed)
		return;
	heap_put(&exchange->exchanges->due, &exchange->due, next_of(exchange));
	arm(exchange->exchanges);
}

void exchange_list(struct exchange *exchange, uint64_t deadline)
{
	struct exchanges *exchanges = exchange->exchanges;

	exchange->deadline = deadline;
	if (!exchange->listed) {
		TAILQ_INSERT_TAIL(&exchanges->waiting, exchange, entry);
		exchange_id(exchange);
		HASH_ADD_STR(exchanges->by_id, id, exchange);
		exchanges->statistics.held_now++;
		exchange->listed = true;
	}
	exchange_due(exchange);
}

void exchange_unlist(struct exchange *exchange)
{
	struct exchanges *exchanges = exchange->exchanges;

	if (!exchange->listed)
		return;
	exchange_leave_line(exchange);
	TAILQ_REMOVE(&exchanges->waiting, exchange, entry);
	HASH_DEL(exchanges->by_id, exchange);
	heap_remove(&exchanges->due, &exchange->due);
	exchanges->statistics.held_now--;
	exchange->listed = false;
	arm(exchanges);
}

void exchange_hold(struct exchange *exchange, const char *why)
{
	struct exchanges *exchanges = exchange->exchanges;
	uint64_t now = uv_now(exchanges->loop), hold = exchange->rule->policy.hold;
	bool first = !exchange->deadline;

	exchange_enter(exchange, EXCHANGE_HELD);
	exchange_note(exchange, "held: %s", why);
	if (exchange->has_wait && exchange->wait < hold)
		hold = exchange->wait;
	if (!exchange->counted_held)
		exchanges->statistics.held++;
	exchange->counted_held = true;
	/* The hold is one span, however often the exchange comes back to it. */
	exchange_list(exchange, first ? now + hold : exchange->deadline);
}

static bool is_stored_by_rule(const struct exchange *exchange)
{
	/* A tunnel is of no use without the app at its end. */
	if (exchange->request.head->upgrade)
		return false;
	if (exchange->async)
		return exchange->rule->policy.store != STORE_NONE;
	switch (exchange->rule->policy.store) {
	case STORE_ALL:
		return true;
	case STORE_UNSAFE:
		return !http_method_is_safe(http_method(exchange->request.head));
	case STORE_NONE:
		return false;
	}
	return false;
}

static void hold_over(struct exchange *exchange)
{
	if (exchange->state == EXCHANGE_WAITING)
		exchange_wait_over(exchange);
	else if (is_stored_by_rule(exchange))
		exchange_store(exchange);
	else
		exchange_answer(exchange, 504, exchange->in_line ? "Busy" : "No link",
				exchange->in_line
					? "Too many requests were under way within the hold time; "
					  "this one was not sent and not stored."
					: "No link was usable within the hold time; the request "
					  "was not stored.",
				NULL);
}

static void now_due(struct exchange *exchange, uint64_t now)
{
	if (exchange->app_shut) {
		exchange->app_shut = false;
		exchange_due(exchange);
		exchange->ops.on_held(exchange->arg);
	} else if (exchange->deadline <= now) {
		hold_over(exchange);
	} else {
		exchange->retry_at = 0;
		exchange_due(exchange);
		exchange_line_up(exchange);
	}
}

void on_hold_timer(uv_timer_t *timer)
{
	struct exchanges *exchanges = timer->data;
	uint64_t now = uv_now(exchanges->loop);
	struct heap_node *first;

	exchanges->timer_at = UINT64_MAX;
	/* What the app is told may free any exchange: look again each time. */
	for (size_t bound = exchanges->statistics.held_now; bound > 0; bound--) {
		first = heap_first(&exchanges->due);
		if (!first || first->at > now)
			break;
		now_due((struct exchange *)((char *)first - offsetof(struct exchange, due)), now);
	}
	arm(exchanges);
}

static struct queue_row *held_row(const struct exchange *exchange, bool bodies)
{
	const struct exchange_request *request = &exchange->request;
	struct queue_row *row = calloc(1, sizeof(*row));
	struct buf fields;

	if (!row)
		return NULL;
	memcpy(row->id, exchange->id, sizeof(row->id));
	row->state = REQUEST_HELD;
	row->rule = strdup(exchange->rule->name);
	row->source = strdup(request->source);
	row->method = strdup(http_method(request->head));
	row->scheme = strdup(exchange_scheme(exchange));
	row->authority = strdup(request->authority);
	row->target = strdup(http_target(request->head));
	row->body_bytes = spool_len(exchange->spool);
	row->received = exchange->received;
	row->events = calloc(exchange->event_count + 1, sizeof(*row->events));
	if (row->events && exchange->events) {
		memcpy(row->events, exchange->events, exchange->event_count * sizeof(*row->events));
		row->event_count = exchange->event_count;
	}
	if (!bodies)
		return row;
	buf_init(&fields, 2 * HTTP_HEAD_MAX);
	if (http_write_fields(&fields, request->head) == 0)
		row->fields = buf_take(&fields, &row->fields_len);
	buf_done(&fields);
	row->spool = spool_ref(exchange->spool);
	return row;
}

static struct exchange *find_held(struct exchanges *exchanges, const char *id)
{
	struct exchange *exchange;

	HASH_FIND_STR(exchanges->by_id, id, exchange);
	return exchange && exchange->state == EXCHANGE_HELD ? exchange : NULL;
}

struct queue_row *exchanges_row(struct exchanges *exchanges, const char *id, bool bodies)
{
	struct exchange *exchange = find_held(exchanges, id);

	return exchange ? held_row(exchange, bodies) : NULL;
}

static bool passes(const struct exchange *exchange, const struct queue_filter *filter)
{
	const char *authority = exchange->request.authority;
	const char *bracket = strchr(authority, ']');
	size_t host_len = bracket ? (size_t)(bracket - authority) + 1 : strcspn(authority, ":");

	if (exchange->state != EXCHANGE_HELD)
		return false;
	if (filter->has_state && filter->state != REQUEST_HELD)
		return false;
	if (filter->rule && strcmp(filter->rule, exchange->rule->name) != 0)
		return false;
	if (filter->source && strcmp(filter->source, exchange->request.source) != 0)
		return false;
	if (filter->host && strcmp(filter->host, authority) != 0 &&
	    (strlen(filter->host) != host_len || strncmp(filter->host, authority, host_len) != 0))
		return false;
	return !filter->before || strcmp(exchange->id, filter->before) < 0;
}

/* Into the `count` newest so far; the last falls out when there are `max`. */
static size_t keep_newest(struct exchange **found, size_t count, size_t max,
			  struct exchange *exchange)
{
	size_t at = count;

	while (at > 0 && strcmp(found[at - 1]->id, exchange->id) < 0)
		at--;
	if (at == max)
		return count;
	if (count == max)
		count--;
	memmove(found + at + 1, found + at, (count - at) * sizeof(*found));
	found[at] = exchange;
	return count + 1;
}

size_t exchanges_rows(struct exchanges *exchanges, const struct queue_filter *filter,
		      struct queue_row **ret_rows, size_t max)
{
	struct exchange **found = calloc(max + 1, sizeof(*found)), *exchange;
	size_t count = 0, rows = 0;

	if (!found)
		return 0;
	/* Nearly in order: few are moved. */
	TAILQ_FOREACH_REVERSE(exchange, &exchanges->waiting, exchange_list, entry)
	{
		if (passes(exchange, filter))
			count = keep_newest(found, count, max, exchange);
	}
	for (size_t i = 0; i < count; i++) {
		ret_rows[rows] = held_row(found[i], false);
		if (ret_rows[rows])
			rows++;
	}
	free(found);
	return rows;
}

int exchanges_cancel(struct exchanges *exchanges, const char *id)
{
	struct exchange *exchange = find_held(exchanges, id);

	if (!exchange)
		return -ENOENT;
	exchanges->statistics.cancelled++;
	exchange_answer(exchange, 503, "Cancelled", "The held request was cancelled over the API.",
			NULL);
	return 0;
}
