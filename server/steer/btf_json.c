#include "steer/btf_json.h"

#include "steer/steer.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 16 };

struct decoder {
	const struct btf *btf;
	const struct rtnl *rtnl;
	int depth;
};

static struct json_object *decode(struct decoder *d, uint32_t id, const uint8_t *bytes,
				  size_t size);

static struct json_object *hex(const uint8_t *bytes, size_t size)
{
	static const char digits[] = "0123456789abcdef";
	struct json_object *text;
	char *out = malloc(2 * size + 1);

	if (!out)
		return NULL;
	for (size_t i = 0; i < size; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	text = json_object_new_string_len(out, (int)(2 * size));
	free(out);
	return text;
}

static const struct btf_type *strip(const struct btf *btf, uint32_t id)
{
	int32_t resolved = btf__resolve_type(btf, id);

	return resolved < 0 ? NULL : btf__type_by_id(btf, (uint32_t)resolved);
}

static const char *name_of(const struct btf *btf, const struct btf_type *type)
{
	return btf__name_by_offset(btf, type->name_off);
}

static uint64_t read_bits(const uint8_t *bytes, size_t size, unsigned bit, unsigned bits)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bits && i < 64; i++) {
		unsigned at = bit + i;

		if (at / 8 < size && bytes[at / 8] >> at % 8 & 1)
			value |= 1ull << i;
	}
	return value;
}

/* As many bits as the type says; a struct's bitfield has fewer. */
static struct json_object *integer(const struct btf_type *type, uint64_t value, unsigned bits)
{
	unsigned encoding = type ? btf_int_encoding(type) : 0;

	if (encoding & BTF_INT_BOOL)
		return json_object_new_boolean(value != 0);
	if (!(encoding & BTF_INT_SIGNED))
		return json_object_new_uint64(value);
	if (bits < 64 && value >> (bits - 1) & 1)
		value |= ~0ull << bits;
	return json_object_new_int64((int64_t)value);
}

static struct json_object *enumerator(struct decoder *d, const struct btf_type *type,
				      uint64_t value)
{
	const struct btf_enum *item = btf_enum(type);

	for (unsigned i = 0; i < btf_vlen(type); i++)
		if ((uint32_t)item[i].val == (uint32_t)value)
			return json_object_new_string(
				btf__name_by_offset(d->btf, item[i].name_off));
	return json_object_new_uint64(value);
}

static struct json_object *array(struct decoder *d, const struct btf_type *type,
				 const uint8_t *bytes, size_t size)
{
	const struct btf_array *info = btf_array(type);
	const struct btf_type *item = strip(d->btf, info->type);
	struct json_object *list;
	size_t step = item ? (size_t)btf__resolve_size(d->btf, info->type) : 0;

	if (!item || !step || step > size)
		return hex(bytes, size);
	if (btf_is_int(item) && step == 1) {
		if (strcmp(name_of(d->btf, item), "char"))
			return hex(bytes, size);
		return json_object_new_string_len((const char *)bytes,
						  (int)strnlen((const char *)bytes, size));
	}
	list = json_object_new_array();
	for (size_t i = 0; list && i < info->nelems && (i + 1) * step <= size; i++)
		json_object_array_add(list, decode(d, info->type, bytes + i * step, step));
	return list;
}

static struct json_object *address(const uint8_t *bytes, int bits)
{
	char text[IP_TEXT_MAX], prefix[IP_TEXT_MAX + 16];
	struct ip ip;

	memcpy(ip.bytes, bytes, sizeof(ip.bytes));
	ip_format(&ip, text);
	if (bits < 0)
		return json_object_new_string(text);
	snprintf(prefix, sizeof(prefix), "%s/%d", text, ip_is_v4(&ip) ? bits - 96 : bits);
	return json_object_new_string(prefix);
}

/* The wire form of a name, as text; what is no printable character as \DDD (RFC 1035, 5.1). */
static struct json_object *domain(const uint8_t *wire, size_t size)
{
	char text[4 * HF_NAME_WIRE_MAX + 2] = "";
	size_t len = 0;

	if (size > HF_NAME_WIRE_MAX) /* another struct of that name */
		return hex(wire, size);
	for (size_t at = 0; at < size && wire[at] && wire[at] < 64; at += 1u + wire[at]) {
		if (len)
			text[len++] = '.';
		for (size_t i = 1; i <= wire[at] && at + i < size; i++) {
			uint8_t c = wire[at + i];

			if (c > ' ' && c < 0x7f && c != '.' && c != '\\')
				text[len++] = (char)c;
			else
				len += (size_t)snprintf(text + len, 5, "\\%03u", c);
		}
	}
	return json_object_new_string_len(len ? text : ".", len ? (int)len : 1);
}

/* Structs of abi.h that people write otherwise; NULL: none of them. */
static struct json_object *well_known(const char *name, const uint8_t *bytes, size_t size)
{
	if (!strcmp(name, "hf_ip") && size >= sizeof(struct hf_ip))
		return address(bytes, -1);
	if (!strcmp(name, "hf_prefix") && size >= sizeof(struct hf_prefix)) {
		struct hf_prefix prefix;

		memcpy(&prefix, bytes, sizeof(prefix));
		return address(prefix.ip, prefix.bits <= 128 ? (int)prefix.bits : -1);
	}
	return NULL;
}

static struct json_object *well_known_member(const char *structure, const char *member,
					     const uint8_t *bytes, size_t size)
{
	if (!strcmp(structure, "hf_counter_key") && size == 1) {
		if (!strcmp(member, "hook"))
			return json_object_new_string(hf_hook_name(*bytes));
		if (!strcmp(member, "verdict"))
			return json_object_new_string(hf_verdict_name(*bytes));
		if (!strcmp(member, "reason"))
			return json_object_new_string(hf_reason_name(*bytes));
	}
	if (!strcmp(structure, "hf_name_key") && !strcmp(member, "wire"))
		return domain(bytes, size);
	return NULL;
}

