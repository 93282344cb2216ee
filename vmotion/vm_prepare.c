/* SPDX-License-Identifier: Apache-2.0 */
#include "vmotion/vm_prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <linux/sockios.h>
#include <unistd.h>

#define LOG_KEEP_BYTES (1 << 20)
#define EFI_VARS_MAX_BYTES (4 << 20)

/* ---- paths ---- */

void vm_console_path(const struct vm_setup *setup, const char *id, char out[108])
{
	snprintf(out, 108, "%s/console/%s.sock", setup->run_dir, id);
}

void vm_disk_socket_path(const struct vm_setup *setup, const char *id, const char *drive,
			 char out[108])
{
	snprintf(out, 108, "%s/vms/%s/%s.sock", setup->run_dir, id, drive);
}

void vm_log_path(const struct vm_setup *setup, const char *id, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, "%s/vms/%s/qemu.log", setup->state_dir, id);
}

static int failed(struct err *err, int rc, const char *what, const char *path)
{
	return err_set(err, ERR_VM_START, rc, "cannot %s '%.180s': %s", what, path,
		       err_strerror(rc));
}

static int make_dir(const char *path, mode_t mode, struct err *err)
{
	if (mkdir(path, mode) && errno != EEXIST)
		return failed(err, -errno, "make the folder", path);
	return chmod(path, mode) ? failed(err, -errno, "set the mode of", path) : 0;
}

/*
 * The set-group-id bit hands the folder's group to the sockets made in it: QEMU's user may
 * connect to them, however often they are made anew.
 */
int vm_prepare_run_dir(const struct vm_setup *setup, const char *id, struct err *err)
{
	char path[PATH_MAX];
	int rc;

	snprintf(path, sizeof(path), "%s/vms", setup->run_dir);
	rc = make_dir(path, 0711, err);
	if (rc)
		return rc;
	snprintf(path, sizeof(path), "%s/vms/%s", setup->run_dir, id);
	rc = make_dir(path, 0700, err);
	if (rc || !setup->drop)
		return rc;
	if (chown(path, (uid_t)-1, setup->gid) || chmod(path, 02710))
		return failed(err, -errno, "give QEMU's group", path);
	return 0;
}

static int prepare_dirs(const struct vm_setup *setup, const char *id, struct err *err)
{
	char path[PATH_MAX];
	int rc = vm_prepare_run_dir(setup, id, err);

	snprintf(path, sizeof(path), "%s/console", setup->run_dir);
	if (!rc)
		rc = make_dir(path, 0755, err);
	snprintf(path, sizeof(path), "%s/vms", setup->state_dir);
	if (!rc)
		rc = make_dir(path, 0700, err);
	snprintf(path, sizeof(path), "%s/vms/%s", setup->state_dir, id);
	if (!rc)
		rc = make_dir(path, 0700, err);
	return rc;
}

/* ---- sockets and logs ---- */

