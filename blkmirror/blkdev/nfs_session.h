/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nfs_session.h - an NFS export, version 3, as a worker uses it: mount, names, small files.
 *
 * libnfs encodes and decodes; the sockets are ours (dial.h), so that each connects by a deadline
 * and drops what is queued however it ends (R3), and the library never connects or repeats
 * by itself.  A call that its deadline ends takes the connection with it: the next call
 * makes a new one.  A call whose answer was lost may have been carried out (-EIO, -ETIMEDOUT):
 * nothing is repeated here.
 *
 * Version 4 is refused: see nfs_version_check().
 *
 * Errors: -errno as the server's status says; -ESTALE for a handle whose file is gone, -EAGAIN
 * for one that is not to be had just now.  nfs_fail() puts them into words.
 * Threading: one session is used by one thread at a time; all calls block, but close.
 */
#ifndef BM_NFS_SESSION_H
#define BM_NFS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blkmirror/base/err.h"

#define NFS_HANDLE_BYTES_MAX 64u
#define NFS_HOST_BYTES 256
#define NFS_PATH_BYTES 1024

/* Where an export is. */
struct nfs_place {
	char host[NFS_HOST_BYTES];
	char path[NFS_PATH_BYTES];
	uint16_t nfs_port;              /* 0: the port mapper is asked */
	uint16_t mount_port;            /* 0: the port mapper is asked */
};

struct nfs_handle {
	uint32_t len;
	uint8_t bytes[NFS_HANDLE_BYTES_MAX];
};

struct nfs_limits {
	uint32_t read_bytes;            /* the most for one request; at least 4 KiB */
	uint32_t write_bytes;
	uint64_t file_bytes;
};

enum nfs_kind { NFS_FILE, NFS_DIR, NFS_LINK, NFS_OTHER };

struct nfs_attributes {
	enum nfs_kind kind;
	uint64_t size_bytes, used_bytes;
	uint64_t file_id;
	int64_t modified_s;             /* seconds since 1970, by the server's clock */
	bool known;                     /* false: the server gave none; kind is NFS_OTHER */
};

struct nfs_space {
	uint64_t total_bytes, free_bytes;       /* free: for us */
};

struct nfs_session;

/* 0 (not said) and 3; else -ENOTSUP with ERR_NFS_VERSION, which names the library's version. */
MUST_CHECK int nfs_version_check(uint32_t version, struct err *err);

/*
 * Mount it.  timeout_ns bounds this call, and each later one.  *out (gives), or -errno:
 * ERR_NFS_UNREACHABLE, ERR_NFS_NO_EXPORT, ERR_NFS_DENIED, ERR_NFS_VERSION (the server has no
 * version 3), ERR_NFS_PROTOCOL.
 */
MUST_CHECK int nfs_session_open(const struct nfs_place *place, uint64_t timeout_ns,
				struct nfs_session **out, struct err *err);
/* NULL is harmless. */
void nfs_session_close(struct nfs_session *session);

const struct nfs_place *nfs_session_place(const struct nfs_session *session);
/* With the port that the port mapper told, where it was asked. */
uint16_t nfs_session_port(const struct nfs_session *session);
const struct nfs_handle *nfs_session_root(const struct nfs_session *session);
const struct nfs_limits *nfs_session_limits(const struct nfs_session *session);

/* False after a call that its connection did not outlive. */
bool nfs_session_is_connected(const struct nfs_session *session);

/* Fill *err for what happened to `name`: ERR_DISK_UNKNOWN, ERR_DS_PERMISSION ...  Returns rc. */
int nfs_fail(struct err *err, int rc, const char *what, const char *name);

/* ---- names; each is one plain part ---- */

MUST_CHECK int nfs_session_lookup(struct nfs_session *session, const struct nfs_handle *dir,
				  const char *name, struct nfs_handle *out);
/*
 * R-F4: of any number of callers exactly one makes the file; the others get -EEXIST.  The
 * same caller with the same cookie gets his own file again, so that he may repeat a call whose
 * answer was lost.  The file is empty, and only its owner may use it.
 */
MUST_CHECK int nfs_session_create_exclusive(struct nfs_session *session,
					    const struct nfs_handle *dir,
					    const char *name, uint64_t cookie,
					    struct nfs_handle *out);
MUST_CHECK int nfs_session_remove(struct nfs_session *session, const struct nfs_handle *dir,
				  const char *name);
MUST_CHECK int nfs_session_make_dir(struct nfs_session *session, const struct nfs_handle *dir,
				    const char *name);
MUST_CHECK int nfs_session_remove_dir(struct nfs_session *session, const struct nfs_handle *dir,
				      const char *name);
/* Replaces `to` where it exists: the protocol has nothing else. */
MUST_CHECK int nfs_session_rename(struct nfs_session *session, const struct nfs_handle *from_dir,
				  const char *from, const struct nfs_handle *to_dir,
				  const char *to);

/* Another name for a file, where there is none yet: -EEXIST. */
MUST_CHECK int nfs_session_link_name(struct nfs_session *session, const struct nfs_handle *file,
				     const struct nfs_handle *dir, const char *name);

/*
 * Calls each() for every entry but '.' and '..', until it returns non-zero, which is then
 * returned.  each() runs inside a call of the session and may not use it.  The folder may change meanwhile.  A name may be anything without a NUL.
 */
MUST_CHECK int nfs_session_list(struct nfs_session *session, const struct nfs_handle *dir,
				int (*each)(const char *name,
					    const struct nfs_attributes *attributes,
				void *user),
				void *user);

/* ---- files ---- */

MUST_CHECK int nfs_session_attributes(struct nfs_session *session, const struct nfs_handle *file,
				      struct nfs_attributes *out);
/* Durable.  What is added reads as zeroes. */
MUST_CHECK int nfs_session_set_size(struct nfs_session *session, const struct nfs_handle *file,
				    uint64_t size_bytes);
/* The number of bytes read, fewer only at the end of the file. */
MUST_CHECK int64_t nfs_session_read(struct nfs_session *session, const struct nfs_handle *file,
				    uint64_t offset_bytes, void *bytes, uint32_t len_bytes);
/* All of it, durable when it returns.  At most limits.write_bytes. */
MUST_CHECK int nfs_session_write_stable(struct nfs_session *session, const struct nfs_handle *file,
					uint64_t offset_bytes, const void *bytes,
					uint32_t len_bytes);
MUST_CHECK int nfs_session_space(struct nfs_session *session, struct nfs_space *out);

#endif
