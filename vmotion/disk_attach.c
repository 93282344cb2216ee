/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_attach.c - attach and detach, each a chain over three threads.
 *
 *   attach   A1 judge (main) -> A2 open and lock (datastore's worker) -> A3 listen (socket
 *            worker) -> A4 device, gate, export (I/O loop) -> attached (main)
 *   detach   D1 judge (main) -> D2 export closed, flushed, gate and device closed (I/O loop)
 *            -> D3 socket file removed (socket worker) -> D4 unlocked (datastore's worker)
 *            -> forgotten (main)
 *
 * A failure at An unwinds what A2..An-1 did by going through D3 and D4 from there.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkmirror/base/log.h"
#include "vmotion/disk_private.h"

static struct disk *disk_of_job(struct job *job)
{
	return container_of(job, struct disk, op.job);
}

static struct disk *disk_of_call(struct io_call *call)
{
	return container_of(call, struct disk, op.call);
}

static void submit_job(struct disk *disk, struct worker *worker, void (*run)(struct job *job),
		       void (*done)(struct job *job))
{
	disk->op.job = (struct job){ .run = run, .done = done };
	worker_submit(worker, &disk->op.job);
}

/* ---- the common end: D3, D4, forgotten ---- */

/* The disk is gone; tell whoever waits. */
static void disk_forget(struct disk *disk)
{
	struct disk_op op = disk->op;

	disk_unlink(disk);
	free(disk);
	if (op.attached)
		op.attached(NULL, &op.err, op.user);
	else
		op.detached(NULL, op.user);
}

static void disk_closed(struct job *job)
{
	disk_forget(disk_of_job(job));
}

static void disk_close_run(struct job *job)
{
	ds_disk_close(disk_of_job(job)->op.opened);
}

/* D4 */
static void disk_close(struct disk *disk)
{
	if (!disk->opened) {
		disk_forget(disk);
		return;
	}
	/* From here it is the worker's: other attaches still look at where this disk lies. */
	disk->datastore = ds_disk_datastore(disk->opened);
	snprintf(disk->path, sizeof(disk->path), "%s", ds_disk_path(disk->opened));
	disk->op.opened = disk->opened;
	disk->opened = NULL;
	submit_job(disk, datastore_worker(disk->datastore), disk_close_run, disk_closed);
}

static void disk_unlisten_run(struct job *job)
{
	struct disk *disk = disk_of_job(job);

	if (disk->sock.fd >= 0)
		close(disk->sock.fd);
	if (disk->op.leave && disk->is_held)
		return;
	disk_socket_unlink(&disk->sock);
	if (disk->service->holder)
		socket_holder_forget(disk->service->holder, disk->id, NULL);
}

static void disk_unlistened(struct job *job)
{
	disk_close(disk_of_job(job));
}

/* D3 */
static void disk_unlisten(struct disk *disk)
{
	if (!disk->has_socket) {
		disk_close(disk);
		return;
	}
	submit_job(disk, disk->service->socket_worker, disk_unlisten_run, disk_unlistened);
}

/* ---- attach ---- */

/* A4, on the I/O loop. */
static int disk_serve_nbd(struct disk *disk, struct err *err)
{
	struct nbd_server_options options = { .export_name = disk->id,
					      .read_only = disk->read_only };

	return nbd_server_new(disk->thread->loop, disk->sock.fd, gate_as_dev(disk->gate),
			      disk->thread->pool, &options, &disk->nbd, err);
}

static int disk_serve_vhost(struct disk *disk, struct err *err)
{
	struct vhost_blk_options options = { .name = disk->id, .read_only = disk->read_only };

	return vhost_blk_server_new(disk->thread->loop, disk->sock.fd, gate_as_dev(disk->gate),
				    &options, &disk->vhost, err);
}

static int disk_serve_export(struct disk *disk, struct err *err)
{
	int rc;

	if (disk->export_kind == DISK_EXPORT_NONE)
		return 0;
	rc = disk->export_kind == DISK_EXPORT_NBD ? disk_serve_nbd(disk, err)
						  : disk_serve_vhost(disk, err);
	if (rc)
		return rc;
	disk->sock.fd = -1;             /* the server's now */
	disk_census_join(disk);
	return 0;
}

static int disk_serve(struct disk *disk, struct err *err)
{
	uint64_t size_bytes = ds_disk_info(disk->opened)->size_bytes;
	int rc;

	rc = ds_disk_make_dev(disk->opened, disk->thread->loop, false, &disk->device, err);
	if (rc)
		return rc;
	disk->gate = gate_new(disk->thread->loop, disk->device,
			      MIN(size_bytes, disk->device->size_bytes));
	if (!disk->gate) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "cannot attach '%s'", disk->id);
		goto close_device;
	}
	if (disk->hold)
		gate_hold(disk->gate);
	rc = disk_serve_export(disk, err);
	if (rc)
		goto free_gate;
	return 0;

