#include "link/probe.h"

#include "conn/conn.h"
#include "msg/http_msg.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROBE_ADDRESSES_MAX = 4, EVIDENCE_SIZE = 192 };

struct probe {
	uv_loop_t *loop;
	const struct probe_config *config;
	const struct probe_ops *ops;
	void *arg;
	struct endpoint endpoint;
	const char *path;
	struct ip addresses[PROBE_ADDRESSES_MAX];
	size_t count, next;
	uint64_t started, deadline; /* loop time, ms */
	struct conn *conn;
	struct http_parser *parser;
	uv_timer_t timer; /* the whole probe's time; 0 to tell a result that is there */
	bool resolving, cancelled, timer_closed;
	bool decided;
	enum probe_outcome outcome;
	char evidence[EVIDENCE_SIZE];
};

static void try_next(struct probe *probe);

/* A name's answer may still be on its way: what it is given must be there. */
static void maybe_free(struct probe *probe)
{
	if (!probe->timer_closed || probe->resolving)
		return;
	http_parser_free(probe->parser);
	free(probe);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct probe *probe = handle->data;

	probe->timer_closed = true;
	maybe_free(probe);
}

void probe_cancel(struct probe *probe)
{
	if (probe->cancelled)
		return;
	probe->cancelled = true;
	if (probe->conn)
		conn_close(probe->conn, false);
	probe->conn = NULL;
	uv_close((uv_handle_t *)&probe->timer, on_timer_closed);
}

