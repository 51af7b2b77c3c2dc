/*
 * Bodies in the database: written in pieces from a spool, read in pieces by whoever wants one.
 */
#include "queue/queue_op.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- writing, on the lane --- */

struct body body_of(const uint8_t *bytes, size_t len, struct spool *spool)
{
	if (!spool)
		return (struct body){.bytes = bytes, .len = len};
	return (struct body){.bytes = spool_bytes(spool), .spool = spool, .len = spool_len(spool)};
}

/* What the file has lost is no body any more. */
static int read_piece(const struct body *body, uint64_t at, uint8_t *bytes, size_t len)
{
	size_t have = 0;

	while (have < len) {
		ssize_t n = spool_pread(body->spool, at + have, bytes + have, len - have);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		have += (size_t)n;
	}
	return 0;
}

int body_bytes(const struct body *body, const uint8_t **ret_bytes, uint8_t **ret_heap)
{
	int r;

	*ret_heap = NULL;
	*ret_bytes = body->bytes;
	if (body->bytes || !body_is_short(body))
		return 0;
	*ret_heap = malloc((size_t)body->len + 1);
	if (!*ret_heap)
		return -ENOMEM;
	*ret_bytes = *ret_heap;
	r = read_piece(body, 0, *ret_heap, (size_t)body->len);
	if (r < 0)
		free(*ret_heap);
	return r;
}

int body_write_pieces(sqlite3 *db, int64_t seq, enum queue_part part, const struct body *body)
{
	uint8_t *piece = body->bytes ? NULL : malloc(SPOOL_PIECE);
	int r = body->bytes || piece ? 0 : -ENOMEM;

	for (uint64_t at = 0; r == 0 && at < body->len; at += SPOOL_PIECE) {
		size_t len = body->len - at < SPOOL_PIECE ? (size_t)(body->len - at) : SPOOL_PIECE;

		if (!body->bytes)
			r = read_piece(body, at, piece, len);
		if (r == 0)
			r = sql_run(db,
				    "INSERT INTO request_pieces (seq, part, at, bytes)"
				    " VALUES (?, ?, ?, ?)",
				    "iiib", seq, (int64_t)part, (int64_t)at,
				    body->bytes ? body->bytes + at : piece, len);
	}
	free(piece);
	return r;
}

/* --- reading, on the lane --- */

/* The piece around `offset`; 0 bytes: there is none. */
static int read_pieces(struct op *op, sqlite3 *db, int64_t seq)
{
	sqlite3_stmt *stmt;
	int64_t at, len;
	int r = sql_row(db, &stmt,
			"SELECT at, bytes FROM request_pieces WHERE seq = ? AND part = ? AND"
			" at <= ? ORDER BY at DESC LIMIT 1",
			"iii", seq, (int64_t)op->part, (int64_t)op->offset);

	if (r <= 0)
		return r;
	at = (int64_t)op->offset - sqlite3_column_int64(stmt, 0);
	len = sqlite3_column_bytes(stmt, 1) - at;
	if (len > SPOOL_PIECE)
		len = SPOOL_PIECE;
	if (len > 0) {
		memcpy(op->copy, (const uint8_t *)sqlite3_column_blob(stmt, 1) + at, (size_t)len);
		op->piece_len = (size_t)len;
	}
	sql_end(stmt);
	return 1;
}

static int read_inline(struct op *op, sqlite3 *db, int64_t seq)
{
	sqlite3_blob *blob;
	int64_t len;
	int r = sqlite3_blob_open(
		db, "main", op->part == QUEUE_REQUEST ? "request_bodies" : "request_responses",
		"body", seq, 0, &blob);

	if (r != SQLITE_OK)
		return r == SQLITE_ERROR ? -ENOENT : store_errno(r); /* no such row */
	len = sqlite3_blob_bytes(blob) - (int64_t)op->offset;
	if (len > SPOOL_PIECE)
		len = SPOOL_PIECE;
	if (len > 0)
		r = sqlite3_blob_read(blob, op->copy, (int)len, (int)op->offset);
	if (r == SQLITE_OK && len > 0)
		op->piece_len = (size_t)len;
	sqlite3_blob_close(blob);
	return store_errno(r);
}

/* A response may be dropped and another one take its place while somebody reads. */
static int check_stamp(struct op *op, int64_t finished)
{
	if (op->part == QUEUE_REQUEST)
		return 0;
	if (op->offset && op->stamp != finished)
		return -ESTALE;
	op->stamp = finished;
	return 0;
}

static int run_read(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	sqlite3_stmt *stmt;
	int64_t seq, finished;
	int r = sql_row(db, &stmt, "SELECT seq, finished FROM requests WHERE id = ?", "t", op->id);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	seq = sqlite3_column_int64(stmt, 0);
	finished = sqlite3_column_int64(stmt, 1);
	sql_end(stmt);
	r = check_stamp(op, finished);
	if (r < 0)
		return r;
	r = read_pieces(op, db, seq);
	return r == 0 ? read_inline(op, db, seq) : r < 0 ? r : 0;
}

/* --- on the loop --- */

struct queue_reader {
	struct queue *queue;
	char id[ID_TEXT_MAX];
	enum queue_part part;
	spool_piece_cb piece;
	void *arg;
	unsigned refs; /* the owner's, and one while a read is under way */
	bool closed;
	uint64_t offset;
	int64_t stamp;
};

int queue_reader_new(struct queue *queue, const char *id, enum queue_part part,
		     spool_piece_cb piece, void *arg, struct queue_reader **ret_reader)
{
	struct queue_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return -ENOMEM;
	*reader = (struct queue_reader){
		.queue = queue, .part = part, .piece = piece, .arg = arg, .refs = 1};
	snprintf(reader->id, sizeof(reader->id), "%s", id);
	queue->refs++;
	*ret_reader = reader;
	return 0;
}

static void reader_unref(struct queue_reader *reader)
{
	if (--reader->refs)
		return;
	queue_unref(reader->queue);
	free(reader);
}

static void finish_read(struct op *op, int status)
{
	struct queue_reader *reader = op->reader;

	if (!reader->closed && status < 0) {
		reader->piece(reader->arg, status, NULL, 0);
	} else if (!reader->closed) {
		reader->offset += op->piece_len;
		reader->stamp = op->stamp;
		reader->piece(reader->arg, 0, op->copy, op->piece_len);
	}
	reader_unref(reader);
}

int queue_reader_next(struct queue_reader *reader)
{
	struct op *op = op_new(reader->queue, run_read, true, SPOOL_PIECE);
	int r;

	if (!op)
		return -ENOMEM;
	memcpy(op->id, reader->id, sizeof(op->id));
	op->part = reader->part;
	op->offset = reader->offset;
	op->stamp = reader->stamp;
	op->reader = reader;
	op->finish = finish_read;
	r = op_submit(op);
	reader->refs += r == 0;
	return r;
}

void queue_reader_close(struct queue_reader *reader)
{
	if (!reader)
		return;
	reader->closed = true;
	reader_unref(reader);
}
