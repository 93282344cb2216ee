/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_vmfs.c - random changes of a VMFS volume, and a power cut among its writes, a seed each.
 *
 * A run of operations is carried out beside a model in memory; at its end the volume must hold
 * what the model says, and the check must find nothing.  Then the power is cut at chosen
 * writes: everything up to the last flush is there, of what came later any part, in any order.
 * In one half of the seeds each write is whole or missing, in the other it is torn at sectors.
 *
 * After each cut
 *   - opened for reading it shows every file that was synced and not touched since, byte for
 *     byte; the check finds at most space that will be given back
 *   - opened for writing the check finds nothing at all, the files are the same, and every name
 *     is one that was given
 *   - a second cut, while the journal is carried out, changes none of that
 */
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
#define GIB (UINT64_C(1) << 30)
#define DEVICE_BYTES (VMFS_DATA_OFFSET + VMFS_PE_BYTES)
#define OPS 40u
#define CUTS 10u
#define NAMES 6u
#define DIRS 3u
#define SLOTS (NAMES * DIRS)
#define REGIONS 4u
#define REGION_BYTES (16u << 10)

static const uint64_t region_at[REGIONS] = { 0, MIB - (8u << 10), 400 * MIB, 300 * GIB };

/* What a file should hold: everything outside of the regions is zero. */
struct slot {
	bool exists;
	uint64_t length;
	uint8_t regions[REGIONS][REGION_BYTES];
};

struct sync_point {
	size_t event_count;
	unsigned op;
	uint64_t hashes[SLOTS];
};

static uint64_t current_seed, state;
static struct vmfs_mem *mem, *crashed;
static struct vmfs *fs;
static struct vmfs_node *dirs[DIRS];
static struct slot slots[SLOTS];
static struct sync_point syncs[OPS + 2];
static unsigned sync_count;
static bool touched[OPS + 2][SLOTS];
static struct vmfs_node *held;         /* a file that has lost its name and is still open */
static unsigned op_now;
static bool torn;

static void on_abort(int signal_number UNUSED)
{
	fprintf(stderr, "reproduce: make check-sim SEED=%" PRIu64 " (operation %u)\n", current_seed,
		op_now);
	_exit(1);
}

static uint64_t chance(uint64_t bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 11) % bound;
}

static uint32_t now_s(void *user UNUSED)
{
	return 1700000000u + op_now;
}

static void must(int rc, const struct err *err)
{
	if (rc)
		fprintf(stderr, "operation %u: %d: %s\n", op_now, rc, err->cause);
	CHECK(rc == 0);
}

/* ---- the model ---- */

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static uint64_t hash_slot(const struct slot *slot)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	if (!slot->exists)
		return 0;
	hash = hash_bytes(hash, &slot->length, sizeof(slot->length));
	return hash_bytes(hash, slot->regions, sizeof(slot->regions));
}

static void touch(unsigned index)
{
	touched[op_now][index] = true;
}

static struct vmfs_node *dir_of(unsigned index)
{
	return dirs[index / NAMES];
}

static char *name_of(unsigned index, char name[128])
{
	/* Long names, so that folders fill their first sub-block soon. */
	snprintf(name, 128, "file-%u-%0*u", index % NAMES, index % 2 ? 20 : 100, index);
	return name;
}

/* ---- operations ---- */

static struct vmfs_node *open_slot(unsigned index)
{
	struct vmfs_node *node;
	struct err err = { 0 };
	char name[128];

	must(vmfs_lookup(dir_of(index), name_of(index, name), &node, &err), &err);
	return node;
}

static void close_node(struct vmfs_node *node)
{
	struct err err = { 0 };

	must(vmfs_node_put(node, &err), &err);
}

