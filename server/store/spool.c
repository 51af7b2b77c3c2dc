#include "store/spool.h"

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct spools {
	uv_loop_t *loop;
	unsigned refs; /* the owner's and one a spool */
	char *dir;
	uint64_t behind; /* bytes of all that wait for the disk */
	int told;	 /* the error that the log has; 0 after a good write */
	struct spools_statistics statistics;
};

struct spool {
	struct spools *spools;
	unsigned refs; /* users', readers', and one while a write is under way */
	uint64_t limit, len;
	bool in_file; /* from then on all of it goes to the file */
	bool first;   /* bodies of others leave room for it */
	bool stopped; /* the source was told to wait */
	bool busy, has_ended;
	int error;
	/* The bytes in order: `written` of them in the file, then what a worker writes at this
	 * moment or could not write, then what waits. */
	uint64_t written;
	struct buf writing, waiting;
	/* the worker's while `busy` */
	int fd, work_error;
	EVP_MD_CTX *digest; /* of what is written */
	uv_work_t work;
	void (*drained)(void *arg);
	void *drained_arg;
	void (*ended)(void *arg, int status);
	void *ended_arg;
};

/* --- all of them --- */

/* Each takes a descriptor; the most are left to connections. */
static size_t files_max(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 4 < SPOOL_FILES_MAX)
		return limit.rlim_cur / 4;
	return SPOOL_FILES_MAX;
}

int spools_new(uv_loop_t *loop, const char *dir, uint64_t max_bytes, struct spools **ret_spools)
{
	struct spools *spools = calloc(1, sizeof(*spools));

	if (!spools)
		return -ENOMEM;
	spools->dir = strdup(dir);
	if (!spools->dir) {
		free(spools);
		return -ENOMEM;
	}
	spools->loop = loop;
	spools->refs = 1;
	spools->statistics.max_bytes = max_bytes;
	spools->statistics.max_files = files_max();
	*ret_spools = spools;
	return 0;
}

static void spools_unref(struct spools *spools)
{
	if (--spools->refs)
		return;
	free(spools->dir);
	free(spools);
}

void spools_set_max(struct spools *spools, uint64_t max_bytes)
{
	spools->statistics.max_bytes = max_bytes;
}

void spools_close(struct spools *spools)
{
	if (spools)
		spools_unref(spools);
}

void spools_statistics(const struct spools *spools, struct spools_statistics *ret)
{
	*ret = spools->statistics;
}

/* --- on the worker --- */

/* A name that nobody has; gone from the directory before the first byte. */
static int make_unlinked(const char *dir)
{
	char *path;
	int fd;

	if (asprintf(&path, "%s/spool-XXXXXX", dir) < 0)
		return -ENOMEM;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	else
		unlink(path);
	free(path);
	return fd;
}

static int open_file(struct spool *spool)
{
	const char *dir = spool->spools->dir;
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT))
		fd = make_unlinked(dir);
	else if (fd < 0)
		fd = -errno;
	if (fd < 0)
		return fd;
	spool->fd = fd;
	return 0;
}

/* What replay must write has the last bytes of the disk: bodies stop before that. */
static int check_room(const struct spool *spool, size_t len)
{
	uint64_t spare = spool->first ? SPOOL_LAST_SPARE : SPOOL_DISK_SPARE;
	struct statvfs fs;

	if (fstatvfs(spool->fd, &fs) < 0)
		return 0; /* the write itself will tell */
	return (uint64_t)fs.f_bavail * fs.f_frsize < spare + len ? -ENOSPC : 0;
}

