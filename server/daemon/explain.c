/* POST /v1/explain: the twins of the programs in service, and the sentences around them. */
#include "daemon/internal.h"
#include "msg/dns_msg.h"
#include "msg/packet_build.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EPHEMERAL_PORT = 40000 };

struct question {
	struct daemon_explain_ask ask; /* with a frame and an interface */
	daemon_explain_cb cb;
	void *arg;
};

struct explain {
	struct daemon *daemon;
	struct steer_explainer *explainer; /* NULL: none yet */
	struct question *waiting[EXPLAIN_WAITING_MAX];
	size_t waiting_count;
	bool loading;
	uv_work_t work;
	struct steer_trial *trial; /* the worker's, while loading */
	struct steer_explainer *loaded;
	int status;
};

/* --- the packet --- */

static int check_families(const struct daemon_explain_ask *ask, struct input_error *err)
{
	if (ip_is_v4(&ask->source) != ip_is_v4(&ask->destination))
		return input_error_set(err, "destination", 0,
				       "source and destination must be of one family");
	return 0;
}

/* A DNS question goes where resolvers are asked: any address does, port 53 decides. */
static int complete_question(struct daemon_explain_ask *ask, struct input_error *err)
{
	bool v6;

	if (ask->protocol && ask->protocol != IPPROTO_UDP)
		return input_error_set(err, "protocol", 0, "a question for a name goes by udp");
	if (ask->port && ask->port != 53)
		return input_error_set(err, "port", 0, "a question for a name goes to port 53");
	ask->protocol = IPPROTO_UDP;
	ask->port = 53;
	if (!ask->has_source && (!ask->interface[0] || !strcmp(ask->interface, "lo"))) {
		v6 = ask->has_destination && !ip_is_v4(&ask->destination);
		ask->has_source = ip_parse(v6 ? "::1" : "127.0.0.1", &ask->source) == 0;
	}
	if (ask->has_source && !ask->has_destination)
		ask->has_destination =
			ip_parse(ip_is_v4(&ask->source) ? "192.0.2.53" : "2001:db8::53",
				 &ask->destination) == 0;
	return 0;
}

static int find_interface(const struct daemon *daemon, struct daemon_explain_ask *ask,
			  struct input_error *err)
{
	const char *name;

	if (ask->interface[0])
		return 0;
	if (!ask->has_source)
		return input_error_set(err, "interface", 0,
				       "name the interface that delivers the frame");
	name = steer_is_device_address(daemon->steer, &ask->source)
		       ? "lo"
		       : daemon_interface_of(daemon, &ask->source);
	if (!name)
		return input_error_set(err, "source", 0,
				       "no interface leads there: name the interface");
	snprintf(ask->interface, sizeof(ask->interface), "%s", name);
	return 0;
}

static int check_packet(const struct daemon_explain_ask *ask, struct input_error *err)
{
	if (!ask->has_source)
		return input_error_set(err, "source", 0, "the address that sends the packet");
	if (!ask->has_destination)
		return input_error_set(err, "destination", 0, "the address that it is sent to");
	if (!ask->protocol)
		return input_error_set(err, "protocol", 0, "tcp, udp or icmp");
	if (ask->protocol != IPPROTO_ICMP && !ask->port)
		return input_error_set(err, "port", 0, "1 to 65535, for tcp and udp");
	return check_families(ask, err);
}

static int write_question(const struct daemon_explain_ask *ask, uint8_t *buffer, size_t size,
			  size_t *ret_len, struct input_error *err)
{
	struct dns_name name;

	if (dns_name_from_text(ask->name, &name) < 0)
		return input_error_set(err, "name", 0, "not a name that DNS can carry");
	*ret_len = dns_question_write(buffer, size, 1, &name, ask->type ? ask->type : DNS_TYPE_A);
	return *ret_len ? 0 : input_error_set(err, "name", 0, "too long");
}

