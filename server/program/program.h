/*
 * The programs of the steer hook: the built-in one and those that were uploaded, their
 * signatures, versions and history; which one is in service, and on probation until when.
 *
 *     (upload) --checked--> available --activate--> on_probation --confirm--> in_service
 *                              ^                        |                        |
 *                              +---- rollback: asked for, time over, aborts, ----+
 *                                    drops jump, the daemon ended meanwhile  (rollback, or
 *                                                                        another is confirmed)
 *
 * Owns the tables program and program_event in the store, and every struct steer_candidate.
 * Signatures are checked and objects tried on a libuv worker. Never attaches anything itself:
 * steer does.
 */
#pragma once

#include "config/config.h"
#include "steer/candidate.h"
#include "store/store.h"

#include <uv.h>

#define PROGRAM_BUILTIN "builtin" /* the id of the program that is always there */

struct programs;

#define PROGRAM_STATES(X)            \
	X(AVAILABLE, "available")    \
	X(PROBATION, "on_probation") \
	X(SERVICE, "in_service")
#define PROGRAM_STATE_ENUM(id, name) PROGRAM_##id,
enum program_state { PROGRAM_STATES(PROGRAM_STATE_ENUM) PROGRAM_STATE_COUNT };
const char *program_state_name(enum program_state state);

/* One line for the event log: "activated", "rolled back: it was not confirmed in time" ... */
typedef void (*programs_event_cb)(void *arg, const char *id, const char *what);

/* Reads the store and decides which program steering begins with (steer_activate): blocking,
 * after steer_new and store_open, before steer_start. A probation that was running when the
 * daemon ended is over: rolled back. A program whose signature no trusted key verifies any more,
 * or that does not load, is not put in service: the one before, at last the built-in. */
int programs_new(uv_loop_t *loop, struct config *config, struct steer *steer, struct store *store,
		 programs_event_cb on_event, void *arg, struct programs **ret_programs)
	__attribute__((warn_unused_result));
/* No callback after it but those of running commands, with -ECANCELED, and stopped: then no worker
 * is busy with steer any more, and the store may be closed. What is in service stays so. */
void programs_stop(struct programs *programs, void (*stopped)(void *arg), void *arg);
/* After the store and steer are closed: the program in service is steer's until then. */
void programs_free(struct programs *programs); /* NULL is fine */

struct program_event {
	int64_t at; /* wall ms */
	char what[192];
};
struct program_info {
	char id[ID_TEXT_MAX];
	char name[32], version[32];
	uint32_t abi;
	enum program_state state;
	bool builtin, has_signature, previous; /* previous: a rollback returns to it */
	char sha256[65], signed_by[128];       /* signed_by: file name of the trusted key */
	size_t size;
	int64_t uploaded, activated, confirmed;		 /* wall ms; 0: never */
	uint64_t probation_left;			 /* ms */
	struct program_event events[PROGRAM_EVENTS_MAX]; /* newest last */
	size_t event_count;
};
/* The built-in first, then newest first. The caller frees the array. */
int programs_list(struct programs *programs, struct program_info **ret_infos, size_t *ret_count)
	__attribute__((warn_unused_result));
/* The one that decides over packets now: on probation, or in service. */
void programs_current(struct programs *programs, struct program_info *ret_info);

/* What whoever is responsible for the device should know now, in words. */
struct program_warnings {
	char text[PROGRAM_WARNINGS_MAX][256];
	size_t count;
};
void programs_warnings(struct programs *programs, struct program_warnings *ret_warnings);

/* What was wrong with a command; text is for people, check for scripts: one of
 * steer_check_name(), "signature", "unsigned", "version", "state". */
struct program_problem {
	char check[16], text[512];
	char *log; /* of the verifier; borrowed for the callback */
};
/* status: 0; -EKEYREJECTED (signature, unsigned), -EINVAL (a check of the object), -EFBIG
 * (size), -ESTALE (version), -EEXIST (it is there already: info says which), -ENOENT, -EBUSY
 * (another command runs, or not in this state), -ENOSPC (too many programs) ... info: of the
 * program, where there is one. */
typedef void (*program_cb)(void *arg, int status, const struct program_info *info,
			   const struct program_problem *problem);

/* elf is copied. signature: base64 of 64 octets (Ed25519 over the SHA-256 of the file, 32
 * octets), or NULL. peers: see candidate.h. A negative return: no callback comes. */
int programs_upload(struct programs *programs, const uint8_t *elf, size_t size,
		    const char *signature, const struct steer_peer *peers, size_t peer_count,
		    program_cb cb, void *arg) __attribute__((warn_unused_result));
struct program_activation {
	uint64_t confirm_within; /* ms; 0: as configured */
	bool expect_drops;	 /* drops that jump are meant */
	const struct steer_peer *peers;
	size_t peer_count;
};
/* The built-in program needs no probation: it is in service at once. */
int programs_activate(struct programs *programs, const char *id,
		      const struct program_activation *activation, program_cb cb, void *arg)
	__attribute__((warn_unused_result));
int programs_confirm(struct programs *programs, program_cb cb, void *arg)
	__attribute__((warn_unused_result));
/* From probation to the one before; else to the one that was confirmed before; -EBUSY with
 * check "state" when the built-in program is in service already. */
int programs_rollback(struct programs *programs, program_cb cb, void *arg)
	__attribute__((warn_unused_result));
int programs_delete(struct programs *programs, const char *id, program_cb cb, void *arg)
	__attribute__((warn_unused_result));
