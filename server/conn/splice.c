#include "conn/splice.h"

#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SIDES = 2, TURNS = 16 /* before others of the loop get theirs */ };

/* One direction. */
struct way {
	int pipe[2];
	size_t inside; /* bytes in the pipe */
	bool ended;    /* the source has ended */
	bool shut;     /* and the sink was told */
	uint64_t bytes;
};

struct side {
	struct splice *splice;
	int fd;
	uv_poll_t poll;
	int events; /* polled for now */
};

struct splice {
	struct side sides[SIDES];
	struct way ways[SIDES]; /* from sides[i] to the other */
	unsigned handles;
	bool closed;
	splice_over_cb over;
	void *arg;
};

static void on_handle_closed(uv_handle_t *handle)
{
	struct side *side = handle->data;

	if (--side->splice->handles == 0)
		free(side->splice);
}

static void pipe_close(struct way *way)
{
	close(way->pipe[0]);
	close(way->pipe[1]);
}

static void close_all(struct splice *splice, bool reset)
{
	struct linger linger = {.l_onoff = 1};

	splice->closed = true;
	for (int i = 0; i < SIDES; i++) {
		struct side *side = &splice->sides[i];

		if (reset)
			setsockopt(side->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
		uv_close((uv_handle_t *)&side->poll, on_handle_closed);
		close(side->fd);
		pipe_close(&splice->ways[i]);
	}
}

static void be_over(struct splice *splice, int status)
{
	close_all(splice, status < 0);
	splice->over(splice->arg, status);
}

/* 1: moved some, 0: would block or nothing to do, negative errno. */
static int fill(struct way *way, int from)
{
	ssize_t n;

	if (way->ended || way->inside)
		return 0;
	n = splice(from, NULL, way->pipe[1], NULL, DUPLEX_PIPE_SIZE,
		   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	way->ended = n == 0;
	way->inside = (size_t)n;
	way->bytes += (uint64_t)n;
	return 1;
}

static int drain(struct way *way, int to)
{
	ssize_t n;

	if (!way->inside) {
		if (!way->ended || way->shut)
			return 0;
		way->shut = true;
		return shutdown(to, SHUT_WR) < 0 && errno != ENOTCONN ? -errno : 0;
	}
	n = splice(way->pipe[0], NULL, to, NULL, way->inside, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	way->inside -= (size_t)n;
	return 1;
}

static int carry(struct splice *splice, int from)
{
	struct way *way = &splice->ways[from];
	int r = 1;

	for (int i = 0; i < TURNS && r > 0; i++) {
		int filled = fill(way, splice->sides[from].fd);

		r = filled < 0 ? filled : drain(way, splice->sides[!from].fd);
		if (r == 0 && filled > 0 && !way->inside && !way->shut)
			r = 1;
	}
	return r < 0 ? r : 0;
}

static void on_ready(uv_poll_t *poll, int status, int events);

/* A side is read while its pipe is empty, and written to while the other's is not. */
static int watch(struct splice *splice, int i)
{
	struct side *side = &splice->sides[i];
	int events = 0;

	if (!splice->ways[i].ended && !splice->ways[i].inside)
		events |= UV_READABLE;
	if (splice->ways[!i].inside)
		events |= UV_WRITABLE;
	if (events == side->events)
		return 0;
	side->events = events;
	return events ? uv_poll_start(&side->poll, events, on_ready) : uv_poll_stop(&side->poll);
}

static int step(struct splice *splice, int i)
{
	int r = carry(splice, i);

	if (r == 0)
		r = carry(splice, !i);
	if (r == 0)
		r = watch(splice, 0);
	if (r == 0)
		r = watch(splice, 1);
	return r;
}

/* What a broken socket says; libuv itself says no more than that something is wrong. */
static int socket_error(int fd)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || !error)
		error = ECONNRESET;
	return -error;
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
	struct side *side = poll->data;
	struct splice *splice = side->splice;
	int r;

	if (splice->closed)
		return;
	r = status < 0 ? socket_error(side->fd) : step(splice, side == &splice->sides[1]);
	if (r < 0)
		be_over(splice, r);
	else if (splice->ways[0].shut && splice->ways[1].shut)
		be_over(splice, 0);
}

static int way_open(struct way *way)
{
	if (pipe2(way->pipe, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	/* A smaller one works as well: the kernel may refuse under its own bounds. */
	fcntl(way->pipe[1], F_SETPIPE_SZ, DUPLEX_PIPE_SIZE);
	return 0;
}

static int side_open(struct splice *splice, int i, uv_loop_t *loop, int fd)
{
	struct side *side = &splice->sides[i];
	int r = uv_poll_init(loop, &side->poll, fd);

	if (r < 0)
		return r;
	*side = (struct side){.splice = splice, .fd = fd, .poll = side->poll};
	side->poll.data = side;
	splice->handles++;
	return 0;
}

int splice_new(uv_loop_t *loop, int fd_a, int fd_b, splice_over_cb over, void *arg,
	       struct splice **ret_splice)
{
	struct splice *splice = calloc(1, sizeof(*splice));
	int r;

	if (!splice)
		return -ENOMEM;
	splice->over = over;
	splice->arg = arg;
	r = way_open(&splice->ways[0]);
	if (r < 0)
		goto no_pipe;
	r = way_open(&splice->ways[1]);
	if (r < 0)
		goto one_pipe;
	r = side_open(splice, 0, loop, fd_a);
	if (r < 0)
		goto two_pipes;
	r = side_open(splice, 1, loop, fd_b);
	if (r < 0)
		goto one_side;
	/* Level-triggered: what is there already is told at once. */
	r = watch(splice, 0);
	if (r == 0)
		r = watch(splice, 1);
	if (r == 0) {
		*ret_splice = splice;
		return 0;
	}
	uv_close((uv_handle_t *)&splice->sides[1].poll, on_handle_closed);
one_side:
	splice->closed = true;
	pipe_close(&splice->ways[0]);
	pipe_close(&splice->ways[1]);
	uv_close((uv_handle_t *)&splice->sides[0].poll, on_handle_closed);
	return r;
two_pipes:
	pipe_close(&splice->ways[1]);
one_pipe:
	pipe_close(&splice->ways[0]);
no_pipe:
	free(splice);
	return r;
}

void splice_close(struct splice *splice)
{
	if (!splice->closed)
		close_all(splice, true);
}

uint64_t splice_bytes(const struct splice *splice, bool from_a)
{
	return splice->ways[from_a ? 0 : 1].bytes;
}
