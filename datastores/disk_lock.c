/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/disk_lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	BYTE_READS = 100,               /* "I read and want it consistent" */
	BYTE_WRITES = 101,
	BYTE_RESIZES = 103,
	BYTE_NO_READERS = 200,
	BYTE_NO_WRITERS = 201,
	BYTE_NO_RESIZERS = 203,
};

#define WAIT_FIRST_MS 5u
#define WAIT_MOST_MS 200u
#define SOON_MS 2000u

/* ---- bytes ---- */

static struct flock one_byte(short type, off_t byte)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
	};
}

static int byte_lock(int fd, short type, off_t byte)
{
	struct flock lock = one_byte(type, byte);

	while (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		if (errno == EINTR)
			continue;
		return errno == EACCES ? -EAGAIN : -errno;
	}
	return 0;
}

/* -EAGAIN when anybody else holds the byte in any way. */
static int byte_ask(int fd, off_t byte)
{
	struct flock lock = one_byte(F_WRLCK, byte);

	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	return lock.l_type == F_UNLCK ? 0 : -EAGAIN;
}

struct step {
	off_t byte;
	short type;                     /* F_RDLCK, F_WRLCK, or F_UNLCK: ask only */
};

/* 201 first: it alone decides between two of us.  Questions last: QEMU locks, then asks. */
static const struct step writer_steps[] = {
	{ BYTE_NO_WRITERS, F_WRLCK }, { BYTE_NO_RESIZERS, F_WRLCK }, { BYTE_WRITES, F_WRLCK },
	{ BYTE_READS, F_RDLCK },      { BYTE_RESIZES, F_UNLCK },     { BYTE_NO_READERS, F_UNLCK },
};
static const struct step reader_steps[] = {
	{ BYTE_NO_WRITERS, F_RDLCK }, { BYTE_NO_RESIZERS, F_RDLCK }, { BYTE_READS, F_RDLCK },
	{ BYTE_WRITES, F_UNLCK },     { BYTE_RESIZES, F_UNLCK },     { BYTE_NO_READERS, F_UNLCK },
};

static int lock_once(int fd, enum disk_lock_mode mode)
{
	const struct step *steps = mode == DISK_LOCK_WRITE ? writer_steps : reader_steps;

	_Static_assert(ARRAY_COUNT(writer_steps) == ARRAY_COUNT(reader_steps), "one loop");
	for (size_t i = 0; i < ARRAY_COUNT(writer_steps); i++) {
		int rc = steps[i].type == F_UNLCK ? byte_ask(fd, steps[i].byte)
						  : byte_lock(fd, steps[i].type, steps[i].byte);

		if (rc) {
			disk_lock_release(fd);
			return rc;
		}
	}
	return 0;
}

void disk_lock_release(int fd)
{
	struct flock lock = {
		.l_type = F_UNLCK, .l_whence = SEEK_SET,
		.l_start = BYTE_READS, .l_len = BYTE_NO_RESIZERS - BYTE_READS + 1,
	};

	/* Unlocking can only fail for want of kernel memory; close() then does it. */
	(void)fcntl(fd, F_OFD_SETLK, &lock);
}

/* ---- who holds it ---- */

/* Does /proc/PID/fdinfo/N tell of an OFD lock on our bytes? */
static bool fdinfo_has_lock(int fdinfo_dir, const char *name)
{
	int fd = openat(fdinfo_dir, name, O_RDONLY | O_CLOEXEC);
	FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
	bool found = false;
	char line[256];

	if (!file) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	/* lock:	1: OFDLCK  ADVISORY  READ -1 fe:00:1234 201 201 */
	while (!found && fgets(line, sizeof(line), file)) {
		long first;

		found = strncmp(line, "lock:", 5) == 0 && strstr(line, "OFDLCK") &&
			sscanf(line, "lock: %*s %*s %*s %*s %*s %*s %ld", &first) == 1 &&
			first >= BYTE_READS && first <= BYTE_NO_RESIZERS;
	}
	fclose(file);
	return found;
}

