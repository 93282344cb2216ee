/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a descriptor: judged without a fault; what is accepted survives an edit. */
#include <stdlib.h>
#include <string.h>

#include "datastores/vmdk.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void edit(struct vmdk *vmdk)
{
	struct disk_record record;
	uint64_t size_bytes = vmdk->size_bytes;
	char data_name[DS_FILE_NAME_BYTES];

	strcpy(data_name, vmdk->data_name);
	CHECK(size_bytes >= DS_DISK_SIZE_MIN && size_bytes <= DS_DISK_SIZE_MAX);
	CHECK(!strchr(data_name, '/') && strcmp(data_name, "..") != 0);
	CHECK(disk_record_new(&record, NULL, NULL) == 0);
	if (vmdk_set_record(vmdk, &record, NULL))
		return; /* no room */
	CHECK(disk_identity_same_copy(&vmdk->record.identity, &record.identity));
	CHECK(vmdk->size_bytes == size_bytes);
	CHECK(strcmp(vmdk->data_name, data_name) == 0);
	if (vmdk_set_size(vmdk, DS_DISK_SIZE_MAX, NULL) == 0)
		CHECK(vmdk->size_bytes == DS_DISK_SIZE_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	/* An exact copy, so that reading past the end is seen. */
	char *copy = malloc(len ? len : 1);
	struct vmdk *vmdk = malloc(sizeof(*vmdk));
	struct err err = { 0 };

	CHECK(copy && vmdk);
	if (len)
		memcpy(copy, bytes, len);
	if (vmdk_parse(copy, len, "x.vmdk", vmdk, &err) == 0)
		edit(vmdk);
	else
		CHECK(err.id != ERR_NONE);
	free(vmdk);
	free(copy);
	return 0;
}
