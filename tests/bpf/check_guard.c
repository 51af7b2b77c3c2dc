/* links: PkgConfig::LIBBPF PkgConfig::LIBELF */
/*
 * The guard program: packets on a bench, where every one has a socket that is not the daemon's;
 * sockets of every kind are in check_guard_sockets.c.
 */
#include "golden.h"

#include "guard.skel.h"

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <unistd.h>

/* A test run leaves by lo, whose number is 1 in every namespace, from a socket of user 0. */
enum { LO = 1, LET_OUT = -1 };

#define HERE4  "192.0.2.5"
#define HERE6  "2001:db8::5"
#define THERE4 "203.0.113.9"
#define THERE6 "2001:db8:ff::9"

static struct guard_bpf *guard;
static struct hf_settings settings;

static void put_settings(void)
{
	uint32_t zero = 0;

	put(bpf_map__fd(guard->maps.settings), &zero, &settings);
}

static void put_link(bool has_mac)
{
	struct hf_interface link = {.role = HF_ROLE_LINK, .has_mac = has_mac, .link = 1};
	uint32_t ifindex = LO;

	put(bpf_map__fd(guard->maps.interfaces), &ifindex, &link);
}

static void put_allow(uint32_t at, struct hf_allow allow)
{
	allow.used = 1;
	if (allow.remote_bits)
		allow.remote_family =
			!memcmp(&allow.remote, &(struct hf_ip){.bytes = {[10] = 0xff, 0xff}}, 12)
				? 4
				: 6;
	put(bpf_map__fd(guard->maps.guard_allow), &at, &allow);
}

static void setup(void)
{
	guard = guard_bpf__open();
	ck_assert_ptr_nonnull(guard);
	load_unpinned(guard->obj);
	settings = (struct hf_settings){.abi = HF_ABI_VERSION, .guard_mode = HF_GUARD_ENFORCE};
	put_settings();
	put_link(true);
}

static void teardown(void)
{
	guard_bpf__destroy(guard);
}

/* --- one packet -------------------------------------------------------------------------- */

struct outcome {
	int action;
	bool counted;
	struct hf_counter_key key;
	struct hf_counter counter;
};

static struct outcome run_as(const struct frame *f, struct __sk_buff *ctx)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = f->bytes, .data_size_in = (__u32)f->len,
		    .ctx_in = ctx, .ctx_size_in = sizeof(*ctx));
	int counters = bpf_map__fd(guard->maps.counters), r;
	struct outcome o;

	counters_clear(counters);
	r = bpf_prog_test_run_opts(bpf_program__fd(guard->progs.hf_guard), &opts);
	ck_assert_msg(r == 0, "test run of %zu octets: %s", f->len, strerror(-r));
	o.action = (int)opts.retval;
	o.counted = counters_only(counters, &o.key, &o.counter);
	return o;
}

static void expect_as(const char *what, const struct frame *f, struct __sk_buff *ctx,
		      enum hf_verdict verdict, enum hf_reason reason)
{
	struct outcome o = run_as(f, ctx);

	ck_assert_msg(o.counted, "%s: not counted", what);
	ck_assert_msg(o.key.verdict == verdict && o.key.reason == reason,
		      "%s (%zu octets): verdict %u reason %u, not %u %u", what, f->len,
		      o.key.verdict, o.key.reason, verdict, reason);
	ck_assert_int_eq(o.action, verdict == HF_VERDICT_DROP ? TC_ACT_SHOT : LET_OUT);
	ck_assert_uint_eq(o.key.ifindex, LO);
	ck_assert_uint_eq(o.key.hook, HF_HOOK_GUARD);
	ck_assert_uint_eq(o.counter.packets, 1);
	ck_assert_uint_eq(o.counter.bytes, f->len);
}

static void expect(const char *what, const struct frame *f, enum hf_verdict verdict,
		   enum hf_reason reason)
{
	struct __sk_buff ctx = {0};

	expect_as(what, f, &ctx, verdict, reason);
}

/* --- the table --------------------------------------------------------------------------- */

#define UDP		   IPPROTO_UDP
#define TCP		   IPPROTO_TCP
#define V(verdict, reason) HF_VERDICT_##verdict, HF_REASON_##reason

struct row {
	const char *name, *to;
	unsigned protocol;
	unsigned from_port, port; /* of TCP and UDP */
	unsigned type;		  /* of ICMP; of TCP the flags */
	bool payload;
	enum hf_verdict verdict;
	enum hf_reason reason;
};