static void op_create(unsigned index)
{
	const struct vmfs_attributes attributes = { .mode = 0644 };
	struct err err = { 0 };
	char name[128];

	if (slots[index].exists)
		return;
	must(vmfs_create(dir_of(index), name_of(index, name), &attributes, NULL, &err), &err);
	memset(&slots[index], 0, sizeof(slots[index]));
	slots[index].exists = true;
}

static void op_write(unsigned index)
{
	unsigned region = (unsigned)chance(REGIONS);
	uint64_t from = chance(REGION_BYTES), len = 1 + chance(REGION_BYTES - from);
	struct slot *slot = &slots[index];
	struct vmfs_node *node = open_slot(index);
	struct err err = { 0 };

	if (chance(3) == 0)
		from = 0;
	len = MIN(len, REGION_BYTES - from);
	for (uint64_t i = 0; i < len; i++)
		slot->regions[region][from + i] = (uint8_t)chance(256);
	/* The regions 0 and 1 do not overlap; what is written shows in its own only. */
	must(vmfs_write(node, region_at[region] + from, slot->regions[region] + from, len, &err), &err);
	slot->length = MAX(slot->length, region_at[region] + from + len);
	close_node(node);
}

static void cut_model(struct slot *slot, uint64_t from, uint64_t end)
{
	for (unsigned r = 0; r < REGIONS; r++)
		for (uint64_t i = 0; i < REGION_BYTES; i++)
			if (region_at[r] + i >= from && region_at[r] + i < end)
				slot->regions[r][i] = 0;
}

static void op_truncate(unsigned index)
{
	const uint64_t lengths[] = { 0, 5000, 8192, MIB, MIB + 4096, 3 * MIB + 7,
				     400 * MIB + 9000, 300 * GIB + 100 };
	uint64_t length = lengths[chance(ARRAY_COUNT(lengths))];
	struct vmfs_node *node = open_slot(index);
	struct err err = { 0 };

	must(vmfs_truncate(node, length, &err), &err);
	cut_model(&slots[index], length, UINT64_MAX);
	slots[index].length = length;
	close_node(node);
}

static void op_discard(unsigned index)
{
	const uint64_t ranges[][2] = { { 0, 2 * MIB }, { 100, 9000 }, { 399 * MIB, 3 * MIB },
				       { 0, 400 * GIB }, { 300 * GIB, 5000 } };
	const uint64_t *range = ranges[chance(ARRAY_COUNT(ranges))];
	struct vmfs_node *node = open_slot(index);
	struct err err = { 0 };

	must(vmfs_discard(node, range[0], range[1], &err), &err);
	cut_model(&slots[index], range[0], range[0] + range[1]);
	close_node(node);
}

static void op_allocate(unsigned index)
{
	uint64_t offset = chance(2) ? 0 : 399 * MIB, len = 1 + chance(3 * MIB);
	struct vmfs_node *node = open_slot(index);
	struct err err = { 0 };

	must(vmfs_allocate(node, offset, len, chance(2) ? VMFS_FILL_LAZY : VMFS_FILL_ZERO, &err), &err);
	slots[index].length = MAX(slots[index].length, offset + len);
	close_node(node);
}

static void op_unlink(unsigned index)
{
	struct err err = { 0 };
	char name[128];

	if (chance(3) == 0) {
		if (held)
			close_node(held);
		held = open_slot(index);
	}
	must(vmfs_unlink(dir_of(index), name_of(index, name), &err), &err);
	slots[index].exists = false;
}

static void op_rename(unsigned index)
{
	unsigned other = (unsigned)chance(SLOTS);
	char from[128], to[128];
	struct err err = { 0 };

	touch(other);
	must(vmfs_rename(dir_of(index), name_of(index, from), dir_of(other), name_of(other, to), &err),
	     &err);
	if (other == index)
		return;
	slots[other] = slots[index];
	slots[index].exists = false;
}

