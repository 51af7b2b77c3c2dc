/*
 * A program that was uploaded: read, tried, loaded, put in service on the steer hook, watched.
 *
 * Reading, trying and loading block and belong on a libuv worker: they work on a snapshot
 * (struct steer_trial) and touch nothing of struct steer. Putting in service is one update of
 * each pinned link, on the loop. Knows nothing of signatures, versions in force, times or files:
 * that is server/program.
 */
#pragma once

#include "steer/steer.h"

#define STEER_CHECKS(X)         \
	X(SIZE, "size")         \
	X(ELF, "elf")           \
	X(METADATA, "metadata") \
	X(ABI, "abi")           \
	X(TYPE, "type")         \
	X(MAPS, "maps")         \
	X(VERIFIER, "verifier") \
	X(CORPUS, "corpus")     \
	X(GOLDEN, "golden")
#define STEER_CHECK_ENUM(id, name) STEER_CHECK_##id,
enum steer_check { STEER_CHECKS(STEER_CHECK_ENUM) STEER_CHECK_COUNT };
const char *steer_check_name(enum steer_check check);

/* Why a program was not taken. */
struct steer_report {
	enum steer_check check;
	char text[512]; /* one sentence: which packet or map, what was expected, what came */
	char *log;	/* of the verifier, its end when it is long; NULL: none; freed by _done */
};
void steer_report_done(struct steer_report *report);

/* What the object says of itself. No kernel is asked. 0, -EINVAL with the report filled. */
int steer_program_read(const uint8_t *elf, size_t size, struct hf_program *ret_program,
		       struct steer_report *ret_report) __attribute__((warn_unused_result));

/* A connection that a program must not cut: an address and port of the device, and who talks to
 * it (port 0: anybody, any port). */
struct steer_peer {
	char interface[IF_NAMESIZE]; /* that the peer's packets come in on; "": every one */
	struct ip local, remote;
	uint16_t local_port, remote_port;
};

/* What is in force now, for a worker: live maps by descriptor, settings, interfaces, addresses.
 * peers are copied. On the loop. */
struct steer_trial;
int steer_trial_new(struct steer *steer, const struct steer_peer *peers, size_t peer_count,
		    struct steer_trial **ret_trial) __attribute__((warn_unused_result));
void steer_trial_free(struct steer_trial *trial);

/* Load the object with maps of its own, run the safety corpus (as things are on this device) and
 * its golden packets (in the fixed surroundings of docs/programs.md). Blocking. 0, -EINVAL with
 * the report filled, or another negative errno with its text. */
int steer_trial_run(const struct steer_trial *trial, const uint8_t *elf, size_t size,
		    struct steer_report *ret_report) __attribute__((warn_unused_result));

/* Load the object with the live maps, ready to be put in service, with its watch. Blocking. The
 * bytes are copied (explain loads them again). */
struct steer_candidate;
int steer_candidate_load(const struct steer_trial *trial, const uint8_t *elf, size_t size,
			 struct steer_report *ret_report, struct steer_candidate **ret_candidate)
	__attribute__((warn_unused_result));
void steer_candidate_free(struct steer_candidate *candidate); /* not the one in service */

/* On the loop: the candidate (NULL: the built-in program) on every steered interface, each
 * replaced atomically; interfaces that come later get it too. On an error all have the one
 * before: -ERANGE from a card in native mode with packets over a page for a program without
 * frags. Before steer_start: the one to begin with. Borrowed until another is activated or
 * steer is closed. */
int steer_activate(struct steer *steer, struct steer_candidate *candidate)
	__attribute__((warn_unused_result));
struct steer_candidate *steer_active(const struct steer *steer); /* NULL: the built-in */

/* What the program returned, whatever it counts itself (see watch.h). On and off take effect with
 * the next steer_activate. Counted since it was put on. -EOPNOTSUPP where the kernel cannot: then
 * the counters decide. Blocking when it is put on. */
struct steer_watch_counts {
	uint64_t aborted, dropped, passed, sent, redirected;
};
int steer_candidate_watch(struct steer_candidate *candidate, bool on);
/* -ENOENT: it is not watched. */
int steer_candidate_counts(const struct steer_candidate *candidate,
			   struct steer_watch_counts *ret_counts);
