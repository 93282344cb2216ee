/* SPDX-License-Identifier: Apache-2.0 */
/* vms_move_plan.c - from a request to what is to go where, and that as JSON. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/blkmirrord/vms_move.h"
#include "tools/blkmirrord/vms_private.h"

/* ---- a plan, and back ---- */

void vm_move_free(struct vm_move *move)
{
	if (move)
		free(move->disks);
	free(move);
}

static struct vm_move *move_new(uint32_t disk_count)
{
	struct vm_move *move = calloc(1, sizeof(*move));

	if (!move)
		return NULL;
	move->disks = calloc(MAX(disk_count, 1), sizeof(*move->disks));
	if (move->disks)
		return move;
	free(move);
	return NULL;
}

json_t *vm_move_json(const struct vm_move *move)
{
	json_t *disks = json_array();

	for (uint32_t i = 0; disks && i < move->disk_count; i++) {
		const struct vm_move_disk *disk = &move->disks[i];
		json_t *one = json_pack("{s:s, s:s, s:o, s:s, s:o, s:i}", "drive", disk->drive,
					"source_datastore", disk->source_datastore, "source_path",
					json_string(disk->source_path), "target_datastore",
					disk->target_datastore, "target_path",
					json_string(disk->target_path), "provision",
					(int)disk->provision);

		if (!one || json_array_append_new(disks, one)) {
			json_decref(disks);
			return NULL;
		}
	}
	return json_pack("{s:s, s:s, s:b, s:o}", "config_from", move->config_from, "config_to",
			 move->config_to, "keep_source", move->keep_source, "disks", disks);
}

static bool keep(char *out, size_t out_bytes, const char *text)
{
	return (size_t)snprintf(out, out_bytes, "%s", text) < out_bytes;
}

static bool read_disk(const json_t *json, struct vm_move_disk *out)
{
	const char *drive, *source, *source_path, *target, *target_path;
	int provision;

	if (json_unpack((json_t *)json, "{s:s, s:s, s:s, s:s, s:s, s:i}", "drive", &drive,
			"source_datastore", &source, "source_path", &source_path,
			"target_datastore", &target, "target_path", &target_path, "provision",
			&provision))
		return false;
	out->provision = (enum provision)provision;
	return provision >= PROVISION_SAME && provision <= PROVISION_EAGER &&
	       keep(out->drive, sizeof(out->drive), drive) &&
	       keep(out->source_datastore, DS_NAME_BYTES, source) &&
	       keep(out->source_path, DS_PATH_BYTES, source_path) &&
	       keep(out->target_datastore, DS_NAME_BYTES, target) &&
	       keep(out->target_path, DS_PATH_BYTES, target_path);
}

struct vm_move *vm_move_read(const json_t *json)
{
	const char *from, *to;
	json_t *disks;
	int keep_source;
	struct vm_move *move;

	if (json_unpack((json_t *)json, "{s:s, s:s, s:b, s:o}", "config_from", &from, "config_to",
			&to, "keep_source", &keep_source, "disks", &disks) ||
	    json_array_size(disks) > VM_DRIVES_MAX)
		return NULL;
	move = move_new((uint32_t)json_array_size(disks));
	if (!move)
		return NULL;
	move->keep_source = keep_source;
	move->disk_count = (uint32_t)json_array_size(disks);
	if (!keep(move->config_from, DS_NAME_BYTES, from) ||
	    !keep(move->config_to, DS_NAME_BYTES, to))
		goto free_move;
	for (uint32_t i = 0; i < move->disk_count; i++)
		if (!read_disk(json_array_get(disks, i), &move->disks[i]))
			goto free_move;
	return move;

free_move:
	vm_move_free(move);
	return NULL;
}

/* ---- "scsi0:0=DS,scsi1:0=DS:path" ---- */

/* Does text begin with "KEY=", as drives are called?  The key's length, or 0. */
static size_t key_at(const char *text)
{
	size_t letters = strspn(text, "abcdefghijklmnopqrstuvwxyz");
	size_t number = letters ? strspn(text + letters, "0123456789") : 0;
	size_t unit, end = letters + number;

	if (!number || text[end] != ':')
		return 0;
	unit = strspn(text + end + 1, "0123456789");
	return unit && text[end + 1 + unit] == '=' ? end + 1 + unit : 0;
}

/* The word's length: to the comma before the next key, for paths may hold commas. */
static size_t word_length(const char *text)
{
	const char *at = text;

	while ((at = strchr(at, ',')))
		if (key_at(++at))
			return (size_t)(at - text) - 1;
	return strlen(text);
}

static const struct vm_drive *find_drive(const struct vm_config *config, const char *name,
					 size_t len)
{
	for (uint32_t i = 0; i < config->drive_count; i++)
		if (strlen(config->drives[i].name) == len &&
		    strncmp(config->drives[i].name, name, len) == 0)
			return &config->drives[i];
	return NULL;
}

