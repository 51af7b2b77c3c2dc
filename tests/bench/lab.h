/*
 * What the bench programs stand on: namespaces of their own, which end with the process however
 * it ends, and steer without the daemon.
 *
 *    app ns                  device ns (the process)              far ns
 *    eth0 10.9.0.2 -- veth -- app0 10.9.0.1   far0 10.8.0.1 -- veth -- f0 10.8.0.2
 */
#pragma once

#include "steer/candidate.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define DEVICE_ADDRESS "10.9.0.1"

static uv_loop_t loop;
static struct rtnl *rtnl;
static struct steer *steer;
static int app_ns, far_ns, device_ns;

static inline void __attribute__((format(printf, 1, 2), noreturn)) die(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	exit(1);
}

static inline void shell(const char *command)
{
	if (system(command) != 0)
		die("failed: %s", command);
}

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline void enter(int ns)
{
	if (setns(ns, CLONE_NEWNET) < 0)
		die("setns: %m");
}

static inline int make_ns(void)
{
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		die("a network namespace: %m");
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("its file: %m");
	/* What is counted is the bench's own: no neighbour discovery, no multicast. */
	shell("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
	      " net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0;"
	      "ip link set lo up");
	return fd;
}

static inline void make_pair(const char *here, const char *there, int ns)
{
	char command[200];

	snprintf(command, sizeof(command),
		 "ip link add %s address 02:00:00:00:00:01 type veth peer name %s"
		 " address 02:00:00:00:00:02 netns /proc/%d/fd/%d && ip link set %s up",
		 here, there, getpid(), ns, here);
	shell(command);
}

static inline void lab_make(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) < 0)
		die("a mount namespace: %m");
	shell("mkdir -p /run/holdfast");
	if (mount("tmpfs", "/run/holdfast", "tmpfs", 0, NULL) < 0)
		die("/run/holdfast: %m");
	app_ns = make_ns();
	far_ns = make_ns();
	device_ns = make_ns();
	make_pair("app0", "eth0", app_ns);
	make_pair("far0", "f0", far_ns);
	shell("ip addr add 10.9.0.1/24 dev app0; ip addr add 10.8.0.1/24 dev far0;"
	      "ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev app0");
	enter(far_ns);
	shell("ip link set f0 up; ip addr add 10.8.0.2/24 dev f0");
	enter(app_ns);
	shell("ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0;"
	      "ip neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev eth0;"
	      "ip route add default via 10.9.0.1;"
	      "sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1");
	enter(device_ns);
}

static inline void on_event(void *arg, const char *what, const char *detail)
{
}

static inline void lab_steer_new(void)
{
	static const char *const apps[] = {"app0"};
	struct steer_settings settings = {
		.app_interfaces = apps, .app_interface_count = 1, .virtual_ttl = 1};
	char error[200] = "";

	if (ip_prefix_parse("198.18.0.0/15", &settings.virtual_v4) < 0 ||
	    ip_prefix_parse("fd5a:fe00::/64", &settings.virtual_v6) < 0 ||
	    uv_loop_init(&loop) < 0 || rtnl_new(&loop, &rtnl) < 0 ||
	    steer_new(&loop, rtnl, &settings, on_event, NULL, error, sizeof(error), &steer) < 0)
		die("steer_new: %s", error);
}

static inline void lab_steer_start(void)
{
	char error[200] = "";

	if (steer_start(steer, error, sizeof(error)) < 0)
		die("steer_start: %s", error);
}

static inline void lab_steer_end(void)
{
	steer_stop(steer, true);
	steer_close(steer);
	rtnl_close(rtnl);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
}
