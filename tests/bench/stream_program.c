/*
 * Opaque streams, for `./dev bench relay`:
 *
 *    stream_program source ADDRESS PORT            gives bytes without end to who says a word
 *    stream_program sink ADDRESS PORT N SECONDS    takes them on N connections; prints how many
 *
 * The first second of the sink's connections is not counted.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 256 << 10, EVENTS = 64, TURN = 1 << 20 };

static char piece[PIECE];
static int epoll_fd;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void watch(int fd, uint32_t events, int op)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	if (epoll_ctl(epoll_fd, op, fd, &event) < 0)
		die("epoll_ctl");
}

/* --- source --- */

static void take(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

	if (fd >= 0)
		watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

static void give(int fd)
{
	ssize_t n = 0;

	for (size_t given = 0; given < TURN && n >= 0; given += (size_t)n)
		n = send(fd, piece, sizeof(piece), MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN)
		close(fd);
}

static void hear(int fd)
{
	char word[16];

	if (recv(fd, word, sizeof(word), 0) > 0)
		watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
	else
		close(fd);
}

static void source(const struct sockaddr_in *sa)
{
	struct epoll_event events[EVENTS];
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (const struct sockaddr *)sa, sizeof(*sa)) < 0 ||
	    listen(listener, 128) < 0)
		die("listen");
	watch(listener, EPOLLIN, EPOLL_CTL_ADD);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == listener)
				take(listener);
			else if (events[i].events & EPOLLOUT)
				give(events[i].data.fd);
			else
				hear(events[i].data.fd);
		}
	}
}

/* --- sink --- */

static void ask(const struct sockaddr_in *sa)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0)
		die("connect");
	if (send(fd, "more\n", 5, 0) != 5)
		die("send");
	watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

static size_t take_bytes(double until)
{
	struct epoll_event events[EVENTS];
	size_t taken = 0;

	while (now() < until) {
		int n = epoll_wait(epoll_fd, events, EVENTS, 100);

		for (int i = 0; i < n; i++) {
			ssize_t r = recv(events[i].data.fd, piece, sizeof(piece), MSG_DONTWAIT);

			if (r == 0 || (r < 0 && errno != EAGAIN))
				die("a stream ended");
			taken += r > 0 ? (size_t)r : 0;
		}
	}
	return taken;
}

static void sink(const struct sockaddr_in *sa, int streams, double seconds)
{
	double start;
	size_t taken;

	for (int i = 0; i < streams; i++)
		ask(sa);
	take_bytes(now() + 1);
	puts("begin");
	fflush(stdout);
	start = now();
	taken = take_bytes(start + seconds);
	printf("{\"bytes\": %zu, \"seconds\": %.6f}\n", taken, now() - start);
}

int main(int argc, char **argv)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};

	signal(SIGPIPE, SIG_IGN);
	if (argc < 4 || inet_pton(AF_INET, argv[2], &sa.sin_addr) != 1) {
		fprintf(stderr, "usage: see the head of stream_program.c\n");
		return 2;
	}
	sa.sin_port = htons((uint16_t)atoi(argv[3]));
	epoll_fd = epoll_create1(0);
	if (strcmp(argv[1], "source") == 0)
		source(&sa);
	else if (argc == 6)
		sink(&sa, atoi(argv[4]), atof(argv[5]));
	return 0;
}
