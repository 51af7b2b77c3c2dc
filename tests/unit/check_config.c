/* links: hf_config */
#include "config/config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct config_errors errors;

static struct config *parse_ok(const char *text)
{
	struct config *config = NULL;
	int r = config_parse(text, strlen(text), &errors, &config);

	ck_assert_msg(r == 0, "%s: %s", errors.items[0].path, errors.items[0].text);
	return config;
}

/* The text must be refused with an error at this path whose text has this in it. */
static void refused(const char *text, const char *path, const char *what)
{
	struct config *config = NULL;

	ck_assert_int_eq(config_parse(text, strlen(text), &errors, &config), -EINVAL);
	ck_assert_ptr_null(config);
	for (size_t i = 0; i < errors.count && i < 64; i++)
		if (!strcmp(errors.items[i].path, path) && strstr(errors.items[i].text, what))
			return;
	ck_abort_msg("%s: no error at \"%s\" with \"%s\", but \"%s\": %s (line %d)", text, path,
		     what, errors.items[0].path, errors.items[0].text, errors.items[0].line);
}

static void refused_in_line(const char *text, int line)
{
	struct config *config = NULL;

	ck_assert_int_eq(config_parse(text, strlen(text), &errors, &config), -EINVAL);
	ck_assert_msg(errors.items[0].line == line, "%s: line %d: %s", text, errors.items[0].line,
		      errors.items[0].text);
}

START_TEST(an_empty_object_gives_the_defaults)
{
	struct config *c = parse_ok("{}");
	const struct rule_policy *p = &c->defaults.policy;

	ck_assert_str_eq(c->state_dir, "/var/lib/holdfast");
	ck_assert(c->apps.host);
	ck_assert_uint_eq(c->link_count, 0);
	ck_assert_uint_eq(p->hold, 30000);
	ck_assert_uint_eq(p->expire, 86400000);
	ck_assert_int_eq(p->store, STORE_UNSAFE);
	ck_assert_int_eq(p->reply, REPLY_RETRY);
	ck_assert_uint_eq(p->attempts, 20);
	ck_assert_uint_eq(p->importance, 5);
	ck_assert(p->order && p->dedupe && p->metered && !p->upstream_tls);
	ck_assert(!p->upstream_ca && !p->client_certificate && !p->client_key);
	ck_assert_str_eq(p->hash_headers[0], "Authorization");
	ck_assert_str_eq(p->hash_headers[3], "Accept");
	ck_assert_ptr_null(p->hash_headers[4]);
	ck_assert_uint_eq(c->queue.max_bytes, 256 << 20);
	ck_assert_uint_eq(c->queue.keep_response, 600000);
	ck_assert_str_eq(c->api.listen[1], "unix:/run/holdfast/api.sock");
	ck_assert_ptr_null(c->api.token_file);
	ck_assert_uint_eq(c->dns.virtual_v4.bits, 96 + 15);
	ck_assert_uint_eq(c->dns.virtual_v6.bits, 64);
	ck_assert_uint_eq(c->programs.confirm_within, 60000);
	ck_assert_int_eq(c->guard.mode, GUARD_ENFORCE);
	config_unref(c);
}
END_TEST

