#include "conn/conn.h"

#include "base/limits.h"
#include "conn/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	READ_SIZE = 64 << 10,
	LOW_MARK = STREAM_BUFFER_MAX / 4,
	LINGER_TIMEOUT = 3000, /* ms, for a flush at close */
	HANDLES = 2,
	PIECES_MAX = 8,
};

/*
 *  CONNECTING --> OPEN --conn_close(flush)--> LINGERING --sent, peer done or time over--> CLOSED
 *       \         / ^ \__________conn_close, conn_reset_________________________________/
 *        \       v  |
 *         \   SECURING: the TLS handshake; its end is told as the connect's
 */
enum conn_state { CONN_CONNECTING, CONN_SECURING, CONN_OPEN, CONN_LINGERING, CONN_CLOSED };

struct conn {
	uv_tcp_t tcp;
	uv_timer_t timer; /* connecting, then lingering */
	uv_connect_t connect;
	uv_shutdown_t shutdown;
	enum conn_state state;
	unsigned handles; /* not closed yet; the last one frees */
	bool reading, got_eof, shut, full;
	struct tls *tls; /* NULL: the socket's bytes are the owner's */
	int broken;	 /* what a write met; told when all is read */
	struct conn_ops ops;
	void *arg;
	struct ip peer; /* of an accepted one */
	uint64_t bytes_in, bytes_out;
};

struct write {
	uv_write_t req;
	uint8_t bytes[];
};

static void on_handle_closed(uv_handle_t *handle)
{
	struct conn *conn = handle->data;

	if (--conn->handles == 0)
		free(conn);
}

static void close_tls(struct conn *conn)
{
	if (conn->tls)
		tls_close(conn->tls);
	conn->tls = NULL;
}

static void close_handles(struct conn *conn)
{
	conn->state = CONN_CLOSED;
	close_tls(conn);
	if (!uv_is_closing((uv_handle_t *)&conn->tcp))
		uv_close((uv_handle_t *)&conn->tcp, on_handle_closed);
	if (!uv_is_closing((uv_handle_t *)&conn->timer))
		uv_close((uv_handle_t *)&conn->timer, on_handle_closed);
}

static void tell_error(struct conn *conn, int error)
{
	if (conn->state == CONN_LINGERING) {
		close_handles(conn);
		return;
	}
	if (conn->state == CONN_CLOSED)
		return;
	if (conn->state == CONN_CONNECTING || conn->state == CONN_SECURING)
		conn->ops.on_connect(conn->arg, error);
	else
		conn->ops.on_error(conn->arg, error);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	buf->base = malloc(READ_SIZE);
	buf->len = buf->base ? READ_SIZE : 0;
}

static void stop_reading(struct conn *conn)
{
	if (!conn->reading)
		return;
	uv_read_stop((uv_stream_t *)&conn->tcp);
	conn->reading = false;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct conn *conn = stream->data;

	if (n > 0 && conn->tls && conn->state <= CONN_OPEN) {
		conn->bytes_in += (uint64_t)n;
		tls_feed(conn->tls, buf->base, (size_t)n);
	} else if (n > 0 && conn->state == CONN_OPEN) {
		conn->bytes_in += (uint64_t)n;
		conn->ops.on_data(conn->arg, (const uint8_t *)buf->base, (size_t)n);
	} else if (n == UV_EOF) {
		conn->got_eof = true;
		stop_reading(conn);
		if (conn->tls && conn->state <= CONN_OPEN)
			tls_feed_end(conn->tls);
		else if (conn->broken)
			tell_error(conn, conn->broken);
		else if (conn->state == CONN_OPEN)
			conn->ops.on_eof(conn->arg);
		else if (conn->state == CONN_LINGERING)
			close_handles(conn);
	} else if (n < 0) {
		stop_reading(conn);
		tell_error(conn, (int)n);
	}
	free(buf->base);
}

static void start_reading(struct conn *conn)
{
	int r;

	if (conn->reading || conn->got_eof || conn->state == CONN_CONNECTING ||
	    conn->state == CONN_CLOSED)
		return;
	r = uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
	conn->reading = r == 0;
}

void conn_resume(struct conn *conn)
{
	if (conn->state != CONN_OPEN)
		return;
	if (conn->tls)
		tls_resume(conn->tls);
	start_reading(conn);
}

void conn_pause(struct conn *conn)
{
	if (conn->tls)
		tls_pause(conn->tls);
	stop_reading(conn);
}

