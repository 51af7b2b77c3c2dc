#include "steer/inspect.h"

#include "steer/btf_json.h"
#include "steer/internal.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAPS_OF_A_PROGRAM = 64, MAPS_MAX = OBJECT_COUNT * MAPS_OF_A_PROGRAM };

/* --- which maps there are --- */

struct map_list {
	struct steer_map_info items[MAPS_MAX];
	size_t count;
};

static const char *type_name(uint32_t type)
{
	static const char *const names[] = {
		[BPF_MAP_TYPE_HASH] = "hash",
		[BPF_MAP_TYPE_ARRAY] = "array",
		[BPF_MAP_TYPE_PERCPU_HASH] = "percpu_hash",
		[BPF_MAP_TYPE_PERCPU_ARRAY] = "percpu_array",
		[BPF_MAP_TYPE_LRU_HASH] = "lru_hash",
		[BPF_MAP_TYPE_LRU_PERCPU_HASH] = "lru_percpu_hash",
		[BPF_MAP_TYPE_LPM_TRIE] = "lpm_trie",
		[BPF_MAP_TYPE_SOCKMAP] = "sockmap",
		[BPF_MAP_TYPE_SK_STORAGE] = "sk_storage",
		[BPF_MAP_TYPE_RINGBUF] = "ringbuf",
		[BPF_MAP_TYPE_QUEUE] = "queue",
		[BPF_MAP_TYPE_STACK] = "stack",
		[BPF_MAP_TYPE_DEVMAP] = "devmap",
		[BPF_MAP_TYPE_CPUMAP] = "cpumap",
		[BPF_MAP_TYPE_PERF_EVENT_ARRAY] = "perf_event_array",
	};

	if (type < sizeof(names) / sizeof(names[0]) && names[type])
		return names[type];
	return "other";
}

static bool is_per_cpu(uint32_t type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static bool is_array(uint32_t type)
{
	return type == BPF_MAP_TYPE_ARRAY || type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

static bool can_be_listed(uint32_t type)
{
	switch (type) {
	case BPF_MAP_TYPE_HASH:
	case BPF_MAP_TYPE_ARRAY:
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
	case BPF_MAP_TYPE_LRU_HASH:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
	case BPF_MAP_TYPE_LPM_TRIE:
	case BPF_MAP_TYPE_SOCKMAP:
		return true;
	default:
		return false;
	}
}

static int map_info(int fd, struct bpf_map_info *info)
{
	__u32 len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return bpf_obj_get_info_by_fd(fd, info, &len);
}

/* The kernel keeps 15 characters of a name; our own objects know all of it. */
static void full_name(struct steer *steer, const struct bpf_map_info *info,
		      struct steer_map_info *map)
{
	snprintf(map->name, sizeof(map->name), "%s", info->name);
	for (int i = 0; i < OBJECT_COUNT; i++) {
		struct bpf_map *known;

		bpf_object__for_each_map (known, steer->objects[i]) {
			struct bpf_map_info other;

			if (map_info(bpf_map__fd(known), &other) || other.id != info->id)
				continue;
			snprintf(map->name, sizeof(map->name), "%s", bpf_map__name(known));
			map->pinned = bpf_map__is_pinned(known);
			return;
		}
	}
}

static int64_t count_entries(int fd, const struct bpf_map_info *info)
{
	void *key = malloc(info->key_size);
	const void *previous = NULL;
	int64_t count = 0;

	if (!key || !can_be_listed(info->type)) {
		free(key);
		return -1;
	}
	if (is_array(info->type)) {
		free(key);
		return info->max_entries;
	}
	while (count < info->max_entries && !bpf_map_get_next_key(fd, previous, key)) {
		previous = key;
		count++;
	}
	free(key);
	return count;
}

static bool has_map(const struct map_list *list, uint32_t id)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i].id == id)
			return true;
	return false;
}

static void make_unique(const struct map_list *list, struct steer_map_info *map)
{
	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(list->items[i].name, map->name)) {
			snprintf(map->name + strnlen(map->name, 16), 12, "#%u", map->id);
			return;
		}
}

