#include "conn/tls.h"

#include "base/buf.h"
#include "base/limits.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	RECORD = SSL3_RT_MAX_PLAIN_LENGTH,
	READ_SIZE = 4 * RECORD,
	KEPT_MAX =
		256 << 10, /* read from the wire while paused: one read, and one after resuming */
	REASON_OF_ALERT = 1000, /* SSL_AD_REASON_OFFSET: reasons above are the peer's alerts */
};

/*
 *  SHAKING --handshake--> OPEN --close_notify, failure--> OVER
 *      \______________________failure_______________________/
 */
enum tls_state { TLS_SHAKING, TLS_OPEN, TLS_OVER };

struct tls {
	SSL *ssl;
	BIO_METHOD *method;
	uv_timer_t timer; /* the handshake's bound; then what was read before a pause */
	struct tls_ops ops;
	void *arg;
	enum tls_state state;
	const uint8_t *fed; /* borrowed from the feeder */
	size_t fed_len;
	struct buf kept; /* fed and not read yet: before what is borrowed now */
	size_t own;	 /* bytes sent that the owner did not write, after the handshake */
	bool pumping, paused, wire_ended, writing, shut, closed;
	bool unheard; /* the wire takes nothing more; what the peer said last is still to be read */
	bool ended;   /* the peer's close_notify came; not told yet */
	int error;    /* negative errno; not told yet */
	char failure[192];
};

/* --- between OpenSSL and the wire --- */

static size_t take(struct tls *tls, uint8_t *buffer, size_t size)
{
	size_t n = buf_len(&tls->kept);

	if (n) {
		n = n < size ? n : size;
		memcpy(buffer, buf_bytes(&tls->kept), n);
		buf_consume(&tls->kept, n);
		return n;
	}
	n = tls->fed_len < size ? tls->fed_len : size;
	if (n)
		memcpy(buffer, tls->fed, n);
	tls->fed += n;
	tls->fed_len -= n;
	return n;
}

static int bio_read(BIO *bio, char *buffer, int size)
{
	size_t n = take(BIO_get_data(bio), (uint8_t *)buffer, size < 0 ? 0 : (size_t)size);

	BIO_clear_retry_flags(bio);
	if (n)
		return (int)n;
	BIO_set_retry_read(bio);
	return -1;
}

static int bio_write(BIO *bio, const char *bytes, int len)
{
	struct tls *tls = BIO_get_data(bio);
	int r = 0;

	BIO_clear_retry_flags(bio);
	/* Answers to key updates: a peer that asks for ever and does not read is cut off. */
	if (tls->state == TLS_OPEN && !tls->writing) {
		tls->own += (size_t)len;
		r = tls->own > TLS_OWN_MAX ? -ENOBUFS : 0;
	}
	if (r == 0)
		r = tls->ops.send(tls->arg, bytes, (size_t)len);
	if (r == 0)
		return len;
	tls->error = r;
	return -1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	return command == BIO_CTRL_FLUSH;
}

static int attach_bio(struct tls *tls)
{
	BIO *bio;

	tls->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "conn");
	if (!tls->method)
		return -ENOMEM;
	BIO_meth_set_read(tls->method, bio_read);
	BIO_meth_set_write(tls->method, bio_write);
	BIO_meth_set_ctrl(tls->method, bio_ctrl);
	bio = BIO_new(tls->method);
	if (!bio)
		return -ENOMEM;
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	return 0;
}

/* --- what went wrong --- */

/* OpenSSL: "tlsv13 alert certificate required" */
static void explain_alert(struct tls *tls, const char *reason)
{
	const char *words = reason ? strstr(reason, "alert ") : NULL;

	snprintf(tls->failure, sizeof(tls->failure), "the origin refuses: %s",
		 words ? words + strlen("alert ") : "a TLS alert");
}

/* OpenSSL's word for anything that is no TLS record. */
static bool is_no_tls(unsigned long error)
{
	return ERR_GET_LIB(error) == ERR_LIB_SSL &&
	       ERR_GET_REASON(error) == SSL_R_WRONG_VERSION_NUMBER;
}

