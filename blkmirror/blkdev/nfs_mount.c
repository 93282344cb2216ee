/* SPDX-License-Identifier: Apache-2.0 */
/* nfs_mount.c - how a session begins: ports, the export's handle, the server's limits. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "blkmirror/base/loop.h"
#include "blkmirror/base/overflow.h"
#include "blkmirror/blkdev/nfs_private.h"

#define MOUNT_PROGRAM 100005
#define NFS_PROGRAM_NUMBER 100003
#define VERSION_3 3

int nfs_version_check(uint32_t version, struct err *err)
{
	if (version == 0 || version == VERSION_3)
		return 0;
	err_set(err, ERR_NFS_VERSION, -ENOTSUP,
		"NFS version %u cannot be used through libnfs %s, which encodes no write of 4 KiB",
		(unsigned)version, BM_LIBNFS_VERSION);
	return -ENOTSUP;
}

/* Give the call to a connection of its own and wait. */
static int run_alone(struct nfs_link *link, struct nfs_call *call, int queued, const char *shown,
		     uint64_t deadline_ns, struct err *err)
{
	int rc = queued ? -EIO : nfs_link_run(link, &call->done, deadline_ns);

	nfs_link_close(link);
	if (rc == -ETIMEDOUT)
		return err_set(err, ERR_NFS_UNREACHABLE, rc, "%s did not answer in time", shown);
	if (rc || call->why[0])
		return err_set(err, ERR_NFS_UNREACHABLE, -EIO, "cannot talk to %s: %s", shown,
			       call->why[0] ? call->why : "the connection was lost");
	return 0;
}

/* ---- the port mapper ---- */

static void take_port(struct nfs_call *call, const void *answer)
{
	*(uint32_t *)call->out = *(const uint32_t *)answer;
}

static int ask_port(const struct nfs_session *session, int program, uint64_t deadline_ns,
		    uint16_t *port, struct err *err)
{
	uint32_t found = 0;
	struct nfs_call call = { .take = take_port, .out = &found };
	char shown[NFS_SHOWN_BYTES];
	struct nfs_link link;
	int rc;

	rc = nfs_link_open(session->place.host, NFS_PORT_MAPPER, deadline_ns, &link, err);
	if (rc)
		return rc;
	nfs_show(session->place.host, NFS_PORT_MAPPER, shown);
	rc = rpc_pmap2_getport_async(link.rpc, program, VERSION_3, IPPROTO_TCP,
				     nfs_call_answered_raw, &call);
	rc = run_alone(&link, &call, rc, shown, deadline_ns, err);
	if (rc)
		return rc;
	if (found == 0)
		return err_set(err, ERR_NFS_VERSION, -EPROTONOSUPPORT,
			       "%s offers no NFS version 3 over TCP", session->place.host);
	if (found > UINT16_MAX)
		return err_set(err, ERR_NFS_PROTOCOL, -EPROTO, "%s tells a port of %u", shown,
			       (unsigned)found);
	*port = (uint16_t)found;
	return 0;
}

/* ---- the mount protocol ---- */

struct mounted {
	mountstat3 status;
	bool has_handle;
	struct nfs_handle root;
};

static void take_mount(struct nfs_call *call, const void *data)
{
	const mountres3 *answer = data;
	struct mounted *mounted = call->out;

	mounted->status = answer->fhs_status;
	if (answer->fhs_status == MNT3_OK) {
		const fhandle3 *handle = &answer->mountres3_u.mountinfo.fhandle;
		nfs_fh3 fh = { .data = { handle->fhandle3_len, handle->fhandle3_val } };

		mounted->has_handle = nfs_handle_take(&mounted->root, &fh);
	}
}

static int mount_refused(const struct nfs_place *place, mountstat3 status, struct err *err)
{
	switch (status) {
	case MNT3ERR_NOENT:
	case MNT3ERR_NOTDIR:
		return err_set(err, ERR_NFS_NO_EXPORT, -ENOENT, "%s exports no '%.150s' to this host",
			       place->host, place->path);
	case MNT3ERR_PERM:
	case MNT3ERR_ACCES:
		return err_set(err, ERR_NFS_DENIED, -EACCES,
			       "%s does not let this host mount '%.150s'", place->host,
			       place->path);
	default:
		return err_set(err, ERR_NFS_PROTOCOL, -EIO, "%s cannot mount '%.150s' (status %d)",
			       place->host, place->path, (int)status);
	}
}

/* Is the path one of the server's exports, or below one? */
struct offered {
	const char *path;
	bool found;
};

static void take_exports(struct nfs_call *call, const void *data)
{
	struct offered *offered = call->out;

	struct exportnode node;

	for (const void *at = *(const exports *)data; at; at = node.ex_next) {
		size_t len;

		memcpy(&node, at, sizeof(node));        /* libnfs aligns it as it comes */
		len = strlen(node.ex_dir);
		while (len && node.ex_dir[len - 1] == '/')
			len--;
		if (strncmp(offered->path, node.ex_dir, len) == 0 &&
		    (offered->path[len] == 0 || offered->path[len] == '/'))
			offered->found = true;
	}
}

