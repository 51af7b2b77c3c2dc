/* links: hf_resolver */
/*
 * The resolver with real sockets, a real store and a real server (dnsmasq), in a network
 * namespace of its own where only `lo` is. Links and the kernel's maps are the test's own:
 *
 *   test (app) --UDP, TCP--> 198.18.0.1, fd5a:fe00::1 (resolver) --> 127.0.0.9 (dnsmasq)
 */
#include "resolver/internal.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- links and steer, as far as the resolver uses them --- */

struct link {
	struct ip dns[2];
	size_t dns_count;
	enum link_state state;
	unsigned number;
	int failures;
};

static struct link fake_links[2];
static struct {
	int mode;
	int published, withdrawn;
	struct hf_name_key key;
	struct hf_name name;
} kernel;

size_t links_count(const struct links *links)
{
	return 2;
}
struct link *links_at(struct links *links, size_t index)
{
	return &fake_links[index];
}
struct link *links_choose(struct links *links, const struct rule_policy *policy, uint32_t tried)
{
	for (size_t i = 0; i < 2; i++)
		if (fake_links[i].state == LINK_ONLINE && !(tried & 1u << i))
			return &fake_links[i];
	return NULL;
}
bool links_any_online(const struct links *links)
{
	return fake_links[0].state == LINK_ONLINE || fake_links[1].state == LINK_ONLINE;
}
const char *link_name(const struct link *link)
{
	return link == &fake_links[0] ? "wifi" : "lte";
}
unsigned link_number(const struct link *link)
{
	return link->number;
}
enum link_state link_state(const struct link *link)
{
	return link->state;
}
size_t link_dns_servers(const struct link *link, const struct ip **ret_servers)
{
	*ret_servers = link->dns;
	return link->dns_count;
}
bool link_has_family(const struct link *link, int family)
{
	return true;
}
int link_own_socket(struct link *link, int fd)
{
	return 0;
}
void link_report_failure(struct link *link, const char *what)
{
	link->failures++;
}
int steer_set_listener(struct steer *steer, enum hf_socket which, int fd)
{
	return 0;
}
int steer_take_listener(struct steer *steer, enum hf_socket which, const struct ip *address,
			uint16_t port, int *ret_fd)
{
	return -ENOENT;
}
bool steer_is_device_address(const struct steer *steer, const struct ip *ip)
{
	return false;
}

bool steer_is_link_interface(const struct steer *steer, int ifindex)
{
	return false;
}

int steer_own_socket(struct steer *steer, int fd, unsigned link_number_)
{
	return 0;
}
int steer_names_mode(struct steer *steer, enum hf_names_mode mode)
{
	kernel.mode = mode;
	return 0;
}
int steer_name_publish(struct steer *steer, const struct hf_name_key *key,
		       const struct hf_name *name)
{
	kernel.published++;
	kernel.key = *key;
	kernel.name = *name;
	return 0;
}
int steer_name_withdraw(struct steer *steer, const struct hf_name_key *key)
{
	kernel.withdrawn++;
	return 0;
}

/* --- the set-up --- */

static char dir[] = "/tmp/check_resolver.XXXXXX";
static uv_loop_t loop;
static struct store *store;
static struct config config;
static struct resolver *resolver;

static struct ip ip_of(const char *text)
{
	struct ip ip;

	ck_assert_int_eq(ip_parse(text, &ip), 0);
	return ip;
}

static void command(const char *text)
{
	ck_assert_msg(system(text) == 0, "%s", text);
}

static pid_t servers[2];
static size_t server_count;

/* extra, more: what it knows; more may be NULL */
static void server_start_as(const char *address, const char *extra, const char *more)
{
	char listen[64];
	pid_t pid;

	snprintf(listen, sizeof(listen), "--listen-address=%s", address);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that aborts leaves nothing */
		execlp("dnsmasq", "dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts",
		       "--user=root", "--pid-file=", "--log-facility=/dev/null", listen,
		       "--bind-interfaces", "--local-ttl=120", "--local=/gone.example/",
		       "--txt-record=text.up.example,hello", extra, more, (char *)NULL);
		_exit(127);
	}
	servers[server_count++] = pid;
	/* it serves when its TCP socket takes a connection */
	for (int i = 0; i < 200; i++) {
		struct ip ip = ip_of(address);
		struct sockaddr_storage sa;
		socklen_t len = ip_to_sockaddr(&ip, 53, &sa);
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int r = connect(fd, (struct sockaddr *)&sa, len);

		close(fd);
		if (r == 0)
			return;
		usleep(20000);
	}
	ck_abort_msg("dnsmasq does not answer");
}

