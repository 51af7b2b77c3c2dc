/*
 * TLS that is passed through and every other TCP: held while there is no link, then relayed.
 *
 *   dialing --connected--> relaying --both ends done, or cut--> (gone)
 *     ^  \--no link, or it fails--> held --hold over--> (gone)
 *     +-----------link is back--------+
 *
 * A silent stream is one whose app said nothing yet: a client that opens a connection ahead
 * of its request. If it speaks before the server does, it is sniffed again.
 */
#include "proxy/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_DELAY = 1000 /* ms, for an origin that fails on a good link */ };

struct stream {
	TAILQ_ENTRY(stream) entry;
	struct proxy *proxy;
	struct conn *app, *origin; /* origin NULL: not connected yet */
	struct upstream_dial *dial;
	struct link *link; /* of dial or origin */
	struct config *config;
	const struct rule *rule;
	struct flow flow;
	struct buf first; /* what the app said before the origin was there */
	bool silent, held, app_eof, origin_eof;
	uint32_t tried;
	uint64_t deadline, retry_at; /* loop ms */
	uint64_t counted_in, counted_out;
};

static void count_bytes(struct stream *stream)
{
	uint64_t in = conn_bytes_in(stream->origin), out = conn_bytes_out(stream->origin);

	link_count_bytes(stream->link, in - stream->counted_in, out - stream->counted_out);
	stream->counted_in = in;
	stream->counted_out = out;
}

static void stream_free(struct stream *stream)
{
	TAILQ_REMOVE(&stream->proxy->streams, stream, entry);
	if (stream->dial)
		upstream_dial_cancel(stream->dial);
	buf_done(&stream->first);
	config_unref(stream->config);
	free(stream);
}

static void stream_end(struct stream *stream, bool flush)
{
	struct proxy *proxy = stream->proxy;

	if (stream->origin) {
		count_bytes(stream);
		conn_close(stream->origin, flush);
	}
	if (flush)
		conn_close(stream->app, true);
	else
		conn_reset(stream->app);
	stream_free(stream);
	proxy_connection_over(proxy);
}

/* --- relaying --- */

static void app_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct stream *stream = arg;

	if (conn_write(stream->origin, data, len) < 0)
		stream_end(stream, false);
	else if (conn_is_full(stream->origin))
		conn_pause(stream->app);
}

static void origin_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct stream *stream = arg;

	stream->silent = false;
	if (conn_write(stream->app, data, len) < 0)
		stream_end(stream, false);
	else if (conn_is_full(stream->app))
		conn_pause(stream->origin);
}

static void app_on_eof(void *arg)
{
	struct stream *stream = arg;

	stream->app_eof = true;
	conn_shutdown(stream->origin);
	if (stream->origin_eof)
		stream_end(stream, true);
}

static void origin_on_eof(void *arg)
{
	struct stream *stream = arg;

	stream->origin_eof = true;
	conn_shutdown(stream->app);
	if (stream->app_eof)
		stream_end(stream, true);
}

static void app_on_drain(void *arg)
{
	struct stream *stream = arg;

	conn_resume(stream->origin);
}

static void origin_on_drain(void *arg)
{
	struct stream *stream = arg;

	conn_resume(stream->app);
}

static void on_error(void *arg, int error)
{
	stream_end(arg, false);
}

static void silent_on_data(void *arg, const uint8_t *data, size_t len);

static const struct conn_ops app_ops = {.on_data = app_on_data,
					.on_eof = app_on_eof,
					.on_drain = app_on_drain,
					.on_error = on_error};
static const struct conn_ops silent_ops = {.on_data = silent_on_data,
					   .on_eof = app_on_eof,
					   .on_drain = app_on_drain,
					   .on_error = on_error};
static const struct conn_ops origin_ops = {.on_data = origin_on_data,
					   .on_eof = origin_on_eof,
					   .on_drain = origin_on_drain,
					   .on_error = on_error};

