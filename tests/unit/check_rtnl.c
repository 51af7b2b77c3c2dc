/* links: hf_rtnl */
/*
 * rtnl against a real kernel, in a network namespace of the test's own. What the test
 * changes from outside goes over a second struct rtnl or through ip(8), as others would.
 */
#include "rtnl/rtnl.h"

#include <check.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEST_TABLE = 4711, TEST_PROTOCOL = 72 };

static uv_loop_t loop;
static struct rtnl *rtnl;
static unsigned changes;

static void shell(const char *command)
{
	ck_assert_msg(system(command) == 0, "failed: %s", command);
}

static void setup(void)
{
	ck_assert_msg(unshare(CLONE_NEWNET) == 0, "needs CAP_SYS_ADMIN");
	shell("ip link set lo up && ip link add veth0 type veth peer name veth1 && "
	      "ip addr add 192.0.2.1/24 dev veth0 && "
	      "ip addr add 2001:db8::1/64 dev veth0 nodad && ip link set veth0 up");
	ck_assert_int_eq(uv_loop_init(&loop), 0);
	ck_assert_int_eq(rtnl_new(&loop, &rtnl), 0);
	changes = 0;
}

static void teardown(void)
{
	rtnl_close(rtnl);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void on_changed(void *arg)
{
	(*(unsigned *)arg)++;
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

static const struct rtnl_route *find_route(int family, uint32_t table, bool is_default)
{
	size_t count;
	const struct rtnl_route *routes = rtnl_routes(rtnl, &count);

	for (size_t i = 0; i < count; i++)
		if (routes[i].family == family && routes[i].table == table &&
		    routes[i].has_destination == !is_default)
			return &routes[i];
	return NULL;
}

static size_t count_rules(void)
{
	size_t count, n = 0;
	const struct rtnl_rule *rules = rtnl_rules(rtnl, &count);

	for (size_t i = 0; i < count; i++)
		n += rules[i].protocol == TEST_PROTOCOL;
	return n;
}

START_TEST(the_view_is_complete_at_once)
{
	const struct rtnl_interface *veth = rtnl_interface_by_name(rtnl, "veth0");
	struct ip v4, v6, other;

	ck_assert_ptr_nonnull(veth);
	ck_assert_str_eq(veth->kind, "veth");
	ck_assert_int_eq(veth->type, ARPHRD_ETHER);
	ck_assert(!veth->carrier); /* the peer is down */
	ck_assert_ptr_eq(rtnl_interface_by_index(rtnl, veth->index), veth);
	ck_assert_int_eq(rtnl_interface_by_name(rtnl, "lo")->type, ARPHRD_LOOPBACK);
	ck_assert_int_eq(ip_parse("192.0.2.1", &v4), 0);
	ck_assert_int_eq(ip_parse("2001:db8::1", &v6), 0);
	ck_assert_int_eq(ip_parse("192.0.2.2", &other), 0);
	ck_assert(rtnl_is_device_address(rtnl, &v4));
	ck_assert(rtnl_is_device_address(rtnl, &v6));
	ck_assert(!rtnl_is_device_address(rtnl, &other));
	ck_assert_ptr_nonnull(find_route(AF_INET, RT_TABLE_MAIN, false));
	ck_assert_ptr_nonnull(find_route(AF_INET6, RT_TABLE_MAIN, false));
}
END_TEST

START_TEST(a_burst_of_events_is_one_callback)
{
	ck_assert_int_eq(rtnl_subscribe(rtnl, on_changed, &changes), 0);
	shell("ip -batch - <<E\n"
	      "link set veth1 up\naddr add 192.0.2.7/24 dev veth0\n"
	      "addr add 192.0.2.8/24 dev veth0\naddr add 192.0.2.9/24 dev veth0\nE");
	run_for(300);
	ck_assert_uint_ge(changes, 1);
	ck_assert_uint_le(changes, 12); /* there were dozens of messages */
	ck_assert(rtnl_interface_by_name(rtnl, "veth0")->carrier);
	shell("ip link set veth1 down");
	run_for(300);
	ck_assert(!rtnl_interface_by_name(rtnl, "veth0")->carrier);
	shell("ip link del veth0");
	run_for(300);
	ck_assert_ptr_null(rtnl_interface_by_name(rtnl, "veth0"));
}
END_TEST

START_TEST(rules_are_added_once_and_deleted_once)
{
	static const int families[] = {AF_INET, AF_INET6};

	for (size_t i = 0; i < 2; i++) {
		struct rtnl_rule rule = {.family = families[i],
					 .priority = 150,
					 .table = TEST_TABLE,
					 .protocol = TEST_PROTOCOL,
					 .mark = 0x08000000,
					 .mark_mask = 0x0ff00000,
					 .has_uid_range = true,
					 .uid_first = 7,
					 .uid_last = 9,
					 .has_source = true,
					 .iif = "veth0"};
		size_t count;
		const struct rtnl_rule *rules;
		bool seen = false;

		ck_assert_int_eq(
			ip_prefix_parse(i ? "2001:db8::/56" : "192.0.2.0/25", &rule.source), 0);
		ck_assert_int_eq(rtnl_rule_add(rtnl, &rule), 0);
		ck_assert_int_eq(rtnl_rule_add(rtnl, &rule), 0);
		ck_assert_int_eq(rtnl_refresh(rtnl), 0);
		ck_assert_uint_eq(count_rules(), 1);
		rules = rtnl_rules(rtnl, &count);
		for (size_t n = 0; n < count; n++)
			if (rules[n].protocol == TEST_PROTOCOL)
				seen = !memcmp(&rules[n], &rule, sizeof(rule));
		ck_assert(seen);
		ck_assert_int_eq(rtnl_rule_delete(rtnl, &rule), 0);
		ck_assert_int_eq(rtnl_rule_delete(rtnl, &rule), 0);
		ck_assert_int_eq(rtnl_refresh(rtnl), 0);
		ck_assert_uint_eq(count_rules(), 0);
	}
}
END_TEST

START_TEST(routes_are_replaced_and_deleted)
{
	static const char *const gateways[] = {"192.0.2.254", "2001:db8::fe"};

	shell("ip link set veth1 up");
	for (int i = 0; i < 2; i++) {
		struct rtnl_route route = {.family = i ? AF_INET6 : AF_INET,
					   .table = TEST_TABLE,
					   .type = RTN_UNICAST,
					   .protocol = TEST_PROTOCOL,
					   .has_gateway = true,
					   .metric = 5};
		const struct rtnl_route *found;

		route.oif = rtnl_interface_by_name(rtnl, "veth0")->index;
		ck_assert_int_eq(ip_parse(gateways[i], &route.gateway), 0);
		ck_assert_int_eq(rtnl_route_add(rtnl, &route), 0);
		ck_assert_int_eq(rtnl_route_add(rtnl, &route), 0);
		ck_assert_int_eq(rtnl_refresh(rtnl), 0);
		found = find_route(route.family, TEST_TABLE, true);
		ck_assert_ptr_nonnull(found);
		ck_assert(found->has_gateway && ip_equal(&found->gateway, &route.gateway));
		ck_assert_uint_eq(found->metric, 5);
		ck_assert_int_eq(found->protocol, TEST_PROTOCOL);
		ck_assert_int_eq(rtnl_route_delete(rtnl, &route), 0);
		ck_assert_int_eq(rtnl_route_delete(rtnl, &route), 0);
		ck_assert_int_eq(rtnl_refresh(rtnl), 0);
		ck_assert_ptr_null(find_route(route.family, TEST_TABLE, true));
	}
}
END_TEST

START_TEST(multipath_routes_have_an_entry_for_each_hop)
{
	size_t count, hops = 0;
	const struct rtnl_route *routes;

	shell("ip link set veth1 up && ip route add 198.51.100.0/24 "
	      "nexthop via 192.0.2.3 dev veth0 nexthop via 192.0.2.4 dev veth0");
	ck_assert_int_eq(rtnl_refresh(rtnl), 0);
	routes = rtnl_routes(rtnl, &count);
	for (size_t i = 0; i < count; i++)
		hops += routes[i].has_gateway && routes[i].oif != 0;
	ck_assert_uint_eq(hops, 2);
}
END_TEST

START_TEST(statistics_are_read_again)
{
	uint64_t before = rtnl_interface_by_name(rtnl, "lo")->rx_bytes;

	shell("ping -c 1 -q 127.0.0.1 > /dev/null");
	ck_assert_int_eq(rtnl_refresh_statistics(rtnl), 0);
	ck_assert_uint_gt(rtnl_interface_by_name(rtnl, "lo")->rx_bytes, before);
}
END_TEST

START_TEST(it_works_without_a_loop)
{
	struct rtnl *other;

	ck_assert_int_eq(rtnl_new(NULL, &other), 0);
	ck_assert_ptr_nonnull(rtnl_interface_by_name(other, "lo"));
	rtnl_close(other);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rtnl");
	TCase *tcase = tcase_create("kernel");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, the_view_is_complete_at_once);
	tcase_add_test(tcase, a_burst_of_events_is_one_callback);
	tcase_add_test(tcase, rules_are_added_once_and_deleted_once);
	tcase_add_test(tcase, routes_are_replaced_and_deleted);
	tcase_add_test(tcase, multipath_routes_have_an_entry_for_each_hop);
	tcase_add_test(tcase, statistics_are_read_again);
	tcase_add_test(tcase, it_works_without_a_loop);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
