/* links: hf_store */
#include "base/limits.h"
#include "store/spool.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <openssl/evp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LARGE = 1 << 20, CHUNK = 10000 };

static char dir[64];
static uv_loop_t loop;
static struct spools *spools;
static int drains, ends, end_status;

static void setup(void)
{
	strcpy(dir, "/tmp/check_spool_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	uv_loop_init(&loop);
	ck_assert_int_eq(spools_new(&loop, dir, 64 << 20, &spools), 0);
	drains = ends = 0;
	end_status = 1;
}

static void run(void)
{
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void teardown(void)
{
	struct spools_statistics s;

	run();
	spools_statistics(spools, &s);
	ck_assert_uint_eq(s.bytes, 0);
	ck_assert_uint_eq(s.memory, 0);
	ck_assert_uint_eq(s.open, 0);
	spools_close(spools);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	ck_assert_int_eq(rmdir(dir), 0); /* and nothing is in it */
}

static struct spools_statistics statistics(void)
{
	struct spools_statistics s;

	spools_statistics(spools, &s);
	return s;
}

static struct spool *fresh(uint64_t limit)
{
	struct spool *spool;

	ck_assert_int_eq(spool_new(spools, limit, &spool), 0);
	return spool;
}

static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)(offset * 31 + offset / 251);
}

static void bytes_at(uint64_t offset, uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = byte_at(offset + i);
}

static void on_drain(void *arg)
{
	drains++;
}

static void on_end(void *arg, int status)
{
	ends++;
	end_status = status;
}

/* As a source does that stops when it should. */
static int append(struct spool *spool, size_t len)
{
	uint8_t bytes[CHUNK];
	int r = 0;

	for (size_t n; len && r == 0; len -= n) {
		n = len < CHUNK ? len : CHUNK;
		bytes_at(spool_len(spool), bytes, n);
		while (spool_is_full(spool))
			uv_run(&loop, UV_RUN_ONCE);
		r = spool_append(spool, bytes, n);
	}
	return r;
}

static struct spool *whole(size_t len)
{
	struct spool *spool = fresh(len);

	ck_assert_int_eq(append(spool, len), 0);
	spool_end(spool, on_end, NULL);
	ck_assert_int_eq(ends, 0);
	run();
	ck_assert_int_eq(ends, 1);
	ck_assert_int_eq(end_status, 0);
	return spool;
}

static void check_content(const struct spool *spool, uint64_t len)
{
	uint8_t got[CHUNK], want[CHUNK];
	uint64_t at = 0;
	ssize_t n;

	while ((n = spool_pread(spool, at, got, sizeof(got))) > 0) {
		bytes_at(at, want, (size_t)n);
		ck_assert_mem_eq(got, want, (size_t)n);
		at += (uint64_t)n;
	}
	ck_assert_int_eq(n, 0);
	ck_assert_uint_eq(at, len);
}

static void check_digest(const struct spool *spool, size_t len)
{
	uint8_t *bytes = malloc(len + 1), want[32], got[32];

	bytes_at(0, bytes, len);
	ck_assert_int_eq(EVP_Digest(bytes, len, want, NULL, EVP_sha256(), NULL), 1);
	ck_assert_int_eq(spool_digest(spool, got), 0);
	ck_assert_mem_eq(got, want, 32);
	free(bytes);
}

static size_t open_files(void)
{
	struct dirent *entry;
	size_t count = 0;
	DIR *d = opendir("/proc/self/fd");

	while ((entry = readdir(d))) {
		char path[300], link[300] = "";

		snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
		if (readlink(path, link, sizeof(link) - 1) > 0)
			count += strncmp(link, dir, strlen(dir)) == 0;
	}
	closedir(d);
	return count;
}

START_TEST(a_short_body_stays_in_memory)
{
	struct spool *spool = fresh(SPOOL_MEMORY);

	ck_assert_int_eq(append(spool, SPOOL_MEMORY), 0);
	spool_end(spool, NULL, NULL);
	ck_assert_ptr_nonnull(spool_bytes(spool));
	ck_assert_uint_eq(statistics().files, 0);
	ck_assert_uint_eq(statistics().memory, SPOOL_MEMORY);
	check_content(spool, SPOOL_MEMORY);
	check_digest(spool, SPOOL_MEMORY);
	spool_unref(spool);
}
END_TEST

START_TEST(an_empty_body_is_whole_and_told_so)
{
	struct spool *spool = whole(0);

	ck_assert_str_eq((const char *)spool_bytes(spool), "");
	check_content(spool, 0);
	check_digest(spool, 0);
	spool_unref(spool);
	ck_assert_uint_eq(spool_len(NULL), 0);
	ck_assert_ptr_nonnull(spool_bytes(NULL));
	check_digest(NULL, 0);
}
END_TEST

