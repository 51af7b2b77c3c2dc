/*
 * One probe of one link: a GET that must give 204, or a TCP connect. Internal to link.
 *
 * Owns its connection and its time limit; decides nothing about the link.
 */
#pragma once

#include "config/config.h"
#include "link/link.h"

#include <uv.h>

enum probe_outcome {
	PROBE_GOOD,
	PROBE_BAD,    /* refused, timed out, server's fault */
	PROBE_PORTAL, /* somebody else answered: not what the origin says */
};

/* What a probe asks of its owner. */
struct probe_ops {
	/* As links_resolve; -ENOTSUP: nothing wired. */
	int (*resolve)(void *arg, const char *name, links_resolve_cb cb, void *cb_arg);
	int (*prepare)(void *arg, int fd);
	/* Once, never before probe_start returns; the probe is gone afterwards. */
	void (*done)(void *arg, enum probe_outcome outcome, const char *evidence);
};

struct probe;

/* config and ops are borrowed until done or probe_cancel. 0, -ENOMEM, -EINVAL. */
int probe_start(uv_loop_t *loop, const struct probe_config *config, const struct probe_ops *ops,
		void *arg, struct probe **ret_probe) __attribute__((warn_unused_result));
/* No call of ops after it. */
void probe_cancel(struct probe *probe);
