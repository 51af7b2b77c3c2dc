/*
 * What is a jump of drops: within one window at least PROGRAM_DROPS_MIN packets and half of all
 * are dropped, and that is out of proportion to what the program before did: ten times its
 * share of drops, or a tenth of what it let through. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct drops {
	uint64_t dropped, all; /* packets */
};

struct drops drops_since(const struct drops *now, const struct drops *then);
/* before: of the program before, over a long time; fewer than PROGRAM_DROPS_MIN packets say
 * nothing, and count as none dropped. */
bool drops_jumped(const struct drops *window, const struct drops *before);
