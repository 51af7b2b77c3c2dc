/* Exchanges that wait: for a link, behind a backlog, or for a stored answer. */
#include "exchange/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void exchange_list(struct exchange *exchange, uint64_t deadline)
{
	exchange->deadline = deadline;
	if (!exchange->listed) {
		TAILQ_INSERT_TAIL(&exchange->exchanges->waiting, exchange, entry);
		exchange->exchanges->statistics.held_now++;
		exchange->listed = true;
	}
	exchanges_arm(exchange->exchanges);
}

void exchange_unlist(struct exchange *exchange)
{
	if (!exchange->listed)
		return;
	TAILQ_REMOVE(&exchange->exchanges->waiting, exchange, entry);
	exchange->exchanges->statistics.held_now--;
	exchange->listed = false;
}

static uint64_t next_of(const struct exchange *exchange)
{
	if (exchange->app_shut)
		return 0;
	return exchange->retry_at && exchange->retry_at < exchange->deadline ? exchange->retry_at
									     : exchange->deadline;
}

void exchanges_arm(struct exchanges *exchanges)
{
	uint64_t now = uv_now(exchanges->loop), first = UINT64_MAX;
	struct exchange *exchange;

	TAILQ_FOREACH (exchange, &exchanges->waiting, entry) {
		uint64_t next = next_of(exchange);

		if (next < first)
			first = next;
	}
	if (first == UINT64_MAX)
		uv_timer_stop(&exchanges->timer);
	else
		uv_timer_start(&exchanges->timer, on_hold_timer, first > now ? first - now : 0, 0);
}

void exchange_hold(struct exchange *exchange, const char *why)
{
	struct exchanges *exchanges = exchange->exchanges;
	uint64_t now = uv_now(exchanges->loop), hold = exchange->rule->policy.hold;
	bool first = !exchange->deadline;

	exchange_enter(exchange, EXCHANGE_HELD);
	exchange_id(exchange);
	exchange_note(exchange, "held: %s", why);
	if (exchange->has_wait && exchange->wait < hold)
		hold = exchange->wait;
	if (!exchange->counted_held)
		exchanges->statistics.held++;
	exchange->counted_held = true;
	/* The hold is one span, however often the exchange comes back to it. */
	exchange_list(exchange, first ? now + hold : exchange->deadline);
}

/* Try again; what is still without a link stays held. */
static void try_again(struct exchange *exchange)
{
	exchange->tried = 0;
	exchange->retry_at = 0;
	if (exchange->behind) {
		exchange_match(exchange);
		return;
	}
	if (exchange_send(exchange) == -ENETUNREACH)
		return;
	if (exchange->state == EXCHANGE_HELD)
		exchange->retry_at = uv_now(exchange->exchanges->loop) + RETRY_FIRST;
}

void exchanges_wake(struct exchanges *exchanges)
{
	struct exchange *exchange = TAILQ_FIRST(&exchanges->waiting), *next;

	/* Sending tells the app nothing before it returns, so none but the one at hand moves; it
	 * may move to the end, and is looked at once all the same. */
	for (size_t bound = exchanges->statistics.held_now; exchange && bound > 0; bound--) {
		next = TAILQ_NEXT(exchange, entry);
		if (exchange->state == EXCHANGE_HELD)
			try_again(exchange);
		exchange = next;
	}
	exchanges_arm(exchanges);
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
		exchange_answer(
			exchange, 504, "No link",
			"No link was usable within the hold time; the request was not stored.",
			NULL);
}

static void hung_up(struct exchange *exchange)
{
	exchange_leave(exchange);
	exchange_enter(exchange, EXCHANGE_OVER);
	exchange->ops.on_abort(exchange->arg, "the app hung up");
}

static struct exchange *due_one(struct exchanges *exchanges, uint64_t now)
{
	struct exchange *exchange;

	TAILQ_FOREACH (exchange, &exchanges->waiting, entry) {
		if (next_of(exchange) <= now)
			return exchange;
	}
	return NULL;
}

void on_hold_timer(uv_timer_t *timer)
{
	struct exchanges *exchanges = timer->data;
	uint64_t now = uv_now(exchanges->loop);
	struct exchange *exchange;

	/* What the app is told may free any exchange: look again each time. */
	for (size_t bound = exchanges->statistics.held_now; bound > 0; bound--) {
		exchange = due_one(exchanges, now);
		if (!exchange)
			break;
		if (exchange->app_shut)
			hung_up(exchange);
		else if (exchange->deadline <= now)
			hold_over(exchange);
		else
			try_again(exchange);
	}
	exchanges_arm(exchanges);
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
	row->scheme = strdup("http");
	row->authority = strdup(request->authority);
	row->target = strdup(http_target(request->head));
	row->body_bytes = buf_len(&exchange->body);
	row->received = exchange->received;
	row->events = calloc(exchange->event_count + 1, sizeof(*row->events));
	if (row->events && exchange->events) {
		memcpy(row->events, exchange->events, exchange->event_count * sizeof(*row->events));
		row->event_count = exchange->event_count;
	}
	if (!bodies)
		return row;
	buf_init(&fields, HTTP_HEAD_MAX);
	if (http_write_fields(&fields, request->head) == 0)
		row->fields = buf_take(&fields, &row->fields_len);
	buf_done(&fields);
	row->body = malloc(buf_len(&exchange->body) + 1);
	if (row->body) {
		row->body_len = buf_len(&exchange->body);
		memcpy(row->body, buf_bytes(&exchange->body), row->body_len);
	}
	return row;
}

static struct exchange *find_held(struct exchanges *exchanges, const char *id)
{
	struct exchange *exchange;

	TAILQ_FOREACH (exchange, &exchanges->waiting, entry) {
		if (exchange->state == EXCHANGE_HELD && strcmp(exchange->id, id) == 0)
			return exchange;
	}
	return NULL;
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

static int compare_newest(const void *a, const void *b)
{
	const struct exchange *const *x = a, *const *y = b;

	return strcmp((*y)->id, (*x)->id);
}

size_t exchanges_rows(struct exchanges *exchanges, const struct queue_filter *filter,
		      struct queue_row **ret_rows, size_t max)
{
	size_t count = 0, rows = 0, room = exchanges->statistics.held_now;
	struct exchange **found = calloc(room + 1, sizeof(*found)), *exchange;

	if (!found)
		return 0;
	TAILQ_FOREACH (exchange, &exchanges->waiting, entry) {
		if (passes(exchange, filter))
			found[count++] = exchange;
	}
	qsort(found, count, sizeof(*found), compare_newest);
	for (size_t i = 0; i < count && rows < max; i++) {
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
