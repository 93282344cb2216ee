/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lock_file.h - a disk's lock on a store whose only atomic act is an exclusive create (R-F4).
 *
 *	web01-flat.vmdk
 *	.web01-flat.vmdk.blkmirror-lock.000000000000002a	generation 42
 *
 * The generation is in the *name*: a lock is taken by creating the file of the highest
 * generation that is there, plus one.  Of two who do so at once one gets -EEXIST.  The highest is
 * the holder; nobody removes what he does not own, so nobody can remove the fresh lock of one
 * who came before him.  An owner gives its lock back by a record that says "released", and
 * may then remove files of lower generations that were its own; the highest stays, because the
 * next generation is counted from it.
 *
 * The record is LOCK_RECORD_BYTES long whatever it says, so that a renewal is one stable write of
 * the same bytes, and carries a checksum, so that a reader knows a torn one:
 *
 *	blkmirror-lock 1
 *	owner=UUID of the host (R-F5)
 *	host=its name, for people
 *	stamp=number, one higher at each renewal
 *	lease_ms=20000
 *	state=held | released
 *	checksum=16 hex digits: XXH3-64 of every byte before this line
 *	(spaces and a newline to the full length)
 *
 * Pure functions; any thread.
 */
#ifndef BM_LOCK_FILE_H
#define BM_LOCK_FILE_H

#include <stddef.h>

#include "blkmirror/base/err.h"
#include "blkmirror/base/uuid.h"
#include "datastores/ds_path.h"

#define LOCK_FILE_INFIX ".blkmirror-lock."
#define LOCK_RECORD_BYTES 512u
#define LOCK_HOST_BYTES 65u
/* Beyond it a name was made by somebody else: counting on would end. */
#define LOCK_GENERATION_MAX (UINT64_MAX >> 1)

/* -ENAMETOOLONG, or -EINVAL for a generation of 0 or too high.  name: DS_FILE_NAME_BYTES. */
MUST_CHECK int lock_name_format(const char *data_name, uint64_t generation, char *name);

/* The generation, 0 when `name` is no lock file of data_name. */
uint64_t lock_name_generation(const char *name, const char *data_name);

struct lock_record {
	struct uuid owner;
	char host[LOCK_HOST_BYTES];     /* printable; "" where it is not known */
	uint64_t stamp;
	uint32_t lease_ms;
	bool released;
};

/* bytes: LOCK_RECORD_BYTES.  What does not print in host is left out. */
void lock_record_format(const struct lock_record *record, char *bytes);

/* -EINVAL: empty (just created), torn or not ours; *out is undefined then. */
MUST_CHECK int lock_record_parse(const char *bytes, size_t len, struct lock_record *out);

/* What lease_watch_note() compares: of any bytes, valid or not. */
uint64_t lock_record_stamp(uint64_t generation, const char *bytes, size_t len);

#endif
