/* SPDX-License-Identifier: Apache-2.0 */
/* api_vms.c - the API's machines. */
#include <stdio.h>
#include <string.h>

#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/api_requests.h"
#include "tools/blkmirrord/daemon.h"
#include "tools/blkmirrord/vms_move.h"

/* ---- JSON ---- */

static json_t *disks_json(const struct vm_entry *entry)
{
	struct inventory *inventory = vms_inventory(entry->vms);
	json_t *list = json_array();
	size_t len = strlen(entry->id);

	for (struct attachment *a = inventory_next_attachment(inventory, NULL); a && list;
	     a = inventory_next_attachment(inventory, a)) {
		char file[DS_NAME_BYTES + DS_PATH_BYTES];

		if (strncmp(a->id, entry->id, len) != 0 || a->id[len] != '-')
			continue;
		snprintf(file, sizeof(file), "%s:%s", a->datastore, a->path);
		json_array_append_new(list,
				      json_pack("{s:s, s:o, s:s, s:b}", "id", a->id, "disk",
						json_edge_text(file), "state",
						a->disk ? "attached" : "waiting", "read_only",
						a->read_only));
	}
	return list;
}

static json_t *entry_json(const struct vm_entry *entry)
{
	char vmx[DS_NAME_BYTES + DS_PATH_BYTES], console[108], log[PATH_MAX];
	const char *reason = vm_pause_reason(entry->vm);
	pid_t pid = vm_pid(entry->vm);

	snprintf(vmx, sizeof(vmx), "%s:%s", entry->datastore, entry->path);
	vms_console_path(entry, console);
	vms_log_path(entry, log);
	return json_pack("{s:s, s:o, s:o, s:s, s:s?, s:o, s:s?, s:s, s:s?, s:o, s:o?}", "id", entry->id,
			 "name", json_edge_text(entry->name), "vmx", json_edge_text(vmx), "state",
			 vms_state_name(entry), "paused", reason[0] ? reason : NULL, "pid",
			 pid ? json_integer(pid) : json_null(), "console", pid ? console : NULL,
			 "log", log, "task", entry->move && entry->move->task[0] ? entry->move->task : NULL,
			 "disks", disks_json(entry), "error",
			 entry->error.id != ERR_NONE ? json_edge_err_object(&entry->error) : NULL);
}

static json_t *findings_json(const struct vm_findings *findings, bool errors)
{
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < findings->count; i++)
		if (findings->items[i].refuses == errors)
			json_array_append_new(list, json_edge_err_object(&findings->items[i].err));
	return list;
}

static json_t *drives_json(const struct vm_config *config)
{
	static const char *const media[] = { "disk", "cdrom", "floppy" };
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < config->drive_count; i++) {
		const struct vm_drive *drive = &config->drives[i];
		char file[DS_NAME_BYTES + DS_PATH_BYTES] = "";

		if (drive->has_file)
			snprintf(file, sizeof(file), "%s:%s", drive->datastore, drive->path);
		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s?, s:o?}", "drive", drive->name, "media",
					media[drive->media], "controller",
					drive->bus == VM_BUS_SCSI
						? vm_scsi_model_name(config->scsi[drive->controller])
						: NULL,
					"file", drive->has_file ? json_edge_text(file) : NULL));
	}
	return list;
}

static json_t *nics_json(const struct vm_config *config)
{
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < config->nic_count; i++) {
		const struct vm_nic *nic = &config->nics[i];
		char mac[32];

		snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", nic->mac[0],
			 nic->mac[1], nic->mac[2], nic->mac[3], nic->mac[4], nic->mac[5]);
		json_array_append_new(list,
				      json_pack("{s:i, s:o, s:s?, s:b}", "ethernet", nic->number,
						"network", json_edge_text(nic->network), "mac",
						nic->has_mac ? mac : NULL, "connected",
						nic->connected));
	}
	return list;
}

static json_t *config_json(const struct vm_config *config)
{
	char uuid[UUID_TEXT_BYTES];

	return json_pack("{s:i, s:i, s:i, s:s, s:s?, s:s?, s:s?, s:o, s:o}", "memory_mib",
			 (int)config->memory_mib, "cpus", (int)config->cpu_count,
			 "cores_per_socket", (int)config->cores_per_socket, "firmware",
			 config->firmware == VM_FIRMWARE_EFI ? "efi" : "bios", "machine",
			 config->machine[0] ? config->machine : NULL, "guest_os",
			 config->guest_os[0] ? config->guest_os : NULL, "uuid",
			 uuid_is_null(&config->uuid) ? NULL : uuid_format(&config->uuid, uuid),
			 "drives", drives_json(config), "networks", nics_json(config));
}

/* ---- answers ---- */

static void answer(struct vm_entry *entry, const struct vm_config *config,
		   const struct vm_findings *findings, const struct err *err, void *user)
{
	struct api_call *call = user;
	json_t *object;

	(void)config;
	if (err) {
		api_fail(call, err);
		return;
	}
	object = entry_json(entry);
	if (object && findings)
		json_object_set_new(object, "warnings", findings_json(findings, false));
	api_answer(call, 200, object);
}

