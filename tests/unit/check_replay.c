/* links: hf_replay */
#include "base/limits.h"
#include "replay/replay.h"

#include <check.h>
#include <stdlib.h>

static const int64_t now = 784111777000; /* Sun, 06 Nov 1994 08:49:37 GMT */

START_TEST(only_passing_troubles_are_no_answers)
{
	static const int again[] = {408, 425, 429, 502, 503, 504, 511};
	static const int answers[] = {200, 204, 301, 304, 400, 401, 404, 409, 422, 500, 501, 505};

	for (size_t i = 0; i < sizeof(again) / sizeof(again[0]); i++)
		ck_assert(!replay_is_answer(again[i]));
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
		ck_assert(replay_is_answer(answers[i]));
	ck_assert(!replay_is_answer(101));
	ck_assert(!replay_is_answer(0));
}
END_TEST

START_TEST(backoff_doubles_from_a_second_to_five_minutes)
{
	ck_assert_uint_eq(replay_backoff(0), 1000);
	ck_assert_uint_eq(replay_backoff(1), 1000);
	ck_assert_uint_eq(replay_backoff(2), 2000);
	ck_assert_uint_eq(replay_backoff(5), 16000);
	ck_assert_uint_eq(replay_backoff(9), 256000);
	ck_assert_uint_eq(replay_backoff(10), 300000);
	ck_assert_uint_eq(replay_backoff(4000000000u), 300000);
}
END_TEST

START_TEST(retry_after_in_seconds_is_bounded)
{
	ck_assert_uint_eq(replay_retry_after("120", NULL, now), 120000);
	ck_assert_uint_eq(replay_retry_after("0", NULL, now), 0);
	ck_assert_uint_eq(replay_retry_after("99999999999999999999999", NULL, now),
			  REPLAY_RETRY_AFTER_MAX);
	ck_assert_uint_eq(replay_retry_after("3600", NULL, now), 3600000);
	ck_assert_uint_eq(replay_retry_after("3601", NULL, now), REPLAY_RETRY_AFTER_MAX);
}
END_TEST

START_TEST(retry_after_as_a_date_is_read_in_all_three_forms)
{
	ck_assert_uint_eq(replay_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", NULL, now), 60000);
	ck_assert_uint_eq(replay_retry_after("Sunday, 06-Nov-94 08:50:37 GMT", NULL, now), 60000);
	ck_assert_uint_eq(replay_retry_after("Sun Nov  6 08:50:37 1994", NULL, now), 60000);
	ck_assert_uint_eq(replay_retry_after("Sun, 06 Nov 1994 08:48:37 GMT", NULL, now), 0);
	ck_assert_uint_eq(replay_retry_after("Mon, 06 Nov 2094 08:49:37 GMT", NULL, now),
			  REPLAY_RETRY_AFTER_MAX);
}
END_TEST

START_TEST(a_date_to_retry_after_goes_by_the_clock_of_who_says_it)
{
	const char *date = "Mon, 02 Nov 2026 10:00:00 GMT";

	ck_assert_uint_eq(replay_retry_after("Mon, 02 Nov 2026 10:00:30 GMT", date, now), 30000);
	ck_assert_uint_eq(replay_retry_after("Mon, 02 Nov 2026 09:00:00 GMT", date, now), 0);
	ck_assert_uint_eq(replay_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", "now", now), 60000);
	ck_assert_uint_eq(replay_retry_after("7", date, now), 7000);
}
END_TEST

START_TEST(a_retry_after_that_makes_no_sense_is_none)
{
	ck_assert_uint_eq(replay_retry_after(NULL, NULL, now), 0);
	ck_assert_uint_eq(replay_retry_after("", NULL, now), 0);
	ck_assert_uint_eq(replay_retry_after("-5", NULL, now), 0);
	ck_assert_uint_eq(replay_retry_after("12 minutes", NULL, now), 0);
	ck_assert_uint_eq(replay_retry_after("soon", NULL, now), 0);
	ck_assert_uint_eq(replay_retry_after("Sun, 06 Nov 1994 08:50:37 GMT, or so", NULL, now), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("replay");
	TCase *tc = tcase_create("replay");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, only_passing_troubles_are_no_answers);
	tcase_add_test(tc, backoff_doubles_from_a_second_to_five_minutes);
	tcase_add_test(tc, retry_after_in_seconds_is_bounded);
	tcase_add_test(tc, retry_after_as_a_date_is_read_in_all_three_forms);
	tcase_add_test(tc, a_date_to_retry_after_goes_by_the_clock_of_who_says_it);
	tcase_add_test(tc, a_retry_after_that_makes_no_sense_is_none);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
