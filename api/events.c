/*
 * GET /v1/events: server-sent events. Each reader has a bounded buffer; what finds it full is
 * counted, and the reader is told how many it lost. A reader that has read all is suspended, so
 * a line of comment now and then finds out whether it is still there.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

struct stream {
	struct api *api;
	struct listener *listener;
	struct MHD_Connection *connection;
	struct buf buf;
	uint64_t lost;
	bool suspended, ended;
	struct stream *next, **prev;
};

static void stream_wake(struct stream *stream)
{
	if (!stream->suspended)
		return;
	stream->suspended = false;
	MHD_resume_connection(stream->connection);
	api_listener_wake(stream->listener);
}

static ssize_t on_read(void *arg, uint64_t pos, char *out, size_t max)
{
	struct stream *stream = arg;
	size_t len = buf_len(&stream->buf);

	if (len == 0 && stream->ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (len == 0) {
		stream->suspended = true;
		MHD_suspend_connection(stream->connection);
		return 0;
	}
	if (len > max)
		len = max;
	memcpy(out, buf_bytes(&stream->buf), len);
	buf_consume(&stream->buf, len);
	return (ssize_t)len;
}

static void on_free(void *arg)
{
	struct stream *stream = arg;

	*stream->prev = stream->next;
	if (stream->next)
		stream->next->prev = stream->prev;
	stream->api->stream_count--;
	buf_done(&stream->buf);
	free(stream);
}

static void stream_event(struct stream *stream, const struct daemon_event *event, const char *data)
{
	if (stream->lost > 0) {
		if (buf_printf(&stream->buf, "event: lost\ndata: {\"count\":%llu}\n\n",
			       (unsigned long long)stream->lost) < 0) {
			stream->lost++;
			return;
		}
		stream->lost = 0;
	}
	if (buf_printf(&stream->buf, "id: %llu\nevent: %s\ndata: %s\n\n",
		       (unsigned long long)event->id, event_type_name(event->type), data) < 0)
		stream->lost++;
	stream_wake(stream);
}

void events_notify(void *arg, const struct daemon_event *event)
{
	struct api *api = arg;
	struct json_object *object;

	if (!api->streams)
		return;
	object = view_event(event);
	if (!object)
		return;
	for (struct stream *s = api->streams; s; s = s->next)
		stream_event(s, event,
			     json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
	json_object_put(object);
}

void events_keepalive(struct api *api)
{
	for (struct stream *s = api->streams; s; s = s->next) {
		/* A buffer with something in it keeps the connection busy by itself. */
		if (buf_len(&s->buf) == 0 && buf_printf(&s->buf, ":\n\n") == 0)
			stream_wake(s);
	}
}

void events_end(struct api *api)
{
	for (struct stream *s = api->streams; s; s = s->next) {
		s->ended = true;
		stream_wake(s);
	}
}

void get_events(struct call *call)
{
	struct api *api = call->api;
	struct MHD_Response *response;
	struct stream *stream;

	if (api->stream_count >= API_EVENT_CLIENTS_MAX) {
		call_problem(call, 503, NULL, "at most %d readers of events",
			     API_EVENT_CLIENTS_MAX);
		return;
	}
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return;
	stream->api = api;
	stream->listener = call->listener;
	stream->connection = call->connection;
	buf_init(&stream->buf, API_EVENT_BUFFER_MAX);
	stream->ended = api->closing;
	if (buf_printf(&stream->buf, "retry: 2000\n\n") < 0) {
		free(stream);
		return;
	}
	stream->next = api->streams;
	stream->prev = &api->streams;
	if (stream->next)
		stream->next->prev = &stream->next;
	api->streams = stream;
	api->stream_count++;
	response =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, on_read, stream, on_free);
	if (!response) {
		on_free(stream);
		return;
	}
	MHD_add_response_header(response, "Content-Type", "text/event-stream");
	call_respond(call, 200, response);
}
