/* links: hf_steer */
/*
 * steer against a real kernel, in network and mount namespaces of the test's own:
 *
 *    app ns                  device ns (this process)              cloud ns
 *    eth0 -- veth -- app0 [XDP]   lo [XDP]   wifi0 [guard] -- veth -- c0
 *    10.9.0.2        10.9.0.1                192.0.2.5                192.0.2.1
 *    fd09::2         fd09::1                 2001:db8::5              2001:db8::1
 */
#include "steer/steer.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TIMEOUT = 700, PROXY_PORT = 7081, CLOUD_PORT = 8080 };

static uv_loop_t loop;
static struct rtnl *rtnl;
static struct steer *steer;
static int device_ns, app_ns, cloud_ns;
static int listeners[2]; /* the proxy's, IPv4 and IPv6 */
static unsigned events;

static const char *const far[] = {"203.0.113.9", "2001:db8:ff::9"};
static const char *const cloud[] = {"192.0.2.1", "2001:db8::1"};

static void shell(const char *command)
{
	int r = system(command);

	ck_assert_msg(r == 0, "failed: %s", command);
}

static int open_ns(void)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static int make_ns(void)
{
	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "needs CAP_SYS_ADMIN");
	return open_ns();
}

static void enter(int ns)
{
	ck_assert_int_eq(setns(ns, CLONE_NEWNET), 0);
}

static void on_event(void *arg, const char *what, const char *detail)
{
	events++;
}

static void make_network(void)
{
	char command[256];
	int *const ends[] = {&app_ns, &cloud_ns};
	static const char *const pairs[] = {"app0 eth0", "wifi0 c0"};

	app_ns = make_ns();
	cloud_ns = make_ns();
	device_ns = make_ns();
	/* "ip link set netns" wants a process or a file: the descriptor under /proc is one. */
	for (int i = 0; i < 2; i++) {
		char here[8], there[8];

		sscanf(pairs[i], "%7s %7s", here, there);
		snprintf(command, sizeof(command),
			 "ip link add %s type veth peer name %s netns /proc/%d/fd/%d", here, there,
			 getpid(), *ends[i]);
		shell(command);
	}
	shell("ip link set lo up; ip link set app0 up; ip link set wifi0 up;"
	      "ip addr add 10.9.0.1/24 dev app0; ip addr add fd09::1/64 dev app0 nodad;"
	      "ip addr add 192.0.2.5/24 dev wifi0; ip addr add 2001:db8::5/64 dev wifi0 nodad;"
	      "ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1;"
	      "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.ip_forward=0");
	enter(app_ns);
	shell("ip link set lo up; ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0;"
	      "ip addr add fd09::2/64 dev eth0 nodad; ip route add default via 10.9.0.1;"
	      "ip -6 route add default via fd09::1");
	enter(cloud_ns);
	shell("ip link set lo up; ip link set c0 up; ip addr add 192.0.2.1/24 dev c0;"
	      "ip addr add 2001:db8::1/64 dev c0 nodad;"
	      "ip addr add 203.0.113.9/32 dev lo; ip addr add 2001:db8:ff::9/128 dev lo");
	enter(device_ns);
}

static int make_listener(const char *address, uint16_t port, bool transparent)
{
	struct sockaddr_storage sa;
	struct ip ip;
	socklen_t len;
	int one = 1, fd;

	ck_assert_int_eq(ip_parse(address, &ip), 0);
	len = ip_to_sockaddr(&ip, port, &sa);
	fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (transparent && sa.ss_family == AF_INET)
		ck_assert_int_eq(setsockopt(fd, SOL_IP, IP_TRANSPARENT, &one, sizeof(one)), 0);
	if (transparent && sa.ss_family == AF_INET6)
		ck_assert_int_eq(setsockopt(fd, SOL_IPV6, IPV6_TRANSPARENT, &one, sizeof(one)), 0);
	ck_assert_msg(bind(fd, (struct sockaddr *)&sa, len) == 0, "bind %s: %m", address);
	ck_assert_int_eq(listen(fd, 16), 0);
	return fd;
}

