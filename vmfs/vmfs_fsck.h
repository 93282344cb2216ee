/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmfs_fsck.h - does a VMFS3 or VMFS5 volume agree with itself?  And make a VMFS5 volume do so.
 *
 * Passes: clusters of the resource files; descriptors and what they point at; the tree from
 * the root; bitmaps against what is in use; link counts; heartbeats and locks.
 *
 * Memory: a bit or two for each item of each resource file and 16 bytes for each descriptor,
 * bounded by the volume's real size.  Threading and errors: as vmfs.h.
 */
#ifndef BM_VMFS_FSCK_H
#define BM_VMFS_FSCK_H

#include "vmfs/vmfs.h"

enum vmfs_finding_kind {
	VMFS_FOUND_CLUSTER,             /* a cluster header contradicts itself */
	VMFS_FOUND_DESCRIPTOR,          /* a descriptor cannot be read as one */
	VMFS_FOUND_POINTER,             /* a pointer that names nothing */
	VMFS_FOUND_SHARED,              /* in two files, or twice in one */
	VMFS_FOUND_NOT_ALLOCATED,       /* in use, and free in the bitmap */
	VMFS_FOUND_LOST,                /* allocated, and nobody's */
	VMFS_FOUND_ORPHAN,              /* a descriptor without a name */
	VMFS_FOUND_DANGLING,            /* a name without a descriptor of its kind */
	VMFS_FOUND_ENTRY,               /* a directory record that is none, void or double */
	VMFS_FOUND_DOTS,                /* "." or ".." wrong */
	VMFS_FOUND_LINKS,               /* link count */
	VMFS_FOUND_COUNTS,              /* block counts of a descriptor */
	VMFS_FOUND_HEARTBEAT,           /* a slot that contradicts itself */
	VMFS_FOUND_LOCK,                /* a lock that is held by nobody any more */
	VMFS_FOUND_KINDS,
};

struct vmfs_finding {
	enum vmfs_finding_kind kind;
	char text[200];                 /* one sentence */
};

struct vmfs_fsck_result {
	uint64_t found[VMFS_FOUND_KINDS];
	uint64_t total;                 /* of all kinds */
	uint64_t files, folders, links; /* that are in order */
	uint32_t hosts;                 /* heartbeats in use: what they are about to write may differ */
};

const char *vmfs_finding_name(enum vmfs_finding_kind kind);

/*
 * Call report() (may be NULL) for each finding.  0 when the check could be carried out,
 * whatever it found; -ENOTSUP for VMFS6.
 */
MUST_CHECK int vmfs_fsck(struct vmfs *fs,
			 void (*report)(const struct vmfs_finding *finding, void *user), void *user,
			 struct vmfs_fsck_result *result_out, struct err *err);

struct vmfs_repair_calls {              /* each may be NULL */
	void (*found)(const struct vmfs_finding *finding, void *user);  /* before */
	void (*mended)(const char *text, void *user);                   /* each change */
	void (*left)(const struct vmfs_finding *finding, void *user);   /* after */
};

struct vmfs_repair_result {
	struct vmfs_fsck_result before, after;
	uint64_t mended;
};

/*
 * Check, repair, check again.  The volume is open for writing with options.repair; nothing else
 * of it is in use (no nodes but the caller's root).
 *
 * No data are given up while there is room: two files that share a block get one each, what has
 * lost its name is found again in "lost+found".  What goes: descriptors that are none, pointers
 * and names of nothing.  -EUCLEAN: a resource file itself is damaged; nothing was changed.
 * A repair that is cut short can be run again.
 */
MUST_CHECK int vmfs_repair(struct vmfs *fs, const struct vmfs_repair_calls *calls, void *user,
			   struct vmfs_repair_result *out, struct err *err);

#endif