free_gate:
	gate_free(disk->gate);
close_device:
	blk_close(disk->device);
	disk->gate = NULL;
	disk->device = NULL;
	return rc;
}

static void disk_serve_run(struct io_call *call)
{
	struct disk *disk = disk_of_call(call);

	disk->op.rc = disk_serve(disk, &disk->op.err);
	io_call_finish(call);
}

static void disk_served(struct io_call *call)
{
	struct disk *disk = disk_of_call(call);

	if (disk->op.rc) {
		disk_unlisten(disk);
		return;
	}
	disk->info = *ds_disk_info(disk->opened);
	disk->state = DISK_ATTACHED;
	log_info("disk", "%s: attached %s:%s, %llu bytes, %s%s", disk->id,
		 datastore_name(disk_datastore(disk)), disk_path(disk),
		 (unsigned long long)disk->info.size_bytes, disk_export_name(disk->export_kind),
		 disk->read_only ? ", read-only" : "");
	disk_sampler_kick(disk->service);
	disk->op.attached(disk, NULL, disk->op.user);
}

static void disk_go_serve(struct disk *disk)
{
	io_call_send(&disk->op.call, disk->thread->loop, disk->service->main_loop, disk_serve_run,
		     disk_served);
}

/*
 * A3.  One that was held over our own death may have clients in its backlog already: it is taken
 * as it is (R-J7).
 */
static void disk_listen_run(struct job *job)
{
	struct disk *disk = disk_of_job(job);
	struct socket_holder *holder = disk->service->holder;

	disk->is_held = holder && socket_holder_take(holder, disk->id, disk->sock.path, &disk->sock);
	if (disk->is_held)
		return;
	disk->op.rc = disk_socket_listen(disk->sock.path, &disk->sock, &disk->op.err);
	if (!disk->op.rc && holder)
		disk->is_held = socket_holder_keep(holder, disk->id, &disk->sock);
}

static void disk_listening(struct job *job)
{
	struct disk *disk = disk_of_job(job);

	disk_holder_look(disk->service);
	if (disk->op.rc) {
		disk_close(disk);
		return;
	}
	disk->has_socket = true;
	disk_go_serve(disk);
}

/* A2 */
static void disk_open_run(struct job *job)
{
	struct disk *disk = disk_of_job(job);

	disk->op.rc = ds_disk_open(disk->datastore, disk->path, disk->op.open_flags,
				   disk->move_journal_id[0] ? disk->move_journal_id : NULL,
				   &disk->op.opened, &disk->op.err);
}

static void disk_open_done(struct job *job)
{
	struct disk *disk = disk_of_job(job);

	disk->opened = disk->op.opened; /* not earlier: other attaches look at it meanwhile */
	if (disk->op.rc)
		disk_forget(disk);
	else if (disk->export_kind != DISK_EXPORT_NONE)
		submit_job(disk, disk->service->socket_worker, disk_listen_run, disk_listening);
	else
		disk_go_serve(disk);
}

/* ---- A1: judge ---- */