static void start_steer(void)
{
	static const char *const apps[] = {"app0", "later0"};
	static const struct steer_link links[] = {{"wifi", "wifi0", 1}, {"lte", "lte0", 2}};
	struct steer_settings settings = {.host = true,
					  .app_interfaces = apps,
					  .app_interface_count = 2,
					  .links = links,
					  .link_count = 2,
					  .virtual_ttl = 1};
	char error[200] = "";

	ck_assert_int_eq(ip_prefix_parse("198.18.0.0/15", &settings.virtual_v4), 0);
	ck_assert_int_eq(ip_prefix_parse("fd5a:fe00::/64", &settings.virtual_v6), 0);
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(rtnl_new(&loop, &rtnl), 0);
	int r = steer_new(&loop, rtnl, &settings, on_event, NULL, error, sizeof(error), &steer);

	ck_assert_msg(r == 0, "steer_new: %s", error);
	listeners[0] = make_listener("127.0.0.1", PROXY_PORT, true);
	listeners[1] = make_listener("::1", PROXY_PORT, true);
	ck_assert_int_eq(steer_set_listener(steer, HF_SOCKET_PROXY_TCP4, listeners[0]), 0);
	ck_assert_int_eq(steer_set_listener(steer, HF_SOCKET_PROXY_TCP6, listeners[1]), 0);
	r = steer_start(steer, error, sizeof(error));
	ck_assert_msg(r == 0, "steer_start: %s", error);
	ck_assert(steer_is_steering(steer));
}

static void end_steer(bool release)
{
	steer_stop(steer, release);
	steer_close(steer);
	rtnl_close(rtnl);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	close(listeners[0]);
	close(listeners[1]);
}

static void setup(void)
{
	ck_assert_msg(unshare(CLONE_NEWNS) == 0, "needs CAP_SYS_ADMIN");
	ck_assert_int_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	/* pins and locks that no other namespace of the machine shares */
	ck_assert_int_eq(mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL), 0);
	shell("mkdir -p /run/holdfast");
	ck_assert_int_eq(mount("tmpfs", "/run/holdfast", "tmpfs", 0, NULL), 0);
	make_network();
	events = 0;
}

static void on_deadline(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

static void run_for(unsigned ms)
{
	uv_timer_t timer;

	ck_assert_int_eq(uv_timer_init(&loop, &timer), 0);
	ck_assert_int_eq(uv_timer_start(&timer, on_deadline, ms, 0), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
}

static int make_socket(int ns, int family)
{
	int fd;

	enter(ns);
	fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	enter(device_ns);
	ck_assert_int_ge(fd, 0);
	return fd;
}

/* 0 when connected within the timeout, else negative errno. */
static int try_connect(int fd, const char *address, uint16_t port)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
	struct sockaddr_storage sa;
	int error = 0;
	socklen_t len, error_len = sizeof(error);
	struct ip ip;

	ck_assert_int_eq(ip_parse(address, &ip), 0);
	len = ip_to_sockaddr(&ip, port, &sa);
	if (connect(fd, (struct sockaddr *)&sa, len) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	if (poll(&poll_fd, 1, TIMEOUT) == 0)
		return -ETIMEDOUT;
	ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len), 0);
	return -error;
}

static int connect_from(int ns, int family, const char *address, uint16_t port)
{
	int fd = make_socket(ns, family), r = try_connect(fd, address, port);

	close(fd);
	return r;
}

/* An unmodified client gets through to the proxy's listener, which sees where it was going
 * and who it is, and both can speak. */
static void assert_steered(int ns, int i, const char *source)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char text[IP_TEXT_MAX], byte;
	int client = make_socket(ns, i ? AF_INET6 : AF_INET), server;
	struct pollfd readable = {.fd = client, .events = POLLIN};
	uint16_t port;
	struct ip ip;
	int r = try_connect(client, far[i], 80);

	ck_assert_msg(r == 0, "%s from %s: %s", far[i], source, strerror(-r));
	server = accept(listeners[i], (struct sockaddr *)&sa, &len);
	ck_assert_int_ge(server, 0);
	ip = ip_from_sockaddr((struct sockaddr *)&sa, &port);
	ck_assert_str_eq(ip_format(&ip, text), source);
	len = sizeof(sa);
	ck_assert_int_eq(getsockname(server, (struct sockaddr *)&sa, &len), 0);
	ip = ip_from_sockaddr((struct sockaddr *)&sa, &port);
	ck_assert_str_eq(ip_format(&ip, text), far[i]);
	ck_assert_uint_eq(port, 80);
	ck_assert_int_eq(write(client, "?", 1), 1);
	ck_assert_int_eq(read(server, &byte, 1), 1);
	ck_assert_int_eq(write(server, "!", 1), 1);
	ck_assert_int_eq(poll(&readable, 1, TIMEOUT), 1);
	ck_assert_int_eq(read(client, &byte, 1), 1);
	close(client);
	close(server);
}

