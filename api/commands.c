/* JSON to command: every key known, every type checked, the offending key named. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *type_name(struct json_object *value)
{
	return json_type_to_name(json_object_get_type(value));
}

static int take_bool(struct json_object *value, const char *key, bool *ret, bool *ret_has,
		     struct input_error *err)
{
	if (!json_object_is_type(value, json_type_boolean))
		return input_error_set(err, key, 0, "true or false, not %s", type_name(value));
	*ret = json_object_get_boolean(value);
	*ret_has = true;
	return 0;
}

static int take_priority(struct json_object *value, struct link_patch *patch,
			 struct input_error *err)
{
	int64_t n = json_object_get_int64(value);

	if (!json_object_is_type(value, json_type_int) || n < 0 || n > 65535)
		return input_error_set(err, "priority", 0, "a whole number from 0 to 65535");
	patch->priority = (int32_t)n;
	patch->has_priority = true;
	return 0;
}

int command_link_patch(struct json_object *object, struct link_patch *ret_patch,
		       struct input_error *err)
{
	struct link_patch patch = {0};
	int r = 0;

	if (!json_object_is_type(object, json_type_object))
		return input_error_set(err, "", 0, "an object with priority, enabled, metered");
	json_object_object_foreach (object, key, value) {
		if (strcmp(key, "priority") == 0)
			r = take_priority(value, &patch, err);
		else if (strcmp(key, "enabled") == 0)
			r = take_bool(value, key, &patch.enabled, &patch.has_enabled, err);
		else if (strcmp(key, "metered") == 0)
			r = take_bool(value, key, &patch.metered, &patch.has_metered, err);
		else
			r = input_error_set(err, key, 0,
					    "priority, enabled and metered can be changed");
		if (r < 0)
			return r;
	}
	*ret_patch = patch;
	return 0;
}

int command_order(struct json_object *object, const char ***ret_names, size_t *ret_count,
		  struct input_error *err)
{
	struct json_object *array = object;
	const char **names;
	size_t count;

	if (json_object_is_type(object, json_type_object)) {
		if (!json_object_object_get_ex(object, "order", &array) ||
		    json_object_object_length(object) != 1)
			return input_error_set(err, "order", 0, "{\"order\": [\"NAME\", ...]}");
	}
	if (!json_object_is_type(array, json_type_array))
		return input_error_set(err, "order", 0, "an array of link names, best first");
	count = json_object_array_length(array);
	if (count > LINKS_MAX)
		return input_error_set(err, "order", 0, "at most %d names", LINKS_MAX);
	names = calloc(count + 1, sizeof(*names));
	if (!names)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct json_object *name = json_object_array_get_idx(array, i);

		if (!json_object_is_type(name, json_type_string)) {
			free(names);
			return input_error_set(err, "order", 0, "an array of link names");
		}
		names[i] = json_object_get_string(name);
	}
	*ret_names = names;
	*ret_count = count;
	return 0;
}

/* --- programs --- */

static int take_confirm_within(struct json_object *value, uint64_t *ret_ms, struct input_error *err)
{
	uint64_t ms;

	if (!json_object_is_type(value, json_type_string) ||
	    duration_parse(json_object_get_string(value), &ms) < 0 || ms < PROGRAM_CONFIRM_MIN ||
	    ms > PROGRAM_CONFIRM_MAX)
		return input_error_set(err, "confirm_within", 0,
				       "a duration from \"1s\" to \"1d\"");
	*ret_ms = ms;
	return 0;
}

int command_activation(struct json_object *object, struct daemon_activation *activation,
		       struct input_error *err)
{
	bool has;
	int r = 0;

