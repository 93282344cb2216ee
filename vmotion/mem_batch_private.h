/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BM_VMOTION_MEM_BATCH_PRIVATE_H
#define BM_VMOTION_MEM_BATCH_PRIVATE_H

#include "vmotion/mem_batch.h"

void mem_batch_put_head(uint8_t *at, const struct mem_batch_head *head);
void mem_batch_put_entry(uint8_t *at, const struct mem_entry *entry);

#endif
