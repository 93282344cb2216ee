/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_tool.c - drive the disk service and relocations from a script, without the daemon.
 *
 * usage: move_tool STATE-DIR RUN-DIR NAME=URL...          then commands on stdin, one per line:
 *
 *   attach DS:PATH ID           ->  attached ID URI
 *   detach ID                   ->  detached ID
 *   move ID DS:PATH [hold|keep [BYTES-A-SECOND]]
 *                               ->  moving ID, and later: held | completed STUN-US | failed BM-...
 *                                   keep: held, and the source is kept
 *   complete | cancel | pause | resume
 *   status                      ->  status STATE COPIED DIRTY BM-ID CAUSE | REMEDY
 *   fault ERRNO                 writes to targets fail with it; 0: no more (MOVE_TOOL_FAULTS=1)
 *   recover                     ->  recovered, waiting N
 *   quit                        (cancels the move and detaches everything first)
 *
 * What is refused is answered with "error BM-NNNN cause".
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/ds_fault.h"
#include "vmotion/disk.h"
#include "vmotion/relocate.h"
#include "vmotion/relocate_recover.h"

#define DATASTORES_MAX 8
#define LINE_BYTES 4096

struct tool {
	struct loop *loop;
	struct watch input;
	char line[LINE_BYTES];
	size_t line_bytes;
	struct datastore *ds[DATASTORES_MAX];
	unsigned ds_count;
	struct disk_service *service;
	const char *state_dir;
	uint8_t host_uuid[16];
	struct relocation *relocation;
	enum relocate_state last_state;
	struct recovery *recovery;
	unsigned moves;
	bool quitting;
};

static void say_error(const struct err *err)
{
	printf("error %s %s\n", err_name(err->id), err->cause);
}

static struct datastore *find_datastore(const char *name, void *user)
{
	struct tool *tool = user;

	for (unsigned i = 0; i < tool->ds_count; i++)
		if (strcmp(datastore_name(tool->ds[i]), name) == 0)
			return tool->ds[i];
	return NULL;
}

static struct datastore *parse_place(struct tool *tool, const char *text, char path[DS_PATH_BYTES])
{
	char name[DS_NAME_BYTES];
	struct datastore *ds;
	struct err err;

	if (ds_name_parse(text, name, path, &err)) {
		say_error(&err);
		return NULL;
	}
	ds = find_datastore(name, tool);
	if (!ds)
		printf("error no datastore %s\n", name);
	return ds;
}

static struct disk *parse_disk(struct tool *tool, const char *id)
{
	struct disk *disk = id ? disk_find(tool->service, id) : NULL;

	if (!disk)
		printf("error no disk %s\n", id ? id : "");
	return disk;
}

/* ---- attach, detach, quit ---- */

static void attached(struct disk *disk, const struct err *err, void *user)
{
	struct disk_info info;

	(void)user;
	if (!disk) {
		say_error(err);
		return;
	}
	disk_info(disk, &info);
	printf("attached %s %s\n", info.id, info.uri);
}

static void attach(struct tool *tool, const char *place, const char *id)
{
	char path[DS_PATH_BYTES];
	struct datastore *ds = parse_place(tool, place, path);
	struct disk_attach_spec spec = { .datastore = ds, .path = path, .id = id,
					 .export_kind = DISK_EXPORT_NBD, .wait_lock = true };

	if (ds)
		disk_attach(tool->service, &spec, attached, tool);
}

static void quit_next(struct tool *tool);

static void detached(const struct err *err, void *user)
{
	struct tool *tool = user;

	if (err)
		say_error(err);
	else
		printf("detached\n");
	if (err && tool->quitting)
		exit(1);                /* a move that lingers holds it: as a kill would */
	if (tool->quitting)
		quit_next(tool);
}

/* A move is cancelled first; one that is past its commit finishes.  changed() goes on. */
static void quit_next(struct tool *tool)
{
	struct disk *disk = disk_next(tool->service, NULL);
	struct err err;

	if (!tool->quitting)
		watch_stop(&tool->input);
	tool->quitting = true;
	if (tool->relocation) {
		if (relocation_cancel(tool->relocation, &err))
			say_error(&err);
		return;
	}
	if (disk)
		disk_detach(disk, true, detached, tool);
	else
		loop_stop(tool->loop);
}

