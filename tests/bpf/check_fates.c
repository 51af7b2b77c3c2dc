/* links: PkgConfig::LIBBPF PkgConfig::LIBELF */
/*
 * The table of what becomes of every kind of packet, run through the programs row by row, for
 * each family. docs/fates.md is written from it and compared with it: HOLDFAST_WRITE_FATES=1
 * check_fates writes the page.
 */
#include "steer_bench.h"

#include "guard.skel.h"
#include "lookup.skel.h"

#include <fcntl.h>
#include <linux/pkt_cls.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the sender is told, and in the page's words. The first ones are read from the reply. */
#define HEARS(X)                                                       \
	X(NOTHING, "nothing")                                          \
	X(RESET, "RST")                                                \
	X(PORT, "ICMP: port unreachable")                              \
	X(NET, "ICMP: net unreachable; ICMPv6: no route")              \
	X(HOST, "ICMP: host unreachable; ICMPv6: address unreachable") \
	X(PROTOCOL, "ICMP: protocol unreachable; ICMPv6: prohibited")  \
	X(PROHIBITED, "ICMP, ICMPv6: prohibited")                      \
	X(ECHO, "the echo reply")                                      \
	X(DNS, "the answer")                                           \
	X(TAKER, "what the device or the network says")                \
	X(DAEMON, "what the daemon says")                              \
	X(WORLD, "what the other side says")
#define HEARS_ENUM(id, text) HEARS_##id,
#define HEARS_TEXT(id, text) text,
enum hears { HEARS(HEARS_ENUM) };
static const char *const hears_texts[] = {HEARS(HEARS_TEXT)};

/* What is so while the packet comes. */
enum {
	OFFLINE = 1,   /* no link is online */
	DEAD = 2,      /* the daemon is gone */
	QUIC = 4,      /* a rule relays UDP port 443 */
	RING_FULL = 8, /* the relay does not keep up */
	FLOOD = 16,    /* many were refused just before */
	FROM_HOST = 32,
	ALLOW = 64,	    /* guard.allow names it */
	EXEMPT = 128,	    /* it is of an exempt user */
	NOT_ON_BENCH = 256, /* needs sockets: check_guard_sockets.c */
};

struct fate {
	const char *what;
	const char *to4, *to6; /* NULL: not of this family */
	unsigned protocol;     /* 0 with both NULL: not IP, port is the ethertype */
	unsigned port;	       /* TCP, UDP; of an ICMP message its type; V6: in the other half */
	enum hf_verdict verdict;
	enum hf_reason reason;
	enum hears hears;
	unsigned state;
	void (*change)(struct frame *f);
};
#define V6(type) ((type) << 16)
#define ICMP	 IPPROTO_ICMP /* of either family */

/* --- changes to a packet that is right ---------------------------------------------------- */

static void insert(struct frame *f, size_t at, const void *bytes, size_t len)
{
	ck_assert_uint_le(f->len + len, sizeof(f->bytes));
	memmove(f->bytes + at + len, f->bytes + at, f->len - at);
	memcpy(f->bytes + at, bytes, len);
	f->len += len;
}

/* An extension header of 8 octets in front of the others. */
static void insert_extension(struct frame *f, unsigned kind, const uint8_t bytes[8])
{
	uint8_t extension[8];

	memcpy(extension, bytes, 8);
	extension[0] = f->bytes[f->l3 + 6];
	f->bytes[f->l3 + 6] = (uint8_t)kind;
	insert(f, f->l3 + 40, extension, 8);
	frame_end(f);
}

/* The field as IPv4 has it: MF is 0x2000. */
static void fragment(struct frame *f, unsigned field)
{
	unsigned v6 = (field & 0x1fff) << 3 | (field & 0x2000) >> 13;

	if (f->family == 4) {
		put_u16(f->bytes + f->l3 + 6, field);
		frame_end(f);
		return;
	}
	insert_extension(f, 44,
			 (const uint8_t[8]){0, 0, (uint8_t)(v6 >> 8), (uint8_t)v6, 0, 0, 0, 7});
}

static void first_fragment(struct frame *f)
{
	fragment(f, 0x2000);
}

static void later_fragment(struct frame *f)
{
	fragment(f, 0x0010);
}

static void atomic_fragment(struct frame *f)
{
	fragment(f, 0);
}

static void cut(struct frame *f)
{
	f->len--;
}

static void spoil_sum(struct frame *f)
{
	f->bytes[f->l3 + 10] ^= 1;
}

static void broadcast_frame(struct frame *f)
{
	memset(f->bytes, 0xff, 6);
}

static void set_source(struct frame *f, const char *v4, const char *v6)
{
	uint8_t *at = f->bytes + f->l3 + (f->family == 4 ? 12 : 8);

	ck_assert_int_eq(
		inet_pton(f->family == 4 ? AF_INET : AF_INET6, f->family == 4 ? v4 : v6, at), 1);
	frame_end(f);
}

static void from_nowhere(struct frame *f)
{
	set_source(f, "0.0.0.0", "::");
}

static void from_dhcp_client(struct frame *f)
{
	from_nowhere(f);
	broadcast_frame(f);
}

static void from_group(struct frame *f)
{
	set_source(f, "224.0.0.5", "ff02::5");
}

static void from_loopback(struct frame *f)
{
	set_source(f, "127.0.0.1", "::1");
}

static void from_device(struct frame *f)
{
	set_source(f, DEVICE4, DEVICE6);
}

static void jumbo(struct frame *f)
{
	insert_extension(f, 0, (const uint8_t[8]){0, 0, 0xc2, 4, 0, 1, 0, 0});
	put_u16(f->bytes + f->l3 + 4, 0);
}

static void destination_options(struct frame *f)
{
	insert_extension(f, 60, (const uint8_t[8]){0, 0, 1, 4});
}

static void many_extensions(struct frame *f)
{
	for (int i = 0; i < 6; i++)
		destination_options(f);
}

static void hop_by_hop(struct frame *f)
{
	insert_extension(f, 0, (const uint8_t[8]){0, 0, 5, 2, 0, 0, 1, 0});
}

static void source_route(struct frame *f)
{
	insert_extension(f, 43, (const uint8_t[8]){0, 0, 4, 1});
}

