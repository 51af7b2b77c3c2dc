#include "msg/http_line.h"

#include <errno.h>
#include <string.h>

enum { TOKEN = 1, VALUE = 2, TARGET = 4 };

/* What a byte may be part of: a token (RFC 9110, 5.6.2); a field's value or a reason (5.5), where
 * a control character may mean a line's end to somebody else; a request target, as lenient as
 * apps need it, but never with a control character, a space or a fragment. */
static const uint8_t part_of[256] = {
	['\t'] = VALUE,
	[' '] = VALUE,
	['!'] = TOKEN | VALUE | TARGET,
	['"'] = VALUE | TARGET,
	['#'] = TOKEN | VALUE,
	['$' ... '\''] = TOKEN | VALUE | TARGET,
	['(' ... ')'] = VALUE | TARGET,
	['*' ... '+'] = TOKEN | VALUE | TARGET,
	[','] = VALUE | TARGET,
	['-' ... '.'] = TOKEN | VALUE | TARGET,
	['/'] = VALUE | TARGET,
	['0' ... '9'] = TOKEN | VALUE | TARGET,
	[':' ... '@'] = VALUE | TARGET,
	['A' ... 'Z'] = TOKEN | VALUE | TARGET,
	['[' ... ']'] = VALUE | TARGET,
	['^' ... 'z'] = TOKEN | VALUE | TARGET,
	['{'] = VALUE | TARGET,
	['|'] = TOKEN | VALUE | TARGET,
	['}'] = VALUE | TARGET,
	['~'] = TOKEN | VALUE | TARGET,
	[0x80 ... 0xff] = VALUE | TARGET,
};

static bool is_all(const uint8_t *text, size_t len, uint8_t part)
{
	for (size_t i = 0; i < len; i++)
		if (!(part_of[text[i]] & part))
			return false;
	return true;
}

static uint8_t *text_at(struct http_head *head, size_t at)
{
	return head->text.data + head->text.start + at;
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

/* "HTTP/1.0" and "HTTP/1.1" are ours; other numbers are somebody's. */
static int read_version(const uint8_t *text, size_t len, uint8_t *ret_minor)
{
	if (len != 8 || memcmp(text, "HTTP/", 5) != 0 || !is_digit(text[5]) || text[6] != '.' ||
	    !is_digit(text[7]))
		return -EPROTO;
	if (text[5] != '1' || text[7] > '1')
		return -EPROTONOSUPPORT;
	*ret_minor = (uint8_t)(text[7] - '0');
	return 0;
}

/* The line's text is over after `len` bytes. Its CR left room for the NUL. */
static int end_line(struct http_head *head, size_t at, size_t len)
{
	head->text.len = at + len;
	return buf_append(&head->text, "", 1);
}

int http_line_request(struct http_head *head, size_t at, const char **ret_wrong)
{
	uint8_t *line = text_at(head, at), *target, *version;
	size_t len = buf_len(&head->text) - at;
	int r;

	*ret_wrong = "not a request line";
	target = memchr(line, ' ', len);
	if (!target || target == line || !is_all(line, (size_t)(target - line), TOKEN))
		return -EPROTO;
	*target++ = '\0';
	version = memchr(target, ' ', len - (size_t)(target - line));
	if (!version || version == target)
		return -EPROTO;
	*version++ = '\0';
	r = read_version(version, len - (size_t)(version - line), &head->minor);
	if (r == -EPROTONOSUPPORT)
		*ret_wrong = "HTTP version not supported";
	if (r < 0)
		return r;
	*ret_wrong = "characters that no request target has";
	if (!is_all(target, (size_t)(version - 1 - target), TARGET))
		return -EPROTO;
	head->method = (uint32_t)at;
	head->target = (uint32_t)(at + (size_t)(target - line));
	*ret_wrong = "head too large";
	return end_line(head, at, (size_t)(version - line)) < 0 ? -EMSGSIZE : 0;
}

int http_line_status(struct http_head *head, size_t at, const char **ret_wrong)
{
	const uint8_t *line = text_at(head, at);
	size_t len = buf_len(&head->text) - at;

	*ret_wrong = "not a status line";
	if (len < 12 || line[8] != ' ' || !is_digit(line[9]) || !is_digit(line[10]) ||
	    !is_digit(line[11]) || line[9] == '0')
		return -EPROTO;
	/* The space is due even where no reason follows; many leave it out. */
	if (len > 12 && (line[12] != ' ' || !is_all(line + 13, len - 13, VALUE)))
		return -EPROTO;
	if (read_version(line, 8, &head->minor) < 0) {
		*ret_wrong = "HTTP version not supported";
		return -EPROTO;
	}
	head->status = (uint16_t)((line[9] - '0') * 100 + (line[10] - '0') * 10 + line[11] - '0');
	head->reason = (uint32_t)(at + (len > 12 ? 13 : 12));
	*ret_wrong = "head too large";
	return end_line(head, at, len) < 0 ? -EMSGSIZE : 0;
}

static bool is_blank(uint8_t c)
{
	return c == ' ' || c == '\t';
}

int http_line_field(struct http_head *head, size_t at, const char **ret_wrong)
{
	uint8_t *line = text_at(head, at), *colon;
	size_t len = buf_len(&head->text) - at, value;

	*ret_wrong = "folded header line";
	if (len && is_blank(line[0]))
		return -EPROTO;
	*ret_wrong = "a header line without a colon";
	colon = memchr(line, ':', len);
	if (!colon)
		return -EPROTO;
	/* A space before the colon too: others may see another field there (RFC 9112, 5.1). */
	*ret_wrong = "field name is not a token";
	if (colon == line || !is_all(line, (size_t)(colon - line), TOKEN))
		return -EPROTO;
	value = (size_t)(colon - line) + 1;
	*ret_wrong = "control characters in a field";
	if (!is_all(line + value, len - value, VALUE))
		return -EPROTO;
	*ret_wrong = "too many fields";
	if (head->field_count == sizeof(head->fields) / sizeof(head->fields[0]))
		return -EMSGSIZE;
	*colon = '\0';
	while (value < len && is_blank(line[value]))
		value++;
	while (len > value && is_blank(line[len - 1]))
		len--;
	head->fields[head->field_count++] =
		(struct http_field){.name = (uint32_t)at, .value = (uint32_t)(at + value)};
	*ret_wrong = "head too large";
	return end_line(head, at, len) < 0 ? -EMSGSIZE : 0;
}
