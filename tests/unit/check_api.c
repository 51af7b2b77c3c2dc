/* links: hf_api */
/* The API against a daemon of fixed snapshots, over real sockets on loopback and a local one. */
#include "api/api.h"
#include "api/internal.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ID_OWN	 "01900000-0000-7000-8000-000000000001"
#define ID_OTHER "01900000-0000-7000-8000-000000000002"

static uv_loop_t loop;
static struct api *api;
static char socket_path[64];
static char *listens[4];
static struct config config = {.queue = {.max_request = 65536}};
static int app_fd = -1;
static uint16_t app_port;

/* --- the daemon of this test --- */

static struct link_info links[2] = {
	{.name = "wifi",
	 .interface = "wlan0",
	 .state = LINK_ONLINE,
	 .priority = 10,
	 .enabled = true,
	 .since = 1700000000123,
	 .evidence = "probe good"},
	{.name = "lte", .interface = "wwan0", .state = LINK_DOWN, .priority = 20, .enabled = true},
};
static char submitted[4096], submitted_source[64];
static int submit_status;
static uv_timer_t later;
static struct {
	queue_row_cb cb;
	void *arg;
	char id[ID_TEXT_MAX];
} asked;
static daemon_event_cb event_cb;
static void *event_arg;

void daemon_status(struct daemon *daemon, struct daemon_status *ret)
{
	*ret = (struct daemon_status){.uptime = 1500,
				      .online = true,
				      .steering = true,
				      .queue_open = true,
				      .http_requests = 7};
	ret->queue.stored = 2;
}

struct config *daemon_config(struct daemon *daemon)
{
	return &config;
}

size_t daemon_links(struct daemon *daemon, struct link_info *ret_links, size_t max)
{
	memcpy(ret_links, links, sizeof(links));
	return 2;
}

struct daemon_rate daemon_counter_rate(struct daemon *daemon, const struct steer_counter *counter)
{
	return (struct daemon_rate){1.5, 96};
}
const char *daemon_obstacle(const struct daemon *daemon)
{
	return NULL;
}
uint64_t daemon_counter_overflow(struct daemon *daemon)
{
	return 0;
}
int daemon_maps(struct daemon *daemon, struct steer_map_info **ret_maps, size_t *ret_count)
{
	return -EPERM;
}
int daemon_map_info(struct daemon *daemon, const char *name, struct steer_map_info *ret_info)
{
	return -ENOENT;
}
int daemon_map_entries(struct daemon *daemon, const char *name, const char *after, size_t limit,
		       struct json_object **ret_items, char **ret_next)
{
	return -ENOENT;
}
int daemon_counters(struct daemon *daemon, struct steer_counter **ret, size_t *ret_count)
{
	*ret = calloc(1, sizeof(**ret));
	**ret = (struct steer_counter){.interface = "wlan0",
				       .hook = HF_HOOK_GUARD,
				       .verdict = HF_VERDICT_DROP,
				       .reason = HF_REASON_NOT_OURS,
				       .packets = 3,
				       .bytes = 180};
	*ret_count = 1;
	return 0;
}

void daemon_names_each(struct daemon *daemon, const char *after,
		       bool (*each)(void *arg, const struct resolver_name_info *info), void *arg)
{
	static const char *const names[] = {"a.example", "b.example", "c.example"};

	for (size_t i = 0; i < 3; i++) {
		struct resolver_name_info info = {.name = names[i], .real_ttl = -1};

		info.virtual_v4 = ip_from_v4(htonl(0xc6120002u + (uint32_t)i));
		if ((!after || strcmp(names[i], after) > 0) && !each(arg, &info))
			return;
	}
}

size_t daemon_names_flush(struct daemon *daemon)
{
	return 3;
}

/* Bodies: what the row says, or so many bytes that it takes some pieces. */
enum { LONG_BODY = 3 * SPOOL_PIECE + 100 };
static bool long_body;	   /* the request's */
static int break_after;	   /* pieces; 0: never */
static uv_timer_t reading; /* a piece comes on a later turn of the loop */
struct daemon_body {
	spool_piece_cb piece;
	void *arg;
	const char *text;
	size_t at;
	int pieces;
};
static struct daemon_body *reader;

static struct queue_row *row_of(const char *id, bool bodies)
{
	static const char head[] = "HTTP/1.1 201 Created\r\ncontent-type: text/plain\r\n";
	struct queue_row *row = calloc(1, sizeof(*row));

	snprintf(row->id, sizeof(row->id), "%s", id);
	row->state = REQUEST_STORED;
	row->rule = strdup("telemetry");
	row->source = strdup(strcmp(id, ID_OWN) == 0 ? "host" : "192.0.2.2");
	row->method = strdup("POST");
	row->scheme = strdup("http");
	row->authority = strdup("a.example");
	row->target = strdup("/x?y=1");
	row->received = 1700000000123;
	row->body_bytes = long_body ? LONG_BODY : 5;
	if (strcmp(id, ID_OWN) == 0) {
		row->state = REQUEST_DONE;
		row->response_status = 201;
		row->response_bytes = 4;
	}
	row->events = calloc(1, sizeof(*row->events));
	row->events[0] = (struct queue_event){.at = 1700000000123, .what = "stored"};
	row->event_count = 1;
	if (!bodies)
		return row;
	if (row->response_status) {
		row->response_head = (uint8_t *)strdup(head);
		row->response_head_len = sizeof(head) - 1;
	}
	return row;
}

