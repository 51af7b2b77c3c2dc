#include "program/version.h"

#include <errno.h>

enum { PART_MAX = 999999999 };

static int part_parse(const char **text, uint32_t *ret_part)
{
	const char *p = *text;
	uint64_t value = 0;

	if (*p < '0' || *p > '9' || (*p == '0' && p[1] >= '0' && p[1] <= '9'))
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		value = value * 10 + (uint64_t)(*p - '0');
		if (value > PART_MAX)
			return -EINVAL;
	}
	*text = p;
	*ret_part = (uint32_t)value;
	return 0;
}

int version_parse(const char *text, struct version *ret_version)
{
	struct version version;

	for (int i = 0; i < 3; i++) {
		if (i > 0 && *text++ != '.')
			return -EINVAL;
		if (part_parse(&text, &version.part[i]) < 0)
			return -EINVAL;
	}
	if (*text)
		return -EINVAL;
	*ret_version = version;
	return 0;
}

int version_compare(const struct version *a, const struct version *b)
{
	for (int i = 0; i < 3; i++)
		if (a->part[i] != b->part[i])
			return a->part[i] < b->part[i] ? -1 : 1;
	return 0;
}
