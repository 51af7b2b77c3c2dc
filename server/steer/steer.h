/*
 * The kernel side as the daemon sees it: BPF programs, maps, pins, policy rules and
 * routes. Brings apps' packets to the daemon's sockets and lets out only the daemon's.
 *
 * Owns everything under /sys/fs/bpf/holdfast/NETNS_INODE, the rules with priorities
 * STEER_RULE_*, the tables STEER_TABLE_* and the guard's tc filters. Never looks at the
 * contents of requests, never chooses a link. Values only cross this interface, so that
 * it can live in a process of its own one day.
 *
 * All state is a wanted set that is compared with the kernel's: at start, whenever
 * rtnetlink tells of a change (others may delete what is ours: it is put back within a
 * second and steer_events_cb is told), and when settings change.
 */
#pragma once

#include "abi.h"
#include "base/ip.h"
#include "base/limits.h"
#include "rtnl/rtnl.h"

struct steer;

/* Policy rules, in the order that works (see docs/architecture.md); both families. */
enum {
	STEER_RULE_LINK = 100,	    /* the daemon's mark with a link -> the link's table */
	STEER_RULE_OWN = 101,	    /* the daemon's mark without one -> main */
	STEER_RULE_EXEMPT = 102,    /* exempt users -> main */
	STEER_RULE_CONNECTED = 103, /* all -> app networks and bridges stay direct */
	STEER_RULE_SOURCE = 104,    /* from a link's address -> that link's table */
	STEER_RULE_APP = 105,	    /* in from an app interface -> steer */
	STEER_RULE_HOST = 106,	    /* the device's own apps -> steer */
};
enum {
	STEER_TABLE_STEER = 7200,     /* one route: everything is local */
	STEER_TABLE_CONNECTED = 7201, /* what is behind interfaces that are not links */
	STEER_TABLE_LINK = 7210,      /* + number of the link */
	STEER_TABLE_LAST = STEER_TABLE_LINK + (HF_MARK_LINK_MASK >> HF_MARK_LINK_SHIFT),
};
enum {
	STEER_PROTOCOL = 72, /* RTPROT_* of all our rules and routes: 'H' */
	STEER_GUARD_PRIORITY = 1,
	STEER_GUARD_HANDLE = 0x4846, /* "HF" */
};

struct steer_link {
	char name[32];
	char interface[IF_NAMESIZE];
	unsigned number; /* 1 to 127, stable while the daemon runs */
};

struct steer_allow {
	uint8_t protocol; /* IPPROTO_*; 0: any */
	uint16_t local_port, remote_port;
	bool has_remote;
	struct ip_prefix remote;
};

/* What the configuration asks for; borrowed until the call returns. */
struct steer_settings {
	bool host;			   /* steer the device's own apps */
	const char *const *app_interfaces; /* names; ones that are not there yet come later */
	size_t app_interface_count;
	const uint32_t *exempt_uids;
	size_t exempt_uid_count;
	const struct steer_link *links;
	size_t link_count;
	const struct steer_allow *allow;
	size_t allow_count;
	enum hf_guard_mode guard_mode;
	struct ip_prefix virtual_v4, virtual_v6;
	uint32_t virtual_ttl; /* seconds */
};

/* what: "rule restored", "filter restored", "interface attached" ...; detail names it. */
typedef void (*steer_event_cb)(void *arg, const char *what, const char *detail);

/* Mounts bpffs when it is not there, makes the pin folder, loads the programs with the
 * maps pinned before (maps of another shape are replaced), attaches nothing yet.
 * -EBUSY: another daemon works in this namespace (a lock file in the pin folder's place
 * under /run/holdfast). On error *ret_error names the step, for the log. */
int steer_new(uv_loop_t *loop, struct rtnl *rtnl, const struct steer_settings *settings,
	      steer_event_cb on_event, void *arg, char *ret_error, size_t error_size,
	      struct steer **ret_steer) __attribute__((warn_unused_result));
/* Guard first, then XDP and lookup, then rules and routes. Idempotent. Sockets must have been
 * given before, so that nothing is lost in between. */
int steer_start(struct steer *steer, char *ret_error, size_t error_size)
	__attribute__((warn_unused_result));
