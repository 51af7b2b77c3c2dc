#include "steer/frame.h"

#include <net/ethernet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

const uint8_t FRAME_MAC_PEER[FRAME_MAC] = {0x02, 0, 0, 0, 0, 0x0a};
const uint8_t FRAME_MAC_DEVICE[FRAME_MAC] = {0x02, 0, 0, 0, 0, 0x0d};

static void add(struct frame *f, const void *bytes, size_t len)
{
	if (len > sizeof(f->bytes) - f->len)
		abort();
	if (bytes)
		memcpy(f->bytes + f->len, bytes, len);
	else
		memset(f->bytes + f->len, 0, len);
	f->len += len;
}

static void add_u8(struct frame *f, unsigned value)
{
	uint8_t octet = (uint8_t)value;

	add(f, &octet, 1);
}

static void add_u16(struct frame *f, unsigned value)
{
	add_u8(f, value >> 8);
	add_u8(f, value);
}

static void put_u16(struct frame *f, size_t at, unsigned value)
{
	f->bytes[at] = (uint8_t)(value >> 8);
	f->bytes[at + 1] = (uint8_t)value;
}

/* RFC 1071 */
static unsigned sum(const uint8_t *bytes, size_t len, unsigned so_far)
{
	for (size_t i = 0; i < len; i++)
		so_far += i % 2 ? bytes[i] : (unsigned)bytes[i] << 8;
	while (so_far >> 16)
		so_far = (so_far & 0xffff) + (so_far >> 16);
	return so_far;
}

/* Where a group's frames go (RFC 1112, 6.4; RFC 2464, 7). */
static void group_mac(const struct ip *to, uint8_t *ret_mac)
{
	if (ip_is_v4(to)) {
		memcpy(ret_mac, (uint8_t[]){0x01, 0x00, 0x5e}, 3);
		memcpy(ret_mac + 3, to->bytes + 13, 3);
		ret_mac[3] &= 0x7f;
	} else {
		memset(ret_mac, 0x33, 2);
		memcpy(ret_mac + 2, to->bytes + 12, 4);
	}
}

static bool is_group(const struct ip *to)
{
	return ip_is_v4(to) ? (to->bytes[12] & 0xf0) == 0xe0 : to->bytes[0] == 0xff;
}

static void begin(struct frame *f, bool has_mac, const struct ip *to, unsigned vlan_tags)
{
	uint8_t mac[FRAME_MAC];

	f->len = 0;
	if (has_mac) {
		memcpy(mac, FRAME_MAC_DEVICE, sizeof(mac));
		if (is_group(to))
			group_mac(to, mac);
		add(f, mac, sizeof(mac));
		add(f, FRAME_MAC_PEER, sizeof(mac));
		for (unsigned i = 0; i < vlan_tags; i++) {
			add_u16(f, ETHERTYPE_VLAN);
			add_u16(f, 7);
		}
		add_u16(f, ip_is_v4(to) ? ETHERTYPE_IP : ETHERTYPE_IPV6);
	}
	f->l3 = f->len;
}

static void add_ip(struct frame *f, const struct ip *from, const struct ip *to, unsigned protocol,
		   unsigned hops)
{
	bool v4 = ip_is_v4(to);

	add_u16(f, v4 ? 0x4500 : 0x6000);
	add_u16(f, 0);
	add_u16(f, 0); /* IPv4: id; IPv6: length */
	if (v4) {
		add_u16(f, 0x4000);
		add_u8(f, hops);
		add_u8(f, protocol);
		add_u16(f, 0);
		add(f, from->bytes + 12, 4);
		add(f, to->bytes + 12, 4);
	} else {
		add_u8(f, protocol);
		add_u8(f, hops);
		add(f, from->bytes, 16);
		add(f, to->bytes, 16);
	}
	f->l4 = f->len;
}

/* Lengths and the IP header's checksum, as the frame now ends. */
static void end_ip(struct frame *f)
{
	if (f->bytes[f->l3] >> 4 == 4) {
		put_u16(f, f->l3 + 2, (unsigned)(f->len - f->l3));
		put_u16(f, f->l3 + 10, 0);
		put_u16(f, f->l3 + 10, ~sum(f->bytes + f->l3, 20, 0) & 0xffff);
	} else {
		put_u16(f, f->l3 + 4, (unsigned)(f->len - f->l3 - 40));
	}
}

/* at: of the checksum in layer 4. partial: RFC 1071's sum of the pseudo-header, not inverted, for
 * a device to complete. */
