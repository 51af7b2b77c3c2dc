/*
 * An app's connection that speaks HTTP/1.x: one exchange after another.
 *
 *   idle --head--> asking --body's end--> answered? --both ends--> idle | closed
 *
 * Requests that come before the last one is answered (pipelining) wait in `input`; an app that
 * shuts its side after them hears every answer. A response that is complete before its request
 * closes the connection (RFC 9112, 9.3). A 101 makes a stream of the connection.
 */
#include "proxy/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct http_session {
	TAILQ_ENTRY(http_session) entry;
	TAILQ_ENTRY(http_session) pending_entry;
	struct proxy *proxy;
	struct conn *conn;
	struct http_parser *parser;
	struct flow flow;
	char source[SOURCE_TEXT_MAX];
	struct admitted admitted;
	struct exchange *exchange;
	struct buf input; /* read, not parsed yet */
	struct buf head;  /* of the response, not written yet */
	bool feeding, dead, broken, pending;
	bool ended; /* the app has shut its side */
	bool request_over, response_begun, response_over, close_after, head_only, http10;
	bool expects, continued;  /* the app waits for 100; it was told */
	bool chunked, last_chunk; /* the response is; its last one is written */
	uint64_t since, begun;	  /* loop ms: of the last step, of the head's first byte */
};

static const struct exchange_ops exchange_ops;

static void session_free(struct http_session *session)
{
	http_parser_free(session->parser);
	buf_done(&session->input);
	buf_done(&session->head);
	free(session);
}

static void clear_pending(struct http_session *session)
{
	if (session->pending)
		TAILQ_REMOVE(&session->proxy->pending, session, pending_entry);
	session->pending = false;
}

/* The conn is another's, or closed. Inside the parser's callbacks the parser is still needed. */
static void session_leave(struct http_session *session)
{
	session->dead = true;
	clear_pending(session);
	if (session->exchange)
		exchange_app_gone(session->exchange);
	session->exchange = NULL;
	TAILQ_REMOVE(&session->proxy->https, session, entry);
	if (!session->feeding)
		session_free(session);
}

/* The conn is closed by now. */
static void session_end(struct http_session *session)
{
	struct proxy *proxy = session->proxy;

	if (session->dead)
		return;
	session_leave(session);
	proxy_connection_over(proxy);
}

static void session_close(struct http_session *session, bool flush)
{
	conn_close(session->conn, flush);
	session_end(session);
}

/* The last response is written. */
static void session_finish(struct http_session *session)
{
	if (session->request_over)
		conn_finish(session->conn);
	else
		conn_close(session->conn, true);
	session_end(session);
}

/* --- what goes to the app --- */

static void mark_broken(struct http_session *session)
{
	session->broken = true;
	if (!session->pending)
		TAILQ_INSERT_TAIL(&session->proxy->pending, session, pending_entry);
	session->pending = true;
}

/* Head and pieces in one segment where that is possible. */
static void write_pieces(struct http_session *session, struct iovec *pieces, int count)
{
	if (session->broken)
		return;
	pieces[0] = (struct iovec){(void *)buf_bytes(&session->head), buf_len(&session->head)};
	if (conn_writev(session->conn, pieces, count) < 0)
		mark_broken(session);
	else
		clear_pending(session);
	buf_clear(&session->head);
}

static void flush_head(struct http_session *session)
{
	struct iovec pieces[1];

	if (buf_len(&session->head))
		write_pieces(session, pieces, 1);
}

static void exchange_over(struct http_session *session);

static void on_head(void *arg, const struct http_head *head)
{
	struct http_session *session = arg;
	char extra[160], *end;
	bool until_close = head->framing == HTTP_UNTIL_CLOSE || head->framing == HTTP_CHUNKED;

	session->response_begun = true;
	session->chunked = until_close && !session->http10;
	if (until_close && session->http10)
		session->close_after = true;
	if (!session->request_over)
		session->close_after = true;
	end = extra + snprintf(extra, sizeof(extra), HTTP_VIA, head->minor);
	if (!http_field(head, "date"))
		end = stpcpy(end, proxy_date(session->proxy));
	if (session->chunked)
		end = stpcpy(end, "Transfer-Encoding: chunked\r\n");
	if (session->close_after)
		stpcpy(end, "Connection: close\r\n");
	else if (session->http10)
		stpcpy(end, "Connection: keep-alive\r\n");
	if (http_write_response_head(&session->head, head, extra) < 0)
		mark_broken(session);
	/* Most bodies are right behind: the head waits for them until the loop sleeps. */
	if (!session->pending)
		TAILQ_INSERT_TAIL(&session->proxy->pending, session, pending_entry);
	session->pending = true;
}

