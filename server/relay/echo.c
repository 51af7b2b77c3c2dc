/*
 * Echo requests of apps to real addresses.
 *
 *     app --echo, id of the app--> steer --ring--> echo --link's raw socket, id of ours--> world
 *     app <--from the address that it pinged, its own id-- icmp_fd <-- echo <--reply, or error
 *
 * Each request that is on its way has a number of ours of 32 bits, which goes out as identifier
 * and sequence number: apps that ping one host with one identifier are kept apart. Rules know no
 * protocol for ICMP: one that names a protocol, port, host, method or path does not match.
 */
#define HASH_NONFATAL_OOM 1
#include "relay/internal.h"

#include "base/log.h"

#include <errno.h>
#include <linux/icmp.h>
#include <linux/ip.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { ECHO_HEAD = 8, MESSAGE_MAX = 65536, EXTENSIONS_MAX = 8 };

/* A request that is on its way. */
struct echo {
	uint32_t number;
	struct link *link;
	struct place app;
	struct ip destination;
	uint64_t sent; /* loop ms */
	uint16_t len;  /* behind the IP header */
	struct hop hop;
	uint8_t head[ECHO_HEAD]; /* as the app wrote it */
	TAILQ_ENTRY(echo) next;
	UT_hash_handle hh;
};

struct echo_socket {
	struct relay *relay;
	struct link *link;
	bool v6;
	int fd;
	uv_poll_t poll;
};

struct echoes {
	struct echo *by_number;
	TAILQ_HEAD(, echo) on_the_way; /* oldest first */
	size_t count;
	uint32_t last;
	struct bucket rate;
	struct echo_socket *sockets[LINKS_MAX][FAMILIES];
	uint8_t message[MESSAGE_MAX]; /* one that came in or goes out */
};

/* A request as an app wrote it. */
struct request {
	struct place app;
	struct ip destination;
	struct hop hop;
	const uint8_t *icmp;
	size_t len; /* of icmp */
};

/* --- what is on its way --- */

static struct echo *echo_find(const struct echoes *echoes, uint32_t number)
{
	struct echo *echo;

	HASH_FIND(hh, echoes->by_number, &number, sizeof(number), echo);
	return echo;
}

static void echo_remove(struct echoes *echoes, struct echo *echo)
{
	HASH_DEL(echoes->by_number, echo);
	TAILQ_REMOVE(&echoes->on_the_way, echo, next);
	echoes->count--;
	free(echo);
}

static struct echo *echo_add(struct echoes *echoes, const struct request *request,
			     struct link *link, uint64_t now)
{
	struct echo *echo = calloc(1, sizeof(*echo));

	if (!echo)
		return NULL;
	*echo = (struct echo){
		.number = ++echoes->last,
		.link = link,
		.app = request->app,
		.destination = request->destination,
		.sent = now,
		.len = (uint16_t)request->len,
		.hop = request->hop,
	};
	memcpy(echo->head, request->icmp, sizeof(echo->head));
	HASH_ADD(hh, echoes->by_number, number, sizeof(echo->number), echo);
	if (echo_find(echoes, echo->number) != echo) {
		free(echo);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&echoes->on_the_way, echo, next);
	echoes->count++;
	return echo;
}

static size_t count_of(const struct echoes *echoes, const struct ip *app)
{
	const struct echo *echo;
	size_t count = 0;

	TAILQ_FOREACH (echo, &echoes->on_the_way, next)
		count += ip_equal(&echo->app.ip, app);
	return count;
}

static struct icmp_quote quote_of(const struct place *app, const struct ip *destination,
				  const struct hop *hop, const uint8_t *head, size_t len)
{
	struct icmp_quote quote = {
		.app = *app,
		.destination = *destination,
		.protocol = ip_is_v4(&app->ip) ? IPPROTO_ICMP : IPPROTO_ICMPV6,
		.tos = hop->tos,
		.ttl = hop->ttl,
		.len = (uint16_t)len,
	};

	memcpy(quote.first, head, sizeof(quote.first));
	return quote;
}

/* --- from the world --- */