static bool path_is_taken(struct disk_service *service, const struct disk *except,
			  const char *socket_path)
{
	list_for_each(node, &service->disks) {
		const struct disk *disk = list_entry(node, struct disk, node);

		if (disk != except && disk->export_kind != DISK_EXPORT_NONE &&
		    strcmp(disk->sock.path, socket_path) == 0)
			return true;
	}
	return false;
}

static int judge_socket(struct disk *disk, const struct disk_attach_spec *spec, struct err *err)
{
	char made[sizeof(disk->service->run_dir) + DISK_ID_BYTES + sizeof("/disks/.sock")];
	const char *path = spec->socket_path;
	int rc;

	if (!path) {
		snprintf(made, sizeof(made), "%s/disks/%s.sock", disk->service->run_dir, disk->id);
		path = made;
	}
	rc = disk_socket_judge_path(path, err);
	if (rc)
		return rc;
	if (path_is_taken(disk->service, disk, path))
		return err_set(err, ERR_EXPORT_SOCKET, -EADDRINUSE,
			       "another attached disk has the socket '%s'", path);
	memcpy(disk->sock.path, path, strlen(path) + 1);        /* judged: it fits */
	return 0;
}

static int judge_export(struct disk *disk, const struct disk_attach_spec *spec, struct err *err)
{
	switch (spec->export_kind) {
	case DISK_EXPORT_NONE:
		return 0;
	case DISK_EXPORT_NBD:
	case DISK_EXPORT_VHOST_USER:
		return judge_socket(disk, spec, err);
	}
	return err_set(err, ERR_EXPORT_KIND, -EINVAL, "unknown kind of export");
}

static int judge_id(struct disk *disk, const struct disk_attach_spec *spec, struct err *err)
{
	struct disk_service *service = disk->service;

	if (!spec->id) {
		do {
			snprintf(disk->id, sizeof(disk->id), "d%llu",
				 (unsigned long long)++service->last_number);
		} while (disk_by_id(service, disk->id));
		return 0;
	}
	/* The same rule as for a datastore's name. */
	if (!ds_name_is_valid(spec->id))
		return err_set(err, ERR_BAD_NAME, -EINVAL, "'%.80s' cannot be a disk's id",
			       spec->id);
	if (disk_by_id(service, spec->id))
		return err_set(err, ERR_DISK_ID_TAKEN, -EEXIST, "the id '%s' is taken", spec->id);
	snprintf(disk->id, sizeof(disk->id), "%s", spec->id);
	return 0;
}

static int judge_path(struct disk *disk, const struct disk_attach_spec *spec, struct err *err)
{
	if (strlen(spec->path) >= sizeof(disk->path))
		return err_set(err, ERR_DS_PATH_ESCAPE, -ENAMETOOLONG,
			       "the path '%.60s...' is too long", spec->path);
	list_for_each(node, &disk->service->disks) {
		const struct disk *other = list_entry(node, struct disk, node);

		if (disk_datastore(other) == spec->datastore &&
		    strcmp(disk_path(other), spec->path) == 0 &&
		    !(other->read_only && spec->read_only))
			return err_set(err, ERR_DISK_ATTACHED, -EBUSY,
				       "'%s:%.120s' is attached as '%s'",
				       datastore_name(spec->datastore), spec->path, other->id);
	}
	snprintf(disk->path, sizeof(disk->path), "%s", spec->path);
	return 0;
}

static int disk_judge(struct disk *disk, const struct disk_attach_spec *spec, struct err *err)
{
	int rc;

	if (spec->group && strlen(spec->group) >= sizeof(disk->group))
		return err_set(err, ERR_BAD_NAME, -EINVAL, "the group '%.80s...' is too long",
			       spec->group);
	rc = judge_id(disk, spec, err);
	if (!rc)
		rc = judge_path(disk, spec, err);
	if (!rc)
		rc = judge_export(disk, spec, err);
	if (rc)
		return rc;
	if (spec->group)
		snprintf(disk->group, sizeof(disk->group), "%s", spec->group);
	return 0;
}