static void say_continue(struct http_session *session)
{
	session->continued = true;
	if (conn_write(session->conn, "HTTP/1.1 100 Continue\r\n\r\n", 25) < 0)
		mark_broken(session);
}

/* RFC 9110, 15.2: HTTP/1.0 knows none. A second 100 would say nothing new. */
static void on_interim(void *arg, const struct http_head *head)
{
	struct http_session *session = arg;
	char via[32];

	if (!head) {
		if (!session->continued)
			say_continue(session);
		return;
	}
	if (session->http10 || (head->status == 100 && session->continued))
		return;
	session->continued |= head->status == 100;
	session->since = uv_now(session->proxy->loop);
	snprintf(via, sizeof(via), HTTP_VIA, head->minor);
	if (http_write_response_head(&session->head, head, via) < 0)
		mark_broken(session);
	flush_head(session);
}

/* Who hangs up shuts its side first, as who has only said all. An interim response tells: the
 * kernel of one who is gone resets the connection, see sweep(). HTTP/1.0 knows none. */
static void on_held(void *arg)
{
	struct http_session *session = arg;

	if (session->http10)
		session_close(session, false);
	else
		say_continue(session);
}

static void on_body(void *arg, const uint8_t *data, size_t len)
{
	struct http_session *session = arg;
	struct iovec pieces[4];
	char size[20];
	int n = 1;

	session->since = uv_now(session->proxy->loop);
	if (session->chunked) {
		int digits = snprintf(size, sizeof(size), "%zx\r\n", len);

		pieces[n++] = (struct iovec){size, (size_t)digits};
	}
	pieces[n++] = (struct iovec){(void *)data, len};
	if (session->chunked)
		pieces[n++] = (struct iovec){(void *)"\r\n", 2};
	write_pieces(session, pieces, n);
	if (conn_is_full(session->conn))
		exchange_pause(session->exchange);
}

static void on_trailers(void *arg, const struct http_head *trailers)
{
	struct http_session *session = arg;
	struct iovec pieces[2];
	struct buf lines;

	if (!session->chunked)
		return;
	buf_init(&lines, 2 * HTTP_TRAILERS_MAX);
	if (buf_append(&lines, "0\r\n", 3) == 0 && http_write_fields(&lines, trailers) == 0) {
		pieces[1] = (struct iovec){(void *)buf_bytes(&lines), buf_len(&lines)};
		write_pieces(session, pieces, 2);
		session->last_chunk = true;
	}
	buf_done(&lines);
}

static void on_end(void *arg)
{
	struct http_session *session = arg;
	struct iovec pieces[2];

	if (session->chunked) {
		pieces[1] = (struct iovec){(void *)"0\r\n\r\n", 5};
		if (session->last_chunk)
			pieces[1] = (struct iovec){(void *)"\r\n", 2};
		write_pieces(session, pieces, 2);
	} else {
		flush_head(session);
	}
	exchange_over(session);
}

static void on_abort(void *arg, const char *what)
{
	struct http_session *session = arg;

	log_debug("proxy", "a response broke off: %s", what);
	exchange_free(session->exchange);
	session->exchange = NULL;
	conn_reset(session->conn);
	session_end(session);
}

static void on_answer(void *arg, const struct exchange_answer *answer)
{
	struct http_session *session = arg;

	if (!session->request_over)
		session->close_after = true;
	if (answer_write(&session->head, answer, proxy_date(session->proxy), session->head_only,
			 !session->close_after) < 0)
		mark_broken(session);
	flush_head(session);
	exchange_over(session);
}

static void on_drain(void *arg)
{
	struct http_session *session = arg;

	conn_resume(session->conn);
}

