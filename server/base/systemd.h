/*
 * What a service manager is told and gives, by systemd's protocol and without its library:
 * sd_notify(3), sd_pid_notify_with_fds(3), sd_listen_fds(3). Without a manager nothing happens.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Does a manager want to be told? */
bool systemd_is_there(void);
/* "READY=1", "STOPPING=1" ...; fd is put into the message, -1: none. Borrowed. A manager that
 * cannot be reached is logged. */
void systemd_notify(const char *state, int fd);

/* Keep fd over a restart under this name; the manager keeps one of several for the same socket. */
void systemd_keep(const char *name, int fd);
void systemd_forget(const char *name);

#define SYSTEMD_NAME_MAX 64
struct systemd_descriptor {
	char name[SYSTEMD_NAME_MAX];
	int fd; /* the caller's now, close-on-exec */
};
/* What was kept, or passed at start; once, the environment is cleared. How many were written. */
size_t systemd_received(struct systemd_descriptor *ret_descriptors, size_t max);
