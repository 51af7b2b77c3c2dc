/* The DNS servers that the system was given: resolv.conf(5). Internal to link. */
#pragma once

#include "base/ip.h"
#include "rtnl/rtnl.h"

#include <stddef.h>
#include <stdio.h>

/* Servers of the file that a link can ask: no loopback, no address of the device's own, which
 * would be ourselves; rtnl may be NULL. At most max; the rest is left out. */
size_t nameservers_parse(FILE *file, const struct rtnl *rtnl, struct ip *ret_servers, size_t max);
/* Of systemd-resolved's list of upstream servers, else of /etc/resolv.conf. */
size_t nameservers_read(const struct rtnl *rtnl, struct ip *ret_servers, size_t max);
