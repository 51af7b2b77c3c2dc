/*
 * ICMP errors to apps, as RFC 792 and RFC 4443 write them: in the name of the address that the
 * app sent to, or of the router that told us. What they quote is built from what is known of the
 * app's datagram; the app's kernel looks at addresses, ports and identifiers.
 *
 * Which error is heard at once: Linux tells a connected UDP socket of port unreachable and
 * "prohibited" only (icmp_err_convert), so host unreachable is for pings.
 */
#include "relay/internal.h"

#include "base/log.h"

#include <errno.h>
#include <linux/icmp.h>
#include <linux/ip.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <string.h>

enum { ICMP_HEAD = 8, QUOTE_FIRST = 8, TTL_UNKNOWN = 64 };

int icmp_send(struct relay *relay, const struct place *app, const struct ip *from,
	      const struct hop *hop, uint8_t *message, size_t len)
{
	struct relay_family *family = relay_family_of(relay, &app->ip);
	struct place to = {.ip = app->ip, .scope = app->scope};
	struct sockaddr_storage sa;
	union control control;
	struct iovec iov = {.iov_base = message, .iov_len = len};
	struct msghdr out = {.msg_name = &sa, .msg_iov = &iov, .msg_iovlen = 1};
	uint16_t sum = 0;

	out.msg_namelen = place_to_sockaddr(&to, &sa);
	control_write(&out, &control, sa.ss_family, from, hop);
	memcpy(message + 2, &sum, sizeof(sum));
	if (sa.ss_family == AF_INET) { /* of ICMPv6 the kernel does it */
		sum = checksum_fold(checksum_add(0, message, len));
		memcpy(message + 2, &sum, sizeof(sum));
	}
	return sendmsg(family->icmp_fd, &out, MSG_DONTWAIT) < 0 ? -errno : 0;
}

static size_t write_quote_v4(const struct icmp_quote *quote, uint8_t *out)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tos = quote->tos,
		.tot_len = htons((uint16_t)(sizeof(ip) + quote->len)),
		.ttl = quote->ttl ? quote->ttl : TTL_UNKNOWN,
		.protocol = quote->protocol,
		.saddr = ip_v4(&quote->app.ip),
		.daddr = ip_v4(&quote->destination),
	};

	ip.check = checksum_fold(checksum_add(0, &ip, sizeof(ip)));
	memcpy(out, &ip, sizeof(ip));
	return sizeof(ip);
}

static size_t write_quote_v6(const struct icmp_quote *quote, uint8_t *out)
{
	struct ip6_hdr ip = {
		.ip6_flow = htonl(6u << 28 | (uint32_t)quote->tos << 20),
		.ip6_plen = htons(quote->len),
		.ip6_nxt = quote->protocol,
		.ip6_hlim = quote->ttl ? quote->ttl : TTL_UNKNOWN,
	};

	memcpy(&ip.ip6_src, quote->app.ip.bytes, sizeof(ip.ip6_src));
	memcpy(&ip.ip6_dst, quote->destination.bytes, sizeof(ip.ip6_dst));
	memcpy(out, &ip, sizeof(ip));
	return sizeof(ip);
}

/* One app's flood is not to take the errors of others. */
static struct bucket *bucket_of(struct relay *relay, const struct ip *app)
{
	uint32_t words[4];

	memcpy(words, app->bytes, sizeof(words));
	words[0] = (words[0] ^ words[1] ^ words[2] ^ words[3]) * 2654435761u;
	return &relay->errors[(words[0] >> 16) % ERROR_BUCKETS];
}

