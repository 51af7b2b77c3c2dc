/* What the files of exchange share; for nobody else. */
#pragma once

#include "exchange/exchange.h"

#include <sys/queue.h>

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

enum { RETRY_FIRST = 500 /* ms, for an origin that fails on a good link */ };

struct exchanges {
	uv_loop_t *loop;
	struct config *config;
	struct links *links;
	struct queue *queue;
	struct upstream *upstream;
	struct exchange_list waiting; /* held or waiting: whatever has a deadline; oldest first */
	uv_timer_t timer;	      /* the earliest deadline */
	struct exchanges_statistics statistics;
};

/* An answer of the queue that comes after the exchange is gone must find that out. */
struct ticket {
	struct exchange *exchange; /* NULL: gone */
};

struct exchange {
	TAILQ_ENTRY(exchange) entry; /* in exchanges->waiting, when listed */
	struct exchanges *exchanges;
	struct config *config; /* keeps the rule */
	const struct rule *rule;
	enum exchange_state state;
	struct exchange_request request;
	struct exchange_ops ops;
	void *arg;
	char id[ID_TEXT_MAX]; /* "" until it is needed */
	int64_t received;     /* wall, ms */
	struct buf body;      /* whole, or what waits to be streamed */
	bool body_ended, streaming, stream_ready, listed, behind, app_shut, async, has_wait,
		counted_held;
	uint64_t wait;	/* Prefer: wait, ms */
	uint32_t tried; /* links, in this round */
	unsigned rounds;
	uint64_t deadline; /* loop ms: hold over */
	uint64_t retry_at; /* loop ms: try again though no link changed; 0: no */
	struct upstream_request *sending;
	struct queue_watch *watch;
	struct ticket *ticket;
	char stored_id[ID_TEXT_MAX]; /* the stored exchange that owes the answer */
	bool hashed;
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

/* hold.c */
void exchange_hold(struct exchange *exchange, const char *why);
void exchange_list(struct exchange *exchange, uint64_t deadline);
void exchange_unlist(struct exchange *exchange);
void exchanges_arm(struct exchanges *exchanges);
void on_hold_timer(uv_timer_t *timer);

/* send.c */
/* Over the best link; -ENETUNREACH when there is none. */
int exchange_send(struct exchange *exchange);
void exchange_stream(struct exchange *exchange);

/* keep.c */
void exchange_match(struct exchange *exchange);
void exchange_store(struct exchange *exchange);
void exchange_wait_over(struct exchange *exchange);
int exchange_put(struct exchange *exchange, bool owes, queue_status_cb cb, void *arg);
