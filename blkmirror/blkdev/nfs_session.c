/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/nfs_private.h"

#define MODE_FILE 0600u
#define MODE_DIR 0700u
#define LIST_BYTES (64u << 10)

/* ---- the session ---- */

int nfs_session_open(const struct nfs_place *place, uint64_t timeout_ns, struct nfs_session **out,
		     struct err *err)
{
	struct nfs_session *session = calloc(1, sizeof(*session));
	int rc;

	if (!session)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	session->place = *place;
	session->timeout_ns = timeout_ns;
	rc = nfs_mount_export(session, err);
	if (rc) {
		nfs_session_close(session);
		return rc;
	}
	*out = session;
	return 0;
}

void nfs_session_close(struct nfs_session *session)
{
	if (!session)
		return;
	nfs_link_close(&session->link);
	free(session);
}

const struct nfs_place *nfs_session_place(const struct nfs_session *session)
{
	return &session->place;
}

uint16_t nfs_session_port(const struct nfs_session *session)
{
	return session->nfs_port;
}

const struct nfs_handle *nfs_session_root(const struct nfs_session *session)
{
	return &session->root;
}

const struct nfs_limits *nfs_session_limits(const struct nfs_session *session)
{
	return &session->limits;
}

bool nfs_session_is_connected(const struct nfs_session *session)
{
	return session->link.rpc && !session->link.dead;
}

/* Between calls nothing comes: what can be read is the connection's end. */
static bool link_has_ended(const struct nfs_link *link)
{
	struct pollfd poller = { .fd = link->fd, .events = POLLIN };

	return link->dead || poll(&poller, 1, 0) != 0;
}

int nfs_session_link(struct nfs_session *session, struct rpc_context **out, struct err *err)
{
	if (session->link.rpc && link_has_ended(&session->link))
		nfs_link_close(&session->link);
	if (!session->link.rpc) {
		int rc = nfs_link_open(session->place.host, session->nfs_port,
				       dial_clock_ns() + session->timeout_ns, &session->link, err);

		if (rc)
			return rc;
	}
	*out = session->link.rpc;
	return 0;
}

int nfs_session_run(struct nfs_session *session, struct nfs_call *call, int queued)
{
	int rc = queued ? -EIO
			: nfs_link_run(&session->link, &call->done,
				       dial_clock_ns() + session->timeout_ns);

	if (rc) {
		/* Tells the call, too: a late answer finds nobody who is gone. */
		nfs_link_close(&session->link);
		return rc;
	}
	if (session->link.dead)
		nfs_link_close(&session->link);
	return call->rc;
}

int nfs_fail(struct err *err, int rc, const char *what, const char *name)
{
	enum err_id id = ERR_DS_IO;

	switch (rc) {
	case -ENOENT:
	case -ESTALE:
		id = ERR_DISK_UNKNOWN;
		break;
	case -EPERM:
	case -EACCES:
		id = ERR_DS_PERMISSION;
		break;
	case -EROFS:
		id = ERR_DS_READ_ONLY;
		break;
	case -ENOSPC:
	case -EDQUOT:
		id = ERR_DS_NO_SPACE;
		break;
	case -EFBIG:
		id = ERR_DISK_BAD_SIZE;
		break;
	case -EEXIST:
		id = ERR_DISK_EXISTS;
		break;
	case -EXDEV:
	case -ELOOP:
		id = ERR_DS_PATH_ESCAPE;
		break;
	case -ENOTDIR:
		id = ERR_DISK_UNKNOWN;
		break;
	case -ENOMEM:
		id = ERR_NO_MEMORY;
		break;
	case -ETIMEDOUT:
	case -ECONNREFUSED:
	case -ECONNRESET:
	case -EHOSTUNREACH:
	case -ENETUNREACH:
		id = ERR_NFS_UNREACHABLE;
		break;
	default:
		break;
	}
	return err_set(err, id, rc, "cannot %s '%.150s': %s", what, name, err_strerror(rc));
}

/* ---- names ---- */

static diropargs3 entry_of(const struct nfs_handle *dir, const char *name)
{
	return (diropargs3){ .dir = nfs_fh3_of(dir), .name = (char *)(uintptr_t)name };
}