/* The first decision stands. It is told from the timer, out of everybody's calls. */
static void decide(struct probe *probe, enum probe_outcome outcome, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static void decide(struct probe *probe, enum probe_outcome outcome, const char *format, ...)
{
	va_list args;

	if (probe->decided)
		return;
	probe->decided = true;
	probe->outcome = outcome;
	va_start(args, format);
	vsnprintf(probe->evidence, sizeof(probe->evidence), format, args);
	va_end(args);
	for (char *c = probe->evidence; *c; c++) /* a portal's words go to logs and pages */
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	uv_timer_start(&probe->timer, probe->timer.timer_cb, 0, 0);
}

static const char *target(const struct probe *probe)
{
	return probe->config->url ? probe->config->url : probe->config->connect;
}

static uint64_t elapsed(const struct probe *probe)
{
	return uv_now(probe->loop) - probe->started;
}

static void on_timer(uv_timer_t *timer)
{
	struct probe *probe = timer->data;
	const struct probe_ops *ops = probe->ops;
	void *arg = probe->arg;
	char evidence[EVIDENCE_SIZE];
	enum probe_outcome outcome;

	if (!probe->decided) {
		decide(probe, PROBE_BAD, "%s timed out after %" PRIu64 " ms", target(probe),
		       elapsed(probe));
	}
	memcpy(evidence, probe->evidence, sizeof(evidence));
	outcome = probe->outcome;
	probe_cancel(probe);
	ops->done(arg, outcome, evidence);
}

/* A server's own trouble is no portal; any other answer was not the origin's. */
static int on_head(void *arg, struct http_head *head)
{
	struct probe *probe = arg;
	const char *location = http_field(head, "Location");

	if (head->status == 204)
		decide(probe, PROBE_GOOD, "204 from %s in %" PRIu64 " ms", target(probe),
		       elapsed(probe));
	else if (head->status >= 500)
		decide(probe, PROBE_BAD, "%u from %s", head->status, target(probe));
	else if (location)
		decide(probe, PROBE_PORTAL, "portal: %u to %s", head->status, location);
	else
		decide(probe, PROBE_PORTAL, "portal: %u from %s", head->status, target(probe));
	return 0;
}

static int on_body(void *arg, const uint8_t *data, size_t len)
{
	return 0;
}

static int on_end(void *arg)
{
	return 0;
}

static const struct http_parser_ops parser_ops = {
	.on_head = on_head, .on_body = on_body, .on_end = on_end};

static void close_conn(struct probe *probe)
{
	if (probe->conn)
		conn_close(probe->conn, false);
	probe->conn = NULL;
}

static int send_request(struct probe *probe)
{
	char request[4096 + NAME_TEXT_MAX];
	bool v6 = probe->endpoint.is_address && !ip_is_v4(&probe->endpoint.address);
	char port[8] = "";
	int len;

	if (probe->endpoint.port != 80)
		snprintf(port, sizeof(port), ":%u", probe->endpoint.port);
	len = snprintf(request, sizeof(request),
		       "GET %s HTTP/1.1\r\nHost: %s%s%s%s\r\nConnection: close\r\n"
		       "User-Agent: holdfast-probe\r\n\r\n",
		       probe->path, v6 ? "[" : "", probe->endpoint.host, v6 ? "]" : "", port);
	if (len < 0 || (size_t)len >= sizeof(request))
		return -EMSGSIZE;
	http_parser_reset(probe->parser);
	http_parser_expect(probe->parser, "GET");
	return conn_write(probe->conn, request, (size_t)len);
}

static void on_connect(void *arg, int status)
{
	struct probe *probe = arg;
	char text[IP_TEXT_MAX];
	int r;

	if (status < 0) {
		close_conn(probe);
		if (probe->next < probe->count)
			try_next(probe);
		else
			decide(probe, PROBE_BAD, "connect to %s port %u: %s",
			       ip_format(&probe->addresses[probe->next - 1], text),
			       probe->endpoint.port,
			       status == -ETIMEDOUT ? "timed out" : strerror(-status));
		return;
	}
	if (!probe->config->url) {
		decide(probe, PROBE_GOOD, "connected to %s in %" PRIu64 " ms", target(probe),
		       elapsed(probe));
		return;
	}
	r = send_request(probe);
	if (r < 0)
		decide(probe, PROBE_BAD, "asking %s: %s", target(probe), strerror(-r));
	else
		conn_resume(probe->conn);
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
	struct probe *probe = arg;
	size_t consumed;

	if (!probe->decided && http_parser_feed(probe->parser, data, len, &consumed) < 0)
		decide(probe, PROBE_PORTAL, "portal: no HTTP from %s", target(probe));
}

static void on_eof(void *arg)
{
	struct probe *probe = arg;

	decide(probe, PROBE_BAD, "%s closed without an answer", target(probe));
}

static void on_drain(void *arg)
{
}

static void on_error(void *arg, int error)
{
	struct probe *probe = arg;

	decide(probe, PROBE_BAD, "asking %s: %s", target(probe), strerror(-error));
}

static const struct conn_ops conn_callbacks = {on_connect, on_data, on_eof, on_drain, on_error};

/* Each address gets its share of the time that is left. */
static void try_next(struct probe *probe)
{
	uint64_t now = uv_now(probe->loop);
	uint64_t left = probe->deadline > now ? probe->deadline - now : 1;
	int r = -EHOSTUNREACH;

	while (probe->next < probe->count) {
		uint64_t share = left / (probe->count - probe->next);

		r = conn_connect(probe->loop, &probe->addresses[probe->next++],
				 probe->endpoint.port, (unsigned)(share ? share : 1),
				 probe->ops->prepare, probe->arg, &conn_callbacks, probe,
				 &probe->conn);
		if (r == 0)
			return;
	}
	decide(probe, PROBE_BAD, "connect to %s: %s", target(probe), strerror(-r));
}

static void on_resolved(void *arg, int status, const struct ip *addresses, size_t count)
{
	struct probe *probe = arg;

	probe->resolving = false;
	if (probe->cancelled) {
		maybe_free(probe);
		return;
	}
	if (status < 0 || !count) {
		decide(probe, PROBE_BAD, "no address for %s: %s", probe->endpoint.host,
		       strerror(status < 0 ? -status : ENOENT));
		return;
	}
	probe->count = count < PROBE_ADDRESSES_MAX ? count : PROBE_ADDRESSES_MAX;
	memcpy(probe->addresses, addresses, probe->count * sizeof(*addresses));
	try_next(probe);
}

static void begin(struct probe *probe)
{
	int r;

	if (probe->endpoint.is_address) {
		probe->addresses[0] = probe->endpoint.address;
		probe->count = 1;
		try_next(probe);
		return;
	}
	probe->resolving = true;
	r = probe->ops->resolve(probe->arg, probe->endpoint.host, on_resolved, probe);
	if (r < 0) {
		probe->resolving = false;
		decide(probe, PROBE_BAD, "cannot ask for %s: %s", probe->endpoint.host,
		       strerror(-r));
	}
}

static int read_target(struct probe *probe)
{
	const struct probe_config *config = probe->config;

	if (config->url)
		return url_parse(config->url, &probe->endpoint, &probe->path);
	return endpoint_parse(config->connect, strlen(config->connect), 0, &probe->endpoint);
}

int probe_start(uv_loop_t *loop, const struct probe_config *config, const struct probe_ops *ops,
		void *arg, struct probe **ret_probe)
{
	struct probe *probe = calloc(1, sizeof(*probe));
	int r;

	if (!probe)
		return -ENOMEM;
	*probe = (struct probe){.loop = loop, .config = config, .ops = ops, .arg = arg};
	r = read_target(probe);
	if (r == 0)
		r = http_parser_new(HTTP_KIND_RESPONSE, &parser_ops, probe, &probe->parser);
	if (r < 0) {
		free(probe);
		return r;
	}
	uv_timer_init(loop, &probe->timer);
	probe->timer.data = probe;
	probe->started = uv_now(loop);
	probe->deadline = probe->started + config->timeout;
	uv_timer_start(&probe->timer, on_timer, config->timeout, 0);
	*ret_probe = probe;
	begin(probe);
	return 0;
}
