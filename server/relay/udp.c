/*
 * UDP flows.
 *
 *     app --datagram--> listen_fd --flow's key--> flow->fd --link--> world
 *     app <--from the address and port it sent to-- answer_fd <-- flow->fd
 *
 * All datagrams of apps come to the listening socket, later ones of a flow too. A socket a flow
 * that is bound to the original destination and connected to the app would take those from the
 * kernel's look-up directly, but to bind a foreign address and port is to quarrel with the
 * device's own services: who has bound *:123 keeps the relay from binding 203.0.113.9:123, and
 * the other way round, since one of the two did not say SO_REUSEADDR (udp_lib_lport_inuse). It
 * would also hang all flows to one destination in one chain of the kernel's hash before 6.13.
 * So answers leave through a raw socket, which binds nothing, and fragments when needed.
 */
#include "relay/internal.h"

#include "base/log.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { QUIC_PORT = 443 };

/* Datagrams of one system call. One for all sockets: nothing is kept in it between callbacks. */
struct batch {
	struct mmsghdr in[RELAY_BATCH], out[RELAY_BATCH];
	struct iovec in_iov[RELAY_BATCH], out_iov[RELAY_BATCH][2];
	union control in_control[RELAY_BATCH], out_control[RELAY_BATCH];
	struct sockaddr_storage name[RELAY_BATCH];
	struct udphdr head[RELAY_BATCH];
	struct sockaddr_storage app;
	unsigned count;
	uint8_t bytes[RELAY_BATCH][RELAY_DATAGRAM_MAX]; /* only what is used takes memory */
};

/* Came while the name was being resolved. */
struct waiting {
	STAILQ_ENTRY(waiting) next;
	struct hop hop;
	size_t len;
	uint8_t bytes[];
};

struct flow {
	struct flow_entry entry; /* first */
	struct relay *relay;
	struct link *link;
	char *name; /* of a virtual destination, or NULL */
	struct resolver_query *query;
	STAILQ_HEAD(, waiting) waiting;
	unsigned waiting_count;
	int fd;	 /* -1 while its name is resolved */
	bool v6; /* of fd */
	bool closing;
	size_t last_len; /* of the app's last datagram, for what errors quote */
	uint32_t tried;	 /* links */
	struct ip peer;
	uv_poll_t poll;
};

/* A datagram of an app, as it came. */
struct datagram {
	struct flow_key key;
	struct hop hop;
	const uint8_t *bytes;
	size_t len;
};

static void batch_prepare_in(struct batch *batch, bool control)
{
	for (int i = 0; i < RELAY_BATCH; i++) {
		batch->in_iov[i] = (struct iovec){batch->bytes[i], RELAY_DATAGRAM_MAX};
		batch->in[i].msg_hdr = (struct msghdr){
			.msg_iov = &batch->in_iov[i],
			.msg_iovlen = 1,
			.msg_name = &batch->name[i],
			.msg_namelen = sizeof(batch->name[i]),
			.msg_control = control ? &batch->in_control[i] : NULL,
			.msg_controllen = control ? sizeof(batch->in_control[i]) : 0,
		};
	}
	batch->count = 0;
}

/* --- the life of a flow --- */

static void waiting_drop(struct flow *flow)
{
	struct waiting *waiting;

	while ((waiting = STAILQ_FIRST(&flow->waiting))) {
		STAILQ_REMOVE_HEAD(&flow->waiting, next);
		flow->relay->waiting_bytes -= waiting->len;
		free(waiting);
	}
	flow->waiting_count = 0;
}

static void flow_free(struct flow *flow)
{
	struct relay *relay = flow->relay;

	free(flow->name);
	free(flow);
	relay_handle_closed(relay);
}

static void on_flow_closed(uv_handle_t *handle)
{
	struct flow *flow = handle->data;

	close(flow->fd);
	flow_free(flow);
}

static void flow_close(struct flow *flow)
{
	if (flow->closing)
		return;
	flow->closing = true;
	flows_remove(&flow->relay->flows, &flow->entry);
	if (flow->query)
		resolver_cancel(flow->query);
	flow->query = NULL;
	flow->relay->statistics.dropped += flow->waiting_count;
	waiting_drop(flow);
	if (flow->fd >= 0)
		uv_close((uv_handle_t *)&flow->poll, on_flow_closed);
	else
		flow_free(flow);
}

static void refuse(struct relay *relay, const struct flow_key *key, size_t len, uint8_t ttl,
		   enum refusal refusal)
{
	struct icmp_quote quote;

