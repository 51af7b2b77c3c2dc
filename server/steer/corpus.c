#include "steer/corpus.h"
#include "base/limits.h"
#include "steer/frame.h"
#include "steer/object.h"

#include <errno.h>
#include <linux/bpf.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ROUNDS = 64, /* a program may remember, and count */
	EPHEMERAL = 40000,
	API_PORT = 80, /* of holdfast.internal */
	PAYLOAD = 32,
};

struct run {
	const struct steer_trial *trial;
	struct bpf_object *object;
	const struct bpf_program *program;
	struct steer_report *report;
	const struct trial_interface *in; /* what the packets come in on */
};

static const struct ip neighbour_v4 = {{[10] = 0xff, [11] = 0xff, 192, 0, 2, 77}};
static const struct ip neighbour_v6 = {{0x20, 1, 0x0d, 0xb8, [15] = 77}};
static const struct ip neighbour_ll = {{0xfe, 0x80, [15] = 77}};
static const struct ip device_ll = {{0xfe, 0x80, [15] = 1}};
static const struct ip all_nodes = {{0xff, 2, [15] = 1}};
static const struct ip all_routers = {{0xff, 2, [15] = 2}};
static const struct ip all_mld2 = {{0xff, 2, [15] = 0x16}};
static const struct ip nobody;

/* --- one packet --- */

const char *trial_action(uint32_t action, char *buffer, size_t size)
{
	static const char *const names[] = {
		[XDP_ABORTED] = "XDP_ABORTED",	 [XDP_DROP] = "XDP_DROP",
		[XDP_PASS] = "XDP_PASS",	 [XDP_TX] = "XDP_TX",
		[XDP_REDIRECT] = "XDP_REDIRECT",
	};

	if (action <= XDP_REDIRECT)
		return names[action];
	snprintf(buffer, size, "%u, which is no action", action);
	return buffer;
}

int trial_packet(const struct bpf_program *program, int ifindex, const uint8_t *bytes, size_t len,
		 struct trial_result *ret_result)
{
	struct xdp_md in = {.data_end = (__u32)len, .ingress_ifindex = (__u32)ifindex};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = bytes, .data_size_in = (__u32)len,
		    .data_out = ret_result->bytes, .data_size_out = sizeof(ret_result->bytes),
		    .ctx_in = &in, .ctx_size_in = sizeof(in));
	int r = bpf_prog_test_run_opts(bpf_program__fd(program), &opts);

	if (r < 0)
		return r;
	ret_result->action = opts.retval;
	ret_result->len = opts.data_size_out;
	return 0;
}

static int run_packet(const struct run *run, const uint8_t *bytes, size_t len,
		      struct trial_result *ret_result)
{
	int r = trial_packet(run->program, run->in->index, bytes, len, ret_result);

	if (r < 0 && r != -ENODEV)
		snprintf(run->report->text, sizeof(run->report->text),
			 "the kernel makes no test run on %s: %s", run->in->name, strerror(-r));
	return r;
}

static int must_pass(const struct run *run, const struct frame *frame, const char *name)
{
	struct trial_result result;
	char buffer[40];
	int r = run_packet(run, frame->bytes, frame->len, &result);

	if (r < 0)
		return r;
	if (result.action != XDP_PASS)
		return report_fail(run->report, STEER_CHECK_CORPUS,
				   "%s on %s: expected XDP_PASS, got %s", name, run->in->name,
				   trial_action(result.action, buffer, sizeof(buffer)));
	if (result.len != frame->len || memcmp(result.bytes, frame->bytes, frame->len) != 0)
		return report_fail(run->report, STEER_CHECK_CORPUS,
				   "%s on %s: expected its bytes unchanged, got others", name,
				   run->in->name);
	return 0;
}

static int must_not_abort(const struct run *run, const uint8_t *bytes, size_t len, const char *name)
{
	struct trial_result result;
	char buffer[40];
	int r = run_packet(run, bytes, len, &result);

	if (r < 0)
		return r;
	if (result.action != XDP_ABORTED && result.action <= XDP_REDIRECT)
		return 0;
	return report_fail(run->report, STEER_CHECK_CORPUS, "%s on %s: expected no abort, got %s",
			   name, run->in->name,
			   trial_action(result.action, buffer, sizeof(buffer)));
}

/* --- the neighbourhood --- */

/* An address of the device on the interface, or the fallback. */
static struct ip own_address(const struct run *run, bool v4)
{
	for (size_t i = 0; i < run->trial->address_count; i++) {
		const struct rtnl_address *address = &run->trial->addresses[i];

		if (address->ifindex == run->in->index && ip_is_v4(&address->ip) == v4 &&
		    !ip_is_link_local(&address->ip))
			return address->ip;
	}
	if (v4)
		return (struct ip){{[10] = 0xff, [11] = 0xff, 192, 0, 2, 1}};
	return (struct ip){{0x20, 1, 0x0d, 0xb8, [15] = 1}};
}

