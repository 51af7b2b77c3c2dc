#include "msg/http_target.h"

#include "base/ip.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { AUTHORITY_MAX = NAME_TEXT_MAX + 8 };

/* --- host and port --- */

/* Digits up to 65535; an empty one is none (RFC 3986, 3.2.3). */
static int read_port(const char *text, uint16_t *ret_port)
{
	size_t digits = strspn(text, "0123456789");
	unsigned long port = strtoul(text, NULL, 10);

	if (text[digits] || digits > 5 || port > UINT16_MAX || (digits && !port))
		return -EINVAL;
	*ret_port = (uint16_t)port;
	return 0;
}

static int read_name(const char *text, size_t len, char *ret_host)
{
	if (len > 1 && text[len - 1] == '.')
		len--; /* a name from the root is the same name */
	if (!len || len >= NAME_TEXT_MAX)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		bool label_begins = !i || text[i - 1] == '.';

		if (!isalnum((unsigned char)text[i]) && !strchr("-._~", text[i]))
			return -EINVAL;
		if (text[i] == '.' && (label_begins || i + 1 == len))
			return -EINVAL;
		ret_host[i] = (char)tolower((unsigned char)text[i]);
	}
	ret_host[len] = '\0';
	return 0;
}

static int read_literal(const char *text, size_t len, char *ret_host)
{
	char inside[IP_TEXT_MAX];
	struct ip ip;

	if (len >= sizeof(inside))
		return -EINVAL;
	memcpy(inside, text, len);
	inside[len] = '\0';
	if (!strchr(inside, ':') || ip_parse(inside, &ip) < 0)
		return -EINVAL;
	ip_format(&ip, inside);
	snprintf(ret_host, NAME_TEXT_MAX, ip_is_v4(&ip) ? "%s" : "[%s]", inside);
	return 0;
}

int http_read_authority(const char *text, struct http_authority *ret_authority)
{
	const char *end;
	int r;

	*ret_authority = (struct http_authority){0};
	if (*text == '[') {
		end = strchr(text, ']');
		r = end ? read_literal(text + 1, (size_t)(end - text) - 1, ret_authority->host)
			: -EINVAL;
		if (r < 0)
			return r;
		end++;
	} else {
		end = text + strcspn(text, ":");
		r = read_name(text, (size_t)(end - text), ret_authority->host);
		if (r < 0)
			return r;
	}
	if (!*end)
		return 0;
	return *end == ':' ? read_port(end + 1, &ret_authority->port) : -EINVAL;
}

/* --- targets --- */

static int set_target(struct http_head *head, const char *slash, const char *rest)
{
	size_t at = buf_len(&head->text);
	char path[HTTP_TARGET_MAX + 2];
	int n = snprintf(path, sizeof(path), "%s%s", slash, rest);
	int r = buf_append(&head->text, path, (size_t)n + 1);

	if (r == 0)
		head->target = (uint32_t)at;
	return r;
}

/* What follows the authority. An empty path is "/", and "*" for OPTIONS (RFC 9112, 3.2.4). */
static int take_path(struct http_head *head, uint32_t path)
{
	const char *text = http_text(head, path);

	if (*text == '/') {
		head->target = path;
		return 0;
	}
	if (!*text && strcmp(http_method(head), "OPTIONS") == 0)
		return set_target(head, "*", "");
	return set_target(head, "/", text);
}

/* `skip`: the scheme. An "@" is a trick on who reads it (RFC 9110, 4.2.4), and no name has one. */
static int split_absolute(struct http_head *head, size_t skip)
{
	const char *host = http_target(head) + skip;
	struct http_authority authority;
	char text[AUTHORITY_MAX];
	size_t len = strcspn(host, "/?");
	int r;

	if (len >= sizeof(text))
		return -EINVAL;
	memcpy(text, host, len);
	text[len] = '\0';
	r = http_read_authority(text, &authority);
	if (r == 0)
		r = take_path(head, head->target + (uint32_t)(skip + len));
	if (r < 0)
		return r;
	http_field_remove(head, "host");
	return http_field_add(head, "Host", text);
}

int http_to_origin_form(struct http_head *head, enum http_target_form *ret_form)
{
	const char *target = http_target(head);

	*ret_form = HTTP_ORIGIN_FORM;
	if (target[0] == '/')
		return 0;
	if (strcmp(target, "*") == 0)
		return strcmp(http_method(head), "OPTIONS") == 0 ? 0 : -EINVAL;
	if (strncasecmp(target, "http://", 7) == 0) {
		*ret_form = HTTP_ABSOLUTE_HTTP;
		return split_absolute(head, 7);
	}
	if (strncasecmp(target, "https://", 8) == 0) {
		*ret_form = HTTP_ABSOLUTE_HTTPS;
		return split_absolute(head, 8);
	}
	return -EINVAL;
}

/* --- Max-Forwards --- */

static unsigned count_fields(const struct http_head *head, const char *name)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < head->field_count; i++)
		count += strcasecmp(http_text(head, head->fields[i].name), name) == 0;
	return count;
}

int http_count_forward(struct http_head *head)
{
	const char *field = http_field(head, "max-forwards");
	char text[24];
	size_t digits;
	int r;

	if (!field ||
	    (strcmp(http_method(head), "OPTIONS") != 0 && strcmp(http_method(head), "TRACE") != 0))
		return 1;
	digits = strspn(field, "0123456789");
	if (!digits || digits > 18 || field[digits] || count_fields(head, "max-forwards") != 1)
		return -EINVAL;
	if (!strtoull(field, NULL, 10))
		return 0;
	snprintf(text, sizeof(text), "%llu", strtoull(field, NULL, 10) - 1);
	http_field_remove(head, "max-forwards");
	r = http_field_add(head, "Max-Forwards", text);
	return r < 0 ? r : 1;
}
