/*
 * The packets that a program must not lose, as things are on this device, and packets that no
 * program may abort on. Run through a trial load, never through what is in service.
 */
#pragma once

#include "steer/internal.h"

/* program: loaded with maps of its own; object: whose they are. 0, -EINVAL with the report
 * filled, or another negative errno with its text. */
int corpus_run(const struct steer_trial *trial, struct bpf_object *object,
	       const struct bpf_program *program, struct steer_report *report)
	__attribute__((warn_unused_result));
/* The same for the object's golden packets, in their own fixed surroundings. */
int golden_run(const struct steer_trial *trial, const struct hf_golden *packets, size_t count,
	       struct bpf_object *object, const struct bpf_program *program,
	       struct steer_report *report) __attribute__((warn_unused_result));

/* surroundings.c: fill the maps that the object has. */
int surroundings_live(const struct steer_trial *trial, struct bpf_object *object)
	__attribute__((warn_unused_result));
int surroundings_golden(struct bpf_object *object) __attribute__((warn_unused_result));
/* What kind of interface it is; nothing to do for an object without the map. */
int surroundings_interface(struct bpf_object *object, int index, const struct hf_interface *value)
	__attribute__((warn_unused_result));

/* One run: with a repeat the kernel would patch its code before and after, which takes long.
 * -ENODEV: the interface is gone. */
struct trial_result {
	uint32_t action;
	uint8_t bytes[2048]; /* a program may make a packet longer */
	size_t len;
};
int trial_packet(const struct bpf_program *program, int ifindex, const uint8_t *bytes, size_t len,
		 struct trial_result *ret_result) __attribute__((warn_unused_result));
/* "XDP_PASS"; buffer is for what is none. */
const char *trial_action(uint32_t action, char *buffer, size_t size);
