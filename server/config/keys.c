#include "config/keys.h"

#include "config/valid.h"

#include <string.h>

#define FIELD(type, member) .offset = offsetof(type, member), .width = sizeof(((type *)0)->member)
#define COUNT(type, member) .extra = offsetof(type, member)
#define GROUP(array, ...)                                                             \
	{                                                                             \
		.keys = array, .count = sizeof(array) / sizeof(array[0]), __VA_ARGS__ \
	}
#define SECONDS	       1000ull
#define MINUTES	       (60 * SECONDS)
#define HOURS	       (60 * MINUTES)
#define DAYS	       (24 * HOURS)
#define KIBI	       1024ull
#define MEBI	       (1024 * KIBI)
#define TEBI	       (1024 * 1024 * MEBI)

#define INTERFACE_TEXT "a name of at most 15 characters without spaces, '/' and ':'"
#define NAME_TEXT      "1 to 31 letters, digits, '_', '.' and '-'"
#define PATH_TEXT      "an absolute path"
#define TOKEN_TEXT     "a name as HTTP has it: letters, digits and !#$%&'*+-.^_`|~"

static const struct choice actions[] = {
	{"proxy", ACTION_PROXY, false},
	{"reject", ACTION_REJECT, false},
	{"forward", 0, true},
	{NULL, 0, false},
};
static const struct choice stores[] = {
	{"unsafe", STORE_UNSAFE, false},
	{"all", STORE_ALL, false},
	{"none", STORE_NONE, false},
	{NULL, 0, false},
};
static const struct choice replies[] = {
	{"retry", REPLY_RETRY, false},
	{"accept", REPLY_ACCEPT, false},
	{NULL, 0, false},
};
static const struct choice disconnects[] = {
	{"cancel", DISCONNECT_CANCEL, false},
	{"store", DISCONNECT_STORE, false},
	{NULL, 0, false},
};
static const struct choice tls_policies[] = {
	{"pass", TLS_PASS, false},
	{"intercept", 0, true},
	{NULL, 0, false},
};
static const struct choice protocols[] = {
	{"any", PROTOCOL_ANY, false}, {"http", PROTOCOL_HTTP, false}, {"tls", PROTOCOL_TLS, false},
	{"tcp", PROTOCOL_TCP, false}, {"udp", PROTOCOL_UDP, false},   {NULL, 0, false},
};
static const struct choice ip_protocols[] = {
	{"any", 0, false},
	{"tcp", IPPROTO_TCP, false},
	{"udp", IPPROTO_UDP, false},
	{"icmp", IPPROTO_ICMP, false},
	{"icmpv6", IPPROTO_ICMPV6, false},
	{NULL, 0, false},
};
static const struct choice stops[] = {
	{"release", STOP_RELEASE, false},
	{"block", STOP_BLOCK, false},
	{NULL, 0, false},
};
static const struct choice answers[] = {
	{"real", DNS_REAL, false},
	{"virtual", DNS_VIRTUAL, false},
	{NULL, 0, false},
};
static const struct choice guards[] = {
	{"enforce", GUARD_ENFORCE, false},
	{"observe", GUARD_OBSERVE, false},
	{"off", GUARD_OFF, false},
	{NULL, 0, false},
};

static const struct key apps_keys[] = {
	{"host", KEY_BOOL, FIELD(struct config, apps.host), .fallback = "true",
	 .doc = "Steer the programs of the device itself."},
	{"interfaces", KEY_STRINGS, FIELD(struct config, apps.interfaces), .max = INTERFACES_MAX,
	 .fallback = "[]", .valid = valid_interface, .allowed = INTERFACE_TEXT,
	 .doc = "Interfaces behind which apps are: a veth, a bridge of containers, a LAN port. One "
		"that is not there yet is steered when it comes."},
	{"exempt_uids", KEY_UIDS, FIELD(struct config, apps.exempt_uids),
	 COUNT(struct config, apps.exempt_uid_count), .max = CONFIG_EXEMPT_MAX, .fallback = "[]",
	 .doc = "Users of the device whose programs are neither steered nor held back by the "
		"guard."},
};
static const struct key_group apps_group = GROUP(apps_keys);

