/* Programs: loaded with the maps that are pinned, attached through pinned links. */
#include "base/log.h"
#include "steer/internal.h"

#include "guard.skel.h"
#include "lookup.skel.h"
#include "steer.skel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/magic.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BPFFS	    "/sys/fs/bpf"
#define LOOKUP_LINK "link_lookup"
#define XDP_LINK    "link_xdp_"

static const enum bpf_prog_type types[OBJECT_COUNT] = {
	[OBJECT_STEER] = BPF_PROG_TYPE_XDP,
	[OBJECT_LOOKUP] = BPF_PROG_TYPE_SK_LOOKUP,
	[OBJECT_GUARD] = BPF_PROG_TYPE_SCHED_CLS,
};

static int mount_bpffs(void)
{
	struct statfs fs;

	if (statfs(BPFFS, &fs) < 0)
		return -errno;
	if ((unsigned long)fs.f_type == BPF_FS_MAGIC)
		return 0;
	return mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0
		       ? -errno
		       : 0;
}

int programs_folder(char *ret_folder, size_t size, char *error, size_t error_size)
{
	struct stat ns;
	int r = mount_bpffs();

	if (r < 0)
		return steer_fail(error, error_size, r, "mounting " BPFFS ": %s", strerror(-r));
	if (stat("/proc/self/ns/net", &ns) < 0)
		return steer_fail(error, error_size, -errno, "/proc/self/ns/net");
	snprintf(ret_folder, size, BPFFS "/holdfast/%lu", (unsigned long)ns.st_ino);
	return 0;
}

static int make_folder(const char *folder)
{
	if (mkdir(BPFFS "/holdfast", 0700) < 0 && errno != EEXIST)
		return -errno;
	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

/* A map of another shape, from another version, cannot be carried over. */
static void drop_unlike_pins(struct bpf_object *object)
{
	struct bpf_map *map;

	bpf_object__for_each_map (map, object) {
		const char *path = bpf_map__pin_path(map);
		struct bpf_map_info info = {0};
		__u32 len = sizeof(info);
		int fd = path ? bpf_obj_get(path) : -1;

		if (fd < 0)
			continue;
		if (bpf_obj_get_info_by_fd(fd, &info, &len) || info.type != bpf_map__type(map) ||
		    info.key_size != bpf_map__key_size(map) ||
		    info.value_size != bpf_map__value_size(map) ||
		    info.max_entries != bpf_map__max_entries(map) ||
		    info.map_flags != bpf_map__map_flags(map))
			(void)unlink(path);
		close(fd);
	}
}

const void *programs_elf(enum steer_hook_object which, size_t *ret_size)
{
	switch (which) {
	case OBJECT_STEER:
		return steer_bpf__elf_bytes(ret_size);
	case OBJECT_LOOKUP:
		return lookup_bpf__elf_bytes(ret_size);
	case OBJECT_GUARD:
		return guard_bpf__elf_bytes(ret_size);
	case OBJECT_COUNT:
		break;
	}
	abort();
}

struct bpf_program *programs_find(struct bpf_object *object, enum steer_hook_object which)
{
	struct bpf_program *program;

	bpf_object__for_each_program (program, object)
		if (bpf_program__type(program) == types[which])
			return program;
	return NULL;
}

/* The program is told too: it may not call what such a kernel does not have. */
void programs_set_frags(struct bpf_object *object, struct bpf_program *program, bool frags)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object, ".rodata.frags");
	const __u8 value = frags;

	if (map)
		(void)bpf_map__set_initial_value(map, &value, sizeof(value));
	(void)bpf_program__set_flags(program, frags ? BPF_F_XDP_HAS_FRAGS : 0);
}

/* without_frags: kernels before 5.18 do not know packets in fragments. */
static int load_object(struct steer *steer, enum steer_hook_object which, bool without_frags,
		       struct bpf_object **ret_object)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = steer->folder,
		    .object_name = hf_hook_name((enum hf_hook)which));
	size_t size;
	const void *elf = programs_elf(which, &size);
	struct bpf_object *object = bpf_object__open_mem(elf, size, &opts);
	struct bpf_program *program;
	int r;

	if (!object)
		return -errno;
	program = programs_find(object, which);
	if (!program) {
		bpf_object__close(object);
		return -ENOEXEC;
	}
	if (which == OBJECT_STEER)
		programs_set_frags(object, program, !without_frags);
	drop_unlike_pins(object);
	r = bpf_object__load(object);
	if (r < 0) {
		bpf_object__close(object);
		return r;
	}
	*ret_object = object;
	return bpf_program__fd(program);
}