static void server_stop(void)
{
	while (server_count) {
		pid_t pid = servers[--server_count];

		kill(pid, SIGTERM);
		waitpid(pid, NULL, 0);
	}
}

static void on_store_closed(void *arg)
{
	*(bool *)arg = true;
}

static void resolver_begin(void)
{
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(store_open(&loop, dir, &store), 0);
	ck_assert_int_eq(resolver_new(&loop, &config, NULL, NULL, store, &resolver), 0);
}

static void resolver_end(void)
{
	bool closed = false;

	resolver_close(resolver);
	store_close(store, on_store_closed, &closed);
	while (uv_run(&loop, UV_RUN_DEFAULT))
		;
	ck_assert(closed);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void set_up(void)
{
	ck_assert_int_eq(unshare(CLONE_NEWNET), 0);
	command("ip link set lo up && ip addr add 198.18.0.1/32 dev lo && "
		"ip -6 addr add fd5a:fe00::1/128 dev lo nodad");
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	memset(&kernel, 0, sizeof(kernel));
	kernel.mode = -1;
	for (unsigned i = 0; i < 2; i++)
		fake_links[i] = (struct link){.number = i + 1,
					      .state = i ? LINK_DOWN : LINK_ONLINE,
					      .dns = {ip_of("127.0.0.9")},
					      .dns_count = 1};
	config = (struct config){.refs = 1000};
	config.dns.offline = DNS_VIRTUAL;
	config.dns.virtual_ttl = 1000;
	ck_assert_int_eq(ip_prefix_parse("198.18.0.0/15", &config.dns.virtual_v4), 0);
	ck_assert_int_eq(ip_prefix_parse("fd5a:fe00::/64", &config.dns.virtual_v6), 0);
	server_start_as("127.0.0.9", "--address=/up.example/192.0.2.10",
			"--address=/up.example/2001:db8::10");
	resolver_begin();
}

static void tear_down(void)
{
	char text[64];

	resolver_end();
	server_stop();
	snprintf(text, sizeof(text), "rm -rf %s", dir);
	command(text);
}

static void set_online(bool online)
{
	fake_links[0].state = online ? LINK_ONLINE : LINK_DOWN;
	resolver_links_changed(resolver);
}

/* --- an app --- */

static struct dns_name name_of(const char *text)
{
	struct dns_name name;

	ck_assert_int_eq(dns_name_from_text(text, &name), 0);
	return name;
}

static int app_socket(const char *to, int type)
{
	struct ip ip = ip_of(to);
	struct sockaddr_storage sa;
	socklen_t len = ip_to_sockaddr(&ip, 53, &sa);
	int fd = socket(sa.ss_family, type | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, len), 0);
	ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

/* Runs the loop until the socket has something; 0: nothing within the time. */
static size_t app_receive(int fd, uint8_t *out, size_t size, int ms)
{
	uint64_t end = uv_hrtime() + (uint64_t)ms * 1000000;
	ssize_t n;

	while ((n = recv(fd, out, size, 0)) < 0 && uv_hrtime() < end) {
		uv_run(&loop, UV_RUN_NOWAIT);
		usleep(500);
	}
	return n < 0 ? 0 : (size_t)n;
}

static size_t ask_raw(const char *to, const char *text, uint16_t type, uint8_t *reply, size_t size)
{
	struct dns_name name = name_of(text);
	uint8_t message[512];
	size_t len = dns_question_write(message, sizeof(message), 77, &name, type);
	int fd = app_socket(to, SOCK_DGRAM);

	ck_assert_int_eq(send(fd, message, len, 0), (int)len);
	len = app_receive(fd, reply, size, 9000);
	close(fd);
	return len;
}

static struct dns_result ask(const char *text, uint16_t type)
{
	struct dns_name name = name_of(text);
	struct dns_result result;
	uint8_t reply[4096];
	size_t len = ask_raw("198.18.0.1", text, type, reply, sizeof(reply));

	ck_assert_uint_gt(len, 0);
	ck_assert_int_eq(dns_reply_read(reply, len, &name, type, &result), 0);
	return result;
}

static void assert_address(const struct dns_result *result, const char *text)
{
	char got[IP_TEXT_MAX];

	ck_assert_int_eq(result->rcode, DNS_NOERROR);
	ck_assert_uint_eq(result->count, 1);
	ck_assert_str_eq(ip_format(&result->addresses[0], got), text);
}

struct found {
	int calls, status;
	struct ip addresses[2 * DNS_ADDRESSES_MAX];
	size_t count;
};

static void on_found(void *arg, int status, const struct ip *addresses, size_t count)
{
	struct found *found = arg;

	found->calls++;
	found->status = status;
	found->count = count;
	memcpy(found->addresses, addresses, count * sizeof(*addresses));
}

static struct found look_up(const char *name)
{
	struct found found = {0};
	struct resolver_query *query;
	uint64_t end = uv_hrtime() + 9000000000ull;

	ck_assert_int_eq(resolver_lookup(resolver, &fake_links[0], name, on_found, &found, &query),
			 0);
	ck_assert_int_eq(found.calls, 0);
	while (!found.calls && uv_hrtime() < end)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_int_eq(found.calls, 1);
	return found;
}

/* --- what it does --- */

START_TEST(online_names_have_their_real_addresses)
{
	struct dns_result result = ask("Www.UP.example", DNS_TYPE_A);
	struct resolver_statistics statistics;

	assert_address(&result, "192.0.2.10");
	ck_assert_uint_eq(result.ttl, 120);
	ck_assert_int_eq(kernel.mode, HF_NAMES_REAL);
	ck_assert_mem_eq(kernel.key.wire, "\3www\2up\7example\0", 16);
	ck_assert_uint_eq(kernel.name.real_count, 1);
	ck_assert_uint_gt(kernel.name.real_until, uv_hrtime());
	ck_assert_uint_eq(kernel.name.virtual_known, 0);
	result = ask("www.up.example", DNS_TYPE_AAAA);
	assert_address(&result, "2001:db8::10");
	result = ask("www.up.example", DNS_TYPE_A);
	assert_address(&result, "192.0.2.10");
	resolver_statistics(resolver, &statistics);
	ck_assert_uint_eq(statistics.answered_upstream, 2);
	ck_assert_uint_eq(statistics.answered_cache, 1);
	ck_assert_uint_eq(statistics.virtual_names, 0);
}
END_TEST

START_TEST(ipv6_apps_are_answered)
{
	struct dns_name name = name_of("up.example");
	struct dns_result result;
	uint8_t reply[512];
	size_t len = ask_raw("fd5a:fe00::1", "up.example", DNS_TYPE_AAAA, reply, sizeof(reply));

	ck_assert_int_eq(dns_reply_read(reply, len, &name, DNS_TYPE_AAAA, &result), 0);
	assert_address(&result, "2001:db8::10");
}
END_TEST

START_TEST(names_that_are_not_there_are_not_there)
{
	ck_assert_int_eq(ask("x.gone.example", DNS_TYPE_A).rcode, DNS_NXDOMAIN);
	ck_assert_int_eq(ask("printer.local", DNS_TYPE_A).rcode, DNS_NXDOMAIN);
	ck_assert_int_eq(ask("a.onion", DNS_TYPE_AAAA).rcode, DNS_NXDOMAIN);
}
END_TEST

START_TEST(a_server_that_refuses_gives_no_virtual_address)
{
	ck_assert_int_eq(ask("unknown.example", DNS_TYPE_A).rcode, DNS_SERVFAIL);
	ck_assert_uint_eq(virtual_count(resolver->virtual), 0);
}
END_TEST

START_TEST(other_types_are_relayed_and_https_is_empty)
{
	uint8_t reply[512];
	size_t len = ask_raw("198.18.0.1", "text.up.example", 16, reply, sizeof(reply));
	struct dns_result result;

	ck_assert_uint_gt(len, 0);
	ck_assert_uint_eq(reply[7], 1);
	ck_assert_ptr_nonnull(memmem(reply, len, "\5hello", 6));
	ck_assert_uint_eq(reply[1], 77);
	result = ask("up.example", DNS_TYPE_HTTPS);
	ck_assert_int_eq(result.rcode, DNS_NOERROR);
	ck_assert_uint_eq(result.count, 0);
	set_online(false);
	ck_assert_int_eq(ask("text.up.example", 16).rcode, DNS_SERVFAIL);
}
END_TEST

START_TEST(offline_names_have_virtual_addresses_that_last)
{
	struct dns_result result;
	struct ip v4 = ip_of("198.18.0.2"), v6 = ip_of("fd5a:fe00::3");

	set_online(false);
	ck_assert_int_eq(kernel.mode, HF_NAMES_VIRTUAL);
	result = ask("One.example", DNS_TYPE_A);
	assert_address(&result, "198.18.0.2");
	ck_assert_uint_eq(result.ttl, 1);
	ck_assert_uint_eq(kernel.name.virtual_known, 1);
	result = ask("two.example", DNS_TYPE_AAAA);
	assert_address(&result, "fd5a:fe00::3");
	ck_assert_str_eq(resolver_name_of(resolver, &v4), "one.example");
	ck_assert_str_eq(resolver_name_of(resolver, &v6), "two.example");
	ck_assert_int_eq(ask("single", DNS_TYPE_A).rcode, DNS_NXDOMAIN);
	ck_assert_int_eq(ask("2.0.18.198.in-addr.arpa", DNS_TYPE_PTR).rcode, DNS_NXDOMAIN);

	resolver_end();
	resolver_begin();
	ck_assert_str_eq(resolver_name_of(resolver, &v4), "one.example");
	result = ask("three.example", DNS_TYPE_A);
	assert_address(&result, "198.18.0.4");
	result = ask("two.example", DNS_TYPE_A);
	assert_address(&result, "198.18.0.3");
	set_online(true);
	ck_assert_int_eq(kernel.mode, HF_NAMES_REAL);
	ck_assert_str_eq(resolver_name_of(resolver, &v4), "one.example");
}
END_TEST

static int run_corrupt(struct store_job *job, sqlite3 *db)
{
	return -EBADMSG;
}

static void on_corrupt(struct store_job *job, int status)
{
	job->run = NULL;
}

/* A job says so; the first time the file is read whole and believed. */
static void corrupt(void)
{
	for (int i = 0; i < 2; i++) {
		struct store_job job = {.run = run_corrupt, .done = on_corrupt, .read_only = true};

		ck_assert_int_eq(store_submit(store, &job), 0);
		while (job.run)
			uv_run(&loop, UV_RUN_ONCE);
	}
}

START_TEST(a_database_that_is_begun_anew_gets_the_names_that_apps_know)
{
	struct store_statistics s;
	struct dns_result result;

	set_online(false);
	ask("one.example", DNS_TYPE_A);
	ask("two.example", DNS_TYPE_A);
	corrupt();
	store_statistics(store, &s);
	ck_assert_uint_eq(s.corrupt, 1);
	ask("three.example", DNS_TYPE_A);
	resolver_end();
	resolver_begin();
	set_online(false);
	result = ask("two.example", DNS_TYPE_A);
	assert_address(&result, "198.18.0.3");
	result = ask("three.example", DNS_TYPE_A);
	assert_address(&result, "198.18.0.4");
	result = ask("one.example", DNS_TYPE_A);
	assert_address(&result, "198.18.0.2");
}
END_TEST

START_TEST(questions_join_the_commit_that_is_under_way)
{
	struct dns_name name = name_of("joined.example");
	uint8_t message[512], reply[512];
	size_t len = dns_question_write(message, sizeof(message), 5, &name, DNS_TYPE_A);
	int fd = app_socket("198.18.0.1", SOCK_DGRAM);

	set_online(false);
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(send(fd, message, len, 0), (int)len);
	for (int i = 0; i < 20; i++) {
		struct dns_result result;

		len = app_receive(fd, reply, sizeof(reply), 3000);
		ck_assert_int_eq(dns_reply_read(reply, len, &name, DNS_TYPE_A, &result), 0);
		assert_address(&result, "198.18.0.2");
	}
	close(fd);
	ck_assert_uint_eq(virtual_count(resolver->virtual), 1);
}
END_TEST

START_TEST(new_names_are_rate_limited_by_source)
{
	struct resolver_statistics statistics;
	unsigned refused = 0;

	set_online(false);
	for (unsigned i = 0; i < DNS_NEW_NAMES_BURST + 200; i++) {
		char text[32];

		snprintf(text, sizeof(text), "n%u.example", i);
		refused += ask(text, DNS_TYPE_A).rcode == DNS_REFUSED;
	}
	resolver_statistics(resolver, &statistics);
	ck_assert_uint_gt(refused, 0);
	ck_assert_uint_eq(statistics.rate_limited, refused);
	ck_assert_uint_eq(statistics.virtual_names + refused, DNS_NEW_NAMES_BURST + 200);
	/* one that is known already costs nothing */
	ck_assert_int_eq(ask("n0.example", DNS_TYPE_AAAA).rcode, DNS_NOERROR);
}
END_TEST

START_TEST(exhausted_pools_are_said)
{
	resolver_end();
	ck_assert_int_eq(ip_prefix_parse("198.18.0.0/29", &config.dns.virtual_v4), 0);
	resolver_begin();
	set_online(false);
	for (int i = 0; i < 5; i++) { /* .2 to .6; .7 is the broadcast address */
		char text[32];

		snprintf(text, sizeof(text), "n%d.example", i);
		ck_assert_int_eq(ask(text, DNS_TYPE_A).rcode, DNS_NOERROR);
	}
	ck_assert_int_eq(ask("more.example", DNS_TYPE_A).rcode, DNS_SERVFAIL);
}
END_TEST

START_TEST(a_dead_server_is_left_for_the_next_link)
{
	struct dns_result result;

	fake_links[0].dns[0] = ip_of("127.0.0.8"); /* nobody: refused at once */
	fake_links[1].state = LINK_ONLINE;
	resolver_links_changed(resolver);
	result = ask("up.example", DNS_TYPE_A);
	assert_address(&result, "192.0.2.10");
	ck_assert_uint_eq(cache_find(resolver->cache, "up.example", DNS_TYPE_A)->link, 2);
}
END_TEST

/* A bound UDP socket that nobody reads. */
static int silent_server(const char *text)
{
	struct ip ip = ip_of(text);
	struct sockaddr_storage sa;
	socklen_t len = ip_to_sockaddr(&ip, 53, &sa);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, len), 0);
	return fd;
}

