#include "resolver/channel.h"

#include <ares.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <utlist.h>

enum { SERVERS_MAX = 8 };

struct channel;

/* Each server has a c-ares channel of its own, so that it is known who said what, and the order
 * of the configuration holds: c-ares 1.18 tells a refusal by all as no server at all, and when
 * told not to look (NOCHECKRESP) asks no other. */
struct server {
	struct channel *channel;
	struct ip ip;
	ares_channel ares;
};

struct poll {
	uv_poll_t handle;
	struct server *server;
	ares_socket_t fd;
	struct poll *prev, *next;
};

struct ask {
	struct channel *channel;
	channel_cb cb; /* NULL once it was called; c-ares may still know the ask */
	void *arg;
	uint64_t deadline; /* uv_now */
	bool starting;	   /* inside ares_send */
	bool over;	   /* c-ares has let go of it while starting: the timer delivers */
	int status;	   /* the most telling so far */
	size_t server;	   /* that is asked */
	size_t attempts;   /* left */
	uint8_t message[DNS_UDP_SIZE];
	size_t message_len;
	struct ask *prev, *next;
};

struct channel {
	uv_loop_t *loop;
	struct link *link;
	uv_timer_t timer;
	struct poll *polls;
	struct ask *asks;
	struct server servers[SERVERS_MAX];
	size_t server_count, preferred; /* the one that answered last */
	unsigned busy;			/* inside c-ares, where it must not be destroyed */
	bool closing;
};

/* --- life --- */

static void on_timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void ask_free(struct ask *ask)
{
	DL_DELETE(ask->channel->asks, ask);
	free(ask);
}

static void channel_destroy(struct channel *channel)
{
	channel->busy++; /* the callbacks below find everything answered and only free */
	for (size_t i = 0; i < channel->server_count; i++)
		ares_destroy(channel->servers[i].ares);
	while (channel->asks) /* that c-ares had let go of before */
		ask_free(channel->asks);
	uv_close((uv_handle_t *)&channel->timer, on_timer_closed);
}

static void channel_leave(struct channel *channel)
{
	if (--channel->busy == 0 && channel->closing)
		channel_destroy(channel);
}

static void ask_answer(struct ask *ask, int status, const uint8_t *reply, size_t len)
{
	channel_cb cb = ask->cb;

	ask->cb = NULL;
	if (cb)
		cb(ask->arg, status, reply, len);
}

void channel_close(struct channel *channel)
{
	struct ask *ask;

	if (!channel || channel->closing)
		return;
	channel->closing = true;
	DL_FOREACH (channel->asks, ask)
		ask_answer(ask, -ECANCELED, NULL, 0);
	if (!channel->busy)
		channel_destroy(channel);
}

/* --- time --- */

/* When c-ares wants to be called next: ms from now. */
static uint64_t ares_wake(struct channel *channel)
{
	uint64_t wake = DNS_ASK_TIMEOUT, left;

	for (size_t i = 0; i < channel->server_count; i++) {
		struct timeval tv, *given = ares_timeout(channel->servers[i].ares, NULL, &tv);

		if (!given)
			continue;
		left = (uint64_t)tv.tv_sec * 1000 + (uint64_t)tv.tv_usec / 1000 + 1;
		if (left < wake)
			wake = left;
	}
	return wake;
}

static uint64_t next_wake(struct channel *channel)
{
	uint64_t now = uv_now(channel->loop), wake = ares_wake(channel);
	struct ask *ask;

	DL_FOREACH (channel->asks, ask) {
		if (ask->over)
			return 0;
		if (!ask->cb)
			continue;
		if (ask->deadline <= now)
			return 0;
		if (ask->deadline - now < wake)
			wake = ask->deadline - now;
	}
	return wake;
}

static void on_timer(uv_timer_t *timer);

static void channel_arm(struct channel *channel)
{
	if (channel->closing)
		return;
	if (!channel->asks)
		uv_timer_stop(&channel->timer);
	else
		uv_timer_start(&channel->timer, on_timer, next_wake(channel), 0);
}

/* One ask that is due, or NULL. Callbacks change the list: it is looked through anew. */
static struct ask *find_due(struct channel *channel)
{
	uint64_t now = uv_now(channel->loop);
	struct ask *ask;

	DL_FOREACH (channel->asks, ask)
		if (ask->over || (ask->cb && ask->deadline <= now))
			return ask;
	return NULL;
}