/* A socket of a QEMU that has ended may be in the way. */
static int listen_on(const char *path, mode_t mode, int *out, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd, rc;

	if (strlen(path) >= sizeof(address.sun_path))
		return failed(err, -ENAMETOOLONG, "listen on", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (unlink(path) && errno != ENOENT)
		return failed(err, -errno, "replace", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return failed(err, -errno, "make a socket for", path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || chmod(path, mode) ||
	    listen(fd, 4)) {
		rc = failed(err, -errno, "listen on", path);
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

static int open_sockets(const struct vm_setup *setup, const char *id, struct vm_prepared *out,
			struct err *err)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	int rc;

	vm_disk_socket_path(setup, id, "qmp", path);
	rc = listen_on(path, 0600, &out->fds[VM_FD_QMP], err);
	if (rc)
		return rc;
	vm_console_path(setup, id, path);
	rc = listen_on(path, 0660, &out->fds[VM_FD_SERIAL], err);
	if (!rc && setup->has_console_gid && chown(path, (uid_t)-1, setup->console_gid))
		rc = failed(err, -errno, "give its group", path);
	return rc;
}

/* The one before is kept, when this one has grown. */
static int open_log(const struct vm_setup *setup, const char *id, const char *name, int *out,
		    struct err *err)
{
	char path[PATH_MAX], old[PATH_MAX + 8];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/vms/%s/%s", setup->state_dir, id, name);
	snprintf(old, sizeof(old), "%s.old", path);
	if (lstat(path, &st) == 0 && st.st_size > LOG_KEEP_BYTES && rename(path, old))
		return failed(err, -errno, "put aside", path);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return failed(err, -errno, "open", path);
	*out = fd;
	return 0;
}

/* ---- kernels ---- */

static bool lies_below(const char *real, const char *const *roots)
{
	for (; roots && *roots; roots++) {
		CLEANUP_FREE char *root = realpath(*roots, NULL);
		size_t len = root ? strlen(root) : 0;

		if (len && strncmp(real, root, len) == 0 && real[len] == '/')
			return true;
	}
	return false;
}

/* Judged on where the opened file really is, so no link can be changed in between. */
static int open_kernel(const struct vm_setup *setup, const char *path, int *out, struct err *err)
{
	char link[64], real[PATH_MAX];
	struct stat st;
	ssize_t len;
	int fd;

	if (path[0] == '\0')
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return err_set(err, ERR_VM_KERNEL, -errno, "cannot open '%.180s': %s", path,
			       err_strerror(-errno));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, real, sizeof(real) - 1);
	real[len < 0 ? 0 : len] = '\0';
	if (len <= 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) ||
	    !lies_below(real, setup->host->kernel_roots)) {
		close(fd);
		return err_set(err, ERR_VM_KERNEL, -EPERM,
			       "'%.160s' is no file below one of this host's kernel_roots", path);
	}
	*out = fd;
	return 0;
}

/* ---- EFI variables: the machine's own, from the template at its first start ---- */

static int copy_template(const char *template, int to_fd, struct err *err)
{
	CLEANUP_FREE char *bytes = malloc(EFI_VARS_MAX_BYTES);
	CLEANUP_CLOSE int fd = open(template, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 && bytes ? read(fd, bytes, EFI_VARS_MAX_BYTES) : -1;

	if (len <= 0 || write(to_fd, bytes, (size_t)len) != len || fsync(to_fd))
		return err_set(err, ERR_VM_FIRMWARE, -EIO, "cannot copy '%.180s'", template);
	return 0;
}

static int open_efi_vars(const struct vm_setup *setup, const char *id, struct vm_prepared *out,
			 struct err *err)
{
	char path[PATH_MAX], made[PATH_MAX + 8];
	int fd, rc;

	if (!setup->efi_vars)
		return err_set(err, ERR_VM_FIRMWARE, -ENOENT,
			       "this host has no template of EFI variables");
	snprintf(path, sizeof(path), "%s/vms/%s/efi-vars.fd", setup->state_dir, id);
	snprintf(made, sizeof(made), "%s.new", path);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT) {
		fd = open(made, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return failed(err, -errno, "make", made);
		rc = copy_template(setup->efi_vars, fd, err);
		if (!rc && rename(made, path))
			rc = failed(err, -errno, "name", path);
		if (rc) {
			close(fd);
			return rc;
		}
	}
	if (fd < 0)
		return failed(err, -errno, "open", path);
	out->fds[VM_FD_EFI_VARS] = fd;
	return 0;
}

/* ---- taps: gone by themselves when QEMU has ended ---- */

static int bridge_add(const char *bridge, const char *tap)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { 0 };

	if (fd < 0)
		return -errno;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", bridge);
	request.ifr_ifindex = (int)if_nametoindex(tap);
	if (ioctl(fd, SIOCBRADDIF, &request))
		return -errno;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", tap);
	if (ioctl(fd, SIOCGIFFLAGS, &request))
		return -errno;
	request.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &request) ? -errno : 0;
}

static int open_tap(const struct qemu_network *network, unsigned number, int *out,
		    struct err *err)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	int rc;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "bmtap%%d");
	rc = fd < 0 || ioctl(fd, TUNSETIFF, &request) ? -errno : 0;
	if (!rc)
		rc = bridge_add(network->bridge, request.ifr_name);
	if (rc) {
		if (fd >= 0)
			close(fd);
		return err_set(err, ERR_VM_NETWORK, rc, "ethernet%u: cannot join the bridge '%s': %s",
			       number, network->bridge, err_strerror(rc));
	}
	*out = fd;
	return 0;
}