void icmp_tell(struct relay *relay, const struct icmp_quote *quote, const struct icmp_error *error)
{
	uint8_t message[ICMP_HEAD + sizeof(struct ip6_hdr) + QUOTE_FIRST] = {error->type,
									     error->code};
	const struct ip *from = error->from ? error->from : &quote->destination;
	struct hop hop = {0};
	uint32_t info = htonl(error->info);
	size_t len = ICMP_HEAD;
	int r;

	if (!bucket_take(bucket_of(relay, &quote->app.ip), uv_now(relay->loop),
			 RELAY_ERRORS_RATE)) {
		relay->statistics.errors_limited++;
		return;
	}
	memcpy(message + 4, &info, sizeof(info));
	len += ip_is_v4(&quote->app.ip) ? write_quote_v4(quote, message + len)
					: write_quote_v6(quote, message + len);
	memcpy(message + len, quote->first, QUOTE_FIRST);
	r = icmp_send(relay, &quote->app, error->of_device ? NULL : from, &hop, message,
		      len + QUOTE_FIRST);
	if (r < 0)
		log_debug("relay", "an ICMP error was not sent: %s", strerror(-r));
	else
		relay->statistics.errors_told++;
}

void icmp_refuse(struct relay *relay, const struct icmp_quote *quote, enum refusal refusal)
{
	static const uint8_t codes[][2][2] = {
		[REFUSAL_PORT] = {{ICMP_DEST_UNREACH, ICMP_PORT_UNREACH},
				  {ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_NOPORT}},
		[REFUSAL_HOST] = {{ICMP_DEST_UNREACH, ICMP_HOST_UNREACH},
				  {ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADDR}},
		[REFUSAL_RULE] = {{ICMP_DEST_UNREACH, ICMP_PKT_FILTERED},
				  {ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADMIN}},
		[REFUSAL_HOPS] = {{ICMP_TIME_EXCEEDED, ICMP_EXC_TTL},
				  {ICMP6_TIME_EXCEEDED, ICMP6_TIME_EXCEED_TRANSIT}},
	};
	const uint8_t *code = codes[refusal][!ip_is_v4(&quote->app.ip)];
	struct icmp_error error = {
		.type = code[0], .code = code[1], .of_device = refusal == REFUSAL_HOPS};

	icmp_tell(relay, quote, &error);
}

/* From one family's types to the other's (RFC 7915, 4.2 and 5.2, as far as there is a use). */
static void to_other_family(bool to_v6, struct icmp_error *error)
{
	bool port = error->code == (to_v6 ? ICMP_PORT_UNREACH : ICMP6_DST_UNREACH_NOPORT);

	error->info = 0;
	error->from = NULL;
	if (error->type == (to_v6 ? ICMP_TIME_EXCEEDED : ICMP6_TIME_EXCEEDED)) {
		error->type = to_v6 ? ICMP6_TIME_EXCEEDED : ICMP_TIME_EXCEEDED;
		return;
	}
	error->type = to_v6 ? ICMP6_DST_UNREACH : ICMP_DEST_UNREACH;
	if (to_v6)
		error->code = port ? ICMP6_DST_UNREACH_NOPORT : ICMP6_DST_UNREACH_ADDR;
	else
		error->code = port ? ICMP_PORT_UNREACH : ICMP_HOST_UNREACH;
}

/* "Too big" is for whoever cuts datagrams: the relay's own socket, which has heard it. */
bool icmp_translate(bool from_v6, bool to_v6, struct icmp_error *error)
{
	if (from_v6 ? error->type != ICMP6_DST_UNREACH && error->type != ICMP6_TIME_EXCEEDED &&
			      error->type != ICMP6_PARAM_PROB
		    : (error->type != ICMP_DEST_UNREACH || error->code == ICMP_FRAG_NEEDED) &&
			      error->type != ICMP_TIME_EXCEEDED &&
			      error->type != ICMP_PARAMETERPROB)
		return false;
	if (from_v6 != to_v6)
		to_other_family(to_v6, error);
	return true;
}

void icmp_quote_udp(struct icmp_quote *quote, const struct flow_key *key, size_t len)
{
	uint16_t head[4] = {htons(key->app_port), htons(key->port)};

	len += sizeof(head);
	if (len > UINT16_MAX - sizeof(struct iphdr))
		len = UINT16_MAX - sizeof(struct iphdr);
	head[2] = htons((uint16_t)len);
	*quote = (struct icmp_quote){
		.app = {.ip = key->app, .scope = key->scope},
		.destination = key->destination,
		.protocol = IPPROTO_UDP,
		.len = (uint16_t)len,
	};
	memcpy(quote->first, head, sizeof(head));
}
