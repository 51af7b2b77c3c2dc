#include "program/command.h"

#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const state_names[] = {
#define STATE_NAME(id, name) [PROGRAM_##id] = name,
	PROGRAM_STATES(STATE_NAME)
#undef STATE_NAME
};

const char *program_state_name(enum program_state state)
{
	return state_names[state];
}

int64_t programs_wall_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- looking --- */

struct program *programs_by_id(struct programs *programs, const char *id)
{
	if (strcmp(id, PROGRAM_BUILTIN) == 0)
		return &programs->builtin;
	for (size_t i = 0; i < programs->count; i++)
		if (strcmp(programs->items[i]->row.id, id) == 0)
			return programs->items[i];
	return NULL;
}

struct program *programs_decider(const struct programs *programs)
{
	return programs->probation.program ? programs->probation.program : programs->service;
}

struct program *programs_before(struct programs *programs, const struct program *program)
{
	struct program *before = &programs->builtin;

	for (size_t i = 0; i < programs->count; i++) {
		struct program *other = programs->items[i];

		if (other->row.order < program->row.order && other->row.order > before->row.order)
			before = other;
	}
	return before;
}

struct program *programs_previous(struct programs *programs)
{
	if (programs->probation.program)
		return programs->service;
	if (programs->service == &programs->builtin)
		return NULL;
	return programs_before(programs, programs->service);
}

static enum program_state state_of(const struct programs *programs, const struct program *program)
{
	if (program == programs->probation.program)
		return PROGRAM_PROBATION;
	return program == programs_decider(programs) ? PROGRAM_SERVICE : PROGRAM_AVAILABLE;
}

