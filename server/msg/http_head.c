/* Heads as values: fields looked up, added, written out. */
#include "msg/http_line.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

void http_head_init(struct http_head *head, enum http_kind kind)
{
	memset(head, 0, offsetof(struct http_head, fields));
	head->kind = kind;
	head->minor = 1;
	head->field_count = 0;
	buf_init(&head->text, HTTP_HEAD_MAX + HTTP_HEAD_OWN);
	head->framing = HTTP_NO_BODY;
	head->content_length = 0;
	head->keep_alive = head->upgrade = head->expect_continue = false;
}

void http_head_done(struct http_head *head)
{
	buf_done(&head->text);
	head->field_count = 0;
}

void http_head_clear(struct http_head *head)
{
	struct buf text = head->text;

	buf_clear(&text);
	http_head_init(head, head->kind);
	head->text = text;
}

/* Most names differ in their first letter already. */
static bool is_name(const struct http_head *head, uint32_t i, const char *name)
{
	const char *here = http_text(head, head->fields[i].name);

	return ((here[0] ^ name[0]) & ~0x20) == 0 && strcasecmp(here, name) == 0;
}

const char *http_field(const struct http_head *head, const char *name)
{
	for (uint32_t i = 0; i < head->field_count; i++)
		if (is_name(head, i, name))
			return http_text(head, head->fields[i].value);
	return NULL;
}

static bool list_has_token(const char *list, const char *token)
{
	size_t len = strlen(token);

	while (*list) {
		list += strspn(list, " \t,");
		size_t n = strcspn(list, " \t,;");

		if (n == len && strncasecmp(list, token, len) == 0)
			return true;
		list += n;
		list += strcspn(list, ",");
	}
	return false;
}

bool http_field_has_token(const struct http_head *head, const char *name, const char *token)
{
	for (uint32_t i = 0; i < head->field_count; i++)
		if (is_name(head, i, name) &&
		    list_has_token(http_text(head, head->fields[i].value), token))
			return true;
	return false;
}

int http_field_add(struct http_head *head, const char *name, const char *value)
{
	struct http_field field;
	int r;

	if (head->field_count == sizeof(head->fields) / sizeof(head->fields[0]))
		return -ENOBUFS;
	field.name = (uint32_t)buf_len(&head->text);
	r = buf_append(&head->text, name, strlen(name) + 1);
	if (r < 0)
		return r;
	field.value = (uint32_t)buf_len(&head->text);
	r = buf_append(&head->text, value, strlen(value) + 1);
	if (r < 0)
		return r;
	head->fields[head->field_count++] = field;
	return 0;
}

void http_field_remove(struct http_head *head, const char *name)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < head->field_count; i++)
		if (strcasecmp(http_text(head, head->fields[i].name), name) != 0)
			head->fields[kept++] = head->fields[i];
	head->field_count = kept;
}

static bool is_connection_field(const char *name)
{
	static const char *const names[] = {
		"connection", "keep-alive", "transfer-encoding", "te",
		"trailer",    "upgrade",    "proxy-connection",	 "http2-settings"};

	if (!strchr("chktupCHKTUP", name[0]))
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcasecmp(name, names[i]) == 0)
			return true;
	return strncasecmp(name, "proxy-auth", 10) == 0;
}

bool http_field_may_trail(const struct http_head *head, const char *name)
{
	static const char *const names[] = {"age",
					    "authorization",
					    "cache-control",
					    "content-encoding",
					    "content-length",
					    "content-range",
					    "content-type",
					    "cookie",
					    "date",
					    "expect",
					    "expires",
					    "host",
					    "if-match",
					    "if-none-match",
					    "if-modified-since",
					    "if-range",
					    "if-unmodified-since",
					    "location",
					    "max-forwards",
					    "pragma",
					    "range",
					    "retry-after",
					    "set-cookie",
					    "vary",
					    "via",
					    "warning",
					    "www-authenticate"};

	if (http_field_is_hop_by_hop(head, name))
		return false;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcasecmp(name, names[i]) == 0)
			return false;
	return true;
}

/* Does Connection name anything but the two usual options? Then each field is asked for. */
static bool connection_names_fields(const struct http_head *head)
{
	for (uint32_t i = 0; i < head->field_count; i++) {
		const char *value;

		if (!is_name(head, i, "connection"))
			continue;
		value = http_text(head, head->fields[i].value);
		if (strcasecmp(value, "keep-alive") != 0 && strcasecmp(value, "close") != 0)
			return true;
	}
	return false;
}

/* Does Connection name this field? What carries the framing and the target is for every
 * recipient, whatever Connection says: without it a body would be read as the next message. */
static bool is_named(const struct http_head *head, const char *name)
{
	return strcasecmp(name, "content-length") != 0 && strcasecmp(name, "host") != 0 &&
	       http_field_has_token(head, "connection", name);
}

void http_drop_named(struct http_head *head)
{
	uint32_t kept = 0;

	if (!connection_names_fields(head))
		return;
	for (uint32_t i = 0; i < head->field_count; i++) {
		const char *name = http_text(head, head->fields[i].name);

		if (is_connection_field(name) || !is_named(head, name))
			head->fields[kept++] = head->fields[i];
	}
	head->field_count = kept;
}

bool http_field_is_hop_by_hop(const struct http_head *head, const char *name)
{
	return is_connection_field(name) || is_named(head, name);
}

