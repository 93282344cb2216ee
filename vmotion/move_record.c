/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/move_record.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "blkmirror/base/log.h"
#include "vmotion/move_journal.h"

#define RECORD_MAGIC UINT64_C(0x313045564f4d4d42)      /* "BMMOVE01" */
#define RECORD_VERSION 1u
#define BLOCK_BYTES 4096u               /* what is written at once; fit for O_DIRECT */
#define SECTOR_BYTES 512u
#define TEMPORARY_PREFIX "."
#define RECORD_DIRECTORY_BYTES 4032
#define RECORD_PATH_BYTES (RECORD_DIRECTORY_BYTES + 64)

/* ---- the format ---- */

struct le32 { uint32_t raw; };
struct le64 { uint64_t raw; };

static struct le32 to_le32(uint32_t value)
{
	return (struct le32){ htole32(value) };
}

static struct le64 to_le64(uint64_t value)
{
	return (struct le64){ htole64(value) };
}

static uint32_t from_le32(struct le32 value)
{
	return le32toh(value.raw);
}

static uint64_t from_le64(struct le64 value)
{
	return le64toh(value.raw);
}

struct record_sector {
	struct le64 magic;              /*   0 */
	struct le64 checksum;           /*   8  XXH3 of the 512 bytes with this field zero */
	struct le32 version;            /*  16 */
	struct le32 state;              /*  20  enum move_record_state */
	struct le64 sequence;           /*  24 */
	struct le32 flags;              /*  32 */
	struct le32 disk_count;         /*  36 */
	struct le64 body_checksum;      /*  40  XXH3 of the body */
	uint8_t host_uuid[16];          /*  48 */
	char id[MOVE_ID_BYTES];         /*  64 */
	uint8_t zero[SECTOR_BYTES - 104];       /* 104 */
};
_Static_assert(sizeof(struct record_sector) == SECTOR_BYTES, "one sector");
_Static_assert(offsetof(struct record_sector, sequence) == 24, "format v1");
_Static_assert(offsetof(struct record_sector, host_uuid) == 48, "format v1");
_Static_assert(offsetof(struct record_sector, zero) == 104, "format v1");

struct record_disk {
	uint8_t uuid[16];               /*    0 */
	struct le64 source_generation;  /*   16 */
	struct le64 target_generation;  /*   24 */
	struct le32 source_has_identity;        /* 32 */
	struct le32 target_has_identity;        /* 36 */
	char source_datastore[72];      /*   40 */
	char target_datastore[72];      /*  112 */
	char source_path[DS_PATH_BYTES];        /* 184 */
	char target_path[DS_PATH_BYTES];        /* 1208 */
	uint8_t zero[72];               /* 2232 */
};
_Static_assert(sizeof(struct record_disk) == 2304, "format v1");
_Static_assert(offsetof(struct record_disk, source_path) == 184, "format v1");
_Static_assert(offsetof(struct record_disk, zero) == 2232, "format v1");
_Static_assert(DS_NAME_BYTES <= 72, "names fit");

struct move_record {
	struct move_record_info info;
	uint64_t body_checksum;
	char directory[RECORD_DIRECTORY_BYTES];
	int fd;
	uint8_t *block;                 /* BLOCK_BYTES, aligned: the sector and zeroes */
};

static const char *const state_names[] = {
	[0] = "unknown",
	[MOVE_RESERVED] = "reserved",
	[MOVE_COMMITTED] = "committed",
	[MOVE_ABORTED] = "aborted",
};

const char *move_record_state_name(enum move_record_state state)
{
	CHECK((size_t)state < ARRAY_COUNT(state_names));
	return state_names[state];
}

/* Pairs with sector_is_sound(). */
static void sector_seal(struct record_sector *sector)
{
	sector->checksum = to_le64(0);
	sector->checksum = to_le64(XXH3_64bits(sector, sizeof(*sector)));
}

static bool sector_is_sound(const struct record_sector *sector, const char *id)
{
	struct record_sector copy = *sector;
	uint32_t state = from_le32(sector->state), disk_count = from_le32(sector->disk_count);

	copy.checksum = to_le64(0);
	return from_le64(sector->magic) == RECORD_MAGIC &&
	       from_le32(sector->version) == RECORD_VERSION &&
	       from_le64(sector->checksum) == XXH3_64bits(&copy, sizeof(copy)) &&
	       state >= MOVE_RESERVED && state <= MOVE_ABORTED &&
	       disk_count >= 1 && disk_count <= MOVER_DISKS_MAX &&
	       memchr(sector->id, '\0', sizeof(sector->id)) && strcmp(sector->id, id) == 0;
}