	icmp_quote_udp(&quote, key, len);
	quote.ttl = ttl;
	icmp_refuse(relay, &quote, refusal);
}

/* r: why it cannot go on. */
static void flow_refuse(struct flow *flow, int r)
{
	if (r == -EMFILE || r == -ENFILE)
		flow->relay->statistics.flows_full++;
	else
		flow->relay->statistics.flows_refused++;
	refuse(flow->relay, &flow->entry.key, flow->last_len, 0, REFUSAL_PORT);
	flow_close(flow);
}

/* --- from the world to the app --- */

static void answers_flush(struct relay *relay, struct relay_family *family)
{
	struct batch *batch = relay->batch;
	unsigned done = 0;

	while (done < batch->count) {
		int n = sendmmsg(family->answer_fd, batch->out + done, batch->count - done,
				 MSG_DONTWAIT);

		if (n > 0) {
			relay->statistics.datagrams_out += (unsigned)n;
			done += (unsigned)n;
		} else {
			relay->statistics.dropped++;
			done++;
		}
	}
	batch->count = 0;
}

/* IPv4 only: of IPv6 the kernel does it. 0 would say that there is none. */
static uint16_t udp_checksum(const struct flow_key *key, const struct udphdr *head,
			     const uint8_t *bytes, size_t len)
{
	const uint16_t words[2] = {htons(IPPROTO_UDP), head->len};
	uint32_t sum = checksum_add(0, key->destination.bytes + 12, 4);
	uint16_t folded;

	sum = checksum_add(sum, key->app.bytes + 12, 4);
	sum = checksum_add(sum, words, sizeof(words));
	sum = checksum_add(sum, head, sizeof(*head));
	folded = checksum_fold(checksum_add(sum, bytes, len));
	return folded ? folded : 0xffff;
}

static void answer_add(struct flow *flow, struct batch *batch, const struct hop *hop,
		       uint8_t *bytes, size_t len)
{
	const struct flow_key *key = &flow->entry.key;
	unsigned i = batch->count++;
	struct hop out = {.tos = hop->tos};
	struct mmsghdr *message = &batch->out[i];

	batch->head[i] = (struct udphdr){
		.source = htons(key->port),
		.dest = htons(key->app_port),
		.len = htons((uint16_t)(sizeof(struct udphdr) + len)),
	};
	if (ip_is_v4(&key->app))
		batch->head[i].check = udp_checksum(key, &batch->head[i], bytes, len);
	batch->out_iov[i][0] = (struct iovec){&batch->head[i], sizeof(batch->head[i])};
	batch->out_iov[i][1] = (struct iovec){bytes, len};
	message->msg_hdr = (struct msghdr){
		.msg_name = &batch->app,
		.msg_namelen = ip_is_v4(&key->app) ? sizeof(struct sockaddr_in)
						   : sizeof(struct sockaddr_in6),
		.msg_iov = batch->out_iov[i],
		.msg_iovlen = 2,
	};
	control_write(&message->msg_hdr, &batch->out_control[i],
		      ip_is_v4(&key->app) ? AF_INET : AF_INET6, &key->destination, &out);
}

/* false: nothing more to read. */
static bool flow_read(struct flow *flow)
{
	struct relay *relay = flow->relay;
	struct batch *batch = relay->batch;
	const struct flow_key *key = &flow->entry.key;
	struct place app = {.ip = key->app, .scope = key->scope};
	uint64_t bytes = 0;
	int n;

	batch_prepare_in(batch, true);
	n = recvmmsg(flow->fd, batch->in, RELAY_BATCH, MSG_DONTWAIT, NULL);
	if (n <= 0)
		return n < 0 && errno != EAGAIN && errno != EWOULDBLOCK;
	place_to_sockaddr(&app, &batch->app);
	for (int i = 0; i < n; i++) {
		struct arrival arrival;

		control_read(&batch->in[i].msg_hdr, &arrival);
		answer_add(flow, batch, &arrival.hop, batch->bytes[i], batch->in[i].msg_len);
		bytes += batch->in[i].msg_len;
	}
	answers_flush(relay, relay_family_of(relay, &key->app));
	link_count_bytes(flow->link, bytes, 0);
	flows_touch(&relay->flows, &flow->entry, uv_now(relay->loop));
	return n == RELAY_BATCH;
}

/* --- errors from the world --- */

