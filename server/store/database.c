#include "store/database.h"

#include "base/limits.h"
#include "base/log.h"
#include "store/aside.h"
#include "store/statements.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	APPLICATION_ID = 0x48466473, /* "HFds": this file is ours */
	SCHEMA_VERSION = 2,	     /* 1: no request_pieces; its rows are read as they are */
	VERSION_MAX = 999,	     /* of any program to come */
};

struct paths {
	char dir[PATH_MAX / 2], db[PATH_MAX], wal[PATH_MAX], shm[PATH_MAX], journal[PATH_MAX],
		suspect[PATH_MAX];
};

static int paths_make(struct paths *paths, const char *dir)
{
	if (strlen(dir) + sizeof("/holdfast.db-suspect") > sizeof(paths->dir))
		return -ENAMETOOLONG;
	snprintf(paths->dir, sizeof(paths->dir), "%s", dir);
	snprintf(paths->db, sizeof(paths->db), "%s/holdfast.db", dir);
	snprintf(paths->wal, sizeof(paths->wal), "%s/holdfast.db-wal", dir);
	snprintf(paths->shm, sizeof(paths->shm), "%s/holdfast.db-shm", dir);
	snprintf(paths->journal, sizeof(paths->journal), "%s/holdfast.db-journal", dir);
	snprintf(paths->suspect, sizeof(paths->suspect), "%s/holdfast.db-suspect", dir);
	return 0;
}

static off_t file_size(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : st.st_size;
}

/* Names made or moved in it survive a power loss only after this. */
static void sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (fsync(fd) < 0)
		log_warning("store", "%s: %s", dir, strerror(errno));
	close(fd);
}

static void sync_parent(const char *dir)
{
	char *copy = strdup(dir);

	if (copy)
		sync_dir(dirname(copy));
	free(copy);
}

