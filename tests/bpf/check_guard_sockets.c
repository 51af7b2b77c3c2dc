/* links: PkgConfig::LIBBPF PkgConfig::LIBELF */
/*
 * The guard program against real sockets, in two network namespaces of the test's own:
 *
 *    device ns (this process)           peer ns
 *    w0 [guard on egress] -- veth -- w1
 *    192.0.2.5, 2001:db8::5          192.0.2.1, 2001:db8::1
 */
#include "golden.h"

#include "guard.skel.h"

#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT = 2000, QUIET = 150, USER = 12345, OVERFLOW_USER = 65534 };

static const char *const here[] = {"192.0.2.5", "2001:db8::5"};
static const char *const there[] = {"192.0.2.1", "2001:db8::1"};

static struct guard_bpf *guard;
static struct hf_settings settings;
static int device_ns, peer_ns;
static uint32_t link_index;

/* --- namespaces -------------------------------------------------------------------------- */

static void shell(const char *command)
{
	ck_assert_msg(system(command) == 0, "failed: %s", command);
}

static int make_ns(void)
{
	int fd;

	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "needs root");
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void enter(int ns)
{
	ck_assert_int_eq(setns(ns, CLONE_NEWNET), 0);
}

static void make_network(void)
{
	char command[160];

	peer_ns = make_ns();
	device_ns = make_ns();
	snprintf(command, sizeof(command),
		 "ip link add w0 address 02:00:00:00:00:dd type veth peer name w1 "
		 "address 02:00:00:00:00:aa netns /proc/%d/fd/%d",
		 getpid(), peer_ns);
	shell(command);
	shell("ip link set lo up; ip link set w0 up; ip addr add 192.0.2.5/24 dev w0;"
	      "ip addr add 2001:db8::5/64 dev w0 nodad");
	enter(peer_ns);
	shell("ip link set lo up; ip link set w1 up; ip addr add 192.0.2.1/24 dev w1;"
	      "ip addr add 2001:db8::1/64 dev w1 nodad");
	enter(device_ns);
	link_index = if_nametoindex("w0");
}

static void put_settings(void)
{
	uint32_t zero = 0;

	put(bpf_map__fd(guard->maps.settings), &zero, &settings);
}

static void exempt(uint32_t uid)
{
	settings.exempt_uids[0] = uid;
	settings.exempt_uid_count = 1;
	put_settings();
}

static void setup(void)
{
	struct hf_interface link = {.role = HF_ROLE_LINK, .has_mac = 1, .link = 1};
	LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts);

	make_network();
	guard = guard_bpf__open();
	ck_assert_ptr_nonnull(guard);
	load_unpinned(guard->obj);
	settings = (struct hf_settings){.abi = HF_ABI_VERSION, .guard_mode = HF_GUARD_ENFORCE};
	put_settings();
	put(bpf_map__fd(guard->maps.interfaces), &link_index, &link);
	hook.ifindex = (int)link_index;
	opts.prog_fd = bpf_program__fd(guard->progs.hf_guard);
	ck_assert_int_eq(bpf_tc_hook_create(&hook), 0);
	ck_assert_int_eq(bpf_tc_attach(&hook, &opts), 0);
}

static void teardown(void)
{
	guard_bpf__destroy(guard);
	close(device_ns);
	close(peer_ns);
}

/* --- what was counted -------------------------------------------------------------------- */

static uint64_t counted(enum hf_verdict verdict, enum hf_reason reason)
{
	struct hf_counter_key key = {.ifindex = link_index,
				     .hook = HF_HOOK_GUARD,
				     .verdict = (uint8_t)verdict,
				     .reason = (uint8_t)reason};
	struct hf_counter_key *at = NULL, next;
	int counters = bpf_map__fd(guard->maps.counters);

	for (; bpf_map_get_next_key(counters, at, &next) == 0; at = &next)
		if (!memcmp(&next, &key, sizeof(key)))
			return counter_sum(counters, &key).packets;
	return 0;
}

#define V(verdict, reason) HF_VERDICT_##verdict, HF_REASON_##reason

static void wait_counted(enum hf_verdict verdict, enum hf_reason reason)
{
	for (int i = 0; i < WAIT / 10 && !counted(verdict, reason); i++)
		usleep(10000);
	ck_assert_msg(counted(verdict, reason) > 0, "verdict %d reason %d: never", verdict, reason);
}

/* --- sockets ----------------------------------------------------------------------------- */

static socklen_t to_sockaddr(const char *text, unsigned port, struct sockaddr_in6 *sa)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)sa;

	memset(sa, 0, sizeof(*sa));
	sa->sin6_port = htons((uint16_t)port);
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		return sizeof(*v4);
	}
	sa->sin6_family = AF_INET6;
	ck_assert_int_eq(inet_pton(AF_INET6, text, &sa->sin6_addr), 1);
	return sizeof(*sa);
}

