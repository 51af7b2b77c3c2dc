/*
 * A program on probation: until when, what is watched, and its end. Times are the loop's, which
 * are monotonic.
 */
#include "program/internal.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

static void stop(struct programs *programs)
{
	uv_timer_stop(&programs->deadline);
	uv_timer_stop(&programs->watch);
}

/* --- the end --- */

static void on_saved(void *arg, int status)
{
	if (status < 0)
		log_warning("program", "the rollback is not on the disk: %s", strerror(-status));
}

/* The one before, and if the kernel does not take it, the built-in one. */
static int serve_before(struct programs *programs)
{
	struct program *before = programs->service;
	int r = programs_serve(programs, before);

	if (r == 0 || before == &programs->builtin)
		return r;
	r = programs_serve(programs, &programs->builtin);
	if (r == 0)
		program_note(programs, before, "not put in service again: the kernel refused");
	return r;
}

static void try_again(struct programs *programs, const char *why, int error)
{
	struct probation *probation = &programs->probation;
	char text[sizeof(probation->overdue)];

	if (!probation->overdue[0])
		program_note(programs, probation->program, "cannot be rolled back (%.100s): %s",
			     why, strerror(-error));
	snprintf(text, sizeof(text), "%s", why);
	memcpy(probation->overdue, text, sizeof(text));
	uv_timer_start(&programs->deadline, on_probation_deadline, PROGRAM_ROLLBACK_RETRY, 0);
}

int probation_roll_back(struct programs *programs, const char *why, rows_cb cb, void *arg)
{
	struct program *program = programs->probation.program;
	struct save *save;
	int r;

	stop(programs);
	r = serve_before(programs);
	if (r < 0) {
		try_again(programs, why, r);
		return r;
	}
	program->row.probation = false;
	program_unload(program);
	save = programs_save_new(programs);
	programs_save_note(programs, save, program, "rolled back: %s", why);
	programs->probation = (struct probation){.program = NULL};
	r = save ? save_submit(programs->store, save, cb, arg) : -ENOMEM;
	if (r < 0)
		cb(arg, r);
	return 0;
}

static void roll_back(struct programs *programs, const char *why)
{
	/* A failure is told, and tried again. */
	if (probation_roll_back(programs, why, on_saved, programs) == 0)
		log_warning("program", "%s %s is in service again", programs->service->row.name,
			    programs->service->row.version);
}

void on_probation_deadline(uv_timer_t *timer)
{
	struct programs *programs = timer->data;
	struct probation *probation = &programs->probation;
	char within[32], why[sizeof(probation->overdue)];

	duration_format(probation->within, within, sizeof(within));
	if (probation->overdue[0])
		memcpy(why, probation->overdue, sizeof(why));
	else
		snprintf(why, sizeof(why), "it was not confirmed within %s", within);
	roll_back(programs, why);
}

/* --- watching --- */

struct look {
	uint64_t aborted;
	struct drops drops;
};

/* All since it was put in service: as the kernel counts what it returns, else as it counts
 * itself. */
static struct look look(struct programs *programs)
{
	struct probation *probation = &programs->probation;
	struct steer_watch_counts counts;
	struct look look = {0};
	struct drops now;

	if (probation->watched &&
	    steer_candidate_counts(probation->program->candidate, &counts) == 0) {
		look.aborted = counts.aborted;
		look.drops.dropped = counts.dropped + counts.aborted;
		look.drops.all =
			look.drops.dropped + counts.passed + counts.sent + counts.redirected;
		return look;
	}
	now = programs_count_drops(programs);
	look.drops = drops_since(&now, &probation->start);
	return look;
}

/* Remembers the sample, and gives what came since the one of a window ago. */
static struct drops slide(struct probation *probation, const struct drops *now)
{
	struct drops none = {0};
	struct drops *oldest = &probation->samples[probation->sample_count % WATCH_SAMPLES];
	struct drops window =
		drops_since(now, probation->sample_count < WATCH_SAMPLES ? &none : oldest);

	*oldest = *now;
	probation->sample_count++;
	return window;
}

static unsigned percent(const struct drops *drops)
{
	return drops->all ? (unsigned)(100 * drops->dropped / drops->all) : 0;
}

void on_probation_watch(uv_timer_t *timer)
{
	struct programs *programs = timer->data;
	struct probation *probation = &programs->probation;
	struct look now = look(programs);
	struct drops window = slide(probation, &now.drops);
	char why[sizeof(probation->overdue)];

	if (now.aborted) {
		snprintf(why, sizeof(why), "it aborted (XDP_ABORTED) %llu packets",
			 (unsigned long long)now.aborted);
		roll_back(programs, why);
	} else if (!probation->expect_drops && drops_jumped(&window, &probation->before)) {
		snprintf(why, sizeof(why),
			 "drops jumped: %llu of %llu packets in one second, %u %% before",
			 (unsigned long long)window.dropped, (unsigned long long)window.all,
			 percent(&probation->before));
		roll_back(programs, why);
	}
}

/* --- the beginning, and a confirmation --- */

static struct drops drops_before(struct programs *programs)
{
	const struct program *service = programs->service;
	struct drops now;

	if (service != &programs->builtin)
		return (struct drops){service->row.dropped, service->row.counted};
	now = programs_count_drops(programs);
	return drops_since(&now, &programs->builtin_start);
}

void probation_begin(struct programs *programs, struct program *program, uint64_t within,
		     bool expect_drops)
{
	struct steer_watch_counts counts;

	programs->probation = (struct probation){
		.program = program,
		.expect_drops = expect_drops,
		.watched = steer_candidate_counts(program->candidate, &counts) == 0,
		.within = within,
		.before = drops_before(programs),
		.start = programs_count_drops(programs),
	};
	if (!programs->probation.watched)
		log_warning("program", "this kernel cannot watch what %s returns",
			    program->row.name);
	uv_timer_start(&programs->deadline, on_probation_deadline, within, 0);
	uv_timer_start(&programs->watch, on_probation_watch, PROGRAM_WATCH_TICK,
		       PROGRAM_WATCH_TICK);
}

void probation_pause(struct programs *programs)
{
	programs->probation.left = uv_timer_get_due_in(&programs->deadline);
	stop(programs);
}

void probation_resume(struct programs *programs)
{
	uv_timer_start(&programs->deadline, on_probation_deadline, programs->probation.left, 0);
	uv_timer_start(&programs->watch, on_probation_watch, PROGRAM_WATCH_TICK,
		       PROGRAM_WATCH_TICK);
}

void probation_counted(struct programs *programs, struct program_row *row)
{
	struct look now = look(programs);

	row->dropped = now.drops.dropped;
	row->counted = now.drops.all;
}

void probation_confirmed(struct programs *programs)
{
	struct steer_candidate *candidate = programs->probation.program->candidate;
	int r;

	stop(programs);
	steer_candidate_watch(candidate, false);
	/* What is not watched any more goes into service as it is. */
	r = steer_activate(programs->steer, candidate);
	if (r < 0)
		log_warning("program", "%s goes on as it was watched: %s",
			    programs->probation.program->row.name, strerror(-r));
	programs->probation = (struct probation){.program = NULL};
}
