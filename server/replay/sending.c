#include "replay/sending.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

struct sending {
	struct sending_parts parts;
	struct queue_row *row;
	struct link *link; /* NULL: none was allowed */
	bool secure;	   /* TLS: a response is the origin's, whatever the link is like */
	struct upstream_request *request;
	struct http_head head;
	bool has_response;
	int status;
	struct buf response_head;
	struct spool *response_body; /* NULL: none yet */
	uint64_t max_response;
	uint64_t retry_after;
	/* of a request's body of more than one piece */
	struct queue_reader *reader;
	bool reading;
	uint64_t body_sent;
	/* the result, kept until the queue has it */
	enum sending_result result;
	bool decided, acknowledging, cancelled, counts;
	int64_t until; /* by the clock since boot: no time is left */
	int64_t next_attempt;
	char what[160];
};

static void stop_reading(struct sending *s)
{
	queue_reader_close(s->reader);
	s->reader = NULL;
}

static void forget_response(struct sending *s)
{
	if (s->response_body)
		spool_forget(s->response_body);
	spool_unref(s->response_body);
	s->response_body = NULL;
	s->has_response = false;
	s->status = 0;
}

static void sending_free(struct sending *s)
{
	stop_reading(s);
	forget_response(s);
	queue_row_free(s->row);
	http_head_done(&s->head);
	buf_done(&s->response_head);
	free(s);
}

/* --- acknowledging --- */

static void acknowledge(struct sending *s);

static void on_acknowledged(void *arg, int status)
{
	struct sending *s = arg;

	s->acknowledging = false;
	if (s->cancelled) {
		sending_free(s);
		return;
	}
	/* Not in writing: sending_tick says it again. A row that is no longer leased is over. */
	if (status < 0 && status != -ESTALE && status != -ENOENT) {
		log_warning("replay", "%s: the result could not be stored: %s", s->row->id,
			    strerror(-status));
		return;
	}
	s->parts.over(s->parts.arg, s, s->result);
	sending_free(s);
}

static int tell_queue(struct sending *s)
{
	struct queue *queue = s->parts.queue;
	const char *link = s->link ? link_name(s->link) : NULL;
	struct queue_response response = {
		.status = s->status,
		.head = buf_bytes(&s->response_head),
		.head_len = buf_len(&s->response_head),
		.spool = s->response_body,
	};

	switch (s->result) {
	case SENDING_ANSWERED:
		return queue_done(queue, s->row->id, link, &response, on_acknowledged, s);
	case SENDING_RETRIED:
		return queue_retry(queue, s->row->id, link, s->next_attempt, s->counts, s->what,
				   on_acknowledged, s);
	case SENDING_FAILED:
		return queue_fail(queue, s->row->id, link, s->has_response ? &response : NULL,
				  s->what, on_acknowledged, s);
	}
	abort();
}

static void acknowledge(struct sending *s)
{
	int r = tell_queue(s);

	s->acknowledging = r == 0;
	if (r < 0 && r != -ECANCELED)
		log_warning("replay", "%s: the result could not be stored: %s", s->row->id,
			    strerror(-r));
}

void sending_tick(struct sending *s)
{
	if (s->decided && !s->acknowledging)
		acknowledge(s);
}

static void decide(struct sending *s, enum sending_result result)
{
	stop_reading(s);
	s->result = result;
	s->decided = true;
	s->request = NULL;
	log_debug("replay", "%s: %s", s->row->id, s->what);
	acknowledge(s);
}

/* Plus or minus a fifth, so that a fleet does not come back in one moment. */
static uint64_t jittered(uint64_t delay)
{
	uint32_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = UINT32_MAX / 2;
	return delay * 4 / 5 + (delay * 2 / 5) * (uint64_t)random / UINT32_MAX;
}

/* Not over: it waits for a link that may carry it, and no attempt is counted. */
static void put_back(struct sending *s, const char *what, uint64_t delay)
{
	s->link = NULL;
	s->counts = false;
	s->next_attempt = clock_wall() + (int64_t)delay;
	snprintf(s->what, sizeof(s->what), "%s", what);
	decide(s, SENDING_RETRIED);
}

