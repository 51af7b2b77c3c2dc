/*
 * Every BPF map of the programs in service, as values: for GET /v1/maps. Entries are decoded by
 * the BTF that the kernel keeps for the map; per-CPU values are summed.
 */
#pragma once

#include "steer/steer.h"

#include <json-c/json_types.h>

struct steer_map_info {
	char name[32];
	const char *type; /* "hash", "array" ... as bpftool says it */
	uint32_t id, key_size, value_size, max_entries, flags;
	bool pinned; /* shared by all programs, and carried over a swap */
	bool per_cpu;
	int64_t entries; /* -1: cannot be listed */
};
/* Allocates the array, which the caller frees; sorted by name. */
int steer_maps(struct steer *steer, struct steer_map_info **ret_maps, size_t *ret_count)
	__attribute__((warn_unused_result));
/* -ENOENT: no such map. Its entries are not counted. */
int steer_map_info(struct steer *steer, const char *name, struct steer_map_info *ret_info)
	__attribute__((warn_unused_result));
/* One page: an array of {"key", "value"}, which the caller puts. after: the cursor of the page
 * before, or NULL; ret_next: the caller frees it, NULL at the end. -ENOENT: no such map,
 * -EINVAL: not a cursor, -EOPNOTSUPP: the kernel cannot list such a map. */
int steer_map_entries(struct steer *steer, const char *name, const char *after, size_t limit,
		      struct json_object **ret_items, char **ret_next)
	__attribute__((warn_unused_result));
