/* Lanes: HTTP connections to origins, in use or idle in the pool. */
#include "upstream/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

void pool_init(struct upstream *upstream)
{
	struct rlimit limit;

	upstream->idle_max = UPSTREAM_IDLE_MAX;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 16 < upstream->idle_max)
		upstream->idle_max = limit.rlim_cur / 16 + 1;
	TAILQ_INIT(&upstream->idle);
	for (size_t i = 0; i < POOL_BUCKETS; i++)
		TAILQ_INIT(&upstream->pool[i]);
}

static struct lane_list *bucket_of(struct upstream *upstream, const char *target)
{
	uint32_t hash = 2166136261; /* FNV-1a */

	for (; *target; target++)
		hash = (hash ^ (uint8_t)*target) * 16777619;
	return &upstream->pool[hash % POOL_BUCKETS];
}

static void pool_put(struct lane *lane)
{
	struct upstream *upstream = lane->upstream;

	lane->idle = true;
	lane->idle_since = uv_now(upstream->loop);
	TAILQ_INSERT_HEAD(&upstream->idle, lane, entry);
	TAILQ_INSERT_HEAD(bucket_of(upstream, lane->target), lane, pool_entry);
	upstream->idle_count++;
}

static void pool_remove(struct lane *lane)
{
	TAILQ_REMOVE(&lane->upstream->idle, lane, entry);
	TAILQ_REMOVE(bucket_of(lane->upstream, lane->target), lane, pool_entry);
	lane->upstream->idle_count--;
	lane->idle = false;
}

void lane_count(struct lane *lane)
{
	uint64_t in = conn_bytes_in(lane->conn), out = conn_bytes_out(lane->conn);

	link_count_bytes(lane->link, in - lane->counted_in, out - lane->counted_out);
	lane->counted_in = in;
	lane->counted_out = out;
}

static void lane_free(struct lane *lane)
{
	http_parser_free(lane->parser);
	identity_unref(lane->identity);
	free(lane);
}

void lane_close(struct lane *lane)
{
	if (lane->dead)
		return;
	if (lane->idle)
		pool_remove(lane);
	lane_count(lane);
	/* Closed in order, a socket would still send its request when its dead link is back. */
	if (lane->request)
		conn_reset(lane->conn);
	else
		conn_close(lane->conn, false);
	lane->dead = true;
	/* Inside the parser's callback the parser is still needed. */
	if (!lane->feeding)
		lane_free(lane);
}

struct conn *lane_give(struct lane *lane)
{
	struct conn *conn = lane->conn;

	lane_count(lane);
	lane->dead = true;
	if (!lane->feeding)
		lane_free(lane);
	return conn;
}

void lane_release(struct lane *lane)
{
	struct upstream *upstream = lane->upstream;

	lane_count(lane);
	lane->served++;
	lane->request = NULL;
	if (!lane->reusable) {
		lane_close(lane);
		return;
	}
	if (upstream->idle_count == upstream->idle_max)
		lane_close(TAILQ_LAST(&upstream->idle, lane_list));
	lane->reused = true;
	pool_put(lane);
	conn_resume(lane->conn); /* so that the origin's close is seen */
}

/* Servers close what was idle for some seconds: before that, and with no end of the stream here
 * yet, the origin takes what is sent, unless it dies at this moment. */
static bool is_fresh(const struct lane *lane)
{
	return uv_now(lane->upstream->loop) - lane->idle_since < UPSTREAM_FRESH_TIME &&
	       conn_is_quiet(lane->conn);
}

struct lane *pool_take(struct upstream *upstream, struct link *link, const char *target,
		       const struct identity *identity, bool fresh)
{
	struct lane *lane;

	TAILQ_FOREACH (lane, bucket_of(upstream, target), pool_entry) {
		if (lane->link != link || strcmp(lane->target, target) != 0 ||
		    !identity_equal(lane->identity, identity) || (fresh && !is_fresh(lane)))
			continue;
		pool_remove(lane);
		upstream->statistics.reused++;
		return lane;
	}
	return NULL;
}

void pool_close_link(struct upstream *upstream, struct link *link)
{
	struct lane *lane, *next;

	for (lane = TAILQ_FIRST(&upstream->idle); lane; lane = next) {
		next = TAILQ_NEXT(lane, entry);
		if (!link || lane->link == link)
			lane_close(lane);
	}
}

