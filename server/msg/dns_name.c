#include "msg/dns_msg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static uint8_t lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* One character of a label, which may be escaped; advances *text. Negative: bad escape. */
static int read_char(const char **text)
{
	const char *p = *text;
	int value;

	if (*p != '\\') {
		*text = p + 1;
		return (uint8_t)*p;
	}
	if (!p[1])
		return -EINVAL;
	if (!is_digit(p[1])) {
		*text = p + 2;
		return (uint8_t)p[1];
	}
	if (!is_digit(p[2]) || !is_digit(p[3]))
		return -EINVAL;
	value = (p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0');
	*text = p + 4;
	return value > 255 ? -EINVAL : value;
}

/* One label up to its dot or the end; 0 or negative errno. */
static int read_label(const char **text, struct dns_name *name)
{
	unsigned at = name->len, len = 0;

	while (**text && **text != '.') {
		int c = read_char(text);

		if (c < 0)
			return c;
		/* one octet for the length before, one for the root after */
		if (++len > DNS_LABEL_MAX || at + 1 + len + 1 > DNS_NAME_WIRE_MAX)
			return -ENAMETOOLONG;
		name->wire[at + len] = (uint8_t)c;
	}
	if (!len)
		return -EINVAL;
	name->wire[at] = (uint8_t)len;
	name->len = (uint8_t)(at + 1 + len);
	if (**text == '.')
		(*text)++;
	return 0;
}

int dns_name_from_text(const char *text, struct dns_name *ret_name)
{
	struct dns_name name = {0};

	if (!*text)
		return -EINVAL;
	if (!strcmp(text, "."))
		text++;
	while (*text) {
		int r = read_label(&text, &name);

		if (r < 0)
			return r;
	}
	name.wire[name.len++] = 0;
	*ret_name = name;
	return 0;
}

static bool is_plain(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_';
}

/* How many characters were written, 0 when they do not fit. */
static size_t write_char(char *out, size_t room, uint8_t c)
{
	if (is_plain(c)) {
		if (room < 1)
			return 0;
		*out = (char)c;
		return 1;
	}
	if (room < 5) /* snprintf writes its NUL too */
		return 0;
	return (size_t)snprintf(out, room, "\\%03u", c);
}

int dns_name_to_text(const struct dns_name *name, char *buffer, size_t size)
{
	size_t at = 0, used = 0;

	if (size < 2)
		return -ENAMETOOLONG;
	while (at < name->len && name->wire[at]) {
		size_t end = at + 1 + name->wire[at];

		if (at && used + 1 >= size)
			return -ENAMETOOLONG;
		if (at)
			buffer[used++] = '.';
		for (at++; at < end; at++) {
			size_t n = write_char(buffer + used, size - used - 1, name->wire[at]);

			if (!n)
				return -ENAMETOOLONG;
			used += n;
		}
	}
	if (!used)
		buffer[used++] = '.';
	buffer[used] = 0;
	return 0;
}

/* Length octets are below 64 and so never letters: the whole wire form can be lowered. */
void dns_name_lower(struct dns_name *name)
{
	for (unsigned i = 0; i < name->len; i++)
		name->wire[i] = lower(name->wire[i]);
}

bool dns_name_equal(const struct dns_name *a, const struct dns_name *b)
{
	if (a->len != b->len)
		return false;
	for (unsigned i = 0; i < a->len; i++)
		if (lower(a->wire[i]) != lower(b->wire[i]))
			return false;
	return true;
}

unsigned dns_name_labels(const struct dns_name *name)
{
	unsigned labels = 0;

	for (unsigned at = 0; at < name->len && name->wire[at]; at += 1u + name->wire[at])
		labels++;
	return labels;
}
