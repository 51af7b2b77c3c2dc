/*
 * Where a request goes, as its target and its Host say (RFC 9110, 4.2 and 7.2; RFC 9112, 3.2).
 * Pure.
 */
#pragma once

#include "msg/http_msg.h"

struct http_authority {
	/* A name in lower case without a dot at its end, an IPv4 address, or an IPv6 address in
	 * brackets, in the one way to write it (RFC 5952). */
	char host[NAME_TEXT_MAX];
	uint16_t port; /* 0: none was named */
};

/* "name", "name:8080", "192.0.2.1", "[2001:db8::1]:80". -EINVAL for anything else: no host, a
 * character that no name has, an empty label, a port that is none. */
int http_read_authority(const char *text, struct http_authority *ret_authority)
	__attribute__((warn_unused_result));

enum http_target_form { HTTP_ORIGIN_FORM, HTTP_ABSOLUTE_HTTP, HTTP_ABSOLUTE_HTTPS };

/* Of a head whose target is "http://HOST/PATH" the target becomes PATH and Host becomes HOST: the
 * Host that came counts for nothing (RFC 9112, 3.2.2). "*" is for OPTIONS alone. -EINVAL: neither
 * form, another scheme, user information; -ENOBUFS, -ENOMEM. */
int http_to_origin_form(struct http_head *head, enum http_target_form *ret_form)
	__attribute__((warn_unused_result));

/* Count Max-Forwards down, of OPTIONS and TRACE alone (RFC 9110, 7.6.2). 1: go on; 0: it is not to
 * be forwarded; -EINVAL: not a number, or several. */
int http_count_forward(struct http_head *head) __attribute__((warn_unused_result));
