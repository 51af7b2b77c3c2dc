/*
 * One request over one lane.
 *
 *   new --idle lane--> sending --head--> responding --end--> (gone)
 *    \--dial--> dialing --connected--^        \--fail--> (gone)
 *
 * A request that is idempotent (or carries an Idempotency-Key) and whole goes over any lane that
 * was used before: the origin may close it at the same moment, and then it is sent once more on a
 * new one (RFC 9110, 9.2.2). Another whole one goes only over a lane that the origin used a moment
 * ago, and is never sent twice: it fails, and the app is told that it may have arrived. A streamed
 * one gets a new lane.
 */
#include "upstream/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct upstream_request {
	TAILQ_ENTRY(upstream_request) entry;
	struct upstream *upstream;
	struct link *link;
	struct lane *lane;	    /* once there is one */
	struct upstream_dial *dial; /* until then */
	char target[TARGET_TEXT_MAX];
	struct identity *identity; /* NULL: plain */
	bool by_address;
	struct ip address;
	uint16_t port;
	char method[32];
	struct buf head; /* as it goes out; kept until a response byte comes */
	const uint8_t *body;
	size_t body_len;
	bool stream, repeatable, chunked, body_ended, responding, interim, upgrade;
	unsigned interims;
	struct upstream_ops ops;
	void *arg;
};

static void request_free(struct upstream_request *request)
{
	TAILQ_REMOVE(&request->upstream->requests, request, entry);
	request->upstream->statistics.active--;
	buf_done(&request->head);
	identity_unref(request->identity);
	free(request);
}

static enum upstream_stage request_stage(const struct upstream_request *request)
{
	if (request->responding)
		return UPSTREAM_RESPONDING;
	return request->lane ? UPSTREAM_SENT : UPSTREAM_NOT_SENT;
}

/* Let go of lane or dial without a word to the request. */
static void request_detach(struct upstream_request *request)
{
	if (request->dial)
		upstream_dial_cancel(request->dial);
	if (request->lane)
		lane_close(request->lane);
	request->dial = NULL;
	request->lane = NULL;
}

void request_fail(struct upstream_request *request, int status, const char *what)
{
	enum upstream_stage stage = request_stage(request);
	struct upstream_ops ops = request->ops;
	void *arg = request->arg;
	char text[256];

	/* what may live in the lane's parser */
	snprintf(text, sizeof(text), "%s", what);
	request->upstream->statistics.failed++;
	request_detach(request);
	request_free(request);
	ops.on_fail(arg, status, stage, text);
}

/* An origin that answers early may have stopped to listen (RFC 9112, 9.5): what it said is read
 * before anybody gives up, and the end of the stream tells the rest. */
static int lane_write(struct lane *lane, const struct iovec *pieces, int count)
{
	int r = lane->deaf ? 0 : conn_writev(lane->conn, pieces, count);

	if (r != -EPIPE && r != -ECONNRESET)
		return r;
	lane->deaf = true;
	return 0;
}

static int write_request(struct upstream_request *request)
{
	struct iovec pieces[2] = {
		{(void *)buf_bytes(&request->head), buf_len(&request->head)},
		{(void *)request->body, request->body_len},
	};

	http_parser_reset(request->lane->parser);
	http_parser_expect(request->lane->parser, request->method);
	conn_resume(request->lane->conn);
	/* On a kept connection that is closed nothing was sent: another one takes it. */
	return request->lane->reused ? conn_writev(request->lane->conn, pieces, 2)
				     : lane_write(request->lane, pieces, 2);
}

static void attach_lane(struct upstream_request *request, struct lane *lane)
{
	request->lane = lane;
	lane->request = request;
	lane->reusable = false;
}

static void on_dialed(void *arg, int status, struct conn *conn, const char *what)
{
	struct upstream_request *request = arg;
	struct lane *lane;

	request->dial = NULL;
	if (status < 0) {
		request_fail(request, status, what);
		return;
	}
	status = lane_new(request->upstream, request->link, request->target, request->identity,
			  conn, &lane);
	if (status < 0) {
		conn_close(conn, false);
		request_fail(request, status, strerror(-status));
		return;
	}
	attach_lane(request, lane);
	status = write_request(request);
	if (status < 0)
		request_fail(request, status, strerror(-status));
	else if (request->stream && !conn_is_full(lane->conn))
		request->ops.on_drain(request->arg);
}

