/*
 * One command on programs at a time, in steps: on a worker, on the store's lane, on the loop.
 * Between two steps the programs may be closing; then the command ends with -ECANCELED.
 */
#pragma once

#include "program/internal.h"

struct command {
	struct programs *programs;
	program_cb cb;
	void *arg;
	struct program *program; /* it is about; NULL until known */
	uint8_t *elf;
	size_t size;
	struct program_row row; /* of an upload: as it will be inserted */
	struct steer_peer *peers;
	size_t peer_count;
	uint64_t within; /* of an activation */
	bool expect_drops, try;
	const char *why; /* the event of the program that is replaced without probation */
	struct steer_trial *trial;
	struct steer_candidate *candidate;
	struct keys *keys; /* read by the worker; the programs' own from then on */
	struct program_event event;
	/* how it went; filled by a worker too */
	int status;
	struct program_problem problem;
	/* the step that runs */
	uv_work_t work;
	void (*run)(struct command *command);
	void (*then)(struct command *command);
	void (*loaded)(struct command *command); /* after the object is read and loaded */
};

/* -EBUSY: another one runs; -EROFS: what was confirmed could not be read; -ECANCELED at close. */
int command_new(struct programs *programs, program_cb cb, void *arg, struct command **ret_command)
	__attribute__((warn_unused_result));
int command_set_peers(struct command *command, const struct steer_peer *peers, size_t count)
	__attribute__((warn_unused_result));

/* run on a worker, then on the loop. */
void command_work(struct command *command, void (*run)(struct command *command),
		  void (*then)(struct command *command));
/* What a step on the disk calls back to: then follows where status is 0. If submitting it
 * failed already (r), the command ends. */
void command_on_disk(struct command *command, int r, void (*then)(struct command *command));
void command_stored(void *arg, int status);			    /* rows_cb */
void command_elf(void *arg, int status, uint8_t *elf, size_t size); /* rows_elf_cb */

/* Fill the problem; returns status, for a worker's step. */
int command_problem(struct command *command, int status, const char *check, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* The callback, and the end of it. program: NULL is fine. */
void command_end(struct command *command, int status, struct program *program);
