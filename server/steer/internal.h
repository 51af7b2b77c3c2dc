/*
 * What the files of steer share: its state and the steps of one comparison of the wanted
 * with the kernel's. Nobody else includes this.
 */
#pragma once

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
	int program_fds[OBJECT_COUNT];
	struct {
		int settings, interfaces, device_addresses, names, counters, sockets, own_sockets,
			guard_allow, direct, heartbeat, raised;
	} maps;			     /* descriptors, owned by the objects */
	struct hf_settings settings; /* what is in the map */
	int lookup_fd;		     /* the pinned sk_lookup link */
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
	uint64_t compared_at; /* loop time, ms */
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

/* programs.c */
int programs_folder(char *ret_folder, size_t size, char *error, size_t error_size);
int programs_load(struct steer *steer, char *error, size_t size);
int programs_attach(struct steer *steer, char *error, size_t size);
/* Something was detached behind our back; cheap enough for a timer. */
bool programs_are_attached(struct steer *steer);
void programs_close(struct steer *steer);
/* Detach and unpin everything in the folder, and remove the folder. */
int programs_release(const char *folder);

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

/* guard.c */
int guard_attach(struct steer *steer, char *error, size_t size);
int guard_release(struct rtnl *rtnl);

/* routes.c */
int routes_compare(struct steer *steer, char *error, size_t size);
int routes_release(struct rtnl *rtnl);
void routes_done(struct steer *steer);