static void explain(struct tls *tls)
{
	long verified = SSL_get_verify_result(tls->ssl);
	unsigned long error = ERR_peek_error();
	const char *reason = ERR_reason_error_string(error);

	if (tls->state == TLS_SHAKING && verified != X509_V_OK)
		snprintf(tls->failure, sizeof(tls->failure), "%s",
			 X509_verify_cert_error_string(verified));
	else if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) > REASON_OF_ALERT)
		explain_alert(tls, reason);
	else if (is_no_tls(error))
		snprintf(tls->failure, sizeof(tls->failure), "the origin does not speak TLS");
	else
		snprintf(tls->failure, sizeof(tls->failure), "%s", reason ? reason : "no TLS");
}

static void fail(struct tls *tls, int error, const char *what)
{
	tls->error = error;
	snprintf(tls->failure, sizeof(tls->failure), "%s", what);
}

/* SSL_get_error after a call that did not go well; false: more bytes from the wire would help. */
static bool judge(struct tls *tls, int result)
{
	switch (SSL_get_error(tls->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		if (!tls->wire_ended)
			return false;
		fail(tls, -ECONNRESET,
		     tls->state == TLS_SHAKING ? "closed during the TLS handshake"
					       : "cut off: closed without the end of TLS");
		return true;
	case SSL_ERROR_ZERO_RETURN:
		tls->ended = true;
		return true;
	default:
		/* A failed send has left its errno. */
		if (tls->error) {
			fail(tls, tls->error, strerror(-tls->error));
			return true;
		}
		explain(tls);
		tls->error = -EKEYREJECTED;
		return true;
	}
}

/* --- reading --- */

static bool shake(struct tls *tls)
{
	int r;

	ERR_clear_error();
	r = SSL_do_handshake(tls->ssl);
	if (r != 1)
		return judge(tls, r);
	uv_timer_stop(&tls->timer);
	tls->state = TLS_OPEN;
	tls->paused = true;
	tls->ops.on_ready(tls->arg);
	return true;
}

static bool read_some(struct tls *tls)
{
	uint8_t data[READ_SIZE];
	size_t len = 0, n;
	bool go_on = true;
	int r = 1;

	while (len < sizeof(data) && r == 1) {
		ERR_clear_error();
		r = SSL_read_ex(tls->ssl, data + len, sizeof(data) - len, &n);
		if (r == 1)
			len += n;
	}
	if (r != 1)
		go_on = judge(tls, r);
	if (len)
		tls->ops.on_data(tls->arg, data, len);
	return go_on;
}

static void tell_end(struct tls *tls)
{
	tls->state = TLS_OVER;
	if (tls->error)
		tls->ops.on_fail(tls->arg, tls->error);
	else
		tls->ops.on_end(tls->arg);
}

static bool step(struct tls *tls)
{
	if (tls->closed || tls->state == TLS_OVER)
		return false;
	if (tls->state == TLS_SHAKING && !tls->error && !tls->ended)
		return shake(tls);
	/* What was read before a pause is not overtaken by the end. */
	if (tls->state == TLS_OPEN && tls->paused)
		return false;
	if (!tls->error && !tls->ended)
		return read_some(tls);
	if (tls->state == TLS_SHAKING && !tls->error)
		fail(tls, -EKEYREJECTED, "the origin ended the TLS handshake");
	tell_end(tls);
	return false;
}

static void pump(struct tls *tls)
{
	if (tls->pumping)
		return;
	tls->pumping = true;
	while (step(tls))
		;
	tls->pumping = false;
}

static void keep_rest(struct tls *tls)
{
	if (tls->fed_len && !tls->closed && tls->state != TLS_OVER &&
	    buf_append(&tls->kept, tls->fed, tls->fed_len) < 0)
		fail(tls, -ENOBUFS, "too much was read at once");
	/* An idle session costs no buffer. */
	if (!buf_len(&tls->kept))
		buf_done(&tls->kept);
	tls->fed = NULL;
	tls->fed_len = 0;
}

void tls_feed(struct tls *tls, const void *bytes, size_t len)
{
	tls->fed = bytes;
	tls->fed_len = len;
	pump(tls);
	keep_rest(tls);
}

void tls_feed_end(struct tls *tls)
{
	tls->wire_ended = true;
	pump(tls);
}

static void on_timer(uv_timer_t *timer)
{
	struct tls *tls = timer->data;

	if (tls->state == TLS_SHAKING)
		fail(tls, -ETIMEDOUT, "the TLS handshake takes too long");
	pump(tls);
}

void tls_pause(struct tls *tls)
{
	tls->paused = true;
}

void tls_resume(struct tls *tls)
{
	if (!tls->paused)
		return;
	tls->paused = false;
	/* Not from inside: whoever resumes does not expect its own callback. */
	if (!tls->pumping && tls->state == TLS_OPEN)
		uv_timer_start(&tls->timer, on_timer, 0, 0);
}

/* --- writing --- */

static int seal(struct tls *tls, const void *bytes, size_t len)
{
	size_t n;

	ERR_clear_error();
	if (SSL_write_ex(tls->ssl, bytes, len, &n) == 1)
		return 0;
	return tls->error ? tls->error : -EPROTO;
}

/* Small pieces go into one record. */
static int seal_pieces(struct tls *tls, const struct iovec *pieces, int count)
{
	uint8_t record[RECORD];
	size_t used = 0;
	int r = 0;

	for (int i = 0; i < count; i++) {
		const uint8_t *from = pieces[i].iov_base;
		size_t left = pieces[i].iov_len;

		while (left && r == 0) {
			size_t n = left < sizeof(record) - used ? left : sizeof(record) - used;

			if (n == sizeof(record)) {
				r = seal(tls, from, n);
			} else {
				memcpy(record + used, from, n);
				used += n;
			}
			if (used == sizeof(record)) {
				r = seal(tls, record, used);
				used = 0;
			}
			from += n;
			left -= n;
		}
	}
	return r == 0 && used ? seal(tls, record, used) : r;
}

int tls_writev(struct tls *tls, const struct iovec *pieces, int count)
{
	int r;

	if (tls->state == TLS_SHAKING || tls->error || tls->shut)
		return -EPIPE;
	if (tls->unheard)
		return 0;
	tls->writing = true;
	r = seal_pieces(tls, pieces, count);
	tls->writing = false;
	/* A peer that refuses a certificate says so and closes at once: the reading side tells. */
	if ((r == -ECONNRESET || r == -EPIPE) && tls->state == TLS_OPEN) {
		tls->unheard = true;
		tls->error = r = 0;
	}
	return r;
}

void tls_shutdown(struct tls *tls)
{
	if (tls->shut || tls->unheard || tls->state == TLS_SHAKING || tls->error)
		return;
	tls->shut = true;
	tls->writing = true;
	ERR_clear_error();
	SSL_shutdown(tls->ssl);
	tls->writing = false;
}

/* --- a life --- */

int tls_new(uv_loop_t *loop, struct ssl_st *ssl, const struct tls_ops *ops, void *arg,
	    struct tls **ret_tls)
{
	struct tls *tls = calloc(1, sizeof(*tls));

	if (!tls) {
		SSL_free(ssl);
		return -ENOMEM;
	}
	tls->ssl = ssl;
	tls->ops = *ops;
	tls->arg = arg;
	buf_init(&tls->kept, KEPT_MAX);
	if (attach_bio(tls) < 0) {
		BIO_meth_free(tls->method);
		SSL_free(ssl);
		free(tls);
		return -ENOMEM;
	}
	uv_timer_init(loop, &tls->timer);
	tls->timer.data = tls;
	*ret_tls = tls;
	return 0;
}

void tls_start(struct tls *tls, unsigned timeout_ms)
{
	SSL_set_connect_state(tls->ssl);
	uv_timer_start(&tls->timer, on_timer, timeout_ms, 0);
	pump(tls);
}

static void on_closed(uv_handle_t *handle)
{
	struct tls *tls = handle->data;

	/* A connection that broke says nothing against its session. */
	SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(tls->ssl);
	BIO_meth_free(tls->method);
	buf_done(&tls->kept);
	free(tls);
}

void tls_close(struct tls *tls)
{
	tls->closed = true;
	uv_close((uv_handle_t *)&tls->timer, on_closed);
}

const char *tls_failure(const struct tls *tls)
{
	return tls->failure;
}