static int open_taps(const struct vm_setup *setup, const struct vm_config *config,
		     struct vm_prepared *out, struct err *err)
{
	int rc = 0;

	for (uint32_t i = 0; !rc && i < config->nic_count; i++) {
		const struct qemu_network *network =
			qemu_network_find(setup->host, config->nics[i].network);

		if (config->nics[i].connected && network && network->kind == QEMU_NETWORK_BRIDGE)
			rc = open_tap(network, config->nics[i].number, &out->fds[VM_FD_TAP + i],
				      err);
	}
	return rc;
}

/* ---- all of it ---- */

void vm_prepared_release(struct vm_prepared *prepared)
{
	for (int i = 0; i < VM_FD_COUNT; i++) {
		if (prepared->fds[i] >= 0)
			close(prepared->fds[i]);
		prepared->fds[i] = -1;
	}
	if (prepared->log_fd >= 0)
		close(prepared->log_fd);
	prepared->log_fd = -1;
}

int vm_prepare(const struct vm_setup *setup, const char *id, const struct vm_config *config,
	       struct vm_prepared *out, struct err *err)
{
	struct vm_prepared prepared = { .log_fd = -1 };
	int rc;

	for (int i = 0; i < VM_FD_COUNT; i++)
		prepared.fds[i] = -1;
	rc = prepare_dirs(setup, id, err);
	if (!rc)
		rc = open_log(setup, id, "qemu.log", &prepared.log_fd, err);
	if (!rc)
		prepared.log_at = (uint64_t)MAX(lseek(prepared.log_fd, 0, SEEK_END), 0);
	if (!rc)
		rc = open_log(setup, id, "serial.log", &prepared.fds[VM_FD_SERIAL_LOG], err);
	if (!rc)
		rc = open_kernel(setup, config->kernel, &prepared.fds[VM_FD_KERNEL], err);
	if (!rc)
		rc = open_kernel(setup, config->initrd, &prepared.fds[VM_FD_INITRD], err);
	if (!rc && config->firmware == VM_FIRMWARE_EFI)
		rc = open_efi_vars(setup, id, &prepared, err);
	if (!rc)
		rc = open_taps(setup, config, &prepared, err);
	if (!rc)
		rc = open_sockets(setup, id, &prepared, err);
	if (rc)
		vm_prepared_release(&prepared);
	else
		*out = prepared;
	return rc;
}

struct qemu_fds vm_prepared_numbers(const struct vm_prepared *prepared)
{
	int numbers[VM_FD_COUNT];
	struct qemu_fds fds;

	for (int i = 0; i < VM_FD_COUNT; i++)
		numbers[i] = prepared->fds[i] < 0 ? -1 : QEMU_FD_FIRST + i;
	fds = (struct qemu_fds){ .qmp = numbers[VM_FD_QMP],
				 .serial = numbers[VM_FD_SERIAL],
				 .serial_log = numbers[VM_FD_SERIAL_LOG],
				 .kernel = numbers[VM_FD_KERNEL],
				 .initrd = numbers[VM_FD_INITRD],
				 .efi_vars = numbers[VM_FD_EFI_VARS] };
	memcpy(fds.taps, numbers + VM_FD_TAP, sizeof(fds.taps));
	return fds;
}

/* ---- last words ---- */

void vm_log_tail(const struct vm_setup *setup, const char *id, uint64_t log_at, char *out,
		 size_t out_bytes)
{
	char path[PATH_MAX];
	struct stat st;
	ssize_t got = 0;
	off_t from;

	vm_log_path(setup, id, path);
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0 && fstat(fd, &st) == 0) {
		from = MAX(st.st_size - (off_t)out_bytes + 1, (off_t)log_at);
		got = pread(fd, out, out_bytes - 1, from);
	}
	out[got > 0 ? got : 0] = '\0';
	for (char *c = out; *c; c++)
		if ((unsigned char)*c < 0x20)
			*c = ' ';
	for (size_t len = strlen(out); len && out[len - 1] == ' '; len--)
		out[len - 1] = '\0';
}
