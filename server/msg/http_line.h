/*
 * One line of a head, strictly (RFC 9112, 2 to 5); for the files of msg alone.
 *
 * A line is parsed where it lies: it begins at `at` in the head's text and ends with the text,
 * without its CRLF. What is not its part is cut out with NULs. On failure the head is of no use.
 */
#pragma once

#include "msg/http_msg.h"

/* "GET /x HTTP/1.1" into method, target and minor. -EPROTO; -EPROTONOSUPPORT: another version. */
int http_line_request(struct http_head *head, size_t at, const char **ret_wrong)
	__attribute__((warn_unused_result));
/* "HTTP/1.1 200 OK" into minor, status and reason. -EPROTO. */
int http_line_status(struct http_head *head, size_t at, const char **ret_wrong)
	__attribute__((warn_unused_result));
/* "Name: value" into one more field. -EPROTO; -EMSGSIZE: too many. */
int http_line_field(struct http_head *head, size_t at, const char **ret_wrong)
	__attribute__((warn_unused_result));
