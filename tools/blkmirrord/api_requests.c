/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/api_requests.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "vmotion/wire_identity.h"
#include "blkmirror/base/units.h"

#define US_MAX_STUN (UINT64_C(100) * NS_PER_S)
#define TARGET_TIMEOUT_MIN_NS (100 * NS_PER_MS)
#define TARGET_TIMEOUT_MAX_NS (600 * NS_PER_S)
#define LATENCY_BUDGET_MAX_NS (10 * NS_PER_S)   /* least: 0s, none */
#define RATE_MIN_BYTES 65536u

static const char *const provision_choices[] = { "thin", "thick", "eager", NULL };
static const char *const provision_same_choices[] = { "same", "thin", "thick", "eager", NULL };
static const char *const export_choices[] = { "nbd", "vhost-user", NULL };
static const char *const mode_choices[] = { "sync", "async", NULL };
static const char *const keep_choices[] = { "source", "target", NULL };
const char *const vm_controller_choices[] = { "virtio", "pvscsi", "lsilogic", "lsisas1068", NULL };
const char *const priority_choices[] = { "low", "normal", "high", NULL };

// clang-format off
#define AT(request, member) .offset = offsetof(struct request, member)
#define GIVEN(request, member) .given_offset = offsetof(struct request, member)
#define TEXT(request, key, member, must) { .name = key, .type = JSON_FIELD_TEXT, .required = must, AT(request, member) }
#define FILE_PATH(request, key, member, must) { .name = key, .type = JSON_FIELD_FILE, .required = must, AT(request, member) }
#define NAME(request, key, member, must) { .name = key, .type = JSON_FIELD_NAME, .required = must, AT(request, member) }
#define FLAG(request, key, member) { .name = key, .type = JSON_FIELD_BOOL, AT(request, member) }
#define CHOICE(request, key, member, list) { .name = key, .type = JSON_FIELD_CHOICE, AT(request, member), .choices = list }
#define SHAPE(shape, title, fields) static const struct json_shape shape = { title, fields, ARRAY_COUNT(fields) }

static const struct json_field datastore_add_fields[] = {
	NAME(datastore_add_request, "name", name, true),
	TEXT(datastore_add_request, "url", url, true),
	FILE_PATH(datastore_add_request, "secret_file", secret_file, false),
};
SHAPE(datastore_add_shape, "DatastoreAdd", datastore_add_fields);

static const struct json_field datastore_set_fields[] = {
	{ .name = "bandwidth", .type = JSON_FIELD_RATE, AT(datastore_set_request, bandwidth), GIVEN(datastore_set_request, bandwidth_given), .min = RATE_MIN_BYTES },
	{ .name = "budget", .type = JSON_FIELD_UINT, AT(datastore_set_request, budget), GIVEN(datastore_set_request, budget_given), .min = 16, .max = 1024 },
	{ .name = "lease", .type = JSON_FIELD_TIME, AT(datastore_set_request, lease_ns), GIVEN(datastore_set_request, lease_given), .min = 20 * NS_PER_S, .max = 3600 * NS_PER_S },
};
SHAPE(datastore_set_shape, "DatastoreSet", datastore_set_fields);

static const struct json_field disk_create_fields[] = {
	TEXT(disk_create_request, "disk", text, true),
	{ .name = "size", .type = JSON_FIELD_SIZE, .required = true, AT(disk_create_request, size_bytes) },
	CHOICE(disk_create_request, "provision", provision_choice, provision_choices),
};
SHAPE(disk_create_shape, "DiskCreate", disk_create_fields);

static const struct json_field disk_import_fields[] = {
	FILE_PATH(disk_copy_request, "file", file, true),
	TEXT(disk_copy_request, "disk", text, true),
	CHOICE(disk_copy_request, "provision", provision_choice, provision_choices),
};
SHAPE(disk_import_shape, "DiskImport", disk_import_fields);

static const struct json_field disk_export_fields[] = {
	TEXT(disk_copy_request, "disk", text, true),
	FILE_PATH(disk_copy_request, "file", file, true),
};
SHAPE(disk_export_shape, "DiskExport", disk_export_fields);

