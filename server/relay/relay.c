#include "relay/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SWEEP_INTERVAL = 1000 /* ms */ };

bool bucket_take(struct bucket *bucket, uint64_t now, uint32_t rate)
{
	uint64_t more = (now - bucket->at) * rate / 1000;

	if (more) {
		bucket->tokens =
			more > rate - bucket->tokens ? rate : bucket->tokens + (uint32_t)more;
		bucket->at = now;
	}
	if (!bucket->tokens)
		return false;
	bucket->tokens--;
	return true;
}

struct link *relay_choose(struct relay *relay, const struct rule_policy *policy, int family,
			  uint32_t *tried)
{
	struct link *link;

	while ((link = links_choose(relay->parts.links, policy, *tried))) {
		*tried |= link_bit(link);
		if (!family || link_has_family(link, family))
			return link;
	}
	return NULL;
}

/* 0.0.0.0/8, 224.0.0.0/4 and what is behind it, :: and ff00::/8. */
static bool is_no_host(const struct ip *ip)
{
	static const uint8_t nobody[16];

	if (ip_is_v4(ip))
		return ip->bytes[12] == 0 || ip->bytes[12] >= 224;
	return ip->bytes[0] == 0xff || !memcmp(ip->bytes, nobody, sizeof(nobody));
}

bool relay_is_no_destination(struct relay *relay, const struct ip *ip)
{
	return is_no_host(ip) || ip_is_loopback(ip) || ip_is_link_local(ip) ||
	       resolver_is_internal(relay->parts.resolver, ip) ||
	       steer_is_device_address(relay->parts.steer, ip);
}

bool relay_is_host(struct relay *relay, const struct ip *app)
{
	return ip_is_loopback(app) || steer_is_device_address(relay->parts.steer, app);
}

static void on_sweep(uv_timer_t *timer)
{
	struct relay *relay = timer->data;
	uint64_t now = uv_now(relay->loop);

	udp_sweep(relay, now);
	echoes_sweep(relay, now);
}

void relay_handle_closed(struct relay *relay)
{
	if (--relay->handles)
		return;
	config_unref(relay->parts.config);
	free(relay->batch);
	free(relay);
}

static void on_sweep_closed(uv_handle_t *handle)
{
	relay_handle_closed(handle->data);
}

/* Each flow takes a descriptor; most are left to connections. */
static size_t flows_max(void)
{
	struct rlimit limit;
	size_t max = RELAY_FLOWS_MAX;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 4 < max)
		max = limit.rlim_cur / 4;
	if (max < RELAY_FLOWS_MAX)
		log_warning("relay", "descriptors are short: %zu UDP flows at once", max);
	return max;
}

static int open_family(struct relay *relay, int index)
{
	struct relay_family *family = &relay->families[index];
	int domain = index ? AF_INET6 : AF_INET;

	family->answer_fd = socket_answer(relay, domain);
	if (family->answer_fd < 0)
		return family->answer_fd;
	family->icmp_fd = socket_icmp(relay, domain);
	if (family->icmp_fd < 0)
		return family->icmp_fd;
	return udp_open(relay, index);
}

int relay_new(uv_loop_t *loop, const struct relay_parts *parts, struct relay **ret_relay)
{
	struct relay *relay = calloc(1, sizeof(*relay));
	int r;

	if (!relay)
		return -ENOMEM;
	relay->loop = loop;
	relay->parts = *parts;
	config_ref(parts->config);
	for (int i = 0; i < FAMILIES; i++)
		relay->families[i] = (struct relay_family){
			.relay = relay, .listen_fd = -1, .answer_fd = -1, .icmp_fd = -1};
	flows_init(&relay->flows, flows_max(), RELAY_SOURCE_FLOWS_MAX);
	uv_timer_init(loop, &relay->sweep);
	relay->sweep.data = relay;
	relay->handles = 2;
	uv_timer_start(&relay->sweep, on_sweep, SWEEP_INTERVAL, SWEEP_INTERVAL);
	r = open_family(relay, 0);
	if (r == 0)
		r = echoes_new(relay);
	if (r < 0) {
		relay_close(relay);
		return r;
	}
	r = open_family(relay, 1);
	if (r < 0)
		log_warning("relay", "no IPv6: %s", strerror(-r));
	*ret_relay = relay;
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void relay_close(struct relay *relay)
{
	if (!relay || relay->closing)
		return;
	relay->closing = true;
	echoes_close(relay);
	udp_close(relay);
	for (int i = 0; i < FAMILIES; i++) {
		close_fd(&relay->families[i].answer_fd);
		close_fd(&relay->families[i].icmp_fd);
	}
	uv_close((uv_handle_t *)&relay->sweep, on_sweep_closed);
	relay_handle_closed(relay); /* the owner's */
}

void relay_link_lost(struct relay *relay, struct link *link)
{
	udp_link_lost(relay, link);
	echoes_link_lost(relay, link);
}

void relay_statistics(const struct relay *relay, struct relay_statistics *ret)
{
	*ret = relay->statistics;
	ret->flows = relay->flows.count;
	ret->flows_max = relay->flows.max;
	ret->echoes = echoes_count(relay);
}