static const struct row rows[] = {
	{"tcp syn", THERE4, TCP, 40000, 443, 0x02, false, V(DROP, NOT_OURS)},
	{"tcp6 syn", THERE6, TCP, 40000, 443, 0x02, false, V(DROP, NOT_OURS)},
	{"tcp ack", THERE4, TCP, 40000, 443, 0x10, false, V(DROP, NOT_OURS)},
	{"tcp data", THERE6, TCP, 40000, 443, 0x18, true, V(DROP, NOT_OURS)},
	{"udp", THERE4, UDP, 40000, 53, 0, true, V(DROP, NOT_OURS)},
	{"udp6", THERE6, UDP, 40000, 443, 0, true, V(DROP, NOT_OURS)},
	{"sctp", THERE4, 132, 0, 0, 0, true, V(DROP, NOT_OURS)},
	{"icmpv6 in v4", THERE4, IPPROTO_ICMPV6, 0, 0, 135, true, V(DROP, NOT_OURS)},
	{"icmp in v6", THERE6, IPPROTO_ICMP, 0, 0, 3, true, V(DROP, NOT_OURS)},
	{"reset", THERE4, TCP, 40000, 443, 0x04, false, V(PASS, NO_SOCKET_RESET)},
	{"reset with ack", THERE6, TCP, 40000, 443, 0x14, false, V(PASS, NO_SOCKET_RESET)},
	{"reset with payload", THERE4, TCP, 40000, 443, 0x04, true, V(DROP, NOT_OURS)},
	{"reset with syn", THERE6, TCP, 40000, 443, 0x06, false, V(DROP, NOT_OURS)},
	{"unreachable", THERE4, IPPROTO_ICMP, 0, 0, 3, true, V(PASS, NO_SOCKET_ICMP)},
	{"time exceeded", THERE4, IPPROTO_ICMP, 0, 0, 11, true, V(PASS, NO_SOCKET_ICMP)},
	{"parameter problem", THERE4, IPPROTO_ICMP, 0, 0, 12, true, V(PASS, NO_SOCKET_ICMP)},
	{"echo", THERE4, IPPROTO_ICMP, 0, 0, 8, true, V(DROP, NOT_OURS)},
	{"echo reply", THERE4, IPPROTO_ICMP, 0, 0, 0, true, V(DROP, NOT_OURS)},
	{"icmp redirect", THERE4, IPPROTO_ICMP, 0, 0, 5, true, V(DROP, NOT_OURS)},
	{"unreachable6", THERE6, IPPROTO_ICMPV6, 0, 0, 1, true, V(PASS, NO_SOCKET_ICMP)},
	{"too big", THERE6, IPPROTO_ICMPV6, 0, 0, 2, true, V(PASS, NO_SOCKET_ICMP)},
	{"time exceeded6", THERE6, IPPROTO_ICMPV6, 0, 0, 3, true, V(PASS, NO_SOCKET_ICMP)},
	{"parameter problem6", THERE6, IPPROTO_ICMPV6, 0, 0, 4, true, V(PASS, NO_SOCKET_ICMP)},
	{"echo6", THERE6, IPPROTO_ICMPV6, 0, 0, 128, true, V(DROP, NOT_OURS)},
	{"router solicitation", "ff02::2", IPPROTO_ICMPV6, 0, 0, 133, true, V(PASS, NEIGHBOUR)},
	{"neighbour solicitation", "ff02::1:ff00:9", IPPROTO_ICMPV6, 0, 0, 135, true,
	 V(PASS, NEIGHBOUR)},
	{"neighbour advertisement", "fe80::1", IPPROTO_ICMPV6, 0, 0, 136, true, V(PASS, NEIGHBOUR)},
	{"mld report", "ff02::1", IPPROTO_ICMPV6, 0, 0, 131, true, V(PASS, NEIGHBOUR)},
	{"mldv2 report", "ff02::16", IPPROTO_ICMPV6, 0, 0, 143, true, V(PASS, NEIGHBOUR)},
	{"dhcp", "255.255.255.255", UDP, 68, 67, 0, true, V(PASS, LINK_CONTROL)},
	{"a dhcp server's", "255.255.255.255", UDP, 67, 68, 0, true, V(DROP, NOT_OURS)},
	{"dhcp's ports in v6", THERE6, UDP, 68, 67, 0, true, V(DROP, NOT_OURS)},
	{"dhcpv6", "ff02::1:2", UDP, 546, 547, 0, true, V(PASS, LINK_CONTROL)},
	{"dhcpv6's ports in v4", THERE4, UDP, 546, 547, 0, true, V(DROP, NOT_OURS)},
	{"igmp", "224.0.0.22", IPPROTO_IGMP, 0, 0, 0x22, true, V(PASS, LINK_CONTROL)},
	{"neighbour discovery beyond the link", THERE6, IPPROTO_ICMPV6, 0, 0, 134, true,
	 V(PASS, NEIGHBOUR)},
	{"mld to one", THERE6, IPPROTO_ICMPV6, 0, 0, 143, true, V(DROP, NOT_OURS)},
	{"igmp to one", THERE4, IPPROTO_IGMP, 0, 0, 0x22, true, V(DROP, NOT_OURS)},
	{"igmp in v6", "ff02::16", IPPROTO_IGMP, 0, 0, 0x22, true, V(DROP, NOT_OURS)},
};
enum { ROWS = sizeof(rows) / sizeof(*rows) };

