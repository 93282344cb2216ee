/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost_log.c - pages that we wrote, for a guest that is being migrated.
 *
 * What we write into guest memory does not pass the guest's page tables, so nobody else sees
 * it.  The front end shares a bitmap, one bit per 4 KiB of guest physical memory, and takes
 * bits from it while we set them: set after the write, a page is sent again with what we wrote;
 * set before, it could be sent too early and never again (R-E4).
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "blkmirror/export/vhost_private.h"

#define LOG_PAGE_SHIFT 12

static bool log_set(struct vhost_map *log, uint64_t first_page, uint64_t last_page)
{
	if (last_page / 8 >= log->len_bytes)
		return false;
	for (uint64_t page = first_page; page <= last_page; page++)
		__atomic_fetch_or(&log->bytes[page / 8], (uint8_t)(1u << (page % 8)),
				  __ATOMIC_SEQ_CST);
	return true;
}

void vhost_log_mark(struct vhost_conn *conn, const struct vhost_memory *memory, const void *bytes,
		    uint64_t len_bytes)
{
	const uint8_t *at = bytes;

	if (!vhost_has(conn, VHOST_F_LOG_ALL_BIT) || !conn->log)
		return;
	while (len_bytes) {
		uint64_t gpa = 0, part_bytes = 0;
		bool known = vhost_memory_gpa_of(memory, at, &gpa, &part_bytes);

		CHECK(known);           /* it came from there */
		part_bytes = MIN(part_bytes, len_bytes);
		if (!log_set(conn->log, gpa >> LOG_PAGE_SHIFT,
			     (gpa + part_bytes - 1) >> LOG_PAGE_SHIFT))
			conn->fault = "a dirty log that does not reach the guest's memory";
		at += part_bytes;
		len_bytes -= part_bytes;
	}
	conn->log_changed = true;
}

void vhost_log_tell(struct vhost_conn *conn)
{
	if (!conn->log_changed)
		return;
	conn->log_changed = false;
	if (conn->log_fd >= 0)
		(void)eventfd_write(conn->log_fd, 1);   /* full: it has been told already */
}
