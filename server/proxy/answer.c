#include "proxy/internal.h"

#include <stdio.h>
#include <string.h>

#define ALLOW "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE\r\n"

static const char *phrase_of(int status)
{
	switch (status) {
	case 202:
		return "Accepted";
	case 400:
		return "Bad Request";
	case 403:
		return "Forbidden";
	case 405:
		return "Method Not Allowed";
	case 408:
		return "Request Timeout";
	case 413:
		return "Content Too Large";
	case 414:
		return "URI Too Long";
	case 417:
		return "Expectation Failed";
	case 421:
		return "Misdirected Request";
	case 422:
		return "Unprocessable Content";
	case 431:
		return "Request Header Fields Too Large";
	case 501:
		return "Not Implemented";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	case 504:
		return "Gateway Timeout";
	case 505:
		return "HTTP Version Not Supported";
	case 507:
		return "Insufficient Storage";
	default:
		return "Error";
	}
}

/* A detail may carry a peer's words. */
static int append_json_text(struct buf *out, const char *text)
{
	int r = buf_append(out, "\"", 1);

	for (; *text && r == 0; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			r = buf_printf(out, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			r = buf_printf(out, "\\u%04x", c);
		else
			r = buf_append(out, text, 1);
	}
	return r == 0 ? buf_append(out, "\"", 1) : r;
}

static int write_problem(struct buf *body, const struct exchange_answer *answer)
{
	int r = buf_printf(body,
			   "{\"type\":\"about:blank\",\"status\":%d,\"title\":", answer->status);

	if (r == 0)
		r = append_json_text(body, answer->title);
	if (r == 0)
		r = buf_printf(body, ",\"detail\":");
	if (r == 0)
		r = append_json_text(body, answer->detail);
	if (r == 0 && answer->id)
		r = buf_printf(body, ",\"id\":\"%s\"", answer->id);
	return r == 0 ? buf_printf(body, "}\n") : r;
}

static int write_fields(struct buf *out, const struct exchange_answer *answer, const char *date,
			size_t body_len, bool keep_alive)
{
	int r = buf_printf(out,
			   "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
			   "Cache-Control: no-store\r\n%s",
			   answer->status, phrase_of(answer->status),
			   answer->status < 400 ? "application/json" : "application/problem+json",
			   body_len, date);

	if (r == 0 && answer->retry_after)
		r = buf_printf(out, "Retry-After: %u\r\n", answer->retry_after);
	if (r == 0 && answer->id)
		r = buf_printf(out, "Location: http://holdfast.internal/v1/requests/%s\r\n",
			       answer->id);
	if (r == 0 && answer->preference_applied)
		r = buf_printf(out, "Preference-Applied: respond-async\r\n");
	if (r == 0 && answer->status == 405)
		r = buf_printf(out, ALLOW);
	return r == 0 ? buf_printf(out, "Connection: %s\r\n\r\n",
				   keep_alive ? "keep-alive" : "close")
		      : r;
}

int answer_write(struct buf *out, const struct exchange_answer *answer, const char *date,
		 bool head_only, bool keep_alive)
{
	struct buf body;
	int r;

	buf_init(&body, 4096);
	r = write_problem(&body, answer);
	if (r == 0)
		r = write_fields(out, answer, date, buf_len(&body), keep_alive);
	if (r == 0 && !head_only)
		r = buf_append(out, buf_bytes(&body), buf_len(&body));
	buf_done(&body);
	return r;
}

int answer_write_options(struct buf *out, const char *date)
{
	return buf_printf(out,
			  "HTTP/1.1 200 OK\r\n" ALLOW "Content-Length: 0\r\n%s"
			  "Connection: close\r\n\r\n",
			  date);
}

int answer_write_trace(struct buf *out, struct http_head *request, const char *date)
{
	struct buf body;
	int r;

	/* For its sender and the origin alone. */
	http_field_remove(request, "authorization");
	http_field_remove(request, "cookie");
	buf_init(&body, 2 * HTTP_HEAD_MAX);
	r = http_write_request_head(&body, request, http_target(request), NULL);
	if (r == 0)
		r = buf_printf(out,
			       "HTTP/1.1 200 OK\r\nContent-Type: message/http\r\n"
			       "Content-Length: %zu\r\n%sConnection: close\r\n\r\n",
			       buf_len(&body), date);
	if (r == 0)
		r = buf_append(out, buf_bytes(&body), buf_len(&body));
	buf_done(&body);
	return r;
}
