/*
 * TLS as a layer of one byte stream: what comes from the wire goes in, plain bytes come out, and
 * the other way round. A client's session. Whom to trust, which name to expect and who we are is
 * set in the SSL that the maker gives.
 *
 * Knows no socket: its owner (conn) sends for it and feeds it. The stream's end counts only when
 * the peer said so inside TLS; anything else is a truncation and told as an error.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uv.h>

struct ssl_st;
struct tls;

/* All on the loop. A callback may close the session. */
struct tls_ops {
	/* To the wire; all of it is taken, or negative errno. Borrowed. */
	int (*send)(void *arg, const void *bytes, size_t len);
	/* The handshake is over and the peer is who it should be. Paused from here on. */
	void (*on_ready)(void *arg);
	void (*on_data)(void *arg, const uint8_t *data, size_t len);
	void (*on_end)(void *arg); /* the peer's close_notify */
	/* -EKEYREJECTED: the peer is not trusted, or what it says is no TLS that we take;
	 * -ETIMEDOUT and -ECONNRESET: the connection. tls_failure() has the words. */
	void (*on_fail)(void *arg, int error);
};

/* Takes ssl, also on error. 0 or -ENOMEM. */
int tls_new(uv_loop_t *loop, struct ssl_st *ssl, const struct tls_ops *ops, void *arg,
	    struct tls **ret_tls) __attribute__((warn_unused_result));
/* Begin the handshake. Callbacks may come from inside. */
void tls_start(struct tls *tls, unsigned timeout_ms);
/* From the wire. What a paused session does not read yet is copied. */
void tls_feed(struct tls *tls, const void *bytes, size_t len);
void tls_feed_end(struct tls *tls); /* the wire has ended */
void tls_pause(struct tls *tls);
void tls_resume(struct tls *tls);
/* 0 or negative errno. */
int tls_writev(struct tls *tls, const struct iovec *pieces, int count)
	__attribute__((warn_unused_result));
/* Say that nothing more will be written. Idempotent. */
void tls_shutdown(struct tls *tls);
/* No callback after it; frees itself on the loop. */
void tls_close(struct tls *tls);
/* Why it failed, for people. */
const char *tls_failure(const struct tls *tls);
