/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_requests.h - every body the API takes, as a struct and a judging function.
 *
 * Judging is apart from acting: these functions look only at the body, so a fuzzer can
 * feed them anything, and a refused request has changed nothing.  Strings borrow from the
 * body.  Defaults are set by the judging function.
 *
 * Each returns 0, or -EINVAL with *err (see json_edge.h; and for disk names
 * ERR_USAGE, ERR_BAD_NAME, ERR_DS_PATH_ESCAPE).
 */
#ifndef BM_API_REQUESTS_H
#define BM_API_REQUESTS_H

#include "datastores/datastore.h"
#include "tools/blkmirrord/vms.h"
#include "tools/common/json_edge.h"
#include "vmotion/relocate.h"

/* "DS:path", judged and split. */
struct disk_name {
	char datastore[DS_NAME_BYTES];
	char path[DS_PATH_BYTES];
};

struct datastore_add_request {
	const char *name, *url, *secret_file;
};

struct datastore_set_request {
	uint64_t bandwidth, budget, lease_ns;
	bool bandwidth_given, budget_given, lease_given;
};

struct disk_create_request {
	const char *text;
	struct disk_name disk;
	uint64_t size_bytes;
	unsigned provision_choice;
	enum provision provision;
};

/* import: file -> disk; export: disk -> file */
struct disk_copy_request {
	const char *text, *file;
	struct disk_name disk;
	unsigned provision_choice;
	enum provision provision;
};

struct disk_attach_request {
	const char *text, *socket_path, *id;
	struct disk_name disk;
	unsigned export_choice;
	enum disk_export export_kind;
	bool read_only;
};

struct disk_detach_request {
	const char *id;
	bool force;
};

struct disk_resize_request {
	const char *text;
	struct disk_name disk;
	uint64_t size_bytes;
};

/* delete and fork */
struct disk_only_request {
	const char *text;
	struct disk_name disk;
};

struct disk_unlock_request {
	const char *text;
	struct disk_name disk;
	bool force;
};

struct disk_verify_request {
	const char *text, *other_text;
	struct disk_name disk, other;
};

struct disk_relocate_request {
	const char *text, *to;
	char id[DISK_ID_BYTES];         /* an attached disk's id, or "" and disk */
	struct disk_name disk;
	struct disk_name target;        /* path "": as the source's */
	unsigned provision_choice, mode_choice, priority_choice;
	enum provision provision;
	enum mirror_mode mode;
	uint64_t bandwidth, max_stun_ns, target_timeout_ns, latency_budget_ns, weight;
	bool keep_source, verify, hold, check;
};

struct host_add_request {
	const char *name, *addresses, *fingerprint;
	bool plain_data;
};

struct task_set_request {
	uint64_t bandwidth, weight, max_stun_ns, latency_budget_ns;
	unsigned priority_choice, mode_choice;
	bool bandwidth_given, weight_given, max_stun_given, latency_budget_given;
	bool priority_given, mode_given;
};

struct recover_request {
	unsigned keep_choice;           /* 0 source, 1 target */
	bool keep_given, run_here, other_side_is_dead;
};

struct vm_register_request {
	const char *text;
	struct disk_name vmx;
};

struct vm_create_request {
	const char *name, *datastore, *disks, *network, *kernel, *initrd, *append;
	uint64_t memory_bytes, cpu_count;
	unsigned controller_choice;
	uint64_t disk_bytes[VMS_CREATE_DISKS];
	uint32_t disk_count;
};

struct vm_relocate_request {
	const char *to, *config_to;     /* datastores; NULL: stay */
	const char *disks;              /* "scsi0:0=DS,scsi1:0=DS:path", or NULL */
	struct disk_relocate_request options;   /* without the disk, and where to */
};

struct vm_stop_request {
	bool force;
	uint64_t timeout_ns;
};

int judge_datastore_add(const json_t *body, struct datastore_add_request *out, struct err *err);
int judge_datastore_set(const json_t *body, struct datastore_set_request *out, struct err *err);
int judge_disk_create(const json_t *body, struct disk_create_request *out, struct err *err);
int judge_disk_import(const json_t *body, struct disk_copy_request *out, struct err *err);
int judge_disk_export(const json_t *body, struct disk_copy_request *out, struct err *err);
int judge_disk_attach(const json_t *body, struct disk_attach_request *out, struct err *err);
int judge_disk_detach(const json_t *body, struct disk_detach_request *out, struct err *err);
int judge_disk_resize(const json_t *body, struct disk_resize_request *out, struct err *err);
int judge_disk_delete(const json_t *body, struct disk_only_request *out, struct err *err);
int judge_disk_fork(const json_t *body, struct disk_only_request *out, struct err *err);
int judge_disk_unlock(const json_t *body, struct disk_unlock_request *out, struct err *err);
int judge_disk_verify(const json_t *body, struct disk_verify_request *out, struct err *err);
int judge_disk_relocate(const json_t *body, struct disk_relocate_request *out, struct err *err);
int judge_host_add(const json_t *body, struct host_add_request *out, struct err *err);
int judge_task_set(const json_t *body, struct task_set_request *out, struct err *err);
int judge_vm_register(const json_t *body, struct vm_register_request *out, struct err *err);
int judge_vm_create(const json_t *body, struct vm_create_request *out, struct err *err);
int judge_vm_relocate(const json_t *body, struct vm_relocate_request *out, struct err *err);
int judge_vm_stop(const json_t *body, struct vm_stop_request *out, struct err *err);
int judge_recover(const json_t *body, struct recover_request *out, struct err *err);
/* A verb that takes no field at all. */
int judge_nothing(const json_t *body, struct err *err);

/* Walk: every shape, for openapi.json's test and the fuzzer; NULL past the end. */
const struct json_shape *api_shape_at(unsigned index);
/* Judge a body as the shape of that index, into scratch memory; for the fuzzer. */
int api_judge_any(unsigned index, const json_t *body, struct err *err);

extern const char *const vm_controller_choices[];       /* virtio, pvscsi ... */
extern const char *const priority_choices[];    /* low, normal, high */

#endif