static void flow_tell(struct flow *flow, const struct sock_extended_err *said, size_t len,
		      const struct ip *from)
{
	bool to_v6 = !ip_is_v4(&flow->entry.key.app);
	struct icmp_error error = {.type = said->ee_type, .code = said->ee_code, .from = from};
	struct icmp_quote quote;

	if (from && ip_equal(from, &flow->peer))
		error.from = NULL;
	if (said->ee_type == ICMP_PARAMETERPROB && !flow->v6)
		error.info = said->ee_info << 24;
	if (!icmp_translate(flow->v6, to_v6, &error))
		return;
	icmp_quote_udp(&quote, &flow->entry.key, len);
	icmp_tell(flow->relay, &quote, &error);
}

/* false: the queue is empty. */
static bool flow_read_error(struct flow *flow)
{
	struct batch *batch = flow->relay->batch;
	struct sock_extended_err said = {0};
	struct msghdr message;
	struct place from = {0};
	bool has_from = false;
	ssize_t n;

	batch_prepare_in(batch, true);
	message = batch->in[0].msg_hdr;
	n = recvmsg(flow->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT);
	if (n < 0)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		struct sockaddr_storage sa = {0};

		if (!(c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) &&
		    !(c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR))
			continue;
		memcpy(&said, CMSG_DATA(c), sizeof(said));
		memcpy(&sa, CMSG_DATA(c) + sizeof(said),
		       flow->v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
		has_from = sa.ss_family == AF_INET || sa.ss_family == AF_INET6;
		if (has_from)
			from = place_from_sockaddr(&sa);
	}
	if (said.ee_origin == SO_EE_ORIGIN_ICMP || said.ee_origin == SO_EE_ORIGIN_ICMP6)
		flow_tell(flow, &said, flow->last_len, has_from ? &from.ip : NULL);
	return true;
}

static void on_flow_event(uv_poll_t *poll, int status, int events);

static void flow_listen(struct flow *flow)
{
	if (uv_poll_start(&flow->poll, UV_READABLE, on_flow_event) < 0)
		flow_close(flow);
}

/* libuv tells of a queued error as EBADF and stops polling. */
static void on_flow_event(uv_poll_t *poll, int status, int events)
{
	struct flow *flow = poll->data;

	for (int i = 0; i < RELAY_BATCH && flow_read_error(flow); i++)
		;
	for (int i = 0; i < RELAY_TURNS && !flow->closing; i++)
		if (!flow_read(flow))
			break;
	if (status < 0 && !flow->closing)
		flow_listen(flow);
}

/* --- from the app to the world --- */

static void out_add(struct flow *flow, struct batch *batch, const struct hop *hop,
		    const uint8_t *bytes, size_t len)
{
	unsigned i = batch->count++;

	batch->out_iov[i][0] = (struct iovec){(void *)bytes, len};
	batch->out[i].msg_hdr = (struct msghdr){.msg_iov = batch->out_iov[i], .msg_iovlen = 1};
	control_write(&batch->out[i].msg_hdr, &batch->out_control[i], flow->v6 ? AF_INET6 : AF_INET,
		      NULL, hop);
	flow->last_len = len;
}

/* What is sent while an error waits for the socket fails with that error, once. */
static int out_send(struct flow *flow, struct mmsghdr *messages, unsigned count)
{
	int n = sendmmsg(flow->fd, messages, count, MSG_DONTWAIT);

	if (n < 0 && (errno == ECONNREFUSED || errno == EHOSTUNREACH || errno == EPROTO ||
		      errno == EMSGSIZE || errno == EACCES || errno == ENETUNREACH))
		n = sendmmsg(flow->fd, messages, count, MSG_DONTWAIT);
	return n < 0 ? -errno : n;
}

static void out_flush(struct flow *flow)
{
	struct relay *relay = flow->relay;
	struct batch *batch = relay->batch;
	unsigned done = 0;
	uint64_t bytes = 0;

	while (done < batch->count) {
		int n = out_send(flow, batch->out + done, batch->count - done);

		for (int i = 0; i < n; i++)
			bytes += batch->out_iov[done + (unsigned)i][0].iov_len;
		if (n > 0) {
			relay->statistics.datagrams_in += (unsigned)n;
			done += (unsigned)n;
		} else {
			relay->statistics.dropped++;
			done++;
		}
	}
	batch->count = 0;
	link_count_bytes(flow->link, 0, bytes);
}

