/* SPDX-License-Identifier: Apache-2.0 */
/*
 * datastore.c - the edge: names, paths, sizes and identities are judged here, once; then the
 * kind's table is called.  Accounting of reserved space.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/log.h"
#include "blkmirror/blkdev/blk_file.h"
#include "datastores/blk_iscsi.h"
#include "blkmirror/blkdev/blk_nfs.h"
#include "datastores/datastore_private.h"
#include "datastores/disk_record.h"
#include "datastores/ds_path.h"
#include "datastores/provision.h"

static const struct datastore_ops *const kinds[DS_URL_KIND_COUNT] = {
	[DS_URL_DIR] = &ds_dir_ops,
	[DS_URL_NFS] = &ds_nfs_ops,
	[DS_URL_NBD] = &ds_nbd_ops,
	[DS_URL_NBD_UNIX] = &ds_nbd_ops,
	[DS_URL_ISCSI] = &ds_iscsi_ops,
};

/* ---- names ---- */

bool ds_name_is_valid(const char *name)
{
	size_t len = strnlen(name, DS_NAME_BYTES);

	if (len == 0 || len == DS_NAME_BYTES || !isalnum((unsigned char)name[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if ((signed char)name[i] < 0 ||
		    (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i])))
			return false;
	return true;
}

int ds_name_parse(const char *text, char ds_name[DS_NAME_BYTES], char path[DS_PATH_BYTES],
		  struct err *err)
{
	const char *colon = strchr(text, ':');
	char name[DS_NAME_BYTES];
	int rc;

	if (!colon)
		return err_set(err, ERR_USAGE, -EINVAL, "'%.160s' is not of the form DATASTORE:path",
			       text);
	if ((size_t)(colon - text) >= sizeof(name))
		return err_set(err, ERR_BAD_NAME, -EINVAL, "a datastore's name is too long");
	memcpy(name, text, (size_t)(colon - text));
	name[colon - text] = 0;
	if (!ds_name_is_valid(name))
		return err_set(err, ERR_BAD_NAME, -EINVAL, "'%s' is no name for a datastore", name);
	rc = ds_path_check(colon + 1, false, err);
	if (rc)
		return rc;
	strcpy(ds_name, name);
	strcpy(path, colon + 1);
	return 0;
}

/* ---- news of the state ---- */

/* Apart from the datastore, which may be gone when the message comes. */
struct ds_news {
	struct loop *loop;
	struct task task;
	atomic_bool sent;
	bool is_closed;                 /* the loop's, as all below */
	void (*changed)(void *user);
	void *user;
};

static void news_came(struct task *task)
{
	struct ds_news *news = container_of(task, struct ds_news, task);

	if (news->is_closed) {
		free(news);
		return;
	}
	atomic_store(&news->sent, false);
	if (news->changed)
		news->changed(news->user);
}

static struct ds_news *news_new(struct loop *loop)
{
	struct ds_news *news = calloc(1, sizeof(*news));

	if (news) {
		news->loop = loop;
		news->task.run = news_came;
	}
	return news;
}

/* Nobody sends any more. */
static void news_close(struct ds_news *news)
{
	news->is_closed = true;
	if (!atomic_load(&news->sent))
		free(news);
}

void datastore_watch_state(struct datastore *ds, void (*changed)(void *user), void *user)
{
	ds->news->changed = changed;
	ds->news->user = user;
}

/* ---- open and close ---- */

static int open_kind(const struct ds_config *config, struct ds_url *url, struct datastore **out,
		     struct err *err)
{
	int rc;

	if (!ds_name_is_valid(config->name))
		return err_set(err, ERR_BAD_NAME, -EINVAL, "'%.80s' is no name for a datastore",
			       config->name);
	rc = ds_url_parse(config->url, url, err);
	if (rc)
		return rc;
	if (!kinds[url->kind])
		return err_set(err, ERR_NOT_SUPPORTED, -ENOTSUP,
			       "this version has no %s:// datastores yet",
			       ds_url_kind_name(url->kind));
	return kinds[url->kind]->open(url, config, out, err);
}

int datastore_open(struct loop *loop, const struct ds_config *config, struct datastore **out,
		   struct err *err)
{
	struct ds_url *url = malloc(sizeof(*url));
	struct datastore *ds;
	char thread_name[16];
	int rc;

	if (!url)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	rc = open_kind(config, url, &ds, err);
	if (rc)
		goto free_url;
	snprintf(thread_name, sizeof(thread_name), "ds-%.12s", config->name);
	ds->worker = worker_new(loop, thread_name);
	if (!ds->worker) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto close_kind;
	}
	ds->news = news_new(loop);
	if (!ds->news) {
		rc = err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		goto free_worker;
	}
	ds->url = url;
	strcpy(ds->name, config->name);
	strcpy(ds->text_url, config->url);
	memcpy(ds->host_uuid, config->host_uuid, sizeof(ds->host_uuid));
	ds->lock_wait_ms = DS_LOCK_WAIT_MS;
	ds->reserved_bytes = 0;
	atomic_init(&ds->state, DS_UP);
	atomic_init(&ds->open_disks, 0);
	pthread_mutex_init(&ds->reserve_lock, NULL);
	*out = ds;
	return 0;

free_worker:
	worker_free(ds->worker);
close_kind:
	ds->ops->close(ds);
free_url:
	free(url);
	return rc;
}