static int write_all(int fd, uint64_t offset, const uint8_t *bytes, size_t len)
{
	while (len) {
		ssize_t n = pwrite(fd, bytes, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		bytes += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int add_digest(struct spool *spool, const uint8_t *bytes, size_t len)
{
	if (!spool->digest) {
		spool->digest = EVP_MD_CTX_new();
		if (!spool->digest)
			return -ENOMEM;
		if (EVP_DigestInit_ex(spool->digest, EVP_sha256(), NULL) != 1)
			return -EIO;
	}
	return EVP_DigestUpdate(spool->digest, bytes, len) == 1 ? 0 : -EIO;
}

static void on_write(uv_work_t *work)
{
	struct spool *spool = work->data;
	size_t len = buf_len(&spool->writing);
	int r = 0;

	if (!len || spool->error)
		return;
	if (spool->fd < 0)
		r = open_file(spool);
	if (r == 0)
		r = check_room(spool, len);
	if (r == 0)
		r = write_all(spool->fd, spool->written, buf_bytes(&spool->writing), len);
	if (r == 0)
		r = add_digest(spool, buf_bytes(&spool->writing), len);
	spool->work_error = r;
}

/* Closing gives the blocks back, which takes its time too. */
static void on_close_work(uv_work_t *work)
{
	struct spool *spool = work->data;

	close(spool->fd);
}

/* --- the life of one --- */

static void spool_free(struct spool *spool)
{
	struct spools *spools = spool->spools;

	buf_done(&spool->writing);
	buf_done(&spool->waiting);
	EVP_MD_CTX_free(spool->digest);
	free(spool);
	spools_unref(spools);
}

static void on_closed(uv_work_t *work, int status)
{
	(void)status; /* nobody cancels it */
	spool_free(work->data);
}

static void queue_work(struct spool *spool, uv_work_cb run, uv_after_work_cb after)
{
	if (uv_queue_work(spool->spools->loop, &spool->work, run, after) < 0)
		abort(); /* fails only for a NULL callback */
}

int spool_new(struct spools *spools, uint64_t limit, struct spool **ret_spool)
{
	struct spool *spool = calloc(1, sizeof(*spool));

	if (!spool)
		return -ENOMEM;
	spool->spools = spools;
	spool->refs = 1;
	spool->limit = limit;
	spool->fd = -1;
	spool->work.data = spool;
	buf_init(&spool->writing, SPOOL_WAITING_MAX);
	buf_init(&spool->waiting, SPOOL_WAITING_MAX);
	spools->refs++;
	spools->statistics.open++;
	*ret_spool = spool;
	return 0;
}

void spool_goes_first(struct spool *spool)
{
	spool->first = true;
}

struct spool *spool_ref(struct spool *spool)
{
	if (spool)
		spool->refs++;
	return spool;
}

static size_t unwritten(const struct spool *spool)
{
	return buf_len(&spool->writing) + buf_len(&spool->waiting);
}

void spool_unref(struct spool *spool)
{
	struct spools_statistics *s;

	if (!spool || --spool->refs)
		return;
	s = &spool->spools->statistics;
	s->open--;
	if (spool->in_file) {
		s->files--;
		s->bytes -= spool->len;
		spool->spools->behind -= unwritten(spool);
	} else {
		s->memory -= spool->len;
	}
	if (spool->fd < 0)
		spool_free(spool);
	else
		queue_work(spool, on_close_work, on_closed);
}

/* --- writing --- */

static void on_written(uv_work_t *work, int status);

/* One write at a time; what waits is all taken along. */
static void start_write(struct spool *spool)
{
	if (spool->in_file && !spool->error) {
		struct buf empty = spool->writing;

		spool->writing = spool->waiting;
		spool->waiting = empty;
	}
	spool->busy = true;
	spool->refs++;
	queue_work(spool, on_write, on_written);
}

static bool is_settled(const struct spool *spool)
{
	return !spool->busy && (!spool->in_file || spool->error || spool->written == spool->len);
}

static void fail(struct spool *spool, int error)
{
	struct spools *spools = spool->spools;

	spool->error = error;
	spools->statistics.refused += error == -EDQUOT || error == -ENOSPC;
	if (error == -EFBIG || error == -EDQUOT || error == spools->told)
		return;
	spools->told = error;
	log_warning("spool", "a body cannot be kept in %s: %s", spools->dir, strerror(-error));
}

static void count_written(struct spool *spool)
{
	size_t len = buf_len(&spool->writing);

	spool->busy = false;
	if (spool->error)
		return;
	if (spool->work_error) {
		fail(spool, spool->work_error);
		return;
	}
	spool->written += len;
	spool->spools->behind -= len;
	if (len)
		spool->spools->told = 0;
	/* Thousands may be held: what is in the file takes no memory. */
	buf_done(&spool->writing);
}

static void go_on(struct spool *spool)
{
	size_t len = buf_len(&spool->waiting);

	if (spool->in_file && !spool->error && !spool->busy &&
	    (len >= SPOOL_PIECE || (len && spool->has_ended)))
		start_write(spool);
}

static void on_written(uv_work_t *work, int status)
{
	struct spool *spool = work->data;
	void (*ended)(void *arg, int status) = NULL;

	(void)status; /* nobody cancels it */
	count_written(spool);
	/* Does anybody want it still? */
	if (spool->refs > 1)
		go_on(spool);
	if (spool->stopped && !spool_is_full(spool)) {
		spool->stopped = false;
		if (spool->drained)
			spool->drained(spool->drained_arg);
	}
	if (spool->has_ended && is_settled(spool)) {
		ended = spool->ended;
		spool->ended = NULL;
	}
	if (ended)
		ended(spool->ended_arg, spool->error);
	spool_unref(spool);
}

/* Do so many bytes more fit beside all that is in files? */
static bool fits(const struct spool *spool, uint64_t len)
{
	const struct spools_statistics *s = &spool->spools->statistics;

	if (spool->first)
		return true;
	return (spool->in_file || s->files < s->max_files) && s->bytes <= s->max_bytes &&
	       len <= s->max_bytes - s->bytes;
}

static int to_file(struct spool *spool)
{
	struct spools *spools = spool->spools;
	struct spools_statistics *s = &spools->statistics;

	if (!fits(spool, spool->len))
		return -EDQUOT;
	spool->in_file = true;
	s->files++;
	s->filed++;
	s->memory -= spool->len;
	s->bytes += spool->len;
	spools->behind += spool->len;
	return 0;
}

static int make_room(struct spool *spool, size_t len)
{
	struct spools_statistics *s = &spool->spools->statistics;
	int r = 0;

	if (len > spool->limit || spool->len > spool->limit - len)
		return -EFBIG;
	if (!spool->in_file &&
	    (spool->len + len > SPOOL_MEMORY || s->memory + len > SPOOL_MEMORY_ALL))
		r = to_file(spool);
	if (r == 0 && spool->in_file && !fits(spool, len))
		r = -EDQUOT;
	return r;
}

int spool_append(struct spool *spool, const void *bytes, size_t len)
{
	struct spools *spools = spool->spools;
	int r = spool->error;

	if (r == 0) {
		r = make_room(spool, len);
		if (r == 0)
			r = buf_append(&spool->waiting, bytes, len);
		if (r < 0)
			fail(spool, r);
	}
	if (r < 0)
		return r;
	spool->len += len;
	if (spool->in_file) {
		spools->statistics.bytes += len;
		spools->behind += len;
	} else {
		spools->statistics.memory += len;
	}
	go_on(spool);
	spool->stopped = spool_is_full(spool);
	return 0;
}

/* Nobody may be far behind when many are. */
bool spool_is_full(const struct spool *spool)
{
	size_t bound = spool->spools->behind > SPOOL_BEHIND_ALL ? SPOOL_PIECE : SPOOL_BEHIND;

	return spool->busy && !spool->error && buf_len(&spool->waiting) >= bound;
}

void spool_on_drain(struct spool *spool, void (*drained)(void *arg), void *arg)
{
	spool->drained = drained;
	spool->drained_arg = arg;
}

void spool_end(struct spool *spool, void (*ended)(void *arg, int status), void *arg)
{
	spool->has_ended = true;
	spool->ended = ended;
	spool->ended_arg = arg;
	go_on(spool);
	if (ended && !spool->busy)
		start_write(spool); /* of nothing: it is told from there */
}

void spool_forget(struct spool *spool)
{
	spool->drained = NULL;
	spool->ended = NULL;
}

int spool_error(const struct spool *spool)
{
	return spool->error;
}

/* --- reading --- */

uint64_t spool_len(const struct spool *spool)
{
	return spool ? spool->len : 0;
}

const uint8_t *spool_bytes(const struct spool *spool)
{
	if (!spool)
		return (const uint8_t *)"";
	return spool->in_file ? NULL : buf_bytes(&spool->waiting);
}

int spool_digest(const struct spool *spool, uint8_t ret_digest[32])
{
	EVP_MD_CTX *copy;
	int r = -EIO;

	if (!spool || !spool->in_file)
		return EVP_Digest(spool_bytes(spool), spool_len(spool), ret_digest, NULL,
				  EVP_sha256(), NULL) == 1
			       ? 0
			       : -EIO;
	if (spool->error || spool->written != spool->len)
		return spool->error ? spool->error : -EBUSY;
	copy = EVP_MD_CTX_new();
	if (!copy)
		return -ENOMEM;
	if (EVP_MD_CTX_copy_ex(copy, spool->digest) == 1 &&
	    EVP_DigestFinal_ex(copy, ret_digest, NULL) == 1)
		r = 0;
	EVP_MD_CTX_free(copy);
	return r;
}

static size_t read_memory(const struct buf *from, uint64_t offset, void *buffer, size_t size)
{
	size_t left = buf_len(from) - (size_t)offset;

	if (size > left)
		size = left;
	memcpy(buffer, buf_bytes(from) + offset, size);
	return size;
}

ssize_t spool_pread(const struct spool *spool, uint64_t offset, void *buffer, size_t size)
{
	ssize_t n;

	if (offset >= spool->len)
		return 0;
	if (offset >= spool->written) {
		offset -= spool->written;
		if (offset < buf_len(&spool->writing))
			return (ssize_t)read_memory(&spool->writing, offset, buffer, size);
		offset -= buf_len(&spool->writing);
		return (ssize_t)read_memory(&spool->waiting, offset, buffer, size);
	}
	if (size > spool->written - offset)
		size = (size_t)(spool->written - offset);
	do
		n = pread(spool->fd, buffer, size, (off_t)offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n ? n : -EIO;
}

struct spool_reader {
	struct spool *spool;
	spool_piece_cb piece;
	void *arg;
	unsigned refs; /* the owner's, and one while a read is under way */
	bool closed;
	uint64_t offset;
	uv_work_t work;
	ssize_t got;
	uint8_t bytes[SPOOL_PIECE];
};

int spool_reader_new(struct spool *spool, spool_piece_cb piece, void *arg,
		     struct spool_reader **ret_reader)
{
	struct spool_reader *reader = malloc(sizeof(*reader));

	if (!reader)
		return -ENOMEM;
	reader->spool = spool_ref(spool);
	reader->piece = piece;
	reader->arg = arg;
	reader->refs = 1;
	reader->closed = false;
	reader->offset = 0;
	reader->work.data = reader;
	*ret_reader = reader;
	return 0;
}

static void reader_unref(struct spool_reader *reader)
{
	if (--reader->refs)
		return;
	spool_unref(reader->spool);
	free(reader);
}

static void on_read(uv_work_t *work)
{
	struct spool_reader *reader = work->data;

	reader->got =
		spool_pread(reader->spool, reader->offset, reader->bytes, sizeof(reader->bytes));
}

static void on_read_done(uv_work_t *work, int status)
{
	struct spool_reader *reader = work->data;
	ssize_t got = reader->got;

	(void)status; /* nobody cancels it */
	if (!reader->closed && got < 0) {
		reader->piece(reader->arg, (int)got, NULL, 0);
	} else if (!reader->closed) {
		reader->offset += (uint64_t)got;
		reader->piece(reader->arg, 0, reader->bytes, (size_t)got);
	}
	reader_unref(reader);
}

void spool_reader_next(struct spool_reader *reader)
{
	reader->refs++;
	if (uv_queue_work(reader->spool->spools->loop, &reader->work, on_read, on_read_done) < 0)
		abort(); /* fails only for a NULL callback */
}

void spool_reader_close(struct spool_reader *reader)
{
	if (!reader)
		return;
	reader->closed = true;
	reader_unref(reader);
}