static int find_map(struct steer *steer, const char *name)
{
	for (int i = 0; i < OBJECT_COUNT; i++) {
		int fd = bpf_object__find_map_fd_by_name(steer->objects[i], name);

		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}

static int find_maps(struct steer *steer, char *error, size_t size)
{
	const struct {
		const char *name;
		int *fd;
	} wanted[] = {
		{"settings", &steer->maps.settings},
		{"interfaces", &steer->maps.interfaces},
		{"device_addresses", &steer->maps.device_addresses},
		{"names", &steer->maps.names},
		{"counters", &steer->maps.counters},
		{"sockets", &steer->maps.sockets},
		{"own_sockets", &steer->maps.own_sockets},
		{"guard_allow", &steer->maps.guard_allow},
		{"direct", &steer->maps.direct},
		{"heartbeat", &steer->maps.heartbeat},
		{"raised", &steer->maps.raised},
	};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		*wanted[i].fd = find_map(steer, wanted[i].name);
		if (*wanted[i].fd < 0)
			return steer_fail(error, size, -ENOENT, "no program has the map %s",
					  wanted[i].name);
	}
	return 0;
}

int programs_load(struct steer *steer, char *error, size_t size)
{
	int r = make_folder(steer->folder);

	if (r < 0)
		return steer_fail(error, size, r, "%s: %s", steer->folder, strerror(-r));
	for (int i = 0; i < OBJECT_COUNT; i++) {
		r = load_object(steer, i, false, &steer->objects[i]);
		if (i == OBJECT_STEER)
			steer->frags = r >= 0;
		if (r < 0 && i == OBJECT_STEER)
			r = load_object(steer, i, true, &steer->objects[i]);
		if (r < 0)
			return steer_fail(error, size, r, "loading the %s program: %s",
					  hf_hook_name((enum hf_hook)i), strerror(-r));
		steer->program_fds[i] = r;
	}
	return find_maps(steer, error, size);
}

int programs_steer_fd(const struct steer *steer)
{
	return steer->service.fd >= 0 ? steer->service.fd : steer->program_fds[OBJECT_STEER];
}

static int link_info(int fd, struct bpf_link_info *info)
{
	__u32 len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return bpf_obj_get_info_by_fd(fd, info, &len);
}

/* The namespace or interface of a link may be gone, or the link detached by others. */
static bool link_alive(int fd)
{
	struct bpf_link_info info;

	if (fd < 0 || link_info(fd, &info))
		return false;
	if (info.type == BPF_LINK_TYPE_XDP)
		return info.xdp.ifindex != 0;
	return info.type == BPF_LINK_TYPE_NETNS && info.netns.netns_ino != 0;
}

/* Give the pinned link the new program, or fail if it is no use; returns its descriptor. */
static int take_over(const char *path, int program_fd)
{
	int fd = bpf_obj_get(path), r;

	if (fd < 0)
		return fd;
	r = link_alive(fd) ? bpf_link_update(fd, program_fd, NULL) : -ENOLINK;
	if (r == 0)
		return fd;
	(void)bpf_link_detach(fd);
	close(fd);
	(void)unlink(path);
	return r;
}

static int pin_link(int fd, const char *path)
{
	int r = bpf_obj_pin(fd, path);

	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static int attach_lookup(struct steer *steer, char *error, size_t size)
{
	char path[PATH_MAX];
	int netns, fd, program = steer->program_fds[OBJECT_LOOKUP];

	if (link_alive(steer->lookup_fd))
		return 0;
	if (steer->lookup_fd >= 0)
		close(steer->lookup_fd);
	snprintf(path, sizeof(path), "%s/" LOOKUP_LINK, steer->folder);
	steer->lookup_fd = take_over(path, program);
	if (steer->lookup_fd >= 0)
		return 0;
	netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return steer_fail(error, size, -errno, "/proc/self/ns/net");
	fd = bpf_link_create(program, netns, BPF_SK_LOOKUP, NULL);
	close(netns);
	if (fd >= 0)
		fd = pin_link(fd, path);
	if (fd < 0)
		return others_lookup(fd, error, size);
	steer->lookup_fd = fd;
	if (steer->started)
		steer_tell(steer, "lookup restored", "network namespace");
	return 0;
}

/* FIELD-NOTES: native mode on veth loses XDP_TX and takes segmentation offload away. */
static bool wants_native(const struct rtnl_interface *interface)
{
	static const char *const generic[] = {"veth", "bridge", "tun"};

	if (!strcmp(interface->name, "lo"))
		return false;
	for (size_t i = 0; i < sizeof(generic) / sizeof(*generic); i++)
		if (!strcmp(interface->kind, generic[i]))
			return false;
	return true;
}

static struct xdp_attachment *find_attachment(struct steer *steer, int ifindex)
{
	for (size_t i = 0; i < steer->xdp_count; i++)
		if (steer->xdp[i].ifindex == ifindex)
			return &steer->xdp[i];
	return NULL;
}

static int create_xdp_link(struct steer *steer, const struct rtnl_interface *interface,
			   bool *ret_native)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);
	int program = programs_steer_fd(steer), fd = -EOPNOTSUPP;

	*ret_native = wants_native(interface);
	if (*ret_native) {
		opts.flags = XDP_FLAGS_DRV_MODE;
		fd = bpf_link_create(program, interface->index, BPF_XDP, &opts);
	}
	if (fd < 0) {
		*ret_native = false;
		opts.flags = XDP_FLAGS_SKB_MODE;
		fd = bpf_link_create(program, interface->index, BPF_XDP, &opts);
	}
	return fd;
}

