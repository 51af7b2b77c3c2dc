/* What a response means for a stored exchange. Pure. */
#include "base/limits.h"
#include "replay/replay.h"

#include <ctype.h>
#include <stdlib.h>
#include <time.h>

bool replay_is_answer(int status)
{
	switch (status) {
	case 408:
	case 425:
	case 429:
	case 502:
	case 503:
	case 504:
	case 511:
		return false;
	default:
		return status >= 200;
	}
}

uint64_t replay_backoff(unsigned attempt)
{
	uint64_t delay = REPLAY_BACKOFF_MIN;

	while (attempt-- > 1 && delay < REPLAY_BACKOFF_MAX)
		delay *= 2;
	return delay < REPLAY_BACKOFF_MAX ? delay : REPLAY_BACKOFF_MAX;
}

/* The three forms of RFC 9110, 5.6.7. */
static bool parse_date(const char *value, int64_t *ret_ms)
{
	static const char *const formats[] = {"%a, %d %b %Y %H:%M:%S GMT",
					      "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"};

	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		struct tm tm = {0};
		const char *end = strptime(value, formats[i], &tm);

		if (!end || *end)
			continue;
		*ret_ms = (int64_t)timegm(&tm) * 1000;
		return true;
	}
	return false;
}

/* A date is a moment of the origin's clock; ours may be wrong by years until it is set. */
uint64_t replay_retry_after(const char *value, const char *date, int64_t now_ms)
{
	int64_t delay = 0, at;

	if (!value)
		return 0;
	if (isdigit((unsigned char)*value)) {
		for (; isdigit((unsigned char)*value); value++)
			if (delay < REPLAY_RETRY_AFTER_MAX)
				delay = delay * 10 + (*value - '0');
		if (*value)
			return 0;
		delay *= 1000;
	} else if (parse_date(value, &at)) {
		if (date)
			(void)parse_date(date, &now_ms);
		delay = at - now_ms;
	}
	if (delay <= 0)
		return 0;
	return delay < REPLAY_RETRY_AFTER_MAX ? (uint64_t)delay : REPLAY_RETRY_AFTER_MAX;
}