static const struct json_field disk_attach_fields[] = {
	TEXT(disk_attach_request, "disk", text, true),
	CHOICE(disk_attach_request, "export", export_choice, export_choices),
	FILE_PATH(disk_attach_request, "socket", socket_path, false),
	NAME(disk_attach_request, "id", id, false),
	FLAG(disk_attach_request, "read_only", read_only),
};
SHAPE(disk_attach_shape, "DiskAttach", disk_attach_fields);

static const struct json_field disk_detach_fields[] = {
	NAME(disk_detach_request, "id", id, true),
	FLAG(disk_detach_request, "force", force),
};
SHAPE(disk_detach_shape, "DiskDetach", disk_detach_fields);

static const struct json_field disk_resize_fields[] = {
	TEXT(disk_resize_request, "disk", text, true),
	{ .name = "size", .type = JSON_FIELD_SIZE, .required = true, AT(disk_resize_request, size_bytes) },
};
SHAPE(disk_resize_shape, "DiskResize", disk_resize_fields);

static const struct json_field disk_only_fields[] = {
	TEXT(disk_only_request, "disk", text, true),
};
SHAPE(disk_delete_shape, "DiskDelete", disk_only_fields);
SHAPE(disk_fork_shape, "DiskFork", disk_only_fields);

static const struct json_field disk_unlock_fields[] = {
	TEXT(disk_unlock_request, "disk", text, true),
	FLAG(disk_unlock_request, "force", force),
};
SHAPE(disk_unlock_shape, "DiskUnlock", disk_unlock_fields);

static const struct json_field disk_verify_fields[] = {
	TEXT(disk_verify_request, "disk", text, true),
	TEXT(disk_verify_request, "other", other_text, true),
};
SHAPE(disk_verify_shape, "DiskVerify", disk_verify_fields);

static const struct json_field disk_relocate_fields[] = {
	TEXT(disk_relocate_request, "disk", text, true),
	TEXT(disk_relocate_request, "to", to, true),
	CHOICE(disk_relocate_request, "provision", provision_choice, provision_same_choices),
	CHOICE(disk_relocate_request, "mode", mode_choice, mode_choices),
	CHOICE(disk_relocate_request, "priority", priority_choice, priority_choices),
	{ .name = "bandwidth", .type = JSON_FIELD_RATE, AT(disk_relocate_request, bandwidth), .min = RATE_MIN_BYTES },
	{ .name = "max_stun", .type = JSON_FIELD_TIME, AT(disk_relocate_request, max_stun_ns), .min = NS_PER_MS, .max = US_MAX_STUN },
	{ .name = "target_timeout", .type = JSON_FIELD_TIME, AT(disk_relocate_request, target_timeout_ns), .min = TARGET_TIMEOUT_MIN_NS, .max = TARGET_TIMEOUT_MAX_NS },
	{ .name = "latency_budget", .type = JSON_FIELD_TIME, AT(disk_relocate_request, latency_budget_ns), .max = LATENCY_BUDGET_MAX_NS },
	{ .name = "weight", .type = JSON_FIELD_UINT, AT(disk_relocate_request, weight), .min = 1, .max = 1000 },
	FLAG(disk_relocate_request, "keep_source", keep_source),
	FLAG(disk_relocate_request, "verify", verify),
	FLAG(disk_relocate_request, "hold", hold),
	FLAG(disk_relocate_request, "check", check),
};
SHAPE(disk_relocate_shape, "DiskRelocate", disk_relocate_fields);

static const struct json_field host_add_fields[] = {
	NAME(host_add_request, "name", name, true),
	TEXT(host_add_request, "addresses", addresses, true),
	TEXT(host_add_request, "fingerprint", fingerprint, true),
	FLAG(host_add_request, "plain_data", plain_data),
};
SHAPE(host_add_shape, "HostAdd", host_add_fields);