START_TEST(a_long_body_goes_to_a_file_without_a_name)
{
	struct spool *spool = whole(LARGE + 123);

	ck_assert_ptr_null(spool_bytes(spool));
	ck_assert_uint_eq(statistics().files, 1);
	ck_assert_uint_eq(statistics().bytes, LARGE + 123);
	ck_assert_uint_eq(statistics().memory, 0);
	ck_assert_uint_eq(open_files(), 1);
	check_content(spool, LARGE + 123);
	check_digest(spool, LARGE + 123);
	spool_unref(spool);
	run();
	ck_assert_uint_eq(open_files(), 0);
}
END_TEST

/* As FAT, NFS and older overlays do, for this process and its threads from now on. */
static void refuse_files_without_a_name(void)
{
	enum {
		ARGUMENT = offsetof(struct seccomp_data, args[2]),
		TMPFILE = O_TMPFILE & ~O_DIRECTORY
	};
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, TMPFILE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
	ck_assert_int_eq(open(dir, O_TMPFILE | O_RDWR, 0600), -1);
	ck_assert_int_eq(errno, EOPNOTSUPP);
}

START_TEST(where_files_have_a_name_it_is_gone_at_once)
{
	struct spool *spool;

	refuse_files_without_a_name();
	spool = whole(LARGE);
	ck_assert_uint_eq(statistics().files, 1);
	ck_assert_uint_eq(open_files(), 1);
	ck_assert_int_eq(rmdir(dir), 0); /* nothing is in it */
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	check_content(spool, LARGE);
	spool_unref(spool);
	run();
	ck_assert_uint_eq(open_files(), 0);
}
END_TEST

START_TEST(short_bodies_go_to_files_when_many_are_in_memory)
{
	enum { COUNT = SPOOL_MEMORY_ALL / SPOOL_MEMORY };
	struct spool *many[COUNT], *one;

	for (int i = 0; i < COUNT; i++) {
		many[i] = fresh(SPOOL_MEMORY);
		ck_assert_int_eq(append(many[i], SPOOL_MEMORY), 0);
	}
	ck_assert_uint_eq(statistics().files, 0);
	one = whole(100);
	ck_assert_ptr_null(spool_bytes(one));
	check_content(one, 100);
	check_digest(one, 100);
	spool_unref(one);
	for (int i = 0; i < COUNT; i++)
		spool_unref(many[i]);
}
END_TEST

START_TEST(over_its_limit_bytes_are_refused_and_the_first_stay)
{
	struct spool *spool = fresh(100000);

	ck_assert_int_eq(append(spool, 100000), 0);
	ck_assert_int_eq(spool_append(spool, "x", 1), -EFBIG);
	ck_assert_int_eq(spool_append(spool, "x", 1), -EFBIG);
	ck_assert_int_eq(spool_error(spool), -EFBIG);
	spool_end(spool, on_end, NULL);
	run();
	ck_assert_int_eq(end_status, -EFBIG);
	check_content(spool, 100000);
	spool_unref(spool);
}
END_TEST

START_TEST(files_are_bounded_by_their_number_too)
{
	struct spool *many[17];
	struct rlimit few;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &few), 0);
	few.rlim_cur = 64;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	spools_close(spools);
	ck_assert_int_eq(spools_new(&loop, dir, 64 << 20, &spools), 0);
	ck_assert_uint_eq(statistics().max_files, 16);
	for (int i = 0; i < 16; i++) {
		many[i] = whole(LARGE);
		ends = 0;
	}
	many[16] = fresh(LARGE);
	ck_assert_int_eq(append(many[16], LARGE), -EDQUOT);
	ck_assert_uint_eq(statistics().refused, 1);
	ck_assert_uint_eq(statistics().files, 16);
	for (int i = 0; i < 17; i++)
		spool_unref(many[i]);
	run();
	ck_assert_uint_eq(statistics().files, 0);
	ck_assert_uint_eq(statistics().filed, 16);
}
END_TEST

START_TEST(all_files_together_are_bounded_and_refusals_counted)
{
	struct spool *one, *two;

	spools_set_max(spools, LARGE + LARGE / 2);
	one = whole(LARGE);
	two = fresh(LARGE);
	ck_assert_int_eq(append(two, LARGE), -EDQUOT);
	ck_assert_uint_eq(statistics().refused, 1);
	ck_assert_uint_le(statistics().bytes, LARGE + LARGE / 2);
	spool_unref(two);
	spool_unref(one);
	run();
	ends = 0;
	spool_unref(whole(LARGE));
}
END_TEST