static const char example[] =
	"{ // comment\n"
	"\"state_dir\": \"/var/lib/holdfast\",\n"
	"\"apps\":  { \"host\": true, \"interfaces\": [\"docker0\", \"eth1\"], \"exempt_uids\": "
	"[7] },\n"
	"\"links\": [\n"
	"  { \"name\": \"wifi\", \"interface\": \"wlan0\", \"priority\": 10, \"metered\": false,\n"
	"    \"enabled\": true, \"dns\": [\"192.0.2.53\"], /* a\n comment */\n"
	"    \"probe\": { \"url\": \"http://probe.example/204\", \"interval\": \"5s\",\n"
	"               \"timeout\": \"2s\", \"fall\": 2, \"rise\": 1 } },\n"
	"  { \"name\": \"lte\", \"interface\": \"wwan0\", \"priority\": 20, \"metered\": true } "
	"],\n"
	"\"rules\": [ { \"name\": \"telemetry\",\n"
	"  \"match\": { \"host\": [\"*.Fleet.example\"], \"address\": [], \"port\": [443, "
	"\"8000-8999\"],\n"
	"     \"protocol\": \"http\", \"method\": [\"POST\"], \"path\": [\"/v1/*\"], \"source\": "
	"[] },\n"
	"  \"action\": \"proxy\", \"links\": [\"lte\"], \"metered\": true, \"hold\": \"3s\",\n"
	"  \"store\": \"unsafe\", \"reply\": \"retry\", \"expire\": \"7d\", \"attempts\": 20,\n"
	"  \"importance\": 5, \"order\": true, \"dedupe\": true,\n"
	"  \"hash_headers\": [\"Authorization\"], \"on_disconnect\": \"cancel\",\n"
	"  \"upstream_tls\": false, \"tls\": \"pass\" } ],\n"
	"\"defaults\": { \"store\": \"all\", \"hold\": \"9s\" },\n"
	"\"when_stopped\": \"block\",\n"
	"\"dns\": { \"online\": \"real\", \"offline\": \"virtual\", \"virtual\": {\n"
	"   \"ipv4\": \"198.18.0.0/15\", \"ipv6\": \"fd5a:fe00::/64\", \"ttl\": \"1s\" } },\n"
	"\"queue\": { \"max_bytes\": \"256M\", \"max_request\": \"16M\", \"keep_response\": "
	"\"10m\" },\n"
	"\"guard\": { \"mode\": \"observe\", \"allow\": [ { \"protocol\": \"tcp\", \"local_port\": "
	"22 },\n"
	"   { \"remote\": \"2001:db8::/32\" } ] },\n"
	"\"programs\": { \"trusted_keys\": [], \"confirm_within\": \"60s\" },\n"
	"\"api\": { \"listen\": [\"127.0.0.1:7080\", \"[::1]:7080\"], \"token_file\": null } }\n";

START_TEST(every_key_of_the_design_is_read)
{
	struct config *c = parse_ok(example);
	const struct rule *rule = &c->rules[0];

	ck_assert_str_eq(c->apps.interfaces[1], "eth1");
	ck_assert_uint_eq(c->apps.exempt_uids[0], 7);
	ck_assert_uint_eq(c->link_count, 2);
	ck_assert_str_eq(c->links[0].probe.url, "http://probe.example/204");
	ck_assert_uint_eq(c->links[0].dns_count, 1);
	ck_assert_ptr_null(c->links[1].probe.url);
	ck_assert(c->links[1].metered);
	ck_assert_str_eq(rule->match.host[0], "*.fleet.example");
	ck_assert_uint_eq(rule->match.port[1].last, 8999);
	ck_assert_uint_eq(rule->policy.link_mask, 2);
	ck_assert_uint_eq(rule->policy.hold, 3000);
	ck_assert_uint_eq(c->defaults.policy.link_mask, 3);
	ck_assert_int_eq(c->when_stopped, STOP_BLOCK);
	ck_assert_uint_eq(c->guard.allow[0].protocol, IPPROTO_TCP);
	ck_assert_uint_eq(c->guard.allow[0].local_port, 22);
	ck_assert(!c->guard.allow[0].has_remote && c->guard.allow[1].has_remote);
	config_unref(c);
}
END_TEST

START_TEST(a_rule_takes_from_defaults_what_it_leaves_out)
{
	struct config *c = parse_ok("{\"defaults\":{\"hold\":\"9s\",\"store\":\"all\"},\"rules\":"
				    "[{\"name\":\"a\",\"store\":\"none\"},{\"name\":\"b\"}]}");

	ck_assert_uint_eq(c->rules[0].policy.hold, 9000);
	ck_assert_int_eq(c->rules[0].policy.store, STORE_NONE);
	ck_assert_int_eq(c->rules[1].policy.store, STORE_ALL);
	ck_assert_uint_eq(c->rules[1].policy.attempts, 20);
	ck_assert_ptr_eq(config_rule_by_name(c, "b"), &c->rules[1]);
	ck_assert_ptr_eq(config_rule_by_name(c, "defaults"), &c->defaults);
	ck_assert_ptr_null(config_rule_by_name(c, "c"));
	config_unref(c);
}
END_TEST

