#include "store/statements.h"

#include "base/limits.h"
#include "store/store.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct slot {
	const char *sql; /* the caller's text: its address is the key, and may be used anew */
	sqlite3_stmt *stmt;
};

struct statements {
	struct slot slots[STORE_STATEMENTS_MAX];
};

/* SQLite keeps one pointer of ours with the connection: the argument of the update hook, which
 * nobody uses. (sqlite3_set_clientdata comes with 3.44.) */
static void statements_set(sqlite3 *db, struct statements *cache)
{
	sqlite3_update_hook(db, NULL, cache);
}

static struct statements *statements_of(sqlite3 *db)
{
	struct statements *cache = sqlite3_update_hook(db, NULL, NULL);

	statements_set(db, cache);
	return cache;
}

static bool is_of(const struct slot *slot, const char *sql)
{
	return slot->sql == sql && strcmp(sqlite3_sql(slot->stmt), sql) == 0;
}

/* An idle one of this text, else an empty slot, else an idle one of another text; NULL: all are
 * in use. */
static struct slot *find_slot(struct statements *cache, const char *sql)
{
	size_t start = (size_t)(((uintptr_t)sql * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
	struct slot *idle = NULL;

	for (size_t i = 0; i < STORE_STATEMENTS_MAX; i++) {
		struct slot *slot = &cache->slots[(start + i) % STORE_STATEMENTS_MAX];

		if (!slot->stmt)
			return slot;
		if (sqlite3_stmt_busy(slot->stmt))
			continue;
		if (is_of(slot, sql))
			return slot;
		if (!idle || slot->sql == sql)
			idle = slot;
	}
	return idle;
}

static int fill_slot(sqlite3 *db, struct slot *slot, const char *sql)
{
	sqlite3_stmt *stmt;
	int r = store_errno(
		sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL));

	if (r < 0)
		return r;
	sqlite3_finalize(slot->stmt);
	*slot = (struct slot){.sql = sql, .stmt = stmt};
	return 0;
}

int statement_take(sqlite3 *db, const char *sql, sqlite3_stmt **ret_stmt)
{
	struct statements *cache = statements_of(db);
	struct slot *slot;
	int r = 0;

	if (!cache) {
		cache = calloc(1, sizeof(*cache));
		if (!cache)
			return -ENOMEM;
		statements_set(db, cache);
	}
	slot = find_slot(cache, sql);
	if (!slot)
		return -EMFILE;
	if (!slot->stmt || !is_of(slot, sql))
		r = fill_slot(db, slot, sql);
	if (r == 0)
		*ret_stmt = slot->stmt;
	return r;
}

/* The result of the reset is that of the last step, which is known already. */
void statement_give(sqlite3_stmt *stmt)
{
	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
}

int statement_run(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *stmt;
	int r = statement_take(db, sql, &stmt);

	if (r < 0)
		return r;
	do
		r = sqlite3_step(stmt);
	while (r == SQLITE_ROW);
	statement_give(stmt);
	return store_errno(r);
}

void statements_free(sqlite3 *db)
{
	struct statements *cache = statements_of(db);

	if (!cache)
		return;
	statements_set(db, NULL);
	for (size_t i = 0; i < STORE_STATEMENTS_MAX; i++)
		sqlite3_finalize(cache->slots[i].stmt);
	free(cache);
}
