/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_fault.h - local datastores whose operations can be made to fail, or to end the process.
 *
 * Wraps the table of a dir:// datastore and of the disks opened on it.  Operations are
 * counted over all wrapped datastores: stat, open, create, delete, space, mark, make_dev; and
 * writes of a move's record and journals: this file replaces pwrite() and io_submit() for the
 * test program and looks for those that go to a file below ".../moves/".
 */
#ifndef BM_TESTS_DS_FAULT_H
#define BM_TESTS_DS_FAULT_H

#include "datastores/datastore.h"

/* Before any disk is opened on it. */
void ds_fault_wrap(struct datastore *ds);

/* The nth operation from now on fails with EIO (counted from 1); 0: none. */
void ds_fault_fail_at(uint64_t nth);
/* The process ends (_exit(CRASH_EXIT)) right before the nth, or right after it. */
#define CRASH_EXIT 42
void ds_fault_crash_at(uint64_t nth, bool after);
/* Operations since the last of these calls.  */
uint64_t ds_fault_count(void);

/* The next `count` writes of a record fail with EIO. */
void record_fault_fail(unsigned count);

/*
 * While set, devices of targets made from now on can hang: ds_fault_hang() keeps their writes
 * and flushes, or lets them go on.  At most 4 such devices.  Any thread but their loop's.
 */
void ds_fault_hangable(bool on);
void ds_fault_hang(bool hung);
/* They say that their connection is lost (blk_is_lost()); what they are asked they do all the same. */
void ds_fault_lose(bool lost);
/* Their writes, zeroes and flushes fail with this -errno from now on; 0: no more. */
void ds_fault_fail_io(int error);

#endif
