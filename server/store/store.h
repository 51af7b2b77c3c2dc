/*
 * One SQLite database and the one lane on which it is used: jobs run in order on a libuv
 * worker, many in one transaction, and are told of the result on the loop only after the
 * commit is on the disk (WAL, synchronous=FULL).
 *
 * Owns the file and the connection. Knows no table but its own `meta`: queue and resolver
 * bring their schema and their statements. Nobody else touches the connection.
 *
 * A corrupt file, found so at the start or by a job, is put aside (NAME.corrupt-TIME) and a new
 * one begun. While there is no disk to open it on, an empty database in memory stands in, which
 * takes no changes (-EROFS), and the file is tried again now and then, when there is work.
 * Whoever keeps in memory what stands in the database listens for such a change.
 */
#pragma once

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct store;
struct store_job;

/* On the lane's thread, inside a transaction and a savepoint of its own: touch only the job
 * and the database. A negative errno rolls back this job alone. */
typedef int (*store_run)(struct store_job *job, sqlite3 *db);
/* On the loop, after commit or failure. status: what run gave; or the commit's error
 * (-ENOSPC, -EIO, -EROFS ...) when the whole batch failed; -ECANCELED at close. */
typedef void (*store_done)(struct store_job *job, int status);

/* Embedded in the caller's own struct, owned by the caller until done is called. */
struct store_job {
	store_run run;
	store_done done; /* NULL is fine only when the job needs no freeing */
	struct store_job *next;
	int status;
	/* A look-up: waits for no commit of its own, and keeps its own status when the commit of
	 * its batch fails (what it saw may then be gone). */
	bool read_only;
	/* Often done and hardly ever failing half-way: goes without a savepoint. If it fails after
	 * it has changed something, its whole batch fails with it. */
	bool unguarded;
};

/* Opens or makes DIR/holdfast.db (0600, DIR 0700), synchronously. 0 or negative errno.
 * The schema of a part is applied with store_schema before the loop runs. */
int store_open(uv_loop_t *loop, const char *dir, struct store **ret_store)
	__attribute__((warn_unused_result));
/* Statements that make a part's tables ("CREATE TABLE IF NOT EXISTS ..."), run at once, and again
 * for each new file: the text must live as long as the store. */
int store_schema(struct store *store, const char *sql) __attribute__((warn_unused_result));
/* Run one job now, blocking; only before the loop runs. Gives its status, never calls done. When
 * the file is found corrupt the job runs once more, on what is there then. */
int store_run_now(struct store *store, struct store_job *job) __attribute__((warn_unused_result));

/* `reopened`: another database is there than before: an empty one, or the one that could not be
 * opened until now. On the loop; what it submits comes before the jobs of others from then on.
 * Owned by the caller. */
struct store_listener {
	void (*reopened)(void *arg, bool empty);
	void *arg;
	struct store_listener *next;
};
void store_listen(struct store *store, struct store_listener *listener);
void store_unlisten(struct store *store, struct store_listener *listener);

/* 0, -EAGAIN when STORE_JOBS_MAX wait already, -ECANCELED after store_close (done is not called
 * then). */
int store_submit(struct store *store, struct store_job *job) __attribute__((warn_unused_result));
/* Waits for what was submitted, then closes and calls back; the store is gone then. */
void store_close(struct store *store, void (*closed)(void *arg), void *arg);

struct store_statistics {
	uint64_t jobs, commits, failures, refused;
	size_t waiting;
	uint64_t database_bytes; /* page_count * page_size after the last commit */
	uint64_t corrupt;	 /* files put aside since the start */
	char aside[64];		 /* the name of the last one, or "" */
	bool stands_in;		 /* the file could not be opened: nothing can be stored */
	int last_error;		 /* negative errno of the last failed commit; 0 after a good one */
};
void store_statistics(const struct store *store, struct store_statistics *ret);

/* SQLite's result code as a negative errno: FULL -ENOSPC, READONLY -EROFS, BUSY -EBUSY, CORRUPT
 * -EBADMSG, CONSTRAINT -EEXIST ...; 0 for OK, ROW and DONE. */
int store_errno(int sqlite_code);