static const struct json_field task_set_fields[] = {
	{ .name = "bandwidth", .type = JSON_FIELD_RATE, AT(task_set_request, bandwidth), GIVEN(task_set_request, bandwidth_given), .min = RATE_MIN_BYTES },
	{ .name = "weight", .type = JSON_FIELD_UINT, AT(task_set_request, weight), GIVEN(task_set_request, weight_given), .min = 1, .max = 1000 },
	{ .name = "max_stun", .type = JSON_FIELD_TIME, AT(task_set_request, max_stun_ns), GIVEN(task_set_request, max_stun_given), .min = NS_PER_MS, .max = US_MAX_STUN },
	{ .name = "latency_budget", .type = JSON_FIELD_TIME, AT(task_set_request, latency_budget_ns), GIVEN(task_set_request, latency_budget_given), .max = LATENCY_BUDGET_MAX_NS },
	{ .name = "priority", .type = JSON_FIELD_CHOICE, AT(task_set_request, priority_choice), GIVEN(task_set_request, priority_given), .choices = priority_choices },
	{ .name = "mode", .type = JSON_FIELD_CHOICE, AT(task_set_request, mode_choice), GIVEN(task_set_request, mode_given), .choices = mode_choices },
};
SHAPE(task_set_shape, "TaskSet", task_set_fields);

static const struct json_field recover_fields[] = {
	{ .name = "keep", .type = JSON_FIELD_CHOICE, AT(recover_request, keep_choice), GIVEN(recover_request, keep_given), .choices = keep_choices },
	FLAG(recover_request, "run_here", run_here),
	FLAG(recover_request, "other_side_is_dead", other_side_is_dead),
};
SHAPE(recover_shape, "Recover", recover_fields);

static const struct json_field vm_register_fields[] = {
	TEXT(vm_register_request, "vmx", text, true),
};
SHAPE(vm_register_shape, "VmRegister", vm_register_fields);

static const struct json_field vm_create_fields[] = {
	NAME(vm_create_request, "name", name, true),
	NAME(vm_create_request, "datastore", datastore, true),
	{ .name = "memory", .type = JSON_FIELD_SIZE, .required = true, AT(vm_create_request, memory_bytes), .min = UINT64_C(4) << 20, .max = (uint64_t)VM_MEMORY_MAX_MIB << 20 },
	{ .name = "cpus", .type = JSON_FIELD_UINT, AT(vm_create_request, cpu_count), .min = 1, .max = VM_CPUS_MAX },
	TEXT(vm_create_request, "disks", disks, false),
	CHOICE(vm_create_request, "controller", controller_choice, vm_controller_choices),
	TEXT(vm_create_request, "network", network, false),
	FILE_PATH(vm_create_request, "kernel", kernel, false),
	FILE_PATH(vm_create_request, "initrd", initrd, false),
	TEXT(vm_create_request, "append", append, false),
};
SHAPE(vm_create_shape, "VmCreate", vm_create_fields);

static const struct json_field vm_stop_fields[] = {
	FLAG(vm_stop_request, "force", force),
	{ .name = "timeout", .type = JSON_FIELD_TIME, AT(vm_stop_request, timeout_ns), .min = NS_PER_S, .max = 3600 * NS_PER_S },
};
SHAPE(vm_stop_shape, "VmStop", vm_stop_fields);

