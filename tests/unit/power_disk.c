#include "power_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 512, ENTRIES_MAX = 16 };

struct change {
	uint64_t offset; /* of a truncation: the new length */
	size_t len;
	uint8_t *bytes; /* NULL: a truncation */
};

/* What a file is, whatever its name. */
struct inode {
	unsigned refs; /* one a name, one a descriptor */
	uint8_t *durable;
	size_t durable_len, durable_capacity;
	struct change *changes; /* since the last sync */
	size_t change_count, change_capacity;
};

struct entry {
	char path[PATH_MAX];
	struct inode *now, *durable; /* NULL: no such file */
};

struct file {
	sqlite3_file base;
	struct inode *inode;
	bool is_database;
	sqlite3_file *real; /* behind this struct */
};

static struct {
	sqlite3_vfs vfs, *real;
	char folder[PATH_MAX], parent[PATH_MAX];
	enum power_lie lie;
	bool folder_is_durable, off;
	unsigned steps, goes_at;
	struct entry entries[ENTRIES_MAX];
	size_t entry_count;
} disk;

static void must(bool true_or_no_test)
{
	if (!true_or_no_test)
		abort();
}

/* --- inodes and names --- */

static void drop_changes(struct inode *inode)
{
	for (size_t i = 0; i < inode->change_count; i++)
		free(inode->changes[i].bytes);
	inode->change_count = 0;
}

static struct inode *inode_ref(struct inode *inode)
{
	if (inode)
		inode->refs++;
	return inode;
}

static void inode_unref(struct inode *inode)
{
	if (!inode || --inode->refs)
		return;
	drop_changes(inode);
	free(inode->changes);
	free(inode->durable);
	free(inode);
}

static struct inode *inode_new(void)
{
	struct inode *inode = calloc(1, sizeof(*inode));

	must(inode);
	return inode;
}

static void inode_changes(struct inode *inode, uint64_t offset, const void *bytes, size_t len)
{
	struct change *change;

	if (inode->change_count == inode->change_capacity) {
		inode->change_capacity = inode->change_capacity ? 2 * inode->change_capacity : 64;
		inode->changes =
			realloc(inode->changes, inode->change_capacity * sizeof(*inode->changes));
		must(inode->changes);
	}
	change = &inode->changes[inode->change_count++];
	*change = (struct change){.offset = offset, .len = len};
	if (bytes) {
		change->bytes = malloc(len + 1);
		must(change->bytes);
		memcpy(change->bytes, bytes, len);
	}
}

static struct entry *entry_of(const char *path)
{
	for (size_t i = 0; i < disk.entry_count; i++)
		if (strcmp(disk.entries[i].path, path) == 0)
			return &disk.entries[i];
	must(disk.entry_count < ENTRIES_MAX);
	snprintf(disk.entries[disk.entry_count].path, PATH_MAX, "%s", path);
	return &disk.entries[disk.entry_count++];
}

static void set_ref(struct inode **at, struct inode *inode)
{
	inode_ref(inode);
	inode_unref(*at);
	*at = inode;
}

static void sync_folder(void)
{
	if (disk.off || disk.lie == POWER_LIES_FOLDER)
		return;
	for (size_t i = 0; i < disk.entry_count; i++)
		set_ref(&disk.entries[i].durable, disk.entries[i].now);
}

/* --- content --- */

static void set_len(struct inode *inode, size_t len, unsigned *rubbish)
{
	if (len > inode->durable_capacity) {
		inode->durable_capacity = 2 * len;
		inode->durable = realloc(inode->durable, inode->durable_capacity);
		must(inode->durable);
	}
	if (len > inode->durable_len) {
		for (size_t i = inode->durable_len; i < len; i++)
			inode->durable[i] = rubbish ? (uint8_t)rand_r(rubbish) : 0;
	}
	inode->durable_len = len;
}

static void put_bytes(struct inode *inode, uint64_t offset, const uint8_t *bytes, size_t len,
		      unsigned *rubbish)
{
	if (offset + len > inode->durable_len)
		set_len(inode, offset + len, rubbish);
	if (len)
		memcpy(inode->durable + offset, bytes, len);
}

static void put_change(struct inode *inode, const struct change *change, unsigned *rubbish)
{
	if (change->bytes)
		put_bytes(inode, change->offset, change->bytes, change->len, rubbish);
	else if (change->offset < inode->durable_len)
		inode->durable_len = change->offset;
	else
		set_len(inode, change->offset, NULL);
}

/* Sectors of one write that are on the disk, the others not. */
static void put_torn(struct inode *inode, const struct change *change, unsigned *seed,
		     unsigned *rubbish)
{
	uint64_t at = change->offset, end = change->offset + change->len;

	while (at < end) {
		uint64_t next = (at / SECTOR + 1) * SECTOR < end ? (at / SECTOR + 1) * SECTOR : end;

		if (rand_r(seed) % 2)
			put_bytes(inode, at, change->bytes + (at - change->offset), next - at,
				  rubbish);
		at = next;
	}
}

