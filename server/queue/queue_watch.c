/* Who wants the answer of a stored exchange: in memory, by id; and how its debt is paid. */
#include "base/limits.h"
#include "queue/queue_op.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

enum place {
	WAITS,	 /* there is no answer yet, or it is not known whether there is */
	BEHIND,	 /* others have the answer in their hands: what becomes of it is waited for */
	HAS_IT,	 /* was told QUEUE_YOURS */
	HAS_PAID /* and the payment is on its way to the disk */
};

struct queue_watch {
	struct queue_watch *prev, *next;
	struct queue *queue;
	struct watch_list *list; /* NULL: fired or cancelled */
	queue_watch_cb cb;
	void *arg;
	enum place place;
	unsigned ops; /* that still point here */
};

struct watch_list {
	char id[ID_TEXT_MAX];
	struct queue_watch *first;
	UT_hash_handle hh;
};

static void watch_remove(struct queue_watch *watch)
{
	struct watch_list *list = watch->list;
	struct queue *queue = watch->queue;

	watch->list = NULL;
	queue->watch_count--;
	DL_DELETE(list->first, watch);
	if (!list->first) {
		HASH_DEL(queue->watches, list);
		free(list);
	}
}

static void watch_free(struct queue_watch *watch)
{
	if (watch->list)
		watch_remove(watch);
	if (!watch->ops)
		free(watch);
}

static void watch_tell(struct queue_watch *watch, enum queue_news news)
{
	queue_watch_cb cb = watch->cb;
	void *arg = watch->arg;

	/* Behind those that wait still, so that these are found at once. */
	if (news == QUEUE_YOURS) {
		watch->place = HAS_IT;
		DL_DELETE(watch->list->first, watch);
		DL_APPEND(watch->list->first, watch);
	} else {
		watch_free(watch);
	}
	cb(arg, news);
}

static struct queue_watch *first_at(struct queue *queue, const char *id, enum place from,
				    enum place to)
{
	struct watch_list *list;
	struct queue_watch *watch;

	HASH_FIND_STR(queue->watches, id, list);
	if (!list)
		return NULL;
	DL_FOREACH (list->first, watch) {
		if (watch->place >= from && watch->place <= to)
			return watch;
	}
	return NULL;
}

/* A callback may cancel others: look anew each time. */
void watches_tell(struct queue *queue, const char *id, enum queue_news news)
{
	struct queue_watch *watch;

	while ((watch = first_at(queue, id, WAITS, BEHIND)))
		watch_tell(watch, news);
}

void watches_clear(struct queue *queue)
{
	while (queue->watches)
		watch_free(queue->watches->first);
}

static struct queue_watch *first_waiting(struct queue *queue)
{
	for (struct watch_list *list = queue->watches; list; list = list->hh.next) {
		struct queue_watch *watch = first_at(queue, list->id, WAITS, BEHIND);

		if (watch)
			return watch;
	}
	return NULL;
}

void watches_gone(struct queue *queue)
{
	struct queue_watch *watch;

	while ((watch = first_waiting(queue)))
		watch_tell(watch, QUEUE_GONE);
}

static int run_look(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	struct brief row;
	int r = brief_read(db, op->id, &row);

	op->match.state = r == 0 ? row.state : (enum request_state)GONE;
	op->flag = r == 0 && row.owes;
	return r == -ENOENT ? 0 : r;
}

/* When the look-up fails, the watch stays: the change itself will still fire it. Results come in
 * the order of the lane, so a payment that this look-up has not seen is still on its way here. */
static void finish_look(struct op *op, int status)
{
	struct queue_watch *watch = op->watch;

	watch->ops--;
	if (!watch->list) {
		watch_free(watch);
		return;
	}
	if (status < 0 || watch->place >= HAS_IT)
		return;
	watch->place = WAITS;
	if (op->match.state == (enum request_state)GONE)
		watch_tell(watch, QUEUE_GONE);
	else if (state_is_final(op->match.state) && !op->flag)
		watch_tell(watch, QUEUE_PAID);
	else if (state_is_final(op->match.state) &&
		 first_at(watch->queue, op->id, HAS_IT, HAS_PAID))
		watch->place = BEHIND;
	else if (state_is_final(op->match.state))
		watch_tell(watch, QUEUE_YOURS);
}