static uint32_t number_of(const uint8_t *head)
{
	return (uint32_t)head[4] << 24 | (uint32_t)head[5] << 16 | (uint32_t)head[6] << 8 | head[7];
}

static struct echo *echo_of(struct echo_socket *socket, const uint8_t *head,
			    const struct ip *destination)
{
	struct echo *echo = echo_find(socket->relay->echoes, number_of(head));

	if (!echo || echo->link != socket->link || !ip_equal(&echo->destination, destination))
		return NULL;
	return echo;
}

/* The very reply, but for number and checksum; the app's device is one hop further. */
static void give_reply(struct echo_socket *socket, uint8_t *message, size_t len,
		       const struct ip *from, struct hop hop)
{
	struct relay *relay = socket->relay;
	struct echo *echo = echo_of(socket, message, from);
	int r;

	if (!echo)
		return;
	memcpy(message + 4, echo->head + 4, 4);
	if (hop.ttl > 1 && !relay_is_host(relay, &echo->app.ip))
		hop.ttl--;
	r = icmp_send(relay, &echo->app, from, &hop, message, len);
	if (r < 0) {
		relay->statistics.dropped++;
		log_debug("relay", "an echo reply was not sent: %s", strerror(-r));
	} else {
		relay->statistics.echoes_answered++;
	}
	link_count_bytes(socket->link, len, 0);
	echo_remove(relay->echoes, echo);
}

/* inner: the packet that the error quotes, from its IP header on. */
static void give_error(struct echo_socket *socket, struct icmp_error *error, const uint8_t *inner,
		       size_t len)
{
	struct relay *relay = socket->relay;
	size_t head = socket->v6 ? sizeof(struct ip6_hdr) : sizeof(struct iphdr);
	struct icmp_quote quote;
	struct ip destination;
	struct echo *echo;

	if (!socket->v6 && len)
		head = (inner[0] & 15u) * 4u;
	if (head < sizeof(struct iphdr) || len < head + ECHO_HEAD ||
	    inner[socket->v6 ? 6 : 9] != (socket->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) ||
	    inner[head] != (socket->v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO))
		return;
	if (socket->v6) {
		destination = ip_from_v6(inner + 24);
	} else {
		uint32_t v4;

		memcpy(&v4, inner + 16, sizeof(v4));
		destination = ip_from_v4(v4);
	}
	echo = echo_of(socket, inner + head, &destination);
	if (!echo || !icmp_translate(socket->v6, socket->v6, error))
		return;
	quote = quote_of(&echo->app, &echo->destination, &echo->hop, echo->head, echo->len);
	icmp_tell(relay, &quote, error);
	echo_remove(relay->echoes, echo);
}

static void take_message(struct echo_socket *socket, uint8_t *message, size_t len,
			 const struct ip *from, const struct hop *hop)
{
	struct icmp_error error = {.from = from};
	uint32_t info;

	if (len < ECHO_HEAD)
		return;
	if (message[0] == (socket->v6 ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY)) {
		give_reply(socket, message, len, from, *hop);
		return;
	}
	error.type = message[0];
	error.code = message[1];
	memcpy(&info, message + 4, sizeof(info));
	error.info = ntohl(info);
	give_error(socket, &error, message + ECHO_HEAD, len - ECHO_HEAD);
}

