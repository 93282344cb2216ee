/* SPDX-License-Identifier: Apache-2.0 */
#include "blkmirror/base/units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)
#define TIB (GIB * 1024)
#define KB UINT64_C(1000)
#define MB (KB * 1000)
#define GB (MB * 1000)
#define TB (GB * 1000)

#define FRACTION_DIGITS_MAX 18
#define VALUE_MAX INT64_MAX
/* What of a bad text is repeated in its error. */
#define TEXT_SHOWN 40

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "B", 1 },    { "K", KIB },   { "KiB", KIB }, { "M", MIB },   { "MiB", MIB },
	{ "G", GIB },  { "GiB", GIB }, { "T", TIB },   { "TiB", TIB }, { "KB", KB },
	{ "MB", MB },  { "GB", GB },   { "TB", TB },
};

static const struct unit time_units[] = {
	{ "us", NS_PER_US },      { "ms", NS_PER_MS },       { "s", NS_PER_S },
	{ "min", 60 * NS_PER_S }, { "h", 3600 * NS_PER_S },
};

/* A decimal number: whole + fraction / scale. */
struct number {
	uint64_t whole;
	uint64_t fraction;
	uint64_t scale;                 /* 10^digits of the fraction */
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* -EINVAL: not a number.  -ERANGE: too large.  *rest: what follows it. */
static int number_parse(const char *text, struct number *out, const char **rest)
{
	struct number number = { .scale = 1 };
	unsigned digits = 0;

	if (!is_digit(*text))
		return -EINVAL;
	for (; is_digit(*text); text++)
		if (!u64_mul(number.whole, 10, &number.whole) ||
		    !u64_add(number.whole, (uint64_t)(*text - '0'), &number.whole))
			return -ERANGE;
	if (*text == '.') {
		for (text++; is_digit(*text); text++) {
			if (++digits > FRACTION_DIGITS_MAX)
				return -EINVAL;
			number.fraction = number.fraction * 10 + (uint64_t)(*text - '0');
			number.scale *= 10;
		}
		if (digits == 0)
			return -EINVAL;
	}
	*out = number;
	*rest = text;
	return 0;
}

/* Rounded down; scale is at most 10^18 and factor below 2^42, so the product fits 128 bits. */
static int number_times(const struct number *number, uint64_t factor, uint64_t *out)
{
	unsigned __int128 value = (unsigned __int128)number->fraction * factor / number->scale;

	value += (unsigned __int128)number->whole * factor;
	if (value > VALUE_MAX)
		return -ERANGE;
	*out = (uint64_t)value;
	return 0;
}

static const struct unit *unit_find(const struct unit *units, size_t count, const char *name,
				    size_t length)
{
	for (size_t i = 0; i < count; i++)
		if (strlen(units[i].name) == length && memcmp(units[i].name, name, length) == 0)
			return &units[i];
	return NULL;
}

/* The unit is `text` without its last suffix_length characters. */
static int unit_apply(const struct unit *units, size_t count, const struct number *number,
		      const char *text, size_t suffix_length, uint64_t *out)
{
	const struct unit *unit;

	if (*text == ' ')
		text++;
	unit = unit_find(units, count, text, strlen(text) - suffix_length);
	return unit ? number_times(number, unit->factor, out) : -EINVAL;
}

/* One sentence for everything that is wrong with `text`. */
static int units_refuse(int rc, const char *what, const char *text, struct err *err)
{
	char shown[TEXT_SHOWN + 1];

	snprintf(shown, sizeof(shown), "%s", text);
	for (char *c = shown; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
			*c = '?';
	if (rc == -ERANGE)
		return err_set(err, ERR_BAD_UNIT, rc, "'%s' is too large for a %s", shown, what);
	return err_set(err, ERR_BAD_UNIT, rc, "'%s' is not a %s with a unit", shown, what);
}

int units_parse_size(const char *text, uint64_t *bytes_out, struct err *err)
{
	struct number number;
	const char *rest;
	int rc = number_parse(text, &number, &rest);

	if (!rc)
		rc = unit_apply(size_units, ARRAY_COUNT(size_units), &number, rest, 0, bytes_out);
	return rc ? units_refuse(rc, "size", text, err) : 0;
}

int units_parse_rate(const char *text, uint64_t *bytes_per_s_out, struct err *err)
{
	struct number number;
	const char *rest;
	uint64_t rate = 0;
	size_t length;
	int rc = number_parse(text, &number, &rest);

	if (!rc) {
		length = strlen(rest);
		rc = length > 2 && strcmp(rest + length - 2, "/s") == 0
			     ? unit_apply(size_units, ARRAY_COUNT(size_units), &number, rest, 2,
					  &rate)
			     : -EINVAL;
	}
	if (rc)
		return units_refuse(rc, "rate", text, err);
	if (rate == 0)
		return units_refuse(-EINVAL, "rate above zero", text, err);
	*bytes_per_s_out = rate;
	return 0;
}

int units_parse_time(const char *text, uint64_t *ns_out, struct err *err)
{
	struct number number;
	const char *rest;
	int rc = number_parse(text, &number, &rest);

	if (!rc)
		rc = unit_apply(time_units, ARRAY_COUNT(time_units), &number, rest, 0, ns_out);
	return rc ? units_refuse(rc, "time", text, err) : 0;
}

/* ---- formatting ---- */

static char *format_scaled(char text[FORMAT_BYTES], uint64_t bytes, const char *suffix)
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned index = 0;
	uint64_t unit = 1, hundredths;

	if (bytes < KIB) {
		snprintf(text, FORMAT_BYTES, "%u B%s", (unsigned)bytes, suffix);
		return text;
	}
	/* Up to the unit in which the rounded value is below 1024: never "1024.00 KiB". */
	do {
		unit *= 1024;
		index++;
		hundredths = (uint64_t)(((unsigned __int128)bytes * 100 + unit / 2) / unit);
	} while (hundredths >= 1024 * 100 && index < ARRAY_COUNT(names) - 1);
	snprintf(text, FORMAT_BYTES, "%u.%02u %s%s", (unsigned)(hundredths / 100),
		 (unsigned)(hundredths % 100), names[index], suffix);
	return text;
}

char *format_bytes(char text[FORMAT_BYTES], uint64_t bytes)
{
	return format_scaled(text, bytes, "");
}

char *format_rate(char text[FORMAT_BYTES], uint64_t bytes_per_s)
{
	return format_scaled(text, bytes_per_s, "/s");
}

char *format_duration(char text[FORMAT_BYTES], uint64_t ns)
{
	uint64_t seconds = ns / NS_PER_S;
	uint64_t minutes = seconds / 60, hours = minutes / 60;
	unsigned long long big;
	unsigned small;

	if (ns < NS_PER_MS) {
		snprintf(text, FORMAT_BYTES, "%u us", (unsigned)(ns / NS_PER_US));
	} else if (ns < NS_PER_S) {
		snprintf(text, FORMAT_BYTES, "%u ms", (unsigned)(ns / NS_PER_MS));
	} else if (minutes == 0) {
		small = (unsigned)(ns % NS_PER_S / (NS_PER_S / 10));
		snprintf(text, FORMAT_BYTES, "%u.%u s", (unsigned)seconds, small);
	} else if (hours == 0) {
		snprintf(text, FORMAT_BYTES, "%um %us", (unsigned)minutes,
			 (unsigned)(seconds % 60));
	} else if (hours < 24) {
		snprintf(text, FORMAT_BYTES, "%uh %um", (unsigned)hours, (unsigned)(minutes % 60));
	} else {
		big = hours / 24;
		snprintf(text, FORMAT_BYTES, "%llud %uh", big, (unsigned)(hours % 24));
	}
	return text;
}
