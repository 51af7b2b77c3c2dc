/* The maps that follow the configuration and the network: settings, interfaces, the
 * device's addresses, what the guard allows. */
#include "base/limits.h"
#include "base/log.h"
#include "steer/internal.h"

#include <errno.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>

static struct hf_ip abi_ip(const struct ip *ip)
{
	struct hf_ip out;

	memcpy(out.bytes, ip->bytes, sizeof(out.bytes));
	return out;
}

static int write_allow(struct steer *steer)
{
	for (__u32 i = 0; i < HF_ALLOW_MAX; i++) {
		const struct steer_allow *allow = &steer->wanted.allow[i];
		struct hf_allow value = {0};
		int r;

		if (i < steer->wanted.allow_count) {
			value.used = 1;
			value.protocol = allow->protocol;
			value.local_port = allow->local_port;
			value.remote_port = allow->remote_port;
			if (allow->has_remote) {
				value.remote_bits = allow->remote.bits;
				value.remote_family = ip_is_v4(&allow->remote.ip) ? 4 : 6;
				value.remote = abi_ip(&allow->remote.ip);
			}
		}
		r = bpf_map_update_elem(steer->maps.guard_allow, &i, &value, BPF_ANY);
		if (r < 0)
			return r;
	}
	return 0;
}

int maps_write_settings(struct steer *steer)
{
	static const __u32 zero;
	const struct wanted *wanted = &steer->wanted;
	struct hf_settings old, *settings = &steer->settings;
	struct ip internal_v4 = ip_prefix_nth(&wanted->virtual_v4, 1);
	struct ip internal_v6 = ip_prefix_nth(&wanted->virtual_v6, 1);
	int r;

	/* Which answers are in force, and what can be relayed, is not the configuration's to say.
	 */
	if (!bpf_map_lookup_elem(steer->maps.settings, &zero, &old) && old.abi == HF_ABI_VERSION) {
		settings->names_mode = old.names_mode;
		settings->flags = old.flags;
	}
	settings->abi = HF_ABI_VERSION;
	settings->guard_mode = wanted->guard_mode;
	settings->virtual_ttl = wanted->virtual_ttl;
	settings->internal_v4 = abi_ip(&internal_v4);
	settings->internal_v6 = abi_ip(&internal_v6);
	settings->virtual_v4 = abi_ip(&wanted->virtual_v4.ip);
	settings->virtual_v6 = abi_ip(&wanted->virtual_v6.ip);
	settings->virtual_v4_bits = wanted->virtual_v4.bits;
	settings->virtual_v6_bits = wanted->virtual_v6.bits;
	settings->exempt_uid_count = (__u32)wanted->exempt_uid_count;
	memcpy(settings->exempt_uids, wanted->exempt_uids, sizeof(settings->exempt_uids));
	r = bpf_map_update_elem(steer->maps.settings, &zero, settings, BPF_ANY);
	return r < 0 ? r : write_allow(steer);
}

/* Delete every key that is not among the wanted ones. */
static int drop_others(int map, size_t key_size, const void *wanted, size_t count, size_t max)
{
	char key[32], *stale = calloc(max, key_size);
	const void *previous = NULL;
	size_t stale_count = 0;

	if (!stale)
		return -ENOMEM;
	for (size_t n = 0; n < 2 * max && !bpf_map_get_next_key(map, previous, key); n++) {
		bool keep = false;

		previous = key;
		for (size_t i = 0; i < count && !keep; i++)
			keep = !memcmp((const char *)wanted + i * key_size, key, key_size);
		if (!keep && stale_count < max)
			memcpy(stale + stale_count++ * key_size, key, key_size);
	}
	for (size_t i = 0; i < stale_count; i++)
		(void)bpf_map_delete_elem(map, stale + i * key_size);
	free(stale);
	return 0;
}

static int put_interface(struct steer *steer, const char *name, enum hf_role role, unsigned link,
			 uint32_t *indexes, size_t *count)
{
	const struct rtnl_interface *interface = rtnl_interface_by_name(steer->rtnl, name);
	struct hf_interface value = {.role = (__u8)role, .link = (__u8)link};
	__u32 index;

	if (!interface)
		return 0;
	index = (__u32)interface->index;
	value.has_mac = interface->type == ARPHRD_ETHER || interface->type == ARPHRD_LOOPBACK;
	indexes[(*count)++] = index;
	return bpf_map_update_elem(steer->maps.interfaces, &index, &value, BPF_ANY);
}

