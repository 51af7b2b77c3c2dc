#include "resolver/listener.h"

#include "base/buf.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

enum { DNS_PORT = 53, FAMILIES = 2, LENGTH_SIZE = 2, READ_CHUNK = 4096, READS_AT_ONCE = 64 };

struct family {
	struct listener *listener;
	int fd; /* UDP; -1: not open */
	uv_poll_t udp;
	uv_tcp_t tcp;
};

struct listener {
	uv_loop_t *loop;
	struct steer *steer;
	listener_cb cb;
	void *arg;
	struct family families[FAMILIES]; /* IPv4, IPv6 */
	struct client *clients;
	size_t client_count;
	unsigned handles; /* not yet closed: the last frees */
	bool closing;
};

struct client {
	uv_tcp_t tcp;
	uv_timer_t idle;
	struct listener *listener;
	struct ip source;
	struct buf in;
	uint8_t chunk[READ_CHUNK];
	unsigned refs;	  /* two handles, and each message without its reply */
	unsigned waiting; /* such messages */
	bool paused, closing, parsing;
	struct client *prev, *next;
};

struct reply {
	uv_write_t request;
	struct client *client;
	uint8_t data[];
};

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* Not from an app. What the device asks at a link's address goes over lo, but is told as if it
 * came in over the link. */
static bool is_from_link(const struct listener *listener, int ifindex, const struct ip *source)
{
	return steer_is_link_interface(listener->steer, ifindex) &&
	       !steer_is_device_address(listener->steer, source);
}

/* --- life --- */

static void on_closed(uv_handle_t *handle)
{
	struct listener *listener = handle->data;

	if (--listener->handles == 0)
		free(listener);
}

static void handle_opened(struct listener *listener, uv_handle_t *handle)
{
	handle->data = listener;
	listener->handles++;
}

static void client_close(struct client *client);

void listener_close(struct listener *listener)
{
	if (!listener || listener->closing)
		return;
	listener->closing = true;
	while (listener->clients)
		client_close(listener->clients);
	for (int i = 0; i < FAMILIES; i++) {
		struct family *family = &listener->families[i];

		if (family->udp.data) {
			uv_poll_stop(&family->udp);
			uv_close((uv_handle_t *)&family->udp, on_closed);
		}
		if (family->fd >= 0)
			close(family->fd);
		if (family->tcp.data)
			uv_close((uv_handle_t *)&family->tcp, on_closed);
	}
	if (--listener->handles == 0) /* the owner's */
		free(listener);
}

/* --- TCP clients --- */

static void client_unref(struct client *client)
{
	if (--client->refs)
		return;
	buf_done(&client->in);
	free(client);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *client = handle->data;
	struct listener *listener = client->listener;

	client_unref(client);
	if (--listener->handles == 0)
		free(listener);
}

static void client_close(struct client *client)
{
	if (client->closing)
		return;
	client->closing = true;
	DL_DELETE(client->listener->clients, client);
	client->listener->client_count--;
	uv_close((uv_handle_t *)&client->tcp, on_client_closed);
	uv_close((uv_handle_t *)&client->idle, on_client_closed);
}

static void on_idle(uv_timer_t *timer)
{
	client_close(timer->data);
}

static void client_touch(struct client *client)
{
	uv_timer_start(&client->idle, on_idle, DNS_TCP_IDLE, 0);
}

static void client_message(struct client *client, size_t len)
{
	struct listener *listener = client->listener;
	struct origin origin = {.source = client->source, .client = client};
	uint8_t message[DNS_MESSAGE_MAX];

	/* A copy, since the reply may come at once and the buffer move. */
	memcpy(message, buf_bytes(&client->in) + LENGTH_SIZE, len);
	buf_consume(&client->in, LENGTH_SIZE + len);
	client->refs++;
	client->waiting++;
	listener->cb(listener->arg, &origin, message, len);
}

static void client_read_start(struct client *client);

/* Hand over the whole messages, as many as may wait at once. Not entered twice: a reply that
 * is given at once comes back here. */
