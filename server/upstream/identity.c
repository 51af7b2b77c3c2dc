/* Who an origin must be over TLS. */
#include "upstream/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int identity_new(struct upstream *upstream, const struct upstream_target *target,
		 struct identity **ret_identity)
{
	struct identity *identity;
	size_t size;

	*ret_identity = NULL;
	if (!target->server_name)
		return 0;
	size = strlen(target->server_name) + 1;
	identity = malloc(sizeof(*identity) + size);
	if (!identity)
		return -ENOMEM;
	identity->refs = 1;
	memcpy(identity->server_name, target->server_name, size);
	identity->trust = trusts_get(upstream->trusts, target->policy);
	if (!identity->trust) {
		free(identity);
		return -ENOMEM;
	}
	*ret_identity = identity;
	return 0;
}

struct identity *identity_ref(struct identity *identity)
{
	if (identity)
		identity->refs++;
	return identity;
}

void identity_unref(struct identity *identity)
{
	if (!identity || --identity->refs)
		return;
	trust_unref(identity->trust);
	free(identity);
}

bool identity_equal(const struct identity *a, const struct identity *b)
{
	if (a == b)
		return true;
	return a && b && a->trust == b->trust && strcmp(a->server_name, b->server_name) == 0;
}
