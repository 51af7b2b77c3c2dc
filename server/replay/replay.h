/*
 * Sends what the queue holds when a link is back: lease, send, classify, acknowledge.
 *
 * At most one exchange under way for each source and origin, REPLAY_PARALLEL in all, and
 * after an outage it begins with one. Owns nothing durable; a crash at any point leaves a
 * lease that the queue takes back at start.
 *
 * An answer is any response but 408, 425, 429, 502, 503, 504 and 511: those are tried again
 * with backoff, jitter and Retry-After. A plain-HTTP answer counts only when
 * link_is_proven(): never replay into a captive portal. Over TLS the origin has proven itself; one
 * that does not counts as an attempt, and no byte of the request leaves.
 */
#pragma once

#include "config/config.h"
#include "link/link.h"
#include "queue/queue.h"
#include "upstream/upstream.h"

struct replay;

/* Takes a reference on config; queue's wake-up is replay's. */
int replay_new(uv_loop_t *loop, struct config *config, struct queue *queue, struct links *links,
	       struct upstream *upstream, struct spools *spools, struct replay **ret_replay)
	__attribute__((warn_unused_result));
/* What is under way is cancelled; the queue takes those leases back at the next start. Frees itself
 * on the loop. */
void replay_close(struct replay *replay);
/* The rules of a new configuration hold for the next lease. */
void replay_set_config(struct replay *replay, struct config *config);
/* A link came or went. */
void replay_links_changed(struct replay *replay);

/* Pure, for tests: is this status an answer? */
bool replay_is_answer(int status);
/* Delay before attempt n (1-based), ms, without jitter: 1 s doubling to 5 min. */
uint64_t replay_backoff(unsigned attempt);
/* Retry-After as seconds, or as an HTTP date beside the response's own Date (NULL, or not
 * understood: now_ms), in ms from now, at most REPLAY_RETRY_AFTER_MAX; 0: none, not understood or
 * in the past. */
uint64_t replay_retry_after(const char *value, const char *date, int64_t now_ms);

struct replay_statistics {
	uint64_t sent, answered, retried, failed;
	size_t active;
};
void replay_statistics(const struct replay *replay, struct replay_statistics *ret);
