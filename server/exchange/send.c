/* Carrying an exchange over a link, and what comes next when that fails. */
#include "exchange/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { DOUBLINGS_MAX = 4 /* of the delay: 8 s at most */ };

static void on_head(void *arg, const struct http_head *head)
{
	struct exchange *exchange = arg;

	exchange->responding = true;
	exchange->ops.on_head(exchange->arg, head);
}

static void on_interim(void *arg, const struct http_head *head)
{
	struct exchange *exchange = arg;

	if (head->status == 100)
		exchange->expecting = false;
	exchange->ops.on_interim(exchange->arg, head);
}

static void on_body(void *arg, const uint8_t *data, size_t len)
{
	struct exchange *exchange = arg;

	exchange->ops.on_body(exchange->arg, data, len);
}

static void on_trailers(void *arg, const struct http_head *trailers)
{
	struct exchange *exchange = arg;

	exchange->ops.on_trailers(exchange->arg, trailers);
}

static void on_end(void *arg)
{
	struct exchange *exchange = arg;

	exchange->sending = NULL;
	exchange_stop_reading(exchange);
	exchange->exchanges->statistics.answered++;
	exchange_enter(exchange, EXCHANGE_OVER);
	exchange->ops.on_end(exchange->arg);
}

static void on_drain(void *arg)
{
	exchange_body_drained(arg);
}

static void on_upgrade(void *arg, const struct http_head *head, struct conn *conn,
		       struct link *link, const uint8_t *rest, size_t len)
{
	struct exchange *exchange = arg;

	exchange->sending = NULL;
	exchange_stop_reading(exchange);
	exchange->exchanges->statistics.answered++;
	exchange_enter(exchange, EXCHANGE_OVER);
	exchange->ops.on_upgrade(exchange->arg, head, conn, link, rest, len);
}

static bool may_send_again(const struct exchange *exchange, enum upstream_stage stage)
{
	switch (stage) {
	case UPSTREAM_NOT_SENT:
		return true;
	case UPSTREAM_SENT:
		if (exchange_is_expecting(exchange))
			return true;
		return !exchange->streaming &&
		       (http_method_is_idempotent(http_method(exchange->request.head)) ||
			http_field(exchange->request.head, "idempotency-key"));
	case UPSTREAM_RESPONDING:
		return false;
	}
	return false;
}

static void bad_gateway(struct exchange *exchange, enum upstream_stage stage, const char *what)
{
	char detail[320];

	exchange->exchanges->statistics.failed++;
	snprintf(detail, sizeof(detail), "%s%s", what,
		 stage == UPSTREAM_NOT_SENT ? "" : "; the request may have reached the origin");
	exchange_answer(exchange, 502, "Bad Gateway", detail, NULL);
}

/* Does the failure speak of the origin, so that another try over any link gives the same? */
static bool blames_origin(int status)
{
	return status == -ENOENT || status == -ECONNREFUSED || status == -EPROTO ||
	       status == -EMSGSIZE || status == -ECONNRESET;
}

/* No other link takes it: it waits for one, and tries now and then. Of a body that still comes in
 * nothing was sent. */
static void hold_or_fail(struct exchange *exchange, int status, enum upstream_stage stage,
			 const char *what)
{
	uint64_t delay = RETRY_FIRST
			 << (exchange->rounds < DOUBLINGS_MAX ? exchange->rounds : DOUBLINGS_MAX);

	if (blames_origin(status) && links_any_online(exchange->exchanges->links)) {
		bad_gateway(exchange, stage, what);
		return;
	}
	if (exchange->streaming) {
		exchange_receive(exchange);
		return;
	}
	exchange->rounds++;
	exchange->retry_at = uv_now(exchange->exchanges->loop) + delay;
	exchange_hold(exchange, what);
}

/* Neither another link nor another time: what hides behind the origin's name may be an attack, and
 * a person should see it. */
