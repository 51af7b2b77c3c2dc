/* Twins of the programs in service, run packet by packet. */
#include "steer/explain.h"
#include "base/limits.h"
#include "base/log.h"
#include "msg/packet_build.h"
#include "steer/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/pkt_cls.h>
#include <stdlib.h>
#include <string.h>

struct steer_explainer {
	struct bpf_object *objects[OBJECT_COUNT];
	int fds[OBJECT_COUNT];	  /* of the programs, owned by the objects */
	struct ring_buffer *ring; /* what a twin raises is thrown away */
	uint64_t serial;
	char name[32];
	bool builtin;
};

static const char *const socket_names[HF_SOCKET_COUNT] = {
	[HF_SOCKET_PROXY_TCP4] = "proxy-tcp4", [HF_SOCKET_PROXY_TCP6] = "proxy-tcp6",
	[HF_SOCKET_DNS_UDP4] = "dns-udp4",     [HF_SOCKET_DNS_UDP6] = "dns-udp6",
	[HF_SOCKET_DNS_TCP4] = "dns-tcp4",     [HF_SOCKET_DNS_TCP6] = "dns-tcp6",
	[HF_SOCKET_API_TCP4] = "api-tcp4",     [HF_SOCKET_API_TCP6] = "api-tcp6",
	[HF_SOCKET_RELAY_UDP4] = "relay-udp4", [HF_SOCKET_RELAY_UDP6] = "relay-udp6",
};

const char *steer_socket_name(enum hf_socket socket)
{
	return socket_names[socket];
}

/* --- loading --- */

/* A twin counts one packet at a time. */
static int make_small(struct bpf_object *object)
{
	struct bpf_map *counters = bpf_object__find_map_by_name(object, "counters");
	struct bpf_map *raised = bpf_object__find_map_by_name(object, "raised");
	int r = counters ? bpf_map__set_max_entries(counters, EXPLAIN_COUNTERS) : 0;

	return r == 0 && raised ? bpf_map__set_max_entries(raised, EXPLAIN_RING) : r;
}

static int load_builtin(struct steer_explainer *explainer, const struct steer_trial *trial,
			enum steer_hook_object which)
{
	size_t size;
	const void *elf = programs_elf(which, &size);
	struct bpf_program *program;
	char said[256];
	int r = trial_open(elf, size, said, sizeof(said), &explainer->objects[which]);

	if (r < 0)
		return r;
	program = programs_find(explainer->objects[which], which);
	if (!program)
		return -ENOEXEC;
	if (which == OBJECT_STEER)
		programs_set_frags(explainer->objects[which], program, trial->frags);
	r = trial_share(trial, explainer->objects[which], TRIAL_MAPS_LOOK);
	if (r == 0)
		r = make_small(explainer->objects[which]);
	if (r == 0)
		r = bpf_object__load(explainer->objects[which]);
	if (r == 0)
		explainer->fds[which] = bpf_program__fd(program);
	return r;
}

static int load_uploaded(struct steer_explainer *explainer, const struct steer_trial *trial)
{
	struct steer_report report = {0};
	struct bpf_program *program;
	struct hf_program says;
	int r = candidate_open(trial, trial->elf, trial->elf_size, TRIAL_MAPS_LOOK, &report,
			       &explainer->objects[OBJECT_STEER], &program);

	if (r == 0)
		r = steer_program_read(trial->elf, trial->elf_size, &says, &report);
	if (r == 0) {
		explainer->fds[OBJECT_STEER] = bpf_program__fd(program);
		memcpy(explainer->name, says.name, sizeof(explainer->name));
	} else {
		log_warning("steer", "explain: %s", report.text);
	}
	steer_report_done(&report);
	return r;
}

static int on_ring(void *arg, void *data, size_t size)
{
	return 0;
}

static int open_ring(struct steer_explainer *explainer)
{
	int fd = bpf_object__find_map_fd_by_name(explainer->objects[OBJECT_STEER], "raised");

	if (fd < 0)
		return 0;
	explainer->ring = ring_buffer__new(fd, on_ring, NULL, NULL);
	return explainer->ring ? 0 : -errno;
}

int steer_explainer_load(const struct steer_trial *trial, struct steer_explainer **ret_explainer)
{
	struct steer_explainer *explainer = calloc(1, sizeof(*explainer));
	int r;

	if (!explainer)
		return -ENOMEM;
	explainer->serial = trial->serial;
	explainer->builtin = !trial->elf;
	strcpy(explainer->name, "builtin");
	r = trial->elf ? load_uploaded(explainer, trial)
		       : load_builtin(explainer, trial, OBJECT_STEER);
	if (r == 0)
		r = load_builtin(explainer, trial, OBJECT_LOOKUP);
	if (r == 0)
		r = load_builtin(explainer, trial, OBJECT_GUARD);
	if (r == 0)
		r = open_ring(explainer);
	if (r < 0) {
		steer_explainer_free(explainer);
		return r;
	}
	*ret_explainer = explainer;
	return 0;
}

