/*
 * A queue by time: the earliest of many at once, whatever their order of arrival. A pairing heap
 * whose nodes lie in the things that wait, so that putting one in allocates nothing and cannot
 * fail. Put and move cost a few steps, taking the first or any other out O(log n) over time.
 *
 * Owns nothing. Equal times come in no particular order.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
	uint64_t at;
	struct heap_node *child, *next;
	struct heap_node *previous; /* the left sibling; of a first child its parent */
	bool listed;
};

struct heap {
	struct heap_node *first;
};

/* A zeroed node is in no heap. */
void heap_put(struct heap *heap, struct heap_node *node, uint64_t at); /* or move it there */
void heap_remove(struct heap *heap, struct heap_node *node);	       /* nothing if it is not in */
/* The earliest, or NULL. */
static inline struct heap_node *heap_first(const struct heap *heap)
{
	return heap->first;
}
