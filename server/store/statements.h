/*
 * Prepared statements of one connection, kept from one use to the next: to parse and plan a
 * small statement costs several times what it costs to run it.
 *
 * The cache belongs to the connection and goes with it (statements_free before sqlite3_close).
 * On the lane only. Who takes a statement gives it back before its job ends: one that is still
 * stepping keeps the transaction open.
 */
#pragma once

#include <sqlite3.h>

/* Ready to be bound. The text's address is looked for first: literals are found fast. */
int statement_take(sqlite3 *db, const char *sql, sqlite3_stmt **ret_stmt)
	__attribute__((warn_unused_result));
void statement_give(sqlite3_stmt *stmt);
/* Take, run to the end, give back: for statements without parameters. */
int statement_run(sqlite3 *db, const char *sql) __attribute__((warn_unused_result));
void statements_free(sqlite3 *db);
