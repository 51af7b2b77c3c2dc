/* Snapshots to OpenMetrics 1.0 text. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>

#define STATUS(field) offsetof(struct daemon_status, field)

enum metric_type { METRIC_GAUGE, METRIC_COUNTER };
static const struct {
	const char *name;
	enum metric_type type;
	size_t offset; /* of a uint64_t in struct daemon_status */
	const char *help;
} metrics[] = {
	{"holdfast_http_requests", METRIC_COUNTER, STATUS(http_requests), "HTTP requests taken"},
	{"holdfast_tls_streams", METRIC_COUNTER, STATUS(tls_streams), "TLS streams passed through"},
	{"holdfast_tcp_streams", METRIC_COUNTER, STATUS(tcp_streams), "Other TCP streams"},
	{"holdfast_upgraded_streams", METRIC_COUNTER, STATUS(upgraded_streams),
	 "HTTP connections that became streams by an Upgrade"},
	{"holdfast_streams_held", METRIC_COUNTER, STATUS(proxy.held_streams),
	 "Streams that waited for a link"},
	{"holdfast_streams_held_over", METRIC_COUNTER, STATUS(proxy.held_over),
	 "Streams refused as no link came"},
	{"holdfast_streams_spliced", METRIC_COUNTER, STATUS(proxy.spliced),
	 "Large streams that the kernel carries"},
	{"holdfast_streams_no_pipes", METRIC_COUNTER, STATUS(proxy.no_pipes),
	 "Large streams that it does not carry for lack of pipes"},
	{"holdfast_pipes", METRIC_GAUGE, STATUS(proxy.pipes), "Pipes in use for streams"},
	{"holdfast_connections_waited", METRIC_COUNTER, STATUS(proxy.no_descriptors),
	 "Times that apps' connections waited for descriptors"},
	{"holdfast_held", METRIC_COUNTER, STATUS(held_total), "Exchanges that were held"},
	{"holdfast_under_way", METRIC_GAUGE, STATUS(under_way), "Exchanges sent to an origin"},
	{"holdfast_in_line", METRIC_GAUGE, STATUS(in_line),
	 "Held exchanges that are sent when others end"},
	{"holdfast_waited", METRIC_COUNTER, STATUS(waited),
	 "Exchanges held as too many were under way"},
	{"holdfast_cancelled", METRIC_COUNTER, STATUS(cancelled), "Apps that hung up while held"},
	{"holdfast_refused", METRIC_COUNTER, STATUS(refused), "Exchanges refused"},
	{"holdfast_bad_requests", METRIC_COUNTER, STATUS(bad_requests), "Malformed requests"},
	{"holdfast_requests_timed_out", METRIC_COUNTER, STATUS(proxy.timed_out),
	 "Requests that their apps did not finish in time"},
	{"holdfast_queue_put", METRIC_COUNTER, STATUS(queue.put), "Exchanges stored"},
	{"holdfast_queue_refused_full", METRIC_COUNTER, STATUS(queue.refused_full),
	 "Exchanges refused as the queue was full"},
	{"holdfast_queue_evicted", METRIC_COUNTER, STATUS(queue.evicted),
	 "Stored exchanges given up for more important ones as the queue was full"},
	{"holdfast_queue_unclaimed", METRIC_COUNTER, STATUS(queue.unclaimed),
	 "Answers that were dropped before their app came for them"},
	{"holdfast_queue_answered", METRIC_COUNTER, STATUS(queue.answered), "Stored ones answered"},
	{"holdfast_queue_matched", METRIC_COUNTER, STATUS(queue.matched), "Repeats recognised"},
	{"holdfast_queue_paid", METRIC_COUNTER, STATUS(queue.paid), "Answers handed over"},
	{"holdfast_queue_bytes", METRIC_GAUGE, STATUS(queue.bytes), "Bytes of the queue"},
	{"holdfast_queue_max_bytes", METRIC_GAUGE, STATUS(queue.max_bytes), "Its bound"},
	{"holdfast_queue_max_count", METRIC_GAUGE, STATUS(queue.max_count),
	 "Most exchanges that may wait"},
	{"holdfast_queue_owing", METRIC_GAUGE, STATUS(queue.owing), "Stored ones owing an answer"},
	{"holdfast_bodies", METRIC_GAUGE, STATUS(bodies.open),
	 "Bodies received whole, in memory or files"},
	{"holdfast_body_memory", METRIC_GAUGE, STATUS(bodies.memory), "Their bytes in memory"},
	{"holdfast_body_bytes", METRIC_GAUGE, STATUS(bodies.bytes), "Their bytes in files"},
	{"holdfast_body_max_bytes", METRIC_GAUGE, STATUS(bodies.max_bytes), "The bound of these"},
	{"holdfast_body_files", METRIC_GAUGE, STATUS(bodies.files), "Those in files"},
	{"holdfast_body_max_files", METRIC_GAUGE, STATUS(bodies.max_files), "The bound of these"},
	{"holdfast_body_filed", METRIC_COUNTER, STATUS(bodies.filed), "Bodies that went to a file"},
	{"holdfast_body_refused", METRIC_COUNTER, STATUS(bodies.refused),
	 "Bodies refused for want of room on the disk"},
	{"holdfast_store_commits", METRIC_COUNTER, STATUS(store.commits), "Database commits"},
	{"holdfast_store_failures", METRIC_COUNTER, STATUS(store.failures), "Failed commits"},
	{"holdfast_store_corrupt", METRIC_COUNTER, STATUS(store.corrupt),
	 "Corrupt databases that were put aside"},
	{"holdfast_dns_virtual", METRIC_COUNTER, STATUS(resolver.answered_virtual),
	 "DNS answers with virtual addresses"},
	{"holdfast_dns_upstream", METRIC_COUNTER, STATUS(resolver.answered_upstream),
	 "DNS answers of the links' servers"},
	{"holdfast_dns_failed", METRIC_COUNTER, STATUS(resolver.failed),
	 "DNS questions that failed"},
	{"holdfast_relay_flows", METRIC_GAUGE, STATUS(relay.flows), "UDP flows"},
	{"holdfast_relay_flows_max", METRIC_GAUGE, STATUS(relay.flows_max), "Their bound"},
	{"holdfast_relay_flows_opened", METRIC_COUNTER, STATUS(relay.flows_opened),
	 "UDP flows opened"},
	{"holdfast_relay_flows_refused", METRIC_COUNTER, STATUS(relay.flows_refused),
	 "UDP flows refused by a rule, for want of a link, or of a name"},
	{"holdfast_relay_flows_full", METRIC_COUNTER, STATUS(relay.flows_full),
	 "UDP flows refused at a bound"},
	{"holdfast_relay_flows_evicted", METRIC_COUNTER, STATUS(relay.flows_evicted),
	 "Idle UDP flows that made room"},
	{"holdfast_relay_datagrams_in", METRIC_COUNTER, STATUS(relay.datagrams_in),
	 "Datagrams of apps sent on"},
	{"holdfast_relay_datagrams_out", METRIC_COUNTER, STATUS(relay.datagrams_out),
	 "Datagrams given to apps"},
	{"holdfast_relay_echoes", METRIC_GAUGE, STATUS(relay.echoes), "Unanswered echo requests"},
	{"holdfast_relay_echoes_sent", METRIC_COUNTER, STATUS(relay.echoes_sent),
	 "Echo requests sent on"},
	{"holdfast_relay_echoes_answered", METRIC_COUNTER, STATUS(relay.echoes_answered),
	 "Echo replies given to apps"},
	{"holdfast_relay_echoes_refused", METRIC_COUNTER, STATUS(relay.echoes_refused),
	 "Echo requests refused"},
	{"holdfast_relay_errors_told", METRIC_COUNTER, STATUS(relay.errors_told),
	 "ICMP errors sent to apps"},
	{"holdfast_relay_errors_limited", METRIC_COUNTER, STATUS(relay.errors_limited),
	 "ICMP errors not sent, to bound their rate"},
	{"holdfast_relay_dropped", METRIC_COUNTER, STATUS(relay.dropped),
	 "Datagrams and echo requests lost in the relay"},
	{"holdfast_upstream_connects", METRIC_COUNTER, STATUS(upstream.connects),
	 "Connections begun to origins"},
	{"holdfast_upstream_reused", METRIC_COUNTER, STATUS(upstream.reused),
	 "Requests sent over a connection that was there"},
	{"holdfast_upstream_tls_handshakes", METRIC_COUNTER, STATUS(upstream.handshakes),
	 "TLS handshakes done with origins"},
	{"holdfast_upstream_tls_resumed", METRIC_COUNTER, STATUS(upstream.resumed),
	 "TLS handshakes that resumed a session"},
	{"holdfast_upstream_tls_rejected", METRIC_COUNTER, STATUS(upstream.rejected),
	 "Origins that failed TLS or its verification, or refused the device"},
	{"holdfast_rss_anon_bytes", METRIC_GAUGE, STATUS(rss_anon), "Private memory"},
};

