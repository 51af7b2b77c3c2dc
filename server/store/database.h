/*
 * Opening the database file: its settings, its mark, and what happens to a corrupt one.
 * Used by store.c alone; everything here blocks and runs before the loop does, but
 * database_suspect and database_close, which run on the lane.
 */
#pragma once

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

/* Opens or makes DIR/holdfast.db. A corrupt file is renamed NAME.corrupt-TIME with its -wal
 * and -shm, *ret_was_corrupt says so. -EBUSY: another process has it. */
int database_open(const char *dir, sqlite3 **ret_db, bool *ret_was_corrupt)
	__attribute__((warn_unused_result));
void database_close(sqlite3 *db);
/* A job met corruption: leave a note, so that the next open checks the whole file. */
void database_suspect(sqlite3 *db);
