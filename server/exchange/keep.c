/* An exchange and the queue: matching, storing, and handing over a stored answer. */
#include "exchange/internal.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int hash_exchange(struct exchange *exchange)
{
	const struct exchange_request *request = &exchange->request;
	int r;

	if (exchange->hashed)
		return 0;
	r = spool_digest(exchange->spool, exchange->body_hash);
	if (r == 0)
		r = exchange_hash(request->head, request->source, exchange_scheme(exchange),
				  request->authority, exchange->rule->policy.hash_headers,
				  exchange->body_hash, exchange->hash);
	exchange->hashed = r == 0;
	return r;
}

static bool is_ordered(const struct exchange *exchange)
{
	return exchange->rule->policy.order &&
	       !http_method_is_safe(http_method(exchange->request.head));
}

static struct queue_about about(const struct exchange *exchange)
{
	const struct exchange_request *request = &exchange->request;

	return (struct queue_about){
		.source = request->source,
		.scheme = exchange_scheme(exchange),
		.authority = request->authority,
		.method = http_method(request->head),
		.target = http_target(request->head),
		.idempotency_key = http_field(request->head, "idempotency-key"),
	};
}

bool exchange_may_owe(const struct exchange *exchange)
{
	const struct queue_about asked = about(exchange);

	return exchange->rule->policy.dedupe && !exchange->request.head->upgrade &&
	       queue_may_owe(exchange->exchanges->queue, &asked);
}

bool exchange_may_be_behind(const struct exchange *exchange)
{
	const struct queue_about asked = about(exchange);

	return is_ordered(exchange) && queue_may_be_behind(exchange->exchanges->queue, &asked);
}

/* And now that its body is here? */
static bool may_owe_same(struct exchange *exchange)
{
	const struct queue_about asked = about(exchange);

	return exchange_may_owe(exchange) && hash_exchange(exchange) == 0 &&
	       queue_may_owe_same(exchange->exchanges->queue, &asked, exchange->hash);
}

static bool has_link(const struct exchange *exchange)
{
	return links_choose(exchange->exchanges->links, &exchange->rule->policy, 0) != NULL;
}

static void dispatch(struct exchange *exchange)
{
	exchange->tried = 0;
	if (exchange->state != EXCHANGE_HELD && !exchanges_have_room(exchange->exchanges)) {
		exchange->exchanges->statistics.waited++;
		exchange_hold(exchange, "as many requests are under way as may be");
		exchange_line_up(exchange);
		return;
	}
	if (exchange_send(exchange) < 0)
		exchange_hold(exchange, "no link is usable");
}

static void on_news(void *arg, enum queue_news news);

static void wait_for(struct exchange *exchange, const char *id)
{
	uint64_t hold = exchange->rule->policy.hold, now = uv_now(exchange->exchanges->loop);

	if (exchange->has_wait && exchange->wait < hold)
		hold = exchange->wait;
	snprintf(exchange->stored_id, sizeof(exchange->stored_id), "%s", id);
	exchange_enter(exchange, EXCHANGE_WAITING);
	if (queue_watch(exchange->exchanges->queue, id, on_news, exchange, &exchange->watch) < 0) {
		exchange_wait_over(exchange);
		return;
	}
	/* One span, also when it waited for another stored one before. */
	exchange_list(exchange, exchange->deadline ? exchange->deadline : now + hold);
}

static void on_match(void *arg, int status, const struct queue_match *match)
{
	struct exchange *exchange = ticket_take(arg);

	if (!exchange)
		return;
	/* A look-up that fails must not stop what is live. */
	if (status < 0) {
		dispatch(exchange);
		return;
	}
	switch (match->kind) {
	case MATCH_OWES:
		wait_for(exchange, match->id);
		return;
	case MATCH_KEY_CONFLICT:
		exchange_answer(exchange, 422, "Idempotency-Key in use",
				"A stored request has the same Idempotency-Key and another body.",
				NULL);
		return;
	case MATCH_NONE:
		break;
	}
	exchange->behind = match->behind && exchange_may_be_behind(exchange);
	if (exchange->behind)
		exchange_hold(exchange, "earlier stored requests to this origin go first");
	else
		dispatch(exchange);
}

