#include "config/scan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 32, OBJECT_KEYS_MAX = 64 };

struct scan {
	const char *at, *end;
	int line;
	unsigned depth;
	char path[160];
	struct config_errors *errors;
};

struct seen {
	const char *text;
	size_t len;
	int line;
};

int errors_add(struct config_errors *errors, const char *path, int line, const char *format, ...)
{
	struct input_error *error = NULL;
	char text[sizeof(error->text)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (errors->count < sizeof(errors->items) / sizeof(errors->items[0]))
		error = &errors->items[errors->count];
	errors->count++;
	return input_error_set(error, path, line, "%s", text);
}

static int fail(struct scan *scan, const char *text)
{
	return errors_add(scan->errors, scan->path, scan->line, "%s", text);
}

/* To the end of a string that begins at p; the closing quote or end. */
static char *string_end(char *p, const char *end)
{
	for (p++; p < end && *p != '"' && *p != '\n'; p++)
		if (*p == '\\' && p + 1 < end)
			p++;
	return p;
}

static int blank_comments(char *text, size_t len, struct config_errors *errors)
{
	char *end = text + len;
	int line = 1;

	for (char *p = text; p < end; p++) {
		if (*p == '\n') {
			line++;
		} else if (*p == '"') {
			p = string_end(p, end);
			if (p < end && *p == '\n')
				line++;
		} else if (end - p > 1 && p[0] == '/' && p[1] == '/') {
			for (; p < end && *p != '\n'; p++)
				*p = ' ';
			line++;
		} else if (end - p > 1 && p[0] == '/' && p[1] == '*') {
			int start = line;

			p[0] = p[1] = ' ';
			for (p += 2; end - p > 1 && !(p[0] == '*' && p[1] == '/'); p++) {
				if (*p == '\n')
					line++;
				else
					*p = ' ';
			}
			if (end - p < 2)
				return errors_add(errors, "", start, "this comment has no end");
			p[0] = p[1] = ' ';
			p++;
		}
	}
	return 0;
}

static void skip_space(struct scan *scan)
{
	for (; scan->at < scan->end && strchr(" \t\r\n", *scan->at) && *scan->at; scan->at++)
		if (*scan->at == '\n')
			scan->line++;
}

static int peek(const struct scan *scan)
{
	return scan->at < scan->end ? (unsigned char)*scan->at : -1;
}

static bool is_digit(int c)
{
	return c >= '0' && c <= '9';
}

static bool is_hex(int c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static int scan_escape(struct scan *scan)
{
	int c;

	scan->at++;
	c = peek(scan);
	if (c <= 0 || !strchr("\"\\/bfnrtu", c))
		return fail(scan,
			    "a backslash in a string is followed by one of \" \\ / b f n r t u");
	if (c != 'u')
		return 0;
	if (scan->end - scan->at < 5)
		return fail(scan, "\\u is followed by four hexadecimal digits");
	for (int i = 1; i <= 4; i++)
		if (!is_hex((unsigned char)scan->at[i]))
			return fail(scan, "\\u is followed by four hexadecimal digits");
	if (!memcmp(scan->at + 1, "0000", 4))
		return fail(scan, "a string has no NUL (\\u0000)");
	scan->at += 4;
	return 0;
}

static int scan_string(struct scan *scan)
{
	for (scan->at++; peek(scan) != '"'; scan->at++) {
		int c = peek(scan);

		if (c < 0 || c == '\n')
			return fail(scan, "this string has no closing quote");
		if (c < 0x20)
			return fail(scan, "a string has no control characters; write \\t or \\u");
		if (c == '\\' && scan_escape(scan) < 0)
			return -EINVAL;
	}
	scan->at++;
	return 0;
}

static size_t skip_digits(struct scan *scan)
{
	const char *start = scan->at;

	while (is_digit(peek(scan)))
		scan->at++;
	return (size_t)(scan->at - start);
}

static int scan_number(struct scan *scan)
{
	const char *first;
	size_t digits;

	if (peek(scan) == '-')
		scan->at++;
	first = scan->at;
	digits = skip_digits(scan);
	if (!digits || (digits > 1 && *first == '0'))
		return fail(scan, "this is no number of JSON");
	if (peek(scan) == '.') {
		scan->at++;
		if (!skip_digits(scan))
			return fail(scan, "a decimal point is followed by digits");
	}
	if (peek(scan) == 'e' || peek(scan) == 'E') {
		scan->at++;
		if (peek(scan) == '+' || peek(scan) == '-')
			scan->at++;
		if (!skip_digits(scan))
			return fail(scan, "an exponent has digits");
	}
	return 0;
}

static int scan_word(struct scan *scan)
{
	static const char *const words[] = {"true", "false", "null"};

	for (size_t i = 0; i < 3; i++) {
		size_t len = strlen(words[i]);

		if ((size_t)(scan->end - scan->at) >= len && !memcmp(scan->at, words[i], len)) {
			scan->at += len;
			return 0;
		}
	}
	if (peek(scan) == '\'')
		return fail(scan, "strings are written in double quotes");
	if (peek(scan) < 0)
		return fail(scan, "the file ends where a value is expected");
	return fail(scan, "a value is expected: an object, a list, a string, a number, true, false "
			  "or null");
}

static int scan_value(struct scan *scan);

static size_t path_add_key(struct scan *scan, const char *key, size_t len)
{
	size_t old = strlen(scan->path);

	snprintf(scan->path + old, sizeof(scan->path) - old, "%s%.*s", old ? "." : "",
		 (int)(len < 64 ? len : 64), key);
	return old;
}

static size_t path_add_index(struct scan *scan, unsigned index)
{
	size_t old = strlen(scan->path);

	snprintf(scan->path + old, sizeof(scan->path) - old, "[%u]", index);
	return old;
}

/* Remember the key; a duplicate is said and scanning goes on. */
static int note_key(struct scan *scan, struct seen *seen, size_t *count, const char *key,
		    size_t len)
{
	for (size_t i = 0; i < *count; i++) {
		if (seen[i].len == len && !memcmp(seen[i].text, key, len)) {
			errors_add(scan->errors, scan->path, scan->line,
				   "this key stands twice; the first is in line %d", seen[i].line);
			return 0;
		}
	}
	if (*count == OBJECT_KEYS_MAX)
		return fail(scan, "too many keys in one object");
	seen[(*count)++] = (struct seen){key, len, scan->line};
	return 0;
}

static int scan_member(struct scan *scan, struct seen *seen, size_t *count)
{
	const char *key = scan->at + 1;
	size_t len, old;
	int r;

	if (peek(scan) == '\'')
		return fail(scan, "strings are written in double quotes");
	if (peek(scan) != '"')
		return fail(scan, "a key in double quotes is expected");
	r = scan_string(scan);
	if (r < 0)
		return r;
	len = (size_t)(scan->at - key) - 1;
	if (memchr(key, '\\', len))
		return fail(scan, "a key is written without escapes");
	old = path_add_key(scan, key, len);
	r = note_key(scan, seen, count, key, len);
	skip_space(scan);
	if (r == 0 && peek(scan) != ':')
		r = fail(scan, "a colon is expected after the key");
	if (r == 0) {
		scan->at++;
		r = scan_value(scan);
	}
	scan->path[old] = '\0';
	return r;
}

static int scan_object(struct scan *scan)
{
	struct seen seen[OBJECT_KEYS_MAX];
	size_t count = 0;
	int r;

	scan->at++;
	skip_space(scan);
	if (peek(scan) == '}') {
		scan->at++;
		return 0;
	}
	for (;;) {
		r = scan_member(scan, seen, &count);
		if (r < 0)
			return r;
		skip_space(scan);
		if (peek(scan) == '}') {
			scan->at++;
			return 0;
		}
		if (peek(scan) != ',')
			return fail(scan, "a comma or } is expected");
		scan->at++;
		skip_space(scan);
		if (peek(scan) == '}')
			return fail(scan, "there is no comma after the last key");
	}
}

static int scan_list(struct scan *scan)
{
	scan->at++;
	skip_space(scan);
	if (peek(scan) == ']') {
		scan->at++;
		return 0;
	}
	for (unsigned index = 0;; index++) {
		size_t old = path_add_index(scan, index);
		int r = scan_value(scan);

		scan->path[old] = '\0';
		if (r < 0)
			return r;
		skip_space(scan);
		if (peek(scan) == ']') {
			scan->at++;
			return 0;
		}
		if (peek(scan) != ',')
			return fail(scan, "a comma or ] is expected");
		scan->at++;
		skip_space(scan);
		if (peek(scan) == ']')
			return fail(scan, "there is no comma after the last item");
	}
}

static int scan_value(struct scan *scan)
{
	int c, r;

	skip_space(scan);
	c = peek(scan);
	if (c == '"')
		return scan_string(scan);
	if (c == '-' || is_digit(c))
		return scan_number(scan);
	if (c != '{' && c != '[')
		return scan_word(scan);
	if (scan->depth == DEPTH_MAX)
		return fail(scan, "nested too deeply: at most 32 levels");
	scan->depth++;
	r = c == '{' ? scan_object(scan) : scan_list(scan);
	scan->depth--;
	return r;
}

int config_scan(char *text, size_t len, struct config_errors *errors)
{
	struct scan scan = {.at = text, .end = text + len, .line = 1, .errors = errors};
	size_t before = errors->count;

	if (blank_comments(text, len, errors) < 0)
		return -EINVAL;
	skip_space(&scan);
	if (peek(&scan) != '{')
		return fail(&scan, "the configuration is one object: { ... }");
	if (scan_value(&scan) < 0)
		return -EINVAL;
	skip_space(&scan);
	if (scan.at != scan.end)
		return fail(&scan, "nothing may follow the closing }");
	return errors->count > before ? -EINVAL : 0;
}
