/* SPDX-License-Identifier: Apache-2.0 */
/* disk.c - the disk service: its threads, its table, and what a disk tells about itself. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmotion/disk_private.h"

#define DEFAULT_BUFFER_BYTES (UINT64_C(64) << 20)
#define IO_THREADS_MAX 64u

static const char *const export_names[] = {
	[DISK_EXPORT_NONE] = "none",
	[DISK_EXPORT_NBD] = "nbd",
	[DISK_EXPORT_VHOST_USER] = "vhost-user",
};

const char *disk_export_name(enum disk_export kind)
{
	CHECK(kind < ARRAY_COUNT(export_names));
	return export_names[kind];
}

bool disk_export_parse(const char *text, enum disk_export *out)
{
	for (size_t i = 0; i < ARRAY_COUNT(export_names); i++) {
		if (strcmp(text, export_names[i]) == 0) {
			*out = (enum disk_export)i;
			return true;
		}
	}
	return false;
}

/* ---- the service ---- */

static uint32_t thread_count_of(const struct disk_service_options *options)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (options->io_threads)
		return MIN(options->io_threads, IO_THREADS_MAX);
	return cpus < 4 ? 1 : MIN((uint32_t)cpus / 2, IO_THREADS_MAX);
}

static void stop_threads(struct disk_service *service)
{
	for (uint32_t i = 0; i < service->thread_count; i++)
		io_thread_stop(service->threads[i]);
	free(service->threads);
}

static int start_threads(struct disk_service *service, const struct disk_service_options *options,
			 struct err *err)
{
	uint64_t buffer_bytes = options->buffer_bytes ?: DEFAULT_BUFFER_BYTES;
	uint32_t wanted = thread_count_of(options);
	int rc = 0;

	service->threads = calloc(wanted, sizeof(struct io_thread *));
	if (!service->threads)
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot start the I/O threads");
	while (!rc && service->thread_count < wanted) {
		uint32_t i = service->thread_count;

		rc = io_thread_start(i, MAX(buffer_bytes, BUF_MAX_BYTES), &service->threads[i],
				     err);
		if (rc)
			break;
		service->thread_count++;
	}
	if (rc)
		stop_threads(service);
	return rc;
}

int disk_service_new(struct loop *main_loop, const struct disk_service_options *options,
		     struct disk_service **out, struct err *err)
{
	struct disk_service *service;
	int rc;

	if (strlen(options->run_dir) >= sizeof(service->run_dir))
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "the run directory '%.100s...' is too long for sockets in it",
			       options->run_dir);
	service = calloc(1, sizeof(*service));
	if (!service)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot start the disk service");
	service->main_loop = main_loop;
	service->patience_ns = RELOCATE_PATIENCE_NS;
	snprintf(service->run_dir, sizeof(service->run_dir), "%s", options->run_dir);
	list_init(&service->disks);
	list_init(&service->relocations);
	disk_sampler_init(service);
	service->holder = options->holder;
	disk_holder_init(service);
	service->socket_worker = worker_new(main_loop, "sockets");
	service->record_worker = worker_new(main_loop, "records");
	if (!service->socket_worker || !service->record_worker) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot start the disk service");
		goto free_workers;
	}
	rc = start_threads(service, options, err);
	if (rc)
		goto free_workers;
	disk_holder_look(service);
	*out = service;
	return 0;

free_workers:
	worker_free(service->record_worker);
	worker_free(service->socket_worker);
	free(service);
	return rc;
}

void disk_service_free(struct disk_service *service)
{
	if (!service)
		return;
	LOOP_CHECK(service->main_loop);
	CHECK(list_is_empty(&service->disks));
	CHECK(list_is_empty(&service->relocations));
	timer_stop(&service->sampler);
	disk_holder_end(service);
	stop_threads(service);
	worker_free(service->record_worker);
	worker_free(service->socket_worker);
	free(service);
}

bool disk_service_is_busy(const struct disk_service *service)
{
	return worker_pending(service->socket_worker) > 0;
}

/* ---- the table ---- */

void disk_link(struct disk *disk, struct io_thread *thread)
{
	disk->thread = thread;
	thread->disk_count++;
	list_append(&disk->service->disks, &disk->node);
}

void disk_unlink(struct disk *disk)
{
	CHECK(disk->thread->disk_count > 0);
	disk->thread->disk_count--;
	list_remove(&disk->node);
}

const struct datastore *disk_datastore(const struct disk *disk)
{
	return disk->opened ? ds_disk_datastore(disk->opened) : disk->datastore;
}

const char *disk_path(const struct disk *disk)
{
	return disk->opened ? ds_disk_path(disk->opened) : disk->path;
}