static int conn_new(uv_loop_t *loop, unsigned family, const struct conn_ops *ops, void *arg,
		    struct conn **ret_conn)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	int r;

	if (!conn)
		return -ENOMEM;
	r = family ? uv_tcp_init_ex(loop, &conn->tcp, family) : uv_tcp_init(loop, &conn->tcp);
	if (r < 0) {
		free(conn);
		return r;
	}
	uv_timer_init(loop, &conn->timer);
	conn->tcp.data = conn->timer.data = conn;
	conn->handles = HANDLES;
	conn->ops = *ops;
	conn->arg = arg;
	*ret_conn = conn;
	return 0;
}

int conn_accept(uv_loop_t *loop, int fd, const struct ip *peer, const struct conn_ops *ops,
		void *arg, struct conn **ret_conn)
{
	struct conn *conn;
	int r = conn_new(loop, 0, ops, arg, &conn);

	if (r < 0) {
		close(fd);
		return r;
	}
	r = uv_tcp_open(&conn->tcp, fd);
	if (r < 0) {
		close(fd);
		close_handles(conn);
		return r;
	}
	conn->peer = *peer;
	conn->state = CONN_OPEN;
	*ret_conn = conn;
	return 0;
}

static void on_connected(uv_connect_t *req, int status)
{
	struct conn *conn = req->data;

	if (conn->state != CONN_CONNECTING)
		return;
	uv_timer_stop(&conn->timer);
	if (status == 0) {
		conn->state = CONN_OPEN;
		uv_tcp_nodelay(&conn->tcp, 1);
	}
	conn->ops.on_connect(conn->arg, status);
}

static void on_connect_timeout(uv_timer_t *timer)
{
	tell_error(timer->data, -ETIMEDOUT);
}

int conn_connect(uv_loop_t *loop, const struct ip *address, uint16_t port, unsigned timeout_ms,
		 int (*prepare)(void *prepare_arg, int fd), void *prepare_arg,
		 const struct conn_ops *ops, void *arg, struct conn **ret_conn)
{
	struct sockaddr_storage sa;
	struct conn *conn;
	uv_os_fd_t fd;
	int r;

	ip_to_sockaddr(address, port, &sa);
	r = conn_new(loop, sa.ss_family, ops, arg, &conn);
	if (r < 0)
		return r;
	r = uv_fileno((uv_handle_t *)&conn->tcp, &fd);
	if (r == 0 && prepare)
		r = prepare(prepare_arg, fd);
	conn->connect.data = conn;
	if (r == 0)
		r = uv_tcp_connect(&conn->connect, &conn->tcp, (struct sockaddr *)&sa,
				   on_connected);
	if (r < 0) {
		close_handles(conn);
		return r;
	}
	uv_timer_start(&conn->timer, on_connect_timeout, timeout_ms, 0);
	*ret_conn = conn;
	return 0;
}

void conn_set_ops(struct conn *conn, const struct conn_ops *ops, void *arg)
{
	conn->ops = *ops;
	conn->arg = arg;
}

static void finish_linger(struct conn *conn)
{
	if (conn->state == CONN_LINGERING && conn->got_eof &&
	    !uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp))
		close_handles(conn);
}

/* Who resets after its last word, as a server that answers early, has still said it: it is read
 * before the error is told. */
static void write_failed(struct conn *conn, int error)
{
	if (conn->state == CONN_OPEN && conn->reading)
		conn->broken = error;
	else
		tell_error(conn, error);
}

static void on_written(uv_write_t *req, int status)
{
	struct conn *conn = req->handle->data;

	free(req->data);
	if (status < 0) {
		if (status != UV_ECANCELED)
			write_failed(conn, status);
		return;
	}
	finish_linger(conn);
	if (conn->full && conn->state == CONN_OPEN &&
	    uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp) <= LOW_MARK) {
		conn->full = false;
		if (conn->ops.on_drain)
			conn->ops.on_drain(conn->arg);
	}
}