static void assert_all_steered(void)
{
	assert_steered(device_ns, 0, "127.0.0.1");
	assert_steered(device_ns, 1, "::1");
	assert_steered(app_ns, 0, "10.9.0.2");
	assert_steered(app_ns, 1, "fd09::2");
}

static void assert_nothing_left(void)
{
	shell("! ip -4 rule | grep -Ev 'lookup (local|main|default)'");
	shell("! ip -6 rule | grep -Ev 'lookup (local|main|default)'");
	shell("! ip -4 route show table all | grep 'table 72'");
	shell("! ip -6 route show table all | grep 'table 72'");
	shell("! tc qdisc show | grep clsact");
	shell("! ip link | grep -i xdp");
	shell("! test -e /sys/fs/bpf/holdfast");
}

START_TEST(apps_reach_the_proxy_with_their_destination)
{
	start_steer();
	assert_all_steered();
	end_steer(true);
	assert_nothing_left();
}
END_TEST

START_TEST(apps_reach_the_proxy_without_any_link)
{
	shell("ip link del wifi0");
	start_steer();
	assert_all_steered();
	end_steer(true);
	assert_nothing_left();
}
END_TEST

START_TEST(reverse_path_filters_of_every_kind_are_fine)
{
	char command[128];

	start_steer();
	for (int i = 0; i < 3; i++) {
		snprintf(command, sizeof(command),
			 "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo %d > $f; done", i);
		shell(command);
		assert_all_steered();
	}
	end_steer(true);
}
END_TEST

START_TEST(only_own_sockets_leave_by_a_link)
{
	int listener[2];

	enter(cloud_ns);
	for (int i = 0; i < 2; i++)
		listener[i] = make_listener(i ? "::" : "0.0.0.0", CLOUD_PORT + (uint16_t)i, false);
	enter(device_ns);
	start_steer();
	for (int i = 0; i < 2; i++) {
		int family = i ? AF_INET6 : AF_INET;
		uint32_t mark = 0x00000003;
		socklen_t len = sizeof(mark);
		int own = make_socket(device_ns, family), other = make_socket(device_ns, family);
		int forged = make_socket(device_ns, family);

		ck_assert_int_eq(setsockopt(own, SOL_SOCKET, SO_MARK, &mark, len), 0);
		ck_assert_int_eq(steer_own_socket(steer, own, 1), 0);
		ck_assert_int_eq(getsockopt(own, SOL_SOCKET, SO_MARK, &mark, &len), 0);
		ck_assert_uint_eq(mark, 0x08100003);
		ck_assert_int_eq(try_connect(own, cloud[i], CLOUD_PORT + (uint16_t)i), 0);
		ck_assert_int_eq(setsockopt(other, SOL_SOCKET, SO_BINDTODEVICE, "wifi0", 5), 0);
		ck_assert_int_eq(try_connect(other, cloud[i], CLOUD_PORT + (uint16_t)i),
				 -ETIMEDOUT);
		/* The mark alone is no identity. */
		ck_assert_int_eq(setsockopt(forged, SOL_SOCKET, SO_MARK, &mark, len), 0);
		ck_assert_int_eq(try_connect(forged, cloud[i], CLOUD_PORT + (uint16_t)i),
				 -ETIMEDOUT);
		close(own);
		close(other);
		close(forged);
	}
	int own = make_socket(device_ns, AF_INET);

	/* A link that is not there, and one that nobody configured. */
	ck_assert_int_eq(steer_own_socket(steer, own, 2), -ENODEV);
	ck_assert_int_eq(steer_own_socket(steer, own, 9), -ENODEV);
	close(own);
	end_steer(true);
	ck_assert_int_eq(connect_from(device_ns, AF_INET, cloud[0], CLOUD_PORT), 0);
	close(listener[0]);
	close(listener[1]);
}
END_TEST

