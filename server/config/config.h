/*
 * The configuration: JSON with comments in, one immutable struct out. Pure: no I/O but
 * config_load, no global state. One table of keys (keys.c) drives parsing, defaults,
 * limits, config_to_json and docs/configuration.md.
 *
 * Reference counted, so that an exchange keeps the rule that it was matched with while a
 * new configuration is swapped in. A configuration is built whole and checked whole, or
 * every error is reported and nothing is returned.
 */
#pragma once

#include "base/error.h"
#include "base/ip.h"
#include "base/limits.h"

#include <json-c/json_types.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rule_action { ACTION_PROXY, ACTION_REJECT };
enum store_policy { STORE_UNSAFE, STORE_ALL, STORE_NONE };
enum reply_policy { REPLY_RETRY, REPLY_ACCEPT };
enum disconnect_policy { DISCONNECT_CANCEL, DISCONNECT_STORE };
enum tls_policy { TLS_PASS };
enum guard_mode { GUARD_ENFORCE, GUARD_OBSERVE, GUARD_OFF };
enum stop_policy { STOP_RELEASE, STOP_BLOCK };
enum dns_answers { DNS_REAL, DNS_VIRTUAL };
enum protocol { PROTOCOL_ANY, PROTOCOL_HTTP, PROTOCOL_TLS, PROTOCOL_TCP, PROTOCOL_UDP };

struct port_range {
	uint16_t first, last; /* both included */
};

enum source_kind { SOURCE_HOST, SOURCE_INTERFACE, SOURCE_PREFIX };

/* One entry of match.source, read once. */
struct rule_source {
	enum source_kind kind;
	char interface[IF_NAMESIZE];
	struct ip_prefix prefix;
};

/* Arrays of strings are NULL-terminated; an empty one matches everything. */
struct rule_match {
	char **host; /* "*.fleet.example" matches every name below fleet.example, not itself */
	struct ip_prefix *address;
	size_t address_count;
	struct port_range *port;
	size_t port_count;
	enum protocol protocol;
	char **method;
	char **path;   /* glob: '*' matches any run of characters; the query is not looked at */
	char **source; /* "host", an interface name, an address or a prefix */
	struct rule_source *sources; /* the same, parsed */
	size_t source_count;
};

struct rule_policy {
	enum rule_action action;
	char **links;	    /* names; empty: all */
	uint32_t link_mask; /* bit n: config->links[n] */
	bool metered;
	uint64_t hold;	 /* ms */
	uint64_t expire; /* ms */
	enum store_policy store;
	enum reply_policy reply;
	uint32_t attempts;
	uint32_t importance; /* 0 to 10 */
	bool order, dedupe;
	char **hash_headers;
	enum disconnect_policy on_disconnect;
	bool upstream_tls;
	/* Paths, or NULL: the system's authorities, no certificate. Whoever builds the daemon looks
	 * whether they are good (upstream/trust.h). */
	char *upstream_ca, *client_certificate, *client_key;
	enum tls_policy tls;
};

struct rule {
	char *name; /* "defaults" for the rule that matches when no other does */
	struct rule_match match;
	struct rule_policy policy;
};

struct probe_config {
	char *url;		    /* http://HOST[:PORT]/PATH, must answer 204; NULL: no probe */
	char *connect;		    /* "HOST:PORT" for a TCP connect; NULL: none; excludes url */
	uint64_t interval, timeout; /* ms */
	uint32_t fall, rise;
};

struct link_config {
	char *name, *interface;
	int32_t priority; /* the smallest is best */
	bool metered, enabled;
	struct ip *dns;
	size_t dns_count;
	struct probe_config probe;
};

struct allow_config {
	uint8_t protocol;		  /* IPPROTO_*; 0: any */
	uint16_t local_port, remote_port; /* 0: any */
	bool has_remote;
	struct ip_prefix remote; /* key "remote" */
};

