/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem_encode.h - what one page looks like, and the difference between two states of it.
 *
 * Pure functions.  A delta is a list of changed runs, in words of 8 bytes, little-endian:
 *
 *     u16 unchanged words | u16 changed words | the changed words | u16 ...
 *
 * The words after the last run are unchanged.  A run is never empty, so no delta is.
 */
#ifndef BM_VMOTION_MEM_ENCODE_H
#define BM_VMOTION_MEM_ENCODE_H

#include "vmotion/mem_space.h"

#define MEM_DELTA_MAX_BYTES 2040u       /* a longer one saves too little */

bool mem_page_is_zero(const uint8_t *page);

/* A guess from 256 of its bytes: compressing it would be a waste of time. */
bool mem_page_is_dense(const uint8_t *page);

/*
 * Write to out[MEM_DELTA_MAX_BYTES] how to get from the old page to the new one.
 * Its length; 0 when it would be longer than that, or the pages are equal.
 */
uint32_t mem_delta_make(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out);

/* Judge a delta from outside: does every run lie within a page?  0 or -EBADMSG. */
MUST_CHECK int mem_delta_judge(const uint8_t *delta, uint32_t len_bytes);
/* Carry out one that has been judged. */
void mem_delta_apply(uint8_t *page, const uint8_t *delta, uint32_t len_bytes);

#endif
