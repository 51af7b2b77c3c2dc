/* Objects that were uploaded: checked against what is there, loaded, watched. */
#include "steer/candidate.h"
#include "base/limits.h"
#include "steer/corpus.h"
#include "steer/internal.h"
#include "steer/object.h"
#include "steer/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct steer_candidate {
	struct hf_program says;
	uint8_t *elf;
	size_t size;
	struct bpf_object *object;
	struct bpf_program *program;
	struct watch *watch; /* NULL: off */
};

/* --- what an object may be --- */

static int check_type(struct bpf_object *object, struct steer_report *report,
		      struct bpf_program **ret_program)
{
	struct bpf_program *program, *only = NULL;
	size_t count = 0;

	bpf_object__for_each_program (program, object) {
		only = program;
		count++;
	}
	if (count != 1)
		return report_fail(report, STEER_CHECK_TYPE,
				   "wrong program type: one XDP program is wanted, it has %zu "
				   "programs",
				   count);
	if (bpf_program__type(only) != BPF_PROG_TYPE_XDP ||
	    bpf_program__expected_attach_type(only) != BPF_XDP)
		return report_fail(report, STEER_CHECK_TYPE,
				   "wrong program type: section \"%s\" is no XDP program (write "
				   "SEC(\"xdp\"))",
				   bpf_program__section_name(only));
	*ret_program = only;
	return 0;
}

static int check_shape(const struct bpf_map *map, const struct trial_map *live,
		       struct steer_report *report)
{
	const struct {
		const char *what;
		uint32_t has, wants;
	} parts[] = {
		{"type", bpf_map__type(map), live->info.type},
		{"key size", bpf_map__key_size(map), live->info.key_size},
		{"value size", bpf_map__value_size(map), live->info.value_size},
		{"max_entries", bpf_map__max_entries(map), live->info.max_entries},
		{"flags", bpf_map__map_flags(map), live->info.map_flags},
	};

	if (!live->of_steer)
		return report_fail(report, STEER_CHECK_MAPS,
				   "map \"%s\" belongs to another hook: give yours another name",
				   live->name);
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
		if (parts[i].has != parts[i].wants)
			return report_fail(report, STEER_CHECK_MAPS,
					   "map \"%s\" does not fit the one in service: its %s is "
					   "%u there and %u here",
					   live->name, parts[i].what, parts[i].wants, parts[i].has);
	return 0;
}

/* Of its own a program may have plain storage. */
static bool is_plain(enum bpf_map_type type)
{
	static const enum bpf_map_type plain[] = {
		BPF_MAP_TYPE_HASH,	   BPF_MAP_TYPE_ARRAY,	      BPF_MAP_TYPE_PERCPU_HASH,
		BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_LRU_HASH,     BPF_MAP_TYPE_LRU_PERCPU_HASH,
		BPF_MAP_TYPE_LPM_TRIE,	   BPF_MAP_TYPE_RINGBUF,      BPF_MAP_TYPE_QUEUE,
		BPF_MAP_TYPE_STACK,	   BPF_MAP_TYPE_BLOOM_FILTER,
	};

	for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++)
		if (plain[i] == type)
			return true;
	return false;
}

