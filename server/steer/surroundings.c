/* What a program finds in the maps of a trial load: this device, or the fixed surroundings of
 * golden packets. */
#include "steer/corpus.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int map_of(struct bpf_object *object, const char *name)
{
	return bpf_object__find_map_fd_by_name(object, name);
}

/* A map that the object does not have is none of its surroundings. */
static int put(struct bpf_object *object, const char *name, const void *key, const void *value)
{
	int map = map_of(object, name);

	return map < 0 ? 0 : bpf_map_update_elem(map, key, value, BPF_ANY);
}

static int copy_entries(int from, int to, const struct bpf_map_info *info)
{
	char *key = calloc(2, info->key_size), *value = calloc(1, info->value_size);
	char *next = key ? key + info->key_size : NULL;
	int r = key && value ? 0 : -ENOMEM;
	const char *previous = NULL;

	/* The live map goes on changing: an entry may be gone when it is read, and a bound
	 * keeps the walk from going round. */
	for (uint32_t n = 0; r == 0 && n < 2 * info->max_entries; n++) {
		if (bpf_map_get_next_key(from, previous, next) < 0)
			break;
		memcpy(key, next, info->key_size);
		previous = key;
		if (bpf_map_lookup_elem(from, key, value) == 0)
			r = bpf_map_update_elem(to, key, value, BPF_ANY);
	}
	free(key);
	free(value);
	return r == -E2BIG ? 0 : r;
}

static int copy_map(const struct steer_trial *trial, struct bpf_object *object, const char *name)
{
	const struct trial_map *live = trial_find_map(trial, name);
	int map = map_of(object, name);

	return live && map >= 0 ? copy_entries(live->fd, map, &live->info) : 0;
}

/* The daemon lives, and goes on living. */
static int put_heartbeat(struct bpf_object *object)
{
	static const __u32 zero;
	static const __u64 always = UINT64_MAX;

	return put(object, "heartbeat", &zero, &always);
}

int surroundings_interface(struct bpf_object *object, int index, const struct hf_interface *value)
{
	__u32 key = (__u32)index;

	return put(object, "interfaces", &key, value);
}

int surroundings_live(const struct steer_trial *trial, struct bpf_object *object)
{
	static const __u32 zero, one = 1;
	int r = put(object, "settings", &zero, &trial->settings);

	if (r == 0)
		r = put_heartbeat(object);
	for (size_t i = 0; i < trial->interface_count && r == 0; i++)
		r = surroundings_interface(object, trial->interfaces[i].index,
					   &trial->interfaces[i].value);
	/* as many as the live map takes */
	for (size_t i = 0; i < trial->address_count && i < HF_ADDRESSES_MAP_MAX && r == 0; i++)
		r = put(object, "device_addresses", &trial->addresses[i].ip, &one);
	if (r == 0)
		r = copy_map(trial, object, "direct");
	return r < 0 ? r : copy_map(trial, object, "names");
}

static struct hf_ip to_ip(const char *text)
{
	struct hf_ip out = {{0}};
	struct ip ip;

	if (ip_parse(text, &ip) == 0)
		memcpy(out.bytes, ip.bytes, sizeof(out.bytes));
	return out;
}

/* docs/programs.md tells them. */
int surroundings_golden(struct bpf_object *object)
{
	static const __u32 zero, one = 1;
	static const char *const device[] = {"192.0.2.1", "2001:db8::1"};
	struct hf_settings settings = {
		.abi = HF_ABI_VERSION,
		.names_mode = HF_NAMES_REAL,
		.guard_mode = HF_GUARD_ENFORCE,
		.virtual_ttl = 1,
		.internal_v4 = to_ip("198.18.0.1"),
		.internal_v6 = to_ip("fd5a:fe00::1"),
		.virtual_v4 = to_ip("198.18.0.0"),
		.virtual_v6 = to_ip("fd5a:fe00::"),
		.virtual_v4_bits = 96 + 15,
		.virtual_v6_bits = 64,
		.flags = HF_FLAG_ONLINE,
	};
	int r = put(object, "settings", &zero, &settings);

	if (r == 0)
		r = put_heartbeat(object);
	for (size_t i = 0; i < sizeof(device) / sizeof(*device) && r == 0; i++) {
		struct hf_ip ip = to_ip(device[i]);

		r = put(object, "device_addresses", &ip, &one);
	}
	return r;
}