/* A folder comes and goes: nothing that the model keeps. */
static void op_folder(void)
{
	const struct vmfs_attributes attributes = { .mode = 0755 };
	struct vmfs_node *dir = dirs[chance(DIRS)];
	struct err err = { 0 };

	must(vmfs_mkdir(dir, "folder", &attributes, &err), &err);
	must(vmfs_symlink(dir, "link", "somewhere/else", &err), &err);
	if (chance(2)) {
		must(vmfs_rename(dir, "folder", dirs[0], "moved", &err), &err);
		must(vmfs_rmdir(dirs[0], "moved", &err), &err);
	} else {
		must(vmfs_rmdir(dir, "folder", &err), &err);
	}
	must(vmfs_unlink(dir, "link", &err), &err);
}

static void op_sync(void)
{
	struct sync_point *sync = &syncs[sync_count++];
	struct err err = { 0 };

	must(vmfs_sync(fs, &err), &err);
	sync->event_count = mem->event_count;
	sync->op = op_now;
	for (unsigned i = 0; i < SLOTS; i++)
		sync->hashes[i] = hash_slot(&slots[i]);
}

static void op_random(void)
{
	static void (*const changes[])(unsigned) = { op_write, op_write, op_write, op_truncate,
						     op_discard, op_allocate, op_unlink, op_rename };
	unsigned index = (unsigned)chance(SLOTS);

	if (chance(6) == 0) {
		op_sync();
		return;
	}
	if (chance(8) == 0) {
		op_folder();
		return;
	}
	touch(index);
	if (!slots[index].exists) {
		op_create(index);
		return;
	}
	changes[chance(ARRAY_COUNT(changes))](index);
}

/* ---- looking ---- */

/* What a volume holds of a slot; `exists` false when there is none, or it cannot be read. */
static bool read_slot(struct vmfs *volume, unsigned index, struct slot *out)
{
	struct vmfs_node *dir, *node;
	struct err err = { 0 };
	char path[16], name[128];
	struct vmfs_stat stat;
	bool sound = true;

	memset(out, 0, sizeof(*out));
	snprintf(path, sizeof(path), index / NAMES ? "/dir%u" : "/", index / NAMES);
	must(vmfs_walk(volume, path, &dir, &err), &err);
	if (vmfs_lookup(dir, name_of(index, name), &node, &err)) {
		sound = err.id == ERR_VMFS_NO_ENTRY;
		close_node(dir);
		return sound;
	}
	vmfs_node_stat(node, &stat);
	out->exists = true;
	out->length = stat.length_bytes;
	for (unsigned r = 0; r < REGIONS && sound; r++) {
		size_t got;

		sound = vmfs_read(node, region_at[r], out->regions[r], REGION_BYTES, &got, &err) == 0;
	}
	close_node(node);
	close_node(dir);
	return sound;
}

static void compare_all(void)
{
	static struct slot seen;

	for (unsigned i = 0; i < SLOTS; i++) {
		CHECK(read_slot(fs, i, &seen));
		if (hash_slot(&seen) != hash_slot(&slots[i]))
			fprintf(stderr, "slot %u: length %" PRIu64 ", not %" PRIu64 "\n", i, seen.length,
				slots[i].length);
		CHECK(hash_slot(&seen) == hash_slot(&slots[i]));
	}
}

static void print_finding(const struct vmfs_finding *finding, void *user UNUSED)
{
	fprintf(stderr, "  found: %s\n", finding->text);
}

static void must_be_clean(void)
{
	struct vmfs_fsck_result result;
	struct err err = { 0 };

	must(vmfs_fsck(fs, print_finding, NULL, &result, &err), &err);
	CHECK(result.total == 0);
}

/* A name that some operation gives; half of one and half of another is none (VO6). */
static bool name_is_known(const char *name)
{
	static const char *const others[] = { ".", "..", "dir1", "dir2", "folder", "link", "moved" };
	size_t len = strlen(name);
	char known[128];

	for (unsigned i = 0; i < ARRAY_COUNT(others); i++)
		if (strcmp(name, others[i]) == 0)
			return true;
	for (unsigned i = 0; i < SLOTS; i++)
		if (strcmp(name, name_of(i, known)) == 0)
			return true;
	return len > 3 && name[0] == '.' && strcmp(name + len - 3, ".sf") == 0;
}

