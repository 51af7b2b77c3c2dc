/*
 * Listening sockets that a service manager kept over a restart. While the daemon is away they
 * stay in the lookup program's map, so that connections wait in their backlog; the next daemon
 * takes them up again.
 */
#include "steer/internal.h"

#include "base/log.h"
#include "base/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Options of a kept socket stay as they were made: a daemon that needs others gives it another
 * name. */
#define NAME(id) [HF_SOCKET_##id] = "holdfast-" #id
static const char *const names[HF_SOCKET_COUNT] = {
	NAME(PROXY_TCP4), NAME(PROXY_TCP6), NAME(DNS_UDP4), NAME(DNS_UDP6),   NAME(DNS_TCP4),
	NAME(DNS_TCP6),	  NAME(API_TCP4),   NAME(API_TCP6), NAME(RELAY_UDP4), NAME(RELAY_UDP6),
};

static bool is_tcp(enum hf_socket which)
{
	switch (which) {
	case HF_SOCKET_PROXY_TCP4:
	case HF_SOCKET_PROXY_TCP6:
	case HF_SOCKET_DNS_TCP4:
	case HF_SOCKET_DNS_TCP6:
	case HF_SOCKET_API_TCP4:
	case HF_SOCKET_API_TCP6:
		return true;
	case HF_SOCKET_DNS_UDP4:
	case HF_SOCKET_DNS_UDP6:
	case HF_SOCKET_RELAY_UDP4:
	case HF_SOCKET_RELAY_UDP6:
	case HF_SOCKET_COUNT:
		break;
	}
	return false;
}

static bool option_is(int fd, int level, int option, int wanted)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, option, &value, &len) == 0 && value == wanted;
}

/* A socket stays in the namespace that it was made in, wherever the daemon is started. */
static bool is_of_this_namespace(int fd)
{
	int here = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint64_t a = 0, b = 0;
	socklen_t len = sizeof(a);
	/* Linux 5.14 has the option; 5.15 is the oldest that is served. */
	bool same = here >= 0 && !getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &a, &len) &&
		    !getsockopt(here, SOL_SOCKET, SO_NETNS_COOKIE, &b, &len) && a == b;

	if (here >= 0)
		close(here);
	return same;
}

static bool fits(int fd, enum hf_socket which, const struct ip *address, uint16_t port)
{
	bool v4 = ip_is_v4(address), tcp = is_tcp(which);
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct ip bound;
	uint16_t bound_port;

	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0 ||
	    sa.ss_family != (v4 ? AF_INET : AF_INET6))
		return false;
	bound = ip_from_sockaddr((struct sockaddr *)&sa, &bound_port);
	return ip_equal(&bound, address) && (!port || bound_port == port) &&
	       option_is(fd, SOL_SOCKET, SO_TYPE, tcp ? SOCK_STREAM : SOCK_DGRAM) &&
	       (!tcp || option_is(fd, SOL_SOCKET, SO_ACCEPTCONN, 1)) &&
	       option_is(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT,
			 1) &&
	       is_of_this_namespace(fd);
}

void kept_receive(struct steer *steer)
{
	struct systemd_descriptor received[2 * HF_SOCKET_COUNT];
	size_t count = systemd_received(received, 2 * HF_SOCKET_COUNT);

	for (int which = 0; which < HF_SOCKET_COUNT; which++) {
		steer->kept[which] = -1;
		for (size_t i = 0; i < count && steer->kept[which] < 0; i++)
			if (received[i].fd >= 0 && !strcmp(received[i].name, names[which])) {
				steer->kept[which] = received[i].fd;
				received[i].fd = -1;
			}
	}
	for (size_t i = 0; i < count; i++)
		if (received[i].fd >= 0)
			close(received[i].fd);
}

int steer_take_listener(struct steer *steer, enum hf_socket which, const struct ip *address,
			uint16_t port, int *ret_fd)
{
	int fd = steer->kept[which];

	if (fd < 0)
		return -ENOENT;
	steer->kept[which] = -1;
	if (!fits(fd, which, address, port)) {
		log_info("steer", "the kept socket %s does not fit any more: made anew",
			 names[which]);
		systemd_forget(names[which]);
		close(fd);
		return -ENOENT;
	}
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
		close(fd);
		return -errno;
	}
	*ret_fd = fd;
	return 0;
}

void kept_offer(enum hf_socket which, int fd)
{
	systemd_keep(names[which], fd);
}

void kept_forget_all(void)
{
	for (int which = 0; which < HF_SOCKET_COUNT; which++)
		systemd_forget(names[which]);
}

void kept_close(struct steer *steer)
{
	for (int which = 0; which < HF_SOCKET_COUNT; which++) {
		if (steer->kept[which] >= 0)
			close(steer->kept[which]);
		steer->kept[which] = -1;
	}
}
