/*
 * TLS that is passed through and every other TCP: held while there is no link, then relayed.
 *
 *   dialing --connected--> silent --the server speaks--> relaying --both ends done, or cut-->
 * (gone) ^  \      |            \--the app speaks--> (sniffed)  ^ |   \     \--the app has
 * spoken---------------------/ |    \--no link, or it fails--> held --hold over--> (gone)
 *     +-----------link is back--------+
 *
 * A silent stream is one whose app said nothing yet: a client that opens a connection ahead
 * of its request. If it speaks before the server does, it is sniffed again.
 *
 * A TLS client that is refused here is told so with an alert (RFC 8446, 6.2), any other with a
 * reset.
 */
#include "proxy/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_DELAY = 1000 /* ms, for an origin that fails on a good link */ };

enum tls_alert {
	ALERT_ACCESS_DENIED = 49,     /* a rule rejects it */
	ALERT_DECODE_ERROR = 50,      /* a ClientHello that cannot be read */
	ALERT_INTERNAL_ERROR = 80,    /* no link within the hold */
	ALERT_UNRECOGNIZED_NAME = 112 /* the virtual address is another name's */
};

struct stream {
	TAILQ_ENTRY(stream) entry;
	struct proxy *proxy;
	struct conn *app,
		*origin; /* origin NULL: not connected yet; both until there is a duplex */
	struct duplex *duplex;
	struct upstream_dial *dial;
	struct link *link; /* of dial or origin */
	struct config *config;
	const struct rule *rule;
	struct flow flow;
	struct buf first; /* what the app said before the origin was there */
	bool tls, silent, held, app_eof;
	enum tls_alert alert; /* why it is refused */
	uint32_t tried;
	uint64_t deadline, retry_at; /* loop ms */
	uint64_t counted_in, counted_out;
};

