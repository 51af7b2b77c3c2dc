/* A stream to a target over one link: resolve, then connect to one address after the other. With
 * TLS the handshake follows; an origin that fails it in earnest ends the dial. */
#include "upstream/internal.h"

#include "base/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRESSES_MAX = 2 * DNS_ADDRESSES_MAX };

struct upstream_dial {
	TAILQ_ENTRY(upstream_dial) entry;
	struct upstream *upstream;
	struct link *link;
	struct resolver_query *query; /* while resolving */
	struct conn *conn;	      /* while connecting */
	struct ip addresses[ADDRESSES_MAX];
	size_t address_count, next;
	char target[TARGET_TEXT_MAX];
	uint16_t port;
	struct identity *identity; /* NULL: plain */
	struct trust_wait trust;
	SSL *ssl; /* borrowed of conn, while it shakes hands */
	upstream_stream_cb cb;
	void *arg;
};

static void dial_free(struct upstream_dial *dial)
{
	TAILQ_REMOVE(&dial->upstream->dials, dial, entry);
	if (dial->query)
		resolver_cancel(dial->query);
	if (dial->conn)
		conn_close(dial->conn, false);
	trust_wait_cancel(&dial->trust);
	identity_unref(dial->identity);
	free(dial);
}

/* Does this failure say something of the link, or only of the origin? */
static bool blames_link(int status)
{
	return status == -ETIMEDOUT || status == -EHOSTUNREACH || status == -ENETUNREACH ||
	       status == -ENETDOWN || status == -EADDRNOTAVAIL;
}

static void dial_fail(struct upstream_dial *dial, int status, const char *what)
{
	upstream_stream_cb cb = dial->cb;
	struct link *link = dial->link;
	void *arg = dial->arg;

	dial->upstream->statistics.failed++;
	dial_free(dial);
	if (blames_link(status))
		link_report_failure(link, what);
	cb(arg, status, NULL, what);
}

static int prepare_socket(void *arg, int fd)
{
	struct upstream_dial *dial = arg;
	int on = 1, idle = 10, interval = 5, count = 3;
	unsigned user_timeout = UPSTREAM_USER_TIMEOUT;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
	return link_own_socket(dial->link, fd);
}

static void try_next_address(struct upstream_dial *dial, int status, const char *why);

static void dial_done(struct upstream_dial *dial)
{
	upstream_stream_cb cb = dial->cb;
	struct conn *conn = dial->conn;
	void *cb_arg = dial->arg;

	dial->conn = NULL;
	dial_free(dial);
	cb(cb_arg, 0, conn, "connected");
}

/* Neither another address nor another link: that could hide an attack. */
static void reject(struct upstream_dial *dial, const char *why)
{
	char what[TARGET_TEXT_MAX + 320];

	snprintf(what, sizeof(what), "TLS: %s (%s over %s)", why, dial->identity->server_name,
		 link_name(dial->link));
	dial->upstream->statistics.rejected++;
	dial_fail(dial, -EKEYREJECTED, what);
}

static void on_trust(void *arg, const char *failure)
{
	struct upstream_dial *dial = arg;
	int r;

	if (failure) {
		reject(dial, failure);
		return;
	}
	r = trust_ssl(dial->identity->trust, dial->identity->server_name, dial->port, &dial->ssl);
	if (r == -EINVAL)
		reject(dial, "no certificate can prove this name");
	else if (r == 0)
		r = conn_start_tls(dial->conn, dial->ssl, UPSTREAM_TLS_TIMEOUT);
	if (r < 0 && r != -EINVAL)
		dial_fail(dial, r, strerror(-r));
}

static void on_connect(void *arg, int status)
{
	struct upstream_dial *dial = arg;
	char why[192];

	if (status < 0) {
		snprintf(why, sizeof(why), "%s", conn_failure(dial->conn, status));
		conn_close(dial->conn, false);
		dial->conn = NULL;
		dial->ssl = NULL;
		if (status == -EKEYREJECTED)
			reject(dial, why);
		else
			try_next_address(dial, status, why);
	} else if (dial->identity && !dial->ssl) {
		trust_wait(dial->identity->trust, &dial->trust, on_trust, dial);
	} else {
		if (dial->ssl) {
			dial->upstream->statistics.handshakes++;
			dial->upstream->statistics.resumed +=
				(unsigned)SSL_session_reused(dial->ssl);
		}
		dial_done(dial);
	}
}