enum shape { PLAIN, TAGGED, DOUBLE_TAGGED, BARE, SHAPES };

static void begin(struct frame *f, enum shape shape, unsigned type)
{
	f->len = 0;
	if (shape == BARE)
		return;
	frame_mac(f, APP_MAC, DEVICE_MAC, shape == PLAIN ? type : 0x8100);
	if (shape == DOUBLE_TAGGED)
		frame_u32(f, 0x00648100);
	if (shape == PLAIN)
		return;
	frame_u16(f, 7);
	frame_u16(f, type);
}

static void begin_ip(struct frame *f, enum shape shape, const char *to, unsigned protocol)
{
	int v6 = strchr(to, ':') != NULL;

	begin(f, shape, v6 ? 0x86dd : 0x0800);
	frame_ip(f, v6 ? HERE6 : HERE4, to, protocol);
}

static void set_hops(struct frame *f, unsigned hops)
{
	f->bytes[f->l3 + (f->family == 4 ? 8 : 7)] = (uint8_t)hops;
}

/* As their own documents want them. */
static unsigned hops_of(const struct row *row)
{
	if (row->protocol == IPPROTO_ICMPV6 && row->type >= 133 && row->type <= 137)
		return 255;
	return row->protocol == IPPROTO_ICMPV6 || row->protocol == IPPROTO_IGMP ? 1 : 61;
}

/* What an ICMP error is about: a packet of whoever it is sent to. */
static void add_quoted(struct frame *f, const char *from)
{
	int family = strchr(from, ':') ? AF_INET6 : AF_INET;

	frame_add(f, NULL, family == AF_INET6 ? 8 : 12);
	frame_address(f, family, from);
	frame_address(f, family, family == AF_INET6 ? HERE6 : HERE4);
	frame_add(f, NULL, 8);
}

static void add_dhcp(struct frame *f, unsigned type)
{
	frame_u8(f, type);
	frame_add(f, NULL, 235);
	frame_u32(f, 0x63825363);
	frame_add(f, NULL, 40);
}

static void build(struct frame *f, enum shape shape, const struct row *row)
{
	begin_ip(f, shape, row->to, row->protocol);
	if (row->protocol == UDP)
		frame_udp(f, row->from_port, row->port);
	else if (row->protocol == TCP)
		frame_tcp(f, row->from_port, row->port, row->type);
	else
		frame_icmp(f, row->type, 0);
	if (row->reason == HF_REASON_NO_SOCKET_ICMP)
		add_quoted(f, row->to);
	else if (row->protocol == UDP && (row->port == 67 || row->port == 547))
		add_dhcp(f, 1);
	else if (row->payload)
		frame_add(f, NULL, 20);
	set_hops(f, hops_of(row));
	if (row->protocol == UDP)
		frame_end_udp(f);
	else
		frame_end(f);
}

START_TEST(each_packet_gets_its_verdict_in_every_shape)
{
	struct frame f;

	for (int shape = 0; shape < SHAPES; shape++) {
		put_link(shape != BARE);
		for (int i = 0; i < ROWS; i++) {
			build(&f, (enum shape)shape, &rows[i]);
			expect(rows[i].name, &f, rows[i].verdict, rows[i].reason);
		}
	}
}
END_TEST

START_TEST(a_packet_cut_off_anywhere_stays)
{
	struct frame f;
	size_t least;

	for (int shape = 0; shape < SHAPES; shape++) {
		put_link(shape != BARE);
		for (int i = 0; i < ROWS; i++) {
			build(&f, (enum shape)shape, &rows[i]);
			/* The kernel takes no shorter test packets. */
			least = shape == PLAIN ? f.l3 + (f.family == 4 ? 20 : 40) : 15;
			for (f.len--; f.len >= least; f.len--)
				expect(rows[i].name, &f, V(DROP, MALFORMED));
		}
	}
}
END_TEST

