/* An object's own packets, against what it says must come of them. */
#include "steer/corpus.h"
#include "steer/object.h"

#include <stdio.h>
#include <string.h>

static int compare(const struct hf_golden *packet, const struct trial_result *result,
		   struct steer_report *report)
{
	char expected[40], came[40];
	size_t at = 0;

	if (result->action != packet->action)
		return report_fail(report, STEER_CHECK_GOLDEN,
				   "golden packet \"%s\": expected %s, got %s", packet->name,
				   trial_action(packet->action, expected, sizeof(expected)),
				   trial_action(result->action, came, sizeof(came)));
	if (!packet->out_len)
		return 0;
	if (result->len != packet->out_len)
		return report_fail(report, STEER_CHECK_GOLDEN,
				   "golden packet \"%s\": expected %u octets, got %zu",
				   packet->name, packet->out_len, result->len);
	while (at < packet->out_len && result->bytes[at] == packet->out[at])
		at++;
	if (at == packet->out_len)
		return 0;
	return report_fail(report, STEER_CHECK_GOLDEN,
			   "golden packet \"%s\": expected 0x%02x at octet %zu, got 0x%02x",
			   packet->name, packet->out[at], at, result->bytes[at]);
}

static int run_golden(const struct steer_trial *trial, const struct hf_golden *packet,
		      struct bpf_object *object, const struct bpf_program *program,
		      struct steer_report *report)
{
	const struct hf_interface in = {
		.role = packet->role, .has_mac = 1, .link = packet->role == HF_ROLE_LINK};
	struct trial_result result;
	int r = surroundings_interface(object, trial->lo, &in);

	if (r == 0)
		r = trial_packet(program, trial->lo, packet->in, packet->len, &result);
	if (r == 0)
		return compare(packet, &result, report);
	snprintf(report->text, sizeof(report->text),
		 "the kernel makes no test run of golden packet \"%s\": %s", packet->name,
		 strerror(-r));
	return r;
}

int golden_run(const struct steer_trial *trial, const struct hf_golden *packets, size_t count,
	       struct bpf_object *object, const struct bpf_program *program,
	       struct steer_report *report)
{
	int r = surroundings_golden(object);

	for (size_t i = 0; i < count && r == 0; i++)
		r = run_golden(trial, &packets[i], object, program, report);
	return r;
}