void steer_explainer_free(struct steer_explainer *explainer)
{
	if (!explainer)
		return;
	ring_buffer__free(explainer->ring);
	for (int i = 0; i < OBJECT_COUNT; i++)
		bpf_object__close(explainer->objects[i]);
	free(explainer);
}

bool steer_explainer_is_current(const struct steer_explainer *explainer, const struct steer *steer)
{
	return explainer->serial == steer->service.serial;
}

/* --- running --- */

/* Hashes begin empty, arrays as the object has them: those stay. */
static bool is_forgotten(const struct bpf_map *map)
{
	static const char *const own[] = {"counters", "refusals"};

	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
		if (!strcmp(bpf_map__name(map), own[i]))
			return true;
	return false;
}

/* What the question before left behind: its count, and its part in a rate. */
static void forget(struct bpf_object *object)
{
	struct bpf_map *map;
	char key[64];

	bpf_object__for_each_map (map, object) {
		uint32_t most = bpf_map__max_entries(map);

		if (!is_forgotten(map) || bpf_map__key_size(map) > sizeof(key))
			continue;
		while (most-- && bpf_map_get_next_key(bpf_map__fd(map), NULL, key) == 0)
			(void)bpf_map_delete_elem(bpf_map__fd(map), key);
	}
}

/* What the twin counted; false: nothing. */
static bool read_count(const struct steer_explainer *explainer, enum steer_hook_object which,
		       enum hf_hook hook, struct steer_step *step)
{
	int fd = bpf_object__find_map_fd_by_name(explainer->objects[which], "counters");
	const struct hf_counter_key *previous = NULL;
	struct hf_counter_key key, next;

	for (int i = 0; fd >= 0 && i < EXPLAIN_COUNTERS; i++) {
		if (bpf_map_get_next_key(fd, previous, &next) < 0)
			return false;
		key = next;
		previous = &key;
		if (key.hook != hook || key.verdict >= HF_VERDICT_COUNT ||
		    key.reason >= HF_REASON_COUNT)
			continue;
		step->verdict = key.verdict;
		step->reason = key.reason;
		return true;
	}
	return false;
}

static enum hf_verdict verdict_of(int action)
{
	switch (action) {
	case XDP_PASS:
		return HF_VERDICT_PASS;
	case XDP_TX:
		return HF_VERDICT_ANSWER;
	case XDP_REDIRECT:
		return HF_VERDICT_STEER;
	default:
		return HF_VERDICT_DROP;
	}
}

/* packet: in, and out as the program left it. */
struct run {
	uint8_t packet[EXPLAIN_ANSWER_MAX];
	size_t len;
};

static int run_steer(struct steer_explainer *explainer, uint32_t ifindex, struct run *run,
		     struct steer_explanation *explanation)
{
	struct steer_step *step = &explanation->steps[HF_HOOK_STEER];
	struct xdp_md ctx = {.data_end = (__u32)run->len, .ingress_ifindex = ifindex};
	uint8_t in[EXPLAIN_FRAME_MAX];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in, .data_size_in = (__u32)run->len,
		    .data_out = run->packet, .data_size_out = sizeof(run->packet), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx));
	int r;

	memcpy(in, run->packet, run->len);
	forget(explainer->objects[OBJECT_STEER]);
	r = bpf_prog_test_run_opts(explainer->fds[OBJECT_STEER], &opts);
	if (explainer->ring)
		(void)ring_buffer__consume(explainer->ring);
	if (r < 0)
		return r;
	run->len = opts.data_size_out;
	explanation->action = (int)opts.retval;
	step->ran = true;
	if (!read_count(explainer, OBJECT_STEER, HF_HOOK_STEER, step)) {
		step->verdict = verdict_of(explanation->action);
		step->reason = explainer->builtin ? HF_REASON_NONE : HF_REASON_CUSTOM;
	}
	if (explanation->action == XDP_TX) {
		memcpy(explanation->answer, run->packet, run->len);
		explanation->answer_len = run->len;
	}
	return 0;
}

/* Which of ours has the cookie? */
static void find_socket(const struct steer *steer, uint64_t cookie,
			struct steer_explanation *explanation)
{
	for (__u32 i = 0; cookie && i < HF_SOCKET_COUNT; i++) {
		uint64_t value;

		if (bpf_map_lookup_elem(steer->maps.sockets, &i, &value) < 0 || value != cookie)
			continue;
		explanation->has_socket = true;
		explanation->socket = i;
	}
}

static bool is_multicast(const struct ip *ip)
{
	return ip_is_v4(ip) ? ip->bytes[12] >= 224 : ip->bytes[0] == 0xff;
}