static const struct key probe_keys[] = {
	{"url", KEY_STRING, FIELD(struct link_config, probe.url), .fallback = "null",
	 .valid = valid_url, .allowed = "http://HOST[:PORT]/PATH",
	 .doc = "Asked with GET over the link; only status 204 without a body is good."},
	{"connect", KEY_STRING, FIELD(struct link_config, probe.connect), .fallback = "null",
	 .valid = valid_connect, .allowed = "HOST:PORT or [IPV6]:PORT",
	 .doc = "In place of `url`: a TCP connect that must succeed. It sees no captive portal."},
	{"interval", KEY_DURATION, FIELD(struct link_config, probe.interval), .min = 500,
	 .max = 1 * HOURS, .fallback = "\"5s\"", .doc = "Time between two probes."},
	{"timeout", KEY_DURATION, FIELD(struct link_config, probe.timeout), .min = 100,
	 .max = 60 * SECONDS, .fallback = "\"2s\"",
	 .doc = "A probe that takes longer is bad; at most `interval`."},
	{"fall", KEY_INTEGER, FIELD(struct link_config, probe.fall), .min = 1, .max = 100,
	 .fallback = "2", .doc = "So many bad probes in a row take the link out."},
	{"rise", KEY_INTEGER, FIELD(struct link_config, probe.rise), .min = 1, .max = 100,
	 .fallback = "1", .doc = "So many good probes in a row take it back."},
};
static const struct key_group probe_group = GROUP(probe_keys);

static const struct key link_keys[] = {
	{"name", KEY_STRING, FIELD(struct link_config, name), .valid = valid_name,
	 .allowed = NAME_TEXT, .doc = "What rules and the API call the link; each its own."},
	{"interface", KEY_STRING, FIELD(struct link_config, interface), .valid = valid_interface,
	 .allowed = INTERFACE_TEXT,
	 .doc = "Its network interface; it need not be there yet, and belongs to one link only."},
	{"priority", KEY_INTEGER, FIELD(struct link_config, priority), .min = 0, .max = 65535,
	 .fallback = "100",
	 .doc = "The smallest is preferred; among equals the order of the list decides."},
	{"metered", KEY_BOOL, FIELD(struct link_config, metered), .fallback = "false",
	 .doc = "Traffic costs: a rule may say that it does not use such a link."},
	{"enabled", KEY_BOOL, FIELD(struct link_config, enabled), .fallback = "true",
	 .doc = "Whether the link is used at all."},
	{"dns", KEY_ADDRESSES, FIELD(struct link_config, dns), COUNT(struct link_config, dns_count),
	 .max = 8, .fallback = "[]",
	 .doc = "DNS servers to ask over this link; empty: those that the system was given."},
	{"probe", KEY_OBJECT, .fallback = "null", .group = &probe_group,
	 .doc = "How to see that data gets through; without it carrier, address and live traffic "
		"decide. Has `url` or `connect`."},
};
static const struct key_group link_group = GROUP(link_keys, .size = sizeof(struct link_config));

static const struct key match_keys[] = {
	{"host", KEY_STRINGS, FIELD(struct rule, match.host), .max = CONFIG_LIST_MAX,
	 .fallback = "[]", .valid = valid_host_glob,
	 .allowed = "a name, \"*.\" and a name for all names below it, or \"*\"", .lower = true,
	 .doc = "Names, in any case. `*.fleet.example` is every name below `fleet.example`, not "
		"itself; `*` is every name."},
	{"address", KEY_PREFIXES, FIELD(struct rule, match.address),
	 COUNT(struct rule, match.address_count), .max = CONFIG_LIST_MAX, .fallback = "[]",
	 .doc = "Addresses or prefixes that the app connects to."},
	{"port", KEY_PORTS, FIELD(struct rule, match.port), COUNT(struct rule, match.port_count),
	 .max = CONFIG_LIST_MAX, .fallback = "[]",
	 .doc = "Ports that the app connects to: `443` or `\"8000-8999\"`."},
	{"protocol", KEY_CHOICE, FIELD(struct rule, match.protocol), .fallback = "\"any\"",
	 .choices = protocols,
	 .doc = "What the connection carries; `tcp` is every TCP connection, HTTP and TLS too."},
	{"method", KEY_STRINGS, FIELD(struct rule, match.method), .max = CONFIG_LIST_MAX,
	 .fallback = "[]", .valid = valid_token, .allowed = TOKEN_TEXT,
	 .doc = "HTTP methods, in their exact case."},
	{"path", KEY_STRINGS, FIELD(struct rule, match.path), .max = CONFIG_LIST_MAX,
	 .fallback = "[]", .valid = valid_path_glob,
	 .allowed = "a path that begins with '/' or '*'; '*' is any run of characters",
	 .doc = "HTTP paths; `*` is any run of characters. The query is not looked at."},
	{"source", KEY_STRINGS, FIELD(struct rule, match.source), .max = CONFIG_LIST_MAX,
	 .fallback = "[]", .valid = valid_source,
	 .allowed = "\"host\", an interface, an address or a prefix",
	 .doc = "Where the app is: `host` for the device itself, an interface, an address or a "
		"prefix."},
};
static const struct key_group match_group = GROUP(match_keys);

