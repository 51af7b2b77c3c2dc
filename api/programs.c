/* Programs of the steer hook: listing, upload, activation, confirmation, rollback. */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- answers --- */

/* What a script can act on: which check it was, and what the kernel's verifier said. */
static void answer_problem(struct call *call, int error, const struct program_problem *problem)
{
	static const struct {
		int error;
		unsigned status;
	} table[] = {
		{EKEYREJECTED, 403}, {ENOENT, 404}, {EBUSY, 409},  {ESTALE, 409},
		{EFBIG, 413},	     {EINVAL, 422}, {ENOMEM, 503}, {EAGAIN, 503},
		{ECANCELED, 503},    {ENOSPC, 507}, {EROFS, 507},
	};
	unsigned status = 500;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].error == -error)
			status = table[i].status;
	call_problem_of(call, status, problem->check, problem->log, "%s", problem->text);
	if (status == 503)
		call_add_header(call, "Retry-After", "5");
}

static void answer_refused(struct call *call, int error)
{
	struct program_problem problem = {.log = NULL};

	if (error == -EBUSY)
		strcpy(problem.check, "state");
	snprintf(problem.text, sizeof(problem.text), "%s",
		 error == -EBUSY   ? "another command on programs runs at this moment"
		 : error == -EROFS ? "the database could not be opened at the start: restart the "
				     "daemon when its disk is well"
				   : strerror(-error));
	answer_problem(call, error, &problem);
	call_unref(call);
}

static void on_program(void *arg, int status, const struct program_info *info,
		       const struct program_problem *problem)
{
	struct call *call = arg;

	if (status < 0)
		answer_problem(call, status, problem);
	else
		call_json(call, 200, view_program(info));
	call_unref(call);
}

static void on_uploaded(void *arg, int status, const struct program_info *info,
			const struct program_problem *problem)
{
	struct call *call = arg;

	if (status < 0 && status != -EEXIST) {
		answer_problem(call, status, problem);
	} else {
		call_json(call, status == 0 ? 201 : 200, view_program(info));
		call_add_location(call, "/v1/programs/", info->id);
	}
	call_unref(call);
}

static void on_deleted(void *arg, int status, const struct program_info *info,
		       const struct program_problem *problem)
{
	struct call *call = arg;

	if (status < 0)
		answer_problem(call, status, problem);
	else
		call_bytes(call, 204, "text/plain", "", 0);
	call_unref(call);
}

/* --- reading --- */

void list_programs(struct call *call)
{
	struct program_info *infos = NULL;
	struct json_object *items;
	size_t count = 0;

	if (daemon_program_list(call->api->daemon, &infos, &count) < 0) {
		call_problem(call, 503, NULL, "out of memory");
		return;
	}
	items = json_object_new_array();
	for (size_t i = 0; items && i < count; i++)
		json_object_array_add(items, view_program(&infos[i]));
	free(infos);
	call_json(call, 200, view_list(items, NULL));
}

void get_program(struct call *call)
{
	struct program_info *infos = NULL;
	size_t count = 0, at = 0;

	if (daemon_program_list(call->api->daemon, &infos, &count) < 0) {
		call_problem(call, 503, NULL, "out of memory");
		return;
	}
	while (at < count && strcmp(infos[at].id, call->param) != 0)
		at++;
	if (at < count)
		call_json(call, 200, view_program(&infos[at]));
	else
		call_problem(call, 404, NULL, "there is no such program");
	free(infos);
}

/* --- commands --- */

void post_program(struct call *call)
{
	struct daemon_caller caller;
	int r;

	access_find_caller(call, &caller);
	r = daemon_program_upload(call->api->daemon, buf_bytes(&call->body), buf_len(&call->body),
				  call_header(call, "Holdfast-Signature"), &caller, on_uploaded,
				  call_ref(call));
	if (r < 0)
		answer_refused(call, r);
}

static bool read_activation(struct call *call, struct daemon_activation *ret_activation)
{
	struct daemon_activation none = {0};
	struct input_error err = {0};
	struct json_object *object = NULL;
	int r;

	*ret_activation = none;
	if (buf_len(&call->body) == 0)
		return true;
	r = json_read((const char *)buf_bytes(&call->body), buf_len(&call->body), &err, &object);
	if (r == 0)
		r = command_activation(object, ret_activation, &err);
	json_object_put(object);
	if (r < 0)
		call_error(call, r, &err, "the activation");
	return r == 0;
}

void activate_program(struct call *call)
{
	struct daemon_activation activation;
	struct daemon_caller caller;
	int r;

	if (!read_activation(call, &activation))
		return;
	access_find_caller(call, &caller);
	r = daemon_program_activate(call->api->daemon, call->param, &activation, &caller,
				    on_program, call_ref(call));
	if (r < 0)
		answer_refused(call, r);
}

void confirm_program(struct call *call)
{
	int r = daemon_program_confirm(call->api->daemon, on_program, call_ref(call));

	if (r < 0)
		answer_refused(call, r);
}

void rollback_program(struct call *call)
{
	int r = daemon_program_rollback(call->api->daemon, on_program, call_ref(call));

	if (r < 0)
		answer_refused(call, r);
}

void delete_program(struct call *call)
{
	int r = daemon_program_delete(call->api->daemon, call->param, on_deleted, call_ref(call));

	if (r < 0)
		answer_refused(call, r);
}