static int make_file(const struct paths *paths)
{
	int fd;

	if (mkdir(paths->dir, 0700) == 0)
		sync_parent(paths->dir);
	else if (errno != EEXIST)
		return -errno;
	fd = open(paths->db, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int read_int(sqlite3 *db, const char *sql, int64_t *ret_value)
{
	sqlite3_stmt *stmt;
	int r = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

	if (r != SQLITE_OK)
		return store_errno(r);
	r = sqlite3_step(stmt);
	if (r == SQLITE_ROW)
		*ret_value = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return r == SQLITE_ROW ? 0 : store_errno(r == SQLITE_DONE ? SQLITE_CORRUPT : r);
}

/* A database that cannot be ours, or is of a version to come, is nobody's to put aside. But our
 * tables under another mark, or a version that no program ever had: that is damage. */
static int judge_mark(sqlite3 *db, int64_t id, int64_t version)
{
	int64_t ours = 0;
	int r = read_int(db,
			 "SELECT count(*) FROM sqlite_master"
			 " WHERE name IN ('requests', 'names', 'program')",
			 &ours);

	if (r < 0)
		return r;
	if (id == APPLICATION_ID ? version < 1 || version > VERSION_MAX : ours > 1)
		return -EBADMSG;
	if (id == APPLICATION_ID)
		log_error("store",
			  "the database is of version %lld; this program knows those up to %d",
			  (long long)version, SCHEMA_VERSION);
	else
		log_error("store", "the database is of another program");
	return -EMEDIUMTYPE;
}

/* Is it ours, and of a version that we understand? A new file is marked, and an old one, so that
 * no older program reads what it would not understand; its owners upgrade their tables. */
static int check_mark(sqlite3 *db)
{
	int64_t id = 0, version = 0, tables = 0;
	char sql[96];
	int r = read_int(db, "PRAGMA application_id", &id);

	if (r == 0)
		r = read_int(db, "PRAGMA user_version", &version);
	if (r == 0)
		r = read_int(db, "SELECT count(*) FROM sqlite_master", &tables);
	if (r < 0)
		return r;
	if (id == APPLICATION_ID && version == SCHEMA_VERSION)
		return 0;
	if ((id || version || tables) && (id != APPLICATION_ID || version != 1))
		return judge_mark(db, id, version);
	snprintf(sql, sizeof(sql),
		 "BEGIN IMMEDIATE; PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT",
		 APPLICATION_ID, SCHEMA_VERSION);
	return store_errno(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static int check_pages(sqlite3 *db)
{
	sqlite3_stmt *stmt;
	int r = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &stmt, NULL);

	if (r != SQLITE_OK)
		return store_errno(r);
	r = sqlite3_step(stmt);
	if (r == SQLITE_ROW) {
		const char *text = (const char *)sqlite3_column_text(stmt, 0);

		r = text && strcmp(text, "ok") == 0 ? SQLITE_OK : SQLITE_CORRUPT;
	}
	sqlite3_finalize(stmt);
	return store_errno(r);
}

/* EXCLUSIVE before the file is read: so no shared memory file is used and no second daemon gets
 * in. auto_vacuum before the first page is written, and only then: it writes, which a full disk
 * does not take. */
static int configure(sqlite3 *db)
{
	static const char first[] = "PRAGMA auto_vacuum=INCREMENTAL";
	static const char pragmas[] = "PRAGMA journal_mode=WAL;"
				      "PRAGMA synchronous=FULL;"
				      "PRAGMA foreign_keys=ON;"
				      "PRAGMA temp_store=MEMORY;"
				      "PRAGMA cache_size=-1024;"
				      "PRAGMA journal_size_limit=4194304";
	int64_t pages;
	int r;

	sqlite3_busy_timeout(db, 0);
	sqlite3_extended_result_codes(db, 1);
	r = store_errno(sqlite3_exec(db, "PRAGMA locking_mode=EXCLUSIVE", NULL, NULL, NULL));
	if (r == 0)
		r = read_int(db, "PRAGMA page_count", &pages);
	if (r == 0 && pages == 0)
		r = store_errno(sqlite3_exec(db, first, NULL, NULL, NULL));
	return r == 0 ? store_errno(sqlite3_exec(db, pragmas, NULL, NULL, NULL)) : r;
}

static int try_open(const struct paths *paths, bool check, sqlite3 **ret_db)
{
	sqlite3 *db = NULL;
	int r = make_file(paths);

	if (r < 0)
		return r;
	r = store_errno(
		sqlite3_open_v2(paths->db, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL));
	if (r == 0)
		r = configure(db);
	if (r == 0)
		r = check_mark(db);
	if (r == 0 && check)
		r = check_pages(db);
	if (r < 0) {
		sqlite3_close(db);
		return r;
	}
	*ret_db = db;
	return 0;
}

static bool is_folder(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The log goes along: it may hold what a person can still rescue. */
static int put_aside(const struct paths *paths, char ret_aside[DATABASE_ASIDE_MAX])
{
	char name[DATABASE_ASIDE_MAX];
	int r = aside_put(paths->dir, name, sizeof(name));

	if (r < 0)
		return r;
	sync_dir(paths->dir);
	log_error("store", "%s is corrupt; put aside as %s, a new one is begun", paths->db, name);
	snprintf(ret_aside, DATABASE_ASIDE_MAX, "%s", name);
	return 0;
}

/* After a crash a small file is read whole; a big one only when there was a sign. */
static bool must_check(const struct paths *paths)
{
	return access(paths->suspect, F_OK) == 0 ||
	       (file_size(paths->wal) && file_size(paths->db) <= STORE_CHECK_MAX);
}

int database_open(const char *dir, bool give_up, sqlite3 **ret_db,
		  char ret_aside[DATABASE_ASIDE_MAX])
{
	struct paths *paths = malloc(sizeof(*paths));
	int r;

	if (!paths)
		return -ENOMEM;
	r = paths_make(paths, dir);
	if (r < 0)
		goto out;
	if (give_up || is_folder(paths->db) || is_folder(paths->wal) || is_folder(paths->shm) ||
	    is_folder(paths->journal))
		r = -EBADMSG;
	else
		r = try_open(paths, must_check(paths), ret_db);
	if (r == -EBADMSG) {
		r = put_aside(paths, ret_aside);
		if (r == 0)
			r = try_open(paths, false, ret_db);
	}
	if (r < 0) {
		log_error("store", "cannot open %s: %s", paths->db, strerror(-r));
		goto out;
	}
	unlink(paths->suspect);
	sync_dir(paths->dir);
out:
	free(paths);
	return r;
}

int database_touch(sqlite3 *db)
{
	char sql[64];

	snprintf(sql, sizeof(sql), "PRAGMA application_id=%d", APPLICATION_ID);
	return store_errno(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

void database_close(sqlite3 *db)
{
	statements_free(db);
	if (sqlite3_close(db) != SQLITE_OK) {
		log_error("store", "a statement was left open: %s", sqlite3_errmsg(db));
		sqlite3_close_v2(db);
	}
}

void database_suspect(sqlite3 *db)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s-suspect", sqlite3_db_filename(db, "main"));
	if (access(path, F_OK) == 0)
		return;
	log_error("store", "the database is corrupt: %s", sqlite3_errmsg(db));
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
}