static int attach_xdp(struct steer *steer, const struct rtnl_interface *interface, char *error,
		      size_t size)
{
	struct xdp_attachment *attachment = find_attachment(steer, interface->index);
	bool native = wants_native(interface), known = attachment != NULL;
	char path[PATH_MAX];
	int fd;

	if (attachment && link_alive(attachment->fd)) {
		attachment->seen = true;
		return 0;
	}
	if (!attachment && steer->xdp_count == INTERFACES_MAX + 1)
		return steer_fail(error, size, -ENOSPC, "too many interfaces");
	snprintf(path, sizeof(path), "%s/" XDP_LINK "%d", steer->folder, interface->index);
	fd = take_over(path, programs_steer_fd(steer));
	if (fd < 0) {
		fd = create_xdp_link(steer, interface, &native);
		if (fd >= 0)
			fd = pin_link(fd, path);
	}
	if (fd < 0)
		return others_xdp(interface, fd, error, size);
	if (attachment)
		close(attachment->fd);
	else
		attachment = &steer->xdp[steer->xdp_count++];
	*attachment = (struct xdp_attachment){
		.ifindex = interface->index, .fd = fd, .native = native, .seen = true};
	memcpy(attachment->name, interface->name, IF_NAMESIZE);
	if (steer->started)
		steer_tell(steer, known ? "program restored" : "interface attached", "%s",
			   interface->name);
	return 0;
}

/* Interfaces that are no apps' any more, and pins of ones that are gone. */
static void drop_unseen(struct steer *steer)
{
	struct dirent *entry;
	DIR *folder;

	for (size_t i = 0; i < steer->xdp_count;) {
		if (steer->xdp[i].seen) {
			i++;
			continue;
		}
		(void)bpf_link_detach(steer->xdp[i].fd);
		close(steer->xdp[i].fd);
		steer_tell(steer, "interface detached", "%s", steer->xdp[i].name);
		steer->xdp[i] = steer->xdp[--steer->xdp_count];
	}
	folder = opendir(steer->folder);
	while (folder && (entry = readdir(folder))) {
		char path[PATH_MAX];
		int fd;

		if (strncmp(entry->d_name, XDP_LINK, strlen(XDP_LINK)) ||
		    find_attachment(steer, atoi(entry->d_name + strlen(XDP_LINK))))
			continue;
		snprintf(path, sizeof(path), "%s/%s", steer->folder, entry->d_name);
		fd = bpf_obj_get(path);
		if (fd >= 0) {
			(void)bpf_link_detach(fd);
			close(fd);
		}
		(void)unlink(path);
	}
	if (folder)
		closedir(folder);
}

/* Each is tried, also behind one that is in other hands; the first error is returned. */
int programs_attach(struct steer *steer, char *error, size_t size)
{
	int first = 0, r;

	for (size_t i = 0; i < steer->xdp_count; i++)
		steer->xdp[i].seen = false;
	for (size_t i = 0; i <= steer->wanted.app_interface_count; i++) {
		bool is_lo = i == steer->wanted.app_interface_count;
		const struct rtnl_interface *interface;

		if (is_lo && !steer->wanted.host)
			continue;
		interface = rtnl_interface_by_name(steer->rtnl,
						   is_lo ? "lo" : steer->wanted.app_interfaces[i]);
		r = interface ? attach_xdp(steer, interface, error, first ? 0 : size) : 0;
		if (r < 0 && !first)
			first = r;
	}
	drop_unseen(steer);
	r = attach_lookup(steer, error, first ? 0 : size);
	return first ? first : r;
}

/* An interface that is gone, or that somebody detached, is for the next comparison. */
static int update_link(const struct xdp_attachment *attachment, int program)
{
	int r = link_alive(attachment->fd) ? bpf_link_update(attachment->fd, program, NULL) : 0;

	return r == -ENOLINK ? 0 : r;
}