static int make_frame(struct daemon_explain_ask *ask, bool has_mac, struct input_error *err)
{
	/* the payload of ping */
	uint8_t payload[DNS_UDP_SIZE] = {0};
	size_t len = ask->protocol == IPPROTO_ICMP ? 56 : 0;
	struct packet_wanted wanted = {.has_mac = has_mac,
				       .source = ask->source,
				       .destination = ask->destination,
				       .protocol = ask->protocol,
				       .source_port = ask->source_port ? ask->source_port
								       : (uint16_t)EPHEMERAL_PORT,
				       .port = ask->port,
				       .payload = payload};
	int r = ask->name[0] ? write_question(ask, payload, sizeof(payload), &len, err) : 0;

	if (r < 0)
		return r;
	wanted.payload_len = len;
	ask->frame_len = packet_build(ask->frame, sizeof(ask->frame), &wanted);
	return ask->frame_len ? 0 : input_error_set(err, "", 0, "the packet would be too long");
}

/* The ask, with a frame that the interface can deliver. */
static int complete(const struct daemon *daemon, struct daemon_explain_ask *ask,
		    struct input_error *err)
{
	struct hf_interface interface;
	int r = ask->name[0] ? complete_question(ask, err) : 0;

	if (r == 0)
		r = find_interface(daemon, ask, err);
	if (r < 0)
		return r;
	if (steer_interface_role(daemon->steer, ask->interface, &interface) < 0)
		return input_error_set(err, "interface", 0,
				       "\"%s\" is no interface of apps, no link and not lo",
				       ask->interface);
	if (!ask->frame_len) {
		r = check_packet(ask, err);
		return r < 0 ? r : make_frame(ask, interface.has_mac, err);
	}
	if (ask->frame_len < EXPLAIN_FRAME_MIN)
		return input_error_set(err, "frame", 0, "at least %d octets", EXPLAIN_FRAME_MIN);
	return 0;
}

/* --- the sentences --- */

