/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_args_tool QEMU MACHINE NBD-SOCKET EXPORT VMX... - does QEMU take the words made of each VMX?
 *
 * Every drive is the one NBD export; networks are not wired.  QEMU is started, asked for its
 * status (it waits for 'cont') and ended.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmotion/qemu_args.h"
#include "vmotion/qmp.h"

static struct vm_config *config_of(const char *path)
{
	char *bytes = malloc(VMX_TEXT_MAX_BYTES);
	FILE *file = fopen(path, "rb");
	struct vm_findings findings = { 0 };
	struct vm_config *config = NULL;
	struct vmx *vmx = NULL;
	struct err err = { 0 };
	size_t len;

	CHECK(bytes && file);
	len = fread(bytes, 1, VMX_TEXT_MAX_BYTES, file);
	fclose(file);
	if (vmx_parse(bytes, len, path, &vmx, &err) ||
	    vm_config_read(vmx, "ds", "vm/vm.vmx", &config, &findings)) {
		printf("%s: %s\n", path, vmx ? vm_findings_first_error(&findings)->cause : err.cause);
		exit(1);
	}
	vmx_free(vmx);
	free(bytes);
	return config;
}

struct talk {
	struct loop *loop;
	struct qmp *qmp;
	bool prelaunch;
};

static void told(const json_t *result, const struct err *err, void *user)
{
	struct talk *talk = user;
	const char *status = json_string_value(json_object_get(result, "status"));

	(void)err;
	talk->prelaunch = status && strcmp(status, "prelaunch") == 0;
	qmp_command(talk->qmp, "quit", NULL, 10 * NS_PER_S, NULL, NULL);
}

static void ready(void *user)
{
	struct talk *talk = user;

	qmp_command(talk->qmp, "query-status", NULL, 10 * NS_PER_S, told, talk);
}

static void closed(const struct err *err, void *user)
{
	struct talk *talk = user;

	(void)err;
	loop_stop(talk->loop);
}

/* The monitor is a socket pair: QEMU's chardev takes a connected one as a client's. */
static bool run(struct qemu_args *args, int ours, int theirs, int serial_log)
{
	struct talk talk = { .loop = loop_new() };
	struct qmp_options options = { .loop = talk.loop, .ready = ready, .closed = closed,
				       .user = &talk, .ready_timeout_ns = 30 * NS_PER_S };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		dup2(theirs, 10);
		dup2(serial_log, 12);
		execv(args->words[0], args->words);
		_exit(127);
	}
	close(theirs);
	CHECK(!qmp_new(ours, &options, &talk.qmp, NULL));
	loop_run(talk.loop);
	qmp_free(talk.qmp);
	loop_free(talk.loop);
	CHECK(waitpid(pid, &status, 0) == pid);
	return talk.prelaunch && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* What needs a listening socket becomes simpler ones: it is the hardware that is tried. */
static void simplify(struct qemu_args *args)
{
	for (uint32_t i = 0; i < args->count; i++) {
		const char *word = args->words[i], *other = NULL;

		if (strncmp(word, "socket,id=qmp,", 14) == 0)
			other = "socket,id=qmp,fd=10";
		else if (strncmp(word, "socket,id=serial0,", 18) == 0)
			other = "null,id=serial0,logfile=/dev/fdset/1,logappend=on";
		if (!other)
			continue;
		free(args->words[i]);
		args->words[i] = strdup(other);
	}
}

int main(int argc, char **argv)
{
	const char *machines[] = { argv[2], NULL };
	struct qemu_host host = { .binary = argv[1], .accel = "tcg", .machine = argv[2],
				  .machines = machines, .sandbox = true, .reconnect_s = 10 };
	int failures = 0;

	if (argc < 6)
		return 2;
	for (int i = 5; i < argc; i++) {
		struct vm_config *config = config_of(argv[i]);
		struct qemu_place places[VM_DRIVES_MAX] = { 0 };
		struct qemu_run a_run = { .id = "vm1", .places = places,
					  .fds = { .qmp = 10, .serial = 11, .serial_log = 12,
						   .kernel = -1, .initrd = -1, .efi_vars = -1 } };
		int log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
		struct qemu_args args;
		int pair[2];
		bool ok;

		config->memory_mib = 64;
		config->firmware = VM_FIRMWARE_BIOS;
		for (uint32_t d = 0; d < config->drive_count; d++)
			if (config->drives[d].has_file)
				places[d] = (struct qemu_place){ argv[3], argv[4], false };
		CHECK(log_fd >= 0);
		CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
		CHECK(!qemu_args_make(config, &host, &a_run, &args, NULL));
		simplify(&args);
		ok = run(&args, pair[0], pair[1], log_fd);
		printf("%s %s\n", ok ? "[       OK ]" : "FAIL", argv[i]);
		failures += !ok;
		qemu_args_release(&args);
		close(log_fd);
		free(config);
	}
	return failures != 0;
}
