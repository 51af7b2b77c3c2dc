/*
 * The one table of configuration keys. Parsing, defaults, limits, config_to_json and the
 * reference all walk it; nothing else knows a key's name. Internal to config.
 */
#pragma once

#include "config/config.h"

enum key_type {
	KEY_BOOL,
	KEY_INTEGER,
	KEY_DURATION,
	KEY_SIZE,
	KEY_CHOICE,
	KEY_STRING,
	KEY_STRINGS,   /* char **, NULL-terminated */
	KEY_ADDRESSES, /* struct ip * and a count */
	KEY_PREFIX,
	KEY_PREFIXES, /* struct ip_prefix * and a count */
	KEY_PORTS,    /* struct port_range * and a count */
	KEY_UIDS,     /* uint32_t * and a count */
	KEY_OBJECT,
	KEY_OBJECTS, /* an array of group->size structs and a count */
};

struct choice {
	const char *name; /* NULL ends the list */
	unsigned value;
	bool later; /* part of the design, not available yet */
};

struct key_group;

struct key {
	const char *name;
	enum key_type type;
	size_t offset, width; /* of the field in its group's struct */
	size_t extra;	      /* offset of an array's count, or of a prefix's "has" flag; 0: none */
	uint64_t min, max;    /* of a number in ms or bytes; of a list: most items */
	const char *fallback; /* the default as JSON; NULL: the key is required */
	const struct choice *choices;
	bool (*valid)(const char *text); /* of a string or of each in a list */
	const char *allowed;		 /* what valid takes, in words */
	bool lower;			 /* strings are kept in lower case */
	const struct key_group *group;
	const char *doc; /* one sentence for the reference */
};

struct key_group {
	const struct key *keys;
	size_t count;
	size_t size; /* of one struct, for KEY_OBJECTS */
	/* Keys that are taken from `defaults` where they are left out; or NULL. */
	const struct key_group *inherited;
};

extern const struct key_group config_keys;

/* The n-th key, those inherited after the group's own; NULL at the end. */
const struct key *key_at(const struct key_group *group, size_t n);
const struct key *key_find(const struct key_group *group, const char *name);
/* Where null stands for "none". */
bool key_is_nullable(const struct key *key);