START_TEST(a_silent_server_is_reported_and_left_for_the_next_link)
{
	int fd = silent_server("127.0.0.8");
	uint64_t start = uv_hrtime();
	struct dns_result result;

	fake_links[0].dns[0] = ip_of("127.0.0.8");
	fake_links[1].state = LINK_ONLINE;
	resolver_links_changed(resolver);
	result = ask("up.example", DNS_TYPE_A);
	assert_address(&result, "192.0.2.10");
	ck_assert_int_eq(fake_links[0].failures, 1);
	ck_assert_uint_lt((uv_hrtime() - start) / 1000000, DNS_LINK_TIMEOUT + 1000);
	close(fd);
}
END_TEST

START_TEST(a_link_that_goes_takes_its_questions_to_the_next_at_once)
{
	int fd = silent_server("127.0.0.8"), app = app_socket("198.18.0.1", SOCK_DGRAM);
	struct dns_name name = name_of("up.example");
	uint8_t message[512];
	size_t len = dns_question_write(message, sizeof(message), 5, &name, DNS_TYPE_A);
	struct dns_result result;

	fake_links[0].dns[0] = ip_of("127.0.0.8");
	ck_assert_int_eq(send(app, message, len, 0), (int)len);
	ck_assert_uint_eq(app_receive(app, message, sizeof(message), 100), 0);
	ck_assert_uint_eq(resolver->pending, 1);
	fake_links[0].state = LINK_DOWN;
	fake_links[1].state = LINK_ONLINE;
	resolver_links_changed(resolver);
	len = app_receive(app, message, sizeof(message), 500);
	ck_assert_int_eq(dns_reply_read(message, len, &name, DNS_TYPE_A, &result), 0);
	assert_address(&result, "192.0.2.10");
	close(app);
	close(fd);
}
END_TEST

