/* What happened, told to whoever listens (GET /v1/events). */
#include "daemon/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

void daemon_event(struct daemon *daemon, enum daemon_event_type type, const char *subject,
		  const char *format, ...)
{
	struct daemon_event event = {
		.id = ++daemon->next_event, .at = exchange_wall_ms(), .type = type};
	va_list args;

	snprintf(event.subject, sizeof(event.subject), "%s", subject);
	va_start(args, format);
	vsnprintf(event.what, sizeof(event.what), format, args);
	va_end(args);
	for (size_t i = 0; i < SUBSCRIBERS_MAX; i++)
		if (daemon->subscribers[i].cb)
			daemon->subscribers[i].cb(daemon->subscribers[i].arg, &event);
}

int daemon_subscribe(struct daemon *daemon, daemon_event_cb cb, void *arg)
{
	for (size_t i = 0; i < SUBSCRIBERS_MAX; i++) {
		if (daemon->subscribers[i].cb)
			continue;
		daemon->subscribers[i] = (struct subscriber){.cb = cb, .arg = arg};
		return 0;
	}
	return -ENOSPC;
}

void daemon_unsubscribe(struct daemon *daemon, daemon_event_cb cb, void *arg)
{
	for (size_t i = 0; i < SUBSCRIBERS_MAX; i++)
		if (daemon->subscribers[i].cb == cb && daemon->subscribers[i].arg == arg)
			daemon->subscribers[i].cb = NULL;
}
