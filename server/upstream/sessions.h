/*
 * TLS sessions that are kept for resumption, by origin and trust: a bounded list. A ticket of
 * TLS 1.3 is given out once (RFC 8446, C.4).
 */
#pragma once

#include <stddef.h>
#include <sys/queue.h>

struct session;
struct ssl_session_st;

TAILQ_HEAD(session_list, session);

struct sessions {
	struct session_list list; /* newest first */
	size_t count;
};

void sessions_init(struct sessions *sessions);
void sessions_done(struct sessions *sessions);
/* Takes the session. trust: whatever tells one identity from another. */
void sessions_put(struct sessions *sessions, const void *trust, const char *origin,
		  struct ssl_session_st *session);
/* The newest one that still holds, to be freed by the caller; or NULL. */
struct ssl_session_st *sessions_take(struct sessions *sessions, const void *trust,
				     const char *origin);
void sessions_forget(struct sessions *sessions, const void *trust);
