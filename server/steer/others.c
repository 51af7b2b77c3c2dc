/* Who else is where our programs go: for the error's text. */
#include "steer/internal.h"

#include <errno.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void name_of(uint32_t id, char *ret_name, size_t size)
{
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.name[0])
		snprintf(ret_name, size, "%s", info.name);
	else
		snprintf(ret_name, size, "without a name");
	if (fd >= 0)
		close(fd);
}

static const char *mode_of(const struct bpf_xdp_query_opts *opts)
{
	if (opts->attach_mode == XDP_ATTACHED_SKB)
		return "generic";
	return opts->attach_mode == XDP_ATTACHED_HW ? "offloaded" : "native";
}

int others_xdp(const struct rtnl_interface *interface, int r, char *error, size_t size)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);
	char name[BPF_OBJ_NAME_LEN];

	/* Only one program, in one mode, has its place on an interface: EBUSY when it is in
	 * ours, EEXIST when it is in the other mode. */
	if ((r != -EBUSY && r != -EEXIST) || bpf_xdp_query(interface->index, 0, &opts) < 0 ||
	    !opts.prog_id)
		return steer_fail(error, size, r, "XDP on %s: %s", interface->name, strerror(-r));
	name_of(opts.prog_id, name, sizeof(name));
	return steer_fail(error, size, r,
			  "XDP on %s: another program is there: %s, id %u, %s mode "
			  "(see: bpftool net show dev %s)",
			  interface->name, name, opts.prog_id, mode_of(&opts), interface->name);
}

int others_lookup(int r, char *error, size_t size)
{
	/* Programs of this hook stand side by side, up to the kernel's bound. */
	if (r == -E2BIG)
		return steer_fail(error, size, r,
				  "attaching the lookup program: too many other sk_lookup programs "
				  "are in this network namespace (see: bpftool link)");
	return steer_fail(error, size, r, "attaching the lookup program: %s", strerror(-r));
}

int others_tc(const char *interface, int r, char *error, size_t size)
{
	/* Both have the handle ffff:, so that only one of them can be there. */
	if (r == -ENOTSUP)
		return steer_fail(
			error, size, r,
			"guard on %s: an \"ingress\" qdisc is there, which has no egress; "
			"use \"clsact\" for its filters (see: tc qdisc show dev %s)",
			interface, interface);
	if (r == -EINVAL || r == -ENOENT)
		return steer_fail(error, size, r,
				  "guard on %s: filters of another kind or protocol have priority "
				  "%d (see: tc filter show dev %s egress)",
				  interface, STEER_GUARD_PRIORITY, interface);
	return steer_fail(error, size, r, "guard on %s: %s", interface, strerror(-r));
}
