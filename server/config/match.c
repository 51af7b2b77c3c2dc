#include "config/config.h"

#include <string.h>
#include <strings.h>

/* '*' is any run of characters; text has len bytes. Linear but for backing up to the last '*'. */
static bool glob(const char *pattern, const char *text, size_t len)
{
	const char *star = NULL, *end = text + len, *from = NULL;

	while (text < end) {
		if (*pattern == '*') {
			star = ++pattern;
			from = text;
		} else if (*pattern == *text) {
			pattern++;
			text++;
		} else if (star) {
			pattern = star;
			text = ++from;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}

static bool host_fits(char *const *list, const char *host)
{
	size_t len;

	if (!list || !list[0])
		return true;
	if (!host)
		return false;
	len = strlen(host);
	for (; *list; list++) {
		const char *name = *list;
		size_t suffix;

		if (!strcmp(name, "*"))
			return true;
		if (name[0] != '*') {
			if (!strcasecmp(name, host))
				return true;
			continue;
		}
		suffix = strlen(++name); /* ".fleet.example" */
		if (len > suffix && !strcasecmp(host + len - suffix, name))
			return true;
	}
	return false;
}

static bool address_fits(const struct rule_match *match, const struct ip *ip)
{
	for (size_t i = 0; i < match->address_count; i++)
		if (ip_prefix_contains(&match->address[i], ip))
			return true;
	return !match->address_count;
}

static bool port_fits(const struct rule_match *match, uint16_t port)
{
	for (size_t i = 0; i < match->port_count; i++)
		if (port >= match->port[i].first && port <= match->port[i].last)
			return true;
	return !match->port_count;
}

static bool protocol_fits(enum protocol wanted, enum protocol is)
{
	if (wanted == PROTOCOL_TCP)
		return is == PROTOCOL_TCP || is == PROTOCOL_HTTP || is == PROTOCOL_TLS;
	return wanted == PROTOCOL_ANY || wanted == is;
}

static bool method_fits(char *const *list, const char *method)
{
	if (!list || !list[0])
		return true;
	for (; method && *list; list++)
		if (!strcmp(*list, method))
			return true;
	return false;
}

static bool path_fits(char *const *list, const char *path)
{
	size_t len;

	if (!list || !list[0])
		return true;
	if (!path)
		return false;
	len = strcspn(path, "?#");
	for (; *list; list++)
		if (glob(*list, path, len))
			return true;
	return false;
}

static bool source_fits(const struct rule_match *match, const struct rule_facts *facts)
{
	const char *interface = facts->source_interface;

	for (size_t i = 0; i < match->source_count; i++) {
		const struct rule_source *source = &match->sources[i];

		switch (source->kind) {
		case SOURCE_HOST:
			if (interface && !strcmp(interface, "lo"))
				return true;
			break;
		case SOURCE_INTERFACE:
			if (interface && !strcmp(interface, source->interface))
				return true;
			break;
		case SOURCE_PREFIX:
			if (ip_prefix_contains(&source->prefix, &facts->source))
				return true;
			break;
		}
	}
	return !match->source_count;
}

const struct rule *config_match(const struct config *config, const struct rule_facts *facts)
{
	for (size_t i = 0; i < config->rule_count; i++) {
		const struct rule_match *match = &config->rules[i].match;

		if (protocol_fits(match->protocol, facts->protocol) &&
		    port_fits(match, facts->port) && address_fits(match, &facts->address) &&
		    method_fits(match->method, facts->method) && source_fits(match, facts) &&
		    host_fits(match->host, facts->host) && path_fits(match->path, facts->path))
			return &config->rules[i];
	}
	return &config->defaults;
}

const struct rule *config_rule_by_name(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->rule_count; i++)
		if (!strcmp(config->rules[i].name, name))
			return &config->rules[i];
	return strcmp(name, config->defaults.name) == 0 ? &config->defaults : NULL;
}
