/* POST /v1/explain: JSON to a question, the explanation to JSON. */
#include "internal.h"

#include "msg/packet_build.h"

#include <ctype.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- the question --- */

static int copy_text(struct json_object *value, const char *key, char *ret, size_t size,
		     struct input_error *err)
{
	if (!json_object_is_type(value, json_type_string))
		return input_error_set(err, key, 0, "a string, not %s",
				       json_type_to_name(json_object_get_type(value)));
	if (!json_object_get_string_len(value) ||
	    (size_t)json_object_get_string_len(value) >= size ||
	    strlen(json_object_get_string(value)) != (size_t)json_object_get_string_len(value))
		return input_error_set(err, key, 0, "1 to %zu characters", size - 1);
	strcpy(ret, json_object_get_string(value));
	return 0;
}

static int take_address(struct json_object *value, const char *key, struct ip *ret, bool *ret_has,
			struct input_error *err)
{
	char text[IP_TEXT_MAX];
	int r = copy_text(value, key, text, sizeof(text), err);

	if (r == 0 && ip_parse(text, ret) < 0)
		r = input_error_set(err, key, 0, "not an IPv4 or IPv6 address");
	*ret_has = r == 0;
	return r;
}

static int take_port(struct json_object *value, const char *key, uint16_t *ret,
		     struct input_error *err)
{
	int64_t port = json_object_get_int64(value);

	if (!json_object_is_type(value, json_type_int) || port < 1 || port > 65535)
		return input_error_set(err, key, 0, "a whole number from 1 to 65535");
	*ret = (uint16_t)port;
	return 0;
}

struct word {
	const char *text;
	uint16_t value;
};

static int take_word(struct json_object *value, const char *key, const struct word *words,
		     const char *known, uint16_t *ret, struct input_error *err)
{
	char text[32];
	int r = copy_text(value, key, text, sizeof(text), err);

	for (; r == 0 && words->text; words++)
		if (!strcasecmp(words->text, text)) {
			*ret = words->value;
			return 0;
		}
	return r < 0 ? r : input_error_set(err, key, 0, "%s", known);
}

static int take_protocol(struct json_object *value, struct daemon_explain_ask *ask,
			 struct input_error *err)
{
	static const struct word words[] = {
		{"tcp", IPPROTO_TCP}, {"udp", IPPROTO_UDP}, {"icmp", IPPROTO_ICMP}, {NULL, 0}};
	uint16_t protocol = 0;
	int r = take_word(value, "protocol", words, "tcp, udp or icmp", &protocol, err);

	ask->protocol = (uint8_t)protocol;
	return r;
}

static int take_type(struct json_object *value, struct daemon_explain_ask *ask,
		     struct input_error *err)
{
	static const struct word words[] = {{"A", 1},	 {"NS", 2},    {"CNAME", 5},  {"SOA", 6},
					    {"PTR", 12}, {"MX", 15},   {"TXT", 16},   {"AAAA", 28},
					    {"SRV", 33}, {"SVCB", 64}, {"HTTPS", 65}, {NULL, 0}};

	return take_word(value, "type", words,
			 "A, AAAA, CNAME, HTTPS, MX, NS, PTR, SOA, SRV, SVCB or TXT", &ask->type,
			 err);
}

/* What tcpdump -xx writes: offsets ("0x0010:") are left out, blanks do not count. */
static int take_frame(struct json_object *value, struct daemon_explain_ask *ask,
		      struct input_error *err)
{
	const char *text = json_object_get_string(value), *colon;
	size_t digits = 0;

	if (!json_object_is_type(value, json_type_string))
		return input_error_set(err, "frame", 0, "a string of hexadecimal digits");
	while (*text) {
		colon = text[0] == '0' && text[1] == 'x' ? strchr(text, ':') : NULL;
		if (colon && colon - text <= 10) {
			text = colon + 1;
			continue;
		}
		if (isspace((unsigned char)*text)) {
			text++;
			continue;
		}
		if (!isxdigit((unsigned char)*text))
			return input_error_set(err, "frame", 0, "\"%c\" is no hexadecimal digit",
					       *text);
		if (digits / 2 == EXPLAIN_FRAME_MAX)
			return input_error_set(err, "frame", 0, "at most %d octets",
					       EXPLAIN_FRAME_MAX);
		ask->frame[digits / 2] =
			(uint8_t)(ask->frame[digits / 2] << 4 |
				  (isdigit((unsigned char)*text) ? *text - '0'
								 : (*text | 0x20) - 'a' + 10));
		digits++;
		text++;
	}
	if (digits % 2 || digits < 2 * EXPLAIN_FRAME_MIN)
		return input_error_set(err, "frame", 0, "whole octets, at least %d of them",
				       EXPLAIN_FRAME_MIN);
	ask->frame_len = digits / 2;
	return 0;
}

static int take_key(const char *key, struct json_object *value, struct daemon_explain_ask *ask,
		    struct input_error *err)
{
	const struct {
		const char *key;
		char *text;
		size_t size;
	} texts[] = {
		{"interface", ask->interface, sizeof(ask->interface)},
		{"name", ask->name, sizeof(ask->name)},
		{"host", ask->host, sizeof(ask->host)},
		{"method", ask->method, sizeof(ask->method)},
		{"path", ask->path, sizeof(ask->path)},
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (!strcmp(key, texts[i].key))
			return copy_text(value, key, texts[i].text, texts[i].size, err);
	if (!strcmp(key, "source"))
		return take_address(value, key, &ask->source, &ask->has_source, err);
	if (!strcmp(key, "destination"))
		return take_address(value, key, &ask->destination, &ask->has_destination, err);
	if (!strcmp(key, "protocol"))
		return take_protocol(value, ask, err);
	if (!strcmp(key, "port"))
		return take_port(value, key, &ask->port, err);
	if (!strcmp(key, "source_port"))
		return take_port(value, key, &ask->source_port, err);
	if (!strcmp(key, "type"))
		return take_type(value, ask, err);
	if (!strcmp(key, "frame"))
		return take_frame(value, ask, err);
	return input_error_set(err, key, 0,
			       "interface, source, destination, protocol, port, source_port, name, "
			       "type, host, method, path and frame are known");
}

static int read_ask(struct json_object *object, struct daemon_explain_ask *ask,
		    struct input_error *err)
{
	int r = 0;

