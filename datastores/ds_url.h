/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_url.h - a datastore's URL, judged once and taken apart.
 *
 *   dir:///path                                        vmfs:///device-or-file[?extent=/other]...
 *   vmfs+iscsi://host[:port]/IQN/LUN                   iscsi://host[:port]/IQN
 *   nfs://host/export[?version=3|4&nfsport=N&mountport=N&nconnect=N]
 *   nbd://host[:port]/export                           nbd+unix:///export?socket=PATH
 *
 * A URL may come from anybody who reaches the API.  It is bounded (DS_URL_BYTES), its
 * %XX are decoded once, decoded text holds no control characters and is UTF-8.  A URL with
 * a user in it, or with a query key that names a secret, is refused without printing it.
 *
 * Pure; any thread.
 */
#ifndef BM_DS_URL_H
#define BM_DS_URL_H

#include <stdint.h>

#include "blkmirror/base/err.h"
#include "datastores/datastore.h"

enum ds_url_kind {
	DS_URL_DIR,
	DS_URL_VMFS,
	DS_URL_VMFS_ISCSI,
	DS_URL_NFS,
	DS_URL_ISCSI,
	DS_URL_NBD,
	DS_URL_NBD_UNIX,
	DS_URL_KIND_COUNT,
};

#define DS_URL_EXTENT_MAX 32
#define DS_URL_HOST_BYTES 254
#define DS_URL_IQN_BYTES 224

/* Strings point into `text`: the struct must stay in place. */
struct ds_url {
	enum ds_url_kind kind;
	char host[DS_URL_HOST_BYTES];   /* "" where the kind has none; IPv6 without brackets */
	uint16_t port;                  /* 0: the kind's default */
	const char *path;               /* dir, vmfs, nfs: absolute; nbd: the export's name; else "" */
	char iqn[DS_URL_IQN_BYTES];     /* iscsi, vmfs+iscsi */
	uint32_t lun;                   /* vmfs+iscsi */
	const char *socket;             /* nbd+unix; else NULL */
	const char *extents[DS_URL_EXTENT_MAX]; /* vmfs: further extents, absolute */
	uint32_t extent_count;
	uint32_t nfs_version;           /* 0: not said */
	uint16_t nfs_port, mount_port;  /* 0: not said */
	uint32_t nconnect;              /* 0: not said; at most 16 */
	char text[DS_URL_BYTES];        /* private */
	size_t text_used;
};

/* 0, or -EINVAL with ERR_DS_BAD_URL or ERR_DS_SECRET_IN_URL; *out is undefined then. */
MUST_CHECK int ds_url_parse(const char *text, struct ds_url *out, struct err *err);

/* "dir", "vmfs+iscsi" ... */
const char *ds_url_kind_name(enum ds_url_kind kind);

#endif
