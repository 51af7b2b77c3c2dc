#include "config/keys.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct json_object *group_json(const struct key_group *group, const void *base);

static uint64_t load_number(const struct key *key, const void *base)
{
	const void *field = (const char *)base + key->offset;

	if (key->width == 1)
		return *(const uint8_t *)field;
	if (key->width == 2)
		return *(const uint16_t *)field;
	if (key->width == 4)
		return *(const uint32_t *)field;
	return *(const uint64_t *)field;
}

static struct json_object *prefix_json(const struct ip_prefix *prefix)
{
	char ip[IP_TEXT_MAX], text[IP_TEXT_MAX + 8];
	bool v4 = ip_is_v4(&prefix->ip) && prefix->bits >= 96;

	if (v4)
		snprintf(text, sizeof(text), "%s/%u", ip_format(&prefix->ip, ip),
			 prefix->bits - 96u);
	else
		snprintf(text, sizeof(text), "%s/%u", ip_format(&prefix->ip, ip), prefix->bits);
	return json_object_new_string(text);
}

static struct json_object *port_json(const struct port_range *port)
{
	char text[16];

	if (port->first == port->last)
		return json_object_new_int(port->first);
	snprintf(text, sizeof(text), "%u-%u", port->first, port->last);
	return json_object_new_string(text);
}

static struct json_object *ip_json(const struct ip *ip)
{
	char text[IP_TEXT_MAX];

	return json_object_new_string(ip_format(ip, text));
}

static struct json_object *strings_json(char *const *list)
{
	struct json_object *array = json_object_new_array();

	for (; array && list && *list; list++)
		json_object_array_add(array, json_object_new_string(*list));
	return array;
}

static struct json_object *item_json(const struct key *key, const void *array, size_t i)
{
	if (key->type == KEY_ADDRESSES)
		return ip_json((const struct ip *)array + i);
	if (key->type == KEY_PREFIXES)
		return prefix_json((const struct ip_prefix *)array + i);
	if (key->type == KEY_PORTS)
		return port_json((const struct port_range *)array + i);
	if (key->type == KEY_UIDS)
		return json_object_new_int64(((const uint32_t *)array)[i]);
	return group_json(key->group, (const char *)array + i * key->group->size);
}

static struct json_object *items_json(const struct key *key, const void *base)
{
	const void *array = *(void *const *)((const char *)base + key->offset);
	size_t count = *(const size_t *)((const char *)base + key->extra);
	struct json_object *json = json_object_new_array();

	for (size_t i = 0; json && i < count; i++)
		json_object_array_add(json, item_json(key, array, i));
	return json;
}

static struct json_object *unit_json(const struct key *key, const void *base)
{
	char text[32];

	if (key->type == KEY_DURATION)
		duration_format(load_number(key, base), text, sizeof(text));
	else
		size_format(load_number(key, base), text, sizeof(text));
	return json_object_new_string(text);
}

static struct json_object *choice_json(const struct key *key, const void *base)
{
	uint64_t value = load_number(key, base);
	const struct choice *choice = key->choices;

	while (choice->name && (choice->later || choice->value != value))
		choice++;
	return choice->name ? json_object_new_string(choice->name) : NULL;
}

/* An object that was not given has none of its strings. */
static bool is_absent(const struct key *key, const void *base)
{
	if (!key_is_nullable(key))
		return false;
	for (size_t i = 0; i < key->group->count; i++) {
		const struct key *inner = &key->group->keys[i];

		if (inner->type == KEY_STRING &&
		    *(char *const *)((const char *)base + inner->offset))
			return false;
	}
	return true;
}

static struct json_object *key_json(const struct key *key, const void *base)
{
	const void *field = (const char *)base + key->offset;

	switch (key->type) {
	case KEY_BOOL:
		return json_object_new_boolean(*(const bool *)field);
	case KEY_INTEGER:
		if (key_is_nullable(key) && !load_number(key, base))
			return NULL;
		return json_object_new_int64((int64_t)load_number(key, base));
	case KEY_DURATION:
	case KEY_SIZE:
		return unit_json(key, base);
	case KEY_CHOICE:
		return choice_json(key, base);
	case KEY_STRING:
		return *(char *const *)field ? json_object_new_string(*(char *const *)field) : NULL;
	case KEY_STRINGS:
		return strings_json(*(char **const *)field);
	case KEY_PREFIX:
		if (key->extra && !*(const bool *)((const char *)base + key->extra))
			return NULL;
		return prefix_json(field);
	case KEY_ADDRESSES:
	case KEY_PREFIXES:
	case KEY_PORTS:
	case KEY_UIDS:
	case KEY_OBJECTS:
		return items_json(key, base);
	case KEY_OBJECT:
		return is_absent(key, field) ? NULL : group_json(key->group, field);
	}
	abort();
}

