#include "base/error.h"

#include <errno.h>
#include <stdio.h>

int input_error_set(struct input_error *err, const char *path, int line, const char *format, ...)
{
	va_list args;

	if (!err)
		return -EINVAL;
	snprintf(err->path, sizeof(err->path), "%s", path ? path : "");
	err->line = line;
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	return -EINVAL;
}
