#include "store/aside.h"

#include "base/limits.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "holdfast.db.corrupt-"

static const char *const suffixes[] = {"-wal", "-shm", "-journal", ""};

/* When was it put aside? 0: no such file. */
static long long time_of(const char *name)
{
	char *end;
	long long time;

	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0)
		return 0;
	time = strtoll(name + strlen(PREFIX), &end, 10);
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++)
		if (time > 0 && strcmp(end, suffixes[i]) == 0)
			return time;
	return 0;
}

/* The newest one's time, and the oldest one of which at least `keep` are newer; 0: none. */
static long long look(const char *dir, size_t keep, long long *ret_newest)
{
	long long newest[STORE_ASIDE_MAX + 1] = {0}, time;
	struct dirent *entry;
	DIR *d = opendir(dir);

	while (d && (entry = readdir(d))) {
		bool known = false;

		time = time_of(entry->d_name);
		for (size_t i = 0; i <= keep; i++)
			known |= newest[i] == time;
		for (size_t i = 0; i <= keep && !known; i++) {
			long long before = newest[i];

			if (before < time) {
				newest[i] = time;
				time = before;
			}
		}
	}
	if (d)
		closedir(d);
	*ret_newest = newest[0];
	return newest[keep];
}

static int name_of(const char *dir, long long time, const char *suffix, char path[PATH_MAX])
{
	int n = snprintf(path, PATH_MAX, "%s/" PREFIX "%lld%s", dir, time, suffix);

	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static bool remove_one(const char *dir, long long time)
{
	char path[PATH_MAX];
	bool gone = false;

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++)
		if (name_of(dir, time, suffixes[i], path) == 0)
			gone |= remove(path) == 0;
	return gone;
}

/* A folder that is not empty is nobody's to remove: that one stays. */
static void make_room(const char *dir)
{
	long long newest, old;

	while ((old = look(dir, STORE_ASIDE_MAX - 1, &newest)))
		if (!remove_one(dir, old))
			return;
}

int aside_put(const char *dir, char *ret_name, size_t size)
{
	char from[PATH_MAX], to[PATH_MAX];
	long long newest, now = (long long)time(NULL);

	make_room(dir);
	look(dir, STORE_ASIDE_MAX - 1, &newest);
	if (now <= newest) /* the clock was set back, or it is still the same second */
		now = newest + 1;
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		if (name_of(dir, now, suffixes[i], to) < 0)
			return -ENAMETOOLONG;
		snprintf(from, sizeof(from), "%s/holdfast.db%s", dir, suffixes[i]);
		if (rename(from, to) < 0 && errno != ENOENT)
			return -errno;
	}
	snprintf(ret_name, size, PREFIX "%lld", now);
	return 0;
}