/* A raw socket of IPv4 gives the IP header too, one of IPv6 does not. */
static bool receive(struct echo_socket *socket)
{
	uint8_t *bytes = socket->relay->echoes->message;
	struct sockaddr_storage sa = {0};
	union control control;
	struct iovec iov = {.iov_base = bytes, .iov_len = MESSAGE_MAX};
	struct msghdr in = {
		.msg_name = &sa,
		.msg_namelen = sizeof(sa),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(socket->fd, &in, MSG_DONTWAIT);
	struct arrival arrival;
	struct ip from;
	size_t head = 0;

	if (n < 0)
		return errno != EAGAIN && errno != EWOULDBLOCK;
	control_read(&in, &arrival);
	if (!socket->v6 && n >= (ssize_t)sizeof(struct iphdr)) {
		head = (bytes[0] & 15u) * 4u;
		arrival.hop = (struct hop){.tos = bytes[1], .ttl = bytes[8]};
	}
	from = place_from_sockaddr(&sa).ip;
	if ((size_t)n > head)
		take_message(socket, bytes + head, (size_t)n - head, &from, &arrival.hop);
	return true;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct echo_socket *socket = poll->data;

	for (int i = 0; i < RELAY_BATCH && !socket->relay->closing; i++)
		if (!receive(socket))
			break;
	if (status < 0 && !uv_is_closing((uv_handle_t *)poll))
		uv_poll_start(poll, UV_READABLE, on_readable);
}

/* --- the links' sockets --- */

static void on_socket_closed(uv_handle_t *handle)
{
	struct echo_socket *socket = handle->data;
	struct relay *relay = socket->relay;

	close(socket->fd);
	free(socket);
	relay_handle_closed(relay);
}

/* Only what answers a request of ours, or says that it did not arrive. */
static int set_filter(int fd, bool v6)
{
	struct icmp_filter v4 = {.data = ~(1u << ICMP_ECHOREPLY | 1u << ICMP_DEST_UNREACH |
					   1u << ICMP_TIME_EXCEEDED | 1u << ICMP_PARAMETERPROB)};
	struct icmp6_filter filter;

	ICMP6_FILTER_SETBLOCKALL(&filter);
	ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
	ICMP6_FILTER_SETPASS(ICMP6_DST_UNREACH, &filter);
	ICMP6_FILTER_SETPASS(ICMP6_TIME_EXCEEDED, &filter);
	ICMP6_FILTER_SETPASS(ICMP6_PARAM_PROB, &filter);
	if (v6 ? setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof(filter)) < 0
	       : setsockopt(fd, SOL_RAW, ICMP_FILTER, &v4, sizeof(v4)) < 0)
		return -errno;
	return 0;
}

static int prepare(struct link *link, int fd, bool v6)
{
	int on = 1, dont = v6 ? IPV6_PMTUDISC_DONT : IP_PMTUDISC_DONT;
	int r = set_filter(fd, v6);

	if (r == 0)
		r = link_own_socket(link, fd);
	if (r == 0 && v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof(on)) < 0)
		r = -errno;
	if (r == 0 && v6 && setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof(on)) < 0)
		r = -errno;
	if (r == 0 && setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
				 v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, &dont, sizeof(dont)) < 0)
		r = -errno;
	return r;
}

static int open_socket(struct relay *relay, struct link *link, bool v6)
{
	struct echo_socket *made = calloc(1, sizeof(*made));
	int r;

	if (!made)
		return -ENOMEM;
	*made = (struct echo_socket){.relay = relay, .link = link, .v6 = v6};
	made->fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
			  v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	r = made->fd < 0 ? -errno : prepare(link, made->fd, v6);
	if (r == 0)
		r = uv_poll_init(relay->loop, &made->poll, made->fd);
	if (r < 0) {
		if (made->fd >= 0)
			close(made->fd);
		free(made);
		return r;
	}
	made->poll.data = made;
	relay->handles++;
	relay->echoes->sockets[link_number(link) - 1][v6] = made;
	return uv_poll_start(&made->poll, UV_READABLE, on_readable);
}

static void close_sockets(struct relay *relay, size_t link)
{
	for (int i = 0; i < FAMILIES; i++) {
		struct echo_socket *socket = relay->echoes->sockets[link][i];

		if (socket)
			uv_close((uv_handle_t *)&socket->poll, on_socket_closed);
		relay->echoes->sockets[link][i] = NULL;
	}
}

/* --- from apps --- */

