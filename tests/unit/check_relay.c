/* links: hf_relay */
#include "relay/flows.h"

#include <check.h>
#include <stdlib.h>

enum { MAX = 8, OF_SOURCE = 4 };

static struct flows flows;

static struct flow_key key(uint32_t app, uint16_t app_port)
{
	return (struct flow_key){
		.app = ip_from_v4(htonl(0xc0000200 | app)),
		.destination = ip_from_v4(htonl(0xcb007109)),
		.app_port = app_port,
		.port = 7,
	};
}

static struct flow_entry *add(uint32_t app, uint16_t app_port, uint64_t now)
{
	struct flow_entry *entry = calloc(1, sizeof(*entry));

	entry->key = key(app, app_port);
	ck_assert_int_eq(flows_add(&flows, entry, now), 0);
	return entry;
}

static void drop(struct flow_entry *entry)
{
	flows_remove(&flows, entry);
	free(entry);
}

static void setup(void)
{
	flows_init(&flows, MAX, OF_SOURCE);
}

static void teardown(void)
{
	struct flow_entry *entry;

	while ((entry = TAILQ_FIRST(&flows.by_use)))
		drop(entry);
	ck_assert_uint_eq(flows.count, 0);
	ck_assert_ptr_null(flows.sources);
}

static struct flow_entry *in_the_way(uint32_t app, uint64_t now, bool *full)
{
	struct flow_key of = key(app, 1);

	return flows_in_the_way(&flows, &of.app, now, full);
}

START_TEST(a_flow_is_found_by_all_of_its_key)
{
	struct flow_entry *entry = add(1, 1000, 0);
	struct flow_key other;

	other = key(1, 1000);
	ck_assert_ptr_eq(flows_find(&flows, &other), entry);
	other.port = 8;
	ck_assert_ptr_null(flows_find(&flows, &other));
	other = key(1, 1001);
	ck_assert_ptr_null(flows_find(&flows, &other));
	other = key(2, 1000);
	ck_assert_ptr_null(flows_find(&flows, &other));
	other = key(1, 1000);
	other.scope = 3;
	ck_assert_ptr_null(flows_find(&flows, &other));
}
END_TEST

START_TEST(a_flow_lives_two_minutes_from_its_last_datagram)
{
	struct flow_entry *first = add(1, 1, 1000), *second = add(1, 2, 2000);

	flows_touch(&flows, first, 3000);
	ck_assert_ptr_null(flows_idle(&flows, 2000 + RELAY_FLOW_IDLE - 1, RELAY_FLOW_IDLE));
	ck_assert_ptr_eq(flows_idle(&flows, 2000 + RELAY_FLOW_IDLE, RELAY_FLOW_IDLE), second);
	drop(second);
	ck_assert_ptr_null(flows_idle(&flows, 3000 + RELAY_FLOW_IDLE - 1, RELAY_FLOW_IDLE));
	ck_assert_ptr_eq(flows_idle(&flows, 3000 + RELAY_FLOW_IDLE, RELAY_FLOW_IDLE), first);
	ck_assert_uint_ge(RELAY_FLOW_IDLE, 120000); /* RFC 4787, REQ-5 */
}
END_TEST

START_TEST(a_source_at_its_bound_loses_its_own_idle_flow_or_is_refused)
{
	struct flow_entry *other = add(2, 1, 0), *mine[OF_SOURCE];
	bool full;

	for (uint16_t i = 0; i < OF_SOURCE; i++)
		mine[i] = add(1, i, 1000);
	ck_assert_ptr_null(in_the_way(1, 1000 + RELAY_FLOW_SPARE - 1, &full));
	ck_assert(full);
	ck_assert_ptr_eq(in_the_way(1, 1000 + RELAY_FLOW_SPARE, &full), mine[0]);
	ck_assert(!full);
	flows_touch(&flows, mine[0], 2000);
	ck_assert_ptr_eq(in_the_way(1, 1000 + RELAY_FLOW_SPARE, &full), mine[1]);
	/* others are not concerned, though idle for longer */
	ck_assert_ptr_null(in_the_way(2, 1000 + RELAY_FLOW_SPARE, &full));
	ck_assert(!full);
	drop(other);
}
END_TEST

START_TEST(at_the_bound_of_all_the_least_recently_used_makes_room)
{
	struct flow_entry *oldest = add(1, 1, 0);
	bool full;

	for (uint16_t i = 1; i < MAX; i++)
		add(10u + i, i, 1000);
	ck_assert_ptr_eq(in_the_way(99, RELAY_FLOW_SPARE, &full), oldest);
	ck_assert(!full);
	flows_touch(&flows, oldest, RELAY_FLOW_SPARE);
	ck_assert_ptr_null(in_the_way(99, RELAY_FLOW_SPARE, &full));
	ck_assert(full);
	drop(oldest);
	ck_assert_ptr_null(in_the_way(99, RELAY_FLOW_SPARE, &full));
	ck_assert(!full);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("relay");
	TCase *tcase = tcase_create("flows");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, a_flow_is_found_by_all_of_its_key);
	tcase_add_test(tcase, a_flow_lives_two_minutes_from_its_last_datagram);
	tcase_add_test(tcase, a_source_at_its_bound_loses_its_own_idle_flow_or_is_refused);
	tcase_add_test(tcase, at_the_bound_of_all_the_least_recently_used_makes_room);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
