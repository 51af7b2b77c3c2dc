/*
 * The virtual addresses: each name has a number, and with it one address in each pool.
 * A number is committed to the store before anyone hears of it, survives restarts, and is
 * never given to another name; a database that is begun anew gets all of them. Numbers 0 and 1
 * are not given: the network's address, and holdfast.internal.
 */
#pragma once

#include "base/ip.h"
#include "store/store.h"

#include <uthash.h>

struct virtual_names;

struct virtual_name {
	UT_hash_handle by_text, by_number;
	uint32_t number;
	bool committed;		       /* until then nobody may hear of it */
	bool published;		       /* the kernel answers with it */
	struct virtual_commit *commit; /* under way; NULL else */
	struct virtual_waiter *waiters;
	char text[];
};

/* name is NULL unless status is 0. */
typedef void (*virtual_cb)(void *arg, int status, struct virtual_name *name);

/* Makes the table and loads it, blocking: only before the loop runs. */
int virtual_new(struct store *store, const struct ip_prefix *v4, const struct ip_prefix *v6,
		struct virtual_names **ret_names) __attribute__((warn_unused_result));
/* Who waits is called back with -ECANCELED; commits under way end by themselves. */
void virtual_free(struct virtual_names *names);

/* Committed names only. */
struct virtual_name *virtual_find(struct virtual_names *names, const char *text);
struct virtual_name *virtual_by_address(struct virtual_names *names, const struct ip *address);
bool virtual_contains(const struct virtual_names *names, const struct ip *address);
struct ip virtual_address(const struct virtual_names *names, uint32_t number, int family);

/* Is a commit for this name under way, so that assigning costs no new number? */
bool virtual_is_pending(struct virtual_names *names, const char *text);
/* The name must not have one yet. Give it a number, durably, then call back once, never before the
 * call returns. -ENOSPC: the pools are used up; -EAGAIN: the store is too busy; -EROFS: the
 * database could not be opened yet; -ENOMEM: cb is not called then. */
int virtual_assign(struct virtual_names *names, const char *text, virtual_cb cb, void *arg)
	__attribute__((warn_unused_result));

/* All, committed or not; go on with by_text.next. */
struct virtual_name *virtual_first(struct virtual_names *names);
size_t virtual_count(const struct virtual_names *names);
