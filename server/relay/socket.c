/* Sockets that take from and send to apps in the name of any address, and what goes along with
 * their messages. */
#include "relay/internal.h"

#include <errno.h>
#include <linux/filter.h>
#include <string.h>
#include <unistd.h>

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_transparent(int fd, int family)
{
	return family == AF_INET ? set(fd, IPPROTO_IP, IP_TRANSPARENT, 1)
				 : set(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1);
}

static int finish(struct relay *relay, int fd, int r)
{
	if (r == 0)
		r = steer_own_socket(relay->parts.steer, fd, 0);
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static int ask_for(int fd, int family)
{
	static const int v4[] = {IP_RECVORIGDSTADDR, IP_PKTINFO, IP_RECVTOS, IP_RECVTTL};
	static const int v6[] = {IPV6_RECVORIGDSTADDR, IPV6_RECVPKTINFO, IPV6_RECVTCLASS,
				 IPV6_RECVHOPLIMIT};
	bool is_v4 = family == AF_INET;
	int r = is_v4 ? 0 : set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);

	for (size_t i = 0; r == 0 && i < sizeof(v4) / sizeof(v4[0]); i++)
		r = is_v4 ? set(fd, IPPROTO_IP, v4[i], 1) : set(fd, IPPROTO_IPV6, v6[i], 1);
	return r;
}

int socket_listen(struct relay *relay, const struct ip *address)
{
	struct sockaddr_storage sa;
	socklen_t len = ip_to_sockaddr(address, 0, &sa);
	int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	r = set_transparent(fd, sa.ss_family);
	if (r == 0)
		r = ask_for(fd, sa.ss_family);
	if (r == 0)
		r = set(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
	if (r == 0)
		r = set(fd, SOL_SOCKET, SO_RCVBUFFORCE, RELAY_RECEIVE_BUFFER);
	if (r == 0 && bind(fd, (struct sockaddr *)&sa, len) < 0)
		r = -errno;
	return finish(relay, fd, r);
}

/* A raw socket is given a copy of all that comes in of its protocol: take nothing. */
static int take_nothing(int fd)
{
	struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog filter = {.len = 1, .filter = &none};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) < 0 ? -errno
											 : 0;
}

static int raw(struct relay *relay, int family, int protocol)
{
	int fd = socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol), r;

	if (fd < 0)
		return -errno;
	r = take_nothing(fd);
	if (r == 0)
		r = set_transparent(fd, family);
	/* Fragments where they are needed: nothing here would send a smaller datagram. */
	if (r == 0)
		r = family == AF_INET
			    ? set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
			    : set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
	/* The kernel fills the checksum of UDP at this offset; of ICMPv6 it does anyway. */
	if (r == 0 && family == AF_INET6 && protocol == IPPROTO_UDP)
		r = set(fd, IPPROTO_IPV6, IPV6_CHECKSUM, 6);
	if (r == 0)
		r = set(fd, SOL_SOCKET, SO_SNDBUFFORCE, RELAY_RECEIVE_BUFFER);
	return finish(relay, fd, r);
}

int socket_answer(struct relay *relay, int family)
{
	return raw(relay, family, IPPROTO_UDP);
}

