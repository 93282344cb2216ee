/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a VMX file: judged without a fault; what is accepted survives edits byte for byte. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmotion/vmx.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check_same(const struct vmx *vmx, const uint8_t *bytes, size_t len)
{
	size_t now_len;
	const char *text = vmx_text(vmx, &now_len);

	CHECK(now_len == len);
	CHECK(len == 0 || memcmp(text, bytes, len) == 0);
}

/* What can be read can be written, and reads the same afterwards. */
static void edit_key(struct vmx *vmx, const char *key)
{
	char value[VMX_VALUE_BYTES], again[VMX_VALUE_BYTES];
	struct err err = { 0 };

	if (vmx_get(vmx, key, value, sizeof(value), &err)) {
		CHECK(err.id != ERR_NONE);
		return;
	}
	if (vmx_set(vmx, key, value, &err)) {
		CHECK(err.id != ERR_NONE);      /* no room, or a key that only a file can have */
		return;
	}
	CHECK(vmx_get(vmx, key, again, sizeof(again), NULL) == 0);
	CHECK(strcmp(value, again) == 0);
}

static void edit(struct vmx *vmx, const uint8_t *bytes, size_t len)
{
	char key[VMX_KEY_BYTES];
	bool had = vmx_has(vmx, "fuzz.key");

	check_same(vmx, bytes, len);
	if (!had && len && bytes[len - 1] == '\n' && vmx_set(vmx, "fuzz.key", "v", NULL) == 0) {
		CHECK(vmx_remove(vmx, "fuzz.key") == 1);
		check_same(vmx, bytes, len);
	}
	for (unsigned i = 0; i < 16 && vmx_key_at(vmx, i, key); i++)
		edit_key(vmx, key);
	for (unsigned i = 0; i < 16 && vmx_key_at(vmx, 0, key); i++) {
		CHECK(vmx_remove(vmx, key) > 0);
		CHECK(!vmx_has(vmx, key));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	/* An exact copy, so that reading past the end is seen. */
	char *copy = malloc(len ? len : 1);
	struct vmx *vmx = NULL;
	struct err err = { 0 };

	CHECK(copy);
	if (len)
		memcpy(copy, bytes, len);
	if (vmx_parse(copy, len, "x.vmx", &vmx, &err) == 0)
		edit(vmx, bytes, len);
	else
		CHECK(err.id != ERR_NONE);
	vmx_free(vmx);
	free(copy);
	return 0;
}