START_TEST(syntax_errors_have_their_line)
{
	refused_in_line("", 1);
	refused_in_line("{\n\n'a': 1}", 3);
	refused_in_line("{\n\"state_dir\": '/x'}", 2);
	refused_in_line("{\n// x\n\"queue\": {},\n}", 4);
	refused_in_line("{\"links\": [\n1,\n]}", 3);
	refused_in_line("{\n\"x\": NaN}", 2);
	refused_in_line("{\n\"x\": Infinity}", 2);
	refused_in_line("{\"x\": 01}", 1);
	refused_in_line("{\"x\":\n\"a\nb\"}", 2);
	refused_in_line("{}\n\nx", 3);
	refused_in_line("{\n/* no end\n\n", 2);
	refused_in_line("{\n\"queue\": {},\n\"queue\": {}}", 3);
	refused_in_line("{\"state_dir\":\n\"\\u0000\"}", 2);
	refused_in_line("{\"state_dir\":\n\"/\xff\"}", 2);
}
END_TEST

START_TEST(duplicate_keys_are_named)
{
	refused("{\"queue\":{\"max_bytes\":\"1M\",\n\"max_bytes\":\"2M\"}}", "queue.max_bytes",
		"line 1");
	refused("{\"links\":[{},{\"name\":\"a\",\"name\":\"b\"}]}", "links[1].name", "twice");
}
END_TEST

START_TEST(comments_are_not_seen_in_strings)
{
	struct config *c = parse_ok("{\"state_dir\": \"/a//b/*c*/\" /* \" */ } // \"");

	ck_assert_str_eq(c->state_dir, "/a//b/*c*/");
	config_unref(c);
}
END_TEST

START_TEST(deep_nesting_is_refused)
{
	char text[200] = "{\"links\":";

	memset(text + 9, '[', 150);
	refused(text,
		"links[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]"
		"[0][0][0][0][0][0][0][0]",
		"nested");
}
END_TEST

#define LINK(name, interface) "{\"name\":\"" name "\",\"interface\":\"" interface "\"}"

