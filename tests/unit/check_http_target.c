/* links: hf_msg */
#include "msg/http_target.h"

#include <check.h>
#include <errno.h>
#include <string.h>

static const struct {
	const char *text, *host;
	int port;
} authorities[] = {
	{"a.example", "a.example", 0},
	{"A.Example.:8080", "a.example", 8080},
	{"a_b-c~d.example:", "a_b-c~d.example", 0},
	{"a:0080", "a", 80},
	{"a:65535", "a", 65535},
	{"192.0.2.1:80", "192.0.2.1", 80},
	{"[2001:DB8:0::1]", "[2001:db8::1]", 0},
	{"[::1]:8080", "[::1]", 8080},
	{"[::ffff:192.0.2.1]", "192.0.2.1", 0},
};

START_TEST(an_authority_has_one_way_to_be_written)
{
	struct http_authority got;

	ck_assert_int_eq(http_read_authority(authorities[_i].text, &got), 0);
	ck_assert_str_eq(got.host, authorities[_i].host);
	ck_assert_int_eq(got.port, authorities[_i].port);
}
END_TEST

static const char *const no_authorities[] = {
	"",	     ".",   "..",      ".a",	    "a..b",	     "a..",    ":80",
	"a:x",	     "a:0", "a:65536", "a:0000080", "a:-1",	     "a:8 ",   "a b",
	"a/b",	     "u@a", "a,b",     "a%41",	    "[::1",	     "[::1]x", "[::x]",
	"[1.2.3.4]", "[]",  "::1",     "a\x80",	    "[fe80::1%25e]",
};

START_TEST(what_is_no_authority_is_refused)
{
	struct http_authority got;

	ck_assert_int_eq(http_read_authority(no_authorities[_i], &got), -EINVAL);
}
END_TEST

START_TEST(a_name_has_at_most_253_characters)
{
	char text[300];
	struct http_authority got;

	memset(text, 'x', sizeof(text));
	text[254] = '\0';
	ck_assert_int_eq(http_read_authority(text, &got), -EINVAL);
	text[253] = '.';
	ck_assert_int_eq(http_read_authority(text, &got), 0);
	ck_assert_uint_eq(strlen(got.host), 253);
}
END_TEST

static int make_head(struct http_head *head, const char *method, const char *target)
{
	http_head_init(head, HTTP_KIND_REQUEST);
	head->method = 0;
	if (buf_append(&head->text, method, strlen(method) + 1) < 0)
		return -ENOMEM;
	head->target = (uint32_t)buf_len(&head->text);
	if (buf_append(&head->text, target, strlen(target) + 1) < 0)
		return -ENOMEM;
	return http_field_add(head, "Host", "first");
}

static const struct {
	const char *method, *target, *want, *host;
	enum http_target_form form;
} targets[] = {
	{"GET", "/a", "/a", "first", HTTP_ORIGIN_FORM},
	{"OPTIONS", "*", "*", "first", HTTP_ORIGIN_FORM},
	{"GET", "http://a/b?c", "/b?c", "a", HTTP_ABSOLUTE_HTTP},
	{"GET", "HTTPS://a:1", "/", "a:1", HTTP_ABSOLUTE_HTTPS},
	{"GET", "http://[::1]?q", "/?q", "[::1]", HTTP_ABSOLUTE_HTTP},
	{"OPTIONS", "http://a", "*", "a", HTTP_ABSOLUTE_HTTP},
	{"GET", "*", NULL, NULL, 0},
	{"GET", "a", NULL, NULL, 0},
	{"GET", "ftp://a/", NULL, NULL, 0},
	{"GET", "http://u@a/", NULL, NULL, 0},
	{"GET", "http://", NULL, NULL, 0},
};

START_TEST(a_target_becomes_what_the_origin_wants)
{
	struct http_head head;
	enum http_target_form form;
	int r;

	ck_assert_int_eq(make_head(&head, targets[_i].method, targets[_i].target), 0);
	r = http_to_origin_form(&head, &form);
	if (targets[_i].want) {
		ck_assert_int_eq(r, 0);
		ck_assert_int_eq(form, targets[_i].form);
		ck_assert_str_eq(http_target(&head), targets[_i].want);
		ck_assert_str_eq(http_field(&head, "host"), targets[_i].host);
		ck_assert_uint_eq(head.field_count, 1);
	} else {
		ck_assert_int_eq(r, -EINVAL);
	}
	http_head_done(&head);
}
END_TEST

START_TEST(max_forwards_counts_down_to_none)
{
	struct http_head head;

	ck_assert_int_eq(make_head(&head, "TRACE", "/"), 0);
	ck_assert_int_eq(http_count_forward(&head), 1);
	ck_assert_int_eq(http_field_add(&head, "Max-Forwards", "2"), 0);
	ck_assert_int_eq(http_count_forward(&head), 1);
	ck_assert_str_eq(http_field(&head, "max-forwards"), "1");
	ck_assert_int_eq(http_count_forward(&head), 1);
	ck_assert_int_eq(http_count_forward(&head), 0);
	ck_assert_int_eq(http_field_add(&head, "Max-Forwards", "1"), 0);
	ck_assert_int_eq(http_count_forward(&head), -EINVAL);
	http_head_done(&head);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("http_target");
	TCase *tcase = tcase_create("http_target");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tcase, an_authority_has_one_way_to_be_written, 0,
			    sizeof(authorities) / sizeof(authorities[0]));
	tcase_add_loop_test(tcase, what_is_no_authority_is_refused, 0,
			    sizeof(no_authorities) / sizeof(no_authorities[0]));
	tcase_add_test(tcase, a_name_has_at_most_253_characters);
	tcase_add_loop_test(tcase, a_target_becomes_what_the_origin_wants, 0,
			    sizeof(targets) / sizeof(targets[0]));
	tcase_add_test(tcase, max_forwards_counts_down_to_none);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
