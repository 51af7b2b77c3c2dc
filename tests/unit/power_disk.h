/*
 * A disk for tests that forgets what was not synced when the power goes.
 *
 * A VFS of SQLite, the default one once it is installed, on top of "unix". What is written goes
 * through to the real files, so that all is read back as usual; beside them it keeps what a disk
 * would have for certain: the content at each file's last sync, and the names of files that were
 * in the folder at the folder's last sync. fsync and fdatasync are the program's own: they reach
 * no disk, which makes the rounds fast, and a sync of the folder is noticed by its descriptor.
 *
 * When the power goes, every call fails from then on. power_back() then makes the real files what
 * they might be after it: of the writes since the last sync none, all, the first ones, any ones or
 * any sectors of any ones; what was never written reads as zeros or as rubbish; a file that was
 * made, replaced or removed without a sync of its folder is there or not.
 */
#pragma once

#include <stdbool.h>

enum power_lie {
	POWER_HONEST,
	POWER_LIES_LOG,	     /* a sync of the write-ahead log or a journal does nothing */
	POWER_LIES_DATABASE, /* of the database itself */
	POWER_LIES_FOLDER,   /* of the folder */
};

void power_install(void);
/* From here on this folder, which need not be there yet, is watched. Its parent must be. */
void power_watch(const char *folder, enum power_lie lie);
/* The power goes at the steps-th call that would change the disk; 0: it stays. */
void power_goes_after(unsigned steps);
bool power_is_off(void);
/* Nothing of the folder may be open. */
void power_back(unsigned *seed);
/* How often calls that change the disk were made since the folder is watched. */
unsigned power_steps(void);