START_TEST(what_a_link_needs_goes_no_further_than_the_link)
{
	static const struct row needs[] = {
		{"solicitation", "ff02::1:ff00:9", IPPROTO_ICMPV6, 0, 0, 135, true,
		 V(PASS, NEIGHBOUR)},
		{"report", "ff02::16", IPPROTO_ICMPV6, 0, 0, 143, true, V(PASS, NEIGHBOUR)},
		{"igmp", "224.0.0.22", IPPROTO_IGMP, 0, 0, 0x22, true, V(PASS, LINK_CONTROL)},
	};
	struct frame f;

	for (int i = 0; i < 3; i++) {
		for (unsigned hops = 0; hops < 256; hops++) {
			build(&f, PLAIN, &needs[i]);
			set_hops(&f, hops);
			frame_end(&f);
			if (hops == hops_of(&needs[i]))
				expect(needs[i].name, &f, needs[i].verdict, needs[i].reason);
			else
				expect(needs[i].name, &f, V(DROP, NOT_OURS));
		}
	}
}
END_TEST

START_TEST(octets_behind_the_packet_do_not_go_along)
{
	struct frame f;

	for (int shape = 0; shape < SHAPES; shape++) {
		put_link(shape != BARE);
		for (int i = 0; i < ROWS; i++) {
			build(&f, (enum shape)shape, &rows[i]);
			frame_u8(&f, 'x');
			expect(rows[i].name, &f, V(DROP, MALFORMED));
		}
	}
}
END_TEST

START_TEST(what_comes_in_elsewhere_is_no_reset_or_error_of_the_kernels)
{
	struct __sk_buff ctx = {.ingress_ifindex = LO};
	struct frame f;

	for (int i = 0; i < ROWS; i++) {
		bool kernels = rows[i].reason == HF_REASON_NO_SOCKET_RESET ||
			       rows[i].reason == HF_REASON_NO_SOCKET_ICMP;

		build(&f, PLAIN, &rows[i]);
		if (kernels)
			expect_as(rows[i].name, &f, &ctx, V(DROP, NOT_OURS));
	}
}
END_TEST

/* Whatever else is changed: what is let out is what a link needs, and nothing of an app. */
START_TEST(a_changed_octet_does_not_let_an_apps_packet_out)
{
	static const uint8_t with[] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff};
	struct __sk_buff ctx = {0};
	struct frame whole, f;

	for (int i = 0; i < 9; i++) {
		build(&whole, PLAIN, &rows[i]);
		for (size_t n = 0; n < whole.len * sizeof(with); n++) {
			struct outcome o;

			f = whole;
			f.bytes[n / sizeof(with)] ^= with[n % sizeof(with)];
			o = run_as(&f, &ctx);
			ck_assert(o.counted);
			ck_assert_uint_eq(o.action == TC_ACT_SHOT,
					  o.key.verdict == HF_VERDICT_DROP);
			if (o.key.verdict == HF_VERDICT_DROP)
				continue;
			ck_assert_uint_eq(o.key.verdict, HF_VERDICT_PASS);
			ck_assert_msg(o.key.reason == HF_REASON_NEIGHBOUR ||
					      o.key.reason == HF_REASON_LINK_CONTROL ||
					      o.key.reason == HF_REASON_NO_SOCKET_RESET ||
					      o.key.reason == HF_REASON_NO_SOCKET_ICMP,
				      "%s, octet %zu: reason %u", rows[i].name, n / sizeof(with),
				      o.key.reason);
		}
	}
}
END_TEST

START_TEST(arp_and_eapol_pass_and_other_network_protocols_stay)
{
	struct frame f;

	for (int shape = PLAIN; shape < BARE; shape++) {
		begin(&f, (enum shape)shape, 0x0806);
		frame_add(&f, NULL, 28);
		expect("arp", &f, V(PASS, NEIGHBOUR));
		begin(&f, (enum shape)shape, 0x888e);
		frame_add(&f, NULL, 28);
		expect("eapol", &f, V(PASS, LINK_CONTROL));
		begin(&f, (enum shape)shape, 0x88cc);
		frame_add(&f, NULL, 28);
		expect("lldp", &f, V(DROP, ETHERTYPE));
	}
	begin(&f, DOUBLE_TAGGED, 0x8100);
	frame_u32(&f, 0x00010806);
	frame_add(&f, NULL, 28);
	expect("three tags", &f, V(DROP, ETHERTYPE));
}
END_TEST

START_TEST(the_mark_proves_nothing)
{
	static const unsigned flags[] = {0x02, 0x10, 0x11, 0x18};
	struct __sk_buff ctx = {.mark = HF_MARK_OWN | 1 << HF_MARK_LINK_SHIFT};
	struct frame f;

	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		build(&f, PLAIN,
		      &(struct row){"", THERE4, TCP, 40000, 443, flags[i], false,
				    V(DROP, NOT_OURS)});
		expect_as("a marked segment", &f, &ctx, V(DROP, NOT_OURS));
	}
}
END_TEST

