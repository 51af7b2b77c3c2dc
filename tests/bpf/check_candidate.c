/* links: hf_steer */
/*
 * Programs that are uploaded, against a real kernel, in namespaces of the test's own: which are
 * taken, which are not, and what is said then.
 *
 *    app ns                device ns (this process)
 *    eth0 -- veth -- app0 [XDP]   lo [XDP]
 *    10.9.0.2        10.9.0.1
 *    fd09::2         fd09::1
 */
#include "steer/candidate.h"
#include "steer/corpus.h"

#include <bpf/bpf.h>
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static uv_loop_t loop;
static struct rtnl *rtnl;
static struct steer *steer;
static struct steer_trial *trial;
static struct steer_report report;

static struct object {
	uint8_t bytes[HF_PROGRAM_BYTES_MAX + 1];
	size_t size;
} object;

static void shell(const char *command)
{
	ck_assert_msg(system(command) == 0, "failed: %s", command);
}

static void on_event(void *arg, const char *what, const char *detail)
{
}

static void read_object(const char *folder, const char *name)
{
	char path[PATH_MAX];
	FILE *file;

	snprintf(path, sizeof(path), BPF_OBJECTS "/%s/%s.bpf.o", folder, name);
	file = fopen(path, "re");
	ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
	object.size = fread(object.bytes, 1, sizeof(object.bytes), file);
	fclose(file);
}

static struct ip to_ip(const char *text)
{
	struct ip ip;

	ck_assert_int_eq(ip_parse(text, &ip), 0);
	return ip;
}

static void new_trial(void)
{
	struct steer_peer peers[] = {
		{.interface = "lo", .local = to_ip("127.0.0.1"), .local_port = 7080},
		{.local = to_ip("10.9.0.1"), .remote = to_ip("0.0.0.0"), .local_port = 7080},
		{.interface = "app0",
		 .local = to_ip("fd09::1"),
		 .remote = to_ip("fd09::2"),
		 .local_port = 7080,
		 .remote_port = 51234},
	};

	ck_assert_int_eq(steer_trial_new(steer, peers, sizeof(peers) / sizeof(*peers), &trial), 0);
}

static void start_steer(void)
{
	static const char *const apps[] = {"app0", "later0"};
	struct steer_settings settings = {
		.host = true, .app_interfaces = apps, .app_interface_count = 2, .virtual_ttl = 1};
	char error[200] = "";

	ck_assert_int_eq(ip_prefix_parse("198.18.0.0/15", &settings.virtual_v4), 0);
	ck_assert_int_eq(ip_prefix_parse("fd5a:fe00::/64", &settings.virtual_v6), 0);
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(rtnl_new(&loop, &rtnl), 0);
	int r = steer_new(&loop, rtnl, &settings, on_event, NULL, error, sizeof(error), &steer);

	ck_assert_msg(r == 0, "steer_new: %s", error);
}

static void run_steer(void)
{
	char error[200] = "";
	int r = steer_start(steer, error, sizeof(error));

	ck_assert_msg(r == 0, "steer_start: %s", error);
}

static void setup(void)
{
	ck_assert_msg(unshare(CLONE_NEWNS | CLONE_NEWNET) == 0, "needs CAP_SYS_ADMIN");
	ck_assert_int_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ck_assert_int_eq(mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL), 0);
	shell("mkdir -p /run/holdfast");
	ck_assert_int_eq(mount("tmpfs", "/run/holdfast", "tmpfs", 0, NULL), 0);
	shell("ip link set lo up; ip link add app0 type veth peer name eth0;"
	      "ip link set app0 up; ip link set eth0 up; ip addr add 10.9.0.1/24 dev app0;"
	      "ip addr add fd09::1/64 dev app0 nodad");
	start_steer();
	run_steer();
	new_trial();
}