START_TEST(a_question_that_waits_when_the_resolver_closes_leaves_nothing)
{
	int fd = silent_server("127.0.0.8"), app = app_socket("198.18.0.1", SOCK_STREAM);
	struct dns_name name = name_of("up.example");
	uint8_t message[512] = {0};
	size_t len = dns_question_write(message + 2, sizeof(message) - 2, 5, &name, DNS_TYPE_A);

	message[1] = (uint8_t)len;
	fake_links[0].dns[0] = ip_of("127.0.0.8");
	ck_assert_int_eq(send(app, message, len + 2, 0), (int)len + 2);
	ck_assert_uint_eq(app_receive(app, message, sizeof(message), 100), 0);
	ck_assert_uint_eq(resolver->pending, 1);
	resolver_end();
	resolver_begin();
	close(app);
	close(fd);
}
END_TEST

START_TEST(a_server_that_refuses_is_left_for_the_next_of_its_link)
{
	struct found found;

	server_start_as("127.0.0.8", "--address=/second.example/192.0.2.20", NULL);
	fake_links[0].dns[1] = ip_of("127.0.0.8");
	fake_links[0].dns_count = 2;
	for (int i = 0; i < 4; i++) { /* whichever is asked first */
		char text[32];

		snprintf(text, sizeof(text), "n%d.second.example", i);
		found = look_up(text);
		ck_assert_int_eq(found.status, 0);
		ck_assert_uint_eq(found.count, 1);
	}
}
END_TEST