static const struct key policy_keys[] = {
	{"action", KEY_CHOICE, FIELD(struct rule, policy.action), .fallback = "\"proxy\"",
	 .choices = actions, .doc = "Carry the traffic, or refuse it at once."},
	{"links", KEY_STRINGS, FIELD(struct rule, policy.links), .max = LINKS_MAX, .fallback = "[]",
	 .valid = valid_name, .allowed = NAME_TEXT,
	 .doc = "The links that may be used, by name; their priorities decide among them. Empty: "
		"all."},
	{"metered", KEY_BOOL, FIELD(struct rule, policy.metered), .fallback = "true",
	 .doc = "Whether metered links may be used."},
	{"hold", KEY_DURATION, FIELD(struct rule, policy.hold), .min = 0, .max = 1 * DAYS,
	 .fallback = "\"30s\"",
	 .doc = "How long an app's connection is kept open while there is no link."},
	{"store", KEY_CHOICE, FIELD(struct rule, policy.store), .fallback = "\"unsafe\"",
	 .choices = stores,
	 .doc = "Which requests are stored when the hold is over: POST, PUT, PATCH and DELETE, "
		"all, "
		"or none."},
	{"reply", KEY_CHOICE, FIELD(struct rule, policy.reply), .fallback = "\"retry\"",
	 .choices = replies,
	 .doc = "What the app hears of a stored request: 503 and it asks again for the answer, or "
		"202 and no answer is owed."},
	{"expire", KEY_DURATION, FIELD(struct rule, policy.expire), .min = 1 * SECONDS,
	 .max = 3650 * DAYS, .fallback = "\"24h\"",
	 .doc = "A stored request that is older is not sent any more."},
	{"attempts", KEY_INTEGER, FIELD(struct rule, policy.attempts), .min = 1, .max = 1000,
	 .fallback = "20", .doc = "How often a stored request is tried before it has failed."},
	{"importance", KEY_INTEGER, FIELD(struct rule, policy.importance), .min = 0, .max = 10,
	 .fallback = "5",
	 .doc = "What is stored with a larger number goes first and is given up last."},
	{"order", KEY_BOOL, FIELD(struct rule, policy.order), .fallback = "true",
	 .doc = "Unsafe requests wait behind what is stored of the same app for the same origin."},
	{"dedupe", KEY_BOOL, FIELD(struct rule, policy.dedupe), .fallback = "true",
	 .doc = "A repeated request is recognised and not stored twice."},
	{"hash_headers", KEY_STRINGS, FIELD(struct rule, policy.hash_headers),
	 .max = CONFIG_LIST_MAX,
	 .fallback = "[\"Authorization\", \"Cookie\", \"Content-Type\", \"Accept\"]",
	 .valid = valid_token, .allowed = TOKEN_TEXT,
	 .doc = "Header fields that must be equal for two requests to be the same."},
	{"on_disconnect", KEY_CHOICE, FIELD(struct rule, policy.on_disconnect),
	 .fallback = "\"cancel\"", .choices = disconnects,
	 .doc = "What becomes of a held request whose app hangs up."},
	{"upstream_tls", KEY_BOOL, FIELD(struct rule, policy.upstream_tls), .fallback = "false",
	 .doc = "Plain HTTP of the app goes to the origin over TLS, port 80 as 443, and only to an "
		"origin whose certificate proves the name that the app asked for."},
	{"upstream_ca", KEY_STRING, FIELD(struct rule, policy.upstream_ca), .fallback = "null",
	 .valid = valid_path, .allowed = PATH_TEXT,
	 .doc = "File in PEM with the certificates that an origin's must come from; null: the "
		"system's authorities."},
	{"client_certificate", KEY_STRING, FIELD(struct rule, policy.client_certificate),
	 .fallback = "null", .valid = valid_path, .allowed = PATH_TEXT,
	 .doc = "File in PEM with the device's own certificate, and those between it and its "
		"authority, for origins that ask for one; needs `client_key`."},
	{"client_key", KEY_STRING, FIELD(struct rule, policy.client_key), .fallback = "null",
	 .valid = valid_path, .allowed = PATH_TEXT,
	 .doc = "File in PEM with the private key of `client_certificate`, without a password."},
	{"tls", KEY_CHOICE, FIELD(struct rule, policy.tls), .fallback = "\"pass\"",
	 .choices = tls_policies, .doc = "TLS connections are passed on as they are."},
};
static const struct key_group policy_group = GROUP(policy_keys);

