#include "msg/http_msg.h"

#include <time.h>

enum { CLOCK_SET = 1704067200 /* s; no clock that is right says less than 2024 */ };

void http_date_line(int64_t now, char ret_line[HTTP_DATE_LINE_MAX])
{
	time_t moment = (time_t)now;
	struct tm tm;

	if (now < CLOCK_SET || !gmtime_r(&moment, &tm) ||
	    !strftime(ret_line, HTTP_DATE_LINE_MAX, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm))
		ret_line[0] = '\0';
}