static void check_names(struct vmfs *volume, const char *path)
{
	struct vmfs_entry entry;
	struct vmfs_node *dir;
	struct err err = { 0 };
	uint64_t cursor = 0;

	must(vmfs_walk(volume, path, &dir, &err), &err);
	while (vmfs_readdir(dir, &cursor, &entry, &err) == 0) {
		if (!name_is_known(entry.name))
			fprintf(stderr, "nobody gave the name '%s'\n", entry.name);
		CHECK(name_is_known(entry.name));
	}
	close_node(dir);
}

/* ---- the power cut ---- */

static void apply(const struct vmfs_mem_event *event)
{
	if (event->len_bytes)
		vmfs_mem_poke(crashed, event->offset_bytes, event->bytes, event->len_bytes);
}

/* Any part of it. */
static void apply_some(const struct vmfs_mem_event *event)
{
	if (!torn) {
		if (chance(2))
			apply(event);
		return;
	}
	for (size_t at = 0; at < event->len_bytes; at += VMFS_SECTOR_BYTES)
		if (chance(2))
			vmfs_mem_poke(crashed, event->offset_bytes + at, event->bytes + at,
				      VMFS_SECTOR_BYTES);
}

/* The first `cut` of the events, as the disk has them when the power goes. */
static void replay(const struct vmfs_mem_event *events, size_t cut)
{
	size_t durable = cut;

	while (durable > 0 && events[durable - 1].len_bytes)
		durable--;
	for (size_t i = 0; i < durable; i++)
		apply(&events[i]);
	for (size_t i = durable; i < cut; i++)
		apply_some(&events[i]);
}

static void expect_findings(struct vmfs *volume, bool lost_is_fine, size_t cut)
{
	struct vmfs_fsck_result result;
	struct err err = { 0 };

	must(vmfs_fsck(volume, NULL, NULL, &result, &err), &err);
	if (result.total == (lost_is_fine ? result.found[VMFS_FOUND_LOST] : 0))
		return;
	fprintf(stderr, "cut before event %zu of %zu:\n", cut, mem->event_count);
	must(vmfs_fsck(volume, print_finding, NULL, &result, &err), &err);
	CHECK_NEVER("a power cut left what it must not");
}

/* What was synced and not touched since is there. */
static void expect_synced(struct vmfs *volume, size_t cut)
{
	const struct sync_point *sync = &syncs[0];
	unsigned op = cut < mem->event_count ? mem->events[cut].tag : op_now;
	static struct slot seen;

	for (unsigned i = 0; i < sync_count; i++)
		if (syncs[i].event_count <= cut)
			sync = &syncs[i];
	for (unsigned i = 0; i < SLOTS; i++) {
		bool changed = false, sound = read_slot(volume, i, &seen);

		for (unsigned k = sync->op + 1; k <= op; k++)
			changed |= touched[k][i];
		if (changed)
			continue;
		if (!sound || hash_slot(&seen) != sync->hashes[i])
			fprintf(stderr, "slot %u is not as synced after operation %u (cut in %u)\n", i,
				sync->op, op);
		CHECK(sound);
		CHECK(hash_slot(&seen) == sync->hashes[i]);
	}
}

static void look(size_t cut, bool read_only)
{
	const struct vmfs_options options = { .read_only = read_only, .now_s = now_s };
	struct vmfs_io *io = &crashed->io;
	struct vmfs *volume;
	struct err err = { 0 };

	must(vmfs_open(&io, 1, &options, &volume, &err), &err);
	expect_findings(volume, read_only, cut);
	check_names(volume, "/");
	check_names(volume, "/dir1");
	check_names(volume, "/dir2");
	expect_synced(volume, cut);
	must(vmfs_close(volume, &err), &err);
}

