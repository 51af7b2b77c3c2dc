/* links: PkgConfig::LIBBPF PkgConfig::LIBELF */
/*
 * The steer program, packet by packet: what becomes of each, whole, cut off at every length and
 * with every octet changed. What it sends back is in check_steer_replies.c and check_steer_dns.c.
 */
#include "steer_bench.h"

/* --- a table of whole packets ------------------------------------------------------------ */

static const struct row rows[] = {
	{"tcp", FAR4, TCP, 8883, V(STEER, TCP_PROXY)},
	{"tcp6", FAR6, TCP, 8883, V(STEER, TCP_PROXY)},
	{"tcp to the virtual pool", VIRTUAL4, TCP, 80, V(STEER, TCP_PROXY)},
	{"tcp6 to the virtual pool", VIRTUAL6, TCP, 80, V(STEER, TCP_PROXY)},
	{"holdfast.internal", INTERNAL4, TCP, 80, V(STEER, API_APPS)},
	{"holdfast.internal by v6", INTERNAL6, TCP, 80, V(STEER, API_APPS)},
	{"holdfast.internal, other port", INTERNAL4, TCP, 443, V(REFUSE, INTERNAL_PORT)},
	{"holdfast.internal by v6, other port", INTERNAL6, TCP, 8080, V(REFUSE, INTERNAL_PORT)},
	{"dns over tcp", FAR4, TCP, 53, V(STEER, DNS_RESOLVER)},
	{"dns6 over tcp", FAR6, TCP, 53, V(STEER, DNS_RESOLVER)},
	{"dns to the device over tcp", DEVICE4, TCP, 53, V(STEER, DNS_RESOLVER)},
	{"dns that is none", FAR4, UDP, 53, V(STEER, DNS_RESOLVER)},
	{"dns6 that is none", FAR6, UDP, 53, V(STEER, DNS_RESOLVER)},
	{"tcp to the device", DEVICE4, TCP, 22, V(PASS, DEVICE_ADDRESS)},
	{"tcp6 to the device", DEVICE6, TCP, 22, V(PASS, DEVICE_ADDRESS)},
	{"udp to the device", DEVICE4, UDP, 67, V(PASS, DEVICE_ADDRESS)},
	{"udp6 to the device", DEVICE6, UDP, 40000, V(PASS, DEVICE_ADDRESS)},
	{"udp 443 to the device", DEVICE4, UDP, 443, V(PASS, DEVICE_ADDRESS)},
	{"echo to the device", DEVICE4, IPPROTO_ICMP, 8, V(PASS, DEVICE_ADDRESS)},
	{"echo6 to the device", DEVICE6, IPPROTO_ICMPV6, 128, V(PASS, DEVICE_ADDRESS)},
	{"another protocol to the device", DEVICE4, 132, 0, V(PASS, DEVICE_ADDRESS)},
	{"link-local", "169.254.7.7", TCP, 80, V(REFUSE, LOCAL_NETWORK)},
	{"link-local6", "fe80::7", TCP, 80, V(PASS, LOCAL_NETWORK)},
	{"link-local6, udp", "febf::7", UDP, 5000, V(PASS, LOCAL_NETWORK)},
	{"above link-local6", "fec0::7", TCP, 80, V(STEER, TCP_PROXY)},
	{"multicast", "224.0.0.251", UDP, 5353, V(PASS, MULTICAST)},
	{"multicast6", "ff02::fb", UDP, 5353, V(PASS, MULTICAST)},
	{"dhcp's broadcast", "255.255.255.255", UDP, 67, V(PASS, MULTICAST)},
	{"udp", FAR4, UDP, 123, V(REFUSE, NO_LINK)},
	{"udp6", FAR6, UDP, 123, V(REFUSE, NO_LINK)},
	{"quic", FAR4, UDP, 443, V(REFUSE, QUIC_REFUSED)},
	{"quic6", FAR6, UDP, 443, V(REFUSE, QUIC_REFUSED)},
	{"quic to the virtual pool", VIRTUAL4, UDP, 443, V(REFUSE, QUIC_REFUSED)},
	{"sctp", FAR4, 132, 0, V(REFUSE, PROTOCOL_REFUSED)},
	{"sctp6", FAR6, 132, 0, V(REFUSE, PROTOCOL_REFUSED)},
	{"gre", FAR4, IPPROTO_GRE, 0, V(REFUSE, PROTOCOL_REFUSED)},
	{"icmpv6 in v4", FAR4, IPPROTO_ICMPV6, 128, V(REFUSE, PROTOCOL_REFUSED)},
	{"icmp in v6", FAR6, IPPROTO_ICMP, 8, V(REFUSE, PROTOCOL_REFUSED)},
	{"echo to the virtual pool", VIRTUAL4, IPPROTO_ICMP, 8, V(ANSWER, ECHO_VIRTUAL)},
	{"echo6 to the virtual pool", VIRTUAL6, IPPROTO_ICMPV6, 128, V(ANSWER, ECHO_VIRTUAL)},
	{"echo below the pool", "198.17.255.255", IPPROTO_ICMP, 8, V(REFUSE, NO_LINK)},
	{"echo above the pool", "198.20.0.0", IPPROTO_ICMP, 8, V(REFUSE, NO_LINK)},
	{"echo6 beside the pool", "fd5a:fe00:0:1::7", IPPROTO_ICMPV6, 128, V(REFUSE, NO_LINK)},
	{"echo", FAR4, IPPROTO_ICMP, 8, V(REFUSE, NO_LINK)},
	{"echo6", FAR6, IPPROTO_ICMPV6, 128, V(REFUSE, NO_LINK)},
	{"unreachable", FAR4, IPPROTO_ICMP, 3, V(PASS, ICMP_ERROR)},
	{"time exceeded", FAR4, IPPROTO_ICMP, 11, V(PASS, ICMP_ERROR)},
	{"parameter problem", FAR4, IPPROTO_ICMP, 12, V(PASS, ICMP_ERROR)},
	{"unreachable6", FAR6, IPPROTO_ICMPV6, 1, V(PASS, ICMP_ERROR)},
	{"packet too big", FAR6, IPPROTO_ICMPV6, 2, V(PASS, ICMP_ERROR)},
	{"time exceeded6", FAR6, IPPROTO_ICMPV6, 3, V(PASS, ICMP_ERROR)},
	{"parameter problem6", FAR6, IPPROTO_ICMPV6, 4, V(PASS, ICMP_ERROR)},
	{"echo reply", FAR4, IPPROTO_ICMP, 0, V(DROP, PROTOCOL_REFUSED)},
	{"echo reply6", FAR6, IPPROTO_ICMPV6, 129, V(DROP, PROTOCOL_REFUSED)},
	{"timestamp", FAR4, IPPROTO_ICMP, 13, V(DROP, PROTOCOL_REFUSED)},
	{"router solicitation", "ff02::2", IPPROTO_ICMPV6, 133, V(PASS, NEIGHBOUR)},
	{"router advertisement", "ff02::1", IPPROTO_ICMPV6, 134, V(PASS, NEIGHBOUR)},
	{"neighbour solicitation", DEVICE6, IPPROTO_ICMPV6, 135, V(PASS, NEIGHBOUR)},
	{"neighbour advertisement", DEVICE6, IPPROTO_ICMPV6, 136, V(PASS, NEIGHBOUR)},
	{"redirect", DEVICE6, IPPROTO_ICMPV6, 137, V(PASS, NEIGHBOUR)},
	{"mld query", "ff02::1", IPPROTO_ICMPV6, 130, V(PASS, NEIGHBOUR)},
	{"mld report", "ff02::1", IPPROTO_ICMPV6, 131, V(PASS, NEIGHBOUR)},
	{"mld done", "ff02::2", IPPROTO_ICMPV6, 132, V(PASS, NEIGHBOUR)},
	{"mldv2 report", "ff02::16", IPPROTO_ICMPV6, 143, V(PASS, NEIGHBOUR)},
};
/* The same device's own may do; from an app's network nobody sends there. */
static const struct row loopback_rows[] = {
	{"dns to a local stub", "127.0.0.53", UDP, 53, V(STEER, DNS_RESOLVER)},
	{"dns to ::1", "::1", UDP, 53, V(STEER, DNS_RESOLVER)},
	{"loopback", "127.0.0.1", TCP, 7080, V(PASS, DEVICE_ADDRESS)},
	{"all of 127/8", "127.255.255.254", UDP, 7, V(PASS, DEVICE_ADDRESS)},
	{"loopback6", "::1", TCP, 7080, V(PASS, DEVICE_ADDRESS)},
};