/* The app speaks first after all: what it says tells what it is. */
static void sniff_again(struct stream *stream, const uint8_t *data, size_t len)
{
	struct proxy *proxy = stream->proxy;
	struct conn *app = stream->app;

	if (stream->origin) {
		count_bytes(stream);
		conn_close(stream->origin, false);
	}
	proxy->statistics.tcp_streams--;
	stream_free(stream);
	session_begin(proxy, app, data, len);
}

static void silent_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct stream *stream = arg;

	if (stream->silent)
		sniff_again(stream, data, len);
	else
		app_on_data(stream, data, len);
}

static void relay(struct stream *stream)
{
	bool was_silent = stream->silent;

	conn_set_ops(stream->app, was_silent ? &silent_ops : &app_ops, stream);
	conn_set_ops(stream->origin, &origin_ops, stream);
	if (buf_len(&stream->first) &&
	    conn_write(stream->origin, buf_bytes(&stream->first), buf_len(&stream->first)) < 0) {
		stream_end(stream, false);
		return;
	}
	buf_done(&stream->first);
	if (stream->app_eof)
		conn_shutdown(stream->origin);
	conn_resume(stream->app);
	conn_resume(stream->origin);
}

/* --- until the origin is there --- */

static void stream_dial(struct stream *stream);

static void hold(struct stream *stream, bool retry)
{
	uint64_t now = uv_now(stream->proxy->loop);

	if (!stream->deadline) {
		stream->deadline = now + stream->rule->policy.hold;
		stream->proxy->statistics.held_streams++;
	}
	stream->held = true;
	stream->retry_at = retry ? now + RETRY_DELAY : 0;
}

static void on_dialed(void *arg, int status, struct conn *conn, const char *what)
{
	struct stream *stream = arg;

	stream->dial = NULL;
	if (status == 0) {
		stream->origin = conn;
		relay(stream);
		return;
	}
	/* The origin itself refused: so does the proxy. */
	if (status == -ECONNREFUSED || status == -ENOENT) {
		log_debug("proxy", "stream refused: %s", what);
		stream_end(stream, false);
		return;
	}
	stream_dial(stream);
	if (stream->held)
		stream->retry_at = uv_now(stream->proxy->loop) + RETRY_DELAY;
}

static void stream_dial(struct stream *stream)
{
	struct proxy *proxy = stream->proxy;
	struct upstream_target target = {
		.host = stream->flow.name,
		.address = stream->flow.is_virtual ? NULL : &stream->flow.destination,
		.port = stream->flow.port,
	};

	stream->held = false;
	while ((stream->link =
			links_choose(proxy->parts.links, &stream->rule->policy, stream->tried))) {
		stream->tried |= link_bit(stream->link);
		if (upstream_connect(proxy->parts.upstream, stream->link, &target, on_dialed,
				     stream, &stream->dial) == 0)
			return;
	}
	hold(stream, false);
}

static void early_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct stream *stream = arg;

	if (stream->silent) {
		sniff_again(stream, data, len);
		return;
	}
	if (buf_append(&stream->first, data, len) < 0)
		stream_end(stream, false);
	else if (buf_len(&stream->first) >= STREAM_BUFFER_MAX)
		conn_pause(stream->app);
}

static void early_on_eof(void *arg)
{
	struct stream *stream = arg;

	/* It hung up, unless it said all that it wanted to say. */
	stream->app_eof = true;
	if (stream->held || !buf_len(&stream->first))
		stream_end(stream, false);
}

static const struct rule *find_rule(struct stream *stream, const struct stream_kind *kind)
{
	struct rule_facts facts = {
		.host = kind->name		  ? kind->name
			: stream->flow.is_virtual ? stream->flow.name
						  : NULL,
		.address = stream->flow.destination,
		.port = stream->flow.port,
		.protocol = kind->protocol,
		.source = stream->flow.source,
		.source_interface = stream->flow.interface,
	};

	return config_match(stream->config, &facts);
}

