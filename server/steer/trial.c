/* A snapshot of what is in force, and objects opened with the maps in it. */
#include "base/limits.h"
#include "steer/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct trial_map *trial_find_map(const struct steer_trial *trial, const char *name)
{
	for (size_t i = 0; i < trial->map_count; i++)
		if (!strcmp(trial->maps[i].name, name))
			return &trial->maps[i];
	return NULL;
}

static int take_map(struct steer_trial *trial, const struct bpf_map *map, bool of_steer)
{
	struct trial_map *taken = &trial->maps[trial->map_count];
	__u32 len = sizeof(taken->info);
	int r;

	/* What is not pinned is a program's own, and the first to use a map is asked first. */
	if (!bpf_map__pin_path(map) || trial_find_map(trial, bpf_map__name(map)))
		return 0;
	if (trial->map_count == TRIAL_MAPS_MAX)
		return -ENOSPC;
	taken->fd = fcntl(bpf_map__fd(map), F_DUPFD_CLOEXEC, 0);
	if (taken->fd < 0)
		return -errno;
	trial->map_count++;
	taken->of_steer = of_steer;
	snprintf(taken->name, sizeof(taken->name), "%s", bpf_map__name(map));
	r = bpf_obj_get_info_by_fd(taken->fd, &taken->info, &len);
	return r < 0 ? r : 0;
}

static int take_maps(struct steer_trial *trial, struct steer *steer)
{
	struct bpf_map *map;
	int r = 0;

	for (int i = 0; i < OBJECT_COUNT; i++)
		bpf_object__for_each_map (map, steer->objects[i])
			if (r == 0)
				r = take_map(trial, map, i == OBJECT_STEER);
	return r;
}

static void take_interface(struct steer_trial *trial, struct steer *steer, const char *name,
			   enum hf_role role, unsigned link)
{
	const struct rtnl_interface *interface = rtnl_interface_by_name(steer->rtnl, name);
	struct trial_interface *taken = &trial->interfaces[trial->interface_count];

	if (!interface)
		return;
	trial->interface_count++;
	snprintf(taken->name, sizeof(taken->name), "%s", name);
	taken->index = interface->index;
	taken->value = (struct hf_interface){.role = (__u8)role,
					     .link = (__u8)link,
					     .has_mac = interface->type == ARPHRD_ETHER ||
							interface->type == ARPHRD_LOOPBACK};
}

static void take_interfaces(struct steer_trial *trial, struct steer *steer)
{
	const struct wanted *wanted = &steer->wanted;
	const struct rtnl_interface *lo = rtnl_interface_by_name(steer->rtnl, "lo");

	trial->lo = lo ? lo->index : 1;
	if (wanted->host)
		take_interface(trial, steer, "lo", HF_ROLE_HOST, 0);
	for (size_t i = 0; i < wanted->app_interface_count; i++)
		take_interface(trial, steer, wanted->app_interfaces[i], HF_ROLE_APP, 0);
	for (size_t i = 0; i < wanted->link_count; i++)
		take_interface(trial, steer, wanted->links[i].interface, HF_ROLE_LINK,
			       wanted->links[i].number);
}

/* calloc of nothing may be NULL: one more is asked for. */
static void *copy_array(const void *items, size_t count, size_t size)
{
	void *copy = calloc(count + 1, size);

	if (copy && count)
		memcpy(copy, items, count * size);
	return copy;
}

static int take_values(struct steer_trial *trial, struct steer *steer,
		       const struct steer_peer *peers, size_t peer_count)
{
	const struct rtnl_address *addresses = rtnl_addresses(steer->rtnl, &trial->address_count);

	trial->settings = steer->settings;
	trial->frags = steer->frags;
	trial->serial = steer->service.serial;
	trial->peer_count = peer_count;
	trial->peers = copy_array(peers, peer_count, sizeof(*peers));
	trial->addresses = copy_array(addresses, trial->address_count, sizeof(*addresses));
	if (!trial->peers || !trial->addresses)
		return -ENOMEM;
	if (steer->service.candidate) {
		const uint8_t *elf = candidate_elf(steer->service.candidate, &trial->elf_size);

		trial->elf = copy_array(elf, trial->elf_size, 1);
		if (!trial->elf)
			return -ENOMEM;
	}
	return 0;
}

int steer_trial_new(struct steer *steer, const struct steer_peer *peers, size_t peer_count,
		    struct steer_trial **ret_trial)
{
	struct steer_trial *trial;
	int r;

	if (peer_count > TRIAL_PEERS_MAX)
		return -E2BIG;
	trial = calloc(1, sizeof(*trial));
	if (!trial)
		return -ENOMEM;
	r = take_maps(trial, steer);
	if (r == 0)
		r = take_values(trial, steer, peers, peer_count);
	if (r < 0) {
		steer_trial_free(trial);
		return r;
	}
	take_interfaces(trial, steer);
	*ret_trial = trial;
	return 0;
}

void steer_trial_free(struct steer_trial *trial)
{
	if (!trial)
		return;
	for (size_t i = 0; i < trial->map_count; i++)
		close(trial->maps[i].fd);
	free(trial->addresses);
	free(trial->peers);
	free(trial->elf);
	free(trial);
}

/* Maps that a program writes: a look must leave them alone. */
static bool is_written(const char *name)
{
	static const char *const written[] = {"counters", "counter_overflow", "raised"};

	for (size_t i = 0; i < sizeof(written) / sizeof(*written); i++)
		if (!strcmp(name, written[i]))
			return true;
	return false;
}

int trial_share(const struct steer_trial *trial, struct bpf_object *object, enum trial_maps which)
{
	struct bpf_map *map;

	bpf_object__for_each_map (map, object) {
		const char *name = bpf_map__name(map);
		const struct trial_map *live = trial_find_map(trial, name);
		int r = bpf_map__set_pin_path(map, NULL);

		if (r == 0 && live &&
		    (which == TRIAL_MAPS_LIVE || (which == TRIAL_MAPS_LOOK && !is_written(name))))
			r = bpf_map__reuse_fd(map, live->fd);
		if (r < 0)
			return r;
	}
	return 0;
}

int trial_open(const void *elf, size_t size, char *ret_text, size_t text_size,
	       struct bpf_object **ret_object)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "holdfast");
	struct bpf_object *object;
	int r = 0;

	steer_capture_libbpf(ret_text, text_size);
	object = bpf_object__open_mem(elf, size, &opts);
	if (!object)
		r = -errno;
	steer_capture_libbpf(NULL, 0);
	if (r == 0)
		*ret_object = object;
	return r;
}
