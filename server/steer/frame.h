/*
 * Small frames, built octet by octet, for trial runs. A frame that does not fit is a mistake of
 * the caller and aborts. All numbers in host order.
 */
#pragma once

#include "base/ip.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAME_BYTES = 256, FRAME_ETHERNET = 14, FRAME_MAC = 6 };
extern const uint8_t FRAME_MAC_PEER[FRAME_MAC], FRAME_MAC_DEVICE[FRAME_MAC];

struct frame {
	uint8_t bytes[FRAME_BYTES];
	size_t len;
	size_t l3, l4;
};

struct frame_tcp {
	const struct ip *source, *destination;
	uint16_t source_port, port;
	uint8_t flags;	/* TH_* */
	size_t payload; /* octets */
	bool partial;	/* only the pseudo-header's sum in the checksum, as on lo */
	uint8_t vlan_tags;
};

/* has_mac: with an Ethernet header. The frame is begun anew. */
void frame_tcp(struct frame *frame, bool has_mac, const struct frame_tcp *tcp);
/* A DNS question for a.test, with a whole checksum. */
void frame_dns(struct frame *frame, bool has_mac, const struct ip *source,
	       const struct ip *destination, uint16_t source_port);
/* body: octets behind the type, code and checksum. ICMPv6 with hop limit 255; router_alert: in a
 * hop-by-hop header, and hop limit 1, as MLD has it (RFC 2710, 3). Of IPv4: an echo request. */
struct frame_icmp {
	const struct ip *source, *destination;
	uint8_t type;
	const uint8_t *body;
	size_t len;
	bool router_alert;
};
void frame_icmp(struct frame *frame, bool has_mac, const struct frame_icmp *icmp);
/* operation: 1 request, 2 reply. */
void frame_arp(struct frame *frame, uint16_t operation, const struct ip *sender,
	       const struct ip *target);
