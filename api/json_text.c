/*
 * JSON in, strictly (RFC 8259). json-c is lenient where it hurts: single quotes, NaN, and the
 * last of two equal keys wins. The grammar is checked here first, and members are counted: an
 * object that has fewer than the text had keys twice.
 */
#include "internal.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

struct scan {
	const char *at, *end;
	int line;
	size_t members;
};

static void skip_blank(struct scan *s)
{
	for (; s->at < s->end && memchr(" \t\r\n", *s->at, 4); s->at++)
		if (*s->at == '\n')
			s->line++;
}

static bool take(struct scan *s, char c)
{
	if (s->at == s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

static bool scan_string(struct scan *s)
{
	if (!take(s, '"'))
		return false;
	while (s->at < s->end && *s->at != '"') {
		if ((unsigned char)*s->at < 0x20)
			return false;
		if (*s->at++ != '\\')
			continue;
		if (s->at == s->end)
			return false;
		if (*s->at == 'u') {
			for (int i = 1; i <= 4; i++)
				if (s->end - s->at <= i || !isxdigit((unsigned char)s->at[i]))
					return false;
			s->at += 4;
		} else if (!memchr("\"\\/bfnrt", *s->at, 8)) {
			return false;
		}
		s->at++;
	}
	return take(s, '"');
}

static bool scan_digits(struct scan *s)
{
	const char *start = s->at;

	while (s->at < s->end && isdigit((unsigned char)*s->at))
		s->at++;
	return s->at > start;
}

static bool scan_number(struct scan *s)
{
	take(s, '-');
	if (!take(s, '0') && !scan_digits(s))
		return false;
	if (take(s, '.') && !scan_digits(s))
		return false;
	if (take(s, 'e') || take(s, 'E')) {
		if (!take(s, '+'))
			take(s, '-');
		return scan_digits(s);
	}
	return true;
}

static bool scan_word(struct scan *s, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0)
		return false;
	s->at += len;
	return true;
}

static bool scan_value(struct scan *s, int depth);

static bool scan_items(struct scan *s, int depth, char close, bool named)
{
	skip_blank(s);
	if (take(s, close))
		return true;
	do {
		skip_blank(s);
		if (named) {
			if (!scan_string(s))
				return false;
			s->members++;
			skip_blank(s);
			if (!take(s, ':'))
				return false;
		}
		if (!scan_value(s, depth))
			return false;
	} while (take(s, ','));
	return take(s, close);
}

static bool scan_value(struct scan *s, int depth)
{
	bool good;

	skip_blank(s);
	if (depth > API_JSON_DEPTH || s->at == s->end)
		return false;
	if (take(s, '{'))
		good = scan_items(s, depth + 1, '}', true);
	else if (take(s, '['))
		good = scan_items(s, depth + 1, ']', false);
	else if (*s->at == '"')
		good = scan_string(s);
	else if (*s->at == '-' || isdigit((unsigned char)*s->at))
		good = scan_number(s);
	else
		good = scan_word(s, "true") || scan_word(s, "false") || scan_word(s, "null");
	skip_blank(s);
	return good;
}

static size_t count_members(struct json_object *object)
{
	size_t count = 0;

	if (json_object_is_type(object, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(object); i++)
			count += count_members(json_object_array_get_idx(object, i));
	} else if (json_object_is_type(object, json_type_object)) {
		json_object_object_foreach (object, key, value) {
			(void)key;
			count += 1 + count_members(value);
		}
	}
	return count;
}

int json_read(const char *text, size_t len, struct input_error *err,
	      struct json_object **ret_object)
{
	struct scan s = {.at = text, .end = text + len, .line = 1};
	struct json_tokener *tokener;
	struct json_object *object;
	enum json_tokener_error error;

	if (len == 0)
		return input_error_set(err, "", 0, "the body is empty; JSON is expected");
	if (!scan_value(&s, 0) || s.at != s.end)
		return input_error_set(err, "", s.line, "line %d is not JSON", s.line);
	tokener = json_tokener_new_ex(API_JSON_DEPTH + 4);
	if (!tokener)
		return -ENOMEM;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	object = json_tokener_parse_ex(tokener, text, (int)len);
	error = json_tokener_get_error(tokener);
	/* A number alone is complete only when its end is seen. */
	if (error == json_tokener_continue)
		object = json_tokener_parse_ex(tokener, "", 1);
	error = json_tokener_get_error(tokener);
	json_tokener_free(tokener);
	if (error != json_tokener_success) {
		json_object_put(object);
		return input_error_set(err, "", 0, "not JSON: %s", json_tokener_error_desc(error));
	}
	if (count_members(object) != s.members) {
		json_object_put(object);
		return input_error_set(err, "", 0, "a key appears twice");
	}
	*ret_object = object;
	return 0;
}