START_TEST(old_answers_serve_when_servers_fail)
{
	struct dns_result result = ask("up.example", DNS_TYPE_A);

	server_stop();
	cache_find(resolver->cache, "up.example", DNS_TYPE_A)->expires = uv_now(&loop);
	result = ask("up.example", DNS_TYPE_A);
	assert_address(&result, "192.0.2.10");
	ck_assert_uint_eq(result.ttl, DNS_STALE_TTL);
	ck_assert_uint_eq(resolver->statistics.answered_stale, 1);
	/* and a name that was never known has its virtual address */
	result = ask("other.example", DNS_TYPE_A);
	assert_address(&result, "198.18.0.2");
}
END_TEST

START_TEST(holdfast_internal_and_localhost_are_always_there)
{
	for (int online = 0; online < 2; online++) {
		struct dns_result result;

		set_online(online);
		result = ask("Holdfast.INTERNAL", DNS_TYPE_A);
		assert_address(&result, "198.18.0.1");
		result = ask("holdfast.internal", DNS_TYPE_AAAA);
		assert_address(&result, "fd5a:fe00::1");
		result = ask("x.localhost", DNS_TYPE_A);
		assert_address(&result, "127.0.0.1");
	}
}
END_TEST

START_TEST(tcp_takes_many_questions_in_odd_pieces)
{
	uint8_t stream[40 * 64], reply[64 * 1024];
	struct dns_name name = name_of("up.example");
	size_t len = 0, got = 0, at = 0, count = 0;
	int fd = app_socket("198.18.0.1", SOCK_STREAM);

	for (uint16_t i = 0; i < 40; i++) {
		size_t n = dns_question_write(stream + len + 2, 62, i, &name, DNS_TYPE_A);

		stream[len] = 0;
		stream[len + 1] = (uint8_t)n;
		len += n + 2;
	}
	for (size_t sent = 0; sent < len; sent += 7) {
		size_t n = len - sent < 7 ? len - sent : 7;

		ck_assert_int_eq(send(fd, stream + sent, n, MSG_NOSIGNAL), (int)n);
		if (sent % 70 == 0)
			uv_run(&loop, UV_RUN_NOWAIT);
	}
	while (count < 40) {
		size_t n = app_receive(fd, reply + got, sizeof(reply) - got, 3000);

		ck_assert_uint_gt(n, 0);
		got += n;
		while (got - at >= 2 && got - at >= 2u + (size_t)(reply[at] << 8 | reply[at + 1])) {
			size_t size = (size_t)(reply[at] << 8 | reply[at + 1]);
			struct dns_result result;

			ck_assert_int_eq(
				dns_reply_read(reply + at + 2, size, &name, DNS_TYPE_A, &result),
				0);
			assert_address(&result, "192.0.2.10");
			at += 2 + size;
			count++;
		}
	}
	close(fd);
	ck_assert_uint_eq(resolver->statistics.questions_tcp, 40);
}
END_TEST