static void on_timer(uv_timer_t *timer)
{
	struct channel *channel = timer->data;
	struct ask *ask;

	channel->busy++;
	for (size_t i = 0; i < channel->server_count; i++)
		ares_process_fd(channel->servers[i].ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	while ((ask = find_due(channel))) {
		ask_answer(ask, ask->status ? ask->status : -ETIMEDOUT, NULL, 0);
		if (ask->over)
			ask_free(ask);
	}
	channel_arm(channel);
	channel_leave(channel);
}

/* --- sockets --- */

static void on_poll(uv_poll_t *handle, int status, int events)
{
	struct poll *poll = handle->data;
	struct server *server = poll->server;
	struct channel *channel = server->channel;
	ares_socket_t fd = poll->fd;
	bool failed = status < 0;

	channel->busy++;
	ares_process_fd(server->ares, failed || events & UV_READABLE ? fd : ARES_SOCKET_BAD,
			failed || events & UV_WRITABLE ? fd : ARES_SOCKET_BAD);
	channel_arm(channel);
	channel_leave(channel);
}

static void on_poll_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static struct poll *poll_new(struct server *server, ares_socket_t fd)
{
	struct poll *poll = calloc(1, sizeof(*poll));

	if (!poll)
		return NULL;
	if (uv_poll_init(server->channel->loop, &poll->handle, fd) < 0) {
		free(poll);
		return NULL;
	}
	poll->handle.data = poll;
	poll->server = server;
	poll->fd = fd;
	DL_APPEND(server->channel->polls, poll);
	return poll;
}

/* A socket that cannot be watched is no loss but time: its question times out. */
static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct server *server = arg;
	struct channel *channel = server->channel;
	struct poll *poll;

	DL_FOREACH (channel->polls, poll)
		if (poll->fd == fd)
			break;
	if (readable || writable) {
		if (!poll)
			poll = poll_new(server, fd);
		if (poll)
			uv_poll_start(&poll->handle,
				      (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0),
				      on_poll);
	} else if (poll) {
		uv_poll_stop(&poll->handle); /* c-ares closes the descriptor next */
		DL_DELETE(channel->polls, poll);
		uv_close((uv_handle_t *)&poll->handle, on_poll_closed);
	}
}

static int on_socket_made(ares_socket_t fd, int type, void *arg)
{
	struct server *server = arg;

	return link_own_socket(server->channel->link, fd) < 0 ? -1 : 0;
}

/* --- making one --- */

static int status_errno(int status)
{
	switch (status) {
	case ARES_SUCCESS:
		return 0;
	case ARES_ETIMEOUT:
		return -ETIMEDOUT;
	case ARES_ESERVFAIL:
	case ARES_EREFUSED:
	case ARES_ENOTIMP:
	case ARES_EFORMERR:
		return -EREMOTEIO;
	case ARES_ENOMEM:
		return -ENOMEM;
	case ARES_ECANCELLED:
	case ARES_EDESTRUCTION:
		return -ECANCELED;
	default:
		return -ECONNREFUSED;
	}
}

static int set_address(struct server *server)
{
	struct ares_addr_port_node node = {0};
	uint32_t v4;

	if (ip_is_v4(&server->ip)) {
		v4 = ip_v4(&server->ip);
		node.family = AF_INET;
		memcpy(&node.addr.addr4, &v4, sizeof(v4));
	} else {
		node.family = AF_INET6;
		memcpy(&node.addr.addr6, server->ip.bytes, sizeof(server->ip.bytes));
	}
	return status_errno(ares_set_servers_ports(server->ares, &node));
}

/* Every option that c-ares would otherwise look for in files is given. One try: the next is
 * another server's. */
