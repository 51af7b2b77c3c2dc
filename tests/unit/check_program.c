/* links: hf_program */
#include "program/drops.h"
#include "program/rows.h"
#include "program/signature.h"
#include "program/version.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/check_program_XXXXXX", dir[64];

static void setup(void)
{
	static int tests;

	snprintf(dir, sizeof(dir), "%s/%d", root, tests++);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
}

/* --- versions --- */

static struct version version_of(const char *text)
{
	struct version version;

	ck_assert_int_eq(version_parse(text, &version), 0);
	return version;
}

START_TEST(versions_are_compared_as_numbers)
{
	static const char *const sorted[] = {"0.0.0",  "0.0.1", "0.0.10", "0.2.0",
					     "0.10.0", "1.0.0", "1.0.2",  "999999999.0.0"};
	size_t count = sizeof(sorted) / sizeof(sorted[0]);

	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < count; j++) {
			struct version a = version_of(sorted[i]), b = version_of(sorted[j]);
			int order = version_compare(&a, &b);

			ck_assert_int_eq((order > 0) - (order < 0), (i > j) - (i < j));
		}
}
END_TEST

START_TEST(a_version_is_three_numbers_and_nothing_else)
{
	static const char *const wrong[] = {
		"",	  "1",	    "1.0",	 "1.0.",   "1.0.0.", "1.0.0.0", "01.0.0",
		"1.00.0", "v1.0.0", "1.0.0-rc1", " 1.0.0", "1.-1.0", "1..0",	"1.0.1000000000"};
	struct version version;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		ck_assert_msg(version_parse(wrong[i], &version) == -EINVAL, "%s", wrong[i]);
}
END_TEST

/* --- drops --- */

static bool jumped(uint64_t dropped, uint64_t all, uint64_t dropped_before, uint64_t all_before)
{
	struct drops window = {dropped, all}, before = {dropped_before, all_before};

	return drops_jumped(&window, &before);
}

START_TEST(few_drops_are_no_jump)
{
	ck_assert(!jumped(PROGRAM_DROPS_MIN - 1, PROGRAM_DROPS_MIN - 1, 0, 1000));
	ck_assert(jumped(PROGRAM_DROPS_MIN, PROGRAM_DROPS_MIN, 0, 1000));
}
END_TEST

START_TEST(less_than_half_of_all_is_no_jump)
{
	ck_assert(!jumped(4999, 10000, 0, 1000));
	ck_assert(jumped(5000, 10000, 0, 1000));
}
END_TEST

START_TEST(what_was_dropped_before_is_no_jump)
{
	ck_assert(!jumped(600, 1000, 600, 1000));
	ck_assert(!jumped(600, 1000, 61, 1000));
	ck_assert(jumped(600, 1000, 60, 1000));
	ck_assert(!jumped(1000, 1000, 1000, 1000));
}
END_TEST

START_TEST(hardly_anything_let_through_is_a_jump_where_much_was_dropped_before)
{
	ck_assert(jumped(1000, 1000, 500, 1000));
	ck_assert(jumped(950, 1000, 500, 1000));
	ck_assert(!jumped(949, 1000, 500, 1000));
}
END_TEST

START_TEST(too_little_known_of_the_program_before_says_nothing)
{
	ck_assert(jumped(1000, 1000, PROGRAM_DROPS_MIN - 1, PROGRAM_DROPS_MIN - 1));
	ck_assert(jumped(1000, 1000, 0, 0));
}
END_TEST

START_TEST(counters_that_begin_anew_give_no_huge_difference)
{
	struct drops now = {5, 10}, then = {50, 100};
	struct drops since = drops_since(&now, &then);

	ck_assert_uint_eq(since.dropped, 0);
	ck_assert_uint_eq(since.all, 0);
}
END_TEST

/* --- signatures --- */

static const uint8_t file[] = "an object file";

static EVP_PKEY *make_key(const char *type, const char *name, char *path, size_t size)
{
	EVP_PKEY *key =
		strcmp(type, "RSA") == 0 ? EVP_RSA_gen(2048) : EVP_PKEY_Q_keygen(NULL, NULL, type);
	FILE *out;

	snprintf(path, size, "%s/%s", dir, name);
	out = fopen(path, "w");
	ck_assert_ptr_nonnull(key);
	ck_assert_ptr_nonnull(out);
	ck_assert_int_eq(PEM_write_PUBKEY(out, key), 1);
	fclose(out);
	return key;
}

