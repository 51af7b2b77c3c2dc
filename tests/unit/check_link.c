/* links: hf_link */
/*
 * Links against a real kernel. Two namespaces, made by the test, which has one link each way:
 *
 *   test:   veth0 192.0.2.1/24, 2001:db8::1/64    (wifi)  --- peer0 .2, ::2  :peer
 *           veth1 198.51.100.1/24                 (lte)   --- peer1 .2       :peer
 *
 * The peer is a process with a small HTTP server that answers as `answer` says. Only
 * steer's way to mark a socket is replaced: it binds to the interface, without BPF.
 */
#include "link/link.h"
#include "link/nameservers.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum answer { ANSWER_204, ANSWER_PORTAL, ANSWER_200, ANSWER_500, ANSWER_SILENCE, ANSWER_JUNK };

static uv_loop_t loop;
static struct rtnl *rtnl;
static struct config *config;
static struct links *links;
static volatile int *answer; /* shared with the peer */
static volatile int *asked;
static pid_t peer;
static unsigned changes, losses;
static char last_what[256];

int steer_own_socket(struct steer *steer, int fd, unsigned link_number)
{
	const char *interface = link_number == 1 ? "veth0" : "veth1";

	return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface,
			  (socklen_t)strlen(interface) + 1) < 0
		       ? -errno
		       : 0;
}

static void shell(const char *command)
{
	ck_assert_msg(system(command) == 0, "failed: %s", command);
}

static void answer_one(int fd)
{
	static const char *const texts[] = {
		[ANSWER_204] = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
		[ANSWER_PORTAL] = "HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n"
				  "Content-Length: 0\r\n\r\n",
		[ANSWER_200] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		[ANSWER_500] = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
		[ANSWER_JUNK] = "SSH-2.0-x\r\n",
	};
	char request[1024];
	ssize_t n = recv(fd, request, sizeof(request) - 1, 0);
	const char *text = texts[*answer];

	if (n > 0 && text) {
		(*asked)++;
		send(fd, text, strlen(text), MSG_NOSIGNAL);
	}
	if (text)
		close(fd); /* in silence it stays open */
}

static void serve(void)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
	int fd, one = 1, off = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWNET) < 0)
		_exit(1);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, 16) < 0)
		_exit(1);
	*asked = -1; /* ready */
	for (;;) {
		int client = accept(fd, NULL, NULL);

		if (client >= 0)
			answer_one(client);
	}
}

static void start_peer(void)
{
	char command[1024];

	*asked = 0;
	peer = fork();
	ck_assert_int_ge(peer, 0);
	if (peer == 0)
		serve();
	while (*asked == 0)
		usleep(1000);
	*asked = 0;
	snprintf(command, sizeof(command),
		 "ip link add veth0 type veth peer name peer0 netns %d && "
		 "ip link add veth1 type veth peer name peer1 netns %d && "
		 "nsenter -t %d -n ip -batch - <<E\n"
		 "addr add 192.0.2.2/24 dev peer0\naddr add 2001:db8::2/64 dev peer0 nodad\n"
		 "addr add 198.51.100.2/24 dev peer1\nlink set peer0 up\nlink set peer1 up\nE",
		 peer, peer, peer);
	shell(command);
}

static void bring_up(void)
{
	shell("ip -batch - <<E\n"
	      "link set lo up\nlink set veth0 up\nlink set veth1 up\n"
	      "addr add 192.0.2.1/24 dev veth0\naddr add 2001:db8::1/64 dev veth0 nodad\n"
	      "addr add 198.51.100.1/24 dev veth1\n"
	      "route add default via 192.0.2.2 dev veth0 metric 10\n"
	      "route add ::/0 via 2001:db8::2 dev veth0\n"
	      "route add default via 198.51.100.2 dev veth1 metric 20\nE");
	/* the kernel tells of carriers at most once a second */
	for (int i = 0; i < 300; i++) {
		ck_assert_int_eq(rtnl_refresh(rtnl), 0);
		if (rtnl_interface_by_name(rtnl, "veth0")->carrier &&
		    rtnl_interface_by_name(rtnl, "veth1")->carrier)
			return;
		usleep(10000);
	}
	ck_abort_msg("no carrier");
}

