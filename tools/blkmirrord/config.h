/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - what the daemon was told: defaults, then files, then the command line.
 *
 * Files: FILE (/etc/blkmirror/blkmirrord.conf) and FILE's folder conf.d/ *.conf in order of
 * name; INI, sections [daemon], [limits], [vm] and [networks].  An unknown section, key or value is refused
 * with file and line.  The default file may be missing, a named one may not.
 */
#ifndef BM_CONFIG_H
#define BM_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "blkmirror/base/err.h"
#include "blkmirror/base/log.h"
#include "vmotion/qemu_args.h"
#include "vmotion/socket_holder.h"

#define CONFIG_DEFAULT_FILE "/etc/blkmirror/blkmirrord.conf"
#define CONFIG_ROOTS_MAX 32
#define CONFIG_ADDRESS_BYTES 128

/* How machines are run; "" and NULL: not set. */
struct vm_settings {
	char qemu[PATH_MAX];            /* the program */
	char accel[8];                  /* "auto", "kvm", "tcg" */
	char cpu[128];
	char user[64];                  /* who runs QEMU */
	char efi_code[PATH_MAX], efi_vars[PATH_MAX];
	char *kernel_roots[CONFIG_ROOTS_MAX + 1];       /* NULL-terminated; owned */
	uint32_t kernel_root_count;
	bool sandbox;
	uint32_t reconnect_s;
	struct qemu_network networks[QEMU_NETWORKS_MAX];
	uint32_t network_count;
};

struct daemon_config {
	char file[PATH_MAX];
	bool file_named;                /* by --config: must exist */
	char state_dir[PATH_MAX];
	char run_dir[PATH_MAX];
	char listen[CONFIG_ADDRESS_BYTES];      /* "": not asked */
	char http[CONFIG_ADDRESS_BYTES];        /* "": not asked */
	char group[64];                 /* of the socket, when it exists */
	enum socket_holder_kind socket_holder;  /* who keeps the exports' sockets over a restart */
	uint32_t socket_linger_s;       /* how long, without a daemon; systemd: its own rules */
	uint32_t io_threads;            /* 0: the disk service's choice */
	enum log_level log_level;
	char *allowed_roots[CONFIG_ROOTS_MAX + 1];      /* NULL-terminated; owned */
	uint32_t allowed_root_count;
	uint32_t host_budget;           /* units; a relocation takes 4 */
	uint32_t datastore_budget;      /* units; a relocation takes 16 on each side */
	uint32_t tasks_kept;
	uint32_t events_kept;
	struct vm_settings vm;
};

void config_init(struct daemon_config *config);
void config_release(struct daemon_config *config);

/*
 * Apply one setting, as from "[section] key = value".  0, or -EINVAL with *err
 * (ERR_BAD_CONFIG).
 */
MUST_CHECK int config_set(struct daemon_config *config, const char *section, const char *key,
			  const char *value, struct err *err);

/* Read config->file and its conf.d.  0, or -errno with *err (ERR_BAD_CONFIG). */
MUST_CHECK int config_read_files(struct daemon_config *config, struct err *err);

/* Is an absolute path below an allowed root (or are there no roots)? */
bool config_allows_path(const struct daemon_config *config, const char *path);

/* "127.0.0.1:9105" or "[::1]:9105" into host and port. */
bool config_split_address(const char *text, char host[CONFIG_ADDRESS_BYTES], uint16_t *port);

#endif
