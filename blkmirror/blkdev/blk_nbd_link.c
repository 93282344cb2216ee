/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/blk_nbd_private.h"

#define BLOCK_BYTES_DEFAULT 512u
#define PHYSICAL_BYTES_DEFAULT 4096u
/* The preferred size is a hint of any magnitude; more would only serialise guests (R10). */
#define PHYSICAL_BYTES_MAX 65536u

/* libnbd's last error on this thread, cut and without what could forge a line. */
static const char *link_last_error(char *text, size_t bytes)
{
	const char *error = nbd_get_error();

	snprintf(text, bytes, "%s", error ? error : "the server closed the connection");
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	return text;
}

/* A server's refusal has an errno, nonsense on the wire has none. */
static int link_negotiation_failed(const char *shown, struct err *err)
{
	int error = nbd_get_error() ? nbd_get_errno() : ECONNRESET;
	char text[160];

	link_last_error(text, sizeof(text));
	if (error <= 0)
		return err_set(err, ERR_NBD_PROTOCOL, -EPROTO, "cannot use %s: %s", shown, text);
	return err_set(err, ERR_NBD_CONNECT, -error, "cannot use %s: %s", shown, text);
}

/* One step of libnbd's handshake; `events` are poll()'s.  0 or -1 (libnbd has the error). */
static int link_handshake_step(struct nbd_handle *handle, int events)
{
	unsigned direction = nbd_aio_get_direction(handle);

	if ((direction & LIBNBD_AIO_DIRECTION_READ) && (events & (POLLIN | POLLHUP | POLLERR)))
		return nbd_aio_notify_read(handle);
	return nbd_aio_notify_write(handle);
}

static int link_handshake(const struct blk_nbd_link *link, uint64_t deadline_ns, struct err *err)
{
	struct nbd_handle *handle = link->handle;

	while (!nbd_aio_is_ready(handle)) {
		unsigned direction = nbd_aio_get_direction(handle);
		struct pollfd poller = { .fd = link->fd };
		int rc;

		if (nbd_aio_is_dead(handle) || nbd_aio_is_closed(handle))
			return link_negotiation_failed(link->name, err);
		poller.events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
					(direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
		rc = poll(&poller, 1, net_poll_timeout_ms(deadline_ns));
		if (rc < 0 && errno != EINTR)
			return err_set(err, ERR_NBD_CONNECT, -errno, "cannot use %s: %s",
				       link->name, err_strerror(errno));
		if (rc == 0)
			return err_set(err, ERR_NBD_CONNECT, -ETIMEDOUT,
				       "cannot use %s: the server did not answer in time",
				       link->name);
		if (rc > 0 && link_handshake_step(handle, poller.revents) < 0)
			return link_negotiation_failed(link->name, err);
	}
	return 0;
}

/* ---- what the server says, judged ---- */

static int link_nonsense(const struct blk_nbd_link *link, const char *what, int64_t value,
			struct err *err)
{
	return err_set(err, ERR_NBD_PROTOCOL, -EPROTO, "cannot use %s: it says %s of %lld",
		       link->name, what, (long long)value);
}

static int link_judge_blocks(struct blk_nbd_link *link, struct err *err)
{
	int64_t least = nbd_get_block_size(link->handle, LIBNBD_SIZE_MINIMUM);
	int64_t preferred = nbd_get_block_size(link->handle, LIBNBD_SIZE_PREFERRED);
	int64_t most = nbd_get_block_size(link->handle, LIBNBD_SIZE_MAXIMUM);

	if (least < 0 || least > NBD_BLOCK_BYTES_MAX ||
	    (least && !is_power_of_two((uint64_t)least)))
		return link_nonsense(link, "a smallest block", least, err);
	link->block_bytes = (uint32_t)MAX(least, (int64_t)BLOCK_BYTES_DEFAULT);
	if (preferred < 0 || (preferred && !is_power_of_two((uint64_t)preferred)))
		return link_nonsense(link, "a preferred block", preferred, err);
	link->physical_bytes = preferred ? (uint32_t)MIN(preferred, (int64_t)PHYSICAL_BYTES_MAX)
					 : PHYSICAL_BYTES_DEFAULT;
	link->physical_bytes = MAX(link->physical_bytes, link->block_bytes);
	if (most < 0 || (most && most < link->block_bytes))
		return link_nonsense(link, "a largest request", most, err);
	link->max_transfer_bytes = round_down(most ? MIN((uint64_t)most, BLK_MAX_TRANSFER_BYTES)
						   : BLK_MAX_TRANSFER_BYTES,
					      link->block_bytes);
	return 0;
}

static int link_judge_size(struct blk_nbd_link *link, struct err *err)
{
	int64_t size = nbd_get_size(link->handle);

	if (size < 0)           /* libnbd's word for 2^63 and more */
		return link_nonsense(link, "a size", size, err);
	if (size == 0 || size % link->block_bytes)
		return err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
			       "cannot use %s: its %lld bytes are no whole number of blocks of %u",
			       link->name, (long long)size, link->block_bytes);
	link->size_bytes = (uint64_t)size;
	return 0;
}