static void sync_inode(struct inode *inode)
{
	for (size_t i = 0; i < inode->change_count; i++)
		put_change(inode, &inode->changes[i], NULL);
	drop_changes(inode);
}

enum fate { FATE_NONE, FATE_ALL, FATE_FIRST, FATE_ANY, FATE_SECTORS, FATES };

static void lose_changes(struct inode *inode, unsigned *seed)
{
	enum fate fate = (enum fate)(rand_r(seed) % FATES);
	size_t first = inode->change_count ? (size_t)rand_r(seed) % inode->change_count : 0;
	unsigned *rubbish = rand_r(seed) % 4 == 0 ? seed : NULL;

	for (size_t i = 0; i < inode->change_count; i++) {
		struct change *change = &inode->changes[i];
		bool torn = change->bytes &&
			    (fate == FATE_SECTORS || (fate == FATE_FIRST && i == first));

		if (torn)
			put_torn(inode, change, seed, rubbish);
		else if (fate == FATE_ALL || (fate == FATE_FIRST && i < first) ||
			 (fate != FATE_NONE && fate != FATE_FIRST && rand_r(seed) % 2))
			put_change(inode, change, rubbish);
	}
	drop_changes(inode);
}

static void write_real(const char *path, const struct inode *inode)
{
	int fd;

	if (!inode) {
		unlink(path);
		return;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0);
	for (size_t done = 0; done < inode->durable_len;) {
		ssize_t n = write(fd, inode->durable + done, inode->durable_len - done);

		must(n > 0);
		done += (size_t)n;
	}
	close(fd);
}

/* --- the methods of a file --- */

/* Has the power gone, now or before? */
static bool step(void)
{
	disk.steps++;
	if (disk.goes_at && --disk.goes_at == 0)
		disk.off = true;
	return disk.off;
}

static struct file *file_of(sqlite3_file *base)
{
	return (struct file *)base;
}

static int file_close(sqlite3_file *base)
{
	struct file *file = file_of(base);
	int r = file->real->pMethods->xClose(file->real);

	inode_unref(file->inode);
	file->inode = NULL;
	return r;
}

static int file_read(sqlite3_file *base, void *buffer, int len, sqlite3_int64 offset)
{
	struct file *file = file_of(base);

	if (disk.off)
		return SQLITE_IOERR_READ;
	return file->real->pMethods->xRead(file->real, buffer, len, offset);
}

static int file_write(sqlite3_file *base, const void *bytes, int len, sqlite3_int64 offset)
{
	struct file *file = file_of(base);
	bool was_off = disk.off;

	/* The write at which the power goes may be on the disk, too. */
	if (!was_off)
		inode_changes(file->inode, (uint64_t)offset, bytes, (size_t)len);
	if (step())
		return SQLITE_IOERR_WRITE;
	return file->real->pMethods->xWrite(file->real, bytes, len, offset);
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 len)
{
	struct file *file = file_of(base);

	if (!disk.off)
		inode_changes(file->inode, (uint64_t)len, NULL, 0);
	if (step())
		return SQLITE_IOERR_TRUNCATE;
	return file->real->pMethods->xTruncate(file->real, len);
}

static int file_sync(sqlite3_file *base, int flags)
{
	struct file *file = file_of(base);

	if (step())
		return SQLITE_IOERR_FSYNC;
	if (disk.lie != (file->is_database ? POWER_LIES_DATABASE : POWER_LIES_LOG))
		sync_inode(file->inode);
	return file->real->pMethods->xSync(file->real, flags);
}

static int file_size(sqlite3_file *base, sqlite3_int64 *ret_size)
{
	struct file *file = file_of(base);

	return disk.off ? SQLITE_IOERR_FSTAT
			: file->real->pMethods->xFileSize(file->real, ret_size);
}

static int file_lock(sqlite3_file *base, int level)
{
	struct file *file = file_of(base);

	return file->real->pMethods->xLock(file->real, level);
}

static int file_unlock(sqlite3_file *base, int level)
{
	struct file *file = file_of(base);

	return file->real->pMethods->xUnlock(file->real, level);
}

static int file_check_lock(sqlite3_file *base, int *ret)
{
	struct file *file = file_of(base);

	return file->real->pMethods->xCheckReservedLock(file->real, ret);
}

/* Hints to the real file must not change its size unseen. */
static int file_control(sqlite3_file *base, int op, void *arg)
{
	struct file *file = file_of(base);

	if (op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE)
		return SQLITE_OK;
	return file->real->pMethods->xFileControl(file->real, op, arg);
}

static int file_sector_size(sqlite3_file *base)
{
	return SECTOR;
}

static int file_characteristics(sqlite3_file *base)
{
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* as "unix" says by itself */
}

/* Version 1 has no shared memory: the daemon opens exclusively. */
static const sqlite3_io_methods methods = {
	.iVersion = 1,
	.xClose = file_close,
	.xRead = file_read,
	.xWrite = file_write,
	.xTruncate = file_truncate,
	.xSync = file_sync,
	.xFileSize = file_size,
	.xLock = file_lock,
	.xUnlock = file_unlock,
	.xCheckReservedLock = file_check_lock,
	.xFileControl = file_control,
	.xSectorSize = file_sector_size,
	.xDeviceCharacteristics = file_characteristics,
};