static void add_map(struct steer *steer, struct map_list *list, uint32_t id, bool count)
{
	struct steer_map_info *map = &list->items[list->count];
	struct bpf_map_info info;
	int fd;

	if (has_map(list, id) || list->count == MAPS_MAX)
		return;
	fd = bpf_map_get_fd_by_id(id);
	if (fd < 0)
		return;
	if (map_info(fd, &info) == 0) {
		*map = (struct steer_map_info){.type = type_name(info.type),
					       .id = id,
					       .key_size = info.key_size,
					       .value_size = info.value_size,
					       .max_entries = info.max_entries,
					       .flags = info.map_flags,
					       .per_cpu = is_per_cpu(info.type)};
		map->entries = count ? count_entries(fd, &info) : 0;
		full_name(steer, &info, map);
		make_unique(list, map);
		list->count++;
	}
	close(fd);
}

static void add_maps_of(struct steer *steer, struct map_list *list, int program, bool count)
{
	uint32_t ids[MAPS_OF_A_PROGRAM] = {0};
	struct bpf_prog_info info = {.nr_map_ids = MAPS_OF_A_PROGRAM,
				     .map_ids = (uint64_t)(uintptr_t)ids};
	__u32 len = sizeof(info);

	if (bpf_obj_get_info_by_fd(program, &info, &len))
		return;
	for (uint32_t i = 0; i < info.nr_map_ids && i < MAPS_OF_A_PROGRAM; i++)
		add_map(steer, list, ids[i], count);
}

/* count: the entries too, which takes a system call each. */
static struct map_list *list_maps(struct steer *steer, bool count)
{
	struct map_list *list = calloc(1, sizeof(*list));

	if (!list)
		return NULL;
	add_maps_of(steer, list, programs_steer_fd(steer), count);
	add_maps_of(steer, list, steer->program_fds[OBJECT_LOOKUP], count);
	add_maps_of(steer, list, steer->program_fds[OBJECT_GUARD], count);
	return list;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct steer_map_info *)a)->name,
		      ((const struct steer_map_info *)b)->name);
}

int steer_maps(struct steer *steer, struct steer_map_info **ret_maps, size_t *ret_count)
{
	struct map_list *list = list_maps(steer, true);
	struct steer_map_info *maps;

	if (!list)
		return -ENOMEM;
	maps = calloc(list->count + 1, sizeof(*maps));
	if (!maps) {
		free(list);
		return -ENOMEM;
	}
	memcpy(maps, list->items, list->count * sizeof(*maps));
	*ret_count = list->count;
	free(list);
	qsort(maps, *ret_count, sizeof(*maps), by_name);
	*ret_maps = maps;
	return 0;
}

int steer_map_info(struct steer *steer, const char *name, struct steer_map_info *ret_info)
{
	struct map_list *list = list_maps(steer, false);
	int r = list ? -ENOENT : -ENOMEM;

	for (size_t i = 0; list && i < list->count && r; i++)
		if (!strcmp(list->items[i].name, name)) {
			*ret_info = list->items[i];
			r = 0;
		}
	free(list);
	return r;
}

/* --- entries --- */

/* A cursor is the last key, and how many entries were given before: a key that was deleted
 * meanwhile makes the kernel begin anew, but not without end. */
struct walk {
	int fd;
	struct bpf_map_info info;
	struct btf *btf;
	const struct rtnl *rtnl;
	int cpus;
	uint8_t *key, *next, *values;
	bool has_key;
	uint64_t given;
};

