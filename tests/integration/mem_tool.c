/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_tool.c - the memory engine on a real QEMU, by orders on stdin; the other end is here too.
 *
 *	mem_tool PID RAM-BYTES [kernel|hash [none|lz4|zstd|auto]]
 *
 *	round     harvest and send, the guest may run       prints "round N ..."
 *	quiet     has anything changed since?               prints "quiet" or "late CAUSE"
 *	check     compare both memories                     prints "differs N allocated A B"
 *	end       detach                                    prints "detached"
 *
 * Exit: 0, or 1 with a line "error ID CAUSE".
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "blkmirror/base/loop.h"
#include "vmotion/mem_attach.h"
#include "vmotion/mem_receive.h"
#include "vmotion/mem_rounds.h"

#define STREAMS 2u
#define PART_BYTES (UINT64_C(1) << 20)

struct tool {
	struct mem_attach *attach;
	struct mem_space *source;
	struct mem_space target;
	struct mem_rounds *rounds;
	struct mem_receiver *receiver;
	struct mem_link link;
	struct mem_round_stats stats;   /* at the end of the last round */
};

static int fail(const struct err *err)
{
	printf("error %s %s\n", err_name(err->id), err->cause);
	return 1;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- the other end ---- */

static void link_send(struct mem_link *link, struct mem_buf *buf)
{
	struct tool *tool = container_of(link, struct tool, link);
	struct err err = { 0 };
	int rc = mem_receiver_batch(tool->receiver, buf->stream, buf->bytes, buf->len_bytes, &err);

	mem_buf_done(buf, rc);
}

static const struct mem_link_ops link_ops = { .send = link_send };

static void round_done(void *user, uint32_t round)
{
	struct tool *tool = user;

	mem_rounds_acknowledged(tool->rounds, round);
}

static int make_target(struct tool *tool, struct err *err)
{
	mem_space_init(&tool->target);
	for (uint32_t i = 0; i < tool->source->count; i++) {
		struct mem_block block = tool->source->blocks[i];

		block.fd_offset_bytes = 0;
		block.backing_bytes = MEM_PAGE_BYTES;
		block.fd = memfd_create("target", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (block.fd < 0 || ftruncate(block.fd, (off_t)block.len_bytes) < 0 ||
		    fcntl(block.fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0 ||
		    mem_space_add(&tool->target, &block) < 0)
			return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot make the other memory");
	}
	return mem_space_map(&tool->target, err);
}

static unsigned codec_of(const char *name)
{
	for (enum mem_codec codec = 0; codec < MEM_CODEC_COUNT; codec++)
		if (strcmp(name, mem_codec_name(codec)) == 0)
			return codec;
	return MEM_CODEC_AUTO;
}

static int set_up(struct tool *tool, char **argv, int argc, struct err *err)
{
	struct mem_attach_options attach = {
		.pid = (pid_t)atoi(argv[1]), .expected_bytes = strtoull(argv[2], NULL, 10),
		.tracker = argc > 3 && strcmp(argv[3], "hash") == 0 ? MEM_TRACKER_HASH :
								      MEM_TRACKER_KERNEL,
	};
	struct mem_receiver_options receiver = {
		.stream_count = STREAMS, .round_done = round_done, .user = tool,
	};
	struct mem_rounds_options options = {
		.stream_count = STREAMS, .codec = codec_of(argc > 4 ? argv[4] : "auto"),
		.cache_bytes = 16 * PART_BYTES, .hash_seed = now_ns(),
	};
	uint64_t begun_ns = now_ns();
	int rc = mem_attach_new(&attach, &tool->attach, err);

	if (rc)
		return rc;
	tool->source = mem_attach_space(tool->attach);
	printf("attached blocks=%u MiB=%" PRIu64 " tracker=%s us=%" PRIu64 "\n",
	       tool->source->count, tool->source->len_bytes >> 20,
	       mem_attach_tracker(tool->attach)->ops->name, (now_ns() - begun_ns) / NS_PER_US);
	tool->link.ops = &link_ops;
	rc = make_target(tool, err);
	if (!rc)
		rc = mem_rounds_new(tool->source, mem_attach_tracker(tool->attach), &tool->link,
				    &options, &tool->rounds, err);
	return rc ? rc : mem_receiver_new(&tool->target, &receiver, &tool->receiver, err);
}

/* ---- orders ---- */

static int do_round(struct tool *tool, struct err *err)
{
	struct mem_round_stats last = tool->stats, *now = &tool->stats;
	uint64_t begun_ns = now_ns(), scan_ns, left;
	int rc = mem_rounds_harvest(tool->rounds, err);

	if (rc)
		return rc;
	scan_ns = now_ns() - begun_ns;
	left = mem_rounds_left_bytes(tool->rounds);
	rc = mem_rounds_send(tool->rounds, err);
	if (!rc)
		rc = mem_rounds_await(tool->rounds, 60 * NS_PER_S, err);
	if (rc)
		return rc;
	mem_rounds_stats(tool->rounds, now);
	printf("round %u dirty=%" PRIu64 " unchanged=%" PRIu64 " zero=%" PRIu64 " delta=%" PRIu64
	       " stored=%" PRIu64 " packed=%" PRIu64 " wire_KiB=%" PRIu64 " scan_us=%" PRIu64
	       " us=%" PRIu64 "\n",
	       now->rounds, left / MEM_PAGE_BYTES, now->unchanged_pages - last.unchanged_pages,
	       now->zero_pages - last.zero_pages, now->delta_pages - last.delta_pages,
	       now->stored_pages - last.stored_pages, now->packed_pages - last.packed_pages,
	       (now->wire_bytes - last.wire_bytes) >> 10, scan_ns / NS_PER_US,
	       (now_ns() - begun_ns) / NS_PER_US);
	return 0;
}

static uint64_t pages_that_differ(const struct mem_block *a, const struct mem_block *b)
{
	static uint8_t left[PART_BYTES], right[PART_BYTES];
	uint64_t count = 0;

	for (uint64_t at = 0; at < a->len_bytes; at += PART_BYTES) {
		uint64_t len = MIN(PART_BYTES, a->len_bytes - at);

		CHECK(pread(a->fd, left, len, (off_t)(a->fd_offset_bytes + at)) == (ssize_t)len);
		CHECK(pread(b->fd, right, len, (off_t)at) == (ssize_t)len);
		for (uint64_t page = 0; page < len; page += MEM_PAGE_BYTES)
			count += memcmp(left + page, right + page, MEM_PAGE_BYTES) != 0;
	}
	return count;
}

static uint64_t allocated(const struct mem_space *space)
{
	uint64_t blocks = 0;

	for (uint32_t i = 0; i < space->count; i++) {
		struct stat stat;

		CHECK(fstat(space->blocks[i].fd, &stat) == 0);
		blocks += (uint64_t)stat.st_blocks;
	}
	return blocks * 512;
}

static void do_check(struct tool *tool)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < tool->source->count; i++)
		count += pages_that_differ(&tool->source->blocks[i], &tool->target.blocks[i]);
	printf("differs %" PRIu64 " allocated %" PRIu64 " %" PRIu64 "\n", count,
	       allocated(tool->source), allocated(&tool->target));
}

static void do_quiet(struct tool *tool)
{
	struct err err = { 0 };

	if (mem_attach_check_same(tool->attach, &err) || mem_rounds_check_quiet(tool->rounds, &err))
		printf("late %s\n", err.cause);
	else
		printf("quiet\n");
}

static void tear_down(struct tool *tool)
{
	mem_rounds_free(tool->rounds);
	mem_receiver_free(tool->receiver);
	mem_attach_free(tool->attach);
	mem_space_release(&tool->target);
}

int main(int argc, char **argv)
{
	static struct tool tool;
	struct err err = { 0 };
	char order[32];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3) {
		fprintf(stderr, "usage: mem_tool PID RAM-BYTES [kernel|hash [CODEC]]\n");
		return 2;
	}
	if (set_up(&tool, argv, argc, &err)) {
		tear_down(&tool);
		return fail(&err);
	}
	while (scanf("%31s", order) == 1) {
		if (strcmp(order, "end") == 0)
			break;
		if (strcmp(order, "check") == 0)
			do_check(&tool);
		else if (strcmp(order, "quiet") == 0)
			do_quiet(&tool);
		else if (do_round(&tool, &err))
			return fail(&err);
	}
	tear_down(&tool);
	printf("detached\n");
	return 0;
}
