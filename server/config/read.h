/* From JSON to struct config, along the table of keys. Internal to config. */
#pragma once

#include "config/keys.h"

#include <json-c/json.h>

/* Fill a zeroed config; every error is added. 0, -EINVAL or -ENOMEM; what was read stays in
 * the config, for config_unref, in any case. */
int config_read(struct json_object *root, struct config *config, struct config_errors *errors)
	__attribute__((warn_unused_result));
/* Free what the keys of the group own. */
void group_free(const struct key_group *group, void *base);

/* What stands between keys: names that must be known, or be there only once. Resolves
 * rule_policy.link_mask and rule_match.sources. 0, -EINVAL or -ENOMEM. */
int config_check(struct json_object *root, struct config *config, struct config_errors *errors)
	__attribute__((warn_unused_result));