static int connect_address(struct upstream_dial *dial, const struct ip *address)
{
	static const struct conn_ops ops = {.on_connect = on_connect};

	dial->upstream->statistics.connects++;
	return conn_connect(dial->upstream->loop, address, dial->port, CONNECT_TIMEOUT,
			    prepare_socket, dial, &ops, dial, &dial->conn);
}

static void try_next_address(struct upstream_dial *dial, int status, const char *why)
{
	char text[IP_TEXT_MAX] = "?", what[320];

	while (dial->next < dial->address_count) {
		status = connect_address(dial, &dial->addresses[dial->next++]);
		if (status == 0)
			return;
		why = strerror(-status);
	}
	if (dial->next)
		ip_format(&dial->addresses[dial->next - 1], text);
	snprintf(what, sizeof(what), "connect to %s port %u over %s: %s", text, dial->port,
		 link_name(dial->link), why);
	dial_fail(dial, status, what);
}

static void on_resolved(void *arg, int status, const struct ip *addresses, size_t count)
{
	struct upstream_dial *dial = arg;
	char what[TARGET_TEXT_MAX + 96];

	dial->query = NULL;
	if (status < 0 || !count) {
		if (status == 0)
			status = -ENOENT;
		snprintf(what, sizeof(what), "resolving %s over %s: %s", dial->target,
			 link_name(dial->link),
			 status == -ENOENT ? "no such name" : strerror(-status));
		dial_fail(dial, status, what);
		return;
	}
	dial->address_count = count < ADDRESSES_MAX ? count : ADDRESSES_MAX;
	memcpy(dial->addresses, addresses, dial->address_count * sizeof(*addresses));
	try_next_address(dial, -ENOENT, "no address");
}

void target_text(const struct upstream_target *target, char *buffer)
{
	static const char digits[] = "0123456789abcdef";
	char port[8];
	int n = 0;

	/* An address is only compared, for each request: its octets will do. */
	for (int i = 0; target->address && i < 16; i++) {
		*buffer++ = digits[target->address->bytes[i] >> 4];
		*buffer++ = digits[target->address->bytes[i] & 15];
	}
	if (!target->address)
		buffer = stpncpy(buffer, target->host, NAME_TEXT_MAX - 1);
	for (unsigned rest = target->port; n == 0 || rest; rest /= 10)
		port[n++] = (char)('0' + rest % 10);
	*buffer++ = ':';
	while (n)
		*buffer++ = port[--n];
	*buffer = '\0';
}

int dial_start(struct upstream *upstream, struct link *link, const struct upstream_target *target,
	       struct identity *identity, upstream_stream_cb cb, void *arg,
	       struct upstream_dial **ret_dial)
{
	struct upstream_dial *dial = calloc(1, sizeof(*dial));
	int r;

	if (!dial)
		return -ENOMEM;
	dial->upstream = upstream;
	dial->link = link;
	dial->port = target->port;
	dial->identity = identity_ref(identity);
	dial->cb = cb;
	dial->arg = arg;
	target_text(target, dial->target);
	TAILQ_INSERT_TAIL(&upstream->dials, dial, entry);
	if (target->address) {
		dial->addresses[0] = *target->address;
		dial->address_count = dial->next = 1;
		r = connect_address(dial, target->address);
	} else {
		r = resolver_lookup(upstream->resolver, link, target->host, on_resolved, dial,
				    &dial->query);
	}
	if (r < 0) {
		dial_free(dial);
		if (blames_link(r))
			link_report_failure(link, strerror(-r));
		return r;
	}
	*ret_dial = dial;
	return 0;
}

int upstream_connect(struct upstream *upstream, struct link *link,
		     const struct upstream_target *target, upstream_stream_cb cb, void *arg,
		     struct upstream_dial **ret_dial)
{
	struct identity *identity;
	int r = identity_new(upstream, target, &identity);

	if (r == 0)
		r = dial_start(upstream, link, target, identity, cb, arg, ret_dial);
	identity_unref(identity);
	return r;
}

void upstream_dial_cancel(struct upstream_dial *dial)
{
	dial_free(dial);
}

void dials_fail_link(struct upstream *upstream, struct link *link)
{
	struct upstream_dial *dial, *next;

	for (dial = TAILQ_FIRST(&upstream->dials); dial; dial = next) {
		next = TAILQ_NEXT(dial, entry);
		if (!link) {
			dial_free(dial);
		} else if (dial->link == link) {
			dial_fail(dial, -ENETDOWN, "the link is gone");
			/* The callback may have changed the list: begin again. */
			next = TAILQ_FIRST(&upstream->dials);
		}
	}
}