static void add_interface(struct decoder *d, struct json_object *object, const uint8_t *bytes)
{
	const struct rtnl_interface *interface;
	uint32_t index;

	memcpy(&index, bytes, sizeof(index));
	interface = d->rtnl ? rtnl_interface_by_index(d->rtnl, (int)index) : NULL;
	if (interface)
		json_object_object_add(object, "interface",
				       json_object_new_string(interface->name));
}

static void add_member(struct decoder *d, struct json_object *object, const struct btf_type *type,
		       unsigned which, const uint8_t *bytes, size_t size)
{
	const struct btf_member *member = btf_members(type) + which;
	const char *name = btf__name_by_offset(d->btf, member->name_off);
	unsigned bit = btf_member_bit_offset(type, which);
	unsigned bits = btf_member_bitfield_size(type, which);
	int64_t full = btf__resolve_size(d->btf, member->type);
	struct json_object *value;
	size_t at = bit / 8;

	if (!strncmp(name, "pad", 3) || full < 0)
		return;
	if (bits) {
		json_object_object_add(object, name,
				       integer(strip(d->btf, member->type),
					       read_bits(bytes, size, bit, bits), bits));
		return;
	}
	if (at + (size_t)full > size)
		return;
	value = well_known_member(name_of(d->btf, type), name, bytes + at, (size_t)full);
	if (!value)
		value = decode(d, member->type, bytes + at, (size_t)full);
	json_object_object_add(object, name, value);
	if (!strcmp(name, "ifindex") && full == sizeof(uint32_t))
		add_interface(d, object, bytes + at);
}

static struct json_object *composite(struct decoder *d, const struct btf_type *type,
				     const uint8_t *bytes, size_t size)
{
	struct json_object *object = well_known(name_of(d->btf, type), bytes, size);

	if (object)
		return object;
	object = json_object_new_object();
	for (unsigned i = 0; object && i < btf_vlen(type); i++)
		add_member(d, object, type, i, bytes, size);
	return object;
}

/* The variables of a program: .rodata, .data, .bss. */
static struct json_object *section(struct decoder *d, const struct btf_type *type,
				   const uint8_t *bytes, size_t size)
{
	const struct btf_var_secinfo *info = btf_var_secinfos(type);
	struct json_object *object = json_object_new_object();

	for (unsigned i = 0; object && i < btf_vlen(type); i++) {
		const struct btf_type *var = btf__type_by_id(d->btf, info[i].type);

		if (!var || !btf_is_var(var) || info[i].offset > size ||
		    info[i].size > size - info[i].offset)
			continue;
		json_object_object_add(object, name_of(d->btf, var),
				       decode(d, var->type, bytes + info[i].offset, info[i].size));
	}
	return object;
}

static struct json_object *decode(struct decoder *d, uint32_t id, const uint8_t *bytes, size_t size)
{
	const struct btf_type *type = id && d->btf ? strip(d->btf, id) : NULL;
	struct json_object *value;
	unsigned bits = (unsigned)(size > 8 ? 64 : 8 * size);

	if (!type || d->depth == DEPTH_MAX)
		return hex(bytes, size);
	d->depth++;
	switch (btf_kind(type)) {
	case BTF_KIND_INT:
		value = size > 8 ? hex(bytes, size)
				 : integer(type, read_bits(bytes, size, 0, bits), bits);
		break;
	case BTF_KIND_ENUM:
		value = enumerator(d, type, read_bits(bytes, size, 0, bits));
		break;
	case BTF_KIND_ARRAY:
		value = array(d, type, bytes, size);
		break;
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		value = composite(d, type, bytes, size);
		break;
	case BTF_KIND_DATASEC:
		value = section(d, type, bytes, size);
		break;
	default:
		value = hex(bytes, size);
	}
	d->depth--;
	return value;
}

struct json_object *btf_json(const struct btf *btf, uint32_t type_id, const uint8_t *bytes,
			     size_t size, const struct rtnl *rtnl)
{
	struct decoder d = {.btf = btf, .rtnl = rtnl};

	return decode(&d, type_id, bytes, size);
}

static void add_integer(uint8_t *sum, const uint8_t *more, size_t size)
{
	uint64_t a = 0, b = 0;

	if (size != 4 && size != 8)
		return;
	memcpy(&a, sum, size);
	memcpy(&b, more, size);
	a += b;
	memcpy(sum, &a, size);
}

void btf_add(const struct btf *btf, uint32_t type_id, uint8_t *sum, const uint8_t *more,
	     size_t size)
{
	const struct btf_type *type = type_id && btf ? strip(btf, type_id) : NULL;

	if (type && btf_is_int(type))
		add_integer(sum, more, size);
	else if (type && btf_is_array(type)) {
		uint32_t item = btf_array(type)->type;
		int64_t step = btf__resolve_size(btf, item);

		for (size_t at = 0; step > 0 && at + (size_t)step <= size; at += (size_t)step)
			btf_add(btf, item, sum + at, more + at, (size_t)step);
	} else if (type && btf_is_struct(type)) {
		for (unsigned i = 0; i < btf_vlen(type); i++) {
			uint32_t item = btf_members(type)[i].type;
			int64_t full = btf__resolve_size(btf, item);
			size_t at = btf_member_bit_offset(type, i) / 8;

			if (full > 0 && !btf_member_bitfield_size(type, i) &&
			    at + (size_t)full <= size)
				btf_add(btf, item, sum + at, more + at, (size_t)full);
		}
	}
}
