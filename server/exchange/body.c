/*
 * The body of a request: streamed on as it comes, or received into a spool to be held, matched,
 * stored, and sent as often as need be.
 *
 *   received whole  app --> spool ............. reader --> origin (or queue)
 *   streamed        app --> exchange->body --------------> origin
 *   too much        app --> spool, then exchange->body --> origin: the reader goes first
 *
 * What is streamed and has not reached an origin yet can still be received whole.
 */
#include "exchange/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* --- received whole --- */

/* Expect: 100-continue (RFC 9110, 10.1.1). Where the body goes on as it comes, the expectation goes
 * on with the head, and the origin's 100 or final answer comes back. A body that is wanted here is
 * asked for here; what is stored or sent later has no Expect. */
static void ask_for_it(struct exchange *exchange)
{
	if (exchange->request.expects && !exchange->body_begun)
		exchange->ops.on_interim(exchange->arg, NULL);
}

bool exchange_is_expecting(const struct exchange *exchange)
{
	return exchange->expecting && !exchange->body_begun;
}

/* The exchange may be gone after it. */
static void refuse(struct exchange *exchange, int error)
{
	if (error == -ENOMEM || error == -ENOBUFS)
		exchange_answer(exchange, 503, "Out of memory", "The body could not be taken.",
				NULL);
	else if (error == -EFBIG)
		exchange_answer(exchange, 413, "Content Too Large",
				"No link is usable, and the body is larger than queue.max_request "
				"allows to hold.",
				NULL);
	else
		exchange_answer(exchange, 507, "Insufficient Storage",
				"No link is usable, and there is no room to hold the body.", NULL);
}

/* Also without a spool yet: the length may be known before. */
static bool is_too_large(const struct exchange *exchange)
{
	const struct http_head *head = exchange->request.head;

	return head->framing == HTTP_LENGTH &&
	       head->content_length > exchange->config->queue.max_request;
}

/* It will not fit as a whole. With a link it need not: what is in the spool goes first, once it
 * can be read, and the rest follows as it comes. */
static bool may_overflow(struct exchange *exchange)
{
	exchange->overflows =
		links_choose(exchange->exchanges->links, &exchange->rule->policy, 0) != NULL;
	return exchange->overflows;
}

static void on_spool_drained(void *arg)
{
	struct exchange *exchange = arg;

	/* A write that failed is told by the next append, or at the end. */
	if (exchange->state == EXCHANGE_RECEIVING && !exchange->body_ended)
		exchange->ops.on_drain(exchange->arg);
}

static int open_spool(struct exchange *exchange)
{
	int r = spool_new(exchange->exchanges->spools, exchange->config->queue.max_request,
			  &exchange->spool);

	if (r == 0)
		spool_on_drain(exchange->spool, on_spool_drained, exchange);
	return r;
}

static void on_spool_ended(void *arg, int status);

/* Into the spool; when it refuses them they wait in exchange->body, if there is a way out. */
static int receive(struct exchange *exchange, const uint8_t *data, size_t len)
{
	int r = exchange->spool ? 0 : open_spool(exchange);

	if (r == 0)
		r = spool_append(exchange->spool, data, len);
	if (r < 0 && exchange->spool && may_overflow(exchange)) {
		spool_end(exchange->spool, on_spool_ended, exchange);
		r = data == buf_bytes(&exchange->body) ? 0 : buf_append(&exchange->body, data, len);
	}
	return r;
}

/* Its length is known now: it goes on with that. */
static int give_length(struct exchange *exchange)
{
	struct http_head *head = exchange->request.head;
	char text[24];

	if (head->framing != HTTP_CHUNKED)
		return 0;
	head->framing = HTTP_LENGTH;
	head->content_length = spool_len(exchange->spool);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)head->content_length);
	return http_field_add(head, "Content-Length", text);
}

static void on_spool_ended(void *arg, int status)
{
	struct exchange *exchange = arg;

	if (exchange->overflows || (status < 0 && may_overflow(exchange))) {
		exchange_stream(exchange);
		return;
	}
	if (status == 0)
		status = give_length(exchange);
	if (status < 0)
		refuse(exchange, status);
	else
		exchange_match(exchange);
}

/* It is here. One in memory needs no wait. */
static void received(struct exchange *exchange)
{
	int r;

	if (exchange->overflows)
		return;
	if (exchange->spool && !spool_bytes(exchange->spool)) {
		spool_end(exchange->spool, on_spool_ended, exchange);
		return;
	}
	if (exchange->spool)
		spool_end(exchange->spool, NULL, NULL);
	r = give_length(exchange);
	if (r < 0)
		refuse(exchange, r);
	else
		exchange_match(exchange);
}

void exchange_receive(struct exchange *exchange)
{
	struct buf *body = &exchange->body;
	int r = 0;

	if (exchange->overflows || is_too_large(exchange)) {
		refuse(exchange, exchange->spool ? spool_error(exchange->spool) : -EFBIG);
		return;
	}
	exchange->streaming = exchange->stream_ready = exchange->expecting = false;
	if (exchange->state != EXCHANGE_RECEIVING)
		exchange_enter(exchange, EXCHANGE_RECEIVING);
	if (buf_len(body))
		r = receive(exchange, buf_bytes(body), buf_len(body));
	if (r == 0 && !exchange->overflows)
		buf_clear(body);
	if (r < 0)
		refuse(exchange, r);
	else if (exchange->body_ended)
		received(exchange);
	else if (!exchange_is_full(exchange)) {
		ask_for_it(exchange);
		exchange->ops.on_drain(exchange->arg);
	}
}

