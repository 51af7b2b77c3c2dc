/*
 * Small statements in one call: taken from the connection's cache, bound, stepped, given back.
 * Used on the lane only.
 * types has one letter a parameter: 'i' int64_t, 't' const char * (NULL: null),
 * 'b' const void * and size_t.
 */
#pragma once

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

/* Run to the end; rows are dropped. 0 or negative errno. */
int sql_run(sqlite3 *db, const char *sql, const char *types, ...)
	__attribute__((warn_unused_result));
/* 1: there is a row, *ret_stmt is the caller's until sql_end. 0: none; or negative errno. */
int sql_row(sqlite3 *db, sqlite3_stmt **ret_stmt, const char *sql, const char *types, ...)
	__attribute__((warn_unused_result));
/* The next row of it: 1, 0 or negative errno. */
int sql_next(sqlite3_stmt *stmt) __attribute__((warn_unused_result));
/* Copies of a column on the heap; 0 or -ENOMEM. Null gives NULL. */
int sql_text(sqlite3_stmt *stmt, int column, char **ret_text) __attribute__((warn_unused_result));
int sql_blob(sqlite3_stmt *stmt, int column, uint8_t **ret_bytes, size_t *ret_len)
	__attribute__((warn_unused_result));
/* The statement is the cache's: to finalize it would leave the next user a dead one. */
void sql_end(sqlite3_stmt *stmt);
#pragma GCC poison sqlite3_finalize