struct disk *disk_by_id(struct disk_service *service, const char *id)
{
	list_for_each(node, &service->disks) {
		struct disk *disk = list_entry(node, struct disk, node);

		if (strcmp(disk->id, id) == 0)
			return disk;
	}
	return NULL;
}

struct disk *disk_find(struct disk_service *service, const char *id)
{
	struct disk *disk = disk_by_id(service, id);

	LOOP_CHECK(service->main_loop);
	return disk && disk->state != DISK_ATTACHING ? disk : NULL;
}

struct disk *disk_find_by_path(struct disk_service *service, const struct datastore *ds,
			       const char *path)
{
	for (struct disk *disk = disk_next(service, NULL); disk; disk = disk_next(service, disk))
		if (disk_datastore(disk) == ds && strcmp(disk_path(disk), path) == 0)
			return disk;
	return NULL;
}

struct disk *disk_next(struct disk_service *service, struct disk *disk)
{
	struct list *node = disk ? disk->node.next : service->disks.next;

	LOOP_CHECK(service->main_loop);
	for (; node != &service->disks; node = node->next) {
		struct disk *next = list_entry(node, struct disk, node);

		if (next->state != DISK_ATTACHING)
			return next;
	}
	return NULL;
}

bool disk_service_uses(const struct disk_service *service, const struct datastore *ds)
{
	list_for_each(node, &service->disks) {
		const struct disk *disk = list_entry(node, struct disk, node);

		if (disk_datastore(disk) == ds || disk->datastore == ds)
			return true;
	}
	return false;
}

/* ---- an attached disk ---- */

void disk_info(const struct disk *disk, struct disk_info *out)
{
	LOOP_CHECK(disk->service->main_loop);
	*out = (struct disk_info){
		.export_kind = disk->export_kind,
		.read_only = disk->read_only,
		.moving = disk->moving,
		.clients = atomic_load_explicit(&disk->clients, memory_order_relaxed),
		.disk = disk->info,
	};
	snprintf(out->id, sizeof(out->id), "%s", disk->id);
	snprintf(out->datastore, sizeof(out->datastore), "%s",
		 datastore_name(disk_datastore(disk)));
	snprintf(out->path, sizeof(out->path), "%s", disk_path(disk));
	snprintf(out->group, sizeof(out->group), "%s", disk->group);
	if (!disk->has_socket)
		return;
	snprintf(out->socket_path, sizeof(out->socket_path), "%s", disk->sock.path);
	if (disk->export_kind == DISK_EXPORT_NBD)
		disk_socket_uri(disk->id, disk->sock.path, out->uri);
}

struct io_stats *disk_io_stats(struct disk *disk)
{
	return gate_stats(disk->gate);
}

struct loop *disk_loop(struct disk *disk)
{
	return disk->thread->loop;
}

struct buf_pool *disk_pool(struct disk *disk)
{
	return disk->thread->pool;
}

struct gate *disk_gate(struct disk *disk)
{
	return disk->gate;
}

struct blk_dev *disk_device(struct disk *disk)
{
	return disk->device;
}

struct ds_disk *disk_opened(struct disk *disk)
{
	return disk->opened;
}

int disk_move_begin(struct disk *disk, struct err *err)
{
	LOOP_CHECK(disk->service->main_loop);
	if (disk->state != DISK_ATTACHED)
		return err_set(err, ERR_DISK_NOT_ATTACHED, -EBUSY,
			       "the disk '%s' is being detached", disk->id);
	if (disk->moving)
		return err_set(err, ERR_DISK_MOVING, -EBUSY, "the disk '%s' is being moved already",
			       disk->id);
	disk->moving = true;
	return 0;
}

static void disk_info_is_live(struct disk *disk)
{
	disk->info.identity.role = DISK_LIVE;
	disk->info.identity.journal_id[0] = '\0';
	memset(disk->info.identity.host_uuid, 0, sizeof(disk->info.identity.host_uuid));
}

void disk_move_end(struct disk *disk, struct ds_disk *opened, struct blk_dev *device,
		   struct ds_disk **old_opened, struct blk_dev **old_device)
{
	LOOP_CHECK(disk->service->main_loop);
	CHECK(disk->moving);
	CHECK(!opened == !device);
	disk->moving = false;
	if (!opened) {
		disk_info_is_live(disk);        /* it may have been opened as MOVING */
		return;
	}
	*old_opened = disk->opened;
	*old_device = disk->device;
	disk->opened = opened;
	disk->device = device;
	disk->info = *ds_disk_info(opened);
	disk_info_is_live(disk);        /* it was opened as INCOMING */
}