static int set(int fd, bool v6, int v4_option, int v6_option, int value)
{
	return setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? v6_option : v4_option, &value,
			  sizeof(value)) < 0
		       ? -errno
		       : 0;
}

/* An own socket of the flow's link, connected. */
static int dial(struct flow *flow, const struct ip *peer)
{
	struct sockaddr_storage sa;
	socklen_t len = ip_to_sockaddr(peer, flow->entry.key.port, &sa);
	bool v6 = sa.ss_family == AF_INET6;
	int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	r = link_own_socket(flow->link, fd);
	if (r == 0)
		r = set(fd, v6, IP_RECVERR, IPV6_RECVERR, 1);
	if (r == 0)
		r = set(fd, v6, IP_RECVTOS, IPV6_RECVTCLASS, 1);
	if (r == 0)
		r = set(fd, v6, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER,
			v6 ? IPV6_PMTUDISC_DONT : IP_PMTUDISC_DONT);
	if (r == 0 && connect(fd, (struct sockaddr *)&sa, len) < 0)
		r = -errno;
	if (r == 0)
		r = uv_poll_init(flow->relay->loop, &flow->poll, fd);
	if (r < 0) {
		close(fd);
		return r;
	}
	flow->fd = fd;
	flow->v6 = v6;
	flow->peer = *peer;
	flow->poll.data = flow;
	return 0;
}

static void waiting_send(struct flow *flow)
{
	struct batch *batch = flow->relay->batch;
	struct waiting *waiting;

	batch->count = 0;
	STAILQ_FOREACH (waiting, &flow->waiting, next)
		out_add(flow, batch, &waiting->hop, waiting->bytes, waiting->len);
	out_flush(flow);
	waiting_drop(flow);
}

static int try_next_link(struct flow *flow);

static void on_resolved(void *arg, int status, const struct ip *addresses, size_t count)
{
	struct flow *flow = arg;
	int r = status < 0 ? status : -ENOENT;

	flow->query = NULL;
	for (size_t i = 0; i < count && r < 0; i++) {
		if (!relay_is_no_destination(flow->relay, &addresses[i]) &&
		    !resolver_is_virtual(flow->relay->parts.resolver, &addresses[i]))
			r = dial(flow, &addresses[i]);
	}
	if (r == 0) {
		waiting_send(flow);
		flow_listen(flow);
	} else {
		r = try_next_link(flow);
		if (r < 0)
			flow_refuse(flow, r);
	}
}

/* A rule for UDP must name the port of QUIC. */
static bool names_quic(const struct rule *rule)
{
	if (rule->match.protocol != PROTOCOL_UDP)
		return false;
	for (size_t i = 0; i < rule->match.port_count; i++)
		if (rule->match.port[i].first <= QUIC_PORT && QUIC_PORT <= rule->match.port[i].last)
			return true;
	return false;
}

static const struct rule *rule_of(struct relay *relay, const struct flow_key *key, const char *name)
{
	struct rule_facts facts = {
		.host = name,
		.address = key->destination,
		.port = key->port,
		.protocol = PROTOCOL_UDP,
		.source = key->app,
	};

	if (relay->parts.interface_of)
		facts.source_interface =
			relay->parts.interface_of(relay->parts.network_arg, &key->app);
	return config_match(relay->parts.config, &facts);
}

/* 0: the flow has a socket, or will have one. */
static int try_next_link(struct flow *flow)
{
	struct relay *relay = flow->relay;
	const struct flow_key *key = &flow->entry.key;
	const struct rule *rule = rule_of(relay, key, flow->name);
	int family = flow->name ? 0 : ip_is_v4(&key->destination) ? AF_INET : AF_INET6;
	int r;

	while ((flow->link = relay_choose(relay, &rule->policy, family, &flow->tried))) {
		if (flow->name)
			r = resolver_lookup(relay->parts.resolver, flow->link, flow->name,
					    on_resolved, flow, &flow->query);
		else
			r = dial(flow, &key->destination);
		if (r == 0 || r == -EMFILE || r == -ENFILE)
			return r;
	}
	return -ENETUNREACH;
}

/* Why this datagram may not begin a flow, or -1. */
static int why_not(struct relay *relay, const struct datagram *datagram, const char *name)
{
	const struct flow_key *key = &datagram->key;
	const struct rule *rule;

	if (!key->port || relay_is_no_destination(relay, &key->destination) ||
	    (!name && resolver_is_virtual(relay->parts.resolver, &key->destination)))
		return REFUSAL_PORT;
	rule = rule_of(relay, key, name);
	if (rule->policy.action == ACTION_REJECT)
		return REFUSAL_RULE;
	return key->port == QUIC_PORT && !names_quic(rule) ? REFUSAL_PORT : -1;
}

