#include "exchange/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "msg/http_prefer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	WHOLE_MAX = 64 << 10, /* a body up to this is read before it is sent, so it can be again */
	RETRY_AFTER = 5,      /* s */
};

int exchanges_new(uv_loop_t *loop, struct config *config, struct links *links, struct queue *queue,
		  struct upstream *upstream, struct spools *spools,
		  struct exchanges **ret_exchanges)
{
	struct exchanges *exchanges = calloc(1, sizeof(*exchanges));

	if (!exchanges)
		return -ENOMEM;
	exchanges->loop = loop;
	exchanges->config = config_ref(config);
	exchanges->links = links;
	exchanges->queue = queue;
	exchanges->upstream = upstream;
	exchanges->spools = spools;
	exchanges_read_bounds(exchanges);
	exchanges->timer_at = UINT64_MAX;
	TAILQ_INIT(&exchanges->waiting);
	TAILQ_INIT(&exchanges->line);
	uv_timer_init(loop, &exchanges->timer);
	uv_prepare_init(loop, &exchanges->turn);
	exchanges->timer.data = exchanges->turn.data = exchanges;
	exchanges->handles = 2;
	*ret_exchanges = exchanges;
	return 0;
}

void exchanges_set_observer(struct exchanges *exchanges, exchanges_event_cb event, void *arg)
{
	exchanges->event = event;
	exchanges->event_arg = arg;
}

static void on_closed(uv_handle_t *handle)
{
	struct exchanges *exchanges = handle->data;

	if (--exchanges->handles)
		return;
	config_unref(exchanges->config);
	free(exchanges);
}

void exchanges_close(struct exchanges *exchanges)
{
	if (!exchanges)
		return;
	uv_close((uv_handle_t *)&exchanges->timer, on_closed);
	uv_close((uv_handle_t *)&exchanges->turn, on_closed);
}

static const char *const state_names[] = {
#define EXCHANGE_STATE_NAME(id, name) name,
	EXCHANGE_STATES(EXCHANGE_STATE_NAME)};

static bool can_move(enum exchange_state from, enum exchange_state to)
{
	switch (from) {
	case EXCHANGE_RECEIVING:
	case EXCHANGE_MATCHING:
	case EXCHANGE_HELD:
		return true;
	case EXCHANGE_SENDING:
		return to == EXCHANGE_RECEIVING || to == EXCHANGE_HELD || to == EXCHANGE_SENDING ||
		       to == EXCHANGE_OVER;
	case EXCHANGE_STORING:
		return to == EXCHANGE_OVER;
	case EXCHANGE_WAITING:
		return to != EXCHANGE_RECEIVING && to != EXCHANGE_STORING;
	case EXCHANGE_FETCHING:
		return to == EXCHANGE_OVER;
	case EXCHANGE_OVER:
		return false;
	}
	return false;
}

void exchange_enter(struct exchange *exchange, enum exchange_state state)
{
	if (!can_move(exchange->state, state)) {
		log_error("exchange", "impossible move from %s to %s", state_names[exchange->state],
			  state_names[state]);
		abort();
	}
	if (state != EXCHANGE_HELD && state != EXCHANGE_WAITING)
		exchange_unlist(exchange);
	exchange_count(exchange, state);
	exchange->state = state;
}

const char *exchange_id(struct exchange *exchange)
{
	if (!exchange->id[0])
		exchange_make_id(exchange->received, exchange->id);
	return exchange->id;
}

void exchange_note(struct exchange *exchange, const char *format, ...)
{
	struct queue_event *event;
	va_list args;

	if (!exchange->events)
		exchange->events = calloc(EXCHANGE_EVENTS_MAX, sizeof(*exchange->events));
	if (!exchange->events)
		return;
	/* The last place is always the newest event. */
	if (exchange->event_count < EXCHANGE_EVENTS_MAX)
		exchange->event_count++;
	event = &exchange->events[exchange->event_count - 1];
	event->at = exchange_wall_ms();
	va_start(args, format);
	vsnprintf(event->what, sizeof(event->what), format, args);
	va_end(args);
}

struct ticket *exchange_ticket(struct exchange *exchange)
{
	struct ticket *ticket = calloc(1, sizeof(*ticket));

	if (ticket)
		ticket->exchange = exchange;
	exchange->ticket = ticket;
	return ticket;
}

struct exchange *ticket_take(void *arg)
{
	struct ticket *ticket = arg;
	struct exchange *exchange = ticket->exchange;

	if (exchange)
		exchange->ticket = NULL;
	free(ticket);
	return exchange;
}

void exchange_answer(struct exchange *exchange, int status, const char *title, const char *detail,
		     const char *id)
{
	struct exchange_answer answer = {
		.status = status,
		.title = title,
		.detail = detail,
		.id = id,
		.retry_after = status == 503 || status == 504 ? RETRY_AFTER : 0,
		.preference_applied = status == 202 && exchange->async,
	};

	exchange_enter(exchange, EXCHANGE_OVER);
	if (status != 202 && !id)
		exchange->exchanges->statistics.refused++;
	exchange->ops.on_answer(exchange->arg, &answer);
}

/* respond-async, and wait, which shortens the hold. */
static void read_preferences(struct exchange *exchange)
{
	struct http_preferences preferences;

	http_read_preferences(exchange->request.head, &preferences);
	exchange->async = preferences.respond_async;
	exchange->has_wait = preferences.has_wait || preferences.respond_async;
	exchange->wait = (uint64_t)preferences.wait * 1000;
}

