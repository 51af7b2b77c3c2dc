#define HASH_NONFATAL_OOM 1
#include "resolver/limiter.h"

#include "base/limits.h"

#include <errno.h>
#include <stdlib.h>
#include <uthash.h>

struct bucket {
	UT_hash_handle hh;
	struct ip source;
	uint64_t thousandths; /* of a token */
	uint64_t filled;      /* ms */
};

struct limiter {
	struct bucket *buckets;
};

int limiter_new(struct limiter **ret_limiter)
{
	struct limiter *limiter = calloc(1, sizeof(*limiter));

	if (!limiter)
		return -ENOMEM;
	*ret_limiter = limiter;
	return 0;
}

static void forget(struct limiter *limiter, struct bucket *bucket)
{
	HASH_DEL(limiter->buckets, bucket);
	free(bucket);
}

void limiter_free(struct limiter *limiter)
{
	if (!limiter)
		return;
	while (limiter->buckets)
		forget(limiter, limiter->buckets);
	free(limiter);
}

static struct bucket *bucket_of(struct limiter *limiter, const struct ip *source, uint64_t now)
{
	struct bucket *bucket;

	HASH_FIND(hh, limiter->buckets, source, sizeof(*source), bucket);
	if (bucket)
		return bucket;
	if (HASH_COUNT(limiter->buckets) >= DNS_SOURCES_MAX)
		forget(limiter, limiter->buckets);
	bucket = calloc(1, sizeof(*bucket));
	if (!bucket)
		return NULL;
	bucket->source = *source;
	bucket->thousandths = DNS_NEW_NAMES_BURST * 1000;
	bucket->filled = now;
	HASH_ADD(hh, limiter->buckets, source, sizeof(bucket->source), bucket);
	if (!bucket->hh.tbl) {
		free(bucket);
		return NULL;
	}
	return bucket;
}

bool limiter_take(struct limiter *limiter, const struct ip *source, uint64_t now)
{
	struct bucket *bucket = bucket_of(limiter, source, now);

	if (!bucket)
		return false;
	/* a rate in tokens a second is one in thousandths a millisecond */
	bucket->thousandths += (now - bucket->filled) * DNS_NEW_NAMES_RATE;
	bucket->filled = now;
	if (bucket->thousandths > DNS_NEW_NAMES_BURST * 1000)
		bucket->thousandths = DNS_NEW_NAMES_BURST * 1000;
	if (bucket->thousandths < 1000)
		return false;
	bucket->thousandths -= 1000;
	return true;
}
