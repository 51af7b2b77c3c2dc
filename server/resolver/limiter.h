/*
 * How many new virtual names a source may have: a token bucket each. Bounded: when too
 * many sources are known, the one that was first seen longest ago is forgotten.
 */
#pragma once

#include "base/ip.h"

struct limiter;

int limiter_new(struct limiter **ret_limiter) __attribute__((warn_unused_result));
void limiter_free(struct limiter *limiter);
/* One token for the source, at `now` ms; false: it has none left (or no memory). */
bool limiter_take(struct limiter *limiter, const struct ip *source, uint64_t now);
