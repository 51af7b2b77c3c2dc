#include "link/nameservers.h"

#include <string.h>

size_t nameservers_parse(FILE *file, const struct rtnl *rtnl, struct ip *ret_servers, size_t max)
{
	char line[512], address[IP_TEXT_MAX];
	size_t count = 0;
	struct ip ip;

	while (count < max && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "nameserver %45s", address) != 1 || ip_parse(address, &ip) < 0)
			continue;
		if (ip_is_loopback(&ip) || (rtnl && rtnl_is_device_address(rtnl, &ip)))
			continue;
		ret_servers[count++] = ip;
	}
	return count;
}

size_t nameservers_read(const struct rtnl *rtnl, struct ip *ret_servers, size_t max)
{
	static const char *const paths[] = {"/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"};
	size_t count = 0;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]) && !count; i++) {
		FILE *file = fopen(paths[i], "re");

		if (!file)
			continue;
		count = nameservers_parse(file, rtnl, ret_servers, max);
		fclose(file);
	}
	return count;
}