static void ip_options(struct frame *f)
{
	if (f->family == 6) {
		destination_options(f);
		return;
	}
	f->bytes[f->l3] = 0x46;
	insert(f, f->l3 + 20, (const uint8_t[]){1, 1, 1, 0}, 4);
	frame_end(f);
}

static void tag(struct frame *f, unsigned type, unsigned tci)
{
	insert(f, 12, (const uint8_t[]){(uint8_t)(type >> 8), 0, (uint8_t)(tci >> 8), (uint8_t)tci},
	       4);
	f->l3 += 4;
	f->l4 += 4;
}

static void vlan(struct frame *f)
{
	tag(f, 0x8100, 7);
}

static void priority_tag(struct frame *f)
{
	tag(f, 0x8100, 0xe000);
}

static void two_tags(struct frame *f)
{
	tag(f, 0x8100, 7);
	tag(f, 0x8100, 8);
}

static void three_tags(struct frame *f)
{
	two_tags(f);
	tag(f, 0x8100, 9);
}

static void data_segment(struct frame *f)
{
	f->bytes[f->l4 + 13] = 0x18;
}

static void reset_segment(struct frame *f)
{
	f->bytes[f->l4 + 13] = 0x04;
}

static void bare_reset(struct frame *f)
{
	reset_segment(f);
	f->len = f->l4 + 20;
	frame_end(f);
}

static void no_payload(struct frame *f)
{
	f->len = f->l4;
	frame_end(f);
}

static void large(struct frame *f)
{
	frame_add(f, NULL, HF_RAISED_MAX);
	frame_end(f);
}

static void set_hops(struct frame *f, unsigned hops)
{
	f->bytes[f->l3 + (f->family == 4 ? 8 : 7)] = (uint8_t)hops;
	frame_end(f);
}

static void hops_255(struct frame *f)
{
	set_hops(f, 255);
}

static void hops_1(struct frame *f)
{
	set_hops(f, 1);
}

static void report_hops_1(struct frame *f)
{
	hop_by_hop(f);
	set_hops(f, 1);
}

static void dhcp_request(struct frame *f)
{
	f->len = f->l4 + 8;
	put_u16(f->bytes + f->l4, f->family == 4 ? 68 : 546);
	frame_u8(f, 1);
	frame_add(f, NULL, 235);
	frame_u32(f, 0x63825363);
	frame_end_udp(f);
}

/* About a packet of whoever it is sent to. */
static void quoting(struct frame *f)
{
	size_t size = f->family == 4 ? 4 : 16, source = f->family == 4 ? 12 : 8;

	f->len = f->l4 + 8;
	frame_add(f, f->bytes + f->l3, source);
	frame_add(f, f->bytes + f->l3 + source + size, size);
	frame_add(f, f->bytes + f->l3 + source, size);
	frame_end(f);
}

static void known_question(struct frame *f)
{
	static const uint8_t wire[] = "\3www\7example";
	struct hf_name_key key = {.qtype = 1, .len = sizeof(wire)};
	struct hf_name name = {.virtual_known = 1, .always = 1, .virtual_address = to_ip(VIRTUAL4)};

	memcpy(key.wire, wire, sizeof(wire));
	put(bpf_map__fd(steer->maps.names), &key, &name);
	f->len = f->l4 + 8;
	frame_u32(f, 0x47110100);
	frame_u32(f, 0x00010000);
	frame_u32(f, 0);
	frame_add(f, wire, sizeof(wire));
	frame_u32(f, 0x00010001);
	frame_end_udp(f);
}

/* --- steer -------------------------------------------------------------------------------- */

#define FAR	    FAR4, FAR6
#define ANY_VIRTUAL VIRTUAL4, VIRTUAL6
#define DEVICE	    DEVICE4, DEVICE6
#define INTERNAL    INTERNAL4, INTERNAL6
#define APP_NETWORK "192.0.2.77", "2001:db8:a::77"
#define NO_IP	    NULL, NULL, 0
#define ONLY4(to)   to, NULL
#define ONLY6(to)   NULL, to