void datastore_close(struct datastore *ds)
{
	struct ds_news *news;
	struct ds_url *url;

	if (!ds)
		return;
	CHECK(atomic_load(&ds->open_disks) == 0);
	worker_free(ds->worker);
	pthread_mutex_destroy(&ds->reserve_lock);
	url = ds->url;
	news = ds->news;
	ds->ops->close(ds);
	news_close(news);
	free(url);
}

const char *datastore_name(const struct datastore *ds)
{
	return ds->name;
}

const char *datastore_url(const struct datastore *ds)
{
	return ds->text_url;
}

const char *datastore_kind(const struct datastore *ds)
{
	return ds->ops->kind;
}

const char *datastore_lock_scheme(const struct datastore *ds)
{
	return ds->ops->lock_scheme;
}

struct worker *datastore_worker(struct datastore *ds)
{
	return ds->worker;
}

/* ---- state ---- */

const char *ds_state_name(enum ds_state state)
{
	static const char *const names[] = {
		[DS_UP] = "up", [DS_DEGRADED] = "degraded",
		[DS_RECONNECTING] = "reconnecting", [DS_DOWN] = "down",
	};

	CHECK(state < ARRAY_COUNT(names));
	return names[state];
}

enum ds_state datastore_state(const struct datastore *ds)
{
	return (enum ds_state)atomic_load(&ds->state);
}

void datastore_set_state(struct datastore *ds, enum ds_state state)
{
	enum ds_state before = (enum ds_state)atomic_exchange(&ds->state, (int)state);

	if (before == state)
		return;
	log_warn("datastore", "%s: %s (was %s)", ds->name, ds_state_name(state),
		 ds_state_name(before));
	if (!atomic_exchange(&ds->news->sent, true))
		loop_send(ds->news->loop, &ds->news->task);
}

/* ---- space ---- */

int datastore_space(struct datastore *ds, struct ds_space *out, struct err *err)
{
	struct ds_space space = { 0 };
	int rc = ds->ops->space(ds, &space, err);

	if (rc)
		return rc;
	pthread_mutex_lock(&ds->reserve_lock);
	space.reserved_bytes = ds->reserved_bytes;
	pthread_mutex_unlock(&ds->reserve_lock);
	*out = space;
	return 0;
}

int datastore_probe(struct datastore *ds, struct err *err)
{
	return ds->ops->probe ? ds->ops->probe(ds, err) : 0;
}