enum { ROWS = sizeof(rows) / sizeof(*rows) };

START_TEST(each_packet_gets_its_verdict_in_every_shape)
{
	struct frame f;

	for (int shape = 0; shape < SHAPES; shape++) {
		put_interface(HF_ROLE_APP, shape != BARE);
		for (int i = 0; i < ROWS; i++) {
			struct outcome o;

			build(&f, (enum shape)shape, &rows[i]);
			expect_outcome(rows[i].name, &f, rows[i].verdict, rows[i].reason, &o);
			if (o.action == XDP_TX)
				check_reply(&f, &o.out, f.l3);
		}
	}
}
END_TEST

START_TEST(the_devices_own_apps_are_steered_as_others_are)
{
	struct frame f;

	put_interface(HF_ROLE_HOST, true);
	for (int i = 0; i < ROWS; i++) {
		build(&f, PLAIN, &rows[i]);
		expect(rows[i].name, &f, rows[i].verdict, rows[i].reason);
	}
	for (size_t i = 0; i < sizeof(loopback_rows) / sizeof(*loopback_rows); i++) {
		const struct row *row = &loopback_rows[i];

		build(&f, PLAIN, row);
		expect(row->name, &f, row->verdict, row->reason);
	}
	put_interface(HF_ROLE_APP, true);
	for (size_t i = 0; i < sizeof(loopback_rows) / sizeof(*loopback_rows); i++) {
		build(&f, PLAIN, &loopback_rows[i]);
		expect(loopback_rows[i].name, &f, V(DROP, MARTIAN));
	}
}
END_TEST