static void on_change(void *arg, struct link *link, bool lost, const char *what)
{
	changes++;
	losses += lost;
	snprintf(last_what, sizeof(last_what), "%s %s", link_name(link), what);
}

static void on_deadline(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

/* Run the loop until the link is in the state, at most ms. */
static bool reaches(struct link *link, enum link_state state, unsigned ms)
{
	bool late = false;
	uv_timer_t timer;

	uv_timer_init(&loop, &timer);
	timer.data = &late;
	uv_timer_start(&timer, on_deadline, ms, 0);
	while (!late && (link == NULL || link_state(link) != state))
		uv_run(&loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
	return !late;
}

static void run_for(unsigned ms)
{
	reaches(NULL, LINK_ONLINE, ms);
}

static void setup(void)
{
	answer = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne((void *)answer, MAP_FAILED);
	asked = answer + 1;
	*answer = ANSWER_204;
	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "needs CAP_SYS_ADMIN");
	start_peer();
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(rtnl_new(&loop, &rtnl), 0);
}

static void teardown(void)
{
	links_close(links);
	rtnl_close(rtnl);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	config_unref(config);
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
}

/* wifi_more: further keys of the link wifi. */
static struct link *start(const char *wifi_more)
{
	struct config_errors errors;
	char text[1024];

	snprintf(text, sizeof(text),
		 "{\"links\":[{\"name\":\"wifi\",\"interface\":\"veth0\",\"priority\":10%s},"
		 "{\"name\":\"lte\",\"interface\":\"veth1\",\"priority\":20,\"metered\":true}]}",
		 wifi_more);
	ck_assert_msg(config_parse(text, strlen(text), &errors, &config) == 0, "%s",
		      errors.items[0].text);
	ck_assert_int_eq(links_new(&loop, config, rtnl, NULL, on_change, NULL, &links), 0);
	links_start(links);
	return links_by_name(links, "wifi");
}

#define PROBE(target) \
	",\"probe\":{" target ",\"interval\":\"500ms\",\"timeout\":\"300ms\",\"fall\":2}"
#define URL PROBE("\"url\":\"http://192.0.2.2/204\"")

static const char *evidence(struct link *link)
{
	static struct link_info info;

	link_info(link, &info);
	return info.evidence;
}

static struct link *choose(uint32_t tried)
{
	return links_choose(links, &config->defaults.policy, tried);
}

START_TEST(a_link_goes_up_as_the_kernel_does)
{
	struct link *wifi = start("");

	ck_assert_int_eq(link_state(wifi), LINK_DOWN);
	shell("ip link set veth0 up");
	ck_assert(reaches(wifi, LINK_CONFIGURING, 2000));
	shell("ip addr add 192.0.2.1/24 dev veth0");
	run_for(100);
	ck_assert_int_eq(link_state(wifi), LINK_CONFIGURING);
	shell("ip route add default via 192.0.2.2 dev veth0");
	ck_assert(reaches(wifi, LINK_ONLINE, 2000));
	ck_assert(link_has_family(wifi, AF_INET) && !link_has_family(wifi, AF_INET6));
	ck_assert(link_is_proven(wifi));
	shell("ip route del default dev veth0");
	ck_assert(reaches(wifi, LINK_CONFIGURING, 2000));
	run_for(1);
	ck_assert_uint_eq(losses, 1);
	shell("ip link del veth0");
	ck_assert(reaches(wifi, LINK_ABSENT, 2000));
}
END_TEST

START_TEST(ipv6_alone_is_enough)
{
	struct link *wifi;

	shell("ip link set veth0 up && ip addr add 2001:db8::1/64 dev veth0 nodad && "
	      "ip -6 route add default via 2001:db8::2 dev veth0");
	wifi = start(PROBE("\"url\":\"http://[2001:db8::2]/\""));
	ck_assert(reaches(wifi, LINK_ONLINE, 3000));
	ck_assert(link_has_family(wifi, AF_INET6) && !link_has_family(wifi, AF_INET));
}
END_TEST

START_TEST(a_good_probe_brings_it_online)
{
	struct link *wifi;

	bring_up();
	wifi = start(URL);
	ck_assert_int_eq(link_state(wifi), LINK_PROBING);
	ck_assert(!link_is_proven(wifi));
	ck_assert(reaches(wifi, LINK_ONLINE, 2000));
	ck_assert_msg(!strncmp(evidence(wifi), "204 from http://192.0.2.2/204 in ", 33), "%s",
		      evidence(wifi));
	ck_assert(link_is_proven(wifi));
	run_for(1);
	ck_assert_ptr_nonnull(strstr(last_what, "online"));
	run_for(1200);
	ck_assert_int_ge(*asked, 3); /* it goes on */
}
END_TEST

START_TEST(a_portal_is_no_way_out)
{
	struct link *wifi;

	bring_up();
	*answer = ANSWER_PORTAL;
	wifi = start(URL);
	ck_assert(reaches(wifi, LINK_LIMITED, 2000));
	ck_assert_str_eq(evidence(wifi), "portal: 302 to http://login.example/");
	ck_assert_str_eq(link_name(choose(0)), "lte");
	*answer = ANSWER_204;
	ck_assert(reaches(wifi, LINK_ONLINE, 3000));
	*answer = ANSWER_200;
	ck_assert(reaches(wifi, LINK_LIMITED, 3000));
	ck_assert_str_eq(evidence(wifi), "portal: 200 from http://192.0.2.2/204");
	ck_assert_uint_eq(losses, 1);
	*answer = ANSWER_204;
	ck_assert(reaches(wifi, LINK_ONLINE, 3000));
	*answer = ANSWER_JUNK;
	ck_assert(reaches(wifi, LINK_LIMITED, 3000));
}
END_TEST

START_TEST(silence_takes_it_out_after_fall)
{
	struct link *wifi;
	struct link_info info;

	bring_up();
	wifi = start(URL);
	ck_assert(reaches(wifi, LINK_ONLINE, 2000));
	*answer = ANSWER_500;
	ck_assert(reaches(wifi, LINK_LIMITED, 3000));
	link_info(wifi, &info);
	ck_assert_uint_eq(info.probes_bad, 2);
	ck_assert_str_eq(info.evidence, "500 from http://192.0.2.2/204");
	*answer = ANSWER_SILENCE;
	run_for(1500);
	ck_assert_ptr_nonnull(strstr(evidence(wifi), "timed out"));
	ck_assert(!link_is_proven(wifi));
}
END_TEST

START_TEST(a_connect_is_a_probe_too)
{
	struct link *wifi;

	bring_up();
	wifi = start(PROBE("\"connect\":\"192.0.2.2:80\""));
	ck_assert(reaches(wifi, LINK_ONLINE, 2000));
	links_close(links);
	config_unref(config);
	wifi = start(PROBE("\"connect\":\"192.0.2.2:81\""));
	ck_assert(reaches(wifi, LINK_LIMITED, 3000));
	ck_assert_str_eq(evidence(wifi), "connect to 192.0.2.2 port 81: Connection refused");
}
END_TEST

/* Called after links, in the same turn of the loop. */
static void check_told(void *arg)
{
	unsigned *seen = arg;

	if (rtnl_interface_by_name(rtnl, "veth0")->carrier)
		return;
	(*seen)++;
	ck_assert_uint_eq(losses, 1);
}

/* In the turn in which rtnl knows it: how late the kernel tells is its own affair (linkwatch
 * reports at most once a second). */
START_TEST(a_lost_carrier_is_told_at_once)
{
	struct link *wifi;
	unsigned seen = 0;
	char command[64];

	bring_up();
	wifi = start(URL);
	ck_assert(reaches(wifi, LINK_ONLINE, 2000));
	ck_assert_int_eq(rtnl_subscribe(rtnl, check_told, &seen), 0);
	snprintf(command, sizeof(command), "nsenter -t %d -n ip link set peer0 down", peer);
	shell(command);
	ck_assert(reaches(wifi, LINK_DOWN, 2000));
	ck_assert_uint_ge(seen, 1);
	ck_assert_str_eq(evidence(wifi), "carrier lost");
	ck_assert_str_eq(link_name(choose(0)), "lte");
}
END_TEST

START_TEST(live_traffic_that_fails_makes_a_probe_decide)
{
	struct link *wifi;

	bring_up();
	wifi = start(",\"probe\":{\"url\":\"http://192.0.2.2/\",\"interval\":\"1h\"}");
	ck_assert(reaches(wifi, LINK_ONLINE, 2000));
	run_for(250);
	link_report_failure(wifi, "connect to 203.0.113.9:80 timed out");
	ck_assert_str_eq(link_name(choose(0)), "lte");
	ck_assert_ptr_eq(choose(2), wifi); /* the only one left is still used */
	ck_assert(!link_is_proven(wifi));
	run_for(200);
	ck_assert_ptr_eq(choose(0), wifi); /* the probe was good */
	*answer = ANSWER_500;
	link_report_failure(wifi, "connect to 203.0.113.9:80 timed out");
	ck_assert(reaches(wifi, LINK_LIMITED, 1000)); /* one bad probe, though fall is 2 */
	ck_assert_str_eq(evidence(wifi), "500 from http://192.0.2.2/; connect to 203.0.113.9:80 "
					 "timed out (live traffic)");
}
END_TEST

START_TEST(reports_do_not_make_a_storm_of_probes)
{
	struct link *wifi;
	int before;

	bring_up();
	wifi = start(",\"probe\":{\"url\":\"http://192.0.2.2/\",\"interval\":\"1h\"}");
	ck_assert(reaches(wifi, LINK_ONLINE, 2000));
	before = *asked;
	for (int i = 0; i < 100; i++) {
		link_report_failure(wifi, "reset");
		run_for(5);
	}
	ck_assert_int_ge(*asked - before, 1);
	ck_assert_int_le(*asked - before, 6);
}
END_TEST

START_TEST(without_a_probe_suspicion_passes)
{
	struct link *wifi;

	bring_up();
	wifi = start("");
	ck_assert_ptr_eq(choose(0), wifi);
	link_report_failure(wifi, "timed out");
	ck_assert_str_eq(link_name(choose(0)), "lte");
	ck_assert(!link_is_proven(wifi));
	run_for(LINK_SUSPECT_TIME + 200);
	ck_assert_ptr_eq(choose(0), wifi);
	link_report_failure(wifi, "timed out");
	link_report_success(wifi);
	ck_assert_ptr_eq(choose(0), wifi);
}
END_TEST

START_TEST(the_choice_follows_policy_priority_and_what_was_tried)
{
	struct rule_policy policy;
	struct link_patch patch = {.has_priority = true, .priority = 30};
	struct link *wifi;

	bring_up();
	wifi = start("");
	policy = config->defaults.policy;
	ck_assert_ptr_eq(choose(0), wifi);
	ck_assert_ptr_null(choose(3));
	policy.metered = false;
	ck_assert_ptr_null(links_choose(links, &policy, link_bit(wifi)));
	policy.metered = true;
	policy.link_mask = 2;
	ck_assert_str_eq(link_name(links_choose(links, &policy, 0)), "lte");
	changes = 0;
	link_patch(wifi, &patch);
	ck_assert_str_eq(link_name(choose(0)), "lte");
	ck_assert_uint_eq(changes, 0); /* not from inside the call */
	run_for(1);
	ck_assert_uint_ge(changes, 1);
	patch = (struct link_patch){.has_enabled = true, .enabled = false};
	link_patch(links_at(links, 1), &patch);
	ck_assert_int_eq(link_state(links_at(links, 1)), LINK_DISABLED);
	ck_assert_ptr_eq(choose(0), wifi);
	run_for(1);
	ck_assert_uint_eq(losses, 1);
	patch.enabled = true;
	link_patch(links_at(links, 1), &patch);
	ck_assert_int_eq(link_state(links_at(links, 1)), LINK_ONLINE);
}
END_TEST

START_TEST(an_order_names_every_link_once)
{
	const char *const good[] = {"lte", "wifi"}, *const twice[] = {"lte", "lte"},
			  *const unknown[] = {"lte", "x"};
	struct input_error err;
	struct link_info info;

	bring_up();
	start("");
	ck_assert_int_eq(links_order(links, twice, 2, &err), -EINVAL);
	ck_assert_str_eq(err.path, "[1]");
	ck_assert_int_eq(links_order(links, unknown, 2, &err), -EINVAL);
	ck_assert_int_eq(links_order(links, good, 1, &err), -EINVAL);
	ck_assert_str_eq(link_name(choose(0)), "wifi");
	ck_assert_int_eq(links_order(links, good, 2, &err), 0);
	ck_assert_str_eq(link_name(choose(0)), "lte");
	link_info(links_by_name(links, "wifi"), &info);
	ck_assert_int_eq(info.priority, 20);
}
END_TEST

static links_resolve_cb resolve_cb;
static void *resolve_arg;

static int resolve(void *arg, struct link *link, const char *name, links_resolve_cb cb,
		   void *cb_arg)
{
	ck_assert_str_eq(name, "probe.example");
	resolve_cb = cb;
	resolve_arg = cb_arg;
	return 0;
}

START_TEST(a_name_is_asked_of_the_resolver_that_was_wired)
{
	struct ip ips[2];
	struct link *wifi;

	bring_up();
	ck_assert_int_eq(ip_parse("192.0.2.77", &ips[0]), 0); /* nobody: the next is tried */
	ck_assert_int_eq(ip_parse("2001:db8::2", &ips[1]), 0);
	wifi = start(",\"probe\":{\"url\":\"http://probe.example/\",\"timeout\":\"1s\"}");
	links_set_resolve(links, resolve, NULL);
	run_for(700);
	ck_assert_ptr_nonnull(resolve_cb);
	resolve_cb(resolve_arg, 0, ips, 2);
	ck_assert(reaches(wifi, LINK_ONLINE, 1500));
	resolve_cb = NULL;
	link_report_failure(wifi, "timed out");
	run_for(300);
	ck_assert_ptr_nonnull(resolve_cb);
	links_close(links); /* with a name under way */
	config_unref(config);
	run_for(20);
	resolve_cb(resolve_arg, -ECANCELED, NULL, 0);
	start("");
}
END_TEST

START_TEST(nameservers_of_the_device_itself_are_left_out)
{
	char text[] = "# x\nsearch a.example\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n"
		      "nameserver 192.0.2.53\noptions edns0\nnameserver 2001:db8::53\n"
		      "nameserver junk\nnameserver\t198.51.100.53 # y\n";
	struct ip servers[2];
	char buffer[IP_TEXT_MAX];
	FILE *file = fmemopen(text, sizeof(text) - 1, "r");

	bring_up();
	ck_assert_int_eq(rtnl_refresh(rtnl), 0);
	ck_assert_uint_eq(nameservers_parse(file, rtnl, servers, 2), 2);
	ck_assert_str_eq(ip_format(&servers[0], buffer), "192.0.2.53");
	ck_assert_str_eq(ip_format(&servers[1], buffer), "2001:db8::53");
	fclose(file);
	start("");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("link");
	TCase *tc = tcase_create("link");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, a_link_goes_up_as_the_kernel_does);
	tcase_add_test(tc, ipv6_alone_is_enough);
	tcase_add_test(tc, a_good_probe_brings_it_online);
	tcase_add_test(tc, a_portal_is_no_way_out);
	tcase_add_test(tc, silence_takes_it_out_after_fall);
	tcase_add_test(tc, a_connect_is_a_probe_too);
	tcase_add_test(tc, a_lost_carrier_is_told_at_once);
	tcase_add_test(tc, live_traffic_that_fails_makes_a_probe_decide);
	tcase_add_test(tc, reports_do_not_make_a_storm_of_probes);
	tcase_add_test(tc, without_a_probe_suspicion_passes);
	tcase_add_test(tc, the_choice_follows_policy_priority_and_what_was_tried);
	tcase_add_test(tc, an_order_names_every_link_once);
	tcase_add_test(tc, a_name_is_asked_of_the_resolver_that_was_wired);
	tcase_add_test(tc, nameservers_of_the_device_itself_are_left_out);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
