/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/mem_encode.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define WORD_BYTES 8u
#define PAGE_WORDS (MEM_PAGE_BYTES / WORD_BYTES)
#define RUN_HEAD_BYTES 4u
/* Of 256 samples: noise shows about 162 different values, machine code and text below 120. */
#define DENSE_VALUES 140u
#define SAMPLE_STRIDE (MEM_PAGE_BYTES / 256u)

bool mem_page_is_zero(const uint8_t *page)
{
	uint64_t words[8];

	/* Most pages tell with their first bytes. */
	for (uint32_t at = 0; at < MEM_PAGE_BYTES; at += sizeof(words)) {
		memcpy(words, page + at, sizeof(words));
		if (words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] |
		    words[7])
			return false;
	}
	return true;
}

bool mem_page_is_dense(const uint8_t *page)
{
	uint64_t seen[4] = { 0 };
	uint32_t values = 0;

	/* The stride goes through all places of a word, so that no field of a structure rules. */
	for (uint32_t i = 0; i < 256; i++) {
		uint8_t byte = page[i * SAMPLE_STRIDE + i % SAMPLE_STRIDE];

		seen[byte / 64] |= UINT64_C(1) << (byte % 64);
	}
	for (uint32_t i = 0; i < 4; i++)
		values += (uint32_t)__builtin_popcountll(seen[i]);
	return values > DENSE_VALUES;
}

/* ---- deltas ---- */

static bool same_word(const uint8_t *a, const uint8_t *b, uint32_t word)
{
	return memcmp(a + word * WORD_BYTES, b + word * WORD_BYTES, WORD_BYTES) == 0;
}

static void put_u16(uint8_t *at, uint32_t value)
{
	uint16_t little = htole16((uint16_t)value);

	memcpy(at, &little, sizeof(little));
}

static uint32_t get_u16(const uint8_t *at)
{
	uint16_t little;

	memcpy(&little, at, sizeof(little));
	return le16toh(little);
}

uint32_t mem_delta_make(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out)
{
	uint32_t len = 0, word = 0;

	for (;;) {
		uint32_t start = word, first, count;

		while (word < PAGE_WORDS && same_word(old_page, new_page, word))
			word++;
		if (word == PAGE_WORDS)
			return len;
		first = word;
		while (word < PAGE_WORDS && !same_word(old_page, new_page, word))
			word++;
		count = word - first;
		if (len + RUN_HEAD_BYTES + count * WORD_BYTES > MEM_DELTA_MAX_BYTES)
			return 0;
		put_u16(out + len, first - start);
		put_u16(out + len + 2, count);
		memcpy(out + len + RUN_HEAD_BYTES, new_page + first * WORD_BYTES,
		       count * WORD_BYTES);
		len += RUN_HEAD_BYTES + count * WORD_BYTES;
	}
}

int mem_delta_judge(const uint8_t *delta, uint32_t len_bytes)
{
	uint32_t at = 0, word = 0;

	if (!len_bytes || len_bytes > MEM_DELTA_MAX_BYTES)
		return -EBADMSG;
	while (at < len_bytes) {
		uint32_t skip, count;

		if (len_bytes - at < RUN_HEAD_BYTES)
			return -EBADMSG;
		skip = get_u16(delta + at);
		count = get_u16(delta + at + 2);
		at += RUN_HEAD_BYTES;
		if (!count || skip > PAGE_WORDS - word || count > PAGE_WORDS - word - skip ||
		    count * WORD_BYTES > len_bytes - at)
			return -EBADMSG;
		word += skip + count;
		at += count * WORD_BYTES;
	}
	return 0;
}

void mem_delta_apply(uint8_t *page, const uint8_t *delta, uint32_t len_bytes)
{
	uint32_t at = 0, word = 0;

	while (at < len_bytes) {
		uint32_t skip = get_u16(delta + at), count = get_u16(delta + at + 2);

		CHECK(skip + count <= PAGE_WORDS - word);
		at += RUN_HEAD_BYTES;
		word += skip;
		memcpy(page + word * WORD_BYTES, delta + at, count * WORD_BYTES);
		word += count;
		at += count * WORD_BYTES;
	}
}