static void sign(EVP_PKEY *key, const uint8_t *bytes, size_t size, char *text)
{
	uint8_t digest[PROGRAM_DIGEST_BYTES], signature[PROGRAM_SIGNATURE_BYTES];
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	size_t len = sizeof(signature);

	ck_assert_int_eq(signature_digest(bytes, size, digest), 0);
	ck_assert_int_eq(EVP_DigestSignInit(context, NULL, NULL, NULL, key), 1);
	ck_assert_int_eq(EVP_DigestSign(context, signature, &len, digest, sizeof(digest)), 1);
	EVP_MD_CTX_free(context);
	EVP_EncodeBlock((unsigned char *)text, signature, (int)len);
}

static int verify(struct keys *keys, const char *text, char *name, size_t size)
{
	uint8_t digest[PROGRAM_DIGEST_BYTES], signature[PROGRAM_SIGNATURE_BYTES];

	ck_assert_int_eq(signature_digest(file, sizeof(file), digest), 0);
	ck_assert_int_eq(signature_decode(text, signature), 0);
	return keys_verify(keys, digest, signature, name, size);
}

START_TEST(any_of_the_trusted_keys_verifies)
{
	char first[128], second[128], other[128], text[128], name[128] = "";
	char *files[] = {first, second, NULL};
	EVP_PKEY *keys[] = {make_key("ED25519", "first.pem", first, sizeof(first)),
			    make_key("ED25519", "second.pem", second, sizeof(second)),
			    make_key("ED25519", "other.pem", other, sizeof(other))};
	struct keys *trusted;

	ck_assert_int_eq(keys_read(files, &trusted), 0);
	ck_assert_ptr_null(keys_problem(trusted, 0));
	sign(keys[0], file, sizeof(file), text);
	ck_assert_int_eq(verify(trusted, text, name, sizeof(name)), 0);
	ck_assert_str_eq(name, "first.pem");
	sign(keys[1], file, sizeof(file), text);
	ck_assert_int_eq(verify(trusted, text, name, sizeof(name)), 0);
	ck_assert_str_eq(name, "second.pem");
	sign(keys[2], file, sizeof(file), text);
	ck_assert_int_eq(verify(trusted, text, name, sizeof(name)), -EKEYREJECTED);
	sign(keys[0], file, sizeof(file) - 1, text);
	ck_assert_int_eq(verify(trusted, text, name, sizeof(name)), -EKEYREJECTED);
	for (int i = 0; i < 3; i++)
		EVP_PKEY_free(keys[i]);
	keys_free(trusted);
}
END_TEST

START_TEST(no_key_trusts_nothing)
{
	char path[128], text[128], name[128];
	EVP_PKEY *key = make_key("ED25519", "key.pem", path, sizeof(path));
	struct keys *trusted;

	ck_assert_int_eq(keys_read(NULL, &trusted), 0);
	sign(key, file, sizeof(file), text);
	ck_assert_int_eq(verify(trusted, text, name, sizeof(name)), -EKEYREJECTED);
	EVP_PKEY_free(key);
	keys_free(trusted);
}
END_TEST

START_TEST(files_that_are_no_ed25519_keys_are_told_and_the_others_work)
{
	char good[128], rsa[128], text_file[128], missing[128], text[128], name[128];
	char *files[] = {missing, dir, text_file, rsa, good, NULL};
	EVP_PKEY *key = make_key("ED25519", "good.pem", good, sizeof(good));
	EVP_PKEY *other = make_key("RSA", "rsa.pem", rsa, sizeof(rsa));
	struct keys *trusted;
	FILE *out;

	snprintf(missing, sizeof(missing), "%s/missing.pem", dir);
	snprintf(text_file, sizeof(text_file), "%s/text.pem", dir);
	out = fopen(text_file, "w");
	fputs("no key\n", out);
	fclose(out);
	ck_assert_int_eq(keys_read(files, &trusted), 0);
	ck_assert_ptr_nonnull(strstr(keys_problem(trusted, 0), "missing.pem cannot be read"));
	ck_assert_ptr_nonnull(strstr(keys_problem(trusted, 1), "no ordinary file"));
	ck_assert_ptr_nonnull(strstr(keys_problem(trusted, 2), "no public key in PEM"));
	ck_assert_ptr_nonnull(strstr(keys_problem(trusted, 3), "not of Ed25519"));
	ck_assert_ptr_null(keys_problem(trusted, 4));
	sign(key, file, sizeof(file), text);
	ck_assert_int_eq(verify(trusted, text, name, sizeof(name)), 0);
	EVP_PKEY_free(key);
	EVP_PKEY_free(other);
	keys_free(trusted);
}
END_TEST