static void sector_fill(const struct move_record *record, struct record_sector *sector)
{
	const struct move_record_info *info = &record->info;

	*sector = (struct record_sector){
		.magic = to_le64(RECORD_MAGIC),
		.version = to_le32(RECORD_VERSION),
		.state = to_le32(info->state),
		.sequence = to_le64(info->sequence),
		.flags = to_le32(info->flags),
		.disk_count = to_le32(info->disk_count),
		.body_checksum = to_le64(record->body_checksum),
	};
	memcpy(sector->host_uuid, info->host_uuid, sizeof(sector->host_uuid));
	snprintf(sector->id, sizeof(sector->id), "%s", info->id);
	sector_seal(sector);
}

static void disk_encode(const struct move_record_disk *disk, struct record_disk *out)
{
	*out = (struct record_disk){
		.source_generation = to_le64(disk->source_generation),
		.target_generation = to_le64(disk->target_generation),
		.source_has_identity = to_le32(disk->source_has_identity),
		.target_has_identity = to_le32(disk->target_has_identity),
	};
	memcpy(out->uuid, disk->uuid, sizeof(out->uuid));
	snprintf(out->source_datastore, sizeof(out->source_datastore), "%s",
		 disk->source_datastore);
	snprintf(out->target_datastore, sizeof(out->target_datastore), "%s",
		 disk->target_datastore);
	snprintf(out->source_path, sizeof(out->source_path), "%s", disk->source_path);
	snprintf(out->target_path, sizeof(out->target_path), "%s", disk->target_path);
}

/* False when a string is not one, or a name none. */
static bool disk_decode(const struct record_disk *raw, struct move_record_disk *out)
{
	if (!memchr(raw->source_datastore, '\0', DS_NAME_BYTES) ||
	    !memchr(raw->target_datastore, '\0', DS_NAME_BYTES) ||
	    !memchr(raw->source_path, '\0', sizeof(raw->source_path)) ||
	    !memchr(raw->target_path, '\0', sizeof(raw->target_path)) ||
	    !ds_name_is_valid(raw->source_datastore) || !ds_name_is_valid(raw->target_datastore))
		return false;
	*out = (struct move_record_disk){
		.source_generation = from_le64(raw->source_generation),
		.target_generation = from_le64(raw->target_generation),
		.source_has_identity = from_le32(raw->source_has_identity) != 0,
		.target_has_identity = from_le32(raw->target_has_identity) != 0,
	};
	memcpy(out->uuid, raw->uuid, sizeof(out->uuid));
	strcpy(out->source_datastore, raw->source_datastore);
	strcpy(out->target_datastore, raw->target_datastore);
	strcpy(out->source_path, raw->source_path);
	strcpy(out->target_path, raw->target_path);
	return true;
}

/* ---- names ---- */

static bool id_is_valid(const char *id)
{
	/* The rule of a datastore's name: no '/', no leading dot. */
	return strlen(id) < MOVE_ID_BYTES && ds_name_is_valid(id);
}

int move_record_make_id(const char *task_id, const uint8_t host_uuid[16], char out[MOVE_ID_BYTES],
			struct err *err)
{
	int used;

	if (strlen(task_id) > 20 || !ds_name_is_valid(task_id))
		return err_set(err, ERR_BAD_NAME, -EINVAL, "'%.40s' cannot be a move's id",
			       task_id);
	used = snprintf(out, MOVE_ID_BYTES, "%.20s-", task_id);
	for (int i = 0; i < 8; i++)
		used += snprintf(out + used, (size_t)(MOVE_ID_BYTES - used), "%02x", host_uuid[i]);
	return 0;
}

static int directory_name(const char *state_dir, char out[RECORD_DIRECTORY_BYTES], struct err *err)
{
	int length = snprintf(out, RECORD_DIRECTORY_BYTES, "%s/moves", state_dir);

	if (length >= RECORD_DIRECTORY_BYTES)
		return err_set(err, ERR_STATE_DIR, -ENAMETOOLONG,
			       "the state directory's name is too long");
	return 0;
}

static int sync_directory(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return -errno;
	rc = fsync(fd) ? -errno : 0;
	close(fd);
	return rc;
}