static void end_l4(struct frame *f, unsigned protocol, size_t at, bool partial)
{
	bool v4 = f->bytes[f->l3] >> 4 == 4;
	size_t len = f->len - f->l4;
	unsigned pseudo =
		sum(f->bytes + f->l3 + (v4 ? 12 : 8), v4 ? 8 : 32, (unsigned)(protocol + len));

	put_u16(f, f->l4 + at, 0);
	if (!partial)
		pseudo = ~sum(f->bytes + f->l4, len, pseudo) & 0xffff;
	put_u16(f, f->l4 + at, pseudo);
	end_ip(f);
}

void frame_tcp(struct frame *frame, bool has_mac, const struct frame_tcp *tcp)
{
	begin(frame, has_mac, tcp->destination, tcp->vlan_tags);
	add_ip(frame, tcp->source, tcp->destination, IPPROTO_TCP, 64);
	add_u16(frame, tcp->source_port);
	add_u16(frame, tcp->port);
	add(frame, (uint8_t[]){0, 0, 0x10, 1, 0, 0, 0x20, 1}, 8); /* sequence, acknowledgement */
	add_u8(frame, 0x50);
	add_u8(frame, tcp->flags);
	add_u16(frame, 0xfaf0);
	add_u16(frame, 0);
	add_u16(frame, 0);
	add(frame, NULL, tcp->payload);
	end_l4(frame, IPPROTO_TCP, 16, tcp->partial);
}

void frame_dns(struct frame *frame, bool has_mac, const struct ip *source,
	       const struct ip *destination, uint16_t source_port)
{
	static const uint8_t question[] = {0x12, 0x34, 1, 0,   0,   1,	 0,   0, 0, 0, 0, 0,
					   1,	 'a',  4, 't', 'e', 's', 't', 0, 0, 1, 0, 1};

	begin(frame, has_mac, destination, 0);
	add_ip(frame, source, destination, IPPROTO_UDP, 64);
	add_u16(frame, source_port);
	add_u16(frame, 53);
	add_u16(frame, 8 + sizeof(question));
	add_u16(frame, 0);
	add(frame, question, sizeof(question));
	end_l4(frame, IPPROTO_UDP, 6, false);
}

/* RFC 2711: for Multicast Listener Discovery, in a header of its own. */
static void add_router_alert(struct frame *f)
{
	add(f, (uint8_t[]){IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0}, 8);
	f->l4 = f->len;
}

void frame_icmp(struct frame *frame, bool has_mac, const struct frame_icmp *icmp)
{
	bool v4 = ip_is_v4(icmp->destination);
	unsigned protocol = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;

	begin(frame, has_mac, icmp->destination, 0);
	add_ip(frame, icmp->source, icmp->destination,
	       icmp->router_alert ? IPPROTO_HOPOPTS : protocol, icmp->router_alert ? 1 : 255);
	if (icmp->router_alert)
		add_router_alert(frame);
	add_u8(frame, icmp->type);
	add_u8(frame, 0);
	add_u16(frame, 0);
	add(frame, icmp->body, icmp->len);
	end_l4(frame, protocol, 2, false);
	if (v4) { /* without a pseudo-header (RFC 792) */
		put_u16(frame, frame->l4 + 2, 0);
		put_u16(frame, frame->l4 + 2,
			~sum(frame->bytes + frame->l4, frame->len - frame->l4, 0) & 0xffff);
	}
}

void frame_arp(struct frame *frame, uint16_t operation, const struct ip *sender,
	       const struct ip *target)
{
	frame->len = 0;
	if (operation == 1)
		add(frame, (uint8_t[]){0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, FRAME_MAC);
	else
		add(frame, FRAME_MAC_DEVICE, FRAME_MAC);
	add(frame, FRAME_MAC_PEER, FRAME_MAC);
	add_u16(frame, ETHERTYPE_ARP);
	add_u16(frame, 1); /* Ethernet */
	add_u16(frame, ETHERTYPE_IP);
	add_u8(frame, FRAME_MAC);
	add_u8(frame, 4);
	add_u16(frame, operation);
	add(frame, FRAME_MAC_PEER, FRAME_MAC);
	add(frame, sender->bytes + 12, 4);
	add(frame, operation == 1 ? NULL : FRAME_MAC_DEVICE, FRAME_MAC);
	add(frame, target->bytes + 12, 4);
	add(frame, NULL, 18); /* to the 60 octets of the shortest frame */
}
