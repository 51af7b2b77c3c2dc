#include "program/command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

int command_new(struct programs *programs, program_cb cb, void *arg, struct command **ret_command)
{
	struct command *command;

	if (programs->closing)
		return -ECANCELED;
	if (programs->unread)
		return -EROFS;
	if (programs->command)
		return -EBUSY;
	command = calloc(1, sizeof(*command));
	if (!command)
		return -ENOMEM;
	command->programs = programs;
	command->cb = cb;
	command->arg = arg;
	command->work.data = command;
	programs->command = command;
	*ret_command = command;
	return 0;
}

int command_set_peers(struct command *command, const struct steer_peer *peers, size_t count)
{
	command->peers = calloc(count + 1, sizeof(*peers));
	if (!command->peers)
		return -ENOMEM;
	if (count)
		memcpy(command->peers, peers, count * sizeof(*peers));
	command->peer_count = count;
	return 0;
}

int command_problem(struct command *command, int status, const char *check, const char *format, ...)
{
	va_list args;

	snprintf(command->problem.check, sizeof(command->problem.check), "%s", check);
	va_start(args, format);
	vsnprintf(command->problem.text, sizeof(command->problem.text), format, args);
	va_end(args);
	command->status = status;
	return status;
}

void command_end(struct command *command, int status, struct program *program)
{
	struct programs *programs = command->programs;
	struct program_info *info = program ? malloc(sizeof(*info)) : NULL;

	programs->command = NULL;
	if (program && !info && (status >= 0 || status == -EEXIST))
		status = -ENOMEM;
	if (info)
		program_describe(programs, program, info);
	if (status < 0 && !command->problem.text[0])
		snprintf(command->problem.text, sizeof(command->problem.text), "%s",
			 strerror(-status));
	command->cb(command->arg, status, info, &command->problem);
	free(info);
	free(command->elf);
	free(command->peers);
	free(command->problem.log);
	steer_trial_free(command->trial);
	steer_candidate_free(command->candidate);
	keys_free(command->keys);
	free(command);
}

/* --- steps --- */

static void go_on(struct command *command, int status)
{
	if (command->programs->closing)
		command_end(command, -ECANCELED, NULL);
	else if (status < 0)
		command_end(command, status, command->program);
	else
		command->then(command);
}

static void on_work(uv_work_t *work)
{
	struct command *command = work->data;

	command->run(command);
}

static void on_work_done(uv_work_t *work, int status)
{
	struct command *command = work->data;
	struct programs *programs = command->programs;

	if (command->keys && !programs->closing) {
		programs_keys_take(programs, command->keys);
		command->keys = NULL;
	}
	go_on(command, 0);
	programs_unhold(programs);
}

void command_work(struct command *command, void (*run)(struct command *command),
		  void (*then)(struct command *command))
{
	struct programs *programs = command->programs;

	command->run = run;
	command->then = then;
	command->status = 0;
	programs->open++;
	if (uv_queue_work(programs->loop, &command->work, on_work, on_work_done) < 0)
		abort(); /* fails only for a NULL callback */
}

void command_stored(void *arg, int status)
{
	go_on(arg, status);
}

void command_elf(void *arg, int status, uint8_t *elf, size_t size)
{
	struct command *command = arg;

	free(command->elf);
	command->elf = elf;
	command->size = size;
	go_on(command, status);
}

void command_on_disk(struct command *command, int r, void (*then)(struct command *command))
{
	command->then = then;
	if (r < 0)
		command_end(command, r, command->program);
}