/* Somebody on the interface's network who is not the device. */
static struct ip neighbour(const struct run *run, bool v4)
{
	struct ip ip = own_address(run, v4);

	ip.bytes[15] ^= 0x40;
	return ip;
}

static int arp(const struct run *run)
{
	struct ip mine = own_address(run, true), theirs = neighbour(run, true);
	struct frame frame;
	int r;

	if (!run->in->value.has_mac)
		return 0;
	frame_arp(&frame, 1, &theirs, &mine);
	r = must_pass(run, &frame, "an ARP request for the device");
	if (r < 0)
		return r;
	frame_arp(&frame, 2, &theirs, &mine);
	return must_pass(run, &frame, "an ARP reply");
}

/* Bodies as RFC 4861, 4 and RFC 2710 and 3810 have them, from behind the checksum on. */
struct control {
	const char *name;
	uint8_t type, len;
	bool has_target, has_option, router_alert; /* option: source or target link layer */
	const struct ip *source, *destination;	   /* NULL: the device's own */
};
static const struct control controls[] = {
	{"a neighbour solicitation to the group", 135, 4, true, true, false, &neighbour_ll, NULL},
	{"a neighbour solicitation", 135, 4, true, true, false, &neighbour_ll, &device_ll},
	{"a duplicate address detection", 135, 4, true, false, false, &nobody, NULL},
	{"a neighbour advertisement", 136, 4, true, true, false, &neighbour_ll, &device_ll},
	{"a neighbour advertisement to all", 136, 4, true, true, false, &neighbour_ll, &all_nodes},
	{"a router solicitation", 133, 4, false, true, false, &neighbour_ll, &all_routers},
	{"a router advertisement", 134, 12, false, true, false, &neighbour_ll, &all_nodes},
	{"an MLD query", 130, 20, false, false, true, &neighbour_ll, &all_nodes},
	{"an MLD report", 131, 20, false, false, true, &neighbour_ll, &all_nodes},
	{"an MLD done", 132, 20, false, false, true, &neighbour_ll, &all_routers},
	{"an MLDv2 report", 143, 24, false, false, true, &neighbour_ll, &all_mld2},
};

static struct ip solicited_node(const struct ip *target)
{
	struct ip group = {{0xff, 2, [11] = 1, [12] = 0xff}};

	memcpy(group.bytes + 13, target->bytes + 13, 3);
	return group;
}

static void build_control(const struct run *run, const struct control *control, struct frame *frame)
{
	struct ip mine = own_address(run, false), group = solicited_node(&mine);
	uint8_t body[64] = {0};
	struct frame_icmp icmp = {
		.source = control->source,
		.destination = control->destination ? control->destination : &group,
		.type = control->type,
		.body = body,
		.len = control->len,
		.router_alert = control->router_alert,
	};

	if (control->has_target) {
		const struct ip *target = control->type == 136 ? &neighbour_ll : &mine;

		memcpy(body + icmp.len, target->bytes, 16);
		icmp.len += 16;
	}
	if (control->has_option) {
		body[icmp.len] = control->type == 136 ? 2 : 1;
		body[icmp.len + 1] = 1;
		memcpy(body + icmp.len + 2, FRAME_MAC_PEER, FRAME_MAC);
		icmp.len += 8;
	}
	frame_icmp(frame, run->in->value.has_mac, &icmp);
}

static int neighbourhood(const struct run *run)
{
	int r = arp(run);

	for (size_t i = 0; i < sizeof(controls) / sizeof(*controls) && r == 0; i++) {
		struct frame frame;

		build_control(run, &controls[i], &frame);
		r = must_pass(run, &frame, controls[i].name);
	}
	return r;
}

/* --- connections --- */

struct end {
	struct ip ip;
	uint16_t port;
};

static const struct segment {
	const char *name;
	uint8_t flags;
	size_t payload;
} there[] = {{"SYN", TH_SYN, 0},
	     {"ACK", TH_ACK, 0},
	     {"data", TH_ACK | TH_PUSH, PAYLOAD},
	     {"FIN", TH_ACK | TH_FIN, 0}},
  back[] = {{"SYN-ACK", TH_SYN | TH_ACK, 0},
	    {"ACK", TH_ACK, 0},
	    {"data", TH_ACK | TH_PUSH, PAYLOAD},
	    {"FIN", TH_ACK | TH_FIN, 0}};

