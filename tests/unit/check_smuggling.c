/* links: hf_msg */
#include "msg/http_msg.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* tests/corpus/smuggling: messages that two readers might read in two ways. */

static char corpus[] = TEST_SOURCES "/corpus/smuggling";

struct seen {
	int messages, next;
	bool smuggled;
	uint64_t body;
};

static int on_head(void *arg, struct http_head *head)
{
	struct seen *seen = arg;
	bool request = head->kind == HTTP_KIND_REQUEST;

	seen->smuggled |= request && strcmp(http_target(head), "/smuggled") == 0;
	seen->next += request && strcmp(http_target(head), "/next") == 0;
	return 0;
}

static int on_body(void *arg, const uint8_t *data, size_t len)
{
	struct seen *seen = arg;

	(void)data;
	seen->body += len;
	return 0;
}

static int on_end(void *arg)
{
	struct seen *seen = arg;

	seen->messages++;
	return 0;
}

static const struct http_parser_ops ops = {
	.on_head = on_head, .on_body = on_body, .on_end = on_end};

/* In two pieces where `cut` is inside, else in pieces of `step`. Only one response is due. */
static int feed(struct http_parser *parser, enum http_kind kind, const uint8_t *bytes, size_t len,
		size_t cut, size_t step, struct seen *seen)
{
	size_t at = 0;

	while (at < len && (kind == HTTP_KIND_REQUEST || !seen->messages)) {
		size_t n = at < cut && cut < len ? cut - at : len - at, used = 0;
		int r;

		n = n < step ? n : step;
		r = http_parser_feed(parser, bytes + at, n, &used);
		if (r < 0)
			return r;
		ck_assert_uint_gt(used, 0);
		at += used;
	}
	return at == len ? http_parser_eof(parser) : 0;
}

static int read_it(enum http_kind kind, const uint8_t *bytes, size_t len, size_t cut, size_t step,
		   struct seen *seen)
{
	struct http_parser *parser;
	int r;

	memset(seen, 0, sizeof(*seen));
	ck_assert_int_eq(http_parser_new(kind, &ops, seen, &parser), 0);
	r = feed(parser, kind, bytes, len, cut, step, seen);
	http_parser_free(parser);
	return r;
}

typedef void (*judge)(const char *name, enum http_kind kind, int r, const struct seen *seen);

static void try_all(const char *name, enum http_kind kind, const uint8_t *bytes, size_t len,
		    judge verdict)
{
	struct seen seen;
	int r;

	for (size_t cut = 0; cut < len && cut < 2000; cut++) {
		r = read_it(kind, bytes, len, cut, SIZE_MAX, &seen);
		verdict(name, kind, r, &seen);
	}
	r = read_it(kind, bytes, len, 0, 1, &seen);
	verdict(name, kind, r, &seen);
}

static int try_folder(const char *folder, enum http_kind kind, judge verdict)
{
	char path[1024];
	struct dirent *item;
	int files = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/%s", corpus, folder);
	dir = opendir(path);
	ck_assert_ptr_nonnull(dir);
	while ((item = readdir(dir))) {
		static uint8_t bytes[128 << 10];
		size_t len;
		FILE *file;

		if (item->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s/%s", corpus, folder, item->d_name);
		file = fopen(path, "re");
		ck_assert_ptr_nonnull(file);
		len = fread(bytes, 1, sizeof(bytes), file);
		ck_assert(len < sizeof(bytes) && !ferror(file));
		fclose(file);
		try_all(item->d_name, kind, bytes, len, verdict);
		files++;
	}
	closedir(dir);
	return files;
}

static void must_refuse(const char *name, enum http_kind kind, int r, const struct seen *seen)
{
	(void)kind;
	/* Well said; only nobody asked for it. That is not the parser's to know. */
	if (strcmp(name, "switched-unasked.http") == 0)
		return;
	ck_assert_msg(r < 0, "%s was taken", name);
	ck_assert_msg(!seen->smuggled && !seen->messages, "%s: a message was read", name);
}

static void must_take(const char *name, enum http_kind kind, int r, const struct seen *seen)
{
	ck_assert_msg(r == 0, "%s was refused: %d", name, r);
	ck_assert_msg(!seen->smuggled, "%s: a body was read as a request", name);
	ck_assert_msg(seen->messages == (kind == HTTP_KIND_REQUEST ? 2 : 1), "%s: %d messages",
		      name, seen->messages);
	ck_assert_msg(kind == HTTP_KIND_RESPONSE || seen->next == 1, "%s: no request behind it",
		      name);
}

START_TEST(what_two_might_read_in_two_ways_is_refused)
{
	ck_assert_int_gt(try_folder("requests/refused", HTTP_KIND_REQUEST, must_refuse), 100);
	ck_assert_int_gt(try_folder("responses/refused", HTTP_KIND_RESPONSE, must_refuse), 40);
}
END_TEST

START_TEST(what_only_looks_odd_is_read_in_the_one_way_there_is)
{
	ck_assert_int_gt(try_folder("requests/taken", HTTP_KIND_REQUEST, must_take), 15);
	ck_assert_int_gt(try_folder("responses/taken", HTTP_KIND_RESPONSE, must_take), 5);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("smuggling");
	TCase *tc = tcase_create("smuggling");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, what_two_might_read_in_two_ways_is_refused);
	tcase_add_test(tc, what_only_looks_odd_is_read_in_the_one_way_there_is);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
