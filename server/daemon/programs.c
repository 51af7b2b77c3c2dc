/* Programs for the API: commands with the connections that a program must not cut. */
#include "daemon/internal.h"

#include <string.h>

enum { PEERS_MAX = 64 };

struct peers {
	struct steer_peer items[PEERS_MAX];
	size_t count;
};

static struct steer_peer *add_peer(struct daemon *daemon, struct peers *peers,
				   const struct ip *local, uint16_t port)
{
	struct steer_peer *peer = &peers->items[peers->count];

	if (peers->count == PEERS_MAX)
		return NULL;
	peers->count++;
	*peer = (struct steer_peer){.local = *local, .local_port = port};
	if (ip_is_v4(local))
		peer->remote = ip_from_v4(0);
	if (ip_is_loopback(local))
		strcpy(peer->interface, "lo");
	return peer;
}

static bool is_any(const struct ip *ip)
{
	static const struct ip any_v6;
	struct ip any_v4 = ip_from_v4(0);

	return ip_equal(ip, &any_v6) || ip_equal(ip, &any_v4);
}

/* A listener on all addresses is one on each of the device's. */
static void add_listener(struct daemon *daemon, struct peers *peers,
			 const struct endpoint *endpoint)
{
	size_t count;
	const struct rtnl_address *addresses = rtnl_addresses(daemon->rtnl, &count);

	if (!is_any(&endpoint->address)) {
		add_peer(daemon, peers, &endpoint->address, endpoint->port);
		return;
	}
	for (size_t i = 0; i < count; i++)
		if (ip_is_v4(&addresses[i].ip) == ip_is_v4(&endpoint->address) &&
		    !ip_is_link_local(&addresses[i].ip))
			add_peer(daemon, peers, &addresses[i].ip, endpoint->port);
}

/* Who gave the command, and whoever may give the next. */
static void find_peers(struct daemon *daemon, const struct daemon_caller *caller,
		       struct peers *peers)
{
	char **listen = daemon->config->api.listen;
	struct steer_peer *peer;
	const char *interface;

	peers->count = 0;
	if (caller->tcp) {
		peer = add_peer(daemon, peers, &caller->local, caller->local_port);
		peer->remote = caller->remote;
		peer->remote_port = caller->remote_port;
		interface = rtnl_is_device_address(daemon->rtnl, &caller->remote)
				    ? "lo"
				    : daemon_interface_of(daemon, &caller->remote);
		if (interface)
			snprintf(peer->interface, sizeof(peer->interface), "%s", interface);
	}
	for (size_t i = 0; listen && listen[i]; i++) {
		struct endpoint endpoint;

		if (strncmp(listen[i], "unix:", 5) != 0 &&
		    endpoint_parse(listen[i], strlen(listen[i]), 0, &endpoint) == 0)
			add_listener(daemon, peers, &endpoint);
	}
}

static void on_program_event(void *arg, const char *id, const char *what)
{
	daemon_event(arg, EVENT_PROGRAM, id, "%s", what);
}

int daemon_build_programs(struct daemon *daemon)
{
	return programs_new(daemon->loop, daemon->config, daemon->steer, daemon->store,
			    on_program_event, daemon, &daemon->programs);
}

int daemon_program_list(struct daemon *daemon, struct program_info **ret_infos, size_t *ret_count)
{
	return programs_list(daemon->programs, ret_infos, ret_count);
}

void daemon_program_current(struct daemon *daemon, struct program_info *ret_info)
{
	programs_current(daemon->programs, ret_info);
}

void daemon_program_warnings(struct daemon *daemon, struct program_warnings *ret_warnings)
{
	programs_warnings(daemon->programs, ret_warnings);
}

int daemon_program_upload(struct daemon *daemon, const uint8_t *elf, size_t size,
			  const char *signature, const struct daemon_caller *caller, program_cb cb,
			  void *arg)
{
	struct peers peers;

	find_peers(daemon, caller, &peers);
	return programs_upload(daemon->programs, elf, size, signature, peers.items, peers.count, cb,
			       arg);
}

int daemon_program_activate(struct daemon *daemon, const char *id,
			    const struct daemon_activation *activation,
			    const struct daemon_caller *caller, program_cb cb, void *arg)
{
	struct peers peers;
	struct program_activation program = {
		.confirm_within = activation->confirm_within,
		.expect_drops = activation->expect_drops,
		.peers = peers.items,
	};

	find_peers(daemon, caller, &peers);
	program.peer_count = peers.count;
	return programs_activate(daemon->programs, id, &program, cb, arg);
}

int daemon_program_confirm(struct daemon *daemon, program_cb cb, void *arg)
{
	return programs_confirm(daemon->programs, cb, arg);
}

int daemon_program_rollback(struct daemon *daemon, program_cb cb, void *arg)
{
	return programs_rollback(daemon->programs, cb, arg);
}

int daemon_program_delete(struct daemon *daemon, const char *id, program_cb cb, void *arg)
{
	return programs_delete(daemon->programs, id, cb, arg);
}
