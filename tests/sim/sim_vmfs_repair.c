/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_vmfs_repair.c - random damage to a VMFS volume's metadata, a seed each.
 *
 * Bytes, words and sectors of the metadata are overwritten, or swapped with others.  Then the
 * volume is refused, or it is repaired: after that the check finds nothing, and a second repair
 * finds nothing and changes nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/vmfs_mem.h"
#include "vmfs/vmfs_fsck.h"
#include "vmfs/vmfs_mkfs.h"

#define MIB (UINT64_C(1) << 20)
#define DEVICE_BYTES (VMFS_DATA_OFFSET + VMFS_PE_BYTES)
#define FS VMFS_DATA_OFFSET

static const struct { uint64_t at, len; unsigned weight; } places[] = {
	{ VMFS_LVM_OFFSET, 1024, 1 },
	{ FS + VMFS_INFO_OFFSET, 512, 1 },
	{ FS + VMFS_HB_OFFSET, 4096, 2 },
	{ FS + 0x400000, 64, 1 }, { FS + 0x410000, 0x1000, 4 },         /* .fdc.sf */
	{ FS + 0x420000, 0x4000, 1 },                                   /* the system's own */
	{ FS + 0x424000, 0x8000, 14 },                                  /* descriptors */
	{ FS + 0x500000, 0x1000, 6 },                                   /* the root */
	{ FS + 0x600000, 64, 1 }, { FS + 0x610000, 0x800, 3 },          /* .fbb.sf */
	{ FS + 0x700000, 64, 1 }, { FS + 0x710000, 0x800, 3 },          /* .pbc.sf */
	{ FS + 0x720000, 0x4000, 4 },                                   /* pointer blocks */
	{ FS + 0x900000, 64, 1 }, { FS + 0x910000, 0x800, 3 },          /* .sbc.sf */
	{ FS + 0x920000, 0x8000, 6 },                                   /* folders in sub-blocks */
};

static uint64_t current_seed, state;
static struct vmfs_mem *mem;
static uint64_t refused, unrepairable, repaired, sound;

static void on_abort(int signal_number UNUSED)
{
	fprintf(stderr, "reproduce: make check-sim SEED=%" PRIu64 "\n", current_seed);
	_exit(1);
}

static uint64_t chance(uint64_t bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % bound;
}

static void must(int rc, const struct err *err)
{
	if (rc)
		fprintf(stderr, "%d: %s\n", rc, err->cause);
	CHECK(rc == 0);
}

/* ---- the base ---- */

static void make_file(struct vmfs_node *dir, const char *name, uint64_t offset, size_t len)
{
	const struct vmfs_attributes attributes = { .mode = 0644 };
	CLEANUP_FREE uint8_t *bytes = malloc(len);
	struct vmfs_node *node;
	struct err err = { 0 };

	CHECK(bytes);
	memset(bytes, name[0], len);
	must(vmfs_create(dir, name, &attributes, &node, &err), &err);
	must(vmfs_write(node, offset, bytes, len, &err), &err);
	must(vmfs_node_put(node, &err), &err);
}

static void fill(struct vmfs *fs)
{
	const struct vmfs_attributes attributes = { .mode = 0755 };
	struct vmfs_node *root, *dir;
	struct err err = { 0 };
	char name[32];

	must(vmfs_walk(fs, "/", &root, &err), &err);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "dir%u", i);
		must(vmfs_mkdir(root, name, &attributes, &err), &err);
		must(vmfs_walk(fs, name, &dir, &err), &err);
		make_file(dir, "small", 0, 3000);
		make_file(dir, "blocks", 0, 20000 + i * MIB);
		make_file(dir, "deep", (260 + i) * MIB, 5000);
		must(vmfs_symlink(dir, "link", "small", &err), &err);
		must(vmfs_mkdir(dir, "folder", &attributes, &err), &err);
		must(vmfs_node_put(dir, &err), &err);
	}
	make_file(root, "huge", 300 * 1024 * MIB, 5000);
	must(vmfs_node_put(root, &err), &err);
}