/* ---- moves ---- */

static void changed(struct relocation *relocation, void *user)
{
	struct tool *tool = user;
	struct relocate_status status;

	relocation_status(relocation, &status);
	if (status.state == tool->last_state)
		return;
	tool->last_state = status.state;
	if (status.state == RELOCATE_RUNNING || status.state == RELOCATE_HELD ||
	    status.state == RELOCATE_PAUSED) {
		printf("%s\n", relocate_state_name(status.state));
		return;
	}
	if (status.state == RELOCATE_COMPLETED)
		printf("completed stun_us=%llu verified=%d mirrored_writes=%llu\n",
		       (unsigned long long)status.stun_ns / 1000, status.disks[0].verified,
		       (unsigned long long)status.disks[0].stats.mirrored_writes);
	else
		printf("%s %s %s\n", relocate_state_name(status.state), err_name(status.error.id),
		       status.error.cause);
	relocation_free(relocation);
	tool->relocation = NULL;
	if (tool->quitting)
		quit_next(tool);
}

static void move(struct tool *tool, const char *id, const char *place, const char *how,
		 const char *rate)
{
	char path[DS_PATH_BYTES], task_id[16];
	struct disk *disk = parse_disk(tool, id);
	struct datastore *ds = place ? parse_place(tool, place, path) : NULL;
	struct relocate_disk_spec disk_spec = { .disk = disk, .target_datastore = ds,
						.target_path = path };
	struct relocate_spec spec = {
		.disks = &disk_spec, .disk_count = 1, .task_id = task_id,
		.state_dir = tool->state_dir,
		.keep_source = how && strcmp(how, "keep") == 0,
		.options = { .bandwidth_bytes_per_s = rate ? strtoull(rate, NULL, 10) :
							     MOVER_RATE_UNLIMITED,
			     .verify = true, .hold = how != NULL, .max_stun_ns = 2 * NS_PER_S },
	};
	struct err err;

	if (!disk || !ds)
		return;
	snprintf(task_id, sizeof(task_id), "t%u", ++tool->moves);
	memcpy(spec.host_uuid, tool->host_uuid, sizeof(spec.host_uuid));
	tool->last_state = RELOCATE_RUNNING;
	if (relocate_start(tool->service, &spec, changed, tool, &tool->relocation, &err))
		say_error(&err);
	else
		printf("moving %s\n", id);
}

static void verb(struct tool *tool, int (*function)(struct relocation *relocation, struct err *err))
{
	struct err err;

	if (!tool->relocation)
		printf("error no relocation\n");
	else if (function(tool->relocation, &err))
		say_error(&err);
}

static void say_status(struct tool *tool)
{
	struct relocate_status status;

	if (!tool->relocation) {
		printf("error no relocation\n");
		return;
	}
	relocation_status(tool->relocation, &status);
	printf("status %s %llu %llu %s %s | %s\n", relocate_state_name(status.state),
	       (unsigned long long)status.disks[0].stats.copied_bytes,
	       (unsigned long long)status.disks[0].stats.dirty_bytes,
	       err_name(status.degraded_why.id), status.degraded_why.cause,
	       status.degraded_why.remedy);
}

/* ---- recovery ---- */

static void recovered(struct recovery *recovery, const struct err *err, void *user)
{
	struct tool *tool = user;
	struct recover_entry entry;

	if (err)
		say_error(err);
	for (uint32_t i = 0; i < recovery_count(recovery); i++) {
		recovery_entry(recovery, i, &entry);
		printf("waits %s %s %s\n", entry.id, recover_side_name(entry.authoritative),
		       entry.why.cause);
	}
	printf("recovered, waiting %u\n", recovery_count(recovery));
	recovery_free(recovery);
	tool->recovery = NULL;
}

static void recover(struct tool *tool)
{
	struct recovery_options options = { .state_dir = tool->state_dir,
					    .find_datastore = find_datastore, .user = tool };
	struct err err;

	if (recovery_new(tool->service, &options, &tool->recovery, &err))
		say_error(&err);
	else
		recovery_run(tool->recovery, recovered, tool);
}

