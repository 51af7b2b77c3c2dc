#include "proxy/sniff.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

enum {
	TLS_HANDSHAKE = 22,
	TLS_CLIENT_HELLO = 1,
	TLS_SERVER_NAME = 0,
	TLS_HOST_NAME = 0,
	TLS_RECORD_HEADER = 5,
	METHOD_MAX = 20,
};

/* One cursor over bytes, one bounds check a step; after a failure everything fails. */
struct cursor {
	const uint8_t *at;
	size_t left;
	bool failed;
};

static const uint8_t *take(struct cursor *c, size_t n)
{
	const uint8_t *at = c->at;

	if (c->failed || c->left < n) {
		c->failed = true;
		return NULL;
	}
	c->at += n;
	c->left -= n;
	return at;
}

static unsigned take_uint(struct cursor *c, unsigned bytes)
{
	const uint8_t *at = take(c, bytes);
	unsigned value = 0;

	for (unsigned i = 0; at && i < bytes; i++)
		value = value << 8 | at[i];
	return value;
}

/* A vector with a length of that many bytes. */
static struct cursor take_vector(struct cursor *c, unsigned length_bytes)
{
	unsigned len = take_uint(c, length_bytes);
	const uint8_t *at = take(c, len);

	return (struct cursor){.at = at, .left = at ? len : 0, .failed = !at};
}

/* RFC 6066, 3: one name of a kind, and the only kind there is. */
static bool read_server_name(struct cursor extension, char *ret_name)
{
	struct cursor list = take_vector(&extension, 2);
	unsigned type = take_uint(&list, 1);
	struct cursor name = take_vector(&list, 2);

	if (extension.left || list.left || list.failed || type != TLS_HOST_NAME || name.failed ||
	    !name.left || name.left >= NAME_TEXT_MAX || memchr(name.at, '\0', name.left))
		return false;
	for (size_t i = 0; i < name.left; i++)
		ret_name[i] = (char)tolower(name.at[i]);
	ret_name[name.left] = '\0';
	return true;
}

/* false: it cannot be read to its end (RFC 8446, 4.1.2), or asks for two names. */
static bool read_client_hello(struct cursor hello, char *ret_name)
{
	struct cursor extensions;
	bool named = false;

	take(&hello, 2 + 32);	/* version, random */
	take_vector(&hello, 1); /* session id */
	take_vector(&hello, 2); /* cipher suites */
	take_vector(&hello, 1); /* compression methods */
	/* Clients before TLS 1.2 may have no extensions at all. */
	if (!hello.failed && !hello.left)
		return true;
	extensions = take_vector(&hello, 2);
	while (extensions.left && !extensions.failed) {
		unsigned type = take_uint(&extensions, 2);
		struct cursor body = take_vector(&extensions, 2);

		if (type != TLS_SERVER_NAME || body.failed)
			continue;
		if (named || !read_server_name(body, ret_name))
			return false;
		named = true;
	}
	return !extensions.failed && !hello.failed && !hello.left;
}

/* Join the records' fragments; the handshake message may span several. */
static enum sniff_kind sniff_tls(const uint8_t *bytes, size_t len, char *ret_name)
{
	uint8_t message[SNIFF_MAX];
	size_t have = 0, want = 4;

	while (have < want) {
		size_t fragment;

		if (len < TLS_RECORD_HEADER)
			return SNIFF_MORE;
		fragment = (size_t)(bytes[3] << 8 | bytes[4]);
		if (bytes[0] != TLS_HANDSHAKE || bytes[1] != 3 || !fragment ||
		    have + fragment > sizeof(message))
			return SNIFF_OPAQUE;
		if (len < TLS_RECORD_HEADER + fragment)
			return SNIFF_MORE;
		memcpy(message + have, bytes + TLS_RECORD_HEADER, fragment);
		have += fragment;
		bytes += TLS_RECORD_HEADER + fragment;
		len -= TLS_RECORD_HEADER + fragment;
		if (message[0] != TLS_CLIENT_HELLO)
			return SNIFF_OPAQUE;
		if (have >= 4)
			want = 4 +
			       ((size_t)message[1] << 16 | (size_t)message[2] << 8 | message[3]);
		if (want > sizeof(message))
			return SNIFF_BAD_TLS;
	}
	if (read_client_hello((struct cursor){.at = message + 4, .left = want - 4}, ret_name))
		return SNIFF_TLS;
	ret_name[0] = '\0';
	return SNIFF_BAD_TLS;
}

/* A method, a space, and what a request target begins with (RFC 9112, 3.2). */
static enum sniff_kind sniff_http(const uint8_t *bytes, size_t len)
{
	static const char preface[] = "PRI * HTTP/2";
	size_t n = 0;

	while (n < len && n < METHOD_MAX && (isupper(bytes[n]) || bytes[n] == '-'))
		n++;
	if (n == len && n < METHOD_MAX)
		return SNIFF_MORE;
	if (!n || n >= METHOD_MAX || bytes[n] != ' ')
		return SNIFF_OPAQUE;
	if (n + 1 == len)
		return SNIFF_MORE;
	if (n == 3 && memcmp(bytes, "PRI", 3) == 0) {
		size_t m = len < sizeof(preface) - 1 ? len : sizeof(preface) - 1;

		if (memcmp(bytes, preface, m) == 0)
			return m < sizeof(preface) - 1 ? SNIFF_MORE : SNIFF_OPAQUE;
	}
	if (n == 7 && memcmp(bytes, "CONNECT", 7) == 0)
		return SNIFF_HTTP;
	return strchr("/hH*", bytes[n + 1]) && bytes[n + 1] ? SNIFF_HTTP : SNIFF_OPAQUE;
}

enum sniff_kind sniff(const uint8_t *bytes, size_t len, char ret_name[NAME_TEXT_MAX])
{
	ret_name[0] = '\0';
	if (!len)
		return SNIFF_MORE;
	if (bytes[0] == TLS_HANDSHAKE)
		return sniff_tls(bytes, len, ret_name);
	return sniff_http(bytes, len);
}