int daemon_requests(struct daemon *daemon, const struct queue_filter *filter, queue_rows_cb cb,
		    void *arg)
{
	static const char *const ids[] = {ID_OTHER, ID_OWN};
	struct queue_row **rows = calloc(2, sizeof(*rows));
	size_t count = 0;

	for (size_t i = 0; i < 2 && count < filter->limit; i++) {
		struct queue_row *row = row_of(ids[i], false);

		if ((filter->source && strcmp(filter->source, row->source) != 0) ||
		    (filter->has_state && filter->state != row->state) ||
		    (filter->before && strcmp(ids[i], filter->before) >= 0))
			queue_row_free(row);
		else
			rows[count++] = row;
	}
	cb(arg, 0, rows, count);
	return 0;
}

static void on_later(uv_timer_t *timer)
{
	bool known = strcmp(asked.id, ID_OWN) == 0 || strcmp(asked.id, ID_OTHER) == 0;

	asked.cb(asked.arg, known ? 0 : -ENOENT, known ? row_of(asked.id, true) : NULL);
}

/* The answer comes on a later turn of the loop, as the store's does. */
int daemon_request(struct daemon *daemon, const char *id, bool bodies, queue_row_cb cb, void *arg)
{
	asked.cb = cb;
	asked.arg = arg;
	snprintf(asked.id, sizeof(asked.id), "%s", id);
	uv_timer_start(&later, on_later, 5, 0);
	return 0;
}

static uint8_t long_byte(size_t at)
{
	return (uint8_t)('a' + at / 1000 % 26);
}

int daemon_body_new(struct daemon *daemon, const struct queue_row *row, enum queue_part part,
		    spool_piece_cb piece, void *arg, struct daemon_body **ret_body)
{
	struct daemon_body *body = calloc(1, sizeof(*body));

	body->piece = piece;
	body->arg = arg;
	body->text = part == QUEUE_RESPONSE ? "done" : long_body ? NULL : "hello";
	*ret_body = body;
	return 0;
}

static void on_reading(uv_timer_t *timer)
{
	struct daemon_body *body = reader;
	uint8_t piece[SPOOL_PIECE];
	size_t all = body->text ? strlen(body->text) : LONG_BODY, len = all - body->at;

	reader = NULL;
	if (len > sizeof(piece))
		len = sizeof(piece);
	for (size_t i = 0; i < len; i++)
		piece[i] = body->text ? (uint8_t)body->text[i] : long_byte(body->at + i);
	body->at += len;
	if (break_after && ++body->pieces > break_after)
		body->piece(body->arg, -EIO, NULL, 0);
	else
		body->piece(body->arg, 0, piece, len);
}

int daemon_body_next(struct daemon_body *body)
{
	reader = body;
	uv_timer_start(&reading, on_reading, 1, 0);
	return 0;
}

void daemon_body_close(struct daemon_body *body)
{
	if (reader == body)
		uv_timer_stop(&reading);
	free(body);
}

int daemon_link_patch(struct daemon *daemon, const char *name, const struct link_patch *patch)
{
	if (patch->has_priority)
		links[0].priority = patch->priority;
	if (patch->has_enabled)
		links[0].enabled = patch->enabled;
	return 0;
}

int daemon_links_order(struct daemon *daemon, const char *const *names, size_t count,
		       struct input_error *err)
{
	if (count != 2)
		return input_error_set(err, "order", 0, "every link once");
	links[0].priority = strcmp(names[0], "wifi") == 0 ? 10 : 20;
	links[1].priority = strcmp(names[0], "wifi") == 0 ? 20 : 10;
	return 0;
}

int daemon_request_retry(struct daemon *daemon, const char *id, queue_status_cb cb, void *arg)
{
	cb(arg, strcmp(id, ID_OTHER) == 0 ? 0 : -EBUSY);
	return 0;
}

static int deleted;

int daemon_request_delete(struct daemon *daemon, const char *id, queue_status_cb cb, void *arg)
{
	deleted++;
	cb(arg, 0);
	return 0;
}

int daemon_submit(struct daemon *daemon, const struct daemon_submit *submit, daemon_submit_cb cb,
		  void *arg)
{
	snprintf(submitted, sizeof(submitted), "%s %s %s=%s %.*s", submit->method, submit->url,
		 submit->fields[0] ? submit->fields[0] : "",
		 submit->fields[0] ? submit->fields[1] : "", (int)submit->body_len,
		 (const char *)submit->body);
	snprintf(submitted_source, sizeof(submitted_source), "%s", submit->source);
	cb(arg, submit_status, ID_OWN, NULL);
	return 0;
}

static struct {
	size_t size;
	char signature[128];
	uint64_t within;
	bool expect_drops;
	struct daemon_caller caller;
} programmed;
static struct program_info program = {.id = "0123456789abcdef",
				      .name = "observe",
				      .version = "1.0.0",
				      .state = PROGRAM_SERVICE,
				      .event_count = 1,
				      .events = {{1700000000123, "uploaded"}}};
static int program_status;
static struct program_problem program_problem;

int daemon_program_list(struct daemon *daemon, struct program_info **ret_infos, size_t *ret_count)
{
	*ret_infos = malloc(sizeof(program));
	**ret_infos = program;
	*ret_count = 1;
	return 0;
}

void daemon_program_current(struct daemon *daemon, struct program_info *ret_info)
{
	*ret_info = program;
}

void daemon_program_warnings(struct daemon *daemon, struct program_warnings *ret_warnings)
{
	strcpy(ret_warnings->text[0], "careful");
	ret_warnings->count = 1;
}

