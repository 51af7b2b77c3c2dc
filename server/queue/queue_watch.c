/* Who waits for an exchange to have an answer: in memory, by id. */
#include "base/limits.h"
#include "queue/queue_op.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

struct queue_watch {
	struct queue_watch *prev, *next;
	struct queue *queue;
	struct watch_list *list; /* NULL: fired or cancelled */
	queue_watch_cb cb;
	void *arg;
	bool looking; /* the first look-up still points here */
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
	if (!watch->looking)
		free(watch);
}

static void watch_fire(struct queue_watch *watch, const char *id, enum request_state state)
{
	queue_watch_cb cb = watch->cb;
	void *arg = watch->arg;

	watch_remove(watch);
	watch_free(watch);
	cb(arg, id, state);
}

/* A callback may cancel others of the same exchange: look anew each time. */
void watches_fire(struct queue *queue, const char *id, enum request_state state)
{
	struct watch_list *list;

	for (;;) {
		HASH_FIND_STR(queue->watches, id, list);
		if (!list)
			return;
		watch_fire(list->first, id, state);
	}
}

void watches_clear(struct queue *queue)
{
	while (queue->watches) {
		struct queue_watch *watch = queue->watches->first;

		watch_remove(watch);
		watch_free(watch);
	}
}

static int run_look(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	struct brief row;
	int r = brief_read(db, op->id, &row);

	op->match.state = r == 0 ? row.state : (enum request_state)GONE;
	return r == -ENOENT ? 0 : r;
}

/* When the look-up fails, the watch stays: the change itself will still fire it. */
static void finish_look(struct op *op, int status)
{
	struct queue_watch *watch = op->watch;

	watch->looking = false;
	if (!watch->list) {
		watch_free(watch);
		return;
	}
	if (status == 0 && op->match.state != REQUEST_STORED && op->match.state != REQUEST_SENDING)
		watch_fire(watch, op->id, op->match.state);
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
	watch->looking = r == 0;
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

void queue_unwatch(struct queue_watch *watch)
{
	watch_remove(watch);
	watch_free(watch);
}
