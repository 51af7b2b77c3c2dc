#include "resolver/internal.h"

#include <errno.h>
#include <string.h>

_Static_assert(DNS_ADDRESSES_MAX <= HF_ADDRESSES_MAX, "an answer must fit the kernel's map");

static bool key_of(const char *text, uint16_t type, struct hf_name_key *ret_key)
{
	struct hf_name_key key = {.qtype = type};
	struct dns_name name;

	if (dns_name_from_text(text, &name) < 0 || name.len > HF_NAME_WIRE_MAX)
		return false;
	memcpy(key.wire, name.wire, name.len);
	key.len = name.len;
	*ret_key = key;
	return true;
}

static struct hf_ip abi_ip(const struct ip *ip)
{
	struct hf_ip out;

	memcpy(out.bytes, ip->bytes, sizeof(out.bytes));
	return out;
}

static void fill_real(struct resolver *r, const struct cached *cached, struct hf_name *name)
{
	uint64_t now = resolver_now(r);

	if (!cached || cached->rcode != DNS_NOERROR || !cached_is_fresh(cached, now))
		return;
	/* the loop's clock is CLOCK_MONOTONIC in whole ms */
	name->real_until = cached->expires * 1000000ull;
	name->real_count = (uint8_t)cached->count;
	for (size_t i = 0; i < cached->count; i++)
		name->real[i] = abi_ip(&cached->addresses[i]);
}

static void fill_virtual(struct resolver *r, const struct virtual_name *virtual, uint16_t type,
			 struct hf_name *name)
{
	struct ip ip;

	if (!virtual)
		return;
	ip = virtual_address(r->virtual, virtual->number, type == DNS_TYPE_A ? AF_INET : AF_INET6);
	name->virtual_known = 1;
	name->virtual_address = abi_ip(&ip);
}

void publish_name(struct resolver *r, const char *text, uint16_t type)
{
	struct cached *cached = cache_find(r->cache, text, type);
	struct virtual_name *virtual = virtual_find(r->virtual, text);
	struct hf_name name = {0};
	struct hf_name_key key;
	bool published;

	if (!key_of(text, type, &key))
		return;
	fill_real(r, cached, &name);
	fill_virtual(r, virtual, type, &name);
	published = name.real_until || name.virtual_known;
	if (published)
		published = steer_name_publish(r->steer, &key, &name) == 0;
	else
		steer_name_withdraw(r->steer, &key);
	if (cached)
		cached->published = published && name.real_until;
	if (virtual)
		virtual->published = published;
}

int publish_internal(struct resolver *r)
{
	struct hf_name name = {.virtual_known = 1, .always = 1};
	struct hf_name_key key;
	int status;

	if (!key_of(INTERNAL_NAME, DNS_TYPE_A, &key))
		return -EINVAL;
	name.virtual_address = abi_ip(&r->internal_v4);
	status = steer_name_publish(r->steer, &key, &name);
	if (status < 0)
		return status;
	key.qtype = DNS_TYPE_AAAA;
	name.virtual_address = abi_ip(&r->internal_v6);
	return steer_name_publish(r->steer, &key, &name);
}