START_TEST(the_mode_says_whether_to_stop_to_watch_or_to_look_away)
{
	struct __sk_buff ctx = {0};
	struct outcome o;
	struct frame f, cut;

	build(&f, PLAIN, &rows[0]);
	settings.guard_mode = HF_GUARD_OBSERVE;
	put_settings();
	o = run_as(&f, &ctx);
	ck_assert_int_eq(o.action, LET_OUT);
	ck_assert_uint_eq(o.key.verdict, HF_VERDICT_DROP);
	ck_assert_uint_eq(o.key.reason, HF_REASON_NOT_OURS);
	cut = f;
	cut.len--;
	o = run_as(&cut, &ctx);
	ck_assert_int_eq(o.action, LET_OUT);
	ck_assert_uint_eq(o.key.verdict, HF_VERDICT_DROP);
	ck_assert_uint_eq(o.key.reason, HF_REASON_MALFORMED);
	settings.guard_mode = HF_GUARD_OFF;
	put_settings();
	o = run_as(&f, &ctx);
	ck_assert_int_eq(o.action, LET_OUT);
	ck_assert(!o.counted);
}
END_TEST

START_TEST(an_interface_that_is_nobodys_is_left_alone)
{
	struct __sk_buff ctx = {0};
	uint32_t ifindex = LO;
	struct outcome o;
	struct frame f;

	build(&f, PLAIN, &rows[0]);
	ck_assert_int_eq(bpf_map_delete_elem(bpf_map__fd(guard->maps.interfaces), &ifindex), 0);
	o = run_as(&f, &ctx);
	ck_assert_int_eq(o.action, LET_OUT);
	ck_assert(!o.counted);
}
END_TEST

/* --- what the configuration lets out ------------------------------------------------------ */

static void expect_allowed(const char *what, const struct frame *f, struct hf_allow allow, bool yes)
{
	put_allow(0, allow);
	expect(what, f, yes ? HF_VERDICT_PASS : HF_VERDICT_DROP,
	       yes ? HF_REASON_ALLOWED_SERVICE : HF_REASON_NOT_OURS);
}

START_TEST(an_allowed_service_matches_all_that_it_says)
{
	struct hf_ip there = to_ip(THERE4), there6 = to_ip(THERE6);
	struct frame f;

	build(&f, PLAIN, &(struct row){"", THERE4, TCP, 22, 40000, 0x12, false, V(PASS, NONE)});
	expect_allowed("any", &f, (struct hf_allow){0}, true);
	expect_allowed("tcp", &f, (struct hf_allow){.protocol = TCP}, true);
	expect_allowed("udp", &f, (struct hf_allow){.protocol = UDP}, false);
	expect_allowed("port", &f, (struct hf_allow){.protocol = TCP, .local_port = 22}, true);
	expect_allowed("other port", &f, (struct hf_allow){.local_port = 23}, false);
	expect_allowed("not the remote one", &f, (struct hf_allow){.local_port = 40000}, false);
	expect_allowed("remote port", &f, (struct hf_allow){.remote_port = 40000}, true);
	expect_allowed("other remote port", &f, (struct hf_allow){.remote_port = 22}, false);
	expect_allowed("both", &f, (struct hf_allow){.local_port = 22, .remote_port = 40000}, true);
	expect_allowed("one of both", &f, (struct hf_allow){.local_port = 22, .remote_port = 1},
		       false);
	expect_allowed("address", &f, (struct hf_allow){.remote_bits = 128, .remote = there}, true);
	there.bytes[15] ^= 1;
	expect_allowed("other address", &f, (struct hf_allow){.remote_bits = 128, .remote = there},
		       false);
	expect_allowed("its /31", &f, (struct hf_allow){.remote_bits = 127, .remote = there}, true);
	there.bytes[13] ^= 0x80;
	expect_allowed("its /8", &f, (struct hf_allow){.remote_bits = 104, .remote = there}, true);
	expect_allowed("its /9", &f, (struct hf_allow){.remote_bits = 105, .remote = there}, false);
	expect_allowed("other family", &f, (struct hf_allow){.remote_bits = 3, .remote = there6},
		       false);
	build(&f, PLAIN, &(struct row){"", THERE6, UDP, 123, 123, 0, true, V(PASS, NONE)});
	there6.bytes[8] ^= 0xff;
	expect_allowed(
		"its /64", &f,
		(struct hf_allow){
			.protocol = UDP, .remote_port = 123, .remote_bits = 64, .remote = there6},
		true);
	expect_allowed("its /65", &f, (struct hf_allow){.remote_bits = 65, .remote = there6},
		       false);
	build(&f, PLAIN, &(struct row){"", THERE4, IPPROTO_ICMP, 0, 0, 8, true, V(PASS, NONE)});
	expect_allowed("ping", &f, (struct hf_allow){.protocol = IPPROTO_ICMP}, true);
	/* A type and code of 8 and 0 are no port. */
	expect_allowed("ping with a port", &f, (struct hf_allow){.local_port = 0x0800}, false);
}
END_TEST