static int make_socket(const char *address, int type)
{
	int fd = socket(strchr(address, ':') ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	return fd;
}

/* Bound there, in the namespace that is entered; listening if it is TCP. */
static int make_server(const char *address, int type, unsigned port)
{
	int fd = make_socket(address, type);
	struct sockaddr_in6 sa;
	socklen_t len = to_sockaddr(address, port, &sa);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, len), 0);
	if (type == SOCK_STREAM)
		ck_assert_int_eq(listen(fd, 8), 0);
	return fd;
}

static int make_peer(const char *address, int type, unsigned port)
{
	int fd;

	enter(peer_ns);
	fd = make_server(address, type, port);
	enter(device_ns);
	return fd;
}

static int dial(int fd, const char *address, unsigned port)
{
	struct sockaddr_in6 sa;
	socklen_t len = to_sockaddr(address, port, &sa);

	return connect(fd, (struct sockaddr *)&sa, len) < 0 ? -errno : 0;
}

static void make_own(int fd)
{
	struct hf_own own = {.link = 1};
	uint32_t mark = HF_MARK_OWN | 1 << HF_MARK_LINK_SHIFT;

	put(bpf_map__fd(guard->maps.own_sockets), &fd, &own);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
}

static bool hears(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

START_TEST(an_own_socket_gets_out_and_another_does_not)
{
	for (int i = 0; i < 2; i++) {
		int ear = make_peer(there[i], SOCK_DGRAM, 5000);
		int own = make_socket(there[i], SOCK_DGRAM);
		int other = make_socket(there[i], SOCK_DGRAM);
		uint32_t mark = HF_MARK_OWN | 1 << HF_MARK_LINK_SHIFT;
		char text[8];

		counters_clear(bpf_map__fd(guard->maps.counters));
		make_own(own);
		ck_assert_int_eq(setsockopt(other, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
		ck_assert_int_eq(dial(own, there[i], 5000), 0);
		ck_assert_int_eq(dial(other, there[i], 5000), 0);
		(void)!send(other, "other", 5, 0); /* may hear of the drop */
		wait_counted(V(DROP, NOT_OURS));
		ck_assert_int_eq(send(own, "own", 3, 0), 3);
		ck_assert(hears(ear, WAIT));
		ck_assert_int_eq(recv(ear, text, sizeof(text), 0), 3);
		ck_assert(!hears(ear, QUIET));
		ck_assert_uint_eq(counted(V(PASS, OWN_SOCKET)), 1);
		ck_assert_uint_eq(counted(V(DROP, NOT_OURS)), 1);
		close(ear);
		close(own);
		close(other);
	}
}
END_TEST

START_TEST(fragments_of_an_own_socket_get_out)
{
	static char text[4000];

	for (int i = 0; i < 2; i++) {
		int ear = make_peer(there[i], SOCK_DGRAM, 5000);
		int own = make_socket(there[i], SOCK_DGRAM);

		counters_clear(bpf_map__fd(guard->maps.counters));
		make_own(own);
		ck_assert_int_eq(dial(own, there[i], 5000), 0);
		ck_assert_int_eq(send(own, text, sizeof(text), 0), sizeof(text));
		ck_assert(hears(ear, WAIT));
		ck_assert_int_eq(recv(ear, text, sizeof(text), 0), sizeof(text));
		ck_assert_uint_eq(counted(V(PASS, OWN_SOCKET)), 3);
		close(ear);
		close(own);
	}
}
END_TEST

/* What a packet socket calls its packet is not what it is. */
START_TEST(a_packet_that_is_called_arp_stays)
{
	static const unsigned names[] = {0x0806, 0x888e, 0x0800, 0x86dd, 0x0003};
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)link_index};
	int ear = make_peer(there[0], SOCK_DGRAM, 5000);
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct frame f = {.len = 0};

	ck_assert_int_ge(fd, 0);
	frame_mac(&f, APP_MAC, DEVICE_MAC, 0x0800);
	frame_ip(&f, here[0], there[0], IPPROTO_UDP);
	frame_udp(&f, 40000, 5000);
	frame_add(&f, "?", 1);
	frame_end_udp(&f);
	put_u16(f.bytes + f.l4 + 6, 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		counters_clear(bpf_map__fd(guard->maps.counters));
		to.sll_protocol = htons((uint16_t)names[i]);
		(void)!sendto(fd, f.bytes, f.len, 0, (struct sockaddr *)&to, sizeof(to));
		wait_counted(V(DROP, NOT_OURS));
	}
	ck_assert(!hears(ear, QUIET));
	/* The ear is not deaf. */
	settings.guard_mode = HF_GUARD_OBSERVE;
	put_settings();
	ck_assert_int_eq(sendto(fd, f.bytes, f.len, 0, (struct sockaddr *)&to, sizeof(to)),
			 (ssize_t)f.len);
	ck_assert(hears(ear, WAIT));
	close(fd);
	close(ear);
}
END_TEST

static bool kernel_before(int major, int minor)
{
	struct utsname name;
	int a, b;

	ck_assert_int_eq(uname(&name), 0);
	ck_assert_int_eq(sscanf(name.release, "%d.%d", &a, &b), 2);
	return a < major || (a == major && b < minor);
}

START_TEST(a_raw_segment_with_the_mark_stays)
{
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
	uint32_t mark = HF_MARK_OWN | 1 << HF_MARK_LINK_SHIFT;
	struct sockaddr_in6 to;
	socklen_t len = to_sockaddr(there[0], 0, &to);
	struct frame f = {.len = 0};

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
	frame_tcp(&f, 40000, 443, 0x02);
	(void)!sendto(fd, f.bytes, f.len, 0, (struct sockaddr *)&to, len);
	wait_counted(V(DROP, NOT_OURS));
	counters_clear(bpf_map__fd(guard->maps.counters));
	f.bytes[13] = 0x10;
	frame_add(&f, "payload", 7);
	(void)!sendto(fd, f.bytes, f.len, 0, (struct sockaddr *)&to, len);
	wait_counted(V(DROP, NOT_OURS));
	counters_clear(bpf_map__fd(guard->maps.counters));
	f.len -= 7;
	(void)!sendto(fd, f.bytes, f.len, 0, (struct sockaddr *)&to, len);
	/* Where TIME_WAIT itself sends from such a socket it cannot be told apart. */
	if (kernel_before(6, 13))
		wait_counted(V(PASS, OWN_TIMEWAIT));
	else
		wait_counted(V(DROP, NOT_OURS));
	close(fd);
}
END_TEST

/* States of RFC 9293 as /proc/net/tcp has them. */
static unsigned sockets_in_state(unsigned state)
{
	static const char *const files[] = {"/proc/thread-self/net/tcp",
					    "/proc/thread-self/net/tcp6"};
	unsigned n = 0, st;
	char line[512];

	for (int i = 0; i < 2; i++) {
		FILE *file = fopen(files[i], "r");

		ck_assert_ptr_nonnull(file);
		while (fgets(line, sizeof(line), file))
			n += sscanf(line, " %*d: %*s %*s %x", &st) == 1 && st == state;
		(void)fclose(file);
	}
	return n;
}

START_TEST(the_end_of_an_own_connection_gets_out)
{
	enum { TIME_WAIT = 6, LAST_ACK = 9 };

	for (int i = 0; i < 2; i++) {
		int listener = make_peer(there[i], SOCK_STREAM, 8080), accepted;
		int own = make_socket(there[i], SOCK_STREAM);

		counters_clear(bpf_map__fd(guard->maps.counters));
		make_own(own);
		ck_assert_int_eq(dial(own, there[i], 8080), 0);
		accepted = accept(listener, NULL, NULL);
		ck_assert_int_ge(accepted, 0);
		close(own);
		ck_assert(hears(accepted, WAIT));
		usleep(50000); /* the FIN is acknowledged: the own socket is a small one now */
		close(accepted);
		wait_counted(V(PASS, OWN_TIMEWAIT));
		ck_assert_uint_gt(sockets_in_state(TIME_WAIT), 0);
		enter(peer_ns);
		for (int n = 0; n < WAIT / 10 && sockets_in_state(LAST_ACK); n++)
			usleep(10000);
		ck_assert_uint_eq(sockets_in_state(LAST_ACK), 0);
		enter(device_ns);
		ck_assert_uint_eq(counted(V(DROP, NOT_OURS)), 0);
		close(listener);
	}
}
END_TEST

START_TEST(resets_and_icmp_errors_of_the_kernel_get_out)
{
	for (int i = 0; i < 2; i++) {
		int tcp, udp;

		counters_clear(bpf_map__fd(guard->maps.counters));
		enter(peer_ns);
		tcp = make_socket(here[i], SOCK_STREAM);
		udp = make_socket(here[i], SOCK_DGRAM);
		ck_assert_int_eq(dial(tcp, here[i], 9999), -ECONNREFUSED);
		ck_assert_int_eq(dial(udp, here[i], 9999), 0);
		ck_assert_int_eq(send(udp, "?", 1, 0), 1);
		ck_assert(hears(udp, WAIT));
		enter(device_ns);
		ck_assert_uint_eq(counted(V(PASS, NO_SOCKET_RESET)), 1);
		ck_assert_uint_eq(counted(V(PASS, NO_SOCKET_ICMP)), 1);
		close(tcp);
		close(udp);
	}
}
END_TEST

/* Who may open raw sockets does not thereby speak for the kernel. */
START_TEST(resets_and_icmp_errors_of_a_user_stay)
{
	static const int protocols[] = {IPPROTO_TCP, IPPROTO_ICMP};
	struct sockaddr_in6 to;
	socklen_t len = to_sockaddr(there[0], 0, &to);

	for (int i = 0; i < 2; i++) {
		struct frame f = {.len = 0};
		int fd;

		if (protocols[i] == IPPROTO_TCP)
			frame_tcp(&f, 40000, 443, 0x04);
		else
			frame_icmp(&f, 3, 1);
		/* The user of a socket is that of the file system, and root's for the others. */
		ck_assert_int_eq(setfsuid(USER), 0);
		fd = socket(AF_INET, SOCK_RAW, protocols[i]);
		ck_assert_int_ge(fd, 0);
		ck_assert_int_eq(setfsuid(0), USER);
		counters_clear(bpf_map__fd(guard->maps.counters));
		(void)!sendto(fd, f.bytes, f.len, 0, (struct sockaddr *)&to, len);
		wait_counted(V(DROP, NOT_OURS));
		close(fd);
	}
}
END_TEST

/* From a listener of the given user in the device, as an inbound service would be. */
static int connect_to_users_service(int i, unsigned port)
{
	int ready[2], stop[2], fd, r, status;
	pid_t child;
	char byte;

	ck_assert_int_eq(pipe(ready), 0);
	ck_assert_int_eq(pipe(stop), 0);
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		if (setgid(USER) || setuid(USER))
			_exit(1);
		fd = make_server(here[i], SOCK_STREAM, port);
		close(stop[1]);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		(void)!read(stop[0], &byte, 1);
		_exit(0);
	}
	close(stop[0]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	enter(peer_ns);
	fd = make_socket(here[i], SOCK_STREAM);
	/* One SYN and its repetition. */
	ck_assert_int_eq(
		setsockopt(fd, IPPROTO_TCP, 18 /* TCP_USER_TIMEOUT */, &(int){900}, sizeof(int)),
		0);
	r = dial(fd, here[i], port);
	enter(device_ns);
	close(fd);
	close(stop[1]);
	close(ready[0]);
	close(ready[1]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return r;
}

START_TEST(an_exempt_users_service_can_be_reached)
{
	for (int i = 0; i < 2; i++) {
		exempt(USER + 1);
		ck_assert_int_eq(connect_to_users_service(i, 2222), -ETIMEDOUT);
		ck_assert_uint_gt(counted(V(DROP, NOT_OURS)), 0);
		exempt(USER);
		ck_assert_int_eq(connect_to_users_service(i, 2223), 0);
		ck_assert_uint_gt(counted(V(PASS, EXEMPT_USER)), 0);
		counters_clear(bpf_map__fd(guard->maps.counters));
	}
}
END_TEST

/* A packet without a socket is the overflow user's to the kernel, and nobody's to the guard. */
START_TEST(a_forwarded_packet_stays_whoever_is_exempt)
{
	int udp;

	exempt(OVERFLOW_USER);
	shell("sysctl -qw net.ipv4.ip_forward=1; ip route add 203.0.113.0/24 via 192.0.2.1");
	enter(peer_ns);
	shell("ip route add 203.0.113.0/24 via 192.0.2.5");
	udp = make_socket(there[0], SOCK_DGRAM);
	ck_assert_int_eq(dial(udp, "203.0.113.9", 5000), 0);
	ck_assert_int_eq(send(udp, "?", 1, 0), 1);
	enter(device_ns);
	wait_counted(V(DROP, NOT_OURS));
	ck_assert_uint_eq(counted(V(PASS, EXEMPT_USER)), 0);
	close(udp);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("guard program, sockets");
	TCase *tcase = tcase_create("sockets");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 30);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, an_own_socket_gets_out_and_another_does_not);
	tcase_add_test(tcase, fragments_of_an_own_socket_get_out);
	tcase_add_test(tcase, a_packet_that_is_called_arp_stays);
	tcase_add_test(tcase, a_raw_segment_with_the_mark_stays);
	tcase_add_test(tcase, the_end_of_an_own_connection_gets_out);
	tcase_add_test(tcase, resets_and_icmp_errors_of_the_kernel_get_out);
	tcase_add_test(tcase, resets_and_icmp_errors_of_a_user_stay);
	tcase_add_test(tcase, an_exempt_users_service_can_be_reached);
	tcase_add_test(tcase, a_forwarded_packet_stays_whoever_is_exempt);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
