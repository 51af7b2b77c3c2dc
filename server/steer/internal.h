/*
 * What the files of steer share: its state and the steps of one comparison of the wanted
 * with the kernel's. Nobody else includes this.
 */
#pragma once

#include "base/limits.h"
#include "steer/candidate.h"
#include "steer/steer.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <limits.h>

enum steer_hook_object { OBJECT_STEER, OBJECT_LOOKUP, OBJECT_GUARD, OBJECT_COUNT };

/* settings, copied */
struct wanted {
	bool host;
	char app_interfaces[INTERFACES_MAX][IF_NAMESIZE];
	size_t app_interface_count;
	uint32_t exempt_uids[16];
	size_t exempt_uid_count;
	struct steer_link links[LINKS_MAX];
	size_t link_count;
	struct steer_allow allow[HF_ALLOW_MAX];
	size_t allow_count;
	enum hf_guard_mode guard_mode;
	struct ip_prefix virtual_v4, virtual_v6;
	uint32_t virtual_ttl;
};

/* A pinned XDP link. */
struct xdp_attachment {
	int ifindex, fd;
	bool native, seen;
	char name[IF_NAMESIZE];
};

struct rule_list {
	struct rtnl_rule *items;
	size_t count, capacity;
};
struct route_list {
	struct rtnl_route *items;
	size_t count, capacity;
};

/* Which interfaces have a guard, so that a filter that vanished is told from a new one. */
struct guarded {
	int ifindexes[LINKS_MAX];
	size_t count;
};

struct steer {
	struct rtnl *rtnl;
	struct wanted wanted;
	steer_event_cb on_event;
	void *arg;
	int lock_fd;
	char folder[64]; /* the pins of this network namespace */
	struct bpf_object *objects[OBJECT_COUNT];
	int program_fds[OBJECT_COUNT]; /* built in; owned by the objects */
	bool frags; /* the built-in steer program takes packets in several buffers */
	struct {
		struct steer_candidate *candidate; /* NULL: the built-in program */
		int fd;		 /* what is attached, kept for going back to it; -1: the built-in */
		uint64_t serial; /* counts activations */
	} service;
	struct {
		int settings, interfaces, device_addresses, names, counters, sockets, own_sockets,
			guard_allow, direct, heartbeat, raised;
	} maps;			     /* descriptors, owned by the objects */
	struct hf_settings settings; /* what is in the map */
	int lookup_fd;		     /* the pinned sk_lookup link */
	int kept[HF_SOCKET_COUNT];   /* of the daemon before, until taken; -1: none */
	struct xdp_attachment xdp[INTERFACES_MAX + 1];
	size_t xdp_count;
	struct guarded guarded;
	struct rule_list rules; /* wanted at the last comparison */
	struct route_list routes;
	struct hf_prefix *direct; /* what is in the map */
	size_t direct_count;
	struct ring_buffer *ring;
	uv_poll_t ring_poll;
	unsigned ring_budget; /* packets that this turn of the loop may still take */
	steer_raised_cb on_raised;
	void *raised_arg;
	uint64_t names_refused;
	bool started, closing, v6_warned;
	unsigned handles;
	uv_loop_t *loop;
	uv_timer_t settle, check;
	uint64_t compared_at;		 /* loop time, ms */
	char in_the_way[STEER_TEXT_MAX]; /* of the last comparison; empty: nothing */
};