/* The free space is asked before the lock is taken: promises are what two callers race for. */
int datastore_reserve(struct datastore *ds, uint64_t bytes, struct err *err)
{
	struct ds_space space;
	uint64_t promised;
	bool fits;
	int rc = datastore_space(ds, &space, err);

	if (rc)
		return rc;
	pthread_mutex_lock(&ds->reserve_lock);
	promised = ds->reserved_bytes;
	fits = bytes <= UINT64_MAX - promised;
	/* Capacity unknown: the store cannot be judged, only the promises be kept. */
	if (fits && space.capacity_bytes)
		fits = promised <= space.free_bytes && bytes <= space.free_bytes - promised;
	if (fits)
		ds->reserved_bytes += bytes;
	pthread_mutex_unlock(&ds->reserve_lock);
	if (fits)
		return 0;
	return err_set(err, ERR_DS_NO_SPACE, -ENOSPC,
		       "the datastore %s has %" PRIu64 " MiB free, of which %" PRIu64
		       " MiB are promised; %" PRIu64 " MiB are needed", ds->name,
		       space.free_bytes >> 20, promised >> 20, bytes >> 20);
}

void datastore_unreserve(struct datastore *ds, uint64_t bytes)
{
	pthread_mutex_lock(&ds->reserve_lock);
	CHECK(bytes <= ds->reserved_bytes);
	ds->reserved_bytes -= bytes;
	pthread_mutex_unlock(&ds->reserve_lock);
}

/* ---- listing ---- */

struct ds_file *ds_file_list_add(struct ds_file_list *list, bool *full)
{
	*full = list->count == DS_LIST_MAX;
	if (*full) {
		list->truncated = true;
		return NULL;
	}
	/* Grows by doubling; the count is its own capacity mark. */
	if ((list->count & (list->count - 1)) == 0) {
		size_t capacity = list->count ? (size_t)list->count * 2 : 1;
		struct ds_file *files = reallocarray(list->files, capacity, sizeof(*files));

		if (!files)
			return NULL;
		list->files = files;
	}
	list->files[list->count] = (struct ds_file){ 0 };
	return &list->files[list->count++];
}

void ds_file_list_release(struct ds_file_list *list)
{
	free(list->files);
	*list = (struct ds_file_list){ 0 };
}

static int by_name(const void *a, const void *b)
{
	const struct ds_file *left = a, *right = b;

	return strcmp(left->name, right->name);
}

int datastore_list(struct datastore *ds, const char *dir, struct ds_file_list *out,
		   struct err *err)
{
	struct ds_file_list list = { 0 };
	int rc = ds_path_check(dir, true, err);

	if (rc)
		return rc;
	rc = ds->ops->list(ds, dir, &list, err);
	if (rc) {
		ds_file_list_release(&list);
		return rc;
	}
	if (list.count)
		qsort(list.files, list.count, sizeof(*list.files), by_name);
	*out = list;
	return 0;
}

/* ---- disks ---- */

static int not_supported(struct datastore *ds, const char *what, struct err *err)
{
	return err_set(err, ERR_NOT_SUPPORTED, -ENOTSUP, "a %s datastore cannot %s",
		       ds->ops->kind, what);
}

int ds_disk_create(struct datastore *ds, const char *path, const struct ds_create_spec *spec,
		   struct err *err)
{
	int rc = ds_path_check(path, false, err);

	CHECK(spec->provision != PROVISION_SAME);
	if (!rc)
		rc = provision_check_size(spec->size_bytes, err);
	if (!rc && spec->identity)
		rc = disk_identity_check(spec->identity, err);
	if (rc)
		return rc;
	if (!ds->ops->disk_create)
		return not_supported(ds, "create disks: its server does", err);
	return ds->ops->disk_create(ds, path, spec, err);
}

int ds_disk_stat(struct datastore *ds, const char *path, struct ds_disk_info *out,
		 struct err *err)
{
	int rc = ds_path_check(path, false, err);

	return rc ? rc : ds->ops->disk_stat(ds, path, out, err);
}

void ds_disk_init(struct ds_disk *disk, const struct ds_disk_ops *ops, struct datastore *ds,
		  const char *path)
{
	CHECK(strlen(path) < sizeof(disk->path));
	disk->ops = ops;
	disk->ds = ds;
	strcpy(disk->path, path);
	disk->has_dev = false;
}

