/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/ledger_link.h"

#include <poll.h>
#include <time.h>

#include "blkmirror/base/check.h"

uint64_t link_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void link_close(struct link *link)
{
	nbd_close(link->nbd);
	link->nbd = NULL;
	link->is_up = false;
}

/* The connection, or the try to make one, is over. */
static void link_over(struct link *link)
{
	bool was_up = link->is_up;
	uint64_t now_ns = link_now_ns();

	link_close(link);
	link->retry_ms = was_up ? 0 : link->retry_ms ? link->retry_ms * 2 : 1;
	if (link->retry_ms > LINK_RETRY_MAX_MS)
		link->retry_ms = LINK_RETRY_MAX_MS;
	link->retry_at_ns = now_ns + link->retry_ms * UINT64_C(1000000);
	if (!was_up)
		return;
	link->losses++;
	link->down_since_ns = now_ns;
	link->lost(link);
}

void link_dial(struct link *link)
{
	link->nbd = nbd_create();
	CHECK(link->nbd);
	if (nbd_aio_connect_uri(link->nbd, link->uri) == -1)
		link_over(link);
}

void link_drop(struct link *link)
{
	if (link->is_up)
		link_over(link);
}

int link_fd(const struct link *link, short *events)
{
	unsigned direction;

	*events = 0;
	if (!link->nbd)
		return -1;
	direction = nbd_aio_get_direction(link->nbd);
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		*events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		*events |= POLLOUT;
	return nbd_aio_get_fd(link->nbd);
}

static void link_notify(struct link *link, short revents)
{
	unsigned direction = nbd_aio_get_direction(link->nbd);
	int rc = 0;

	if ((revents & POLLIN) && (direction & LIBNBD_AIO_DIRECTION_READ))
		rc = nbd_aio_notify_read(link->nbd);
	else if ((revents & POLLOUT) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		rc = nbd_aio_notify_write(link->nbd);
	else if (revents & (POLLHUP | POLLERR | POLLNVAL))
		rc = -1;
	if (rc == -1 || nbd_aio_is_dead(link->nbd) || nbd_aio_is_closed(link->nbd)) {
		link_over(link);
		return;
	}
	if (link->is_up || (!nbd_aio_is_ready(link->nbd) && !nbd_aio_is_processing(link->nbd)))
		return;
	link->is_up = true;
	if (link->down_since_ns) {
		uint64_t outage_ns = link_now_ns() - link->down_since_ns;

		if (outage_ns > link->longest_outage_ns)
			link->longest_outage_ns = outage_ns;
		link->down_since_ns = 0;
	}
}

void link_turn(struct link *link, short revents)
{
	if (!link->nbd) {
		if (link_now_ns() >= link->retry_at_ns)
			link_dial(link);
		return;
	}
	if (revents)
		link_notify(link, revents);
}