START_TEST(a_packet_cut_off_anywhere_is_malformed)
{
	struct frame f;
	struct outcome o;

	for (int shape = 0; shape < SHAPES; shape++) {
		put_interface(HF_ROLE_APP, shape != BARE);
		for (int i = 0; i < ROWS; i++) {
			build(&f, (enum shape)shape, &rows[i]);
			/* The kernel takes no test packet shorter than an Ethernet header. */
			for (size_t len = f.len - 1; len >= 14; len--) {
				f.len = len;
				expect_outcome(rows[i].name, &f, V(DROP, MALFORMED), &o);
			}
		}
	}
}
END_TEST

/* Verdict and action belong together, a reply is whole. */
static void check_outcome(const struct frame *f, const struct outcome *o, size_t changed)
{
	enum hf_verdict verdict = o->key.verdict;

	ck_assert(o->counted);
	ck_assert(o->key.reason > HF_REASON_NONE && o->key.reason < HF_REASON_COUNT);
	switch (verdict) {
	case HF_VERDICT_ANSWER:
	case HF_VERDICT_REFUSE:
		ck_assert_uint_eq(o->action, XDP_TX);
		/* Not where the changed octets are the ethertype. */
		if (changed != 12 && changed != 13)
			check_reply(f, &o->out, f->l3);
		return;
	case HF_VERDICT_PASS:
	case HF_VERDICT_STEER:
		ck_assert_uint_eq(o->action, XDP_PASS);
		return;
	case HF_VERDICT_DROP:
		ck_assert_uint_eq(o->action, XDP_DROP);
		return;
	case HF_VERDICT_COUNT:
		break;
	}
	ck_abort_msg("no verdict: %d", verdict);
}

/* A router that changed the octet would have made the sum right again. */
static void mend(struct frame *f)
{
	uint8_t *ip = f->bytes + f->l3;
	size_t header = (size_t)(ip[0] & 15) * 4;

	if (f->family != 4 || f->l3 + header > f->len || header < 20)
		return;
	put_u16(ip + 10, 0);
	put_u16(ip + 10, ~internet_sum(ip, header, 0) & 0xffff);
}

