/* SPDX-License-Identifier: Apache-2.0 */
/* api_vm_moves.c - vm relocate: planned, checked, queued. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/blkmirrord/api_disk_json.h"
#include "tools/blkmirrord/api_handlers.h"
#include "tools/blkmirrord/task_kinds.h"

struct vm_relocate_call {
	struct api_call *call;
	struct vm_relocate_request request;
	char vm_id[VM_ID_BYTES];        /* it may be gone when the check answers */
	struct vm_move *move;
	struct vm_findings warnings;
	struct relocate_place *places;  /* held while the check runs */
	struct relocate_disk_spec *disks;
};

static void call_free(struct vm_relocate_call *relocate)
{
	vm_move_free(relocate->move);
	free(relocate->places);
	free(relocate->disks);
	free(relocate);
}

/* Everything that was found, as one answer. */
static void add_warnings(const struct vm_relocate_call *relocate, struct check_report *report)
{
	for (uint32_t i = 0; i < relocate->warnings.count; i++)
		if (report->warning_count < CHECK_REPORT_MAX)
			report->warnings[report->warning_count++] = relocate->warnings.items[i].err;
}

static void answer_report(struct vm_relocate_call *relocate, const struct check_report *report)
{
	if (relocate->request.options.check)
		api_answer(relocate->call, 200, check_report_json(report));
	else
		api_answer(relocate->call, err_http_status(report->errors[0].id),
			   json_pack("{s:o, s:o}", "error",
				     json_edge_err_object(&report->errors[0]), "check",
				     check_report_json(report)));
}

static void queue(struct vm_relocate_call *relocate)
{
	struct daemon *daemon = api_daemon(relocate->call);
	struct user_task *task = NULL;
	struct err err = { 0 };
	struct vm_entry *vm = vms_find(daemon->vms, relocate->vm_id, &err);

	if (!vm || task_vm_relocate_add(daemon, vm, relocate->move, &relocate->request.options,
					&task, &err)) {
		api_fail(relocate->call, &err);
		return;
	}
	relocate->move = NULL;          /* the machine's */
	api_answer_task(relocate->call, 0, task, NULL);
}

static void checked(const struct check_report *report, void *user)
{
	struct vm_relocate_call *relocate = user;
	struct check_report *all = malloc(sizeof(*all));

	relocate_unhold(relocate->places, relocate->move->disk_count);
	if (!all) {
		api_answer(relocate->call, 200, NULL);
	} else if (report->error_count || relocate->request.options.check) {
		*all = *report;
		add_warnings(relocate, all);
		answer_report(relocate, all);
	} else {
		queue(relocate);
	}
	free(all);
	call_free(relocate);
}

static void refuse(struct vm_relocate_call *relocate, const struct err *err)
{
	struct check_report *report = calloc(1, sizeof(*report));

	/* What a start would be refused for is a check's answer, but for questions that make no sense. */
	if (report && relocate->request.options.check && err_http_status(err->id) != 404 &&
	    err_http_status(err->id) != 400) {
		report->errors[report->error_count++] = *err;
		add_warnings(relocate, report);
		answer_report(relocate, report);
	} else {
		api_fail(relocate->call, err);
	}
	free(report);
	call_free(relocate);
}

/* Only its VMX moves: what there is to check has been checked. */
static void check_nothing(struct vm_relocate_call *relocate)
{
	struct check_report *report = calloc(1, sizeof(*report));

	if (!relocate->request.options.check) {
		queue(relocate);
	} else if (report) {
		add_warnings(relocate, report);
		answer_report(relocate, report);
	} else {
		api_answer(relocate->call, 200, NULL);
	}
	free(report);
	call_free(relocate);
}

static int find_places(struct vm_relocate_call *relocate, struct err *err)
{
	uint32_t count = relocate->move->disk_count;
	int rc = 0;

	relocate->places = calloc(count, sizeof(*relocate->places));
	relocate->disks = calloc(count, sizeof(*relocate->disks));
	if (!relocate->places || !relocate->disks)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	for (uint32_t i = 0; !rc && i < count; i++)
		rc = relocate_find_move(api_daemon(relocate->call), &relocate->move->disks[i],
					&relocate->places[i], err);
	return rc;
}

static void planned(struct vm_entry *entry, struct vm_move *move,
		    const struct vm_findings *warnings, const struct err *err, void *user)
{
	struct vm_relocate_call *relocate = user;
	struct daemon *daemon = api_daemon(relocate->call);
	struct relocate_spec spec;
	struct err why = { 0 };

	(void)entry;
	relocate->move = move;
	for (uint32_t i = 0; warnings && i < warnings->count; i++)
		if (!warnings->items[i].refuses)
			relocate->warnings.items[relocate->warnings.count++] = warnings->items[i];
	if (err) {
		refuse(relocate, err);
		return;
	}
	if (!move->disk_count) {
		check_nothing(relocate);
		return;
	}
	if (find_places(relocate, &why)) {
		refuse(relocate, &why);
		return;
	}
	relocate_hold(relocate->places, move->disk_count);
	relocate_fill_spec(daemon, &relocate->request.options, relocate->places, move->disk_count,
			   relocate->disks, &spec);
	spec.task_id = "check";
	relocate_check(daemon->disks, &spec, checked, relocate);
}

void api_vm_relocate(struct api_call *call)
{
	struct vm_relocate_call *relocate = calloc(1, sizeof(*relocate));
	struct err err = { 0 };
	struct vm_entry *entry;

	if (!relocate) {
		api_answer(call, 200, NULL);
		return;
	}
	relocate->call = call;
	if (judge_vm_relocate(api_body(call), &relocate->request, &err) ||
	    !(entry = vms_find(api_daemon(call)->vms, api_param(call), &err))) {
		call_free(relocate);
		api_fail(call, &err);
		return;
	}
	snprintf(relocate->vm_id, sizeof(relocate->vm_id), "%s", entry->id);
	vms_move_plan(entry, &relocate->request, planned, relocate);
}
