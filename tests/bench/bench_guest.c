/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_guest URI|FILE DEPTH - a guest that only writes, and knows how long it had to wait.
 *
 * Random 4 KiB writes, DEPTH at once, through an NBD export or (a path that begins with '/')
 * straight into a file with O_DIRECT, DEPTH 1: the control that shows what the disk itself
 * does meanwhile.  Each "mark" on stdin is answered on stdout, one JSON document a line, for
 * the time since the last one: the longest time a write took (those still under way
 * included), and how many were done.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WRITE_BYTES 4096u
#define DEPTH_MAX 64u

struct slot {
	uint64_t started_ns;            /* 0: not in flight */
	struct guest *guest;
};

struct guest {
	struct nbd_handle *nbd;
	uint64_t blocks;
	uint64_t random;
	uint8_t *data;
	uint32_t depth;
	struct slot slots[DEPTH_MAX];
	pthread_mutex_t lock;           /* of what follows, and of started_ns */
	uint64_t longest_ns, since_ns, writes;
	bool failed;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_guest: %s: %s\n", what, why);
	exit(1);
}

/* xorshift64 (Marsaglia 2003). */
static uint64_t next_offset(struct guest *guest)
{
	guest->random ^= guest->random << 13;
	guest->random ^= guest->random >> 7;
	guest->random ^= guest->random << 17;
	return guest->random % guest->blocks * WRITE_BYTES;
}

static void write_begins(struct slot *slot)
{
	pthread_mutex_lock(&slot->guest->lock);
	slot->started_ns = now_ns();
	pthread_mutex_unlock(&slot->guest->lock);
}

static void write_ends(struct slot *slot)
{
	struct guest *guest = slot->guest;
	uint64_t took_ns;

	pthread_mutex_lock(&guest->lock);
	took_ns = now_ns() - slot->started_ns;
	if (took_ns > guest->longest_ns)
		guest->longest_ns = took_ns;
	guest->writes++;
	slot->started_ns = 0;
	pthread_mutex_unlock(&guest->lock);
}

/* ---- marks, on a thread of their own: a stalled writer answers too ---- */

static void mark(struct guest *guest)
{
	uint64_t at_ns, longest_ns, since_ns, writes;

	pthread_mutex_lock(&guest->lock);
	at_ns = now_ns();
	longest_ns = guest->longest_ns;
	for (uint32_t i = 0; i < guest->depth; i++) {
		uint64_t started_ns = guest->slots[i].started_ns;

		if (started_ns && at_ns - started_ns > longest_ns)
			longest_ns = at_ns - started_ns;
	}
	since_ns = guest->since_ns;
	writes = guest->writes;
	guest->longest_ns = guest->writes = 0;
	guest->since_ns = at_ns;
	pthread_mutex_unlock(&guest->lock);
	printf("{\"longest_ns\":%" PRIu64 ",\"writes\":%" PRIu64 ",\"ns\":%" PRIu64 "}\n",
	       longest_ns, writes, at_ns - since_ns);
	fflush(stdout);
}

static void *marks_main(void *arg)
{
	char line[64];

	while (fgets(line, sizeof(line), stdin))
		mark(arg);
	_exit(0);
}

/* ---- NBD ---- */

static int nbd_write_done(void *user, int *error)
{
	struct slot *slot = user;

	if (*error)
		die("write", strerror(*error));
	write_ends(slot);
	return 1;                       /* retire the command */
}

static void nbd_write_start(struct slot *slot)
{
	struct guest *guest = slot->guest;

	write_begins(slot);
	if (nbd_aio_pwrite(guest->nbd, guest->data, WRITE_BYTES, next_offset(guest),
			   (nbd_completion_callback){ .callback = nbd_write_done,
						      .user_data = slot }, 0) < 0)
		die("write", nbd_get_error());
}

static void run_nbd(struct guest *guest, const char *uri)
{
	guest->nbd = nbd_create();
	if (!guest->nbd || nbd_connect_uri(guest->nbd, uri) < 0)
		die(uri, nbd_get_error());
	guest->blocks = (uint64_t)nbd_get_size(guest->nbd) / WRITE_BYTES;
	for (;;) {
		for (uint32_t i = 0; i < guest->depth; i++)
			if (!guest->slots[i].started_ns)
				nbd_write_start(&guest->slots[i]);
		if (nbd_poll(guest->nbd, -1) < 0)
			die(uri, nbd_get_error());
	}
}

/* ---- a file ---- */

static void run_file(struct guest *guest, const char *path)
{
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		die(path, strerror(errno));
	guest->blocks = (uint64_t)st.st_size / WRITE_BYTES;
	for (;;) {
		write_begins(&guest->slots[0]);
		if (pwrite(fd, guest->data, WRITE_BYTES, (off_t)next_offset(guest)) != WRITE_BYTES)
			die(path, strerror(errno));
		write_ends(&guest->slots[0]);
	}
}

int main(int argc, char **argv)
{
	struct guest guest = { .random = 88172645463325252u, .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t marks;

	if (argc != 3 || (guest.depth = (uint32_t)atoi(argv[2])) < 1 || guest.depth > DEPTH_MAX)
		die("usage", "bench_guest URI|FILE DEPTH");
	if (posix_memalign((void **)&guest.data, 4096, WRITE_BYTES) != 0)
		die("memory", "out of it");
	memset(guest.data, 0x5a, WRITE_BYTES);
	for (uint32_t i = 0; i < guest.depth; i++)
		guest.slots[i].guest = &guest;
	guest.since_ns = now_ns();
	if (pthread_create(&marks, NULL, marks_main, &guest) != 0)
		die("thread", "cannot start one");
	if (argv[1][0] == '/')
		run_file(&guest, argv[1]);
	else
		run_nbd(&guest, argv[1]);
	return 0;
}