struct config {
	unsigned refs;
	char *state_dir;
	struct {
		bool host;
		char **interfaces;
		uint32_t *exempt_uids;
		size_t exempt_uid_count;
	} apps;
	struct link_config *links;
	size_t link_count;
	struct rule *rules;
	size_t rule_count;
	struct rule defaults;
	enum stop_policy when_stopped;
	struct {
		enum dns_answers online, offline;
		struct ip_prefix virtual_v4, virtual_v6;
		uint64_t virtual_ttl; /* ms in the file, at least 1s */
	} dns;
	struct {
		uint64_t max_bytes, max_request; /* bytes */
		uint32_t max_count;		 /* rows that wait */
		uint64_t keep_response;		 /* ms */
	} queue;
	struct {
		enum guard_mode mode;
		struct allow_config *allow;
		size_t allow_count;
	} guard;
	struct {
		char **trusted_keys;
		bool allow_unsigned;
		uint64_t confirm_within; /* ms */
	} programs;
	struct {
		char **listen; /* "127.0.0.1:7080", "[::1]:7080", "unix:/run/holdfast/api.sock" */
		char *token_file; /* or NULL */
	} api;
};

/* Errors found, all of them; bounded. */
struct config_errors {
	struct input_error items[64];
	size_t count; /* may be larger than the array: that many were found */
};

/* Count an error and keep it where there is room; -EINVAL. */
int errors_add(struct config_errors *errors, const char *path, int line, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* text need not be NUL-terminated. 0, -EINVAL with errors filled, -ENOMEM. */
int config_parse(const char *text, size_t len, struct config_errors *errors,
		 struct config **ret_config) __attribute__((warn_unused_result));
/* Read and parse a file; -ENOENT and the like also fill an error. */
int config_load(const char *path, struct config_errors *errors, struct config **ret_config)
	__attribute__((warn_unused_result));
struct config *config_ref(struct config *config);
void config_unref(struct config *config); /* NULL is fine */

/* The whole configuration with its defaults written out; the caller puts it. NULL: no memory. */
struct json_object *config_to_json(const struct config *config);
/* The reference, as Markdown, from the key table; 0 or negative errno. */
int config_write_reference(int fd);

/* What is known of an exchange or a flow when a rule is looked for. */
struct rule_facts {
	const char *host;  /* lower case, no port; NULL: unknown */
	struct ip address; /* the original destination */
	uint16_t port;
	enum protocol protocol;
	const char *method, *path; /* NULL: not HTTP */
	struct ip source;
	const char *source_interface; /* "lo" for the host's own apps, or NULL */
};
/* The first rule that matches, or config->defaults; never NULL. Borrowed from config. */
const struct rule *config_match(const struct config *config, const struct rule_facts *facts);
const struct rule *config_rule_by_name(const struct config *config, const char *name);

/* "HOST", "HOST:PORT", "[IPV6]:PORT". */
struct endpoint {
	char host[NAME_TEXT_MAX]; /* without brackets */
	uint16_t port;
	bool is_address;
	struct ip address; /* where host is one */
};
/* port: where the text has none; 0: it must have one. 0 or -EINVAL. */
int endpoint_parse(const char *text, size_t len, uint16_t port, struct endpoint *ret_endpoint)
	__attribute__((warn_unused_result));
/* The endpoint of "http://HOST[:PORT]/PATH" and where its path begins. 0 or -EINVAL. */
int url_parse(const char *url, struct endpoint *ret_endpoint, const char **ret_path)
	__attribute__((warn_unused_result));

/* One way to read and write durations and sizes: "30s", "500ms", "5m", "7d"; "16M".
 * 0 or -EINVAL. */
int duration_parse(const char *text, uint64_t *ret_ms) __attribute__((warn_unused_result));
void duration_format(uint64_t ms, char *buffer, size_t size);
int size_parse(const char *text, uint64_t *ret_bytes) __attribute__((warn_unused_result));
void size_format(uint64_t bytes, char *buffer, size_t size);