static int link_judge(struct blk_nbd_link *link, bool read_only, struct err *err)
{
	struct nbd_handle *handle = link->handle;
	int rc = link_judge_blocks(link, err);

	if (!rc)
		rc = link_judge_size(link, err);
	if (rc)
		return rc;
	/* -1 (cannot tell) counts as no; of read-only as yes. */
	link->read_only = nbd_is_read_only(handle) != 0;
	link->can_flush = nbd_can_flush(handle) > 0;
	link->can_fua = nbd_can_fua(handle) > 0;
	link->can_zero = nbd_can_zero(handle) > 0;
	link->can_trim = nbd_can_trim(handle) > 0;
	link->has_extents = nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	if (link->read_only && !read_only)
		return err_set(err, ERR_NBD_READ_ONLY, -EROFS,
			       "cannot write to %s: it is read-only", link->name);
	return 0;
}

/* ---- life ---- */

/* Hands the socket to libnbd and keeps a duplicate to wait on.  Takes fd, whatever happens. */
static int link_attach_socket(struct blk_nbd_link *link, int fd, struct err *err)
{
	link->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (link->fd < 0) {
		int rc = -errno;

		close(fd);
		return err_set(err, ERR_NBD_CONNECT, rc, "cannot connect to %s: %s", link->name,
			       err_strerror(rc));
	}
	if (nbd_aio_connect_socket(link->handle, fd) < 0)
		return link_negotiation_failed(link->name, err);
	return 0;
}

static int link_open(struct blk_nbd_link *link, const struct blk_nbd_address *address,
			 bool read_only, uint64_t deadline_ns, struct err *err)
{
	int fd, rc;

	link->is_tcp = !address->is_unix;
	memcpy(link->name, address->shown, sizeof(link->name));
	link->handle = nbd_create();
	if (!link->handle || nbd_set_export_name(link->handle, address->export_name) < 0 ||
	    nbd_add_meta_context(link->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot connect to %s", link->name);
	rc = blk_nbd_dial(address, deadline_ns, &fd, err);
	if (!rc)
		rc = link_attach_socket(link, fd, err);
	if (!rc)
		rc = link_handshake(link, deadline_ns, err);
	if (!rc)
		rc = link_judge(link, read_only, err);
	return rc;
}

int blk_nbd_connect(const char *uri, bool read_only, uint64_t timeout_ns,
		    struct blk_nbd_link **out, struct err *err)
{
	uint64_t now_ns = net_clock_ns();
	uint64_t deadline_ns = timeout_ns < INT64_MAX - now_ns ? now_ns + timeout_ns : INT64_MAX;
	CLEANUP_FREE struct blk_nbd_address *address = calloc(1, sizeof(*address));
	struct blk_nbd_link *link = calloc(1, sizeof(*link));
	int rc;

	if (!address || !link) {
		free(link);
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot open an NBD export");
	}
	link->fd = -1;
	rc = blk_nbd_address_parse(uri, address, err);
	if (!rc)
		rc = link_open(link, address, read_only, deadline_ns, err);
	if (rc) {
		blk_nbd_link_free(link);
		return rc;
	}
	*out = link;
	return 0;
}

uint64_t blk_nbd_link_size_bytes(const struct blk_nbd_link *link)
{
	return link->size_bytes;
}

bool blk_nbd_link_read_only(const struct blk_nbd_link *link)
{
	return link->read_only;
}

/* Everything was answered: say good-bye, and let the good-bye get through. */
static void link_disconnect(struct blk_nbd_link *link)
{
	const struct linger keep = { .l_onoff = 0 };

	if (!nbd_aio_is_ready(link->handle))
		return;                 /* dead or in between: what is queued is dropped (R3) */
	if (link->is_tcp && setsockopt(link->fd, SOL_SOCKET, SO_LINGER, &keep, sizeof(keep)))
		return;
	/* A courtesy: a server that does not get it sees the connection end. */
	(void)nbd_aio_disconnect(link->handle, 0);
}

void blk_nbd_link_free(struct blk_nbd_link *link)
{
	if (!link)
		return;
	if (link->handle) {
		link_disconnect(link);
		nbd_close(link->handle);
	}
	if (link->fd >= 0)
		close(link->fd);
	free(link);
}
