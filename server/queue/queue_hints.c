/* What may be in the database, from memory: two Bloom filters of fixed size, of who is owed an
 * answer and of which lanes have a backlog. A live request that neither knows goes its way without
 * the disk, however slow that is; one that they know asks the database. They only ever grow, until
 * there is nothing to know. */
#include "base/limits.h"
#include "queue/queue_op.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PROBES = 4 };

struct hints {
	uint64_t owed[QUEUE_HINT_BITS / 64], lanes[QUEUE_HINT_BITS / 64];
};

/* FNV-1a over texts with their ends, so that "a", "bc" is not "ab", "c". */
static uint64_t mix(uint64_t hash, const char *text)
{
	do
		hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
	while (*text++);
	return hash;
}

static uint64_t lane_of(const struct queue_about *about)
{
	return mix(mix(mix(UINT64_C(0xcbf29ce484222325), about->source), about->scheme),
		   about->authority);
}

/* By its key, where it has one, else by what it asks for: as matching does. */
static uint64_t owed_of(const struct queue_about *about)
{
	if (about->idempotency_key)
		return mix(mix(lane_of(about), "k"), about->idempotency_key);
	return mix(mix(mix(lane_of(about), "t"), about->method), about->target);
}

/* The hash has the source in it. */
static uint64_t same_as(const uint8_t *hash)
{
	uint64_t sum;

	memcpy(&sum, hash, sizeof(sum));
	return sum;
}

/* Two halves make all probes (Kirsch and Mitzenmacher). */
static size_t probe(uint64_t hash, unsigned n)
{
	hash *= UINT64_C(0x9e3779b97f4a7c15);
	return (size_t)((hash >> 32) + n * ((hash & UINT32_MAX) | 1)) % QUEUE_HINT_BITS;
}

static void add(uint64_t *bits, uint64_t hash)
{
	for (unsigned n = 0; n < PROBES; n++) {
		size_t at = probe(hash, n);

		bits[at / 64] |= UINT64_C(1) << at % 64;
	}
}

static bool has(const uint64_t *bits, uint64_t hash)
{
	for (unsigned n = 0; n < PROBES; n++) {
		size_t at = probe(hash, n);

		if (!(bits[at / 64] >> at % 64 & 1))
			return false;
	}
	return true;
}

static void note(struct hints *hints, const struct queue_about *about, const uint8_t *hash,
		 bool owes, bool ordered)
{
	struct queue_about without_key = *about;

	if (ordered)
		add(hints->lanes, lane_of(about));
	if (!owes)
		return;
	add(hints->owed, same_as(hash));
	add(hints->owed, owed_of(about));
	without_key.idempotency_key = NULL;
	add(hints->owed, owed_of(&without_key));
}

int hints_new(struct hints **ret_hints)
{
	*ret_hints = calloc(1, sizeof(**ret_hints));
	return *ret_hints ? 0 : -ENOMEM;
}

void hints_note(struct queue *queue, const struct queue_request *q)
{
	const struct queue_about about = {
		.source = q->source,
		.scheme = q->scheme,
		.authority = q->authority,
		.method = q->method,
		.target = q->target,
		.idempotency_key = q->idempotency_key,
	};

	if (!queue_has_debts(queue))
		memset(queue->hints->owed, 0, sizeof(queue->hints->owed));
	if (!queue_has_backlog(queue))
		memset(queue->hints->lanes, 0, sizeof(queue->hints->lanes));
	note(queue->hints, &about, q->hash, q->owes, q->ordered);
}

bool queue_may_owe(const struct queue *queue, const struct queue_about *about)
{
	return queue_has_debts(queue) &&
	       (queue->hints_loading || has(queue->hints->owed, owed_of(about)));
}

bool queue_may_owe_same(const struct queue *queue, const struct queue_about *about,
			const uint8_t *hash)
{
	return queue_may_owe(queue, about) && (queue->hints_loading || about->idempotency_key ||
					       has(queue->hints->owed, same_as(hash)));
}

bool queue_may_be_behind(const struct queue *queue, const struct queue_about *about)
{
	return queue_has_backlog(queue) && !queue->is_stuck && !queue->unread &&
	       (queue->hints_loading || has(queue->hints->lanes, lane_of(about)));
}

/* --- from the database, at the start and after changes that tell no details --- */

static int read_row(sqlite3_stmt *stmt, struct hints *hints)
{
	static const uint8_t none[32];
	int state = sqlite3_column_int(stmt, 8);
	bool waits = state == REQUEST_STORED || state == REQUEST_SENDING;
	const struct queue_about about = {
		.source = (const char *)sqlite3_column_text(stmt, 1),
		.scheme = (const char *)sqlite3_column_text(stmt, 2),
		.authority = (const char *)sqlite3_column_text(stmt, 3),
		.method = (const char *)sqlite3_column_text(stmt, 4),
		.target = (const char *)sqlite3_column_text(stmt, 5),
		.idempotency_key = (const char *)sqlite3_column_text(stmt, 9),
	};
	const uint8_t *hash = sqlite3_column_blob(stmt, 10);

	/* No request has a hash of another length: nothing is the same as that one. */
	if (sqlite3_column_bytes(stmt, 10) != 32)
		hash = none;
	if (!about.source || !about.scheme || !about.authority || !about.method || !about.target)
		return -ENOMEM;
	note(hints, &about, hash, sqlite3_column_int(stmt, 6) != 0,
	     waits && sqlite3_column_int(stmt, 7) != 0);
	return 0;
}

/* QUEUE_HINT_ROWS a job, so that whoever needs the database waits for no more than that. */
static int run_load(struct store_job *job, sqlite3 *db)
{
	struct op *op = (struct op *)job;
	sqlite3_stmt *stmt;
	int64_t rows = 0;
	int r = sql_row(
		db, &stmt,
		"SELECT seq, source, scheme, authority, method, target, owes, ordered,"
		" state, idempotency_key, hash FROM requests WHERE seq > ? ORDER BY seq LIMIT ?",
		"ii", op->last_seq, (int64_t)QUEUE_HINT_ROWS);

	if (r != 1)
		return r;
	do {
		op->last_seq = sqlite3_column_int64(stmt, 0);
		rows++;
		r = read_row(stmt, op->hints);
		if (r == 0)
			r = sql_next(stmt);
	} while (r == 1);
	sql_end(stmt);
	op->again = rows == QUEUE_HINT_ROWS;
	return r;
}

static void load_from(struct queue *queue, struct hints *hints, int64_t seq);

static void merge(struct hints *into, const struct hints *hints)
{
	for (size_t i = 0; i < QUEUE_HINT_BITS / 64; i++) {
		into->owed[i] |= hints->owed[i];
		into->lanes[i] |= hints->lanes[i];
	}
}

static void finish_load(struct op *op, int status)
{
	struct queue *queue = op->queue;

	if (status < 0)
		return;
	if (op->again) {
		load_from(queue, op->hints, op->last_seq);
		op->hints = NULL;
		return;
	}
	merge(queue->hints, op->hints);
	queue->hints_loading--;
}

/* Whatever fails, the database is asked each time: slower, and never wrong. */
static void load_from(struct queue *queue, struct hints *hints, int64_t seq)
{
	struct op *op = op_new(queue, run_load, true, 0);

	if (!op) {
		free(hints);
		return;
	}
	op->finish = finish_load;
	op->hints = hints;
	op->last_seq = seq;
	(void)!op_submit(op);
}

void hints_load(struct queue *queue)
{
	struct hints *hints;

	queue->hints_loading++;
	if (hints_new(&hints) == 0)
		load_from(queue, hints, 0);
}