START_TEST(counters_say_what_the_guard_stopped)
{
	struct steer_counter *counters;
	size_t count;
	bool seen = false;
	int fd;

	start_steer();
	fd = make_socket(device_ns, AF_INET);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "wifi0", 5), 0);
	ck_assert_int_eq(try_connect(fd, far[0], 80), -ETIMEDOUT);
	close(fd);
	ck_assert_int_eq(steer_counters(steer, &counters, &count), 0);
	for (size_t i = 0; i < count; i++)
		seen |= !strcmp(counters[i].interface, "wifi0") &&
			counters[i].hook == HF_HOOK_GUARD &&
			counters[i].verdict == HF_VERDICT_DROP &&
			counters[i].reason == HF_REASON_NOT_OURS && counters[i].packets > 0;
	ck_assert(seen);
	free(counters);
	end_steer(true);
}
END_TEST

/* Only this namespace's: the mount of the pins is the test's own. */
static void detach_pinned(const char *pattern)
{
	char command[128];

	snprintf(command, sizeof(command),
		 "for p in /sys/fs/bpf/holdfast/*/%s; do bpftool link detach pinned $p; done",
		 pattern);
	shell(command);
}

START_TEST(what_others_delete_is_put_back)
{
	start_steer();
	run_for(300);
	ck_assert_uint_eq(events, 0); /* it does not quarrel with itself */
	shell("ip rule del priority 106; ip -6 rule del priority 105;"
	      "ip route flush table 7200; ip -6 route flush table 7211;"
	      "tc qdisc del dev wifi0 clsact");
	run_for(900);
	ck_assert_uint_ge(events, 5);
	assert_all_steered();
	shell("tc filter show dev wifi0 egress | grep -q 0x4846");
	events = 0;
	detach_pinned("link_xdp_*");
	run_for(1500);
	ck_assert_uint_ge(events, 1);
	assert_all_steered();
	end_steer(true);
	assert_nothing_left();
}
END_TEST

START_TEST(interfaces_and_addresses_that_come_later_are_taken_in)
{
	struct ip ip;

	start_steer();
	shell("ip link add later0 type veth peer name later1; ip link set later0 up;"
	      "ip link add lte0 type veth peer name lte1; ip link set lte1 up;"
	      "ip addr add 198.51.100.5/24 dev lte0; ip link set lte0 up;"
	      "ip route add default via 198.51.100.1 dev lte0 metric 50");
	run_for(700);
	shell("ip link show later0 | grep -q xdp");
	shell("tc filter show dev lte0 egress | grep -q 0x4846");
	shell("ip rule | grep -q 'from 198.51.100.5 lookup 7212'");
	shell("ip route show table 7212 | grep -q 'default via 198.51.100.1 dev lte0'");
	shell("ip route show table 7212 | grep -q '^unreachable default'");
	shell("ip route show table 7212 | grep -q '^198.51.100.0/24'");
	ck_assert_int_eq(ip_parse("198.51.100.5", &ip), 0);
	ck_assert(steer_is_device_address(steer, &ip));
	shell("ip addr del 198.51.100.5/24 dev lte0; ip link del later0");
	run_for(700);
	shell("! ip rule | grep 198.51.100.5");
	ck_assert(!steer_is_device_address(steer, &ip));
	end_steer(true);
	assert_nothing_left();
}
END_TEST

/* A daemon in a process of its own, which can be killed. */
static pid_t fork_daemon(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		start_steer();
		(void)!write(ready[1], "r", 1);
		for (;;)
			uv_run(&loop, UV_RUN_DEFAULT);
	}
	close(ready[1]);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void kill_daemon(pid_t pid)
{
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

START_TEST(nothing_leaks_after_a_kill_and_a_start_goes_on)
{
	int listener;
	pid_t pid = fork_daemon();
	char error[200];

	enter(cloud_ns);
	listener = make_listener("0.0.0.0", 80, false);
	enter(device_ns);
	ck_assert_int_eq(steer_release(error, sizeof(error)), -EBUSY);
	kill_daemon(pid);
	for (int i = 0; i < 2; i++) {
		int family = i ? AF_INET6 : AF_INET;
		int fd = make_socket(device_ns, family);

		ck_assert_int_ne(connect_from(device_ns, family, far[i], 80), 0);
		ck_assert_int_ne(connect_from(app_ns, family, far[i], 80), 0);
		ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "wifi0", 5), 0);
		ck_assert_int_ne(try_connect(fd, cloud[i], 80), 0);
		close(fd);
	}
	start_steer();
	assert_all_steered();
	run_for(300);
	shell("test $(ls /sys/fs/bpf/holdfast/*/ | grep -c '^link_') = 3");
	end_steer(false);
	shell("test -e /sys/fs/bpf/holdfast");
	ck_assert_int_ne(connect_from(app_ns, AF_INET, far[0], 80), 0);
	ck_assert_int_eq(steer_release(error, sizeof(error)), 0);
	assert_nothing_left();
	close(listener);
}
END_TEST