int ds_disk_open(struct datastore *ds, const char *path, unsigned flags,
		 const char *move_journal_id, struct ds_disk **out, struct err *err)
{
	int rc = ds_path_check(path, false, err);

	CHECK(!(flags & DS_OPEN_FOR_MOVE) || move_journal_id);
	if (!rc)
		rc = ds->ops->disk_open(ds, path, flags, move_journal_id, out, err);
	if (rc)
		return rc;
	(*out)->size_bytes = (*out)->info.size_bytes;
	atomic_fetch_add(&ds->open_disks, 1);
	return 0;
}

const struct ds_disk_info *ds_disk_info(const struct ds_disk *disk)
{
	return &disk->info;
}

const char *ds_disk_path(const struct ds_disk *disk)
{
	return disk->path;
}

struct datastore *ds_disk_datastore(const struct ds_disk *disk)
{
	return disk->ds;
}

int ds_disk_make_dev(struct ds_disk *disk, struct loop *io_loop, bool as_target,
		     struct blk_dev **out, struct err *err)
{
	int rc;

	CHECK(!disk->has_dev);
	rc = disk->ops->make_dev(disk, io_loop, as_target, out, err);
	if (!rc)
		disk->has_dev = true;
	return rc;
}

void ds_disk_dev_promote(struct blk_dev *dev)
{
	if (blk_dev_is_iscsi(dev))
		blk_iscsi_promote(dev);
	/* Turning it off always succeeds (blk_file.h). */
	if (blk_dev_is_file(dev) && dev->in_flight == 0)
		CHECK(blk_file_set_submit_thread(dev, false) == 0);
	else if (blk_dev_is_nfs(dev))
		blk_nfs_promote(dev);
}

int ds_disk_mark(struct ds_disk *disk, const struct disk_identity *identity, struct err *err)
{
	int rc;

	if (!disk->ops->mark)
		return -ENOTSUP;
	if (disk->info.read_only)
		return err_set(err, ERR_DISK_READ_ONLY, -EROFS,
			       "'%.160s' is open for reading only and cannot be marked", disk->path);
	rc = disk_identity_check(identity, err);
	return rc ? rc : disk->ops->mark(disk, identity, err);
}

int ds_disk_resize(struct ds_disk *disk, uint64_t size_bytes, struct err *err)
{
	int rc = provision_check_size(size_bytes, err);

	if (rc)
		return rc;
	if (size_bytes < disk->size_bytes)
		return err_set(err, ERR_DISK_SHRINK, -EINVAL,
			       "'%.120s' has %" PRIu64 " bytes, more than the %" PRIu64 " asked for",
			       disk->path, disk->size_bytes, size_bytes);
	if (disk->info.read_only)
		return err_set(err, ERR_DISK_READ_ONLY, -EROFS,
			       "'%.160s' is open for reading only and cannot grow", disk->path);
	if (size_bytes == disk->size_bytes)
		return 0;
	if (!disk->ops->resize)
		return not_supported(disk->ds, "resize disks: its server does", err);
	rc = disk->ops->resize(disk, size_bytes, err);
	if (!rc)
		disk->size_bytes = size_bytes;
	return rc;
}

int ds_disk_allocated(struct ds_disk *disk, uint64_t *out, struct err *err)
{
	return disk->ops->allocated(disk, out, err);
}

void ds_disk_close(struct ds_disk *disk)
{
	if (!disk)
		return;
	atomic_fetch_sub(&disk->ds->open_disks, 1);
	disk->ops->close(disk);
}

int ds_disk_delete(struct datastore *ds, const char *path, const struct disk_identity *expected,
		   struct err *err)
{
	int rc = ds_path_check(path, false, err);

	if (rc)
		return rc;
	if (!ds->ops->disk_delete)
		return not_supported(ds, "delete disks: its server does", err);
	return ds->ops->disk_delete(ds, path, expected, err);
}

int ds_disk_unlock(struct datastore *ds, const char *path, struct err *err)
{
	int rc = ds_path_check(path, false, err);

	return rc ? rc : ds->ops->disk_unlock(ds, path, err);
}
