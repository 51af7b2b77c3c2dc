#include "replay/replay.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "replay/sending.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct replay {
	uv_loop_t *loop;
	struct config *config;
	struct queue *queue;
	struct links *links;
	struct upstream *upstream;
	struct spools *spools;
	uv_timer_t due, sweep;
	unsigned refs; /* the owner's, one a timer, one a callback of the queue */
	bool closing, leasing;
	struct sending *active[REPLAY_PARALLEL];
	size_t active_count;
	size_t width; /* how many may be under way: one after an outage, more with each answer */
	int64_t clock_offset; /* wall minus boot time: changes when the clock is set */
	struct replay_statistics statistics;
};

static void pump(struct replay *replay);

static void replay_unref(struct replay *replay)
{
	if (--replay->refs)
		return;
	config_unref(replay->config);
	free(replay);
}

static void on_timer_closed(uv_handle_t *handle)
{
	replay_unref(handle->data);
}

/* Before anything that may expire rows: was the clock set meanwhile? */
static void check_clock(struct replay *replay)
{
	int64_t now = clock_wall(), offset = now - clock_boot();
	int64_t step = offset - replay->clock_offset;

	if (step < -REPLAY_CLOCK_STEP || step > REPLAY_CLOCK_STEP) {
		log_info("replay", "the clock was set by %lld s", (long long)(step / 1000));
		if (queue_clock_stepped(replay->queue, now, step) < 0)
			return; /* tried again with the next look */
	}
	replay->clock_offset = offset;
}

static bool any_proven(const struct replay *replay)
{
	for (size_t i = 0; i < links_count(replay->links); i++) {
		struct link *link = links_at(replay->links, i);

		if (link_state(link) == LINK_ONLINE && link_is_proven(link))
			return true;
	}
	return false;
}

static void on_due(uv_timer_t *timer)
{
	pump(timer->data);
}

static void look_again_in(struct replay *replay, int64_t delay)
{
	enum { SHORTEST = 50 };

	if (delay < SHORTEST)
		delay = SHORTEST;
	if (delay > REPLAY_RETRY_AFTER_MAX)
		delay = REPLAY_RETRY_AFTER_MAX;
	uv_timer_start(&replay->due, on_due, (uint64_t)delay, 0);
}

static void on_over(void *arg, struct sending *sending, enum sending_result result)
{
	struct replay *replay = arg;
	size_t i = 0;

	while (replay->active[i] != sending)
		i++;
	replay->active[i] = replay->active[--replay->active_count];
	switch (result) {
	case SENDING_ANSWERED:
		replay->statistics.answered++;
		if (replay->width < REPLAY_PARALLEL)
			replay->width++;
		break;
	case SENDING_RETRIED:
		replay->statistics.retried++;
		break;
	case SENDING_FAILED:
		replay->statistics.failed++;
		break;
	}
	pump(replay);
}

static void start(struct replay *replay, struct queue_row *row)
{
	struct sending_parts parts = {
		.queue = replay->queue,
		.links = replay->links,
		.upstream = replay->upstream,
		.spools = replay->spools,
		.config = replay->config,
		.over = on_over,
		.arg = replay,
	};
	struct sending *sending;

	if (sending_start(&parts, row, &sending) < 0) {
		log_error("replay", "out of memory; an exchange waits for the next start");
		return;
	}
	replay->active[replay->active_count++] = sending;
	replay->statistics.sent += sending_is_sent(sending);
}

static void on_lease(void *arg, int status, struct queue_row *row)
{
	struct replay *replay = arg;
	int64_t due;

	replay->leasing = false;
	if (replay->closing) {
		queue_row_free(row); /* taken back at the next start */
	} else if (row) {
		start(replay, row);
		pump(replay);
	} else if (status != -ENOENT) {
		log_warning("replay", "cannot lease: %s", strerror(-status));
		look_again_in(replay, REPLAY_BACKOFF_MIN * 5);
	} else {
		due = queue_next_due(replay->queue);
		if (due)
			look_again_in(replay, due - clock_wall());
	}
	replay_unref(replay);
}

