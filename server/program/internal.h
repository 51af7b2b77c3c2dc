/*
 * What the files of program share; nobody else includes this.
 *
 *   programs.c   life, the list, events
 *   start.c      what to begin with, and whether a program may be put in service
 *   command.c    one command at a time: worker, disk, worker ... answer
 *   upload.c, activate.c   the commands
 *   probation.c  the timers of a program on probation, and its end
 *   rows.c       the tables in the store
 */
#pragma once

#include "program/drops.h"
#include "program/program.h"
#include "program/rows.h"
#include "program/signature.h"

#define WATCH_SAMPLES (PROGRAM_WATCH_WINDOW / PROGRAM_WATCH_TICK)

struct program {
	struct program_row row; /* of the built-in one: id, name and version alone */
	struct program_event events[PROGRAM_EVENTS_MAX];
	size_t event_count;
	struct steer_candidate *candidate; /* while in service, on probation or to return to */
};

/* From the swap to confirm or rollback. */
struct probation {
	struct program *program; /* NULL: none is on probation */
	bool expect_drops, watched;
	uint64_t within;     /* ms, as it was asked for */
	uint64_t left;	     /* ms, while its confirmation is on its way to the disk */
	char overdue[160];   /* a rollback that the kernel has not taken yet, and why */
	struct drops before; /* of the program that it replaced */
	struct drops start;  /* the counters as it was put in service */
	struct drops samples[WATCH_SAMPLES];
	size_t sample_count;
};

struct programs {
	uv_loop_t *loop;
	struct config *config;
	struct steer *steer;
	struct store *store;
	struct store_listener listener;
	bool unread; /* the file could not be opened at the start: what is confirmed is not known */
	programs_event_cb on_event;
	void *arg;
	struct program builtin;
	struct program *items[PROGRAMS_MAX]; /* oldest first */
	size_t count;
	struct program_newest newest[PROGRAM_NAMES_MAX];
	size_t newest_count;
	struct program *service; /* confirmed last, or the built-in */
	struct probation probation;
	struct drops builtin_start; /* the counters when the built-in came in service */
	struct keys *keys;	    /* as last read */
	bool keys_reading;
	uv_work_t keys_work;
	struct keys *keys_fresh; /* of the worker */
	struct command *command; /* the one that runs */
	uv_timer_t deadline, watch, keys_check;
	unsigned open; /* handles, and work that is on its way */
	bool closing;
	void (*stopped)(void *arg);
	void *stopped_arg;
};

/* --- programs.c --- */
int64_t programs_wall_ms(void);
struct program *programs_by_id(struct programs *programs, const char *id); /* or NULL */
/* What decides now. */
struct program *programs_decider(const struct programs *programs);
/* The program that a rollback returns to; NULL: there is none. */
struct program *programs_previous(struct programs *programs);
/* The confirmed one before it, at last the built-in. */
struct program *programs_before(struct programs *programs, const struct program *program);
void program_describe(struct programs *programs, const struct program *program,
		      struct program_info *ret_info);
/* Remember, log and tell; not yet on the disk, which is the save's (save_event). */
void program_note(struct programs *programs, struct program *program, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void programs_keys_take(struct programs *programs, struct keys *keys); /* takes; logs what is new */
void programs_unhold(struct programs *programs); /* one of programs->open is gone */

/* Put in service what is loaded, or the built-in one; what was confirmed after it is so no more,
 * and the candidate of what was in service is freed. */
int programs_serve(struct programs *programs, struct program *program)
	__attribute__((warn_unused_result));
void program_unload(struct program *program); /* free its candidate */
/* The counters of the steer hook, all interfaces. */
struct drops programs_count_drops(struct programs *programs);

/* --- saving: all rows as they are now, and events that are not on the disk yet --- */
struct save *programs_save_new(struct programs *programs);
/* Note it, and with the save bring it to the disk. save may be NULL (no memory). */
void programs_save_note(struct programs *programs, struct save *save, struct program *program,
			const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Nobody waits for it: a failure is logged. Takes the save. */
void programs_save(struct programs *programs, struct save *save);

/* --- probation.c --- */
void probation_begin(struct programs *programs, struct program *program, uint64_t within,
		     bool expect_drops);
void probation_pause(struct programs *programs); /* its confirmation is on its way to the disk */
void probation_resume(struct programs *programs);
/* What it dropped until now, for the comparison with the program after it. */
void probation_counted(struct programs *programs, struct program_row *row);
void probation_confirmed(struct programs *programs);
/* Back to the program before, at last to the built-in one. 0: cb tells whether the disk took it,
 * perhaps before the return. A negative errno: the kernel takes neither; it is tried again. */
int probation_roll_back(struct programs *programs, const char *why, rows_cb cb, void *arg);
void on_probation_deadline(uv_timer_t *timer);
void on_probation_watch(uv_timer_t *timer);

/* --- start.c --- */
int programs_start(struct programs *programs) __attribute__((warn_unused_result));

/* Is the row's file trusted, by the keys as they are? 0 and the key's file name (untouched when
 * it is unsigned, and that is allowed), or -EKEYREJECTED with the problem filled. */
int program_trust(const struct keys *keys, bool allow_unsigned, const struct program_row *row,
		  char *ret_signed_by, size_t size, struct program_problem *ret_problem)
	__attribute__((warn_unused_result));
/* What steer reported, as a problem; ends the report and gives status back. */
int program_report(int status, struct steer_report *report, struct program_problem *ret_problem);

/* Trust, trial (when it is asked for) and loading; blocking. */
struct program_prepare {
	const struct keys *keys;
	bool allow_unsigned, try;
	const struct program_row *row;
	const struct steer_trial *trial;
};
int program_prepare(const struct program_prepare *prepare, const uint8_t *elf, size_t size,
		    struct steer_candidate **ret_candidate, struct program_problem *ret_problem)
	__attribute__((warn_unused_result));
