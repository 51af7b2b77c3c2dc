/* What a string of the configuration may look like. Pure predicates. Internal to config. */
#pragma once

#include <stdbool.h>

bool valid_name(const char *text);
bool valid_interface(const char *text);
bool valid_path(const char *text);
bool valid_host_glob(const char *text);
bool valid_path_glob(const char *text);
bool valid_token(const char *text);
bool valid_source(const char *text);
bool valid_url(const char *text);
bool valid_connect(const char *text);
bool valid_listen(const char *text);
