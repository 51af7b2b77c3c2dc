#include "resolver/channel.h"

#include <ares.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <utlist.h>

enum { SERVERS_MAX = 8 };

struct poll {
	uv_poll_t handle;
	struct channel *channel;
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
	int status;
	size_t retries; /* with other servers, when one answers that it fails */
	uint8_t message[DNS_UDP_SIZE];
	size_t message_len;
	struct ask *prev, *next;
};

struct channel {
	uv_loop_t *loop;
	struct link *link;
	ares_channel ares;
	uv_timer_t timer;
	struct poll *polls;
	struct ask *asks;
	struct ip servers[SERVERS_MAX];
	size_t server_count;
	unsigned busy; /* inside c-ares, where it must not be destroyed */
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
	ares_destroy(channel->ares);
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

static uint64_t next_wake(struct channel *channel)
{
	uint64_t now = uv_now(channel->loop), wake = DNS_ASK_TIMEOUT;
	struct timeval tv, *left = ares_timeout(channel->ares, NULL, &tv);
	struct ask *ask;

	if (left)
		wake = (uint64_t)left->tv_sec * 1000 + (uint64_t)left->tv_usec / 1000 + 1;
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
	ares_process_fd(channel->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	while ((ask = find_due(channel))) {
		ask_answer(ask, ask->over ? ask->status : -ETIMEDOUT, NULL, 0);
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
	struct channel *channel = poll->channel;
	ares_socket_t fd = poll->fd;
	bool failed = status < 0;

	channel->busy++;
	ares_process_fd(channel->ares, failed || events & UV_READABLE ? fd : ARES_SOCKET_BAD,
			failed || events & UV_WRITABLE ? fd : ARES_SOCKET_BAD);
	channel_arm(channel);
	channel_leave(channel);
}

static void on_poll_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static struct poll *poll_new(struct channel *channel, ares_socket_t fd)
{
	struct poll *poll = calloc(1, sizeof(*poll));

	if (!poll)
		return NULL;
	if (uv_poll_init(channel->loop, &poll->handle, fd) < 0) {
		free(poll);
		return NULL;
	}
	poll->handle.data = poll;
	poll->channel = channel;
	poll->fd = fd;
	DL_APPEND(channel->polls, poll);
	return poll;
}

/* A socket that cannot be watched is no loss but time: its question times out. */
static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct channel *channel = arg;
	struct poll *poll;

	DL_FOREACH (channel->polls, poll)
		if (poll->fd == fd)
			break;
	if (readable || writable) {
		if (!poll)
			poll = poll_new(channel, fd);
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
	struct channel *channel = arg;

	return link_own_socket(channel->link, fd) < 0 ? -1 : 0;
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

static int set_servers(struct channel *channel)
{
	struct ares_addr_port_node nodes[SERVERS_MAX] = {0};

	for (size_t i = 0; i < channel->server_count; i++) {
		const struct ip *ip = &channel->servers[i];
		uint32_t v4 = ip_is_v4(ip) ? ip_v4(ip) : 0;

		nodes[i].next = i + 1 < channel->server_count ? &nodes[i + 1] : NULL;
		nodes[i].family = ip_is_v4(ip) ? AF_INET : AF_INET6;
		if (ip_is_v4(ip))
			memcpy(&nodes[i].addr.addr4, &v4, sizeof(v4));
		else
			memcpy(&nodes[i].addr.addr6, ip->bytes, sizeof(ip->bytes));
	}
	return status_errno(ares_set_servers_ports(channel->ares, nodes));
}

/* Every option that c-ares would otherwise look for in files is given. A server's refusal is
 * told to us (NOCHECKRESP), since c-ares 1.18 makes the same of it as of no server at all;
 * asking again then goes to the next one (rotate). */
static int init_ares(struct channel *channel)
{
	char lookups[] = "b";
	struct ares_options options = {
		.flags = ARES_FLAG_NOCHECKRESP,
		.timeout = DNS_TRY_TIMEOUT,
		.tries = DNS_TRIES,
		.ndots = 0,
		.lookups = lookups,
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = channel,
	};
	int status = ares_init_options(&channel->ares, &options,
				       ARES_OPT_FLAGS | ARES_OPT_ROTATE | ARES_OPT_TIMEOUTMS |
					       ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_LOOKUPS |
					       ARES_OPT_DOMAINS | ARES_OPT_SOCK_STATE_CB);
	int r;

	if (status != ARES_SUCCESS)
		return status_errno(status);
	ares_set_socket_configure_callback(channel->ares, on_socket_made, channel);
	r = set_servers(channel);
	if (r < 0)
		ares_destroy(channel->ares);
	return r;
}

static size_t copy_servers(const struct link *link, struct ip *ret)
{
	const struct ip *servers;
	size_t count = link_dns_servers(link, &servers), kept = 0;

	for (size_t i = 0; i < count && kept < SERVERS_MAX; i++)
		if (link_has_family(link, ip_is_v4(&servers[i]) ? AF_INET : AF_INET6))
			ret[kept++] = servers[i];
	return kept;
}

int channel_new(uv_loop_t *loop, struct link *link, struct channel **ret_channel)
{
	struct channel *channel = calloc(1, sizeof(*channel));
	int r;

	if (!channel)
		return -ENOMEM;
	channel->loop = loop;
	channel->link = link;
	channel->server_count = copy_servers(link, channel->servers);
	r = channel->server_count ? init_ares(channel) : -ENOTCONN;
	if (r < 0) {
		free(channel);
		return r;
	}
	uv_timer_init(loop, &channel->timer);
	channel->timer.data = channel;
	*ret_channel = channel;
	return 0;
}

bool channel_is_current(const struct channel *channel)
{
	struct ip servers[SERVERS_MAX];
	size_t count = copy_servers(channel->link, servers);

	return count == channel->server_count &&
	       !memcmp(servers, channel->servers, count * sizeof(*servers));
}

/* --- asking --- */

static void on_reply(void *arg, int status, int timeouts, unsigned char *reply, int len);

static void ask_send(struct ask *ask)
{
	ask->starting = true;
	ares_send(ask->channel->ares, ask->message, (int)ask->message_len, on_reply, ask);
	ask->starting = false;
}

static bool is_failure(const uint8_t *reply, size_t len)
{
	enum dns_rcode rcode = len >= DNS_HEADER_SIZE ? reply[3] & 0xf : DNS_SERVFAIL;

	return rcode != DNS_NOERROR && rcode != DNS_NXDOMAIN;
}

static void on_reply(void *arg, int status, int timeouts, unsigned char *reply, int len)
{
	struct ask *ask = arg;
	int r = status_errno(status);

	if (ask->starting) {
		ask->over = true;
		ask->status = r;
		return;
	}
	if (r == 0 && is_failure(reply, (size_t)len)) {
		if (ask->cb && ask->retries) {
			ask->retries--;
			ask_send(ask);
			return;
		}
		r = -EREMOTEIO;
	}
	ask_answer(ask, r, r == 0 ? reply : NULL, r == 0 ? (size_t)len : 0);
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
	ask->retries = channel->server_count - 1;
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
