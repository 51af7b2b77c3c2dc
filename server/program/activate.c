/*
 * Activate, confirm, roll back, delete.
 *
 * What must survive a crash is on the disk in this order: "on probation" before the program is
 * put in service, and "confirmed" before anybody hears of it; the next start ends a probation
 * that it finds. So a crash between any two steps ends with the program before. Only a rollback
 * swaps first: a full disk must not keep it back.
 */
#include "program/command.h"
#include "program/version.h"

#include "config/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void end_with(struct command *command, int status, const char *text)
{
	command_problem(command, status, "state", "%s", text);
	command_end(command, status, command->program);
}

/* --- loading: the object from the disk, the rest on a worker --- */

static void prepare(struct command *command)
{
	struct programs *programs = command->programs;
	struct program_prepare prepare = {
		.allow_unsigned = programs->config->programs.allow_unsigned,
		.row = &command->row,
		.trial = command->trial,
		.try = command->try,
	};
	int r = keys_read(programs->config->programs.trusted_keys, &command->keys);

	prepare.keys = command->keys;
	if (r == 0)
		r = program_prepare(&prepare, command->elf, command->size, &command->candidate,
				    &command->problem);
	/* Watched from its first packet on. A kernel that cannot is told of in the warnings. */
	if (r == 0 && command->try)
		steer_candidate_watch(command->candidate, true);
	command->status = r;
}

static void elf_read(struct command *command)
{
	int r;

	steer_trial_free(command->trial);
	command->trial = NULL;
	command->row = command->program->row;
	r = steer_trial_new(command->programs->steer, command->peers, command->peer_count,
			    &command->trial);
	if (r < 0)
		command_end(command, r, command->program);
	else
		command_work(command, prepare, command->loaded);
}

static void read_and_load(struct command *command, void (*loaded)(struct command *command))
{
	command->loaded = loaded;
	command_on_disk(
		command,
		rows_elf(command->programs->store, command->program->row.id, command_elf, command),
		elf_read);
}

static void take_candidate(struct command *command)
{
	command->program->candidate = command->candidate;
	command->candidate = NULL;
}

/* --- activate --- */

static void not_activated(struct command *command, int status)
{
	struct programs *programs = command->programs;
	struct save *save = programs_save_new(programs);

	if (!command->problem.text[0])
		command_problem(command, status, "", "%s", strerror(-status));
	programs_save_note(programs, save, command->program, "not activated: %.150s",
			   command->problem.text);
	programs_save(programs, save);
	command_end(command, status, command->program);
}

static void activation_saved(struct command *command)
{
	struct programs *programs = command->programs;
	struct program *program = command->program;
	int r;

	take_candidate(command);
	r = steer_activate(programs->steer, program->candidate);
	if (r < 0) {
		program_unload(program);
		not_activated(command, r);
		return;
	}
	program->row = command->row;
	probation_begin(programs, program, command->within, command->expect_drops);
	program_note(programs, program, "%s", command->event.what);
	command_end(command, 0, program);
}

static void activation_loaded(struct command *command)
{
	struct programs *programs = command->programs;
	struct save *save;
	char within[32];

	if (command->status < 0) {
		not_activated(command, command->status);
		return;
	}
	save = programs_save_new(programs);
	if (!save) {
		command_end(command, -ENOMEM, command->program);
		return;
	}
	command->row = command->program->row;
	command->row.probation = true;
	command->row.activated = command->event.at = programs_wall_ms();
	duration_format(command->within, within, sizeof(within));
	snprintf(command->event.what, sizeof(command->event.what), "on probation for %s", within);
	save_changed(save, &command->row);
	save_event(save, command->row.id, &command->event);
	command_on_disk(command, save_submit(programs->store, save, command_stored, command),
			activation_saved);
}

/* --- without probation: to the built-in program, or to one that was confirmed before --- */

static void settled(struct command *command)
{
	command_end(command, 0, command->program);
}