static bool read_v4(const struct hf_raised *raised, struct request *request)
{
	struct iphdr ip;
	size_t head;

	if (raised->len < sizeof(ip))
		return false;
	memcpy(&ip, raised->packet, sizeof(ip));
	head = ip.ihl * 4u;
	if (head < sizeof(ip) || ntohs(ip.tot_len) > raised->len ||
	    ntohs(ip.tot_len) < head + ECHO_HEAD || ip.protocol != IPPROTO_ICMP)
		return false;
	request->app.ip = ip_from_v4(ip.saddr);
	request->destination = ip_from_v4(ip.daddr);
	request->hop = (struct hop){.tos = ip.tos, .ttl = ip.ttl};
	request->icmp = raised->packet + head;
	request->len = ntohs(ip.tot_len) - head;
	return request->icmp[0] == ICMP_ECHO;
}

static bool read_v6(const struct hf_raised *raised, struct request *request)
{
	struct ip6_hdr ip;
	size_t at = sizeof(ip), end;
	uint8_t next;

	if (raised->len < sizeof(ip))
		return false;
	memcpy(&ip, raised->packet, sizeof(ip));
	end = at + ntohs(ip.ip6_plen);
	if (end > raised->len)
		return false;
	next = ip.ip6_nxt;
	for (int i = 0; i < EXTENSIONS_MAX && at + 8 <= end &&
			(next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS);
	     i++) {
		next = raised->packet[at];
		at += (raised->packet[at + 1] + 1u) * 8u;
	}
	if (next != IPPROTO_ICMPV6 || at + ECHO_HEAD > end)
		return false;
	request->app.ip = ip_from_v6(&ip.ip6_src);
	if (ip_is_link_local(&request->app.ip))
		request->app.scope = raised->ifindex;
	request->destination = ip_from_v6(&ip.ip6_dst);
	request->hop = (struct hop){.tos = (uint8_t)(ntohl(ip.ip6_flow) >> 20), .ttl = ip.ip6_hlim};
	request->icmp = raised->packet + at;
	request->len = end - at;
	return request->icmp[0] == ICMP6_ECHO_REQUEST;
}

static void refuse(struct relay *relay, const struct request *request, enum refusal refusal)
{
	struct icmp_quote quote = quote_of(&request->app, &request->destination, &request->hop,
					   request->icmp, request->len);

	if (refusal != REFUSAL_HOPS)
		relay->statistics.echoes_refused++;
	icmp_refuse(relay, &quote, refusal);
}

static const struct rule *rule_of(struct relay *relay, const struct request *request)
{
	struct rule_facts facts = {
		.address = request->destination,
		.protocol = PROTOCOL_ANY,
		.source = request->app.ip,
	};

	if (relay->parts.interface_of)
		facts.source_interface =
			relay->parts.interface_of(relay->parts.network_arg, &request->app.ip);
	return config_match(relay->parts.config, &facts);
}

static int send_over(struct relay *relay, struct link *link, const struct request *request,
		     uint32_t number)
{
	struct echoes *echoes = relay->echoes;
	bool v6 = !ip_is_v4(&request->destination);
	struct echo_socket **socket = &echoes->sockets[link_number(link) - 1][v6];
	uint32_t wire = htonl(number);
	uint16_t sum = 0;
	struct sockaddr_storage sa;
	union control control;
	struct iovec iov = {.iov_base = echoes->message, .iov_len = request->len};
	struct msghdr out = {.msg_name = &sa, .msg_iov = &iov, .msg_iovlen = 1};
	int r = *socket ? 0 : open_socket(relay, link, v6);

	if (r < 0)
		return r;
	out.msg_namelen = ip_to_sockaddr(&request->destination, 0, &sa);
	control_write(&out, &control, sa.ss_family, NULL, &request->hop);
	memcpy(echoes->message, request->icmp, request->len);
	memcpy(echoes->message + 4, &wire, sizeof(wire));
	memcpy(echoes->message + 2, &sum, sizeof(sum));
	if (!v6) {
		sum = checksum_fold(checksum_add(0, echoes->message, request->len));
		memcpy(echoes->message + 2, &sum, sizeof(sum));
	}
	return sendmsg((*socket)->fd, &out, MSG_DONTWAIT) < 0 ? -errno : 0;
}

