#include "config/read.h"

#include "config/scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same(const char *a, const char *b)
{
	return a && b && !strcmp(a, b);
}

static void check_link(const struct config *config, size_t at, struct config_errors *errors)
{
	const struct link_config *link = &config->links[at];
	const struct probe_config *probe = &link->probe;
	char path[64];

	for (size_t i = 0; i < at; i++) {
		if (same(config->links[i].name, link->name)) {
			snprintf(path, sizeof(path), "links[%zu].name", at);
			errors_add(errors, path, 0, "links[%zu] has this name already", i);
		}
		if (same(config->links[i].interface, link->interface)) {
			snprintf(path, sizeof(path), "links[%zu].interface", at);
			errors_add(errors, path, 0, "links[%zu] has this interface already", i);
		}
	}
	snprintf(path, sizeof(path), "links[%zu].probe", at);
	if (probe->url && probe->connect)
		errors_add(errors, path, 0, "either url or connect is expected, not both");
	if (!probe->url && !probe->connect && probe->interval)
		errors_add(errors, path, 0, "url or connect is expected");
	if (probe->timeout > probe->interval && probe->interval) {
		snprintf(path, sizeof(path), "links[%zu].probe.timeout", at);
		errors_add(errors, path, 0, "at most the interval is allowed");
	}
	if (same(link->interface, "lo")) {
		snprintf(path, sizeof(path), "links[%zu].interface", at);
		errors_add(errors, path, 0, "the loopback interface is no way out");
	}
}

static void check_apps(const struct config *config, struct config_errors *errors)
{
	char **names = config->apps.interfaces;
	char path[64];

	for (size_t i = 0; names && names[i]; i++) {
		snprintf(path, sizeof(path), "apps.interfaces[%zu]", i);
		for (size_t j = 0; j < i; j++)
			if (!strcmp(names[i], names[j]))
				errors_add(errors, path, 0, "\"%s\" stands here twice", names[i]);
		for (size_t j = 0; j < config->link_count; j++)
			if (same(names[i], config->links[j].interface))
				errors_add(errors, path, 0,
					   "\"%s\" is a link: links[%zu]; apps and links have "
					   "interfaces of their own",
					   names[i], j);
		if (!strcmp(names[i], "lo"))
			errors_add(errors, path, 0,
				   "the device's own apps are steered with apps.host");
	}
}

/* path: "defaults" or "rules[n]"; NULL: errors were told where the list was inherited from. */
static void resolve_links(const struct config *config, struct rule_policy *policy, const char *path,
			  struct config_errors *errors)
{
	uint32_t all = (1u << config->link_count) - 1;
	char at[80];

	policy->link_mask = 0;
	for (size_t i = 0; policy->links && policy->links[i]; i++) {
		size_t n = 0;

		while (n < config->link_count && !same(config->links[n].name, policy->links[i]))
			n++;
		if (n < config->link_count) {
			policy->link_mask |= 1u << n;
		} else if (path) {
			snprintf(at, sizeof(at), "%s.links[%zu]", path, i);
			errors_add(errors, at, 0, "there is no link \"%s\"", policy->links[i]);
		}
	}
	if (!policy->links || !policy->links[0])
		policy->link_mask = all;
}

/* defaults: what was told of them already; NULL for themselves. */
static void check_client(const struct rule_policy *policy, const struct rule_policy *defaults,
			 const char *path, struct config_errors *errors)
{
	bool has_key = policy->client_key, has_certificate = policy->client_certificate;
	char at[80];

	if (has_key == has_certificate)
		return;
	if (defaults && has_key == !!defaults->client_key &&
	    has_certificate == !!defaults->client_certificate)
		return;
	snprintf(at, sizeof(at), "%s.%s", path, has_key ? "client_key" : "client_certificate");
	errors_add(errors, at, 0, "this needs %s too",
		   has_key ? "client_certificate" : "client_key");
}