static void untrusted(struct exchange *exchange, enum upstream_stage stage, const char *what)
{
	struct exchanges *exchanges = exchange->exchanges;
	char text[320];

	snprintf(text, sizeof(text), "%s %s://%s: %s", http_method(exchange->request.head),
		 exchange_scheme(exchange), exchange->request.authority, what);
	if (exchanges->event)
		exchanges->event(exchanges->event_arg, exchange_id(exchange), text);
	bad_gateway(exchange, stage, what);
}

static void on_fail(void *arg, int status, enum upstream_stage stage, const char *what)
{
	struct exchange *exchange = arg;
	int r;

	exchange->sending = NULL;
	exchange->stream_ready = false;
	exchange_stop_reading(exchange);
	if (stage == UPSTREAM_RESPONDING) {
		exchange->exchanges->statistics.failed++;
		exchange_enter(exchange, EXCHANGE_OVER);
		exchange->ops.on_abort(exchange->arg, what);
		return;
	}
	exchange_note(exchange, "%s", what);
	if (status == -EKEYREJECTED) {
		untrusted(exchange, stage, what);
		return;
	}
	if (!may_send_again(exchange, stage)) {
		bad_gateway(exchange, stage, what);
		return;
	}
	exchange->exchanges->statistics.moved++;
	r = exchange_send(exchange);
	if (r < 0)
		hold_or_fail(exchange, status, stage, what);
}

static int send_over(struct exchange *exchange, struct link *link)
{
	static const struct upstream_ops ops = {
		.on_head = on_head,
		.on_interim = on_interim,
		.on_body = on_body,
		.on_trailers = on_trailers,
		.on_end = on_end,
		.on_fail = on_fail,
		.on_drain = on_drain,
		.on_upgrade = on_upgrade,
	};
	const struct exchange_request *request = &exchange->request;
	struct upstream_target target = {
		.host = request->name,
		.address = request->name ? NULL : &request->destination,
		.port = request->port,
		.server_name = exchange->server_name,
		.policy = &exchange->rule->policy,
	};
	const uint8_t *bytes = exchange->streaming ? NULL : spool_bytes(exchange->spool);
	char extra[64];
	int r = 0;

	snprintf(extra, sizeof(extra), HTTP_VIA "%s", request->head->minor,
		 exchange_is_expecting(exchange) ? "Expect: 100-continue\r\n" : "");
	if (exchange->spool && !bytes)
		r = exchange_start_reading(exchange);
	if (r == 0)
		r = upstream_send(exchange->exchanges->upstream, link, &target, request->head,
				  http_target(request->head), extra, bytes,
				  bytes ? spool_len(exchange->spool) : 0, !bytes, &ops, exchange,
				  &exchange->sending);
	if (r < 0)
		exchange_stop_reading(exchange);
	return r;
}

int exchange_send(struct exchange *exchange)
{
	struct link *link;
	int r = -ENETUNREACH;

	while ((link = links_choose(exchange->exchanges->links, &exchange->rule->policy,
				    exchange->tried))) {
		exchange->tried |= link_bit(link);
		r = send_over(exchange, link);
		if (r == 0) {
			if (exchange->events)
				exchange_note(exchange, "sent over %s", link_name(link));
			exchange_enter(exchange, EXCHANGE_SENDING);
			return 0;
		}
	}
	return r;
}

void exchange_stop_sending(struct exchange *exchange)
{
	exchange_stop_reading(exchange);
	if (exchange->sending)
		upstream_cancel(exchange->sending);
	exchange->sending = NULL;
}

void exchange_stream(struct exchange *exchange)
{
	int r;

	exchange->streaming = true;
	exchange->expecting = exchange->request.expects;
	r = exchange_send(exchange);
	if (r == -ENETUNREACH)
		exchange_receive(exchange);
	else if (r < 0)
		bad_gateway(exchange, UPSTREAM_NOT_SENT, strerror(-r));
}
