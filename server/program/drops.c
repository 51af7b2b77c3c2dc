#include "program/drops.h"

#include "base/limits.h"

struct drops drops_since(const struct drops *now, const struct drops *then)
{
	struct drops since = {0};

	if (now->dropped > then->dropped)
		since.dropped = now->dropped - then->dropped;
	if (now->all > then->all)
		since.all = now->all - then->all;
	return since;
}

/*
 * Ten times alone would be blind where a tenth and more was dropped before: nothing is more
 * than all. There a program that lets hardly anything through is known by that. Shares are
 * compared as products, which are exact.
 */
bool drops_jumped(const struct drops *window, const struct drops *before)
{
	static const struct drops none = {.dropped = 0, .all = 1};
	const struct drops *then = before->all < PROGRAM_DROPS_MIN ? &none : before;
	unsigned __int128 now_dropped = (unsigned __int128)window->dropped * then->all;
	unsigned __int128 then_dropped = (unsigned __int128)then->dropped * window->all;
	unsigned __int128 all = (unsigned __int128)window->all * then->all;

	if (window->dropped < PROGRAM_DROPS_MIN || 2 * window->dropped < window->all)
		return false;
	if (now_dropped <= then_dropped)
		return false;
	return now_dropped >= 10 * then_dropped || 10 * (all - now_dropped) <= all - then_dropped;
}
