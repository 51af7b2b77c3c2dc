#include "msg/http_prefer.h"

#include <string.h>

/* A piece of a field's value. */
struct word {
	const char *at;
	size_t len;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

/* RFC 9110, 5.6.2 */
static bool is_token_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static const char *skip_space(const char *at)
{
	while (is_space(*at))
		at++;
	return at;
}

static const char *take_token(const char *at, struct word *ret_word)
{
	ret_word->at = at;
	while (is_token_char(*at))
		at++;
	ret_word->len = (size_t)(at - ret_word->at);
	return ret_word->len ? at : NULL;
}

/* What is between the quotes, as it is: a number needs no escape. NULL: it has no end. */
static const char *take_quoted(const char *at, struct word *ret_word)
{
	ret_word->at = ++at;
	while (*at && *at != '"')
		at += *at == '\\' && at[1] ? 2 : 1;
	ret_word->len = (size_t)(at - ret_word->at);
	return *at ? at + 1 : NULL;
}

/* "name" or "name=word". An empty word is none (RFC 7240, 2). */
static const char *take_pair(const char *at, struct word *ret_name, struct word *ret_value)
{
	const char *equals;

	*ret_value = (struct word){.len = 0};
	at = take_token(at, ret_name);
	if (!at)
		return NULL;
	equals = skip_space(at);
	if (*equals != '=')
		return at;
	at = skip_space(equals + 1);
	return *at == '"' ? take_quoted(at, ret_value) : take_token(at, ret_value);
}

static bool is(const struct word *name, const char *text)
{
	return name->len == strlen(text) && strncasecmp(name->at, text, name->len) == 0;
}

static bool read_seconds(const struct word *value, uint32_t *ret_seconds)
{
	uint64_t seconds = 0;

	for (size_t i = 0; i < value->len; i++) {
		if (value->at[i] < '0' || value->at[i] > '9')
			return false;
		if (seconds <= UINT32_MAX)
			seconds = seconds * 10 + (uint64_t)(value->at[i] - '0');
	}
	*ret_seconds = seconds < UINT32_MAX ? (uint32_t)seconds : UINT32_MAX;
	return value->len;
}

static void take(struct http_preferences *preferences, const struct word *name,
		 const struct word *value)
{
	if (is(name, "respond-async"))
		preferences->respond_async |= !value->len;
	else if (is(name, "wait") && !preferences->has_wait)
		preferences->has_wait = read_seconds(value, &preferences->wait);
}

/* Past the next comma that is not in quotes. */
static const char *next_element(const char *at)
{
	struct word skipped;

	while (at && *at && *at != ',')
		at = *at == '"' ? take_quoted(at, &skipped) : at + 1;
	return at && *at ? at + 1 : NULL;
}

/* preference *( ";" parameter ), where none of ours has parameters that are known. */
static bool is_whole(const char *at)
{
	struct word name, value;

	for (at = skip_space(at); *at == ';'; at = skip_space(at)) {
		at = skip_space(at + 1);
		if (!*at || *at == ',' || *at == ';')
			continue;
		at = take_pair(at, &name, &value);
		if (!at)
			return false;
	}
	return !*at || *at == ',';
}

static void read_list(struct http_preferences *preferences, const char *at)
{
	struct word name, value;

	while (at) {
		const char *end = take_pair(skip_space(at), &name, &value);

		if (end && is_whole(end))
			take(preferences, &name, &value);
		at = next_element(at);
	}
}

void http_read_preferences(const struct http_head *head, struct http_preferences *ret_preferences)
{
	*ret_preferences = (struct http_preferences){.wait = 0};
	for (uint32_t i = 0; i < head->field_count; i++)
		if (strcasecmp(http_text(head, head->fields[i].name), "prefer") == 0)
			read_list(ret_preferences, http_text(head, head->fields[i].value));
}
