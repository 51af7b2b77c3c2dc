/*
 * Listening sockets on addresses that need not be the device's (IP_TRANSPARENT): steered
 * connections arrive with their original destination as the local address.
 */
#pragma once

#include "base/ip.h"

/* port 0: any free one. Non-blocking, close-on-exec, keep-alive and no delay inherited by what
 * is accepted. The fd is the caller's. Needs CAP_NET_ADMIN. 0 or negative errno. */
int listen_transparent(const struct ip *address, uint16_t port, int backlog, int *ret_fd)
	__attribute__((warn_unused_result));
