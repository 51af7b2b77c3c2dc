/* links: hf_msg */
#include "msg/http_msg.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the parser told, as text: "head METHOD TARGET|body|end". */
struct told {
	struct buf text;
	struct buf body;
	int heads, ends;
};

static int on_head(void *arg, struct http_head *head)
{
	struct told *told = arg;

	told->heads++;
	if (head->kind == HTTP_KIND_REQUEST)
		return buf_printf(&told->text, "%s %s f%d l%d\n", http_method(head),
				  http_target(head), (int)head->framing, (int)head->content_length);
	return buf_printf(&told->text, "%d %s f%d l%d k%d\n", head->status,
			  http_text(head, head->reason), (int)head->framing,
			  (int)head->content_length, head->keep_alive);
}

static int on_body(void *arg, const uint8_t *data, size_t len)
{
	struct told *told = arg;

	return buf_append(&told->body, data, len);
}

static int on_end(void *arg)
{
	struct told *told = arg;

	told->ends++;
	return 0;
}

static const struct http_parser_ops ops = {
	.on_head = on_head, .on_body = on_body, .on_end = on_end};

static int feed_all(struct http_parser *parser, const char *text, size_t len, size_t step)
{
	size_t at = 0;

	while (at < len) {
		size_t n = len - at < step ? len - at : step, used;
		int r = http_parser_feed(parser, (const uint8_t *)text + at, n, &used);

		if (r < 0)
			return r;
		ck_assert(used > 0);
		at += used;
	}
	return 0;
}

static int parse(enum http_kind kind, const char *text, size_t step, struct told *told)
{
	struct http_parser *parser;
	int r;

	memset(told, 0, sizeof(*told));
	buf_init(&told->text, 1 << 20);
	buf_init(&told->body, 1 << 20);
	ck_assert_int_eq(http_parser_new(kind, &ops, told, &parser), 0);
	r = feed_all(parser, text, strlen(text), step);
	if (r == 0)
		r = http_parser_eof(parser);
	http_parser_free(parser);
	return r;
}

static void told_done(struct told *told)
{
	buf_done(&told->text);
	buf_done(&told->body);
}

START_TEST(requests_are_the_same_however_they_are_split)
{
	static const char text[] =
		"\r\nPOST /a?b=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
		"GET /n HTTP/1.1\r\nHost: x\r\n\r\n"
		"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n";
	static const char want[] = "POST /a?b=1 f1 l5\nGET /n f0 l0\nPUT /c f2 l0\n";

	for (size_t step = 1; step < sizeof(text); step++) {
		struct told told;

		ck_assert_int_eq(parse(HTTP_KIND_REQUEST, text, step, &told), 0);
		ck_assert_int_eq(told.ends, 3);
		ck_assert_mem_eq(buf_bytes(&told.text), want, sizeof(want) - 1);
		ck_assert_uint_eq(buf_len(&told.body), 10);
		ck_assert_mem_eq(buf_bytes(&told.body), "helloabcde", 10);
		told_done(&told);
	}
}
END_TEST

START_TEST(responses_are_framed_by_length_chunks_or_close)
{
	struct told told;

	ck_assert_int_eq(parse(HTTP_KIND_RESPONSE,
			       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
			       "HTTP/1.1 204\r\n\r\n"
			       "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"
			       "HTTP/1.0 200 Fine day\r\nA: b\r\n\r\nuntil close",
			       1000, &told),
			 0);
	ck_assert_int_eq(told.ends, 4);
	ck_assert_int_eq(buf_append(&told.text, "", 1), 0);
	ck_assert_str_eq((const char *)told.text.data,
			 "200 OK f1 l2 k1\n204  f0 l0 k1\n304 Not Modified f0 l0 k1\n"
			 "200 Fine day f3 l0 k0\n");
	told_done(&told);
}
END_TEST

static const char *const refused[] = {
	"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"GET / HTTP/1.1\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
	"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n",
	"GET / HTTP/1.1\nHost: a\n\n",
	"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX\x01: b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
	"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
	"GET /\r\n\r\n",
	"\x16\x03\x01 nonsense\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n",
};

static bool is_refusal(int r)
{
	return r == -EPROTO || r == -EPROTONOSUPPORT || r == -EOPNOTSUPP;
}

START_TEST(ambiguous_requests_are_refused_however_they_are_split)
{
	const char *text = refused[_i];

	for (size_t step = 1; step <= strlen(text); step++) {
		struct told told;

		ck_assert_msg(is_refusal(parse(HTTP_KIND_REQUEST, text, step, &told)),
			      "accepted in steps of %zu: %s", step, text);
		ck_assert_int_eq(told.ends, 0);
		told_done(&told);
	}
}
END_TEST

START_TEST(a_head_over_the_limits_is_refused_with_its_own_error)
{
	char *text = malloc(3 * HTTP_HEAD_MAX);
	struct told told;
	int n = sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\nX: ");

	memset(text + n, 'x', HTTP_HEAD_MAX);
	strcpy(text + n + HTTP_HEAD_MAX, "\r\n\r\n");
	ck_assert_int_eq(parse(HTTP_KIND_REQUEST, text, 4096, &told), -EMSGSIZE);
	told_done(&told);
	n = sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\n");
	for (int i = 0; i < HTTP_FIELDS_MAX; i++)
		n += sprintf(text + n, "X: y\r\n");
	strcpy(text + n, "\r\n");
	ck_assert_int_eq(parse(HTTP_KIND_REQUEST, text, 4096, &told), -EMSGSIZE);
	told_done(&told);
	free(text);
}
END_TEST