static void digest_text(const uint8_t *digest, char *text)
{
	for (size_t i = 0; i < PROGRAM_DIGEST_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

void program_describe(struct programs *programs, const struct program *program,
		      struct program_info *ret_info)
{
	const struct program_row *row = &program->row;

	*ret_info = (struct program_info){
		.abi = row->abi,
		.state = state_of(programs, program),
		.builtin = program == &programs->builtin,
		.has_signature = row->has_signature,
		.previous = program == programs_previous(programs),
		.size = row->size,
		.uploaded = row->uploaded,
		.activated = row->activated,
		.confirmed = row->confirmed,
		.event_count = program->event_count,
	};
	memcpy(ret_info->id, row->id, sizeof(row->id));
	memcpy(ret_info->name, row->name, sizeof(row->name));
	memcpy(ret_info->version, row->version, sizeof(row->version));
	memcpy(ret_info->signed_by, row->signed_by, sizeof(row->signed_by));
	memcpy(ret_info->events, program->events, sizeof(program->events));
	if (!ret_info->builtin)
		digest_text(row->digest, ret_info->sha256);
	if (ret_info->state == PROGRAM_PROBATION && !programs->probation.overdue[0])
		ret_info->probation_left = uv_timer_get_due_in(&programs->deadline);
}

int programs_list(struct programs *programs, struct program_info **ret_infos, size_t *ret_count)
{
	struct program_info *infos = calloc(programs->count + 1, sizeof(*infos));

	if (!infos)
		return -ENOMEM;
	program_describe(programs, &programs->builtin, &infos[0]);
	for (size_t i = 0; i < programs->count; i++)
		program_describe(programs, programs->items[programs->count - 1 - i], &infos[i + 1]);
	*ret_infos = infos;
	*ret_count = programs->count + 1;
	return 0;
}

void programs_current(struct programs *programs, struct program_info *ret_info)
{
	program_describe(programs, programs_decider(programs), ret_info);
}

/* --- what is said --- */

static void __attribute__((format(printf, 2, 0)))
note(struct programs *programs, const char *format, va_list args, struct program *program)
{
	struct program_event event = {.at = programs_wall_ms()};
	char line[sizeof(event.what)];

	vsnprintf(event.what, sizeof(event.what), format, args);
	if (program->event_count == PROGRAM_EVENTS_MAX)
		memmove(program->events, program->events + 1,
			sizeof(event) * --program->event_count);
	program->events[program->event_count++] = event;
	snprintf(line, sizeof(line), "%s %s: %.120s", program->row.name, program->row.version,
		 event.what);
	log_info("program", "%s: %s", program->row.id, line);
	programs->on_event(programs->arg, program->row.id, line);
}

void program_note(struct programs *programs, struct program *program, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	note(programs, format, args, program);
	va_end(args);
}

void programs_save_note(struct programs *programs, struct save *save, struct program *program,
			const char *format, ...)
{
	va_list args;

	va_start(args, format);
	note(programs, format, args, program);
	va_end(args);
	if (save)
		save_event(save, program->row.id, &program->events[program->event_count - 1]);
}

struct save *programs_save_new(struct programs *programs)
{
	struct save *save = save_new();

	for (size_t i = 0; save && i < programs->count; i++)
		save_row(save, &programs->items[i]->row);
	return save;
}

static void on_saved(void *arg, int status)
{
	if (status < 0)
		log_warning("program", "the change is not on the disk: %s", strerror(-status));
}

void programs_save(struct programs *programs, struct save *save)
{
	int r = save ? save_submit(programs->store, save, on_saved, programs) : -ENOMEM;

	if (r < 0)
		on_saved(programs, r);
}

void programs_keys_take(struct programs *programs, struct keys *keys)
{
	const char *problem;

	for (size_t i = 0; (problem = keys_problem(keys, i)); i++) {
		bool known = false;

		for (size_t j = 0; keys_problem(programs->keys, j); j++)
			known |= strcmp(keys_problem(programs->keys, j), problem) == 0;
		if (!known)
			log_warning("program", "programs.trusted_keys: %s", problem);
	}
	keys_free(programs->keys);
	programs->keys = keys;
}

static void __attribute__((format(printf, 2, 3)))
warn(struct program_warnings *warnings, const char *format, ...)
{
	va_list args;

	if (warnings->count == PROGRAM_WARNINGS_MAX)
		return;
	va_start(args, format);
	vsnprintf(warnings->text[warnings->count++], sizeof(warnings->text[0]), format, args);
	va_end(args);
}

void programs_warnings(struct programs *programs, struct program_warnings *ret_warnings)
{
	const struct probation *probation = &programs->probation;
	const char *problem;

	ret_warnings->count = 0;
	if (programs->unread)
		warn(ret_warnings, "the database could not be opened at the start: the built-in "
				   "program is in service, others wait for a restart");
	if (programs->config->programs.allow_unsigned)
		warn(ret_warnings, "programs.allow_unsigned is set: whoever reaches the API can "
				   "put a program in charge of all traffic");
	if (probation->overdue[0])
		warn(ret_warnings,
		     "program %s should have been rolled back (%s), but the kernel "
		     "takes no other; it is tried again",
		     probation->program->row.name, probation->overdue);
	if (probation->program && !probation->watched)
		warn(ret_warnings, "this kernel cannot watch the program on probation: its aborts "
				   "are not seen, and of its drops those that it counts itself");
	for (size_t i = 0; (problem = keys_problem(programs->keys, i)); i++)
		warn(ret_warnings, "programs.trusted_keys: %s", problem);
}

/* --- trusted keys are read again, so that status tells the truth without an upload --- */

static void on_keys_work(uv_work_t *work)
{
	struct programs *programs = work->data;

	if (keys_read(programs->config->programs.trusted_keys, &programs->keys_fresh) < 0)
		programs->keys_fresh = NULL;
}

static void on_keys_done(uv_work_t *work, int status)
{
	struct programs *programs = work->data;

	programs->keys_reading = false;
	if (programs->keys_fresh)
		programs_keys_take(programs, programs->keys_fresh);
	programs_unhold(programs);
}

static void on_keys_check(uv_timer_t *timer)
{
	struct programs *programs = timer->data;

	if (programs->closing || programs->keys_reading)
		return;
	programs->keys_reading = true;
	programs->open++;
	if (uv_queue_work(programs->loop, &programs->keys_work, on_keys_work, on_keys_done) < 0)
		abort(); /* fails only for a NULL callback */
}

/* --- in service --- */

struct drops programs_count_drops(struct programs *programs)
{
	struct steer_counter *counters;
	struct drops drops = {0};
	size_t count;

	if (steer_counters(programs->steer, &counters, &count) < 0)
		return drops;
	for (size_t i = 0; i < count; i++) {
		if (counters[i].hook != HF_HOOK_STEER)
			continue;
		drops.all += counters[i].packets;
		if (counters[i].verdict == HF_VERDICT_DROP)
			drops.dropped += counters[i].packets;
	}
	free(counters);
	return drops;
}

int programs_serve(struct programs *programs, struct program *program)
{
	struct program *old = programs->service;
	int r = steer_activate(programs->steer, program->candidate);

	if (r < 0)
		return r;
	programs->service = program;
	for (size_t i = 0; i < programs->count; i++)
		if (programs->items[i]->row.order > program->row.order)
			programs->items[i]->row.order = 0;
	if (old != program)
		program_unload(old);
	if (program == &programs->builtin)
		programs->builtin_start = programs_count_drops(programs);
	return 0;
}

void program_unload(struct program *program)
{
	steer_candidate_free(program->candidate);
	program->candidate = NULL;
}

/* --- life --- */

static int on_load_row(void *arg, const struct program_row *row)
{
	struct programs *programs = arg;
	struct program *program;

	if (programs->count == PROGRAMS_MAX || programs_by_id(programs, row->id))
		return 0; /* there already: read again, the file was found corrupt meanwhile */
	program = calloc(1, sizeof(*program));
	if (!program)
		return -ENOMEM;
	program->row = *row;
	programs->items[programs->count++] = program;
	return 0;
}

static int on_load_event(void *arg, const char *id, const struct program_event *event)
{
	struct program *program = programs_by_id(arg, id);

	if (program && program->event_count < PROGRAM_EVENTS_MAX)
		program->events[program->event_count++] = *event;
	return 0;
}

static int on_load_newest(void *arg, const struct program_newest *newest)
{
	struct programs *programs = arg;

	if (programs->newest_count < PROGRAM_NAMES_MAX)
		programs->newest[programs->newest_count++] = *newest;
	return 0;
}

/* Older versions than these stay refused; objects are nowhere but in the database. */
static void on_reopened(void *arg, bool empty)
{
	struct programs *programs = arg;

	for (size_t i = 0; empty && i < programs->newest_count; i++) {
		struct save *save = save_new();

		if (save)
			save_newest(save, &programs->newest[i]);
		programs_save(programs, save);
	}
	for (size_t i = 0; empty && i < programs->count; i++)
		program_note(programs, programs->items[i],
			     "its object is lost with a corrupt database: delete it, and upload it "
			     "again");
}

static int load(struct programs *programs)
{
	struct rows_load load = {
		.arg = programs,
		.on_row = on_load_row,
		.on_event = on_load_event,
		.on_newest = on_load_newest,
	};

	snprintf(programs->builtin.row.id, ID_TEXT_MAX, "%s", PROGRAM_BUILTIN);
	strcpy(programs->builtin.row.name, "steer");
	strcpy(programs->builtin.row.version, HOLDFAST_VERSION);
	programs->builtin.row.abi = HF_ABI_VERSION;
	programs->service = &programs->builtin;
	return rows_open(programs->store, &load);
}

static void start_timers(struct programs *programs)
{
	uv_timer_init(programs->loop, &programs->deadline);
	uv_timer_init(programs->loop, &programs->watch);
	uv_timer_init(programs->loop, &programs->keys_check);
	programs->deadline.data = programs->watch.data = programs->keys_check.data = programs;
	programs->keys_work.data = programs;
	programs->open = 3;
	if (programs->config->programs.trusted_keys && programs->config->programs.trusted_keys[0])
		uv_timer_start(&programs->keys_check, on_keys_check, PROGRAM_KEYS_CHECK,
			       PROGRAM_KEYS_CHECK);
}

int programs_new(uv_loop_t *loop, struct config *config, struct steer *steer, struct store *store,
		 programs_event_cb on_event, void *arg, struct programs **ret_programs)
{
	struct programs *programs = calloc(1, sizeof(*programs));
	struct store_statistics statistics;
	int r;

	if (!programs)
		return -ENOMEM;
	programs->loop = loop;
	programs->config = config_ref(config);
	programs->steer = steer;
	programs->store = store;
	programs->on_event = on_event;
	programs->arg = arg;
	programs->listener = (struct store_listener){.reopened = on_reopened, .arg = programs};
	store_listen(store, &programs->listener);
	r = load(programs);
	store_statistics(store, &statistics);
	programs->unread = statistics.stands_in;
	if (r == 0)
		r = programs_start(programs);
	if (r < 0) {
		store_unlisten(store, &programs->listener);
		programs_free(programs);
		return r;
	}
	start_timers(programs);
	*ret_programs = programs;
	return 0;
}

void programs_unhold(struct programs *programs)
{
	if (--programs->open == 0 && programs->stopped)
		programs->stopped(programs->stopped_arg);
}

static void on_timer_closed(uv_handle_t *handle)
{
	programs_unhold(handle->data);
}

void programs_stop(struct programs *programs, void (*stopped)(void *arg), void *arg)
{
	programs->closing = true;
	store_unlisten(programs->store, &programs->listener);
	programs->stopped = stopped;
	programs->stopped_arg = arg;
	uv_close((uv_handle_t *)&programs->deadline, on_timer_closed);
	uv_close((uv_handle_t *)&programs->watch, on_timer_closed);
	uv_close((uv_handle_t *)&programs->keys_check, on_timer_closed);
}

void programs_free(struct programs *programs)
{
	if (!programs)
		return;
	for (size_t i = 0; i < programs->count; i++) {
		program_unload(programs->items[i]);
		free(programs->items[i]);
	}
	keys_free(programs->keys);
	config_unref(programs->config);
	free(programs);
}