/* Does the process behind proc_dir hold the file open, with a lock? */
static bool process_holds(int proc_dir, const struct stat *file)
{
	int fd_dir = openat(proc_dir, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_CLOSE int info_dir = openat(proc_dir, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd_dir >= 0 ? fdopendir(fd_dir) : NULL;
	bool found = false;
	struct dirent *entry;

	if (!dir) {
		if (fd_dir >= 0)
			close(fd_dir);
		return false;
	}
	while (!found && info_dir >= 0 && (entry = readdir(dir))) {
		struct stat st;

		found = isdigit((unsigned char)entry->d_name[0]) &&
			fstatat(fd_dir, entry->d_name, &st, 0) == 0 &&
			st.st_dev == file->st_dev && st.st_ino == file->st_ino &&
			fdinfo_has_lock(info_dir, entry->d_name);
	}
	closedir(dir);
	return found;
}

static void read_program(int proc_dir, char program[32])
{
	CLEANUP_CLOSE int fd = openat(proc_dir, "comm", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, program, 31) : -1;

	if (len < 0)
		len = 0;
	program[len] = 0;
	program[strcspn(program, "\n")] = 0;
	for (char *at = program; *at; at++)
		if (!isprint((unsigned char)*at))
			*at = '?';
}

/*
 * Does this process hold the file by another descriptor than fd?  fd itself holds no lock
 * when this is asked, so its fdinfo has none.
 */
bool disk_lock_find_holder(int fd, struct disk_lock_holder *out)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	bool found = false;
	struct stat file;

	if (!proc)
		return false;
	while (fstat(fd, &file) == 0 && !found && (entry = readdir(proc))) {
		int proc_dir;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		proc_dir = openat(dirfd(proc), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (proc_dir < 0)
			continue;
		found = process_holds(proc_dir, &file);
		if (found) {
			out->pid = (pid_t)atoi(entry->d_name);
			read_program(proc_dir, out->program);
		}
		close(proc_dir);
	}
	closedir(proc);
	return found;
}

static int in_use(int fd, const char *path, struct err *err)
{
	struct disk_lock_holder holder;

	if (!disk_lock_find_holder(fd, &holder))
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
			       "the disk '%.120s' is in use by another program on this host", path);
	if (holder.pid == getpid())
		return err_set(err, ERR_DISK_IN_USE, -EAGAIN,
			       "the disk '%.120s' is in use by this daemon", path);
	err_set(err, ERR_DISK_IN_USE, -EAGAIN, "the disk '%.120s' is in use by %s (process %d)",
		path, holder.program, (int)holder.pid);
	err_remedy(err, "Stop that program, or let it close the disk.");
	return -EAGAIN;
}

static bool held_by_us(int fd)
{
	struct disk_lock_holder holder;

	return disk_lock_find_holder(fd, &holder) && holder.pid == getpid();
}

static void pause_ms(unsigned ms)
{
	struct timespec left = { ms / 1000, (long)(ms % 1000) * 1000000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
		;
}

/* The end of a try: what it is to the caller. */
static int lock_taken(int fd, int rc, const char *path, struct err *err)
{
	if (rc == -EAGAIN)
		return in_use(fd, path, err);
	if (rc)
		return err_set(err, ERR_DS_IO, rc, "cannot lock '%.160s': %s", path,
			       err_strerror(rc));
	return 0;
}

/* Wait, longer each time, and try again. */
static int lock_again(int fd, enum disk_lock_mode mode, unsigned *step_ms, unsigned *left_ms)
{
	*step_ms = MIN(*step_ms, *left_ms);
	pause_ms(*step_ms);
	*left_ms -= *step_ms;
	*step_ms = MIN(*step_ms * 2, WAIT_MOST_MS);
	return lock_once(fd, mode);
}

int disk_lock_take(int fd, enum disk_lock_mode mode, unsigned wait_ms, const char *path,
		   struct err *err)
{
	unsigned step_ms = WAIT_FIRST_MS;
	int rc = lock_once(fd, mode);

	if (rc == -EAGAIN && wait_ms && held_by_us(fd))
		return in_use(fd, path, err);
	while (rc == -EAGAIN && wait_ms)
		rc = lock_again(fd, mode, &step_ms, &wait_ms);
	return lock_taken(fd, rc, path, err);
}

static bool held_by_another(int fd)
{
	struct disk_lock_holder holder;

	return disk_lock_find_holder(fd, &holder) && holder.pid != getpid();
}

int disk_lock_take_soon(int fd, enum disk_lock_mode mode, const char *path, struct err *err)
{
	unsigned step_ms = WAIT_FIRST_MS, left_ms = SOON_MS;
	int rc = lock_once(fd, mode);

	while (rc == -EAGAIN && left_ms && !held_by_another(fd))
		rc = lock_again(fd, mode, &step_ms, &left_ms);
	return lock_taken(fd, rc, path, err);
}