static struct watch_list *list_of(struct queue *queue, const char *id)
{
	struct watch_list *list;

	HASH_FIND_STR(queue->watches, id, list);
	if (list)
		return list;
	list = calloc(1, sizeof(*list));
	if (!list)
		return NULL;
	snprintf(list->id, sizeof(list->id), "%s", id);
	HASH_ADD_STR(queue->watches, id, list);
	return list;
}

static int look(struct queue_watch *watch, const char *id)
{
	struct op *op = op_new(watch->queue, run_look, true, 0);
	int r;

	if (!op)
		return -ENOMEM;
	snprintf(op->id, sizeof(op->id), "%s", id);
	op->watch = watch;
	op->finish = finish_look;
	r = op_submit(op);
	watch->ops += r == 0;
	return r;
}

int queue_watch(struct queue *queue, const char *id, queue_watch_cb cb, void *arg,
		struct queue_watch **ret_watch)
{
	struct queue_watch *watch;
	int r;

	if (queue->watch_count >= QUEUE_WATCHES_MAX)
		return -EAGAIN;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return -ENOMEM;
	*watch = (struct queue_watch){.queue = queue, .cb = cb, .arg = arg};
	r = look(watch, id);
	if (r < 0) {
		free(watch);
		return r;
	}
	watch->list = list_of(queue, id);
	if (!watch->list)
		return -ENOMEM; /* the look-up frees the watch */
	DL_APPEND(watch->list->first, watch);
	queue->watch_count++;
	*ret_watch = watch;
	return 0;
}

/* Nobody has the answer in hand any more, and it is still owed: the next one looks again. When
 * too much waits for the database even for that, those behind hear nothing until their hold is
 * over. */
static void pass_on(struct queue *queue, const char *id)
{
	struct queue_watch *next;

	if (first_at(queue, id, HAS_IT, HAS_PAID))
		return;
	next = first_at(queue, id, BEHIND, BEHIND);
	if (next && !next->ops)
		(void)!look(next, id);
}

void queue_unwatch(struct queue_watch *watch)
{
	struct queue *queue = watch->queue;
	bool had_it = watch->place == HAS_IT;
	char id[ID_TEXT_MAX];

	snprintf(id, sizeof(id), "%s", watch->list->id);
	watch_free(watch);
	if (had_it)
		pass_on(queue, id);
}

/* --- the payment --- */

static int run_paid(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	struct brief row;
	int r = brief_read(db, op->id, &row);

	if (r < 0 || !row.owes)
		return r;
	r = sql_run(db, "UPDATE requests SET owes = 0 WHERE seq = ?", "i", row.seq);
	if (r == 0)
		r = event_add(db, row.seq, op->now, "the app has the answer");
	if (r == 0)
		r = op_note(op, op->id, row.state, "the app has the answer");
	op->delta.owing = -1;
	op->paid = true;
	return r;
}

static void finish_paid(struct op *op, int status)
{
	struct queue *queue = op->queue;

	queue->totals.paid += status == 0 && op->delta.owing;
	op->watch->ops--;
	watch_free(op->watch);
	if (op->status_cb)
		op->status_cb(op->arg, status);
	if (status < 0)
		pass_on(queue, op->id);
}

int queue_paid(struct queue_watch *watch, queue_status_cb cb, void *arg)
{
	struct op *op = op_for_id(watch->queue, run_paid, watch->list->id, cb, arg, 0);
	int r = -ENOMEM;

	if (op) {
		op->watch = watch;
		op->finish = finish_paid;
		r = op_submit(op);
	}
	if (r < 0) {
		queue_unwatch(watch);
		return r;
	}
	watch->place = HAS_PAID;
	watch->ops++;
	return 0;
}
