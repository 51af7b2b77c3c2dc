/*
 * Datagrams there and back, for `./dev bench udp`.
 *
 *     echo_program serve ADDRESS PORT
 *     echo_program ask ADDRESS PORT OCTETS ON_THEIR_WAY SECONDS   prints {"back": N, "lost": N}
 *
 * Both use the system calls that carry many datagrams, so that the relay is what is measured.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { BATCH = 64, OCTETS_MAX = 2048, RECEIVE_BUFFER = 8 << 20, LOST_AFTER = 200000 /* us */ };

struct batch {
	struct mmsghdr messages[BATCH];
	struct iovec pieces[BATCH];
	struct sockaddr_in names[BATCH];
	char octets[BATCH][OCTETS_MAX];
};
static struct batch batch;

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void prepare(size_t len, int names)
{
	memset(batch.messages, 0, sizeof(batch.messages));
	for (int i = 0; i < BATCH; i++) {
		struct msghdr *header = &batch.messages[i].msg_hdr;

		batch.pieces[i] = (struct iovec){batch.octets[i], len};
		header->msg_iov = &batch.pieces[i];
		header->msg_iovlen = 1;
		header->msg_name = names ? &batch.names[i] : NULL;
		header->msg_namelen = names ? sizeof(batch.names[i]) : 0;
	}
}

static int serve(int fd)
{
	for (;;) {
		int n;

		prepare(OCTETS_MAX, 1);
		n = recvmmsg(fd, batch.messages, BATCH, MSG_WAITFORONE, NULL);
		if (n < 0)
			return 1;
		for (int i = 0; i < n; i++)
			batch.pieces[i].iov_len = batch.messages[i].msg_len;
		(void)sendmmsg(fd, batch.messages, (unsigned)n, 0);
	}
}

static int ask(int fd, size_t len, int window, double duration)
{
	double end = seconds() + duration;
	long back = 0, lost = 0;
	int away = 0;

	while (seconds() < end) {
		int n = window - away < BATCH ? window - away : BATCH;

		prepare(len, 0);
		n = n > 0 ? sendmmsg(fd, batch.messages, (unsigned)n, 0) : 0;
		away += n > 0 ? n : 0;
		prepare(OCTETS_MAX, 0);
		n = recvmmsg(fd, batch.messages, BATCH, MSG_WAITFORONE, NULL);
		if (n > 0) {
			back += n;
			away = away > n ? away - n : 0;
		} else {
			lost += away;
			away = 0;
		}
	}
	printf("{\"back\": %ld, \"lost\": %ld}\n", back, lost);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct timeval timeout = {.tv_usec = LOST_AFTER};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = RECEIVE_BUFFER;

	if (argc < 4 || fd < 0 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1)
		return 2;
	address.sin_port = htons((uint16_t)atoi(argv[3]));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer));
	if (!strcmp(argv[1], "serve"))
		return bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || serve(fd);
	if (argc < 7 || atoi(argv[4]) > OCTETS_MAX ||
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return 2;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	return ask(fd, (size_t)atoi(argv[4]), atoi(argv[5]), atof(argv[6]));
}