static const struct key rule_keys[] = {
	{"name", KEY_STRING, FIELD(struct rule, name), .valid = valid_name, .allowed = NAME_TEXT,
	 .doc = "What counters, requests and the API call the rule; each its own."},
	{"match", KEY_OBJECT, .fallback = "{}", .group = &match_group,
	 .doc = "All that is given must fit; of each list one entry. Empty: everything."},
};
static const struct key_group rule_group =
	GROUP(rule_keys, .size = sizeof(struct rule), .inherited = &policy_group);

static const struct key virtual_keys[] = {
	{"ipv4", KEY_PREFIX, FIELD(struct config, dns.virtual_v4), .fallback = "\"198.18.0.0/15\"",
	 .allowed = "an IPv4 prefix from /8 to /24", .doc = "The pool of virtual IPv4 addresses."},
	{"ipv6", KEY_PREFIX, FIELD(struct config, dns.virtual_v6), .fallback = "\"fd5a:fe00::/64\"",
	 .allowed = "an IPv6 prefix from /16 to /112",
	 .doc = "The pool of virtual IPv6 addresses."},
	{"ttl", KEY_DURATION, FIELD(struct config, dns.virtual_ttl), .min = 1 * SECONDS,
	 .max = 1 * HOURS, .fallback = "\"1s\"", .doc = "How long an app may keep one."},
};
static const struct key_group virtual_group = GROUP(virtual_keys);

static const struct key dns_keys[] = {
	{"online", KEY_CHOICE, FIELD(struct config, dns.online), .fallback = "\"real\"",
	 .choices = answers, .doc = "What apps are answered while there is a link."},
	{"offline", KEY_CHOICE, FIELD(struct config, dns.offline), .fallback = "\"virtual\"",
	 .choices = answers,
	 .doc = "What apps are answered while there is none; `real` answers only what is cached."},
	{"virtual", KEY_OBJECT, .fallback = "{}", .group = &virtual_group,
	 .doc = "Addresses that stand for names."},
};
static const struct key_group dns_group = GROUP(dns_keys);

static const struct key queue_keys[] = {
	{"max_bytes", KEY_SIZE, FIELD(struct config, queue.max_bytes), .min = 64 * KIBI,
	 .max = 1 * TEBI, .fallback = "\"256M\"",
	 .doc = "Most that is stored in all. What is given up when it is full: operations.md."},
	{"max_count", KEY_INTEGER, FIELD(struct config, queue.max_count), .min = 1, .max = 10000000,
	 .fallback = "200000",
	 .doc = "Most exchanges that wait to be sent; as many finished ones are kept beside them."},
	{"max_request", KEY_SIZE, FIELD(struct config, queue.max_request), .min = 1 * KIBI,
	 .max = 1024 * MEBI, .fallback = "\"16M\"",
	 .doc = "Largest body that is held or stored; at most `max_bytes`."},
	{"keep_response", KEY_DURATION, FIELD(struct config, queue.keep_response), .min = 0,
	 .max = 30 * DAYS, .fallback = "\"10m\"",
	 .doc = "How long the response of a replayed request is kept for the app."},
};
static const struct key_group queue_group = GROUP(queue_keys);

static const struct key allow_keys[] = {
	{"protocol", KEY_CHOICE, FIELD(struct allow_config, protocol), .fallback = "\"any\"",
	 .choices = ip_protocols, .doc = "The protocol; a port needs `tcp` or `udp`."},
	{"local_port", KEY_INTEGER, FIELD(struct allow_config, local_port), .min = 1, .max = 65535,
	 .fallback = "null", .doc = "The device's port; null: any."},
	{"remote_port", KEY_INTEGER, FIELD(struct allow_config, remote_port), .min = 1,
	 .max = 65535, .fallback = "null", .doc = "The other side's port; null: any."},
	{"remote", KEY_PREFIX, FIELD(struct allow_config, remote),
	 COUNT(struct allow_config, has_remote), .fallback = "null",
	 .allowed = "an address or a prefix",
	 .doc = "The other side's address or prefix; null: any."},
};
static const struct key_group allow_group = GROUP(allow_keys, .size = sizeof(struct allow_config));

static const struct key guard_keys[] = {
	{"mode", KEY_CHOICE, FIELD(struct config, guard.mode), .fallback = "\"enforce\"",
	 .choices = guards,
	 .doc = "Drop what goes around the daemon, only count it, or no guard at all."},
	{"allow", KEY_OBJECTS, FIELD(struct config, guard.allow),
	 COUNT(struct config, guard.allow_count), .max = CONFIG_ALLOW_MAX, .fallback = "[]",
	 .group = &allow_group, .doc = "What may leave on a link without the daemon."},
};
static const struct key_group guard_group = GROUP(guard_keys);