static bool is_per_cpu(enum bpf_map_type type)
{
	return type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

/* About what the kernel takes for it when it is full. */
static uint64_t map_bytes(const struct bpf_map *map)
{
	uint64_t key = bpf_map__key_size(map),
		 value = ((uint64_t)bpf_map__value_size(map) + 7) & ~7u;
	int cpus = libbpf_num_possible_cpus();

	if (bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF)
		return bpf_map__max_entries(map);
	if (is_per_cpu(bpf_map__type(map)))
		value *= cpus > 0 ? (uint64_t)cpus : 1;
	/* a product of 32 and 34 bits, which fits, as long as there are under 2^30 CPUs */
	return key + value > UINT32_MAX ? UINT64_MAX : (key + value) * bpf_map__max_entries(map);
}

static int check_own(const struct bpf_map *map, bool pinned, uint64_t *sum,
		     struct steer_report *report)
{
	const char *name = bpf_map__name(map);
	uint64_t bytes = map_bytes(map);

	if (!is_plain(bpf_map__type(map)))
		return report_fail(report, STEER_CHECK_MAPS,
				   "map \"%.64s\" is of a type that a program may not bring (%s)",
				   name,
				   libbpf_bpf_map_type_str(bpf_map__type(map))
					   ? libbpf_bpf_map_type_str(bpf_map__type(map))
					   : "unknown");
	if (pinned)
		return report_fail(report, STEER_CHECK_MAPS,
				   "map \"%.64s\" is to be pinned, but no map in service has its "
				   "name: leave \"pinning\" out",
				   name);
	if (bytes > TRIAL_MAP_BYTES || (*sum += bytes) > TRIAL_MAP_BYTES)
		return report_fail(report, STEER_CHECK_MAPS,
				   "its own maps, \"%.64s\" among them, take more than %d MiB",
				   name, TRIAL_MAP_BYTES >> 20);
	return 0;
}

static int check_maps(const struct steer_trial *trial, struct bpf_object *object,
		      struct steer_report *report)
{
	struct bpf_map *map;
	uint64_t sum = 0;
	int r = 0;

	bpf_object__for_each_map (map, object) {
		const struct trial_map *live = trial_find_map(trial, bpf_map__name(map));

		r = live ? check_shape(map, live, report)
			 : check_own(map, bpf_map__pin_path(map) != NULL, &sum, report);
		if (r < 0)
			break;
	}
	return r;
}

/* --- loading --- */

/* The end of the log: what was refused stands there. */
static void keep_log(struct steer_report *report, const char *log)
{
	size_t len = strlen(log);

	if (len >= TRIAL_LOG_MAX)
		log += len - TRIAL_LOG_MAX + 1;
	report->log = strdup(log);
}

/* The last line that is not a statistic. */
static void find_sentence(const char *log, char *ret_text, size_t size)
{
	ret_text[0] = '\0';
	while (*log) {
		size_t len = strcspn(log, "\n");

		if (len && strncmp(log, "processed ", 10) != 0 &&
		    strncmp(log, "verification time", 17) != 0 &&
		    strncmp(log, "stack depth", 11) != 0)
			snprintf(ret_text, size, "%.*s", (int)len, log);
		log += len + (log[len] == '\n');
	}
}

static int refused(int r, const char *log, const char *said, struct steer_report *report)
{
	char why[256];

	report->check = STEER_CHECK_VERIFIER;
	if (!*log) {
		/* Not the program: the kernel had no room for it, or for its maps. */
		snprintf(report->text, sizeof(report->text),
			 "the kernel does not load it: %s%s%.300s", strerror(-r), *said ? "; " : "",
			 said);
		return r;
	}
	keep_log(report, log);
	find_sentence(log, why, sizeof(why));
	return report_fail(report, STEER_CHECK_VERIFIER,
			   "the kernel's verifier refuses the program: %s", why);
}

static int load(struct bpf_object *object, struct bpf_program *program, struct steer_report *report)
{
	char *log = calloc(1, TRIAL_VERIFIER_LOG), said[256];
	int r;

	if (!log)
		return -ENOMEM;
	r = bpf_program__set_log_buf(program, log, TRIAL_VERIFIER_LOG);
	if (r == 0) {
		steer_capture_libbpf(said, sizeof(said));
		r = bpf_object__load(object);
		steer_capture_libbpf(NULL, 0);
		/* libbpf keeps the pointer */
		(void)bpf_program__set_log_buf(program, NULL, 0);
		if (r < 0)
			r = refused(r, log, said, report);
	}
	free(log);
	return r;
}

int candidate_open(const struct steer_trial *trial, const uint8_t *elf, size_t size,
		   enum trial_maps which, struct steer_report *ret_report,
		   struct bpf_object **ret_object, struct bpf_program **ret_program)
{
	struct bpf_object *object = NULL;
	struct hf_program says;
	char said[256];
	int r = steer_program_read(elf, size, &says, ret_report);

	if (r < 0)
		return r;
	r = trial_open(elf, size, said, sizeof(said), &object);
	if (r < 0)
		return report_fail(ret_report, STEER_CHECK_ELF, "libbpf does not open it: %.300s",
				   *said ? said : strerror(-r));
	r = check_type(object, ret_report, ret_program);
	if (r == 0)
		r = check_maps(trial, object, ret_report);
	if (r == 0)
		r = trial_share(trial, object, which);
	if (r == 0)
		r = load(object, *ret_program, ret_report);
	if (r < 0) {
		bpf_object__close(object);
		if (!ret_report->text[0])
			snprintf(ret_report->text, sizeof(ret_report->text),
				 "it cannot be loaded: %s", strerror(-r));
		return r;
	}
	*ret_object = object;
	return 0;
}

/* --- the trial --- */

static int try_corpus(const struct steer_trial *trial, const uint8_t *elf, size_t size,
		      struct steer_report *report)
{
	struct bpf_object *object;
	struct bpf_program *program;
	int r = candidate_open(trial, elf, size, TRIAL_MAPS_OWN, report, &object, &program);

	if (r < 0)
		return r;
	r = corpus_run(trial, object, program, report);
	bpf_object__close(object);
	return r;
}

/* Loaded anew: the corpus may have left something in its maps. */
static int try_golden(const struct steer_trial *trial, const uint8_t *elf, size_t size,
		      struct steer_report *report)
{
	struct bpf_object *object;
	struct bpf_program *program;
	struct hf_golden *packets;
	size_t count;
	int r = object_golden(elf, size, &packets, &count, report);

	if (r < 0)
		return r;
	if (!count) {
		free(packets);
		return 0;
	}
	r = candidate_open(trial, elf, size, TRIAL_MAPS_OWN, report, &object, &program);
	if (r == 0) {
		r = golden_run(trial, packets, count, object, program, report);
		bpf_object__close(object);
	}
	free(packets);
	return r;
}

int steer_trial_run(const struct steer_trial *trial, const uint8_t *elf, size_t size,
		    struct steer_report *ret_report)
{
	int r = try_corpus(trial, elf, size, ret_report);

	if (r == 0)
		r = try_golden(trial, elf, size, ret_report);
	if (r < 0 && !ret_report->text[0])
		snprintf(ret_report->text, sizeof(ret_report->text), "it cannot be tried: %s",
			 strerror(-r));
	return r;
}

/* --- candidates --- */

int steer_candidate_load(const struct steer_trial *trial, const uint8_t *elf, size_t size,
			 struct steer_report *ret_report, struct steer_candidate **ret_candidate)
{
	struct steer_candidate *candidate = calloc(1, sizeof(*candidate));
	int r = -ENOMEM;

	*ret_report = (struct steer_report){0};
	if (!candidate)
		return r;
	candidate->elf = malloc(size ? size : 1);
	if (candidate->elf)
		r = candidate_open(trial, elf, size, TRIAL_MAPS_LIVE, ret_report,
				   &candidate->object, &candidate->program);
	if (r == 0) {
		memcpy(candidate->elf, elf, size);
		candidate->size = size;
		r = steer_program_read(elf, size, &candidate->says, ret_report);
	}
	if (r < 0) {
		steer_candidate_free(candidate);
		return r;
	}
	*ret_candidate = candidate;
	return 0;
}

void steer_candidate_free(struct steer_candidate *candidate)
{
	if (!candidate)
		return;
	watch_free(candidate->watch);
	bpf_object__close(candidate->object);
	free(candidate->elf);
	free(candidate);
}

const uint8_t *candidate_elf(const struct steer_candidate *candidate, size_t *ret_size)
{
	*ret_size = candidate->size;
	return candidate->elf;
}

const char *candidate_name(const struct steer_candidate *candidate)
{
	return candidate->says.name;
}

int candidate_fd(const struct steer_candidate *candidate)
{
	return candidate->watch ? watch_fd(candidate->watch) : bpf_program__fd(candidate->program);
}

/* libbpf adds the flag of such a section by itself, at load, and does not tell. */
static uint32_t load_flags(const struct bpf_program *program)
{
	bool frags = !strncmp(bpf_program__section_name(program), "xdp.frags", 9);

	return bpf_program__flags(program) | (frags ? BPF_F_XDP_HAS_FRAGS : 0);
}

int steer_candidate_watch(struct steer_candidate *candidate, bool on)
{
	if (on == (candidate->watch != NULL))
		return 0;
	if (on)
		return watch_new(candidate->program, load_flags(candidate->program),
				 &candidate->watch);
	watch_free(candidate->watch);
	candidate->watch = NULL;
	return 0;
}

int steer_candidate_counts(const struct steer_candidate *candidate,
			   struct steer_watch_counts *ret_counts)
{
	return candidate->watch ? watch_counts(candidate->watch, ret_counts) : -ENOENT;
}