int maps_write_interfaces(struct steer *steer)
{
	const struct wanted *wanted = &steer->wanted;
	uint32_t indexes[INTERFACES_MAX + LINKS_MAX + 1];
	size_t count = 0;
	int r = 0;

	if (wanted->host)
		r = put_interface(steer, "lo", HF_ROLE_HOST, 0, indexes, &count);
	for (size_t i = 0; i < wanted->app_interface_count && r == 0; i++)
		r = put_interface(steer, wanted->app_interfaces[i], HF_ROLE_APP, 0, indexes,
				  &count);
	for (size_t i = 0; i < wanted->link_count && r == 0; i++)
		r = put_interface(steer, wanted->links[i].interface, HF_ROLE_LINK,
				  wanted->links[i].number, indexes, &count);
	if (r < 0)
		return r;
	return drop_others(steer->maps.interfaces, sizeof(*indexes), indexes, count, 256);
}

int maps_write_addresses(struct steer *steer)
{
	static const __u32 one = 1;
	size_t count, kept = 0;
	const struct rtnl_address *addresses = rtnl_addresses(steer->rtnl, &count);
	struct hf_ip *keys = calloc(HF_ADDRESSES_MAP_MAX, sizeof(*keys));
	int r = 0;

	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (kept == HF_ADDRESSES_MAP_MAX) {
			log_warning("steer", "%zu addresses of the device do not fit the map",
				    count - i);
			break;
		}
		keys[kept++] = abi_ip(&addresses[i].ip);
	}
	/* Room first: the map may be full of addresses that are gone. */
	r = drop_others(steer->maps.device_addresses, sizeof(*keys), keys, kept,
			HF_ADDRESSES_MAP_MAX);
	for (size_t i = 0; i < kept && r == 0; i++)
		r = bpf_map_update_elem(steer->maps.device_addresses, &keys[i], &one, BPF_ANY);
	free(keys);
	return r;
}

static bool is_same_direct(const struct steer *steer, const struct hf_prefix *keys, size_t count)
{
	return steer->direct && count == steer->direct_count &&
	       (!count || !memcmp(steer->direct, keys, count * sizeof(*keys)));
}

static struct hf_prefix *direct_prefixes(const struct route_list *routes, size_t *ret_count)
{
	struct hf_prefix *keys = calloc(HF_DIRECT_MAX, sizeof(*keys));
	size_t count = 0;

	for (size_t i = 0; keys && i < routes->count; i++) {
		const struct rtnl_route *route = &routes->items[i];

		if (route->table != STEER_TABLE_CONNECTED)
			continue;
		if (count == HF_DIRECT_MAX) {
			log_warning("steer", "more than %d direct networks: the rest is steered",
				    HF_DIRECT_MAX);
			break;
		}
		keys[count].bits = route->destination.bits;
		memcpy(keys[count++].ip, route->destination.ip.bytes, sizeof(keys->ip));
	}
	*ret_count = count;
	return keys;
}

int maps_write_direct(struct steer *steer, const struct route_list *routes)
{
	static const __u32 one = 1;
	size_t count;
	struct hf_prefix *keys = direct_prefixes(routes, &count);
	int r;

	if (!keys)
		return -ENOMEM;
	if (is_same_direct(steer, keys, count)) {
		free(keys);
		return 0;
	}
	r = drop_others(steer->maps.direct, sizeof(*keys), keys, count, HF_DIRECT_MAX);
	for (size_t i = 0; i < count && r == 0; i++)
		r = bpf_map_update_elem(steer->maps.direct, &keys[i], &one, BPF_ANY);
	if (r < 0) {
		free(keys);
		return r;
	}
	free(steer->direct);
	steer->direct = keys;
	steer->direct_count = count;
	return 0;
}

int maps_write_heartbeat(struct steer *steer, bool alive)
{
	static const __u32 zero;
	__u64 until = alive ? uv_hrtime() + STEER_ALIVE_TIME * 1000000ull : 0;

	return bpf_map_update_elem(steer->maps.heartbeat, &zero, &until, BPF_ANY);
}

int steer_set_flags(struct steer *steer, uint32_t flags)
{
	static const __u32 zero;

	if (steer->settings.flags == flags)
		return 0;
	steer->settings.flags = flags;
	return bpf_map_update_elem(steer->maps.settings, &zero, &steer->settings, BPF_ANY);
}