static const struct fate steer_fates[] = {
	{"ARP", NO_IP, 0x0806, V(PASS, NEIGHBOUR), .hears = HEARS_TAKER},
	{"EAPOL: the device may be its apps' access point", NO_IP, 0x888e, V(PASS, LINK_CONTROL),
	 .hears = HEARS_TAKER},
	{"LLDP and every other network protocol", NO_IP, 0x88cc, V(DROP, ETHERTYPE),
	 .hears = HEARS_NOTHING},
	{"with one VLAN tag: as without", FAR, TCP, 443, V(STEER, TCP_PROXY), .hears = HEARS_DAEMON,
	 .change = vlan},
	{"with a priority tag: as without", FAR, TCP, 443, V(STEER, TCP_PROXY),
	 .hears = HEARS_DAEMON, .change = priority_tag},
	{"with two VLAN tags: as without", FAR, TCP, 443, V(STEER, TCP_PROXY),
	 .hears = HEARS_DAEMON, .change = two_tags},
	{"with three VLAN tags", FAR, TCP, 443, V(DROP, ETHERTYPE), .hears = HEARS_NOTHING,
	 .change = three_tags},

	{"truncated, or with lengths that contradict each other", FAR, TCP, 443, V(DROP, MALFORMED),
	 .hears = HEARS_NOTHING, .change = cut},
	{"a wrong IPv4 header checksum, where the program would answer or refuse", ONLY4(FAR4), UDP,
	 443, V(DROP, MALFORMED), .hears = HEARS_NOTHING, .change = spoil_sum},
	{"a jumbogram (RFC 2675)", ONLY6(FAR6), TCP, 443, V(DROP, MALFORMED),
	 .hears = HEARS_NOTHING, .change = jumbo},
	{"with more than five IPv6 extension headers, or 256 octets of them", ONLY6(FAR6), TCP, 443,
	 V(DROP, MALFORMED), .hears = HEARS_NOTHING, .change = many_extensions},
	{"with fewer IPv6 extension headers: as without", ONLY6(FAR6), TCP, 443,
	 V(STEER, TCP_PROXY), .hears = HEARS_DAEMON, .change = destination_options},
	{"with IPv4 options: as without", ONLY4(FAR4), TCP, 443, V(STEER, TCP_PROXY),
	 .hears = HEARS_DAEMON, .change = ip_options},
	{"with an IPv6 routing header that names further hops", ONLY6(FAR6), TCP, 443,
	 V(REFUSE, PROTOCOL_REFUSED), .hears = HEARS_PROTOCOL, .change = source_route},

	{"neighbour and router discovery, redirects", ONLY6("ff02::1:ff00:9"), ICMP, V6(135),
	 V(PASS, NEIGHBOUR), .hears = HEARS_TAKER},
	{"MLD reports and queries", ONLY6("ff02::16"), ICMP, V6(143), V(PASS, NEIGHBOUR),
	 .hears = HEARS_TAKER, .change = hop_by_hop},
	{"IGMP", ONLY4("224.0.0.22"), IPPROTO_IGMP, 0, V(PASS, MULTICAST), .hears = HEARS_TAKER},
	{"to a multicast group, mDNS among them", "224.0.0.251", "ff02::fb", UDP, 5353,
	 V(PASS, MULTICAST), .hears = HEARS_TAKER},
	{"DHCP from a client without an address", ONLY4("255.255.255.255"), UDP, 67,
	 V(PASS, MULTICAST), .hears = HEARS_TAKER, .change = from_dhcp_client},
	{"to the broadcast address of an app's network", ONLY4("192.0.2.255"), UDP, 137,
	 V(PASS, MULTICAST), .hears = HEARS_TAKER, .change = broadcast_frame},
	{"a broadcast frame with a packet for a single address elsewhere", FAR, TCP, 443,
	 V(DROP, MARTIAN), .hears = HEARS_NOTHING, .change = broadcast_frame},

	{"from no address", FAR, UDP, 123, V(DROP, MARTIAN), .hears = HEARS_NOTHING,
	 .change = from_nowhere},
	{"from a multicast or broadcast address", FAR, UDP, 123, V(DROP, MARTIAN),
	 .hears = HEARS_NOTHING, .change = from_group},
	{"from a loopback address, on an app interface", FAR, TCP, 443, V(DROP, MARTIAN),
	 .hears = HEARS_NOTHING, .change = from_loopback},
	{"from an address of the device, on an app interface", FAR, TCP, 443, V(DROP, MARTIAN),
	 .hears = HEARS_NOTHING, .change = from_device},
	{"from an address of the device to that same address, on an app interface", DEVICE, TCP,
	 443, V(DROP, MARTIAN), .hears = HEARS_NOTHING, .change = from_device},
	{"to 0.0.0.0 or ::", "0.0.0.0", "::", UDP, 123, V(DROP, MARTIAN), .hears = HEARS_NOTHING},
	{"to a loopback address, on an app interface", "127.0.0.1", "::1", UDP, 53,
	 V(DROP, MARTIAN), .hears = HEARS_NOTHING},
	{"to a loopback address, from the device itself", "127.0.0.1", "::1", TCP, 7080,
	 V(PASS, DEVICE_ADDRESS), .hears = HEARS_TAKER, .state = FROM_HOST},

	{"DNS over UDP, one question for an address that is known", FAR, UDP, 53,
	 V(ANSWER, DNS_KERNEL), .hears = HEARS_DNS, .change = known_question},
	{"the same while the daemon is gone", FAR, UDP, 53, V(ANSWER, DNS_KERNEL),
	 .hears = HEARS_DNS, .state = DEAD, .change = known_question},
	{"other DNS over UDP", FAR, UDP, 53, V(STEER, DNS_RESOLVER), .hears = HEARS_DAEMON},
	{"the same while the daemon is gone", FAR, UDP, 53, V(REFUSE, NO_LISTENER),
	 .hears = HEARS_PORT, .state = DEAD},
	{"DNS over TCP", FAR, TCP, 53, V(STEER, DNS_RESOLVER), .hears = HEARS_DAEMON},
	{"a connection attempt for DNS while the daemon is gone", FAR, TCP, 53,
	 V(REFUSE, NO_LISTENER), .hears = HEARS_RESET, .state = DEAD},
	{"DNS to the device itself", DEVICE, UDP, 53, V(STEER, DNS_RESOLVER),
	 .hears = HEARS_DAEMON},
	{"DNS to a server in an app's network", APP_NETWORK, UDP, 53, V(STEER, DNS_RESOLVER),
	 .hears = HEARS_DAEMON},
	{"DNS to a stub on the device, from the device itself", "127.0.0.53", NULL, UDP, 53,
	 V(STEER, DNS_RESOLVER), .hears = HEARS_DAEMON, .state = FROM_HOST},

	{"to an address of the device, whatever it is", DEVICE, TCP, 22, V(PASS, DEVICE_ADDRESS),
	 .hears = HEARS_TAKER},
	{"fragments to an address of the device", DEVICE, UDP, 5000, V(PASS, DEVICE_ADDRESS),
	 .hears = HEARS_TAKER, .change = first_fragment},
	{"to an app's network, TCP", APP_NETWORK, TCP, 80, V(PASS, APP_NETWORK),
	 .hears = HEARS_TAKER},
	{"to an app's network, UDP", APP_NETWORK, UDP, 443, V(PASS, APP_NETWORK),
	 .hears = HEARS_TAKER},
	{"to an app's network, echo requests", APP_NETWORK, ICMP, 8 | V6(128), V(PASS, APP_NETWORK),
	 .hears = HEARS_TAKER},
	{"to an app's network, other protocols and fragments", APP_NETWORK, 132, 0,
	 V(PASS, APP_NETWORK), .hears = HEARS_TAKER, .change = later_fragment},
	{"to an IPv6 link-local address", ONLY6("fe80::7"), TCP, 80, V(PASS, LOCAL_NETWORK),
	 .hears = HEARS_TAKER},
	{"TCP to an IPv4 link-local address that is in no app's network", ONLY4("169.254.169.254"),
	 TCP, 80, V(REFUSE, LOCAL_NETWORK), .hears = HEARS_RESET},
	{"UDP there", ONLY4("169.254.169.254"), UDP, 123, V(REFUSE, LOCAL_NETWORK),
	 .hears = HEARS_PORT},
	{"echo requests and other protocols there", ONLY4("169.254.169.254"), ICMP, 8,
	 V(REFUSE, LOCAL_NETWORK), .hears = HEARS_HOST},
	{"fragments and other ICMP there", ONLY4("169.254.169.254"), UDP, 123,
	 V(DROP, LOCAL_NETWORK), .hears = HEARS_NOTHING, .change = later_fragment},

	{"TCP to holdfast.internal, port 80", INTERNAL, TCP, 80, V(STEER, API_APPS),
	 .hears = HEARS_DAEMON},
	{"TCP to holdfast.internal, other ports but 53", INTERNAL, TCP, 443,
	 V(REFUSE, INTERNAL_PORT), .hears = HEARS_RESET},
	{"a reset to there", INTERNAL, TCP, 443, V(DROP, INTERNAL_PORT), .hears = HEARS_NOTHING,
	 .change = reset_segment},
	{"UDP to holdfast.internal but port 53", INTERNAL, UDP, 5000, V(REFUSE, INTERNAL_PORT),
	 .hears = HEARS_PORT},

	{"TCP to any other address", FAR, TCP, 443, V(STEER, TCP_PROXY), .hears = HEARS_DAEMON},
	{"TCP to a virtual address", ANY_VIRTUAL, TCP, 443, V(STEER, TCP_PROXY),
	 .hears = HEARS_DAEMON},
	{"TCP to 240.0.0.0/4, which is as any other", ONLY4("240.0.0.1"), TCP, 443,
	 V(STEER, TCP_PROXY), .hears = HEARS_DAEMON},
	{"a connection attempt while the daemon is gone", FAR, TCP, 443, V(REFUSE, NO_LISTENER),
	 .hears = HEARS_RESET, .state = DEAD},
	{"other segments while the daemon is gone: a connection that the kernel may know", FAR, TCP,
	 443, V(STEER, TCP_PROXY), .hears = HEARS_NOTHING, .state = DEAD, .change = data_segment},

	{"UDP to any other address", FAR, UDP, 123, V(STEER, UDP_RELAY), .hears = HEARS_DAEMON},
	{"UDP to a virtual address", ANY_VIRTUAL, UDP, 123, V(STEER, UDP_RELAY),
	 .hears = HEARS_DAEMON},
	{"UDP, no link online", FAR, UDP, 123, V(REFUSE, NO_LINK), .hears = HEARS_PORT,
	 .state = OFFLINE},
	{"UDP while the daemon is gone", FAR, UDP, 123, V(REFUSE, NO_LISTENER), .hears = HEARS_PORT,
	 .state = DEAD},
	{"UDP port 443", FAR, UDP, 443, V(REFUSE, QUIC_REFUSED), .hears = HEARS_PORT},
	{"UDP port 443, a rule relays it", FAR, UDP, 443, V(STEER, UDP_RELAY),
	 .hears = HEARS_DAEMON, .state = QUIC},

	{"an echo request to a virtual address", ANY_VIRTUAL, ICMP, 8 | V6(128),
	 V(ANSWER, ECHO_VIRTUAL), .hears = HEARS_ECHO},
	{"the same with options, extension headers, or more than 1500 octets", ANY_VIRTUAL, ICMP,
	 8 | V6(128), V(DROP, ECHO_VIRTUAL), .hears = HEARS_NOTHING, .change = ip_options},
	{"an echo request to any other address", FAR, ICMP, 8 | V6(128), V(STEER, ECHO_RELAY),
	 .hears = HEARS_DAEMON},
	{"the same, no link online", FAR, ICMP, 8 | V6(128), V(REFUSE, NO_LINK), .hears = HEARS_NET,
	 .state = OFFLINE},
	{"the same while the daemon is gone", FAR, ICMP, 8 | V6(128), V(REFUSE, NO_LISTENER),
	 .hears = HEARS_NET, .state = DEAD},
	{"the same, more than the daemon reads", FAR, ICMP, 8 | V6(128), V(REFUSE, RELAY_FULL),
	 .hears = HEARS_HOST, .state = RING_FULL},
	{"the same, of more than 1500 octets", FAR, ICMP, 8 | V6(128), V(REFUSE, ECHO_REFUSED),
	 .hears = HEARS_PROHIBITED, .change = large},
	{"ICMP errors", FAR, ICMP, 3 | V6(1), V(PASS, ICMP_ERROR), .hears = HEARS_NOTHING},
	{"other ICMP messages", FAR, ICMP, 13 | V6(129), V(DROP, PROTOCOL_REFUSED),
	 .hears = HEARS_NOTHING},

	{"fragments of TCP", FAR, TCP, 443, V(STEER, FRAGMENT_STEERED), .hears = HEARS_DAEMON,
	 .change = first_fragment},
	{"fragments of UDP", FAR, UDP, 53, V(STEER, FRAGMENT_STEERED), .hears = HEARS_DAEMON,
	 .change = later_fragment},
	{"atomic fragments (RFC 6946): as whole packets", ONLY6(FAR6), UDP, 443,
	 V(REFUSE, QUIC_REFUSED), .hears = HEARS_PORT, .change = atomic_fragment},
	{"the first fragment of an echo request or of another protocol", FAR, ICMP, 8 | V6(128),
	 V(REFUSE, FRAGMENT), .hears = HEARS_PROHIBITED, .change = first_fragment},
	{"later ones, and fragments of other ICMP", FAR, ICMP, 8 | V6(128), V(DROP, FRAGMENT),
	 .hears = HEARS_NOTHING, .change = later_fragment},

	{"SCTP", FAR, 132, 0, V(REFUSE, PROTOCOL_REFUSED), .hears = HEARS_PROTOCOL},
	{"GRE", FAR, IPPROTO_GRE, 0, V(REFUSE, PROTOCOL_REFUSED), .hears = HEARS_PROTOCOL},
	{"ESP", FAR, IPPROTO_ESP, 0, V(REFUSE, PROTOCOL_REFUSED), .hears = HEARS_PROTOCOL},
	{"AH", FAR, IPPROTO_AH, 0, V(REFUSE, PROTOCOL_REFUSED), .hears = HEARS_PROTOCOL},
	{"IP in IP", FAR4, FAR6, IPPROTO_IPIP, 0, V(REFUSE, PROTOCOL_REFUSED),
	 .hears = HEARS_PROTOCOL},
	{"every other protocol", FAR, 253, 0, V(REFUSE, PROTOCOL_REFUSED), .hears = HEARS_PROTOCOL},
	{"the same with fewer than 8 octets to quote", FAR, 253, 0, V(DROP, PROTOCOL_REFUSED),
	 .hears = HEARS_NOTHING, .change = no_payload},
	{"what would be refused, after too many refusals", FAR, UDP, 443, V(DROP, RATE_LIMITED),
	 .hears = HEARS_NOTHING, .state = FLOOD},
};

