#include "config/config.h"

#include "config/read.h"
#include "config/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct config *config_ref(struct config *config)
{
	config->refs++;
	return config;
}

void config_unref(struct config *config)
{
	if (!config || --config->refs)
		return;
	for (size_t i = 0; i < config->rule_count; i++)
		free(config->rules[i].match.sources);
	free(config->defaults.name);
	group_free(&config_keys, config);
	free(config);
}

static struct config *config_new(void)
{
	struct config *config = calloc(1, sizeof(*config));

	if (!config)
		return NULL;
	config->refs = 1;
	config->defaults.name = strdup("defaults");
	if (!config->defaults.name) {
		free(config);
		return NULL;
	}
	return config;
}

/* text has been scanned: what json-c still refuses is no UTF-8 or a number out of range. */
static int read_json(const char *text, size_t len, struct config_errors *errors,
		     struct json_object **ret_root)
{
	struct json_tokener *tokener = json_tokener_new();
	int line = 1;

	if (!tokener)
		return -ENOMEM;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8 |
						JSON_TOKENER_ALLOW_TRAILING_CHARS);
	*ret_root = json_tokener_parse_ex(tokener, text, (int)len);
	if (!*ret_root) {
		size_t end = json_tokener_get_parse_end(tokener);

		for (size_t i = 0; i < end && i < len; i++)
			line += text[i] == '\n';
		errors_add(errors, "", line, "%s",
			   json_tokener_error_desc(json_tokener_get_error(tokener)));
	}
	json_tokener_free(tokener);
	return *ret_root ? 0 : -EINVAL;
}

int config_parse(const char *text, size_t len, struct config_errors *errors,
		 struct config **ret_config)
{
	struct json_object *root = NULL;
	struct config *config = NULL;
	char *copy;
	int r, checked;

	errors->count = 0;
	if (len > CONFIG_FILE_MAX)
		return errors_add(errors, "", 0, "the file is too large: at most %d bytes",
				  CONFIG_FILE_MAX);
	copy = malloc(len + 1);
	config = config_new();
	r = -ENOMEM;
	if (!copy || !config)
		goto out;
	if (len)
		memcpy(copy, text, len);
	copy[len] = '\0';
	r = config_scan(copy, len, errors);
	if (r < 0)
		goto out;
	r = read_json(copy, len, errors, &root);
	if (r < 0)
		goto out;
	r = config_read(root, config, errors);
	if (r == -ENOMEM)
		goto out;
	checked = config_check(root, config, errors);
	if (checked < 0)
		r = checked;
out:
	json_object_put(root);
	free(copy);
	if (r == 0)
		*ret_config = config;
	else
		config_unref(config);
	return r;
}

static int read_whole(int fd, char *buffer, size_t size, size_t *ret_len)
{
	size_t len = 0;

	while (len < size) {
		ssize_t n = read(fd, buffer + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret_len = len;
	return 0;
}

int config_load(const char *path, struct config_errors *errors, struct config **ret_config)
{
	size_t size = CONFIG_FILE_MAX + 1, len = 0;
	char *buffer = NULL;
	int fd, r = 0;

	errors->count = 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		r = -errno;
	if (r == 0) {
		buffer = malloc(size);
		r = buffer ? read_whole(fd, buffer, size, &len) : -ENOMEM;
	}
	if (r < 0)
		errors_add(errors, "", 0, "cannot read %s: %s", path, strerror(-r));
	else
		r = config_parse(buffer, len, errors, ret_config);
	free(buffer);
	if (fd >= 0)
		close(fd);
	return r;
}