/* All of them, or none. What is replaced is known to fit where it was. */
static int update_links(struct steer *steer, int program)
{
	int r = 0;
	size_t i;

	for (i = 0; i < steer->xdp_count && r == 0; i++)
		r = update_link(&steer->xdp[i], program);
	if (r == 0)
		return 0;
	log_warning("steer", "%s does not take the program: %s", steer->xdp[i - 1].name,
		    strerror(-r));
	for (size_t back = 0; back + 1 < i; back++)
		(void)update_link(&steer->xdp[back], programs_steer_fd(steer));
	return r;
}

int steer_activate(struct steer *steer, struct steer_candidate *candidate)
{
	int fd = -1, r;

	if (candidate) {
		fd = fcntl(candidate_fd(candidate), F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
	}
	r = update_links(steer, candidate ? fd : steer->program_fds[OBJECT_STEER]);
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		return r;
	}
	if (steer->service.fd >= 0)
		close(steer->service.fd);
	steer->service.fd = fd;
	steer->service.candidate = candidate;
	steer->service.serial++;
	return 0;
}

struct steer_candidate *steer_active(const struct steer *steer)
{
	return steer->service.candidate;
}

bool programs_are_attached(struct steer *steer)
{
	for (size_t i = 0; i < steer->xdp_count; i++)
		if (!link_alive(steer->xdp[i].fd))
			return false;
	return link_alive(steer->lookup_fd);
}

void programs_close(struct steer *steer)
{
	for (size_t i = 0; i < steer->xdp_count; i++)
		close(steer->xdp[i].fd);
	steer->xdp_count = 0;
	if (steer->lookup_fd >= 0)
		close(steer->lookup_fd);
	steer->lookup_fd = -1;
	if (steer->service.fd >= 0)
		close(steer->service.fd);
	steer->service.fd = -1;
	steer->service.candidate = NULL;
	for (int i = 0; i < OBJECT_COUNT; i++) {
		bpf_object__close(steer->objects[i]);
		steer->objects[i] = NULL;
	}
}

int programs_release(const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	int first = 0;

	if (!folder)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(folder))) {
		char pin[PATH_MAX];
		int fd;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(pin, sizeof(pin), "%s/%s", path, entry->d_name);
		fd = strncmp(entry->d_name, "link_", 5) ? -1 : bpf_obj_get(pin);
		if (fd >= 0) {
			(void)bpf_link_detach(fd);
			close(fd);
		}
		if (unlink(pin) < 0 && !first)
			first = -errno;
	}
	closedir(folder);
	if (rmdir(path) < 0 && !first)
		first = -errno;
	(void)rmdir(BPFFS "/holdfast"); /* stays while other namespaces have theirs */
	return first;
}

static int describe(struct steer *steer, int fd, const char *hook, struct steer_program_info *info)
{
	struct bpf_prog_info kernel = {0};
	__u32 len = sizeof(kernel);
	int r = bpf_obj_get_info_by_fd(fd, &kernel, &len);

	if (r < 0)
		return r;
	snprintf(info->name, sizeof(info->name), "%s", kernel.name);
	snprintf(info->hook, sizeof(info->hook), "%s", hook);
	info->id = kernel.id;
	info->run_count = kernel.run_cnt;
	info->run_time_ns = kernel.run_time_ns;
	return 0;
}

int steer_programs(struct steer *steer, struct steer_program_info **ret_programs, size_t *ret_count)
{
	size_t max = steer->xdp_count + 1 + steer->guarded.count, count = 0;
	struct steer_program_info *programs = calloc(max, sizeof(*programs));
	int r = programs ? 0 : -ENOMEM;

	for (size_t i = 0; i < steer->xdp_count && r == 0; i++) {
		struct steer_program_info *info = &programs[count++];

		snprintf(info->mode, sizeof(info->mode), "%s",
			 steer->xdp[i].native ? "native" : "generic");
		memcpy(info->interface, steer->xdp[i].name, IF_NAMESIZE);
		r = describe(steer, programs_steer_fd(steer), "steer", info);
		if (steer->service.candidate)
			snprintf(info->name, sizeof(info->name), "%s",
				 candidate_name(steer->service.candidate));
	}
	if (r == 0)
		r = describe(steer, steer->program_fds[OBJECT_LOOKUP], "lookup",
			     &programs[count++]);
	for (size_t i = 0; i < steer->guarded.count && r == 0; i++) {
		const struct rtnl_interface *interface =
			rtnl_interface_by_index(steer->rtnl, steer->guarded.ifindexes[i]);

		if (interface)
			memcpy(programs[count].interface, interface->name, IF_NAMESIZE);
		r = describe(steer, steer->program_fds[OBJECT_GUARD], "guard", &programs[count++]);
	}
	if (r < 0) {
		free(programs);
		return r;
	}
	*ret_programs = programs;
	*ret_count = count;
	return 0;
}