/* --- lookup ------------------------------------------------------------------------------- */

static const struct fate lookup_fates[] = {
	{"TCP and UDP to port 53, of any address", FAR, UDP, 53, V(STEER, DNS_RESOLVER),
	 .hears = HEARS_DAEMON},
	{"TCP to holdfast.internal, port 80", INTERNAL, TCP, 80, V(STEER, API_APPS),
	 .hears = HEARS_DAEMON},
	{"other TCP and UDP to holdfast.internal: steer refuses it, but in fragments", INTERNAL,
	 TCP, 443, V(DROP, INTERNAL_PORT), .hears = HEARS_NOTHING},
	{"TCP to any other address", FAR, TCP, 443, V(STEER, TCP_PROXY), .hears = HEARS_DAEMON},
	{"UDP to any other address", FAR, UDP, 123, V(STEER, UDP_RELAY), .hears = HEARS_DAEMON},
	{"UDP port 443: steer refuses it, but in fragments", FAR, UDP, 443, V(DROP, QUIC_REFUSED),
	 .hears = HEARS_NOTHING},
	{"UDP port 443, a rule relays it", FAR, UDP, 443, V(STEER, UDP_RELAY),
	 .hears = HEARS_DAEMON, .state = QUIC},
	{"all of these while the daemon is gone", FAR, TCP, 443, V(DROP, NO_LISTENER),
	 .hears = HEARS_NOTHING, .state = DEAD},
};