	if (!json_object_is_type(object, json_type_object))
		return input_error_set(err, "", 0,
				       "an object with source, destination, protocol "
				       "and port, or with name, or with frame");
	json_object_object_foreach (object, key, value) {
		r = take_key(key, value, ask, err);
		if (r < 0)
			return r;
	}
	if (ask->frame_len && (ask->has_source || ask->has_destination || ask->protocol ||
			       ask->port || ask->source_port || ask->name[0]))
		return input_error_set(err, "frame", 0,
				       "a frame has its own addresses, protocol and ports");
	if (ask->type && !ask->name[0])
		return input_error_set(err, "name", 0, "the name that is asked for");
	for (char *c = ask->host; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return 0;
}

/* --- the explanation --- */

static void add_text(struct json_object *object, const char *key, const char *text)
{
	json_object_object_add(object, key, text && *text ? json_object_new_string(text) : NULL);
}

static const char *action_name(const struct steer_explanation *steer)
{
	static const char *const xdp[] = {
		[XDP_ABORTED] = "aborted", [XDP_DROP] = "drop",		[XDP_PASS] = "pass",
		[XDP_TX] = "tx",	   [XDP_REDIRECT] = "redirect",
	};

	if (steer->interface.role == HF_ROLE_LINK)
		return steer->action == TC_ACT_SHOT ? "drop" : "pass";
	return steer->action >= 0 && (size_t)steer->action < sizeof(xdp) / sizeof(*xdp)
		       ? xdp[steer->action]
		       : "aborted";
}

static struct json_object *view_hooks(const struct steer_explanation *steer)
{
	struct json_object *hooks = json_object_new_array();

	for (int i = 0; i < HF_HOOK_COUNT; i++) {
		const struct steer_step *step = &steer->steps[i];
		struct json_object *hook;

		if (!step->ran)
			continue;
		hook = json_object_new_object();
		add_text(hook, "hook", hf_hook_name((enum hf_hook)i));
		add_text(hook, "verdict", hf_verdict_name(step->verdict));
		add_text(hook, "reason", hf_reason_name(step->reason));
		json_object_array_add(hooks, hook);
	}
	return hooks;
}

static struct json_object *view_answer(const struct steer_explanation *steer)
{
	char hex[2 * EXPLAIN_ANSWER_MAX + 1], text[PACKET_TEXT_MAX];
	struct json_object *answer;

	if (!steer->answer_len)
		return NULL;
	for (size_t i = 0; i < steer->answer_len; i++)
		snprintf(hex + 2 * i, 3, "%02x", steer->answer[i]);
	answer = json_object_new_object();
	add_text(answer, "hex", hex);
	add_text(answer, "text",
		 packet_text(steer->answer, steer->answer_len, steer->interface.has_mac, text));
	return answer;
}

static struct json_object *view_explained(const struct daemon_explained *explained)
{
	const struct steer_explanation *steer = &explained->steer;
	struct json_object *object = json_object_new_object();
	struct json_object *path = json_object_new_array();

	add_text(object, "interface", explained->interface);
	add_text(object, "verdict", hf_verdict_name(explained->decisive.verdict));
	add_text(object, "reason", hf_reason_name(explained->decisive.reason));
	add_text(object, "meaning", hf_reason_text(explained->decisive.reason));
	add_text(object, "action", action_name(steer));
	add_text(object, "rule", explained->rule);
	add_text(object, "link", explained->link);
	add_text(object, "socket", steer->has_socket ? steer_socket_name(steer->socket) : NULL);
	add_text(object, "program",
		 steer->interface.role == HF_ROLE_LINK ? "builtin" : steer->program);
	json_object_object_add(object, "hooks", view_hooks(steer));
	json_object_object_add(object, "answer", view_answer(steer));
	for (size_t i = 0; i < explained->line_count; i++)
		json_object_array_add(path, json_object_new_string(explained->lines[i]));
	json_object_object_add(object, "path", path);
	return object;
}

static void on_explained(void *arg, int status, const struct input_error *err,
			 const struct daemon_explained *explained)
{
	struct call *call = arg;

	if (status == -EAGAIN) {
		call_problem(call, 503, NULL, "too many wait until the programs are loaded");
		call_add_header(call, "Retry-After", "1");
	} else if (status < 0) {
		call_error(call, status, err, "the packet");
	} else {
		call_json(call, 200, view_explained(explained));
	}
	call_unref(call);
}

void post_explain(struct call *call)
{
	struct daemon_explain_ask *ask = calloc(1, sizeof(*ask));
	struct json_object *object = NULL;
	struct input_error err = {0};
	int r = ask ? json_read((const char *)buf_bytes(&call->body), buf_len(&call->body), &err,
				&object)
		    : -ENOMEM;

	if (r == 0)
		r = read_ask(object, ask, &err);
	json_object_put(object);
	if (r < 0)
		call_error(call, r, &err, "the question");
	else
		daemon_explain(call->api->daemon, ask, on_explained, call_ref(call));
	free(ask);
}
