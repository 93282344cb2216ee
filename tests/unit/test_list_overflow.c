/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: list.h keeps its order and its links; overflow.h is exact at the edges of 64 bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "blkmirror/base/list.h"
#include "blkmirror/base/overflow.h"

struct item {
	int value;
	struct list node;
};

static void assert_list(struct list *head, const int *values, size_t count)
{
	size_t i = 0;

	list_for_each(node, head) {
		assert_true(i < count);
		assert_int_equal(list_entry(node, struct item, node)->value, values[i]);
		assert_ptr_equal(node->next->prev, node);
		assert_ptr_equal(node->prev->next, node);
		i++;
	}
	assert_int_equal(i, count);
}

static void test_list_order(void **state)
{
	struct list head = LIST_INIT(head);
	struct item items[4] = { { .value = 0 }, { .value = 1 }, { .value = 2 }, { .value = 3 } };

	(void)state;
	assert_true(list_is_empty(&head));
	assert_null(list_first(&head));
	assert_null(list_pop(&head));
	list_append(&head, &items[1].node);
	list_append(&head, &items[2].node);
	list_prepend(&head, &items[0].node);
	list_insert_before(&items[2].node, &items[3].node);
	assert_list(&head, (int[]){ 0, 1, 3, 2 }, 4);
	assert_ptr_equal(list_first(&head), &items[0].node);
	assert_ptr_equal(list_pop(&head), &items[0].node);
	assert_false(list_is_linked(&items[0].node));
	list_remove(&items[0].node);            /* harmless */
	list_remove(&items[3].node);
	assert_list(&head, (int[]){ 1, 2 }, 2);
}

static void test_list_remove_while_walking(void **state)
{
	struct list head = LIST_INIT(head);

	(void)state;
	for (int i = 0; i < 10; i++) {
		struct item *item = malloc(sizeof(*item));

		item->value = i;
		list_append(&head, &item->node);
	}
	list_for_each(node, &head) {
		struct item *item = list_entry(node, struct item, node);

		if (item->value % 2 == 0) {
			list_remove(node);
			free(item);
		}
	}
	assert_list(&head, (int[]){ 1, 3, 5, 7, 9 }, 5);
	list_for_each(node, &head)
		free(list_entry(node, struct item, node));
}

static void test_list_splice(void **state)
{
	struct list a = LIST_INIT(a), b = LIST_INIT(b);
	struct item items[4] = { { .value = 0 }, { .value = 1 }, { .value = 2 }, { .value = 3 } };

	(void)state;
	list_splice(&a, &b);
	assert_true(list_is_empty(&a));
	list_append(&b, &items[0].node);
	list_append(&b, &items[1].node);
	list_splice(&a, &b);                    /* into an empty one */
	assert_true(list_is_empty(&b));
	list_append(&b, &items[2].node);
	list_append(&b, &items[3].node);
	list_splice(&a, &b);                    /* behind what is there */
	assert_list(&a, (int[]){ 0, 1, 2, 3 }, 4);
	assert_true(list_is_empty(&b));
	list_splice(&a, &b);
	assert_list(&a, (int[]){ 0, 1, 2, 3 }, 4);
}

static void test_add_and_multiply(void **state)
{
	uint64_t out = 7;

	(void)state;
	assert_true(u64_add(UINT64_MAX - 1, 1, &out));
	assert_true(out == UINT64_MAX);
	assert_false(u64_add(UINT64_MAX, 1, &out));
	assert_true(out == UINT64_MAX);         /* left alone */
	assert_true(u64_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &out));
	assert_true(out == UINT64_C(0xffffffff00000000));
	assert_false(u64_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &out));
	assert_true(u64_mul(0, UINT64_MAX, &out));
	assert_true(out == 0);
}

static void test_range_fits(void **state)
{
	(void)state;
	assert_true(range_fits(0, 0, 0));
	assert_true(range_fits(0, 10, 10));
	assert_true(range_fits(10, 0, 10));
	assert_true(range_fits(9, 1, 10));
	assert_false(range_fits(9, 2, 10));
	assert_false(range_fits(11, 0, 10));
	assert_false(range_fits(1, UINT64_MAX, 10));
	assert_false(range_fits(UINT64_MAX, 1, UINT64_MAX));
	assert_true(range_fits(0, UINT64_MAX, UINT64_MAX));
}

static void test_rounding(void **state)
{
	(void)state;
	assert_false(is_power_of_two(0));
	assert_true(is_power_of_two(1));
	assert_true(is_power_of_two(UINT64_C(1) << 63));
	assert_false(is_power_of_two(UINT64_MAX));
	assert_int_equal(round_down(4095, 4096), 0);
	assert_int_equal(round_down(4096, 4096), 4096);
	assert_int_equal(round_up(1, 4096), 4096);
	assert_int_equal(round_up(4096, 4096), 4096);
	assert_int_equal(round_up(0, 4096), 0);
	assert_int_equal(div_round_up(0, 3), 0);
	assert_int_equal(div_round_up(7, 3), 3);
	assert_true(div_round_up(UINT64_MAX, 1) == UINT64_MAX);
	assert_true(div_round_up(UINT64_MAX, UINT64_MAX) == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list_order),
		cmocka_unit_test(test_list_remove_while_walking),
		cmocka_unit_test(test_list_splice),
		cmocka_unit_test(test_add_and_multiply),
		cmocka_unit_test(test_range_fits),
		cmocka_unit_test(test_rounding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
