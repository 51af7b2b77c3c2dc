/* The steer program on a bench: its maps filled, one packet in, one verdict out. */
#pragma once

#include "golden.h"

#include "steer.skel.h"

#include <linux/bpf.h>

/* A test run without a context comes in by lo, whose number is 1 in every namespace. */
enum { LO = 1 };

#define APP4	  "192.0.2.2"
#define APP6	  "2001:db8:a::2"
#define DEVICE4	  "192.0.2.1"
#define DEVICE6	  "2001:db8:a::1"
#define FAR4	  "203.0.113.9"
#define FAR6	  "2001:db8:ff::9"
#define INTERNAL4 "198.18.0.1"
#define INTERNAL6 "fd5a:fe00::1"
#define VIRTUAL4  "198.19.255.7"
#define VIRTUAL6  "fd5a:fe00::7:7"

static struct steer_bpf *steer;
static struct hf_settings settings;

static inline void put_settings(void)
{
	uint32_t zero = 0;

	put(bpf_map__fd(steer->maps.settings), &zero, &settings);
}

static inline void put_interface(enum hf_role role, bool has_mac)
{
	struct hf_interface in = {.role = (uint8_t)role, .has_mac = has_mac};
	uint32_t ifindex = LO;

	put(bpf_map__fd(steer->maps.interfaces), &ifindex, &in);
}

static inline void put_alive(bool alive)
{
	uint64_t until = alive ? UINT64_MAX : 0;
	uint32_t zero = 0;

	put(bpf_map__fd(steer->maps.heartbeat), &zero, &until);
}

static inline void put_direct(const char *address, unsigned bits)
{
	struct hf_ip ip = to_ip(address);
	struct hf_prefix key = {.bits = bits};
	uint32_t one = 1;

	memcpy(key.ip, ip.bytes, sizeof(key.ip));
	put(bpf_map__fd(steer->maps.direct), &key, &one);
}

static inline void bench_open(bool frags)
{
	steer = steer_bpf__open();
	ck_assert_ptr_nonnull(steer);
	steer->rodata_frags->has_frags = frags;
	ck_assert_int_eq(
		bpf_program__set_flags(steer->progs.hf_steer, frags ? BPF_F_XDP_HAS_FRAGS : 0), 0);
	load_unpinned(steer->obj);
	settings = (struct hf_settings){
		.abi = HF_ABI_VERSION,
		.names_mode = HF_NAMES_REAL,
		.virtual_ttl = 1,
		.internal_v4 = to_ip(INTERNAL4),
		.internal_v6 = to_ip(INTERNAL6),
		.virtual_v4 = to_ip("198.18.0.0"),
		.virtual_v6 = to_ip("fd5a:fe00::"),
		.virtual_v4_bits = 96 + 15,
		.virtual_v6_bits = 64,
	};
	put_settings();
	put_alive(true);
	put_direct("192.0.2.0", 96 + 24);
	put_direct("2001:db8:a::", 64);
	put_interface(HF_ROLE_APP, true);
	put_device_address(bpf_map__fd(steer->maps.device_addresses), DEVICE4);
	put_device_address(bpf_map__fd(steer->maps.device_addresses), DEVICE6);
}

/* Kernels before 5.18 get the program without frags: it must do the same there. */
static inline void open_with_frags(void)
{
	bench_open(true);
}

static inline void open_without_frags(void)
{
	bench_open(false);
}

static inline void bench_close(void)
{
	steer_bpf__destroy(steer);
}

/* How a frame begins: Ethernet, tags, or nothing. */
enum shape { PLAIN, TAGGED, DOUBLE_TAGGED, BARE, SHAPES };

static inline void begin(struct frame *f, enum shape shape, unsigned type)
{
	f->len = 0;
	if (shape == BARE)
		return;
	if (shape == PLAIN) {
		frame_mac(f, DEVICE_MAC, APP_MAC, type);
		return;
	}
	frame_mac(f, DEVICE_MAC, APP_MAC, shape == DOUBLE_TAGGED ? 0x88a8 : 0x8100);
	if (shape == DOUBLE_TAGGED) {
		frame_u16(f, 100);
		frame_u16(f, 0x8100);
	}
	frame_u16(f, 0x2007);
	frame_u16(f, type);
}

static inline void begin_ip(struct frame *f, enum shape shape, const char *to, unsigned protocol)
{
	int v6 = strchr(to, ':') != NULL;

	begin(f, shape, v6 ? 0x86dd : 0x0800);
	frame_ip(f, v6 ? APP6 : APP4, to, protocol);
}

struct row {
	const char *name, *to;
	unsigned protocol, port; /* port: of an ICMP message its type */
	enum hf_verdict verdict;
	enum hf_reason reason;
};

#define UDP		   IPPROTO_UDP
#define TCP		   IPPROTO_TCP
#define V(verdict, reason) HF_VERDICT_##verdict, HF_REASON_##reason

static inline void build(struct frame *f, enum shape shape, const struct row *row)
{
	static const char text[] = "what an app has to say";

	begin_ip(f, shape, row->to, row->protocol);
	if (row->protocol == UDP)
		frame_udp(f, 40000, row->port);
	else if (row->protocol == TCP)
		frame_tcp(f, 40000, row->port, 0x02);
	else
		frame_icmp(f, row->port, 0);
	frame_add(f, text, sizeof(text) - 1);
	if (row->protocol == UDP)
		frame_end_udp(f);
	else
		frame_end(f);
}

