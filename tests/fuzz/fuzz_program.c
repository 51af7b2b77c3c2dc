/*
 * libFuzzer: any bytes as a program that was uploaded. What is read must keep the promises of
 * its struct; what is refused must say why; and what is read must not make libbpf fall over,
 * which opens it next (no kernel is asked).
 *
 *   clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Iserver -Ibpf \
 *         tests/fuzz/fuzz_program.c server/steer/object.c server/steer/object_btf.c \
 *         server/base/ip.c -lbpf -lelf
 *
 * The example objects of the build are a good corpus: bpf/examples and bpf/bad.
 */
#include "steer/object.h"

#include <bpf/libbpf.h>
#include <stdlib.h>
#include <string.h>

static void must(int condition)
{
	if (!condition)
		abort();
}

static int silent(enum libbpf_print_level level, const char *format, va_list args)
{
	return 0;
}

static void read_golden(const uint8_t *data, size_t size)
{
	struct steer_report report = {0};
	struct hf_golden *packets = NULL;
	size_t count = 0;

	must(object_golden(data, size, &packets, &count, &report) == 0);
	must(count <= HF_GOLDEN_MAX);
	for (size_t i = 0; i < count; i++)
		must(packets[i].len <= HF_GOLDEN_BYTES && packets[i].out_len <= HF_GOLDEN_BYTES &&
		     memchr(packets[i].name, '\0', sizeof(packets[i].name)));
	free(packets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct steer_report report = {0};
	struct hf_program program;
	struct bpf_object *object;

	libbpf_set_print(silent);
	if (steer_program_read(data, size, &program, &report) < 0) {
		must(report.text[0] && !report.log);
		return 0;
	}
	must(program.magic == HF_PROGRAM_MAGIC && program.abi == HF_ABI_VERSION);
	must(program.name[0] && strnlen(program.name, sizeof(program.name)) < 32);
	read_golden(data, size);
	object = bpf_object__open_mem(data, size, NULL);
	if (object)
		bpf_object__close(object);
	return 0;
}
