/* SPDX-License-Identifier: Apache-2.0 */
/* ds_nfs.c - nfs://, an export: mount and state; disks' locks and devices. */
#include "datastores/ds_nfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/base/uuid.h"
#include "blkmirror/blkdev/blk_nfs.h"

#define CALL_TIMEOUT_NS (10 * NS_PER_S)
#define CONNECTIONS_DEFAULT 2u

static const struct tree_ops nfs_files;

static struct ds_nfs *nfs_of(struct datastore *ds)
{
	return ds_nfs_of(ds_tree_of(ds));
}

/* ---- state ---- */

static void show_state(struct ds_nfs *nfs)
{
	enum ds_state state = DS_UP;

	if (!nfs->is_open)
		return;
	if (nfs->waiting)
		state = DS_RECONNECTING;
	else if (!nfs->answers)
		state = DS_DOWN;
	else if (!nfs->renews)
		state = DS_DEGRADED;
	datastore_set_state(&nfs->tree.ds, state);
}

int ds_nfs_note(struct ds_nfs *nfs, int rc)
{
	bool answers = rc == 0 || nfs_session_is_connected(nfs->session);

	if (nfs->answers != answers) {
		nfs->answers = answers;
		show_state(nfs);
	}
	return rc;
}

static void keeper_told(void *user, bool renews)
{
	struct ds_nfs *nfs = user;

	nfs->renews = renews;
	show_state(nfs);
}

static void device_told(void *user, bool connected)
{
	struct ds_nfs *nfs = user;

	if (connected)
		nfs->waiting--;
	else
		nfs->waiting++;
	show_state(nfs);
}

/* ---- open ---- */

static int place_of(const struct ds_url *url, struct nfs_place *place, struct err *err)
{
	*place = (struct nfs_place){ .nfs_port = url->nfs_port ? url->nfs_port : url->port,
				     .mount_port = url->mount_port };
	if (strlen(url->path) >= sizeof(place->path))
		return err_set(err, ERR_DS_BAD_URL, -EINVAL, "the export's path is too long");
	_Static_assert(DS_URL_HOST_BYTES <= NFS_HOST_BYTES, "a URL's host fits");
	strcpy(place->host, url->host);
	strcpy(place->path, url->path);
	return nfs_version_check(url->nfs_version, err);
}

static int probe_failed(int rc, const struct nfs_place *place, struct err *err)
{
	enum err_id id = rc == -EACCES || rc == -EPERM		? ERR_DS_PERMISSION
			 : rc == -EROFS				? ERR_DS_READ_ONLY
			 : rc == -ENOSPC || rc == -EDQUOT	? ERR_DS_NO_SPACE
								: ERR_DS_UNREACHABLE;

	return err_set(err, id, rc, "cannot write to '%.150s' of %.80s: %s", place->path,
		       place->host, err_strerror(rc));
}

/* What the server lets us do is known when it is tried: a file that is made and removed. */
static int probe_writing(struct nfs_session *session, struct err *err)
{
	struct uuid random = uuid_random();
	char name[64], text[UUID_TEXT_BYTES];
	const struct nfs_handle *root = nfs_session_root(session);
	struct nfs_handle file;
	uint64_t cookie;
	int rc;

	snprintf(name, sizeof(name), ".%s" DS_TMP_SUFFIX, uuid_format(&random, text));
	memcpy(&cookie, random.bytes, sizeof(cookie));
	rc = nfs_session_create_exclusive(session, root, name, cookie, &file);
	if (rc)
		return probe_failed(rc, nfs_session_place(session), err);
	rc = nfs_session_remove(session, root, name);
	return rc ? probe_failed(rc, nfs_session_place(session), err) : 0;
}

static int nfs_probe(struct datastore *ds, struct err *err)
{
	struct ds_nfs *nfs = nfs_of(ds);

	return ds_nfs_note(nfs, probe_writing(nfs->session, err));
}

