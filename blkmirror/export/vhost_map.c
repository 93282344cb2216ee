/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/export/vhost_map.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/overflow.h"

/* Of this thread: what its own accesses can fault on. */
static _Thread_local struct vhost_map *maps;

static struct sigaction action_before;
static pthread_mutex_t action_mutex = PTHREAD_MUTEX_INITIALIZER;

/* ---- the handler ---- */

/* True: the access may go on.  Calls nothing but mmap(2). */
static bool map_replace(uint8_t *at)
{
	for (struct vhost_map *map = maps; map; map = map->next) {
		if (at < map->base || at >= map->base + map->base_bytes)
			continue;
		map->torn = 1;
		return mmap(map->base, map->base_bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			    0) != MAP_FAILED;
	}
	return false;
}

static void bus_error(int number, siginfo_t *info, void *context)
{
	int saved = errno;

	(void)context;
	/* Not one of ours: who was there before gets it, when the access is tried again. */
	if (!map_replace(info->si_addr))
		sigaction(number, &action_before, NULL);
	errno = saved;
}

/* Where it is not there, or somebody has taken its place (a test's harness does). */
static void action_install(void)
{
	struct sigaction action = { .sa_sigaction = bus_error, .sa_flags = SA_SIGINFO };
	struct sigaction now;

	pthread_mutex_lock(&action_mutex);
	CHECK(sigaction(SIGBUS, NULL, &now) == 0);
	if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != bus_error) {
		action_before = now;
		CHECK(sigaction(SIGBUS, &action, NULL) == 0);
	}
	pthread_mutex_unlock(&action_mutex);
}

/* A fault whose signal is blocked kills, whatever handler there is. */
static void thread_prepare(void)
{
	sigset_t set;

	action_install();
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- what a descriptor is ---- */

bool vhost_fd_is_memory(int fd)
{
	/* Answered by the kernel alone, and only for shmem and hugetlbfs. */
	return fcntl(fd, F_GET_SEALS) >= 0;
}

bool vhost_fd_is_event(int fd)
{
	static const char wanted[] = "anon_inode:[eventfd]";
	char path[32], target[sizeof(wanted)];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, target, sizeof(target));
	return len == sizeof(wanted) - 1 && memcmp(target, wanted, sizeof(wanted) - 1) == 0;
}

/* ---- life ---- */

/* Huge pages are mapped whole: round out to what the descriptor is made of. */
static int map_place(int fd, uint64_t offset_bytes, struct vhost_map *map, uint64_t *base_offset)
{
	struct stat found;
	uint64_t end_bytes, page_bytes;

	if (!vhost_fd_is_memory(fd) || fstat(fd, &found) || !S_ISREG(found.st_mode))
		return -EINVAL;
	page_bytes = MAX((uint64_t)found.st_blksize, (uint64_t)sysconf(_SC_PAGESIZE));
	if (map->len_bytes == 0 || !is_power_of_two(page_bytes) ||
	    !range_fits(offset_bytes, map->len_bytes, (uint64_t)found.st_size))
		return -EINVAL;
	*base_offset = round_down(offset_bytes, page_bytes);
	end_bytes = round_up(offset_bytes + map->len_bytes, page_bytes);
	map->base_bytes = end_bytes - *base_offset;
	return 0;
}

int vhost_map_new(int fd, uint64_t offset_bytes, uint64_t len_bytes, struct vhost_map **out)
{
	struct vhost_map *map = calloc(1, sizeof(*map));
	uint64_t base_offset = 0;
	int rc;

	if (!map)
		return -ENOMEM;
	map->len_bytes = len_bytes;
	rc = map_place(fd, offset_bytes, map, &base_offset);
	if (rc)
		goto free_map;
	map->base = mmap(NULL, map->base_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			 fd, (off_t)base_offset);
	if (map->base == MAP_FAILED) {
		rc = errno == ENOMEM ? -ENOMEM : -EINVAL;
		goto free_map;
	}
	/* A guest's memory has no place in a core file of ours.  Best effort. */
	(void)madvise(map->base, map->base_bytes, MADV_DONTDUMP);
	map->bytes = map->base + (offset_bytes - base_offset);
	map->refs = 1;
	thread_prepare();
	map->next = maps;
	maps = map;
	*out = map;
	return 0;

free_map:
	free(map);
	return rc;
}

struct vhost_map *vhost_map_ref(struct vhost_map *map)
{
	CHECK(map->refs > 0);
	map->refs++;
	return map;
}

void vhost_map_put(struct vhost_map *map)
{
	struct vhost_map **link = &maps;

	if (!map)
		return;
	CHECK(map->refs > 0);
	if (--map->refs)
		return;
	while (*link && *link != map)
		link = &(*link)->next;
	CHECK(*link);                   /* put on the thread that made it */
	*link = map->next;
	munmap(map->base, map->base_bytes);
	free(map);
}
