/* POST /v1/requests: an app that knows Holdfast hands a request over. */
#include "daemon/internal.h"

#include "msg/http_target.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct submission {
	daemon_submit_cb cb;
	void *arg;
	char id[ID_TEXT_MAX];
};

struct target {
	char scheme[8], authority[NAME_TEXT_MAX + 8], host[NAME_TEXT_MAX];
	const char *path;
	uint16_t port;
	const struct rule *rule;
};

/* As an app's Host is read. */
static int read_host(const char *text, size_t len, struct target *target, struct input_error *err)
{
	char copy[sizeof(target->authority)];
	struct http_authority authority;

	if (!len || len >= sizeof(copy))
		return input_error_set(err, "url", 0, "the host is missing or too long");
	memcpy(copy, text, len);
	copy[len] = '\0';
	if (http_read_authority(copy, &authority) < 0)
		return input_error_set(err, "url", 0,
				       "\"%s\" is no host: a name, an IPv4 address or an IPv6 "
				       "address in brackets, and a port of 1 to 65535 if any",
				       copy);
	memcpy(target->host, authority.host, sizeof(authority.host));
	if (!authority.port || authority.port == target->port) {
		snprintf(target->authority, sizeof(target->authority), "%s", target->host);
		return 0;
	}
	target->port = authority.port;
	snprintf(target->authority, sizeof(target->authority), "%s:%u", target->host,
		 authority.port);
	return 0;
}

static int read_url(const char *url, struct target *target, struct input_error *err)
{
	const char *host;
	size_t len;

	if (strncasecmp(url, "http://", 7) == 0)
		*target = (struct target){.scheme = "http", .port = 80};
	else if (strncasecmp(url, "https://", 8) == 0)
		*target = (struct target){.scheme = "https", .port = 443};
	else
		return input_error_set(err, "url", 0, "only http:// and https:// URLs are sent");
	host = url + strlen(target->scheme) + strlen("://");
	len = strcspn(host, "/?#");
	target->path = host[len] == '/' ? host + len : "/";
	if (host[len] == '?' || strchr(host, '#') || strlen(target->path) > HTTP_TARGET_MAX)
		return input_error_set(err, "url", 0,
				       "the path must begin with / and have no fragment");
	for (const char *c = target->path; *c; c++)
		if ((unsigned char)*c <= 0x20 || (unsigned char)*c == 0x7f)
			return input_error_set(err, "url", 0,
					       "white space and control characters are escaped");
	return read_host(host, len, target, err);
}

static bool is_token(const char *text)
{
	if (!*text)
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr("!#$%&'*+-.^_`|~", *text))
			return false;
	return true;
}

static bool is_field_value(const char *text)
{
	for (; *text; text++)
		if (((unsigned char)*text < 0x20 && *text != '\t') || *text == 0x7f)
			return false;
	return true;
}

/* Length and framing are ours to set. */
static bool is_framing(const char *name)
{
	return strcasecmp(name, "content-length") == 0 ||
	       strcasecmp(name, "transfer-encoding") == 0 || strcasecmp(name, "host") == 0 ||
	       strcasecmp(name, "expect") == 0;
}

static int read_fields(const struct daemon_submit *submit, const struct target *target,
		       struct http_head *head, struct input_error *err)
{
	int r = http_field_add(head, "Host", target->authority);

	for (const char *const *field = submit->fields; field && field[0] && r == 0; field += 2) {
		if (!is_token(field[0]) || !is_field_value(field[1]))
			return input_error_set(err, "headers", 0, "\"%s\" is no valid header field",
					       field[0]);
		if (!is_framing(field[0]))
			r = http_field_add(head, field[0], field[1]);
	}
	return r < 0 ? input_error_set(err, "headers", 0, "too many or too large") : 0;
}

static void on_put(void *arg, int status)
{
	struct submission *submission = arg;

	submission->cb(submission->arg, status, submission->id, NULL);
	free(submission);
}

/* As for an app that speaks http: its rule says how it goes on. */
static void go_over_tls(struct target *target)
{
	if (target->port == 80)
		target->port = 443;
	snprintf(target->scheme, sizeof(target->scheme), "https");
	if (target->port == 443)
		memcpy(target->authority, target->host, sizeof(target->host));
}

/* By the port of the URL; the rule may say that it goes over TLS from here on. */
static void match_rule(struct daemon *daemon, const struct daemon_submit *submit,
		       struct target *target)
{
	struct rule_facts facts = {
		.host = target->host,
		.port = target->port,
		.protocol = PROTOCOL_HTTP,
		.method = submit->method,
		.path = target->path,
	};

	target->rule = config_match(daemon->config, &facts);
	if (target->rule->policy.upstream_tls)
		go_over_tls(target);
}

static int put(struct daemon *daemon, const struct daemon_submit *submit,
	       const struct target *target, const struct http_head *head,
	       struct submission *submission)
{
	int64_t now = exchange_wall_ms();
	const struct rule *rule = target->rule;
	struct queue_request request = {
		.rule = rule->name,
		.source = submit->source,
		.method = submit->method,
		.scheme = target->scheme,
		.authority = target->authority,
		.target = target->path,
		.body = submit->body,
		.body_len = submit->body_len,
		.idempotency_key = http_field(head, "idempotency-key"),
		.ordered = rule->policy.order && !http_method_is_safe(submit->method),
		.importance = rule->policy.importance,
		.attempts_max = rule->policy.attempts,
		.received = now,
		.expires = now + (int64_t)rule->policy.expire,
	};
	struct buf fields;
	int r;

	exchange_make_id(now, submission->id);
	memcpy(request.id, submission->id, sizeof(request.id));
	buf_init(&fields, 2 * HTTP_HEAD_MAX);
	r = http_write_fields(&fields, head);
	if (r == 0)
		r = buf_printf(&fields, HTTP_VIA, head->minor);
	request.fields = buf_bytes(&fields);
	request.fields_len = buf_len(&fields);
	if (r == 0)
		r = queue_put(daemon->queue, &request, "handed over through the API", on_put,
			      submission);
	buf_done(&fields);
	return r;
}

static int check(struct daemon *daemon, const struct daemon_submit *submit, struct target *target,
		 struct http_head *head, struct input_error *err)
{
	int r = read_url(submit->url, target, err);

	if (r == 0 && (!is_token(submit->method) || strlen(submit->method) > 24 ||
		       strcmp(submit->method, "CONNECT") == 0))
		r = input_error_set(err, "method", 0, "not a method that can be sent");
	if (r == 0) {
		match_rule(daemon, submit, target);
		r = read_fields(submit, target, head, err);
	}
	if (r == 0 && submit->body_len > daemon->config->queue.max_request) {
		input_error_set(err, "body", 0, "larger than queue.max_request");
		r = -E2BIG;
	}
	return r;
}

int daemon_submit(struct daemon *daemon, const struct daemon_submit *submit, daemon_submit_cb cb,
		  void *arg)
{
	struct submission *submission = calloc(1, sizeof(*submission));
	struct input_error err = {0};
	struct target target = {0};
	struct http_head head;
	int r;

	if (!submission)
		return -ENOMEM;
	*submission = (struct submission){.cb = cb, .arg = arg};
	http_head_init(&head, HTTP_KIND_REQUEST);
	r = check(daemon, submit, &target, &head, &err);
	if (r == 0)
		r = put(daemon, submit, &target, &head, submission);
	if (r < 0) {
		cb(arg, r, NULL, err.text[0] ? &err : NULL);
		free(submission);
	}
	http_head_done(&head);
	return 0;
}