void exchange_match(struct exchange *exchange)
{
	struct queue *queue = exchange->exchanges->queue;
	const struct exchange_request *request = &exchange->request;
	bool dedupe = !exchange->behind && may_owe_same(exchange);
	const char *key = dedupe ? http_field(request->head, "idempotency-key") : NULL;
	struct ticket *ticket;

	if (!dedupe && !exchange_may_be_behind(exchange)) {
		exchange->behind = false;
		dispatch(exchange);
		return;
	}
	/* It has to wait in any case; whether for others as well is asked when a link is back. */
	if (!dedupe && !has_link(exchange)) {
		exchange->behind = true;
		exchange_hold(exchange, "no link is usable");
		return;
	}
	exchange_enter(exchange, EXCHANGE_MATCHING);
	ticket = exchange_ticket(exchange);
	if (ticket && queue_match(queue, request->source, exchange_scheme(exchange),
				  request->authority, dedupe ? exchange->hash : NULL, key,
				  dedupe ? exchange->body_hash : NULL, on_match, ticket) == 0)
		return;
	if (ticket)
		ticket_take(ticket);
	dispatch(exchange);
}

/* --- storing --- */

/* When it came, by the wall clock as it is now: set by years meanwhile, it would expire at once. */
static int64_t received_by_now(const struct exchange *exchange)
{
	int64_t received = clock_wall() - (clock_boot() - exchange->born);
	int64_t step = received - exchange->received;

	return step < -REPLAY_CLOCK_STEP || step > REPLAY_CLOCK_STEP ? received
								     : exchange->received;
}

int exchange_put(struct exchange *exchange, bool owes, queue_status_cb cb, void *arg)
{
	const struct exchange_request *from = &exchange->request;
	const struct rule_policy *policy = &exchange->rule->policy;
	struct queue_request request = {
		.rule = exchange->rule->name,
		.source = from->source,
		.method = http_method(from->head),
		.scheme = exchange_scheme(exchange),
		.authority = from->authority,
		.target = http_target(from->head),
		.spool = exchange->spool,
		.idempotency_key = http_field(from->head, "idempotency-key"),
		.owes = owes && policy->dedupe,
		.ordered = is_ordered(exchange),
		.importance = policy->importance,
		.attempts_max = policy->attempts,
		.received = received_by_now(exchange),
	};
	struct buf fields;
	int r = hash_exchange(exchange);

	if (r < 0)
		return r;
	request.expires = request.received + (int64_t)policy->expire;
	memcpy(request.hash, exchange->hash, sizeof(request.hash));
	memcpy(request.body_hash, exchange->body_hash, sizeof(request.body_hash));
	snprintf(request.id, sizeof(request.id), "%s", exchange_id(exchange));
	buf_init(&fields, 2 * HTTP_HEAD_MAX);
	r = http_write_fields(&fields, from->head);
	if (r == 0)
		r = buf_printf(&fields, HTTP_VIA, from->head->minor);
	request.fields = buf_bytes(&fields);
	request.fields_len = buf_len(&fields);
	if (r == 0)
		r = queue_put(exchange->exchanges->queue, &request,
			      owes ? "stored after the hold" : "stored, accepted", cb, arg);
	buf_done(&fields);
	return r;
}

static bool is_accepted(const struct exchange *exchange)
{
	return exchange->async || exchange->rule->policy.reply == REPLY_ACCEPT;
}

static void refuse_storage(struct exchange *exchange, int status)
{
	if (status == -EDQUOT)
		exchange_answer(
			exchange, 503, "Queue full",
			"The queue is full (queue.max_bytes or queue.max_count) of what is as "
			"important; the request was not stored.",
			NULL);
	else if (status == -EAGAIN)
		exchange_answer(exchange, 503, "Queue busy",
				"Too many requests wait to be stored; this one was not.", NULL);
	else if (status == -EBADMSG)
		exchange_answer(exchange, 507, "Insufficient Storage",
				"The database was corrupt, and a new one is begun; the request was "
				"not stored.",
				NULL);
	else
		exchange_answer(exchange, 507, "Insufficient Storage",
				"The request could not be written to the disk and was not stored.",
				NULL);
}

static void write_down(struct exchange *exchange);