static void client_parse(struct client *client)
{
	if (client->parsing)
		return;
	client->parsing = true;
	client->refs++;
	while (!client->closing && client->waiting < DNS_TCP_PIPELINE &&
	       buf_len(&client->in) >= LENGTH_SIZE) {
		const uint8_t *bytes = buf_bytes(&client->in);
		size_t len = (size_t)(bytes[0] << 8 | bytes[1]);

		if (len > DNS_MESSAGE_MAX)
			client_close(client);
		else if (buf_len(&client->in) < LENGTH_SIZE + len)
			break;
		else
			client_message(client, len);
	}
	client->parsing = false;
	if (!client->closing && client->waiting >= DNS_TCP_PIPELINE && !client->paused) {
		uv_read_stop((uv_stream_t *)&client->tcp);
		client->paused = true;
	} else if (!client->closing && client->waiting < DNS_TCP_PIPELINE && client->paused) {
		client_read_start(client);
	}
	client_unref(client);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct client *client = handle->data;

	*buffer = uv_buf_init((char *)client->chunk, sizeof(client->chunk));
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buffer)
{
	struct client *client = stream->data;

	if (len < 0 || (len > 0 && buf_append(&client->in, buffer->base, (size_t)len) < 0)) {
		client_close(client);
		return;
	}
	client_touch(client);
	client_parse(client);
}

static void client_read_start(struct client *client)
{
	client->paused = false;
	if (uv_read_start((uv_stream_t *)&client->tcp, on_alloc, on_read) < 0)
		client_close(client);
}

static struct client *client_new(struct listener *listener)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client)
		return NULL;
	client->listener = listener;
	client->refs = 2;
	buf_init(&client->in, LENGTH_SIZE + DNS_MESSAGE_MAX + READ_CHUNK);
	uv_tcp_init(listener->loop, &client->tcp);
	uv_timer_init(listener->loop, &client->idle);
	client->tcp.data = client;
	client->idle.data = client;
	listener->handles += 2;
	DL_APPEND(listener->clients, client);
	listener->client_count++;
	return client;
}

/* The interface that a connection came in by, which the kernel kept from its handshake and
 * tells where a datagram's would be told. 0: it does not say. */
static int client_interface(int fd, int family)
{
	bool v4 = family == AF_INET;
	int level = v4 ? IPPROTO_IP : IPPROTO_IPV6, on = 1;
	union control control = {0};
	socklen_t len = sizeof(control);
	struct in_pktinfo info4;
	struct in6_pktinfo info6;

	if (setsockopt(fd, level, v4 ? IP_PKTINFO : IPV6_RECVPKTINFO, &on, sizeof(on)) < 0 ||
	    getsockopt(fd, level, v4 ? IP_PKTOPTIONS : IPV6_2292PKTOPTIONS, &control, &len) < 0)
		return 0;
	if (v4 && len >= CMSG_LEN(sizeof(info4)) && control.header.cmsg_type == IP_PKTINFO) {
		memcpy(&info4, CMSG_DATA(&control.header), sizeof(info4));
		return info4.ipi_ifindex;
	}
	if (!v4 && len >= CMSG_LEN(sizeof(info6)) && control.header.cmsg_type == IPV6_PKTINFO) {
		memcpy(&info6, CMSG_DATA(&control.header), sizeof(info6));
		return (int)info6.ipi6_ifindex;
	}
	return 0;
}

/* The mark keeps the answers on the main table, whatever the daemon's other rules say. */
static int client_start(struct client *client)
{
	struct sockaddr_storage peer;
	uint16_t port;
	int len = sizeof(peer), fd;
	int r = uv_tcp_getpeername(&client->tcp, (struct sockaddr *)&peer, &len);

	if (r == 0)
		r = uv_fileno((uv_handle_t *)&client->tcp, &fd);
	if (r == 0)
		r = steer_own_socket(client->listener->steer, fd, 0);
	if (r < 0)
		return r;
	client->source = ip_from_sockaddr((struct sockaddr *)&peer, &port);
	if (is_from_link(client->listener, client_interface(fd, peer.ss_family), &client->source))
		return -EACCES;
	return 0;
}

static void on_connection(uv_stream_t *server, int status)
{
	struct listener *listener = server->data;
	struct client *client;

	if (status < 0 || listener->closing)
		return;
	client = client_new(listener);
	if (!client)
		return;
	if (uv_accept(server, (uv_stream_t *)&client->tcp) < 0 || client_start(client) < 0 ||
	    listener->client_count > DNS_TCP_CLIENTS_MAX) {
		client_close(client);
		return;
	}
	client_touch(client);
	client_read_start(client);
}

static void on_written(uv_write_t *request, int status)
{
	struct reply *reply = (struct reply *)request;
	struct client *client = reply->client;

	free(reply);
	if (status < 0)
		client_close(client);
	client->waiting--;
	client_parse(client);
	client_unref(client);
}

