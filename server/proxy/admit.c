/* What a request's head says before there is an exchange: may it go on, and to which authority? */
#include "proxy/internal.h"

#include "msg/http_target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static enum admission no(struct exchange_answer *ret_answer, int status, const char *title,
			 const char *detail)
{
	*ret_answer = (struct exchange_answer){.status = status, .title = title, .detail = detail};
	return ADMIT_REFUSED;
}

static enum admission bad(struct exchange_answer *ret_answer, const char *detail)
{
	return no(ret_answer, 400, "Bad Request", detail);
}

/* HTTP/1.0 needs no Host; what goes on is HTTP/1.1. */
static int add_host(const struct flow *flow, struct http_head *head)
{
	char address[IP_TEXT_MAX], host[NAME_TEXT_MAX + 8];
	const char *name = flow->name;

	if (!flow->is_virtual) {
		ip_format(&flow->destination, address);
		name = address;
	}
	snprintf(host, sizeof(host), strchr(name, ':') ? "[%s]" : "%s", name);
	if (flow->port != 80)
		snprintf(host + strlen(host), sizeof(host) - strlen(host), ":%u", flow->port);
	return http_field_add(head, "Host", host);
}

/* Its port is the one that was dialed. */
static void write_authority(const char *host, uint16_t port, char *ret, size_t size)
{
	if (port == 80)
		snprintf(ret, size, "%s", host);
	else
		snprintf(ret, size, "%s:%u", host, port);
}

static enum admission check_method(struct http_head *head, struct exchange_answer *ret_answer)
{
	const char *expect = http_field(head, "expect");
	int r = http_count_forward(head);

	if (r < 0)
		return bad(ret_answer, "Max-Forwards is not a number.");
	if (r == 0)
		return strcmp(http_method(head), "TRACE") == 0 ? ADMIT_TRACE : ADMIT_OPTIONS;
	if (expect && head->minor && strcasecmp(expect, "100-continue") != 0)
		return no(ret_answer, 417, "Expectation Failed",
			  "Only 100-continue can be expected.");
	http_field_remove(head, "expect");
	return ADMITTED;
}

enum admission admit(const struct flow *flow, struct http_head *head, struct admitted *ret,
		     struct exchange_answer *ret_answer)
{
	struct http_authority authority;
	enum http_target_form form;
	int r;

	if (strcmp(http_method(head), "CONNECT") == 0)
		return no(ret_answer, 405, "Method Not Allowed", "CONNECT is not carried.");
	http_drop_named(head);
	if (!http_field(head, "host") && add_host(flow, head) < 0)
		return no(ret_answer, 431, "Request Header Fields Too Large", "No room for Host.");
	if (http_read_authority(http_field(head, "host"), &authority) < 0)
		return bad(ret_answer, "The Host field is not valid.");
	r = http_to_origin_form(head, &form);
	if (r == -EINVAL)
		return bad(ret_answer, "The request target is not valid.");
	if (r < 0 || http_read_authority(http_field(head, "host"), &authority) < 0)
		return no(ret_answer, 431, "Request Header Fields Too Large", "No room for Host.");
	ret->secure = form == HTTP_ABSOLUTE_HTTPS;
	write_authority(authority.host, flow->port, ret->authority, sizeof(ret->authority));
	/* With a virtual address the name must be the mapping's (Squid's CVE-2009-0801). */
	if (flow->is_virtual && strcmp(authority.host, flow->name) != 0)
		return no(ret_answer, 421, "Misdirected Request",
			  "Host is not the name that this virtual address was given for.");
	return check_method(head, ret_answer);
}
