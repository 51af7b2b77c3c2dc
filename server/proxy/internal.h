/* What the files of proxy share; for nobody else. */
#pragma once

#include "conn/duplex.h"
#include "proxy/proxy.h"

#include <sys/queue.h>

enum {
	LISTENERS = 2 /* IPv4, IPv6 */,
	SOURCE_TEXT_MAX = IP_TEXT_MAX,
	KNOWN_APPS = 64,
	KNOWN_APP_TIME = 5000 /* ms */
};

TAILQ_HEAD(session_list, session);
TAILQ_HEAD(stream_list, stream);
TAILQ_HEAD(http_list, http_session);

struct listener {
	struct proxy *proxy;
	uv_poll_t poll;
	int fd; /* -1: none */
	uint16_t port;
};

/* An app that comes by IPv6, and the address that it is known by. */
struct known_app {
	struct ip v6, name;
	uint64_t until; /* loop ms */
};

struct proxy {
	uv_loop_t *loop;
	struct proxy_parts parts;
	struct listener listeners[LISTENERS];
	struct session_list sessions; /* being sniffed */
	struct stream_list streams;
	struct http_list https;
	struct duplexes *duplexes;
	struct http_list pending; /* have something to flush before the loop sleeps */
	uv_prepare_t flush;
	uv_timer_t sweep;
	unsigned handles;
	bool closing, out_of_descriptors;
	char date[HTTP_DATE_LINE_MAX]; /* see proxy_date */
	int64_t date_at;	       /* s */
	struct known_app apps[KNOWN_APPS];
	struct proxy_statistics statistics;
};

/* Where a connection of an app goes to. */
struct flow {
	struct ip source, destination;
	uint16_t port;		  /* of the destination */
	const char *interface;	  /* of the source, or NULL */
	char name[NAME_TEXT_MAX]; /* the virtual address's, or "" */
	bool is_virtual;
};

/* proxy.c */
/* false: such a destination is not carried (ours, or a virtual address nobody was given). */
bool flow_of(struct proxy *proxy, const struct conn *conn, struct flow *ret_flow);
void proxy_connection_over(struct proxy *proxy);
/* "Date: ...\r\n", or "" while the clock was not set yet (RFC 9110, 6.6.1). */
const char *proxy_date(struct proxy *proxy);

/* session.c: sniff a connection; takes the conn. The bytes were read already. */
void session_begin(struct proxy *proxy, struct conn *conn, const uint8_t *bytes, size_t len);
void sessions_close(struct proxy *proxy);

/* stream.c: relay it as it is; takes the conn. */
struct stream_kind {
	enum protocol protocol; /* PROTOCOL_TLS, PROTOCOL_TCP */
	const char *name;	/* SNI, or NULL */
	bool silent;	/* the app said nothing yet: what it says first is looked at again */
	bool ended;	/* the app has shut its side */
	bool malformed; /* TLS that cannot be read */
};
void stream_begin(struct proxy *proxy, struct conn *conn, const struct stream_kind *kind,
		  const uint8_t *bytes, size_t len);
/* Two connections that are joined already: an app's and the origin's, over a link. Each side's
 * first bytes were read from it before; they are borrowed for the call. Takes both conns. */
struct stream_pair {
	struct conn *app, *origin;
	struct link *link;
	const uint8_t *app_first, *origin_first;
	size_t app_first_len, origin_first_len;
	bool app_ended; /* the app has shut its side */
};
void stream_adopt(struct proxy *proxy, const struct stream_pair *pair);
void streams_wake(struct proxy *proxy);
void streams_cut(struct proxy *proxy, struct link *link); /* NULL: all */
void streams_sweep(struct proxy *proxy, uint64_t now);

/* http_session.c: takes the conn. */
void http_begin(struct proxy *proxy, struct conn *conn, const uint8_t *bytes, size_t len);
void https_flush(struct proxy *proxy);
void https_sweep(struct proxy *proxy, uint64_t now);
void https_close(struct proxy *proxy);

/* admit.c: the head of a request, changed to what goes on; or the answer to it. */
enum admission {
	ADMITTED,
	ADMIT_REFUSED, /* ret_answer says why */
	ADMIT_OPTIONS, /* Max-Forwards: it is for us to answer */
	ADMIT_TRACE
};
struct admitted {
	char authority[NAME_TEXT_MAX + 8]; /* lower case, with the port if it is not 80 */
	bool secure;			   /* the target was an https URI */
};
enum admission admit(const struct flow *flow, struct http_head *head, struct admitted *ret,
		     struct exchange_answer *ret_answer);

/* answer.c: responses of our own; date: as proxy_date gives it. A problem+json (RFC 9457). */
int answer_write(struct buf *out, const struct exchange_answer *answer, const char *date,
		 bool head_only, bool keep_alive) __attribute__((warn_unused_result));
/* As the last recipient (RFC 9110, 9.3.7 and 9.3.8). */
int answer_write_options(struct buf *out, const char *date) __attribute__((warn_unused_result));
int answer_write_trace(struct buf *out, struct http_head *request, const char *date)
	__attribute__((warn_unused_result));