static void on_stored(void *arg, int status)
{
	struct exchange *exchange = ticket_take(arg);

	if (!exchange)
		return;
	if (status == -EBADMSG && !exchange->stored_anew) {
		exchange->stored_anew = true; /* a new database is there by now */
		write_down(exchange);
		return;
	}
	if (status < 0) {
		refuse_storage(exchange, status);
		return;
	}
	exchange->exchanges->statistics.stored++;
	if (is_accepted(exchange))
		exchange_answer(exchange, 202, "Accepted",
				"The request is stored and will be sent when a link is back.",
				exchange->id);
	else
		exchange_answer(exchange, 503, "Stored",
				"No link is usable. The request is stored and will be sent; repeat "
				"it to get its response.",
				exchange->id);
}

static void write_down(struct exchange *exchange)
{
	struct ticket *ticket = exchange_ticket(exchange);
	int r = -ENOMEM;

	if (ticket)
		r = exchange_put(exchange, !is_accepted(exchange), on_stored, ticket);
	if (r == 0)
		return;
	if (ticket)
		ticket_take(ticket);
	refuse_storage(exchange, r);
}

void exchange_store(struct exchange *exchange)
{
	exchange_enter(exchange, EXCHANGE_STORING);
	write_down(exchange);
}

/* --- the answer of a stored exchange --- */

void exchange_wait_over(struct exchange *exchange)
{
	if (exchange->watch)
		queue_unwatch(exchange->watch);
	exchange->watch = NULL;
	exchange_answer(
		exchange, 503, "Stored",
		"The same request is stored already, and its response cannot be had yet; repeat it "
		"later.",
		exchange->stored_id);
}

/* "HTTP/1.1 200 OK" */
static int read_reason(const struct queue_row *row, struct http_head *head)
{
	const char *line = (const char *)row->response_head;
	size_t len = (size_t)((const char *)memmem(line, row->response_head_len, "\r\n", 2) - line);
	const char *reason = len > 13 ? line + 13 : "";
	int r = buf_append(&head->text, reason, len > 13 ? len - 13 : 0);

	return r == 0 ? buf_append(&head->text, "", 1) : r;
}

static int stored_head(const struct queue_row *row, struct http_head *head)
{
	const uint8_t *lines = memmem(row->response_head, row->response_head_len, "\r\n", 2);
	size_t len;
	char text[32];
	int r;

	if (!lines)
		return -EINVAL;
	lines += 2;
	len = row->response_head_len - (size_t)(lines - row->response_head);
	if (len >= 2 && memcmp(lines + len - 2, "\r\n", 2) == 0 &&
	    (len == 2 || (len >= 4 && memcmp(lines + len - 4, "\r\n", 2) == 0)))
		len -= 2; /* the empty line */
	r = read_reason(row, head);
	if (r == 0)
		r = http_read_fields(head, lines, len);
	if (r < 0)
		return r;
	head->status = (uint16_t)row->response_status;
	head->framing = HTTP_NO_BODY;
	if (head->status == 204 || head->status == 304 || strcmp(row->method, "HEAD") == 0)
		return 0;
	head->framing = HTTP_LENGTH;
	head->content_length = row->response_bytes;
	http_field_remove(head, "content-length");
	snprintf(text, sizeof(text), "%llu", (unsigned long long)row->response_bytes);
	return http_field_add(head, "Content-Length", text);
}

static int mark_head(struct http_head *head, const struct queue_row *row)
{
	int64_t finished = row->event_count ? row->events[row->event_count - 1].at : row->received;
	int64_t age = (exchange_wall_ms() - finished) / 1000;
	char text[32];
	int r;

	snprintf(text, sizeof(text), "%lld", (long long)(age > 0 ? age : 0));
	http_field_remove(head, "age");
	r = http_field_add(head, "Age", text);
	return r == 0 ? http_field_add(head, "Holdfast-Id", row->id) : r;
}

static void without_response(struct exchange *exchange, const struct queue_row *row)
{
	char detail[240];

	snprintf(detail, sizeof(detail), "The stored request is %s and has no response: %s",
		 request_state_name(row->state),
		 row->event_count ? row->events[row->event_count - 1].what : "no reason was kept");
	exchange_answer(exchange, 504, "No response", detail, NULL);
}

static void paid(void *arg, int status)
{
	if (status < 0)
		log_warning("exchange", "a debt could not be marked as paid: %s",
			    strerror(-status));
}