static void on_settle_saved(void *arg, int status)
{
	struct command *command = arg;

	if (status < 0)
		command_problem(command, status, "",
				"it is in service, but the disk does not take that (%s): after a "
				"start the program before will be",
				strerror(-status));
	command_stored(command, status);
}

static void settle_serve(struct command *command)
{
	struct programs *programs = command->programs;
	struct program *old = programs->service, *program = command->program;
	struct save *save;
	int r = programs_serve(programs, program);

	if (r < 0) {
		if (program != old)
			program_unload(program);
		command_end(command, r, program);
		return;
	}
	save = programs_save_new(programs);
	if (!save) {
		command_end(command, -ENOMEM, program);
		return;
	}
	programs_save_note(programs, save, old, "%s", command->why);
	programs_save_note(programs, save, program, "in service again");
	command_on_disk(command, save_submit(programs->store, save, on_settle_saved, command),
			settled);
}

static void settle(struct command *command);

/* One that cannot be returned to is left out; the one before it, at last the built-in, can. */
static void settle_loaded(struct command *command)
{
	struct programs *programs = command->programs;
	struct program *program = command->program;
	struct save *save;

	if (command->status == 0) {
		take_candidate(command);
		settle_serve(command);
		return;
	}
	program->row.order = 0;
	save = programs_save_new(programs);
	programs_save_note(programs, save, program, "cannot be returned to: %.150s",
			   command->problem.text);
	programs_save(programs, save);
	free(command->problem.log);
	command->problem = (struct program_problem){.log = NULL};
	command->program = programs_previous(programs);
	settle(command);
}

static void settle(struct command *command)
{
	if (command->program == &command->programs->builtin)
		settle_serve(command);
	else
		read_and_load(command, settle_loaded);
}

static void activate(struct command *command)
{
	struct programs *programs = command->programs;

	if (!command->program)
		end_with(command, -ENOENT, "there is no such program");
	else if (programs->probation.program == command->program)
		end_with(command, -EBUSY, "it is on probation already: confirm it");
	else if (programs->probation.program)
		end_with(command, -EBUSY,
			 "another program is on probation: confirm it or roll it back first");
	else if (programs->service == command->program)
		end_with(command, -EBUSY, "it is in service already");
	else if (command->program == &programs->builtin)
		settle(command);
	else
		read_and_load(command, activation_loaded);
}

int programs_activate(struct programs *programs, const char *id,
		      const struct program_activation *activation, program_cb cb, void *arg)
{
	struct command *command;
	int r = command_new(programs, cb, arg, &command);

	if (r < 0)
		return r;
	command->program = programs_by_id(programs, id);
	command->within = activation->confirm_within ? activation->confirm_within
						     : programs->config->programs.confirm_within;
	command->expect_drops = activation->expect_drops;
	command->try = true;
	command->why = "out of service: the built-in program was activated";
	r = command_set_peers(command, activation->peers, activation->peer_count);
	if (r < 0)
		command_end(command, r, NULL);
	else
		activate(command);
	return 0;
}

/* --- confirm --- */

static void remember_newest(struct programs *programs, const struct program_newest *newest)
{
	size_t i = 0;

	while (i < programs->newest_count && strcmp(programs->newest[i].name, newest->name) != 0)
		i++;
	if (i == PROGRAM_NAMES_MAX)
		return;
	programs->newest[i] = *newest;
	if (i == programs->newest_count)
		programs->newest_count++;
}

/* The name's newest, the program's own version included. */
static struct program_newest newest_with(const struct programs *programs,
					 const struct program_row *row)
{
	struct program_newest newest;
	struct version mine, theirs;

	memcpy(newest.name, row->name, sizeof(newest.name));
	memcpy(newest.version, row->version, sizeof(newest.version));
	for (size_t i = 0; i < programs->newest_count; i++) {
		const struct program_newest *known = &programs->newest[i];

		if (strcmp(known->name, row->name) == 0 &&
		    version_parse(known->version, &theirs) == 0 &&
		    version_parse(row->version, &mine) == 0 && version_compare(&mine, &theirs) < 0)
			newest = *known;
	}
	return newest;
}