/* --- guard -------------------------------------------------------------------------------- */

static const struct fate guard_fates[] = {
	{"sent by a socket of the daemon", FAR, TCP, 443, V(PASS, OWN_SOCKET), .hears = HEARS_WORLD,
	 .state = NOT_ON_BENCH},
	{"the last segments of a connection of the daemon", FAR, TCP, 443, V(PASS, OWN_TIMEWAIT),
	 .hears = HEARS_WORLD, .state = NOT_ON_BENCH},
	{"ARP", NO_IP, 0x0806, V(PASS, NEIGHBOUR), .hears = HEARS_WORLD},
	{"neighbour and router discovery, with the hop limit of 255", ONLY6("ff02::1:ff00:9"), ICMP,
	 V6(135), V(PASS, NEIGHBOUR), .hears = HEARS_WORLD, .change = hops_255},
	{"MLD, to a group, with the hop limit of 1", ONLY6("ff02::16"), ICMP, V6(143),
	 V(PASS, NEIGHBOUR), .hears = HEARS_WORLD, .change = report_hops_1},
	{"neighbour discovery that could leave the link, or in fragments", ONLY6(FAR6), ICMP,
	 V6(135), V(DROP, NOT_OURS), .hears = HEARS_NOTHING},
	{"IGMP, to a group, with a TTL of 1", ONLY4("224.0.0.22"), IPPROTO_IGMP, 0,
	 V(PASS, LINK_CONTROL), .hears = HEARS_WORLD, .change = hops_1},
	{"EAPOL", NO_IP, 0x888e, V(PASS, LINK_CONTROL), .hears = HEARS_WORLD},
	{"DHCP and DHCPv6 of a client, by their contents", "255.255.255.255", "ff02::1:2", UDP,
	 67 | V6(547), V(PASS, LINK_CONTROL), .hears = HEARS_WORLD, .change = dhcp_request},
	{"a reset without payload, from the kernel", FAR, TCP, 443, V(PASS, NO_SOCKET_RESET),
	 .hears = HEARS_WORLD, .change = bare_reset},
	{"an ICMP error from the kernel, small and about a packet of who gets it", FAR, ICMP,
	 3 | V6(1), V(PASS, NO_SOCKET_ICMP), .hears = HEARS_WORLD, .change = quoting},
	{"other ICMP errors", FAR, ICMP, 3 | V6(1), V(DROP, NOT_OURS), .hears = HEARS_NOTHING},
	{"what guard.allow lets out", FAR, UDP, 123, V(PASS, ALLOWED_SERVICE), .hears = HEARS_WORLD,
	 .state = ALLOW},
	{"sent by a user of apps.exempt_uids", FAR, UDP, 123, V(PASS, EXEMPT_USER),
	 .hears = HEARS_WORLD, .state = EXEMPT},
	{"truncated, with octets behind its end, or with lengths that contradict each other", FAR,
	 TCP, 443, V(DROP, MALFORMED), .hears = HEARS_NOTHING, .change = cut},
	{"LLDP and every other network protocol", NO_IP, 0x88cc, V(DROP, ETHERTYPE),
	 .hears = HEARS_NOTHING},
	{"fragments but the first, whatever their ports were", FAR, UDP, 123, V(DROP, NOT_OURS),
	 .hears = HEARS_NOTHING, .change = later_fragment},
	{"ICMP errors of the kernel, more than 50 in a tenth of a second", FAR, ICMP, 3 | V6(1),
	 V(DROP, RATE_LIMITED), .hears = HEARS_NOTHING, .state = FLOOD, .change = quoting},
	{"everything else: TCP", FAR, TCP, 443, V(DROP, NOT_OURS), .hears = HEARS_NOTHING},
	{"everything else: UDP", FAR, UDP, 53, V(DROP, NOT_OURS), .hears = HEARS_NOTHING},
	{"everything else: echo requests", FAR, ICMP, 8 | V6(128), V(DROP, NOT_OURS),
	 .hears = HEARS_NOTHING},
	{"everything else: other protocols", FAR, IPPROTO_ESP, 0, V(DROP, NOT_OURS),
	 .hears = HEARS_NOTHING},
};