static int write_on_head(void *arg, struct http_head *head)
{
	return http_write_request_head(arg, head, http_target(head), "Via: 1.1 holdfast\r\n");
}

static int ignore_body(void *arg, const uint8_t *data, size_t len)
{
	return 0;
}

static int ignore_end(void *arg)
{
	return 0;
}

START_TEST(hop_by_hop_fields_are_left_out_when_a_head_is_written)
{
	static const char text[] = "GET /p HTTP/1.1\r\nHost: a \r\nConnection: close, X-Drop\r\n"
				   "X-Drop: 1\r\nKeep-Alive: 5\r\nX-Keep:  v \r\nTE: trailers\r\n"
				   "Upgrade: h2c\r\nEmpty:\r\n\r\n";
	static const char want[] = "GET /p HTTP/1.1\r\nHost: a\r\nX-Keep: v\r\nEmpty: \r\n"
				   "TE: trailers\r\nConnection: TE\r\n"
				   "Via: 1.1 holdfast\r\n\r\n";
	struct http_parser_ops write_ops = {
		.on_head = write_on_head, .on_body = ignore_body, .on_end = ignore_end};
	struct http_parser *parser;
	struct buf out;
	size_t used;

	buf_init(&out, 4096);
	ck_assert_int_eq(http_parser_new(HTTP_KIND_REQUEST, &write_ops, &out, &parser), 0);
	ck_assert_int_eq(http_parser_feed(parser, (const uint8_t *)text, sizeof(text) - 1, &used),
			 0);
	ck_assert_uint_eq(buf_len(&out), sizeof(want) - 1);
	ck_assert_mem_eq(buf_bytes(&out), want, sizeof(want) - 1);
	http_parser_free(parser);
	buf_done(&out);
}
END_TEST

/* RFC 9110, 7.6.1: Connection must not name what is for all recipients. A body that went on
 * without its length would be read as the next request. */
START_TEST(connection_does_not_take_the_framing_or_the_host_away)
{
	struct http_head head;
	struct buf out;

	http_head_init(&head, HTTP_KIND_REQUEST);
	buf_init(&out, HTTP_HEAD_MAX);
	ck_assert_int_eq(http_field_add(&head, "Host", "a.example"), 0);
	ck_assert_int_eq(http_field_add(&head, "Connection", "Content-Length, host, x-own"), 0);
	ck_assert_int_eq(http_field_add(&head, "X-Own", "1"), 0);
	ck_assert_int_eq(http_field_add(&head, "Content-Length", "3"), 0);
	ck_assert(!http_field_is_hop_by_hop(&head, "content-length"));
	ck_assert(http_field_is_hop_by_hop(&head, "X-Own"));
	ck_assert_int_eq(http_write_fields(&out, &head), 0);
	ck_assert_int_eq(buf_append(&out, "", 1), 0);
	ck_assert_str_eq((const char *)buf_bytes(&out), "Host: a.example\r\nContent-Length: 3\r\n");
	buf_done(&out);
	http_head_done(&head);
}
END_TEST

START_TEST(a_date_is_that_of_a_clock_that_was_set)
{
	char line[HTTP_DATE_LINE_MAX];

	http_date_line(1795449600, line);
	ck_assert_str_eq(line, "Date: Mon, 23 Nov 2026 16:00:00 GMT\r\n");
	http_date_line(3600, line);
	ck_assert_str_eq(line, "");
}
END_TEST

START_TEST(stored_fields_come_back_as_they_were)
{
	static const char lines[] = "Host: a\r\nX-Y: some value: with colon\r\nEmpty: \r\n";
	struct http_head head;
	struct buf out;

	http_head_init(&head, HTTP_KIND_REQUEST);
	buf_init(&out, 4096);
	ck_assert_int_eq(http_read_fields(&head, (const uint8_t *)lines, sizeof(lines) - 1), 0);
	ck_assert_str_eq(http_field(&head, "x-y"), "some value: with colon");
	ck_assert_int_eq(http_write_fields(&out, &head), 0);
	ck_assert_mem_eq(buf_bytes(&out), lines, sizeof(lines) - 1);
	ck_assert_int_eq(http_read_fields(&head, (const uint8_t *)"no colon\r\n", 10), -EINVAL);
	http_head_done(&head);
	buf_done(&out);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("http_msg");
	TCase *tc = tcase_create("http_msg");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, requests_are_the_same_however_they_are_split);
	tcase_add_test(tc, responses_are_framed_by_length_chunks_or_close);
	tcase_add_loop_test(tc, ambiguous_requests_are_refused_however_they_are_split, 0,
			    sizeof(refused) / sizeof(refused[0]));
	tcase_add_test(tc, a_head_over_the_limits_is_refused_with_its_own_error);
	tcase_add_test(tc, hop_by_hop_fields_are_left_out_when_a_head_is_written);
	tcase_add_test(tc, connection_does_not_take_the_framing_or_the_host_away);
	tcase_add_test(tc, a_date_is_that_of_a_clock_that_was_set);
	tcase_add_test(tc, stored_fields_come_back_as_they_were);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