START_TEST(the_list_of_services_is_read_to_its_end)
{
	struct frame f;

	build(&f, PLAIN, &(struct row){"", THERE4, TCP, 22, 40000, 0x12, false, V(PASS, NONE)});
	for (uint32_t i = 0; i < HF_ALLOW_MAX - 1; i++)
		put_allow(i, (struct hf_allow){.protocol = UDP});
	expect("31 others", &f, V(DROP, NOT_OURS));
	put_allow(HF_ALLOW_MAX - 1, (struct hf_allow){.local_port = 22});
	expect("the last of 32", &f, V(PASS, ALLOWED_SERVICE));
}
END_TEST

START_TEST(segments_that_are_cut_later_are_judged_by_the_first_header)
{
	struct __sk_buff ctx = {.gso_segs = 2, .gso_size = 1000};
	struct frame f;

	put_allow(0, (struct hf_allow){.protocol = TCP, .local_port = 22});
	for (int v6 = 0; v6 < 2; v6++) {
		begin_ip(&f, PLAIN, v6 ? THERE6 : THERE4, TCP);
		frame_tcp(&f, 22, 40000, 0x18);
		frame_add(&f, NULL, 2000);
		frame_end(&f);
		put_u16(f.bytes + f.l3 + (v6 ? 4 : 2), 0);
		expect_as("a train of segments", &f, &ctx, V(PASS, ALLOWED_SERVICE));
		put_u16(f.bytes + f.l4, 23);
		expect_as("another train", &f, &ctx, V(DROP, NOT_OURS));
	}
}
END_TEST

START_TEST(later_fragments_have_no_ports)
{
	struct frame f;

	put_allow(0, (struct hf_allow){.protocol = UDP, .local_port = 5060});
	for (unsigned offset = 0; offset < 2; offset++) {
		begin_ip(&f, PLAIN, THERE4, UDP);
		frame_udp(&f, 5060, 40000);
		frame_add(&f, NULL, 32);
		frame_end_udp(&f);
		put_u16(f.bytes + f.l3 + 6, 0x2000 | offset);
		expect("a fragment", &f, offset ? HF_VERDICT_DROP : HF_VERDICT_PASS,
		       offset ? HF_REASON_NOT_OURS : HF_REASON_ALLOWED_SERVICE);
		begin_ip(&f, PLAIN, THERE6, 44);
		frame_u16(&f, UDP << 8);
		frame_u16(&f, offset << 3 | 1);
		frame_u32(&f, 77);
		frame_udp(&f, 5060, 40000);
		frame_add(&f, NULL, 32);
		frame_end_udp(&f);
		expect("a fragment", &f, offset ? HF_VERDICT_DROP : HF_VERDICT_PASS,
		       offset ? HF_REASON_NOT_OURS : HF_REASON_ALLOWED_SERVICE);
	}
	/* Nor do they look like what a link needs. */
	begin_ip(&f, PLAIN, THERE4, IPPROTO_ICMP);
	frame_icmp(&f, 3, 0);
	frame_end(&f);
	put_u16(f.bytes + f.l3 + 6, 1);
	expect("an icmp fragment", &f, V(DROP, NOT_OURS));
	begin_ip(&f, PLAIN, "255.255.255.255", UDP);
	frame_udp(&f, 68, 67);
	frame_end_udp(&f);
	put_u16(f.bytes + f.l3 + 6, 1);
	expect("a dhcp fragment", &f, V(DROP, NOT_OURS));
}
END_TEST

START_TEST(nothing_that_a_link_needs_comes_in_fragments)
{
	static const unsigned words[] = {0x0001, 0x0000, 0x0008}; /* first, atomic, last */
	struct frame f;

	for (int i = 0; i < 3; i++) {
		begin_ip(&f, PLAIN, "fe80::1", 44);
		frame_u16(&f, IPPROTO_ICMPV6 << 8);
		frame_u16(&f, words[i]);
		frame_u32(&f, 77);
		frame_icmp(&f, 135, 0);
		frame_add(&f, NULL, 24);
		set_hops(&f, 255);
		frame_end(&f);
		expect("a solicitation in fragments", &f, V(DROP, NOT_OURS));
	}
	build(&f, PLAIN, &(struct row){"", "255.255.255.255", UDP, 68, 67, 0, true, V(PASS, NONE)});
	put_u16(f.bytes + f.l3 + 6, 0x2000);
	expect("dhcp in fragments", &f, V(DROP, NOT_OURS));
	begin_ip(&f, PLAIN, THERE4, IPPROTO_ICMP);
	frame_icmp(&f, 3, 1);
	add_quoted(&f, THERE4);
	frame_end(&f);
	put_u16(f.bytes + f.l3 + 6, 0x2000);
	expect("an error in fragments", &f, V(DROP, NOT_OURS));
}
END_TEST