static void client_reply(struct client *client, const uint8_t *data, size_t len)
{
	struct reply *reply =
		len && !client->closing ? malloc(sizeof(*reply) + LENGTH_SIZE + len) : NULL;
	uv_buf_t buffer;

	if (!reply)
		goto gone;
	reply->client = client;
	reply->data[0] = (uint8_t)(len >> 8);
	reply->data[1] = (uint8_t)len;
	memcpy(reply->data + LENGTH_SIZE, data, len);
	buffer = uv_buf_init((char *)reply->data, (unsigned)(LENGTH_SIZE + len));
	client_touch(client);
	if (uv_write(&reply->request, (uv_stream_t *)&client->tcp, &buffer, 1, on_written) == 0)
		return; /* the message's reference goes with the write */
	free(reply);
gone:
	client->waiting--;
	if (!client->closing)
		client_parse(client);
	client_unref(client);
}

/* --- UDP --- */

/* The address that was asked. sk_lookup leaves it as the app wrote it. */
static bool read_local(struct listener *listener, struct msghdr *message, struct origin *origin)
{
	struct cmsghdr *c;
	struct in_pktinfo v4;
	struct in6_pktinfo v6;

	for (c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			memcpy(&v4, CMSG_DATA(c), sizeof(v4));
			origin->local = ip_from_v4(v4.ipi_addr.s_addr);
			origin->from_link = is_from_link(listener, v4.ipi_ifindex, &origin->source);
			return true;
		}
		if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			memcpy(&v6, CMSG_DATA(c), sizeof(v6));
			origin->local = ip_from_v6(&v6.ipi6_addr);
			origin->from_link =
				is_from_link(listener, (int)v6.ipi6_ifindex, &origin->source);
			if (ip_is_link_local(&origin->local))
				origin->interface = (int)v6.ipi6_ifindex;
			return true;
		}
	}
	return false;
}

static bool udp_receive(struct family *family)
{
	struct listener *listener = family->listener;
	uint8_t data[DNS_MESSAGE_MAX];
	union control control;
	uint16_t port;
	struct origin origin = {0};
	struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
	struct msghdr message = {
		.msg_name = &origin.peer,
		.msg_namelen = sizeof(origin.peer),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(family->fd, &message, 0);

	if (n < 0)
		return errno == EINTR;
	origin.source = ip_from_sockaddr((struct sockaddr *)&origin.peer, &port);
	if (!read_local(listener, &message, &origin) || message.msg_flags & MSG_TRUNC)
		return true;
	listener->cb(listener->arg, &origin, data, (size_t)n);
	return true;
}

static void on_readable(uv_poll_t *handle, int status, int events)
{
	struct listener *listener = handle->data;
	struct family *family = &listener->families[handle == &listener->families[1].udp];

	for (int i = 0; i < READS_AT_ONCE && !listener->closing; i++)
		if (!udp_receive(family))
			break;
}

static void fill_control(struct msghdr *message, const struct origin *origin)
{
	struct cmsghdr *c = message->msg_control;
	struct in_pktinfo v4 = {0};
	struct in6_pktinfo v6 = {.ipi6_ifindex = (unsigned)origin->interface};

	if (ip_is_v4(&origin->local)) {
		v4.ipi_spec_dst.s_addr = ip_v4(&origin->local);
		c->cmsg_level = IPPROTO_IP;
		c->cmsg_type = IP_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof(v4));
		memcpy(CMSG_DATA(c), &v4, sizeof(v4));
		message->msg_controllen = CMSG_SPACE(sizeof(v4));
	} else {
		memcpy(&v6.ipi6_addr, origin->local.bytes, sizeof(v6.ipi6_addr));
		c->cmsg_level = IPPROTO_IPV6;
		c->cmsg_type = IPV6_PKTINFO;
		c->cmsg_len = CMSG_LEN(sizeof(v6));
		memcpy(CMSG_DATA(c), &v6, sizeof(v6));
		message->msg_controllen = CMSG_SPACE(sizeof(v6));
	}
}

static void udp_reply(struct listener *listener, const struct origin *origin, const uint8_t *data,
		      size_t len)
{
	struct family *family = &listener->families[!ip_is_v4(&origin->local)];
	union control control = {0};
	struct sockaddr_storage peer = origin->peer;
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct msghdr message = {
		.msg_name = &peer,
		.msg_namelen = peer.ss_family == AF_INET ? sizeof(struct sockaddr_in)
							 : sizeof(struct sockaddr_in6),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
	};

	fill_control(&message, origin);
	if (sendmsg(family->fd, &message, MSG_DONTWAIT) < 0)
		log_debug("resolver", "a reply was not sent: %s", strerror(errno));
}

