#include "base/heap.h"

/* Two trees into one: the later becomes the first child of the earlier. Either may be NULL. */
static struct heap_node *meld(struct heap_node *a, struct heap_node *b)
{
	if (!a || !b)
		return a ? a : b;
	if (b->at < a->at) {
		struct heap_node *earlier = b;

		b = a;
		a = earlier;
	}
	b->previous = a;
	b->next = a->child;
	if (b->next)
		b->next->previous = b;
	a->child = b;
	return a;
}

/* The children of a root that is gone: melded by twos from the left, then all from the right. */
static struct heap_node *meld_siblings(struct heap_node *node)
{
	struct heap_node *pairs = NULL, *all = NULL;

	while (node) {
		struct heap_node *a = node, *b = a->next;

		node = b ? b->next : NULL;
		a->next = a->previous = NULL;
		if (b)
			b->next = b->previous = NULL;
		a = meld(a, b);
		a->next = pairs;
		pairs = a;
	}
	while (pairs) {
		struct heap_node *pair = pairs;

		pairs = pair->next;
		pair->next = NULL;
		all = meld(all, pair);
	}
	return all;
}

static void cut(struct heap_node *node)
{
	if (node->previous->child == node)
		node->previous->child = node->next;
	else
		node->previous->next = node->next;
	if (node->next)
		node->next->previous = node->previous;
	node->next = node->previous = NULL;
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
	struct heap_node *children;

	if (!node->listed)
		return;
	if (node != heap->first)
		cut(node);
	children = meld_siblings(node->child);
	heap->first = node == heap->first ? children : meld(heap->first, children);
	node->child = NULL;
	node->listed = false;
}

void heap_put(struct heap *heap, struct heap_node *node, uint64_t at)
{
	heap_remove(heap, node);
	node->at = at;
	node->listed = true;
	heap->first = meld(heap->first, node);
}
