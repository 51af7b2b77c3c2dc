/* Requests whose rule says upstream_tls: the app speaks http, the origin https. */
#include "exchange/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HTTP_PORT = 80, HTTPS_PORT = 443 };

/* The host of an authority, without the brackets of an address: what a certificate proves. */
static char *host_of(const char *authority)
{
	const char *end = strchr(authority, ']');

	if (authority[0] == '[' && end)
		return strndup(authority + 1, (size_t)(end - authority - 1));
	return strndup(authority, strcspn(authority, ":"));
}

/* A Host with the port that the app used would name another origin. */
static int mend_host(struct http_head *head, const char *authority)
{
	const char *host = http_field(head, "host");
	const char *colon = host ? strrchr(host, ':') : NULL, *bracket;

	bracket = host ? strchr(host, ']') : NULL;
	if (!colon || (bracket && colon < bracket) || strcasecmp(host, authority) == 0)
		return 0;
	http_field_remove(head, "host");
	return http_field_add(head, "Host", authority);
}

int exchange_secure(struct exchange *exchange)
{
	struct exchange_request *request = &exchange->request;
	static const char port[] = ":443";
	size_t len = strlen(request->authority);

	exchange->server_name = host_of(request->authority);
	if (!exchange->server_name)
		return -ENOMEM;
	if (request->port == HTTP_PORT)
		request->port = HTTPS_PORT;
	if (len > sizeof(port) && strcmp(request->authority + len - 4, port) == 0 &&
	    request->port == HTTPS_PORT) {
		exchange->own_authority = strndup(request->authority, len - 4);
		if (!exchange->own_authority)
			return -ENOMEM;
		request->authority = exchange->own_authority;
	}
	return mend_host(request->head, request->authority);
}

const char *exchange_scheme(const struct exchange *exchange)
{
	return exchange->server_name ? "https" : "http";
}