/* The connection is a tunnel from here on, and no longer this session's. */
static void on_upgrade(void *arg, const struct http_head *head, struct conn *conn,
		       struct link *link, const uint8_t *rest, size_t len)
{
	struct http_session *session = arg;
	struct proxy *proxy = session->proxy;
	struct stream_pair pair = {
		.app = session->conn,
		.origin = conn,
		.link = link,
		.app_first = buf_bytes(&session->input),
		.app_first_len = buf_len(&session->input),
		.origin_first = rest,
		.origin_first_len = len,
		.app_ended = session->ended,
	};

	exchange_free(session->exchange);
	session->exchange = NULL;
	if (http_write_response_head(&session->head, head, "Via: 1.1 holdfast\r\n") < 0)
		mark_broken(session);
	flush_head(session);
	stream_adopt(proxy, &pair);
	session_leave(session);
}

static const struct exchange_ops exchange_ops = {
	.on_head = on_head,
	.on_interim = on_interim,
	.on_body = on_body,
	.on_end = on_end,
	.on_abort = on_abort,
	.on_answer = on_answer,
	.on_held = on_held,
	.on_drain = on_drain,
	.on_trailers = on_trailers,
	.on_upgrade = on_upgrade,
};

/* --- what the app asks --- */

/* The last word on this connection, before there is an exchange. */
static int say_last(struct http_session *session, int written)
{
	session->close_after = true;
	if (written < 0)
		mark_broken(session);
	flush_head(session);
	session->response_over = true;
	return -ECANCELED;
}

static int refuse_with(struct http_session *session, const struct exchange_answer *answer)
{
	session->proxy->statistics.bad_requests++;
	return say_last(session, answer_write(&session->head, answer, proxy_date(session->proxy),
					      session->head_only, false));
}

static int refuse(struct http_session *session, int status, const char *title, const char *detail)
{
	struct exchange_answer answer = {.status = status, .title = title, .detail = detail};

	return refuse_with(session, &answer);
}

static int begin_exchange(struct http_session *session, struct http_head *head)
{
	struct exchange_request request = {
		.head = head,
		.source = session->source,
		.source_ip = session->flow.source,
		.source_interface = session->flow.interface,
		.destination = session->flow.destination,
		.port = session->flow.port,
		.name = session->flow.is_virtual ? session->flow.name : NULL,
		.authority = session->admitted.authority,
		.secure = session->admitted.secure,
		.expects = session->expects,
	};
	int r = exchange_new(session->proxy->parts.exchanges, &request, &exchange_ops, session,
			     &session->exchange);

	if (r < 0)
		return refuse(session, 503, "Out of memory", "The request could not be taken.");
	if (session->ended)
		exchange_app_shut(session->exchange);
	return 0;
}

/* 0, or -ECANCELED: it is answered. */
static int admit_request(struct http_session *session, struct http_head *head)
{
	const char *date = proxy_date(session->proxy);
	struct exchange_answer answer;

	switch (admit(&session->flow, head, &session->admitted, &answer)) {
	case ADMITTED:
		return 0;
	case ADMIT_REFUSED:
		return refuse_with(session, &answer);
	case ADMIT_OPTIONS:
		return say_last(session, answer_write_options(&session->head, date));
	case ADMIT_TRACE:
		return say_last(session, answer_write_trace(&session->head, head, date));
	}
	return -ECANCELED;
}

static int parser_on_head(void *arg, struct http_head *head)
{
	struct http_session *session = arg;
	int r;

	session->proxy->statistics.http_requests++;
	session->head_only = strcmp(http_method(head), "HEAD") == 0;
	session->http10 = head->minor == 0;
	session->close_after = !head->keep_alive;
	session->expects = head->expect_continue && head->minor &&
			   (head->framing == HTTP_CHUNKED || head->content_length);
	session->continued = false;
	r = admit_request(session, head);
	if (r == 0)
		r = begin_exchange(session, head);
	if (r < 0)
		return r;
	exchange_start(session->exchange);
	return session->dead || session->response_over ? -ECANCELED : 0;
}

static int parser_on_body(void *arg, const uint8_t *data, size_t len)
{
	struct http_session *session = arg;

	exchange_body(session->exchange, data, len);
	if (session->dead || session->response_over)
		return -ECANCELED;
	if (exchange_is_full(session->exchange))
		conn_pause(session->conn);
	return 0;
}