static void add_foreign_filter(void)
{
	static const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "foreign", "GPL", pass, 2, NULL);
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex("wifi0"),
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = fd);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bpf_tc_hook_create(&hook), 0);
	ck_assert_int_eq(bpf_tc_attach(&hook, &opts), 0);
	close(fd);
}

START_TEST(release_takes_down_what_a_killed_daemon_left)
{
	char error[200] = "";

	/* somebody else's filter keeps its qdisc */
	add_foreign_filter();
	kill_daemon(fork_daemon());
	ck_assert_msg(steer_release(error, sizeof(error)) == 0, "%s", error);
	shell("tc filter show dev wifi0 ingress | grep -q handle");
	shell("! tc filter show dev wifi0 egress | grep handle");
	shell("tc qdisc del dev wifi0 clsact");
	assert_nothing_left();
	ck_assert_int_eq(steer_release(error, sizeof(error)), 0);
}
END_TEST

static bool count_name(void *arg, const struct hf_name_key *key, const struct hf_name *name)
{
	*(unsigned *)arg += key->qtype == 1 && key->len == 9 && name->virtual_known;
	return true;
}

START_TEST(names_are_kept_over_a_restart)
{
	struct hf_name_key key = {.wire = "\7example\0", .qtype = 1, .len = 9};
	struct hf_name name = {.virtual_known = 1};
	unsigned names = 0;

	start_steer();
	ck_assert_int_eq(steer_names_mode(steer, HF_NAMES_VIRTUAL), 0);
	ck_assert_int_eq(steer_name_publish(steer, &key, &name), 0);
	end_steer(false);
	start_steer();
	ck_assert_int_eq(steer_names_each(steer, count_name, &names), 0);
	ck_assert_uint_eq(names, 1);
	ck_assert_int_eq(steer_name_withdraw(steer, &key), 0);
	ck_assert_int_eq(steer_name_withdraw(steer, &key), 0);
	end_steer(true);
}
END_TEST

static int pinned(const char *name)
{
	char path[128];
	struct stat ns;
	int fd;

	ck_assert_int_eq(fstat(device_ns, &ns), 0);
	snprintf(path, sizeof(path), "/sys/fs/bpf/holdfast/%lu/%s", (unsigned long)ns.st_ino, name);
	fd = bpf_obj_get(path);
	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(-fd));
	return fd;
}

static void read_pinned(const char *name, void *ret_value)
{
	uint32_t zero = 0;
	int fd = pinned(name);

	ck_assert_int_eq(bpf_map_lookup_elem(fd, &zero, ret_value), 0);
	close(fd);
}

START_TEST(flags_are_kept_whoever_writes_the_settings)
{
	struct hf_settings settings;

	start_steer();
	ck_assert_int_eq(steer_set_flags(steer, HF_FLAG_ONLINE | HF_FLAG_RELAY_QUIC), 0);
	ck_assert_int_eq(steer_names_mode(steer, HF_NAMES_VIRTUAL), 0);
	end_steer(false);
	start_steer();
	read_pinned("settings", &settings);
	ck_assert_uint_eq(settings.flags, HF_FLAG_ONLINE | HF_FLAG_RELAY_QUIC);
	ck_assert_uint_eq(settings.names_mode, HF_NAMES_VIRTUAL);
	ck_assert_int_eq(steer_set_flags(steer, 0), 0);
	read_pinned("settings", &settings);
	ck_assert_uint_eq(settings.flags, 0);
	end_steer(true);
}
END_TEST

static bool is_direct(const char *address)
{
	struct hf_prefix key = {.bits = 128};
	int fd = pinned("direct"), r;
	uint32_t value;
	struct ip ip;

	ck_assert_int_eq(ip_parse(address, &ip), 0);
	memcpy(key.ip, ip.bytes, sizeof(key.ip));
	r = bpf_map_lookup_elem(fd, &key, &value);
	close(fd);
	return r == 0;
}