/* Not one verdict for each: but never an abort, never two counters, never a bad reply. */
START_TEST(a_changed_octet_leads_to_a_whole_verdict)
{
	static const uint8_t with[] = {0x01, 0x80, 0xff, 0x40, 0x05};
	struct frame whole, f;
	struct outcome o;

	for (int i = 0; i < ROWS; i++) {
		build(&whole, PLAIN, &rows[i]);
		for (size_t at = 0; at < whole.len * sizeof(with); at++) {
			f = whole;
			f.bytes[at / sizeof(with)] ^= with[at % sizeof(with)];
			bench_run(&f, &o);
			check_outcome(&f, &o, at / sizeof(with));
			mend(&f);
			bench_run(&f, &o);
			check_outcome(&f, &o, at / sizeof(with));
		}
	}
}
END_TEST

/* --- what is not in the table ------------------------------------------------------------ */

START_TEST(interfaces_of_others_are_left_alone_and_uncounted)
{
	uint32_t ifindex = LO;
	struct outcome o;
	struct frame f;

	build(&f, PLAIN, &rows[0]);
	put_interface(HF_ROLE_LINK, true);
	bench_run(&f, &o);
	ck_assert_uint_eq(o.action, XDP_PASS);
	ck_assert(!o.counted);
	bpf_map_delete_elem(bpf_map__fd(steer->maps.interfaces), &ifindex);
	bench_run(&f, &o);
	ck_assert_uint_eq(o.action, XDP_PASS);
	ck_assert(!o.counted);
}
END_TEST

START_TEST(other_network_protocols_stay_here_but_for_arp)
{
	struct frame f;

	for (int shape = PLAIN; shape < BARE; shape++) {
		begin(&f, (enum shape)shape, 0x0806);
		frame_add(&f, NULL, 28);
		expect("arp", &f, V(PASS, NEIGHBOUR));
		begin(&f, (enum shape)shape, 0x88cc);
		frame_add(&f, NULL, 28);
		expect("lldp", &f, V(DROP, ETHERTYPE));
	}
	begin(&f, PLAIN, 0x0026);
	frame_add(&f, NULL, 0x26);
	expect("an 802.3 frame", &f, V(DROP, ETHERTYPE));
	begin(&f, TAGGED, 0x8100);
	frame_u32(&f, 0x00010800);
	frame_add(&f, NULL, 40);
	begin(&f, DOUBLE_TAGGED, 0x8100);
	frame_u32(&f, 0x00010800);
	frame_add(&f, NULL, 40);
	expect("three tags", &f, V(DROP, ETHERTYPE));
	put_interface(HF_ROLE_APP, false);
	f.len = 0;
	frame_u8(&f, 0x50);
	frame_add(&f, NULL, 60);
	expect("version 5 without a frame", &f, V(DROP, MALFORMED));
}
END_TEST

START_TEST(a_frame_for_many_is_not_steered_nor_refused)
{
	struct frame f;

	build(&f, PLAIN, &rows[0]);
	f.bytes[0] = 0xff;
	expect("tcp in a broadcast frame", &f, V(DROP, MARTIAN));
}
END_TEST

START_TEST(nobody_in_particular_gets_no_icmp_error)
{
	static const char *const sources[] = {"0.0.0.0", "224.0.0.1", "255.255.255.255"};
	static const char *const sources6[] = {"::", "ff02::1"};
	struct frame f;

	for (size_t i = 0; i < 3; i++) {
		begin(&f, PLAIN, 0x0800);
		frame_ip(&f, sources[i], FAR4, UDP);
		frame_udp(&f, 1, 2);
		frame_end_udp(&f);
		expect(sources[i], &f, V(DROP, MARTIAN));
	}
	for (size_t i = 0; i < 2; i++) {
		begin(&f, PLAIN, 0x86dd);
		frame_ip(&f, sources6[i], FAR6, UDP);
		frame_udp(&f, 1, 2);
		frame_end_udp(&f);
		expect(sources6[i], &f, V(DROP, MARTIAN));
	}
}
END_TEST