static void build_error(struct frame *f, const char *to, const char *about, size_t size)
{
	bool v6 = strchr(to, ':');

	begin_ip(f, PLAIN, to, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
	frame_icmp(f, v6 ? 1 : 3, 1);
	add_quoted(f, about);
	frame_add(f, NULL, size - (f->len - f->l3));
	frame_end(f);
}

START_TEST(icmp_errors_are_small_and_about_who_gets_them)
{
	struct frame f;

	build_error(&f, THERE4, THERE4, 576);
	expect("the largest", &f, V(PASS, NO_SOCKET_ICMP));
	build_error(&f, THERE4, THERE4, 577);
	expect("too large", &f, V(DROP, NOT_OURS));
	build_error(&f, THERE4, "203.0.113.10", 100);
	expect("about another's packet", &f, V(DROP, NOT_OURS));
	build_error(&f, THERE6, THERE6, 1280);
	expect("the largest", &f, V(PASS, NO_SOCKET_ICMP));
	build_error(&f, THERE6, THERE6, 1281);
	expect("too large", &f, V(DROP, NOT_OURS));
	build_error(&f, THERE6, "2001:db8:ff::a", 100);
	expect("about another's packet", &f, V(DROP, NOT_OURS));
	begin_ip(&f, PLAIN, THERE4, IPPROTO_ICMP);
	frame_icmp(&f, 3, 1);
	frame_add(&f, NULL, 15);
	frame_end(&f);
	expect("about no whole header", &f, V(DROP, NOT_OURS));
}
END_TEST

START_TEST(icmp_errors_are_bounded)
{
	struct __sk_buff ctx = {0};
	struct outcome o = {0};
	struct frame f;

	build_error(&f, THERE4, THERE4, 100);
	for (int i = 0; i < 20000 && o.key.reason != HF_REASON_RATE_LIMITED; i++)
		o = run_as(&f, &ctx);
	ck_assert_uint_eq(o.key.reason, HF_REASON_RATE_LIMITED);
	ck_assert_uint_eq(o.key.verdict, HF_VERDICT_DROP);
	ck_assert_int_eq(o.action, TC_ACT_SHOT);
	usleep(110000);
	expect("after a pause", &f, V(PASS, NO_SOCKET_ICMP));
}
END_TEST

START_TEST(dhcp_is_known_by_more_than_its_ports)
{
	struct frame f, good;

	build(&good, PLAIN, &(struct row){"", THERE4, UDP, 68, 67, 0, true, V(PASS, NONE)});
	expect("a renewal, unicast", &good, V(PASS, LINK_CONTROL));
	f = good;
	f.bytes[f.l4 + 8] = 2;
	expect("a reply", &f, V(DROP, NOT_OURS));
	f = good;
	f.bytes[f.l4 + 8 + 236] ^= 1;
	expect("another cookie", &f, V(DROP, NOT_OURS));
	build(&f, PLAIN, &(struct row){"", "224.0.0.9", UDP, 68, 67, 0, true, V(PASS, NONE)});
	expect("to a group", &f, V(DROP, NOT_OURS));
	for (unsigned type = 0; type < 16; type++) {
		bool is_client = type && type < 12 && type != 2 && type != 7 && type != 10;

		build(&f, PLAIN,
		      &(struct row){"", "ff02::1:2", UDP, 546, 547, 0, true, V(PASS, NONE)});
		f.bytes[f.l4 + 8] = (uint8_t)type;
		expect("a type of dhcpv6", &f, is_client ? HF_VERDICT_PASS : HF_VERDICT_DROP,
		       is_client ? HF_REASON_LINK_CONTROL : HF_REASON_NOT_OURS);
	}
	build(&f, PLAIN, &(struct row){"", "fe80::1", UDP, 546, 547, 0, true, V(PASS, NONE)});
	expect("to a server on the link", &f, V(PASS, LINK_CONTROL));
	build(&f, PLAIN, &(struct row){"", THERE6, UDP, 546, 547, 0, true, V(PASS, NONE)});
	expect("to one elsewhere", &f, V(DROP, NOT_OURS));
}
END_TEST

START_TEST(every_address_of_one_family_is_not_of_the_other)
{
	static const char *const there[] = {THERE4, THERE6};
	struct frame f;

	for (int i = 0; i < 2; i++) {
		build(&f, PLAIN, &(struct row){"", there[i], UDP, 1, 2, 0, true, V(PASS, NONE)});
		put_allow(0, (struct hf_allow){.remote_bits = 96, .remote = to_ip("0.0.0.0")});
		expect("0.0.0.0/0", &f, i ? HF_VERDICT_DROP : HF_VERDICT_PASS,
		       i ? HF_REASON_NOT_OURS : HF_REASON_ALLOWED_SERVICE);
		put_allow(0, (struct hf_allow){.remote_family = 6});
		expect("::/0", &f, i ? HF_VERDICT_PASS : HF_VERDICT_DROP,
		       i ? HF_REASON_ALLOWED_SERVICE : HF_REASON_NOT_OURS);
	}
}
END_TEST

START_TEST(extension_headers_are_walked)
{
	struct frame f;

	begin_ip(&f, PLAIN, "ff02::16", 0);
	frame_u32(&f, IPPROTO_ICMPV6 << 24 | 0x0502);
	frame_u32(&f, 0x00000100);
	frame_icmp(&f, 143, 0);
	set_hops(&f, 1);
	frame_end(&f);
	expect("mldv2 report as it is sent", &f, V(PASS, NEIGHBOUR));
	put_allow(0, (struct hf_allow){.protocol = TCP, .local_port = 22});
	begin_ip(&f, PLAIN, THERE6, 60);
	for (int i = 0; i < 4; i++) {
		frame_u32(&f, (i == 3 ? TCP : 60u) << 24 | 0x0104);
		frame_u32(&f, 0);
	}
	frame_tcp(&f, 22, 40000, 0x10);
	frame_end(&f);
	expect("four headers", &f, V(PASS, ALLOWED_SERVICE));
	f.bytes[f.l3 + 40 + 1] = 200;
	expect("a header beyond the packet", &f, V(DROP, MALFORMED));
	begin_ip(&f, PLAIN, THERE6, 60);
	for (int i = 0; i < 9; i++) {
		frame_u32(&f, (i == 8 ? TCP : 60u) << 24 | 0x0104);
		frame_u32(&f, 0);
	}
	frame_tcp(&f, 22, 40000, 0x10);
	frame_end(&f);
	expect("nine headers", &f, V(DROP, NOT_OURS));
}
END_TEST

START_TEST(exempt_users_go_out)
{
	struct frame f;

	build(&f, PLAIN, &rows[4]);
	settings.exempt_uids[0] = 12345;
	settings.exempt_uids[15] = 0; /* the user of a test run */
	settings.exempt_uid_count = 1;
	put_settings();
	expect("another user", &f, V(DROP, NOT_OURS));
	for (int i = 1; i < 15; i++)
		settings.exempt_uids[i] = 20000;
	settings.exempt_uid_count = 15;
	put_settings();
	expect("15 other users", &f, V(DROP, NOT_OURS));
	settings.exempt_uid_count = 16;
	put_settings();
	expect("the 16th", &f, V(PASS, EXEMPT_USER));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("guard program");
	TCase *tcase = tcase_create("packets");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, each_packet_gets_its_verdict_in_every_shape);
	tcase_add_test(tcase, a_packet_cut_off_anywhere_stays);
	tcase_add_test(tcase, what_a_link_needs_goes_no_further_than_the_link);
	tcase_add_test(tcase, octets_behind_the_packet_do_not_go_along);
	tcase_add_test(tcase, what_comes_in_elsewhere_is_no_reset_or_error_of_the_kernels);
	tcase_add_test(tcase, a_changed_octet_does_not_let_an_apps_packet_out);
	tcase_add_test(tcase, arp_and_eapol_pass_and_other_network_protocols_stay);
	tcase_add_test(tcase, the_mark_proves_nothing);
	tcase_add_test(tcase, the_mode_says_whether_to_stop_to_watch_or_to_look_away);
	tcase_add_test(tcase, an_interface_that_is_nobodys_is_left_alone);
	tcase_add_test(tcase, an_allowed_service_matches_all_that_it_says);
	tcase_add_test(tcase, the_list_of_services_is_read_to_its_end);
	tcase_add_test(tcase, segments_that_are_cut_later_are_judged_by_the_first_header);
	tcase_add_test(tcase, later_fragments_have_no_ports);
	tcase_add_test(tcase, nothing_that_a_link_needs_comes_in_fragments);
	tcase_add_test(tcase, icmp_errors_are_small_and_about_who_gets_them);
	tcase_add_test(tcase, icmp_errors_are_bounded);
	tcase_add_test(tcase, dhcp_is_known_by_more_than_its_ports);
	tcase_add_test(tcase, every_address_of_one_family_is_not_of_the_other);
	tcase_add_test(tcase, extension_headers_are_walked);
	tcase_add_test(tcase, exempt_users_go_out);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
