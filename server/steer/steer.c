#include "steer/steer.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/systemd.h"
#include "steer/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN_FOLDER "/run/holdfast"

int steer_fail(char *error, size_t size, int r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (error && size)
		vsnprintf(error, size, format, args);
	va_end(args);
	return r;
}

void steer_tell(struct steer *steer, const char *what, const char *format, ...)
{
	char detail[STEER_TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	if (steer->on_event)
		steer->on_event(steer->arg, what, detail);
}

bool steer_is_link(const struct steer *steer, const char *interface)
{
	for (size_t i = 0; i < steer->wanted.link_count; i++)
		if (!strcmp(steer->wanted.links[i].interface, interface))
			return true;
	return false;
}

bool steer_is_app(const struct steer *steer, const char *interface)
{
	for (size_t i = 0; i < steer->wanted.app_interface_count; i++)
		if (!strcmp(steer->wanted.app_interfaces[i], interface))
			return true;
	return false;
}

/* libbpf has one callback for all threads: what is captured is the calling thread's own. */
static _Thread_local struct {
	char *text;
	size_t size;
} capture;

void steer_capture_libbpf(char *text, size_t size)
{
	capture.text = text;
	capture.size = size;
	if (text)
		text[0] = '\0';
}

/* libbpf speaks of things that are not there as of failures: only for debugging. */
__attribute__((format(printf, 2, 0))) static int on_libbpf(enum libbpf_print_level level,
							   const char *format, va_list args)
{
	char text[512];

	if (level == LIBBPF_DEBUG)
		return 0;
	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	if (level == LIBBPF_WARN && capture.text && !capture.text[0])
		snprintf(capture.text, capture.size, "%s", text);
	log_debug("libbpf", "%s", text);
	return 0;
}

static int lock_failed(int r, char *error, size_t size)
{
	if (r == -EBUSY)
		return steer_fail(error, size, r,
				  "busy: another holdfastd works in this network namespace");
	return steer_fail(error, size, r, "the lock in " RUN_FOLDER ": %s", strerror(-r));
}

/* One daemon for a network namespace; the lock ends with the process. */
static int take_lock(int *ret_fd)
{
	char path[64];
	struct stat ns;
	int fd, r;

	if (mkdir(RUN_FOLDER, 0755) < 0 && errno != EEXIST)
		return -errno;
	if (stat("/proc/self/ns/net", &ns) < 0)
		return -errno;
	snprintf(path, sizeof(path), RUN_FOLDER "/%lu.lock", (unsigned long)ns.st_ino);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		r = errno == EWOULDBLOCK ? -EBUSY : -errno;
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

static int copy_settings(struct wanted *wanted, const struct steer_settings *settings)
{
	*wanted = (struct wanted){.host = settings->host,
				  .app_interface_count = settings->app_interface_count,
				  .exempt_uid_count = settings->exempt_uid_count,
				  .link_count = settings->link_count,
				  .allow_count = settings->allow_count,
				  .guard_mode = settings->guard_mode,
				  .virtual_v4 = settings->virtual_v4,
				  .virtual_v6 = settings->virtual_v6,
				  .virtual_ttl = settings->virtual_ttl};
	if (settings->app_interface_count > INTERFACES_MAX || settings->link_count > LINKS_MAX ||
	    settings->exempt_uid_count > 16 || settings->allow_count > HF_ALLOW_MAX)
		return -E2BIG;
	for (size_t i = 0; i < settings->app_interface_count; i++)
		snprintf(wanted->app_interfaces[i], IF_NAMESIZE, "%s", settings->app_interfaces[i]);
	for (size_t i = 0; i < settings->exempt_uid_count; i++)
		wanted->exempt_uids[i] = settings->exempt_uids[i];
	for (size_t i = 0; i < settings->link_count; i++) {
		unsigned number = settings->links[i].number;

		if (!number || number > HF_MARK_LINK_MASK >> HF_MARK_LINK_SHIFT)
			return -EINVAL;
		wanted->links[i] = settings->links[i];
	}
	for (size_t i = 0; i < settings->allow_count; i++)
		wanted->allow[i] = settings->allow[i];
	return 0;
}

/* Guard first, so that nothing leaves; then programs; then the routes that lead to them.
 * All of it is tried, the first error is returned. */
static int compare_all(struct steer *steer, char *error, size_t size)
{
	int (*const steps[])(struct steer *, char *, size_t) = {guard_attach, programs_attach,
								routes_compare};
	int first = maps_write_interfaces(steer);

	if (first == 0)
		first = maps_write_addresses(steer);
	if (first < 0)
		steer_fail(error, size, first, "interfaces and addresses: %s", strerror(-first));
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		int r = first ? steps[i](steer, NULL, 0) : steps[i](steer, error, size);

		if (r < 0 && !first)
			first = r;
	}
	steer->compared_at = uv_now(steer->loop);
	return first;
}

/* What is in the way is tried again and again, and told once. */
static int compare_and_tell(struct steer *steer)
{
	char error[STEER_TEXT_MAX] = "";
	int r = compare_all(steer, error, sizeof(error));

	if (r < 0 && strcmp(error, steer->in_the_way))
		steer_tell(steer, "in the way", "%s", error);
	else if (r == 0 && steer->in_the_way[0])
		steer_tell(steer, "no longer in the way", "%s", steer->in_the_way);
	memcpy(steer->in_the_way, error, sizeof(error));
	return r;
}

static void on_settled(uv_timer_t *timer)
{
	struct steer *steer = timer->data;

	if (steer->closing || !steer->started)
		return;
	if (compare_and_tell(steer) < 0)
		(void)uv_timer_start(&steer->settle, on_settled, STEER_CHECK_TIME, 0);
}

static void compare_soon(struct steer *steer)
{
	uint64_t now = uv_now(steer->loop), wait = STEER_SETTLE_TIME;

	if (!steer->started || uv_is_active((uv_handle_t *)&steer->settle))
		return;
	if (now < steer->compared_at + STEER_REPAIR_PAUSE)
		wait = steer->compared_at + STEER_REPAIR_PAUSE - now;
	(void)uv_timer_start(&steer->settle, on_settled, wait, 0);
}

static void on_network_changed(void *arg)
{
	compare_soon(arg);
}

static void on_check(uv_timer_t *timer)
{
	struct steer *steer = timer->data;
	int r;

	if (steer->closing || !steer->started)
		return;
	r = maps_write_heartbeat(steer, true);
	if (r < 0)
		log_warning("steer", "the sign of life: %s", strerror(-r));
	if (!programs_are_attached(steer))
		compare_soon(steer);
}

void steer_handle_closed(uv_handle_t *handle)
{
	struct steer *steer = handle->data;

	if (--steer->handles == 0)
		free(steer);
}

static int init_timers(struct steer *steer)
{
	uv_timer_t *timers[] = {&steer->settle, &steer->check};

	for (size_t i = 0; i < 2; i++) {
		int r = uv_timer_init(steer->loop, timers[i]);

		if (r < 0)
			return r;
		timers[i]->data = steer;
		steer->handles++;
	}
	return rtnl_subscribe(steer->rtnl, on_network_changed, steer);
}

int steer_new(uv_loop_t *loop, struct rtnl *rtnl, const struct steer_settings *settings,
	      steer_event_cb on_event, void *arg, char *ret_error, size_t error_size,
	      struct steer **ret_steer)
{
	struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct steer *steer = calloc(1, sizeof(*steer));
	int r;

	if (!steer)
		return steer_fail(ret_error, error_size, -ENOMEM, "no memory");
	kept_receive(steer);
	steer->loop = loop;
	steer->rtnl = rtnl;
	steer->on_event = on_event;
	steer->arg = arg;
	steer->lock_fd = steer->lookup_fd = steer->service.fd = -1;
	/* Kernels before 5.11 charge maps to it. */
	(void)setrlimit(RLIMIT_MEMLOCK, &unlimited);
	libbpf_set_print(on_libbpf);
	r = copy_settings(&steer->wanted, settings);
	if (r < 0) {
		steer_fail(ret_error, error_size, r, "the settings are over a limit");
		goto fail;
	}
	r = take_lock(&steer->lock_fd);
	if (r < 0) {
		lock_failed(r, ret_error, error_size);
		goto fail;
	}
	r = programs_folder(steer->folder, sizeof(steer->folder), ret_error, error_size);
	if (r == 0)
		r = programs_load(steer, ret_error, error_size);
	if (r < 0)
		goto fail;
	r = maps_write_settings(steer);
	if (r == 0)
		r = init_timers(steer);
	if (r == 0)
		r = raised_open(steer);
	if (r < 0) {
		steer_fail(ret_error, error_size, r, "settings: %s", strerror(-r));
		goto fail;
	}
	*ret_steer = steer;
	return 0;
fail:
	steer_close(steer);
	return r;
}

int steer_start(struct steer *steer, char *ret_error, size_t error_size)
{
	int r = maps_write_heartbeat(steer, true);

	if (r < 0)
		return steer_fail(ret_error, error_size, r, "the sign of life: %s", strerror(-r));
	r = compare_all(steer, ret_error, error_size);
	if (r < 0 || steer->started)
		return r;
	r = uv_timer_start(&steer->check, on_check, STEER_CHECK_TIME, STEER_CHECK_TIME);
	if (r < 0)
		return steer_fail(ret_error, error_size, r, "timer: %s", strerror(-r));
	kept_close(steer); /* what nobody took */
	steer->started = true;
	return 0;
}

int steer_reconfigure(struct steer *steer, const struct steer_settings *settings)
{
	struct wanted wanted;
	int r = copy_settings(&wanted, settings);

	if (r < 0)
		return r;
	steer->wanted = wanted;
	r = maps_write_settings(steer);
	if (r < 0 || !steer->started)
		return r;
	return compare_and_tell(steer);
}

/* The routes first: without them nothing is brought to programs that are going. */
static int release_all(struct rtnl *rtnl, const char *folder)
{
	int first = rtnl_refresh(rtnl), r;

	if (first < 0)
		return first;
	first = routes_release(rtnl);
	r = guard_release(rtnl);
	if (!first)
		first = r;
	r = programs_release(folder);
	return first ? first : r;
}

void steer_stop(struct steer *steer, bool release)
{
	int r;

	steer->started = false;
	(void)uv_timer_stop(&steer->settle);
	(void)uv_timer_stop(&steer->check);
	if (!release) {
		/* Nobody keeps the listening sockets: apps are refused at once. */
		if (!systemd_is_there())
			(void)maps_write_heartbeat(steer, false);
		return;
	}
	kept_forget_all();
	r = release_all(steer->rtnl, steer->folder);
	if (r < 0)
		log_warning("steer", "not everything could be taken down: %s", strerror(-r));
}

void steer_close(struct steer *steer)
{
	if (!steer || steer->closing)
		return;
	steer->closing = true;
	steer->started = false;
	rtnl_unsubscribe(steer->rtnl, on_network_changed, steer);
	raised_close(steer);
	kept_close(steer);
	programs_close(steer);
	routes_done(steer);
	free(steer->direct);
	if (steer->lock_fd >= 0)
		close(steer->lock_fd);
	if (!steer->handles) {
		free(steer);
		return;
	}
	uv_close((uv_handle_t *)&steer->settle, steer_handle_closed);
	if (steer->handles > 1)
		uv_close((uv_handle_t *)&steer->check, steer_handle_closed);
}

int steer_release(char *ret_error, size_t error_size)
{
	struct rtnl *rtnl = NULL;
	char folder[64];
	int lock, r;

	libbpf_set_print(on_libbpf);
	r = take_lock(&lock);
	if (r < 0)
		return lock_failed(r, ret_error, error_size);
	r = rtnl_new(NULL, &rtnl);
	if (r < 0) {
		steer_fail(ret_error, error_size, r, "rtnetlink: %s", strerror(-r));
		goto out;
	}
	r = programs_folder(folder, sizeof(folder), ret_error, error_size);
	if (r < 0)
		goto out;
	r = release_all(rtnl, folder);
	if (r < 0)
		steer_fail(ret_error, error_size, r, "%s", strerror(-r));
out:
	rtnl_close(rtnl);
	close(lock);
	return r;
}

bool steer_is_link_interface(const struct steer *steer, int ifindex)
{
	const struct rtnl_interface *interface = rtnl_interface_by_index(steer->rtnl, ifindex);

	return interface && steer_is_link(steer, interface->name);
}

bool steer_is_device_address(const struct steer *steer, const struct ip *ip)
{
	return rtnl_is_device_address(steer->rtnl, ip);
}

bool steer_is_steering(const struct steer *steer)
{
	return steer->started;
}
