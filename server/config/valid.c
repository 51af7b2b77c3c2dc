#include "config/valid.h"

#include "config/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

enum { NAME_MAX_LENGTH = 31 };

static bool all_of(const char *text, const char *others)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c >= 0x80 || (!isalnum(c) && !strchr(others, c)))
			return false;
	}
	return true;
}

bool valid_name(const char *text)
{
	return *text && strlen(text) <= NAME_MAX_LENGTH && all_of(text, "_.-");
}

/* dev_valid_name() of the kernel, and ASCII only. */
bool valid_interface(const char *text)
{
	if (!*text || strlen(text) >= IF_NAMESIZE || !strcmp(text, ".") || !strcmp(text, ".."))
		return false;
	for (; *text; text++)
		if (*text <= ' ' || *text == 0x7f || *text == '/' || *text == ':')
			return false;
	return true;
}

bool valid_path(const char *text)
{
	return text[0] == '/' && strlen(text) < 4096;
}

static bool valid_host(const char *text)
{
	size_t label = 0;

	if (!*text || strlen(text) >= NAME_TEXT_MAX || !all_of(text, "_.-"))
		return false;
	for (; *text; text++) {
		label = *text == '.' ? 0 : label + 1;
		if (label > 63 || (*text == '.' && (text[1] == '.' || !text[1])))
			return false;
	}
	return true;
}

bool valid_host_glob(const char *text)
{
	if (!strcmp(text, "*"))
		return true;
	if (!strncmp(text, "*.", 2))
		text += 2;
	return text[0] != '.' && valid_host(text);
}

bool valid_path_glob(const char *text)
{
	if (text[0] != '/' && text[0] != '*')
		return false;
	for (; *text; text++)
		if (*text <= ' ' || *text == 0x7f || *text == '?' || *text == '#')
			return false;
	return true;
}

/* RFC 9110, 5.6.2 */
bool valid_token(const char *text)
{
	return *text && all_of(text, "!#$%&'*+-.^_`|~");
}

bool valid_source(const char *text)
{
	struct ip_prefix prefix;

	return ip_prefix_parse(text, &prefix) == 0 || valid_interface(text);
}

bool valid_url(const char *text)
{
	struct endpoint endpoint;
	const char *path;

	return url_parse(text, &endpoint, &path) == 0;
}

bool valid_connect(const char *text)
{
	struct endpoint endpoint;

	return endpoint_parse(text, strlen(text), 0, &endpoint) == 0;
}

bool valid_listen(const char *text)
{
	struct endpoint endpoint;

	if (!strncmp(text, "unix:", 5))
		return text[5] == '/' &&
		       strlen(text + 5) < sizeof(((struct sockaddr_un *)0)->sun_path);
	return endpoint_parse(text, strlen(text), 0, &endpoint) == 0 && endpoint.is_address;
}

static int port_parse(const char *text, size_t len, uint16_t *ret_port)
{
	unsigned port = 0;

	if (!len || len > 5)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		port = port * 10 + (unsigned)(text[i] - '0');
	}
	if (port < 1 || port > 65535)
		return -EINVAL;
	*ret_port = (uint16_t)port;
	return 0;
}

int endpoint_parse(const char *text, size_t len, uint16_t port, struct endpoint *ret_endpoint)
{
	struct endpoint e = {.port = port};
	const char *host = text, *rest, *end = text + len;
	size_t host_len;
	bool brackets = len && text[0] == '[';

	if (brackets)
		host++;
	rest = memchr(host, brackets ? ']' : ':', (size_t)(end - host));
	if (brackets && !rest)
		return -EINVAL;
	host_len = (size_t)((rest ? rest : end) - host);
	if (!host_len || host_len >= sizeof(e.host))
		return -EINVAL;
	memcpy(e.host, host, host_len);
	if (brackets)
		rest = rest + 1 < end ? rest + 1 : NULL;
	if (rest && (*rest != ':' || port_parse(rest + 1, (size_t)(end - rest - 1), &e.port) < 0))
		return -EINVAL;
	e.is_address = ip_parse(e.host, &e.address) == 0;
	if (!e.port || (brackets && (!e.is_address || ip_is_v4(&e.address))) ||
	    (!e.is_address && !valid_host(e.host)))
		return -EINVAL;
	*ret_endpoint = e;
	return 0;
}

int url_parse(const char *url, struct endpoint *ret_endpoint, const char **ret_path)
{
	static const char scheme[] = "http://";
	const char *host = url + sizeof(scheme) - 1, *path;
	int r;

	if (strncasecmp(url, scheme, sizeof(scheme) - 1) != 0)
		return -EINVAL;
	path = strchr(host, '/');
	if (!path)
		return -EINVAL;
	for (const char *c = path; *c; c++)
		if (*c <= ' ' || *c == 0x7f || *c == '#')
			return -EINVAL;
	r = endpoint_parse(host, (size_t)(path - host), 80, ret_endpoint);
	if (r == 0)
		*ret_path = path;
	return r;
}