static struct io_thread *choose_thread(struct disk_service *service,
				       const struct disk_attach_spec *spec)
{
	struct io_thread *least = service->threads[0];

	if (spec->beside)
		return spec->beside->thread;
	if (spec->group) {
		list_for_each(node, &service->disks) {
			struct disk *disk = list_entry(node, struct disk, node);

			if (strcmp(disk->group, spec->group) == 0)
				return disk->thread;
		}
	}
	for (uint32_t i = 1; i < service->thread_count; i++)
		if (service->threads[i]->disk_count < least->disk_count)
			least = service->threads[i];
	return least;
}

static void disk_refused(struct task *task)
{
	struct disk *disk = container_of(task, struct disk, op.refusal);
	struct disk_op op = disk->op;

	free(disk);
	op.attached(NULL, &op.err, op.user);
}

void disk_attach(struct disk_service *service, const struct disk_attach_spec *spec,
		 void (*attached)(struct disk *disk, const struct err *err, void *user), void *user)
{
	struct disk *disk = calloc(1, sizeof(*disk));

	LOOP_CHECK(service->main_loop);
	if (!disk) {
		struct err err;

		err_set(&err, ERR_NO_MEMORY, -ENOMEM, "cannot attach a disk");
		attached(NULL, &err, user);
		return;
	}
	disk->service = service;
	disk->datastore = spec->datastore;
	disk->export_kind = spec->export_kind;
	disk->read_only = spec->read_only;
	disk->sock.fd = -1;
	list_init(&disk->node);
	list_init(&disk->serving_node);
	disk->op.attached = attached;
	disk->op.user = user;
	if (disk_judge(disk, spec, &disk->op.err)) {
		disk->op.refusal.run = disk_refused;
		loop_post(service->main_loop, &disk->op.refusal);
		return;
	}
	disk->op.open_flags = (spec->read_only ? DS_OPEN_READ_ONLY : 0) |
			      (spec->wait_lock ? DS_OPEN_WAIT_LOCK : 0) |
			      (spec->move_journal_id ? DS_OPEN_FOR_MOVE : 0);
	disk->hold = spec->hold;
	if (spec->move_journal_id)
		snprintf(disk->move_journal_id, sizeof(disk->move_journal_id), "%s",
			 spec->move_journal_id);
	disk_link(disk, choose_thread(service, spec));
	submit_job(disk, datastore_worker(spec->datastore), disk_open_run, disk_open_done);
}

/* ---- detach ---- */

/* D2, last part: nothing is in flight. */
static void disk_drop_device(struct disk *disk)
{
	gate_free(disk->gate);
	blk_close(disk->device);
	disk->gate = NULL;
	disk->device = NULL;
	io_call_finish(&disk->op.call);
}

static void disk_flushed(struct blk_req *req)
{
	struct disk *disk = container_of(req, struct disk, op.flush);

	if (req->result)
		log_warn("disk", "%s: the flush before its detach failed: %s", disk->id,
			 err_strerror(req->result));
	disk_drop_device(disk);
}

static void disk_flush(struct disk *disk)
{
	if (disk->read_only) {
		disk_drop_device(disk);
		return;
	}
	disk->op.flush = (struct blk_req){ .op = BLK_FLUSH, .done = disk_flushed };
	blk_submit(disk->device, &disk->op.flush);
}

static void disk_unserved(void *user)
{
	struct disk *disk = user;

	disk->nbd = NULL;
	disk->vhost = NULL;
	disk_flush(disk);
}

/* On the I/O loop; there is an export. */
static void disk_close_export(struct disk *disk, void (*closed)(void *user))
{
	if (disk->nbd)
		nbd_server_close(disk->nbd, NULL, closed, disk);
	else
		vhost_blk_server_close(disk->vhost, NULL, closed, disk);
}

static void disk_unserve_run(struct io_call *call)
{
	struct disk *disk = disk_of_call(call);

	if (!disk->nbd && !disk->vhost) {
		disk_flush(disk);
		return;
	}
	if (!disk->op.force && disk_clients(disk)) {
		disk->op.rc = err_set(&disk->op.err, ERR_EXPORT_BUSY, -EBUSY,
				      "a client is connected to the disk '%s'", disk->id);
		io_call_finish(call);
		return;
	}
	disk_census_leave(disk);
	disk_close_export(disk, disk_unserved);
}