/* This attempt came to nothing: another one, unless attempts or time are over. */
static void try_again(struct sending *s, bool counts, uint64_t delay, const char *why)
{
	const struct queue_row *row = s->row;
	const char *link = link_name(s->link);

	s->counts = counts;
	s->next_attempt = clock_wall() + (int64_t)delay;
	if (counts && row->attempts >= row->attempts_max) {
		snprintf(s->what, sizeof(s->what), "%s over %s; no attempt is left", why, link);
		decide(s, SENDING_FAILED);
	} else if (counts && clock_boot() + (int64_t)delay >= s->until) {
		snprintf(s->what, sizeof(s->what), "%s over %s; no time is left", why, link);
		decide(s, SENDING_FAILED);
	} else {
		snprintf(s->what, sizeof(s->what), "%s over %s; again in %.1f s", why, link,
			 (double)delay / 1000);
		decide(s, SENDING_RETRIED);
	}
}

static void fail(struct sending *s, const char *why)
{
	snprintf(s->what, sizeof(s->what), "%s", why);
	decide(s, SENDING_FAILED);
}

/* --- the response --- */

static void on_head(void *arg, const struct http_head *head)
{
	struct sending *s = arg;
	char date[HTTP_DATE_LINE_MAX] = "";

	if (!http_field(head, "date"))
		http_date_line(clock_wall() / 1000, date);
	s->status = head->status;
	s->retry_after = replay_retry_after(http_field(head, "retry-after"),
					    http_field(head, "date"), clock_wall());
	s->has_response = http_write_response_head(&s->response_head, head, date) == 0;
	if (!s->has_response) {
		upstream_cancel(s->request);
		fail(s, "the response's head is too large");
	}
}

/* It cannot be kept. One that is too large is so at every try; a disk may have room later. */
static void refuse_response(struct sending *s, int error)
{
	char why[96];

	if (s->request)
		upstream_cancel(s->request);
	s->request = NULL;
	stop_reading(s);
	forget_response(s);
	if (error == -EFBIG) {
		fail(s, "response too large");
		return;
	}
	snprintf(why, sizeof(why), "no room for the response (%s)", strerror(-error));
	try_again(s, true, jittered(replay_backoff(s->row->attempts)), why);
}

static void on_drained(void *arg)
{
	struct sending *s = arg;

	if (s->request)
		upstream_resume(s->request);
}

static int begin_response_body(struct sending *s)
{
	int r = spool_new(s->parts.spools, s->max_response, &s->response_body);

	if (r < 0)
		return r;
	spool_goes_first(s->response_body);
	spool_on_drain(s->response_body, on_drained, s);
	return 0;
}

static void on_body(void *arg, const uint8_t *data, size_t len)
{
	struct sending *s = arg;
	int r = 0;

	if (s->decided)
		return;
	if (!s->response_body)
		r = begin_response_body(s);
	if (r == 0)
		r = spool_append(s->response_body, data, len);
	if (r < 0)
		refuse_response(s, r);
	else if (spool_is_full(s->response_body))
		upstream_pause(s->request);
}

static void conclude(struct sending *s)
{
	uint64_t delay = s->retry_after;
	char why[32];

	if (!replay_is_answer(s->status)) {
		if (!delay)
			delay = jittered(replay_backoff(s->row->attempts));
		snprintf(why, sizeof(why), "%d", s->status);
		try_again(s, true, delay, why);
		return;
	}
	/* A captive portal answers too: only while the link's own evidence stands. */
	if (!s->secure && !link_is_proven(s->link)) {
		put_back(s, "the link was not proven when the answer came", REPLAY_PROOF_WAIT);
		return;
	}
	link_report_success(s->link);
	decide(s, SENDING_ANSWERED);
}

static void on_spooled(void *arg, int status)
{
	struct sending *s = arg;

	if (status < 0)
		refuse_response(s, status);
	else
		conclude(s);
}

static void on_end(void *arg)
{
	struct sending *s = arg;
	bool in_file = s->response_body && !spool_bytes(s->response_body);

	s->request = NULL;
	stop_reading(s);
	if (s->response_body)
		spool_end(s->response_body, in_file ? on_spooled : NULL, s);
	if (!in_file)
		conclude(s);
}

