/*
 * What a TCP connection is, from its first bytes. Pure: bytes in, a verdict out.
 */
#pragma once

#include "base/limits.h"

#include <stddef.h>
#include <stdint.h>

enum sniff_kind {
	SNIFF_MORE,    /* cannot be told yet */
	SNIFF_HTTP,    /* HTTP/1.x, or what pretends to be */
	SNIFF_TLS,     /* a whole ClientHello */
	SNIFF_BAD_TLS, /* a ClientHello that cannot be read: whose name it asks for is not known */
	SNIFF_OPAQUE,  /* anything else */
};

/* For SNIFF_TLS ret_name is the SNI in lower case, "" when there is none. A ClientHello may be
 * split over records and segments (RFC 8446, 5.1). */
enum sniff_kind sniff(const uint8_t *bytes, size_t len, char ret_name[NAME_TEXT_MAX]);
