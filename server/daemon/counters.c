/* Counters over time: rates for who asks, and an event where something is dropped or refused. */
#include "daemon/internal.h"

#include <stdlib.h>
#include <string.h>

static bool same(const struct steer_counter *a, const struct steer_counter *b)
{
	return a->hook == b->hook && a->verdict == b->verdict && a->reason == b->reason &&
	       !strcmp(a->interface, b->interface);
}

static size_t find(const struct sampler *sampler, const struct steer_counter *counter)
{
	size_t i = 0;

	while (i < sampler->count && !same(&sampler->counters[i], counter))
		i++;
	return i;
}

static uint64_t grown(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0; /* maps may have been made anew */
}

static void tell_drop(struct daemon *daemon, const struct steer_counter *counter, uint64_t packets,
		      unsigned *told, unsigned *left_out)
{
	if (!packets ||
	    (counter->verdict != HF_VERDICT_DROP && counter->verdict != HF_VERDICT_REFUSE))
		return;
	if (*told == SAMPLER_EVENTS_MAX) {
		(*left_out)++;
		return;
	}
	(*told)++;
	daemon_event(daemon, EVENT_DROP, counter->interface, "%s: %s %llu packets, %s: %s",
		     hf_hook_name(counter->hook), hf_verdict_name(counter->verdict),
		     (unsigned long long)packets, hf_reason_name(counter->reason),
		     hf_reason_text(counter->reason));
}

static void take(struct daemon *daemon, struct steer_counter *counters, struct daemon_rate *rates,
		 size_t count)
{
	struct sampler *sampler = &daemon->sampler;
	uint64_t now = uv_hrtime();
	double seconds = (double)(now - sampler->at) / 1e9;
	unsigned told = 0, left_out = 0;
	uint64_t arrived = 0;

	for (size_t i = 0; i < count && sampler->at; i++) {
		size_t before = find(sampler, &counters[i]);
		bool known = before < sampler->count;
		uint64_t packets =
			grown(counters[i].packets, known ? sampler->counters[before].packets : 0);
		uint64_t bytes =
			grown(counters[i].bytes, known ? sampler->counters[before].bytes : 0);

		rates[i] = (struct daemon_rate){(double)packets / seconds, (double)bytes / seconds};
		tell_drop(daemon, &counters[i], packets, &told, &left_out);
		if (counters[i].hook == HF_HOOK_LOOKUP && counters[i].reason == HF_REASON_TCP_PROXY)
			arrived += packets;
	}
	if (left_out)
		daemon_event(daemon, EVENT_DROP, "", "%u more kinds of packets were dropped",
			     left_out);
	if (sampler->at)
		obstacle_look(daemon, arrived);
	free(sampler->counters);
	free(sampler->rates);
	sampler->counters = counters;
	sampler->rates = rates;
	sampler->count = count;
	sampler->at = now;
}

static void sample(struct daemon *daemon)
{
	struct steer_counter *counters;
	struct daemon_rate *rates;
	size_t count;

	if (steer_counters(daemon->steer, &counters, &count) < 0)
		return;
	rates = calloc(count + 1, sizeof(*rates));
	if (rates)
		take(daemon, counters, rates, count);
	else
		free(counters);
}

static void on_sample(uv_timer_t *timer)
{
	struct daemon *daemon = timer->data;
	bool asked = daemon->sampler.asked_until > uv_now(daemon->loop);

	sample(daemon);
	uv_timer_start(timer, on_sample, asked ? SAMPLER_QUICK : SAMPLER_SLOW, 0);
}

void sampler_start(struct daemon *daemon)
{
	sample(daemon);
	uv_timer_start(&daemon->sampler.timer, on_sample, SAMPLER_SLOW, 0);
}

void sampler_done(struct daemon *daemon)
{
	free(daemon->sampler.counters);
	free(daemon->sampler.rates);
}

struct daemon_rate daemon_counter_rate(struct daemon *daemon, const struct steer_counter *counter)
{
	struct sampler *sampler = &daemon->sampler;
	size_t i = find(sampler, counter);

	/* The first who asks need not wait for the slow round. */
	if (sampler->asked_until <= uv_now(daemon->loop) && !daemon->closing)
		uv_timer_start(&sampler->timer, on_sample, SAMPLER_QUICK, 0);
	sampler->asked_until = uv_now(daemon->loop) + SAMPLER_ASKED_TIME;
	return i < sampler->count ? sampler->rates[i] : (struct daemon_rate){0, 0};
}

uint64_t daemon_counter_overflow(struct daemon *daemon)
{
	return steer_counter_overflow(daemon->steer);
}

int daemon_maps(struct daemon *daemon, struct steer_map_info **ret_maps, size_t *ret_count)
{
	return steer_maps(daemon->steer, ret_maps, ret_count);
}

int daemon_map_info(struct daemon *daemon, const char *name, struct steer_map_info *ret_info)
{
	return steer_map_info(daemon->steer, name, ret_info);
}

int daemon_map_entries(struct daemon *daemon, const char *name, const char *after, size_t limit,
		       struct json_object **ret_items, char **ret_next)
{
	return steer_map_entries(daemon->steer, name, after, limit, ret_items, ret_next);
}
