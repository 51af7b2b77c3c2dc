/*
 * Who may do what. Apps at holdfast.internal see little and only their own exchanges; the
 * configured listeners read openly on loopback and local sockets, and change with the token
 * when there is one. Host and Origin keep pages of elsewhere out (DNS rebinding, CSRF).
 */
#include "internal.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static bool local_address(struct call *call, struct ip *ret_ip, uint16_t *ret_port)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	if (!info || getsockname(info->connect_fd, (struct sockaddr *)&sa, &len) < 0)
		return false;
	*ret_ip = ip_from_sockaddr((struct sockaddr *)&sa, ret_port);
	return true;
}

/* The host of "host", "host:port", "[v6]:port". */
static bool split_host(const char *value, char *host, size_t size)
{
	const char *end;

	if (value[0] == '[') {
		end = strchr(++value, ']');
		if (!end || (end[1] && end[1] != ':'))
			return false;
	} else {
		end = value + strcspn(value, ":");
	}
	if (end == value || (size_t)(end - value) >= size)
		return false;
	memcpy(host, value, (size_t)(end - value));
	host[end - value] = '\0';
	return true;
}

static bool host_is_ours(struct call *call, const char *value)
{
	char host[64];
	struct ip ip, local;
	uint16_t port;

	if (!split_host(value, host, sizeof(host)))
		return false;
	if (strcasecmp(host, "localhost") == 0 || strcasecmp(host, "holdfast.internal") == 0)
		return true;
	if (ip_parse(host, &ip) < 0)
		return false;
	return ip_is_loopback(&ip) || (local_address(call, &local, &port) && ip_equal(&ip, &local));
}

bool access_check_host(struct call *call)
{
	const char *host = call_header(call, "Host"), *origin = call_header(call, "Origin");

	if (call->listener->kind != LISTENER_UNIX) {
		if (!host) {
			call_problem(call, 400, "Host", "the Host header is missing");
			return false;
		}
		if (!host_is_ours(call, host)) {
			call_problem(call, 421, "Host",
				     "%.80s is not this device: use its address, localhost or "
				     "holdfast.internal",
				     host);
			return false;
		}
	}
	if (origin && (!host || strncasecmp(origin, "http://", 7) != 0 ||
		       strcasecmp(origin + 7, host) != 0)) {
		call_problem(call, 403, "Origin", "a page of another origin may not use this API");
		return false;
	}
	return true;
}

/* 0 and the token without the line end; -1: not readable, empty or too long. */
static int read_token(const char *path, char *token, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, token, size - 1);
	close(fd);
	while (n > 0 && strchr(" \t\r\n", token[n - 1]))
		n--;
	if (n <= 0 || (size_t)n == size - 1)
		return -1;
	token[n] = '\0';
	return 0;
}

static bool check_token(struct call *call, const char *path)
{
	const char *header = call_header(call, "Authorization");
	char token[API_TOKEN_MAX];
	size_t len;
	bool good;

	if (read_token(path, token, sizeof(token)) < 0) {
		call_problem(call, 403, NULL, "api.token_file cannot be read, so nobody may");
		return false;
	}
	len = strlen(token);
	good = header && strncasecmp(header, "Bearer ", 7) == 0 && strlen(header + 7) == len &&
	       CRYPTO_memcmp(header + 7, token, len) == 0;
	OPENSSL_cleanse(token, sizeof(token));
	if (!good) {
		call_problem(call, 401, "Authorization",
			     "this needs the token of api.token_file: Authorization: Bearer TOKEN");
		call_add_header(call, "WWW-Authenticate", "Bearer realm=\"holdfast\"");
	}
	return good;
}

bool access_check_route(struct call *call)
{
	const char *token_file = daemon_config(call->api->daemon)->api.token_file;
	const struct listener *listener = call->listener;
	bool local = listener->kind == LISTENER_UNIX || ip_is_loopback(&listener->ip);

	if (listener->kind == LISTENER_APPS) {
		if (!call->route->apps)
			call_problem(call, 403, NULL, "apps may not use this");
		return call->route->apps;
	}
	if (call->route->access == ROUTE_OPEN || (call->route->access == ROUTE_READ && local))
		return true;
	if (token_file)
		return check_token(call, token_file);
	if (local)
		return true;
	call_problem(call, 403, NULL,
		     "on this listener, which is neither loopback nor a local socket, this needs "
		     "api.token_file to be set");
	return false;
}

static bool remote_address(struct call *call, struct ip *ret_ip, uint16_t *ret_port)
{
	const union MHD_ConnectionInfo *info = NULL;

	if (call->listener->kind != LISTENER_UNIX)
		info = MHD_get_connection_info(call->connection,
					       MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	if (!info || !info->client_addr)
		return false;
	*ret_ip = ip_from_sockaddr(info->client_addr, ret_port);
	return true;
}

void access_find_source(struct call *call)
{
	struct ip ip = ip_from_v4(htonl(INADDR_LOOPBACK)); /* a local socket: the host itself */
	uint16_t port;

	remote_address(call, &ip, &port);
	daemon_source_of(call->api->daemon, &ip, call->source, sizeof(call->source));
}

void access_find_caller(struct call *call, struct daemon_caller *ret_caller)
{
	struct daemon_caller caller = {.tcp = false};

	caller.tcp = remote_address(call, &caller.remote, &caller.remote_port) &&
		     local_address(call, &caller.local, &caller.local_port);
	*ret_caller = caller;
}