static bool is_looked_up(const struct packet_facts *facts)
{
	return facts->family && facts->whole && !is_multicast(&facts->destination) &&
	       (facts->protocol == IPPROTO_TCP || facts->protocol == IPPROTO_UDP);
}

static int run_lookup(struct steer_explainer *explainer, const struct steer *steer,
		      const struct packet_facts *facts, struct steer_explanation *explanation)
{
	struct steer_step *step = &explanation->steps[HF_HOOK_LOOKUP];
	struct bpf_sk_lookup ctx = {.family = facts->family == 4 ? AF_INET : AF_INET6,
				    .protocol = facts->protocol,
				    .remote_port = htons(facts->source_port),
				    .local_port = facts->port};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &ctx, .ctx_size_in = sizeof(ctx),
		    .ctx_out = &ctx, .ctx_size_out = sizeof(ctx));
	int r;

	if (facts->family == 4) {
		ctx.remote_ip4 = ip_v4(&facts->source);
		ctx.local_ip4 = ip_v4(&facts->destination);
	} else {
		memcpy(ctx.remote_ip6, facts->source.bytes, 16);
		memcpy(ctx.local_ip6, facts->destination.bytes, 16);
	}
	forget(explainer->objects[OBJECT_LOOKUP]);
	r = bpf_prog_test_run_opts(explainer->fds[OBJECT_LOOKUP], &opts);
	if (r < 0)
		return r;
	/* What it leaves alone it does not count. */
	step->ran = true;
	if (!read_count(explainer, OBJECT_LOOKUP, HF_HOOK_LOOKUP, step)) {
		step->verdict = opts.retval == SK_PASS ? HF_VERDICT_PASS : HF_VERDICT_DROP;
		step->reason = HF_REASON_NONE;
	}
	find_socket(steer, ctx.cookie, explanation);
	return 0;
}

/* The kernel gives the packet a socket that has no storage and belongs to root. */
static int run_guard(struct steer_explainer *explainer, uint32_t ifindex, struct run *run,
		     struct steer_explanation *explanation)
{
	struct steer_step *step = &explanation->steps[HF_HOOK_GUARD];
	struct __sk_buff ctx = {.ifindex = ifindex};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = run->packet,
		    .data_size_in = (__u32)run->len, .ctx_in = &ctx, .ctx_size_in = sizeof(ctx));
	int r;

	forget(explainer->objects[OBJECT_GUARD]);
	r = bpf_prog_test_run_opts(explainer->fds[OBJECT_GUARD], &opts);
	if (r < 0)
		return r;
	step->ran = true;
	explanation->action = (int)opts.retval;
	/* Switched off, it counts nothing. */
	if (!read_count(explainer, OBJECT_GUARD, HF_HOOK_GUARD, step)) {
		step->verdict = opts.retval == TC_ACT_SHOT ? HF_VERDICT_DROP : HF_VERDICT_PASS;
		step->reason = HF_REASON_NONE;
	}
	return 0;
}

int steer_interface_role(const struct steer *steer, const char *interface,
			 struct hf_interface *ret_interface)
{
	const struct rtnl_interface *known = rtnl_interface_by_name(steer->rtnl, interface);
	__u32 ifindex = known ? (__u32)known->index : 0;

	return known && bpf_map_lookup_elem(steer->maps.interfaces, &ifindex, ret_interface) == 0
		       ? 0
		       : -ENODEV;
}

int steer_explain(struct steer_explainer *explainer, const struct steer *steer,
		  const char *interface, const uint8_t *frame, size_t len,
		  struct steer_explanation *ret_explanation)
{
	struct steer_explanation explanation = {0};
	const struct rtnl_interface *known = rtnl_interface_by_name(steer->rtnl, interface);
	struct packet_facts facts = {0};
	struct run run = {.len = len};
	int r = steer_interface_role(steer, interface, &explanation.interface);

	if (r < 0)
		return r;
	if (len < EXPLAIN_FRAME_MIN || len > EXPLAIN_FRAME_MAX)
		return -EMSGSIZE;
	memcpy(run.packet, frame, len);
	memcpy(explanation.program, explainer->name, sizeof(explanation.program));
	if (explanation.interface.role == HF_ROLE_LINK)
		r = run_guard(explainer, (uint32_t)known->index, &run, &explanation);
	else
		r = run_steer(explainer, (uint32_t)known->index, &run, &explanation);
	if (r == 0 && explanation.interface.role != HF_ROLE_LINK &&
	    explanation.action == XDP_PASS &&
	    packet_read(run.packet, run.len, explanation.interface.has_mac, &facts) == 0 &&
	    is_looked_up(&facts))
		r = run_lookup(explainer, steer, &facts, &explanation);
	if (r == 0)
		*ret_explanation = explanation;
	return r;
}