static const struct rule *match_rule(struct exchange *exchange, const char *path_end)
{
	const struct exchange_request *request = &exchange->request;
	char host[NAME_TEXT_MAX], path[1024];
	const char *target = http_target(request->head);
	size_t path_len = (size_t)(path_end - target);
	struct rule_facts facts = {
		.host = host,
		.address = request->destination,
		.port = request->port,
		.protocol = PROTOCOL_HTTP,
		.method = http_method(request->head),
		.path = path,
		.source = request->source_ip,
		.source_interface = request->source_interface,
	};
	const char *colon = strrchr(request->authority, ':');
	const char *bracket = strchr(request->authority, ']');
	size_t host_len = colon && (!bracket || colon > bracket)
				  ? (size_t)(colon - request->authority)
				  : strlen(request->authority);

	snprintf(host, sizeof(host), "%.*s", (int)host_len, request->authority);
	if (path_len >= sizeof(path))
		path_len = sizeof(path) - 1;
	memcpy(path, target, path_len);
	path[path_len] = '\0';
	return config_match(exchange->config, &facts);
}

int exchange_new(struct exchanges *exchanges, const struct exchange_request *request,
		 const struct exchange_ops *ops, void *arg, struct exchange **ret_exchange)
{
	struct exchange *exchange = calloc(1, sizeof(*exchange));
	const char *target = http_target(request->head);

	if (!exchange)
		return -ENOMEM;
	exchange->exchanges = exchanges;
	exchange->config = config_ref(exchanges->config);
	exchange->request = *request;
	exchange->ops = *ops;
	exchange->arg = arg;
	exchange->received = exchange_wall_ms();
	exchange->born = clock_boot();
	exchange->rule = exchange->config->rule_count
				 ? match_rule(exchange, target + strcspn(target, "?"))
				 : &exchange->config->defaults;
	if (exchange->rule->policy.upstream_tls && exchange_secure(exchange) < 0) {
		exchange_free(exchange);
		return -ENOMEM;
	}
	buf_init(&exchange->body, EXCHANGE_BUFFER_MAX);
	buf_init(&exchange->trailers, 2 * HTTP_TRAILERS_MAX);
	read_preferences(exchange);
	exchanges->statistics.started++;
	*ret_exchange = exchange;
	return 0;
}

/* Must the body be here before anything is decided? With no link it will be held; beside a
 * stored exchange the hash is needed; and a small one can be sent again when a link dies, unless
 * the origin is to say first whether it wants it. */
static bool wants_whole(const struct exchange *exchange)
{
	const struct http_head *head = exchange->request.head;

	if (head->framing == HTTP_NO_BODY ||
	    (head->framing == HTTP_LENGTH && head->content_length <= WHOLE_MAX &&
	     !exchange->request.expects))
		return true;
	if (exchange_may_owe(exchange) || exchange_may_be_behind(exchange))
		return head->framing != HTTP_LENGTH ||
		       head->content_length <= exchange->config->queue.max_request;
	return !links_choose(exchange->exchanges->links, &exchange->rule->policy, 0);
}

void exchange_start(struct exchange *exchange)
{
	if (exchange->rule->policy.action == ACTION_REJECT)
		exchange_answer(exchange, 403, "Forbidden", "A rule rejects this request.", NULL);
	else if (exchange->request.secure && !exchange->server_name)
		exchange_answer(exchange, 421, "Misdirected Request",
				"For an https URI the rule must say upstream_tls.", NULL);
	else if (wants_whole(exchange))
		exchange_receive(exchange);
	else
		exchange_stream(exchange);
}

void exchange_pause(struct exchange *exchange)
{
	exchange->paused = true;
	if (exchange->sending)
		upstream_pause(exchange->sending);
}

void exchange_resume(struct exchange *exchange)
{
	exchange->paused = false;
	if (exchange->sending)
		upstream_resume(exchange->sending);
	else
		exchange_deliver(exchange);
}

static void forget(void *arg, int status)
{
	if (status < 0)
		log_warning("exchange", "an exchange whose app hung up could not be stored: %s",
			    strerror(-status));
}

/* What is held for an app that is no longer there. */
void exchange_leave(struct exchange *exchange)
{
	int r;

	if (exchange->state != EXCHANGE_HELD && exchange->state != EXCHANGE_WAITING)
		return;
	if (exchange->state == EXCHANGE_WAITING || exchange->request.head->upgrade ||
	    exchange->rule->policy.on_disconnect == DISCONNECT_CANCEL) {
		exchange->exchanges->statistics.cancelled++;
		return;
	}
	exchange_note(exchange, "the app hung up");
	r = exchange_put(exchange, true, forget, NULL);
	if (r < 0)
		forget(NULL, r);
}

void exchange_app_gone(struct exchange *exchange)
{
	exchange_leave(exchange);
	exchange_free(exchange);
}

void exchange_app_shut(struct exchange *exchange)
{
	exchange->app_shut = true;
	exchange_due(exchange);
}

void exchange_free(struct exchange *exchange)
{
	exchange_unlist(exchange);
	exchange_count(exchange, EXCHANGE_OVER);
	exchange_stop_sending(exchange);
	if (exchange->watch)
		queue_unwatch(exchange->watch);
	queue_reader_close(exchange->delivery);
	if (exchange->ticket)
		exchange->ticket->exchange = NULL;
	exchange_body_done(exchange);
	config_unref(exchange->config);
	free(exchange->events);
	free(exchange->server_name);
	free(exchange->own_authority);
	free(exchange);
}

void exchanges_statistics(const struct exchanges *exchanges, struct exchanges_statistics *ret)
{
	*ret = exchanges->statistics;
}