int move_record_judge(const char *state_dir, const char *id, struct err *err)
{
	char directory[RECORD_DIRECTORY_BYTES], path[RECORD_PATH_BYTES];
	int rc = directory_name(state_dir, directory, err);

	if (rc)
		return rc;
	if (access(directory, W_OK | X_OK) && (errno != ENOENT || access(state_dir, W_OK | X_OK)))
		return err_set(err, ERR_STATE_DIR, -errno, "cannot write in '%.180s': %s",
			       state_dir, err_strerror(errno));
	snprintf(path, sizeof(path), "%s/%.40s", directory, id);
	if (access(path, F_OK) == 0)
		return err_set(err, ERR_DISK_MARKED, -EEXIST,
			       "the record of an earlier move with the id '%s' waits for recovery",
			       id);
	return 0;
}

/* ---- making one ---- */

/* Past the page cache where that is possible: a page whose write failed may lie later. */
static int open_durable(const char *path, int flags)
{
	int fd = open(path, flags | O_RDWR | O_DSYNC | O_DIRECT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 && errno == EINVAL)
		fd = open(path, flags | O_RDWR | O_DSYNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const uint8_t *bytes, size_t count, off_t offset)
{
	while (count) {
		ssize_t written = pwrite(fd, bytes, count, offset);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return written < 0 ? -errno : -EIO;
		bytes += written;
		count -= (size_t)written;
		offset += written;
	}
	return 0;
}

static size_t body_bytes(uint32_t disk_count)
{
	return disk_count * sizeof(struct record_disk);
}

static size_t body_padded_bytes(uint32_t disk_count)
{
	return (body_bytes(disk_count) + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

static int write_body(struct move_record *record)
{
	size_t padded = body_padded_bytes(record->info.disk_count);
	uint8_t *body = aligned_alloc(BLOCK_BYTES, padded);
	int rc;

	if (!body)
		return -ENOMEM;
	memset(body, 0, padded);
	for (uint32_t i = 0; i < record->info.disk_count; i++)
		disk_encode(&record->info.disks[i], (struct record_disk *)body + i);
	record->body_checksum = XXH3_64bits(body, body_bytes(record->info.disk_count));
	rc = write_all(record->fd, body, padded, BLOCK_BYTES);
	free(body);
	return rc;
}

static int write_sector(struct move_record *record)
{
	memset(record->block, 0, BLOCK_BYTES);
	sector_fill(record, (struct record_sector *)record->block);
	return write_all(record->fd, record->block, BLOCK_BYTES, 0);
}

static struct move_record *record_new(const char *id, uint32_t disk_count)
{
	struct move_record *record = calloc(1, sizeof(*record));

	if (!record)
		return NULL;
	record->fd = -1;
	record->block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	record->info.disks = calloc(disk_count, sizeof(*record->info.disks));
	record->info.disk_count = disk_count;
	snprintf(record->info.id, sizeof(record->info.id), "%s", id);
	if (!record->block || !record->info.disks) {
		move_record_free(record);
		return NULL;
	}
	return record;
}

/* The file under its temporary name, complete and synced, then in place. */
static int record_put_in_place(struct move_record *record)
{
	char temporary[RECORD_PATH_BYTES], path[RECORD_PATH_BYTES];
	int rc;

	snprintf(path, sizeof(path), "%s/%s", record->directory, record->info.id);
	snprintf(temporary, sizeof(temporary), "%s/" TEMPORARY_PREFIX "%s", record->directory,
		 record->info.id);
	if (unlink(temporary) && errno != ENOENT)       /* of a crash while making it */
		return -errno;
	record->fd = open_durable(temporary, O_CREAT | O_EXCL);
	if (record->fd < 0)
		return record->fd;
	rc = write_body(record);
	if (!rc)
		rc = write_sector(record);
	if (!rc && fsync(record->fd))
		rc = -errno;
	if (!rc && renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE))
		rc = -errno;
	if (rc) {
		unlink(temporary);
		return rc;
	}
	rc = sync_directory(record->directory);
	if (rc)
		unlink(path);
	return rc;
}

static int make_directory(const char *state_dir, const char *directory)
{
	if (mkdir(directory, 0700) && errno != EEXIST)
		return -errno;
	return sync_directory(state_dir);
}

int move_record_create(const char *state_dir, const struct move_record_info *info,
		       struct move_record **out, struct err *err)
{
	struct move_record *record;
	int rc;

	CHECK(info->disk_count >= 1);
	CHECK(info->disk_count <= MOVER_DISKS_MAX);
	CHECK(id_is_valid(info->id));
	record = record_new(info->id, info->disk_count);
	if (!record)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot make a move's record");
	memcpy(record->info.disks, info->disks, info->disk_count * sizeof(*info->disks));
	memcpy(record->info.host_uuid, info->host_uuid, sizeof(info->host_uuid));
	record->info.state = MOVE_RESERVED;
	record->info.flags = info->flags;
	record->info.sequence = 1;
	rc = directory_name(state_dir, record->directory, err);
	if (rc)
		goto free_record;
	rc = make_directory(state_dir, record->directory);
	if (!rc)
		rc = record_put_in_place(record);
	if (rc) {
		err_set(err, ERR_JOURNAL_IO, rc, "cannot write the move's record in '%.150s': %s",
			record->directory, err_strerror(rc));
		goto free_record;
	}
	*out = record;
	return 0;

free_record:
	move_record_free(record);
	return rc;
}

int move_record_write(struct move_record *record, enum move_record_state state, unsigned flags,
		      struct err *err)
{
	int rc;

	record->info.state = state;
	record->info.flags = flags;
	record->info.sequence++;        /* a failed one counts: its outcome is unknown (R-J3) */
	rc = write_sector(record);
	if (rc)
		return err_set(err, ERR_JOURNAL_IO, rc,
			       "cannot write '%s' into the record of the move %s: %s",
			       move_record_state_name(state), record->info.id, err_strerror(rc));
	return 0;
}

int move_record_remove(struct move_record *record, struct err *err)
{
	char path[RECORD_PATH_BYTES];
	int rc = 0;

	snprintf(path, sizeof(path), "%s/%s", record->directory, record->info.id);
	if (unlink(path) && errno != ENOENT)
		rc = -errno;
	if (!rc)
		rc = sync_directory(record->directory);
	if (rc)
		return err_set(err, ERR_JOURNAL_IO, rc,
			       "cannot remove the record of the move %s: %s", record->info.id,
			       err_strerror(rc));
	return 0;
}

void move_record_free(struct move_record *record)
{
	if (!record)
		return;
	if (record->fd >= 0)
		close(record->fd);
	free(record->info.disks);
	free(record->block);
	free(record);
}

const struct move_record_info *move_record_info(const struct move_record *record)
{
	return &record->info;
}

/* ---- reading: what is on the disk is not trusted ---- */

static int read_all(int fd, uint8_t *bytes, size_t count, off_t offset)
{
	while (count) {
		ssize_t got = pread(fd, bytes, count, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EBADMSG;     /* shorter than it was */
		bytes += got;
		count -= (size_t)got;
		offset += got;
	}
	return 0;
}

/* How many disks the file's length has room for; the sector may be damaged. */
static int count_disks(int fd, uint32_t *max_out)
{
	struct stat file;

	if (fstat(fd, &file))
		return -errno;
	if (!S_ISREG(file.st_mode) || file.st_size < (off_t)(2 * BLOCK_BYTES) ||
	    file.st_size > (off_t)(BLOCK_BYTES + body_padded_bytes(MOVER_DISKS_MAX)))
		return -EBADMSG;
	*max_out = (uint32_t)(((size_t)file.st_size - BLOCK_BYTES) / sizeof(struct record_disk));
	return 0;
}

/* An all-zero entry ends the body when the sector does not tell its length. */
static bool entry_is_blank(const struct record_disk *raw)
{
	return raw->source_datastore[0] == '\0' && raw->target_datastore[0] == '\0';
}

static int decode_body(struct move_record *record, const uint8_t *body, uint32_t max_disks,
		       bool sector_is_good)
{
	const struct record_sector *sector = (const struct record_sector *)record->block;
	uint32_t count = 0;

	if (sector_is_good) {
		count = from_le32(sector->disk_count);
		record->body_checksum = from_le64(sector->body_checksum);
		if (count > max_disks ||
		    XXH3_64bits(body, body_bytes(count)) != record->body_checksum)
			return -EBADMSG;
	} else {
		while (count < max_disks &&
		       !entry_is_blank((const struct record_disk *)body + count))
			count++;
	}
	for (uint32_t i = 0; i < count; i++)
		if (!disk_decode((const struct record_disk *)body + i, &record->info.disks[i]))
			return -EBADMSG;
	record->info.disk_count = count;
	return count ? 0 : -EBADMSG;
}

static void decode_sector(struct move_record *record)
{
	const struct record_sector *sector = (const struct record_sector *)record->block;

	record->info.state = (enum move_record_state)from_le32(sector->state);
	record->info.flags = from_le32(sector->flags);
	record->info.sequence = from_le64(sector->sequence);
	memcpy(record->info.host_uuid, sector->host_uuid, sizeof(sector->host_uuid));
}

static int record_read(struct move_record *record, bool *sector_is_good)
{
	uint32_t max_disks = 0;
	uint8_t *body;
	int rc = count_disks(record->fd, &max_disks);

	if (rc)
		return rc;
	body = aligned_alloc(BLOCK_BYTES, body_padded_bytes(max_disks));
	if (!body)
		return -ENOMEM;
	memset(body, 0, body_padded_bytes(max_disks));
	rc = read_all(record->fd, record->block, BLOCK_BYTES, 0);
	if (!rc)
		rc = read_all(record->fd, body, body_padded_bytes(max_disks), BLOCK_BYTES);
	if (!rc) {
		*sector_is_good = sector_is_sound((struct record_sector *)record->block,
						  record->info.id);
		rc = decode_body(record, body, max_disks, *sector_is_good);
	}
	if (!rc && *sector_is_good)
		decode_sector(record);
	free(body);
	return rc;
}

int move_record_load(const char *state_dir, const char *id, struct move_record **out,
		     struct err *err)
{
	struct move_record *record;
	char path[RECORD_PATH_BYTES];
	bool sector_is_good = false;
	int rc;

	if (!id_is_valid(id))
		return err_set(err, ERR_RECOVER_UNKNOWN, -ENOENT, "there is no move '%.60s'", id);
	record = record_new(id, MOVER_DISKS_MAX);
	if (!record)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot read a move's record");
	rc = directory_name(state_dir, record->directory, err);
	if (rc)
		goto free_record;
	snprintf(path, sizeof(path), "%s/%.40s", record->directory, id);
	record->fd = open_durable(path, 0);
	/*
	 * R-J4: what a killed process was just writing may be read before it is durable, and is acted
	 * on: guests write to the copy that it names.  So it is made durable first.
	 */
	rc = record->fd < 0 ? record->fd : fsync(record->fd) ? -errno : 0;
	if (!rc)
		rc = record_read(record, &sector_is_good);
	if (rc == -ENOENT) {
		err_set(err, ERR_RECOVER_UNKNOWN, rc, "there is no move '%s'", id);
		goto free_record;
	}
	if (rc == -EBADMSG)
		err_set(err, ERR_JOURNAL_DAMAGED, rc,
			"the record of the move %s is damaged; its disks are not known", id);
	else if (rc)
		err_set(err, ERR_JOURNAL_IO, rc, "cannot read the record of the move %s: %s", id,
			err_strerror(rc));
	if (rc)
		goto free_record;
	*out = record;
	if (sector_is_good)
		return 0;
	return err_set(err, ERR_JOURNAL_DAMAGED, -EBADMSG,
		       "the record of the move %s is damaged: it does not tell which copy is "
		       "authoritative", id);

free_record:
	move_record_free(record);
	return rc;
}

/* ---- listing ---- */

void move_record_sweep(const char *state_dir)
{
	char directory[RECORD_DIRECTORY_BYTES];
	struct dirent *entry;
	DIR *dir;

	if (directory_name(state_dir, directory, NULL))
		return;
	dir = opendir(directory);
	if (!dir)
		return;                 /* whoever lists the records says why */
	while ((entry = readdir(dir))) {
		const char *id = entry->d_name + strlen(TEMPORARY_PREFIX);

		if (strncmp(entry->d_name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) == 0 &&
		    id_is_valid(id) && unlinkat(dirfd(dir), entry->d_name, 0) && errno != ENOENT)
			log_warn("recover", "cannot remove the unfinished record '%s': %s",
				 entry->d_name, err_strerror(errno));
	}
	closedir(dir);
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(a, b);
}

int move_record_list(const char *state_dir, char (*ids)[MOVE_ID_BYTES], uint32_t capacity,
		     uint32_t *count, struct err *err)
{
	char directory[RECORD_DIRECTORY_BYTES];
	struct dirent *entry;
	uint32_t found = 0;
	DIR *dir;
	int rc = directory_name(state_dir, directory, err);

	if (rc)
		return rc;
	dir = opendir(directory);
	if (!dir && errno == ENOENT) {
		*count = 0;
		return 0;
	}
	if (!dir)
		return err_set(err, ERR_STATE_DIR, -errno, "cannot list '%.180s': %s", directory,
			       err_strerror(errno));
	while ((entry = readdir(dir))) {
		/* "." and "..", unfinished records: nothing was done yet; journals. */
		if (!id_is_valid(entry->d_name) || move_journal_is_name(entry->d_name))
			continue;
		if (found < capacity)
			strcpy(ids[found], entry->d_name);
		found++;
	}
	closedir(dir);
	qsort(ids, MIN(found, capacity), sizeof(*ids), compare_ids);
	*count = found;
	return 0;
}
