/*
 * A map's key or value as JSON, by the BTF that describes it. Addresses, names of domains and
 * the enums of abi.h are written as people say them; octets as hex, char arrays as text.
 */
#pragma once

#include <bpf/btf.h>
#include <json-c/json_types.h>
#include <stdint.h>

struct rtnl;

/* rtnl: for the names of interfaces. NULL: no memory. Bits that the type does not explain are
 * left out; without a type (type_id 0) it is all hex. */
struct json_object *btf_json(const struct btf *btf, uint32_t type_id, const uint8_t *bytes,
			     size_t size, const struct rtnl *rtnl);
/* Add what is a 32 or 64 bit integer in `more` to `sum`; anything else stays as it is. */
void btf_add(const struct btf *btf, uint32_t type_id, uint8_t *sum, const uint8_t *more,
	     size_t size);
