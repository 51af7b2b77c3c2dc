#include "steer/watch.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Functions of a program that the kernel knows by their types; it allows no more than 256. */
enum { FUNCTIONS_MAX = 256, ACTIONS = XDP_REDIRECT + 1 };

struct watch {
	int map_fd, program_fd;
};

#define INSN(c, dst, src, offset, value)                                                         \
	{                                                                                        \
		.code = (c), .dst_reg = (dst), .src_reg = (src), .off = (offset), .imm = (value) \
	}

/*
 *     action = program(ctx);
 *     count = bpf_map_lookup_elem(&counts, action > XDP_REDIRECT ? XDP_ABORTED : action);
 *     if (count)
 *             ++*count;
 *     return action;
 *
 * What is no action the kernel takes for XDP_ABORTED. The map is per CPU.
 */
enum { WRAPPER_LENGTH = 16, WRAPPER_MAP = 7 };
static const struct bpf_insn wrapper[WRAPPER_LENGTH] = {
	INSN(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_CALL, 0, WRAPPER_LENGTH - 1),
	INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_0, 0, 0),
	INSN(BPF_JMP | BPF_JLE | BPF_K, BPF_REG_0, 0, 1, XDP_REDIRECT),
	INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, XDP_ABORTED),
	INSN(BPF_STX | BPF_MEM | BPF_W, BPF_REG_10, BPF_REG_0, -4, 0),
	INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
	INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
	[WRAPPER_MAP] = INSN(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, 0),
	INSN(0, 0, 0, 0, 0),
	INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
	INSN(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 3, 0),
	INSN(BPF_LDX | BPF_MEM | BPF_DW, BPF_REG_1, BPF_REG_0, 0, 0),
	INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_1, 0, 0, 1),
	INSN(BPF_STX | BPF_MEM | BPF_DW, BPF_REG_0, BPF_REG_1, 0, 0),
	INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_0, BPF_REG_6, 0, 0),
	INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
};

/* --- the types of its functions --- */

/* Global functions are verified each for itself, and that is what makes large programs pass: the
 * kernel knows them by these records, in the order of the functions. */
struct functions {
	struct bpf_func_info items[FUNCTIONS_MAX + 1];
	uint32_t count, size; /* size: of one item */
	int btf_fd;	      /* -1: none */
};

static int compare_offsets(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

/* Where the functions begin: at 0, and where calls and references go. */
static size_t find_starts(const struct bpf_insn *insns, size_t count, uint32_t *starts, size_t max)
{
	size_t found = 1, unique = 1;

	starts[0] = 0;
	for (size_t i = 0; i < count; i++) {
		bool call = insns[i].code == (BPF_JMP | BPF_CALL) &&
			    insns[i].src_reg == BPF_PSEUDO_CALL;
		bool wide = insns[i].code == (BPF_LD | BPF_DW | BPF_IMM);

		if (call || (wide && insns[i].src_reg == BPF_PSEUDO_FUNC)) {
			if (found == max)
				return 0;
			starts[found++] = (uint32_t)((int64_t)i + 1 + insns[i].imm);
		}
		i += wide;
	}
	qsort(starts, found, sizeof(starts[0]), compare_offsets);
	for (size_t i = 1; i < found; i++)
		if (starts[i] != starts[unique - 1])
			starts[unique++] = starts[i];
	return unique;
}

/* The wrapper is first, and of the type of the program; all others stand behind it. */
static void place(struct functions *functions, const uint32_t *starts)
{
	functions->items[0] = functions->items[1];
	functions->items[0].insn_off = 0;
	for (uint32_t i = 0; i < functions->count; i++)
		functions->items[i + 1].insn_off = starts[i] + WRAPPER_LENGTH;
	functions->count++;
}

/* As the kernel has them of the program that is loaded. Where they do not fit its functions
 * (the verifier took dead ones out) the wrapper is loaded without. */
static void find_functions(const struct bpf_program *program, struct functions *functions)
{
	uint32_t starts[16 * FUNCTIONS_MAX];
	struct bpf_prog_info info = {
		.func_info = (uintptr_t)&functions->items[1],
		.func_info_rec_size = sizeof(functions->items[0]),
		.nr_func_info = FUNCTIONS_MAX,
	};
	__u32 len = sizeof(info);
	size_t count = find_starts(bpf_program__insns(program), bpf_program__insn_cnt(program),
				   starts, sizeof(starts) / sizeof(starts[0]));

	functions->btf_fd = -1;
	if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &len) < 0 || !info.btf_id ||
	    info.func_info_rec_size != sizeof(functions->items[0]) || info.nr_func_info != count ||
	    count > FUNCTIONS_MAX)
		return;
	functions->btf_fd = bpf_btf_get_fd_by_id(info.btf_id);
	functions->count = info.nr_func_info;
	place(functions, starts);
}