int daemon_program_upload(struct daemon *daemon, const uint8_t *elf, size_t size,
			  const char *signature, const struct daemon_caller *caller, program_cb cb,
			  void *arg)
{
	programmed.size = size;
	programmed.caller = *caller;
	snprintf(programmed.signature, sizeof(programmed.signature), "%s",
		 signature ? signature : "none");
	cb(arg, program_status, &program, &program_problem);
	return 0;
}

int daemon_program_activate(struct daemon *daemon, const char *id,
			    const struct daemon_activation *activation,
			    const struct daemon_caller *caller, program_cb cb, void *arg)
{
	programmed.within = activation->confirm_within;
	programmed.expect_drops = activation->expect_drops;
	cb(arg, program_status, &program, &program_problem);
	return 0;
}

int daemon_program_confirm(struct daemon *daemon, program_cb cb, void *arg)
{
	return -EBUSY;
}

int daemon_program_rollback(struct daemon *daemon, program_cb cb, void *arg)
{
	cb(arg, program_status, &program, &program_problem);
	return 0;
}

int daemon_program_delete(struct daemon *daemon, const char *id, program_cb cb, void *arg)
{
	cb(arg, program_status, NULL, &program_problem);
	return 0;
}

void daemon_explain(struct daemon *daemon, const struct daemon_explain_ask *ask,
		    daemon_explain_cb cb, void *arg)
{
	static const struct daemon_explained explained = {
		.decisive = {.ran = true,
			     .verdict = HF_VERDICT_STEER,
			     .reason = HF_REASON_TCP_PROXY},
		.interface = "app0",
		.rule = "telemetry",
		.link = "wifi",
	};
	struct input_error err = {0};

	if (ask->port == 80)
		cb(arg, 0, NULL, &explained);
	else
		cb(arg, input_error_set(&err, "port", 0, "80 alone"), &err, NULL);
}

int daemon_subscribe(struct daemon *daemon, daemon_event_cb cb, void *arg)
{
	event_cb = cb;
	event_arg = arg;
	return 0;
}

void daemon_unsubscribe(struct daemon *daemon, daemon_event_cb cb, void *arg)
{
	event_cb = NULL;
}

void daemon_app_listeners(struct daemon *daemon, int *ret_fd4, int *ret_fd6)
{
	*ret_fd4 = app_fd;
	*ret_fd6 = -1;
}

void daemon_source_of(struct daemon *daemon, const struct ip *peer, char *ret_source, size_t size)
{
	char text[IP_TEXT_MAX];

	snprintf(ret_source, size, "%s", ip_is_loopback(peer) ? "host" : ip_format(peer, text));
}

/* --- a client --- */

static char reply[512 << 10];

static int dial(int port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(port ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(un.sun_path, socket_path);
	ck_assert(connect(fd, port ? (struct sockaddr *)&in : (struct sockaddr *)&un,
			  port ? sizeof(in) : sizeof(un)) == 0 ||
		  errno == EINPROGRESS);
	return fd;
}

static size_t drain(int fd, size_t have)
{
	ssize_t n = recv(fd, reply + have, sizeof(reply) - 1 - have, 0);

	if (n > 0)
		have += (size_t)n;
	reply[have] = '\0';
	return have | (n == 0 ? (size_t)1 << 40 : 0);
}

static void on_tick(uv_timer_t *timer)
{
}

/* Send bytes, run the loop until the server closes (the requests say so); the status. */
static int talk(int port, const char *bytes, size_t len)
{
	int fd = dial(port);
	size_t sent = 0, have = 0;
	uv_timer_t tick;

	uv_timer_init(&loop, &tick);
	uv_timer_start(&tick, on_tick, 1, 1);
	for (int i = 0; i < 20000 && !(have >> 40); i++) {
		uv_run(&loop, UV_RUN_ONCE);
		if (sent < len) {
			ssize_t n = send(fd, bytes + sent, len - sent, MSG_NOSIGNAL);

			sent += n > 0 ? (size_t)n : 0;
		}
		have = drain(fd, have);
	}
	ck_assert_msg(have >> 40, "no end of the answer: %s", reply);
	close(fd);
	uv_close((uv_handle_t *)&tick, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
	return atoi(reply + strlen("HTTP/1.1 "));
}

static int ask_with(int port, const char *method, const char *path, const char *headers,
		    const char *body)
{
	char text[16384];
	int n = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nConnection: close\r\n%s%s", method,
			 path, strstr(headers, "Host:") ? "" : "Host: localhost\r\n", headers);

	if (body)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "Content-Length: %zu\r\n",
			      strlen(body));
	n += snprintf(text + n, sizeof(text) - (size_t)n, "\r\n%s", body ? body : "");
	return talk(port, text, (size_t)n);
}

#define JSON "Content-Type: application/json\r\n"

static int get(const char *path)
{
	return ask_with(api_port(api, 0), "GET", path, "", NULL);
}

static int send_json(const char *method, const char *path, const char *body)
{
	return ask_with(api_port(api, 0), method, path, JSON, body);
}

static void has(const char *text)
{
	ck_assert_msg(strstr(reply, text) != NULL, "no %s in:\n%s", text, reply);
}

static void lacks(const char *text)
{
	ck_assert_msg(strstr(reply, text) == NULL, "%s in:\n%s", text, reply);
}