static int parser_on_trailers(void *arg, const struct http_head *trailers)
{
	struct http_session *session = arg;

	exchange_trailers(session->exchange, trailers);
	return 0;
}

static int parser_on_end(void *arg)
{
	struct http_session *session = arg;

	session->request_over = true;
	/* What was stopped for the body: who hangs up must be heard. */
	conn_resume(session->conn);
	exchange_body_end(session->exchange);
	return 0;
}

static int refuse_syntax(struct http_session *session, int error)
{
	const char *what = http_parser_error(session->parser);

	switch (error) {
	case -EMSGSIZE:
		return refuse(session, 431, "Request Header Fields Too Large", what);
	case -ENAMETOOLONG:
		return refuse(session, 414, "URI Too Long", what);
	case -EOPNOTSUPP:
		return refuse(session, 501, "Not Implemented", what);
	case -EPROTONOSUPPORT:
		return refuse(session, 505, "HTTP Version Not Supported", what);
	default:
		return refuse(session, 400, "Bad Request", what);
	}
}

/* May another request be looked at? Not while the app does not read its answers: they would
 * pile up. */
static bool may_ask(const struct http_session *session)
{
	return session->exchange || !conn_is_full(session->conn);
}

/* The app will say no more: what it asked is answered, then its connection is closed. */
static void finish_ended(struct http_session *session)
{
	if (session->exchange && session->request_over)
		return;
	/* Pipelined ones wait until the app has read its answers. */
	if (!session->exchange && buf_len(&session->input) && !may_ask(session))
		return;
	session_close(session, !session->exchange);
}

/* Parse what is there, up to the end of one request that is not answered yet. */
static void feed(struct http_session *session)
{
	int r = 0;

	if (session->feeding)
		return;
	session->feeding = true;
	while (buf_len(&session->input) && !session->request_over && !session->dead && r == 0 &&
	       !session->response_over && may_ask(session)) {
		size_t used = 0;

		if (!http_parser_in_message(session->parser))
			session->begun = uv_now(session->proxy->loop);
		r = http_parser_feed(session->parser, buf_bytes(&session->input),
				     buf_len(&session->input), &used);
		if (r == 0)
			buf_consume(&session->input, used);
	}
	session->feeding = false;
	if (session->dead) {
		session_free(session);
		return;
	}
	/* After a large body: its exchange may be held for long. */
	if (session->request_over)
		buf_shrink(&session->input, HTTP_INPUT_KEPT);
	if (r < 0 && r != -ECANCELED && !session->response_over) {
		if (session->exchange)
			exchange_free(session->exchange);
		session->exchange = NULL;
		if (session->response_begun) {
			conn_reset(session->conn);
			session_end(session);
			return;
		}
		refuse_syntax(session, r);
	}
	if (session->response_over && (!session->request_over || session->close_after))
		session_finish(session);
	else if (session->ended)
		finish_ended(session);
}

/* The response is written. The next request, or the end of the connection. */
static void exchange_over(struct http_session *session)
{
	exchange_free(session->exchange);
	session->exchange = NULL;
	session->since = uv_now(session->proxy->loop);
	session->response_over = true;
	session->response_begun = session->chunked = session->last_chunk = false;
	session->head_only = false;
	if (session->feeding && !session->request_over)
		return; /* feed() closes */
	if (!session->request_over || session->close_after) {
		session_finish(session);
		return;
	}
	session->request_over = session->response_over = false;
	conn_resume(session->conn);
	if (!session->feeding)
		feed(session);
}

/* --- the connection --- */

static void conn_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct http_session *session = arg;

	session->since = uv_now(session->proxy->loop);
	if (buf_append(&session->input, data, len) < 0) {
		session_close(session, false);
		return;
	}
	/* Pipelined: what cannot be looked at yet is bounded. */
	if ((session->request_over || !may_ask(session)) &&
	    buf_len(&session->input) >= STREAM_BUFFER_MAX)
		conn_pause(session->conn);
	feed(session);
}

