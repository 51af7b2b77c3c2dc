/* The first bytes of a connection. */
#include "proxy/sniff.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char name[NAME_TEXT_MAX];

	sniff(data, len, name);
	if (strnlen(name, sizeof(name)) == sizeof(name))
		abort();
	return 0;
}