static void answer_created(struct vm_entry *entry, const struct vm_config *config,
			   const struct vm_findings *findings, const struct err *err, void *user)
{
	struct api_call *call = user;
	json_t *object;

	(void)config;
	if (err) {
		api_fail(call, err);
		return;
	}
	object = entry_json(entry);
	if (object)
		json_object_set_new(object, "warnings", findings_json(findings, false));
	api_answer(call, 201, object);
}

static void answer_gone(struct vm_entry *entry, const struct vm_config *config,
			const struct vm_findings *findings, const struct err *err, void *user)
{
	struct api_call *call = user;

	(void)entry;
	(void)config;
	(void)findings;
	if (err)
		api_fail(call, err);
	else
		api_answer(call, 200, json_pack("{s:s}", "unregistered", api_param(call)));
}

static struct vm_entry *find(struct api_call *call)
{
	struct err err = { 0 };
	struct vm_entry *entry = vms_find(api_daemon(call)->vms, api_param(call), &err);

	if (!entry)
		api_fail(call, &err);
	return entry;
}

/* ---- list, show ---- */

void api_vm_list(struct api_call *call)
{
	struct vms *vms = api_daemon(call)->vms;
	json_t *list = json_array();

	for (struct vm_entry *entry = vms_next(vms, NULL); entry && list;
	     entry = vms_next(vms, entry))
		json_array_append_new(list, entry_json(entry));
	api_answer(call, 200, json_pack("{s:o}", "vms", list));
}

/* A VMX that cannot be read or is refused is no reason not to show the machine. */
static void show_read(struct vm_entry *none, const struct vm_config *config,
		      const struct vm_findings *findings, const struct err *err, void *user)
{
	struct api_call *call = user;
	struct vm_entry *entry = find(call);
	json_t *object, *errors;

	(void)none;
	if (!entry)
		return;
	object = entry_json(entry);
	if (object) {
		errors = findings ? findings_json(findings, true) : json_array();
		if (err && json_array_size(errors) == 0)
			json_array_append_new(errors, json_edge_err_object(err));
		json_object_set_new(object, "config", config ? config_json(config) : json_null());
		json_object_set_new(object, "warnings",
				    findings ? findings_json(findings, false) : json_array());
		json_object_set_new(object, "errors", errors);
	}
	api_answer(call, 200, object);
}

void api_vm_show(struct api_call *call)
{
	struct vm_entry *entry = find(call);

	if (entry)
		vms_read(entry, show_read, call);
}

/* ---- register, create, unregister ---- */

void api_vm_register(struct api_call *call)
{
	struct vm_register_request request;
	struct err err = { 0 };

	if (judge_vm_register(api_body(call), &request, &err))
		api_fail(call, &err);
	else
		vms_register(api_daemon(call)->vms, request.vmx.datastore, request.vmx.path,
			     answer_created, call);
}

void api_vm_create(struct api_call *call)
{
	struct vm_create_request request;
	struct vms_create create;
	struct err err = { 0 };

	if (judge_vm_create(api_body(call), &request, &err)) {
		api_fail(call, &err);
		return;
	}
	create = (struct vms_create){ .name = request.name,
				      .datastore = request.datastore,
				      .memory_bytes = request.memory_bytes,
				      .cpu_count = (uint32_t)request.cpu_count,
				      .disk_count = request.disk_count,
				      .network = request.network,
				      .controller =
					      vm_controller_choices[request.controller_choice],
				      .kernel = request.kernel,
				      .initrd = request.initrd,
				      .append = request.append };
	memcpy(create.disk_bytes, request.disk_bytes, sizeof(create.disk_bytes));
	vms_create(api_daemon(call)->vms, &create, answer_created, call);
}

void api_vm_unregister(struct api_call *call)
{
	struct vm_entry *entry = find(call);

	if (entry)
		vms_unregister(entry, answer_gone, call);
}

/* ---- start, stop, suspend, resume ---- */

/* The machine, when the body holds nothing. */
static struct vm_entry *find_plain(struct api_call *call)
{
	struct err err = { 0 };

	if (judge_nothing(api_body(call), &err)) {
		api_fail(call, &err);
		return NULL;
	}
	return find(call);
}

void api_vm_start(struct api_call *call)
{
	struct vm_entry *entry = find_plain(call);

	if (entry)
		vms_start(entry, false, answer, call);
}

void api_vm_resume(struct api_call *call)
{
	struct vm_entry *entry = find_plain(call);

	if (entry)
		vms_start(entry, true, answer, call);
}

void api_vm_suspend(struct api_call *call)
{
	struct vm_entry *entry = find_plain(call);

	if (entry)
		vms_suspend(entry, answer, call);
}

void api_vm_stop(struct api_call *call)
{
	struct vm_stop_request request;
	struct vm_entry *entry;
	struct err err = { 0 };

	if (judge_vm_stop(api_body(call), &request, &err)) {
		api_fail(call, &err);
		return;
	}
	entry = find(call);
	if (entry)
		vms_halt(entry, request.force, request.timeout_ns, answer, call);
}
