/*
 * One byte stream: a TCP socket on the loop with bounded buffers and explicit backpressure.
 *
 * Owns the socket and what waits to be written. Knows nothing of links or protocols; whoever
 * makes an outgoing one prepares the socket in the `prepare` callback.
 */
#pragma once

#include "base/ip.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uv.h>

struct conn;
struct ssl_st;

/* All on the loop. A callback may close the connection. */
struct conn_ops {
	void (*on_connect)(void *arg, int status); /* outgoing: 0 or negative errno */
	/* Bytes arrived; borrowed for the call. All of them are taken: pause to stop more. */
	void (*on_data)(void *arg, const uint8_t *data, size_t len);
	void (*on_eof)(void *arg);   /* the peer has shut its side */
	void (*on_drain)(void *arg); /* the writes fell below the low mark again */
	/* The stream is broken; close it. What had arrived before is given first, while it is read.
	 */
	void (*on_error)(void *arg, int error);
};

/* Take an accepted socket, non-blocking and with TCP_NODELAY (which it has from its listener). The
 * fd is the conn's from then on, also on error. */
int conn_accept(uv_loop_t *loop, int fd, const struct ip *peer, const struct conn_ops *ops,
		void *arg, struct conn **ret_conn) __attribute__((warn_unused_result));
/* prepare: called with the new socket before it connects (binding, mark). */
int conn_connect(uv_loop_t *loop, const struct ip *address, uint16_t port, unsigned timeout_ms,
		 int (*prepare)(void *prepare_arg, int fd), void *prepare_arg,
		 const struct conn_ops *ops, void *arg, struct conn **ret_conn)
	__attribute__((warn_unused_result));
/* TLS from here on: on an outgoing conn of which nothing was read or written yet. Takes ssl, also
 * on error. on_connect is called again: 0 once the peer has proven who it is, from when on all
 * bytes are plain ones for the owner; else as in conn/tls.h. Possibly before the call returns. */
int conn_start_tls(struct conn *conn, struct ssl_st *ssl, unsigned timeout_ms)
	__attribute__((warn_unused_result));
/* Do the socket's bytes differ from the owner's? Then there is nothing to splice. */
bool conn_is_tls(const struct conn *conn);
/* The error of on_connect or on_error in words; borrowed, until the conn is closed. */
const char *conn_failure(const struct conn *conn, int error);
/* Change the owner, e.g. when a sniffed connection becomes a relay. */
void conn_set_ops(struct conn *conn, const struct conn_ops *ops, void *arg);

/* Reading starts paused. Resume and pause are cheap. */
void conn_resume(struct conn *conn);
void conn_pause(struct conn *conn);
/* Write: sent at once as far as the socket takes it, the rest is copied. -ENOBUFS over the
 * bound of STREAM_BUFFER_MAX is not given: the caller watches conn_is_full. */
int conn_write(struct conn *conn, const void *bytes, size_t len)
	__attribute__((warn_unused_result));
/* Two pieces in one segment where possible. */
int conn_writev(struct conn *conn, const struct iovec *pieces, int count)
	__attribute__((warn_unused_result));
/* Should the source be paused? True until on_drain. */
bool conn_is_full(const struct conn *conn);
/* Bytes that wait to be written. */
size_t conn_queued(const struct conn *conn);
/* The descriptor once more, for who goes on without the conn; it is then closed as usual, and the
 * stream lives on in the new descriptor, which is the caller's. -EBUSY while it is not an open
 * stream, has TLS or bytes wait. */
int conn_duplicate(const struct conn *conn, int *ret_fd) __attribute__((warn_unused_result));
/* Send what waits, then FIN; reading goes on. */
void conn_shutdown(struct conn *conn);
/* Idempotent; no callback after it. What waits is sent first for a bounded time when
 * flush is set. Frees itself. */
void conn_close(struct conn *conn, bool flush);
/* The same with flush, where the peer has said all: it need not be heard to its end. */
void conn_finish(struct conn *conn);
/* Reset the peer instead of FIN. */
void conn_reset(struct conn *conn);

/* Has the peer neither ended the stream nor sent anything that was not read yet? Asks the socket.
 */
bool conn_is_quiet(const struct conn *conn);
/* After the peer's end, when no more is read: has it reset the connection since? Asks the socket.
 */
bool conn_is_gone(const struct conn *conn);
struct ip conn_peer(const struct conn *conn);			   /* of an accepted one */
struct ip conn_local(const struct conn *conn, uint16_t *ret_port); /* the original destination */
uint64_t conn_bytes_in(const struct conn *conn);
uint64_t conn_bytes_out(const struct conn *conn);
