/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/ledger_book.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/check.h"

#define BOOK_MAGIC UINT64_C(0x314b4f4f424c4d42) /* "BMLBOOK1" */
#define BOOK_SECTORS_MAX (UINT64_C(1) << 33)
#define BAD_LINES_MAX 20u

struct book_slot {
	uint64_t sector;
	uint32_t count;
	uint32_t sequence;
	uint32_t change;        /* enum ledger_change */
	uint32_t zero;
};
_Static_assert(sizeof(struct book_slot) == 24, "the file's layout");

struct book_file {
	uint64_t magic;
	uint64_t run;
	uint64_t sector_count;
	uint32_t last_sequence;
	uint32_t zero;
	struct book_slot slots[LEDGER_SLOTS_MAX];
	uint32_t sequences[];
};

struct ledger_book {
	struct book_file *file;
	size_t file_bytes;
	unsigned slots_used;    /* all behind are free */
};

static size_t book_bytes(uint64_t sector_count)
{
	return sizeof(struct book_file) + sector_count * sizeof(uint32_t);
}

static struct ledger_book *complain(const char *what, const char *path)
{
	fprintf(stderr, "%s the ledger '%s': %s\n", what, path, strerror(errno));
	return NULL;
}

static struct ledger_book *book_map(int fd, const char *path, size_t bytes, int protection)
{
	struct ledger_book *book = calloc(1, sizeof(*book));

	if (!book)
		return complain("cannot map", path);
	book->file = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
	if (book->file == MAP_FAILED) {
		complain("cannot map", path);
		free(book);
		return NULL;
	}
	book->file_bytes = bytes;
	return book;
}

struct ledger_book *ledger_book_create(const char *path, uint64_t run, uint64_t sector_count)
{
	size_t bytes = book_bytes(sector_count);
	struct ledger_book *book = NULL;
	int fd;

	if (sector_count > BOOK_SECTORS_MAX) {
		errno = EFBIG;
		return complain("cannot make", path);
	}
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return complain("cannot make", path);
	if (ftruncate(fd, (off_t)bytes) < 0)
		complain("cannot make", path);
	else
		book = book_map(fd, path, bytes, PROT_READ | PROT_WRITE);
	close(fd);
	if (!book)
		return NULL;
	book->file->magic = BOOK_MAGIC;
	book->file->run = run;
	book->file->sector_count = sector_count;
	return book;
}

static bool book_is_sound(const struct ledger_book *book)
{
	const struct book_file *file = book->file;

	if (file->magic != BOOK_MAGIC || file->sector_count > BOOK_SECTORS_MAX ||
	    book_bytes(file->sector_count) != book->file_bytes)
		return false;
	for (unsigned i = 0; i < LEDGER_SLOTS_MAX; i++) {
		const struct book_slot *slot = &file->slots[i];

		if (slot->change > LEDGER_MAY_ZERO || slot->sector > file->sector_count ||
		    slot->count > file->sector_count - slot->sector)
			return false;
	}
	return true;
}

struct ledger_book *ledger_book_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct ledger_book *book = NULL;
	struct stat st;

	if (fd < 0)
		return complain("cannot open", path);
	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(struct book_file)) {
		errno = EINVAL;
		complain("cannot read", path);
	} else {
		book = book_map(fd, path, (size_t)st.st_size, PROT_READ);
	}
	close(fd);
	if (!book || book_is_sound(book)) {
		if (book)
			book->slots_used = LEDGER_SLOTS_MAX;
		return book;
	}
	ledger_book_close(book);
	errno = EINVAL;
	return complain("cannot read", path);
}

void ledger_book_close(struct ledger_book *book)
{
	if (!book)
		return;
	munmap(book->file, book->file_bytes);
	free(book);
}

uint64_t ledger_book_run(const struct ledger_book *book)
{
	return book->file->run;
}

uint64_t ledger_book_sectors(const struct ledger_book *book)
{
	return book->file->sector_count;
}