static const struct {
	const char *text, *path, *what;
} wrong[] = {
	{"{\"que\":{}}", "que", "no such key"},
	{"{\"queu\":{}}", "queu", "\"queue\""},
	{"{\"queue\":{\"max_byte\":1}}", "queue.max_byte", "\"max_bytes\""},
	{"{\"queue\":[]}", "queue", "object"},
	{"{\"queue\":null}", "queue", "object"},
	{"{\"queue\":{\"max_bytes\":5}}", "queue.max_bytes", "size"},
	{"{\"queue\":{\"max_bytes\":\"1K\"}}", "queue.max_bytes", "\"64K\""},
	{"{\"queue\":{\"max_bytes\":\"1M\"}}", "queue.max_request", "queue.max_bytes"},
	{"{\"queue\":{\"keep_response\":\"-1s\"}}", "queue.keep_response", "duration"},
	{"{\"defaults\":{\"hold\":\"25h\"}}", "defaults.hold", "\"1d\""},
	{"{\"defaults\":{\"hold\":\"30\"}}", "defaults.hold", "duration"},
	{"{\"defaults\":{\"importance\":11}}", "defaults.importance", "0 to 10"},
	{"{\"defaults\":{\"attempts\":1.5}}", "defaults.attempts", "whole number"},
	{"{\"defaults\":{\"attempts\":99999999999999999999}}", "defaults.attempts", "whole"},
	{"{\"defaults\":{\"order\":\"yes\"}}", "defaults.order", "true or false"},
	{"{\"defaults\":{\"name\":\"x\"}}", "defaults.name", "no such key"},
	{"{\"defaults\":{\"upstream_tls\":1}}", "defaults.upstream_tls", "true or false"},
	{"{\"defaults\":{\"upstream_ca\":\"ca.pem\"}}", "defaults.upstream_ca", "absolute path"},
	{"{\"defaults\":{\"client_key\":\"/k\"}}", "defaults.client_key", "client_certificate too"},
	{"{\"rules\":[{\"name\":\"a\",\"client_certificate\":\"/c\"}]}",
	 "rules[0].client_certificate", "client_key too"},
	{"{\"defaults\":{\"client_key\":\"/k\",\"client_certificate\":\"/c\"},"
	 "\"rules\":[{\"name\":\"a\",\"client_certificate\":null}]}",
	 "rules[0].client_key", "client_certificate too"},
	{"{\"defaults\":{\"action\":\"forward\"}}", "defaults.action", "not available yet"},
	{"{\"defaults\":{\"tls\":\"intercept\"}}", "defaults.tls", "\"pass\""},
	{"{\"defaults\":{\"store\":\"some\"}}", "defaults.store", "\"unsafe\", \"all\", \"none\""},
	{"{\"defaults\":{\"links\":[\"x\"]}}", "defaults.links[0]", "no link"},
	{"{\"rules\":[{}]}", "rules[0].name", "required"},
	{"{\"rules\":[3]}", "rules[0]", "object"},
	{"{\"rules\":[{\"name\":\"a\"},{\"name\":\"a\"}]}", "rules[1].name", "rules[0]"},
	{"{\"rules\":[{\"name\":\"defaults\"}]}", "rules[0].name", "taken"},
	{"{\"rules\":[{\"name\":\"a\",\"links\":[\"x\"]}]}", "rules[0].links[0]", "no link"},
	{"{\"rules\":[{\"name\":\"a\",\"match\":{\"host\":[\"a*b\"]}}]}", "rules[0].match.host[0]",
	 "expected"},
	{"{\"rules\":[{\"name\":\"a\",\"match\":{\"port\":[0]}}]}", "rules[0].match.port[0]",
	 "port"},
	{"{\"rules\":[{\"name\":\"a\",\"match\":{\"port\":[\"9-8\"]}}]}", "rules[0].match.port[0]",
	 "range"},
	{"{\"rules\":[{\"name\":\"a\",\"match\":{\"address\":[\"192.0.2.0/33\"]}}]}",
	 "rules[0].match.address[0]", "prefix"},
	{"{\"rules\":[{\"name\":\"a\",\"match\":{\"path\":[\"x\"]}}]}", "rules[0].match.path[0]",
	 "path"},
	{"{\"links\":[" LINK("a", "e0") "," LINK("a", "e1") "]}", "links[1].name", "links[0]"},
	{"{\"links\":[" LINK("a", "e0") "," LINK("b", "e0") "]}", "links[1].interface", "links[0]"},
	{"{\"links\":[" LINK("a", "lo") "]}", "links[0].interface", "loopback"},
	{"{\"links\":[" LINK("a", "interface-too-long") "]}", "links[0].interface", "15"},
	{"{\"links\":[{\"name\":\"a\"}]}", "links[0].interface", "required"},
	{"{\"links\":[{\"name\":\"a\",\"interface\":\"e\",\"probe\":{}}]}", "links[0].probe",
	 "url"},
	{"{\"links\":[{\"name\":\"a\",\"interface\":\"e\",\"probe\":{\"url\":\"https://x/\"}}]}",
	 "links[0].probe.url", "http://"},
	{"{\"links\":[{\"name\":\"a\",\"interface\":\"e\",\"probe\":{\"connect\":\"x\"}}]}",
	 "links[0].probe.connect", "PORT"},
	{"{\"links\":[{\"name\":\"a\",\"interface\":\"e\",\"dns\":[\"x\"]}]}", "links[0].dns[0]",
	 "address"},
	{"{\"links\":[" LINK("a", "e0") "],\"apps\":{\"interfaces\":[\"e0\"]}}",
	 "apps.interfaces[0]", "is a link"},
	{"{\"apps\":{\"interfaces\":[\"a\",\"a\"]}}", "apps.interfaces[1]", "twice"},
	{"{\"dns\":{\"virtual\":{\"ipv4\":\"198.18.0.0/25\"}}}", "dns.virtual.ipv4", "/24"},
	{"{\"dns\":{\"virtual\":{\"ipv4\":\"fd00::/64\"}}}", "dns.virtual.ipv4", "IPv4"},
	{"{\"dns\":{\"virtual\":{\"ipv6\":\"fd00::/113\"}}}", "dns.virtual.ipv6", "/112"},
	{"{\"guard\":{\"allow\":[{}]}}", "guard.allow[0]", "everything"},
	{"{\"guard\":{\"allow\":[{\"local_port\":22}]}}", "guard.allow[0]", "protocol"},
	{"{\"api\":{\"listen\":[\"localhost:80\"]}}", "api.listen[0]", "ADDRESS:PORT"},
	{"{\"api\":{\"listen\":[\"127.0.0.1:99999\"]}}", "api.listen[0]", "ADDRESS:PORT"},
	{"{\"api\":{\"token_file\":\"x\"}}", "api.token_file", "absolute"},
};