static int from_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int read_cursor(struct walk *walk, const char *cursor)
{
	size_t size = walk->info.key_size;
	char *end;

	if (!cursor)
		return 0;
	if (strlen(cursor) < 2 * size + 2 || cursor[2 * size] != '.')
		return -EINVAL;
	for (size_t i = 0; i < size; i++) {
		int high = from_hex(cursor[2 * i]), low = from_hex(cursor[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		walk->key[i] = (uint8_t)(high << 4 | low);
	}
	walk->given = strtoull(cursor + 2 * size + 1, &end, 10);
	walk->has_key = true;
	return *end || cursor[2 * size + 1] < '0' || cursor[2 * size + 1] > '9' ? -EINVAL : 0;
}

static char *write_cursor(const struct walk *walk)
{
	size_t size = walk->info.key_size;
	char *cursor = malloc(2 * size + 24);

	for (size_t i = 0; cursor && i < size; i++)
		snprintf(cursor + 2 * i, 3, "%02x", walk->key[i]);
	if (cursor)
		snprintf(cursor + 2 * size, 24, ".%llu", (unsigned long long)walk->given);
	return cursor;
}

static size_t value_stride(const struct walk *walk)
{
	return (walk->info.value_size + 7u) / 8 * 8;
}

/* NULL with 0: the entry is gone, or empty. */
static int read_value(struct walk *walk, struct json_object **ret_value)
{
	size_t size = walk->info.value_size;
	uint32_t type = walk->info.btf_value_type_id;

	*ret_value = NULL;
	if (bpf_map_lookup_elem(walk->fd, walk->key, walk->values))
		return 0;
	if (is_per_cpu(walk->info.type))
		for (int cpu = 1; cpu < walk->cpus; cpu++)
			btf_add(walk->btf, type, walk->values,
				walk->values + (size_t)cpu * value_stride(walk), size);
	*ret_value = btf_json(walk->btf, type, walk->values, size, walk->rtnl);
	return *ret_value ? 0 : -ENOMEM;
}

static int add_entry(struct walk *walk, struct json_object *items)
{
	struct json_object *item = json_object_new_object(), *value = NULL, *key;
	int r = item ? read_value(walk, &value) : -ENOMEM;

	key = btf_json(walk->btf, walk->info.btf_key_type_id, walk->key, walk->info.key_size,
		       walk->rtnl);
	if (r < 0 || !key) {
		json_object_put(item);
		json_object_put(key);
		return -ENOMEM;
	}
	json_object_object_add(item, "key", key);
	json_object_object_add(item, "value", value);
	return json_object_array_add(items, item) < 0 ? -ENOMEM : 0;
}

/* 0: the next key is in walk->key; -ENOENT: there is none. */
static int step(struct walk *walk)
{
	if (walk->given >= 2ull * walk->info.max_entries ||
	    bpf_map_get_next_key(walk->fd, walk->has_key ? walk->key : NULL, walk->next))
		return -ENOENT;
	memcpy(walk->key, walk->next, walk->info.key_size);
	walk->has_key = true;
	walk->given++;
	return 0;
}

static int list_page(struct walk *walk, size_t limit, struct json_object *items, char **ret_next)
{
	for (size_t i = 0; i < limit; i++) {
		int r = step(walk);

		if (r == 0)
			r = add_entry(walk, items);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
	}
	/* Only where more follows. */
	if (bpf_map_get_next_key(walk->fd, walk->key, walk->next))
		return 0;
	*ret_next = write_cursor(walk);
	return *ret_next ? 0 : -ENOMEM;
}

static int walk_begin(struct walk *walk, uint32_t id, const char *after)
{
	walk->fd = bpf_map_get_fd_by_id(id);
	if (walk->fd < 0)
		return -ENOENT;
	if (map_info(walk->fd, &walk->info))
		return -ENOENT;
	if (!can_be_listed(walk->info.type))
		return -EOPNOTSUPP;
	walk->cpus = libbpf_num_possible_cpus();
	if (walk->cpus < 1)
		return -EINVAL;
	walk->key = calloc(1, walk->info.key_size);
	walk->next = calloc(1, walk->info.key_size);
	walk->values = calloc((size_t)walk->cpus, value_stride(walk));
	if (!walk->key || !walk->next || !walk->values)
		return -ENOMEM;
	if (walk->info.btf_id)
		walk->btf = btf__load_from_kernel_by_id(walk->info.btf_id);
	return read_cursor(walk, after);
}

static void walk_end(struct walk *walk)
{
	if (walk->fd >= 0)
		close(walk->fd);
	btf__free(walk->btf);
	free(walk->key);
	free(walk->next);
	free(walk->values);
}

int steer_map_entries(struct steer *steer, const char *name, const char *after, size_t limit,
		      struct json_object **ret_items, char **ret_next)
{
	struct walk walk = {.fd = -1, .rtnl = steer->rtnl};
	struct json_object *items = NULL;
	struct steer_map_info info;
	char *next = NULL;
	int r = steer_map_info(steer, name, &info);

	if (r < 0)
		return r;
	r = walk_begin(&walk, info.id, after);
	if (r < 0)
		goto out;
	items = json_object_new_array();
	r = items ? list_page(&walk, limit, items, &next) : -ENOMEM;
	if (r < 0)
		goto out;
	*ret_items = items;
	*ret_next = next;
	items = NULL;
out:
	json_object_put(items);
	walk_end(&walk);
	return r;
}