/* Change settings while running, e.g. guard mode or interfaces. */
int steer_reconfigure(struct steer *steer, const struct steer_settings *settings)
	__attribute__((warn_unused_result));
/* release: take everything down; else leave steering and guard in the kernel. */
void steer_stop(struct steer *steer, bool release);
void steer_close(struct steer *steer);

/* Take down every trace in the current network namespace, of a daemon that is gone.
 * 0, -EBUSY while one runs, or the first error after trying everything. */
int steer_release(char *ret_error, size_t error_size);

/* --- sockets --- */
/* The one that the service manager kept over a restart, listening on that address (port 0: on
 * any); the caller's then. -ENOENT: there is none that fits, make one. */
int steer_take_listener(struct steer *steer, enum hf_socket which, const struct ip *address,
			uint16_t port, int *ret_fd) __attribute__((warn_unused_result));
/* Let the lookup program give packets to this listening TCP or bound UDP socket, which the
 * service manager is asked to keep over a restart. */
int steer_set_listener(struct steer *steer, enum hf_socket which, int fd)
	__attribute__((warn_unused_result));
/* Make fd an own socket of the link: socket storage, mark (OR), SO_BINDTODEVICE.
 * link_number 0: own, but bound to no link (replies to apps): mark only. */
int steer_own_socket(struct steer *steer, int fd, unsigned link_number)
	__attribute__((warn_unused_result));
/* Packets that came in there are not from apps. */
bool steer_is_link_interface(const struct steer *steer, int ifindex);
bool steer_is_device_address(const struct steer *steer, const struct ip *ip);

/* --- datagrams --- */
/* HF_FLAG_*: whether programs may pass UDP and echo requests to the relay. */
int steer_set_flags(struct steer *steer, uint32_t flags);
/* Packets that no socket can take; on the loop, borrowed for the callback. NULL: nobody wants
 * them. At most a ring full at once: what does not fit is counted as relay-full. */
typedef void (*steer_raised_cb)(void *arg, const struct hf_raised *raised);
void steer_on_raised(struct steer *steer, steer_raised_cb cb, void *arg);

/* --- names --- */
int steer_names_mode(struct steer *steer, enum hf_names_mode mode);
/* -E2BIG: the map is full (counted, visible in steer_statistics). */
int steer_name_publish(struct steer *steer, const struct hf_name_key *key,
		       const struct hf_name *name);
int steer_name_withdraw(struct steer *steer, const struct hf_name_key *key);
/* Every published name; return false from the callback to stop. */
int steer_names_each(struct steer *steer,
		     bool (*each)(void *arg, const struct hf_name_key *, const struct hf_name *),
		     void *arg);

/* --- what can be seen --- */
struct steer_counter {
	char interface[IF_NAMESIZE]; /* "" where the hook knows none */
	enum hf_hook hook;
	enum hf_verdict verdict;
	enum hf_reason reason;
	uint64_t packets, bytes;
};
/* Allocates the array, which the caller frees; sorted by interface, hook, verdict, reason. */
int steer_counters(struct steer *steer, struct steer_counter **ret_counters, size_t *ret_count)
	__attribute__((warn_unused_result));
/* Connection attempts that the built-in program has passed to the proxy since the start. */
uint64_t steer_attempts(struct steer *steer);
/* Packets that found the map of counters full. */
uint64_t steer_counter_overflow(struct steer *steer);
const char *hf_hook_name(enum hf_hook hook);
const char *hf_verdict_name(enum hf_verdict verdict);
const char *hf_reason_name(enum hf_reason reason);
const char *hf_reason_text(enum hf_reason reason);

struct steer_program_info {
	char name[32], hook[16], mode[16]; /* mode: "generic", "native", "" */
	char interface[IF_NAMESIZE];
	uint32_t id;
	uint64_t run_count, run_time_ns; /* 0 unless the kernel keeps statistics */
};
int steer_programs(struct steer *steer, struct steer_program_info **ret_programs, size_t *ret_count)
	__attribute__((warn_unused_result));
bool steer_is_steering(const struct steer *steer);
uint64_t steer_names_refused(const struct steer *steer); /* publishes that found the map full */
