/* A new object: signature, what it says of itself, version, trial; then it is kept. */
#include "program/command.h"
#include "program/version.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ID_OCTETS = 8 }; /* of the digest: the same file has the same id on every device */

/* --- on a worker --- */

static int read_says(struct command *command)
{
	struct steer_report report = {0};
	struct program_row *row = &command->row;
	struct hf_program says;
	struct version version;
	int r = steer_program_read(command->elf, command->size, &says, &report);

	r = program_report(r, &report, &command->problem);
	if (r < 0)
		return r;
	snprintf(row->name, sizeof(row->name), "%s", says.name);
	snprintf(row->version, sizeof(row->version), "%s", says.version);
	row->abi = says.abi;
	if (version_parse(row->version, &version) < 0)
		return command_problem(command, -EINVAL, "metadata",
				       "its version is \"%s\", and not three numbers: 1.0.0",
				       row->version);
	return 0;
}

static void check_file(struct command *command)
{
	struct programs *programs = command->programs;
	struct program_row *row = &command->row;
	int r = signature_digest(command->elf, command->size, row->digest);

	for (size_t i = 0; i < ID_OCTETS; i++)
		snprintf(row->id + 2 * i, 3, "%02x", row->digest[i]);
	if (r == 0)
		r = keys_read(programs->config->programs.trusted_keys, &command->keys);
	if (r == 0)
		r = program_trust(command->keys, programs->config->programs.allow_unsigned, row,
				  row->signed_by, sizeof(row->signed_by), &command->problem);
	if (r == 0)
		r = read_says(command);
	command->status = r;
}

static void try_object(struct command *command)
{
	struct steer_report report = {0};
	int r = steer_trial_run(command->trial, command->elf, command->size, &report);

	command->status = program_report(r, &report, &command->problem);
}

/* --- on the loop --- */

static void inserted(struct command *command)
{
	struct programs *programs = command->programs;
	struct program *program = calloc(1, sizeof(*program));

	if (!program) {
		/* It is on the disk, and in the list from the next start on. */
		command_end(command, -ENOMEM, NULL);
		return;
	}
	program->row = command->row;
	programs->items[programs->count++] = program;
	program_note(programs, program, "%s", command->event.what);
	command_end(command, 0, program);
}

static void tried(struct command *command)
{
	struct program_row *row = &command->row;

	if (command->status < 0) {
		command_end(command, command->status, NULL);
		return;
	}
	row->size = command->size;
	row->uploaded = command->event.at = programs_wall_ms();
	snprintf(command->event.what, sizeof(command->event.what), "uploaded, %s%s",
		 row->has_signature ? "signed by " : "without a signature", row->signed_by);
	command_on_disk(command,
			rows_insert(command->programs->store, row, command->elf, &command->event,
				    command_stored, command),
			inserted);
}

static void signature_kept(struct command *command)
{
	struct program_row *row = &command->program->row;

	row->has_signature = true;
	memcpy(row->signature, command->row.signature, sizeof(row->signature));
	memcpy(row->signed_by, command->row.signed_by, sizeof(row->signed_by));
	command_end(command, -EEXIST, command->program);
}

/* The same file again. One that was taken without a signature keeps the one it has now. */
static void found(struct command *command, struct program *program)
{
	struct programs *programs = command->programs;
	struct program_row row = program->row;
	struct save *save;

	if (memcmp(row.digest, command->row.digest, sizeof(row.digest)) != 0) {
		command_problem(command, -EBUSY, "state", "another program has the id %s", row.id);
		command_end(command, -EBUSY, NULL);
		return;
	}
	if (row.has_signature || !command->row.has_signature) {
		command_end(command, -EEXIST, program);
		return;
	}
	save = programs_save_new(programs);
	if (!save) {
		command_end(command, -ENOMEM, NULL);
		return;
	}
	row.has_signature = true;
	memcpy(row.signature, command->row.signature, sizeof(row.signature));
	memcpy(row.signed_by, command->row.signed_by, sizeof(row.signed_by));
	save_changed(save, &row);
	command->program = program;
	command_on_disk(command, save_submit(programs->store, save, command_stored, command),
			signature_kept);
}

static const struct program_newest *newest_of(const struct programs *programs, const char *name)
{
	for (size_t i = 0; i < programs->newest_count; i++)
		if (strcmp(programs->newest[i].name, name) == 0)
			return &programs->newest[i];
	return NULL;
}

static int check_version(struct command *command)
{
	const struct program_newest *newest = newest_of(command->programs, command->row.name);
	struct version mine, theirs;

	if (!newest || version_parse(newest->version, &theirs) < 0 ||
	    version_parse(command->row.version, &mine) < 0 || version_compare(&mine, &theirs) >= 0)
		return 0;
	return command_problem(command, -ESTALE, "version",
			       "%s %s is older than %s, which was confirmed here before",
			       command->row.name, command->row.version, newest->version);
}

static int check_room(struct command *command)
{
	const struct programs *programs = command->programs;

	if (programs->count == PROGRAMS_MAX)
		return command_problem(command, -ENOSPC, "state",
				       "%d programs are kept here, and that is all: delete one",
				       PROGRAMS_MAX);
	if (programs->newest_count + PROGRAMS_MAX >= PROGRAM_NAMES_MAX &&
	    !newest_of(programs, command->row.name))
		return command_problem(command, -ENOSPC, "state",
				       "programs of too many different names were confirmed here");
	return 0;
}

static void checked(struct command *command)
{
	struct programs *programs = command->programs;
	struct program *program;
	int r = command->status;

	program = r == 0 ? programs_by_id(programs, command->row.id) : NULL;
	if (program) {
		found(command, program);
		return;
	}
	if (r == 0)
		r = check_version(command);
	if (r == 0)
		r = check_room(command);
	if (r == 0)
		r = steer_trial_new(programs->steer, command->peers, command->peer_count,
				    &command->trial);
	if (r == 0)
		command_work(command, try_object, tried);
	else
		command_end(command, r, NULL);
}

static int take_signature(struct command *command, const char *signature)
{
	if (!signature)
		return 0;
	command->row.has_signature = true;
	if (signature_decode(signature, command->row.signature) == 0)
		return 0;
	return command_problem(command, -EKEYREJECTED, "signature",
			       "Holdfast-Signature must be the base64 of 64 octets, which is how "
			       "long a signature of Ed25519 is");
}

static int take_elf(struct command *command, const uint8_t *elf, size_t size)
{
	if (size > HF_PROGRAM_BYTES_MAX)
		return command_problem(command, -EFBIG, "size", "at most %d bytes",
				       HF_PROGRAM_BYTES_MAX);
	command->elf = malloc(size + 1);
	if (!command->elf)
		return -ENOMEM;
	if (size)
		memcpy(command->elf, elf, size);
	command->size = size;
	return 0;
}

int programs_upload(struct programs *programs, const uint8_t *elf, size_t size,
		    const char *signature, const struct steer_peer *peers, size_t peer_count,
		    program_cb cb, void *arg)
{
	struct command *command;
	int r = command_new(programs, cb, arg, &command);

	if (r < 0)
		return r;
	r = take_elf(command, elf, size);
	if (r == 0)
		r = take_signature(command, signature);
	if (r == 0)
		r = command_set_peers(command, peers, peer_count);
	if (r == 0)
		command_work(command, check_file, checked);
	else
		command_end(command, r, NULL);
	return 0;
}
