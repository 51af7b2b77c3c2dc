/*
 * Opening the database file: its settings, its mark, and what happens to a corrupt one.
 * Used by store.c alone; everything here blocks and runs before the loop does, but
 * database_suspect and database_close, which run on the lane.
 */
#pragma once

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

enum { DATABASE_ASIDE_MAX = 64 };

/* Opens or makes DIR/holdfast.db. A corrupt file, or whatever else has its name, is put aside with
 * its log (aside.h), and ret_aside is the name it has then; else it is left as it was. give_up:
 * put it aside without looking. -EBUSY: another process has it. */
int database_open(const char *dir, bool give_up, sqlite3 **ret_db,
		  char ret_aside[DATABASE_ASIDE_MAX]) __attribute__((warn_unused_result));
/* Writes a page that says what it said before: does the disk take it? */
int database_touch(sqlite3 *db) __attribute__((warn_unused_result));
void database_close(sqlite3 *db);
/* A job met corruption: leave a note, so that the next open checks the whole file. */
void database_suspect(sqlite3 *db);
