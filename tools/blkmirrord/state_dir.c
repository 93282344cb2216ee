/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/state_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/uuid.h"

int make_dir(const char *path, unsigned mode, struct err *err)
{
	char part[PATH_MAX];
	struct stat st;

	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return err_set(err, ERR_STATE_DIR, -ENAMETOOLONG, "'%.100s...' is too long", path);
	for (char *slash = part + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		if (mkdir(part, 0755) && errno != EEXIST)
			return err_set(err, ERR_STATE_DIR, -errno, "cannot make '%s': %s", part,
				       err_strerror(-errno));
		*slash = '/';
	}
	if (mkdir(path, mode) && errno != EEXIST)
		return err_set(err, ERR_STATE_DIR, -errno, "cannot make '%s': %s", path,
			       err_strerror(-errno));
	if (stat(path, &st) || !S_ISDIR(st.st_mode))
		return err_set(err, ERR_STATE_DIR, -ENOTDIR, "'%s' is not a directory", path);
	return 0;
}

/* ---- the lock ---- */

#define LOOK_AGAIN_US 100000

static void alarmed(int signal_number)
{
	(void)signal_number;    /* it interrupts fcntl(), that is all */
}

static bool end_is_asked(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 &&
	       (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The kernel wakes us with the lock; the timer is there for the bound and for who stops us. */
static int wait_for_lock(int fd, struct flock *lock, unsigned wait_ms)
{
	const struct sigaction action = { .sa_handler = alarmed };
	const struct itimerval tick = { { 0, LOOK_AGAIN_US }, { 0, LOOK_AGAIN_US } }, off = { 0 };
	uint64_t end_ms = now_ms() + wait_ms;
	struct sigaction before;
	int rc = -EAGAIN;

	if (sigaction(SIGALRM, &action, &before))
		return -errno;
	if (setitimer(ITIMER_REAL, &tick, NULL)) {
		rc = -errno;
		goto restore_handler;
	}
	while (rc == -EAGAIN && now_ms() < end_ms) {
		rc = fcntl(fd, F_OFD_SETLKW, lock) ? -errno : 0;
		if (rc == -EINTR)
			rc = end_is_asked() ? -EINTR : -EAGAIN;
	}
	setitimer(ITIMER_REAL, &off, NULL);
restore_handler:
	sigaction(SIGALRM, &before, NULL);
	return rc;
}

static int lock_or_wait(int fd, const char *path, unsigned wait_ms)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	if ((errno != EAGAIN && errno != EACCES) || !wait_ms)
		return errno == EACCES ? -EAGAIN : -errno;
	log_warn("daemon", "another blkmirrord still has the state directory '%s': waiting up to "
		 "%u ms for its end", path, wait_ms);
	return wait_for_lock(fd, &lock, wait_ms);
}

static int take_lock(int dir_fd, const char *path, unsigned wait_ms, int *lock_fd, struct err *err)
{
	int fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int rc;

	if (fd < 0)
		return err_set(err, ERR_STATE_DIR, -errno, "cannot open '%s/lock': %s", path,
			       err_strerror(-errno));
	rc = lock_or_wait(fd, path, wait_ms);
	if (rc) {
		rc = rc == -EAGAIN
			     ? err_set(err, ERR_STATE_DIR, -EBUSY,
				       "another blkmirrord runs with the state directory '%s'", path)
			     : err_set(err, ERR_STATE_DIR, rc, "cannot lock '%s/lock': %s", path,
				       err_strerror(rc));
		close(fd);
		return rc;
	}
	*lock_fd = fd;
	return 0;
}

/* ---- the identity ---- */

static int read_identity(int fd, const char *path, uint8_t host_uuid[16], struct err *err)
{
	char text[UUID_TEXT_BYTES + 1] = "";
	ssize_t got = read(fd, text, UUID_TEXT_BYTES);
	struct uuid uuid;
	int rc;

	if (got < 0)
		return err_set(err, ERR_STATE_DIR, -errno, "cannot read '%s/host-uuid': %s", path,
			       err_strerror(-errno));
	text[strcspn(text, "\n")] = '\0';
	if (uuid_parse(text, &uuid) || uuid_is_null(&uuid)) {
		rc = err_set(err, ERR_STATE_DIR, -EBADMSG, "'%s/host-uuid' holds no identity", path);
		err_remedy(err, "Restore the file from a backup: locks of this host carry its identity.");
		return rc;
	}
	memcpy(host_uuid, uuid.bytes, sizeof(uuid.bytes));
	return 0;
}

/* Written aside, synced and renamed: it is there whole or not at all. */
static int make_identity(int dir_fd, const char *path, uint8_t host_uuid[16], struct err *err)
{
	struct uuid uuid = uuid_random();
	char text[UUID_TEXT_BYTES + 1];
	size_t len;
	int fd, rc = 0;

	uuid_format(&uuid, text);
	len = strlen(text);
	text[len++] = '\n';
	fd = openat(dir_fd, "host-uuid.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		    0600);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len || fsync(fd) ||
	    renameat(dir_fd, "host-uuid.new", dir_fd, "host-uuid") || fsync(dir_fd))
		rc = err_set(err, ERR_STATE_DIR, errno ? -errno : -EIO,
			     "cannot write '%s/host-uuid': %s", path, err_strerror(-errno));
	if (fd >= 0)
		close(fd);
	if (!rc)
		memcpy(host_uuid, uuid.bytes, sizeof(uuid.bytes));
	return rc;
}

static int get_identity(int dir_fd, const char *path, uint8_t host_uuid[16], struct err *err)
{
	int fd = openat(dir_fd, "host-uuid", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int rc;

	if (fd < 0 && errno == ENOENT)
		return make_identity(dir_fd, path, host_uuid, err);
	if (fd < 0)
		return err_set(err, ERR_STATE_DIR, -errno, "cannot open '%s/host-uuid': %s", path,
			       err_strerror(-errno));
	rc = read_identity(fd, path, host_uuid, err);
	close(fd);
	return rc;
}

int state_dir_open(const char *path, unsigned wait_ms, int *lock_fd, uint8_t host_uuid[16],
		   struct err *err)
{
	int rc = make_dir(path, 0700, err);
	int dir_fd, fd = -1;

	if (rc)
		return rc;
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return err_set(err, ERR_STATE_DIR, -errno, "cannot open '%s': %s", path,
			       err_strerror(-errno));
	rc = take_lock(dir_fd, path, wait_ms, &fd, err);
	if (!rc)
		rc = get_identity(dir_fd, path, host_uuid, err);
	close(dir_fd);
	if (!rc)
		*lock_fd = fd;
	else if (fd >= 0)
		close(fd);
	return rc;
}
