/*
 * Whose turn it is. A link's return lets thousands go at once: they line up, and so many at a time
 * are under way that descriptors are left and live traffic beside them is not starved.
 */
#include "exchange/internal.h"

#include "base/log.h"

#include <errno.h>
#include <sys/resource.h>

/* Each takes a descriptor; the most are left to the apps that wait for it. */
void exchanges_read_bounds(struct exchanges *exchanges)
{
	struct rlimit limit;
	size_t max = EXCHANGES_SENDING_MAX, released = EXCHANGES_RELEASED_MAX;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 4 < max)
		max = limit.rlim_cur / 4;
	if (max < EXCHANGES_SENDING_MAX)
		log_warning("exchange", "descriptors are short: %zu requests under way at once",
			    max);
	exchanges->sending_max = max;
	exchanges->released_max = released < max / 4 ? released : max / 4;
}

bool exchanges_have_room(const struct exchanges *exchanges)
{
	const struct exchanges_statistics *statistics = &exchanges->statistics;

	return statistics->sending <
	       exchanges->sending_max - exchanges->released_max + statistics->released;
}

static bool is_released(const struct exchange *exchange, enum exchange_state to)
{
	return (to == EXCHANGE_SENDING || to == EXCHANGE_MATCHING) &&
	       (exchange->released || exchange->state == EXCHANGE_HELD);
}

void exchange_count(struct exchange *exchange, enum exchange_state to)
{
	struct exchanges_statistics *statistics = &exchange->exchanges->statistics;
	bool released = is_released(exchange, to);

	statistics->sending += (to == EXCHANGE_SENDING) - (exchange->state == EXCHANGE_SENDING);
	statistics->released += released - exchange->released;
	exchange->released = released;
}

void exchange_line_up(struct exchange *exchange)
{
	struct exchanges *exchanges = exchange->exchanges;

	if (exchange->in_line)
		return;
	TAILQ_INSERT_TAIL(&exchanges->line, exchange, line_entry);
	exchange->in_line = true;
	exchanges->statistics.in_line++;
	/* Before the loop sleeps, and again whenever it has worked. */
	uv_prepare_start(&exchanges->turn, on_turn);
}

void exchange_leave_line(struct exchange *exchange)
{
	if (!exchange->in_line)
		return;
	TAILQ_REMOVE(&exchange->exchanges->line, exchange, line_entry);
	exchange->in_line = false;
	exchange->exchanges->statistics.in_line--;
}

/* Try again; what is still without a link stays held. */
static void try_again(struct exchange *exchange)
{
	exchange->tried = 0;
	if (exchange->behind) {
		exchange_match(exchange);
		return;
	}
	if (exchange_send(exchange) == -ENETUNREACH || exchange->state != EXCHANGE_HELD)
		return;
	exchange->retry_at = uv_now(exchange->exchanges->loop) + RETRY_FIRST;
	exchange_due(exchange);
}

void on_turn(uv_prepare_t *prepare)
{
	struct exchanges *exchanges = prepare->data;
	struct exchange *exchange;

	while ((exchange = TAILQ_FIRST(&exchanges->line)) &&
	       exchanges->statistics.released < exchanges->released_max) {
		exchange_leave_line(exchange);
		exchange->retry_at = 0;
		exchange_due(exchange);
		try_again(exchange);
	}
	if (!exchange)
		uv_prepare_stop(prepare);
}

static void line_up_all(struct exchanges *exchanges, bool behind_only)
{
	struct exchange *exchange;

	TAILQ_FOREACH (exchange, &exchanges->waiting, entry) {
		if (exchange->state == EXCHANGE_HELD && (exchange->behind || !behind_only))
			exchange_line_up(exchange);
	}
}

void exchanges_wake(struct exchanges *exchanges)
{
	line_up_all(exchanges, false);
}

void exchanges_backlog_changed(struct exchanges *exchanges)
{
	line_up_all(exchanges, true);
}