static int request_dial(struct upstream_request *request, const char *host)
{
	struct upstream_target target = {
		.host = host,
		.address = request->by_address ? &request->address : NULL,
		.port = request->port,
	};

	return dial_start(request->upstream, request->link, &target, request->identity, on_dialed,
			  request, &request->dial);
}

static int request_redial(struct upstream_request *request)
{
	char host[TARGET_TEXT_MAX];
	char *colon;

	snprintf(host, sizeof(host), "%s", request->target);
	colon = strrchr(host, ':');
	if (colon)
		*colon = '\0';
	request_detach(request);
	return request_dial(request, host);
}

void request_lane_failed(struct upstream_request *request, int status, const char *what)
{
	int r;

	/* What TLS says against a peer is not to be tried away. */
	if (status == -EKEYREJECTED)
		request->upstream->statistics.rejected++;
	if (!request->lane->reused || request->responding || !request->repeatable ||
	    status == -EKEYREJECTED) {
		request_fail(request, status, what);
		return;
	}
	r = request_redial(request);
	if (r < 0)
		request_fail(request, r, strerror(-r));
}

static int write_head(struct upstream_request *request, const struct http_head *head,
		      const char *target, const char *extra)
{
	bool needs_length = !request->stream && !http_field(head, "content-length") &&
			    (request->body_len || !http_method_is_idempotent(request->method));
	struct buf lines;
	int r = 0;

	if (!request->chunked && !needs_length)
		return http_write_request_head(&request->head, head, target, extra);
	buf_init(&lines, HTTP_HEAD_MAX);
	if (extra)
		r = buf_append(&lines, extra, strlen(extra));
	if (r == 0 && request->chunked)
		r = buf_printf(&lines, "Transfer-Encoding: chunked\r\n");
	else if (r == 0)
		r = buf_printf(&lines, "Content-Length: %zu\r\n", request->body_len);
	if (r == 0)
		r = buf_append(&lines, "", 1);
	if (r == 0)
		r = http_write_request_head(&request->head, head, target,
					    (const char *)buf_bytes(&lines));
	buf_done(&lines);
	return r;
}

/* Over an idle lane, if there is one that still takes it; else by a new connection. */
static int request_start(struct upstream_request *request, const char *host)
{
	struct lane *lane;

	if (request->stream)
		return request_dial(request, host);
	while ((lane = pool_take(request->upstream, request->link, request->target,
				 request->identity, !request->repeatable))) {
		attach_lane(request, lane);
		if (write_request(request) == 0)
			return 0;
		request_detach(request);
	}
	return request_dial(request, host);
}

int upstream_send(struct upstream *upstream, struct link *link,
		  const struct upstream_target *target, const struct http_head *head,
		  const char *request_target, const char *extra, const uint8_t *body,
		  size_t body_len, bool stream, const struct upstream_ops *ops, void *arg,
		  struct upstream_request **ret_request)
{
	struct upstream_request *request = calloc(1, sizeof(*request));
	int r;

	if (!request)
		return -ENOMEM;
	request->upstream = upstream;
	request->link = link;
	request->port = target->port;
	request->by_address = target->address;
	if (target->address)
		request->address = *target->address;
	target_text(target, request->target);
	snprintf(request->method, sizeof(request->method), "%s", http_method(head));
	request->body = body;
	request->body_len = body_len;
	request->stream = stream;
	request->upgrade = head->upgrade && ops->on_upgrade;
	request->repeatable = !stream && (http_method_is_idempotent(request->method) ||
					  http_field(head, "idempotency-key"));
	request->chunked = stream && head->framing == HTTP_CHUNKED;
	request->ops = *ops;
	request->arg = arg;
	buf_init(&request->head, 2 * HTTP_HEAD_MAX);
	TAILQ_INSERT_TAIL(&upstream->requests, request, entry);
	upstream->statistics.active++;
	upstream->statistics.requests++;
	r = identity_new(upstream, target, &request->identity);
	if (r == 0)
		r = write_head(request, head, request_target, extra);
	if (r == 0)
		r = request_start(request, target->host);
	if (r < 0) {
		request_detach(request);
		request_free(request);
		return r;
	}
	*ret_request = request;
	return 0;
}

