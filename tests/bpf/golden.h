/*
 * Golden packets: built here octet by octet, run through a program in the kernel with
 * BPF_PROG_TEST_RUN, compared with what must come out. Nothing of bpf/ but the ABI is used to
 * build or to judge them.
 */
#pragma once

#include "abi.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MAX 4096

struct frame {
	uint8_t bytes[FRAME_MAX];
	size_t len;
	size_t l3, l4; /* offsets of the headers begun last */
	uint8_t family;
};

/* A hex dump of both on failure: a diff of packets is what one wants to see. */
static inline void dump(const char *what, const uint8_t *bytes, size_t len)
{
	fprintf(stderr, "%s (%zu):", what, len);
	for (size_t i = 0; i < len; i++)
		fprintf(stderr, "%s%02x", i % 16 ? " " : "\n  ", bytes[i]);
	fprintf(stderr, "\n");
}

static inline void frame_add(struct frame *f, const void *bytes, size_t len)
{
	ck_assert_uint_le(f->len + len, sizeof(f->bytes));
	if (bytes)
		memcpy(f->bytes + f->len, bytes, len);
	else
		memset(f->bytes + f->len, 0, len);
	f->len += len;
}

static inline void frame_u8(struct frame *f, unsigned value)
{
	uint8_t octet = (uint8_t)value;

	frame_add(f, &octet, 1);
}

static inline void frame_u16(struct frame *f, unsigned value)
{
	frame_u8(f, value >> 8);
	frame_u8(f, value);
}

static inline void frame_u32(struct frame *f, uint32_t value)
{
	frame_u16(f, value >> 16);
	frame_u16(f, value);
}

static inline void put_u16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static inline unsigned get_u16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static const uint8_t APP_MAC[6] = {0x02, 0, 0, 0, 0, 0xaa};
static const uint8_t DEVICE_MAC[6] = {0x02, 0, 0, 0, 0, 0xdd};

static inline void frame_mac(struct frame *f, const uint8_t to[6], const uint8_t from[6],
			     unsigned type)
{
	frame_add(f, to, 6);
	frame_add(f, from, 6);
	frame_u16(f, type);
}

static inline void frame_address(struct frame *f, int family, const char *text)
{
	uint8_t address[16];

	ck_assert_msg(inet_pton(family, text, address) == 1, "%s", text);
	frame_add(f, address, family == AF_INET ? 4 : 16);
}

/* IPv4 or IPv6 header by the form of the addresses; frame_end() sets length and checksum. */
static inline void frame_ip(struct frame *f, const char *from, const char *to, unsigned protocol)
{
	f->l3 = f->len;
	f->family = strchr(from, ':') ? 6 : 4;
	if (f->family == 4) {
		frame_u16(f, 0x4500);
		frame_u16(f, 0);
		frame_u32(f, 0x12344000); /* DF */
		frame_u8(f, 61);
		frame_u8(f, protocol);
		frame_u16(f, 0);
		frame_address(f, AF_INET, from);
		frame_address(f, AF_INET, to);
	} else {
		frame_u32(f, 0x60012345);
		frame_u16(f, 0);
		frame_u8(f, protocol);
		frame_u8(f, 61);
		frame_address(f, AF_INET6, from);
		frame_address(f, AF_INET6, to);
	}
	f->l4 = f->len;
}

static inline void frame_udp(struct frame *f, unsigned from, unsigned to)
{
	f->l4 = f->len;
	frame_u16(f, from);
	frame_u16(f, to);
	frame_u16(f, 0);
	frame_u16(f, 0xbeef); /* what a partial checksum looks like */
}

static inline void frame_tcp(struct frame *f, unsigned from, unsigned to, unsigned flags)
{
	f->l4 = f->len;
	frame_u16(f, from);
	frame_u16(f, to);
	frame_u32(f, 1000);
	frame_u32(f, 2000);
	frame_u8(f, 0x50);
	frame_u8(f, flags);
	frame_u16(f, 0xffff);
	frame_u32(f, 0);
}

static inline void frame_icmp(struct frame *f, unsigned type, unsigned code)
{
	f->l4 = f->len;
	frame_u8(f, type);
	frame_u8(f, code);
	frame_u16(f, 0);
	frame_u32(f, 0x00070001); /* an echo's id and sequence */
}

