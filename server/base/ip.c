#include "base/ip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool ip_is_v4(const struct ip *ip)
{
	return memcmp(ip->bytes, v4_prefix, sizeof(v4_prefix)) == 0;
}

bool ip_equal(const struct ip *a, const struct ip *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool ip_is_loopback(const struct ip *ip)
{
	if (ip_is_v4(ip))
		return ip->bytes[12] == 127;
	return memcmp(ip->bytes, &in6addr_loopback, 16) == 0;
}

bool ip_is_link_local(const struct ip *ip)
{
	if (ip_is_v4(ip))
		return ip->bytes[12] == 169 && ip->bytes[13] == 254;
	return ip->bytes[0] == 0xfe && (ip->bytes[1] & 0xc0) == 0x80;
}

struct ip ip_from_v4(uint32_t address_be)
{
	struct ip ip;

	memcpy(ip.bytes, v4_prefix, sizeof(v4_prefix));
	memcpy(ip.bytes + 12, &address_be, 4);
	return ip;
}

struct ip ip_from_v6(const void *bytes16)
{
	struct ip ip;

	memcpy(ip.bytes, bytes16, sizeof(ip.bytes));
	return ip;
}

uint32_t ip_v4(const struct ip *ip)
{
	uint32_t address;

	memcpy(&address, ip->bytes + 12, 4);
	return address;
}

int ip_parse(const char *text, struct ip *ret_ip)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, text, &v4) == 1)
		*ret_ip = ip_from_v4(v4.s_addr);
	else if (inet_pton(AF_INET6, text, &v6) == 1)
		*ret_ip = ip_from_v6(&v6);
	else
		return -EINVAL;
	return 0;
}

const char *ip_format(const struct ip *ip, char *buffer)
{
	const char *text;

	if (ip_is_v4(ip))
		text = inet_ntop(AF_INET, ip->bytes + 12, buffer, IP_TEXT_MAX);
	else
		text = inet_ntop(AF_INET6, ip->bytes, buffer, IP_TEXT_MAX);
	if (!text)
		abort();
	return text;
}

int ip_prefix_parse(const char *text, struct ip_prefix *ret_prefix)
{
	char address[IP_TEXT_MAX];
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	unsigned long bits, most;
	struct ip ip;
	char *end;

	if (len >= sizeof(address))
		return -EINVAL;
	memcpy(address, text, len);
	address[len] = '\0';
	if (ip_parse(address, &ip) < 0)
		return -EINVAL;
	most = ip_is_v4(&ip) ? 32 : 128;
	bits = most;
	if (slash) {
		if (slash[1] < '0' || slash[1] > '9')
			return -EINVAL;
		bits = strtoul(slash + 1, &end, 10);
		if (*end || bits > most)
			return -EINVAL;
	}
	*ret_prefix = (struct ip_prefix){.ip = ip, .bits = (uint8_t)(bits + 128 - most)};
	return 0;
}

bool ip_prefix_contains(const struct ip_prefix *prefix, const struct ip *ip)
{
	unsigned whole = prefix->bits / 8, rest = prefix->bits % 8;
	uint8_t mask = (uint8_t)(0xff00 >> rest);

	if (memcmp(prefix->ip.bytes, ip->bytes, whole) != 0)
		return false;
	return !rest || ((prefix->ip.bytes[whole] ^ ip->bytes[whole]) & mask) == 0;
}

struct ip ip_prefix_nth(const struct ip_prefix *prefix, uint64_t n)
{
	struct ip ip = prefix->ip;

	for (unsigned bit = prefix->bits; bit < 128; bit++)
		ip.bytes[bit / 8] &= (uint8_t) ~(0x80 >> (bit % 8));
	for (int i = 15; i >= 0 && n; i--, n >>= 8)
		ip.bytes[i] |= (uint8_t)(n & 0xff);
	return ip;
}

struct ip ip_from_sockaddr(const struct sockaddr *sa, uint16_t *ret_port)
{
	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)sa;

		*ret_port = ntohs(in->sin_port);
		return ip_from_v4(in->sin_addr.s_addr);
	}
	*ret_port = ntohs(((const struct sockaddr_in6 *)sa)->sin6_port);
	return ip_from_v6(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

socklen_t ip_to_sockaddr(const struct ip *ip, uint16_t port, struct sockaddr_storage *ret_sa)
{
	memset(ret_sa, 0, sizeof(*ret_sa));
	if (ip_is_v4(ip)) {
		struct sockaddr_in *in = (struct sockaddr_in *)ret_sa;

		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		in->sin_addr.s_addr = ip_v4(ip);
		return sizeof(*in);
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret_sa;

	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, ip->bytes, 16);
	return sizeof(*in6);
}
