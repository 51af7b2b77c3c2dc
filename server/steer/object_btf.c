#include "steer/object_btf.h"

#include <linux/btf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A chain of const, volatile, typedef ...: as many as the kernel resolves
 * (kernel/bpf/btf.c, MAX_RESOLVE_DEPTH). It ends a circle too. */
enum { CHAIN_MAX = 32 };

struct btf_view {
	const uint8_t *types;
	size_t types_len, strings_len;
	uint32_t *at; /* of each type in types, by its id; 0 is void */
	uint32_t count;
};

/* What follows struct btf_type: one thing, or one for each member. 0 for neither. */
static size_t tail(uint32_t kind, uint32_t members)
{
	switch (kind) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return sizeof(uint32_t);
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return members * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return members * sizeof(struct btf_enum);
	case BTF_KIND_ENUM64:
		return members * sizeof(struct btf_enum64);
	case BTF_KIND_FUNC_PROTO:
		return members * sizeof(struct btf_param);
	case BTF_KIND_DATASEC:
		return members * sizeof(struct btf_var_secinfo);
	default:
		return 0;
	}
}

static struct btf_type read_type(const struct btf_view *view, uint32_t id)
{
	struct btf_type type = {0};

	if (id)
		memcpy(&type, view->types + view->at[id], sizeof(type));
	return type;
}

static const char *find_types(struct btf_view *view)
{
	view->at = calloc(view->types_len / sizeof(struct btf_type) + 2, sizeof(*view->at));
	if (!view->at)
		return "no memory to read it";
	for (size_t at = 0; at < view->types_len;) {
		struct btf_type type;
		size_t left = view->types_len - at, len = sizeof(type);

		if (left < len)
			return "a type is cut off";
		memcpy(&type, view->types + at, sizeof(type));
		if (BTF_INFO_KIND(type.info) == BTF_KIND_UNKN ||
		    BTF_INFO_KIND(type.info) > BTF_KIND_MAX)
			return "a type is of no known kind";
		len += tail(BTF_INFO_KIND(type.info), BTF_INFO_VLEN(type.info));
		if (left < len)
			return "a type is cut off";
		view->at[++view->count] = (uint32_t)at;
		at += len;
	}
	return NULL;
}

static bool is_modifier(uint32_t kind)
{
	return kind == BTF_KIND_TYPEDEF || kind == BTF_KIND_VOLATILE || kind == BTF_KIND_CONST ||
	       kind == BTF_KIND_RESTRICT || kind == BTF_KIND_TYPE_TAG;
}

static bool is_reference(uint32_t kind)
{
	return is_modifier(kind) || kind == BTF_KIND_PTR || kind == BTF_KIND_FUNC ||
	       kind == BTF_KIND_VAR || kind == BTF_KIND_DECL_TAG || kind == BTF_KIND_FUNC_PROTO;
}

static bool chain_ends(const struct btf_view *view, struct btf_type type)
{
	for (int i = 0; i < CHAIN_MAX; i++) {
		if (!is_modifier(BTF_INFO_KIND(type.info)))
			return true;
		if (type.type > view->count)
			return false;
		type = read_type(view, type.type);
	}
	return false;
}

static bool member_fits(const struct btf_view *view, uint32_t name, uint32_t type)
{
	return name < view->strings_len && type <= view->count;
}

static bool array_fits(const struct btf_view *view, const uint8_t *at)
{
	struct btf_array array;

	memcpy(&array, at, sizeof(array));
	return array.type <= view->count && array.index_type <= view->count;
}

/* A section of variables holds variables, or functions that are elsewhere. */
static bool variable_fits(const struct btf_view *view, uint32_t id)
{
	uint32_t kind;

	if (!id || id > view->count)
		return false;
	kind = BTF_INFO_KIND(read_type(view, id).info);
	return kind == BTF_KIND_VAR || kind == BTF_KIND_FUNC;
}

static bool members_fit(const struct btf_view *view, uint32_t id, const struct btf_type *type)
{
	const uint8_t *at = view->types + view->at[id] + sizeof(*type);
	uint32_t kind = BTF_INFO_KIND(type->info), count = BTF_INFO_VLEN(type->info);
	size_t step = count ? tail(kind, count) / count : 0;

	if (kind == BTF_KIND_ARRAY)
		return array_fits(view, at);
	for (uint32_t i = 0; i < count && step > sizeof(uint32_t); i++, at += step) {
		uint32_t words[2];

		memcpy(words, at, sizeof(words));
		if (kind == BTF_KIND_DATASEC ? !variable_fits(view, words[0])
		    : kind == BTF_KIND_ENUM || kind == BTF_KIND_ENUM64
			    ? !member_fits(view, words[0], 0)
			    : !member_fits(view, words[0], words[1]))
			return false;
	}
	return true;
}

static const char *check_type(const struct btf_view *view, uint32_t id)
{
	struct btf_type type = read_type(view, id);
	uint32_t kind = BTF_INFO_KIND(type.info);

	if (type.name_off >= view->strings_len)
		return "a type has no name";
	if (is_reference(kind) && type.type > view->count)
		return "a type refers to one that is not there";
	if (kind == BTF_KIND_FUNC &&
	    BTF_INFO_KIND(read_type(view, type.type).info) != BTF_KIND_FUNC_PROTO)
		return "a function has no prototype";
	if (!chain_ends(view, type))
		return "a type refers to itself";
	return members_fit(view, id, &type) ? NULL : "a member of a type is not there";
}

static const char *read_header(const uint8_t *bytes, size_t size, struct btf_view *view)
{
	struct btf_header header;
	size_t left;
	const uint8_t *strings;

	if (size < sizeof(header))
		return "it is cut off";
	memcpy(&header, bytes, sizeof(header));
	if (header.magic != BTF_MAGIC || header.version != BTF_VERSION ||
	    header.hdr_len < sizeof(header) || header.hdr_len > size)
		return "it does not begin as BTF does";
	left = size - header.hdr_len;
	if (header.type_off % sizeof(uint32_t) || header.type_off > left ||
	    header.type_len > left - header.type_off || header.str_off > left ||
	    header.str_len > left - header.str_off || !header.str_len)
		return "its types or names are cut off";
	strings = bytes + header.hdr_len + header.str_off;
	if (strings[0] || strings[header.str_len - 1])
		return "its names have no end";
	*view = (struct btf_view){.types = bytes + header.hdr_len + header.type_off,
				  .types_len = header.type_len,
				  .strings_len = header.str_len};
	return NULL;
}

const char *object_btf_check(const uint8_t *bytes, size_t size)
{
	struct btf_view view = {0};
	const char *wrong = read_header(bytes, size, &view);

	if (!wrong)
		wrong = find_types(&view);
	for (uint32_t id = 1; !wrong && id <= view.count; id++)
		wrong = check_type(&view, id);
	free(view.at);
	return wrong;
}