START_TEST(what_is_wrong_is_named_with_what_is_allowed)
{
	refused(wrong[_i].text, wrong[_i].path, wrong[_i].what);
}
END_TEST

START_TEST(more_links_than_there_may_be_are_refused)
{
	char text[2048] = "{\"links\":[";

	for (int i = 0; i <= LINKS_MAX; i++)
		sprintf(text + strlen(text), "%s{\"name\":\"l%d\",\"interface\":\"e%d\"}",
			i ? "," : "", i, i);
	strcat(text, "]}");
	refused(text, "links", "at most 16");
}
END_TEST

START_TEST(all_errors_are_told_and_an_inherited_one_once)
{
	refused("{\"a\":1,\"b\":2,\"defaults\":{\"hold\":3,\"links\":[\"x\"]},"
		"\"rules\":[{\"name\":\"r\"},{\"name\":\"s\"}]}",
		"b", "no such key");
	ck_assert_uint_eq(errors.count, 4);
}
END_TEST

static struct rule_facts facts(const char *host, const char *method, const char *path)
{
	struct rule_facts f = {.host = host,
			       .method = method,
			       .path = path,
			       .port = 80,
			       .protocol = PROTOCOL_HTTP,
			       .source_interface = "app0"};

	ck_assert_int_eq(ip_parse("203.0.113.9", &f.address), 0);
	ck_assert_int_eq(ip_parse("2001:db8::7", &f.source), 0);
	return f;
}

static bool fits(const char *match, const struct rule_facts *f)
{
	char text[512];
	struct config *c;
	bool r;

	snprintf(text, sizeof(text), "{\"rules\":[{\"name\":\"r\",\"match\":{%s}}]}", match);
	c = parse_ok(text);
	r = config_match(c, f) != &c->defaults;
	config_unref(c);
	return r;
}