void listener_reply(struct listener *listener, const struct origin *origin, const uint8_t *reply,
		    size_t len)
{
	if (origin->client)
		client_reply(origin->client, reply, len);
	else if (len && !listener->closing)
		udp_reply(listener, origin, reply, len);
}

/* --- opening --- */

static int set(int fd, int level, int option)
{
	int on = 1;

	return setsockopt(fd, level, option, &on, sizeof(on)) < 0 ? -errno : 0;
}

static int prepare(int fd, int family)
{
	bool v4 = family == AF_INET;
	int r = set(fd, SOL_SOCKET, SO_REUSEADDR);

	if (r == 0 && !v4)
		r = set(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	if (r == 0)
		r = v4 ? set(fd, IPPROTO_IP, IP_TRANSPARENT)
		       : set(fd, IPPROTO_IPV6, IPV6_TRANSPARENT);
	if (r == 0)
		r = v4 ? set(fd, IPPROTO_IP, IP_FREEBIND) : set(fd, IPPROTO_IPV6, IPV6_FREEBIND);
	if (r == 0)
		r = v4 ? set(fd, IPPROTO_IP, IP_PKTINFO) : set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO);
	return r;
}

/* A bound socket, or negative errno. */
static int open_socket(struct listener *listener, enum hf_socket which, const struct ip *ip,
		       int type)
{
	struct sockaddr_storage sa;
	socklen_t len = ip_to_sockaddr(ip, DNS_PORT, &sa);
	int fd, r;

	if (steer_take_listener(listener->steer, which, ip, DNS_PORT, &fd) == 0)
		return fd;
	fd = socket(sa.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = prepare(fd, sa.ss_family);
	if (r == 0)
		r = steer_own_socket(listener->steer, fd, 0);
	if (r == 0 && bind(fd, (struct sockaddr *)&sa, len) < 0)
		r = -errno;
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

static int open_udp(struct family *family, const struct ip *ip)
{
	struct listener *listener = family->listener;
	enum hf_socket which = ip_is_v4(ip) ? HF_SOCKET_DNS_UDP4 : HF_SOCKET_DNS_UDP6;
	int r;

	family->fd = open_socket(listener, which, ip, SOCK_DGRAM);
	if (family->fd < 0)
		return family->fd;
	r = uv_poll_init(listener->loop, &family->udp, family->fd);
	if (r < 0)
		return r;
	handle_opened(listener, (uv_handle_t *)&family->udp);
	r = uv_poll_start(&family->udp, UV_READABLE, on_readable);
	if (r < 0)
		return r;
	return steer_set_listener(listener->steer, which, family->fd);
}

static int open_tcp(struct family *family, const struct ip *ip)
{
	struct listener *listener = family->listener;
	enum hf_socket which = ip_is_v4(ip) ? HF_SOCKET_DNS_TCP4 : HF_SOCKET_DNS_TCP6;
	int fd = open_socket(listener, which, ip, SOCK_STREAM), r;

	if (fd < 0)
		return fd;
	r = uv_tcp_init(listener->loop, &family->tcp);
	if (r < 0) {
		close(fd);
		return r;
	}
	handle_opened(listener, (uv_handle_t *)&family->tcp);
	r = uv_tcp_open(&family->tcp, fd);
	if (r < 0) {
		close(fd);
		return r;
	}
	r = uv_listen((uv_stream_t *)&family->tcp, DNS_TCP_CLIENTS_MAX, on_connection);
	if (r < 0)
		return r;
	return steer_set_listener(listener->steer, which, fd);
}

int listener_new(uv_loop_t *loop, struct steer *steer, const struct ip *v4, const struct ip *v6,
		 listener_cb cb, void *arg, struct listener **ret_listener)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	const struct ip *ips[FAMILIES] = {v4, v6};
	int r = 0;

	if (!listener)
		return -ENOMEM;
	listener->loop = loop;
	listener->steer = steer;
	listener->cb = cb;
	listener->arg = arg;
	listener->handles = 1;
	for (int i = 0; i < FAMILIES; i++) {
		listener->families[i].listener = listener;
		listener->families[i].fd = -1;
	}
	for (int i = 0; i < FAMILIES && r == 0; i++) {
		r = open_udp(&listener->families[i], ips[i]);
		if (r == -EAFNOSUPPORT && i == 1) {
			log_warning("resolver", "this kernel has no IPv6: IPv4 only");
			r = 0;
			break;
		}
		if (r == 0)
			r = open_tcp(&listener->families[i], ips[i]);
	}
	if (r < 0) {
		listener_close(listener);
		return r;
	}
	*ret_listener = listener;
	return 0;
}