/* With a virtual address the name must be the mapping's (Squid's CVE-2009-0801). */
static bool names_agree(const struct stream *stream, const struct stream_kind *kind)
{
	return !kind->name || !stream->flow.is_virtual ||
	       strcmp(kind->name, stream->flow.name) == 0;
}

void stream_begin(struct proxy *proxy, struct conn *conn, const struct stream_kind *kind,
		  const uint8_t *bytes, size_t len)
{
	static const struct conn_ops early_ops = {
		.on_data = early_on_data, .on_eof = early_on_eof, .on_error = on_error};
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream || !flow_of(proxy, conn, &stream->flow)) {
		free(stream);
		proxy->statistics.refused++;
		conn_reset(conn);
		proxy_connection_over(proxy);
		return;
	}
	stream->proxy = proxy;
	stream->app = conn;
	stream->silent = kind->silent;
	stream->app_eof = kind->ended;
	stream->config = config_ref(proxy->parts.config);
	stream->rule = find_rule(stream, kind);
	buf_init(&stream->first, 2 * STREAM_BUFFER_MAX);
	TAILQ_INSERT_TAIL(&proxy->streams, stream, entry);
	conn_set_ops(conn, &early_ops, stream);
	if (kind->protocol == PROTOCOL_TLS)
		proxy->statistics.tls_streams++;
	else
		proxy->statistics.tcp_streams++;
	if (stream->rule->policy.action == ACTION_REJECT || !names_agree(stream, kind) ||
	    buf_append(&stream->first, bytes, len) < 0) {
		proxy->statistics.refused++;
		stream_end(stream, false);
		return;
	}
	conn_resume(conn);
	stream_dial(stream);
}

/* Bytes that went over the link before were counted by who had the connection then. */
static void skip_counted(struct stream *stream)
{
	stream->counted_in = conn_bytes_in(stream->origin);
	stream->counted_out = conn_bytes_out(stream->origin);
}

void stream_adopt(struct proxy *proxy, const struct stream_pair *pair)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream) {
		conn_close(pair->origin, false);
		conn_reset(pair->app);
		proxy_connection_over(proxy);
		return;
	}
	stream->proxy = proxy;
	stream->app = pair->app;
	stream->origin = pair->origin;
	stream->link = pair->link;
	stream->app_eof = pair->app_ended;
	skip_counted(stream);
	buf_init(&stream->first, 2 * STREAM_BUFFER_MAX);
	TAILQ_INSERT_TAIL(&proxy->streams, stream, entry);
	proxy->statistics.upgraded_streams++;
	if (buf_append(&stream->first, pair->app_first, pair->app_first_len) < 0 ||
	    conn_write(stream->app, pair->origin_first, pair->origin_first_len) < 0)
		stream_end(stream, false);
	else
		relay(stream);
}

void streams_wake(struct proxy *proxy)
{
	struct stream *stream;

	/* Dialing tells nothing before it returns, so the list holds still. */
	TAILQ_FOREACH (stream, &proxy->streams, entry) {
		if (!stream->held)
			continue;
		stream->tried = 0;
		stream_dial(stream);
	}
}

void streams_cut(struct proxy *proxy, struct link *link)
{
	struct stream *stream, *next;

	for (stream = TAILQ_FIRST(&proxy->streams); stream; stream = next) {
		next = TAILQ_NEXT(stream, entry);
		if (!link || (stream->origin && stream->link == link))
			stream_end(stream, false);
	}
}

void streams_sweep(struct proxy *proxy, uint64_t now)
{
	struct stream *stream, *next;

	for (stream = TAILQ_FIRST(&proxy->streams); stream; stream = next) {
		next = TAILQ_NEXT(stream, entry);
		if (stream->origin)
			count_bytes(stream);
		if (!stream->held)
			continue;
		if (now >= stream->deadline) {
			proxy->statistics.held_over++;
			stream_end(stream, false);
		} else if (stream->retry_at && now >= stream->retry_at) {
			stream->tried = 0;
			stream_dial(stream);
		}
	}
}