/* Copy what the socket did not take, from `skip` bytes on, and queue it. */
static int queue_rest(struct conn *conn, const uv_buf_t *bufs, int count, size_t skip, size_t total)
{
	struct write *write = malloc(sizeof(*write) + total - skip);
	size_t at = 0;
	uv_buf_t all;
	int r;

	if (!write)
		return -ENOMEM;
	for (int i = 0; i < count; i++) {
		size_t from = skip < bufs[i].len ? skip : bufs[i].len;

		memcpy(write->bytes + at, bufs[i].base + from, bufs[i].len - from);
		at += bufs[i].len - from;
		skip -= from;
	}
	all = uv_buf_init((char *)write->bytes, (unsigned)at);
	write->req.data = write;
	r = uv_write(&write->req, (uv_stream_t *)&conn->tcp, &all, 1, on_written);
	if (r < 0)
		free(write);
	return r;
}

static int send_pieces(struct conn *conn, const struct iovec *pieces, int count)
{
	uv_buf_t bufs[PIECES_MAX];
	size_t total = 0;
	int n = 0;

	if (conn->broken)
		return conn->broken;
	if (count > PIECES_MAX)
		return -EINVAL;
	for (int i = 0; i < count; i++) {
		if (!pieces[i].iov_len)
			continue;
		bufs[n++] = uv_buf_init(pieces[i].iov_base, (unsigned)pieces[i].iov_len);
		total += pieces[i].iov_len;
	}
	if (!total)
		return 0;
	conn->bytes_out += total;
	int sent = uv_try_write((uv_stream_t *)&conn->tcp, bufs, (unsigned)n);

	if (sent < 0 && sent != UV_EAGAIN)
		return sent;
	if (sent < 0)
		sent = 0;
	if ((size_t)sent == total)
		return 0;
	int r = queue_rest(conn, bufs, n, (size_t)sent, total);

	if (uv_stream_get_write_queue_size((uv_stream_t *)&conn->tcp) >= STREAM_BUFFER_MAX)
		conn->full = true;
	return r;
}

int conn_writev(struct conn *conn, const struct iovec *pieces, int count)
{
	if (conn->state != CONN_OPEN || conn->shut)
		return -EPIPE;
	return conn->tls ? tls_writev(conn->tls, pieces, count) : send_pieces(conn, pieces, count);
}

int conn_write(struct conn *conn, const void *bytes, size_t len)
{
	struct iovec piece = {.iov_base = (void *)bytes, .iov_len = len};

	return conn_writev(conn, &piece, 1);
}

bool conn_is_full(const struct conn *conn)
{
	return conn->full;
}

size_t conn_queued(const struct conn *conn)
{
	return uv_stream_get_write_queue_size((const uv_stream_t *)&conn->tcp);
}

int conn_duplicate(const struct conn *conn, int *ret_fd)
{
	uv_os_fd_t fd;
	int r;

	if (conn->state != CONN_OPEN || conn->tls || conn->shut || conn->got_eof ||
	    conn_queued(conn))
		return -EBUSY;
	r = uv_fileno((const uv_handle_t *)&conn->tcp, &fd);
	if (r < 0)
		return r;
	r = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (r < 0)
		return -errno;
	*ret_fd = r;
	return 0;
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
	finish_linger(req->data);
}

/* libuv's own would wait for a turn of the loop to see that the socket takes bytes. */
static int shut_now(const struct conn *conn)
{
	uv_os_fd_t fd;

	if (conn_queued(conn))
		return -EAGAIN;
	return uv_fileno((const uv_handle_t *)&conn->tcp, &fd) == 0 ? shutdown(fd, SHUT_WR)
								    : -EBADF;
}

void conn_shutdown(struct conn *conn)
{
	if (conn->shut || (conn->state != CONN_OPEN && conn->state != CONN_LINGERING))
		return;
	if (conn->tls)
		tls_shutdown(conn->tls);
	conn->shut = true;
	if (shut_now(conn) == 0)
		return;
	conn->shutdown.data = conn;
	uv_shutdown(&conn->shutdown, (uv_stream_t *)&conn->tcp, on_shutdown);
}

static void on_linger_over(uv_timer_t *timer)
{
	close_handles(timer->data);
}

/* A close with unread bytes in the socket would reset the peer and lose what was sent: shut,
 * read to the peer's end, for a bounded time (RFC 9112, 9.6). */
static void linger(struct conn *conn)
{
	conn->state = CONN_LINGERING;
	conn_shutdown(conn);
	close_tls(conn);
	start_reading(conn);
	uv_timer_start(&conn->timer, on_linger_over, LINGER_TIMEOUT, 0);
	finish_linger(conn);
}

