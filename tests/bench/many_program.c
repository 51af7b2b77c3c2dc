/*
 * Many apps at once, for `./dev bench hold`:
 *
 *    many_program COUNT ADDRESS PATH
 *
 * COUNT connections to port 80, one GET on each. Says "sent" when all requests are out, then waits
 * for the answers. From the first answer to the last one more connection asks again and again: how
 * long does what is live take beside them? Prints a JSON object; times are CLOCK_MONOTONIC, in
 * seconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 256 /* connecting */, ANSWER_MAX = 4096, LIVE_MAX = 1 << 20 };

struct app {
	int fd; /* -1: over */
	bool sent;
	size_t len;
	double asked;
	char answer[ANSWER_MAX];
};

static struct app *apps; /* the last one is the live one */
static size_t count, connecting, sent, answered, failed;
static struct sockaddr_in target = {.sin_family = AF_INET};
static char request[512];
static double *answers, *lives; /* seconds */
static size_t live_count;
static int epoll_fd;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void begin(struct app *app)
{
	struct epoll_event event = {.events = EPOLLOUT, .data.ptr = app};

	*app = (struct app){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
	if (app->fd < 0)
		die("socket");
	app->asked = now();
	if (connect(app->fd, (struct sockaddr *)&target, sizeof(target)) < 0 &&
	    errno != EINPROGRESS)
		die("connect");
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, app->fd, &event) < 0)
		die("epoll_ctl");
}

static void end(struct app *app)
{
	close(app->fd);
	app->fd = -1;
}

static void ask(struct app *app)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = app};
	size_t len = strlen(request);

	app->asked = now();
	app->len = 0;
	if (send(app->fd, request, len, MSG_NOSIGNAL) != (ssize_t)len)
		die("send");
	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, app->fd, &event);
}

/* Is the answer whole? Only a 200 with a length is one. */
static bool is_whole(struct app *app)
{
	char *end_of_head, *length;

	app->answer[app->len] = '\0';
	end_of_head = strstr(app->answer, "\r\n\r\n");
	length = strcasestr(app->answer, "content-length:");
	if (!end_of_head || !length)
		return false;
	return app->len == (size_t)(end_of_head + 4 - app->answer) + strtoul(length + 15, NULL, 10);
}

static bool is_live(const struct app *app)
{
	return app == &apps[count];
}

static void take_answer(struct app *app)
{
	bool good = strncmp(app->answer, "HTTP/1.1 200", 12) == 0;

	if (is_live(app)) {
		if (good && live_count < LIVE_MAX)
			lives[live_count++] = now() - app->asked;
		ask(app);
		return;
	}
	failed += !good;
	answers[answered++] = now();
	end(app);
	if (answered == 1)
		begin(&apps[count]);
}

static void on_event(struct app *app)
{
	ssize_t n;

	if (!app->sent) {
		app->sent = true;
		if (!is_live(app)) {
			connecting--;
			sent++;
		}
		ask(app);
		return;
	}
	n = recv(app->fd, app->answer + app->len, ANSWER_MAX - 1 - app->len, 0);
	if (n > 0) {
		app->len += (size_t)n;
		if (is_whole(app))
			take_answer(app);
	} else if (!is_live(app)) {
		failed++;
		answers[answered++] = now();
		end(app);
	} else {
		end(app);
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void run(void)
{
	struct epoll_event events[256];
	size_t begun = 0;
	bool said = false;
	double start = now();

	while (answered < count) {
		while (begun < count && connecting < AT_ONCE) {
			begin(&apps[begun++]);
			connecting++;
		}
		int n = epoll_wait(epoll_fd, events, 256, -1);

		for (int i = 0; i < n; i++)
			on_event(events[i].data.ptr);
		if (sent == count && !said) {
			printf("sent\n");
			fflush(stdout);
			said = true;
		}
	}
	qsort(answers, answered, sizeof(*answers), compare);
	qsort(lives, live_count, sizeof(*lives), compare);
	printf("{\"began\": %.6f, \"first\": %.6f, \"last\": %.6f, \"failed\": %zu, \"live\": %zu, "
	       "\"live50\": %.6f, \"live99\": %.6f}\n",
	       start, answers[0], answers[count - 1], failed, live_count,
	       live_count ? lives[live_count / 2] : 0,
	       live_count ? lives[live_count * 99 / 100] : 0);
}

int main(int argc, char **argv)
{
	struct rlimit limit;

	if (argc != 4 || inet_pton(AF_INET, argv[2], &target.sin_addr) != 1)
		return 2;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	count = strtoul(argv[1], NULL, 10);
	target.sin_port = htons(80);
	snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", argv[3], argv[2]);
	apps = calloc(count + 1, sizeof(*apps));
	answers = calloc(count, sizeof(*answers));
	lives = calloc(LIVE_MAX, sizeof(*lives));
	epoll_fd = epoll_create1(0);
	if (!apps || !answers || !lives || epoll_fd < 0)
		die("many_program");
	run();
	return 0;
}
