#include "config/read.h"

#include "config/scan.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	struct config_errors *errors;
	struct json_object *defaults; /* what rules inherit; or NULL */
	char path[160];
	bool quiet; /* reading what was read, and complained of, before */
	bool bad, no_memory;
};

static void complain(struct reader *r, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void complain(struct reader *r, const char *format, ...)
{
	char text[320];
	va_list args;

	r->bad = true;
	if (r->quiet)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	errors_add(r->errors, r->path, 0, "%s", text);
}

static size_t enter_key(struct reader *r, const char *name)
{
	size_t old = strlen(r->path);

	snprintf(r->path + old, sizeof(r->path) - old, "%s%s", old ? "." : "", name);
	return old;
}

static size_t enter_item(struct reader *r, size_t index)
{
	size_t old = strlen(r->path);

	snprintf(r->path + old, sizeof(r->path) - old, "[%zu]", index);
	return old;
}

static void *allocate(struct reader *r, size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		r->no_memory = true;
	return memory;
}

static void store_number(const struct key *key, void *base, uint64_t value)
{
	/* width is that of the field: little and big endian alike */
	void *field = (char *)base + key->offset;

	if (key->width == 1)
		*(uint8_t *)field = (uint8_t)value;
	else if (key->width == 2)
		*(uint16_t *)field = (uint16_t)value;
	else if (key->width == 4)
		*(uint32_t *)field = (uint32_t)value;
	else
		*(uint64_t *)field = value;
}

static const char *text_of(struct json_object *v)
{
	return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;
}

static bool is_number(struct json_object *v, uint64_t min, uint64_t max, uint64_t *ret)
{
	int64_t n;

	if (!json_object_is_type(v, json_type_int))
		return false;
	n = json_object_get_int64(v);
	if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
		return false;
	*ret = (uint64_t)n;
	return true;
}

static void read_bool(struct reader *r, const struct key *key, struct json_object *v, void *base)
{
	if (!json_object_is_type(v, json_type_boolean))
		complain(r, "true or false is expected");
	else
		*(bool *)((char *)base + key->offset) = json_object_get_boolean(v);
}

static void read_integer(struct reader *r, const struct key *key, struct json_object *v, void *base)
{
	uint64_t n;

	if (is_number(v, key->min, key->max, &n))
		store_number(key, base, n);
	else
		complain(r, "a whole number from %" PRIu64 " to %" PRIu64 " is expected", key->min,
			 key->max);
}

static void read_unit(struct reader *r, const struct key *key, struct json_object *v, void *base)
{
	bool duration = key->type == KEY_DURATION;
	void (*format)(uint64_t, char *, size_t) = duration ? duration_format : size_format;
	const char *text = text_of(v);
	char min[32], max[32];
	uint64_t n;

	if (text && (duration ? duration_parse(text, &n) : size_parse(text, &n)) == 0 &&
	    n >= key->min && n <= key->max) {
		store_number(key, base, n);
		return;
	}
	format(key->min, min, sizeof(min));
	format(key->max, max, sizeof(max));
	complain(r, "%s is expected, from \"%s\" to \"%s\"",
		 duration ? "a duration such as \"500ms\", \"30s\", \"5m\", \"12h\" or \"7d\""
			  : "a size such as \"64K\", \"16M\" or \"1G\"",
		 min, max);
}

static void list_choices(const struct choice *choices, bool later, char *buffer, size_t size)
{
	size_t used = 0;

	buffer[0] = '\0';
	for (; choices->name; choices++)
		if (choices->later == later && used < size)
			used += (size_t)snprintf(buffer + used, size - used, "%s\"%s\"",
						 used ? ", " : "", choices->name);
}

static void read_choice(struct reader *r, const struct key *key, struct json_object *v, void *base)
{
	const char *text = text_of(v);
	const struct choice *choice = key->choices;
	char allowed[160];

	while (choice->name && (!text || strcmp(choice->name, text) != 0))
		choice++;
	if (choice->name && !choice->later) {
		store_number(key, base, choice->value);
		return;
	}
	list_choices(key->choices, false, allowed, sizeof(allowed));
	if (choice->name)
		complain(r, "\"%s\" is not available yet: allowed is %s", text, allowed);
	else
		complain(r, "allowed is %s", allowed);
}

/* A checked copy, or NULL with the complaint made. */
static char *copy_string(struct reader *r, const struct key *key, struct json_object *v)
{
	const char *text = text_of(v);
	char *copy;

	if (!text || !key->valid(text)) {
		complain(r, "%s is expected", key->allowed);
		return NULL;
	}
	copy = strdup(text);
	if (!copy)
		r->no_memory = true;
	for (char *c = copy; c && key->lower && *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return copy;
}

static void read_string(struct reader *r, const struct key *key, struct json_object *v, void *base)
{
	*(char **)((char *)base + key->offset) = copy_string(r, key, v);
}

static void read_strings(struct reader *r, const struct key *key, struct json_object *v, size_t n,
			 void *base)
{
	char **list = allocate(r, n + 1, sizeof(*list));
	size_t kept = 0;

	*(char ***)((char *)base + key->offset) = list;
	for (size_t i = 0; list && i < n; i++) {
		size_t old = enter_item(r, i);

		list[kept] = copy_string(r, key, json_object_array_get_idx(v, i));
		if (list[kept])
			kept++;
		r->path[old] = '\0';
	}
}

static bool parse_prefix(struct json_object *v, struct ip_prefix *ret)
{
	const char *text = text_of(v);

	if (!text || ip_prefix_parse(text, ret) < 0)
		return false;
	ret->ip = ip_prefix_nth(ret, 0);
	return true;
}

static void read_prefix(struct reader *r, const struct key *key, struct json_object *v, void *base)
{
	if (!parse_prefix(v, (struct ip_prefix *)((char *)base + key->offset)))
		complain(r, "%s is expected", key->allowed);
	else if (key->extra)
		*(bool *)((char *)base + key->extra) = true;
}

static bool parse_port(struct json_object *v, struct port_range *ret)
{
	const char *text = text_of(v);
	uint64_t n;
	unsigned first, last;
	int used = 0;

	if (is_number(v, 1, 65535, &n)) {
		*ret = (struct port_range){(uint16_t)n, (uint16_t)n};
		return true;
	}
	if (!text || strlen(text) > 11 || strspn(text, "0123456789-") != strlen(text))
		return false;
	if (sscanf(text, "%5u-%5u%n", &first, &last, &used) != 2 || text[used]) {
		used = 0;
		if (sscanf(text, "%5u%n", &first, &used) != 1 || text[used])
			return false;
		last = first;
	}
	if (first < 1 || last > 65535 || first > last)
		return false;
	*ret = (struct port_range){(uint16_t)first, (uint16_t)last};
	return true;
}

static bool parse_address(struct json_object *v, struct ip *ret)
{
	const char *text = text_of(v);

	return text && ip_parse(text, ret) == 0;
}

static bool read_item(struct reader *r, const struct key *key, struct json_object *v, void *array,
		      size_t at)
{
	uint64_t n;

	if (key->type == KEY_ADDRESSES) {
		if (parse_address(v, (struct ip *)array + at))
			return true;
		complain(r, "an IPv4 or IPv6 address is expected");
	} else if (key->type == KEY_PREFIXES) {
		if (parse_prefix(v, (struct ip_prefix *)array + at))
			return true;
		complain(r, "an address or a prefix such as \"203.0.113.0/24\" is expected");
	} else if (key->type == KEY_PORTS) {
		if (parse_port(v, (struct port_range *)array + at))
			return true;
		complain(r, "a port from 1 to 65535 or a range such as \"8000-8999\" is expected");
	} else {
		if (is_number(v, 0, UINT32_MAX - 1, &n)) {
			((uint32_t *)array)[at] = (uint32_t)n;
			return true;
		}
		complain(r, "a user id from 0 to 4294967294 is expected");
	}
	return false;
}

static size_t item_size(const struct key *key)
{
	switch (key->type) {
	case KEY_ADDRESSES:
		return sizeof(struct ip);
	case KEY_PREFIXES:
		return sizeof(struct ip_prefix);
	case KEY_PORTS:
		return sizeof(struct port_range);
	case KEY_UIDS:
		return sizeof(uint32_t);
	case KEY_OBJECTS:
		return key->group->size;
	case KEY_BOOL:
	case KEY_INTEGER:
	case KEY_DURATION:
	case KEY_SIZE:
	case KEY_CHOICE:
	case KEY_STRING:
	case KEY_STRINGS:
	case KEY_PREFIX:
	case KEY_OBJECT:
		break;
	}
	abort();
}

static void read_group(struct reader *r, const struct key_group *group, struct json_object *v,
		       void *base);

/* Objects that are wrong keep their place, so that indexes in messages are right. */
static void read_items(struct reader *r, const struct key *key, struct json_object *v, size_t n,
		       void *base)
{
	size_t *count = (size_t *)((char *)base + key->extra);
	char *array = allocate(r, n, item_size(key));

	*(void **)((char *)base + key->offset) = array;
	for (size_t i = 0; array && i < n; i++) {
		struct json_object *item = json_object_array_get_idx(v, i);
		size_t old = enter_item(r, i);

		if (key->type == KEY_OBJECTS)
			read_group(r, key->group, item, array + (*count)++ * key->group->size);
		else if (read_item(r, key, item, array, *count))
			(*count)++;
		r->path[old] = '\0';
	}
}

static void read_list(struct reader *r, const struct key *key, struct json_object *v, void *base)
{
	size_t n = 0;

	if (!json_object_is_type(v, json_type_array))
		complain(r, "a list is expected");
	else if (json_object_array_length(v) > key->max)
		complain(r, "at most %" PRIu64 " entries are allowed", key->max);
	else
		n = json_object_array_length(v);
	if (key->type == KEY_STRINGS)
		read_strings(r, key, v, n, base);
	else
		read_items(r, key, v, n, base);
}

static void read_key(struct reader *r, const struct key *key, struct json_object *v, void *base)
{
	if (!v && key_is_nullable(key))
		return;
	switch (key->type) {
	case KEY_BOOL:
		read_bool(r, key, v, base);
		return;
	case KEY_INTEGER:
		read_integer(r, key, v, base);
		return;
	case KEY_DURATION:
	case KEY_SIZE:
		read_unit(r, key, v, base);
		return;
	case KEY_CHOICE:
		read_choice(r, key, v, base);
		return;
	case KEY_STRING:
		read_string(r, key, v, base);
		return;
	case KEY_PREFIX:
		read_prefix(r, key, v, base);
		return;
	case KEY_STRINGS:
	case KEY_ADDRESSES:
	case KEY_PREFIXES:
	case KEY_PORTS:
	case KEY_UIDS:
	case KEY_OBJECTS:
		read_list(r, key, v, base);
		return;
	case KEY_OBJECT:
		read_group(r, key->group, v, (char *)base + key->offset);
		return;
	}
	abort();
}

static void read_fallback(struct reader *r, const struct key *key, void *base)
{
	struct json_object *v = NULL;

	if (!key->fallback) {
		complain(r, "this key is required");
		return;
	}
	if (!key_is_nullable(key)) {
		v = json_tokener_parse(key->fallback);
		if (!v) {
			r->no_memory = true;
			return;
		}
	}
	read_key(r, key, v, base);
	json_object_put(v);
}

static void read_missing(struct reader *r, const struct key *key, bool inherits, void *base)
{
	bool quiet = r->quiet;
	struct json_object *v;

	if (inherits && r->defaults && json_object_object_get_ex(r->defaults, key->name, &v)) {
		r->quiet = true;
		read_key(r, key, v, base);
		r->quiet = quiet;
	} else {
		read_fallback(r, key, base);
	}
}

/* Levenshtein's distance; words of the table are short. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[32], n = (unsigned)strlen(b);

	if (strlen(a) > 31 || n > 31)
		return 99;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (row[j] + 1 < best)
				best = row[j] + 1;
			row[j] = best;
		}
	}
	return row[n];
}

static void complain_unknown(struct reader *r, const struct key_group *group, const char *name)
{
	const struct key *key, *near = NULL;
	unsigned least = 3;

	for (size_t i = 0; (key = key_at(group, i)); i++) {
		unsigned d = distance(name, key->name);

		if (d < least && d < strlen(key->name)) {
			least = d;
			near = key;
		}
	}
	if (near)
		complain(r, "there is no such key; did you mean \"%s\"?", near->name);
	else
		complain(r, "there is no such key");
}

static void read_group(struct reader *r, const struct key_group *group, struct json_object *v,
		       void *base)
{
	bool is_object = json_object_is_type(v, json_type_object);
	const struct key *key;
	struct json_object *value;

	if (!is_object)
		complain(r, "an object is expected");
	for (size_t i = 0; is_object && (key = key_at(group, i)); i++) {
		size_t old = enter_key(r, key->name);

		if (json_object_object_get_ex(v, key->name, &value))
			read_key(r, key, value, base);
		else
			read_missing(r, key, i >= group->count, base);
		r->path[old] = '\0';
	}
	if (!is_object)
		return;
	json_object_object_foreach (v, name, unused) {
		size_t old = enter_key(r, name);

		(void)unused;
		if (!key_find(group, name))
			complain_unknown(r, group, name);
		r->path[old] = '\0';
	}
}

int config_read(struct json_object *root, struct config *config, struct config_errors *errors)
{
	struct reader r = {.errors = errors};

	if (!json_object_object_get_ex(root, "defaults", &r.defaults) ||
	    !json_object_is_type(r.defaults, json_type_object))
		r.defaults = NULL;
	read_group(&r, &config_keys, root, config);
	if (r.no_memory)
		return -ENOMEM;
	return r.bad ? -EINVAL : 0;
}

static void strings_free(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

static void key_free(const struct key *key, void *base)
{
	void **field = (void **)((char *)base + key->offset);
	size_t count = key->type == KEY_OBJECTS ? *(size_t *)((char *)base + key->extra) : 0;

	switch (key->type) {
	case KEY_STRINGS:
		strings_free((char **)*field);
		return;
	case KEY_OBJECT:
		group_free(key->group, field);
		return;
	case KEY_OBJECTS:
		for (size_t i = 0; i < count; i++)
			group_free(key->group, (char *)*field + i * key->group->size);
		free(*field);
		return;
	case KEY_STRING:
	case KEY_ADDRESSES:
	case KEY_PREFIXES:
	case KEY_PORTS:
	case KEY_UIDS:
		free(*field);
		return;
	case KEY_BOOL:
	case KEY_INTEGER:
	case KEY_DURATION:
	case KEY_SIZE:
	case KEY_CHOICE:
	case KEY_PREFIX:
		return;
	}
}

void group_free(const struct key_group *group, void *base)
{
	const struct key *key;

	for (size_t i = 0; (key = key_at(group, i)); i++)
		key_free(key, base);
}