int socket_icmp(struct relay *relay, int family)
{
	return raw(relay, family, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

/* --- addresses --- */

socklen_t place_to_sockaddr(const struct place *place, struct sockaddr_storage *ret_sa)
{
	socklen_t len = ip_to_sockaddr(&place->ip, place->port, ret_sa);

	if (ret_sa->ss_family == AF_INET6)
		((struct sockaddr_in6 *)ret_sa)->sin6_scope_id = place->scope;
	return len;
}

struct place place_from_sockaddr(const struct sockaddr_storage *sa)
{
	struct place place = {0};

	place.ip = ip_from_sockaddr((const struct sockaddr *)sa, &place.port);
	if (sa->ss_family == AF_INET6)
		place.scope = ((const struct sockaddr_in6 *)sa)->sin6_scope_id;
	return place;
}

/* --- control messages --- */

static uint8_t read_octet(const struct cmsghdr *c)
{
	int value = 0;

	/* IP_TOS comes as one octet, the others as int. */
	if (c->cmsg_len >= CMSG_LEN(sizeof(value)))
		memcpy(&value, CMSG_DATA(c), sizeof(value));
	else
		value = *CMSG_DATA(c);
	return (uint8_t)value;
}

static void read_v4(const struct cmsghdr *c, struct arrival *arrival)
{
	struct in_pktinfo info;
	struct sockaddr_storage sa = {0};

	switch (c->cmsg_type) {
	case IP_ORIGDSTADDR:
		memcpy(&sa, CMSG_DATA(c), sizeof(struct sockaddr_in));
		arrival->destination = place_from_sockaddr(&sa);
		break;
	case IP_PKTINFO:
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		arrival->interface = info.ipi_ifindex;
		break;
	case IP_TOS:
		arrival->hop.tos = read_octet(c);
		break;
	case IP_TTL:
		arrival->hop.ttl = read_octet(c);
		break;
	}
}

static void read_v6(const struct cmsghdr *c, struct arrival *arrival)
{
	struct in6_pktinfo info;
	struct sockaddr_storage sa = {0};

	switch (c->cmsg_type) {
	case IPV6_ORIGDSTADDR:
		memcpy(&sa, CMSG_DATA(c), sizeof(struct sockaddr_in6));
		arrival->destination = place_from_sockaddr(&sa);
		break;
	case IPV6_PKTINFO:
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		arrival->interface = (int)info.ipi6_ifindex;
		break;
	case IPV6_TCLASS:
		arrival->hop.tos = read_octet(c);
		break;
	case IPV6_HOPLIMIT:
		arrival->hop.ttl = read_octet(c);
		break;
	}
}

void control_read(struct msghdr *message, struct arrival *ret_arrival)
{
	struct arrival arrival = {0};

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level == IPPROTO_IP)
			read_v4(c, &arrival);
		else if (c->cmsg_level == IPPROTO_IPV6)
			read_v6(c, &arrival);
		else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL)
			memcpy(&arrival.overflows, CMSG_DATA(c), sizeof(arrival.overflows));
	}
	*ret_arrival = arrival;
}

static struct cmsghdr *put(struct msghdr *message, int level, int type, const void *value,
			   size_t len)
{
	struct cmsghdr *c =
		(struct cmsghdr *)((char *)message->msg_control + message->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), value, len);
	message->msg_controllen += CMSG_SPACE(len);
	return c;
}

void control_write(struct msghdr *message, union control *control, int family,
		   const struct ip *from, const struct hop *hop)
{
	bool v4 = family == AF_INET;
	int tos = hop->tos, ttl = hop->ttl;
	struct in_pktinfo info4 = {0};
	struct in6_pktinfo info6 = {0};

	message->msg_control = control;
	message->msg_controllen = 0;
	if (from && v4) {
		info4.ipi_spec_dst.s_addr = ip_v4(from);
		put(message, IPPROTO_IP, IP_PKTINFO, &info4, sizeof(info4));
	} else if (from) {
		memcpy(&info6.ipi6_addr, from->bytes, sizeof(info6.ipi6_addr));
		put(message, IPPROTO_IPV6, IPV6_PKTINFO, &info6, sizeof(info6));
	}
	if (tos)
		put(message, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, &tos,
		    sizeof(tos));
	if (ttl)
		put(message, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TTL : IPV6_HOPLIMIT, &ttl,
		    sizeof(ttl));
	if (!message->msg_controllen)
		message->msg_control = NULL;
}

/* --- checksums (RFC 1071): of pieces, all but the last of even length --- */

uint32_t checksum_add(uint32_t sum, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	uint64_t wide = sum;
	uint32_t word;

	for (; len >= sizeof(word); at += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		wide += word;
	}
	word = 0;
	memcpy(&word, at, len);
	wide += word;
	while (wide >> 32)
		wide = (wide & 0xffffffff) + (wide >> 32);
	return (uint32_t)wide;
}

/* As it is written to the packet. */
uint16_t checksum_fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}
