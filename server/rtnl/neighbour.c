/* Who is who on a network: the addresses that one neighbour has. */
#include "rtnl/internal.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <string.h>
#include <sys/socket.h>

enum { LLADDR_MAX = 32 };

struct search {
	struct ip ip; /* looked for, then found */
	int ifindex;
	uint8_t lladdr[LLADDR_MAX];
	size_t lladdr_len; /* 0: not found yet */
	bool found;
};

struct neighbour {
	struct ip ip;
	int ifindex;
	const uint8_t *lladdr;
	size_t lladdr_len;
};

static bool read_neighbour(const struct nlmsghdr *message, struct neighbour *ret)
{
	const struct ndmsg *ndm = mnl_nlmsg_get_payload(message);
	const struct nlattr *attr;
	bool has_ip = false;

	*ret = (struct neighbour){.ifindex = ndm->ndm_ifindex};
	if (ndm->ndm_family != AF_INET && ndm->ndm_family != AF_INET6)
		return false;
	mnl_attr_for_each(attr, message, sizeof(*ndm))
	{
		if (mnl_attr_get_type(attr) == NDA_DST) {
			ret->ip = attr_ip(attr);
			has_ip = true;
		} else if (mnl_attr_get_type(attr) == NDA_LLADDR) {
			ret->lladdr = mnl_attr_get_payload(attr);
			ret->lladdr_len = mnl_attr_get_payload_len(attr);
		}
	}
	return has_ip && ret->lladdr_len && ret->lladdr_len <= LLADDR_MAX;
}

static int on_find_lladdr(const struct nlmsghdr *message, void *arg)
{
	struct search *search = arg;
	struct neighbour n;

	if (read_neighbour(message, &n) && ip_equal(&n.ip, &search->ip)) {
		search->ifindex = n.ifindex;
		search->lladdr_len = n.lladdr_len;
		memcpy(search->lladdr, n.lladdr, n.lladdr_len);
	}
	return MNL_CB_OK;
}

/* The smallest, so that the choice does not depend on the table's order. */
static int on_find_v4(const struct nlmsghdr *message, void *arg)
{
	struct search *search = arg;
	struct neighbour n;

	if (!read_neighbour(message, &n) || !ip_is_v4(&n.ip) || n.ifindex != search->ifindex ||
	    n.lladdr_len != search->lladdr_len ||
	    memcmp(n.lladdr, search->lladdr, n.lladdr_len) != 0)
		return MNL_CB_OK;
	if (!search->found || memcmp(n.ip.bytes, search->ip.bytes, sizeof(n.ip.bytes)) < 0)
		search->ip = n.ip;
	search->found = true;
	return MNL_CB_OK;
}

static int dump(struct asker *asker, mnl_cb_t cb, struct search *search)
{
	char buffer[NLMSG_HDRLEN + sizeof(struct ndmsg)];
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct ndmsg *ndm;

	request->nlmsg_type = RTM_GETNEIGH;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	ndm = mnl_nlmsg_put_extra_header(request, sizeof(*ndm));
	ndm->ndm_family = AF_UNSPEC;
	return asker_run(asker, request, cb, search);
}

int neighbour_v4_of(struct asker *asker, const struct ip *ip, struct ip *ret_ip)
{
	struct search search = {.ip = *ip};
	int r = dump(asker, on_find_lladdr, &search);

	if (r == 0 && !search.lladdr_len)
		r = -ENOENT;
	if (r == 0)
		r = dump(asker, on_find_v4, &search);
	if (r == 0 && !search.found)
		r = -ENOENT;
	if (r == 0)
		*ret_ip = search.ip;
	return r;
}
