/* links: hf_steer */
/* The wrapper that counts what a program returns: it changes nothing, and it counts all. */
#include "golden.h"
#include "steer.skel.h"

#include "steer/watch.h"

#include <linux/if_link.h>
#include <sched.h>
#include <unistd.h>

static struct steer_bpf *steer;
static struct watch *watch;

static void setup(void)
{
	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "needs root");
	steer = steer_bpf__open();
	ck_assert_ptr_nonnull(steer);
	struct bpf_map *map;
	bpf_object__for_each_map (map, steer->obj)
		ck_assert_int_eq(bpf_map__set_pin_path(map, NULL), 0);
	ck_assert_int_eq(steer_bpf__load(steer), 0);
	ck_assert_int_eq(watch_new(steer->progs.hf_steer, BPF_F_XDP_HAS_FRAGS, &watch), 0);
}

static void teardown(void)
{
	watch_free(watch);
	steer_bpf__destroy(steer);
}

static int run(int fd, const uint8_t *bytes, size_t len, int repeat)
{
	uint8_t out[FRAME_MAX];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = bytes, .data_size_in = (__u32)len,
		    .data_out = out, .data_size_out = sizeof(out), .repeat = repeat);

	ck_assert_int_eq(bpf_prog_test_run_opts(fd, &opts), 0);
	ck_assert_uint_eq(opts.data_size_out, len);
	ck_assert_mem_eq(out, bytes, len);
	return (int)opts.retval;
}

/* An ARP request passes, and a frame that ends in its IP header is dropped, as long as lo, on which
 * test runs are made, is an app's. */
static const uint8_t arp[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6};
static const uint8_t cut[20] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45};

static void make_lo_an_apps(void)
{
	struct hf_interface in = {.role = HF_ROLE_APP, .has_mac = 1};
	uint32_t lo = 1;

	ck_assert_int_eq(bpf_map_update_elem(bpf_map__fd(steer->maps.interfaces), &lo, &in, 0), 0);
}

START_TEST(the_wrapper_of_the_built_in_program_returns_what_it_returns)
{
	int plain = bpf_program__fd(steer->progs.hf_steer);

	make_lo_an_apps();
	ck_assert_int_eq(run(plain, arp, sizeof(arp), 1), XDP_PASS);
	ck_assert_int_eq(run(watch_fd(watch), arp, sizeof(arp), 1), XDP_PASS);
	ck_assert_int_eq(run(plain, cut, sizeof(cut), 1), XDP_DROP);
	ck_assert_int_eq(run(watch_fd(watch), cut, sizeof(cut), 1), XDP_DROP);
}
END_TEST

START_TEST(what_it_returns_is_counted_and_what_runs_without_it_is_not)
{
	struct steer_watch_counts counts;

	make_lo_an_apps();
	run(watch_fd(watch), arp, sizeof(arp), 7);
	run(watch_fd(watch), cut, sizeof(cut), 5);
	run(bpf_program__fd(steer->progs.hf_steer), cut, sizeof(cut), 100);
	ck_assert_int_eq(watch_counts(watch, &counts), 0);
	ck_assert_uint_eq(counts.passed, 7);
	ck_assert_uint_eq(counts.dropped, 5);
	ck_assert_uint_eq(counts.aborted + counts.sent + counts.redirected, 0);
}
END_TEST

START_TEST(the_wrapper_takes_the_place_of_the_program_on_an_interface)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_SKB_MODE);
	int plain = bpf_program__fd(steer->progs.hf_steer);
	int link = bpf_link_create(plain, 1, BPF_XDP, &opts);

	ck_assert_int_ge(link, 0);
	ck_assert_int_eq(bpf_link_update(link, watch_fd(watch), NULL), 0);
	ck_assert_int_eq(bpf_link_update(link, plain, NULL), 0);
	close(link);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("watch");
	TCase *tests = tcase_create("watch");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, the_wrapper_of_the_built_in_program_returns_what_it_returns);
	tcase_add_test(tests, what_it_returns_is_counted_and_what_runs_without_it_is_not);
	tcase_add_test(tests, the_wrapper_takes_the_place_of_the_program_on_an_interface);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