static int one_way(const struct run *run, const struct segment *segments, size_t count,
		   const struct end *from, const struct end *to, const char *what)
{
	char name[160], a[IP_TEXT_MAX], b[IP_TEXT_MAX];
	struct frame frame;
	int r = 0;

	for (size_t i = 0; i < count && r == 0; i++) {
		const struct frame_tcp tcp = {
			.source = &from->ip,
			.destination = &to->ip,
			.source_port = from->port,
			.port = to->port,
			.flags = segments[i].flags,
			.payload = segments[i].payload,
			.partial = run->in->value.role == HF_ROLE_HOST,
		};

		frame_tcp(&frame, run->in->value.has_mac, &tcp);
		snprintf(name, sizeof(name), "%s, TCP %s from %s port %u to %s port %u", what,
			 segments[i].name, ip_format(&from->ip, a), from->port,
			 ip_format(&to->ip, b), to->port);
		r = must_pass(run, &frame, name);
	}
	return r;
}

/* On lo both ways come by. */
static int connection(const struct run *run, const struct end *remote, const struct end *local,
		      const char *what)
{
	int r = one_way(run, there, sizeof(there) / sizeof(*there), remote, local, what);

	if (r < 0 || run->in->value.role != HF_ROLE_HOST)
		return r;
	return one_way(run, back, sizeof(back) / sizeof(*back), local, remote, what);
}

static bool is_any(const struct ip *ip)
{
	struct ip any_v4 = ip_from_v4(0);

	return ip_equal(ip, &nobody) || ip_equal(ip, &any_v4);
}

static bool is_own(const struct run *run, const struct ip *ip)
{
	for (size_t i = 0; i < run->trial->address_count; i++)
		if (ip_equal(&run->trial->addresses[i].ip, ip))
			return true;
	return ip_is_loopback(ip);
}

/* holdfast.internal has them. */
static bool is_internal(const struct run *run, const struct ip *ip)
{
	const struct hf_settings *settings = &run->trial->settings;

	return !memcmp(ip->bytes, settings->internal_v4.bytes, sizeof(ip->bytes)) ||
	       !memcmp(ip->bytes, settings->internal_v6.bytes, sizeof(ip->bytes));
}

/* Do the peer's packets come in here? Nobody reaches an address that the device has lost. */
static bool is_here(const struct run *run, const struct steer_peer *peer)
{
	bool here = run->in->value.role == HF_ROLE_HOST;

	if (!is_own(run, &peer->local) && !is_internal(run, &peer->local))
		return false;
	if (peer->interface[0])
		return !strcmp(peer->interface, run->in->name);
	if (ip_is_loopback(&peer->local) || ip_is_loopback(&peer->remote))
		return here;
	return is_any(&peer->remote) || here == is_own(run, &peer->remote);
}

static int peers(const struct run *run)
{
	int r = 0;

	for (size_t i = 0; i < run->trial->peer_count && r == 0; i++) {
		const struct steer_peer *peer = &run->trial->peers[i];
		struct end local = {peer->local, peer->local_port};
		struct end remote = {peer->remote,
				     peer->remote_port ? peer->remote_port : EPHEMERAL};

		if (!is_here(run, peer))
			continue;
		if (is_any(&remote.ip))
			remote.ip = run->in->value.role == HF_ROLE_HOST
					    ? local.ip
					    : neighbour(run, ip_is_v4(&local.ip));
		r = connection(run, &remote, &local, "a connection to the API");
	}
	return r;
}

/* holdfast.internal */
static int internal(const struct run *run)
{
	const struct hf_settings *settings = &run->trial->settings;
	int r = 0;

	for (int v4 = 0; v4 < 2 && r == 0; v4++) {
		struct end local = {.port = API_PORT}, remote = {.port = EPHEMERAL};

		memcpy(local.ip.bytes,
		       v4 ? settings->internal_v4.bytes : settings->internal_v6.bytes,
		       sizeof(local.ip.bytes));
		if (is_any(&local.ip))
			continue;
		remote.ip = run->in->value.role == HF_ROLE_HOST ? own_address(run, v4)
								: neighbour(run, v4);
		r = connection(run, &remote, &local, "a connection to holdfast.internal");
	}
	return r;
}

/* --- what is broken --- */

static int cut_and_spoil(const struct run *run, const struct frame *whole, const char *what)
{
	uint8_t bytes[FRAME_BYTES];
	char name[96];
	int r = 0;

	for (size_t len = FRAME_ETHERNET; len < whole->len && r == 0; len++) {
		snprintf(name, sizeof(name), "%s, cut off after %zu octets", what, len);
		r = must_not_abort(run, whole->bytes, len, name);
	}
	for (size_t at = 0; at < whole->len && r == 0; at++)
		for (int value = 0; value < 256 && r == 0; value += 255) {
			memcpy(bytes, whole->bytes, whole->len);
			bytes[at] = (uint8_t)value;
			snprintf(name, sizeof(name), "%s, octet %zu set to %d", what, at, value);
			r = must_not_abort(run, bytes, whole->len, name);
		}
	return r;
}