static void make_base(void)
{
	const struct vmfs_mkfs_options mkfs = { .reads_zero = true, .now_s = 1, .file_count = 128 };
	const struct vmfs_options options = { 0 };
	struct vmfs_io *io;
	struct vmfs *fs;
	struct err err = { 0 };

	mem = vmfs_mem_new(DEVICE_BYTES);
	io = &mem->io;
	must(vmfs_mkfs(&io, 1, &mkfs, &err), &err);
	must(vmfs_open(&io, 1, &options, &fs, &err), &err);
	fill(fs);
	must(vmfs_close(fs, &err), &err);
	vmfs_mem_mark(mem);
}

/* ---- damage ---- */

static uint64_t random_place(uint64_t align, size_t len)
{
	unsigned total = 0, pick;

	for (unsigned i = 0; i < ARRAY_COUNT(places); i++)
		total += places[i].weight;
	pick = (unsigned)chance(total);
	for (unsigned i = 0;; i++) {
		if (pick < places[i].weight) {
			uint64_t at = places[i].at + chance(places[i].len);

			at -= at % align;
			return MIN(at, DEVICE_BYTES - len);
		}
		pick -= places[i].weight;
	}
}

static void damage_once(void)
{
	uint8_t bytes[2048];
	size_t len = 1;
	uint64_t at;

	switch (chance(5)) {
	case 0:
		len = 4;
		break;
	case 1:
		len = 512;
		break;
	case 2:
		len = 2048;
		break;
	default:
		break;
	}
	at = random_place(len, len);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)chance(256);
	if (len >= 4 && chance(2))      /* what stands elsewhere */
		memcpy(bytes, mem->bytes + random_place(len, len), len);
	else if (len >= 4 && chance(2))
		memset(bytes, 0, len);
	vmfs_mem_poke(mem, at, bytes, len);
}

/* ---- a run ---- */

static bool loud;

static void print_finding(const struct vmfs_finding *finding, void *user UNUSED)
{
	if (loud)
		fprintf(stderr, "  found: %s\n", finding->text);
}

static void print_mended(const char *text, void *user UNUSED)
{
	if (loud)
		fprintf(stderr, "  mended: %s\n", text);
}

static void print_left(const struct vmfs_finding *finding, void *user UNUSED)
{
	fprintf(stderr, "  left: %s\n", finding->text);
}

static void no_pause(uint32_t ms UNUSED, void *user UNUSED)
{
}

static int repair_once(struct vmfs_repair_result *result)
{
	static const struct vmfs_repair_calls calls = { print_finding, print_mended, print_left };
	const struct vmfs_options options = { .repair = true, .pause_ms = no_pause };
	struct vmfs_io *io = &mem->io;
	struct vmfs *fs;
	struct err err = { 0 };
	int rc = vmfs_open(&io, 1, &options, &fs, &err);

	if (rc) {
		CHECK(err.id != ERR_NONE);
		refused++;
		return rc;
	}
	rc = vmfs_repair(fs, &calls, NULL, result, &err);
	if (rc) {
		/* Only because the resource files are damaged, and then nothing was changed. */
		if (rc != -EUCLEAN || result->mended > 0)
			fprintf(stderr, "%d: %s\n", rc, err.cause);
		CHECK(rc == -EUCLEAN);
		CHECK(result->mended == 0);
		unrepairable++;
	}
	must(vmfs_close(fs, &err), &err);
	return rc;
}

static void run_seed(uint64_t seed)
{
	struct vmfs_repair_result first, second;

	state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
	vmfs_mem_reset(mem);
	for (uint64_t left = 1 + chance(6); left > 0; left--)
		damage_once();
	if (repair_once(&first))
		return;
	CHECK(first.after.total == 0);
	repaired += first.before.total > 0;
	sound += first.before.total == 0;
	CHECK(repair_once(&second) == 0);
	CHECK(second.before.total == 0);
	CHECK(second.mended == 0);
}

int main(int argc, char **argv)
{
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 3000;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

	signal(SIGABRT, on_abort);
	loud = seeds == 1;
	make_base();
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		current_seed = seed;
		run_seed(seed);
	}
	vmfs_mem_free(mem);
	printf("%" PRIu64 " seeds: %" PRIu64 " refused, %" PRIu64 " not to be repaired, %" PRIu64
	       " repaired, %" PRIu64 " with nothing to find\n", seeds, refused, unrepairable, repaired,
	       sound);
	/* Otherwise the damage was of one kind only, and shows little. */
	CHECK(seeds < 1000 || (refused && unrepairable && repaired > seeds / 4));
	return 0;
}