static void take_lookup(struct nfs_call *call, const void *data)
{
	const LOOKUP3resok *answer = &((const LOOKUP3res *)data)->LOOKUP3res_u.resok;

	if (!nfs_handle_take(call->out, &answer->object))
		call->rc = -EPROTO;
}

int nfs_session_lookup(struct nfs_session *session, const struct nfs_handle *dir, const char *name,
		       struct nfs_handle *out)
{
	struct nfs_call call = { .take = take_lookup, .out = out };
	LOOKUP3args args = { .what = entry_of(dir, name) };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	return nfs_session_run(session, &call,
			       rpc_nfs3_lookup_async(rpc, nfs_call_answered, &args, &call));
}

static int set_attributes(struct nfs_session *session, const struct nfs_handle *file,
			  const sattr3 *attributes)
{
	struct nfs_call call = { 0 };
	SETATTR3args args = { .object = nfs_fh3_of(file), .new_attributes = *attributes };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	return nfs_session_run(session, &call,
			       rpc_nfs3_setattr_async(rpc, nfs_call_answered, &args, &call));
}

int nfs_session_create_exclusive(struct nfs_session *session, const struct nfs_handle *dir,
				 const char *name, uint64_t cookie, struct nfs_handle *out)
{
	/* The server keeps the cookie in the file's times until its attributes are set. */
	sattr3 after = { .mode = { 1, { MODE_FILE } }, .atime = { SET_TO_SERVER_TIME, { { 0 } } },
			 .mtime = { SET_TO_SERVER_TIME, { { 0 } } } };
	CREATE3args args = { .where = entry_of(dir, name), .how = { .mode = EXCLUSIVE } };
	struct nfs_call call = { 0 };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	_Static_assert(sizeof(args.how.createhow3_u.verf) == sizeof(cookie), "a cookie fits");
	memcpy(args.how.createhow3_u.verf, &cookie, sizeof(cookie));
	rc = nfs_session_run(session, &call,
			     rpc_nfs3_create_async(rpc, nfs_call_answered, &args, &call));
	/* The handle in the answer is optional; the name is ours now, so it can be looked up. */
	rc = rc ? rc : nfs_session_lookup(session, dir, name, out);
	return rc ? rc : set_attributes(session, out, &after);
}

int nfs_session_remove(struct nfs_session *session, const struct nfs_handle *dir, const char *name)
{
	struct nfs_call call = { 0 };
	REMOVE3args args = { .object = entry_of(dir, name) };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	return nfs_session_run(session, &call,
			       rpc_nfs3_remove_async(rpc, nfs_call_answered, &args, &call));
}

int nfs_session_make_dir(struct nfs_session *session, const struct nfs_handle *dir,
			 const char *name)
{
	struct nfs_call call = { 0 };
	MKDIR3args args = { .where = entry_of(dir, name),
			    .attributes = { .mode = { 1, { MODE_DIR } } } };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	return nfs_session_run(session, &call,
			       rpc_nfs3_mkdir_async(rpc, nfs_call_answered, &args, &call));
}

int nfs_session_remove_dir(struct nfs_session *session, const struct nfs_handle *dir,
			   const char *name)
{
	struct nfs_call call = { 0 };
	RMDIR3args args = { .object = entry_of(dir, name) };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	return nfs_session_run(session, &call,
			       rpc_nfs3_rmdir_async(rpc, nfs_call_answered, &args, &call));
}

int nfs_session_rename(struct nfs_session *session, const struct nfs_handle *from_dir,
		       const char *from,
		       const struct nfs_handle *to_dir, const char *to)
{
	struct nfs_call call = { 0 };
	RENAME3args args = { .from = entry_of(from_dir, from), .to = entry_of(to_dir, to) };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	return nfs_session_run(session, &call,
			       rpc_nfs3_rename_async(rpc, nfs_call_answered, &args, &call));
}

int nfs_session_link_name(struct nfs_session *session, const struct nfs_handle *file,
			  const struct nfs_handle *dir, const char *name)
{
	struct nfs_call call = { 0 };
	LINK3args args = { .file = nfs_fh3_of(file), .link = entry_of(dir, name) };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	return nfs_session_run(session, &call,
			       rpc_nfs3_link_async(rpc, nfs_call_answered, &args, &call));
}

