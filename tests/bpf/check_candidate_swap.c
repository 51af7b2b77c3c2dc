/* links: hf_steer */
/*
 * Programs swapped while packets flow: none is lost, and nothing stays behind.
 *
 *    app ns (thread)               device ns
 *    eth0 ---- veth ---- app0 [XDP: swapped]
 *    10.9.0.2  datagrams ->  10.9.0.1, a socket that counts them
 */
#include "steer/candidate.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

enum { SWAPS = 100, RELOADS = 20, PORT = 9000, PAUSE_NS = 50000, IDS_MAX = 4096 };

static uv_loop_t loop;
static struct rtnl *rtnl;
static struct steer *steer;
static struct steer_trial *trial;

static int app_ns, device_ns, receiver;
static pthread_t sender;
static atomic_bool sending;
static uint64_t sent;

static void shell(const char *command)
{
	ck_assert_msg(system(command) == 0, "failed: %s", command);
}

static void on_event(void *arg, const char *what, const char *detail)
{
}

static int make_ns(void)
{
	int fd;

	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "needs CAP_SYS_ADMIN");
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void make_network(void)
{
	char command[512];

	app_ns = make_ns();
	device_ns = make_ns();
	snprintf(command, sizeof(command),
		 "ip link add app0 type veth peer name eth0 netns /proc/%d/fd/%d;"
		 "ip link set lo up; ip link set app0 up; ip addr add 10.9.0.1/24 dev app0",
		 getpid(), app_ns);
	shell(command);
	ck_assert_int_eq(setns(app_ns, CLONE_NEWNET), 0);
	shell("ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0");
	ck_assert_int_eq(setns(device_ns, CLONE_NEWNET), 0);
	shell("ping -c 1 -w 5 10.9.0.2 >/dev/null"); /* both know each other's address */
}

static void start_steer(void)
{
	static const char *const apps[] = {"app0"};
	struct steer_settings settings = {
		.host = true, .app_interfaces = apps, .app_interface_count = 1, .virtual_ttl = 1};
	char error[200] = "";

	ck_assert_int_eq(ip_prefix_parse("198.18.0.0/15", &settings.virtual_v4), 0);
	ck_assert_int_eq(ip_prefix_parse("fd5a:fe00::/64", &settings.virtual_v6), 0);
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(rtnl_new(&loop, &rtnl), 0);
	int r = steer_new(&loop, rtnl, &settings, on_event, NULL, error, sizeof(error), &steer);

	ck_assert_msg(r == 0, "steer_new: %s", error);
	r = steer_start(steer, error, sizeof(error));
	ck_assert_msg(r == 0, "steer_start: %s", error);
	ck_assert_int_eq(steer_trial_new(steer, NULL, 0, &trial), 0);
}

static void setup(void)
{
	ck_assert_msg(unshare(CLONE_NEWNS) == 0, "needs CAP_SYS_ADMIN");
	ck_assert_int_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ck_assert_int_eq(mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL), 0);
	shell("mkdir -p /run/holdfast");
	ck_assert_int_eq(mount("tmpfs", "/run/holdfast", "tmpfs", 0, NULL), 0);
	make_network();
	start_steer();
}

static void teardown(void)
{
	steer_trial_free(trial);
	steer_stop(steer, true);
	steer_close(steer);
	rtnl_close(rtnl);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

/* --- the flow --- */

static struct sockaddr_in device_address(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};

	inet_pton(AF_INET, "10.9.0.1", &to.sin_addr);
	return to;
}

