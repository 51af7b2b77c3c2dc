/* holdfastd: options, the loop, signals, and what systemd is told. */
#include "api/api.h"
#include "base/log.h"
#include "base/systemd.h"
#include "config/config.h"
#include "daemon/daemon.h"
#include "upstream/trust.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const char default_config[] = "/etc/holdfast/holdfast.json";

enum { DESCRIPTORS_WANTED = 65536 };

struct program {
	uv_loop_t loop;
	uv_signal_t term, interrupt;
	struct daemon *daemon;
	struct api *api;
	bool stopping;
};

static void print_errors(const char *path, const struct config_errors *errors)
{
	size_t max = sizeof(errors->items) / sizeof(errors->items[0]);

	for (size_t i = 0; i < errors->count && i < max; i++) {
		const struct input_error *e = &errors->items[i];

		if (e->line)
			fprintf(stderr, "%s:%d: ", path, e->line);
		else
			fprintf(stderr, "%s: ", path);
		fprintf(stderr, "%s%s%s\n", e->path, e->path[0] ? ": " : "", e->text);
	}
	if (errors->count > max)
		fprintf(stderr, "%s: and %zu more errors\n", path, errors->count - max);
}

static int load(const char *path, struct config **ret_config)
{
	static struct config_errors errors;
	int r = config_load(path, &errors, ret_config);

	if (r == 0) {
		r = trust_check(*ret_config, &errors);
		if (r < 0)
			config_unref(*ret_config);
	}

	if (r < 0)
		print_errors(path, &errors);
	return r;
}

static int check(const char *path)
{
	struct config *config;

	if (load(path, &config) < 0)
		return 1;
	config_unref(config);
	return 0;
}

static int release(void)
{
	char error[256] = "";
	int r = steer_release(error, sizeof(error));

	if (r == 0)
		return 0;
	fprintf(stderr, "holdfastd: %s\n", error[0] ? error : strerror(-r));
	return 1;
}

static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	if (limit.rlim_max < DESCRIPTORS_WANTED) {
		struct rlimit more = {DESCRIPTORS_WANTED, DESCRIPTORS_WANTED};

		if (setrlimit(RLIMIT_NOFILE, &more) == 0)
			return;
		log_info("main", "descriptors are limited to %llu",
			 (unsigned long long)limit.rlim_max);
	}
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS_WANTED ? limit.rlim_max : DESCRIPTORS_WANTED;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void on_daemon_closed(void *arg)
{
	struct program *program = arg;

	uv_close((uv_handle_t *)&program->term, NULL);
	uv_close((uv_handle_t *)&program->interrupt, NULL);
}

static void on_api_closed(void *arg)
{
	struct program *program = arg;

	daemon_close(program->daemon, on_daemon_closed, program);
}

static void stop(struct program *program)
{
	if (program->stopping)
		return;
	program->stopping = true;
	systemd_notify("STOPPING=1", -1);
	if (program->api)
		api_close(program->api, on_api_closed, program);
	else
		on_api_closed(program);
}

static void on_signal(uv_signal_t *handle, int signum)
{
	log_info("main", "stopping on signal %d", signum);
	stop(handle->data);
}

static int start(struct program *program, struct config *config)
{
	char error[512] = "";
	int r = daemon_new(&program->loop, config, error, sizeof(error), &program->daemon);

	if (r == 0)
		r = api_new(&program->loop, program->daemon, error, sizeof(error), &program->api);
	if (r < 0) {
		log_error("main", "%s", error[0] ? error : strerror(-r));
		return r;
	}
	log_info("main", "ready");
	systemd_notify("READY=1", -1);
	return 0;
}

static int run(struct config *config)
{
	struct program program = {0};
	int r = uv_loop_init(&program.loop);

	if (r < 0)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	uv_signal_init(&program.loop, &program.term);
	uv_signal_init(&program.loop, &program.interrupt);
	program.term.data = program.interrupt.data = &program;
	uv_signal_start(&program.term, on_signal, SIGTERM);
	uv_signal_start(&program.interrupt, on_signal, SIGINT);
	r = start(&program, config);
	if (r < 0 && program.daemon)
		stop(&program);
	else if (r < 0)
		on_daemon_closed(&program);
	uv_run(&program.loop, UV_RUN_DEFAULT);
	uv_loop_close(&program.loop);
	return r < 0;
}

static void usage(FILE *to)
{
	fputs("usage: holdfastd [--config FILE]          run in the foreground\n"
	      "       holdfastd --check [--config FILE]  check the configuration\n"
	      "       holdfastd --release                take down every trace in the kernel\n"
	      "       holdfastd --reference              print the configuration reference\n"
	      "       holdfastd --version\n",
	      to);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 'k'},
		{"release", no_argument, NULL, 'r'},
		{"reference", no_argument, NULL, 'f'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *path = default_config;
	int action = 0, option, r;
	struct config *config;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == '?') {
			usage(stderr);
			return 2;
		}
		if (option == 'c')
			path = optarg;
		else
			action = option;
	}
	if (optind < argc) {
		usage(stderr);
		return 2;
	}
	switch (action) {
	case 'k':
		return check(path);
	case 'r':
		return release();
	case 'f':
		return config_write_reference(STDOUT_FILENO) < 0;
	case 'v':
		puts("holdfastd " HOLDFAST_VERSION);
		return 0;
	case 'h':
		usage(stdout);
		return 0;
	}
	if (load(path, &config) < 0)
		return 1;
	raise_descriptors();
	r = run(config);
	config_unref(config);
	return r;
}
