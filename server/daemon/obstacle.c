/*
 * Something between XDP and the sockets, as netfilter's INPUT hook is: connection attempts are
 * steered, no look-up sees them, and the app waits. Attempts come again by themselves (after 1,
 * 2, 4 s), so a few looks at the counters tell.
 */
#include "daemon/internal.h"

#include "base/log.h"

#define TEXT                                                                          \
	"connections are steered to the proxy and none arrives: a firewall's INPUT, " \
	"or a rule that changes their destination (nft list ruleset)"

static void set(struct daemon *daemon, bool there)
{
	struct obstacle *obstacle = &daemon->obstacle;

	obstacle->looks = 0;
	if (obstacle->there == there)
		return;
	obstacle->there = there;
	if (there)
		log_warning("steer", "%s", TEXT);
	else
		log_info("steer", "steered connections arrive again");
	daemon_event(daemon, EVENT_PROGRAM, "steer", "%s",
		     there ? TEXT : "steered connections arrive again");
}

void obstacle_look(struct daemon *daemon, uint64_t arrived)
{
	struct obstacle *obstacle = &daemon->obstacle;
	uint64_t attempts = steer_attempts(daemon->steer);
	bool tried = attempts > obstacle->attempts;

	obstacle->attempts = attempts;
	if (arrived)
		set(daemon, false);
	else if (tried && ++obstacle->looks >= OBSTACLE_LOOKS)
		set(daemon, true);
}

const char *daemon_obstacle(const struct daemon *daemon)
{
	return daemon->obstacle.there ? TEXT : NULL;
}