static int nfs_open(const struct ds_url *url, const struct ds_config *config,
		    struct datastore **out, struct err *err)
{
	struct ds_nfs *nfs = calloc(1, sizeof(*nfs));
	struct nfs_place place;
	struct uuid owner;
	int rc;

	if (!nfs)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	memcpy(owner.bytes, config->host_uuid, sizeof(owner.bytes));
	nfs->answers = true;
	nfs->renews = true;
	nfs->connections = url->nconnect ? url->nconnect : CONNECTIONS_DEFAULT;
	rc = place_of(url, &place, err);
	if (!rc)
		rc = nfs_session_open(&place, CALL_TIMEOUT_NS, &nfs->session, err);
	if (!rc)
		rc = probe_writing(nfs->session, err);
	if (rc)
		goto close_session;
	nfs->keeper = nfs_keeper_new(&place, &owner, &lease_times_default, keeper_told, nfs);
	if (!nfs->keeper) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto close_session;
	}
	nfs->tree.ds.ops = &ds_nfs_ops;
	nfs->tree.files = &nfs_files;
	*out = &nfs->tree.ds;
	return 0;

close_session:
	nfs_session_close(nfs->session);
	free(nfs);
	return rc;
}

static void nfs_close(struct datastore *ds)
{
	struct ds_nfs *nfs = nfs_of(ds);

	nfs->is_open = false;
	nfs_keeper_free(nfs->keeper);
	nfs_session_close(nfs->session);
	free(nfs);
}

static int nfs_space(struct datastore *ds, struct ds_space *out, struct err *err)
{
	struct ds_nfs *nfs = nfs_of(ds);
	struct nfs_space space;
	int rc;

	nfs->is_open = true;
	rc = ds_nfs_note(nfs, nfs_session_space(nfs->session, &space));
	show_state(nfs);
	if (rc)
		return err_set(err, ERR_DS_IO, rc, "cannot ask the datastore %s for its space: %s",
			       ds->name, err_strerror(rc));
	out->capacity_bytes = space.total_bytes;
	out->free_bytes = space.free_bytes;
	return 0;
}

/* ---- locks ---- */

struct tree_lock {
	struct nfs_lock *lock;
	_Atomic uint64_t unsettled_until_ns;    /* fence_clock_ns(); a device's lost connection */
};

static struct nfs_claim claim_of(struct ds_nfs *nfs, const struct tree_claim *claim)
{
	return (struct nfs_claim){
		.session = nfs->session,
		.dir = &claim->dir->handle,
		.data_name = claim->data_name,
		.shared = claim->mode == DISK_LOCK_READ,
		/* Ours are given back before their close returns. */
		.wait_ms = claim->wait_ms == TREE_WAIT_SOON ? 0 : claim->wait_ms,
		.path = claim->path,
	};
}

static int nfs_files_lock(struct ds_tree *tree, const struct tree_claim *claim,
			  struct tree_lock **out, struct err *err)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	const struct nfs_claim wanted = claim_of(nfs, claim);
	struct tree_lock *lock = calloc(1, sizeof(*lock));
	int rc;

	if (!lock)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = nfs_lock_take(nfs->keeper, &wanted, &lock->lock, err);
	if (rc) {
		free(lock);
		return ds_nfs_note(nfs, rc);
	}
	*out = lock;
	return 0;
}

static void nfs_files_unlock(struct ds_tree *tree, struct tree_lock *lock, bool gone)
{
	nfs_lock_release(lock->lock, ds_nfs_of(tree)->session, gone, lock->unsettled_until_ns);
	free(lock);
}

/* R-F3: a lapse is not a loss: the keeper may renew it still. */
static int nfs_files_confirm(struct tree_lock *lock, const char *path, struct err *err)
{
	struct fence *fence = nfs_lock_fence(lock->lock);
	uint64_t until_ns = fence_clock_ns() + CALL_TIMEOUT_NS;

	while (!fence_is_open(fence) && !fence_is_lost(fence) && fence_clock_ns() < until_ns)
		fence_wait(fence, NS_PER_S);
	if (fence_is_open(fence))
		return 0;
	return err_set(err, ERR_DISK_IN_USE, -EAGAIN, fence_is_lost(fence)
		       ? "the lock of '%.160s' is lost to another host"
		       : "the lock of '%.160s' has lapsed: the server is not reached", path);
}

