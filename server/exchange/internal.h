/* What the files of exchange share; for nobody else. */
#pragma once

#include "base/heap.h"
#include "exchange/exchange.h"

#include <sys/queue.h>
#include <uthash.h>

#define EXCHANGE_STATES(X)        \
	X(RECEIVING, "receiving") \
	X(MATCHING, "matching")   \
	X(HELD, "held")           \
	X(SENDING, "sending")     \
	X(STORING, "storing")     \
	X(WAITING, "waiting")     \
	X(FETCHING, "fetching")   \
	X(OVER, "over")
#define EXCHANGE_STATE_ENUM(id, name) EXCHANGE_##id,
enum exchange_state { EXCHANGE_STATES(EXCHANGE_STATE_ENUM) };

TAILQ_HEAD(exchange_list, exchange);

enum {
	RETRY_FIRST = 500, /* ms, for an origin that fails on a good link */
	/* of a body that is streamed: the app stops when some of it waits, and what was read with
	 * that comes along */
	EXCHANGE_BUFFER_MAX = 4 * STREAM_BUFFER_MAX,
};

struct exchanges {
	uv_loop_t *loop;
	struct config *config;
	struct links *links;
	struct queue *queue;
	struct upstream *upstream;
	struct spools *spools;
	exchanges_event_cb event;
	void *event_arg;
	struct exchange_list waiting; /* held or waiting: whatever has a deadline; oldest first */
	struct exchange *by_id;	      /* uthash of the same */
	struct heap due;	      /* of the same, by what is next for each */
	uv_timer_t timer;	      /* the earliest of these */
	uint64_t timer_at;	      /* loop ms; UINT64_MAX: stopped */
	struct exchange_list line;    /* held ones whose turn to be sent comes, in its order */
	uv_prepare_t turn;
	unsigned handles;
	size_t sending_max, released_max;
	struct exchanges_statistics statistics;
};

/* An answer of the queue that comes after the exchange is gone must find that out. */
struct ticket {
	struct exchange *exchange; /* NULL: gone */
};

struct exchange {
	TAILQ_ENTRY(exchange) entry; /* in exchanges->waiting, when listed */
	TAILQ_ENTRY(exchange) line_entry;
	UT_hash_handle hh;
	struct heap_node due;
	struct exchanges *exchanges;
	struct config *config; /* keeps the rule */
	const struct rule *rule;
	enum exchange_state state;
	struct exchange_request request;
	char *server_name;   /* over TLS: what the origin must prove to be; NULL: plain http */
	char *own_authority; /* request.authority, where it is not the app's; or NULL */
	struct exchange_ops ops;
	void *arg;
	char id[ID_TEXT_MAX];	     /* "" until it is needed */
	int64_t received;	     /* wall, ms */
	int64_t born;		     /* the same moment since boot, ms */
	struct spool *spool;	     /* of a body that is received whole; NULL: nothing of it yet */
	struct spool_reader *reader; /* of a spool that is sent piece by piece */
	struct buf body;	     /* what waits to be streamed */
	struct buf trailers;	     /* of a streamed body, as lines */
	bool expecting;	 /* the origin is asked whether it wants the body, and has not said 100 */
	bool body_begun; /* some of it came from the app */
	bool body_ended, streaming, stream_ready, overflows, reading, responding;
	bool listed, behind, app_shut, async, has_wait, counted_held, in_line, released;
	uint64_t wait;	/* Prefer: wait, ms */
	uint32_t tried; /* links, in this round */
	unsigned rounds;
	uint64_t deadline; /* loop ms: hold over */
	uint64_t retry_at; /* loop ms: try again though no link changed; 0: no */
	struct upstream_request *sending;
	struct queue_watch *watch;
	struct ticket *ticket;
	char stored_id[ID_TEXT_MAX];   /* the stored exchange that owes the answer */
	struct queue_reader *delivery; /* its response on the way to the app */
	uint64_t to_deliver;
	bool delivering, paused;
	bool hashed;
	bool stored_anew; /* after the database was found corrupt */
	uint8_t hash[32], body_hash[32];
	struct queue_event *events;
	size_t event_count;
};

/* exchange.c */
void exchange_enter(struct exchange *exchange, enum exchange_state state);
void exchange_note(struct exchange *exchange, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
const char *exchange_id(struct exchange *exchange);
/* Stored or counted, as the rule says, for an app that hung up. */
void exchange_leave(struct exchange *exchange);
/* Tell the app and be over; the exchange may be gone after this call. */
void exchange_answer(struct exchange *exchange, int status, const char *title, const char *detail,
		     const char *id);
struct ticket *exchange_ticket(struct exchange *exchange);
/* Takes the ticket back: the exchange, or NULL when it is gone. */
struct exchange *ticket_take(void *arg);

/* body.c */
/* From here on it is received whole. Nothing of it was sent; what is there of it is kept. */
/* Was nothing said on either side that could not be said again? */
bool exchange_is_expecting(const struct exchange *exchange);
void exchange_receive(struct exchange *exchange);
/* Send what is in the spool, piece by piece, as exchange_body_drained says. */
int exchange_start_reading(struct exchange *exchange) __attribute__((warn_unused_result));
void exchange_stop_reading(struct exchange *exchange);
/* The connection to the origin takes more. */
void exchange_body_drained(struct exchange *exchange);
void exchange_body_done(struct exchange *exchange);

/* hold.c */
void exchange_hold(struct exchange *exchange, const char *why);
void exchange_list(struct exchange *exchange, uint64_t deadline);
void exchange_unlist(struct exchange *exchange);
void on_hold_timer(uv_timer_t *timer);
/* retry_at or app_shut has changed. */
void exchange_due(struct exchange *exchange);

/* turn.c */
void exchanges_read_bounds(struct exchanges *exchanges);
/* To the end of the line, when it is not in it. */
void exchange_line_up(struct exchange *exchange);
void exchange_leave_line(struct exchange *exchange);
/* For one that comes now. Those that were held have a share of their own. */
bool exchanges_have_room(const struct exchanges *exchanges);
/* Of a change of state: how many are under way, and how many of these were held. */
void exchange_count(struct exchange *exchange, enum exchange_state to);
void on_turn(uv_prepare_t *prepare);

/* send.c */
/* Over the best link; -ENETUNREACH when there is none. */
int exchange_send(struct exchange *exchange);
void exchange_stream(struct exchange *exchange);
/* Nothing more is wanted of the origin. */
void exchange_stop_sending(struct exchange *exchange);

/* secure.c */
/* TLS to the origin: scheme, port and authority are those of https. 0 or -ENOMEM. */
int exchange_secure(struct exchange *exchange) __attribute__((warn_unused_result));
const char *exchange_scheme(const struct exchange *exchange);

/* keep.c */
/* May a stored one owe it its answer; may it be behind a backlog? From memory. */
bool exchange_may_owe(const struct exchange *exchange);
bool exchange_may_be_behind(const struct exchange *exchange);
void exchange_match(struct exchange *exchange);
void exchange_store(struct exchange *exchange);
void exchange_wait_over(struct exchange *exchange);
int exchange_put(struct exchange *exchange, bool owes, queue_status_cb cb, void *arg);
/* The next piece of a stored response, if the app takes it. */
void exchange_deliver(struct exchange *exchange);
