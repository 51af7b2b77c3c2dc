/*
 * What a user got wrong, in words that help: which key, which line, what is allowed.
 *
 * Functions return 0 or a negative errno; one that reads a user's input also fills
 * a struct input_error, so that the message can be shown where the input came from.
 */
#pragma once

#include <stdarg.h>

struct input_error {
	char path[160]; /* key path, "links[0].probe.url", or "" */
	int line;	/* line of a syntax error, 1-based; 0 where it has no meaning */
	char text[320]; /* one sentence: what is wrong and what is allowed */
};

/* Fill the error and return -EINVAL, so that a caller can return the call. err may be NULL. */
int input_error_set(struct input_error *err, const char *path, int line, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
