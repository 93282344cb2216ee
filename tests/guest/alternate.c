/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alternate - a writer whose next write, on the other disk, waits for the answer to this one.
 *
 *   alternate A B            write 1 to A, 2 to B, 3 to A ... until told "stop" on stdin; then read
 *                            all of both and say whether each block holds its last number
 *   alternate --last FILE    the largest number in a disk image (at rest)
 *
 * Of two disks that switch over in one instant the old copies end with two numbers that follow each
 * other: neither has a write that was begun after the other's last.
 *
 * Says, in lines: "ALT READY", "ALT n=N max_us=U" each second, "ALT FINAL ok|wrong n=N errors=E".
 * Exit: 0 all is as it should be, 1 it is not, 2 usage or set-up.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES 4096u
#define BLOCKS_MAX 8192u
#define STRIDE 1009u            /* odd: over a power of two it comes to each block */
#define MAGIC UINT64_C(0x65746e7265746c61)

struct block {
	uint64_t magic, number;
	char rest[BLOCK_BYTES - 16];
};

static int fds[2];
static uint64_t last[2][BLOCKS_MAX];
static uint64_t blocks, number, errors, max_us;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	char line[256];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line) - 1, format, args);
	va_end(args);
	line[len] = '\n';
	if (write(STDOUT_FILENO, line, (size_t)len + 1) < 0)
		return;         /* nobody is left to be told */
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t block_of(uint64_t n)
{
	return n / 2 * STRIDE % blocks;
}

static void write_next(struct block *block)
{
	uint64_t n = number + 1, at = block_of(n), began_us = now_us(), took_us;
	unsigned side = n % 2 ? 0 : 1;

	block->magic = MAGIC;
	block->number = n;
	if (pwrite(fds[side], block, BLOCK_BYTES, (off_t)(at * BLOCK_BYTES)) != BLOCK_BYTES) {
		errors++;
		say("ALT IOERROR n=%" PRIu64 ": %s", n, strerror(errno));
		return;
	}
	took_us = now_us() - began_us;
	if (took_us > max_us)
		max_us = took_us;
	last[side][at] = n;
	number = n;
}

/* "stop", or the end of stdin does not count. */
static bool told_to_stop(void)
{
	static char word[64];
	static size_t len;
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	ssize_t got;

	if (poll(&in, 1, 0) != 1 || !(in.revents & POLLIN))
		return false;
	got = read(STDIN_FILENO, word + len, sizeof(word) - len - 1);
	if (got <= 0)
		return false;
	len += (size_t)got;
	word[len] = '\0';
	if (strstr(word, "stop"))
		return true;
	if (len > sizeof(word) / 2)
		len = 0;
	return false;
}

static int verify(struct block *block)
{
	uint64_t wrong = 0;

	for (unsigned side = 0; side < 2; side++) {
		for (uint64_t at = 0; at < blocks; at++) {
			if (!last[side][at])
				continue;
			if (pread(fds[side], block, BLOCK_BYTES, (off_t)(at * BLOCK_BYTES)) !=
			    BLOCK_BYTES)
				errors++;
			else if (block->magic != MAGIC || block->number != last[side][at])
				wrong++;
		}
	}
	say("ALT FINAL %s n=%" PRIu64 " errors=%" PRIu64 " wrong=%" PRIu64,
	    wrong || errors ? "wrong" : "ok", number, errors, wrong);
	return wrong || errors ? 1 : 0;
}

static int run(char **paths, struct block *block)
{
	uint64_t said_us = now_us();

	blocks = BLOCKS_MAX;
	for (unsigned side = 0; side < 2; side++) {
		off_t size;

		fds[side] = open(paths[side], O_RDWR | O_DIRECT);
		size = fds[side] < 0 ? -1 : lseek(fds[side], 0, SEEK_END);
		if (size < (off_t)BLOCK_BYTES) {
			say("ALT cannot use %s: %s", paths[side], strerror(errno));
			return 2;
		}
		if ((uint64_t)size / BLOCK_BYTES < blocks)
			blocks = (uint64_t)size / BLOCK_BYTES;
	}
	say("ALT READY blocks=%" PRIu64, blocks);
	while (!told_to_stop()) {
		for (int i = 0; i < 16; i++)
			write_next(block);
		if (now_us() - said_us < 1000000)
			continue;
		say("ALT n=%" PRIu64 " max_us=%" PRIu64, number, max_us);
		said_us = now_us();
		max_us = 0;
	}
	return verify(block);
}

static int print_last(const char *path, struct block *block)
{
	int fd = open(path, O_RDONLY);
	uint64_t found = 0;

	if (fd < 0)
		return 2;
	while (read(fd, block, BLOCK_BYTES) == BLOCK_BYTES)
		if (block->magic == MAGIC && block->number > found)
			found = block->number;
	close(fd);
	printf("%" PRIu64 "\n", found);
	return 0;
}

int main(int argc, char **argv)
{
	struct block *block = aligned_alloc(BLOCK_BYTES, sizeof(*block));

	if (!block)
		return 2;
	memset(block, 0x5a, sizeof(*block));
	if (argc == 3 && strcmp(argv[1], "--last") == 0)
		return print_last(argv[2], block);
	if (argc == 3)
		return run(argv + 1, block);
	fputs("usage: alternate A B | --last FILE\n", stderr);
	return 2;
}