static int server_init(struct server *server)
{
	char lookups[] = "b";
	struct ares_options options = {
		.flags = ARES_FLAG_NOCHECKRESP,
		.timeout = DNS_TRY_TIMEOUT,
		.tries = 1,
		.lookups = lookups,
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = server,
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS |
		   ARES_OPT_LOOKUPS | ARES_OPT_DOMAINS | ARES_OPT_SOCK_STATE_CB;
	int r = status_errno(ares_init_options(&server->ares, &options, mask));

	if (r < 0)
		return r;
	ares_set_socket_configure_callback(server->ares, on_socket_made, server);
	r = set_address(server);
	if (r < 0)
		ares_destroy(server->ares);
	return r;
}

static size_t usable_servers(const struct link *link, struct ip *ret)
{
	const struct ip *servers;
	size_t count = link_dns_servers(link, &servers), kept = 0;

	for (size_t i = 0; i < count && kept < SERVERS_MAX; i++)
		if (link_has_family(link, ip_is_v4(&servers[i]) ? AF_INET : AF_INET6))
			ret[kept++] = servers[i];
	return kept;
}

/* server_count counts those that are ready, and so must be destroyed. */
static int init_servers(struct channel *channel)
{
	struct ip ips[SERVERS_MAX];
	size_t count = usable_servers(channel->link, ips);
	int r = count ? 0 : -ENOTCONN;

	for (size_t i = 0; i < count && r == 0; i++) {
		struct server *server = &channel->servers[i];

		server->channel = channel;
		server->ip = ips[i];
		r = server_init(server);
		if (r == 0)
			channel->server_count++;
	}
	return r;
}

int channel_new(uv_loop_t *loop, struct link *link, struct channel **ret_channel)
{
	struct channel *channel = calloc(1, sizeof(*channel));
	int r;

	if (!channel)
		return -ENOMEM;
	channel->loop = loop;
	channel->link = link;
	uv_timer_init(loop, &channel->timer);
	channel->timer.data = channel;
	r = init_servers(channel);
	if (r < 0) {
		channel_close(channel);
		return r;
	}
	*ret_channel = channel;
	return 0;
}

bool channel_is_current(const struct channel *channel)
{
	struct ip ips[SERVERS_MAX];
	size_t count = usable_servers(channel->link, ips);

	if (count != channel->server_count)
		return false;
	for (size_t i = 0; i < count; i++)
		if (!ip_equal(&ips[i], &channel->servers[i].ip))
			return false;
	return true;
}

/* --- asking --- */

static void on_reply(void *arg, int status, int timeouts, unsigned char *reply, int len);

/* Send to the next server, and on to others while c-ares cannot even send. What is over is told
 * by the timer. */
static void ask_send(struct ask *ask)
{
	struct channel *channel = ask->channel;

	do {
		struct server *server = &channel->servers[ask->server];

		ask->over = false;
		ask->attempts--;
		ask->starting = true;
		ares_send(server->ares, ask->message, (int)ask->message_len, on_reply, ask);
		ask->starting = false;
		if (ask->over)
			ask->server = (ask->server + 1) % channel->server_count;
	} while (ask->over && ask->attempts);
}

/* A server that answers, if only that it fails, tells more than one that is silent. */
static void ask_note(struct ask *ask, int status)
{
	if (ask->status != -EREMOTEIO)
		ask->status = status;
}

static bool is_failure(const uint8_t *reply, size_t len)
{
	enum dns_rcode rcode = len >= DNS_HEADER_SIZE ? reply[3] & 0xf : DNS_SERVFAIL;

	return rcode != DNS_NOERROR && rcode != DNS_NXDOMAIN;
}

static void on_reply(void *arg, int status, int timeouts, unsigned char *reply, int len)
{
	struct ask *ask = arg;
	struct channel *channel = ask->channel;
	int r = status_errno(status);

	if (r == 0 && is_failure(reply, (size_t)len))
		r = -EREMOTEIO;
	if (r < 0)
		ask_note(ask, r);
	if (ask->starting) {
		ask->over = true;
		return;
	}
	if (r == 0) {
		channel->preferred = ask->server;
		ask_answer(ask, 0, reply, (size_t)len);
	} else if (ask->cb && ask->attempts && r != -ECANCELED) {
		ask->server = (ask->server + 1) % channel->server_count;
		ask_send(ask);
		return;
	} else {
		ask_answer(ask, ask->status, NULL, 0);
	}
	ask_free(ask);
}

static uint16_t random_id(void)
{
	uint16_t id;

	if (getrandom(&id, sizeof(id), GRND_NONBLOCK) != sizeof(id))
		id = (uint16_t)(uv_hrtime() ^ uv_hrtime() >> 16);
	return id;
}

int channel_ask(struct channel *channel, const struct dns_name *name, uint16_t type,
		uint64_t timeout, channel_cb cb, void *arg)
{
	struct ask *ask;

	if (channel->closing)
		return -ECANCELED;
	ask = calloc(1, sizeof(*ask));
	if (!ask)
		return -ENOMEM;
	ask->message_len =
		dns_question_write(ask->message, sizeof(ask->message), random_id(), name, type);
	ask->server = channel->preferred;
	ask->attempts = DNS_TRIES * channel->server_count;
	ask->channel = channel;
	ask->cb = cb;
	ask->arg = arg;
	uv_update_time(channel->loop);
	ask->deadline = uv_now(channel->loop) + timeout;
	DL_APPEND(channel->asks, ask);
	channel->busy++;
	ask_send(ask);
	channel_arm(channel);
	channel_leave(channel);
	return 0;
}