static const struct key programs_keys[] = {
	{"trusted_keys", KEY_STRINGS, FIELD(struct config, programs.trusted_keys),
	 .max = CONFIG_LIST_MAX, .fallback = "[]", .valid = valid_path, .allowed = PATH_TEXT,
	 .doc = "Files with an Ed25519 public key in PEM; programs are uploaded signed by one of "
		"them. Read again when they are needed; one that cannot be used is a warning in "
		"the log and in `/v1/status`, and not an error of `--check`."},
	{"allow_unsigned", KEY_BOOL, FIELD(struct config, programs.allow_unsigned),
	 .fallback = "false",
	 .doc = "Take programs without a signature too: whoever reaches the API then decides over "
		"all traffic. Shown in the status as a warning."},
	{"confirm_within", KEY_DURATION, FIELD(struct config, programs.confirm_within),
	 .min = 1 * SECONDS, .max = 1 * DAYS, .fallback = "\"60s\"",
	 .doc = "A new program that is not confirmed in this time is taken back. An activation may "
		"ask for another time."},
};
static const struct key_group programs_group = GROUP(programs_keys);

static const struct key api_keys[] = {
	{"listen", KEY_STRINGS, FIELD(struct config, api.listen), .max = 8,
	 .fallback = "[\"127.0.0.1:7080\", \"unix:/run/holdfast/api.sock\"]", .valid = valid_listen,
	 .allowed = "ADDRESS:PORT, [IPV6]:PORT or unix:/PATH", .doc = "Where the API is served."},
	{"token_file", KEY_STRING, FIELD(struct config, api.token_file), .fallback = "null",
	 .valid = valid_path, .allowed = PATH_TEXT,
	 .doc = "File with the token that changes need; without it they are refused but on "
		"loopback and local sockets."},
};
static const struct key_group api_group = GROUP(api_keys);

static const struct key top_keys[] = {
	{"state_dir", KEY_STRING, FIELD(struct config, state_dir),
	 .fallback = "\"/var/lib/holdfast\"", .valid = valid_path, .allowed = PATH_TEXT,
	 .doc = "Folder of the queue and the names."},
	{"apps", KEY_OBJECT, .fallback = "{}", .group = &apps_group,
	 .doc = "Whose traffic is steered."},
	{"links", KEY_OBJECTS, FIELD(struct config, links), COUNT(struct config, link_count),
	 .max = LINKS_MAX, .fallback = "[]", .group = &link_group, .doc = "The ways out."},
	{"defaults", KEY_OBJECT, .offset = offsetof(struct config, defaults), .fallback = "{}",
	 .group = &policy_group,
	 .doc = "What a rule leaves out, and what holds where no rule matches."},
	{"rules", KEY_OBJECTS, FIELD(struct config, rules), COUNT(struct config, rule_count),
	 .max = CONFIG_RULES_MAX, .fallback = "[]", .group = &rule_group,
	 .doc = "The first rule that matches decides."},
	{"when_stopped", KEY_CHOICE, FIELD(struct config, when_stopped), .fallback = "\"release\"",
	 .choices = stops,
	 .doc = "An ordinary stop takes everything out of the kernel, or leaves steering and guard "
		"in place."},
	{"dns", KEY_OBJECT, .fallback = "{}", .group = &dns_group, .doc = "Names."},
	{"queue", KEY_OBJECT, .fallback = "{}", .group = &queue_group, .doc = "Stored requests."},
	{"guard", KEY_OBJECT, .fallback = "{}", .group = &guard_group,
	 .doc = "What else may leave the device."},
	{"programs", KEY_OBJECT, .fallback = "{}", .group = &programs_group,
	 .doc = "Programs that are put in service at run time."},
	{"api", KEY_OBJECT, .fallback = "{}", .group = &api_group, .doc = "The API and the page."},
};
const struct key_group config_keys = GROUP(top_keys, .size = sizeof(struct config));

const struct key *key_at(const struct key_group *group, size_t n)
{
	if (n < group->count)
		return &group->keys[n];
	return group->inherited ? key_at(group->inherited, n - group->count) : NULL;
}

const struct key *key_find(const struct key_group *group, const char *name)
{
	const struct key *key;

	for (size_t i = 0; (key = key_at(group, i)); i++)
		if (!strcmp(key->name, name))
			return key;
	return NULL;
}

bool key_is_nullable(const struct key *key)
{
	return key->fallback && !strcmp(key->fallback, "null");
}
