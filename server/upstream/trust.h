/*
 * Whom the daemon believes as an origin over TLS, and as whom it comes: one OpenSSL context for
 * each set of authorities and client certificate that rules name, made when it is first needed
 * and shared from then on. The files are read on a worker. Owns the sessions that are kept for
 * resumption, too.
 */
#pragma once

#include "config/config.h"

#include <sys/queue.h>
#include <uv.h>

struct ssl_st;
struct ssl_session_st;
struct trusts;
struct trust;

int trusts_new(uv_loop_t *loop, struct trusts **ret_trusts) __attribute__((warn_unused_result));
/* Frees itself once nothing is being read any more. */
void trusts_close(struct trusts *trusts);

/* The trust of a rule, with a reference for the caller; its files begin to be read. NULL: no
 * memory. */
struct trust *trusts_get(struct trusts *trusts, const struct rule_policy *policy);
struct trust *trust_ref(struct trust *trust);
void trust_unref(struct trust *trust); /* NULL is fine */

struct trust_wait {
	TAILQ_ENTRY(trust_wait) entry;
	struct trust *trust; /* NULL: nothing is waited for */
	/* failure: NULL, or what is wrong with the files, in words. */
	void (*ready)(void *arg, const char *failure);
	void *arg;
};
/* Calls back once, possibly before it returns. The wait is the caller's. */
void trust_wait(struct trust *trust, struct trust_wait *wait,
		void (*ready)(void *arg, const char *failure), void *arg);
void trust_wait_cancel(struct trust_wait *wait);

/* For one connection to an origin that must prove to be server_name, a name or an address as
 * text; only of a trust that is ready. -EINVAL: no certificate can prove that name. */
int trust_ssl(struct trust *trust, const char *server_name, uint16_t port, struct ssl_st **ret_ssl)
	__attribute__((warn_unused_result));

/* Are the files that rules name there, and do they fit together? Blocking: at configuration
 * time. 0, -EINVAL with errors added, or -ENOMEM. */
int trust_check(const struct config *config, struct config_errors *errors)
	__attribute__((warn_unused_result));
