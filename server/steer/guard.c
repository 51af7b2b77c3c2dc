/* The guard's tc filters. They are no BPF links (tcx needs Linux 6.6), so they are found
 * by their handle and priority, which are ours alone. */
#include "steer/internal.h"

#include <errno.h>
#include <linux/pkt_sched.h>
#include <string.h>

/* By pointer: returned by value a struct loses its tail padding, and libbpf refuses options
 * whose padding is not zero. */
static void hook_init(struct bpf_tc_hook *hook, int ifindex, enum bpf_tc_attach_point point)
{
	memset(hook, 0, sizeof(*hook));
	hook->sz = sizeof(*hook);
	hook->ifindex = ifindex;
	hook->attach_point = point;
}

static void filter_init(struct bpf_tc_opts *opts)
{
	memset(opts, 0, sizeof(*opts));
	opts->sz = sizeof(*opts);
	opts->handle = STEER_GUARD_HANDLE;
	opts->priority = STEER_GUARD_PRIORITY;
}

static uint32_t program_id(int fd)
{
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) ? 0 : info.id;
}

static bool in_list(const struct guarded *guarded, int ifindex)
{
	for (size_t i = 0; i < guarded->count; i++)
		if (guarded->ifindexes[i] == ifindex)
			return true;
	return false;
}

static int attach_one(struct steer *steer, int ifindex)
{
	struct bpf_tc_hook hook;
	struct bpf_tc_opts opts;
	bool is_ingress = false;
	int r;

	hook_init(&hook, ifindex, BPF_TC_EGRESS);
	filter_init(&opts);
	r = bpf_tc_hook_create(&hook);
	if (r == -EEXIST)
		r = rtnl_has_qdisc(steer->rtnl, ifindex, "ingress", &is_ingress);
	if (r < 0)
		return r;
	/* It takes our egress filter and runs it on what comes in (net/sched/sch_ingress.c). */
	if (is_ingress)
		return -ENOTSUP;
	opts.prog_fd = steer->program_fds[OBJECT_GUARD];
	opts.flags = BPF_TC_F_REPLACE;
	return bpf_tc_attach(&hook, &opts);
}

static int release_one(struct rtnl *rtnl, int ifindex)
{
	struct bpf_tc_hook hook;
	struct bpf_tc_opts opts;
	size_t ingress = 0, egress = 0;
	int r;

	hook_init(&hook, ifindex, BPF_TC_EGRESS);
	filter_init(&opts);
	/* Also false where there is no clsact at all. */
	if (bpf_tc_query(&hook, &opts) < 0)
		return 0;
	filter_init(&opts);
	r = bpf_tc_detach(&hook, &opts);
	if (r < 0 && r != -ENOENT)
		return r;
	/* The qdisc goes with its last filter, whoever made it. */
	r = rtnl_count_filters(rtnl, ifindex, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), &ingress);
	if (r == 0)
		r = rtnl_count_filters(rtnl, ifindex, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS),
				       &egress);
	if (r < 0 || ingress || egress)
		return r;
	hook_init(&hook, ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);
	return bpf_tc_hook_destroy(&hook);
}

/* Interfaces that are no links any more, by their name or by the configuration. */
static void drop_others(struct steer *steer, const struct guarded *now)
{
	for (size_t i = 0; i < steer->guarded.count; i++) {
		int ifindex = steer->guarded.ifindexes[i];
		const struct rtnl_interface *interface =
			rtnl_interface_by_index(steer->rtnl, ifindex);

		if (!in_list(now, ifindex) && interface && release_one(steer->rtnl, ifindex) == 0)
			steer_tell(steer, "filter detached", "%s", interface->name);
	}
}

int guard_attach(struct steer *steer, char *error, size_t size)
{
	uint32_t wanted_id = program_id(steer->program_fds[OBJECT_GUARD]);
	struct guarded now = {.count = 0};
	int first = 0;

	for (size_t i = 0; i < steer->wanted.link_count; i++) {
		const char *name = steer->wanted.links[i].interface;
		const struct rtnl_interface *interface = rtnl_interface_by_name(steer->rtnl, name);
		struct bpf_tc_opts opts;
		struct bpf_tc_hook hook;
		int r;

		if (!interface)
			continue;
		hook_init(&hook, interface->index, BPF_TC_EGRESS);
		filter_init(&opts);
		if (bpf_tc_query(&hook, &opts) || opts.prog_id != wanted_id) {
			r = attach_one(steer, interface->index);
			if (r < 0) {
				if (!first)
					first = others_tc(name, r, error, size);
				continue;
			}
			if (steer->started)
				steer_tell(steer,
					   in_list(&steer->guarded, interface->index)
						   ? "filter restored"
						   : "filter attached",
					   "%s", name);
		}
		now.ifindexes[now.count++] = interface->index;
	}
	drop_others(steer, &now);
	steer->guarded = now;
	return first;
}

int guard_release(struct rtnl *rtnl)
{
	size_t count;
	const struct rtnl_interface *interfaces = rtnl_interfaces(rtnl, &count);
	int first = 0;

	for (size_t i = 0; i < count; i++) {
		int r = release_one(rtnl, interfaces[i].index);

		if (r < 0 && r != -ENODEV && !first)
			first = r;
	}
	return first;
}