static int nfs_files_break_lock(struct ds_tree *tree, const struct tree_claim *claim,
				struct err *err)
{
	struct ds_nfs *nfs = ds_nfs_of(tree);
	const struct nfs_claim wanted = claim_of(nfs, claim);

	return nfs_lock_break(nfs->keeper, &wanted, err);
}

/* ---- devices ---- */

/* The connections are made when the disk is opened, on the worker; the device takes them. */
static int nfs_prepare_io(struct tree_disk *disk, struct err *err)
{
	struct ds_nfs *nfs = ds_nfs_of(disk->place.tree);
	struct blk_nfs_links *links;
	int rc = blk_nfs_connect(nfs->session, &disk->file.handle, nfs->connections,
				 CALL_TIMEOUT_NS, &links, err);

	if (!rc)
		disk->io = links;
	return rc;
}

static void nfs_release_io(struct tree_disk *disk)
{
	blk_nfs_links_free(disk->io);
	disk->io = NULL;
}

static int nfs_make_dev(struct tree_disk *disk, struct loop *io_loop, bool as_target,
			struct blk_dev **out, struct err *err)
{
	const struct ds_disk *base = &disk->disk;
	struct blk_nfs_options options = {
		.role = as_target ? BLK_NFS_TARGET : BLK_NFS_SOURCE,
		.read_only = base->info.read_only,
		.reads_zero = base->info.reads_zero,
		.name = base->path,
		.fence = nfs_lock_fence(disk->lock->lock),
		.told = device_told,
		.user = ds_nfs_of(disk->place.tree),
		.unsettled_until_ns = &disk->lock->unsettled_until_ns,
	};
	int rc = blk_nfs_new(io_loop, disk->io, base->info.size_bytes, &options, out, err);

	if (!rc)
		disk->io = NULL;
	return rc;
}

static const struct tree_ops nfs_files = {
	.fail = nfs_fail,
	.plain_path = nfs_files_plain_path,
	.open_dir = nfs_files_open_dir,
	.make_parents = nfs_files_make_parents,
	.remove_parents = nfs_files_remove_parents,
	.read_small = nfs_files_read_small,
	.write_small = nfs_files_write_small,
	.rename_new = nfs_files_rename_new,
	.stat = nfs_files_stat,
	.remove = nfs_files_remove,
	.sync_dir = nfs_files_sync_dir,
	.list = nfs_files_list,
	.may_write = nfs_files_may_write,
	.open_file = nfs_files_open_file,
	.create_file = nfs_files_create_file,
	.close = nfs_files_close,
	.stat_file = nfs_files_stat_file,
	.read_file = nfs_files_read_file,
	.is_named = nfs_files_is_named,
	.grow = nfs_files_grow,
	.is_unwritten = nfs_files_is_unwritten,
	.sector_bytes = nfs_files_sector_bytes,
	.lock = nfs_files_lock,
	.unlock = nfs_files_unlock,
	.confirm = nfs_files_confirm,
	.prepare_io = nfs_prepare_io,
	.release_io = nfs_release_io,
	.make_dev = nfs_make_dev,
	.break_lock = nfs_files_break_lock,
};

const struct datastore_ops ds_nfs_ops = {
	.kind = "nfs",
	.lock_scheme = "lease",
	.has_identity = true,
	.open = nfs_open,
	.close = nfs_close,
	.space = nfs_space,
	.probe = nfs_probe,
	.list = tree_list,
	.disk_create = tree_disk_create,
	.disk_stat = tree_disk_stat,
	.disk_open = tree_disk_open,
	.disk_delete = tree_disk_delete,
	.disk_unlock = tree_disk_unlock,
};
