/*
 * What the BPF programs and the daemon share: verdicts, reasons, map keys and values, and what
 * an uploaded program says of itself. Fixed-width types, padding spelled out, sizes asserted,
 * byte order in each comment. Included by both sides; nothing here needs more than
 * <linux/types.h>.
 */
#pragma once

#include <linux/types.h>

#define HF_ABI_VERSION 2

/*
 * The mark of the daemon's own sockets: one reserved bit and the number of the link,
 * counted from 1 (0: no link; the packet follows the main table). Written by
 * read-OR-write, matched with the mask, so that other bits stay others' own.
 */
#define HF_MARK_OWN	   0x08000000u
#define HF_MARK_LINK_MASK  0x07f00000u
#define HF_MARK_LINK_SHIFT 20
#define HF_MARK_MASK	   (HF_MARK_OWN | HF_MARK_LINK_MASK)

#define HF_HOOKS(X)         \
	X(STEER, "steer")   \
	X(LOOKUP, "lookup") \
	X(GUARD, "guard")

#define HF_VERDICTS(X)                                                           \
	X(PASS, "pass")	    /* goes its ordinary way */                          \
	X(STEER, "steer")   /* to the proxy, the resolver or the API for apps */ \
	X(ANSWER, "answer") /* answered by the program itself */                 \
	X(REFUSE, "refuse") /* answered with RST or ICMP unreachable */          \
	X(DROP, "drop")

/* One enum for programs, counters, events, explain and documentation: identifier, name,
 * and what it means to somebody who looks for a lost packet. */
#define HF_REASONS(X)                                                                             \
	X(NONE, "none", "no reason was recorded")                                                 \
	X(DEVICE_ADDRESS, "device-address", "the destination is an address of the device itself") \
	X(NEIGHBOUR, "neighbour", "ARP, neighbour discovery or MLD, which the network needs")     \
	X(LINK_CONTROL, "link-control", "DHCP, DHCPv6, EAPOL or IGMP, which a network needs")     \
	X(MULTICAST, "multicast", "multicast or broadcast, which is not steered")                 \
	X(LOCAL_NETWORK, "local-network", "a link-local destination, which is never carried")     \
	X(DNS_KERNEL, "dns-kernel", "a DNS question answered by the kernel program")              \
	X(DNS_RESOLVER, "dns-resolver", "a DNS question for the resolver")                        \
	X(TCP_PROXY, "tcp-proxy", "TCP for the proxy")                                            \
	X(API_APPS, "api-apps", "a connection to holdfast.internal")                              \
	X(UDP_RELAY, "udp-relay", "UDP for the relay")                                            \
	X(UDP_REFUSED, "udp-refused", "UDP that no rule lets out")                                \
	X(QUIC_REFUSED, "quic-refused", "UDP port 443 is refused so that clients use TCP")        \
	X(PROTOCOL_REFUSED, "protocol-refused", "a protocol that is not carried")                 \
	X(ICMP_ERROR, "icmp-error", "an ICMP error about a flow of the device")                   \
	X(ECHO_RELAY, "echo-relay", "an echo request that the daemon sends on over a link")       \
	X(ECHO_REFUSED, "echo-refused", "an echo request that cannot be sent on")                 \
	X(ECHO_VIRTUAL, "echo-virtual", "an echo request to a virtual address, answered")         \
	X(FRAGMENT, "fragment", "a fragment of what is not carried")                              \
	X(FRAGMENT_STEERED, "fragment-steered", "a fragment of TCP or UDP, put together here")    \
	X(MALFORMED, "malformed", "truncated or contradictory headers")                           \
	X(ETHERTYPE, "ethertype", "a network protocol that is not carried")                       \
	X(APP_NETWORK, "app-network", "to an app's network, which is reached directly")           \
	X(INTERNAL_PORT, "internal-port", "holdfast.internal serves ports 53 and 80 alone")       \
	X(NO_LINK, "no-link", "no link is online")                                                \
	X(RELAY_FULL, "relay-full", "the relay has more than it can take")                        \
	X(CUSTOM, "custom", "decided by an uploaded program that gives no reason")                \
	X(NO_LISTENER, "no-listener", "the daemon is not there to take it")                       \
	X(RATE_LIMITED, "rate-limited", "a refusal that was not sent, to bound their rate")       \
	X(OWN_SOCKET, "own-socket", "sent by a socket of the daemon")                             \
	X(OWN_TIMEWAIT, "own-timewait", "the end of a connection of the daemon")                  \
	X(NO_SOCKET_RESET, "no-socket-reset", "a reset without payload, from no socket")          \
	X(NO_SOCKET_ICMP, "no-socket-icmp", "an ICMP error from the kernel")                      \
	X(ALLOWED_SERVICE, "allowed-service", "guard.allow lets it out")                          \
	X(EXEMPT_USER, "exempt-user", "sent by a user of apps.exempt_uids")                       \
	X(NOT_OURS, "not-ours", "not sent by the daemon: it went around the proxy")               \
	X(FORWARDED, "forwarded", "forwarded past the proxy")                                     \
	X(MARTIAN, "martian", "addresses that cannot be right where the packet came from")