static void conn_on_eof(void *arg)
{
	struct http_session *session = arg;

	session->ended = true;
	if (session->exchange)
		exchange_app_shut(session->exchange);
	if (!buf_len(&session->input))
		session->close_after = true;
	feed(session);
}

static void conn_on_drain(void *arg)
{
	struct http_session *session = arg;

	if (session->exchange) {
		exchange_resume(session->exchange);
		return;
	}
	conn_resume(session->conn);
	feed(session);
}

static void conn_on_error(void *arg, int error)
{
	session_close(arg, false);
}

void http_begin(struct proxy *proxy, struct conn *conn, const uint8_t *bytes, size_t len)
{
	static const struct http_parser_ops parser_ops = {.on_head = parser_on_head,
							  .on_body = parser_on_body,
							  .on_trailers = parser_on_trailers,
							  .on_end = parser_on_end};
	static const struct conn_ops ops = {.on_data = conn_on_data,
					    .on_eof = conn_on_eof,
					    .on_drain = conn_on_drain,
					    .on_error = conn_on_error};
	struct http_session *session = calloc(1, sizeof(*session));

	if (!session || !flow_of(proxy, conn, &session->flow) ||
	    http_parser_new(HTTP_KIND_REQUEST, &parser_ops, session, &session->parser) < 0) {
		free(session);
		proxy->statistics.refused++;
		conn_reset(conn);
		proxy_connection_over(proxy);
		return;
	}
	session->proxy = proxy;
	session->conn = conn;
	proxy_source_text(proxy, &session->flow.source, session->source, sizeof(session->source));
	buf_init(&session->input, 2 * STREAM_BUFFER_MAX);
	buf_init(&session->head, 2 * HTTP_HEAD_MAX);
	TAILQ_INSERT_TAIL(&proxy->https, session, entry);
	conn_set_ops(conn, &ops, session);
	conn_resume(conn);
	conn_on_data(session, bytes, len);
}

/* Before the loop sleeps: heads whose bodies did not come, and apps that are gone. */
void https_flush(struct proxy *proxy)
{
	struct http_session *session;

	while ((session = TAILQ_FIRST(&proxy->pending))) {
		clear_pending(session);
		if (session->broken) {
			session_close(session, false);
			continue;
		}
		flush_head(session);
		if (session->broken)
			session_close(session, false);
	}
}

/* Of a head the whole time counts, of a body that since its last byte: one octet now and then is no
 * way to keep a connection. */
static bool is_too_slow(const struct http_session *session, uint64_t now)
{
	if (session->request_over || !http_parser_in_message(session->parser))
		return false;
	return session->exchange ? now - session->since > HTTP_BODY_TIMEOUT
				 : now - session->begun > HTTP_HEAD_TIMEOUT;
}

static bool is_idle(const struct http_session *session, uint64_t now)
{
	return !session->exchange && !http_parser_in_message(session->parser) &&
	       now - session->since > HTTP_IDLE_TIMEOUT;
}

static void sweep(struct http_session *session, uint64_t now)
{
	bool waits = session->exchange && session->expects && !session->continued;

	if (session->exchange && exchange_is_full(session->exchange))
		session->since = now; /* it waits for us */
	/* Many an origin says nothing before the body; the app must not wait for ever. */
	if (waits && now - session->since > HTTP_CONTINUE_TIMEOUT) {
		session->since = now;
		say_continue(session);
	} else if (is_too_slow(session, now)) {
		session->proxy->statistics.timed_out++;
		if (!session->response_begun)
			refuse(session, 408, "Request Timeout",
			       "The request was not complete in time.");
		session_close(session, !session->response_begun);
	} else if (is_idle(session, now)) {
		session_close(session, true);
	} else if (session->ended && conn_is_gone(session->conn)) {
		session_close(session, false);
	}
}

void https_sweep(struct proxy *proxy, uint64_t now)
{
	struct http_session *session, *next;

	for (session = TAILQ_FIRST(&proxy->https); session; session = next) {
		next = TAILQ_NEXT(session, entry);
		sweep(session, now);
	}
}

void https_close(struct proxy *proxy)
{
	struct http_session *session;

	while ((session = TAILQ_FIRST(&proxy->https)))
		session_close(session, true);
}
