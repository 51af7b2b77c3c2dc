/*
 * Counts what an XDP program returns, whatever it counts itself: a wrapper calls it as a
 * function, counts, and returns the same. Attached in its place.
 *
 * Not fexit, which would need no wrapper: a kernel may refuse tracing programs (functions of the
 * kernel and other programs as targets) while it takes this one, and fexit would count test runs.
 */
#pragma once

#include "steer/candidate.h"

#include <bpf/libbpf.h>

struct watch;

/* program is loaded, of an object that lives as long as the watch; flags as it was loaded with.
 * Blocking. -EOPNOTSUPP: the kernel does not take the wrapper (too deep or too large). */
int watch_new(const struct bpf_program *program, uint32_t flags, struct watch **ret_watch)
	__attribute__((warn_unused_result));
void watch_free(struct watch *watch);	 /* NULL is fine */
int watch_fd(const struct watch *watch); /* of the wrapper, for a link; borrowed */
/* Since watch_new. 0 or negative errno. */
int watch_counts(const struct watch *watch, struct steer_watch_counts *ret_counts)
	__attribute__((warn_unused_result));