static void setup(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	char error[256] = "", listen_unix[80];

	uv_loop_init(&loop);
	uv_timer_init(&loop, &later);
	uv_timer_init(&loop, &reading);
	long_body = false;
	break_after = 0;
	snprintf(socket_path, sizeof(socket_path), "/tmp/check_api_%d/s", (int)getpid());
	snprintf(listen_unix, sizeof(listen_unix), "unix:%s", socket_path);
	listens[0] = strdup("127.0.0.1:0");
	listens[1] = strdup(listen_unix);
	listens[2] = strdup("0.0.0.0:0");
	config.api.listen = listens;
	config.api.token_file = NULL;
	submit_status = 0;
	app_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(bind(app_fd, (struct sockaddr *)&in, sizeof(in)), 0);
	ck_assert_int_eq(listen(app_fd, 16), 0);
	ck_assert_int_eq(getsockname(app_fd, (struct sockaddr *)&in, &len), 0);
	app_port = ntohs(in.sin_port);
	ck_assert_msg(api_new(&loop, NULL, error, sizeof(error), &api) == 0, "%s", error);
}

static bool is_closed;
static void on_closed(void *arg)
{
	is_closed = true;
}

static void teardown(void)
{
	is_closed = false;
	api_close(api, on_closed, NULL);
	uv_close((uv_handle_t *)&later, NULL);
	uv_close((uv_handle_t *)&reading, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert(is_closed);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	ck_assert_int_lt(access(socket_path, F_OK), 0);
	close(app_fd);
	for (int i = 0; i < 3; i++)
		free(listens[i]);
	*strrchr(socket_path, '/') = '\0';
	rmdir(socket_path);
}

START_TEST(reads_have_the_shapes_that_scripts_rely_on)
{
	ck_assert_int_eq(get("/v1/status"), 200);
	has("\"uptime\":1.5");
	has("\"program\":{\"id\":\"0123456789abcdef\",\"name\":\"observe\"");
	has("\"state\":\"in_service\",\"probation_left\":null");
	has("\"warnings\":[\"careful\"]");
	ck_assert_int_eq(get("/v1/links"), 200);
	has("\"since\":\"2023-11-14T22:13:20.123Z\",\"evidence\":\"probe good\","
	    "\"bytes\":{\"in\":0,\"out\":0}");
	has("\"next\":null");
	ck_assert_int_eq(get("/v1/counters"), 200);
	has("\"interface\":\"wlan0\",\"hook\":\"guard\",\"verdict\":\"drop\",\"reason\":\"not-"
	    "ours\"");
	ck_assert_int_eq(get("/metrics"), 200);
	has("holdfast_http_requests_total 7\n");
	has("holdfast_link_state{link=\"wifi\",holdfast_link_state=\"online\"} 1\n");
	has("holdfast_program_info{id=\"0123456789abcdef\",name=\"observe\",version=\"1.0.0\","
	    "state=\"in_service\"} 1\n");
	has("# EOF\n");
	ck_assert_int_eq(get("/readyz"), 200);
	ck_assert_int_eq(get("/"), 200);
	has("Content-Security-Policy: default-src 'none'; script-src 'self'");
	ck_assert_int_eq(ask_with(api_port(api, 0), "HEAD", "/v1/links", "", NULL), 200);
	lacks("items");
}
END_TEST

START_TEST(lists_are_paged_and_filtered)
{
	ck_assert_int_eq(get("/v1/requests?limit=1"), 200);
	has(ID_OTHER);
	has("\"next\":\"" ID_OTHER "\"");
	lacks("\"events\"");
	ck_assert_int_eq(get("/v1/requests?limit=1&cursor=" ID_OTHER), 200);
	has(ID_OWN);
	has("\"next\":null");
	ck_assert_int_eq(get("/v1/requests?state=done"), 200);
	lacks(ID_OTHER);
	ck_assert_int_eq(get("/v1/requests?state=odd"), 400);
	has("\"field\":\"state\"");
	ck_assert_int_eq(get("/v1/requests?stat=done"), 400);
	ck_assert_int_eq(get("/v1/requests?limit=0"), 400);
	ck_assert_int_eq(get("/v1/names?limit=2"), 200);
	has("\"next\":\"b.example\"");
	ck_assert_int_eq(get("/v1/names?cursor=b.example"), 200);
	lacks("a.example");
	has("198.18.0.4");
}
END_TEST

START_TEST(one_request_is_shown_with_bodies_and_events)
{
	ck_assert_int_eq(get("/v1/requests/" ID_OWN), 200);
	has("\"url\":\"http://a.example/x?y=1\"");
	has("\"response\":{\"status\":201,\"bytes\":4}");
	has("\"events\":[{\"at\":\"2023-11-14T22:13:20.123Z\",\"what\":\"stored\"}]");
	ck_assert_int_eq(get("/v1/requests/" ID_OWN "/body"), 200);
	has("\r\n\r\nhello");
	ck_assert_int_eq(get("/v1/requests/" ID_OWN "/response"), 200);
	has("Holdfast-Status: 201");
	has("Content-Type: text/plain");
	has("sandbox");
	ck_assert_int_eq(get("/v1/requests/" ID_OTHER "/response"), 404);
	ck_assert_int_eq(get("/v1/requests/0190"), 404);
	has("application/problem+json");
	ck_assert_int_eq(get("/v1/requests/no-such-id"), 404);
	ck_assert_int_eq(send_json("POST", "/v1/requests/" ID_OTHER "/retry", ""), 202);
	ck_assert_int_eq(send_json("POST", "/v1/requests/" ID_OWN "/retry", ""), 409);
	ck_assert_int_eq(send_json("DELETE", "/v1/requests/" ID_OWN, ""), 204);
}
END_TEST

START_TEST(a_request_is_handed_over)
{
	const char *body = "{\"method\":\"POST\",\"url\":\"http://a.example/\","
			   "\"headers\":{\"X-A\":\"b\"},\"body_base64\":\"aGVsbG8=\"}";

	ck_assert_int_eq(send_json("POST", "/v1/requests", body), 202);
	has("Location: http://localhost/v1/requests/" ID_OWN);
	has("\"id\":\"" ID_OWN "\"");
	ck_assert_str_eq(submitted, "POST http://a.example/ X-A=b hello");
	ck_assert_str_eq(submitted_source, "host");
	ck_assert_int_eq(ask_with(app_port, "POST", "/v1/requests",
				  JSON "Host: holdfast.internal\r\n", body),
			 202);
	has("Location: http://holdfast.internal/v1/requests/");
	ck_assert_int_eq(ask_with(0, "POST", "/v1/requests", JSON, body), 202);
	has("Location: /v1/requests/");
	submit_status = -EDQUOT;
	ck_assert_int_eq(send_json("POST", "/v1/requests", body), 503);
	has("Retry-After");
	submit_status = -ENOSPC;
	ck_assert_int_eq(send_json("POST", "/v1/requests", body), 507);
	submit_status = -E2BIG;
	ck_assert_int_eq(send_json("POST", "/v1/requests", body), 413);
}
END_TEST

START_TEST(bad_input_gets_a_problem_that_names_the_field)
{
	static const char *const bad[][2] = {
		{"", "empty"},
		{"{\"method\":\"POST\"}", "\"field\":\"url\""},
		{"{\"method\":\"P T\",\"url\":\"http://a/\"}", "\"field\":\"method\""},
		{"{\"method\":\"POST\",\"url\":\"http://a/\\u000d\\u000a\"}", "\"field\":\"url\""},
		{"{\"method\":\"POST\",\"url\":\"http://a/\",\"x\":1}", "\"field\":\"x\""},
		{"{\"method\":\"POST\",\"method\":\"GET\",\"url\":\"http://a/\"}", "twice"},
		{"{'method':'POST'}", "not JSON"},
		{"{\"method\":\"POST\",\"url\":\"u\",\"body\":\"\",\"body_base64\":\"\"}",
		 "not both"},
		{"{\"method\":\"POST\",\"url\":\"u\",\"body_base64\":\"a\"}", "body_base64"},
		{"{\"method\":\"POST\",\"url\":\"u\",\"headers\":{\"A\":\"x\\ny\"}}", "headers.A"},
		{"{\"method\":\"POST\",\"url\":\"u\",\"headers\":{\"Host\":\"x\"}}",
		 "headers.Host"},
		{"[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]", "not JSON"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_eq(send_json("POST", "/v1/requests", bad[i][0]), 400);
		has("application/problem+json");
		has(bad[i][1]);
	}
	ck_assert_int_eq(ask_with(api_port(api, 0), "POST", "/v1/requests", "", "{}"), 415);
	ck_assert_int_eq(ask_with(api_port(api, 0), "POST", "/v1/requests", JSON, NULL), 411);
	ck_assert_int_eq(ask_with(api_port(api, 0), "POST", "/v1/requests",
				  JSON "Content-Length: 999999999\r\n", NULL),
			 413);
	ck_assert_int_eq(get("/v1/nothing"), 404);
	ck_assert_int_eq(send_json("POST", "/v1/links", "{}"), 405);
	has("Allow: GET, HEAD");
	ck_assert_int_eq(send_json("PATCH", "/v1/links/order", "{}"), 405);
}
END_TEST

START_TEST(a_chunked_body_over_the_bound_is_refused)
{
	static char text[400000];
	int n = snprintf(
		text, sizeof(text),
		"PATCH /v1/links/wifi HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" JSON
		"Transfer-Encoding: chunked\r\n\r\n%x\r\n",
		70000);

	memset(text + n, ' ', 70000);
	n += 70000;
	n += snprintf(text + n, sizeof(text) - (size_t)n, "\r\n0\r\n\r\n");
	ck_assert_int_eq(talk(api_port(api, 0), text, (size_t)n), 413);
}
END_TEST

START_TEST(links_are_changed_and_ordered)
{
	ck_assert_int_eq(send_json("PATCH", "/v1/links/wifi", "{\"priority\":5,\"enabled\":false}"),
			 200);
	has("\"priority\":5,\"enabled\":false");
	ck_assert_int_eq(send_json("PATCH", "/v1/links/wifi", "{\"priority\":\"5\"}"), 400);
	has("\"field\":\"priority\"");
	ck_assert_int_eq(send_json("PATCH", "/v1/links/wifi", "{\"enabled\":null}"), 400);
	ck_assert_int_eq(send_json("PATCH", "/v1/links/none", "{}"), 404);
	ck_assert_int_eq(send_json("PUT", "/v1/links/order", "{\"order\":[\"lte\",\"wifi\"]}"),
			 200);
	ck_assert_int_eq(links[1].priority, 10);
	ck_assert_int_eq(send_json("PUT", "/v1/links/order", "[\"wifi\",\"lte\"]"), 200);
	ck_assert_int_eq(links[0].priority, 10);
	ck_assert_int_eq(send_json("PUT", "/v1/links/order", "[\"wifi\"]"), 400);
	has("\"field\":\"order\"");
	ck_assert_int_eq(send_json("DELETE", "/v1/names", ""), 200);
	has("\"forgotten\":3");
}
END_TEST

START_TEST(pages_of_elsewhere_are_kept_out)
{
	int port = api_port(api, 0);

	ck_assert_int_eq(ask_with(port, "GET", "/v1/links", "Host: evil.example\r\n", NULL), 421);
	ck_assert_int_eq(ask_with(port, "GET", "/v1/links", "Host: 203.0.113.1\r\n", NULL), 421);
	ck_assert_int_eq(ask_with(port, "GET", "/v1/links", "Host: [::1]:80\r\n", NULL), 200);
	ck_assert_int_eq(
		ask_with(port, "GET", "/v1/links", "Origin: http://evil.example\r\n", NULL), 403);
	ck_assert_int_eq(ask_with(port, "GET", "/v1/links", "Origin: http://localhost\r\n", NULL),
			 200);
	ck_assert_int_eq(ask_with(0, "GET", "/v1/links", "Host: whatever\r\n", NULL), 200);
}
END_TEST

#define OCTETS "Content-Type: application/octet-stream\r\n"

START_TEST(programs_are_uploaded_as_they_are)
{
	int port = api_port(api, 0);

	program_status = 0;
	ck_assert_int_eq(ask_with(port, "POST", "/v1/programs",
				  OCTETS "Holdfast-Signature: AAAA\r\n",
				  "\x7f"
				  "ELF"),
			 201);
	has("Location: http://localhost/v1/programs/0123456789abcdef\r\n");
	has("\"what\":\"uploaded\"");
	ck_assert_uint_eq(programmed.size, 4);
	ck_assert_str_eq(programmed.signature, "AAAA");
	ck_assert(programmed.caller.tcp && ip_is_loopback(&programmed.caller.remote));
	ck_assert_uint_eq(programmed.caller.local_port, (unsigned)port);
	ck_assert_uint_ne(programmed.caller.remote_port, 0);
	ck_assert_int_eq(ask_with(0, "POST", "/v1/programs", OCTETS, "x"), 201);
	ck_assert(!programmed.caller.tcp);
	ck_assert_str_eq(programmed.signature, "none");
	program_status = -EEXIST;
	ck_assert_int_eq(ask_with(port, "POST", "/v1/programs", OCTETS, "x"), 200);
	ck_assert_int_eq(send_json("POST", "/v1/programs", "{}"), 415);
	ck_assert_int_eq(ask_with(port, "POST", "/v1/programs", OCTETS, NULL), 411);
	ck_assert_int_eq(ask_with(port, "POST", "/v1/programs",
				  OCTETS "Expect: 100-continue\r\nContent-Length: 1048577\r\n",
				  NULL),
			 413);
}
END_TEST

START_TEST(a_program_that_is_not_taken_is_told_with_its_check_and_log)
{
	static const struct {
		int error, status;
	} table[] = {{-EKEYREJECTED, 403}, {-ENOENT, 404}, {-EBUSY, 409},
		     {-ESTALE, 409},	   {-EFBIG, 413},  {-EINVAL, 422},
		     {-ENOMEM, 503},	   {-ENOSPC, 507}, {-EIO, 500}};
	char log[] = "R1 invalid";

	program_problem = (struct program_problem){.check = "verifier", .text = "why", .log = log};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		program_status = table[i].error;
		ck_assert_int_eq(ask_with(api_port(api, 0), "POST", "/v1/programs", OCTETS, "x"),
				 table[i].status);
		has("application/problem+json");
		has("\"detail\":\"why\",\"check\":\"verifier\",\"log\":\"R1 invalid\"");
		ck_assert_int_eq(ask_with(api_port(api, 0), "DELETE", "/v1/programs/x", "", NULL),
				 table[i].status);
	}
}
END_TEST

START_TEST(an_activation_may_be_without_a_body)
{
	static const char path[] = "/v1/programs/x/activate";
	int port = api_port(api, 0);

	program_status = 0;
	ck_assert_int_eq(ask_with(port, "POST", path, "", NULL), 200);
	ck_assert_int_eq(ask_with(port, "POST", path, "", ""), 200);
	ck_assert_int_eq(ask_with(port, "POST", path, JSON, "{}"), 200);
	ck_assert_uint_eq(programmed.within, 0);
	ck_assert(!programmed.expect_drops);
	ck_assert_int_eq(
		send_json("POST", path, "{\"confirm_within\":\"90s\",\"expect_drops\":true}"), 200);
	ck_assert_uint_eq(programmed.within, 90000);
	ck_assert(programmed.expect_drops);
	ck_assert_int_eq(ask_with(port, "POST", path, "", "{}"), 415);
	ck_assert_int_eq(send_json("POST", path, "{\"confirm_within\":\"2d\"}"), 400);
	has("\"field\":\"confirm_within\"");
	ck_assert_int_eq(send_json("POST", path, "[]"), 400);
	ck_assert_int_eq(ask_with(port, "POST", "/v1/programs/rollback", "", NULL), 200);
	ck_assert_int_eq(ask_with(port, "POST", "/v1/programs/confirm", "", NULL), 409);
	has("another command");
}
END_TEST

START_TEST(a_packet_is_explained)
{
	ck_assert_int_eq(send_json("POST", "/v1/explain",
				   "{\"source\":\"192.0.2.2\",\"destination\":\"203.0.113.9\","
				   "\"protocol\":\"tcp\",\"port\":80}"),
			 200);
	has("\"verdict\":\"steer\"");
	has("\"reason\":\"tcp-proxy\"");
	has("\"rule\":\"telemetry\"");
	has("\"link\":\"wifi\"");
	ck_assert_int_eq(send_json("POST", "/v1/explain",
				   "{\"source\":\"192.0.2.2\",\"destination\":\"203.0.113.9\","
				   "\"protocol\":\"tcp\",\"port\":81}"),
			 400);
	has("\"field\":\"port\"");
}
END_TEST

START_TEST(changes_need_the_token_when_there_is_one)
{
	char path[] = "/tmp/check_api_token_XXXXXX";
	int fd = mkstemp(path), wide = api_port(api, 2);

	ck_assert_int_eq((int)write(fd, "secret\n", 7), 7);
	close(fd);
	ck_assert_int_eq(ask_with(wide, "GET", "/v1/links", "", NULL), 403);
	ck_assert_int_eq(ask_with(wide, "DELETE", "/v1/names", "", NULL), 403);
	ck_assert_int_eq(ask_with(wide, "GET", "/healthz", "", NULL), 200);
	config.api.token_file = path;
	ck_assert_int_eq(get("/v1/links"), 200);
	ck_assert_int_eq(send_json("DELETE", "/v1/names", ""), 401);
	has("WWW-Authenticate: Bearer");
	ck_assert_int_eq(ask_with(wide, "GET", "/v1/links", "", NULL), 401);
	ck_assert_int_eq(
		ask_with(wide, "GET", "/v1/links", "Authorization: Bearer secreT\r\n", NULL), 401);
	ck_assert_int_eq(
		ask_with(wide, "DELETE", "/v1/names", "Authorization: Bearer secret\r\n", NULL),
		200);
	unlink(path);
	ck_assert_int_eq(
		ask_with(wide, "DELETE", "/v1/names", "Authorization: Bearer secret\r\n", NULL),
		403);
}
END_TEST

START_TEST(apps_see_only_their_own)
{
	const char *host = "Host: holdfast.internal\r\n";

	ck_assert_int_eq(ask_with(app_port, "GET", "/v1/status", host, NULL), 200);
	has("\"online\":true");
	lacks("queue");
	ck_assert_int_eq(ask_with(app_port, "GET", "/v1/requests", host, NULL), 200);
	has(ID_OWN);
	lacks(ID_OTHER);
	ck_assert_int_eq(ask_with(app_port, "GET", "/v1/requests?source=192.0.2.2", host, NULL),
			 200);
	lacks(ID_OTHER);
	ck_assert_int_eq(ask_with(app_port, "GET", "/v1/requests/" ID_OWN, host, NULL), 200);
	ck_assert_int_eq(ask_with(app_port, "GET", "/v1/requests/" ID_OTHER, host, NULL), 404);
	ck_assert_int_eq(ask_with(app_port, "GET", "/v1/requests/" ID_OTHER "/body", host, NULL),
			 404);
	ck_assert_int_eq(ask_with(app_port, "DELETE", "/v1/requests/" ID_OTHER, host, NULL), 404);
	ck_assert_int_eq(ask_with(app_port, "DELETE", "/v1/requests/" ID_OWN, host, NULL), 204);
	ck_assert_int_eq(ask_with(app_port, "GET", "/v1/config", host, NULL), 403);
	ck_assert_int_eq(ask_with(app_port, "PATCH", "/v1/links/wifi", host, NULL), 403);
	ck_assert_int_eq(ask_with(app_port, "GET", "/v1/programs", host, NULL), 403);
	ck_assert_int_eq(ask_with(app_port, "POST", "/v1/programs/rollback", host, NULL), 403);
	ck_assert_int_eq(ask_with(app_port, "GET", "/", host, NULL), 200);
	has("text/plain");
}
END_TEST

/* Run the loop until the stream has text. */
static size_t follow(int fd, size_t have, const char *text)
{
	uv_timer_t tick;

	uv_timer_init(&loop, &tick);
	uv_timer_start(&tick, on_tick, 1, 1);
	for (int i = 0; i < 3000 && !strstr(reply, text); i++) {
		uv_run(&loop, UV_RUN_ONCE);
		have = drain(fd, have) & 0xffffff;
	}
	uv_close((uv_handle_t *)&tick, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
	has(text);
	return have;
}

static void raise_event(uint64_t id)
{
	struct daemon_event event = {.id = id,
				     .at = 1700000000123,
				     .type = EVENT_LINK,
				     .subject = "wifi",
				     .what = "online"};

	memset(event.what + 6, '.', 150);
	event_cb(event_arg, &event);
}

START_TEST(events_are_streamed_and_a_slow_reader_loses_some)
{
	static const char request[] = "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
	int fd = dial(api_port(api, 0));
	size_t have;

	uv_run(&loop, UV_RUN_NOWAIT);
	reply[0] = '\0';
	ck_assert_int_gt((int)send(fd, request, sizeof(request) - 1, 0), 0);
	have = follow(fd, 0, "retry: 2000");
	has("text/event-stream");
	raise_event(1);
	have = follow(fd, have, "id: 1\nevent: link\ndata: {\"at\":");
	/* In one turn of the loop nobody reads: the buffer fills. */
	for (uint64_t id = 2; id < 500; id++)
		raise_event(id);
	for (int i = 0; i < 200; i++) {
		uv_run(&loop, UV_RUN_NOWAIT);
		drain(fd, 0);
	}
	reply[0] = '\0';
	raise_event(500);
	follow(fd, 0, "event: lost\ndata: {\"count\":");
	close(fd);
}
END_TEST

START_TEST(a_call_that_waits_at_the_close_is_let_go)
{
	static const char request[] =
		"GET /v1/requests/" ID_OWN " HTTP/1.1\r\nHost: localhost\r\n\r\n";
	int fd = dial(api_port(api, 0));

	asked.cb = NULL;
	ck_assert_int_gt((int)send(fd, request, sizeof(request) - 1, 0), 0);
	for (int i = 0; i < 1000 && !asked.cb; i++)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_ptr_nonnull(asked.cb);
	uv_timer_stop(&later);
	/* teardown closes the API; the daemon's answer comes after it. */
	calls_refuse_waiting(api);
	for (int i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	drain(fd, 0);
	has("HTTP/1.1 503");
	close(fd);
	on_later(&later);
}
END_TEST

START_TEST(a_long_body_comes_piece_by_piece)
{
	const char *body;

	long_body = true;
	ck_assert_int_eq(get("/v1/requests/" ID_OWN "/body"), 200);
	body = strstr(reply, "\r\n\r\n") + 4;
	ck_assert_uint_eq(strlen(body), LONG_BODY);
	for (size_t i = 0; i < LONG_BODY; i += 997)
		ck_assert_int_eq(body[i], long_byte(i));
}
END_TEST

START_TEST(a_body_that_breaks_off_is_no_whole_answer)
{
	const char *body;

	long_body = true;
	break_after = 2;
	get("/v1/requests/" ID_OWN "/body");
	has("Content-Length: 196708");
	body = strstr(reply, "\r\n\r\n") + 4;
	ck_assert_uint_lt(strlen(body), LONG_BODY);
}
END_TEST

static int begin_call(const char *request)
{
	int fd = dial(api_port(api, 0));

	asked.cb = NULL;
	uv_run(&loop, UV_RUN_NOWAIT);
	ck_assert_int_gt((int)send(fd, request, strlen(request), 0), 0);
	for (int i = 0; i < 1000 && !asked.cb; i++)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_ptr_nonnull(asked.cb);
	return fd;
}

static void close_api(void)
{
	is_closed = false;
	api_close(api, on_closed, NULL);
	while (!is_closed)
		uv_run(&loop, UV_RUN_ONCE);
}

static void open_api(void)
{
	char error[256];

	close(app_fd);
	app_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(listen(app_fd, 16), 0);
	ck_assert_msg(api_new(&loop, NULL, error, sizeof(error), &api) == 0, "%s", error);
}

START_TEST(a_row_that_comes_after_the_api_is_gone_is_dropped)
{
	static const char *const requests[] = {
		"DELETE /v1/requests/" ID_OWN " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /v1/requests/" ID_OWN " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /v1/requests/" ID_OWN "/body HTTP/1.1\r\nHost: localhost\r\n\r\n",
	};
	int fd = begin_call(requests[_i]);

	uv_timer_stop(&later);
	close_api();
	deleted = 0;
	on_later(&later);
	ck_assert_int_eq(deleted, 0);
	close(fd);
	open_api();
}
END_TEST

START_TEST(a_body_that_is_being_read_at_the_close_is_let_go)
{
	int fd;

	long_body = true;
	fd = begin_call("GET /v1/requests/" ID_OWN "/body HTTP/1.1\r\nHost: localhost\r\n\r\n");
	for (int i = 0; i < 1000 && !reader; i++)
		uv_run(&loop, UV_RUN_ONCE);
	ck_assert_ptr_nonnull(reader);
	uv_timer_stop(&reading); /* the disk is slow */
	close_api();
	close(fd);
	open_api();
}
END_TEST

START_TEST(the_description_names_every_route)
{
	size_t count;
	const struct route *routes = api_routes(&count);

	ck_assert_int_eq(get("/openapi.yaml"), 200);
	for (size_t i = 0; i < count; i++) {
		char line[80];

		snprintf(line, sizeof(line), "\n  %s:\n", routes[i].pattern);
		has(line);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("api");
	TCase *tcase = tcase_create("api");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 30);
	tcase_add_test(tcase, reads_have_the_shapes_that_scripts_rely_on);
	tcase_add_test(tcase, lists_are_paged_and_filtered);
	tcase_add_test(tcase, one_request_is_shown_with_bodies_and_events);
	tcase_add_test(tcase, a_request_is_handed_over);
	tcase_add_test(tcase, bad_input_gets_a_problem_that_names_the_field);
	tcase_add_test(tcase, a_chunked_body_over_the_bound_is_refused);
	tcase_add_test(tcase, links_are_changed_and_ordered);
	tcase_add_test(tcase, pages_of_elsewhere_are_kept_out);
	tcase_add_test(tcase, programs_are_uploaded_as_they_are);
	tcase_add_test(tcase, a_program_that_is_not_taken_is_told_with_its_check_and_log);
	tcase_add_test(tcase, an_activation_may_be_without_a_body);
	tcase_add_test(tcase, a_packet_is_explained);
	tcase_add_test(tcase, changes_need_the_token_when_there_is_one);
	tcase_add_test(tcase, apps_see_only_their_own);
	tcase_add_test(tcase, events_are_streamed_and_a_slow_reader_loses_some);
	tcase_add_test(tcase, a_call_that_waits_at_the_close_is_let_go);
	tcase_add_test(tcase, a_long_body_comes_piece_by_piece);
	tcase_add_test(tcase, a_body_that_breaks_off_is_no_whole_answer);
	tcase_add_loop_test(tcase, a_row_that_comes_after_the_api_is_gone_is_dropped, 0, 3);
	tcase_add_test(tcase, a_body_that_is_being_read_at_the_close_is_let_go);
	tcase_add_test(tcase, the_description_names_every_route);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