START_TEST(a_source_is_stopped_while_the_disk_is_behind)
{
	struct spool *spool = fresh(16 << 20);
	uint8_t bytes[CHUNK] = {0};

	spool_on_drain(spool, on_drain, NULL);
	while (!spool_is_full(spool)) /* the loop does not run: nothing is written */
		ck_assert_int_eq(spool_append(spool, bytes, sizeof(bytes)), 0);
	ck_assert_uint_ge(spool_len(spool), SPOOL_BEHIND);
	ck_assert_uint_le(spool_len(spool), 2 * SPOOL_BEHIND + SPOOL_MEMORY);
	ck_assert_int_eq(drains, 0);
	run();
	ck_assert_int_eq(drains, 1);
	ck_assert(!spool_is_full(spool));
	spool_unref(spool);
}
END_TEST

START_TEST(a_source_that_does_not_stop_is_refused)
{
	struct spool *spool = fresh(64 << 20);
	uint8_t bytes[CHUNK] = {0};
	int r = 0;

	while (r == 0)
		r = spool_append(spool, bytes, sizeof(bytes));
	ck_assert_int_eq(r, -ENOBUFS);
	ck_assert_uint_le(spool_len(spool), 2 * SPOOL_WAITING_MAX);
	spool_unref(spool);
}
END_TEST

static void mount_disk(size_t room)
{
	char options[64];

	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	snprintf(options, sizeof(options), "size=%zu", room);
	ck_assert_int_eq(mount("tmpfs", dir, "tmpfs", 0, options), 0);
}

START_TEST(the_answer_of_a_replay_has_room_when_others_have_none)
{
	struct spool *spool;

	mount_disk(SPOOL_DISK_SPARE + LARGE / 2);
	spools_set_max(spools, LARGE / 2);
	spool = fresh(64 << 20);
	ck_assert_int_eq(append(spool, LARGE), -EDQUOT);
	spool_unref(spool);
	spools_set_max(spools, 64 << 20);
	spool = fresh(64 << 20);
	ck_assert_int_eq(append(spool, LARGE), -ENOSPC);
	spool_unref(spool);
	spools_set_max(spools, LARGE / 2);
	spool = fresh(64 << 20);
	spool_goes_first(spool);
	ck_assert_int_eq(append(spool, LARGE), 0);
	spool_end(spool, on_end, NULL);
	run();
	ck_assert_int_eq(end_status, 0);
	check_content(spool, LARGE);
	spool_unref(spool);
	/* But not the very last of it. */
	spool = fresh(64 << 20);
	spool_goes_first(spool);
	ck_assert_int_eq(append(spool, SPOOL_DISK_SPARE), -ENOSPC);
	ck_assert_uint_lt(spool_len(spool), SPOOL_DISK_SPARE - SPOOL_LAST_SPARE + LARGE);
	spool_unref(spool);
	run();
	ck_assert_int_eq(umount(dir), 0);
}
END_TEST

START_TEST(a_full_disk_is_told_and_what_was_taken_can_be_read)
{
	struct spool *spool = fresh(64 << 20);
	uint64_t taken;
	int r;

	mount_disk(SPOOL_DISK_SPARE + LARGE);
	r = append(spool, 8 * LARGE);
	ck_assert_int_eq(r, -ENOSPC);
	ck_assert_int_eq(spool_error(spool), -ENOSPC);
	ck_assert_uint_eq(statistics().refused, 1);
	taken = spool_len(spool);
	ck_assert_uint_ge(taken, LARGE / 2);
	spool_end(spool, on_end, NULL);
	run();
	ck_assert_int_eq(end_status, -ENOSPC);
	check_content(spool, taken);
	ck_assert_int_eq(spool_digest(spool, (uint8_t[32]){0}), -ENOSPC);
	spool_unref(spool);
	run();
	ck_assert_int_eq(umount(dir), 0);
}
END_TEST

START_TEST(a_source_that_waits_is_told_of_a_failure)
{
	struct spool *spool = fresh(64 << 20);
	uint8_t bytes[CHUNK] = {0};

	ck_assert_int_eq(rmdir(dir), 0); /* no file can be made */
	spool_on_drain(spool, on_drain, NULL);
	while (!spool_is_full(spool))
		ck_assert_int_eq(spool_append(spool, bytes, sizeof(bytes)), 0);
	run();
	ck_assert_int_eq(drains, 1);
	ck_assert_int_eq(spool_append(spool, bytes, sizeof(bytes)), -ENOENT);
	spool_unref(spool);
	ck_assert_int_eq(mkdir(dir, 0700), 0);
}
END_TEST