START_TEST(clients_that_hang_up_leave_nothing)
{
	uint8_t message[64] = {0};
	struct dns_name name = name_of("hangup.example");
	size_t len = dns_question_write(message + 2, 62, 1, &name, DNS_TYPE_A);

	set_online(false);
	message[1] = (uint8_t)len;
	for (int i = 0; i < 20; i++) {
		int fd = app_socket("198.18.0.1", SOCK_STREAM);

		ck_assert_int_eq(send(fd, message, len + 2, MSG_NOSIGNAL), (int)len + 2);
		if (i % 2)
			uv_run(&loop, UV_RUN_NOWAIT);
		close(fd);
	}
	ck_assert_int_eq(ask("alive.example", DNS_TYPE_A).rcode, DNS_NOERROR);
	ck_assert_uint_eq(resolver->pending, 0);
}
END_TEST

START_TEST(malformed_questions_are_refused_or_dropped)
{
	uint8_t message[] = {0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1};
	uint8_t reply[512];
	int fd = app_socket("198.18.0.1", SOCK_DGRAM);

	send(fd, message, sizeof(message), 0);
	ck_assert_uint_eq(app_receive(fd, reply, sizeof(reply), 2000), DNS_HEADER_SIZE);
	ck_assert_uint_eq(reply[3] & 0xf, DNS_FORMERR);
	message[2] |= 0x80; /* a response */
	send(fd, message, sizeof(message), 0);
	send(fd, message, 5, 0);
	ck_assert_uint_eq(app_receive(fd, reply, sizeof(reply), 200), 0);
	close(fd);
	ck_assert_uint_eq(resolver->statistics.malformed, 3);
}
END_TEST