/* ---- folders ---- */

static void attributes_take(struct nfs_attributes *out, const fattr3 *from)
{
	*out = (struct nfs_attributes){
		.kind = from->type == NF3REG   ? NFS_FILE
			: from->type == NF3DIR ? NFS_DIR
			: from->type == NF3LNK ? NFS_LINK
					       : NFS_OTHER,
		.size_bytes = from->size,
		.used_bytes = from->used,
		.file_id = from->fileid,
		.modified_s = from->mtime.seconds,
		.known = true,
	};
}

struct listing {
	int (*each)(const char *name, const struct nfs_attributes *attributes, void *user);
	void *user;
	cookie3 cookie;
	cookieverf3 cookie_verifier;
	bool is_over;
	int stopped;                    /* what each() said */
};

/* The server's entry, without attributes where it gives none: what that is, is not known. */
static void listing_take_entry(struct listing *listing, const entryplus3 *entry)
{
	struct nfs_attributes attributes = { .kind = NFS_OTHER, .file_id = entry->fileid };

	listing->cookie = entry->cookie;
	if (listing->stopped || strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
		return;
	if (entry->name_attributes.attributes_follow)
		attributes_take(&attributes, &entry->name_attributes.post_op_attr_u.attributes);
	listing->stopped = listing->each(entry->name, &attributes, listing->user);
}

static void take_list(struct nfs_call *call, const void *data)
{
	const READDIRPLUS3resok *answer = &((const READDIRPLUS3res *)data)->READDIRPLUS3res_u.resok;
	struct listing *listing = call->out;
	cookie3 before = listing->cookie;
	entryplus3 entry;
	bool any = false;

	for (const void *at = answer->reply.entries; at; at = entry.nextentry) {
		memcpy(&entry, at, sizeof(entry));      /* libnfs aligns it as it comes */
		listing_take_entry(listing, &entry);
		any = true;
	}
	memcpy(listing->cookie_verifier, answer->cookieverf, sizeof(listing->cookie_verifier));
	listing->is_over = answer->reply.eof;
	/* A server that gives nothing, or the same again, would keep us for ever. */
	if (!listing->is_over && (!any || listing->cookie == before))
		call->rc = -EPROTO;
}

int nfs_session_list(struct nfs_session *session, const struct nfs_handle *dir,
		     int (*each)(const char *name, const struct nfs_attributes *attributes,
				 void *user),
		     void *user)
{
	struct listing listing = { .each = each, .user = user };
	int rc = 0;

	while (!rc && !listing.is_over && !listing.stopped) {
		struct nfs_call call = { .take = take_list, .out = &listing };
		READDIRPLUS3args args = { .dir = nfs_fh3_of(dir), .cookie = listing.cookie,
					  .dircount = LIST_BYTES, .maxcount = LIST_BYTES };
		struct rpc_context *rpc;

		memcpy(args.cookieverf, listing.cookie_verifier, sizeof(args.cookieverf));
		rc = nfs_session_link(session, &rpc, NULL);
		rc = rc ? rc
			: nfs_session_run(session, &call,
					  rpc_nfs3_readdirplus_async(rpc, nfs_call_answered, &args,
								     &call));
	}
	return rc ? rc : listing.stopped;
}

/* ---- files ---- */

static void take_attributes(struct nfs_call *call, const void *data)
{
	attributes_take(call->out,
			&((const GETATTR3res *)data)->GETATTR3res_u.resok.obj_attributes);
}

int nfs_session_attributes(struct nfs_session *session, const struct nfs_handle *file,
			   struct nfs_attributes *out)
{
	struct nfs_call call = { .take = take_attributes, .out = out };
	GETATTR3args args = { .object = nfs_fh3_of(file) };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	return nfs_session_run(session, &call,
			       rpc_nfs3_getattr_async(rpc, nfs_call_answered, &args, &call));
}

int nfs_session_set_size(struct nfs_session *session, const struct nfs_handle *file,
			 uint64_t size_bytes)
{
	const sattr3 attributes = { .size = { 1, { size_bytes } } };

	return set_attributes(session, file, &attributes);
}

struct reading {
	uint8_t *bytes;
	uint32_t capacity_bytes, len_bytes;
	bool is_end;
};

static void take_read(struct nfs_call *call, const void *data)
{
	const READ3resok *answer = &((const READ3res *)data)->READ3res_u.resok;
	struct reading *reading = call->out;
	uint32_t len_bytes = answer->data.data_len;

	if (len_bytes > reading->capacity_bytes || (len_bytes == 0 && !answer->eof)) {
		call->rc = -EPROTO;
		return;
	}
	if (len_bytes)
		memcpy(reading->bytes, answer->data.data_val, len_bytes);
	reading->len_bytes = len_bytes;
	reading->is_end = answer->eof;
}

int64_t nfs_session_read(struct nfs_session *session, const struct nfs_handle *file,
			 uint64_t offset_bytes,
			 void *bytes, uint32_t len_bytes)
{
	uint32_t done_bytes = 0;
	bool is_end = false;

	while (done_bytes < len_bytes && !is_end) {
		uint32_t part_bytes = MIN(len_bytes - done_bytes, session->limits.read_bytes);
		struct reading reading = { (uint8_t *)bytes + done_bytes, part_bytes, 0, false };
		struct nfs_call call = { .take = take_read, .out = &reading };
		READ3args args = { nfs_fh3_of(file), offset_bytes + done_bytes, part_bytes };
		struct rpc_context *rpc;
		int rc = nfs_session_link(session, &rpc, NULL);

		rc = rc ? rc
			: nfs_session_run(session, &call,
					  rpc_nfs3_read_async(rpc, nfs_call_answered, &args,
							      &call));
		if (rc)
			return rc;
		done_bytes += reading.len_bytes;
		is_end = reading.is_end;
	}
	return done_bytes;
}

static void take_write(struct nfs_call *call, const void *data)
{
	const WRITE3resok *answer = &((const WRITE3res *)data)->WRITE3res_u.resok;

	*(uint32_t *)call->out = answer->count;
	if (answer->committed != FILE_SYNC)
		call->rc = -EPROTO;     /* it must not promise less than was asked */
}

int nfs_session_write_stable(struct nfs_session *session, const struct nfs_handle *file,
			     uint64_t offset_bytes, const void *bytes, uint32_t len_bytes)
{
	uint32_t done_bytes = 0;

	CHECK(len_bytes <= session->limits.write_bytes);
	while (done_bytes < len_bytes) {
		uint32_t part_bytes = len_bytes - done_bytes, count = 0;
		struct nfs_call call = { .take = take_write, .out = &count };
		WRITE3args args = { .file = nfs_fh3_of(file), .offset = offset_bytes + done_bytes,
				    .count = part_bytes, .stable = FILE_SYNC };
		struct rpc_context *rpc;
		int rc = nfs_session_link(session, &rpc, NULL);

		args.data.data_len = part_bytes;
		args.data.data_val = (char *)(uintptr_t)bytes + done_bytes;
		rc = rc ? rc
			: nfs_session_run(session, &call,
					  rpc_nfs3_write_async(rpc, nfs_call_answered, &args,
							       &call));
		if (rc)
			return rc;
		if (count == 0 || count > part_bytes)
			return -EPROTO;
		done_bytes += count;
	}
	return 0;
}

static void take_space(struct nfs_call *call, const void *data)
{
	const FSSTAT3resok *answer = &((const FSSTAT3res *)data)->FSSTAT3res_u.resok;

	*(struct nfs_space *)call->out = (struct nfs_space){ answer->tbytes, answer->abytes };
}

int nfs_session_space(struct nfs_session *session, struct nfs_space *out)
{
	struct nfs_call call = { .take = take_space, .out = out };
	FSSTAT3args args = { .fsroot = nfs_fh3_of(&session->root) };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, NULL);

	if (rc)
		return rc;
	return nfs_session_run(session, &call,
			       rpc_nfs3_fsstat_async(rpc, nfs_call_answered, &args, &call));
}