START_TEST(one_that_is_left_while_it_is_written_tells_nobody)
{
	struct spool *spool = fresh(LARGE);
	uint8_t bytes[CHUNK] = {0};

	spool_on_drain(spool, on_drain, NULL);
	while (!spool_is_full(spool))
		ck_assert_int_eq(spool_append(spool, bytes, sizeof(bytes)), 0);
	spool_end(spool, on_end, NULL);
	spool_forget(spool);
	spool_unref(spool);
	run();
	ck_assert_int_eq(drains, 0);
	ck_assert_int_eq(ends, 0);
	ck_assert_uint_eq(open_files(), 0);
}
END_TEST

START_TEST(the_last_reference_frees_it)
{
	struct spool *spool = whole(LARGE), *same = spool_ref(spool);

	spool_unref(spool);
	run();
	ck_assert_uint_eq(statistics().open, 1);
	check_content(same, LARGE);
	spool_unref(same);
	ck_assert_uint_eq(statistics().open, 0);
}
END_TEST

struct reading {
	struct spool_reader *reader;
	uint64_t at;
	int ends, close_after;
};

static void on_piece(void *arg, int status, const uint8_t *bytes, size_t len)
{
	struct reading *reading = arg;
	uint8_t want[SPOOL_PIECE];

	ck_assert_int_eq(status, 0);
	ck_assert_uint_le(len, SPOOL_PIECE);
	bytes_at(reading->at, want, len);
	if (len)
		ck_assert_mem_eq(bytes, want, len);
	reading->at += len;
	if (!len)
		reading->ends++;
	else if (--reading->close_after == 0)
		spool_reader_close(reading->reader);
	else
		spool_reader_next(reading->reader);
}

static void read_it(struct spool *spool, struct reading *reading)
{
	ck_assert_int_eq(spool_reader_new(spool, on_piece, reading, &reading->reader), 0);
	spool_reader_next(reading->reader);
}

START_TEST(two_readers_get_all_of_it_piece_by_piece)
{
	size_t len = _i ? LARGE + 5 : 500;
	struct spool *spool = whole(len);
	struct reading one = {.at = 0}, two = {.at = 0};

	read_it(spool, &one);
	read_it(spool, &two);
	spool_unref(spool); /* the readers hold it */
	run();
	ck_assert_uint_eq(one.at, len);
	ck_assert_uint_eq(two.at, len);
	ck_assert_int_eq(one.ends + two.ends, 2);
	spool_reader_close(one.reader);
	spool_reader_close(two.reader);
}
END_TEST

START_TEST(a_reader_that_is_closed_says_no_more)
{
	struct spool *spool = whole(LARGE);
	struct reading inside = {.close_after = 2}, under_way = {.at = 0};

	read_it(spool, &inside);
	read_it(spool, &under_way);
	spool_reader_close(under_way.reader);
	run();
	ck_assert_uint_eq(inside.at, 2 * SPOOL_PIECE);
	ck_assert_uint_eq(under_way.at, 0);
	spool_unref(spool);
}
END_TEST

START_TEST(spools_may_close_before_a_spool)
{
	struct spool *spool = fresh(LARGE);
	struct spools *fresh_spools;

	ck_assert_int_eq(append(spool, LARGE), 0);
	ck_assert_int_eq(spools_new(&loop, dir, 1, &fresh_spools), 0);
	spools_close(spools);
	spools = fresh_spools;
	spool_unref(spool);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("spool");
	TCase *t = tcase_create("spool");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_short_body_stays_in_memory);
	tcase_add_test(t, an_empty_body_is_whole_and_told_so);
	tcase_add_test(t, a_long_body_goes_to_a_file_without_a_name);
	tcase_add_test(t, where_files_have_a_name_it_is_gone_at_once);
	tcase_add_test(t, short_bodies_go_to_files_when_many_are_in_memory);
	tcase_add_test(t, over_its_limit_bytes_are_refused_and_the_first_stay);
	tcase_add_test(t, files_are_bounded_by_their_number_too);
	tcase_add_test(t, all_files_together_are_bounded_and_refusals_counted);
	tcase_add_test(t, a_source_is_stopped_while_the_disk_is_behind);
	tcase_add_test(t, a_source_that_does_not_stop_is_refused);
	tcase_add_test(t, the_answer_of_a_replay_has_room_when_others_have_none);
	tcase_add_test(t, a_full_disk_is_told_and_what_was_taken_can_be_read);
	tcase_add_test(t, a_source_that_waits_is_told_of_a_failure);
	tcase_add_test(t, one_that_is_left_while_it_is_written_tells_nobody);
	tcase_add_test(t, the_last_reference_frees_it);
	tcase_add_loop_test(t, two_readers_get_all_of_it_piece_by_piece, 0, 2);
	tcase_add_test(t, a_reader_that_is_closed_says_no_more);
	tcase_add_test(t, spools_may_close_before_a_spool);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
