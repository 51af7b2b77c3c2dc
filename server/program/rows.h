/*
 * Programs in the store: the tables program, program_elf (a table of its own, so that a change
 * of a row does not write a megabyte again), program_event and program_newest.
 */
#pragma once

#include "program/program.h"

struct program_row {
	char id[ID_TEXT_MAX];
	char name[32], version[32];
	uint32_t abi;
	uint8_t digest[PROGRAM_DIGEST_BYTES];
	bool has_signature;
	uint8_t signature[PROGRAM_SIGNATURE_BYTES];
	char signed_by[128];
	size_t size;
	int64_t uploaded, activated, confirmed; /* wall ms; 0: never */
	int64_t order; /* of confirmation; the largest is in service; 0: not confirmed, or undone */
	bool probation;
	uint64_t dropped, counted; /* packets while it was on probation */
};
/* The newest version that was confirmed under a name; kept when the program is deleted. */
struct program_newest {
	char name[32], version[32];
};

typedef void (*rows_cb)(void *arg, int status);
/* elf: the callee frees it. */
typedef void (*rows_elf_cb)(void *arg, int status, uint8_t *elf, size_t size);

/* --- before the loop runs --- */
struct rows_load {
	void *arg;
	int (*on_row)(void *arg, const struct program_row *row);
	int (*on_event)(void *arg, const char *id, const struct program_event *event);
	int (*on_newest)(void *arg, const struct program_newest *newest);
};
/* Makes the tables, and calls back for each row, oldest first. */
int rows_open(struct store *store, const struct rows_load *load)
	__attribute__((warn_unused_result));
int rows_elf_now(struct store *store, const char *id, uint8_t **ret_elf, size_t *ret_size)
	__attribute__((warn_unused_result));

/* --- on the loop; the callback comes after the commit --- */
int rows_insert(struct store *store, const struct program_row *row, const uint8_t *elf,
		const struct program_event *event, rows_cb cb, void *arg)
	__attribute__((warn_unused_result));
int rows_delete(struct store *store, const char *id, rows_cb cb, void *arg)
	__attribute__((warn_unused_result));
int rows_elf(struct store *store, const char *id, rows_elf_cb cb, void *arg)
	__attribute__((warn_unused_result));

/* Many changes in one transaction: a save is a copy of all rows, changed before it is submitted. */
struct save;
struct save *save_new(void);
void save_free(struct save *save); /* one that was not submitted */
void save_row(struct save *save, const struct program_row *row);
void save_changed(struct save *save, const struct program_row *row); /* of the same id */
void save_event(struct save *save, const char *id, const struct program_event *event);
void save_newest(struct save *save, const struct program_newest *newest);
/* Takes the save, also on an error. */
int save_submit(struct store *store, struct save *save, rows_cb cb, void *arg)
	__attribute__((warn_unused_result));
int save_now(struct store *store, struct save *save) __attribute__((warn_unused_result));