	if (!json_object_is_type(object, json_type_object))
		return input_error_set(err, "", 0, "an object with confirm_within, expect_drops");
	json_object_object_foreach (object, key, value) {
		if (strcmp(key, "confirm_within") == 0)
			r = take_confirm_within(value, &activation->confirm_within, err);
		else if (strcmp(key, "expect_drops") == 0)
			r = take_bool(value, key, &activation->expect_drops, &has, err);
		else
			r = input_error_set(err, key, 0,
					    "confirm_within and expect_drops can be given");
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- handing a request over --- */

static int take_string(struct json_object *value, const char *key, const char **ret_text,
		       struct input_error *err)
{
	const char *text = json_object_get_string(value);

	if (!json_object_is_type(value, json_type_string))
		return input_error_set(err, key, 0, "a string, not %s", type_name(value));
	if (strlen(text) != (size_t)json_object_get_string_len(value))
		return input_error_set(err, key, 0, "no NUL in it");
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return input_error_set(err, key, 0, "no control character in it");
	*ret_text = text;
	return 0;
}

static bool is_token(const char *text) /* RFC 9110, 5.6.2 */
{
	if (!text[0])
		return false;
	for (; *text; text++)
		if (!((*text >= '0' && *text <= '9') ||
		      ((*text | 32) >= 'a' && (*text | 32) <= 'z') ||
		      strchr("!#$%&'*+-.^_`|~", *text)))
			return false;
	return true;
}

/* The framing is the daemon's to write. */
static bool is_framing(const char *name)
{
	static const char *const names[] = {"Connection", "Content-Length", "Transfer-Encoding",
					    "Host",	  "Upgrade",	    "TE",
					    "Trailer",	  "Keep-Alive"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcasecmp(names[i], name) == 0)
			return true;
	return false;
}

static int take_headers(struct json_object *value, struct handover *handover,
			struct input_error *err)
{
	size_t n = 0;
	int r;

	if (!json_object_is_type(value, json_type_object))
		return input_error_set(err, "headers", 0, "an object of strings");
	if (json_object_object_length(value) > HTTP_FIELDS_MAX)
		return input_error_set(err, "headers", 0, "at most %d", HTTP_FIELDS_MAX);
	handover->fields =
		calloc(2 * (size_t)json_object_object_length(value) + 1, sizeof(*handover->fields));
	if (!handover->fields)
		return -ENOMEM;
	json_object_object_foreach (value, name, text) {
		char key[160] = "headers.";

		strncat(key, name, sizeof(key) - strlen(key) - 1);
		if (!is_token(name) || is_framing(name))
			return input_error_set(err, key, 0, "not a header that can be given here");
		handover->fields[n++] = name;
		r = take_string(text, key, &handover->fields[n++], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int base64_digit(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int)(p - digits) : -1;
}

/* RFC 4648, 4: padded, no line breaks. out has room for len / 4 * 3. */
static int base64_decode(const char *text, size_t len, uint8_t *out, size_t *ret_len)
{
	size_t n = 0, padding = 0;

	if (len % 4)
		return -EINVAL;
	while (padding < 2 && len > padding && text[len - padding - 1] == '=')
		padding++;
	for (size_t i = 0; i < len; i += 4) {
		uint32_t bits = 0;

		for (size_t k = 0; k < 4; k++) {
			int digit = i + k >= len - padding ? 0 : base64_digit(text[i + k]);

			if (digit < 0)
				return -EINVAL;
			bits = bits << 6 | (uint32_t)digit;
		}
		out[n++] = (uint8_t)(bits >> 16);
		out[n++] = (uint8_t)(bits >> 8);
		out[n++] = (uint8_t)bits;
	}
	*ret_len = n - padding;
	return 0;
}

static int take_body(struct json_object *value, const char *key, bool base64,
		     struct handover *handover, struct input_error *err)
{
	const char *text = json_object_get_string(value);
	size_t len = (size_t)json_object_get_string_len(value);

	if (!json_object_is_type(value, json_type_string))
		return input_error_set(err, key, 0, "a string, not %s", type_name(value));
	if (handover->submit.body)
		return input_error_set(err, key, 0, "body or body_base64, not both");
	handover->submit.body = (const uint8_t *)text;
	handover->submit.body_len = len;
	if (!base64)
		return 0;
	handover->decoded = malloc(len + 1);
	if (!handover->decoded)
		return -ENOMEM;
	handover->submit.body = handover->decoded;
	if (base64_decode(text, len, handover->decoded, &handover->submit.body_len) < 0)
		return input_error_set(err, key, 0, "not base64 (RFC 4648, padded)");
	return 0;
}

static int take_key(const char *key, struct json_object *value, struct handover *handover,
		    struct input_error *err)
{
	if (strcmp(key, "method") == 0)
		return take_string(value, key, &handover->submit.method, err);
	if (strcmp(key, "url") == 0)
		return take_string(value, key, &handover->submit.url, err);
	if (strcmp(key, "headers") == 0)
		return take_headers(value, handover, err);
	if (strcmp(key, "body") == 0 || strcmp(key, "body_base64") == 0)
		return take_body(value, key, key[4] == '_', handover, err);
	return input_error_set(err, key, 0, "method, url, headers, body and body_base64 are known");
}

int command_handover(struct json_object *object, struct handover *ret_handover,
		     struct input_error *err)
{
	static const char *const no_fields[] = {NULL};
	struct handover handover = {0};
	int r = 0;

	if (!json_object_is_type(object, json_type_object))
		return input_error_set(err, "", 0, "an object with method and url");
	json_object_object_foreach (object, key, value) {
		r = take_key(key, value, &handover, err);
		if (r < 0)
			goto fail;
	}
	if (!handover.submit.method || !is_token(handover.submit.method))
		r = input_error_set(err, "method", 0, "an HTTP method, like \"POST\"");
	else if (!handover.submit.url || !handover.submit.url[0])
		r = input_error_set(err, "url", 0, "an absolute http:// or https:// URL");
	if (r < 0)
		goto fail;
	handover.submit.fields = handover.fields ? handover.fields : no_fields;
	*ret_handover = handover;
	return 0;

fail:
	handover_done(&handover);
	return r;
}

void handover_done(struct handover *handover)
{
	free(handover->fields);
	free(handover->decoded);
}
