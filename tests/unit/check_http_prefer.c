/* links: hf_msg */
#include "msg/http_prefer.h"

#include <check.h>

enum { NONE = -1 };

static const struct {
	const char *value, *second;
	bool async;
	int64_t wait;
} cases[] = {
	{"respond-async", NULL, true, NONE},
	{"Respond-Async", NULL, true, NONE},
	{"respond-async, wait=10", NULL, true, 10},
	{"wait=10", "respond-async", true, 10},
	{"wait=1", "wait=2", false, 1},
	{"wait=1, wait=2", NULL, false, 1},
	{"wait = 7", NULL, false, 7},
	{"WAIT=\"7\"", NULL, false, 7},
	{"wait=0", NULL, false, 0},
	{"wait=99999999999999999999999", NULL, false, UINT32_MAX},
	{"respond-async=\"\"", NULL, true, NONE},
	{"respond-async; foo=\"a, wait=3\"; bar", NULL, true, NONE},
	{"return=minimal;x=\"respond-async, wait=3\", wait=4", NULL, false, 4},
	{"respond-async;", NULL, true, NONE},
	{" ,, respond-async ,", NULL, true, NONE},
	/* What is another preference, or not well-formed, counts for nothing and spoils nothing. */
	{"nowait=5", NULL, false, NONE},
	{"wait", NULL, false, NONE},
	{"wait=", NULL, false, NONE},
	{"wait=\"\"", NULL, false, NONE},
	{"wait=-5", NULL, false, NONE},
	{"wait=5s", NULL, false, NONE},
	{"wait=5 s", NULL, false, NONE},
	{"wait=5.5", NULL, false, NONE},
	{"wait=x, wait=6", NULL, false, 6},
	{"respond-async=yes", NULL, false, NONE},
	{"respond-asynchronously", NULL, false, NONE},
	{"=3, respond-async", NULL, true, NONE},
	{"a=\"respond-async", NULL, false, NONE},
	{"a=\"\\\", wait=3\", wait=4", NULL, false, 4},
	{"handling=lenient, \"wait=3\", wait=5", NULL, false, 5},
	{"", NULL, false, NONE},
	{"\"", NULL, false, NONE},
	{"\"\\", NULL, false, NONE},
};

START_TEST(preferences_are_read_as_rfc_7240_says)
{
	struct http_preferences got;
	struct http_head head;

	http_head_init(&head, HTTP_KIND_REQUEST);
	ck_assert_int_eq(http_field_add(&head, "Prefer", cases[_i].value), 0);
	if (cases[_i].second)
		ck_assert_int_eq(http_field_add(&head, "prefer", cases[_i].second), 0);
	http_read_preferences(&head, &got);
	ck_assert_msg(got.respond_async == cases[_i].async, "%s", cases[_i].value);
	ck_assert_msg((got.has_wait ? (int64_t)got.wait : NONE) == cases[_i].wait, "%s: %u",
		      cases[_i].value, got.wait);
	http_head_done(&head);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("http_prefer");
	TCase *tc = tcase_create("all");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_loop_test(tc, preferences_are_read_as_rfc_7240_says, 0,
			    (int)(sizeof(cases) / sizeof(cases[0])));
	suite_add_tcase(suite, tc);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