static int write_head(struct buf *out, const char *name, const char *type, const char *help)
{
	return buf_printf(out, "# TYPE %s %s\n# HELP %s %s.\n", name, type, name, help);
}

static int write_status(struct daemon *daemon, struct buf *out)
{
	struct daemon_status status;
	int r = 0;

	daemon_status(daemon, &status);
	for (size_t i = 0; r == 0 && i < sizeof(metrics) / sizeof(metrics[0]); i++) {
		bool counter = metrics[i].type == METRIC_COUNTER;
		uint64_t value = *(const uint64_t *)((const char *)&status + metrics[i].offset);

		r = write_head(out, metrics[i].name, counter ? "counter" : "gauge",
			       metrics[i].help);
		if (r == 0)
			r = buf_printf(out, "%s%s %llu\n", metrics[i].name, counter ? "_total" : "",
				       (unsigned long long)value);
	}
	if (r == 0)
		r = buf_printf(out,
			       "# TYPE holdfast_online gauge\n# HELP holdfast_online A link is "
			       "usable.\nholdfast_online %d\n"
			       "# TYPE holdfast_uptime_seconds gauge\n# UNIT "
			       "holdfast_uptime_seconds seconds\nholdfast_uptime_seconds %.3f\n",
			       status.online, (double)status.uptime / 1000);
	if (r == 0)
		r = write_head(out, "holdfast_requests", "gauge", "Exchanges by state");
	if (r == 0)
		r = buf_printf(out,
			       "holdfast_requests{state=\"held\"} %zu\n"
			       "holdfast_requests{state=\"stored\"} %llu\n"
			       "holdfast_requests{state=\"sending\"} %llu\n"
			       "holdfast_requests{state=\"done\"} %llu\n"
			       "holdfast_requests{state=\"failed\"} %llu\n"
			       "holdfast_requests{state=\"expired\"} %llu\n",
			       status.held, (unsigned long long)status.queue.stored,
			       (unsigned long long)status.queue.sending,
			       (unsigned long long)status.queue.done,
			       (unsigned long long)status.queue.failed,
			       (unsigned long long)status.queue.expired);
	return r;
}