START_TEST(networks_of_apps_are_direct_and_those_of_links_are_not)
{
	start_steer();
	ck_assert(is_direct("10.9.0.77") && is_direct("fd09::77"));
	ck_assert(!is_direct("192.0.2.77") && !is_direct("2001:db8::77"));
	ck_assert(!is_direct("10.9.1.1") && !is_direct("8.8.8.8"));
	shell("ip route add 10.77.0.0/16 via 10.9.0.2; ip addr del 192.0.2.5/24 dev wifi0");
	run_for(300);
	ck_assert(is_direct("10.77.3.3"));
	shell("ip addr flush dev app0");
	run_for(300);
	ck_assert(!is_direct("10.77.3.3") && !is_direct("10.9.0.77") && !is_direct("fd09::77"));
	end_steer(true);
}
END_TEST

START_TEST(the_sign_of_life_goes_on_and_ends_with_a_stop)
{
	uint64_t first, then;

	start_steer();
	read_pinned("heartbeat", &first);
	ck_assert_uint_gt(first, uv_hrtime());
	ck_assert_uint_lt(first, uv_hrtime() + 5000000000ull);
	run_for(600);
	read_pinned("heartbeat", &then);
	ck_assert_uint_gt(then, first);
	steer_stop(steer, false);
	read_pinned("heartbeat", &then);
	ck_assert_uint_eq(then, 0);
	end_steer(true);
}
END_TEST

/* On what leaves eth0, a tag of VLAN 7 beside the frame, as a VLAN interface on a veth does. */
static void tag_from_app(void)
{
	const struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_2, .imm = htons(0x8100)},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = 7},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_skb_vlan_push},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = -1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1);

	opts.prog_fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "tag", "GPL", code,
				     sizeof(code) / sizeof(*code), NULL);
	ck_assert_int_ge(opts.prog_fd, 0);
	enter(app_ns);
	hook.ifindex = (int)if_nametoindex("eth0");
	ck_assert_int_eq(bpf_tc_hook_create(&hook), 0);
	ck_assert_int_eq(bpf_tc_attach(&hook, &opts), 0);
	enter(device_ns);
}

/* A raw socket in the app's namespace that sees frames with the tag that is beside them. */
static int open_tag_ear(void)
{
	struct sockaddr_ll sa = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int one = 1, fd;

	enter(app_ns);
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	sa.sll_ifindex = (int)if_nametoindex("eth0");
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof(one)), 0);
	enter(device_ns);
	return fd;
}

/* The tag of the next ICMP error that comes in there, 0: it has none; -1: none comes. */
static int hear_tag(int ear)
{
	struct pollfd readable = {.fd = ear, .events = POLLIN};

	while (poll(&readable, 1, TIMEOUT) == 1) {
		uint8_t frame[256], control[256];
		struct sockaddr_ll from;
		struct iovec iov = {frame, sizeof(frame)};
		struct msghdr message = {.msg_name = &from,
					 .msg_namelen = sizeof(from),
					 .msg_iov = &iov,
					 .msg_iovlen = 1,
					 .msg_control = control,
					 .msg_controllen = sizeof(control)};
		ssize_t len = recvmsg(ear, &message, 0);
		struct tpacket_auxdata aux;

		if (len < 34 || from.sll_pkttype == PACKET_OUTGOING || frame[23] != IPPROTO_ICMP)
			continue;
		ck_assert_ptr_nonnull(CMSG_FIRSTHDR(&message));
		memcpy(&aux, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(aux));
		return aux.tp_status & TP_STATUS_VLAN_VALID ? aux.tp_vlan_tci : 0;
	}
	return -1;
}

static uint64_t packets_of(enum hf_hook hook, enum hf_reason reason)
{
	struct steer_counter *counters;
	uint64_t packets = 0;
	size_t count;

	ck_assert_int_eq(steer_counters(steer, &counters, &count), 0);
	for (size_t i = 0; i < count; i++)
		if (counters[i].hook == hook && counters[i].reason == reason)
			packets += counters[i].packets;
	free(counters);
	return packets;
}

