/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/provision.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "blkmirror/base/log.h"

/* Written back and dropped from the page cache in steps of this, not all at the end. */
#define FLUSH_STEP_BYTES (UINT64_C(64) << 20)

static const char *const names[] = {
	[PROVISION_SAME] = "same",
	[PROVISION_THIN] = "thin",
	[PROVISION_THICK] = "thick",
	[PROVISION_EAGER] = "eager",
};

const char *provision_name(enum provision provision)
{
	CHECK(provision < ARRAY_COUNT(names));
	return names[provision];
}

bool provision_parse(const char *text, enum provision *out)
{
	for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			*out = (enum provision)i;
			return true;
		}
	}
	return false;
}

enum provision provision_guess(uint64_t size_bytes, uint64_t allocated_bytes)
{
	return allocated_bytes < size_bytes ? PROVISION_THIN : PROVISION_THICK;
}

int provision_check_size(uint64_t size_bytes, struct err *err)
{
	if (size_bytes % 512)
		return err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
			       "%" PRIu64 " bytes are not a whole number of 512-byte sectors",
			       size_bytes);
	if (size_bytes < DS_DISK_SIZE_MIN || size_bytes > DS_DISK_SIZE_MAX)
		return err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
			       "%" PRIu64 " bytes are no size for a disk", size_bytes);
	return 0;
}

static int write_chunk(int fd, const uint8_t *zeroes, uint64_t at, uint64_t len)
{
	while (len) {
		ssize_t put = pwrite(fd, zeroes, (size_t)len, (off_t)at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		at += (uint64_t)put;
		len -= (uint64_t)put;
	}
	return 0;
}

static int write_zeroes(int fd, uint64_t from, uint64_t to)
{
	uint8_t *zeroes = calloc(1, PROVISION_CHUNK_BYTES);
	uint64_t unflushed = 0;
	int rc = 0;

	if (!zeroes)
		return -ENOMEM;
	for (uint64_t at = from; at < to && !rc;) {
		uint64_t len = MIN(PROVISION_CHUNK_BYTES, to - at);

		rc = write_chunk(fd, zeroes, at, len);
		at += len;
		unflushed += len;
		if (!rc && (unflushed >= FLUSH_STEP_BYTES || at == to)) {
			rc = fdatasync(fd) < 0 ? -errno : 0;
			(void)posix_fadvise(fd, (off_t)(at - unflushed), (off_t)unflushed,
					    POSIX_FADV_DONTNEED);
			unflushed = 0;
		}
	}
	free(zeroes);
	return rc;
}

static int allocate(int fd, uint64_t from, uint64_t to)
{
	while (fallocate(fd, 0, (off_t)from, (off_t)(to - from)) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/*
 * fallocate() finds out that the store is too small by filling it: every other disk there
 * would meet a full store meanwhile.  So it is asked first.
 */
static int check_room(int fd, uint64_t bytes)
{
	struct statvfs fs;

	if (fstatvfs(fd, &fs) < 0)
		return -errno;
	return bytes > (uint64_t)fs.f_bavail * fs.f_frsize ? -ENOSPC : 0;
}

static int grow(int fd, uint64_t from, uint64_t to, enum provision provision, const char *path)
{
	int rc;

	if (provision == PROVISION_THIN)
		return ftruncate(fd, (off_t)to) < 0 ? -errno : 0;
	rc = check_room(fd, to - from);
	if (rc)
		return rc;
	/* Space first, for eager too: a full store is found before hours of writing. */
	rc = allocate(fd, from, to);
	if (rc == -EOPNOTSUPP && provision == PROVISION_THICK)
		log_info("datastore", "'%s': this file system cannot allocate without writing:"
				      " writing zeroes", path);
	if (rc && rc != -EOPNOTSUPP)
		return rc;
	if (provision == PROVISION_EAGER || rc == -EOPNOTSUPP)
		return write_zeroes(fd, from, to);
	return 0;
}

static int grow_failed(int rc, uint64_t bytes, const char *path, struct err *err)
{
	switch (-rc) {
	case ENOSPC:
	case EDQUOT:
		return err_set(err, ERR_DS_NO_SPACE, -ENOSPC,
			       "there is no room for %" PRIu64 " more bytes of '%.120s'", bytes,
			       path);
	case EFBIG:
		return err_set(err, ERR_DISK_BAD_SIZE, rc,
			       "the file system takes no file of the size of '%.120s'", path);
	case ENOMEM:
		return err_set(err, ERR_NO_MEMORY, rc, "out of memory");
	default:
		return err_set(err, ERR_DS_IO, rc, "cannot allocate '%.120s': %s", path,
			       err_strerror(rc));
	}
}

int provision_grow(int fd, uint64_t old_bytes, uint64_t new_bytes, enum provision provision,
		   const char *path, struct err *err)
{
	int rc;

	CHECK(provision != PROVISION_SAME);
	CHECK(new_bytes >= old_bytes);
	if (new_bytes == old_bytes)
		return 0;
	rc = grow(fd, old_bytes, new_bytes, provision, path);
	if (!rc && fsync(fd) < 0)
		rc = -errno;
	if (!rc)
		return 0;
	grow_failed(rc, new_bytes - old_bytes, path, err);
	if (ftruncate(fd, (off_t)old_bytes) < 0)
		log_error("datastore", "'%s': cannot undo a failed growth: %s", path,
			  err_strerror(errno));
	return rc == -EDQUOT ? -ENOSPC : rc;
}