static void check_crash(size_t cut)
{
	uint64_t before = state, after;

	vmfs_mem_reset(crashed);
	replay(mem->events, cut);
	look(cut, true);
	vmfs_mem_clear_events(crashed);
	crashed->recording = true;
	after = state;
	look(cut, false);
	crashed->recording = false;
	/* The same picture, and the power goes again while it is put in order. */
	vmfs_mem_reset(crashed);
	state = before;
	replay(mem->events, cut);
	state = after;
	replay(crashed->events, chance(crashed->event_count + 1));
	look(cut, true);
	look(cut, false);
}

/* ---- a run ---- */

static void make_base(void)
{
	const struct vmfs_mkfs_options options = { .reads_zero = true, .now_s = 1, .file_count = 128 };
	const struct vmfs_attributes attributes = { .mode = 0755 };
	struct vmfs_options rw = { .now_s = now_s };
	struct vmfs_node *root;
	struct vmfs_io *io;
	struct err err = { 0 };

	mem = vmfs_mem_new(DEVICE_BYTES);
	crashed = vmfs_mem_new(DEVICE_BYTES);
	io = &mem->io;
	must(vmfs_mkfs(&io, 1, &options, &err), &err);
	must(vmfs_open(&io, 1, &rw, &fs, &err), &err);
	must(vmfs_walk(fs, "/", &root, &err), &err);
	must(vmfs_mkdir(root, "dir1", &attributes, &err), &err);
	must(vmfs_mkdir(root, "dir2", &attributes, &err), &err);
	must(vmfs_node_put(root, &err), &err);
	must(vmfs_close(fs, &err), &err);
	for (size_t i = 0; i < mem->saved_count; i++)
		vmfs_mem_poke(crashed, mem->saved[i].number * 4096, mem->bytes + mem->saved[i].number * 4096,
			      4096);
	vmfs_mem_mark(mem);
	vmfs_mem_mark(crashed);
}

static void open_volume(void)
{
	struct vmfs_options rw = { .now_s = now_s };
	struct vmfs_io *io = &mem->io;
	struct err err = { 0 };

	must(vmfs_open(&io, 1, &rw, &fs, &err), &err);
	must(vmfs_walk(fs, "/", &dirs[0], &err), &err);
	must(vmfs_walk(fs, "/dir1", &dirs[1], &err), &err);
	must(vmfs_walk(fs, "/dir2", &dirs[2], &err), &err);
}

static void close_volume(void)
{
	struct err err = { 0 };

	if (held)
		close_node(held);
	held = NULL;
	for (unsigned i = 0; i < DIRS; i++)
		close_node(dirs[i]);
	must(vmfs_close(fs, &err), &err);
}

static void run_seed(uint64_t seed)
{
	state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
	torn = seed % 2;
	memset(slots, 0, sizeof(slots));
	memset(touched, 0, sizeof(touched));
	sync_count = 0;
	op_now = 0;
	vmfs_mem_reset(mem);
	vmfs_mem_clear_events(mem);
	mem->recording = true;
	open_volume();
	op_sync();
	for (op_now = 1; op_now <= OPS; op_now++) {
		mem->tag = op_now;
		op_random();
	}
	op_now = OPS + 1;
	compare_all();
	if (held)
		close_node(held);
	held = NULL;
	must_be_clean();
	close_volume();
	for (unsigned i = 0; i < CUTS; i++)
		check_crash(chance(mem->event_count + 1));
}

int main(int argc, char **argv)
{
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

	signal(SIGABRT, on_abort);
	make_base();
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		current_seed = seed;
		run_seed(seed);
	}
	vmfs_mem_free(mem);
	vmfs_mem_free(crashed);
	printf("%" PRIu64 " seeds, the power cut %u times in each\n", seeds, CUTS);
	return 0;
}
