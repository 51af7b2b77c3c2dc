#include "conn/listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int prepare(int fd, bool v4)
{
	int r = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);

	if (r == 0)
		r = v4 ? set(fd, IPPROTO_IP, IP_TRANSPARENT, 1)
		       : set(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1);
	if (r == 0 && !v4)
		r = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (r == 0)
		r = set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	if (r == 0)
		r = set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
	return r == 0 ? set(fd, IPPROTO_TCP, TCP_NODELAY, 1) : r;
}

int listen_transparent(const struct ip *address, uint16_t port, int backlog, int *ret_fd)
{
	struct sockaddr_storage sa;
	socklen_t len = ip_to_sockaddr(address, port, &sa);
	int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	r = prepare(fd, ip_is_v4(address));
	if (r == 0 && bind(fd, (struct sockaddr *)&sa, len) < 0)
		r = -errno;
	if (r == 0 && listen(fd, backlog) < 0)
		r = -errno;
	if (r < 0) {
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}