#define HF_HOOK_ENUM(id, name)	       HF_HOOK_##id,
#define HF_VERDICT_ENUM(id, name)      HF_VERDICT_##id,
#define HF_REASON_ENUM(id, name, text) HF_REASON_##id,
enum hf_hook { HF_HOOKS(HF_HOOK_ENUM) HF_HOOK_COUNT };
enum hf_verdict { HF_VERDICTS(HF_VERDICT_ENUM) HF_VERDICT_COUNT };
enum hf_reason { HF_REASONS(HF_REASON_ENUM) HF_REASON_COUNT };

/* An address of either family; IPv4 in its mapped form ::ffff:a.b.c.d. Network order. */
struct hf_ip {
	__u8 bytes[16];
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct hf_ip) == 16, "abi");

/* Map `settings`, array of one. Read by every program. */
struct hf_settings {
	__u32 abi;		  /* HF_ABI_VERSION; host order */
	__u32 names_mode;	  /* enum hf_names_mode: the one word that flips the answers */
	__u32 guard_mode;	  /* enum hf_guard_mode */
	__u32 virtual_ttl;	  /* seconds; host order */
	struct hf_ip internal_v4; /* holdfast.internal, the first address of each pool */
	struct hf_ip internal_v6;
	struct hf_ip virtual_v4; /* the pools' network addresses */
	struct hf_ip virtual_v6;
	__u32 virtual_v4_bits; /* of the mapped form: 96 + n */
	__u32 virtual_v6_bits;
	__u32 exempt_uid_count;
	__u32 flags;	       /* HF_FLAG_*; host order */
	__u32 exempt_uids[16]; /* host order */
};
_Static_assert(sizeof(struct hf_settings) == 160, "abi");
#define HF_FLAG_ONLINE	   1u /* some link is online: UDP and echo requests can be relayed */
#define HF_FLAG_RELAY_QUIC 2u /* some rule relays UDP port 443: the relay decides */
enum hf_names_mode { HF_NAMES_REAL, HF_NAMES_VIRTUAL };
enum hf_guard_mode { HF_GUARD_ENFORCE, HF_GUARD_OBSERVE, HF_GUARD_OFF };

/* Map `interfaces`, hash: __u32 ifindex (host order) -> struct hf_interface. */
enum hf_role { HF_ROLE_APP, HF_ROLE_HOST, HF_ROLE_LINK }; /* HOST: lo */
struct hf_interface {
	__u8 role;    /* enum hf_role */
	__u8 has_mac; /* 1: packets begin with an Ethernet header; 0: with the IP header */
	__u8 link;    /* the link's number, from 1; 0: none */
	__u8 pad[5];
};
_Static_assert(sizeof(struct hf_interface) == 8, "abi");

/* Map `device_addresses`, hash: struct hf_ip -> __u32 1. Every address of the device, from
 * rtnetlink; 127.0.0.0/8 and ::1 are known without it. */

/* Map `direct`, LPM trie: struct hf_prefix -> __u32 1. Networks that are reached without the
 * proxy: what is connected to interfaces that are not links, as in STEER_TABLE_CONNECTED. */
#define HF_DIRECT_MAX 4096
struct hf_prefix {
	__u32 bits;  /* of the mapped form; host order */
	__u8 ip[16]; /* as hf_ip, which is aligned to 8 */
};
_Static_assert(sizeof(struct hf_prefix) == 20, "abi");

/* Map `heartbeat`, array of one: __u64, CLOCK_MONOTONIC ns, until when the daemon is known to
 * be alive. Past it there is nobody to take what is steered. */

/* Map `names`, hash: struct hf_name_key -> struct hf_name. The name in wire form (length
 * octets, no compression), ASCII letters in lower case, zero padded; longer names are the
 * resolver's alone. */
#define HF_NAME_WIRE_MAX 116
#define HF_ADDRESSES_MAX 4
struct hf_name_key {
	__u8 wire[HF_NAME_WIRE_MAX];
	__u16 qtype; /* 1 (A) or 28 (AAAA); host order */
	__u16 len;   /* of the wire form with its root octet; host order */
};
_Static_assert(sizeof(struct hf_name_key) == 120, "abi");
struct hf_name {
	__u64 real_until;   /* CLOCK_MONOTONIC ns; the real answer is good before it; 0: none */
	__u8 real_count;    /* addresses; 0 with a time: the name has none (NODATA) */
	__u8 virtual_known; /* 1: virtual_address may be answered */
	__u8 always; /* 1: the virtual answer is in force in either mode (holdfast.internal) */
	__u8 pad[5];
	struct hf_ip virtual_address;
	struct hf_ip real[HF_ADDRESSES_MAX];
};
_Static_assert(sizeof(struct hf_name) == 96, "abi");

