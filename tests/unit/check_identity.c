/* links: hf_exchange */
#include "exchange/exchange.h"

#include <check.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

static void head_make(struct http_head *head, const char *method, const char *target)
{
	http_head_init(head, HTTP_KIND_REQUEST);
	head->method = (uint32_t)buf_len(&head->text);
	ck_assert_int_eq(buf_append(&head->text, method, strlen(method) + 1), 0);
	head->target = (uint32_t)buf_len(&head->text);
	ck_assert_int_eq(buf_append(&head->text, target, strlen(target) + 1), 0);
}

static char *names[] = {"Authorization", "Cookie", NULL};

struct hash {
	uint8_t all[32], body[32];
};

static struct hash hash_of(const char *source, const char *method, const char *authority,
			   const char *target, const char *cookie, const char *other,
			   const char *body)
{
	struct http_head head;
	struct hash hash;

	head_make(&head, method, target);
	if (cookie)
		ck_assert_int_eq(http_field_add(&head, "cookie", cookie), 0);
	if (other)
		ck_assert_int_eq(http_field_add(&head, "X-Other", other), 0);
	ck_assert_int_eq(EVP_Digest(body, strlen(body), hash.body, NULL, EVP_sha256(), NULL), 1);
	ck_assert_int_eq(
		exchange_hash(&head, source, "http", authority, names, hash.body, hash.all), 0);
	http_head_done(&head);
	return hash;
}

START_TEST(the_same_request_has_the_same_hash_whatever_uncounted_fields_say)
{
	struct hash a = hash_of("host", "POST", "a", "/x", "c=1", "first", "body");
	struct hash b = hash_of("host", "POST", "a", "/x", "c=1", "second", "body");

	ck_assert_mem_eq(a.all, b.all, 32);
}
END_TEST

START_TEST(every_counted_part_changes_the_hash)
{
	struct hash base = hash_of("host", "POST", "a", "/x", "c=1", NULL, "body");
	struct hash others[] = {
		hash_of("192.0.2.2", "POST", "a", "/x", "c=1", NULL, "body"),
		hash_of("host", "PUT", "a", "/x", "c=1", NULL, "body"),
		hash_of("host", "POST", "b", "/x", "c=1", NULL, "body"),
		hash_of("host", "POST", "a", "/y", "c=1", NULL, "body"),
		hash_of("host", "POST", "a", "/x", "c=2", NULL, "body"),
		hash_of("host", "POST", "a", "/x", NULL, NULL, "body"),
		hash_of("host", "POST", "a", "/x", "c=1", NULL, "other"),
		hash_of("host", "POST", "a/", "x", "c=1", NULL, "body"),
	};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		ck_assert_mem_ne(base.all, others[i].all, 32);
}
END_TEST

START_TEST(ids_are_uuids_of_version_seven_that_sort_by_time)
{
	char a[ID_TEXT_MAX], b[ID_TEXT_MAX], c[ID_TEXT_MAX];

	exchange_make_id(1700000000000, a);
	exchange_make_id(1700000000000, b);
	exchange_make_id(1700000000001, c);
	ck_assert_uint_eq(strlen(a), 36);
	ck_assert_int_eq(a[14], '7');
	ck_assert_str_ne(a, b);
	ck_assert_int_lt(strcmp(a, c), 0);
	ck_assert_int_lt(strcmp(b, c), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("identity");
	TCase *tc = tcase_create("identity");
	SRunner *runner;
	int failed;

	tcase_add_test(tc, the_same_request_has_the_same_hash_whatever_uncounted_fields_say);
	tcase_add_test(tc, every_counted_part_changes_the_hash);
	tcase_add_test(tc, ids_are_uuids_of_version_seven_that_sort_by_time);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
