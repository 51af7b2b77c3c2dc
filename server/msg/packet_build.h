/*
 * One packet as bytes: built from what a person asks about, read back as far as a person wants
 * to know, told as text. Pure: bytes in, bytes or structs out, no I/O. Numbers in host order.
 */
#pragma once

#include "base/ip.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PACKET_ETHERNET = 14,
	PACKET_TCP_SYN = 0x02,
	PACKET_TCP_RST = 0x04,
	PACKET_TCP_ACK = 0x10,
	PACKET_TEXT_MAX = 512,
};

struct packet_wanted {
	bool has_mac;		       /* with an Ethernet header */
	struct ip source, destination; /* of one family */
	uint8_t protocol; /* IPPROTO_TCP: a SYN; _UDP; _ICMP: an echo request, of either family */
	uint16_t source_port, port;
	const uint8_t *payload; /* of UDP and of an echo request */
	size_t payload_len;
};
/* With whole checksums. Its length; 0: size is too small, or the families differ. */
size_t packet_build(uint8_t *buffer, size_t size, const struct packet_wanted *wanted);

struct packet_facts {
	uint16_t ethertype; /* behind VLAN tags; without Ethernet: as the version says */
	uint8_t family;	    /* 4 or 6; 0: not IP, and nothing below is known */
	uint8_t protocol;   /* behind extension headers */
	bool fragment;	    /* one of several: what is below may be somebody's payload */
	bool whole;	    /* ports, type and payload are known */
	struct ip source, destination;
	uint16_t source_port, port; /* TCP, UDP */
	uint8_t tcp_flags;
	uint8_t icmp_type, icmp_code;
	const uint8_t *payload; /* of TCP, UDP, ICMP; in the packet */
	size_t payload_len;
};
/* 0, or -EBADMSG: truncated, or headers that contradict each other. */
int packet_read(const uint8_t *packet, size_t len, bool has_mac, struct packet_facts *ret_facts)
	__attribute__((warn_unused_result));
/* "ICMP port unreachable from 203.0.113.9 to 192.0.2.2"; buffer of PACKET_TEXT_MAX, returned. */
const char *packet_text(const uint8_t *packet, size_t len, bool has_mac, char *buffer);