/* A label's value: backslash, quote and newline escaped. */
static const char *escape(const char *text, char *buffer, size_t size)
{
	size_t n = 0;

	for (; *text && n + 3 < size; text++) {
		if (*text == '\\' || *text == '"' || *text == '\n')
			buffer[n++] = '\\';
		buffer[n++] = *text == '\n' ? 'n' : *text;
	}
	buffer[n] = '\0';
	return buffer;
}

static int write_links(struct daemon *daemon, struct buf *out)
{
	struct link_info links[LINKS_MAX];
	size_t count = daemon_links(daemon, links, LINKS_MAX);
	char name[80];
	int r = write_head(out, "holdfast_link_state", "stateset", "State of each link");

	for (size_t i = 0; i < count; i++)
		for (int state = 0; r == 0 && state < LINK_STATE_COUNT; state++)
			r = buf_printf(
				out,
				"holdfast_link_state{link=\"%s\",holdfast_link_state=\"%s\"} "
				"%d\n",
				escape(links[i].name, name, sizeof(name)), link_state_name(state),
				links[i].state == (enum link_state)state);
	if (r == 0)
		r = write_head(out, "holdfast_link_bytes", "counter", "Live traffic of each link");
	for (size_t i = 0; r == 0 && i < count; i++) {
		escape(links[i].name, name, sizeof(name));
		r = buf_printf(out,
			       "holdfast_link_bytes_total{link=\"%s\",direction=\"in\"} %llu\n"
			       "holdfast_link_bytes_total{link=\"%s\",direction=\"out\"} %llu\n",
			       name, (unsigned long long)links[i].bytes_in, name,
			       (unsigned long long)links[i].bytes_out);
	}
	return r;
}

static int write_counter_family(const struct steer_counter *counters, size_t count, bool bytes,
				struct buf *out)
{
	const char *name = bytes ? "holdfast_bytes" : "holdfast_packets";
	int r = write_head(out, name, "counter",
			   bytes ? "Bytes by hook, verdict and reason"
				 : "Packets by hook, verdict and reason");

	for (size_t i = 0; r == 0 && i < count; i++) {
		const struct steer_counter *c = &counters[i];
		char interface[2 * IF_NAMESIZE + 4];

		r = buf_printf(
			out,
			"%s_total{interface=\"%s\",hook=\"%s\",verdict=\"%s\",reason=\"%s\"} "
			"%llu\n",
			name, escape(c->interface, interface, sizeof(interface)),
			hf_hook_name(c->hook), hf_verdict_name(c->verdict),
			hf_reason_name(c->reason),
			(unsigned long long)(bytes ? c->bytes : c->packets));
	}
	return r;
}

static int write_counters(struct daemon *daemon, struct buf *out)
{
	struct steer_counter *counters = NULL;
	size_t count = 0;
	int r = daemon_counters(daemon, &counters, &count);

	if (r == 0)
		r = write_counter_family(counters, count, false, out);
	if (r == 0)
		r = write_counter_family(counters, count, true, out);
	free(counters);
	return r;
}

/* Names and versions are of letters that need no escape: steer_program_read takes no others. */
static int write_program(struct daemon *daemon, struct buf *out)
{
	struct program_info info;

	daemon_program_current(daemon, &info);
	return buf_printf(
		out,
		"# TYPE holdfast_program info\n# HELP holdfast_program What decides over "
		"packets now.\nholdfast_program_info{id=\"%s\",name=\"%s\",version=\"%s\","
		"state=\"%s\"} 1\n",
		info.id, info.name, info.version, program_state_name(info.state));
}

int metrics_write(struct daemon *daemon, struct buf *out)
{
	int r = buf_printf(out,
			   "# TYPE holdfast_build info\nholdfast_build_info{version=\"%s\"} 1\n",
			   HOLDFAST_VERSION);

	if (r == 0)
		r = write_status(daemon, out);
	if (r == 0)
		r = write_links(daemon, out);
	if (r == 0)
		r = write_program(daemon, out);
	if (r == 0)
		r = write_counters(daemon, out);
	return r == 0 ? buf_printf(out, "# EOF\n") : r;
}