/* --- streamed --- */

static void pass_on(struct exchange *exchange, const uint8_t *data, size_t len)
{
	if (exchange->stream_ready && !buf_len(&exchange->body) && !exchange->reader &&
	    !upstream_is_full(exchange->sending)) {
		/* A failed write is told by the connection's own error. */
		if (upstream_write(exchange->sending, data, len) == 0)
			return;
	}
	if (exchange->state != EXCHANGE_SENDING || buf_append(&exchange->body, data, len) == 0)
		return;
	/* A body with a hole must not reach its end. */
	exchange_stop_sending(exchange);
	exchange_enter(exchange, EXCHANGE_OVER);
	exchange->ops.on_abort(exchange->arg, "out of memory for a streamed body");
}

static void end_stream(struct exchange *exchange)
{
	exchange->stream_ready = upstream_write_end(exchange->sending, &exchange->trailers) == 0;
}

/* As far as the connection takes it. */
static void stream_on(struct exchange *exchange)
{
	struct buf *body = &exchange->body;

	exchange->stream_ready = true;
	if (buf_len(body)) {
		if (upstream_write(exchange->sending, buf_bytes(body), buf_len(body)) < 0)
			return;
		buf_clear(body);
	}
	if (exchange->body_ended)
		end_stream(exchange);
	else if (!upstream_is_full(exchange->sending))
		exchange->ops.on_drain(exchange->arg);
}

/* --- read back from the spool --- */

static void read_on(struct exchange *exchange);

static void cannot_read(struct exchange *exchange)
{
	static const char what[] = "the body could not be read back from the disk";

	exchange_stop_sending(exchange);
	exchange->exchanges->statistics.failed++;
	if (exchange->responding) {
		exchange_enter(exchange, EXCHANGE_OVER);
		exchange->ops.on_abort(exchange->arg, what);
		return;
	}
	exchange_answer(exchange, 502, "Bad Gateway", what, NULL);
}

static void on_piece(void *arg, int status, const uint8_t *bytes, size_t len)
{
	struct exchange *exchange = arg;

	exchange->reading = false;
	if (status < 0) {
		cannot_read(exchange);
		return;
	}
	if (len) {
		/* A failed write is told by the connection's own error. */
		if (upstream_write(exchange->sending, bytes, len) == 0)
			read_on(exchange);
		return;
	}
	exchange_stop_reading(exchange);
	if (exchange->streaming)
		stream_on(exchange);
	else
		(void)!upstream_write_end(exchange->sending, NULL);
}

static void read_on(struct exchange *exchange)
{
	if (exchange->reading || upstream_is_full(exchange->sending))
		return;
	exchange->reading = true;
	spool_reader_next(exchange->reader);
}

int exchange_start_reading(struct exchange *exchange)
{
	return spool_reader_new(exchange->spool, on_piece, exchange, &exchange->reader);
}

void exchange_stop_reading(struct exchange *exchange)
{
	spool_reader_close(exchange->reader);
	exchange->reader = NULL;
	exchange->reading = false;
}

void exchange_body_drained(struct exchange *exchange)
{
	if (exchange->reader)
		read_on(exchange);
	else if (exchange->streaming)
		stream_on(exchange);
}

/* --- from the app --- */

void exchange_body(struct exchange *exchange, const uint8_t *data, size_t len)
{
	int r = 0;

	exchange->body_begun = true;
	if (exchange->streaming)
		pass_on(exchange, data, len);
	else if (exchange->overflows)
		r = buf_append(&exchange->body, data, len);
	else if (exchange->state == EXCHANGE_RECEIVING)
		r = receive(exchange, data, len);
	if (r < 0)
		refuse(exchange, r);
}

void exchange_trailers(struct exchange *exchange, const struct http_head *trailers)
{
	/* They are an addition; a request without them is still the same. */
	if (exchange->streaming && http_write_fields(&exchange->trailers, trailers) < 0)
		buf_clear(&exchange->trailers);
}

void exchange_body_end(struct exchange *exchange)
{
	exchange->body_ended = true;
	if (exchange->streaming) {
		if (exchange->stream_ready && !buf_len(&exchange->body) && !exchange->reader)
			end_stream(exchange);
	} else if (exchange->state == EXCHANGE_RECEIVING) {
		received(exchange);
	}
}

bool exchange_is_full(const struct exchange *exchange)
{
	if (exchange->streaming || exchange->overflows)
		return exchange->reader || buf_len(&exchange->body) > 0;
	return exchange->spool && spool_is_full(exchange->spool);
}

void exchange_body_done(struct exchange *exchange)
{
	exchange_stop_reading(exchange);
	if (exchange->spool)
		spool_forget(exchange->spool);
	spool_unref(exchange->spool);
	buf_done(&exchange->body);
	buf_done(&exchange->trailers);
}