/*
 * Servers say "access denied" for what they do not export, too; their list tells the two apart,
 * but for those that list only what the one who asks may have.  Where it cannot be had, what
 * they said stands.
 */
static bool mount_is_offered(const struct nfs_place *place, uint16_t port, uint64_t deadline_ns)
{
	struct offered offered = { .path = place->path };
	struct nfs_call call = { .take = take_exports, .out = &offered };
	struct nfs_link link;
	int rc;

	if (nfs_link_open(place->host, port, deadline_ns, &link, NULL))
		return true;
	rc = rpc_mount3_export_async(link.rpc, nfs_call_answered_raw, &call);
	return run_alone(&link, &call, rc, place->host, deadline_ns, NULL) || offered.found;
}

static int mount_root(struct nfs_session *session, uint16_t port, uint64_t deadline_ns,
		      struct err *err)
{
	struct mounted mounted = { 0 };
	struct nfs_call call = { .take = take_mount, .out = &mounted };
	char shown[NFS_SHOWN_BYTES];
	struct nfs_link link;
	int rc = nfs_link_open(session->place.host, port, deadline_ns, &link, err);

	if (rc)
		return rc;
	nfs_show(session->place.host, port, shown);
	rc = rpc_mount3_mnt_async(link.rpc, nfs_call_answered_raw, session->place.path, &call);
	rc = run_alone(&link, &call, rc, shown, deadline_ns, err);
	if (rc)
		return rc;
	if (mounted.status == MNT3ERR_ACCES &&
	    !mount_is_offered(&session->place, port, deadline_ns))
		mounted.status = MNT3ERR_NOENT;
	if (mounted.status != MNT3_OK)
		return mount_refused(&session->place, mounted.status, err);
	if (!mounted.has_handle)
		return err_set(err, ERR_NFS_PROTOCOL, -EPROTO, "%s gives no usable file handle",
			       shown);
	session->root = mounted.root;
	return 0;
}

/* ---- limits ---- */

static void take_limits(struct nfs_call *call, const void *data)
{
	const FSINFO3resok *answer = &((const FSINFO3res *)data)->FSINFO3res_u.resok;

	*(struct nfs_limits *)call->out = (struct nfs_limits){
		.read_bytes = answer->rtmax,
		.write_bytes = answer->wtmax,
		.file_bytes = answer->maxfilesize,
	};
}

/* Requests begin and end on blocks, and never exceed what libnfs takes. */
static int limits_judge(struct nfs_limits *limits, const char *host, struct err *err)
{
	if (limits->read_bytes < NFS_TRANSFER_BYTES_MIN ||
	    limits->write_bytes < NFS_TRANSFER_BYTES_MIN)
		return err_set(err, ERR_NFS_PROTOCOL, -EPROTO,
			       "%s takes only %u bytes a read and %u a write", host,
			       (unsigned)limits->read_bytes, (unsigned)limits->write_bytes);
	limits->read_bytes = (uint32_t)round_down(MIN(limits->read_bytes, NFS_TRANSFER_BYTES_MAX),
						  NFS_TRANSFER_BYTES_MIN);
	limits->write_bytes = (uint32_t)round_down(
		MIN(limits->write_bytes, NFS_TRANSFER_BYTES_MAX), NFS_TRANSFER_BYTES_MIN);
	return 0;
}

static int ask_limits(struct nfs_session *session, struct err *err)
{
	struct nfs_call call = { .take = take_limits, .out = &session->limits };
	FSINFO3args args = { .fsroot = nfs_fh3_of(&session->root) };
	struct rpc_context *rpc;
	int rc = nfs_session_link(session, &rpc, err);

	if (rc)
		return rc;
	rc = nfs_session_run(session, &call,
			     rpc_nfs3_fsinfo_async(rpc, nfs_call_answered, &args, &call));
	/* What libnfs makes of an RPC that was denied: the credentials or our port. */
	if (rc && strstr(call.why, "not accepted"))
		return err_set(err, ERR_NFS_DENIED, -EACCES,
			       "%s takes no NFS calls from this host: %s", session->place.host,
			       call.why);
	if (rc == -ETIMEDOUT)
		return err_set(err, ERR_NFS_UNREACHABLE, rc, "%s did not answer in time",
			       session->place.host);
	if (rc)
		return err_set(err, ERR_NFS_UNREACHABLE, rc, "%s does not answer as NFS: %s",
			       session->place.host, call.why[0] ? call.why : err_strerror(rc));
	return limits_judge(&session->limits, session->place.host, err);
}

int nfs_mount_export(struct nfs_session *session, struct err *err)
{
	uint64_t deadline_ns = dial_clock_ns() + session->timeout_ns;
	uint16_t mount_port = session->place.mount_port;
	int rc = 0;

	session->nfs_port = session->place.nfs_port;
	if (!session->nfs_port)
		rc = ask_port(session, NFS_PROGRAM_NUMBER, deadline_ns, &session->nfs_port, err);
	if (!rc && !mount_port)
		rc = ask_port(session, MOUNT_PROGRAM, deadline_ns, &mount_port, err);
	if (!rc)
		rc = mount_root(session, mount_port, deadline_ns, err);
	return rc ? rc : ask_limits(session, err);
}