int upstream_write(struct upstream_request *request, const uint8_t *data, size_t len)
{
	char size[20];
	struct iovec plain = {(void *)data, len};
	struct iovec pieces[3] = {{size, 0}, plain, {(void *)"\r\n", 2}};

	if (!request->lane)
		return -ENOTCONN;
	if (!len)
		return 0;
	if (!request->chunked)
		return lane_write(request->lane, &plain, 1);
	pieces[0].iov_len = (size_t)snprintf(size, sizeof(size), "%zx\r\n", len);
	return lane_write(request->lane, pieces, 3);
}

int upstream_write_end(struct upstream_request *request, const struct buf *trailers)
{
	struct iovec pieces[3] = {{(void *)"0\r\n", 3}, {0}, {(void *)"\r\n", 2}};

	if (!request->lane)
		return -ENOTCONN;
	request->body_ended = true;
	if (trailers)
		pieces[1] = (struct iovec){(void *)buf_bytes(trailers), buf_len(trailers)};
	return request->chunked ? lane_write(request->lane, pieces, 3) : 0;
}

bool upstream_is_full(const struct upstream_request *request)
{
	return !request->lane || conn_is_full(request->lane->conn);
}

void upstream_pause(struct upstream_request *request)
{
	if (request->lane)
		conn_pause(request->lane->conn);
}

void upstream_resume(struct upstream_request *request)
{
	if (request->lane)
		conn_resume(request->lane->conn);
}

void upstream_cancel(struct upstream_request *request)
{
	request_detach(request);
	request_free(request);
}

struct link *upstream_request_link(const struct upstream_request *request)
{
	return request->link;
}

/* RFC 9110, 15.2.2: what comes after it is no HTTP, so it must have been asked for. */
static int switch_protocols(struct upstream_request *request, const struct http_head *head)
{
	if (!request->upgrade || !head->upgrade) {
		request_fail(request, -EPROTO, "the origin switched protocols without being asked");
		return -ECANCELED;
	}
	request->interim = true;
	request->lane->switched = head;
	return 0;
}

void request_on_upgrade(struct upstream_request *request, const uint8_t *rest, size_t len)
{
	const struct http_head *head = request->lane->switched;
	struct conn *conn = lane_give(request->lane);
	struct upstream_ops ops = request->ops;
	struct link *link = request->link;
	void *arg = request->arg;

	request_free(request);
	conn_pause(conn);
	ops.on_upgrade(arg, head, conn, link, rest, len);
}

static int pass_interim(struct upstream_request *request, const struct http_head *head)
{
	if (++request->interims > HTTP_INTERIMS_MAX) {
		request_fail(request, -EPROTO, "the origin gave interim responses without end");
		return -ECANCELED;
	}
	if (request->ops.on_interim)
		request->ops.on_interim(request->arg, head);
	return 0;
}

int request_on_head(struct upstream_request *request, struct http_head *head)
{
	if (!request->responding)
		link_report_success(request->link);
	if (head->status == 101)
		return switch_protocols(request, head);
	request->interim = head->status / 100 == 1;
	if (request->interim)
		return pass_interim(request, head);
	request->responding = true;
	request->ops.on_head(request->arg, head);
	return 0;
}

int request_on_body(struct upstream_request *request, const uint8_t *data, size_t len)
{
	request->ops.on_body(request->arg, data, len);
	return 0;
}

int request_on_trailers(struct upstream_request *request, const struct http_head *trailers)
{
	if (request->ops.on_trailers)
		request->ops.on_trailers(request->arg, trailers);
	return 0;
}

int request_on_end(struct upstream_request *request)
{
	struct upstream_ops ops = request->ops;
	struct lane *lane = request->lane;
	void *arg = request->arg;

	if (request->interim) {
		request->interim = false;
		return 0;
	}
	/* The rest of a request that was answered early is no longer wanted. */
	if ((request->stream && !request->body_ended) || lane->deaf || conn_queued(lane->conn))
		lane->reusable = false;
	request->lane = NULL;
	request_free(request);
	lane_release(lane);
	ops.on_end(arg);
	return 0;
}

void request_on_drain(struct upstream_request *request)
{
	if (request->ops.on_drain)
		request->ops.on_drain(request->arg);
}

struct upstream_request *requests_first_of(struct upstream *upstream, struct link *link)
{
	struct upstream_request *request;

	TAILQ_FOREACH (request, &upstream->requests, entry)
		if (!link || request->link == link)
			return request;
	return NULL;
}

void requests_count(struct upstream *upstream)
{
	struct upstream_request *request;

	TAILQ_FOREACH (request, &upstream->requests, entry)
		if (request->lane)
			lane_count(request->lane);
}
