/*
 * Corrupt databases that were put aside, DIR/holdfast.db.corrupt-TIME with what lay beside them:
 * for a person to look into. The newest STORE_ASIDE_MAX are kept.
 * Used by database.c alone; blocks.
 */
#pragma once

#include <stddef.h>

/* Renames DIR/holdfast.db with its log and journal. ret_name: the new name, without the folder. */
int aside_put(const char *dir, char *ret_name, size_t size) __attribute__((warn_unused_result));