/* Fill the caller's text and return r. */
int steer_fail(char *error, size_t size, int r, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void steer_tell(struct steer *steer, const char *what, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* One of steer->handles is closed; with the last one steer is gone. */
void steer_handle_closed(uv_handle_t *handle);
bool steer_is_link(const struct steer *steer, const char *interface);
bool steer_is_app(const struct steer *steer, const char *interface);

/* kept.c: listening sockets over a restart */
void kept_receive(struct steer *steer);
void kept_offer(enum hf_socket which, int fd);
void kept_forget_all(void);
void kept_close(struct steer *steer);

/* programs.c */
int programs_folder(char *ret_folder, size_t size, char *error, size_t error_size);
int programs_load(struct steer *steer, char *error, size_t size);
int programs_attach(struct steer *steer, char *error, size_t size);
/* Something was detached behind our back; cheap enough for a timer. */
bool programs_are_attached(struct steer *steer);
void programs_close(struct steer *steer);
/* Detach and unpin everything in the folder, and remove the folder. */
int programs_release(const char *folder);

/* The program that steered interfaces get. */
int programs_steer_fd(const struct steer *steer);
/* The built-in object of a hook; not loaded, with its static bytes. */
const void *programs_elf(enum steer_hook_object which, size_t *ret_size);
struct bpf_program *programs_find(struct bpf_object *object, enum steer_hook_object which);
/* Loaded for packets in several buffers, or not: the program is told too. */
void programs_set_frags(struct bpf_object *object, struct bpf_program *program, bool frags);

/*
 * trial.c: what was in force when it was made, for a worker.
 */
struct trial_map {
	char name[32];
	int fd;			  /* a descriptor of its own */
	bool of_steer;		  /* the steer program uses it; else only those of other hooks */
	struct bpf_map_info info; /* its shape */
};
struct trial_interface {
	char name[IF_NAMESIZE];
	int index;
	struct hf_interface value;
};
struct steer_trial {
	struct trial_map maps[TRIAL_MAPS_MAX];
	size_t map_count;
	struct hf_settings settings;
	struct trial_interface interfaces[INTERFACES_MAX + LINKS_MAX + 1];
	size_t interface_count;
	struct rtnl_address *addresses; /* of the device */
	size_t address_count;
	struct steer_peer *peers;
	size_t peer_count;
	int lo; /* index of the interface */
	bool frags;
	uint64_t serial; /* of the service in force */
	uint8_t *elf;	 /* of the program in service, a copy; NULL: the built-in */
	size_t elf_size;
};

/* Which of the object's maps are the live ones; all others are its own. */
enum trial_maps {
	TRIAL_MAPS_OWN,	 /* none: a trial load */
	TRIAL_MAPS_LOOK, /* those that are looked things up in: nothing is counted or sent */
	TRIAL_MAPS_LIVE, /* all that have the name of one */
};
/* Open an object that was checked before (or is built in). Blocking. 0 or negative errno; what
 * libbpf said is in ret_text. */
int trial_open(const void *elf, size_t size, char *ret_text, size_t text_size,
	       struct bpf_object **ret_object) __attribute__((warn_unused_result));
/* Give the object its maps, and make it pin nothing: it is ready for bpf_object__load. */
int trial_share(const struct steer_trial *trial, struct bpf_object *object, enum trial_maps which)
	__attribute__((warn_unused_result));
const struct trial_map *trial_find_map(const struct steer_trial *trial, const char *name);

/* candidate.c: read, open, check and load one, with its one XDP program. 0, -EINVAL with the
 * report filled, or another negative errno with its text. */
int candidate_open(const struct steer_trial *trial, const uint8_t *elf, size_t size,
		   enum trial_maps which, struct steer_report *ret_report,
		   struct bpf_object **ret_object, struct bpf_program **ret_program)
	__attribute__((warn_unused_result));
/* The bytes of a candidate; its program with its watch, where it has one. */
const uint8_t *candidate_elf(const struct steer_candidate *candidate, size_t *ret_size);
const char *candidate_name(const struct steer_candidate *candidate);
int candidate_fd(const struct steer_candidate *candidate);

/* steer.c: the first thing that libbpf complains of on this thread is written there, until it
 * is called with NULL. */
void steer_capture_libbpf(char *text, size_t size);

/* maps.c: settings, interfaces, addresses */
int maps_write_settings(struct steer *steer);
int maps_write_interfaces(struct steer *steer);
int maps_write_addresses(struct steer *steer);
/* The networks that routes lead to without the proxy. */
int maps_write_direct(struct steer *steer, const struct route_list *routes);
/* alive: for STEER_ALIVE_TIME from now; else from now on not. */
int maps_write_heartbeat(struct steer *steer, bool alive);

/* raised.c: has a handle of its own, which it counts in steer->handles */
int raised_open(struct steer *steer);
void raised_close(struct steer *steer);

/* others.c: fill the text with what r tells of who is in the way, and return r. */
int others_xdp(const struct rtnl_interface *interface, int r, char *error, size_t size);
int others_lookup(int r, char *error, size_t size);
int others_tc(const char *interface, int r, char *error, size_t size);

/* guard.c */
int guard_attach(struct steer *steer, char *error, size_t size);
int guard_release(struct rtnl *rtnl);

/* routes.c */
int routes_compare(struct steer *steer, char *error, size_t size);
int routes_release(struct rtnl *rtnl);
void routes_done(struct steer *steer);