START_TEST(tcp_in_the_middle_of_a_flow_is_steered_too)
{
	static const unsigned flags[] = {0x10, 0x18, 0x11, 0x04, 0x14, 0x00, 0xff};
	struct frame f;

	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		begin_ip(&f, PLAIN, FAR4, TCP);
		frame_tcp(&f, 40000, 443, flags[i]);
		frame_end(&f);
		expect("a segment", &f, V(STEER, TCP_PROXY));
	}
}
END_TEST

START_TEST(padding_behind_the_packet_does_not_count)
{
	struct frame f;

	begin_ip(&f, PLAIN, FAR4, TCP);
	frame_tcp(&f, 40000, 443, 0x02);
	frame_end(&f);
	frame_add(&f, NULL, 6);
	expect("padded", &f, V(STEER, TCP_PROXY));
}
END_TEST

START_TEST(fragments_of_datagrams_are_put_together_here)
{
	/* MF, MF and offset, offset alone. */
	static const unsigned fields[] = {0x2000, 0x2010, 0x0010};
	static const unsigned ports[] = {53, 123, 443};
	struct frame f;

	for (size_t i = 0; i < 3; i++) {
		for (size_t n = 0; n < 3; n++) {
			begin_ip(&f, PLAIN, FAR4, UDP);
			frame_udp(&f, 40000, ports[n]);
			frame_add(&f, NULL, 64);
			frame_end_udp(&f);
			put_u16(f.bytes + f.l3 + 6, fields[i]);
			expect("a fragment", &f, V(STEER, FRAGMENT_STEERED));
			memcpy(f.bytes + f.l3 + 16, (const uint8_t[]){192, 0, 2, 1}, 4);
			expect("a fragment to the device", &f, V(PASS, DEVICE_ADDRESS));
		}
		/* IPv6: offset and M in the low bits of the header's second word. */
		begin_ip(&f, PLAIN, FAR6, 44);
		frame_u16(&f, UDP << 8);
		frame_u16(&f, (fields[i] & 0x1fff) << 3 | (fields[i] & 0x2000) >> 13);
		frame_u32(&f, 77);
		frame_udp(&f, 40000, 53);
		frame_add(&f, NULL, 64);
		frame_end_udp(&f);
		expect("a fragment", &f, V(STEER, FRAGMENT_STEERED));
	}
}
END_TEST

START_TEST(extension_headers_are_walked)
{
	struct frame f;

	/* Hop-by-hop, routing, destination options in that order, of several lengths. */
	for (unsigned more = 0; more < 4; more++) {
		begin_ip(&f, PLAIN, FAR6, 0);
		extend(&f, 43, more);
		extend(&f, 60, 0);
		f.bytes[f.len - 5] = 0; /* no hops left */
		extend(&f, TCP, more);
		frame_tcp(&f, 40000, 443, 0x02);
		frame_end(&f);
		expect("tcp behind three headers", &f, V(STEER, TCP_PROXY));
		for (size_t len = f.len - 1; len >= 14; len--) {
			f.len = len;
			expect("tcp behind three headers, cut", &f, V(DROP, MALFORMED));
		}
	}
	begin_ip(&f, PLAIN, "ff02::16", 0);
	extend(&f, IPPROTO_ICMPV6, 0);
	frame_icmp(&f, 143, 0);
	frame_end(&f);
	expect("mldv2 report as it is sent", &f, V(PASS, NEIGHBOUR));
}
END_TEST

START_TEST(endless_extension_headers_are_malformed)
{
	struct frame f;

	begin_ip(&f, PLAIN, FAR6, 60);
	for (int i = 0; i < 8; i++)
		extend(&f, i == 7 ? TCP : 60, 0);
	frame_tcp(&f, 40000, 443, 0x02);
	frame_end(&f);
	expect("eight headers", &f, V(DROP, MALFORMED));
	begin_ip(&f, PLAIN, FAR6, 60);
	extend(&f, TCP, 255);
	frame_tcp(&f, 40000, 443, 0x02);
	frame_end(&f);
	expect("a header of 2048 octets", &f, V(DROP, MALFORMED));
	begin_ip(&f, PLAIN, FAR6, 60);
	extend(&f, TCP, 0);
	f.bytes[f.l4 + 1] = 200;
	frame_tcp(&f, 40000, 443, 0x02);
	frame_end(&f);
	expect("a header beyond the packet", &f, V(DROP, MALFORMED));
}
END_TEST