static const struct json_field vm_relocate_fields[] = {
	NAME(vm_relocate_request, "to", to, false),
	NAME(vm_relocate_request, "config_to", config_to, false),
	TEXT(vm_relocate_request, "disks", disks, false),
	CHOICE(vm_relocate_request, "provision", options.provision_choice, provision_same_choices),
	CHOICE(vm_relocate_request, "mode", options.mode_choice, mode_choices),
	CHOICE(vm_relocate_request, "priority", options.priority_choice, priority_choices),
	{ .name = "bandwidth", .type = JSON_FIELD_RATE, AT(vm_relocate_request, options.bandwidth), .min = RATE_MIN_BYTES },
	{ .name = "max_stun", .type = JSON_FIELD_TIME, AT(vm_relocate_request, options.max_stun_ns), .min = NS_PER_MS, .max = US_MAX_STUN },
	{ .name = "target_timeout", .type = JSON_FIELD_TIME, AT(vm_relocate_request, options.target_timeout_ns), .min = TARGET_TIMEOUT_MIN_NS, .max = TARGET_TIMEOUT_MAX_NS },
	{ .name = "latency_budget", .type = JSON_FIELD_TIME, AT(vm_relocate_request, options.latency_budget_ns), .max = LATENCY_BUDGET_MAX_NS },
	{ .name = "weight", .type = JSON_FIELD_UINT, AT(vm_relocate_request, options.weight), .min = 1, .max = 1000 },
	FLAG(vm_relocate_request, "keep_source", options.keep_source),
	FLAG(vm_relocate_request, "verify", options.verify),
	FLAG(vm_relocate_request, "hold", options.hold),
	FLAG(vm_relocate_request, "check", options.check),
};
SHAPE(vm_relocate_shape, "VmRelocate", vm_relocate_fields);

static const struct json_shape nothing_shape = { "Nothing", NULL, 0 };
// clang-format on

/* ---- disk names ---- */

static int judge_disk_name(const char *text, struct disk_name *out, struct err *err)
{
	return ds_name_parse(text, out->datastore, out->path, err);
}

/* "DS:path", or "DS" alone: the path of the source. */
static int judge_target(const char *text, struct disk_name *out, struct err *err)
{
	if (strchr(text, ':'))
		return judge_disk_name(text, out, err);
	if (!ds_name_is_valid(text))
		return err_set(err, ERR_BAD_NAME, -EINVAL, "'%.64s' is no name of a datastore", text);
	snprintf(out->datastore, sizeof(out->datastore), "%s", text);
	out->path[0] = '\0';
	return 0;
}

/* ---- bodies ---- */

int judge_datastore_add(const json_t *body, struct datastore_add_request *out, struct err *err)
{
	*out = (struct datastore_add_request){ 0 };
	return json_edge_judge(body, &datastore_add_shape, out, err);
}

int judge_datastore_set(const json_t *body, struct datastore_set_request *out, struct err *err)
{
	int rc;

	*out = (struct datastore_set_request){ 0 };
	rc = json_edge_judge(body, &datastore_set_shape, out, err);
	if (!rc && !out->bandwidth_given && !out->budget_given && !out->lease_given)
		return err_set(err, ERR_BAD_FIELD, -EINVAL, "nothing to set is given");
	return rc;
}

int judge_disk_create(const json_t *body, struct disk_create_request *out, struct err *err)
{
	int rc;

	*out = (struct disk_create_request){ 0 };
	rc = json_edge_judge(body, &disk_create_shape, out, err);
	out->provision = (enum provision)(PROVISION_THIN + (int)out->provision_choice);
	if (!rc && (out->size_bytes < DS_DISK_SIZE_MIN || out->size_bytes > DS_DISK_SIZE_MAX ||
		    out->size_bytes % 512))
		return err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
			       "a disk cannot have %llu bytes",
			       (unsigned long long)out->size_bytes);
	return rc ? rc : judge_disk_name(out->text, &out->disk, err);
}

int judge_disk_import(const json_t *body, struct disk_copy_request *out, struct err *err)
{
	int rc;

	*out = (struct disk_copy_request){ 0 };
	rc = json_edge_judge(body, &disk_import_shape, out, err);
	out->provision = (enum provision)(PROVISION_THIN + (int)out->provision_choice);
	return rc ? rc : judge_disk_name(out->text, &out->disk, err);
}

int judge_disk_export(const json_t *body, struct disk_copy_request *out, struct err *err)
{
	int rc;

	*out = (struct disk_copy_request){ 0 };
	rc = json_edge_judge(body, &disk_export_shape, out, err);
	return rc ? rc : judge_disk_name(out->text, &out->disk, err);
}

