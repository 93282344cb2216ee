/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/move_journal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/log.h"

#define CHUNK_BYTES (UINT64_C(1) << 20)
#define ALIGN_BYTES 4096u

/* ---- names ---- */

/* An id ends in hex digits without a dot (move_record_make_id()). */
bool move_journal_is_name(const char *name)
{
	const char *dot = strrchr(name, '.');

	if (!dot || dot == name || !dot[1])
		return false;
	for (const char *c = dot + 1; *c; c++)
		if (!isdigit((unsigned char)*c))
			return false;
	return true;
}

static int directory_name(const char *state_dir, char out[PATH_MAX], struct err *err)
{
	if (snprintf(out, PATH_MAX, "%s/moves", state_dir) >= PATH_MAX)
		return err_set(err, ERR_STATE_DIR, -ENAMETOOLONG,
			       "the state directory's name is too long");
	return 0;
}

static int journal_name(const char *state_dir, const char *id, uint32_t index, char out[PATH_MAX],
			struct err *err)
{
	if (snprintf(out, PATH_MAX, "%s/moves/%s.%u", state_dir, id, index) >= PATH_MAX)
		return err_set(err, ERR_STATE_DIR, -ENAMETOOLONG,
			       "the state directory's name is too long");
	return 0;
}

static int sync_directory(const char *state_dir)
{
	char directory[PATH_MAX];
	int rc = directory_name(state_dir, directory, NULL);
	int fd;

	if (rc)
		return rc;
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = fsync(fd) ? -errno : 0;
	close(fd);
	return rc;
}

/* ---- making ---- */

static int write_zeroes(int fd, uint64_t bytes)
{
	uint8_t *zeroes = aligned_alloc(ALIGN_BYTES, CHUNK_BYTES);
	uint64_t at = 0;
	int rc = 0;

	if (!zeroes)
		return -ENOMEM;
	memset(zeroes, 0, CHUNK_BYTES);
	while (!rc && at < bytes) {
		ssize_t written = pwrite(fd, zeroes, MIN(bytes - at, CHUNK_BYTES), (off_t)at);

		if (written > 0)
			at += (uint64_t)written;
		else if (written == 0 || errno != EINTR)
			rc = written ? -errno : -EIO;
	}
	if (!rc && fsync(fd))
		rc = -errno;
	free(zeroes);
	return rc;
}

int move_journal_make(const char *state_dir, const char *id, uint32_t index, uint64_t bytes,
		      struct err *err)
{
	char path[PATH_MAX];
	int rc = journal_name(state_dir, id, index, path, err);
	int fd;

	if (rc)
		return rc;
	if (unlink(path) && errno != ENOENT)
		return err_set(err, ERR_JOURNAL_IO, -errno, "cannot replace '%.160s': %s", path,
			       err_strerror(errno));
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	rc = fd < 0 ? -errno : write_zeroes(fd, bytes);
	if (fd >= 0)
		close(fd);
	if (!rc)
		rc = sync_directory(state_dir);
	if (rc && fd >= 0)
		unlink(path);
	if (rc)
		err_set(err, ERR_JOURNAL_IO, rc, "cannot make the journal '%.160s': %s", path,
			err_strerror(rc));
	return rc;
}

/* ---- opening ---- */

static int open_direct(const char *path)
{
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 && errno == EINVAL)
		fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int move_journal_open(const char *state_dir, const char *id, uint32_t index, int *fd_out,
		      struct err *err)
{
	char path[PATH_MAX];
	struct stat file;
	int rc = journal_name(state_dir, id, index, path, err);
	int fd;

	if (rc)
		return rc;
	fd = open_direct(path);
	if (fd == -ENOENT)
		return err_set(err, ERR_JOURNAL_DAMAGED, fd, "the journal '%.160s' is gone", path);
	if (fd < 0)
		return err_set(err, ERR_JOURNAL_IO, fd, "cannot open the journal '%.160s': %s",
			       path, err_strerror(fd));
	rc = fstat(fd, &file) ? -errno : 0;
	if (!rc && !S_ISREG(file.st_mode))
		rc = -EINVAL;
	if (rc) {
		close(fd);
		return err_set(err, ERR_JOURNAL_DAMAGED, rc, "'%.160s' is no journal: %s", path,
			       err_strerror(rc));
	}
	*fd_out = fd;
	return 0;
}

bool move_journals_exist(const char *state_dir, const char *id, uint32_t count)
{
	char path[PATH_MAX];

	for (uint32_t i = 0; i < count; i++)
		if (journal_name(state_dir, id, i, path, NULL) || access(path, F_OK))
			return false;
	return true;
}

/* ---- removing ---- */

int move_journals_remove(const char *state_dir, const char *id, uint32_t count, struct err *err)
{
	char path[PATH_MAX];
	int rc = 0;

	for (uint32_t i = 0; !rc && i < count; i++) {
		rc = journal_name(state_dir, id, i, path, err);
		if (!rc && unlink(path) && errno != ENOENT)
			rc = -errno;
	}
	if (!rc)
		rc = sync_directory(state_dir);
	if (rc)
		err_set(err, ERR_JOURNAL_IO, rc, "cannot remove the journals of the move %s: %s",
			id, err_strerror(rc));
	return rc;
}

static bool has_record(int directory_fd, const char *name)
{
	char record[NAME_MAX + 1];

	snprintf(record, sizeof(record), "%.*s", (int)(strrchr(name, '.') - name), name);
	/* Whatever hinders us to look is no proof that it is gone. */
	return faccessat(directory_fd, record, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

int move_journals_remove_orphans(const char *state_dir, uint32_t *count, struct err *err)
{
	char directory[PATH_MAX];
	struct dirent *entry;
	int rc = directory_name(state_dir, directory, err);
	DIR *dir;

	*count = 0;
	if (rc)
		return rc;
	dir = opendir(directory);
	if (!dir && errno == ENOENT)
		return 0;
	if (!dir)
		return err_set(err, ERR_STATE_DIR, -errno, "cannot list '%.180s': %s", directory,
			       err_strerror(errno));
	while ((entry = readdir(dir))) {
		if (!move_journal_is_name(entry->d_name) || has_record(dirfd(dir), entry->d_name))
			continue;
		if (unlinkat(dirfd(dir), entry->d_name, 0) && errno != ENOENT) {
			rc = err_set(err, ERR_JOURNAL_IO, -errno,
				     "cannot remove the journal '%.80s' of a move that is gone: %s",
				     entry->d_name, err_strerror(errno));
			continue;
		}
		log_info("recover", "removed the journal '%s': its move is gone", entry->d_name);
		(*count)++;
	}
	closedir(dir);
	return rc;
}