/* Changes one octet, or two, of a good packet to DEVICE: malformed ones do not get there. */
static void expect_malformed(const char *what, const struct frame *good, size_t at, unsigned value)
{
	struct frame f = *good;

	put_u16(f.bytes + at, value);
	expect(what, &f, V(DROP, MALFORMED));
}

START_TEST(headers_that_contradict_themselves_are_malformed)
{
	struct frame f;
	size_t ip;

	begin_ip(&f, PLAIN, DEVICE4, UDP);
	frame_udp(&f, 40000, 5000);
	frame_add(&f, NULL, 10);
	frame_end_udp(&f);
	ip = f.l3;
	expect("the good one", &f, V(PASS, DEVICE_ADDRESS));
	expect_malformed("version 6 in 0x0800", &f, ip, 0x6500);
	expect_malformed("ihl 4", &f, ip, 0x4400);
	expect_malformed("ihl 15", &f, ip, 0x4f00);
	expect_malformed("total length below the header", &f, ip + 2, 19);
	expect_malformed("total length of nothing", &f, ip + 2, 0);
	expect_malformed("total length beyond the packet", &f, ip + 2, 20 + 18 + 1);
	expect_malformed("total length of headers only", &f, ip + 2, 27);
	expect_malformed("udp shorter than its header", &f, f.l4 + 4, 7);
	expect_malformed("udp longer than the packet", &f, f.l4 + 4, 19);
	begin_ip(&f, PLAIN, DEVICE6, TCP);
	frame_tcp(&f, 40000, 5000, 0x02);
	frame_add(&f, NULL, 3);
	frame_end(&f);
	expect("the good one", &f, V(PASS, DEVICE_ADDRESS));
	expect_malformed("version 4 in 0x86dd", &f, ip, 0x4500);
	expect_malformed("payload beyond the packet", &f, ip + 4, 24);
	expect_malformed("payload of less than a header", &f, ip + 4, 19);
	expect_malformed("payload of nothing", &f, ip + 4, 0);
	expect_malformed("data offset 4", &f, f.l4 + 12, 0x4002);
	expect_malformed("data offset beyond the segment", &f, f.l4 + 12, 0x6002);
	begin_ip(&f, PLAIN, DEVICE4, IPPROTO_ICMP);
	frame_icmp(&f, 8, 0);
	frame_end(&f);
	expect_malformed("icmp of 7 octets", &f, ip + 2, 27);
}
END_TEST

START_TEST(packets_in_several_buffers_are_measured_whole)
{
	struct outcome o;
	struct frame f;

	begin_ip(&f, PLAIN, FAR4, TCP);
	frame_tcp(&f, 40000, 443, 0x10);
	frame_add(&f, NULL, FRAME_MAX - f.len);
	frame_end(&f);
	expect("4 KB of tcp", &f, V(STEER, TCP_PROXY));
	begin_ip(&f, PLAIN, FAR6, UDP);
	frame_udp(&f, 40000, 123);
	frame_add(&f, NULL, FRAME_MAX - f.len);
	frame_end_udp(&f);
	expect_outcome("4 KB of udp", &f, V(REFUSE, NO_LINK), &o);
	ck_assert_uint_eq(o.out.len, 14 + 48 + 48);
	check_reply(&f, &o.out, 14);
	f.len--;
	expect("4 KB of udp, cut", &f, V(DROP, MALFORMED));
}
END_TEST

static int run_big(uint8_t *bytes, size_t len, struct outcome *ret)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = bytes, .data_size_in = (__u32)len);
	int counters = bpf_map__fd(steer->maps.counters);
	int r;

	counters_clear(counters);
	r = bpf_prog_test_run_opts(bpf_program__fd(steer->progs.hf_steer), &opts);
	ret->action = opts.retval;
	ret->counted = counters_only(counters, &ret->key, &ret->counter);
	return r;
}

