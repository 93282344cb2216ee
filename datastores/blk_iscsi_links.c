/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "datastores/blk_iscsi_private.h"

#define CONNECT_NS (8 * NS_PER_S)
#define COMMAND_NS (5 * NS_PER_S)
/* A target may take its time over what the reset ends. */
#define RESET_NS (10 * NS_PER_S)

void blk_iscsi_links_drop(struct blk_iscsi_links *links)
{
	for (unsigned i = 0; i < BLK_ISCSI_SESSIONS_MAX; i++) {
		if (!links->links[i])
			continue;
		/* R3: the socket drops what is queued; a logout would wait for the target. */
		links->links[i]->dead = true;
		iscsi_link_free(links->links[i]);
		links->links[i] = NULL;
	}
}

static int links_connect(struct blk_iscsi_links *links, int cancel_fd, struct err *err)
{
	int rc = 0;

	for (unsigned i = 0; i < links->count && !rc; i++) {
		rc = iscsi_place_connect(&links->place, cancel_fd, CONNECT_NS, &links->links[i],
					 err);
		if (!rc)
			rc = iscsi_link_ready(links->links[i], links->place.lun, COMMAND_NS, err);
	}
	return rc;
}

/* R2, R3: nothing of before is carried out after this. */
static int links_barrier(struct blk_iscsi_links *links, struct err *err)
{
	int rc = 0;

	if (links->lock)
		rc = iscsi_lock_join(links->lock, links->links, links->count, &links->key, err);
	if (!rc)
		rc = iscsi_link_reset_unit(links->links[0], links->place.lun, RESET_NS, err);
	/* Each session is told of the reset instead of its next command's answer. */
	for (unsigned i = 0; i < links->count && !rc; i++)
		rc = iscsi_link_ready(links->links[i], links->place.lun, COMMAND_NS, err);
	return rc;
}

int blk_iscsi_links_make(struct blk_iscsi_links *links, int cancel_fd, struct err *err)
{
	int rc = links_connect(links, cancel_fd, err);

	if (!rc && !links->read_only)
		rc = links_barrier(links, err);
	rc = rc ? rc : iscsi_link_probe(links->links[0], links->place.lun, COMMAND_NS,
					&links->unit, err);
	if (rc)
		blk_iscsi_links_drop(links);
	return rc;
}

int blk_iscsi_connect(const struct iscsi_place *place, struct iscsi_lock *lock, bool read_only,
		      unsigned count, struct blk_iscsi_links **out, struct err *err)
{
	struct blk_iscsi_links *links = calloc(1, sizeof(*links));
	int rc;

	CHECK(count >= 1 && count <= BLK_ISCSI_SESSIONS_MAX);
	if (!links)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot open lun%u", place->lun);
	links->place = *place;
	links->lock = lock;
	links->read_only = read_only;
	links->count = count;
	rc = blk_iscsi_links_make(links, 0, err);
	/* From here on nothing is looked up again: a resolver knows no deadline. */
	rc = rc ? rc : iscsi_link_peer(links->links[0], links->place.host, &links->place.port);
	if (rc) {
		blk_iscsi_links_free(links);
		return err->id ? rc : err_set(err, ERR_ISCSI_CONNECT, rc, "cannot open lun%u: %s",
					      place->lun, err_strerror(rc));
	}
	*out = links;
	return 0;
}

const struct iscsi_unit *blk_iscsi_links_unit(const struct blk_iscsi_links *links)
{
	return &links->unit;
}

void blk_iscsi_links_free(struct blk_iscsi_links *links)
{
	if (!links)
		return;
	blk_iscsi_links_drop(links);
	free(links);
}

/* ---- the thread ---- */

int blk_iscsi_dialer_init(struct blk_iscsi_dialer *dialer, struct blk_iscsi_links *links)
{
	*dialer = (struct blk_iscsi_dialer){ .links = links };
	dialer->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (dialer->done_fd < 0)
		return -errno;
	dialer->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (dialer->cancel_fd < 0) {
		int rc = -errno;

		close(dialer->done_fd);
		return rc;
	}
	return 0;
}

static void *dialer_run(void *user)
{
	struct blk_iscsi_dialer *dialer = user;
	const uint64_t one = 1;

	dialer->rc = blk_iscsi_links_make(dialer->links, dialer->cancel_fd, &dialer->err);
	CHECK(write(dialer->done_fd, &one, sizeof(one)) == sizeof(one));
	return NULL;
}

int blk_iscsi_dialer_start(struct blk_iscsi_dialer *dialer)
{
	CHECK(!dialer->running);
	err_clear(&dialer->err);
	if (pthread_create(&dialer->thread, NULL, dialer_run, dialer))
		return -EAGAIN;
	dialer->running = true;
	return 0;
}

void blk_iscsi_dialer_finish(struct blk_iscsi_dialer *dialer)
{
	uint64_t count;

	CHECK(dialer->running);
	pthread_join(dialer->thread, NULL);
	dialer->running = false;
	CHECK(read(dialer->done_fd, &count, sizeof(count)) == sizeof(count));
}

void blk_iscsi_dialer_release(struct blk_iscsi_dialer *dialer)
{
	const uint64_t one = 1;

	if (dialer->running) {
		CHECK(write(dialer->cancel_fd, &one, sizeof(one)) == sizeof(one));
		blk_iscsi_dialer_finish(dialer);
	}
	close(dialer->done_fd);
	close(dialer->cancel_fd);
}