static void confirmed(struct command *command)
{
	struct programs *programs = command->programs;
	struct program *program = command->program;
	struct program_newest newest = newest_with(programs, &command->row);

	probation_confirmed(programs);
	program->row = command->row;
	program_unload(programs->service);
	programs->service = program;
	remember_newest(programs, &newest);
	program_note(programs, program, "%s", command->event.what);
	command_end(command, 0, program);
}

static void on_confirm_saved(void *arg, int status)
{
	struct command *command = arg;

	if (status < 0 && !command->programs->closing)
		probation_resume(command->programs);
	command_stored(command, status);
}

static void confirm(struct command *command)
{
	struct programs *programs = command->programs;
	struct save *save = programs_save_new(programs);
	struct program_newest newest;
	int r;

	if (!save) {
		command_end(command, -ENOMEM, command->program);
		return;
	}
	command->row = command->program->row;
	command->row.probation = false;
	command->row.confirmed = command->event.at = programs_wall_ms();
	command->row.order = programs->service->row.order + 1;
	probation_counted(programs, &command->row);
	newest = newest_with(programs, &command->row);
	strcpy(command->event.what, "confirmed, in service");
	save_changed(save, &command->row);
	save_newest(save, &newest);
	save_event(save, command->row.id, &command->event);
	probation_pause(programs);
	r = save_submit(programs->store, save, on_confirm_saved, command);
	if (r < 0)
		probation_resume(programs);
	command_on_disk(command, r, confirmed);
}

int programs_confirm(struct programs *programs, program_cb cb, void *arg)
{
	struct command *command;
	int r = command_new(programs, cb, arg, &command);

	if (r < 0)
		return r;
	command->program = programs->probation.program;
	if (!command->program)
		end_with(command, -EBUSY, "no program is on probation");
	else if (programs->probation.overdue[0])
		end_with(command, -EBUSY, "it is being rolled back");
	else
		confirm(command);
	return 0;
}

/* --- roll back --- */

static void roll_back_probation(struct command *command)
{
	struct programs *programs = command->programs;
	int r;

	command->then = settled;
	command->program = programs->service;
	r = probation_roll_back(programs, "it was asked for", on_settle_saved, command);
	if (r < 0)
		command_end(command, r, programs->probation.program);
}

int programs_rollback(struct programs *programs, program_cb cb, void *arg)
{
	struct command *command;
	int r = command_new(programs, cb, arg, &command);

	if (r < 0)
		return r;
	command->why = "rolled back: it was asked for";
	command->program = programs_previous(programs);
	if (programs->probation.program)
		roll_back_probation(command);
	else if (!command->program)
		end_with(command, -EBUSY,
			 "the built-in program is in service, and there is none before it");
	else
		settle(command);
	return 0;
}

/* --- delete --- */

static void deleted(struct command *command)
{
	struct programs *programs = command->programs;
	struct program *program = command->program;
	size_t at = 0;

	while (programs->items[at] != program)
		at++;
	program_note(programs, program, "deleted");
	programs->count--;
	memmove(&programs->items[at], &programs->items[at + 1],
		(programs->count - at) * sizeof(programs->items[0]));
	free(program);
	command_end(command, 0, NULL);
}

int programs_delete(struct programs *programs, const char *id, program_cb cb, void *arg)
{
	struct command *command;
	int r = command_new(programs, cb, arg, &command);

	if (r < 0)
		return r;
	command->program = programs_by_id(programs, id);
	if (!command->program)
		end_with(command, -ENOENT, "there is no such program");
	else if (command->program == &programs->builtin)
		end_with(command, -EBUSY, "the built-in program is always there");
	else if (command->program == programs_decider(programs))
		end_with(command, -EBUSY, "it decides over packets now");
	else if (command->program == programs_previous(programs))
		end_with(command, -EBUSY, "a rollback would return to it");
	else
		command_on_disk(command, rows_delete(programs->store, id, command_stored, command),
				deleted);
	return 0;
}