START_TEST(rules_match_what_they_say)
{
	struct rule_facts f = facts("a.b.fleet.example", "POST", "/v1/x/y?q=/v2");
	struct rule_facts bare = facts("fleet.example", "POST", "/v1");
	struct rule_facts flow = facts(NULL, NULL, NULL);

	flow.protocol = PROTOCOL_UDP;
	flow.source_interface = "lo";
	ck_assert(fits("", &f) && fits("", &flow));
	ck_assert(fits("\"host\":[\"*.FLEET.example\"]", &f));
	ck_assert(!fits("\"host\":[\"*.fleet.example\"]", &bare));
	ck_assert(fits("\"host\":[\"x\",\"Fleet.Example\"]", &bare));
	ck_assert(fits("\"host\":[\"*\"]", &bare));
	ck_assert(!fits("\"host\":[\"*\"]", &flow));
	ck_assert(fits("\"address\":[\"203.0.113.0/24\"]", &f));
	ck_assert(!fits("\"address\":[\"203.0.114.0/24\",\"::1\"]", &f));
	ck_assert(fits("\"port\":[443,\"79-81\"]", &f) && !fits("\"port\":[443]", &f));
	ck_assert(fits("\"protocol\":\"tcp\"", &f) && !fits("\"protocol\":\"tcp\"", &flow));
	ck_assert(!fits("\"protocol\":\"tls\"", &f) && fits("\"protocol\":\"udp\"", &flow));
	ck_assert(fits("\"method\":[\"POST\"]", &f) && !fits("\"method\":[\"GET\"]", &f));
	ck_assert(!fits("\"method\":[\"GET\"]", &flow));
	ck_assert(fits("\"path\":[\"/v1/*\"]", &f) && !fits("\"path\":[\"/v1/*\"]", &bare));
	ck_assert(fits("\"path\":[\"*/x/*y\"]", &f) && !fits("\"path\":[\"*v2\"]", &f));
	ck_assert(fits("\"source\":[\"host\"]", &flow) && !fits("\"source\":[\"host\"]", &f));
	ck_assert(fits("\"source\":[\"app0\"]", &f) && !fits("\"source\":[\"app\"]", &f));
	ck_assert(fits("\"source\":[\"2001:db8::/64\"]", &f));
	ck_assert(!fits("\"source\":[\"192.0.2.1\"]", &f));
	ck_assert(!fits("\"host\":[\"*\"],\"port\":[1]", &f));
}
END_TEST

START_TEST(the_first_rule_that_matches_decides)
{
	struct config *c = parse_ok("{\"rules\":[{\"name\":\"no\",\"match\":{\"port\":[1]}},"
				    "{\"name\":\"a\"},{\"name\":\"b\"}]}");
	struct rule_facts f = facts(NULL, NULL, NULL);

	ck_assert_str_eq(config_match(c, &f)->name, "a");
	config_unref(c);
}
END_TEST

START_TEST(written_out_and_read_again_it_is_the_same)
{
	struct config *c = parse_ok(example), *again;
	struct json_object *json = config_to_json(c), *json_again;
	char *text = strdup(json_object_to_json_string(json));

	again = parse_ok(text);
	json_again = config_to_json(again);
	ck_assert_str_eq(json_object_to_json_string(json_again), text);
	ck_assert_ptr_nonnull(strstr(text, "\"8000-8999\""));
	ck_assert_ptr_nonnull(strstr(text, "2001:db8::\\/32"));
	json_object_put(json);
	json_object_put(json_again);
	config_unref(c);
	config_unref(again);
	free(text);
}
END_TEST

START_TEST(durations_and_sizes_are_read_and_written)
{
	uint64_t n;
	char text[32];

	ck_assert(duration_parse("500ms", &n) == 0 && n == 500);
	ck_assert(duration_parse("7d", &n) == 0 && n == 604800000);
	ck_assert_int_eq(duration_parse("", &n), -EINVAL);
	ck_assert_int_eq(duration_parse("5", &n), -EINVAL);
	ck_assert_int_eq(duration_parse("s", &n), -EINVAL);
	ck_assert_int_eq(duration_parse("1s ", &n), -EINVAL);
	ck_assert_int_eq(duration_parse("99999999999999999999s", &n), -EINVAL);
	ck_assert_int_eq(duration_parse("18446744073709551615d", &n), -EINVAL);
	ck_assert(size_parse("16M", &n) == 0 && n == 16 << 20);
	ck_assert(size_parse("100", &n) == 0 && n == 100);
	duration_format(90000, text, sizeof(text));
	ck_assert_str_eq(text, "90s");
	duration_format(0, text, sizeof(text));
	ck_assert_str_eq(text, "0s");
	size_format(3 << 19, text, sizeof(text));
	ck_assert_str_eq(text, "1536K");
}
END_TEST