/* --- the daemon's own look-ups --- */

START_TEST(look_ups_give_both_families_ipv6_first)
{
	char text[IP_TEXT_MAX];

	for (int i = 0; i < 2; i++) { /* asked, then cached */
		struct found found = look_up("Up.example");

		ck_assert_int_eq(found.status, 0);
		ck_assert_uint_eq(found.count, 2);
		ck_assert_str_eq(ip_format(&found.addresses[0], text), "2001:db8::10");
		ck_assert_str_eq(ip_format(&found.addresses[1], text), "192.0.2.10");
	}
	ck_assert_uint_eq(cache_count(resolver->cache), 2);
}
END_TEST

START_TEST(look_ups_fail_with_the_reason)
{
	ck_assert_int_eq(look_up("x.gone.example").status, -ENOENT);
	ck_assert_int_eq(look_up("unknown.example").status, -ECONNREFUSED);
	ck_assert_int_eq(look_up("holdfast.internal").status, -ENOENT);
	server_stop();
	ck_assert_int_eq(look_up("www.up.example").status, -ECONNREFUSED);
}
END_TEST

START_TEST(look_ups_can_be_cancelled_and_end_with_the_resolver)
{
	struct found first = {0}, second = {0};
	struct resolver_query *query;

	ck_assert_int_eq(
		resolver_lookup(resolver, &fake_links[0], "up.example", on_found, &first, &query),
		0);
	resolver_cancel(query);
	ck_assert_int_eq(
		resolver_lookup(resolver, &fake_links[0], "up.example", on_found, &second, &query),
		0);
	resolver_end();
	ck_assert_int_eq(first.calls, 0);
	ck_assert_int_eq(second.calls, 1);
	ck_assert_int_eq(second.status, -ECANCELED);
	resolver_begin();
}
END_TEST

/* --- what can be seen --- */

static bool collect_name(void *arg, const struct resolver_name_info *info)
{
	char *out = arg;

	sprintf(out + strlen(out), "%s %zu%s%s;", info->name, info->real_count,
		ip_is_v4(&info->virtual_v4) ? " virtual" : "", info->published ? " published" : "");
	return true;
}

