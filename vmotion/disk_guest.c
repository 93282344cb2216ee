/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_guest.c - once a second: what each guest feels, and how many clients there are.
 *
 * Counters are snapshot from the main loop (io_stats.h allows it); the number of clients is
 * the I/O loop's to read, so each I/O thread notes it once a second for all its disks.
 */
#include <stdatomic.h>

#include "vmotion/disk_private.h"

/* ---- clients: on the I/O loop ---- */

uint32_t disk_clients(const struct disk *disk)
{
	if (disk->nbd)
		return nbd_server_connections(disk->nbd);
	return disk->vhost ? vhost_blk_server_connections(disk->vhost) : 0;
}

static void census_fired(struct timer *timer)
{
	struct io_thread *thread = container_of(timer, struct io_thread, census);

	list_for_each(node, &thread->serving) {
		struct disk *disk = list_entry(node, struct disk, serving_node);

		atomic_store_explicit(&disk->clients, disk_clients(disk), memory_order_relaxed);
	}
	timer_start(timer, NS_PER_S);
}

void disk_census_join(struct disk *disk)
{
	struct io_thread *thread = disk->thread;

	if (list_is_empty(&thread->serving)) {
		timer_init(&thread->census, thread->loop, census_fired);
		timer_start(&thread->census, NS_PER_S);
	}
	list_append(&thread->serving, &disk->serving_node);
}

void disk_census_leave(struct disk *disk)
{
	list_remove(&disk->serving_node);
	if (list_is_empty(&disk->thread->serving))
		timer_stop(&disk->thread->census);
}

/* ---- samples ---- */

static void guest_sample(struct disk *disk, uint64_t now_ns)
{
	struct guest_ring *ring = &disk->guest;
	struct guest_sample *sample = &ring->samples[ring->next];

	sample->at_ns = now_ns;
	sample->max_ns = io_stats_take_max_ns(disk_io_stats(disk));
	io_stats_snapshot(disk_io_stats(disk), &sample->io);
	ring->next = (ring->next + 1) % GUEST_SAMPLES;
	ring->count = MIN(ring->count + 1, GUEST_SAMPLES);
}

static void sampler_fired(struct timer *timer)
{
	struct disk_service *service = container_of(timer, struct disk_service, sampler);
	uint64_t now_ns = loop_now_ns(service->main_loop);

	if (list_is_empty(&service->disks))
		return;                 /* the next attach starts it again */
	list_for_each(node, &service->disks) {
		struct disk *disk = list_entry(node, struct disk, node);

		if (disk->state == DISK_ATTACHED)
			guest_sample(disk, now_ns);
	}
	timer_start_at(timer, timer->deadline_ns + NS_PER_S > now_ns
				      ? timer->deadline_ns + NS_PER_S : now_ns + NS_PER_S);
}

void disk_sampler_init(struct disk_service *service)
{
	timer_init(&service->sampler, service->main_loop, sampler_fired);
}

void disk_sampler_kick(struct disk_service *service)
{
	if (!service->sampler.started)
		timer_start(&service->sampler, 0);
}

/* ---- what was felt ---- */

void disk_guest_window(const struct disk *disk, unsigned seconds, struct disk_guest_window *out)
{
	const struct guest_ring *ring = &disk->guest;
	uint32_t newest, steps;

	CHECK(seconds >= 1);
	CHECK(seconds <= DISK_GUEST_WINDOW_S);
	*out = (struct disk_guest_window){ 0 };
	if (ring->count < 2)
		return;
	steps = MIN(seconds, ring->count - 1);
	newest = (ring->next + GUEST_SAMPLES - 1) % GUEST_SAMPLES;
	out->io = ring->samples[newest].io;
	for (uint32_t i = 0; i < steps; i++) {
		uint32_t at = (newest + GUEST_SAMPLES - i) % GUEST_SAMPLES;

		out->max_ns = MAX(out->max_ns, ring->samples[at].max_ns);
	}
	newest = (newest + GUEST_SAMPLES - steps) % GUEST_SAMPLES;
	io_snapshot_subtract(&out->io, &ring->samples[newest].io);
	out->span_ns = ring->samples[(ring->next + GUEST_SAMPLES - 1) % GUEST_SAMPLES].at_ns -
		       ring->samples[newest].at_ns;
}