/* ---- commands ---- */

static void run_command(struct tool *tool, char *line)
{
	char *save, *name = strtok_r(line, " ", &save);
	char *first = strtok_r(NULL, " ", &save), *second = strtok_r(NULL, " ", &save);
	char *third = strtok_r(NULL, " ", &save), *fourth = strtok_r(NULL, " ", &save);

	if (!name)
		return;
	if (strcmp(name, "attach") == 0 && second)
		attach(tool, first, second);
	else if (strcmp(name, "detach") == 0 && parse_disk(tool, first))
		disk_detach(disk_find(tool->service, first), false, detached, tool);
	else if (strcmp(name, "move") == 0)
		move(tool, first, second, third, fourth);
	else if (strcmp(name, "complete") == 0)
		verb(tool, relocation_complete);
	else if (strcmp(name, "cancel") == 0)
		verb(tool, relocation_cancel);
	else if (strcmp(name, "pause") == 0)
		verb(tool, relocation_pause);
	else if (strcmp(name, "resume") == 0)
		verb(tool, relocation_resume);
	else if (strcmp(name, "status") == 0)
		say_status(tool);
	else if (strcmp(name, "fault") == 0 && first)
		ds_fault_fail_io(-atoi(first));
	else if (strcmp(name, "recover") == 0)
		recover(tool);
	else if (strcmp(name, "quit") == 0)
		quit_next(tool);
	else
		printf("error unknown command %s\n", name);
}

static void input_ready(struct watch *watch, unsigned events)
{
	struct tool *tool = container_of(watch, struct tool, input);
	ssize_t got = read(0, tool->line + tool->line_bytes,
			   sizeof(tool->line) - 1 - tool->line_bytes);
	char *end;

	(void)events;
	if (got <= 0) {
		quit_next(tool);
		return;
	}
	tool->line_bytes += (size_t)got;
	tool->line[tool->line_bytes] = '\0';
	while ((end = strchr(tool->line, '\n'))) {
		*end = '\0';
		run_command(tool, tool->line);
		tool->line_bytes -= (size_t)(end + 1 - tool->line);
		memmove(tool->line, end + 1, tool->line_bytes + 1);
	}
}

static void open_datastore(struct tool *tool, char *argument)
{
	char *url = strchr(argument, '=');
	struct ds_config config = { .name = argument };
	struct err err;

	CHECK(url);
	CHECK(tool->ds_count < DATASTORES_MAX);
	*url = '\0';
	config.url = url + 1;
	memcpy(config.host_uuid, tool->host_uuid, sizeof(config.host_uuid));
	if (datastore_open(tool->loop, &config, &tool->ds[tool->ds_count], &err)) {
		say_error(&err);
		exit(1);
	}
	if (getenv("MOVE_TOOL_FAULTS"))
		ds_fault_wrap(tool->ds[tool->ds_count]);
	tool->ds_count++;
}

int main(int argc, char **argv)
{
	static struct tool tool = { .host_uuid = { 7, 7, 7 } };
	struct disk_service_options options = { .run_dir = argc > 2 ? argv[2] : "" };
	struct err err;

	if (argc < 4) {
		fprintf(stderr, "usage: move_tool STATE-DIR RUN-DIR NAME=URL...\n");
		return 2;
	}
	ds_fault_hangable(getenv("MOVE_TOOL_FAULTS") != NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	tool.state_dir = argv[1];
	tool.loop = loop_new();
	CHECK(tool.loop);
	for (int i = 3; i < argc; i++)
		open_datastore(&tool, argv[i]);
	if (disk_service_new(tool.loop, &options, &tool.service, &err)) {
		say_error(&err);
		return 1;
	}
	if (watch_start(&tool.input, tool.loop, 0, WATCH_READ, input_ready))
		return 1;
	loop_run(tool.loop);
	disk_service_free(tool.service);
	while (tool.ds_count--)
		datastore_close(tool.ds[tool.ds_count]);
	loop_free(tool.loop);
	return 0;
}