/* Only an end that was reached pays: a reader that fails, or an app that goes, leaves the debt. */
static void pay(struct exchange *exchange)
{
	int r = queue_paid(exchange->watch, paid, NULL);

	exchange->watch = NULL;
	if (r < 0)
		paid(NULL, r);
}

static void delivered(struct exchange *exchange)
{
	pay(exchange);
	exchange_enter(exchange, EXCHANGE_OVER);
	exchange->ops.on_end(exchange->arg);
}

static void broken_off(struct exchange *exchange, int status)
{
	log_warning("exchange", "%s: the stored response could not be read: %s",
		    exchange->stored_id, strerror(-status));
	exchange_enter(exchange, EXCHANGE_OVER);
	exchange->ops.on_abort(exchange->arg, "the stored response could not be read");
}

void exchange_deliver(struct exchange *exchange)
{
	int r;

	if (!exchange->delivery || exchange->delivering || exchange->paused)
		return;
	if (!exchange->to_deliver) {
		delivered(exchange);
		return;
	}
	r = queue_reader_next(exchange->delivery);
	exchange->delivering = r == 0;
	if (r < 0)
		broken_off(exchange, r);
}

static void on_piece(void *arg, int status, const uint8_t *bytes, size_t len)
{
	struct exchange *exchange = arg;

	exchange->delivering = false;
	if (status == 0 && (!len || len > exchange->to_deliver))
		status = -EBADMSG;
	if (status < 0) {
		broken_off(exchange, status);
		return;
	}
	exchange->to_deliver -= len;
	exchange->ops.on_body(exchange->arg, bytes, len);
	exchange_deliver(exchange);
}

/* The head at once, the body as the app takes it. */
static void hand_over(struct exchange *exchange, const struct queue_row *row)
{
	struct queue *queue = exchange->exchanges->queue;
	struct http_head head;

	http_head_init(&head, HTTP_KIND_RESPONSE);
	if (!row->response_status) {
		pay(exchange);
		without_response(exchange, row);
	} else if (stored_head(row, &head) < 0 || mark_head(&head, row) < 0 ||
		   queue_reader_new(queue, row->id, QUEUE_RESPONSE, on_piece, exchange,
				    &exchange->delivery) < 0) {
		exchange_answer(exchange, 503, "Out of memory",
				"The stored response could not be read now.", exchange->stored_id);
	} else {
		exchange->ops.on_head(exchange->arg, &head);
		exchange->to_deliver = head.framing == HTTP_LENGTH ? row->response_bytes : 0;
		exchange_deliver(exchange);
	}
	http_head_done(&head);
}

static void deleted(struct exchange *exchange)
{
	exchange_answer(exchange, 504, "No response",
			"The stored request was deleted, or lost with a corrupt database, before "
			"it had a response.",
			NULL);
}

static void cannot_read(struct exchange *exchange)
{
	exchange_answer(exchange, 503, "Queue busy", "The stored response could not be read now.",
			exchange->stored_id);
}

static void on_fetched(void *arg, int status, struct queue_row *row)
{
	struct exchange *exchange = ticket_take(arg);

	if (exchange && status == -ENOENT)
		deleted(exchange);
	else if (exchange && status < 0)
		cannot_read(exchange);
	else if (exchange)
		hand_over(exchange, row);
	if (row)
		queue_row_free(row);
}

static void fetch(struct exchange *exchange)
{
	struct ticket *ticket = exchange_ticket(exchange);

	exchange_enter(exchange, EXCHANGE_FETCHING);
	if (ticket && queue_get(exchange->exchanges->queue, exchange->stored_id, true, on_fetched,
				ticket) == 0)
		return;
	if (ticket)
		ticket_take(ticket);
	cannot_read(exchange);
}

static void on_news(void *arg, enum queue_news news)
{
	struct exchange *exchange = arg;

	switch (news) {
	case QUEUE_YOURS:
		fetch(exchange);
		return;
	case QUEUE_PAID:
		/* The debt it was matched to is no more: a request as any other. */
		exchange->watch = NULL;
		exchange_match(exchange);
		return;
	case QUEUE_GONE:
		exchange->watch = NULL;
		deleted(exchange);
		return;
	}
}