START_TEST(endpoints_are_read)
{
	struct endpoint e;
	const char *path;

	ck_assert_int_eq(url_parse("http://probe.example/204", &e, &path), 0);
	ck_assert(!strcmp(e.host, "probe.example") && e.port == 80 && !strcmp(path, "/204"));
	ck_assert_int_eq(url_parse("http://[2001:db8::1]:8080/", &e, &path), 0);
	ck_assert(e.is_address && e.port == 8080 && !strcmp(e.host, "2001:db8::1"));
	ck_assert_int_eq(url_parse("http:///x", &e, &path), -EINVAL);
	ck_assert_int_eq(url_parse("http://a b/x", &e, &path), -EINVAL);
	ck_assert_int_eq(url_parse("http://[::1/x", &e, &path), -EINVAL);
	ck_assert_int_eq(endpoint_parse("a:0", 3, 0, &e), -EINVAL);
}
END_TEST

/* The folder of the sources, from where this file is. */
static void source_path(char *buffer, size_t size, const char *name)
{
	const char *end = strstr(__FILE__, "tests/unit/");

	ck_assert_ptr_nonnull(end);
	snprintf(buffer, size, "%.*s%s", (int)(end - __FILE__), __FILE__, name);
}

START_TEST(the_packaged_configuration_is_right)
{
	struct config *c = NULL;
	char path[512];

	source_path(path, sizeof(path), "packaging/holdfast.json");
	ck_assert_msg(config_load(path, &errors, &c) == 0, "%s", errors.items[0].text);
	config_unref(c);
	ck_assert_int_eq(config_load("/nonexistent", &errors, &c), -ENOENT);
	ck_assert_uint_eq(errors.count, 1);
}
END_TEST

static char *read_fd(int fd)
{
	char *text = calloc(1, 1 << 20);
	ssize_t n;
	size_t len = 0;

	while ((n = read(fd, text + len, (1 << 20) - 1 - len)) > 0)
		len += (size_t)n;
	close(fd);
	return text;
}

/* HOLDFAST_WRITE_REFERENCE=1 check_config: write the page instead of comparing it. */
START_TEST(the_reference_is_that_of_the_table)
{
	char path[512], temporary[] = "/tmp/check_config.XXXXXX";
	char *wanted, *there;
	int fd = mkstemp(temporary), page;

	source_path(path, sizeof(path), "docs/configuration.md");
	ck_assert_int_ge(fd, 0);
	unlink(temporary);
	ck_assert_int_eq(config_write_reference(fd), 0);
	if (getenv("HOLDFAST_WRITE_REFERENCE")) {
		page = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		ck_assert_int_ge(page, 0);
		ck_assert_int_eq(config_write_reference(page), 0);
		close(page);
	}
	page = open(path, O_RDONLY);
	ck_assert_int_ge(page, 0);
	lseek(fd, 0, SEEK_SET);
	wanted = read_fd(fd);
	there = read_fd(page);
	ck_assert_msg(
		!strcmp(wanted, there),
		"docs/configuration.md is stale: run HOLDFAST_WRITE_REFERENCE=1 check_config");
	free(wanted);
	free(there);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("config");
	TCase *tc = tcase_create("config");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, an_empty_object_gives_the_defaults);
	tcase_add_test(tc, every_key_of_the_design_is_read);
	tcase_add_test(tc, a_rule_takes_from_defaults_what_it_leaves_out);
	tcase_add_test(tc, syntax_errors_have_their_line);
	tcase_add_test(tc, duplicate_keys_are_named);
	tcase_add_test(tc, comments_are_not_seen_in_strings);
	tcase_add_test(tc, deep_nesting_is_refused);
	tcase_add_loop_test(tc, what_is_wrong_is_named_with_what_is_allowed, 0,
			    (int)(sizeof(wrong) / sizeof(wrong[0])));
	tcase_add_test(tc, more_links_than_there_may_be_are_refused);
	tcase_add_test(tc, all_errors_are_told_and_an_inherited_one_once);
	tcase_add_test(tc, rules_match_what_they_say);
	tcase_add_test(tc, the_first_rule_that_matches_decides);
	tcase_add_test(tc, written_out_and_read_again_it_is_the_same);
	tcase_add_test(tc, durations_and_sizes_are_read_and_written);
	tcase_add_test(tc, endpoints_are_read);
	tcase_add_test(tc, the_packaged_configuration_is_right);
	tcase_add_test(tc, the_reference_is_that_of_the_table);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
