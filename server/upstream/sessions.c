#include "upstream/sessions.h"

#include "base/limits.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct session {
	TAILQ_ENTRY(session) entry;
	const void *trust;
	SSL_SESSION *session;
	char origin[];
};

void sessions_init(struct sessions *sessions)
{
	TAILQ_INIT(&sessions->list);
	sessions->count = 0;
}

static void drop(struct sessions *sessions, struct session *session)
{
	TAILQ_REMOVE(&sessions->list, session, entry);
	sessions->count--;
	SSL_SESSION_free(session->session);
	free(session);
}

void sessions_done(struct sessions *sessions)
{
	while (!TAILQ_EMPTY(&sessions->list))
		drop(sessions, TAILQ_FIRST(&sessions->list));
}

void sessions_forget(struct sessions *sessions, const void *trust)
{
	struct session *session, *next;

	for (session = TAILQ_FIRST(&sessions->list); session; session = next) {
		next = TAILQ_NEXT(session, entry);
		if (session->trust == trust)
			drop(sessions, session);
	}
}

static bool fits(const struct session *session, const void *trust, const char *origin)
{
	return session->trust == trust && strcmp(session->origin, origin) == 0;
}

/* Room for one more: of this origin, and in all. */
static void make_room(struct sessions *sessions, const void *trust, const char *origin)
{
	struct session *session, *next;
	size_t of_origin = 0;

	for (session = TAILQ_FIRST(&sessions->list); session; session = next) {
		next = TAILQ_NEXT(session, entry);
		if (fits(session, trust, origin) && ++of_origin >= UPSTREAM_TICKETS_MAX)
			drop(sessions, session);
	}
	if (sessions->count >= UPSTREAM_SESSIONS_MAX)
		drop(sessions, TAILQ_LAST(&sessions->list, session_list));
}

void sessions_put(struct sessions *sessions, const void *trust, const char *origin,
		  struct ssl_session_st *session)
{
	size_t size = strlen(origin) + 1;
	struct session *kept = malloc(sizeof(*kept) + size);

	if (!kept) {
		SSL_SESSION_free(session);
		return;
	}
	make_room(sessions, trust, origin);
	kept->trust = trust;
	kept->session = session;
	memcpy(kept->origin, origin, size);
	TAILQ_INSERT_HEAD(&sessions->list, kept, entry);
	sessions->count++;
}

/* A resumption looks at no certificate: what has expired since must be shown anew. */
static bool holds(SSL_SESSION *session)
{
	const X509 *peer = SSL_SESSION_get0_peer(session);
	time_t until = (time_t)(SSL_SESSION_get_time(session) + SSL_SESSION_get_timeout(session));

	return SSL_SESSION_is_resumable(session) && time(NULL) < until && peer &&
	       X509_cmp_current_time(X509_get0_notAfter(peer)) > 0 &&
	       X509_cmp_current_time(X509_get0_notBefore(peer)) < 0;
}

struct ssl_session_st *sessions_take(struct sessions *sessions, const void *trust,
				     const char *origin)
{
	struct session *session, *next;
	SSL_SESSION *found;

	for (session = TAILQ_FIRST(&sessions->list); session; session = next) {
		next = TAILQ_NEXT(session, entry);
		if (!fits(session, trust, origin))
			continue;
		if (!holds(session->session)) {
			drop(sessions, session);
			continue;
		}
		found = session->session;
		SSL_SESSION_up_ref(found);
		if (SSL_SESSION_get_protocol_version(found) >= TLS1_3_VERSION)
			drop(sessions, session);
		return found;
	}
	return NULL;
}
