/*
 * One leased exchange on its way: sent over a link, its response gathered and classified,
 * the result acknowledged to the queue. Owned by replay, which is told when it is over.
 */
#pragma once

#include "replay/replay.h"

struct sending;

enum sending_result { SENDING_ANSWERED, SENDING_RETRIED, SENDING_FAILED };
/* The queue has it in writing; the sending is freed after this call. */
typedef void (*sending_over_cb)(void *arg, struct sending *sending, enum sending_result result);

struct sending_parts {
	struct queue *queue;
	struct links *links;
	struct upstream *upstream;
	struct spools *spools;
	struct config *config; /* borrowed for sending_start */
	sending_over_cb over;
	void *arg;
};

/* Takes the row, also on error. -ENOMEM: the lease stays until the next start. */
int sending_start(const struct sending_parts *parts, struct queue_row *row,
		  struct sending **ret_sending) __attribute__((warn_unused_result));
bool sending_is_sent(const struct sending *sending); /* a link was there for it */
/* The queue refused the result (full disk): say it again. */
void sending_tick(struct sending *sending);
/* No callback after this; frees itself. */
void sending_cancel(struct sending *sending);