static int broken_tcp(const struct run *run, bool v4, uint8_t vlan_tags)
{
	const struct ip source = v4 ? neighbour_v4 : neighbour_v6;
	const struct ip destination = own_address(run, v4);
	const struct frame_tcp tcp = {.source = &source,
				      .destination = &destination,
				      .source_port = EPHEMERAL,
				      .port = 443,
				      .flags = TH_SYN,
				      .payload = 8,
				      .vlan_tags = vlan_tags};
	struct frame frame;
	char name[64];

	frame_tcp(&frame, run->in->value.has_mac, &tcp);
	snprintf(name, sizeof(name), "a TCP SYN over %s%s", v4 ? "IPv4" : "IPv6",
		 vlan_tags ? " with VLAN tags" : "");
	return cut_and_spoil(run, &frame, name);
}

static int broken_dns(const struct run *run, bool v4)
{
	const struct ip source = v4 ? neighbour_v4 : neighbour_v6;
	const struct ip destination = own_address(run, v4);
	struct frame frame;

	frame_dns(&frame, run->in->value.has_mac, &source, &destination, EPHEMERAL);
	return cut_and_spoil(run, &frame, v4 ? "a DNS question over IPv4" : "one over IPv6");
}

static int broken_icmp(const struct run *run)
{
	const struct ip destination = own_address(run, true);
	const uint8_t body[4] = {0, 1, 0, 1};
	const struct frame_icmp echo = {.source = &neighbour_v4,
					.destination = &destination,
					.type = 8,
					.body = body,
					.len = sizeof(body)};
	struct frame frame;
	int r;

	frame_icmp(&frame, run->in->value.has_mac, &echo);
	r = cut_and_spoil(run, &frame, "an echo request");
	for (size_t i = 0; i < sizeof(controls) / sizeof(*controls) && r == 0; i++) {
		build_control(run, &controls[i], &frame);
		r = cut_and_spoil(run, &frame, controls[i].name);
	}
	return r;
}

/* Of each length, nothing but one octet over and over. */
static int noise(const struct run *run)
{
	static const uint8_t octets[] = {0x00, 0xff, 0x45, 0x60};
	uint8_t bytes[FRAME_BYTES];
	char name[64];
	int r = 0;

	for (size_t i = 0; i < sizeof(octets); i++) {
		memset(bytes, octets[i], sizeof(bytes));
		for (size_t len = FRAME_ETHERNET; len <= sizeof(bytes) && r == 0; len++) {
			snprintf(name, sizeof(name), "%zu octets of 0x%02x", len, octets[i]);
			r = must_not_abort(run, bytes, len, name);
		}
	}
	return r;
}

static int broken(const struct run *run)
{
	struct ip mine = own_address(run, true);
	struct frame frame;
	int r = noise(run);

	for (int v4 = 0; v4 < 2 && r == 0; v4++) {
		r = broken_tcp(run, v4, 0);
		if (r == 0)
			r = broken_tcp(run, v4, 2);
		if (r == 0)
			r = broken_dns(run, v4);
	}
	if (r == 0)
		r = broken_icmp(run);
	if (r < 0 || !run->in->value.has_mac)
		return r;
	frame_arp(&frame, 1, &neighbour_v4, &mine);
	return cut_and_spoil(run, &frame, "an ARP request");
}

/* --- all of it --- */

/* What is broken comes between: a program must not lose its way over it. */
static int on_interface(struct run *run, bool with_broken)
{
	int r = surroundings_interface(run->object, run->in->index, &run->in->value);

	for (int round = 0; round < ROUNDS && r == 0; round++) {
		r = neighbourhood(run);
		if (r == 0)
			r = peers(run);
		if (r == 0)
			r = internal(run);
		if (r == 0 && round == 0 && with_broken)
			r = broken(run);
	}
	return r == -ENODEV ? 0 : r; /* the interface went meanwhile */
}

/* An app interface that is not there yet is played by lo. */
static int on_later_interface(struct run *run)
{
	const struct trial_interface later = {.name = "an app interface",
					      .index = run->trial->lo,
					      .value = {.role = HF_ROLE_APP, .has_mac = 1}};

	run->in = &later;
	return on_interface(run, true);
}

int corpus_run(const struct steer_trial *trial, struct bpf_object *object,
	       const struct bpf_program *program, struct steer_report *report)
{
	struct run run = {.trial = trial, .object = object, .program = program, .report = report};
	bool has_app = false;
	int r = surroundings_live(trial, object);

	for (size_t i = 0; i < trial->interface_count && r == 0; i++) {
		run.in = &trial->interfaces[i];
		if (run.in->value.role == HF_ROLE_LINK)
			continue;
		r = on_interface(&run, run.in->value.role == HF_ROLE_HOST || !has_app);
		has_app |= run.in->value.role == HF_ROLE_APP;
	}
	return r < 0 || has_app ? r : on_later_interface(&run);
}
