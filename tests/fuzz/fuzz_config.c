/*
 * libFuzzer: any bytes as a configuration. What is taken must be the same when it is
 * written out and read again; what is refused must say why.
 *
 *   clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Iserver \
 *         tests/fuzz/fuzz_config.c server/config/[a-z]*.c server/base/ip.c \
 *         server/base/error.c -ljson-c
 */
#include "config/config.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

static void must(int condition)
{
	if (!condition)
		abort();
}

static void read_again(const struct config *config)
{
	static struct config_errors errors;
	struct json_object *first = config_to_json(config), *second;
	const char *text = json_object_to_json_string(first);
	struct config *again = NULL;

	must(config_parse(text, strlen(text), &errors, &again) == 0);
	second = config_to_json(again);
	must(!strcmp(text, json_object_to_json_string(second)));
	json_object_put(first);
	json_object_put(second);
	config_unref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config_errors errors;
	struct rule_facts facts = {.host = "a.fleet.example",
				   .port = 443,
				   .method = "POST",
				   .path = "/v1/x?y",
				   .protocol = PROTOCOL_HTTP,
				   .source_interface = "lo"};
	struct config *config = NULL;

	if (config_parse((const char *)data, size, &errors, &config) < 0) {
		must(errors.count > 0 && !config);
		return 0;
	}
	must(config_match(config, &facts) != NULL);
	read_again(config);
	config_unref(config);
	return 0;
}