/* Generic XDP runs before the kernel looks at such a tag, and sees a frame without one. */
START_TEST(a_tag_beside_the_frame_is_not_seen_and_comes_back_with_a_refusal)
{
	struct sockaddr_storage sa;
	socklen_t len;
	struct ip ip;
	int ear, fd;

	start_steer();
	ck_assert_int_eq(connect_from(app_ns, AF_INET, far[0], 80), 0);
	tag_from_app();
	ear = open_tag_ear();
	enter(app_ns);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	enter(device_ns);
	ck_assert_int_eq(ip_parse(far[0], &ip), 0);
	len = ip_to_sockaddr(&ip, 443, &sa);
	ck_assert_int_eq(sendto(fd, "quic", 4, 0, (struct sockaddr *)&sa, len), 4);
	ck_assert_int_eq(hear_tag(ear), 7);
	ck_assert_uint_eq(packets_of(HF_HOOK_STEER, HF_REASON_QUIC_REFUSED), 1);
	/* What is passed is for a VLAN that the device does not have: nothing takes it. */
	ck_assert_int_eq(connect_from(app_ns, AF_INET, far[0], 80), -ETIMEDOUT);
	ck_assert_uint_eq(packets_of(HF_HOOK_LOOKUP, HF_REASON_TCP_PROXY), 1);
	ck_assert_uint_gt(packets_of(HF_HOOK_STEER, HF_REASON_TCP_PROXY), 1);
	close(fd);
	close(ear);
	end_steer(true);
}
END_TEST

static void on_raised(void *arg, const struct hf_raised *raised)
{
	unsigned *count = arg;

	ck_assert_uint_eq(raised->family, 4);
	ck_assert_uint_eq(raised->len, 28);
	ck_assert_uint_eq(raised->packet[20], 8);
	(*count)++;
}

static void ping_from_app(unsigned count)
{
	const uint8_t request[8] = {8, 0, 0xf7, 0xff};
	struct sockaddr_storage sa;
	socklen_t len;
	struct ip ip;
	int fd;

	enter(app_ns);
	fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
	enter(device_ns);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ip_parse(far[0], &ip), 0);
	len = ip_to_sockaddr(&ip, 0, &sa);
	for (unsigned i = 0; i < count; i++)
		ck_assert_int_eq(
			sendto(fd, request, sizeof(request), 0, (struct sockaddr *)&sa, len),
			sizeof(request));
	close(fd);
}

/* More than one turn of the loop takes, and less than the ring. */
START_TEST(echo_requests_are_raised_to_the_loop_all_of_them)
{
	unsigned count = 0;

	start_steer();
	steer_on_raised(steer, on_raised, &count);
	ck_assert_int_eq(steer_set_flags(steer, HF_FLAG_ONLINE), 0);
	ping_from_app(150);
	run_for(300);
	ck_assert_uint_eq(count, 150);
	ping_from_app(1);
	run_for(100);
	ck_assert_uint_eq(count, 151);
	steer_on_raised(steer, NULL, NULL);
	ping_from_app(1);
	run_for(100);
	ck_assert_uint_eq(count, 151);
	ck_assert_uint_eq(packets_of(HF_HOOK_STEER, HF_REASON_ECHO_RELAY), 152);
	end_steer(true);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("steer");
	TCase *tcase = tcase_create("kernel");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_test(tcase, apps_reach_the_proxy_with_their_destination);
	tcase_add_test(tcase, apps_reach_the_proxy_without_any_link);
	tcase_add_test(tcase, reverse_path_filters_of_every_kind_are_fine);
	tcase_add_test(tcase, only_own_sockets_leave_by_a_link);
	tcase_add_test(tcase, counters_say_what_the_guard_stopped);
	tcase_add_test(tcase, what_others_delete_is_put_back);
	tcase_add_test(tcase, interfaces_and_addresses_that_come_later_are_taken_in);
	tcase_add_test(tcase, nothing_leaks_after_a_kill_and_a_start_goes_on);
	tcase_add_test(tcase, release_takes_down_what_a_killed_daemon_left);
	tcase_add_test(tcase, names_are_kept_over_a_restart);
	tcase_add_test(tcase, a_tag_beside_the_frame_is_not_seen_and_comes_back_with_a_refusal);
	tcase_add_test(tcase, echo_requests_are_raised_to_the_loop_all_of_them);
	tcase_add_test(tcase, flags_are_kept_whoever_writes_the_settings);
	tcase_add_test(tcase, networks_of_apps_are_direct_and_those_of_links_are_not);
	tcase_add_test(tcase, the_sign_of_life_goes_on_and_ends_with_a_stop);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
