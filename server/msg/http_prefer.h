/*
 * What an app prefers (Prefer, RFC 7240), as far as it is known here. Pure.
 */
#pragma once

#include "msg/http_msg.h"

struct http_preferences {
	bool respond_async;
	bool has_wait;
	uint32_t wait; /* seconds; what is larger than it can hold is UINT32_MAX */
};

/* Of all Prefer fields, each a list. Of a preference that comes twice the first counts; one that is
 * unknown, or not well-formed, is as if it were not there. */
void http_read_preferences(const struct http_head *head, struct http_preferences *ret_preferences);
