#include "store/holder.h"

#include "base/log.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static int execute(sqlite3 *db, const char *sql)
{
	return store_errno(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static int apply_schemas(struct holder *holder, size_t from)
{
	int r = execute(holder->db, "BEGIN IMMEDIATE");

	for (size_t i = from; i < holder->schema_count && r == 0; i++)
		r = execute(holder->db, holder->schemas[i]);
	if (r == 0)
		r = execute(holder->db, "COMMIT");
	if (r < 0) {
		log_error("store", "schema: %s", sqlite3_errmsg(holder->db));
		if (!sqlite3_get_autocommit(holder->db))
			execute(holder->db, "ROLLBACK");
	}
	return r;
}

static int open_once(struct holder *holder, bool give_up)
{
	char aside[STORE_NAME_MAX] = "";
	int r = database_open(holder->dir, give_up, &holder->db, aside);

	if (aside[0]) {
		memcpy(holder->aside, aside, sizeof(aside));
		holder->put_aside++;
	}
	if (r < 0)
		return r;
	r = apply_schemas(holder, 0);
	if (r < 0)
		database_close(holder->db);
	return r;
}

/* A file whose own tables cannot be read is damaged in a way that no check of its pages finds. */
static int open_file(struct holder *holder, bool give_up)
{
	int r = open_once(holder, give_up);

	if (r == -EBADMSG && !give_up)
		r = open_once(holder, true);
	return r;
}

static int stand_in(struct holder *holder, int error)
{
	int r = store_errno(sqlite3_open(":memory:", &holder->db));

	if (r == 0)
		r = apply_schemas(holder, 0);
	if (r < 0) {
		sqlite3_close(holder->db);
		return r;
	}
	log_error("store", "nothing can be stored until the database can be opened: %s",
		  strerror(-error));
	holder->error = error;
	holder->tried_at = uv_hrtime();
	return 0;
}

/* What passes by itself, or may; not a mistake of the configuration or a second daemon. */
static bool may_pass(int error)
{
	return error == -EROFS || error == -ENOSPC || error == -EDQUOT || error == -EIO ||
	       error == -EACCES;
}

int holder_open(struct holder *holder, const char *dir)
{
	int r;

	/* SQLite's own sums of memory cost a lock at every allocation. Of no effect when it runs
	 * already: then this is not the first store. */
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	*holder = (struct holder){.dir = strdup(dir)};
	if (!holder->dir)
		return -ENOMEM;
	r = open_file(holder, false);
	if (may_pass(r))
		r = stand_in(holder, r);
	if (r < 0)
		free(holder->dir);
	return r;
}

void holder_close(struct holder *holder)
{
	database_close(holder->db);
	free(holder->dir);
}

int holder_schema(struct holder *holder, const char *sql)
{
	int r;

	if (holder->schema_count == STORE_PARTS_MAX)
		return -ENOBUFS;
	holder->schemas[holder->schema_count++] = sql;
	r = apply_schemas(holder, holder->schema_count - 1);
	if (r == -EBADMSG && !holder->error)
		r = holder_mend(holder) ? 0 : -EBADMSG;
	return r;
}

void holder_retry(struct holder *holder)
{
	sqlite3 *memory = holder->db;

	if (!holder->error || (uv_hrtime() - holder->tried_at) / 1000000 < STORE_OPEN_WAIT)
		return;
	holder->tried_at = uv_hrtime();
	if (open_file(holder, false) < 0) {
		holder->db = memory;
		return;
	}
	log_info("store", "the database can be used");
	database_close(memory);
	holder->error = 0;
	holder->replaced = true;
}

bool holder_mend(struct holder *holder)
{
	uint64_t before = holder->put_aside;
	int r;

	if (holder->error)
		return false;
	database_suspect(holder->db);
	database_close(holder->db);
	r = open_file(holder, holder->believed);
	if (r < 0 && stand_in(holder, r) < 0)
		abort(); /* no memory for an empty database */
	holder->believed = r == 0 && holder->put_aside == before;
	holder->replaced |= !holder->believed;
	return !holder->believed;
}