int judge_disk_attach(const json_t *body, struct disk_attach_request *out, struct err *err)
{
	int rc;

	*out = (struct disk_attach_request){ 0 };
	rc = json_edge_judge(body, &disk_attach_shape, out, err);
	out->export_kind = out->export_choice ? DISK_EXPORT_VHOST_USER : DISK_EXPORT_NBD;
	if (!rc && out->socket_path && strlen(out->socket_path) >= DISK_SOCKET_BYTES)
		return err_set(err, ERR_EXPORT_SOCKET, -EINVAL,
			       "the socket's path is longer than %d bytes", DISK_SOCKET_BYTES - 1);
	return rc ? rc : judge_disk_name(out->text, &out->disk, err);
}

int judge_disk_detach(const json_t *body, struct disk_detach_request *out, struct err *err)
{
	*out = (struct disk_detach_request){ 0 };
	return json_edge_judge(body, &disk_detach_shape, out, err);
}

int judge_disk_resize(const json_t *body, struct disk_resize_request *out, struct err *err)
{
	int rc;

	*out = (struct disk_resize_request){ 0 };
	rc = json_edge_judge(body, &disk_resize_shape, out, err);
	if (!rc && (out->size_bytes < DS_DISK_SIZE_MIN || out->size_bytes > DS_DISK_SIZE_MAX ||
		    out->size_bytes % 512))
		return err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
			       "a disk cannot have %llu bytes",
			       (unsigned long long)out->size_bytes);
	return rc ? rc : judge_disk_name(out->text, &out->disk, err);
}

static int judge_disk_only(const json_t *body, const struct json_shape *shape,
			   struct disk_only_request *out, struct err *err)
{
	int rc;

	*out = (struct disk_only_request){ 0 };
	rc = json_edge_judge(body, shape, out, err);
	return rc ? rc : judge_disk_name(out->text, &out->disk, err);
}

int judge_disk_delete(const json_t *body, struct disk_only_request *out, struct err *err)
{
	return judge_disk_only(body, &disk_delete_shape, out, err);
}

int judge_disk_fork(const json_t *body, struct disk_only_request *out, struct err *err)
{
	return judge_disk_only(body, &disk_fork_shape, out, err);
}

int judge_disk_unlock(const json_t *body, struct disk_unlock_request *out, struct err *err)
{
	int rc;

	*out = (struct disk_unlock_request){ 0 };
	rc = json_edge_judge(body, &disk_unlock_shape, out, err);
	if (!rc)
		rc = judge_disk_name(out->text, &out->disk, err);
	if (!rc && !out->force) {
		rc = err_set(err, ERR_USAGE, -EINVAL,
			     "unlock breaks another host's lock and needs force");
		err_remedy(err, "Make sure that the host that holds it is dead, then use --force.");
	}
	return rc;
}

int judge_disk_verify(const json_t *body, struct disk_verify_request *out, struct err *err)
{
	int rc;

	*out = (struct disk_verify_request){ 0 };
	rc = json_edge_judge(body, &disk_verify_shape, out, err);
	if (!rc)
		rc = judge_disk_name(out->text, &out->disk, err);
	if (!rc)
		rc = judge_disk_name(out->other_text, &out->other, err);
	if (!rc && strcmp(out->disk.datastore, out->other.datastore) == 0 &&
	    strcmp(out->disk.path, out->other.path) == 0)
		return err_set(err, ERR_MOVE_SAME, -EINVAL, "'%.128s' cannot be compared with itself",
			       out->text);
	return rc;
}

static const struct disk_relocate_request relocate_defaults = {
	.bandwidth = MOVER_RATE_UNLIMITED, .verify = true, .weight = 100, .priority_choice = 1,
};

/* What a move of one disk and of a machine have in common. */
static int judge_relocate_options(const json_t *body, struct disk_relocate_request *out,
				  struct err *err)
{
	out->provision = (enum provision)(PROVISION_SAME + (int)out->provision_choice);
	out->mode = out->mode_choice ? MIRROR_ASYNC : MIRROR_SYNC;
	if (!out->verify && !out->keep_source && json_object_get(body, "keep_source"))
		return err_set(err, ERR_USAGE, -EINVAL,
			       "a source is never deleted without verification");
	if (!out->verify)
		out->keep_source = true;
	return 0;
}

