#include "upstream/internal.h"

#include <errno.h>
#include <stdlib.h>

enum { SWEEP_INTERVAL = 1000 /* ms */ };

static void on_sweep(uv_timer_t *timer)
{
	requests_count(timer->data);
	pool_sweep(timer->data);
}

int upstream_new(uv_loop_t *loop, struct resolver *resolver, struct upstream **ret_upstream)
{
	struct upstream *upstream = calloc(1, sizeof(*upstream));
	int r;

	if (!upstream)
		return -ENOMEM;
	r = trusts_new(loop, &upstream->trusts);
	if (r < 0) {
		free(upstream);
		return r;
	}
	upstream->loop = loop;
	upstream->resolver = resolver;
	TAILQ_INIT(&upstream->dials);
	TAILQ_INIT(&upstream->requests);
	pool_init(upstream);
	uv_timer_init(loop, &upstream->sweep);
	upstream->sweep.data = upstream;
	uv_timer_start(&upstream->sweep, on_sweep, SWEEP_INTERVAL, SWEEP_INTERVAL);
	uv_unref((uv_handle_t *)&upstream->sweep);
	*ret_upstream = upstream;
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void upstream_close(struct upstream *upstream)
{
	struct upstream_request *request;

	if (!upstream)
		return;
	while ((request = requests_first_of(upstream, NULL)))
		upstream_cancel(request);
	dials_fail_link(upstream, NULL);
	pool_close_link(upstream, NULL);
	trusts_close(upstream->trusts);
	uv_close((uv_handle_t *)&upstream->sweep, on_closed);
}

void upstream_link_lost(struct upstream *upstream, struct link *link)
{
	struct upstream_request *request;

	pool_close_link(upstream, link);
	/* A request that fails may be sent again at once, over another link. */
	for (size_t bound = upstream->statistics.active; bound > 0; bound--) {
		request = requests_first_of(upstream, link);
		if (!request)
			break;
		request_fail(request, -ENETDOWN, "the link is gone");
	}
	dials_fail_link(upstream, link);
}

void upstream_statistics(const struct upstream *upstream, struct upstream_statistics *ret)
{
	*ret = upstream->statistics;
	ret->idle = upstream->idle_count;
}
