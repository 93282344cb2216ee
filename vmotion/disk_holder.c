/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_holder.c - the disk service and the holder of its sockets (socket_holder.h).
 *
 * The holder is used on the socket worker only.  Here it is watched: one that is lost (killed by
 * hand, say) is replaced while the daemon still has all the sockets.
 */
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "vmotion/disk_private.h"

/* One that ends again and again is made again only so often. */
#define AGAIN_NS (60 * NS_PER_S)

static struct disk_service *service_of(struct disk_holder *holding)
{
	return container_of(holding, struct disk_service, holding);
}

/* ---- a holder that is lost ---- */

static void again_run(struct job *job)
{
	struct disk_holder *holding = container_of(job, struct disk_holder, again);

	holding->rc = socket_holder_again(service_of(holding)->holder, &holding->err);
}

static void again_done(struct job *job)
{
	struct disk_holder *holding = container_of(job, struct disk_holder, again);

	holding->is_asked = false;
	if (holding->rc) {
		log_error("disk", "guests would notice a restart: %s (%s)", holding->err.cause,
			  err_name(holding->err.id));
		timer_start(&holding->again_later, AGAIN_NS);
		return;
	}
	disk_holder_look(service_of(holding));
}

static void make_again(struct disk_service *service)
{
	struct disk_holder *holding = &service->holding;

	if (holding->is_asked)
		return;
	watch_stop(&holding->watch);
	holding->is_asked = true;
	holding->made_ns = loop_now_ns(service->main_loop);
	holding->again = (struct job){ .run = again_run, .done = again_done };
	worker_submit(service->socket_worker, &holding->again);
}

static void again_fired(struct timer *timer)
{
	make_again(service_of(container_of(timer, struct disk_holder, again_later)));
}

static void holder_lost(struct watch *watch, unsigned events)
{
	struct disk_holder *holding = container_of(watch, struct disk_holder, watch);
	struct disk_service *service = service_of(holding);

	(void)events;
	watch_stop(watch);
	log_warn("disk", "the process that held the disks' sockets is lost");
	if (holding->made_ns && loop_now_ns(service->main_loop) - holding->made_ns < AGAIN_NS)
		timer_start(&holding->again_later, AGAIN_NS);
	else
		make_again(service);
}

void disk_holder_look(struct disk_service *service)
{
	struct disk_holder *holding = &service->holding;
	int fd = service->holder ? socket_holder_event_fd(service->holder) : -1;
	int rc;

	if (fd < 0 || holding->is_asked || watch_is_started(&holding->watch) ||
	    holding->again_later.started)
		return;
	rc = watch_start(&holding->watch, service->main_loop, fd, WATCH_HANGUP, holder_lost);
	if (rc)
		log_warn("disk", "the holder of the sockets is not watched: %s", err_strerror(rc));
}

void disk_holder_init(struct disk_service *service)
{
	timer_init(&service->holding.again_later, service->main_loop, again_fired);
}

void disk_holder_end(struct disk_service *service)
{
	watch_stop(&service->holding.watch);
	timer_stop(&service->holding.again_later);
}

/* ---- sockets without a disk ---- */

struct drop_job {
	struct job job;
	struct disk_service *service;
	char id[DISK_ID_BYTES];
	struct disk_socket sock;
};

static void drop_run(struct job *job)
{
	struct drop_job *drop = container_of(job, struct drop_job, job);

	if (socket_holder_forget(drop->service->holder, drop->id, &drop->sock))
		disk_socket_unlink(&drop->sock);
}

static void drop_done(struct job *job)
{
	free(container_of(job, struct drop_job, job));
}

void disk_socket_drop(struct disk_service *service, const char *id, const char *path)
{
	struct drop_job *drop;

	LOOP_CHECK(service->main_loop);
	if (!service->holder)
		return;
	drop = calloc(1, sizeof(*drop));
	if (!drop) {
		log_warn("disk", "%s: its socket is held until the next start: out of memory", id);
		return;
	}
	drop->job = (struct job){ .run = drop_run, .done = drop_done };
	drop->service = service;
	drop->sock.fd = -1;
	CHECK(strlen(id) < sizeof(drop->id) && strlen(path) < sizeof(drop->sock.path));
	memcpy(drop->id, id, strlen(id) + 1);
	memcpy(drop->sock.path, path, strlen(path) + 1);
	worker_submit(service->socket_worker, &drop->job);
}

struct sweep_job {
	struct job job;
	struct disk_service *service;
	char (*ids)[DISK_ID_BYTES];
	size_t count;
};

static bool is_wanted(const char *id, const void *user)
{
	const struct sweep_job *sweep = user;

	for (size_t i = 0; i < sweep->count; i++)
		if (strcmp(sweep->ids[i], id) == 0)
			return true;
	return false;
}

static void sweep_run(struct job *job)
{
	struct sweep_job *sweep = container_of(job, struct sweep_job, job);

	socket_holder_sweep(sweep->service->holder, is_wanted, sweep);
}

static void sweep_done(struct job *job)
{
	struct sweep_job *sweep = container_of(job, struct sweep_job, job);

	free(sweep->ids);
	free(sweep);
}

void disk_sockets_sweep(struct disk_service *service, char (*ids)[DISK_ID_BYTES], size_t count)
{
	struct sweep_job *sweep = service->holder ? calloc(1, sizeof(*sweep)) : NULL;

	LOOP_CHECK(service->main_loop);
	if (!sweep) {
		free(ids);      /* nothing is held, or it is swept at the next start */
		return;
	}
	*sweep = (struct sweep_job){ .job = { .run = sweep_run, .done = sweep_done },
				     .service = service, .ids = ids, .count = count };
	worker_submit(service->socket_worker, &sweep->job);
}