int judge_disk_relocate(const json_t *body, struct disk_relocate_request *out, struct err *err)
{
	int rc;

	*out = relocate_defaults;
	rc = json_edge_judge(body, &disk_relocate_shape, out, err);
	if (rc)
		return rc;
	if (strchr(out->text, ':')) {
		rc = judge_disk_name(out->text, &out->disk, err);
	} else if (ds_name_is_valid(out->text)) {
		snprintf(out->id, sizeof(out->id), "%s", out->text);
	} else {
		rc = err_set(err, ERR_BAD_NAME, -EINVAL, "'%.64s' is neither DATASTORE:path nor an id",
			     out->text);
	}
	if (!rc)
		rc = judge_target(out->to, &out->target, err);
	return rc ? rc : judge_relocate_options(body, out, err);
}

int judge_vm_relocate(const json_t *body, struct vm_relocate_request *out, struct err *err)
{
	int rc;

	*out = (struct vm_relocate_request){ .options = relocate_defaults };
	rc = json_edge_judge(body, &vm_relocate_shape, out, err);
	if (!rc && !out->to && !out->disks && !out->config_to)
		rc = err_set(err, ERR_BAD_FIELD, -EINVAL,
			     "'to', 'disks' or 'config_to' must say where to");
	return rc ? rc : judge_relocate_options(body, &out->options, err);
}

int judge_host_add(const json_t *body, struct host_add_request *out, struct err *err)
{
	int rc;

	*out = (struct host_add_request){ 0 };
	rc = json_edge_judge(body, &host_add_shape, out, err);
	/* What is longer would be cut to one that is not what was given. */
	if (!rc && !wire_fingerprint_is_valid(out->fingerprint))
		return err_set(err, ERR_HOST_FINGERPRINT, -EINVAL, "'%.60s' is no fingerprint",
			       out->fingerprint);
	return rc;
}

int judge_task_set(const json_t *body, struct task_set_request *out, struct err *err)
{
	int rc;

	*out = (struct task_set_request){ 0 };
	rc = json_edge_judge(body, &task_set_shape, out, err);
	if (!rc && json_object_size(body) == 0)
		return err_set(err, ERR_BAD_FIELD, -EINVAL, "nothing to set is given");
	return rc;
}

int judge_vm_register(const json_t *body, struct vm_register_request *out, struct err *err)
{
	int rc;

	*out = (struct vm_register_request){ 0 };
	rc = json_edge_judge(body, &vm_register_shape, out, err);
	return rc ? rc : judge_disk_name(out->text, &out->vmx, err);
}

/* "10GiB,500MiB" */
static int judge_disk_sizes(const char *text, struct vm_create_request *out, struct err *err)
{
	while (text) {
		const char *comma = strchr(text, ',');
		char size[64];
		uint64_t bytes;

		snprintf(size, sizeof(size), "%.*s",
			 comma ? (int)MIN(comma - text, (ptrdiff_t)sizeof(size)) : (int)sizeof(size),
			 text);
		if (units_parse_size(size, &bytes, err))
			return -EINVAL;
		if (bytes < DS_DISK_SIZE_MIN || bytes > DS_DISK_SIZE_MAX || bytes % 512)
			return err_set(err, ERR_DISK_BAD_SIZE, -EINVAL,
				       "a disk cannot have %llu bytes", (unsigned long long)bytes);
		if (out->disk_count == VMS_CREATE_DISKS)
			return err_set(err, ERR_BAD_FIELD, -EINVAL, "'disks' takes at most %d",
				       VMS_CREATE_DISKS);
		out->disk_bytes[out->disk_count++] = bytes;
		text = comma ? comma + 1 : NULL;
	}
	return 0;
}

int judge_vm_create(const json_t *body, struct vm_create_request *out, struct err *err)
{
	int rc;

	*out = (struct vm_create_request){ .cpu_count = 1 };
	rc = json_edge_judge(body, &vm_create_shape, out, err);
	return rc ? rc : judge_disk_sizes(out->disks, out, err);
}

