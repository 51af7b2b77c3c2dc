/* What to begin with, and whether a program may still be put in service. */
#include "program/internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int program_trust(const struct keys *keys, bool allow_unsigned, const struct program_row *row,
		  char *ret_signed_by, size_t size, struct program_problem *ret_problem)
{
	struct program_problem *problem = ret_problem;

	if (!row->has_signature && allow_unsigned)
		return 0;
	if (!row->has_signature) {
		strcpy(problem->check, "unsigned");
		strcpy(problem->text,
		       "it has no signature, and programs.allow_unsigned is not set");
		return -EKEYREJECTED;
	}
	if (keys_verify(keys, row->digest, row->signature, ret_signed_by, size) == 0)
		return 0;
	strcpy(problem->check, "signature");
	strcpy(problem->text,
	       keys_problem(keys, 0)
		       ? "no key of programs.trusted_keys verifies its signature; some of the keys "
			 "cannot be used, see the warnings in /v1/status"
		       : "no key of programs.trusted_keys verifies its signature");
	return -EKEYREJECTED;
}

int program_report(int status, struct steer_report *report, struct program_problem *ret_problem)
{
	if (status == -EINVAL)
		snprintf(ret_problem->check, sizeof(ret_problem->check), "%s",
			 steer_check_name(report->check));
	snprintf(ret_problem->text, sizeof(ret_problem->text), "%s",
		 report->text[0] ? report->text : strerror(-status));
	ret_problem->log = report->log;
	report->log = NULL;
	steer_report_done(report);
	return status;
}

int program_prepare(const struct program_prepare *prepare, const uint8_t *elf, size_t size,
		    struct steer_candidate **ret_candidate, struct program_problem *ret_problem)
{
	struct steer_report report = {0};
	char signed_by[sizeof(prepare->row->signed_by)];
	int r = program_trust(prepare->keys, prepare->allow_unsigned, prepare->row, signed_by,
			      sizeof(signed_by), ret_problem);

	if (r < 0)
		return r;
	if (prepare->try)
		r = steer_trial_run(prepare->trial, elf, size, &report);
	if (r == 0)
		r = steer_candidate_load(prepare->trial, elf, size, &report, ret_candidate);
	return program_report(r, &report, ret_problem);
}

/* --- at the start of the daemon --- */

static int serve_confirmed(struct programs *programs, struct program *program,
			   struct steer_trial **trial, struct program_problem *problem)
{
	struct program_prepare prepare = {
		.keys = programs->keys,
		.allow_unsigned = programs->config->programs.allow_unsigned,
		.row = &program->row,
	};
	uint8_t *elf = NULL;
	size_t size = 0;
	int r = *trial ? 0 : steer_trial_new(programs->steer, NULL, 0, trial);

	if (r == 0)
		r = rows_elf_now(programs->store, program->row.id, &elf, &size);
	prepare.trial = *trial;
	if (r == 0)
		r = program_prepare(&prepare, elf, size, &program->candidate, problem);
	free(elf);
	if (r == 0)
		r = programs_serve(programs, program);
	if (r < 0) {
		program_unload(program);
		if (!problem->text[0])
			snprintf(problem->text, sizeof(problem->text), "%s", strerror(-r));
	}
	return r;
}

static struct program *confirmed_last(struct programs *programs)
{
	struct program *last = &programs->builtin;

	for (size_t i = 0; i < programs->count; i++)
		if (programs->items[i]->row.order > last->row.order)
			last = programs->items[i];
	return last;
}

/* From the one confirmed last downwards, until one can be put in service. */
static int serve_first(struct programs *programs, struct save *save, bool *ret_changed)
{
	struct steer_trial *trial = NULL;
	struct program *program;

	while ((program = confirmed_last(programs)) != &programs->builtin) {
		struct program_problem problem = {0};

		if (serve_confirmed(programs, program, &trial, &problem) == 0)
			break;
		log_warning("program", "%s is not put in service: %s", program->row.id,
			    problem.text);
		program->row.order = 0;
		save_changed(save, &program->row);
		programs_save_note(programs, save, program,
				   "not put in service at the start of the daemon: %.120s",
				   problem.text);
		free(problem.log);
		*ret_changed = true;
	}
	steer_trial_free(trial);
	return program == &programs->builtin ? programs_serve(programs, program) : 0;
}

static bool end_probations(struct programs *programs, struct save *save)
{
	bool changed = false;

	for (size_t i = 0; i < programs->count; i++) {
		struct program *program = programs->items[i];

		if (!program->row.probation)
			continue;
		program->row.probation = false;
		save_changed(save, &program->row);
		programs_save_note(programs, save, program,
				   "rolled back: the daemon ended while it was on probation");
		changed = true;
	}
	return changed;
}

int programs_start(struct programs *programs)
{
	struct save *save = programs_save_new(programs);
	struct keys *keys;
	bool changed;
	int r;

	if (!save)
		return -ENOMEM;
	r = keys_read(programs->config->programs.trusted_keys, &keys);
	if (r < 0)
		goto out;
	programs_keys_take(programs, keys);
	changed = end_probations(programs, save);
	r = serve_first(programs, save, &changed);
	if (r < 0 || !changed)
		goto out;
	r = save_now(programs->store, save);
	save = NULL;
	if (r < 0)
		log_warning("program", "the change is not on the disk: %s", strerror(-r));
	r = 0;
out:
	save_free(save);
	return r;
}
