/*
 * One run of `./dev bench swap`: programs are swapped on app0 while datagrams of a known rate
 * come in there.
 *
 *    swap_program HOW SWAPS RATE OBJECT
 *
 * HOW: holdfast (steer_activate), replace (the netlink request of `ip -force link set`), detach
 * (the same, off and on) and ip-detach (by the ip command). Each swap loads OBJECT anew, swaps,
 * and frees the one before. Prints a JSON object.
 */
#include "lab.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <pthread.h>
#include <stdatomic.h>

enum { PORT = 9000, SWAPS_MAX = 10000, IDS_MAX = 1 << 16 };
#define PIN_FOLDER "/sys/fs/bpf/bench"

static const char *how;
static unsigned swaps, rate;
static const char *object_path;
static unsigned app0;

/* --- the flow --- */

static atomic_bool sending = true;
static atomic_ullong received;
static uint64_t sent;

static struct sockaddr_in device_socket(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};

	inet_pton(AF_INET, DEVICE_ADDRESS, &to.sin_addr);
	return to;
}

/* At times that are fixed beforehand: what is late catches up. */
static void *send_on(void *arg)
{
	struct sockaddr_in to = device_socket();
	uint64_t next = now_ns();
	int fd;

	enter(app_ns);
	prctl(PR_SET_TIMERSLACK, 1);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (; atomic_load(&sending); next += 1000000000 / rate) {
		struct timespec at = {(time_t)(next / 1000000000), (long)(next % 1000000000)};

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
		if (sendto(fd, &sent, sizeof(sent), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
			die("send: %m");
		sent++;
	}
	close(fd);
	return NULL;
}

static void *receive(void *arg)
{
	int fd = *(int *)arg;
	uint64_t number;

	ssize_t n;

	/* The end of a command that was run interrupts it. */
	while ((n = recv(fd, &number, sizeof(number), 0)) > 0 || (n < 0 && errno == EINTR))
		if (n > 0)
			atomic_fetch_add(&received, 1);
	return NULL;
}

static int receiver(void)
{
	struct timeval quiet = {.tv_sec = 1}; /* after the last */
	struct sockaddr_in at = device_socket();
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), room = 64 << 20;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof(quiet)) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		die("the receiver: %m");
	return fd;
}

/* --- what is there --- */

struct ids {
	uint32_t items[IDS_MAX];
	size_t count;
};
static struct ids programs, maps;

static void add_id(struct ids *ids, uint32_t id)
{
	for (size_t i = 0; i < ids->count; i++)
		if (ids->items[i] == id)
			return;
	if (ids->count == IDS_MAX)
		die("too many numbers");
	ids->items[ids->count++] = id;
}

/* The program on app0 and its maps. */
static void note_attached(void)
{
	uint32_t map_ids[64], id = 0;
	struct bpf_prog_info info = {.map_ids = (uintptr_t)map_ids, .nr_map_ids = 64};
	__u32 len = sizeof(info);
	int fd;

	if (bpf_xdp_query_id((int)app0, 0, &id) < 0 || !id)
		die("no program is attached");
	fd = bpf_prog_get_fd_by_id(id);
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		die("program %u: %m", id);
	close(fd);
	add_id(&programs, id);
	for (uint32_t i = 0; i < info.nr_map_ids; i++)
		add_id(&maps, map_ids[i]);
}

/* The kernel frees behind a grace period: up to 2 s for what will go. */
static unsigned still_there(const struct ids *ids, int (*open_id)(uint32_t), unsigned expected)
{
	unsigned count = expected + 1;

	for (int tries = 0; tries < 100 && count > expected; tries++) {
		count = 0;
		for (size_t i = 0; i < ids->count; i++) {
			int fd = open_id(ids->items[i]);

			count += fd >= 0;
			if (fd >= 0)
				close(fd);
		}
		usleep(20000);
	}
	return count;
}

static unsigned descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned count = 0;

	while (folder && readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/* --- Holdfast --- */

static struct steer_trial *trial;
static struct steer_candidate *candidate;
static uint8_t object[HF_PROGRAM_BYTES_MAX];
static size_t object_size;

static void read_object(void)
{
	FILE *file = fopen(object_path, "re");

	if (!file)
		die("%s: %m", object_path);
	object_size = fread(object, 1, sizeof(object), file);
	fclose(file);
}

static struct steer_candidate *load_candidate(void)
{
	struct steer_candidate *loaded;
	struct steer_report report;

	if (steer_candidate_load(trial, object, object_size, &report, &loaded) < 0)
		die("load: %s", report.text);
	return loaded;
}

static void holdfast_start(void)
{
	read_object();
	lab_steer_new();
	lab_steer_start();
	if (steer_trial_new(steer, NULL, 0, &trial) < 0)
		die("steer_trial_new");
}

static uint64_t holdfast_swap(void)
{
	struct steer_candidate *next = load_candidate();
	uint64_t start = now_ns();

	if (steer_activate(steer, next) < 0)
		die("steer_activate");
	start = now_ns() - start;
	steer_candidate_free(candidate);
	candidate = next;
	return start;
}

static uint64_t holdfast_counted(void)
{
	struct steer_counter *counters;
	uint64_t packets = 0;
	size_t count;

	if (steer_counters(steer, &counters, &count) < 0)
		die("steer_counters");
	for (size_t i = 0; i < count; i++)
		if (counters[i].hook == HF_HOOK_STEER && !strcmp(counters[i].interface, "app0"))
			packets += counters[i].packets;
	free(counters);
	return packets;
}

static void holdfast_tidy(void)
{
	if (steer_activate(steer, NULL) < 0)
		die("the built-in program");
	steer_candidate_free(candidate);
	candidate = NULL;
}

/* --- without it --- */

static struct bpf_object *loaded_object;
static int counters_fd = -1;

/* The counters are pinned by name, so that all that are loaded share them. */
static struct bpf_object *load_object(void)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = PIN_FOLDER);
	struct bpf_object *opened = bpf_object__open_file(object_path, &opts);

	if (!opened || bpf_object__load(opened) < 0)
		die("%s: %m", object_path);
	return opened;
}

