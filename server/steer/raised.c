/* The ring of packets that programs raise to the daemon, as a handle of the loop. */
#include "base/limits.h"
#include "base/log.h"
#include "steer/internal.h"

#include <errno.h>
#include <string.h>

/* A negative return ends this turn's reading; the packet counts as read. */
static int on_record(void *arg, void *data, size_t len)
{
	struct steer *steer = arg;
	const struct hf_raised *raised = data;

	if (len >= sizeof(*raised) && raised->len <= sizeof(raised->packet) && steer->on_raised)
		steer->on_raised(steer->raised_arg, raised);
	return --steer->ring_budget && !steer->closing ? 0 : -ECANCELED;
}

/* Readable as long as the ring is not empty: what is over the budget comes in the next turn. */
static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct steer *steer = poll->data;
	int r;

	if (steer->closing)
		return;
	steer->ring_budget = STEER_RAISED_MAX;
	r = status < 0 ? status : ring_buffer__consume(steer->ring);
	if (r < 0 && r != -ECANCELED)
		log_warning("steer", "reading raised packets: %s", strerror(-r));
}

int raised_open(struct steer *steer)
{
	int r;

	steer->ring = ring_buffer__new(steer->maps.raised, on_record, steer, NULL);
	if (!steer->ring)
		return -errno;
	r = uv_poll_init(steer->loop, &steer->ring_poll, ring_buffer__epoll_fd(steer->ring));
	if (r < 0) {
		ring_buffer__free(steer->ring);
		steer->ring = NULL;
		return r;
	}
	steer->ring_poll.data = steer;
	steer->handles++;
	return uv_poll_start(&steer->ring_poll, UV_READABLE, on_readable);
}

static void on_closed(uv_handle_t *handle)
{
	struct steer *steer = handle->data;

	ring_buffer__free(steer->ring);
	steer_handle_closed(handle);
}

/* The ring is freed later: its reader may be the one who closes. */
void raised_close(struct steer *steer)
{
	if (steer->ring)
		uv_close((uv_handle_t *)&steer->ring_poll, on_closed);
}

void steer_on_raised(struct steer *steer, steer_raised_cb cb, void *arg)
{
	steer->on_raised = cb;
	steer->raised_arg = arg;
}
