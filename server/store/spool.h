/*
 * A body of any size on its way: the first SPOOL_MEMORY bytes in memory, a longer one in an
 * unlinked file of the state directory, so that it is never whole in memory and gone with the
 * process.
 *
 * Written once, from its beginning to its end, then read as often as one likes, on the loop or on
 * a worker. Counted references, which are taken and put on the loop alone: an exchange, a job of
 * the queue and a replay may share one. Its owner decides whether what is in it becomes durable
 * (queue); a spool alone is not.
 *
 *   filling --spool_end--> whole
 *      \--full disk, limit--> failed   (bytes are refused from then on, see spool_error; those
 *                                      that were taken can be read, after spool_end)
 *
 * What waits for the disk is in memory: at most SPOOL_BEHIND, and as much again on its way, if the
 * source stops when spool_is_full says so.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

struct spool;
struct spools;

/* Those of one state directory: their bytes together are bounded, and how many are in files.
 * max_bytes: in files. */
int spools_new(uv_loop_t *loop, const char *dir, uint64_t max_bytes, struct spools **ret_spools)
	__attribute__((warn_unused_result));
void spools_set_max(struct spools *spools, uint64_t max_bytes);
/* Spools may outlive it until their last reference. */
void spools_close(struct spools *spools);

/* limit: of this one, bytes. */
int spool_new(struct spools *spools, uint64_t limit, struct spool **ret_spool)
	__attribute__((warn_unused_result));
/* This one is the answer of a replay: it makes room, and must not be stopped by what waits to be
 * sent. It may take what others leave free of the disk, and more than `max_bytes` of all. */
void spool_goes_first(struct spool *spool);
struct spool *spool_ref(struct spool *spool); /* NULL is fine, here and below */
void spool_unref(struct spool *spool);

/* Copies the bytes; file writes happen on a worker, never on the loop. 0; -EFBIG over the
 * limit, -EDQUOT over that of all, -ENOBUFS when the source does not stop, or the error that a
 * write met before (-ENOSPC, -EIO, -EROFS ...). Of refused bytes none is taken. */
int spool_append(struct spool *spool, const void *bytes, size_t len)
	__attribute__((warn_unused_result));
/* Does so much wait for the disk that the source should stop? Until `drained` is called, on the
 * loop; NULL: nobody is told. `drained` comes also when a write fails: look at spool_error. */
bool spool_is_full(const struct spool *spool);
void spool_on_drain(struct spool *spool, void (*drained)(void *arg), void *arg);
/* No more bytes. `ended` comes once everything is written, never from inside: 0 or the error.
 * NULL: a spool that is still in memory needs no wait (spool_bytes is not NULL then). */
void spool_end(struct spool *spool, void (*ended)(void *arg, int status), void *arg);
/* Neither `drained` nor `ended` comes after this. */
void spool_forget(struct spool *spool);
int spool_error(const struct spool *spool);

uint64_t spool_len(const struct spool *spool); /* NULL: 0 */
/* All bytes, while they are in memory; NULL: they are in a file. An empty one gives "". */
const uint8_t *spool_bytes(const struct spool *spool);
/* SHA-256 of a whole spool, without reading it again. */
int spool_digest(const struct spool *spool, uint8_t ret_digest[32])
	__attribute__((warn_unused_result));
/* Of a spool that has ended, blocking, on any thread: up to `size` bytes from `offset`; 0 at the
 * end. */
ssize_t spool_pread(const struct spool *spool, uint64_t offset, void *buffer, size_t size)
	__attribute__((warn_unused_result));

/* Reads a spool that has ended piece by piece on a worker, one piece at a time: `piece` gets up to
 * SPOOL_PIECE bytes (borrowed), len 0 at the end, or a negative status; ask for the next with
 * spool_reader_next, the first too (callable from inside `piece`, which then comes later). */
struct spool_reader;
typedef void (*spool_piece_cb)(void *arg, int status, const uint8_t *bytes, size_t len);
int spool_reader_new(struct spool *spool, spool_piece_cb piece, void *arg,
		     struct spool_reader **ret_reader) __attribute__((warn_unused_result));
void spool_reader_next(struct spool_reader *reader);
/* No callback after it. */
void spool_reader_close(struct spool_reader *reader);

struct spools_statistics {
	uint64_t bytes, max_bytes;     /* in files now */
	uint64_t memory;	       /* bytes in memory now, of bodies that are in no file */
	size_t open, files, max_files; /* now; of these in files, and their bound */
	uint64_t filed, refused; /* since the start: bodies that went to a file; -EDQUOT, -ENOSPC */
};
void spools_statistics(const struct spools *spools, struct spools_statistics *ret);