static void count_bytes(struct stream *stream)
{
	uint64_t in, out;

	if (!stream->duplex)
		return;
	in = duplex_bytes(stream->duplex, false);
	out = duplex_bytes(stream->duplex, true);
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

static void stream_over(struct stream *stream)
{
	struct proxy *proxy = stream->proxy;

	stream_free(stream);
	proxy_connection_over(proxy);
}

/* Both sides hear it at once. */
static void stream_cut(struct stream *stream)
{
	if (stream->duplex) {
		count_bytes(stream);
		duplex_close(stream->duplex);
	} else {
		if (stream->origin)
			conn_reset(stream->origin);
		conn_reset(stream->app);
	}
	stream_over(stream);
}

static void stream_refuse(struct stream *stream)
{
	const uint8_t record[] = {21, 3, 3, 0, 2, 2 /* fatal */, (uint8_t)stream->alert};

	if (!stream->tls || conn_write(stream->app, record, sizeof(record)) < 0) {
		stream_cut(stream);
		return;
	}
	conn_close(stream->app, true);
	stream_over(stream);
}

/* --- relaying --- */

static void on_duplex_over(void *arg, int status)
{
	struct stream *stream = arg;

	count_bytes(stream);
	stream_over(stream);
}

static void on_error(void *arg, int error)
{
	stream_cut(arg);
}

static void relay(struct stream *stream, const uint8_t *said, size_t len)
{
	struct duplex_side app = {.conn = stream->app,
				  .first = buf_bytes(&stream->first),
				  .first_len = buf_len(&stream->first),
				  .ended = stream->app_eof};
	struct duplex_side origin = {.conn = stream->origin, .first = said, .first_len = len};
	int r = duplex_new(stream->proxy->duplexes, &app, &origin, on_duplex_over, stream,
			   &stream->duplex);

	if (r < 0) {
		stream_over(stream);
		return;
	}
	stream->app = stream->origin = NULL;
	link_count_bytes(stream->link, 0, app.first_len);
	buf_done(&stream->first);
}

/* The app speaks first after all: what it says tells what it is. */
static void sniff_again(struct stream *stream, const uint8_t *data, size_t len)
{
	struct proxy *proxy = stream->proxy;
	struct conn *app = stream->app;

	if (stream->origin)
		conn_close(stream->origin, false);
	proxy->statistics.tcp_streams--;
	stream_free(stream);
	session_begin(proxy, app, data, len);
}

static void silent_app_on_data(void *arg, const uint8_t *data, size_t len)
{
	sniff_again(arg, data, len);
}

static void silent_app_on_eof(void *arg)
{
	struct stream *stream = arg;

	stream->app_eof = true;
	relay(stream, NULL, 0);
}

static void silent_origin_on_data(void *arg, const uint8_t *data, size_t len)
{
	struct stream *stream = arg;

	link_count_bytes(stream->link, len, 0);
	relay(stream, data, len);
}

/* The server hangs up without a word. */
static void silent_origin_on_eof(void *arg)
{
	struct stream *stream = arg;

	conn_close(stream->origin, false);
	conn_close(stream->app, true);
	stream_over(stream);
}

/* Who speaks first decides. */
static void wait_for_a_word(struct stream *stream)
{
	static const struct conn_ops app_ops = {
		.on_data = silent_app_on_data, .on_eof = silent_app_on_eof, .on_error = on_error};
	static const struct conn_ops origin_ops = {.on_data = silent_origin_on_data,
						   .on_eof = silent_origin_on_eof,
						   .on_error = on_error};

	conn_set_ops(stream->app, &app_ops, stream);
	conn_set_ops(stream->origin, &origin_ops, stream);
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
		if (stream->silent && !stream->app_eof)
			wait_for_a_word(stream);
		else
			relay(stream, NULL, 0);
		return;
	}
	/* The origin itself refused: so does the proxy. */
	if (status == -ECONNREFUSED || status == -ENOENT) {
		log_debug("proxy", "stream refused: %s", what);
		stream_cut(stream);
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
		stream_cut(stream);
	else if (buf_len(&stream->first) >= STREAM_BUFFER_MAX)
		conn_pause(stream->app);
}

static void early_on_eof(void *arg)
{
	struct stream *stream = arg;

	/* It hung up, unless it said all that it wanted to say. */
	stream->app_eof = true;
	if (stream->held || !buf_len(&stream->first))
		stream_cut(stream);
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

static bool is_refused(struct stream *stream, const struct stream_kind *kind)
{
	if (kind->malformed)
		stream->alert = ALERT_DECODE_ERROR;
	else if (stream->rule->policy.action == ACTION_REJECT)
		stream->alert = ALERT_ACCESS_DENIED;
	else if (!names_agree(stream, kind))
		stream->alert = ALERT_UNRECOGNIZED_NAME;
	return stream->alert;
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
	stream->tls = kind->protocol == PROTOCOL_TLS;
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
	if (!is_refused(stream, kind) && buf_append(&stream->first, bytes, len) < 0)
		stream->alert = ALERT_INTERNAL_ERROR;
	if (stream->alert) {
		proxy->statistics.refused++;
		stream_refuse(stream);
		return;
	}
	conn_resume(conn);
	stream_dial(stream);
}

void stream_adopt(struct proxy *proxy, const struct stream_pair *pair)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream) {
		conn_reset(pair->app);
		conn_reset(pair->origin);
		proxy_connection_over(proxy);
		return;
	}
	stream->proxy = proxy;
	stream->app = pair->app;
	stream->origin = pair->origin;
	stream->link = pair->link;
	stream->app_eof = pair->app_ended;
	buf_init(&stream->first, 2 * STREAM_BUFFER_MAX);
	TAILQ_INSERT_TAIL(&proxy->streams, stream, entry);
	proxy->statistics.upgraded_streams++;
	if (buf_append(&stream->first, pair->app_first, pair->app_first_len) < 0)
		stream_cut(stream);
	else
		relay(stream, pair->origin_first, pair->origin_first_len);
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
		if (!link || ((stream->origin || stream->duplex) && stream->link == link))
			stream_cut(stream);
	}
}

void streams_sweep(struct proxy *proxy, uint64_t now)
{
	struct stream *stream, *next;

	for (stream = TAILQ_FIRST(&proxy->streams); stream; stream = next) {
		next = TAILQ_NEXT(stream, entry);
		count_bytes(stream);
		if (!stream->held)
			continue;
		if (now >= stream->deadline) {
			proxy->statistics.held_over++;
			stream->alert = ALERT_INTERNAL_ERROR;
			stream_refuse(stream);
		} else if (stream->retry_at && now >= stream->retry_at) {
			stream->tried = 0;
			stream_dial(stream);
		}
	}
}