static int judge_word(const char *word, size_t len, const struct vm_config *config,
		      struct err *err)
{
	size_t key = key_at(word);
	const struct vm_drive *drive = key ? find_drive(config, word, key) : NULL;

	if (!key)
		return err_set(err, ERR_BAD_FIELD, -EINVAL,
			       "'%.*s' in 'disks' is not KEY=DATASTORE or KEY=DATASTORE:path",
			       (int)MIN(len, (size_t)100), word);
	if (!drive || !drive->has_file || drive->media != VM_MEDIA_DISK)
		return err_set(err, ERR_BAD_FIELD, -EINVAL, "the machine has no disk '%.*s'",
			       (int)key, word);
	return 0;
}

/* Where the request sends that drive; false: nowhere, it stays.  *err: or that makes no sense. */
static int find_target(const struct vm_relocate_request *request, const struct vm_drive *drive,
		       char datastore[DS_NAME_BYTES], char path[DS_PATH_BYTES], struct err *err)
{
	const char *text = request->disks;
	char to[DS_NAME_BYTES + DS_PATH_BYTES];
	bool found = false;
	int rc = 0;

	snprintf(datastore, DS_NAME_BYTES, "%s", request->to ? request->to : drive->datastore);
	snprintf(path, DS_PATH_BYTES, "%s", drive->path);
	while (!rc && text && *text) {
		size_t len = word_length(text), key = key_at(text);

		if (key == strlen(drive->name) && strncmp(text, drive->name, key) == 0) {
			if (found)
				return err_set(err, ERR_BAD_FIELD, -EINVAL,
					       "'disks' names %s twice", drive->name);
			found = true;
			snprintf(to, sizeof(to), "%.*s",
				 (int)MIN(len - key - 1, sizeof(to) - 1), text + key + 1);
			if (strchr(to, ':')) {
				rc = ds_name_parse(to, datastore, path, err);
			} else if (ds_name_is_valid(to)) {
				snprintf(datastore, DS_NAME_BYTES, "%.64s", to);
			} else {
				rc = err_set(err, ERR_BAD_NAME, -EINVAL,
					     "'%.64s' is no name of a datastore", to);
			}
		}
		text += len;
		text += *text == ',';
	}
	return rc;
}

static int judge_words(const char *text, const struct vm_config *config, struct err *err)
{
	int rc = 0;

	while (!rc && text && *text) {
		size_t len = word_length(text);

		rc = judge_word(text, len, config, err);
		text += len;
		text += *text == ',';
	}
	return rc;
}

/* ---- the plan ---- */

struct plan_call {
	struct vm_relocate_request request;
	struct vm_move *move;
	void (*planned)(struct vm_entry *entry, struct vm_move *move,
			const struct vm_findings *warnings, const struct err *err, void *user);
	void *user;
};

static bool is_target(const struct vm_move *move, const char *datastore, const char *path)
{
	for (uint32_t i = 0; i < move->disk_count; i++)
		if (strcmp(move->disks[i].target_datastore, datastore) == 0 &&
		    strcmp(move->disks[i].target_path, path) == 0)
			return true;
	return false;
}

/* Two disks of one name, from two datastores: the second gets a number. */
static void make_unique(const struct vm_move *move, const char *datastore,
			char path[DS_PATH_BYTES])
{
	char stem[DS_PATH_BYTES], *dot;
	const char *last;
	size_t parent_len;

	if (!is_target(move, datastore, path))
		return;
	snprintf(stem, sizeof(stem), "%s", path);
	last = ds_path_last(stem, &parent_len);
	dot = strrchr(last, '.');
	for (unsigned number = 1; number <= VM_DRIVES_MAX && is_target(move, datastore, path);
	     number++)
		snprintf(path, DS_PATH_BYTES, "%.*s_%u%s",
			 dot ? (int)(dot - stem) : (int)(DS_PATH_BYTES - 16), stem, number,
			 dot ? dot : "");
}

static int plan_disk(struct plan_call *call, const struct vm_drive *drive, struct err *err)
{
	struct vm_move *move = call->move;
	struct vm_move_disk *disk = &move->disks[move->disk_count];
	int rc;

	if (!drive->has_file || drive->media != VM_MEDIA_DISK)
		return 0;
	rc = find_target(&call->request, drive, disk->target_datastore, disk->target_path, err);
	if (rc || (strcmp(disk->target_datastore, drive->datastore) == 0 &&
		   strcmp(disk->target_path, drive->path) == 0))
		return rc;
	if (strcmp(disk->target_path, drive->path) == 0)
		make_unique(move, disk->target_datastore, disk->target_path);
	memcpy(disk->drive, drive->name, sizeof(disk->drive));
	memcpy(disk->source_datastore, drive->datastore, sizeof(disk->source_datastore));
	memcpy(disk->source_path, drive->path, sizeof(disk->source_path));
	disk->provision = call->request.options.provision;
	move->disk_count++;
	return 0;
}