/* --- the methods of the disk --- */

static struct inode *inode_at(const char *path)
{
	struct entry *entry = entry_of(path);

	if (!entry->now)
		set_ref(&entry->now, inode_new());
	return entry->now;
}

static int disk_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *base, int flags,
		     int *ret_flags)
{
	struct file *file = file_of(base);
	bool creates = flags & SQLITE_OPEN_CREATE && path && access(path, F_OK) < 0;
	int r;

	base->pMethods = NULL;
	if (disk.off || (creates && step()))
		return SQLITE_CANTOPEN;
	file->real = (sqlite3_file *)(file + 1);
	r = disk.real->xOpen(disk.real, path, file->real, flags, ret_flags);
	if (r != SQLITE_OK)
		return r;
	file->inode = inode_ref(path ? inode_at(path) : inode_new());
	file->is_database = flags & SQLITE_OPEN_MAIN_DB;
	base->pMethods = &methods;
	return SQLITE_OK;
}

static int disk_delete(sqlite3_vfs *vfs, const char *path, int sync)
{
	int r;

	if (step())
		return SQLITE_IOERR_DELETE;
	r = disk.real->xDelete(disk.real, path, sync);
	if (r == SQLITE_OK)
		set_ref(&entry_of(path)->now, NULL);
	if (sync)
		sync_folder();
	return r;
}

static int disk_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret)
{
	return disk.off ? SQLITE_IOERR_ACCESS : disk.real->xAccess(disk.real, path, flags, ret);
}

void power_install(void)
{
	disk.real = sqlite3_vfs_find("unix");
	must(disk.real);
	disk.vfs = *disk.real;
	disk.vfs.iVersion = 1;
	disk.vfs.zName = "power";
	disk.vfs.pNext = NULL;
	disk.vfs.szOsFile = (int)sizeof(struct file) + disk.real->szOsFile;
	disk.vfs.xOpen = disk_open;
	disk.vfs.xDelete = disk_delete;
	disk.vfs.xAccess = disk_access;
	must(sqlite3_vfs_register(&disk.vfs, 1) == SQLITE_OK);
}

/* --- what the program syncs by itself, and what reaches a real disk: nothing --- */

static bool is_folder(const struct stat *st, const char *path)
{
	struct stat other;

	return stat(path, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

static int noticed(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode))
		return 0;
	if (is_folder(&st, disk.folder))
		sync_folder();
	else if (is_folder(&st, disk.parent) && !disk.off && disk.lie != POWER_LIES_FOLDER)
		disk.folder_is_durable = true;
	return 0;
}

int fsync(int fd)
{
	return noticed(fd);
}

int fdatasync(int fd)
{
	return noticed(fd);
}

/* --- the power --- */

void power_watch(const char *folder, enum power_lie lie)
{
	char copy[PATH_MAX];

	for (size_t i = 0; i < disk.entry_count; i++) {
		inode_unref(disk.entries[i].now);
		inode_unref(disk.entries[i].durable);
	}
	memset(disk.entries, 0, sizeof(disk.entries));
	disk.entry_count = 0;
	snprintf(disk.folder, sizeof(disk.folder), "%s", folder);
	snprintf(copy, sizeof(copy), "%s", folder);
	snprintf(disk.parent, sizeof(disk.parent), "%s", dirname(copy));
	disk.lie = lie;
	disk.folder_is_durable = disk.off = false;
	disk.steps = disk.goes_at = 0;
}

void power_goes_after(unsigned steps)
{
	disk.goes_at = steps;
}

bool power_is_off(void)
{
	return disk.off;
}

unsigned power_steps(void)
{
	return disk.steps;
}

static void lose_entry(struct entry *entry, bool folder_lost, unsigned *seed)
{
	struct inode *kept = rand_r(seed) % 2 ? entry->now : entry->durable;

	if (folder_lost)
		kept = NULL;
	if (kept)
		lose_changes(kept, seed);
	set_ref(&entry->now, kept);
	set_ref(&entry->durable, kept);
	write_real(entry->path, kept);
}

/* With all that was made in it beside SQLite. */
static void remove_folder(void)
{
	char path[PATH_MAX + 256];
	struct dirent *entry;
	DIR *dir = opendir(disk.folder);

	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", disk.folder, entry->d_name);
		unlink(path);
	}
	if (dir)
		closedir(dir);
	rmdir(disk.folder);
}

void power_back(unsigned *seed)
{
	bool folder_lost = !disk.folder_is_durable && rand_r(seed) % 2;

	for (size_t i = 0; i < disk.entry_count; i++)
		lose_entry(&disk.entries[i], folder_lost, seed);
	if (folder_lost)
		remove_folder();
	disk.folder_is_durable = !folder_lost;
	disk.off = false;
	disk.goes_at = 0;
}
