/*
 * Runs one packet through the programs that are in service, with BPF_PROG_TEST_RUN: twins of
 * them, loaded from the same bytes with counters, rings and rate limits of their own and the
 * live look-up maps, so that nothing is counted, learnt or sent.
 *
 * The first question after a change of program loads the twins (blocking, some 10 ms to 100 ms):
 * steer_explainer_load on a worker; asking costs microseconds, on the loop.
 */
#pragma once

#include "steer/candidate.h"

struct steer_explainer;
/* Twins of what is in service. A trial (candidate.h) names the live maps. Blocking. */
int steer_explainer_load(const struct steer_trial *trial, struct steer_explainer **ret_explainer)
	__attribute__((warn_unused_result));
void steer_explainer_free(struct steer_explainer *explainer);
/* Is it still of the programs in service? */
bool steer_explainer_is_current(const struct steer_explainer *explainer, const struct steer *steer);

struct steer_step {
	bool ran;
	enum hf_verdict verdict;
	enum hf_reason reason; /* HF_REASON_CUSTOM: an uploaded program gave none */
};
struct steer_explanation {
	struct steer_step steps[HF_HOOK_COUNT]; /* by enum hf_hook */
	int action;				/* XDP_* of steer; TC_ACT_* of guard */
	struct hf_interface interface;		/* that it came in on, or was to leave by */
	bool has_socket;			/* lookup gave it to one */
	enum hf_socket socket;
	uint8_t answer[EXPLAIN_ANSWER_MAX]; /* the frame that would go back */
	size_t answer_len;		    /* 0: none */
	char program[32];		    /* name of the steer program; "builtin" */
};
/* frame: from the first octet that the interface delivers, EXPLAIN_FRAME_MIN to _MAX octets. An
 * app interface (or lo): steer, then lookup if it passes and may be looked up: TCP and UDP to one
 * receiver that are whole. Of a connection that is established already the kernel asks lookup
 * nothing. A link: guard, as if no socket of the daemon had sent it. -ENODEV: no such interface,
 * or one that is neither; -EMSGSIZE: too short or too long. */
int steer_explain(struct steer_explainer *explainer, const struct steer *steer,
		  const char *interface, const uint8_t *frame, size_t len,
		  struct steer_explanation *ret_explanation) __attribute__((warn_unused_result));
/* What the programs know of the interface, for building a frame. -ENODEV as above. */
int steer_interface_role(const struct steer *steer, const char *interface,
			 struct hf_interface *ret_interface) __attribute__((warn_unused_result));
const char *steer_socket_name(enum hf_socket socket);