static void say(struct daemon_explained *out, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void say(struct daemon_explained *out, const char *format, ...)
{
	va_list args;

	if (out->line_count == EXPLAIN_LINES_MAX)
		return;
	va_start(args, format);
	vsnprintf(out->lines[out->line_count++], EXPLAIN_LINE_MAX, format, args);
	va_end(args);
}

static void say_interface(const struct daemon *daemon, struct daemon_explained *out)
{
	const struct hf_interface *interface = &out->steer.interface;

	switch ((enum hf_role)interface->role) {
	case HF_ROLE_APP:
		say(out, "%s is an interface of apps: its packets pass the steer program \"%s\"",
		    out->interface, out->steer.program);
		return;
	case HF_ROLE_HOST:
		say(out,
		    "%s carries what the device's own apps send: it passes the steer program "
		    "\"%s\"",
		    out->interface, out->steer.program);
		return;
	case HF_ROLE_LINK:
		say(out,
		    "%s is the interface of link \"%s\": what leaves by it passes the guard, here "
		    "as a packet that no socket of the daemon sent",
		    out->interface,
		    interface->link ? link_name(links_at(daemon->links, interface->link - 1u))
				    : "");
		return;
	}
}

static void say_step(struct daemon_explained *out, enum hf_hook hook)
{
	const struct steer_step *step = &out->steer.steps[hook];

	if (!step->ran)
		return;
	if (hook == HF_HOOK_LOOKUP && out->steer.has_socket)
		say(out, "lookup gives it to the socket %s: %s",
		    steer_socket_name(out->steer.socket), hf_reason_text(step->reason));
	else if (hook == HF_HOOK_LOOKUP && step->verdict == HF_VERDICT_PASS)
		say(out, "lookup leaves it alone: the kernel looks for a socket as always");
	else
		say(out, "%s: %s, %s (%s)", hf_hook_name(hook), hf_verdict_name(step->verdict),
		    hf_reason_name(step->reason), hf_reason_text(step->reason));
}

/* The hook that decided: lookup only where it keeps from steer's packet its receiver. */
static void decide(struct daemon_explained *out)
{
	const struct steer_step *steps = out->steer.steps;

	if (steps[HF_HOOK_GUARD].ran)
		out->decisive = steps[HF_HOOK_GUARD];
	else if (steps[HF_HOOK_LOOKUP].ran && steps[HF_HOOK_LOOKUP].verdict == HF_VERDICT_DROP)
		out->decisive = steps[HF_HOOK_LOOKUP];
	else
		out->decisive = steps[HF_HOOK_STEER];
}

/* --- rule and link --- */

static bool is_for_resolver(const struct steer_explanation *steer)
{
	return steer->has_socket && steer->socket >= HF_SOCKET_DNS_UDP4 &&
	       steer->socket <= HF_SOCKET_DNS_TCP6;
}

static bool is_for_api(const struct steer_explanation *steer)
{
	return steer->has_socket &&
	       (steer->socket == HF_SOCKET_API_TCP4 || steer->socket == HF_SOCKET_API_TCP6);
}

/* An echo request that goes out by the relay has no socket: it is raised to the daemon. */
static bool is_carried(const struct daemon_explained *out)
{
	return (out->steer.has_socket && !is_for_api(&out->steer)) ||
	       (out->decisive.reason == HF_REASON_ECHO_RELAY &&
		out->decisive.verdict == HF_VERDICT_STEER);
}

static void find_host(const struct daemon *daemon, const struct daemon_explain_ask *ask,
		      const struct packet_facts *packet, struct daemon_explained *out,
		      char *ret_host)
{
	const char *name = resolver_name_of(daemon->resolver, &packet->destination);
	struct dns_question question;

	ret_host[0] = '\0';
	if (is_for_resolver(&out->steer)) {
		if (packet->protocol == IPPROTO_UDP &&
		    dns_question_read(packet->payload, packet->payload_len, &question) == 0 &&
		    question.name.len) {
			dns_name_lower(&question.name);
			if (dns_name_to_text(&question.name, ret_host, NAME_TEXT_MAX) == 0)
				say(out, "the question is for %s", ret_host);
		}
	} else if (ask->host[0]) {
		snprintf(ret_host, NAME_TEXT_MAX, "%s", ask->host);
	} else if (name) {
		snprintf(ret_host, NAME_TEXT_MAX, "%s", name);
		say(out, "the destination is the virtual address of %s", name);
	}
}

static enum protocol assume_protocol(const struct daemon_explain_ask *ask,
				     const struct packet_facts *packet,
				     struct daemon_explained *out)
{
	if (is_for_resolver(&out->steer))
		return PROTOCOL_ANY;
	if (packet->protocol == IPPROTO_UDP)
		return PROTOCOL_UDP;
	if (packet->protocol != IPPROTO_TCP)
		return PROTOCOL_ANY;
	if (ask->method[0] || ask->path[0])
		return PROTOCOL_HTTP;
	if (packet->port != 80 && packet->port != 443) {
		say(out, "assumed: neither HTTP nor TLS, which its first octets will tell");
		return PROTOCOL_TCP;
	}
	say(out, "assumed from port %u: %s, which its first octets will tell", packet->port,
	    packet->port == 80 ? "HTTP" : "TLS");
	return packet->port == 80 ? PROTOCOL_HTTP : PROTOCOL_TLS;
}

static void say_no_link(const struct rule *rule, enum protocol protocol,
			struct daemon_explained *out)
{
	char hold[32];

	duration_format(rule->policy.hold, hold, sizeof(hold));
	if (is_for_resolver(&out->steer))
		say(out, "no link that the rule allows is online: the name's virtual address is "
			 "the answer");
	else if (protocol == PROTOCOL_HTTP)
		say(out,
		    "no link that the rule allows is online: a request is held for %s, then stored "
		    "or refused as the rule says",
		    hold);
	else if (protocol == PROTOCOL_TCP || protocol == PROTOCOL_TLS)
		say(out,
		    "no link that the rule allows is online: the connection is held for %s, then "
		    "closed",
		    hold);
	else
		say(out, "no link that the rule allows is online: it is refused");
}

static void find_rule(struct daemon *daemon, const struct daemon_explain_ask *ask,
		      const struct packet_facts *packet, struct daemon_explained *out)
{
	char host[NAME_TEXT_MAX];
	struct rule_facts facts = {.address = packet->destination, .port = packet->port};
	const struct rule *rule;
	const struct link *link;

	if (is_for_api(&out->steer))
		say(out, "the API for apps answers it: no rule, no link");
	if (!is_carried(out))
		return;
	find_host(daemon, ask, packet, out, host);
	facts.protocol = assume_protocol(ask, packet, out);
	facts.host = host[0] ? host : NULL;
	facts.source = packet->source;
	if (is_for_resolver(&out->steer)) {
		facts = (struct rule_facts){.host = facts.host, .source = facts.source};
	} else {
		facts.source_interface = out->interface;
		facts.method = ask->method[0] ? ask->method : NULL;
		facts.path = ask->path[0] ? ask->path : NULL;
		if (!facts.host)
			say(out, "the name that is meant is not known: rules with a host may match "
				 "when it is");
	}
	rule = config_match(daemon->config, &facts);
	snprintf(out->rule, sizeof(out->rule), "%s", rule->name);
	if (rule->policy.action == ACTION_REJECT && !is_for_resolver(&out->steer)) {
		say(out, "rule \"%s\" rejects it", rule->name);
		return;
	}
	link = links_choose(daemon->links, &rule->policy, 0);
	say(out, "rule \"%s\" applies", rule->name);
	if (!link) {
		say_no_link(rule, facts.protocol, out);
		return;
	}
	snprintf(out->link, sizeof(out->link), "%s", link_name(link));
	say(out, "link \"%s\" is the best that the rule allows", out->link);
}

static void say_routing(const struct packet_facts *packet, struct daemon_explained *out)
{
	if (out->decisive.verdict == HF_VERDICT_STEER && out->steer.steps[HF_HOOK_LOOKUP].ran)
		say(out, "routing: table %d makes the destination local", STEER_TABLE_STEER);
	if (packet->protocol == IPPROTO_TCP && out->steer.steps[HF_HOOK_LOOKUP].ran &&
	    (packet->tcp_flags & (PACKET_TCP_SYN | PACKET_TCP_ACK)) != PACKET_TCP_SYN)
		say(out, "it begins no connection: one that is there gets it without lookup");
	if (packet->fragment && out->steer.action == XDP_PASS)
		say(out, "lookup is asked when its fragments have been put together");
}

static void say_answer(struct daemon_explained *out)
{
	char text[PACKET_TEXT_MAX];

	if (out->steer.answer_len)
		say(out, "the kernel answers: %.200s",
		    packet_text(out->steer.answer, out->steer.answer_len,
				out->steer.interface.has_mac, text));
}

static int explain_now(struct explain *explain, const struct daemon_explain_ask *ask,
		       struct daemon_explained *out)
{
	struct daemon *daemon = explain->daemon;
	struct packet_facts packet = {0};
	int r = steer_explain(explain->explainer, daemon->steer, ask->interface, ask->frame,
			      ask->frame_len, &out->steer);

	if (r < 0)
		return r;
	snprintf(out->interface, sizeof(out->interface), "%s", ask->interface);
	/* Of what cannot be read nothing more is told than the programs say. */
	if (packet_read(ask->frame, ask->frame_len, out->steer.interface.has_mac, &packet) < 0)
		packet = (struct packet_facts){0};
	decide(out);
	say_interface(daemon, out);
	say_step(out, HF_HOOK_STEER);
	say_routing(&packet, out);
	say_step(out, HF_HOOK_LOOKUP);
	find_rule(daemon, ask, &packet, out);
	say_step(out, HF_HOOK_GUARD);
	say_answer(out);
	return 0;
}

/* --- loading the twins --- */

static void answer(struct explain *explain, const struct question *question, int status)
{
	struct daemon_explained *out = status < 0 ? NULL : calloc(1, sizeof(*out));

	if (status == 0)
		status = out ? explain_now(explain, &question->ask, out) : -ENOMEM;
	question->cb(question->arg, status, NULL, status < 0 ? NULL : out);
	free(out);
}

static void answer_waiting(struct explain *explain, int status)
{
	size_t count = explain->waiting_count;
	struct question *waiting[EXPLAIN_WAITING_MAX];

	memcpy(waiting, explain->waiting, sizeof(waiting));
	explain->waiting_count = 0;
	for (size_t i = 0; i < count; i++) {
		answer(explain, waiting[i], status);
		free(waiting[i]);
	}
}

static void explain_free(struct explain *explain)
{
	steer_explainer_free(explain->explainer);
	free(explain);
}

static void on_load(uv_work_t *work)
{
	struct explain *explain = work->data;

	explain->status = steer_explainer_load(explain->trial, &explain->loaded);
}

static void load(struct explain *explain);

static void on_loaded(uv_work_t *work, int status)
{
	struct explain *explain = work->data;
	struct daemon *daemon = explain->daemon;

	explain->loading = false;
	steer_trial_free(explain->trial);
	steer_explainer_free(explain->explainer);
	explain->explainer = status < 0 || explain->status < 0 ? NULL : explain->loaded;
	if (daemon->closing) {
		explain_free(explain);
		daemon_unhold(daemon);
		return;
	}
	daemon->handles--; /* those of the daemon itself are open */
	if (!explain->explainer)
		answer_waiting(explain, status < 0 ? status : explain->status);
	else if (steer_explainer_is_current(explain->explainer, daemon->steer))
		answer_waiting(explain, 0);
	else
		load(explain);
}

static void load(struct explain *explain)
{
	int r = steer_trial_new(explain->daemon->steer, NULL, 0, &explain->trial);

	if (r == 0) {
		explain->work.data = explain;
		r = uv_queue_work(explain->daemon->loop, &explain->work, on_load, on_loaded);
		if (r < 0)
			steer_trial_free(explain->trial);
	}
	if (r < 0) {
		answer_waiting(explain, r);
		return;
	}
	explain->loading = true;
	explain->daemon->handles++;
}

void explain_close(struct daemon *daemon)
{
	struct explain *explain = daemon->explain;

	daemon->explain = NULL;
	if (!explain)
		return;
	answer_waiting(explain, -ECANCELED);
	if (!explain->loading)
		explain_free(explain);
}

static struct explain *get(struct daemon *daemon)
{
	if (!daemon->explain && !daemon->closing)
		daemon->explain = calloc(1, sizeof(*daemon->explain));
	if (daemon->explain)
		daemon->explain->daemon = daemon;
	return daemon->explain;
}

static void wait_for_twins(struct explain *explain, struct question *question)
{
	if (explain->waiting_count == EXPLAIN_WAITING_MAX) {
		question->cb(question->arg, -EAGAIN, NULL, NULL);
		free(question);
		return;
	}
	explain->waiting[explain->waiting_count++] = question;
	if (!explain->loading)
		load(explain);
}

void daemon_explain(struct daemon *daemon, const struct daemon_explain_ask *ask,
		    daemon_explain_cb cb, void *arg)
{
	struct question *question = malloc(sizeof(*question));
	struct explain *explain = get(daemon);
	struct input_error err = {0};
	int r = -ENOMEM;

	if (question && explain) {
		*question = (struct question){.ask = *ask, .cb = cb, .arg = arg};
		r = complete(daemon, &question->ask, &err);
	}
	if (r < 0) {
		cb(arg, daemon->closing ? -ECANCELED : r, err.text[0] ? &err : NULL, NULL);
		free(question);
	} else if (explain->explainer && !explain->loading &&
		   steer_explainer_is_current(explain->explainer, daemon->steer)) {
		answer(explain, question, 0);
		free(question);
	} else {
		wait_for_twins(explain, question);
	}
}