/* An extension header of 8 * (1 + more) octets that says what follows it. */
static inline void extend(struct frame *f, unsigned next, unsigned more)
{
	frame_u8(f, next);
	frame_u8(f, more);
	frame_u8(f, 1); /* PadN */
	frame_u8(f, 4);
	frame_add(f, NULL, 4 + 8 * more);
}

struct outcome {
	uint32_t action; /* XDP_* */
	bool counted;
	struct hf_counter_key key;
	struct hf_counter counter;
	struct frame out;
};

static inline void bench_run(const struct frame *in, struct outcome *ret)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->bytes, .data_size_in = (__u32)in->len,
		    .data_out = ret->out.bytes, .data_size_out = sizeof(ret->out.bytes));
	int counters = bpf_map__fd(steer->maps.counters);
	int r;

	counters_clear(counters);
	r = bpf_prog_test_run_opts(bpf_program__fd(steer->progs.hf_steer), &opts);
	ck_assert_msg(r == 0, "test run of %zu octets: %s", in->len, strerror(-r));
	ret->action = opts.retval;
	ret->out.len = opts.data_size_out;
	ret->counted = counters_only(counters, &ret->key, &ret->counter);
}

static inline void expect_outcome(const char *what, const struct frame *in, enum hf_verdict verdict,
				  enum hf_reason reason, struct outcome *ret)
{
	static const uint32_t actions[] = {
		[HF_VERDICT_PASS] = XDP_PASS, [HF_VERDICT_STEER] = XDP_PASS,
		[HF_VERDICT_ANSWER] = XDP_TX, [HF_VERDICT_REFUSE] = XDP_TX,
		[HF_VERDICT_DROP] = XDP_DROP,
	};

	bench_run(in, ret);
	ck_assert_msg(ret->counted, "%s (%zu octets): not counted", what, in->len);
	ck_assert_msg(ret->key.verdict == verdict && ret->key.reason == reason,
		      "%s (%zu octets): verdict %u reason %u, not %u %u", what, in->len,
		      ret->key.verdict, ret->key.reason, verdict, reason);
	ck_assert_msg(ret->action == actions[verdict], "%s: action %u", what, ret->action);
	ck_assert_uint_eq(ret->key.ifindex, LO);
	ck_assert_uint_eq(ret->key.hook, HF_HOOK_STEER);
	ck_assert_uint_eq(ret->counter.packets, 1);
	ck_assert_uint_eq(ret->counter.bytes, in->len);
	if (actions[verdict] != XDP_TX)
		ck_assert_msg(ret->out.len == in->len &&
				      !memcmp(ret->out.bytes, in->bytes, in->len),
			      "%s: changed, though it is not sent back", what);
}

static inline void expect(const char *what, const struct frame *in, enum hf_verdict verdict,
			  enum hf_reason reason)
{
	struct outcome outcome;

	expect_outcome(what, in, verdict, reason, &outcome);
}

/* The program sends back exactly this. */
static inline void expect_reply(const char *what, const struct frame *in, enum hf_verdict verdict,
				enum hf_reason reason, const struct frame *want)
{
	struct outcome o;

	expect_outcome(what, in, verdict, reason, &o);
	if (o.out.len == want->len && !memcmp(o.out.bytes, want->bytes, want->len))
		return;
	dump("sent", in->bytes, in->len);
	dump("wanted", want->bytes, want->len);
	dump("got", o.out.bytes, o.out.len);
	ck_abort_msg("%s: another reply", what);
}

/* What any reply must be, whatever it answers: whole lengths, sums and addresses. */
static inline void check_reply(const struct frame *in, const struct frame *out, size_t l3)
{
	struct frame f = *out;
	const uint8_t *ip = out->bytes + l3, *old = in->bytes + l3;
	unsigned protocol, addresses, size;

	f.l3 = l3;
	f.family = ip[0] >> 4;
	addresses = f.family == 4 ? 12 : 8;
	size = f.family == 4 ? 4 : 16;
	ck_assert(!memcmp(ip + addresses, old + addresses + size, size));
	ck_assert(!memcmp(ip + addresses + size, old + addresses, size));
	if (f.family == 4) {
		ck_assert_uint_eq(ip[0], 0x45);
		ck_assert_uint_eq(internet_sum(ip, 20, 0), 0xffff);
		ck_assert_uint_le(get_u16(ip + 2), out->len - l3);
		f.len = l3 + get_u16(ip + 2); /* padding may follow */
		f.l4 = l3 + 20;
		protocol = ip[9];
	} else {
		ck_assert_uint_le(get_u16(ip + 4) + 40, out->len - l3);
		f.len = l3 + 40 + get_u16(ip + 4);
		f.l4 = l3 + 40;
		protocol = ip[6];
	}
	if (protocol == IPPROTO_UDP && f.family == 4)
		ck_assert_uint_eq(get_u16(f.bytes + f.l4 + 6), 0);
	else
		ck_assert_uint_eq(
			internet_sum(f.bytes + f.l4, f.len - f.l4,
				     protocol == IPPROTO_ICMP ? 0 : pseudo_sum(&f, protocol)),
			0xffff);
}