/* One element of the list: "name" or "name/version". */
static int add_protocol(struct buf *out, const char *at, size_t len)
{
	int r = 0;

	while (len && (at[len - 1] == ' ' || at[len - 1] == '\t'))
		len--;
	if (!len || (len == 3 && strncasecmp(at, "h2c", 3) == 0))
		return 0;
	if (buf_len(out))
		r = buf_append(out, ", ", 2);
	return r == 0 ? buf_append(out, at, len) : r;
}

bool http_upgrade_of(const struct http_head *head, char *ret, size_t size)
{
	struct buf list;
	int r = 0;

	buf_init(&list, size - 1);
	for (uint32_t i = 0; i < head->field_count; i++) {
		const char *at = http_text(head, head->fields[i].value);

		if (!is_name(head, i, "upgrade"))
			continue;
		while (*(at += strspn(at, " \t,")) && r == 0) {
			size_t len = strcspn(at, ",");

			r = add_protocol(&list, at, len);
			at += len;
		}
	}
	memcpy(ret, buf_bytes(&list), buf_len(&list));
	ret[r == 0 ? buf_len(&list) : 0] = '\0';
	buf_done(&list);
	return ret[0];
}

bool http_method_is_safe(const char *method)
{
	return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 ||
	       strcmp(method, "OPTIONS") == 0 || strcmp(method, "TRACE") == 0;
}

bool http_method_is_idempotent(const char *method)
{
	return http_method_is_safe(method) || strcmp(method, "PUT") == 0 ||
	       strcmp(method, "DELETE") == 0;
}

static int append_text(struct buf *out, const char *text)
{
	return buf_append(out, text, strlen(text));
}

/* "Name: value\r\n" */
static int write_field(struct buf *out, const char *name, const char *value)
{
	size_t name_len = strlen(name), value_len = strlen(value);
	uint8_t *room = buf_room(out, name_len + value_len + 4);

	if (!room)
		return -ENOBUFS;
	memcpy(room, name, name_len);
	memcpy(room + name_len, ": ", 2);
	memcpy(room + name_len + 2, value, value_len);
	memcpy(room + name_len + 2 + value_len, "\r\n", 2);
	buf_commit(out, name_len + value_len + 4);
	return 0;
}

int http_write_fields(struct buf *out, const struct http_head *head)
{
	bool named = connection_names_fields(head);
	int r = 0;

	for (uint32_t i = 0; i < head->field_count && r == 0; i++) {
		const char *name = http_text(head, head->fields[i].name);

		if (is_connection_field(name) || (named && is_named(head, name)))
			continue;
		r = write_field(out, name, http_text(head, head->fields[i].value));
	}
	return r;
}

/* What is of the connection and meant for the next one too. */
static int write_connection(struct buf *out, const struct http_head *head)
{
	bool te = head->kind == HTTP_KIND_REQUEST && http_field_has_token(head, "te", "trailers");
	const char *trailer = head->framing == HTTP_CHUNKED ? http_field(head, "trailer") : NULL;
	char protocols[HTTP_UPGRADE_MAX] = "";
	int r = 0;

	if (head->upgrade)
		http_upgrade_of(head, protocols, sizeof(protocols));
	if (te)
		r = buf_printf(out, "TE: trailers\r\n");
	if (r == 0 && protocols[0])
		r = buf_printf(out, "Upgrade: %s\r\n", protocols);
	if (r == 0 && (te || protocols[0]))
		r = buf_printf(out, "Connection: %s%s%s\r\n", te ? "TE" : "",
			       te && protocols[0] ? ", " : "", protocols[0] ? "Upgrade" : "");
	return r == 0 && trailer ? write_field(out, "Trailer", trailer) : r;
}

static int write_rest(struct buf *out, const struct http_head *head, const char *extra)
{
	int r = http_write_fields(out, head);

	if (r == 0)
		r = write_connection(out, head);
	if (r == 0 && extra)
		r = append_text(out, extra);
	if (r == 0)
		r = buf_append(out, "\r\n", 2);
	return r;
}

int http_write_request_head(struct buf *out, const struct http_head *head, const char *target,
			    const char *extra)
{
	int r = append_text(out, http_method(head));

	if (r == 0)
		r = buf_append(out, " ", 1);
	if (r == 0)
		r = append_text(out, target);
	if (r == 0)
		r = append_text(out, " HTTP/1.1\r\n");
	return r == 0 ? write_rest(out, head, extra) : r;
}

int http_write_response_head(struct buf *out, const struct http_head *head, const char *extra)
{
	char line[] = "HTTP/1.1 000 ";
	int r;

	line[9] = (char)('0' + head->status / 100 % 10);
	line[10] = (char)('0' + head->status / 10 % 10);
	line[11] = (char)('0' + head->status % 10);
	r = buf_append(out, line, sizeof(line) - 1);
	if (r == 0)
		r = append_text(out, http_text(head, head->reason));
	if (r == 0)
		r = buf_append(out, "\r\n", 2);
	return r == 0 ? write_rest(out, head, extra) : r;
}

static int read_line(struct http_head *head, const char *line, size_t len)
{
	size_t at = buf_len(&head->text);
	const char *wrong;

	return buf_append(&head->text, line, len) < 0 || http_line_field(head, at, &wrong) < 0
		       ? -EINVAL
		       : 0;
}

int http_read_fields(struct http_head *head, const uint8_t *lines, size_t len)
{
	const char *at = (const char *)lines, *end = at + len;

	while (at < end) {
		const char *stop = memmem(at, (size_t)(end - at), "\r\n", 2);
		int r;

		if (!stop)
			return -EINVAL;
		r = read_line(head, at, (size_t)(stop - at));
		if (r < 0)
			return r;
		at = stop + 2;
	}
	return 0;
}
