#include "queue/sql.h"

#include "store/statements.h"
#include "store/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* What is bound outlives the statement: the caller's bytes are not copied. */
static int bind_all(sqlite3_stmt *stmt, const char *types, va_list args)
{
	int r = SQLITE_OK;

	for (int i = 1; *types && r == SQLITE_OK; types++, i++) {
		if (*types == 'i') {
			r = sqlite3_bind_int64(stmt, i, va_arg(args, int64_t));
		} else if (*types == 't') {
			r = sqlite3_bind_text(stmt, i, va_arg(args, const char *), -1,
					      SQLITE_STATIC);
		} else if (*types == 'b') {
			const void *bytes = va_arg(args, const void *);
			size_t len = va_arg(args, size_t);

			r = sqlite3_bind_blob64(stmt, i, bytes ? bytes : "", len, SQLITE_STATIC);
		} else {
			abort();
		}
	}
	return store_errno(r);
}

static int prepare(sqlite3 *db, sqlite3_stmt **ret_stmt, const char *sql, const char *types,
		   va_list args)
{
	sqlite3_stmt *stmt;
	int r = statement_take(db, sql, &stmt);

	if (r < 0)
		return r;
	r = bind_all(stmt, types, args);
	if (r < 0) {
		statement_give(stmt);
		return r;
	}
	*ret_stmt = stmt;
	return 0;
}

int sql_next(sqlite3_stmt *stmt)
{
	int r = sqlite3_step(stmt);

	return r == SQLITE_ROW ? 1 : store_errno(r);
}

int sql_row(sqlite3 *db, sqlite3_stmt **ret_stmt, const char *sql, const char *types, ...)
{
	sqlite3_stmt *stmt;
	va_list args;
	int r;

	va_start(args, types);
	r = prepare(db, &stmt, sql, types, args);
	va_end(args);
	if (r < 0)
		return r;
	r = sql_next(stmt);
	if (r == 1)
		*ret_stmt = stmt;
	else
		statement_give(stmt);
	return r;
}

int sql_run(sqlite3 *db, const char *sql, const char *types, ...)
{
	sqlite3_stmt *stmt;
	va_list args;
	int r;

	va_start(args, types);
	r = prepare(db, &stmt, sql, types, args);
	va_end(args);
	if (r < 0)
		return r;
	do
		r = sql_next(stmt);
	while (r == 1);
	statement_give(stmt);
	return r;
}

int sql_text(sqlite3_stmt *stmt, int column, char **ret_text)
{
	const char *text = (const char *)sqlite3_column_text(stmt, column);

	*ret_text = text ? strdup(text) : NULL;
	return text && !*ret_text ? -ENOMEM : 0;
}

int sql_blob(sqlite3_stmt *stmt, int column, uint8_t **ret_bytes, size_t *ret_len)
{
	const void *bytes = sqlite3_column_blob(stmt, column);
	size_t len = (size_t)sqlite3_column_bytes(stmt, column);

	*ret_bytes = NULL;
	*ret_len = 0;
	if (!bytes)
		return 0;
	*ret_bytes = malloc(len);
	if (!*ret_bytes)
		return -ENOMEM;
	memcpy(*ret_bytes, bytes, len);
	*ret_len = len;
	return 0;
}

void sql_end(sqlite3_stmt *stmt)
{
	statement_give(stmt);
}