#define COUNT(list) (sizeof(list) / sizeof(*(list)))

/* --- running them ------------------------------------------------------------------------- */

static void build_fate(struct frame *f, const struct fate *fate, bool v6)
{
	const char *to = v6 ? fate->to6 : fate->to4;
	unsigned port = v6 && fate->port >> 16 ? fate->port >> 16 : fate->port & 0xffff;
	unsigned protocol = v6 && fate->protocol == ICMP ? IPPROTO_ICMPV6 : fate->protocol;

	f->len = 0;
	if (!to) {
		begin(f, PLAIN, fate->port);
		frame_add(f, NULL, 46);
		return;
	}
	build(f, PLAIN, &(struct row){.to = to, .protocol = protocol, .port = port});
	if (fate->state & FROM_HOST)
		set_source(f, "127.0.0.1", "::1");
	if (fate->change)
		fate->change(f);
}

/* What a reply says; of ICMP one text stands for both families. */
static enum hears heard(const struct outcome *o, size_t l3)
{
	static const struct {
		uint8_t v4, v6;
		enum hears hears;
	} codes[] = {{0, 0, HEARS_NET},
		     {1, 3, HEARS_HOST},
		     {2, 1, HEARS_PROTOCOL},
		     {3, 4, HEARS_PORT},
		     {13, 1, HEARS_PROHIBITED}};
	const uint8_t *ip = o->out.bytes + l3;
	bool v6 = ip[0] >> 4 == 6;
	unsigned protocol = v6 ? ip[6] : ip[9];
	const uint8_t *l4 = ip + (v6 ? 40 : 20);

	if (protocol == IPPROTO_TCP)
		return l4[13] & 0x04 ? HEARS_RESET : HEARS_NOTHING;
	if (protocol == IPPROTO_UDP)
		return HEARS_DNS;
	if (l4[0] == (v6 ? 129 : 0))
		return HEARS_ECHO;
	ck_assert_uint_eq(l4[0], v6 ? 1 : 3);
	for (size_t i = 0; i < COUNT(codes); i++)
		if (l4[1] == (v6 ? codes[i].v6 : codes[i].v4))
			return codes[i].hears;
	ck_abort_msg("no such code: %u", l4[1]);
}

static bool is_told(const struct outcome *o, size_t l3, enum hears hears)
{
	enum hears told = heard(o, l3);

	/* One code of ICMPv6 is for two of ICMP. */
	if (o->out.bytes[l3] >> 4 == 6 && told == HEARS_PROTOCOL)
		return hears == HEARS_PROTOCOL || hears == HEARS_PROHIBITED;
	return told == hears;
}

static void prepare(const struct fate *fate, const struct frame *f)
{
	unsigned state = fate->state;
	struct outcome o = {0};

	settings.flags =
		(state & OFFLINE ? 0 : HF_FLAG_ONLINE) | (state & QUIC ? HF_FLAG_RELAY_QUIC : 0);
	put_settings();
	put_alive(!(state & DEAD));
	put_interface(state & FROM_HOST ? HF_ROLE_HOST : HF_ROLE_APP, true);
	while (state & RING_FULL && o.key.reason != HF_REASON_RELAY_FULL)
		bench_run(f, &o);
	while (state & FLOOD && o.key.reason != HF_REASON_RATE_LIMITED)
		bench_run(f, &o);
}

static uint32_t action_of(const struct fate *fate)
{
	switch (fate->verdict) {
	case HF_VERDICT_STEER: /* the ring has it, the kernel needs it no more */
		return fate->reason == HF_REASON_ECHO_RELAY ? XDP_DROP : XDP_PASS;
	case HF_VERDICT_PASS:
		return XDP_PASS;
	case HF_VERDICT_ANSWER:
	case HF_VERDICT_REFUSE:
		return XDP_TX;
	case HF_VERDICT_DROP:
		return XDP_DROP;
	case HF_VERDICT_COUNT:
		break;
	}
	abort();
}

static void run_steer(const struct fate *fate, bool v6)
{
	struct outcome o;
	struct frame f;

	bench_open(true);
	build_fate(&f, fate, v6);
	prepare(fate, &f);
	bench_run(&f, &o);
	ck_assert_msg(o.counted, "%s: not counted", fate->what);
	ck_assert_msg(o.key.verdict == fate->verdict && o.key.reason == fate->reason,
		      "%s (IPv%d): verdict %u reason %u, not %u %u", fate->what, v6 ? 6 : 4,
		      o.key.verdict, o.key.reason, fate->verdict, fate->reason);
	ck_assert_msg(o.action == action_of(fate), "%s: action %u", fate->what, o.action);
	if (o.action == XDP_TX) {
		ck_assert_msg(is_told(&o, f.l3, fate->hears), "%s (IPv%d): hears %s", fate->what,
			      v6 ? 6 : 4, hears_texts[heard(&o, f.l3)]);
		check_reply(&f, &o.out, f.l3);
	} else {
		ck_assert_msg(fate->hears == HEARS_NOTHING || fate->hears >= HEARS_TAKER,
			      "%s: nothing is sent back", fate->what);
	}
	bench_close();
}

/* A packet is run for each family that it has, and once where it is no IP. */
static void run_each(void (*run)(const struct fate *, bool), const struct fate *fate)
{
	if (fate->state & NOT_ON_BENCH)
		return;
	if (fate->to4 || !fate->to6)
		run(fate, false);
	if (fate->to6)
		run(fate, true);
}

START_TEST(steer_does_what_the_table_says)
{
	run_each(run_steer, &steer_fates[_i]);
}
END_TEST

static struct lookup_bpf *lookup;