START_TEST(names_are_listed_in_order_and_forgotten)
{
	char text[512] = "";

	ask("up.example", DNS_TYPE_A);
	ask("up.example", DNS_TYPE_AAAA);
	set_online(false);
	ask("b.example", DNS_TYPE_A);
	ask("a.example", DNS_TYPE_A);
	resolver_names_each(resolver, NULL, collect_name, text);
	ck_assert_str_eq(text, "a.example 0 virtual published;b.example 0 virtual published;"
			       "up.example 2 published;");
	text[0] = 0;
	resolver_names_each(resolver, "b.example", collect_name, text);
	ck_assert_str_eq(text, "up.example 2 published;");
	kernel.withdrawn = 0;
	ck_assert_uint_eq(resolver_names_flush(resolver), 2);
	ck_assert_int_eq(kernel.withdrawn, 2);
	text[0] = 0;
	resolver_names_each(resolver, "b.example", collect_name, text);
	ck_assert_str_eq(text, "");
}
END_TEST

START_TEST(a_full_cache_lets_the_oldest_go)
{
	struct dns_result result = {.ttl = 60, .count = 1};
	char text[32];

	for (unsigned i = 0; i <= DNS_CACHE_MAX; i++) {
		snprintf(text, sizeof(text), "n%u.example", i);
		ck_assert_ptr_nonnull(
			cache_put(resolver->cache, text, DNS_TYPE_A, 1, &result, 1000));
	}
	ck_assert_uint_eq(cache_count(resolver->cache), DNS_CACHE_MAX);
	ck_assert_ptr_null(cache_find(resolver->cache, "n0.example", DNS_TYPE_A));
	ck_assert_ptr_nonnull(cache_find(resolver->cache, "n1.example", DNS_TYPE_A));
	ck_assert_ptr_null(cache_find(resolver->cache, "n1.example", DNS_TYPE_AAAA));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("resolver");
	TCase *tc = tcase_create("all");
	SRunner *runner;
	int failed;

	if (geteuid() != 0) {
		fputs("check_resolver needs root, for a network namespace of its own\n", stderr);
		return 77;
	}
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, online_names_have_their_real_addresses);
	tcase_add_test(tc, ipv6_apps_are_answered);
	tcase_add_test(tc, names_that_are_not_there_are_not_there);
	tcase_add_test(tc, a_server_that_refuses_gives_no_virtual_address);
	tcase_add_test(tc, other_types_are_relayed_and_https_is_empty);
	tcase_add_test(tc, offline_names_have_virtual_addresses_that_last);
	tcase_add_test(tc, a_database_that_is_begun_anew_gets_the_names_that_apps_know);
	tcase_add_test(tc, questions_join_the_commit_that_is_under_way);
	tcase_add_test(tc, new_names_are_rate_limited_by_source);
	tcase_add_test(tc, exhausted_pools_are_said);
	tcase_add_test(tc, a_dead_server_is_left_for_the_next_link);
	tcase_add_test(tc, a_silent_server_is_reported_and_left_for_the_next_link);
	tcase_add_test(tc, a_link_that_goes_takes_its_questions_to_the_next_at_once);
	tcase_add_test(tc, a_question_that_waits_when_the_resolver_closes_leaves_nothing);
	tcase_add_test(tc, a_server_that_refuses_is_left_for_the_next_of_its_link);
	tcase_add_test(tc, old_answers_serve_when_servers_fail);
	tcase_add_test(tc, holdfast_internal_and_localhost_are_always_there);
	tcase_add_test(tc, tcp_takes_many_questions_in_odd_pieces);
	tcase_add_test(tc, clients_that_hang_up_leave_nothing);
	tcase_add_test(tc, malformed_questions_are_refused_or_dropped);
	tcase_add_test(tc, look_ups_give_both_families_ipv6_first);
	tcase_add_test(tc, look_ups_fail_with_the_reason);
	tcase_add_test(tc, look_ups_can_be_cancelled_and_end_with_the_resolver);
	tcase_add_test(tc, names_are_listed_in_order_and_forgotten);
	tcase_add_test(tc, a_full_cache_lets_the_oldest_go);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? 1 : 0;
}
