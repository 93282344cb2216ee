/* SPDX-License-Identifier: Apache-2.0 */
/*
 * admission.h - how many moves at once: budgets in units, as vSphere counts them.
 *
 * A host has 8 units and a relocation takes 4; a datastore has 128 and a relocation takes
 * 16 on each side.  What does not fit queues: higher priority first, then first come.  A
 * task that waits keeps its claim on what it waits for, so that later ones cannot starve
 * it, but those that want other datastores may pass.
 *
 * Pure: no clock, no memory, no loop.
 */
#ifndef BM_ADMISSION_H
#define BM_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "datastores/datastore.h"

#define ADMISSION_SIDES_MAX 8u
#define ADMISSION_NAMES_MAX 256u

struct admission_claim {
	uint32_t host_units;
	uint32_t side_count;
	struct {
		char datastore[DS_NAME_BYTES];
		uint32_t units;
	} sides[ADMISSION_SIDES_MAX];   /* no datastore twice */
};

struct admission {
	uint32_t host_budget;
	uint32_t (*datastore_budget)(const char *name, void *user);
	void *user;
	uint32_t host_used;
	bool host_blocked;              /* an earlier task waits for the host: nobody passes */
	uint32_t name_count;
	struct {
		char name[DS_NAME_BYTES];
		uint32_t used;
		bool blocked;
	} names[ADMISSION_NAMES_MAX];
};

void admission_init(struct admission *admission, uint32_t host_budget,
		    uint32_t (*datastore_budget)(const char *name, void *user), void *user);

/* Add units on one side; the same datastore twice adds up. */
void admission_claim_side(struct admission_claim *claim, const char *datastore, uint32_t units);

/* Count what runs already. */
void admission_add(struct admission *admission, const struct admission_claim *claim);

/*
 * May this one start, given those added and those refused before it?  True: it is added.
 * False: waiting_for says for what ("host budget", "datastore nas").
 * A claim larger than a whole budget is admitted alone, else it would wait for ever.
 */
bool admission_try(struct admission *admission, const struct admission_claim *claim,
		   char waiting_for[DS_NAME_BYTES + 16]);

#endif