static struct json_object *group_json(const struct key_group *group, const void *base)
{
	struct json_object *json = json_object_new_object();
	const struct key *key;

	for (size_t i = 0; json && (key = key_at(group, i)); i++)
		json_object_object_add(json, key->name, key_json(key, base));
	return json;
}

struct json_object *config_to_json(const struct config *config)
{
	return group_json(&config_keys, config);
}

/* --- the reference --- */

static const char *type_text(enum key_type type)
{
	switch (type) {
	case KEY_BOOL:
		return "true or false";
	case KEY_INTEGER:
		return "whole number";
	case KEY_DURATION:
		return "duration";
	case KEY_SIZE:
		return "size";
	case KEY_CHOICE:
		return "one of";
	case KEY_STRING:
		return "string";
	case KEY_STRINGS:
		return "list of strings";
	case KEY_ADDRESSES:
		return "list of IP addresses";
	case KEY_PREFIX:
		return "prefix";
	case KEY_PREFIXES:
		return "list of addresses and prefixes";
	case KEY_PORTS:
		return "list of ports and port ranges";
	case KEY_UIDS:
		return "list of user ids";
	case KEY_OBJECT:
		return "object";
	case KEY_OBJECTS:
		return "list of objects";
	}
	abort();
}

static void write_limits(FILE *out, const struct key *key)
{
	char min[32], max[32];

	switch (key->type) {
	case KEY_INTEGER:
		fprintf(out, ", %" PRIu64 " to %" PRIu64, key->min, key->max);
		break;
	case KEY_DURATION:
		duration_format(key->min, min, sizeof(min));
		duration_format(key->max, max, sizeof(max));
		fprintf(out, ", `\"%s\"` to `\"%s\"`", min, max);
		break;
	case KEY_SIZE:
		size_format(key->min, min, sizeof(min));
		size_format(key->max, max, sizeof(max));
		fprintf(out, ", `\"%s\"` to `\"%s\"`", min, max);
		break;
	case KEY_CHOICE:
		for (const struct choice *c = key->choices; c->name; c++)
			if (!c->later)
				fprintf(out, "%s `\"%s\"`", c == key->choices ? "" : ",", c->name);
		break;
	case KEY_STRINGS:
	case KEY_ADDRESSES:
	case KEY_PREFIXES:
	case KEY_PORTS:
	case KEY_UIDS:
	case KEY_OBJECTS:
		fprintf(out, ", at most %" PRIu64, key->max);
		break;
	case KEY_BOOL:
	case KEY_STRING:
	case KEY_PREFIX:
	case KEY_OBJECT:
		break;
	}
}

static void write_text(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '|')
			fputc('\\', out);
		fputc(*text, out);
	}
}

static void write_row(FILE *out, const struct key *key)
{
	fprintf(out, "| `%s` | %s", key->name, type_text(key->type));
	write_limits(out, key);
	if (key->allowed) {
		fputs(": ", out);
		write_text(out, key->allowed);
	}
	if (key->fallback)
		fprintf(out, " | `%s` | ", key->fallback);
	else
		fputs(" | required | ", out);
	write_text(out, key->doc);
	fputs(" |\n", out);
}

static void write_group(FILE *out, const struct key_group *group, const char *path)
{
	char inner[160];

	fprintf(out, "\n## %s\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n",
		*path ? path : "The whole");
	for (size_t i = 0; i < group->count; i++)
		write_row(out, &group->keys[i]);
	if (group->inherited)
		fputs("\nand every key of `defaults`, whose values hold where a rule says "
		      "nothing.\n",
		      out);
	for (size_t i = 0; i < group->count; i++) {
		const struct key *key = &group->keys[i];

		snprintf(inner, sizeof(inner), "%s%s%s%s", path, *path ? "." : "", key->name,
			 key->type == KEY_OBJECTS ? "[]" : "");
		if (key->group)
			write_group(out, key->group, inner);
	}
}

int config_write_reference(int fd)
{
	int copy = dup(fd);
	FILE *out = copy < 0 ? NULL : fdopen(copy, "w");
	bool failed;

	if (!out) {
		int r = -errno;

		if (copy >= 0)
			close(copy);
		return r;
	}
	fputs("# Configuration\n\n"
	      "<!-- Written by the daemon from its table of keys; do not edit. -->\n\n"
	      "`/etc/holdfast/holdfast.json` is JSON with `//` and `/* */` comments. Durations are "
	      "strings such as `\"500ms\"`, `\"30s\"`, `\"5m\"`, `\"12h\"`, `\"7d\"`; sizes such "
	      "as `\"64K\"`, `\"16M\"`, `\"1G\"` (powers of 1024). Unknown and duplicate keys are "
	      "errors. `holdfastd --check` says everything that is wrong, with its key path.\n",
	      out);
	write_group(out, &config_keys, "");
	failed = ferror(out);
	return fclose(out) != 0 || failed ? -EIO : 0;
}