void pool_sweep(struct upstream *upstream)
{
	uint64_t now = uv_now(upstream->loop);
	struct lane *lane;

	while ((lane = TAILQ_LAST(&upstream->idle, lane_list)) &&
	       now - lane->idle_since >= UPSTREAM_IDLE_TIMEOUT)
		lane_close(lane);
}

static void lane_failed(struct lane *lane, int status, const char *what)
{
	if (lane->request)
		request_lane_failed(lane->request, status, what);
	else
		lane_close(lane);
}

static int on_head(void *arg, struct http_head *head)
{
	struct lane *lane = arg;
	int r;

	lane->reusable = head->keep_alive && head->framing != HTTP_UNTIL_CLOSE;
	r = request_on_head(lane->request, head);
	return lane->dead ? -ECANCELED : r;
}

static int on_body(void *arg, const uint8_t *data, size_t len)
{
	struct lane *lane = arg;
	int r = request_on_body(lane->request, data, len);

	return lane->dead ? -ECANCELED : r;
}

static int on_trailers(void *arg, const struct http_head *trailers)
{
	struct lane *lane = arg;
	int r = request_on_trailers(lane->request, trailers);

	return lane->dead ? -ECANCELED : r;
}

static int on_end(void *arg)
{
	struct lane *lane = arg;

	return request_on_end(lane->request);
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
	struct lane *lane = arg;
	unsigned served = lane->served;
	size_t used = 0;
	int r = 0;

	if (!lane->request) {
		/* An idle origin has nothing to say. */
		lane_close(lane);
		return;
	}
	lane->feeding = true;
	/* The end of one response may begin the next request on this lane: what is left of these
	 * bytes is no answer to that. */
	while (len && r == 0 && !lane->dead && lane->served == served && !lane->switched) {
		r = http_parser_feed(lane->parser, data, len, &used);
		data += used;
		len -= used;
	}
	if (lane->switched && !lane->dead)
		request_on_upgrade(lane->request, data, len);
	lane->feeding = false;
	if (lane->dead)
		lane_free(lane);
	else if (r < 0)
		lane_failed(lane, r, http_parser_error(lane->parser));
	else if (len)
		lane_failed(lane, -EPROTO, "bytes after the response");
}

static void on_eof(void *arg)
{
	struct lane *lane = arg;
	int r;

	if (!lane->request) {
		lane_close(lane);
		return;
	}
	lane->reusable = false;
	lane->feeding = true;
	r = http_parser_eof(lane->parser);
	lane->feeding = false;
	if (lane->dead)
		lane_free(lane);
	else if (r < 0)
		lane_failed(lane, -ECONNRESET, http_parser_error(lane->parser));
	else if (lane->request)
		lane_failed(lane, -ECONNRESET, "the origin closed the connection");
}

static void on_drain(void *arg)
{
	struct lane *lane = arg;

	if (lane->request)
		request_on_drain(lane->request);
}

static void on_error(void *arg, int error)
{
	struct lane *lane = arg;

	lane_failed(lane, error, conn_failure(lane->conn, error));
}

int lane_new(struct upstream *upstream, struct link *link, const char *target,
	     struct identity *identity, struct conn *conn, struct lane **ret_lane)
{
	static const struct http_parser_ops parser_ops = {.on_head = on_head,
							  .on_body = on_body,
							  .on_trailers = on_trailers,
							  .on_end = on_end};
	static const struct conn_ops ops = {
		.on_data = on_data, .on_eof = on_eof, .on_drain = on_drain, .on_error = on_error};
	struct lane *lane = calloc(1, sizeof(*lane));
	int r;

	if (!lane)
		return -ENOMEM;
	r = http_parser_new(HTTP_KIND_RESPONSE, &parser_ops, lane, &lane->parser);
	if (r < 0) {
		free(lane);
		return r;
	}
	lane->upstream = upstream;
	lane->link = link;
	lane->conn = conn;
	lane->identity = identity_ref(identity);
	memcpy(lane->target, target, strnlen(target, sizeof(lane->target) - 1));
	conn_set_ops(conn, &ops, lane);
	*ret_lane = lane;
	return 0;
}
