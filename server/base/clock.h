/*
 * The two clocks: the wall's, which may be set at any moment, and by years where a device boots
 * without one; and the one since boot, asleep or not, which only goes on. Milliseconds.
 */
#pragma once

#include <stdint.h>

int64_t clock_wall(void);
int64_t clock_boot(void);