/* --- the wrapper --- */

static int load(struct watch *watch, const struct bpf_program *program, uint32_t flags,
		const struct functions *functions)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = flags, .expected_attach_type = BPF_XDP);
	size_t count = bpf_program__insn_cnt(program);
	struct bpf_insn *insns = malloc(sizeof(wrapper) + count * sizeof(*insns));

	if (!insns)
		return -ENOMEM;
	memcpy(insns, wrapper, sizeof(wrapper));
	memcpy(insns + WRAPPER_LENGTH, bpf_program__insns(program), count * sizeof(*insns));
	insns[WRAPPER_MAP].imm = watch->map_fd;
	if (functions->btf_fd >= 0) {
		opts.prog_btf_fd = (__u32)functions->btf_fd;
		opts.func_info = functions->items;
		opts.func_info_cnt = functions->count;
		opts.func_info_rec_size = sizeof(functions->items[0]);
	}
	watch->program_fd = bpf_prog_load(BPF_PROG_TYPE_XDP, bpf_program__name(program), "GPL",
					  insns, WRAPPER_LENGTH + count, &opts);
	free(insns);
	return watch->program_fd < 0 ? -EOPNOTSUPP : 0;
}

int watch_new(const struct bpf_program *program, uint32_t flags, struct watch **ret_watch)
{
	struct functions *functions = calloc(1, sizeof(*functions));
	struct watch *watch = calloc(1, sizeof(*watch));
	int r = -ENOMEM;

	if (!watch)
		goto out;
	watch->program_fd = watch->map_fd = -1;
	if (!functions)
		goto out;
	watch->map_fd = bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "hf_watch", sizeof(__u32),
				       sizeof(__u64), ACTIONS, NULL);
	r = watch->map_fd < 0 ? watch->map_fd : 0;
	if (r < 0)
		goto out;
	find_functions(program, functions);
	r = load(watch, program, flags, functions);
	if (functions->btf_fd >= 0)
		close(functions->btf_fd);
out:
	free(functions);
	if (r < 0) {
		watch_free(watch);
		return r;
	}
	*ret_watch = watch;
	return 0;
}

void watch_free(struct watch *watch)
{
	if (!watch)
		return;
	if (watch->program_fd >= 0)
		close(watch->program_fd);
	if (watch->map_fd >= 0)
		close(watch->map_fd);
	free(watch);
}

int watch_fd(const struct watch *watch)
{
	return watch->program_fd;
}

int watch_counts(const struct watch *watch, struct steer_watch_counts *ret_counts)
{
	struct steer_watch_counts counts = {0};
	uint64_t *const totals[ACTIONS] = {
		[XDP_ABORTED] = &counts.aborted,     [XDP_DROP] = &counts.dropped,
		[XDP_PASS] = &counts.passed,	     [XDP_TX] = &counts.sent,
		[XDP_REDIRECT] = &counts.redirected,
	};
	int cpus = libbpf_num_possible_cpus(), r = 0;
	uint64_t *values = cpus > 0 ? calloc((size_t)cpus, sizeof(*values)) : NULL;

	if (!values)
		return cpus < 0 ? cpus : -ENOMEM;
	for (__u32 action = 0; r == 0 && action < ACTIONS; action++) {
		r = bpf_map_lookup_elem(watch->map_fd, &action, values);
		for (int i = 0; r == 0 && i < cpus; i++)
			*totals[action] += values[i];
	}
	free(values);
	if (r == 0)
		*ret_counts = counts;
	return r;
}