/* RFC 1071, an octet at a time: nothing like the program's own way. */
static inline unsigned internet_sum(const uint8_t *bytes, size_t len, unsigned sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? bytes[i] : (unsigned)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static inline unsigned pseudo_sum(const struct frame *f, unsigned protocol)
{
	const uint8_t *ip = f->bytes + f->l3;
	unsigned len = (unsigned)(f->len - f->l4);

	if (f->family == 4)
		return internet_sum(ip + 12, 8, protocol + len);
	return internet_sum(ip + 8, 32, protocol + len);
}

/* Lengths and the IP header's checksum, as the frame now ends. `protocol` has its own length
 * only in UDP. */
static inline void frame_end(struct frame *f)
{
	uint8_t *ip = f->bytes + f->l3;

	if (f->family == 4) {
		size_t header = (size_t)(ip[0] & 15) * 4;

		put_u16(ip + 2, (unsigned)(f->len - f->l3));
		put_u16(ip + 10, 0);
		put_u16(ip + 10, ~internet_sum(ip, header, 0) & 0xffff);
	} else {
		put_u16(ip + 4, (unsigned)(f->len - f->l3 - 40));
	}
}

static inline void frame_end_udp(struct frame *f)
{
	put_u16(f->bytes + f->l4 + 4, (unsigned)(f->len - f->l4));
	frame_end(f);
}

/* The whole checksum at that offset of layer 4. */
static inline void frame_checksum(struct frame *f, size_t at, unsigned sum)
{
	put_u16(f->bytes + f->l4 + at, 0);
	sum = ~internet_sum(f->bytes + f->l4, f->len - f->l4, sum) & 0xffff;
	put_u16(f->bytes + f->l4 + at, sum);
}

static inline struct hf_ip to_ip(const char *text)
{
	struct hf_ip ip = {{0}};

	if (inet_pton(AF_INET6, text, ip.bytes) == 1)
		return ip;
	ip.bytes[10] = ip.bytes[11] = 0xff;
	ck_assert_msg(inet_pton(AF_INET, text, ip.bytes + 12) == 1, "%s", text);
	return ip;
}

/* Maps of the test's own: nothing is pinned, no daemon on this machine is touched. */
static inline void load_unpinned(struct bpf_object *object)
{
	struct bpf_map *map;

	bpf_object__for_each_map (map, object)
		ck_assert_int_eq(bpf_map__set_pin_path(map, NULL), 0);
	ck_assert_msg(bpf_object__load(object) == 0, "loading (root?): %s", strerror(errno));
}

static inline void put(int map, const void *key, const void *value)
{
	ck_assert_int_eq(bpf_map_update_elem(map, key, value, BPF_ANY), 0);
}

static inline void put_device_address(int map, const char *address)
{
	struct hf_ip ip = to_ip(address);
	uint32_t one = 1;

	put(map, &ip, &one);
}

static inline void counters_clear(int map)
{
	struct hf_counter_key key;

	while (bpf_map_get_next_key(map, NULL, &key) == 0)
		ck_assert_int_eq(bpf_map_delete_elem(map, &key), 0);
}

static inline struct hf_counter counter_sum(int map, const struct hf_counter_key *key)
{
	int cpus = libbpf_num_possible_cpus();
	struct hf_counter *each = calloc((size_t)cpus, sizeof(*each)), sum = {0};

	ck_assert_ptr_nonnull(each);
	ck_assert_int_eq(bpf_map_lookup_elem(map, key, each), 0);
	for (int i = 0; i < cpus; i++) {
		sum.packets += each[i].packets;
		sum.bytes += each[i].bytes;
	}
	free(each);
	return sum;
}

/* The one counter that the last packet moved; false: none did. */
static inline bool counters_only(int map, struct hf_counter_key *ret_key,
				 struct hf_counter *ret_counter)
{
	struct hf_counter_key next;

	if (bpf_map_get_next_key(map, NULL, ret_key) != 0)
		return false;
	ck_assert_msg(bpf_map_get_next_key(map, ret_key, &next) != 0,
		      "one packet, two counters: verdict %u reason %u and verdict %u reason %u",
		      ret_key->verdict, ret_key->reason, next.verdict, next.reason);
	*ret_counter = counter_sum(map, ret_key);
	return true;
}
