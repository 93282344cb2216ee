/* SPDX-License-Identifier: Apache-2.0 */
/* api_moves.c - the verbs that become tasks: relocate, import, export, verify. */
#include <errno.h>
#include <stdlib.h>

#include "tools/blkmirrord/api_disk_json.h"
#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/task_kinds.h"

static void task_stored(struct user_task *task, const struct err *err, void *user)
{
	struct api_call *call = user;

	if (err)
		api_fail(call, err);
	else
		api_answer(call, 202, user_task_json(task));
}

void api_answer_task(struct api_call *call, int rc, struct user_task *task, const struct err *err)
{
	if (rc) {
		api_fail(call, err);
		return;
	}
	task->stored = task_stored;
	task->stored_user = call;
}

/* ---- import, export, verify ---- */

void api_disk_import(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	struct disk_copy_request request;
	struct user_task *task = NULL;
	struct err err = { 0 };
	int rc = judge_disk_import(api_body(call), &request, &err);

	if (!rc)
		rc = disk_must_be_idle(daemon, &request.disk, &err);
	if (!rc)
		rc = task_import_add(daemon, &request, &task, &err);
	api_answer_task(call, rc, task, &err);
}

void api_disk_export(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	struct disk_copy_request request;
	struct user_task *task = NULL;
	struct err err = { 0 };
	int rc = judge_disk_export(api_body(call), &request, &err);

	if (!rc)
		rc = disk_must_be_idle(daemon, &request.disk, &err);
	if (!rc)
		rc = task_export_add(daemon, &request, &task, &err);
	api_answer_task(call, rc, task, &err);
}

void api_disk_verify(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	struct disk_verify_request request;
	struct user_task *task = NULL;
	struct err err = { 0 };
	int rc = judge_disk_verify(api_body(call), &request, &err);

	if (!rc)
		rc = disk_must_be_idle(daemon, &request.disk, &err);
	if (!rc)
		rc = disk_must_be_idle(daemon, &request.other, &err);
	if (!rc)
		rc = task_verify_add(daemon, &request, &task, &err);
	api_answer_task(call, rc, task, &err);
}

/* ---- relocate: checked first, queued second ---- */

struct relocate_call {
	struct api_call *call;
	struct disk_relocate_request request;
	struct relocate_place place;    /* its datastores are held */
};

static json_t *errors_json(const struct err *errors, uint32_t count)
{
	json_t *list = json_array();

	for (uint32_t i = 0; list && i < count; i++)
		json_array_append_new(list, json_edge_err_object(&errors[i]));
	return list;
}

json_t *check_report_json(const struct check_report *report)
{
	return json_pack("{s:b, s:o, s:o, s:{s:I, s:I}}", "ok", report->error_count == 0, "errors",
			 errors_json(report->errors, report->error_count), "warnings",
			 errors_json(report->warnings, report->warning_count), "estimate", "bytes",
			 (json_int_t)report->estimate_bytes, "seconds",
			 (json_int_t)report->estimate_seconds);
}

static void relocate_checked(const struct check_report *report, void *user)
{
	struct relocate_call *relocate = user;
	struct api_call *call = relocate->call;
	struct user_task *task = NULL;
	struct err err = { 0 };

	relocate_unhold(&relocate->place, 1);
	if (relocate->request.check) {
		api_answer(call, 200, check_report_json(report));
	} else if (report->error_count) {
		/* The refusal and all the others beside it. */
		api_answer(call, err_http_status(report->errors[0].id),
			   json_pack("{s:o, s:o}", "error", json_edge_err_object(&report->errors[0]),
				     "check", check_report_json(report)));
	} else {
		int rc = task_relocate_add(api_daemon(call), &relocate->request, &task, &err);

		api_answer_task(call, rc, task, &err);
	}
	free(relocate);
}

static int relocate_prepare(struct relocate_call *relocate, struct err *err)
{
	struct api_call *call = relocate->call;
	int rc = judge_disk_relocate(api_body(call), &relocate->request, err);

	if (!rc)
		rc = relocate_find_place(api_daemon(call), &relocate->request, &relocate->place, err);
	return rc;
}

/* Its VMX would go on naming the old place, and the machine would not start again. */
static int judge_no_machine(struct daemon *daemon, const struct disk *disk, struct err *err)
{
	const struct vm_entry *owner;
	struct disk_info info;

	if (!disk)
		return 0;
	disk_info(disk, &info);
	owner = vms_owner(daemon->vms, info.id);
	if (!owner)
		return 0;
	err_set(err, ERR_VM_DISK, -EBUSY,
		"'%s' is a disk of the machine '%.100s': by itself it may move only while that is "
		"off, and the VMX must then name its new place", info.id, owner->name);
	err_remedy(err, "Stop the machine, move the disk, and change its fileName in the VMX file.");
	return -EBUSY;
}

void api_disk_relocate(struct api_call *call)
{
	struct daemon *daemon = api_daemon(call);
	struct relocate_call *relocate = calloc(1, sizeof(*relocate));
	struct relocate_disk_spec disk_spec;
	struct relocate_spec spec;
	struct err err = { 0 };

	if (!relocate) {
		api_answer(call, 200, NULL);
		return;
	}
	relocate->call = call;
	if (relocate_prepare(relocate, &err) ||
	    judge_no_machine(daemon, relocate->place.disk, &err)) {
		free(relocate);
		api_fail(call, &err);
		return;
	}
	relocate_hold(&relocate->place, 1);
	relocate_fill_spec(daemon, &relocate->request, &relocate->place, 1, &disk_spec, &spec);
	spec.task_id = "check";
	relocate_check(daemon->disks, &spec, relocate_checked, relocate);
}
