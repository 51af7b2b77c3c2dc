#include "base/systemd.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_DESCRIPTOR = 3 /* SD_LISTEN_FDS_START */ };

static int manager_address(struct sockaddr_un *ret_address, socklen_t *ret_len)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;

	if (!len || len >= sizeof(ret_address->sun_path))
		return -ENOENT;
	*ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(ret_address->sun_path, path, len);
	if (ret_address->sun_path[0] == '@')
		ret_address->sun_path[0] = '\0';
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	return 0;
}

static int send_state(const char *state, int passed, struct sockaddr_un *to, socklen_t len)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	struct iovec io = {(void *)state, strlen(state)};
	struct msghdr message = {
		.msg_name = to, .msg_namelen = len, .msg_iov = &io, .msg_iovlen = 1};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	if (passed >= 0) {
		control.align = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
						 .cmsg_type = SCM_RIGHTS,
						 .cmsg_len = CMSG_LEN(sizeof(int))};
		memcpy(CMSG_DATA(&control.align), &passed, sizeof(passed));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
	}
	r = sendmsg(fd, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
	close(fd);
	return r;
}

bool systemd_is_there(void)
{
	struct sockaddr_un address;
	socklen_t len;

	return manager_address(&address, &len) == 0;
}

void systemd_notify(const char *state, int fd)
{
	struct sockaddr_un address;
	socklen_t len;
	int r;

	if (manager_address(&address, &len) < 0)
		return;
	r = send_state(state, fd, &address, len);
	if (r < 0)
		log_warning("systemd", "it could not be told: %s", strerror(-r));
}

void systemd_keep(const char *name, int fd)
{
	char state[32 + SYSTEMD_NAME_MAX];

	snprintf(state, sizeof(state), "FDSTORE=1\nFDNAME=%s", name);
	systemd_notify(state, fd);
}

void systemd_forget(const char *name)
{
	char state[32 + SYSTEMD_NAME_MAX];

	snprintf(state, sizeof(state), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	systemd_notify(state, -1);
}

static size_t number_in(const char *variable)
{
	const char *text = getenv(variable);
	char *end;
	unsigned long number = text ? strtoul(text, &end, 10) : 0;

	return text && *text && !*end ? number : 0;
}

size_t systemd_received(struct systemd_descriptor *ret_descriptors, size_t max)
{
	const char *names = getenv("LISTEN_FDNAMES");
	size_t count = number_in("LISTEN_FDS"), kept = 0;

	if (number_in("LISTEN_PID") != (size_t)getpid())
		count = 0;
	for (size_t i = 0; i < count && kept < max; i++) {
		size_t len = names ? strcspn(names, ":") : 0;
		int fd = FIRST_DESCRIPTOR + (int)i;

		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			break;
		ret_descriptors[kept].fd = fd;
		snprintf(ret_descriptors[kept++].name, SYSTEMD_NAME_MAX, "%.*s", (int)len,
			 len ? names : "");
		if (names)
			names += names[len] ? len + 1 : len;
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return kept;
}