static void lease(struct replay *replay)
{
	check_clock(replay);
	if (queue_lease(replay->queue, clock_wall(), on_lease, replay) < 0) {
		look_again_in(replay, REPLAY_BACKOFF_MIN);
		return;
	}
	replay->leasing = true;
	replay->refs++;
}

/* The one place that asks for work. Without a link that proves data nothing is leased: rows
 * that were only taken and put back would wear the disk. */
static void pump(struct replay *replay)
{
	int64_t due = queue_next_due(replay->queue), wait;

	if (replay->closing || replay->leasing || replay->active_count >= replay->width)
		return;
	if (!due || !links_any_online(replay->links))
		return;
	wait = due - clock_wall();
	if (wait > 0 && wait <= REPLAY_RETRY_AFTER_MAX)
		look_again_in(replay, wait);
	else if (!any_proven(replay))
		look_again_in(replay, REPLAY_PROOF_WAIT);
	else
		lease(replay);
}

static void on_wakeup(void *arg)
{
	pump(arg);
}

static void on_swept(void *arg, int status)
{
	if (status < 0)
		log_warning("replay", "cannot sweep the queue: %s", strerror(-status));
}

static void on_sweep(uv_timer_t *timer)
{
	struct replay *replay = timer->data;
	struct queue_totals t;

	for (size_t i = 0; i < replay->active_count; i++)
		sending_tick(replay->active[i]);
	check_clock(replay);
	queue_totals(replay->queue, &t);
	if (t.stored || t.done || t.failed || t.expired)
		queue_sweep(replay->queue, clock_wall(), on_swept, NULL);
	pump(replay);
}

int replay_new(uv_loop_t *loop, struct config *config, struct queue *queue, struct links *links,
	       struct upstream *upstream, struct spools *spools, struct replay **ret_replay)
{
	struct replay *replay = calloc(1, sizeof(*replay));

	if (!replay)
		return -ENOMEM;
	*replay = (struct replay){.loop = loop,
				  .config = config_ref(config),
				  .queue = queue,
				  .links = links,
				  .upstream = upstream,
				  .spools = spools,
				  .refs = 3,
				  .width = 1,
				  .clock_offset = clock_wall() - clock_boot()};
	uv_timer_init(loop, &replay->due);
	uv_timer_init(loop, &replay->sweep);
	replay->due.data = replay;
	replay->sweep.data = replay;
	uv_timer_start(&replay->sweep, on_sweep, REPLAY_SWEEP_INTERVAL, REPLAY_SWEEP_INTERVAL);
	queue_set_wakeup(queue, on_wakeup, replay);
	look_again_in(replay, 0);
	*ret_replay = replay;
	return 0;
}

void replay_close(struct replay *replay)
{
	if (replay->closing)
		return;
	replay->closing = true;
	queue_set_wakeup(replay->queue, NULL, NULL);
	for (size_t i = 0; i < replay->active_count; i++)
		sending_cancel(replay->active[i]);
	replay->active_count = 0;
	uv_close((uv_handle_t *)&replay->due, on_timer_closed);
	uv_close((uv_handle_t *)&replay->sweep, on_timer_closed);
	replay_unref(replay);
}

void replay_set_config(struct replay *replay, struct config *config)
{
	config_ref(config);
	config_unref(replay->config);
	replay->config = config;
}

void replay_links_changed(struct replay *replay)
{
	if (replay->closing)
		return;
	if (!links_any_online(replay->links)) {
		replay->width = 1;
		return;
	}
	if (queue_has_backlog(replay->queue) && queue_links_changed(replay->queue) < 0)
		log_debug("replay", "rows that wait for a link are asked again later");
	pump(replay);
}

void replay_statistics(const struct replay *replay, struct replay_statistics *ret)
{
	*ret = replay->statistics;
	ret->active = replay->active_count;
}