static bool make_room(struct relay *relay, const struct ip *app)
{
	bool full;
	struct flow_entry *entry = flows_in_the_way(&relay->flows, app, uv_now(relay->loop), &full);

	if (entry) {
		relay->statistics.flows_evicted++;
		flow_close((struct flow *)entry);
	}
	return !full;
}

static struct flow *flow_new(struct relay *relay, const struct flow_key *key, const char *name)
{
	struct flow *flow = calloc(1, sizeof(*flow));

	if (!flow)
		return NULL;
	flow->relay = relay;
	flow->fd = -1;
	flow->entry.key = *key;
	STAILQ_INIT(&flow->waiting);
	flow->name = name ? strdup(name) : NULL;
	if ((name && !flow->name) ||
	    flows_add(&relay->flows, &flow->entry, uv_now(relay->loop)) < 0) {
		free(flow->name);
		free(flow);
		return NULL;
	}
	relay->handles++;
	return flow;
}

/* The flow of the app's first datagram; NULL: refused, and told. */
static struct flow *flow_open(struct relay *relay, const struct datagram *datagram)
{
	const struct flow_key *key = &datagram->key;
	const char *name = resolver_name_of(relay->parts.resolver, &key->destination);
	struct flow *flow;
	int r = why_not(relay, datagram, name);

	if (r >= 0) {
		relay->statistics.flows_refused++;
		refuse(relay, key, datagram->len, datagram->hop.ttl, (enum refusal)r);
		return NULL;
	}
	flow = make_room(relay, &key->app) ? flow_new(relay, key, name) : NULL;
	if (!flow) {
		relay->statistics.flows_full++;
		refuse(relay, key, datagram->len, datagram->hop.ttl, REFUSAL_PORT);
		return NULL;
	}
	flow->last_len = datagram->len;
	r = try_next_link(flow);
	if (r < 0) {
		flow_refuse(flow, r);
		return NULL;
	}
	relay->statistics.flows_opened++;
	if (flow->fd < 0)
		return flow;
	flow_listen(flow);
	return flow->closing ? NULL : flow;
}

/* Until the name is resolved. */
static void flow_wait(struct flow *flow, const struct datagram *datagram)
{
	struct relay *relay = flow->relay;
	struct waiting *waiting = NULL;

	if (flow->waiting_count < RELAY_FLOW_WAITING &&
	    relay->waiting_bytes + datagram->len <= RELAY_WAITING_BYTES)
		waiting = malloc(sizeof(*waiting) + datagram->len);
	if (!waiting) {
		relay->statistics.dropped++;
		return;
	}
	waiting->hop = datagram->hop;
	waiting->len = datagram->len;
	memcpy(waiting->bytes, datagram->bytes, datagram->len);
	STAILQ_INSERT_TAIL(&flow->waiting, waiting, next);
	flow->waiting_count++;
	relay->waiting_bytes += datagram->len;
}

/* --- the listening socket --- */

/* One hop of a route, but for the device's own programs. false: it was the last. */
static bool count_hop(struct relay *relay, struct datagram *datagram)
{
	if (relay_is_host(relay, &datagram->key.app))
		return true;
	if (datagram->hop.ttl > 1) {
		datagram->hop.ttl--;
		return true;
	}
	refuse(relay, &datagram->key, datagram->len, datagram->hop.ttl, REFUSAL_HOPS);
	return false;
}

static bool read_datagram(struct relay_family *family, unsigned i, struct datagram *ret)
{
	struct relay *relay = family->relay;
	struct batch *batch = relay->batch;
	struct place app = place_from_sockaddr(&batch->name[i]);
	struct arrival arrival;

	control_read(&batch->in[i].msg_hdr, &arrival);
	if (arrival.overflows != family->overflows) {
		relay->statistics.dropped += arrival.overflows - family->overflows;
		family->overflows = arrival.overflows;
	}
	*ret = (struct datagram){
		.key = {.app = app.ip,
			.app_port = app.port,
			.scope = app.scope,
			.destination = arrival.destination.ip,
			.port = arrival.destination.port},
		.hop = arrival.hop,
		.bytes = batch->bytes[i],
		.len = batch->in[i].msg_len,
	};
	/* Not of an app. What the device sends to itself is told as of the address's interface. */
	return !steer_is_link_interface(relay->parts.steer, arrival.interface) ||
	       steer_is_device_address(relay->parts.steer, &app.ip);
}

