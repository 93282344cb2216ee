/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: no text crashes a parser of units; what one accepts is in range, and only then stored. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/units.h"
#include "blkmirror/base/uuid.h"

#define UNTOUCHED UINT64_C(0xfeedfacecafebeef)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_parser(int (*parse)(const char *, uint64_t *, struct err *), const char *text)
{
	uint64_t value = UNTOUCHED;
	struct err err = { 0 };
	int rc = parse(text, &value, &err);

	CHECK(rc <= 0);
	CHECK(rc ? value == UNTOUCHED : value <= INT64_MAX);
	CHECK((rc != 0) == (err.id == ERR_BAD_UNIT));
}

/* What is shown for a parsed value is itself a text that parses (sizes up to T). */
static void check_round_trip(const char *text)
{
	char shown[FORMAT_BYTES];
	uint64_t bytes, again;

	if (units_parse_size(text, &bytes, NULL) || bytes >= UINT64_C(1023) << 40)
		return;
	CHECK(units_parse_size(format_bytes(shown, bytes), &again, NULL) == 0);
	CHECK(again <= bytes + bytes / 100 + 1);
	CHECK(bytes <= again + again / 100 + 1);
}

static void check_uuid(const char *text)
{
	struct uuid uuid, again;
	char shown[UUID_TEXT_BYTES];

	if (uuid_parse(text, &uuid))
		return;
	CHECK(uuid_parse(uuid_format(&uuid, shown), &again) == 0);
	CHECK(uuid_equal(&uuid, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char shown[FORMAT_BYTES];
	uint64_t value = 0;
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	check_parser(units_parse_size, text);
	check_parser(units_parse_rate, text);
	check_parser(units_parse_time, text);
	check_round_trip(text);
	check_uuid(text);
	memcpy(&value, data, size < sizeof(value) ? size : sizeof(value));
	CHECK(strlen(format_rate(shown, value)) < FORMAT_BYTES);
	CHECK(strlen(format_duration(shown, value)) < FORMAT_BYTES);
	free(text);
	return 0;
}