/* A name that does not exist and a refused connection speak for the link, not against it. */
static bool blames_link(int status)
{
	return status == -ETIMEDOUT || status == -EHOSTUNREACH || status == -ENETUNREACH;
}

static void on_fail(void *arg, int status, enum upstream_stage stage, const char *what)
{
	struct sending *s = arg;
	bool counts = true;

	s->request = NULL;
	stop_reading(s);
	/* Half a response is none. */
	forget_response(s);
	if (stage == UPSTREAM_NOT_SENT) {
		if (blames_link(status))
			link_report_failure(s->link, what);
		counts = status != -ENETDOWN && link_state(s->link) == LINK_ONLINE &&
			 link_is_proven(s->link);
	}
	/* TLS that failed is said each time, and does not go on for ever. */
	if (status == -EKEYREJECTED)
		counts = true;
	try_again(s, counts,
		  counts ? jittered(replay_backoff(s->row->attempts)) : REPLAY_UNSENT_WAIT,
		  what && *what ? what : strerror(-status));
}

/* --- the request's body, as far as the connection takes it --- */

static void body_failed(struct sending *s, int error)
{
	char why[96];

	upstream_cancel(s->request);
	s->request = NULL;
	stop_reading(s);
	forget_response(s);
	snprintf(why, sizeof(why), "the stored body could not be read (%s)", strerror(-error));
	try_again(s, error != -EAGAIN, jittered(replay_backoff(s->row->attempts)), why);
}

static void read_on(struct sending *s)
{
	int r;

	if (!s->reader || s->reading || upstream_is_full(s->request))
		return;
	r = queue_reader_next(s->reader);
	s->reading = r == 0;
	if (r < 0)
		body_failed(s, r);
}

static void on_piece(void *arg, int status, const uint8_t *bytes, size_t len)
{
	struct sending *s = arg;

	s->reading = false;
	s->body_sent += len;
	if (status == 0 && !len && s->body_sent != s->row->body_bytes)
		status = -EBADMSG;
	if (status < 0) {
		body_failed(s, status);
		return;
	}
	if (!len)
		stop_reading(s);
	/* A failed write is told by the connection's own error. */
	if ((len ? upstream_write(s->request, bytes, len) : upstream_write_end(s->request, NULL)) ==
	    0)
		read_on(s);
}

static void on_drain(void *arg)
{
	read_on(arg);
}

static const struct upstream_ops ops = {
	.on_head = on_head,
	.on_body = on_body,
	.on_end = on_end,
	.on_fail = on_fail,
	.on_drain = on_drain,
};

/* --- the request --- */

static int put_text(struct http_head *head, const char *text, uint32_t *ret_offset)
{
	*ret_offset = (uint32_t)buf_len(&head->text);
	return buf_append(&head->text, text, strlen(text) + 1);
}

static int build_head(struct sending *s)
{
	const struct queue_row *row = s->row;
	struct http_head *head = &s->head;
	char length[24];
	int r = put_text(head, row->method, &head->method);

	if (r == 0)
		r = put_text(head, row->target, &head->target);
	if (r == 0)
		r = http_read_fields(head, row->fields, row->fields_len);
	if (r == 0 && !http_field(head, "host"))
		r = http_field_add(head, "Host", row->authority);
	/* Sent more than once after a crash or a lost answer: let the origin see that. */
	if (r == 0 && !http_method_is_idempotent(row->method) &&
	    !http_field(head, "idempotency-key"))
		r = http_field_add(head, "Idempotency-Key",
				   row->idempotency_key ? row->idempotency_key : row->id);
	head->framing = row->body_bytes ? HTTP_LENGTH : HTTP_NO_BODY;
	head->content_length = row->body_bytes;
	if (r == 0 && row->body_bytes && !http_field(head, "content-length")) {
		snprintf(length, sizeof(length), "%llu", (unsigned long long)row->body_bytes);
		r = http_field_add(head, "Content-Length", length);
	}
	return r;
}

