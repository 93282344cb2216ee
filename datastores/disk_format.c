/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/disk_format.h"

#include <errno.h>
#include <string.h>

struct magic {
	const char *format;
	size_t at;
	size_t len;
	const char *bytes;
};

static const struct magic magics[] = {
	{ "qcow2", 0, 4, "QFI\xfb" },
	{ "sparse VMDK", 0, 4, "KDMV" },
	{ "COWD VMDK", 0, 4, "COWD" },
	{ "SEsparse VMDK", 0, 8, "\xbe\xba\xfe\xca\x00\x00\x00\x00" },
	{ "VMDK descriptor", 0, 21, "# Disk DescriptorFile" },
	{ "VHDX", 0, 8, "vhdxfile" },
	{ "VHD", 0, 8, "conectix" },
	{ "QED", 0, 4, "QED\x00" },
	{ "Parallels", 0, 16, "WithoutFreeSpace" },
	{ "Parallels", 0, 16, "WithouFreSpacExt" },
	{ "VDI", 64, 4, "\x7f\x10\xda\xbe" },
};

const char *disk_format_of_bytes(const uint8_t *head, size_t head_len, const uint8_t *tail,
				 size_t tail_len)
{
	for (size_t i = 0; i < ARRAY_COUNT(magics); i++) {
		const struct magic *magic = &magics[i];

		if (magic->at + magic->len <= head_len &&
		    memcmp(head + magic->at, magic->bytes, magic->len) == 0)
			return magic->format;
	}
	if (tail && tail_len >= 8 && memcmp(tail, "conectix", 8) == 0)
		return "fixed VHD";
	return NULL;
}

int disk_format_check_raw(const uint8_t *head, size_t head_len, const uint8_t *tail,
			  const char *path, struct err *err)
{
	const char *format = disk_format_of_bytes(head, head_len, tail, 512);

	if (!format)
		return 0;
	err_set(err, ERR_DISK_BAD_FORMAT, -EINVAL, "'%.160s' is no raw disk: it looks like %s", path,
		format);
	err_remedy(err, "Offer it with 'qemu-nbd --persistent' and add that as an nbd datastore,"
			" or convert it with 'qemu-img convert -O raw'.");
	return -EINVAL;
}
