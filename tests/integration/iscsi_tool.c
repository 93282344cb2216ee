/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_tool URL [LUN] [SECRET-FILE] - log in; list the units, or tell all about one.
 *
 * LUN "-": list.  "fence N": two sessions play a holder and the one who breaks it.  Exit 0, or 1 with "BM-NNNN cause" on stderr, or 2 for bad usage.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/loop.h"
#include "datastores/iscsi_pr.h"

#define PATIENCE_NS (5 * NS_PER_S)

static struct err err;

static int list(struct iscsi_link *link)
{
	uint32_t luns[ISCSI_LUNS_MAX];
	size_t count;
	int rc = iscsi_link_luns(link, PATIENCE_NS, luns, &count, &err);

	for (size_t i = 0; !rc && i < count; i++)
		printf("lun%u\n", luns[i]);
	return rc;
}

static int probe(struct iscsi_link *link, uint32_t lun)
{
	struct iscsi_unit unit;
	int rc = iscsi_link_probe(link, lun, PATIENCE_NS, &unit, &err);

	if (rc)
		return rc;
	printf("size=%" PRIu64 " block=%u physical=%u thin=%d zero=%d write_same_unmap=%d unmap=%d"
	       " fua=%d protected=%d id=%s\n",
	       unit.size_bytes, unit.block_bytes, unit.physical_bytes, unit.is_thin,
	       unit.unmapped_is_zero, unit.can_write_same_unmap, unit.max_unmap_bytes > 0,
	       unit.has_fua, unit.is_write_protected, unit.id);
	return 0;
}

#define HOLDER (UINT64_C(0xaa) << 32)
#define BREAKER (UINT64_C(0xbb) << 32)
#define STEP(call)                                                                                 \
	do {                                                                                       \
		int step_rc = (call);                                                              \
		if (step_rc) {                                                                     \
			fprintf(stderr, "line %d: ", __LINE__);                                    \
			return step_rc;                                                            \
		}                                                                                  \
	} while (0)

/* What must not work did, or the state is another than expected. */
static int unexpected(bool wrong)
{
	return wrong ? err_set(&err, ERR_INTERNAL, -EPROTO, "not as expected") : 0;
}

/* R-F2: the holder beats, is preempted while it is away, and can neither beat nor hold after. */
static int fence(const struct iscsi_pr *holder, const struct iscsi_pr *breaker)
{
	struct iscsi_reservation reservation;
	struct iscsi_keys keys;
	uint64_t beat = iscsi_key_next(HOLDER);

	STEP(iscsi_pr_register(holder, 0, HOLDER, &err));
	STEP(iscsi_pr_reserve(holder, HOLDER, &err));
	STEP(iscsi_pr_register(holder, HOLDER, beat, &err));
	STEP(iscsi_pr_holder(breaker, &reservation, &err));
	STEP(unexpected(!reservation.held || reservation.key != beat ||
			reservation.type != ISCSI_RESERVATION_TYPE));
	STEP(iscsi_pr_register(breaker, 0, BREAKER, &err));
	STEP(unexpected(iscsi_pr_reserve(breaker, BREAKER, &err) != -EBADE ||
			err.id != ERR_ISCSI_FENCED));
	STEP(iscsi_pr_preempt(breaker, BREAKER, beat, &err));
	STEP(iscsi_pr_keys(breaker, &keys, &err));
	STEP(unexpected(iscsi_keys_has(&keys, beat) || !iscsi_keys_has(&keys, BREAKER)));
	STEP(unexpected(iscsi_pr_register(holder, beat, iscsi_key_next(beat), &err) != -EBADE));
	STEP(iscsi_pr_holder(holder, &reservation, &err));
	STEP(unexpected(!reservation.held || reservation.key != BREAKER));
	STEP(iscsi_pr_release(breaker, BREAKER, &err));
	STEP(iscsi_pr_register(breaker, BREAKER, 0, &err));
	STEP(iscsi_pr_holder(breaker, &reservation, &err));
	STEP(unexpected(reservation.held));
	return 0;
}

static int fence_two(const struct iscsi_login *login, struct iscsi_link *link, uint32_t lun)
{
	struct iscsi_link *other;
	struct iscsi_pr holder = { link, lun, PATIENCE_NS }, breaker = holder;
	int rc = iscsi_link_connect(login, PATIENCE_NS, &other, &err);

	if (rc)
		return rc;
	breaker.link = other;
	rc = fence(&holder, &breaker);
	iscsi_link_free(other);
	return rc;
}

static int run(const char *url_text, const char *lun, const char *secret_file)
{
	static const uint8_t host_uuid[16] = { 0xde, 0xad };
	struct ds_secret secret = { 0 };
	struct ds_url url;
	const struct iscsi_login login = { &url, &secret, host_uuid, 0 };
	struct iscsi_link *link;
	int rc = ds_url_parse(url_text, &url, &err);

	if (!rc && secret_file)
		rc = ds_secret_read(secret_file, &secret, &err);
	if (!rc)
		rc = iscsi_link_connect(&login, PATIENCE_NS, &link, &err);
	if (rc) {
		ds_secret_wipe(&secret);
		return rc;
	}
	if (strncmp(lun, "fence ", 6) == 0)
		rc = fence_two(&login, link, (uint32_t)atoi(lun + 6));
	else
		rc = strcmp(lun, "-") == 0 ? list(link) : probe(link, (uint32_t)atoi(lun));
	ds_secret_wipe(&secret);
	iscsi_link_free(link);
	return rc;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: iscsi_tool URL LUN|- [SECRET-FILE]\n");
		return 2;
	}
	if (run(argv[1], argv[2], argc > 3 ? argv[3] : NULL) == 0)
		return 0;
	fprintf(stderr, "%s %s\n", err_name(err.id), err.cause);
	return 1;
}
