#include "base/log.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* MHD may need time without a byte on the wire: its own timeouts, or data it has buffered. */
static void listener_run(struct listener *listener);

static void on_timer(uv_timer_t *timer)
{
	listener_run(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	listener_run(poll->data);
}

static void listener_run(struct listener *listener)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	if (listener->closing)
		return;
	MHD_run(listener->mhd);
	if (MHD_get_timeout(listener->mhd, &timeout) == MHD_YES)
		uv_timer_start(&listener->timer, on_timer, timeout, 0);
	else
		uv_timer_stop(&listener->timer);
}

void api_listener_wake(struct listener *listener)
{
	if (!listener->closing)
		uv_timer_start(&listener->timer, on_timer, 0, 0);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct listener *listener = handle->data;
	struct api *api = listener->api;

	if (--listener->handles > 0)
		return;
	free(listener);
	api_unhold(api);
}

void api_listener_close(struct listener *listener)
{
	MHD_socket fd;

	if (listener->closing)
		return;
	/* Deliver what was answered last, then let go: MHD closes what is left. */
	MHD_run(listener->mhd);
	listener->closing = true;
	fd = MHD_quiesce_daemon(listener->mhd);
	uv_poll_stop(&listener->poll);
	MHD_stop_daemon(listener->mhd);
	if (fd != MHD_INVALID_SOCKET)
		close(fd);
	if (listener->path[0])
		unlink(listener->path);
	uv_close((uv_handle_t *)&listener->poll, on_handle_closed);
	uv_close((uv_handle_t *)&listener->timer, on_handle_closed);
}

static void on_mhd_log(void *arg, const char *format, va_list args)
{
	char line[256];

	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	log_debug("api", "%s", line);
}

/* Takes fd, also on failure. */
static int listener_start(struct api *api, struct listener *listener, int fd)
{
	const union MHD_DaemonInfo *info;
	int r = -ENOMEM;

	if (api->listener_count == API_LISTENERS_MAX) {
		r = -ENOSPC;
		goto close_fd;
	}
	listener->api = api;
	listener->mhd = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
		call_handle, listener, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED,
		call_completed, listener, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned)API_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)API_CONNECTION_TIMEOUT, MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL, MHD_OPTION_END);
	if (!listener->mhd)
		goto close_fd;
	info = MHD_get_daemon_info(listener->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		goto stop;
	r = uv_poll_init(api->loop, &listener->poll, info->epoll_fd);
	if (r < 0)
		goto stop;
	uv_timer_init(api->loop, &listener->timer);
	listener->poll.data = listener->timer.data = listener;
	listener->handles = 2;
	api->open++;
	api->listeners[api->listener_count++] = listener;
	return uv_poll_start(&listener->poll, UV_READABLE, on_poll);

stop:
	MHD_stop_daemon(listener->mhd); /* and closes fd */
	free(listener);
	return r;
close_fd:
	close(fd);
	free(listener);
	return r;
}

static int set_error(char *error, size_t size, int r, const char *text, const char *what)
{
	snprintf(error, size, "API listener %s: %s: %s", text, what, strerror(-r));
	return r;
}

/* "192.0.2.1:80", "[::1]:80" */
static int parse_address(const char *text, struct ip *ret_ip, uint16_t *ret_port)
{
	char host[IP_TEXT_MAX + 1], *end;
	const char *colon = strrchr(text, ':');
	unsigned long port;
	size_t len;

	if (!colon || !colon[1])
		return -EINVAL;
	port = strtoul(colon + 1, &end, 10);
	if (*end || port > 65535)
		return -EINVAL;
	len = (size_t)(colon - text);
	if (text[0] == '[') {
		if (len < 3 || text[len - 1] != ']')
			return -EINVAL;
		text++;
		len -= 2;
	}
	if (len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	*ret_port = (uint16_t)port;
	return ip_parse(strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, ret_ip);
}

static int open_tcp(struct listener *listener, const char *text, const char **ret_step)
{
	struct sockaddr_storage sa;
	socklen_t len;
	int fd, on = 1, r;

	*ret_step = "an address is IP:PORT or [IPV6]:PORT";
	r = parse_address(text, &listener->ip, &listener->port);
	if (r < 0)
		return r;
	len = ip_to_sockaddr(&listener->ip, listener->port, &sa);
	*ret_step = "bind";
	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, 128) < 0)
		goto fail;
	len = sizeof(sa);
	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		goto fail;
	ip_from_sockaddr((struct sockaddr *)&sa, &listener->port);
	return fd;

fail:
	r = -errno;
	close(fd);
	return r;
}

/* A socket that a crash left behind is in the way; one that somebody serves is not ours. */
static int remove_stale(const struct sockaddr_un *sa)
{
	struct stat st;
	int fd, r;

	if (lstat(sa->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 ? -errno : 0;
	close(fd);
	if (r != -ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(sa->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int make_parents(const char *path)
{
	char folder[108];

	snprintf(folder, sizeof(folder), "%s", path);
	for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(folder, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return 0;
}

static int open_unix(struct listener *listener, const char *path, const char **ret_step)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd, r;

	*ret_step = "path";
	if (path[0] != '/' || strlen(path) >= sizeof(sa.sun_path))
		return -EINVAL;
	strcpy(sa.sun_path, path);
	*ret_step = "make its folder";
	r = make_parents(path);
	if (r < 0)
		return r;
	*ret_step = "something is there";
	r = remove_stale(&sa);
	if (r < 0)
		return r;
	*ret_step = "bind";
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Nobody can connect between bind and listen, so the mode is never wider than meant. */
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || chmod(path, 0660) < 0 ||
	    listen(fd, 128) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	strcpy(listener->path, path);
	return fd;
}

int api_listener_open(struct api *api, const char *text, char *ret_error, size_t error_size)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	const char *step = "memory";
	int fd, r;

	if (!listener)
		return set_error(ret_error, error_size, -ENOMEM, text, step);
	if (strncmp(text, "unix:", 5) == 0) {
		listener->kind = LISTENER_UNIX;
		fd = open_unix(listener, text + 5, &step);
	} else {
		listener->kind = LISTENER_TCP;
		fd = open_tcp(listener, text, &step);
	}
	if (fd < 0) {
		free(listener);
		return set_error(ret_error, error_size, fd, text, step);
	}
	r = listener_start(api, listener, fd);
	return r < 0 ? set_error(ret_error, error_size, r, text, "start") : 0;
}

int api_listener_open_apps(struct api *api, int fd, char *ret_error, size_t error_size)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int copy, r;

	if (!listener)
		return set_error(ret_error, error_size, -ENOMEM, "holdfast.internal", "memory");
	listener->kind = LISTENER_APPS;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0 || getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
		r = -errno;
		if (copy >= 0)
			close(copy);
		free(listener);
		return set_error(ret_error, error_size, r, "holdfast.internal", "socket");
	}
	listener->ip = ip_from_sockaddr((struct sockaddr *)&sa, &listener->port);
	fcntl(copy, F_SETFL, fcntl(copy, F_GETFL) | O_NONBLOCK);
	r = listener_start(api, listener, copy);
	return r < 0 ? set_error(ret_error, error_size, r, "holdfast.internal", "start") : 0;
}
