#include "config/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t factor;
};

/* The largest first: a value is written in the largest unit that it is a whole number of. */
static const struct unit durations[] = {
	{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};
static const struct unit sizes[] = {
	{"T", 1ull << 40}, {"G", 1ull << 30}, {"M", 1ull << 20}, {"K", 1ull << 10}, {"", 1},
};
enum { UNITS = 5 };

static int unit_parse(const char *text, const struct unit *units, uint64_t *ret_value)
{
	uint64_t value = 0;
	const char *p = text;

	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -EINVAL;
	if (p == text)
		return -EINVAL;
	for (int i = 0; i < UNITS; i++) {
		if (strcmp(p, units[i].name) != 0)
			continue;
		if (__builtin_mul_overflow(value, units[i].factor, &value))
			return -EINVAL;
		*ret_value = value;
		return 0;
	}
	return -EINVAL;
}

static void unit_format(uint64_t value, const struct unit *units, char *buffer, size_t size)
{
	int i = 0;

	while (i < UNITS - 1 && (value < units[i].factor || value % units[i].factor))
		i++;
	snprintf(buffer, size, "%" PRIu64 "%s", value / units[i].factor, units[i].name);
}

int duration_parse(const char *text, uint64_t *ret_ms)
{
	return unit_parse(text, durations, ret_ms);
}

void duration_format(uint64_t ms, char *buffer, size_t size)
{
	if (ms)
		unit_format(ms, durations, buffer, size);
	else
		snprintf(buffer, size, "0s");
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	return unit_parse(text, sizes, ret_bytes);
}

void size_format(uint64_t bytes, char *buffer, size_t size)
{
	unit_format(bytes, sizes, buffer, size);
}