/* Something that any of the rows can be given to. */
static int open_socket(const struct fate *fate, bool v6)
{
	int type = fate->protocol == TCP ? SOCK_STREAM : SOCK_DGRAM, one = 1;
	int fd = socket(v6 ? AF_INET6 : AF_INET, type, 0);
	struct sockaddr_in6 any = {.sin6_family = (sa_family_t)(v6 ? AF_INET6 : AF_INET)};

	ck_assert_int_ge(fd, 0);
	if (v6)
		ck_assert_int_eq(setsockopt(fd, SOL_IPV6, 26 /* IPV6_V6ONLY */, &one, sizeof(one)),
				 0);
	ck_assert_int_eq(
		bind(fd, (struct sockaddr *)&any, v6 ? sizeof(any) : sizeof(struct sockaddr_in)),
		0);
	if (type == SOCK_STREAM)
		ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

static bool fits(uint32_t which, const struct fate *fate, bool v6)
{
	bool udp = which == HF_SOCKET_DNS_UDP4 || which == HF_SOCKET_DNS_UDP6 ||
		   which == HF_SOCKET_RELAY_UDP4 || which == HF_SOCKET_RELAY_UDP6;

	return udp == (fate->protocol == UDP) && which % 2 == v6;
}

static void run_lookup(const struct fate *fate, bool v6)
{
	struct hf_ip local = to_ip(v6 ? fate->to6 : fate->to4);
	struct bpf_sk_lookup ctx = {.family = v6 ? AF_INET6 : AF_INET,
				    .protocol = fate->protocol,
				    .remote_port = htons(40000),
				    .local_port = fate->port};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &ctx, .ctx_size_in = sizeof(ctx));
	struct hf_counter_key key;
	struct hf_counter counter;
	uint32_t zero = 0;
	uint64_t fd = (uint64_t)open_socket(fate, v6);

	memcpy(ctx.local_ip6, local.bytes, 16);
	if (!v6)
		memcpy(&ctx.local_ip4, local.bytes + 12, 4);
	lookup = lookup_bpf__open();
	ck_assert_ptr_nonnull(lookup);
	load_unpinned(lookup->obj);
	settings = (struct hf_settings){.abi = HF_ABI_VERSION,
					.internal_v4 = to_ip(INTERNAL4),
					.internal_v6 = to_ip(INTERNAL6),
					.flags = fate->state & QUIC ? HF_FLAG_RELAY_QUIC : 0};
	put(bpf_map__fd(lookup->maps.settings), &zero, &settings);
	for (uint32_t i = 0; i < HF_SOCKET_COUNT; i++)
		if (!(fate->state & DEAD) && fits(i, fate, v6))
			put(bpf_map__fd(lookup->maps.sockets), &i, &fd);
	ck_assert_int_eq(bpf_prog_test_run_opts(bpf_program__fd(lookup->progs.hf_lookup), &opts),
			 0);
	ck_assert(counters_only(bpf_map__fd(lookup->maps.counters), &key, &counter));
	ck_assert_msg(key.verdict == fate->verdict && key.reason == fate->reason,
		      "%s: verdict %u reason %u", fate->what, key.verdict, key.reason);
	ck_assert_uint_eq(opts.retval, fate->verdict == HF_VERDICT_DROP ? SK_DROP : SK_PASS);
	lookup_bpf__destroy(lookup);
	close((int)fd);
}

START_TEST(lookup_does_what_the_table_says)
{
	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "needs root");
	run_each(run_lookup, &lookup_fates[_i]);
}
END_TEST

static struct guard_bpf *guard;

static void open_guard(unsigned state)
{
	struct hf_interface link = {.role = HF_ROLE_LINK, .has_mac = 1, .link = 1};
	struct hf_allow allow = {.used = 1, .protocol = IPPROTO_UDP};
	uint32_t zero = 0, ifindex = LO;

	guard = guard_bpf__open();
	ck_assert_ptr_nonnull(guard);
	load_unpinned(guard->obj);
	settings = (struct hf_settings){.abi = HF_ABI_VERSION,
					.guard_mode = HF_GUARD_ENFORCE,
					.exempt_uid_count = !!(state & EXEMPT)};
	put(bpf_map__fd(guard->maps.settings), &zero, &settings);
	put(bpf_map__fd(guard->maps.interfaces), &ifindex, &link);
	if (state & ALLOW)
		put(bpf_map__fd(guard->maps.guard_allow), &zero, &allow);
}

static void run_guard(const struct fate *fate, bool v6)
{
	struct __sk_buff ctx = {0};
	struct frame f;
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &ctx, .ctx_size_in = sizeof(ctx));
	struct hf_counter_key key;
	struct hf_counter counter;
	int r;

	open_guard(fate->state);
	build_fate(&f, fate, v6);
	opts.data_in = f.bytes;
	opts.data_size_in = (__u32)f.len;
	do {
		counters_clear(bpf_map__fd(guard->maps.counters));
		r = bpf_prog_test_run_opts(bpf_program__fd(guard->progs.hf_guard), &opts);
		ck_assert_msg(r == 0, "%s: %s", fate->what, strerror(-r));
	} while (fate->state & FLOOD && (int)opts.retval != TC_ACT_SHOT);
	ck_assert(counters_only(bpf_map__fd(guard->maps.counters), &key, &counter));
	ck_assert_msg(key.verdict == fate->verdict && key.reason == fate->reason,
		      "%s (IPv%d): verdict %u reason %u", fate->what, v6 ? 6 : 4, key.verdict,
		      key.reason);
	ck_assert_int_eq((int)opts.retval,
			 fate->verdict == HF_VERDICT_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC);
	guard_bpf__destroy(guard);
}

START_TEST(guard_does_what_the_table_says)
{
	run_each(run_guard, &guard_fates[_i]);
}
END_TEST

/* --- the page ----------------------------------------------------------------------------- */

#define NAME(id, name, ...) name,
static const char *const verdict_names[] = {HF_VERDICTS(NAME)};
static const char *const reason_names[] = {HF_REASONS(NAME)};

static bool occurs(const struct fate *fates, size_t count, enum hf_reason reason)
{
	for (size_t i = 0; i < count; i++)
		if (fates[i].reason == reason)
			return true;
	return false;
}