static int program_of(struct bpf_object *of)
{
	return bpf_program__fd(bpf_object__next_program(of, NULL));
}

static void attach(int fd)
{
	if (bpf_xdp_attach((int)app0, fd, XDP_FLAGS_SKB_MODE, NULL) < 0)
		die("attach: %m");
}

static void plain_start(void)
{
	shell("mkdir -p " PIN_FOLDER);
	loaded_object = load_object();
	counters_fd = bpf_obj_get(PIN_FOLDER "/counters");
	if (counters_fd < 0)
		die("the counters: %m");
	attach(program_of(loaded_object));
}

static void swap_by_command(int fd)
{
	shell("ip link set dev app0 xdpgeneric off &&"
	      "ip link set dev app0 xdpgeneric pinned " PIN_FOLDER "/next");
}

static void swap_by_request(int fd)
{
	if (!strcmp(how, "detach") && bpf_xdp_detach((int)app0, XDP_FLAGS_SKB_MODE, NULL) < 0)
		die("detach: %m");
	attach(fd);
}

static uint64_t plain_swap(void)
{
	bool by_command = !strcmp(how, "ip-detach");
	struct bpf_object *next = load_object();
	uint64_t start;

	if (by_command && bpf_obj_pin(program_of(next), PIN_FOLDER "/next") < 0)
		die("pin: %m");
	start = now_ns();
	(by_command ? swap_by_command : swap_by_request)(program_of(next));
	start = now_ns() - start;
	if (by_command)
		unlink(PIN_FOLDER "/next");
	bpf_object__close(loaded_object);
	loaded_object = next;
	return start;
}

static uint64_t plain_counted(void)
{
	struct hf_counter values[256];
	struct hf_counter_key key, *before = NULL;
	uint64_t packets = 0;

	for (; bpf_map_get_next_key(counters_fd, before, &key) == 0; before = &key) {
		if (bpf_map_lookup_elem(counters_fd, &key, values) < 0)
			die("counters: %m");
		for (int i = 0; i < libbpf_num_possible_cpus() && key.ifindex == app0; i++)
			packets += values[i].packets;
	}
	return packets;
}

static void plain_tidy(void)
{
}

/* --- the run --- */

static const struct way {
	void (*start)(void);
	uint64_t (*swap)(void);
	uint64_t (*counted)(void);
	void (*tidy)(void);
} holdfast_way = {holdfast_start, holdfast_swap, holdfast_counted, holdfast_tidy},
  plain_way = {plain_start, plain_swap, plain_counted, plain_tidy};

static int by_size(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void swap_all(const struct way *way, uint64_t *times)
{
	pthread_t sender, sink;
	int fd = receiver();

	pthread_create(&sink, NULL, receive, &fd);
	pthread_create(&sender, NULL, send_on, NULL);
	for (unsigned i = 0; i < swaps; i++) {
		times[i] = way->swap();
		note_attached();
	}
	atomic_store(&sending, false);
	pthread_join(sender, NULL);
	pthread_join(sink, NULL);
	close(fd);
}

static void run(const struct way *way)
{
	static uint64_t times[SWAPS_MAX];
	unsigned before, programs_before, maps_before;
	uint64_t counted;

	way->start();
	note_attached();
	before = descriptors();
	programs_before = (unsigned)programs.count;
	maps_before = (unsigned)maps.count;
	counted = way->counted();
	swap_all(way, times);
	counted = way->counted() - counted;
	way->tidy();
	qsort(times, swaps, sizeof(*times), by_size);
	printf("{\"sent\": %ju, \"received\": %ju, \"counted\": %ju, \"median_ns\": %ju, "
	       "\"programs_seen\": %zu, \"programs_left\": %d, \"maps_left\": %d, "
	       "\"descriptors_left\": %d}\n",
	       (uintmax_t)sent, (uintmax_t)atomic_load(&received), (uintmax_t)counted,
	       (uintmax_t)times[swaps / 2], programs.count,
	       (int)still_there(&programs, bpf_prog_get_fd_by_id, programs_before) -
		       (int)programs_before,
	       (int)still_there(&maps, bpf_map_get_fd_by_id, maps_before) - (int)maps_before,
	       (int)descriptors() - (int)before);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		die("usage: swap_program HOW SWAPS RATE OBJECT");
	how = argv[1];
	swaps = (unsigned)atoi(argv[2]);
	rate = (unsigned)atoi(argv[3]);
	object_path = argv[4];
	if (strcmp(how, "holdfast") && strcmp(how, "replace") && strcmp(how, "detach") &&
	    strcmp(how, "ip-detach"))
		die("no way to swap: %s", how);
	if (!swaps || swaps > SWAPS_MAX || !rate)
		die("swaps and rate are numbers from 1");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	lab_make();
	app0 = if_nametoindex("app0");
	libbpf_set_print(NULL);
	if (strcmp(how, "holdfast")) {
		run(&plain_way);
		return 0;
	}
	run(&holdfast_way);
	steer_trial_free(trial);
	lab_steer_end();
	return 0;
}