static void send_request(struct relay *relay, const struct request *request,
			 const struct rule *rule)
{
	struct echoes *echoes = relay->echoes;
	int family = ip_is_v4(&request->destination) ? AF_INET : AF_INET6;
	uint32_t tried = 0;
	struct link *link;
	struct echo *echo;

	while ((link = relay_choose(relay, &rule->policy, family, &tried))) {
		echo = echo_add(echoes, request, link, uv_now(relay->loop));
		if (!echo)
			break;
		if (send_over(relay, link, request, echo->number) == 0) {
			relay->statistics.echoes_sent++;
			link_count_bytes(link, 0, request->len);
			return;
		}
		echo_remove(echoes, echo);
	}
	refuse(relay, request, REFUSAL_HOST);
}

/* In all, of one source, a second. */
static bool is_over_bounds(struct relay *relay, const struct request *request)
{
	struct echoes *echoes = relay->echoes;

	return echoes->count >= RELAY_ECHOES_MAX ||
	       count_of(echoes, &request->app.ip) >= RELAY_SOURCE_ECHOES ||
	       !bucket_take(&echoes->rate, uv_now(relay->loop), RELAY_ECHO_RATE);
}

static void on_raised(void *arg, const struct hf_raised *raised)
{
	struct relay *relay = arg;
	struct request request = {0};
	const struct rule *rule;

	if (relay->closing ||
	    !(raised->family == 4 ? read_v4(raised, &request) : read_v6(raised, &request)))
		return;
	if (relay_is_no_destination(relay, &request.destination) ||
	    resolver_is_virtual(relay->parts.resolver, &request.destination)) {
		refuse(relay, &request, REFUSAL_HOST);
		return;
	}
	if (!relay_is_host(relay, &request.app.ip) && request.hop.ttl-- <= 1) {
		request.hop.ttl = 1;
		refuse(relay, &request, REFUSAL_HOPS);
		return;
	}
	rule = rule_of(relay, &request);
	if (rule->policy.action == ACTION_REJECT)
		refuse(relay, &request, REFUSAL_RULE);
	else if (is_over_bounds(relay, &request))
		relay->statistics.dropped++;
	else
		send_request(relay, &request, rule);
}

/* --- life --- */

/* The first number is chance: who does not see the link cannot guess what is on its way. */
int echoes_new(struct relay *relay)
{
	struct echoes *echoes = malloc(sizeof(*echoes));

	if (!echoes)
		return -ENOMEM;
	memset(echoes, 0, offsetof(struct echoes, message));
	TAILQ_INIT(&echoes->on_the_way);
	if (getrandom(&echoes->last, sizeof(echoes->last), GRND_NONBLOCK) < 0)
		echoes->last = (uint32_t)uv_hrtime();
	relay->echoes = echoes;
	steer_on_raised(relay->parts.steer, on_raised, relay);
	return 0;
}

void echoes_close(struct relay *relay)
{
	struct echoes *echoes = relay->echoes;

	if (!echoes)
		return;
	steer_on_raised(relay->parts.steer, NULL, NULL);
	for (size_t i = 0; i < LINKS_MAX; i++)
		close_sockets(relay, i);
	while (!TAILQ_EMPTY(&echoes->on_the_way))
		echo_remove(echoes, TAILQ_FIRST(&echoes->on_the_way));
	free(echoes);
	relay->echoes = NULL;
}

/* Nobody answered: that is all the app hears, as without us. */
void echoes_sweep(struct relay *relay, uint64_t now)
{
	struct echo *echo;

	while ((echo = TAILQ_FIRST(&relay->echoes->on_the_way)) &&
	       now - echo->sent >= RELAY_ECHO_TIMEOUT)
		echo_remove(relay->echoes, echo);
}

void echoes_link_lost(struct relay *relay, struct link *link)
{
	struct echo *echo, *next;

	for (echo = TAILQ_FIRST(&relay->echoes->on_the_way); echo; echo = next) {
		next = TAILQ_NEXT(echo, next);
		if (echo->link == link)
			echo_remove(relay->echoes, echo);
	}
	close_sockets(relay, link_number(link) - 1);
}

size_t echoes_count(const struct relay *relay)
{
	return relay->echoes ? relay->echoes->count : 0;
}
