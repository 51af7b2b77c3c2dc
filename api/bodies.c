/*
 * Bodies of exchanges for GET /v1/requests/{id}/body and /response: read piece by piece from the
 * disk, the next one when the client has taken the last. A client that waits for a piece is
 * suspended.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

struct download {
	struct listener *listener;
	struct MHD_Connection *connection;
	struct daemon_body *body;
	size_t at, len; /* in `piece` */
	bool reading, suspended, broken;
	struct download *next, **prev;
	uint8_t piece[SPOOL_PIECE];
};

static void wake(struct download *download)
{
	if (!download->suspended)
		return;
	download->suspended = false;
	MHD_resume_connection(download->connection);
	api_listener_wake(download->listener);
}

static void on_piece(void *arg, int status, const uint8_t *bytes, size_t len)
{
	struct download *download = arg;

	download->reading = false;
	download->at = 0;
	download->len = len;
	/* The length was said, so an end before it is none. */
	download->broken = status < 0 || !len;
	if (len)
		memcpy(download->piece, bytes, len);
	wake(download);
}

static void begin_reading(struct download *download)
{
	download->reading = daemon_body_next(download->body) == 0;
	download->broken = !download->reading;
}

static ssize_t on_read(void *arg, uint64_t pos, char *out, size_t max)
{
	struct download *download = arg;
	size_t len = download->len - download->at;

	if (!len && !download->broken && !download->reading)
		begin_reading(download);
	if (download->broken)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (download->reading) {
		download->suspended = true;
		MHD_suspend_connection(download->connection);
		return 0;
	}
	if (len > max)
		len = max;
	memcpy(out, download->piece + download->at, len);
	download->at += len;
	return (ssize_t)len;
}

static void on_free(void *arg)
{
	struct download *download = arg;

	*download->prev = download->next;
	if (download->next)
		download->next->prev = download->prev;
	daemon_body_close(download->body);
	free(download);
}

struct MHD_Response *body_response(struct call *call, const struct queue_row *row,
				   enum queue_part part, uint64_t len)
{
	struct download *download = malloc(sizeof(*download));
	struct api *api = call->api;
	struct MHD_Response *response;

	if (!download)
		return NULL;
	memset(download, 0, offsetof(struct download, piece));
	if (daemon_body_new(api->daemon, row, part, on_piece, download, &download->body) < 0) {
		free(download);
		return NULL;
	}
	download->listener = call->listener;
	download->connection = call->connection;
	download->next = api->downloads;
	download->prev = &api->downloads;
	if (download->next)
		download->next->prev = &download->next;
	api->downloads = download;
	response =
		MHD_create_response_from_callback(len, API_BODY_BLOCK, on_read, download, on_free);
	if (!response)
		on_free(download);
	return response;
}

/* MHD cannot stop with a connection suspended. */
void bodies_end(struct api *api)
{
	for (struct download *d = api->downloads; d; d = d->next) {
		d->broken = true;
		wake(d);
	}
}