START_TEST(a_signature_is_base64_of_64_octets_and_nothing_else)
{
	uint8_t octets[PROGRAM_SIGNATURE_BYTES + 2] = {0}, decoded[PROGRAM_SIGNATURE_BYTES];
	char text[128];

	EVP_EncodeBlock((unsigned char *)text, octets, PROGRAM_SIGNATURE_BYTES);
	ck_assert_int_eq(signature_decode(text, decoded), 0);
	text[10] = '*';
	ck_assert_int_eq(signature_decode(text, decoded), -EINVAL);
	text[10] = ' ';
	ck_assert_int_eq(signature_decode(text, decoded), -EINVAL);
	for (int size = PROGRAM_SIGNATURE_BYTES - 1; size <= PROGRAM_SIGNATURE_BYTES + 2; size++) {
		if (size == PROGRAM_SIGNATURE_BYTES)
			continue;
		EVP_EncodeBlock((unsigned char *)text, octets, size);
		ck_assert_int_eq(signature_decode(text, decoded), -EINVAL);
	}
	ck_assert_int_eq(signature_decode("", decoded), -EINVAL);
}
END_TEST

/* --- rows --- */

static uv_loop_t loop;
static struct store *store;

struct found {
	struct program_row rows[PROGRAMS_MAX];
	struct program_event events[PROGRAM_EVENTS_MAX * 2];
	struct program_newest newest[4];
	size_t row_count, event_count, newest_count;
};
static struct found found;

static int on_row(void *arg, const struct program_row *row)
{
	found.rows[found.row_count++] = *row;
	return 0;
}

static int on_event(void *arg, const char *id, const struct program_event *event)
{
	found.events[found.event_count++] = *event;
	return 0;
}

static int on_newest(void *arg, const struct program_newest *newest)
{
	found.newest[found.newest_count++] = *newest;
	return 0;
}

static void read_rows(void)
{
	struct rows_load load = {.on_row = on_row, .on_event = on_event, .on_newest = on_newest};

	memset(&found, 0, sizeof(found));
	ck_assert_int_eq(rows_open(store, &load), 0);
}

static void open_rows(void)
{
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(store_open(&loop, dir, &store), 0);
	read_rows();
}