static int resolve_sources(struct rule_match *match)
{
	size_t count = 0;

	while (match->source && match->source[count])
		count++;
	match->sources = calloc(count ? count : 1, sizeof(*match->sources));
	if (!match->sources)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct rule_source *source = &match->sources[i];

		if (!strcmp(match->source[i], "host")) {
			source->kind = SOURCE_HOST;
		} else if (ip_prefix_parse(match->source[i], &source->prefix) == 0) {
			source->kind = SOURCE_PREFIX;
		} else {
			source->kind = SOURCE_INTERFACE;
			snprintf(source->interface, sizeof(source->interface), "%s",
				 match->source[i]);
		}
	}
	match->source_count = count;
	return 0;
}

static int check_rule(struct json_object *rules, struct config *config, size_t at,
		      struct config_errors *errors)
{
	struct rule *rule = &config->rules[at];
	struct json_object *json = json_object_array_get_idx(rules, at);
	char path[32], name_path[48];
	bool own;

	snprintf(path, sizeof(path), "rules[%zu]", at);
	snprintf(name_path, sizeof(name_path), "%s.name", path);
	if (same(rule->name, "defaults"))
		errors_add(errors, name_path, 0,
			   "\"defaults\" is taken: it is what no rule matches");
	for (size_t i = 0; i < at; i++)
		if (same(config->rules[i].name, rule->name))
			errors_add(errors, name_path, 0, "rules[%zu] has this name already", i);
	own = json_object_is_type(json, json_type_object) &&
	      json_object_object_get_ex(json, "links", NULL);
	resolve_links(config, &rule->policy, own ? path : NULL, errors);
	check_client(&rule->policy, &config->defaults.policy, path, errors);
	return resolve_sources(&rule->match);
}

static void check_dns(const struct config *config, struct config_errors *errors)
{
	const struct ip_prefix *v4 = &config->dns.virtual_v4, *v6 = &config->dns.virtual_v6;

	if (v4->bits && (!ip_is_v4(&v4->ip) || v4->bits < 96 + 8 || v4->bits > 96 + 24))
		errors_add(errors, "dns.virtual.ipv4", 0,
			   "an IPv4 prefix from /8 to /24 is expected");
	if (v6->bits && (ip_is_v4(&v6->ip) || v6->bits < 16 || v6->bits > 112))
		errors_add(errors, "dns.virtual.ipv6", 0,
			   "an IPv6 prefix from /16 to /112 is expected");
}

static void check_allow(const struct config *config, struct config_errors *errors)
{
	char path[48];

	for (size_t i = 0; i < config->guard.allow_count; i++) {
		const struct allow_config *allow = &config->guard.allow[i];

		snprintf(path, sizeof(path), "guard.allow[%zu]", i);
		if ((allow->local_port || allow->remote_port) && allow->protocol != IPPROTO_TCP &&
		    allow->protocol != IPPROTO_UDP)
			errors_add(errors, path, 0, "a port needs protocol \"tcp\" or \"udp\"");
		if (!allow->protocol && !allow->has_remote)
			errors_add(errors, path, 0,
				   "this allows everything: set a protocol or a remote, or "
				   "guard.mode \"off\"");
	}
}

int config_check(struct json_object *root, struct config *config, struct config_errors *errors)
{
	size_t before = errors->count;
	struct json_object *rules = NULL;
	int r = 0;

	for (size_t i = 0; i < config->link_count; i++)
		check_link(config, i, errors);
	check_apps(config, errors);
	resolve_links(config, &config->defaults.policy, "defaults", errors);
	check_client(&config->defaults.policy, NULL, "defaults", errors);
	json_object_object_get_ex(root, "rules", &rules);
	for (size_t i = 0; r == 0 && i < config->rule_count; i++)
		r = check_rule(rules, config, i, errors);
	check_dns(config, errors);
	check_allow(config, errors);
	if (config->queue.max_request > config->queue.max_bytes && config->queue.max_bytes)
		errors_add(errors, "queue.max_request", 0, "at most queue.max_bytes is allowed");
	if (r == 0 && errors->count > before)
		r = -EINVAL;
	return r;
}
