/*
 * One run of `./dev bench steer`: an app's packets are brought to a sink, by whatever the
 * shell script on standard input, run in the device's namespace, makes, or by steer.
 *
 *    load_program KIND SECONDS TARGET [DIRECT]
 *
 * KIND: tcp (connections, one after another on each of two threads; the sink answers and
 * closes), udp or dns (datagrams to port 5000 or 53, as many as go). TARGET: first three numbers of
 * the addresses that the app wants to reach. With DIRECT steer works, and must know that many
 * direct networks before it begins. Prints a JSON object.
 */
#include "lab.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { TCP_PORT = 80, UDP_PORT = 5000, DNS_PORT = 53, TARGETS = 200 };

/* The question "bench.example A": what is not known is the resolver's. */
static const uint8_t question[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
				  "\x05"
				  "bench\x07"
				  "example\x00\x00\x01\x00\x01";

static const char *kind, *target;
static double seconds;
static atomic_bool going = true;
static atomic_ullong connections, sent, received, failed;
static int tcp_fd, udp_fd, dns_fd;

/* --- the sink --- */

static int sink_socket(int type, uint16_t port)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), one = 1, room = 8 << 20;

	if (setsockopt(fd, SOL_IP, IP_TRANSPARENT, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0 ||
	    bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 ||
	    (type == SOCK_STREAM && listen(fd, 4096) < 0))
		die("the sink on %u: %m", port);
	return fd;
}

static void *serve_tcp(void *arg)
{
	int fd;

	while ((fd = accept4(tcp_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		if (send(fd, "ok", 2, MSG_NOSIGNAL) < 0)
			atomic_fetch_add(&failed, 1);
		close(fd);
	}
	return NULL;
}

static void *serve_udp(void *arg)
{
	enum { BATCH = 32 };
	static uint8_t bytes[BATCH][64];
	struct mmsghdr messages[BATCH] = {};
	struct iovec parts[BATCH];
	int fd = *(int *)arg, n;

	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){bytes[i], sizeof(bytes[i])};
		messages[i].msg_hdr.msg_iov = &parts[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	while ((n = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL)) >= 0 || errno == EINTR)
		if (n > 0)
			atomic_fetch_add(&received, (unsigned)n);
	return NULL;
}

static void start_sink(void)
{
	pthread_t thread;

	tcp_fd = sink_socket(SOCK_STREAM, TCP_PORT);
	udp_fd = sink_socket(SOCK_DGRAM, UDP_PORT);
	dns_fd = sink_socket(SOCK_DGRAM, DNS_PORT);
	/* They end with the process. */
	pthread_create(&thread, NULL, serve_tcp, NULL);
	pthread_create(&thread, NULL, serve_udp, strcmp(kind, "dns") ? &udp_fd : &dns_fd);
}

/* --- the app --- */

static struct sockaddr_in destination(unsigned number, uint16_t port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	char text[32];

	snprintf(text, sizeof(text), "%s.%u", target, 1 + number % TARGETS);
	if (inet_pton(AF_INET, text, &to.sin_addr) != 1)
		die("no address: %s", text);
	return to;
}

static bool connect_once(const struct sockaddr_in *to)
{
	struct timeval limit = {.tv_sec = 2};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char answer[8];
	bool good;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	good = connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0 &&
	       recv(fd, answer, sizeof(answer), MSG_WAITALL) == 2;
	close(fd);
	return good;
}

static void *run_tcp(void *arg)
{
	enter(app_ns);
	for (unsigned i = 0; atomic_load(&going); i++) {
		struct sockaddr_in to = destination(i, TCP_PORT);

		if (connect_once(&to))
			atomic_fetch_add(&connections, 1);
		else if (atomic_load(&going))
			atomic_fetch_add(&failed, 1);
	}
	return NULL;
}

static void *run_udp(void *arg)
{
	uint16_t port = strcmp(kind, "dns") ? UDP_PORT : DNS_PORT;
	int fd;

	enter(app_ns);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (unsigned i = 0; atomic_load(&going); i++) {
		struct sockaddr_in to = destination(i, port);

		if (sendto(fd, question, sizeof(question) - 1, 0, (struct sockaddr *)&to,
			   sizeof(to)) < 0)
			atomic_fetch_add(&failed, 1);
		else
			atomic_fetch_add(&sent, 1);
	}
	close(fd);
	return NULL;
}

/* --- steer --- */

static void on_time(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

/* The daemon's loop keeps the heartbeat going. */
static void wait_for(unsigned ms)
{
	uv_timer_t timer;

	if (!steer) {
		usleep(ms * 1000);
		return;
	}
	uv_timer_init(&loop, &timer);
	uv_timer_start(&timer, on_time, ms, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
}

static unsigned direct_count(void)
{
	struct hf_prefix key, *before = NULL;
	unsigned count = 0;
	struct stat ns;
	char path[100];
	int fd;

	if (stat("/proc/thread-self/ns/net", &ns) < 0)
		die("the namespace: %m");
	snprintf(path, sizeof(path), "/sys/fs/bpf/holdfast/%ju/direct", (uintmax_t)ns.st_ino);
	fd = bpf_obj_get(path);
	if (fd < 0)
		die("%s: %m", path);
	for (; bpf_map_get_next_key(fd, before, &key) == 0; before = &key)
		count++;
	close(fd);
	return count;
}

static void start_steer(unsigned direct)
{
	lab_steer_new();
	if (steer_set_listener(steer, HF_SOCKET_PROXY_TCP4, tcp_fd) < 0 ||
	    steer_set_listener(steer, HF_SOCKET_RELAY_UDP4, udp_fd) < 0 ||
	    steer_set_listener(steer, HF_SOCKET_DNS_UDP4, dns_fd) < 0 ||
	    steer_set_flags(steer, HF_FLAG_ONLINE) < 0)
		die("steer takes no sockets");
	lab_steer_start();
	for (int tries = 0; direct_count() < direct; tries++) {
		if (tries == 100)
			die("%u direct networks, not %u", direct_count(), direct);
		wait_for(50);
	}
}

/* --- the run --- */

/* Seconds that all processors were busy. */
static double busy_time(void)
{
	unsigned long long user, nice, system, idle, wait, irq, softirq;
	FILE *file = fopen("/proc/stat", "re");

	if (!file || fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system,
			    &idle, &wait, &irq, &softirq) != 7)
		die("/proc/stat");
	fclose(file);
	return (double)(user + nice + system + irq + softirq) / (double)sysconf(_SC_CLK_TCK);
}

/* Of both directions, as the device's end of the app's network saw them. */
static unsigned long long packet_count(void)
{
	unsigned long long in, out;
	char line[512];
	FILE *file = fopen("/proc/thread-self/net/dev", "re");

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, " app0: %*u %llu %*u %*u %*u %*u %*u %*u %*u %llu", &in, &out) ==
		    2) {
			fclose(file);
			return in + out;
		}
	die("app0 is not in /proc/thread-self/net/dev");
}

