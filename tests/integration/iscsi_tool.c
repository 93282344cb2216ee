/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_tool URL [LUN] [SECRET-FILE] - log in; list the units, or tell all about one.
 *
 * LUN "-": list.  Exit 0, or 1 with "BM-NNNN cause" on stderr, or 2 for bad usage.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/loop.h"
#include "datastores/iscsi_link.h"

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

static int run(const char *url_text, const char *lun, const char *secret_file)
{
	static const uint8_t host_uuid[16] = { 0xde, 0xad };
	struct ds_secret secret = { 0 };
	struct iscsi_link *link;
	struct ds_url url;
	int rc = ds_url_parse(url_text, &url, &err);

	if (!rc && secret_file)
		rc = ds_secret_read(secret_file, &secret, &err);
	if (!rc) {
		const struct iscsi_login login = { &url, &secret, host_uuid };

		rc = iscsi_link_connect(&login, PATIENCE_NS, &link, &err);
	}
	ds_secret_wipe(&secret);
	if (rc)
		return rc;
	rc = strcmp(lun, "-") == 0 ? list(link) : probe(link, (uint32_t)atoi(lun));
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
