/* The daemon's sockets as the programs know them: listeners and own sockets. */
#include "steer/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int steer_set_listener(struct steer *steer, enum hf_socket which, int fd)
{
	__u32 key = which;
	__u64 wide = (__u64)fd; /* the map's value may be either width */
	struct bpf_map_info info = {0};
	__u32 len = sizeof(info);
	int r;

	if ((unsigned)which >= HF_SOCKET_COUNT || fd < 0)
		return -EINVAL;
	r = bpf_obj_get_info_by_fd(steer->maps.sockets, &info, &len);
	if (r < 0)
		return r;
	r = bpf_map_update_elem(steer->maps.sockets, &key,
				info.value_size == sizeof(fd) ? (void *)&fd : (void *)&wide,
				BPF_ANY);
	if (r == 0)
		kept_offer(which, fd);
	return r;
}

static const struct steer_link *find_link(const struct steer *steer, unsigned number)
{
	for (size_t i = 0; i < steer->wanted.link_count; i++)
		if (steer->wanted.links[i].number == number)
			return &steer->wanted.links[i];
	return NULL;
}

/* Other bits of the mark are others' own. */
static int set_mark(int fd, unsigned link_number)
{
	uint32_t mark = 0;
	socklen_t len = sizeof(mark);

	if (getsockopt(fd, SOL_SOCKET, SO_MARK, &mark, &len) < 0)
		return -errno;
	mark = (mark & ~HF_MARK_MASK) | HF_MARK_OWN | link_number << HF_MARK_LINK_SHIFT;
	return setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) < 0 ? -errno : 0;
}

int steer_own_socket(struct steer *steer, int fd, unsigned link_number)
{
	const struct steer_link *link = find_link(steer, link_number);
	struct hf_own own = {.link = link_number};
	int r;

	if (link_number && !link)
		return -ENODEV;
	r = set_mark(fd, link_number);
	if (r < 0 || !link)
		return r;
	if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, link->interface,
		       (socklen_t)strlen(link->interface)) < 0)
		return -errno;
	/* Last: a socket with storage may leave. */
	return bpf_map_update_elem(steer->maps.own_sockets, &fd, &own, BPF_ANY);
}