static void warn_staying(struct vm_op *op, const struct vm_move *move)
{
	for (uint32_t i = 0; i < op->config->drive_count; i++) {
		const struct vm_drive *drive = &op->config->drives[i];

		if (drive->has_file && drive->media != VM_MEDIA_DISK)
			vm_findings_add(&op->findings, false, ERR_VM_IGNORED,
					"%s: the image '%s:%.140s' stays where it is", drive->name,
					drive->datastore, drive->path);
	}
	if (move->keep_source && strcmp(move->config_from, move->config_to) != 0)
		vm_findings_add(&op->findings, false, ERR_VM_IGNORED,
				"the old VMX stays too, and names the disks' new places: do not "
				"register it beside the other");
}

static int make_plan(struct vm_op *op, struct plan_call *call, struct err *err)
{
	const struct vm_relocate_request *request = &call->request;
	const char *config_to = request->config_to ? request->config_to
			      : request->to	   ? request->to
						   : op->entry->datastore;
	int rc = judge_words(request->disks, op->config, err);

	if (rc)
		return rc;
	call->move = move_new(op->config->drive_count);
	if (!call->move)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	call->move->keep_source = request->options.keep_source;
	snprintf(call->move->config_from, DS_NAME_BYTES, "%s", op->entry->datastore);
	snprintf(call->move->config_to, DS_NAME_BYTES, "%s", config_to);
	for (uint32_t i = 0; !rc && i < op->config->drive_count; i++)
		rc = plan_disk(call, &op->config->drives[i], err);
	if (rc)
		return rc;
	if (!call->move->disk_count && strcmp(config_to, op->entry->datastore) == 0)
		return err_set(err, ERR_MOVE_SAME, -EINVAL, "all of '%.100s' is there already",
			       op->entry->name);
	warn_staying(op, call->move);
	return 0;
}

/* [worker of the new place] */
static void place_run(struct ds_job *base)
{
	struct vm_op *op = container_of(base, struct vm_op, base);
	char byte;
	size_t len;
	int rc = ds_file_read(base->datastore, op->path, &byte, 1, &len, &base->err);

	if (rc == -ENOENT)
		err_clear(&base->err);
	else if (rc == 0 || rc == -EFBIG)
		base->rc = err_set(&base->err, ERR_DISK_EXISTS, -EEXIST,
				   "'%s:%.160s' is there already", op->datastore, op->path);
	else
		base->rc = rc;
}

static void plan_made(struct vm_op *op)
{
	vm_op_end(op, NULL);
}

static void plan_loaded(struct vm_op *op)
{
	struct plan_call *call = op->user;

	if (make_plan(op, call, &op->err)) {
		vm_op_end(op, &op->err);
	} else if (strcmp(call->move->config_to, op->entry->datastore) == 0) {
		plan_made(op);
	} else {
		snprintf(op->datastore, sizeof(op->datastore), "%s", call->move->config_to);
		vm_op_run(op, place_run, plan_made);
	}
}

static void plan_run(struct ds_job *base)
{
	base->rc = vm_op_load(container_of(base, struct vm_op, base));
}

static void plan_done(struct vm_entry *entry, const struct vm_config *config,
		      const struct vm_findings *findings, const struct err *err, void *user)
{
	struct plan_call *call = user;

	(void)config;
	if (err) {
		vm_move_free(call->move);
		call->move = NULL;
	}
	call->planned(entry, call->move, findings, err, call->user);
	free(call);
}

void vms_move_plan(struct vm_entry *entry, const struct vm_relocate_request *request,
		   void (*planned)(struct vm_entry *entry, struct vm_move *move,
				   const struct vm_findings *warnings, const struct err *err,
				   void *user),
		   void *user)
{
	struct plan_call *call = calloc(1, sizeof(*call));
	struct err err = { 0 };
	struct vm_op *op;

	if (!call || entry->move) {
		if (!call)
			err_set(&err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
		else
			err_set(&err, ERR_VM_MOVING, -EBUSY, "'%.100s' is being relocated%s%s already",
				entry->name, entry->move->task[0] ? " by " : "",
				entry->move->task);
		free(call);
		planned(entry, NULL, NULL, &err, user);
		return;
	}
	*call = (struct plan_call){ .request = *request, .planned = planned, .user = user };
	op = vm_op_new(entry->vms, entry, plan_done, call);
	if (op)
		vm_op_run(op, plan_run, plan_loaded);
}