/* "host", "host:port", "[v6]", "[v6]:port". */
static int split_authority(const char *authority, char *host, size_t size, uint16_t *ret_port)
{
	const char *end, *port;
	size_t len;
	char *rest;
	long n;

	if (*authority == '[') {
		authority++;
		end = strchr(authority, ']');
		port = end ? end + 1 : NULL;
	} else {
		port = strrchr(authority, ':');
		end = port ? port : authority + strlen(authority);
	}
	if (!end || end == authority)
		return -EINVAL;
	len = (size_t)(end - authority);
	if (len >= size)
		return -EINVAL;
	memcpy(host, authority, len);
	host[len] = '\0';
	if (!port || !*port)
		return 0;
	n = *port == ':' ? strtol(port + 1, &rest, 10) : 0;
	if (n < 1 || n > 65535 || *rest)
		return -EINVAL;
	*ret_port = (uint16_t)n;
	return 0;
}

/* Whole when it is one piece, else as a stream. */
static int start_request(struct sending *s, const struct upstream_target *target)
{
	const struct queue_row *row = s->row;
	bool stream = row->body_bytes > row->body_len;
	int r = 0;

	if (stream)
		r = queue_reader_new(s->parts.queue, row->id, QUEUE_REQUEST, on_piece, s,
				     &s->reader);
	if (r == 0)
		r = upstream_send(s->parts.upstream, s->link, target, &s->head, row->target, NULL,
				  row->body, row->body_len, stream, &ops, s, &s->request);
	if (r < 0)
		stop_reading(s);
	return r;
}

static void send_row(struct sending *s, const struct rule_policy *policy)
{
	struct upstream_target target = {.port = s->secure ? 443 : 80, .policy = policy};
	const struct queue_row *row = s->row;
	char host[NAME_TEXT_MAX + 1];
	struct ip ip;
	int r;

	r = split_authority(row->authority, host, sizeof(host), &target.port);
	if (r == 0)
		r = build_head(s);
	if (r < 0) {
		fail(s, "the stored request cannot be sent as it is");
		return;
	}
	target.host = host;
	target.server_name = s->secure ? host : NULL;
	if (ip_parse(host, &ip) == 0)
		target.address = &ip;
	r = start_request(s, &target);
	if (r < 0)
		try_again(s, false, REPLAY_UNSENT_WAIT, strerror(-r));
}

static const struct rule_policy *policy_of(const struct sending *s)
{
	const struct rule *rule = config_rule_by_name(s->parts.config, s->row->rule);

	return rule ? &rule->policy : &s->parts.config->defaults.policy;
}

/* The best link that the rule allows and that proves data; TLS is a proof of its own. */
static struct link *choose(struct sending *s, const struct rule_policy *policy, bool *ret_unproven)
{
	struct link *link;
	uint32_t tried = 0;

	while ((link = links_choose(s->parts.links, policy, tried))) {
		if (s->secure || link_is_proven(link))
			return link;
		*ret_unproven = true;
		tried |= link_bit(link);
	}
	return NULL;
}

int sending_start(const struct sending_parts *parts, struct queue_row *row,
		  struct sending **ret_sending)
{
	struct sending *s = calloc(1, sizeof(*s));
	const struct rule_policy *policy;
	bool unproven = false;

	if (!s) {
		queue_row_free(row);
		return -ENOMEM;
	}
	s->parts = *parts;
	s->row = row;
	http_head_init(&s->head, HTTP_KIND_REQUEST);
	buf_init(&s->response_head, 2 * HTTP_HEAD_MAX);
	s->max_response = parts->config->queue.max_request;
	/* The wall clock is often set when a link is back, and so while this is under way. */
	s->until = clock_boot() + (row->expires - clock_wall());
	*ret_sending = s;
	s->secure = strcmp(row->scheme, "https") == 0;
	policy = policy_of(s);
	s->parts.config = NULL;
	s->link = choose(s, policy, &unproven);
	if (s->link)
		send_row(s, policy);
	else
		put_back(s, "no link is there for it",
			 unproven ? REPLAY_PROOF_WAIT : REPLAY_LINK_WAIT);
	return 0;
}

bool sending_is_sent(const struct sending *s)
{
	return s->request != NULL;
}

void sending_cancel(struct sending *s)
{
	s->cancelled = true;
	if (s->request)
		upstream_cancel(s->request);
	s->request = NULL;
	if (!s->acknowledging)
		sending_free(s);
}