START_TEST(every_reason_that_the_programs_give_is_in_the_table)
{
	/* Of the relay, of uploaded programs, and of what is not built. */
	static const enum hf_reason others[] = {HF_REASON_NONE, HF_REASON_UDP_REFUSED,
						HF_REASON_CUSTOM, HF_REASON_FORWARDED};

	for (unsigned reason = 0; reason < HF_REASON_COUNT; reason++) {
		bool found = occurs(steer_fates, COUNT(steer_fates), reason) ||
			     occurs(lookup_fates, COUNT(lookup_fates), reason) ||
			     occurs(guard_fates, COUNT(guard_fates), reason);

		for (size_t i = 0; i < COUNT(others); i++)
			found = found || others[i] == reason;
		ck_assert_msg(found, "no row has the reason %s", reason_names[reason]);
	}
}
END_TEST

static const char intro[] =
	"# What becomes of every packet\n"
	"\n"
	"Every packet has a verdict and a reason, and is counted by interface under both\n"
	"(`GET /v1/counters`). The rows are in the order in which the programs look; \"as "
	"without\"\n"
	"means that such a packet goes on to the rows that follow. They are written from the table "
	"of\n"
	"`tests/bpf/check_fates.c`, which runs a packet for each row and family through the "
	"program.\n"
	"\n"
	"`pass`: goes its ordinary way. `steer`: to the daemon. `answer`, `refuse`: the program "
	"sends\n"
	"the reply itself. `drop`: the end.\n";

static const char steer_intro[] =
	"\n"
	"## From apps: steer, XDP on app interfaces and lo\n"
	"\n"
	"- Refusals are told in the way that makes a program fail at once: a reset for TCP, "
	"\"port\n"
	"  unreachable\" for UDP. Linux does not tell a UDP socket of \"net\" or \"host "
	"unreachable\".\n"
	"- At most 100 refusals in a tenth of a second go to one source address, on `lo` to one "
	"socket,\n"
	"  and 400 to all of an interface. What is over it is `rate-limited`.\n"
	"- \"The daemon is gone\": it has given no sign of life for 5 seconds, or stopped with\n"
	"  `when_stopped: \"block\"` where no service manager keeps its listening sockets. In the\n"
	"  seconds before, packets wait in those sockets, or are dropped and clients try again.\n"
	"- UDP port 443 is relayed where a rule with `protocol: \"udp\"` and `action: \"proxy\"` "
	"lists\n"
	"  the port.\n"
	"- Questions to port 53 are the resolver's, whatever their address.\n"
	"- A fragment is passed to the kernel, which puts the packet together; then the next "
	"table\n"
	"  decides. IPv6 wants all of a TCP header in the first one (RFC 7112).\n"
	"- VLAN tags do not change a verdict. Generic XDP does not see a tag that the interface "
	"has\n"
	"  taken off, as veth and many NICs do; what it passes goes to the interface of that VLAN, "
	"is\n"
	"  judged there again if that is an app interface too, and is dropped by the kernel where "
	"the\n"
	"  device has no such VLAN. Refusals and answers go back with the tag.\n"
	"- The destination of the Ethernet frame is not compared with the interface's own: on an\n"
	"  interface in promiscuous mode others' packets are judged, and refused, like one's "
	"own.\n";

static const char lookup_intro[] =
	"\n"
	"## To the daemon's sockets: lookup, sk_lookup in the network namespace\n"
	"\n"
	"Looked at for connection attempts and for UDP that no connected socket takes. Addresses "
	"of\n"
	"the device but for port 53, multicast and link-local ones are left to the kernel, "
	"uncounted.\n";

static const char guard_intro[] =
	"\n"
	"## To the world: guard, tc egress on every link\n"
	"\n"
	"With `guard.mode: \"observe\"` what would be dropped is counted so, and leaves.\n";

static void write_table(FILE *page, const char *text, const struct fate *fates, size_t count)
{
	fputs(text, page);
	fputs("\n| packet | verdict | reason | the sender hears |\n| --- | --- | --- | --- |\n",
	      page);
	for (size_t i = 0; i < count; i++)
		fprintf(page, "| %s | %s | `%s` | %s |\n", fates[i].what,
			verdict_names[fates[i].verdict], reason_names[fates[i].reason],
			hears_texts[fates[i].hears]);
}

static void write_page(FILE *page)
{
	fputs(intro, page);
	write_table(page, steer_intro, steer_fates, COUNT(steer_fates));
	write_table(page, lookup_intro, lookup_fates, COUNT(lookup_fates));
	write_table(page, guard_intro, guard_fates, COUNT(guard_fates));
}

static char *read_page(const char *path)
{
	FILE *page = fopen(path, "r");
	char *text = calloc(1, 1 << 20);

	ck_assert_ptr_nonnull(text);
	ck_assert_msg(page != NULL, "%s: %s", path, strerror(errno));
	text[fread(text, 1, (1 << 20) - 1, page)] = '\0';
	fclose(page);
	return text;
}

START_TEST(the_page_is_that_of_the_table)
{
	const char *end = strstr(__FILE__, "tests/bpf/check_fates.c");
	char path[512], *wanted = NULL, *there;
	size_t len;
	FILE *page = open_memstream(&wanted, &len);

	ck_assert_ptr_nonnull(end);
	ck_assert_ptr_nonnull(page);
	write_page(page);
	fclose(page);
	snprintf(path, sizeof(path), "%.*sdocs/fates.md", (int)(end - __FILE__), __FILE__);
	if (getenv("HOLDFAST_WRITE_FATES")) {
		page = fopen(path, "w");
		ck_assert_ptr_nonnull(page);
		fputs(wanted, page);
		fclose(page);
	}
	there = read_page(path);
	ck_assert_msg(!strcmp(wanted, there),
		      "docs/fates.md is stale: run HOLDFAST_WRITE_FATES=1 check_fates");
	free(there);
	free(wanted);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fates");
	TCase *tcase = tcase_create("fates");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, steer_does_what_the_table_says, 0, (int)COUNT(steer_fates));
	tcase_add_loop_test(tcase, lookup_does_what_the_table_says, 0, (int)COUNT(lookup_fates));
	tcase_add_loop_test(tcase, guard_does_what_the_table_says, 0, (int)COUNT(guard_fates));
	tcase_add_test(tcase, every_reason_that_the_programs_give_is_in_the_table);
	tcase_add_test(tcase, the_page_is_that_of_the_table);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