/* Datagrams of one flow that follow each other go out together. */
static void datagram_relay(struct relay *relay, struct datagram *datagram, struct flow **last)
{
	struct flow_entry *entry = flows_find(&relay->flows, &datagram->key);
	struct flow *flow = (struct flow *)entry;

	if (*last && *last != flow) {
		out_flush(*last);
		*last = NULL;
	}
	if (!count_hop(relay, datagram))
		return;
	if (!flow)
		flow = flow_open(relay, datagram);
	if (!flow)
		return;
	flows_touch(&relay->flows, &flow->entry, uv_now(relay->loop));
	if (flow->fd < 0) {
		flow_wait(flow, datagram);
		return;
	}
	out_add(flow, relay->batch, &datagram->hop, datagram->bytes, datagram->len);
	*last = flow;
}

static bool listen_read(struct relay_family *family)
{
	struct relay *relay = family->relay;
	struct batch *batch = relay->batch;
	struct flow *last = NULL;
	int n;

	batch_prepare_in(batch, true);
	n = recvmmsg(family->listen_fd, batch->in, RELAY_BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		struct datagram datagram;

		if (read_datagram(family, (unsigned)i, &datagram))
			datagram_relay(relay, &datagram, &last);
	}
	if (last)
		out_flush(last);
	return n == RELAY_BATCH;
}

static void on_listen_event(uv_poll_t *poll, int status, int events)
{
	struct relay_family *family = poll->data;

	for (int i = 0; i < RELAY_TURNS && !family->relay->closing; i++)
		if (!listen_read(family))
			break;
}

int udp_open(struct relay *relay, int index)
{
	struct relay_family *family = &relay->families[index];
	const struct config *config = relay->parts.config;
	struct ip address =
		ip_prefix_nth(index ? &config->dns.virtual_v6 : &config->dns.virtual_v4, 1);
	enum hf_socket which = index ? HF_SOCKET_RELAY_UDP6 : HF_SOCKET_RELAY_UDP4;
	int fd, r;

	if (!relay->batch) {
		relay->batch = malloc(sizeof(*relay->batch));
		if (!relay->batch)
			return -ENOMEM;
	}
	if (steer_take_listener(relay->parts.steer, which, &address, 0, &fd) < 0)
		fd = socket_listen(relay, &address);
	if (fd < 0)
		return fd;
	r = uv_poll_init(relay->loop, &family->poll, fd);
	if (r < 0) {
		close(fd);
		return r;
	}
	family->listen_fd = fd;
	family->poll.data = family;
	relay->handles++;
	r = uv_poll_start(&family->poll, UV_READABLE, on_listen_event);
	if (r < 0)
		return r;
	return steer_set_listener(relay->parts.steer, which, fd);
}

static void on_listen_closed(uv_handle_t *handle)
{
	struct relay_family *family = handle->data;

	close(family->listen_fd);
	relay_handle_closed(family->relay);
}

/* --- all flows --- */

void udp_sweep(struct relay *relay, uint64_t now)
{
	struct flow_entry *entry;

	while ((entry = flows_idle(&relay->flows, now, RELAY_FLOW_IDLE)))
		flow_close((struct flow *)entry);
}

static void flow_link_lost(struct flow *flow)
{
	int r;

	if (flow->fd >= 0) {
		flow_close(flow);
		return;
	}
	resolver_cancel(flow->query);
	flow->query = NULL;
	r = try_next_link(flow);
	if (r < 0)
		flow_refuse(flow, r);
}

void udp_link_lost(struct relay *relay, struct link *link)
{
	struct flow_entry *entry, *next;

	for (entry = TAILQ_FIRST(&relay->flows.by_use); entry; entry = next) {
		struct flow *flow = (struct flow *)entry;

		next = TAILQ_NEXT(entry, by_use);
		if (flow->link == link)
			flow_link_lost(flow);
	}
}

void udp_close(struct relay *relay)
{
	struct flow_entry *entry;

	while ((entry = TAILQ_FIRST(&relay->flows.by_use)))
		flow_close((struct flow *)entry);
	for (int i = 0; i < FAMILIES; i++)
		if (relay->families[i].listen_fd >= 0)
			uv_close((uv_handle_t *)&relay->families[i].poll, on_listen_closed);
}