/* Nanoseconds of a run of that hook's program, by the kernel's statistics since they are kept;
 * 0: none are. */
static double run_time(const char *hook)
{
	struct steer_program_info *programs;
	double count = 0, ns = 0;
	size_t n;

	if (!steer || steer_programs(steer, &programs, &n) < 0)
		return 0;
	for (size_t i = 0; i < n && !count; i++)
		if (!strcmp(programs[i].hook, hook)) {
			count = (double)programs[i].run_count;
			ns = (double)programs[i].run_time_ns;
		}
	free(programs);
	return count ? ns / count : 0;
}

static void run(void)
{
	bool tcp = !strcmp(kind, "tcp");
	pthread_t threads[2];
	int thread_count = tcp ? 2 : 1;
	unsigned long long packets = packet_count();
	double busy = busy_time();
	uint64_t start = now_ns(), got;

	for (int i = 0; i < thread_count; i++)
		pthread_create(&threads[i], NULL, tcp ? run_tcp : run_udp, NULL);
	wait_for((unsigned)(seconds * 1000));
	atomic_store(&going, false);
	for (int i = 0; i < thread_count; i++)
		pthread_join(threads[i], NULL);
	busy = busy_time() - busy;
	seconds = (double)(now_ns() - start) / 1e9;
	wait_for(20); /* for what waits in the sink */
	packets = packet_count() - packets;
	got = atomic_load(&received);
	printf("{\"seconds\": %f, \"connections\": %ju, \"sent\": %ju, \"received\": %ju, "
	       "\"failed\": %ju, \"packets\": %llu, \"busy\": %f, \"steer_ns\": %f, "
	       "\"lookup_ns\": %f}\n",
	       seconds, (uintmax_t)atomic_load(&connections), (uintmax_t)atomic_load(&sent),
	       (uintmax_t)got, (uintmax_t)atomic_load(&failed), packets, busy, run_time("steer"),
	       run_time("lookup"));
}

int main(int argc, char **argv)
{
	bool timed = argc == 6 && !strcmp(argv[5], "timed"); /* which costs some time itself */

	if (argc != 4 && argc != 5 && !timed)
		die("usage: load_program KIND SECONDS TARGET [DIRECT [timed]] <SETUP");
	kind = argv[1];
	seconds = atof(argv[2]);
	target = argv[3];
	if ((strcmp(kind, "tcp") && strcmp(kind, "udp") && strcmp(kind, "dns")) || seconds <= 0)
		die("KIND is tcp, udp or dns; SECONDS a number above 0");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	lab_make();
	shell("sh -e");
	start_sink();
	if (argc >= 5)
		start_steer((unsigned)atoi(argv[4]));
	if (timed && bpf_enable_stats(BPF_STATS_RUN_TIME) < 0) /* until the process ends */
		die("the kernel keeps no run time statistics");
	run();
	if (steer)
		lab_steer_end();
	return 0;
}