static void teardown(void)
{
	steer_report_done(&report);
	steer_trial_free(trial);
	steer_stop(steer, true);
	steer_close(steer);
	rtnl_close(rtnl);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

/* --- what is taken --- */

static const char *const examples[] = {"observe", "lockdown", "dns-port"};

START_TEST(an_example_passes_the_trial_and_loads)
{
	struct steer_candidate *candidate;
	struct hf_program says;

	read_object("examples", examples[_i]);
	ck_assert_int_eq(steer_program_read(object.bytes, object.size, &says, &report), 0);
	ck_assert_str_eq(says.name, examples[_i]);
	ck_assert_str_eq(says.version, "1.0.0");
	int r = steer_trial_run(trial, object.bytes, object.size, &report);

	ck_assert_msg(r == 0, "%s: %s\n%s", steer_check_name(report.check), report.text,
		      report.log ? report.log : "");
	r = steer_candidate_load(trial, object.bytes, object.size, &report, &candidate);
	ck_assert_msg(r == 0, "%s", report.text);
	steer_candidate_free(candidate);
}
END_TEST

/* What the tests of probation need is taken: nothing that the corpus asks for is wrong with it. */
static const char *const harmful[] = {"drops", "aborts"};

START_TEST(a_program_that_does_harm_elsewhere_passes_the_trial)
{
	read_object("bad", harmful[_i]);
	int r = steer_trial_run(trial, object.bytes, object.size, &report);

	ck_assert_msg(r == 0, "%s", report.text);
}
END_TEST

START_TEST(the_trial_does_not_need_an_app_interface_to_be_there)
{
	shell("ip link del app0");
	steer_trial_free(trial);
	ck_assert_int_eq(rtnl_refresh(rtnl), 0);
	new_trial();
	read_object("bad", "aborts-on-arp");
	ck_assert_int_eq(steer_trial_run(trial, object.bytes, object.size, &report), -EINVAL);
	read_object("examples", "lockdown");
	ck_assert_int_eq(steer_trial_run(trial, object.bytes, object.size, &report), 0);
}
END_TEST

START_TEST(an_interface_that_goes_during_the_trial_is_left_out)
{
	shell("ip link del app0");
	read_object("examples", "observe");
	int r = steer_trial_run(trial, object.bytes, object.size, &report);

	ck_assert_msg(r == 0, "%s", report.text);
}
END_TEST

/* What the corpus asks for is what the built-in program does. */
START_TEST(the_built_in_program_passes_the_corpus)
{
	struct bpf_object *built_in;
	char said[256];
	size_t size;
	const void *elf = programs_elf(OBJECT_STEER, &size);

	ck_assert_int_eq(trial_open(elf, size, said, sizeof(said), &built_in), 0);
	ck_assert_int_eq(trial_share(trial, built_in, TRIAL_MAPS_OWN), 0);
	struct bpf_program *program = programs_find(built_in, OBJECT_STEER);

	programs_set_frags(built_in, program, trial->frags);
	ck_assert_int_eq(bpf_object__load(built_in), 0);
	int r = corpus_run(trial, built_in, program, &report);

	ck_assert_msg(r == 0, "%s", report.text);
	bpf_object__close(built_in);
}
END_TEST

/* --- what is not --- */

static const struct refusal {
	const char *name;
	enum steer_check check;
	const char *text; /* part of it */
} refusals[] = {
	{"no-metadata", STEER_CHECK_METADATA, "no section .holdfast"},
	{"bad-version", STEER_CHECK_METADATA, "MAJOR.MINOR.PATCH"},
	{"unknown-abi", STEER_CHECK_ABI, "ABI 77"},
	{"wrong-type", STEER_CHECK_TYPE, "wrong program type: section \"tc\""},
	{"two-programs", STEER_CHECK_TYPE, "it has 2 programs"},
	{"map-shape", STEER_CHECK_MAPS,
	 "map \"settings\" does not fit the one in service: its "
	 "value size is 160 there and 8 here"},
	{"map-large", STEER_CHECK_MAPS, "take more than 8 MiB"},
	{"map-calls", STEER_CHECK_MAPS, "map \"calls\" is of a type that a program may not bring"},
	{"map-pinned", STEER_CHECK_MAPS, "map \"left_behind\" is to be pinned"},
	{"map-guard", STEER_CHECK_MAPS, "map \"guard_allow\" belongs to another hook"},
	{"verifier", STEER_CHECK_VERIFIER, "outside of the packet"},
	{"aborts-on-arp", STEER_CHECK_CORPUS,
	 "an ARP request for the device on lo: expected XDP_PASS, got XDP_ABORTED"},
	{"drops-api", STEER_CHECK_CORPUS,
	 "a connection to the API, TCP SYN from 127.0.0.1 port 40000 to 127.0.0.1 port 7080 on "
	 "lo: expected XDP_PASS, got XDP_DROP"},
	{"forgets", STEER_CHECK_CORPUS, "an ARP request for the device on"},
	{"writes", STEER_CHECK_CORPUS, "expected its bytes unchanged"},
	{"wrong-golden", STEER_CHECK_GOLDEN,
	 "golden packet \"ARP is dropped\": expected XDP_DROP, got XDP_PASS"},
	{"wrong-bytes", STEER_CHECK_GOLDEN,
	 "golden packet \"an octet is changed\": expected 0x07 at octet 13, got 0x06"},
};

START_TEST(a_bad_program_is_refused_with_its_reason)
{
	const struct refusal *refusal = &refusals[_i];

	read_object("bad", refusal->name);
	ck_assert_int_eq(steer_trial_run(trial, object.bytes, object.size, &report), -EINVAL);
	ck_assert_msg(report.check == refusal->check, "%s: %s: %s", refusal->name,
		      steer_check_name(report.check), report.text);
	ck_assert_msg(strstr(report.text, refusal->text) != NULL, "%s: %s", refusal->name,
		      report.text);
	if (refusal->check == STEER_CHECK_VERIFIER)
		ck_assert_ptr_nonnull(strstr(report.log, "invalid access to packet"));
	else
		ck_assert_ptr_null(report.log);
	ck_assert_int_ne(access("/sys/fs/bpf/left_behind", F_OK), 0);
}
END_TEST

START_TEST(of_a_long_log_the_end_is_kept)
{
	read_object("bad", "verifier-long");
	ck_assert_int_eq(steer_trial_run(trial, object.bytes, object.size, &report), -EINVAL);
	ck_assert_int_eq(report.check, STEER_CHECK_VERIFIER);
	ck_assert_uint_eq(strlen(report.log), TRIAL_LOG_MAX - 1);
	ck_assert_ptr_nonnull(strstr(report.log, "invalid access to packet"));
}
END_TEST

static void assert_read_refused(enum steer_check check)
{
	struct hf_program says;

	ck_assert_int_eq(steer_program_read(object.bytes, object.size, &says, &report), -EINVAL);
	ck_assert_msg(report.check == check, "%s: %s", steer_check_name(report.check), report.text);
	ck_assert_int_gt(strlen(report.text), 0);
}

START_TEST(what_is_no_object_is_refused)
{
	object.size = 0;
	assert_read_refused(STEER_CHECK_ELF);
	memset(object.bytes, 'x', 4096);
	object.size = 4096;
	assert_read_refused(STEER_CHECK_ELF);
	object.size = sizeof(object.bytes);
	assert_read_refused(STEER_CHECK_SIZE);
	/* a program of this machine */
	FILE *file = fopen("/proc/self/exe", "re");

	object.size = fread(object.bytes, 1, 65536, file);
	fclose(file);
	assert_read_refused(STEER_CHECK_ELF);
}
END_TEST

START_TEST(an_object_that_is_cut_off_is_refused)
{
	read_object("examples", "lockdown");
	for (size_t whole = object.size; object.size > 0;) {
		object.size = object.size > whole / 64 ? object.size - whole / 64 : 0;
		assert_read_refused(STEER_CHECK_ELF);
	}
}
END_TEST

/* Each octet spoilt: it is read or refused, and AddressSanitizer has nothing to say. */
START_TEST(an_object_that_is_damaged_is_read_or_refused)
{
	struct hf_program says;
	size_t refused = 0;

	read_object("examples", "dns-port");
	for (size_t i = 0; i < object.size; i++) {
		uint8_t was = object.bytes[i];

		object.bytes[i] = (uint8_t)~was;
		refused += steer_program_read(object.bytes, object.size, &says, &report) < 0;
		object.bytes[i] = was;
	}
	ck_assert_uint_gt(refused, 200);
	ck_assert_uint_lt(refused, object.size);
}
END_TEST

START_TEST(types_that_refer_to_nothing_are_refused)
{
	struct hf_program says;
	uint8_t *btf = NULL;

	read_object("examples", "observe");
	for (size_t i = 0; i + 24 < object.size && !btf; i++)
		if (!memcmp(object.bytes + i, "\x9f\xeb\x01\x00\x18\x00\x00\x00", 8))
			btf = object.bytes + i;
	ck_assert_ptr_nonnull(btf);
	ck_assert_int_eq(steer_program_read(object.bytes, object.size, &says, &report), 0);
	memset(btf + 24 + 8, 0xee, 4); /* what the first type, a pointer, points to */
	assert_read_refused(STEER_CHECK_ELF);
	ck_assert_msg(strstr(report.text, "its BTF: a type refers to one that is not there") !=
			      NULL,
		      "%s", report.text);
}
END_TEST

/* --- in service --- */

static uint32_t attached_to(const char *interface)
{
	ck_assert_int_eq(rtnl_refresh(rtnl), 0);
	return rtnl_interface_by_name(rtnl, interface)->xdp_prog_id;
}

static void assert_named(const char *name)
{
	struct steer_program_info *programs;
	size_t count, seen = 0;

	ck_assert_int_eq(steer_programs(steer, &programs, &count), 0);
	for (size_t i = 0; i < count; i++) {
		if (strcmp(programs[i].hook, "steer") != 0)
			continue;
		ck_assert_str_eq(programs[i].name, name);
		ck_assert_uint_eq(programs[i].id, attached_to(programs[i].interface));
		seen++;
	}
	ck_assert_uint_eq(seen, 2);
	free(programs);
}

static struct steer_candidate *load_program(const char *folder, const char *name)
{
	struct steer_candidate *candidate;

	read_object(folder, name);
	ck_assert_int_eq(
		steer_candidate_load(trial, object.bytes, object.size, &report, &candidate), 0);
	return candidate;
}

static struct steer_candidate *load_example(const char *name)
{
	return load_program("examples", name);
}

START_TEST(an_activated_program_is_on_every_interface_and_the_built_in_one_comes_back)
{
	struct steer_candidate *observe = load_example("observe");
	uint32_t built_in = attached_to("app0");

	ck_assert_ptr_null(steer_active(steer));
	ck_assert_int_eq(steer_activate(steer, observe), 0);
	ck_assert_ptr_eq(steer_active(steer), observe);
	ck_assert_uint_ne(attached_to("app0"), built_in);
	ck_assert_uint_eq(attached_to("app0"), attached_to("lo"));
	assert_named("observe");
	ck_assert_int_eq(steer_activate(steer, NULL), 0);
	ck_assert_ptr_null(steer_active(steer));
	ck_assert_uint_eq(attached_to("app0"), built_in);
	ck_assert_uint_eq(attached_to("lo"), built_in);
	assert_named("hf_steer");
	steer_candidate_free(observe);
}
END_TEST

static void on_deadline(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

static void run_until_attached(const char *interface)
{
	uv_timer_t timer;

	ck_assert_int_eq(uv_timer_init(&loop, &timer), 0);
	for (int i = 0; i < 500; i++) {
		const struct rtnl_interface *found;

		ck_assert_int_eq(uv_timer_start(&timer, on_deadline, 10, 0), 0);
		uv_run(&loop, UV_RUN_DEFAULT);
		ck_assert_int_eq(rtnl_refresh(rtnl), 0);
		found = rtnl_interface_by_name(rtnl, interface);
		if (found && found->xdp_prog_id)
			break;
	}
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
}

START_TEST(an_interface_that_comes_later_gets_the_program_in_service)
{
	struct steer_candidate *observe = load_example("observe");

	ck_assert_int_eq(steer_activate(steer, observe), 0);
	shell("ip link add later0 type veth peer name later1; ip link set later0 up");
	run_until_attached("later0");
	ck_assert_uint_eq(attached_to("later0"), attached_to("lo"));
	ck_assert_int_eq(steer_activate(steer, NULL), 0);
	ck_assert_uint_eq(attached_to("later0"), attached_to("lo"));
	steer_candidate_free(observe);
}
END_TEST

START_TEST(an_interface_that_is_gone_does_not_stop_an_activation)
{
	struct steer_candidate *observe = load_example("observe");
	uint32_t built_in = attached_to("lo");

	shell("ip link del app0");
	ck_assert_int_eq(steer_activate(steer, observe), 0);
	ck_assert_uint_ne(attached_to("lo"), built_in);
	ck_assert_int_eq(steer_activate(steer, NULL), 0);
	steer_candidate_free(observe);
}
END_TEST

/* later0 with XDP in native mode, which steer asks for on real cards only: it adopts the pin. */
static void add_native_interface(void)
{
	const struct bpf_insn pass[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = XDP_PASS},
					{.code = BPF_JMP | BPF_EXIT}};
	LIBBPF_OPTS(bpf_prog_load_opts, load, .prog_flags = BPF_F_XDP_HAS_FRAGS,
		    .expected_attach_type = BPF_XDP);
	LIBBPF_OPTS(bpf_link_create_opts, native, .flags = XDP_FLAGS_DRV_MODE);
	char pin[128];
	struct stat ns;
	int program, link;

	shell("ip link add later0 mtu 9000 type veth peer name later1 mtu 9000;"
	      "ip link set later0 up; ip link set later1 up");
	program = bpf_prog_load(BPF_PROG_TYPE_XDP, "pass", "GPL", pass, 2, &load);
	ck_assert_int_ge(program, 0);
	link = bpf_link_create(program, (int)if_nametoindex("later0"), BPF_XDP, &native);
	ck_assert_int_ge(link, 0);
	ck_assert_int_eq(stat("/proc/self/ns/net", &ns), 0);
	snprintf(pin, sizeof(pin), "/sys/fs/bpf/holdfast/%lu/link_xdp_%u", (unsigned long)ns.st_ino,
		 if_nametoindex("later0"));
	ck_assert_int_eq(bpf_obj_pin(link, pin), 0);
	close(link);
	close(program);
	ck_assert_int_eq(rtnl_refresh(rtnl), 0);
	run_steer();
}

/* Native mode takes no program without frags where packets can be larger than a page. app0
 * comes first, and takes it. */
START_TEST(when_one_interface_refuses_a_program_all_keep_the_one_before)
{
	struct steer_candidate *observe = load_example("observe");
	struct steer_candidate *plain = load_program("bad", "writes");
	static const char *const interfaces[] = {"app0", "later0", "lo"};

	add_native_interface();
	ck_assert_int_eq(steer_activate(steer, observe), 0);
	uint32_t before = attached_to("app0");

	ck_assert_int_eq(steer_activate(steer, plain), -ERANGE);
	ck_assert_ptr_eq(steer_active(steer), observe);
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(attached_to(interfaces[i]), before);
	shell("ip link del later0");
	ck_assert_int_eq(steer_activate(steer, plain), 0);
	ck_assert_uint_ne(attached_to("app0"), before);
	ck_assert_int_eq(steer_activate(steer, NULL), 0);
	steer_candidate_free(plain);
	steer_candidate_free(observe);
}
END_TEST

/* The program that is attached stays, until start gives the one that was chosen meanwhile. */
START_TEST(after_a_restart_the_program_goes_on_and_the_chosen_one_follows)
{
	struct steer_candidate *observe = load_example("observe");

	ck_assert_int_eq(steer_activate(steer, observe), 0);
	uint32_t before = attached_to("lo");

	steer_trial_free(trial);
	steer_stop(steer, false);
	steer_close(steer);
	steer_candidate_free(observe);
	rtnl_close(rtnl);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	start_steer();
	new_trial();
	ck_assert_uint_eq(attached_to("lo"), before);
	struct steer_candidate *lockdown = load_example("lockdown");

	ck_assert_int_eq(steer_activate(steer, lockdown), 0);
	ck_assert_uint_eq(attached_to("lo"), before);
	run_steer();
	ck_assert_uint_ne(attached_to("lo"), before);
	ck_assert_uint_eq(attached_to("app0"), attached_to("lo"));
	assert_named("lockdown");
	ck_assert_int_eq(steer_activate(steer, NULL), 0);
	steer_candidate_free(lockdown);
}
END_TEST

START_TEST(a_watched_program_is_counted_and_an_unwatched_one_is_not)
{
	struct steer_candidate *observe = load_example("observe");
	struct steer_watch_counts counts;

	ck_assert_int_eq(steer_candidate_counts(observe, &counts), -ENOENT);
	ck_assert_int_eq(steer_candidate_watch(observe, true), 0);
	ck_assert_int_eq(steer_activate(steer, observe), 0);
	assert_named("observe");
	shell("ping -c 3 -i 0.01 127.0.0.1 >/dev/null");
	ck_assert_int_eq(steer_candidate_counts(observe, &counts), 0);
	ck_assert_uint_ge(counts.passed, 6);
	ck_assert_uint_eq(counts.aborted + counts.dropped + counts.sent + counts.redirected, 0);
	uint32_t watched = attached_to("lo");

	ck_assert_int_eq(steer_candidate_watch(observe, false), 0);
	ck_assert_int_eq(steer_activate(steer, observe), 0);
	ck_assert_uint_ne(attached_to("lo"), watched);
	assert_named("observe");
	ck_assert_int_eq(steer_activate(steer, NULL), 0);
	steer_candidate_free(observe);
}
END_TEST

/* The program is put in service with the live maps: what it counts is seen. */
START_TEST(a_program_in_service_counts_in_the_shared_counters)
{
	struct steer_candidate *observe = load_example("observe");
	struct steer_counter *counters;
	size_t count, packets = 0;

	ck_assert_int_eq(steer_activate(steer, observe), 0);
	shell("ping -c 3 -i 0.01 127.0.0.1 >/dev/null");
	ck_assert_int_eq(steer_counters(steer, &counters, &count), 0);
	for (size_t i = 0; i < count; i++)
		if (counters[i].reason == HF_REASON_CUSTOM && !strcmp(counters[i].interface, "lo"))
			packets += counters[i].packets;
	ck_assert_uint_ge(packets, 6);
	free(counters);
	ck_assert_int_eq(steer_activate(steer, NULL), 0);
	steer_candidate_free(observe);
}
END_TEST

/* And a trial counts nothing there. */
START_TEST(a_trial_leaves_the_live_maps_alone)
{
	struct steer_counter *counters;
	size_t count;

	read_object("examples", "observe");
	ck_assert_int_eq(steer_trial_run(trial, object.bytes, object.size, &report), 0);
	ck_assert_int_eq(steer_counters(steer, &counters, &count), 0);
	for (size_t i = 0; i < count; i++)
		ck_assert_int_ne(counters[i].reason, HF_REASON_CUSTOM);
	free(counters);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("candidate");
	TCase *tests = tcase_create("candidate");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, an_example_passes_the_trial_and_loads, 0,
			    sizeof(examples) / sizeof(*examples));
	tcase_add_loop_test(tests, a_program_that_does_harm_elsewhere_passes_the_trial, 0,
			    sizeof(harmful) / sizeof(*harmful));
	tcase_add_test(tests, the_trial_does_not_need_an_app_interface_to_be_there);
	tcase_add_test(tests, an_interface_that_goes_during_the_trial_is_left_out);
	tcase_add_test(tests, the_built_in_program_passes_the_corpus);
	tcase_add_loop_test(tests, a_bad_program_is_refused_with_its_reason, 0,
			    sizeof(refusals) / sizeof(*refusals));
	tcase_add_test(tests, of_a_long_log_the_end_is_kept);
	tcase_add_test(tests, what_is_no_object_is_refused);
	tcase_add_test(tests, an_object_that_is_cut_off_is_refused);
	tcase_add_test(tests, an_object_that_is_damaged_is_read_or_refused);
	tcase_add_test(tests, types_that_refer_to_nothing_are_refused);
	tcase_add_test(tests,
		       an_activated_program_is_on_every_interface_and_the_built_in_one_comes_back);
	tcase_add_test(tests, an_interface_that_comes_later_gets_the_program_in_service);
	tcase_add_test(tests, an_interface_that_is_gone_does_not_stop_an_activation);
	tcase_add_test(tests, when_one_interface_refuses_a_program_all_keep_the_one_before);
	tcase_add_test(tests, after_a_restart_the_program_goes_on_and_the_chosen_one_follows);
	tcase_add_test(tests, a_watched_program_is_counted_and_an_unwatched_one_is_not);
	tcase_add_test(tests, a_program_in_service_counts_in_the_shared_counters);
	tcase_add_test(tests, a_trial_leaves_the_live_maps_alone);
	suite_add_tcase(suite, tests);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