static void *send_on(void *arg)
{
	const struct timespec pause = {.tv_nsec = PAUSE_NS};
	struct sockaddr_in to = device_address();
	int fd;

	if (setns(app_ns, CLONE_NEWNET) < 0)
		abort();
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	while (atomic_load(&sending)) {
		if (sendto(fd, &sent, sizeof(sent), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
			abort();
		sent++;
		nanosleep(&pause, NULL);
	}
	close(fd);
	return NULL;
}

static void start_flow(void)
{
	struct sockaddr_in to = device_address();
	int room = 64 << 20;

	receiver = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* What waits there while programs are swapped must find room. */
	ck_assert_int_eq(setsockopt(receiver, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)), 0);
	ck_assert_int_eq(bind(receiver, (struct sockaddr *)&to, sizeof(to)), 0);
	sent = 0;
	atomic_store(&sending, true);
	ck_assert_int_eq(pthread_create(&sender, NULL, send_on, NULL), 0);
}

/* Each number, in order, and no other. */
static void end_flow(void)
{
	uint64_t number, expected = 0;

	atomic_store(&sending, false);
	ck_assert_int_eq(pthread_join(sender, NULL), 0);
	while (read(receiver, &number, sizeof(number)) == sizeof(number))
		ck_assert_uint_eq(number, expected++);
	close(receiver);
	ck_assert_uint_eq(expected, sent);
	ck_assert_uint_ge(sent, SWAPS);
}

/* --- what is there --- */

static size_t count_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	size_t count = 0;

	ck_assert_ptr_nonnull(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

struct ids {
	uint32_t items[IDS_MAX];
	size_t count;
};

static void add_id(struct ids *ids, uint32_t id)
{
	ck_assert_uint_lt(ids->count, IDS_MAX);
	ids->items[ids->count++] = id;
}

static bool has_id(const struct ids *ids, uint32_t id)
{
	for (size_t i = 0; i < ids->count; i++)
		if (ids->items[i] == id)
			return true;
	return false;
}

/* The program that is on app0 now, and its maps. */
static void note_attached(struct ids *programs, struct ids *maps)
{
	uint32_t map_ids[64];
	struct bpf_prog_info info = {.map_ids = (uintptr_t)map_ids, .nr_map_ids = 64};
	__u32 len = sizeof(info);

	ck_assert_int_eq(rtnl_refresh(rtnl), 0);
	uint32_t id = rtnl_interface_by_name(rtnl, "app0")->xdp_prog_id;
	int fd = bpf_prog_get_fd_by_id(id);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	close(fd);
	add_id(programs, id);
	for (uint32_t i = 0; i < info.nr_map_ids; i++)
		if (!has_id(maps, map_ids[i]))
			add_id(maps, map_ids[i]);
}

/* The kernel frees behind a grace period; a number is not given again for long. */
static void assert_gone(const struct ids *ids, const struct ids *staying, int (*open_id)(uint32_t))
{
	for (size_t i = 0; i < ids->count; i++) {
		int tries = 500, fd;

		if (has_id(staying, ids->items[i]))
			continue;
		while ((fd = open_id(ids->items[i])) >= 0 && tries--) {
			close(fd);
			usleep(10000);
		}
		ck_assert_msg(fd < 0, "%u is still there", ids->items[i]);
	}
}

static struct steer_candidate *load_example(const char *name)
{
	static uint8_t bytes[HF_PROGRAM_BYTES_MAX];
	char path[PATH_MAX];
	struct steer_candidate *candidate;
	struct steer_report report;
	FILE *file;

	snprintf(path, sizeof(path), BPF_OBJECTS "/examples/%s.bpf.o", name);
	file = fopen(path, "re");
	ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
	size_t size = fread(bytes, 1, sizeof(bytes), file);

	fclose(file);
	int r = steer_candidate_load(trial, bytes, size, &report, &candidate);

	ck_assert_msg(r == 0, "%s", report.text);
	return candidate;
}

static struct ids staying_programs, staying_maps, programs, maps;

START_TEST(a_hundred_swaps_lose_no_packet_and_leave_nothing_behind)
{
	size_t before = count_descriptors();
	struct steer_candidate *both[] = {load_example("observe"), load_example("lockdown")};

	note_attached(&staying_programs, &staying_maps);
	start_flow();
	for (int i = 0; i < SWAPS; i++)
		ck_assert_int_eq(steer_activate(steer, both[i % 2]), 0);
	note_attached(&programs, &maps);
	ck_assert_int_eq(steer_activate(steer, both[0]), 0);
	note_attached(&programs, &maps);
	ck_assert_int_eq(steer_activate(steer, NULL), 0);
	end_flow();
	steer_candidate_free(both[0]);
	steer_candidate_free(both[1]);
	assert_gone(&programs, &staying_programs, bpf_prog_get_fd_by_id);
	assert_gone(&maps, &staying_maps, bpf_map_get_fd_by_id);
	ck_assert_uint_eq(count_descriptors(), before);
}
END_TEST

/* As a probation goes: watched, confirmed, replaced by the next. */
START_TEST(programs_that_are_loaded_watched_and_replaced_leave_nothing_behind)
{
	struct steer_candidate *old = NULL;
	size_t before = count_descriptors();

	note_attached(&staying_programs, &staying_maps);
	start_flow();
	for (int i = 0; i < RELOADS; i++) {
		struct steer_candidate *next = load_example(i % 2 ? "lockdown" : "observe");

		ck_assert_int_eq(steer_candidate_watch(next, true), 0);
		ck_assert_int_eq(steer_activate(steer, next), 0);
		note_attached(&programs, &maps);
		ck_assert_int_eq(steer_candidate_watch(next, false), 0);
		ck_assert_int_eq(steer_activate(steer, next), 0);
		note_attached(&programs, &maps);
		steer_candidate_free(old);
		old = next;
	}
	ck_assert_int_eq(steer_activate(steer, NULL), 0);
	end_flow();
	steer_candidate_free(old);
	ck_assert_uint_eq(programs.count, 2 * RELOADS);
	assert_gone(&programs, &staying_programs, bpf_prog_get_fd_by_id);
	assert_gone(&maps, &staying_maps, bpf_map_get_fd_by_id);
	ck_assert_uint_eq(count_descriptors(), before);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("candidate_swap");
	TCase *tests = tcase_create("candidate_swap");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, a_hundred_swaps_lose_no_packet_and_leave_nothing_behind);
	tcase_add_test(tests, programs_that_are_loaded_watched_and_replaced_leave_nothing_behind);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
