/*
 * IP addresses of both families as one value: 16 bytes, an IPv4 address in its
 * mapped form ::ffff:a.b.c.d. Pure values, no I/O.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum { IP_TEXT_MAX = INET6_ADDRSTRLEN };

struct ip {
	uint8_t bytes[16]; /* network byte order */
};

struct ip_prefix {
	struct ip ip;
	uint8_t bits; /* 0 to 128, counted in the mapped form: 96 + n for IPv4 */
};

bool ip_is_v4(const struct ip *ip);
bool ip_equal(const struct ip *a, const struct ip *b);
bool ip_is_loopback(const struct ip *ip); /* 127.0.0.0/8, ::1 */
bool ip_is_link_local(const struct ip *ip);
struct ip ip_from_v4(uint32_t address_be);
struct ip ip_from_v6(const void *bytes16);
uint32_t ip_v4(const struct ip *ip); /* network byte order; only for an IPv4 address */

/* 0 or -EINVAL. */
int ip_parse(const char *text, struct ip *ret_ip) __attribute__((warn_unused_result));
/* "192.0.2.1", "2001:db8::1"; buffer of IP_TEXT_MAX bytes, which is returned. */
const char *ip_format(const struct ip *ip, char *buffer);

/* "192.0.2.0/24", "2001:db8::/32" or a bare address (a host prefix); 0 or -EINVAL. */
int ip_prefix_parse(const char *text, struct ip_prefix *ret_prefix)
	__attribute__((warn_unused_result));
bool ip_prefix_contains(const struct ip_prefix *prefix, const struct ip *ip);
/* The n-th address of the prefix, 0 being the network address itself. */
struct ip ip_prefix_nth(const struct ip_prefix *prefix, uint64_t n);

/* port in host byte order. A mapped IPv4 sockaddr_in6 comes out as IPv4. */
struct ip ip_from_sockaddr(const struct sockaddr *sa, uint16_t *ret_port);
/* AF_INET for an IPv4 address, AF_INET6 else; returns the length. */
socklen_t ip_to_sockaddr(const struct ip *ip, uint16_t port, struct sockaddr_storage *ret_sa);
