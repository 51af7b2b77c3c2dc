/* A connection of an app until it is known what it is. */
#include "proxy/internal.h"

#include "base/log.h"
#include "proxy/sniff.h"

#include <stdlib.h>
#include <string.h>

enum { SNIFF_PATIENCE = 10000 /* ms, for a client that began and stopped */, HANDLES = 1 };

struct session {
	TAILQ_ENTRY(session) entry;
	struct proxy *proxy;
	struct conn *conn;
	uv_timer_t timer;
	struct buf bytes;
	bool over;
};

static void on_closed(uv_handle_t *handle)
{
	struct session *session = handle->data;

	buf_done(&session->bytes);
	free(session);
}

/* The conn has gone elsewhere, or is closed. */
static void session_over(struct session *session)
{
	session->over = true;
	TAILQ_REMOVE(&session->proxy->sessions, session, entry);
	uv_close((uv_handle_t *)&session->timer, on_closed);
}

static void session_abort(struct session *session)
{
	struct proxy *proxy = session->proxy;

	conn_close(session->conn, false);
	session_over(session);
	proxy_connection_over(proxy);
}

static void hand_on(struct session *session, enum sniff_kind found, const char *name, bool ended)
{
	const uint8_t *bytes = buf_bytes(&session->bytes);
	size_t len = buf_len(&session->bytes);
	bool is_tls = found == SNIFF_TLS || found == SNIFF_BAD_TLS;
	struct stream_kind kind = {
		.protocol = is_tls ? PROTOCOL_TLS : PROTOCOL_TCP,
		.malformed = found == SNIFF_BAD_TLS,
		.name = found == SNIFF_TLS && name[0] ? name : NULL,
		.silent = !len,
		.ended = ended,
	};

	session_over(session);
	if (found == SNIFF_HTTP)
		http_begin(session->proxy, session->conn, bytes, len);
	else
		stream_begin(session->proxy, session->conn, &kind, bytes, len);
}

static void look(struct session *session)
{
	char name[NAME_TEXT_MAX];
	enum sniff_kind found = sniff(buf_bytes(&session->bytes), buf_len(&session->bytes), name);

	if (found != SNIFF_MORE)
		hand_on(session, found, name, false);
}

static void on_data(void *arg, const uint8_t *data, size_t len)
{
	struct session *session = arg;

	if (buf_append(&session->bytes, data, len) < 0) {
		session_abort(session);
		return;
	}
	look(session);
}

static void on_eof(void *arg)
{
	struct session *session = arg;

	if (buf_len(&session->bytes))
		hand_on(session, SNIFF_OPAQUE, "", true);
	else
		session_abort(session);
}

static void on_error(void *arg, int error)
{
	session_abort(arg);
}

static void on_silence(uv_timer_t *timer)
{
	struct session *session = timer->data;

	if (session->over)
		return;
	if (buf_len(&session->bytes) && !uv_timer_get_repeat(timer)) {
		/* It began to say something: a split hello is worth waiting for. */
		uv_timer_start(timer, on_silence, SNIFF_PATIENCE, SNIFF_PATIENCE);
		return;
	}
	hand_on(session, SNIFF_OPAQUE, "", false);
}

void session_begin(struct proxy *proxy, struct conn *conn, const uint8_t *bytes, size_t len)
{
	static const struct conn_ops ops = {
		.on_data = on_data, .on_eof = on_eof, .on_error = on_error};
	struct session *session = calloc(1, sizeof(*session));

	if (!session) {
		conn_close(conn, false);
		proxy_connection_over(proxy);
		return;
	}
	session->proxy = proxy;
	session->conn = conn;
	/* A read may bring more than the sniffer looks at. */
	buf_init(&session->bytes, SNIFF_MAX + (64 << 10));
	uv_timer_init(proxy->loop, &session->timer);
	session->timer.data = session;
	TAILQ_INSERT_TAIL(&proxy->sessions, session, entry);
	conn_set_ops(conn, &ops, session);
	if (len) {
		on_data(session, bytes, len);
		if (session->over)
			return;
	}
	uv_timer_start(&session->timer, on_silence, SNIFF_TIMEOUT, 0);
	conn_resume(conn);
}

void sessions_close(struct proxy *proxy)
{
	struct session *session;

	while ((session = TAILQ_FIRST(&proxy->sessions)))
		session_abort(session);
}
