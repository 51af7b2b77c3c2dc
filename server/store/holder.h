/*
 * The one connection: to the database file, or, where there is none that can be opened, to an empty
 * database in memory, which stands in for it so that all but storing goes on.
 * Used by store.c alone; everything here blocks.
 */
#pragma once

#include "base/limits.h"
#include "store/database.h"

#include <stdint.h>

struct holder {
	char *dir;
	sqlite3 *db;
	const char *schemas[STORE_PARTS_MAX]; /* borrowed */
	size_t schema_count;
	int error;	   /* why the one in memory stands in; 0: db is the file */
	uint64_t tried_at; /* to open the file, uv_hrtime */
	bool believed; /* it seemed well when it was read whole after a job had met corruption */
	bool replaced; /* another database is there than before; whoever tells so resets it */
	uint64_t put_aside;
	char aside[STORE_NAME_MAX]; /* the last one put aside, or "" */
};

/* 0, or a negative errno for what does not pass by itself: -EBUSY, another process has it;
 * -EMEDIUMTYPE, it is not of this program or of a later one. */
int holder_open(struct holder *holder, const char *dir) __attribute__((warn_unused_result));
void holder_close(struct holder *holder);
/* Makes a part's tables, now and in each database after this one; sql is kept. */
int holder_schema(struct holder *holder, const char *sql) __attribute__((warn_unused_result));
/* While the one in memory stands in: tries the file, at most every STORE_OPEN_WAIT. */
void holder_retry(struct holder *holder);
/* A job met corruption: the file is read whole and put aside when something is wrong with it; or
 * unseen, when it had seemed well before. Was it replaced? */
bool holder_mend(struct holder *holder);