/* ---- requests ---- */

static bool slot_overlaps(const struct book_slot *slot, uint64_t sector, uint32_t count)
{
	return slot->change != LEDGER_NOTHING && sector < slot->sector + slot->count &&
	       slot->sector < sector + count;
}

bool ledger_book_is_locked(const struct ledger_book *book, uint64_t sector, uint32_t count)
{
	for (unsigned i = 0; i < book->slots_used; i++)
		if (slot_overlaps(&book->file->slots[i], sector, count))
			return true;
	return false;
}

uint32_t ledger_book_begin(struct ledger_book *book, unsigned slot_index,
			   enum ledger_change change, uint64_t sector, uint32_t count)
{
	struct book_slot *slot = &book->file->slots[slot_index];

	CHECK(slot_index < LEDGER_SLOTS_MAX);
	CHECK(slot->change == LEDGER_NOTHING);
	CHECK(!ledger_book_is_locked(book, sector, count));
	*slot = (struct book_slot){ .sector = sector, .count = count, .change = change };
	if (change == LEDGER_WRITES) {
		slot->sequence = ++book->file->last_sequence;
		CHECK(slot->sequence != 0);     /* four billion writes: a longer run needs more bits */
	}
	if (slot_index >= book->slots_used)
		book->slots_used = slot_index + 1;
	return slot->sequence;
}

void ledger_book_answered(struct ledger_book *book, unsigned slot_index, const uint8_t *read_back)
{
	struct book_slot *slot = &book->file->slots[slot_index];
	uint32_t *sequences = book->file->sequences + slot->sector;

	CHECK(slot->change != LEDGER_NOTHING);
	for (uint32_t i = 0; slot->change != LEDGER_READS && i < slot->count; i++) {
		const uint8_t *bytes = read_back + (size_t)i * LEDGER_SECTOR_BYTES;

		if (slot->change != LEDGER_MAY_ZERO ||
		    ledger_sector_judge(bytes, book->file->run, slot->sector + i).kind ==
			    SECTOR_ZERO)
			sequences[i] = slot->sequence;
	}
	slot->change = LEDGER_NOTHING;
}

/* ---- judging ---- */

/* May the sector also be what an unanswered request makes of it? */
static bool is_under_way(const struct ledger_book *book, uint64_t sector,
			 const struct sector_finding *found)
{
	for (unsigned i = 0; i < book->slots_used; i++) {
		const struct book_slot *slot = &book->file->slots[i];

		if (slot_overlaps(slot, sector, 1) && slot->change != LEDGER_READS &&
		    slot->sequence == found->sequence)
			return true;
	}
	return false;
}

static void bad_line(const struct ledger_verdict *verdict, uint64_t sector, uint32_t expected,
		     const struct sector_finding *found)
{
	uint64_t bad = ledger_verdict_bad(verdict);

	if (bad <= BAD_LINES_MAX)
		printf("mismatch sector=%" PRIu64 " expected=%u found=%s sequence=%u of=%" PRIu64
		       "\n", sector, expected, sector_kind_name(found->kind), found->sequence,
		       found->sector);
}

void ledger_book_check(const struct ledger_book *book, uint64_t sector, uint32_t count,
		       const uint8_t *bytes, struct ledger_verdict *verdict)
{
	CHECK(sector + count <= book->file->sector_count);
	verdict->sectors += count;
	for (uint32_t i = 0; i < count; i++, sector++, bytes += LEDGER_SECTOR_BYTES) {
		uint32_t expected = book->file->sequences[sector];
		struct sector_finding found = ledger_sector_judge(bytes, book->file->run, sector);

		if (found.kind == SECTOR_ZERO || found.kind == SECTOR_SOUND) {
			if (found.sequence == expected || is_under_way(book, sector, &found))
				continue;
			if (found.sequence < expected)
				verdict->lost++;
			else
				verdict->early++;
		} else {
			verdict->damaged++;
		}
		bad_line(verdict, sector, expected, &found);
	}
}
