#include "rtnl/internal.h"

#include <errno.h>
#include <sys/socket.h>

int asker_init(struct asker *asker)
{
	asker->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!asker->socket)
		return -errno;
	if (mnl_socket_bind(asker->socket, 0, MNL_SOCKET_AUTOPID) < 0) {
		int r = -errno;

		asker_done(asker);
		return r;
	}
	return 0;
}

void asker_done(struct asker *asker)
{
	if (asker->socket)
		mnl_socket_close(asker->socket);
	asker->socket = NULL;
}

int asker_run(struct asker *asker, struct nlmsghdr *request, mnl_cb_t cb, void *arg)
{
	int r;

	if (!asker->socket)
		return -ENOTCONN;
	request->nlmsg_seq = ++asker->seq;
	if (mnl_socket_sendto(asker->socket, request, request->nlmsg_len) < 0)
		return -errno;
	do {
		ssize_t n =
			mnl_socket_recvfrom(asker->socket, asker->buffer, sizeof(asker->buffer));

		if (n < 0)
			return -errno;
		r = mnl_cb_run(asker->buffer, (size_t)n, asker->seq,
			       mnl_socket_get_portid(asker->socket), cb, arg);
	} while (r > MNL_CB_STOP);
	if (r == MNL_CB_STOP)
		return 0;
	r = -errno;
	/* The rest of an inconsistent dump is still on its way: a new socket forgets it. */
	if (r == -EINTR) {
		asker_done(asker);
		int opened = asker_init(asker);

		if (opened < 0)
			return opened;
	}
	return r;
}