/* Map `counters`, per-CPU hash: struct hf_counter_key -> struct hf_counter. */
struct hf_counter_key {
	__u32 ifindex; /* host order; 0 where the hook knows none */
	__u8 hook;     /* enum hf_hook */
	__u8 verdict;  /* enum hf_verdict */
	__u8 reason;   /* enum hf_reason */
	__u8 pad;
};
_Static_assert(sizeof(struct hf_counter_key) == 8, "abi");
struct hf_counter {
	__u64 packets;
	__u64 bytes;
};
_Static_assert(sizeof(struct hf_counter) == 16, "abi");

/* Map `sockets`, sockmap: where the lookup program sends what steer passed. */
enum hf_socket {
	HF_SOCKET_PROXY_TCP4,
	HF_SOCKET_PROXY_TCP6,
	HF_SOCKET_DNS_UDP4,
	HF_SOCKET_DNS_UDP6,
	HF_SOCKET_DNS_TCP4,
	HF_SOCKET_DNS_TCP6,
	HF_SOCKET_API_TCP4,
	HF_SOCKET_API_TCP6,
	HF_SOCKET_RELAY_UDP4,
	HF_SOCKET_RELAY_UDP6,
	HF_SOCKET_COUNT
};

/* Map `own_sockets`, socket storage: what the daemon alone can set. */
struct hf_own {
	__u32 link; /* the link's number, from 1; host order */
	__u32 pad;
};
_Static_assert(sizeof(struct hf_own) == 8, "abi");

/* Map `guard_allow`, array of HF_ALLOW_MAX; `used` 0 ends it. */
#define HF_ALLOW_MAX 32
struct hf_allow {
	__u8 used;
	__u8 protocol;	    /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6; 0: any */
	__u16 local_port;   /* host order; 0: any */
	__u16 remote_port;  /* host order; 0: any */
	__u8 remote_bits;   /* of the mapped form */
	__u8 remote_family; /* 4, 6: and only it; 0: any address of either */
	struct hf_ip remote;
};
_Static_assert(sizeof(struct hf_allow) == 24, "abi");

/* Map `raised`, ring buffer: packets that no socket can take (echo requests to real
 * addresses), for the daemon to send on. From the IP header on, whole. */
#define HF_RAISED_MAX	1500
#define HF_RAISED_BYTES (256 * 1024) /* of the ring */
struct hf_raised {
	__u32 ifindex; /* that it came in on; host order */
	__u16 len;     /* octets of packet; host order */
	__u8 family;   /* 4 or 6 */
	__u8 pad;
	__u8 packet[HF_RAISED_MAX];
};
_Static_assert(sizeof(struct hf_raised) == 1508, "abi");

/*
 * What a program that can be uploaded says of itself: one struct hf_program in section
 * ".holdfast", and struct hf_golden in section ".holdfast.packets", as many as it likes. See
 * program.h, which writes them.
 */
#define HF_PROGRAM_MAGIC     0x46444c48u /* "HLDF" */
#define HF_PROGRAM_SECTION   ".holdfast"
#define HF_GOLDEN_SECTION    ".holdfast.packets"
#define HF_PROGRAM_BYTES_MAX (1024 * 1024) /* of the object file */
#define HF_GOLDEN_MAX	     512	   /* packets of one program */
#define HF_GOLDEN_BYTES	     256
struct hf_program {
	__u32 magic, abi; /* host order */
	char name[32];	  /* a-z, 0-9 and '-'; NUL-terminated */
	char version[32]; /* "MAJOR.MINOR.PATCH" */
};
_Static_assert(sizeof(struct hf_program) == 72, "abi");
/* Run on a trial load of the program, with a role for the interface, and compared. */
struct hf_golden {
	char name[48]; /* for whoever reads that it failed */
	__u8 role;     /* enum hf_role of the interface that it comes in on */
	__u8 action;   /* XDP_* that must come out */
	__u16 len;     /* octets of in; host order */
	__u16 out_len; /* octets of out; 0: not compared; host order */
	__u16 pad;
	__u8 in[HF_GOLDEN_BYTES]; /* from the Ethernet header on */
	__u8 out[HF_GOLDEN_BYTES];
};
_Static_assert(sizeof(struct hf_golden) == 568, "abi");

#define HF_COUNTERS_MAX	     4096
#define HF_NAMES_MAX	     16384 /* LRU would evict virtual names silently: full is counted */
#define HF_ADDRESSES_MAP_MAX 1024
