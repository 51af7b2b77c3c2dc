/* links: hf_base */
#include "base/heap.h"

#include <check.h>
#include <stdlib.h>

enum { MANY = 2000 };

static uint64_t earliest(const struct heap_node *nodes, size_t *ret_listed)
{
	uint64_t first = UINT64_MAX;

	*ret_listed = 0;
	for (size_t i = 0; i < MANY; i++) {
		if (!nodes[i].listed)
			continue;
		(*ret_listed)++;
		if (nodes[i].at < first)
			first = nodes[i].at;
	}
	return first;
}

START_TEST(the_first_is_the_earliest_whatever_comes_goes_or_moves)
{
	struct heap_node *nodes = calloc(MANY, sizeof(*nodes));
	struct heap heap = {0};

	srandom((unsigned)_i);
	for (size_t step = 0; step < 3 * MANY; step++) {
		struct heap_node *node = &nodes[random() % MANY];
		size_t listed;
		uint64_t first;

		if (random() % 3)
			heap_put(&heap, node, (uint64_t)random() % 500);
		else
			heap_remove(&heap, node);
		first = earliest(nodes, &listed);
		ck_assert_int_eq(heap_first(&heap) != NULL, listed > 0);
		if (listed)
			ck_assert_uint_eq(heap_first(&heap)->at, first);
	}
	free(nodes);
}
END_TEST

START_TEST(taken_out_one_by_one_they_come_in_order)
{
	struct heap_node *nodes = calloc(MANY, sizeof(*nodes)), *node;
	struct heap heap = {0};
	uint64_t last = 0;
	size_t count = 0;

	srandom(7);
	for (size_t i = 0; i < MANY; i++)
		heap_put(&heap, &nodes[i], (uint64_t)random());
	for (; (node = heap_first(&heap)); count++) {
		ck_assert_uint_ge(node->at, last);
		last = node->at;
		heap_remove(&heap, node);
	}
	ck_assert_uint_eq(count, MANY);
	free(nodes);
}
END_TEST

START_TEST(removing_what_is_not_in_it_changes_nothing)
{
	struct heap_node in = {0}, out = {0};
	struct heap heap = {0};

	heap_put(&heap, &in, 5);
	heap_remove(&heap, &out);
	ck_assert_ptr_eq(heap_first(&heap), &in);
	heap_remove(&heap, &in);
	heap_remove(&heap, &in);
	ck_assert_ptr_null(heap_first(&heap));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("heap");
	TCase *tcase = tcase_create("heap");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tcase, the_first_is_the_earliest_whatever_comes_goes_or_moves, 0, 5);
	tcase_add_test(tcase, taken_out_one_by_one_they_come_in_order);
	tcase_add_test(tcase, removing_what_is_not_in_it_changes_nothing);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
