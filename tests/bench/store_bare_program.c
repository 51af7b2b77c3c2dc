/*
 * The bare SQLite program that `./dev bench store` compares with: it commits the very rows that
 * the daemon has stored into a new database, GROUP exchanges in one transaction, with the
 * write-ahead log and full synchronous mode, and all else as SQLite has it.
 *
 *    store_bare_program STORED.db NEW.db GROUP SECONDS same|plain
 *
 * same: the same tables with their indexes and triggers; plain: the tables with their primary keys
 * and no more. The rows are in memory before it begins. Ends after SECONDS or with the last row.
 * Prints a JSON object.
 */
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TABLES_MAX = 16, COLUMNS_MAX = 64 };

struct row {
	int64_t seq;
	int table;
	sqlite3_value **values;
};

static struct {
	char name[64];
	int columns;
	sqlite3_stmt *insert;
} tables[TABLES_MAX];
static int table_count;
static struct row *rows;
static size_t row_count, row_room;

static void check(sqlite3 *db, int code)
{
	if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE)
		return;
	fprintf(stderr, "%s\n", sqlite3_errmsg(db));
	exit(1);
}

static void run(sqlite3 *db, const char *sql)
{
	check(db, sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Tables first, what refers to them then. */
static void copy_schema(sqlite3 *from, sqlite3 *to, bool same)
{
	sqlite3_stmt *stmt;

	check(from, sqlite3_prepare_v2(from,
				       "SELECT type, name, sql FROM sqlite_master"
				       " WHERE tbl_name LIKE 'request%' AND sql IS NOT NULL"
				       " ORDER BY type <> 'table', rowid",
				       -1, &stmt, NULL));
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		bool is_table = !strcmp((const char *)sqlite3_column_text(stmt, 0), "table");

		if (!is_table && !same)
			continue;
		run(to, (const char *)sqlite3_column_text(stmt, 2));
		if (is_table && table_count < TABLES_MAX)
			snprintf(tables[table_count++].name, sizeof(tables[0].name), "%s",
				 (const char *)sqlite3_column_text(stmt, 1));
	}
	sqlite3_finalize(stmt);
}

static void add_row(sqlite3_stmt *stmt, int table, int columns, int64_t seq)
{
	struct row *row;

	if (row_count == row_room) {
		row_room = row_room ? row_room * 2 : 4096;
		rows = realloc(rows, row_room * sizeof(*rows));
		if (!rows)
			abort();
	}
	row = &rows[row_count++];
	*row = (struct row){seq, table, calloc((size_t)columns, sizeof(*row->values))};
	for (int i = 0; row->values && i < columns; i++)
		row->values[i] = sqlite3_value_dup(sqlite3_column_value(stmt, i));
}

/* What belongs to one exchange has its `seq`; a table without (sums) is kept by triggers. */
static void read_table(sqlite3 *from, sqlite3 *to, int table)
{
	char sql[512];
	sqlite3_stmt *stmt;
	int columns, seq = -1;

	snprintf(sql, sizeof(sql), "SELECT * FROM %s", tables[table].name);
	check(from, sqlite3_prepare_v2(from, sql, -1, &stmt, NULL));
	columns = sqlite3_column_count(stmt);
	for (int i = 0; i < columns; i++)
		if (!strcmp(sqlite3_column_name(stmt, i), "seq"))
			seq = i;
	if (columns > COLUMNS_MAX)
		abort();
	if (seq >= 0) {
		while (sqlite3_step(stmt) == SQLITE_ROW)
			add_row(stmt, table, columns, sqlite3_column_int64(stmt, seq));
		snprintf(sql, sizeof(sql), "INSERT INTO %s VALUES (?", tables[table].name);
		for (int i = 1; i < columns; i++)
			strcat(sql, ",?");
		strcat(sql, ")");
		check(to, sqlite3_prepare_v2(to, sql, -1, &tables[table].insert, NULL));
	}
	tables[table].columns = columns;
	sqlite3_finalize(stmt);
}

static int compare(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	return x->table - y->table;
}

static void insert(sqlite3 *to, const struct row *row)
{
	sqlite3_stmt *stmt = tables[row->table].insert;

	for (int i = 0; i < tables[row->table].columns; i++)
		check(to, sqlite3_bind_value(stmt, i + 1, row->values[i]));
	check(to, sqlite3_step(stmt));
	sqlite3_reset(stmt);
}

/* How many exchanges were committed. */
static size_t commit_all(sqlite3 *to, size_t group, double seconds)
{
	double end = now() + seconds;
	size_t done = 0, i = 0;

	while (i < row_count && now() < end) {
		run(to, "BEGIN IMMEDIATE");
		for (size_t n = 0; n < group && i < row_count; n++, done++)
			for (int64_t seq = rows[i].seq; i < row_count && rows[i].seq == seq; i++)
				insert(to, &rows[i]);
		run(to, "COMMIT");
	}
	return done;
}

int main(int argc, char **argv)
{
	sqlite3 *from, *to;
	double start, seconds;
	size_t done;

	if (argc != 6 || atoi(argv[3]) <= 0 || atof(argv[4]) <= 0) {
		fprintf(stderr,
			"usage: store_bare_program STORED.db NEW.db GROUP SECONDS same|plain\n");
		return 1;
	}
	check(NULL, sqlite3_open(argv[1], &from));
	check(NULL, sqlite3_open(argv[2], &to));
	run(to, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA locking_mode=EXCLUSIVE");
	copy_schema(from, to, !strcmp(argv[5], "same"));
	for (int i = 0; i < table_count; i++)
		read_table(from, to, i);
	qsort(rows, row_count, sizeof(*rows), compare);
	start = now();
	done = commit_all(to, (size_t)atoi(argv[3]), atof(argv[4]));
	seconds = now() - start;
	printf("{\"stored\": %zu, \"seconds\": %f}\n", done, seconds);
	return 0;
}