int judge_vm_stop(const json_t *body, struct vm_stop_request *out, struct err *err)
{
	*out = (struct vm_stop_request){ .timeout_ns = VM_STOP_TIMEOUT_NS };
	return json_edge_judge(body, &vm_stop_shape, out, err);
}

int judge_recover(const json_t *body, struct recover_request *out, struct err *err)
{
	int rc;

	*out = (struct recover_request){ 0 };
	rc = json_edge_judge(body, &recover_shape, out, err);
	if (!rc && out->keep_given == out->run_here)
		return err_set(err, ERR_USAGE, -EINVAL, "give either 'keep' or 'run_here'");
	if (!rc && out->run_here && !out->other_side_is_dead)
		return err_set(err, ERR_USAGE, -EINVAL,
			       "'run_here' needs your word that the other side is dead");
	return rc;
}

int judge_nothing(const json_t *body, struct err *err)
{
	char unused;

	return json_edge_judge(body, &nothing_shape, &unused, err);
}

/* ---- walking ---- */

#define JUDGE_ANY(verb, type)                                                                      \
	static int any_##verb(const json_t *body, struct err *err)                                 \
	{                                                                                          \
		struct type request;                                                               \
		return judge_##verb(body, &request, err);                                          \
	}
JUDGE_ANY(datastore_add, datastore_add_request)
JUDGE_ANY(datastore_set, datastore_set_request)
JUDGE_ANY(disk_create, disk_create_request)
JUDGE_ANY(disk_import, disk_copy_request)
JUDGE_ANY(disk_export, disk_copy_request)
JUDGE_ANY(disk_attach, disk_attach_request)
JUDGE_ANY(disk_detach, disk_detach_request)
JUDGE_ANY(disk_resize, disk_resize_request)
JUDGE_ANY(disk_delete, disk_only_request)
JUDGE_ANY(disk_fork, disk_only_request)
JUDGE_ANY(disk_unlock, disk_unlock_request)
JUDGE_ANY(disk_verify, disk_verify_request)
JUDGE_ANY(disk_relocate, disk_relocate_request)
JUDGE_ANY(host_add, host_add_request)
JUDGE_ANY(task_set, task_set_request)
JUDGE_ANY(recover, recover_request)
JUDGE_ANY(vm_register, vm_register_request)
JUDGE_ANY(vm_create, vm_create_request)
JUDGE_ANY(vm_stop, vm_stop_request)
JUDGE_ANY(vm_relocate, vm_relocate_request)

static const struct {
	const struct json_shape *shape;
	int (*judge)(const json_t *body, struct err *err);
} shapes[] = {
	{ &datastore_add_shape, any_datastore_add }, { &datastore_set_shape, any_datastore_set },
	{ &disk_create_shape, any_disk_create },     { &disk_import_shape, any_disk_import },
	{ &disk_export_shape, any_disk_export },     { &disk_attach_shape, any_disk_attach },
	{ &disk_detach_shape, any_disk_detach },     { &disk_resize_shape, any_disk_resize },
	{ &disk_delete_shape, any_disk_delete },     { &disk_fork_shape, any_disk_fork },
	{ &disk_unlock_shape, any_disk_unlock },     { &disk_verify_shape, any_disk_verify },
	{ &disk_relocate_shape, any_disk_relocate }, { &task_set_shape, any_task_set },
	{ &host_add_shape, any_host_add },
	{ &recover_shape, any_recover },             { &vm_register_shape, any_vm_register },
	{ &vm_create_shape, any_vm_create },         { &vm_stop_shape, any_vm_stop },
	{ &vm_relocate_shape, any_vm_relocate },     { &nothing_shape, judge_nothing },
};

const struct json_shape *api_shape_at(unsigned index)
{
	return index < ARRAY_COUNT(shapes) ? shapes[index].shape : NULL;
}

int api_judge_any(unsigned index, const json_t *body, struct err *err)
{
	CHECK(index < ARRAY_COUNT(shapes));
	return shapes[index].judge(body, err);
}