static void close_rows(void)
{
	store_close(store, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void on_stored(void *arg, int status)
{
	ck_assert_int_eq(status, 0);
	(*(int *)arg)++;
}

static void on_elf(void *arg, int status, uint8_t *elf, size_t size)
{
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(size, sizeof(file));
	ck_assert_mem_eq(elf, file, size);
	free(elf);
	(*(int *)arg)++;
}

static struct program_row row_of(const char *id, const char *version)
{
	struct program_row row = {.abi = 2,
				  .size = sizeof(file),
				  .uploaded = 1000,
				  .has_signature = true,
				  .signature = {1, 2, 3},
				  .digest = {4, 5, 6}};

	strcpy(row.id, id);
	strcpy(row.name, "observe");
	strcpy(row.version, version);
	strcpy(row.signed_by, "key.pem");
	return row;
}

static void insert(const struct program_row *row)
{
	struct program_event event = {.at = 1000, .what = "uploaded"};
	int done = 0;

	ck_assert_int_eq(rows_insert(store, row, file, &event, on_stored, &done), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(done, 1);
}

static void submit(struct save *save)
{
	int done = 0;

	ck_assert_int_eq(save_submit(store, save, on_stored, &done), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(done, 1);
}

START_TEST(a_program_is_the_same_after_a_restart)
{
	struct program_row row = row_of("a", "1.0.0");
	uint8_t *elf;
	size_t size;
	int done = 0;

	open_rows();
	insert(&row);
	close_rows();
	open_rows();
	ck_assert_uint_eq(found.row_count, 1);
	ck_assert_mem_eq(&found.rows[0], &row, sizeof(row));
	ck_assert_uint_eq(found.event_count, 1);
	ck_assert_str_eq(found.events[0].what, "uploaded");
	ck_assert_int_eq(rows_elf_now(store, "a", &elf, &size), 0);
	on_elf(&done, 0, elf, size);
	ck_assert_int_eq(rows_elf_now(store, "b", &elf, &size), -ENOENT);
	ck_assert_int_eq(rows_elf(store, "a", on_elf, &done), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(done, 2);
	close_rows();
}
END_TEST

START_TEST(a_save_changes_many_rows_at_once)
{
	struct program_row a = row_of("a", "1.0.0"), b = row_of("b", "1.1.0");
	struct program_newest newest = {"observe", "1.1.0"};
	struct program_event event = {.at = 2000, .what = "confirmed"};
	struct save *save = save_new();

	open_rows();
	insert(&a);
	insert(&b);
	save_row(save, &a);
	save_row(save, &b);
	b.order = 2;
	b.confirmed = 2000;
	b.dropped = 3;
	b.counted = 100;
	save_changed(save, &b);
	save_event(save, "b", &event);
	save_newest(save, &newest);
	submit(save);
	close_rows();
	open_rows();
	ck_assert_mem_eq(&found.rows[0], &a, sizeof(a));
	ck_assert_mem_eq(&found.rows[1], &b, sizeof(b));
	ck_assert_str_eq(found.events[2].what, "confirmed");
	ck_assert_uint_eq(found.newest_count, 1);
	ck_assert_str_eq(found.newest[0].version, "1.1.0");
	close_rows();
}
END_TEST

START_TEST(the_history_is_bounded_and_keeps_its_end)
{
	struct program_row row = row_of("a", "1.0.0");

	open_rows();
	insert(&row);
	for (int i = 0; i < PROGRAM_EVENTS_MAX + 5; i++) {
		struct program_event event = {.at = i};
		struct save *save = save_new();

		snprintf(event.what, sizeof(event.what), "%d", i);
		save_event(save, "a", &event);
		submit(save);
	}
	read_rows();
	ck_assert_uint_eq(found.event_count, PROGRAM_EVENTS_MAX);
	ck_assert_str_eq(found.events[0].what, "5");
	ck_assert_int_eq(found.events[PROGRAM_EVENTS_MAX - 1].at, PROGRAM_EVENTS_MAX + 4);
	close_rows();
}
END_TEST

START_TEST(a_deleted_program_leaves_only_its_newest_version)
{
	struct program_row row = row_of("a", "1.0.0");
	struct program_newest newest = {"observe", "1.0.0"};
	struct save *save = save_new();
	uint8_t *elf;
	size_t size;
	int done = 0;

	open_rows();
	insert(&row);
	save_newest(save, &newest);
	submit(save);
	ck_assert_int_eq(rows_delete(store, "a", on_stored, &done), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(done, 1);
	read_rows();
	ck_assert_uint_eq(found.row_count, 0);
	ck_assert_uint_eq(found.event_count, 0);
	ck_assert_uint_eq(found.newest_count, 1);
	ck_assert_int_eq(rows_elf_now(store, "a", &elf, &size), -ENOENT);
	close_rows();
}
END_TEST

static void remove_files(const char *path)
{
	char name[512];
	struct dirent *entry;
	DIR *folder = opendir(path);

	while (folder && (entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (entry->d_type == DT_DIR)
			remove_files(name);
		else
			unlink(name);
	}
	if (folder)
		closedir(folder);
	rmdir(path);
}

int main(void)
{
	Suite *suite = suite_create("program");
	TCase *tests = tcase_create("program");
	SRunner *runner;
	int failed;

	if (!mkdtemp(root))
		return 1;
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_test(tests, versions_are_compared_as_numbers);
	tcase_add_test(tests, a_version_is_three_numbers_and_nothing_else);
	tcase_add_test(tests, few_drops_are_no_jump);
	tcase_add_test(tests, less_than_half_of_all_is_no_jump);
	tcase_add_test(tests, what_was_dropped_before_is_no_jump);
	tcase_add_test(tests, hardly_anything_let_through_is_a_jump_where_much_was_dropped_before);
	tcase_add_test(tests, too_little_known_of_the_program_before_says_nothing);
	tcase_add_test(tests, counters_that_begin_anew_give_no_huge_difference);
	tcase_add_test(tests, any_of_the_trusted_keys_verifies);
	tcase_add_test(tests, no_key_trusts_nothing);
	tcase_add_test(tests, files_that_are_no_ed25519_keys_are_told_and_the_others_work);
	tcase_add_test(tests, a_signature_is_base64_of_64_octets_and_nothing_else);
	tcase_add_test(tests, a_program_is_the_same_after_a_restart);
	tcase_add_test(tests, a_save_changes_many_rows_at_once);
	tcase_add_test(tests, the_history_is_bounded_and_keeps_its_end);
	tcase_add_test(tests, a_deleted_program_leaves_only_its_newest_version);
	suite_add_tcase(suite, tests);
	runner = srunner_create(suite);
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	remove_files(root);
	return failed != 0;
}