START_TEST(segments_too_long_for_their_length_field_are_steered)
{
	enum { BIG = 14 + 40 + 66000 };
	static const char *const far[] = {FAR4, FAR6};
	uint8_t *big = calloc(1, BIG);
	struct outcome o;
	struct frame f;

	ck_assert_ptr_nonnull(big);
	for (int i = 0; i < 2; i++) {
		begin_ip(&f, PLAIN, far[i], TCP);
		frame_tcp(&f, 40000, 443, 0x10);
		frame_end(&f);
		put_u16(f.bytes + f.l3 + (i ? 4 : 2), 0); /* as the kernel leaves it */
		memcpy(big, f.bytes, f.len);
		ck_assert_int_eq(run_big(big, BIG, &o), 0);
		ck_assert_uint_eq(o.action, XDP_PASS);
		ck_assert_uint_eq(o.key.reason, HF_REASON_TCP_PROXY);
		ck_assert_uint_eq(o.counter.bytes, BIG);
	}
	free(big);
}
END_TEST

START_TEST(a_full_map_of_counters_is_counted_and_changes_no_verdict)
{
	int counters = bpf_map__fd(steer->maps.counters), cpus = libbpf_num_possible_cpus();
	struct hf_counter *none = calloc((size_t)cpus, sizeof(*none));
	uint64_t *overflow = calloc((size_t)cpus, sizeof(*overflow)), sum = 0;
	struct hf_counter_key key = {.hook = HF_HOOK_GUARD};
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	uint32_t zero = 0;
	struct frame f;

	for (key.ifindex = 100; key.ifindex < 100 + HF_COUNTERS_MAX; key.ifindex++)
		put(counters, &key, none);
	build(&f, PLAIN, &rows[0]);
	opts.data_in = f.bytes;
	opts.data_size_in = (__u32)f.len;
	ck_assert_int_eq(bpf_prog_test_run_opts(bpf_program__fd(steer->progs.hf_steer), &opts), 0);
	ck_assert_uint_eq(opts.retval, XDP_PASS);
	ck_assert_int_eq(
		bpf_map_lookup_elem(bpf_map__fd(steer->maps.counter_overflow), &zero, overflow), 0);
	for (int i = 0; i < cpus; i++)
		sum += overflow[i];
	ck_assert_uint_eq(sum, 1);
	free(overflow);
	free(none);
}
END_TEST

static TCase *packets(const char *name, void (*open)(void))
{
	TCase *tcase = tcase_create(name);

	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, open, bench_close);
	tcase_add_test(tcase, each_packet_gets_its_verdict_in_every_shape);
	tcase_add_test(tcase, the_devices_own_apps_are_steered_as_others_are);
	tcase_add_test(tcase, a_packet_cut_off_anywhere_is_malformed);
	tcase_add_test(tcase, a_changed_octet_leads_to_a_whole_verdict);
	tcase_add_test(tcase, interfaces_of_others_are_left_alone_and_uncounted);
	tcase_add_test(tcase, other_network_protocols_stay_here_but_for_arp);
	tcase_add_test(tcase, a_frame_for_many_is_not_steered_nor_refused);
	tcase_add_test(tcase, nobody_in_particular_gets_no_icmp_error);
	tcase_add_test(tcase, tcp_in_the_middle_of_a_flow_is_steered_too);
	tcase_add_test(tcase, padding_behind_the_packet_does_not_count);
	tcase_add_test(tcase, fragments_of_datagrams_are_put_together_here);
	tcase_add_test(tcase, extension_headers_are_walked);
	tcase_add_test(tcase, endless_extension_headers_are_malformed);
	tcase_add_test(tcase, headers_that_contradict_themselves_are_malformed);
	tcase_add_test(tcase, a_full_map_of_counters_is_counted_and_changes_no_verdict);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("steer program");
	TCase *frags = packets("with frags", open_with_frags);
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_test(frags, packets_in_several_buffers_are_measured_whole);
	tcase_add_test(frags, segments_too_long_for_their_length_field_are_steered);
	suite_add_tcase(suite, frags);
	suite_add_tcase(suite, packets("without frags", open_without_frags));
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