static void disk_unserve_done(struct io_call *call)
{
	struct disk *disk = disk_of_call(call);

	if (disk->op.rc) {
		disk->state = DISK_ATTACHED;
		disk->op.detached(&disk->op.err, disk->op.user);
		return;
	}
	log_info("disk", "%s: detached %s:%s", disk->id, datastore_name(disk_datastore(disk)),
		 disk_path(disk));
	disk_unlisten(disk);
}

/* ---- the export alone ---- */

static void disk_unserve_alone_closed(void *user)
{
	struct disk *disk = user;

	disk->nbd = NULL;
	disk->vhost = NULL;
	io_call_finish(&disk->op.call);
}

static void disk_unserve_alone_run(struct io_call *call)
{
	struct disk *disk = disk_of_call(call);

	if (!disk->nbd && !disk->vhost) {
		io_call_finish(call);
		return;
	}
	disk_census_leave(disk);
	disk_close_export(disk, disk_unserve_alone_closed);
}

static void disk_unserve_alone_done(struct io_call *call)
{
	struct disk *disk = disk_of_call(call);

	disk->op.unserved(disk, disk->op.user);
}

void disk_unserve(struct disk *disk, void (*closed)(struct disk *disk, void *user), void *user)
{
	LOOP_CHECK(disk->service->main_loop);
	CHECK(disk->state == DISK_ATTACHED);
	CHECK(disk->moving);
	disk->op = (struct disk_op){ .unserved = closed, .user = user };
	io_call_send(&disk->op.call, disk->thread->loop, disk->service->main_loop,
		     disk_unserve_alone_run, disk_unserve_alone_done);
}

struct detach_refusal {
	struct task task;
	struct err err;
	void (*detached)(const struct err *err, void *user);
	void *user;
};

static void detach_refused(struct task *task)
{
	struct detach_refusal *refusal = container_of(task, struct detach_refusal, task);

	refusal->detached(&refusal->err, refusal->user);
	free(refusal);
}

static void detach_refuse(struct disk_service *service, const struct err *err,
			  void (*detached)(const struct err *err, void *user), void *user)
{
	struct detach_refusal *refusal = calloc(1, sizeof(*refusal));

	if (!refusal) {
		detached(err, user);
		return;
	}
	*refusal = (struct detach_refusal){ .task.run = detach_refused, .err = *err,
					    .detached = detached, .user = user };
	loop_post(service->main_loop, &refusal->task);
}

/* D1 */
static void detach_begin(struct disk *disk, const struct disk_op *op)
{
	struct disk_service *service = disk->service;
	struct err err;
	int rc = 0;

	LOOP_CHECK(service->main_loop);
	if (disk->state != DISK_ATTACHED)
		rc = err_set(&err, ERR_DISK_NOT_ATTACHED, -EBUSY, "the disk '%s' is being detached",
			     disk->id);
	else if (disk->moving)
		rc = err_set(&err, ERR_DISK_MOVING, -EBUSY, "the disk '%s' is being moved",
			     disk->id);
	if (rc) {
		detach_refuse(service, &err, op->detached, op->user);
		return;
	}
	disk->state = DISK_DETACHING;
	disk->op = *op;
	io_call_send(&disk->op.call, disk->thread->loop, service->main_loop, disk_unserve_run,
		     disk_unserve_done);
}

void disk_detach(struct disk *disk, bool force, void (*detached)(const struct err *err, void *user),
		 void *user)
{
	struct disk_op op = { .force = force, .detached = detached, .user = user };

	detach_begin(disk, &op);
}

void disk_leave(struct disk *disk, void (*left)(const struct err *err, void *user), void *user)
{
	struct disk_op op = { .force = true, .leave = true, .detached = left, .user = user };

	detach_begin(disk, &op);
}