void conn_close(struct conn *conn, bool flush)
{
	if (conn->state == CONN_CLOSED || conn->state == CONN_LINGERING)
		return;
	if (flush && conn->state == CONN_OPEN) {
		linger(conn);
		return;
	}
	if (conn->tls && !conn->shut)
		tls_shutdown(conn->tls);
	close_handles(conn);
}

/* A close with nothing unread in the socket sends FIN after what is on its way. */
static bool is_all_said(const struct conn *conn)
{
	uv_os_fd_t fd;
	int unread;

	return conn->state == CONN_OPEN && !conn->tls && !conn_queued(conn) &&
	       uv_fileno((const uv_handle_t *)&conn->tcp, &fd) == 0 &&
	       ioctl(fd, SIOCINQ, &unread) == 0 && !unread;
}

void conn_finish(struct conn *conn)
{
	conn_close(conn, !is_all_said(conn));
}

void conn_reset(struct conn *conn)
{
	if (conn->state == CONN_CLOSED)
		return;
	if (conn->state == CONN_OPEN && !conn->shut &&
	    uv_tcp_close_reset(&conn->tcp, on_handle_closed) == 0) {
		conn->state = CONN_CLOSED;
		close_tls(conn);
		uv_close((uv_handle_t *)&conn->timer, on_handle_closed);
		return;
	}
	close_handles(conn);
}

bool conn_is_quiet(const struct conn *conn)
{
	uv_os_fd_t fd;
	char byte;

	return conn->state == CONN_OPEN && !conn->got_eof &&
	       uv_fileno((const uv_handle_t *)&conn->tcp, &fd) == 0 &&
	       recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

bool conn_is_gone(const struct conn *conn)
{
	struct pollfd socket = {0};

	return conn->state == CONN_OPEN &&
	       uv_fileno((const uv_handle_t *)&conn->tcp, &socket.fd) == 0 &&
	       poll(&socket, 1, 0) == 1 && socket.revents & (POLLERR | POLLHUP);
}

/* --- with TLS --- */

static int on_tls_send(void *arg, const void *bytes, size_t len)
{
	struct iovec piece = {(void *)bytes, len};

	return send_pieces(arg, &piece, 1);
}

static void on_tls_ready(void *arg)
{
	struct conn *conn = arg;

	stop_reading(conn);
	conn->state = CONN_OPEN;
	conn->ops.on_connect(conn->arg, 0);
}

static void on_tls_data(void *arg, const uint8_t *data, size_t len)
{
	struct conn *conn = arg;

	conn->ops.on_data(conn->arg, data, len);
}

static void on_tls_end(void *arg)
{
	struct conn *conn = arg;

	conn->got_eof = true;
	stop_reading(conn);
	conn->ops.on_eof(conn->arg);
}

static void on_tls_fail(void *arg, int error)
{
	struct conn *conn = arg;

	stop_reading(conn);
	tell_error(conn, error);
}

int conn_start_tls(struct conn *conn, struct ssl_st *ssl, unsigned timeout_ms)
{
	static const struct tls_ops ops = {
		.send = on_tls_send,
		.on_ready = on_tls_ready,
		.on_data = on_tls_data,
		.on_end = on_tls_end,
		.on_fail = on_tls_fail,
	};
	int r = tls_new(conn->tcp.loop, ssl, &ops, conn, &conn->tls);

	if (r < 0)
		return r;
	conn->state = CONN_SECURING;
	start_reading(conn);
	tls_start(conn->tls, timeout_ms);
	return 0;
}

bool conn_is_tls(const struct conn *conn)
{
	return conn->tls;
}

const char *conn_failure(const struct conn *conn, int error)
{
	const char *words = conn->tls ? tls_failure(conn->tls) : "";

	return *words ? words : strerror(-error);
}

struct ip conn_peer(const struct conn *conn)
{
	return conn->peer;
}

struct ip conn_local(const struct conn *conn, uint16_t *ret_port)
{
	struct sockaddr_storage sa = {0};
	int len = sizeof(sa);

	if (uv_tcp_getsockname(&conn->tcp, (struct sockaddr *)&sa, &len) < 0)
		sa.ss_family = AF_INET;
	return ip_from_sockaddr((struct sockaddr *)&sa, ret_port);
}

uint64_t conn_bytes_in(const struct conn *conn)
{
	return conn->bytes_in;
}

uint64_t conn_bytes_out(const struct conn *conn)
{
	return conn->bytes_out;
}
