/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/admission.h"

#include <stdio.h>
#include <string.h>

void admission_init(struct admission *admission, uint32_t host_budget,
		    uint32_t (*datastore_budget)(const char *name, void *user), void *user)
{
	memset(admission, 0, sizeof(*admission));
	admission->host_budget = host_budget;
	admission->datastore_budget = datastore_budget;
	admission->user = user;
}

void admission_claim_side(struct admission_claim *claim, const char *datastore, uint32_t units)
{
	for (uint32_t i = 0; i < claim->side_count; i++) {
		if (strcmp(claim->sides[i].datastore, datastore) == 0) {
			claim->sides[i].units += units;
			return;
		}
	}
	CHECK(claim->side_count < ADMISSION_SIDES_MAX);
	snprintf(claim->sides[claim->side_count].datastore, DS_NAME_BYTES, "%s", datastore);
	claim->sides[claim->side_count++].units = units;
}

/* The index of a name; ADMISSION_NAMES_MAX when the table is full. */
static uint32_t name_index(struct admission *admission, const char *name)
{
	for (uint32_t i = 0; i < admission->name_count; i++)
		if (strcmp(admission->names[i].name, name) == 0)
			return i;
	if (admission->name_count == ADMISSION_NAMES_MAX)
		return ADMISSION_NAMES_MAX;
	snprintf(admission->names[admission->name_count].name, DS_NAME_BYTES, "%s", name);
	return admission->name_count++;
}

static bool fits(uint32_t used, uint32_t units, uint32_t budget)
{
	return used == 0 || used + units <= budget;
}

void admission_add(struct admission *admission, const struct admission_claim *claim)
{
	admission->host_used += claim->host_units;
	for (uint32_t i = 0; i < claim->side_count; i++) {
		uint32_t at = name_index(admission, claim->sides[i].datastore);

		if (at < ADMISSION_NAMES_MAX)
			admission->names[at].used += claim->sides[i].units;
	}
}

/* The first side that does not fit now; side_count when all do. */
static uint32_t first_blocked(struct admission *admission, const struct admission_claim *claim)
{
	for (uint32_t i = 0; i < claim->side_count; i++) {
		uint32_t at = name_index(admission, claim->sides[i].datastore);
		uint32_t budget = admission->datastore_budget(claim->sides[i].datastore,
							      admission->user);

		if (at == ADMISSION_NAMES_MAX || admission->names[at].blocked ||
		    !fits(admission->names[at].used, claim->sides[i].units, budget))
			return i;
	}
	return claim->side_count;
}

bool admission_try(struct admission *admission, const struct admission_claim *claim,
		   char waiting_for[DS_NAME_BYTES + 16])
{
	uint32_t blocked = first_blocked(admission, claim);

	if (blocked == claim->side_count &&
	    (claim->host_units == 0 ||
	     (!admission->host_blocked &&
	      fits(admission->host_used, claim->host_units, admission->host_budget)))) {
		admission_add(admission, claim);
		waiting_for[0] = '\0';
		return true;
	}
	if (blocked == claim->side_count) {
		admission->host_blocked = true;
		snprintf(waiting_for, DS_NAME_BYTES + 16, "host budget");
		return false;
	}
	snprintf(waiting_for, DS_NAME_BYTES + 16, "datastore %s",
		 claim->sides[blocked].datastore);
	for (uint32_t i = 0; i < claim->side_count; i++) {
		uint32_t at = name_index(admission, claim->sides[i].datastore);

		if (at < ADMISSION_NAMES_MAX)
			admission->names[at].blocked = true;
	}
	return false;
}
