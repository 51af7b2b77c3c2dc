#include "conn/duplex.h"

#include "base/limits.h"
#include "conn/splice.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct duplexes {
	uv_loop_t *loop;
	struct duplexes_statistics statistics;
};

/*
 *   MEMORY --large, nothing waits, pipes left--> SPLICED
 */
struct end {
	struct duplex *duplex;
	struct conn *conn; /* NULL: spliced */
	bool ended;
	uint64_t before; /* bytes from it while it was a conn, once it is none */
};

struct duplex {
	struct duplexes *duplexes;
	struct end ends[2]; /* a, b */
	struct splice *splice;
	bool small; /* splicing was not possible: it stays in memory */
	duplex_over_cb over;
	void *arg;
};

int duplexes_new(uv_loop_t *loop, struct duplexes **ret_duplexes)
{
	struct duplexes *duplexes = calloc(1, sizeof(*duplexes));

	if (!duplexes)
		return -ENOMEM;
	duplexes->loop = loop;
	*ret_duplexes = duplexes;
	return 0;
}

void duplexes_free(struct duplexes *duplexes)
{
	free(duplexes);
}

static struct end *other(struct end *end)
{
	struct duplex *duplex = end->duplex;

	return end == &duplex->ends[0] ? &duplex->ends[1] : &duplex->ends[0];
}

static void duplex_free(struct duplex *duplex)
{
	if (duplex->splice)
		duplex->duplexes->statistics.pipes -= 2;
	free(duplex);
}

static void be_over(struct duplex *duplex, int status)
{
	duplex_over_cb over = duplex->over;
	void *arg = duplex->arg;

	/* Closed, but counted still: their memory goes with the loop's next turn. */
	for (int i = 0; i < 2 && !duplex->splice; i++) {
		if (status < 0)
			conn_reset(duplex->ends[i].conn);
		else
			conn_close(duplex->ends[i].conn, true);
	}
	over(arg, status);
	duplex_free(duplex);
}

/* --- in the kernel --- */

static void on_splice_over(void *arg, int status)
{
	be_over(arg, status);
}

static bool is_quiet(const struct end *end)
{
	return !end->ended && !conn_queued(end->conn);
}

/* After this the duplex has no conns. Both are given up for their descriptors, or none is. */
static int to_splice(struct duplex *duplex)
{
	struct conn *a = duplex->ends[0].conn, *b = duplex->ends[1].conn;
	int fds[2], r = conn_duplicate(a, &fds[0]);

	if (r < 0)
		return r;
	r = conn_duplicate(b, &fds[1]);
	if (r < 0)
		goto close_a;
	r = splice_new(duplex->duplexes->loop, fds[0], fds[1], on_splice_over, duplex,
		       &duplex->splice);
	if (r < 0)
		goto close_b;
	for (int i = 0; i < 2; i++) {
		struct end *end = &duplex->ends[i];

		end->before = conn_bytes_in(end->conn) - end->before;
		conn_close(end->conn, false);
		end->conn = NULL;
	}
	return 0;
close_b:
	close(fds[1]);
close_a:
	close(fds[0]);
	return r;
}

/* A flow has shown to be large: does it go on in the kernel? */
static void consider_splice(struct duplex *duplex)
{
	struct duplexes_statistics *s = &duplex->duplexes->statistics;

	/* What comes of a side with TLS is not what its socket has. */
	if (conn_is_tls(duplex->ends[0].conn) || conn_is_tls(duplex->ends[1].conn))
		duplex->small = true;
	if (duplex->small || !is_quiet(&duplex->ends[0]) || !is_quiet(&duplex->ends[1]))
		return;
	if (s->pipes + 2 > DUPLEX_PIPES_MAX || to_splice(duplex) < 0) {
		duplex->small = true;
		s->no_pipes++;
		return;
	}
	s->pipes += 2;
	s->spliced++;
}

/* --- through memory --- */

static void on_data(void *arg, const uint8_t *data, size_t len)
{
	struct end *end = arg;
	struct conn *to = other(end)->conn;
	int r = conn_write(to, data, len);

	if (r < 0)
		be_over(end->duplex, r);
	else if (conn_is_full(to))
		conn_pause(end->conn);
	else if (conn_bytes_in(end->conn) - end->before >= DUPLEX_SPLICE_AFTER)
		consider_splice(end->duplex);
}

static void on_eof(void *arg)
{
	struct end *end = arg;

	end->ended = true;
	conn_shutdown(other(end)->conn);
	if (other(end)->ended)
		be_over(end->duplex, 0);
}

static void on_drain(void *arg)
{
	conn_resume(other(arg)->conn);
}

static void on_error(void *arg, int error)
{
	struct end *end = arg;

	be_over(end->duplex, error);
}

static void take(struct duplex *duplex, struct end *end, const struct duplex_side *side)
{
	static const struct conn_ops ops = {
		.on_data = on_data, .on_eof = on_eof, .on_drain = on_drain, .on_error = on_error};

	*end = (struct end){.duplex = duplex,
			    .conn = side->conn,
			    .ended = side->ended,
			    .before = conn_bytes_in(side->conn)};
	conn_set_ops(side->conn, &ops, end);
}

static int begin(const struct duplex_side *from, struct end *to)
{
	int r = from->first_len ? conn_write(to->conn, from->first, from->first_len) : 0;

	if (r == 0 && from->ended)
		conn_shutdown(to->conn);
	return r;
}

int duplex_new(struct duplexes *duplexes, const struct duplex_side *a, const struct duplex_side *b,
	       duplex_over_cb over, void *arg, struct duplex **ret_duplex)
{
	struct duplex *duplex = calloc(1, sizeof(*duplex));
	int r = -ENOMEM;

	if (!duplex)
		goto fail;
	*duplex = (struct duplex){.duplexes = duplexes, .over = over, .arg = arg};
	take(duplex, &duplex->ends[0], a);
	take(duplex, &duplex->ends[1], b);
	r = begin(a, &duplex->ends[1]);
	if (r == 0)
		r = begin(b, &duplex->ends[0]);
	if (r < 0)
		goto fail;
	if (!conn_is_full(b->conn))
		conn_resume(a->conn);
	if (!conn_is_full(a->conn))
		conn_resume(b->conn);
	*ret_duplex = duplex;
	return 0;
fail:
	conn_reset(a->conn);
	conn_reset(b->conn);
	free(duplex);
	return r;
}

void duplex_close(struct duplex *duplex)
{
	if (duplex->splice) {
		splice_close(duplex->splice);
	} else {
		conn_reset(duplex->ends[0].conn);
		conn_reset(duplex->ends[1].conn);
	}
	duplex_free(duplex);
}

uint64_t duplex_bytes(const struct duplex *duplex, bool from_a)
{
	const struct end *end = &duplex->ends[from_a ? 0 : 1];

	if (duplex->splice)
		return end->before + splice_bytes(duplex->splice, from_a);
	return conn_bytes_in(end->conn) - end->before;
}

void duplexes_statistics(const struct duplexes *duplexes, struct duplexes_statistics *ret)
{
	*ret = duplexes->statistics;
}
