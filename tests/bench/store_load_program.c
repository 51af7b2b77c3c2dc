/*
 * The apps of `./dev bench store`: each has one connection and one request at a time, whose answer
 * says that it is stored (503 or 202 with Location); then it has the next one.
 *
 *    store_load_program ADDRESS APPS SECONDS
 *
 * Every request is another one, so none is matched. Prints a JSON object; any other answer ends it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BODY = 200, LATENCIES_MAX = 4 << 20 };

struct app {
	int fd;
	uint64_t asked; /* ns */
	char answer[4096];
	size_t len;
};

static uint64_t number;
static float *latencies; /* ms */
static size_t stored;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void ask(struct app *app)
{
	char request[512];
	int len = snprintf(request, sizeof(request),
			   "POST /readings/%08llu HTTP/1.1\r\nHost: telemetry.example\r\n"
			   "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
			   "%0*llu",
			   (unsigned long long)number, BODY, BODY, (unsigned long long)number);

	number++;
	app->asked = now_ns();
	app->len = 0;
	if (send(app->fd, request, (size_t)len, MSG_NOSIGNAL) != len)
		die("send: %m");
}

/* Is the answer whole? */
static int is_whole(struct app *app)
{
	const char *length, *end;

	app->answer[app->len] = '\0';
	end = strstr(app->answer, "\r\n\r\n");
	if (!end)
		return 0;
	length = strcasestr(app->answer, "\r\nContent-Length:");
	if (!length || length > end)
		die("no Content-Length: %s", app->answer);
	return (size_t)(end + 4 - app->answer) + strtoul(length + 17, NULL, 10) <= app->len;
}

static void on_readable(struct app *app)
{
	ssize_t n = recv(app->fd, app->answer + app->len, sizeof(app->answer) - 1 - app->len, 0);

	if (n <= 0)
		die("recv: %s", n < 0 ? strerror(errno) : "closed");
	app->len += (size_t)n;
	if (!is_whole(app)) {
		if (app->len == sizeof(app->answer) - 1)
			die("the answer is too long");
		return;
	}
	if ((strncmp(app->answer, "HTTP/1.1 503 ", 13) &&
	     strncmp(app->answer, "HTTP/1.1 202 ", 13)) ||
	    !strcasestr(app->answer, "\r\nLocation:"))
		die("not stored: %s", app->answer);
	if (stored < LATENCIES_MAX)
		latencies[stored] = (float)(now_ns() - app->asked) / 1e6f;
	stored++;
	ask(app);
}

static int open_connection(const char *address)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(80)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		die("no address: %s", address);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("connect: %m");
	return fd;
}

static int compare(const void *a, const void *b)
{
	const float *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void report(double seconds)
{
	size_t n = stored < LATENCIES_MAX ? stored : LATENCIES_MAX;

	if (!n)
		die("nothing was stored");
	qsort(latencies, n, sizeof(*latencies), compare);
	printf("{\"stored\": %zu, \"seconds\": %f, \"p50\": %f, \"p99\": %f}\n", stored, seconds,
	       (double)latencies[n / 2], (double)latencies[n * 99 / 100]);
}

int main(int argc, char **argv)
{
	int apps = argc == 4 ? atoi(argv[2]) : 0, epoll = epoll_create1(EPOLL_CLOEXEC);
	double seconds = argc == 4 ? atof(argv[3]) : 0;
	struct epoll_event events[64];
	struct app *all = calloc((size_t)apps + 1, sizeof(*all));
	uint64_t start, end;

	latencies = calloc(LATENCIES_MAX, sizeof(*latencies));
	if (apps <= 0 || seconds <= 0 || !all || !latencies || epoll < 0)
		die("usage: store_load_program ADDRESS APPS SECONDS");
	number = now_ns(); /* other requests than those of the last run */
	for (int i = 0; i < apps; i++) {
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};

		all[i].fd = open_connection(argv[1]);
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event) < 0)
			die("epoll: %m");
	}
	start = now_ns();
	end = start + (uint64_t)(seconds * 1e9);
	for (int i = 0; i < apps; i++)
		ask(&all[i]);
	while (now_ns() < end) {
		int n = epoll_wait(epoll, events, 64, 1000);

		for (int i = 0; i < n; i++)
			on_readable(events[i].data.ptr);
	}
	report((double)(now_ns() - start) / 1e9);
	return 0;
}
