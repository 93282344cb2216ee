/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/blkmirrord/config.h"

#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void config_init(struct daemon_config *config)
{
	memset(config, 0, sizeof(*config));
	snprintf(config->file, sizeof(config->file), "%s", CONFIG_DEFAULT_FILE);
	snprintf(config->state_dir, sizeof(config->state_dir), "/var/lib/blkmirror");
	snprintf(config->run_dir, sizeof(config->run_dir), "/run/blkmirror");
	snprintf(config->group, sizeof(config->group), "blkmirror");
	config->log_level = LOG_LEVEL_INFO;
	config->socket_holder = SOCKET_HOLDER_AUTO;
	config->socket_linger_s = 300;
	config->host_budget = 8;
	config->datastore_budget = 128;
	config->tasks_kept = 10000;
	config->events_kept = 10000;
	snprintf(config->vm.qemu, sizeof(config->vm.qemu), "/usr/bin/qemu-system-x86_64");
	snprintf(config->vm.accel, sizeof(config->vm.accel), "auto");
	config->vm.sandbox = true;
	config->vm.reconnect_s = 300;
}

static void roots_release(char **roots, uint32_t *count)
{
	for (uint32_t i = 0; i < *count; i++)
		free(roots[i]);
	*count = 0;
	roots[0] = NULL;
}

void config_release(struct daemon_config *config)
{
	roots_release(config->allowed_roots, &config->allowed_root_count);
	roots_release(config->vm.kernel_roots, &config->vm.kernel_root_count);
}

/* ---- values ---- */

static int set_text(char *out, size_t out_bytes, const char *key, const char *value,
		    struct err *err)
{
	if (value[0] == '\0' || strlen(value) >= out_bytes)
		return err_set(err, ERR_BAD_CONFIG, -EINVAL, "'%s' must have 1 to %zu bytes", key,
			       out_bytes - 1);
	snprintf(out, out_bytes, "%s", value);
	return 0;
}

static int set_dir(char *out, size_t out_bytes, const char *key, const char *value,
		   struct err *err)
{
	if (value[0] != '/')
		return err_set(err, ERR_BAD_CONFIG, -EINVAL, "'%s' must be an absolute path, not '%s'",
			       key, value);
	return set_text(out, out_bytes, key, value, err);
}

static int set_number(uint32_t *out, uint32_t min, uint32_t max, const char *key,
		      const char *value, struct err *err)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(value, &end, 10);
	if (errno || end == value || *end || value[0] == '-' || number < min || number > max)
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "'%s' must be a number from %u to %u, not '%s'", key, min, max, value);
	*out = (uint32_t)number;
	return 0;
}

static int set_address(char *out, const char *key, const char *value, struct err *err)
{
	char host[CONFIG_ADDRESS_BYTES];
	uint16_t port;

	if (!config_split_address(value, host, &port))
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "'%s' must be ADDRESS:PORT, not '%s'", key, value);
	return set_text(out, CONFIG_ADDRESS_BYTES, key, value, err);
}

static int add_root(char **roots, uint32_t *count, const char *key, const char *root,
		    struct err *err)
{
	size_t len = strlen(root);
	char *copy;

	if (root[0] != '/')
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "'%s' needs absolute paths, not '%s'", key, root);
	if (*count == CONFIG_ROOTS_MAX)
		return err_set(err, ERR_BAD_CONFIG, -EINVAL, "'%s' takes at most %d paths", key,
			       CONFIG_ROOTS_MAX);
	copy = strdup(root);
	if (!copy)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	roots[(*count)++] = copy;
	roots[*count] = NULL;
	return 0;
}

static int set_roots(char **roots, uint32_t *count, const char *key, const char *value,
		     struct err *err)
{
	char *copy = strdup(value);
	char *rest = copy;
	int rc = 0;

	if (!copy)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	roots_release(roots, count);
	for (char *root; !rc && (root = strsep(&rest, ": \t"));)
		if (*root)
			rc = add_root(roots, count, key, root, err);
	free(copy);
	return rc;
}

bool config_split_address(const char *text, char host[CONFIG_ADDRESS_BYTES], uint16_t *port)
{
	const char *colon = strrchr(text, ':');
	size_t host_bytes;
	unsigned long number;
	char *end;

	if (!colon || colon == text || strlen(text) >= CONFIG_ADDRESS_BYTES)
		return false;
	host_bytes = (size_t)(colon - text);
	number = strtoul(colon + 1, &end, 10);
	if (end == colon + 1 || *end || colon[1] == '-' || colon[1] == '+' || number > 65535)
		return false;
	if (text[0] == '[') {
		if (host_bytes < 3 || text[host_bytes - 1] != ']')
			return false;
		text++;
		host_bytes -= 2;
	} else if (memchr(text, ':', host_bytes)) {
		return false;
	}
	memcpy(host, text, host_bytes);
	host[host_bytes] = '\0';
	*port = (uint16_t)number;
	return true;
}

bool config_allows_path(const struct daemon_config *config, const char *path)
{
	if (config->allowed_root_count == 0)
		return true;
	for (uint32_t i = 0; i < config->allowed_root_count; i++) {
		const char *root = config->allowed_roots[i];
		size_t len = strlen(root);

		if (strcmp(root, "/") == 0)
			return true;
		if (strncmp(path, root, len) == 0 && (path[len] == '/' || path[len] == '\0'))
			return true;
	}
	return false;
}

/* ---- keys ---- */

static int set_daemon(struct daemon_config *config, const char *key, const char *value,
		      struct err *err)
{
	if (strcmp(key, "state_dir") == 0)
		return set_dir(config->state_dir, sizeof(config->state_dir), key, value, err);
	if (strcmp(key, "run_dir") == 0)
		return set_dir(config->run_dir, sizeof(config->run_dir), key, value, err);
	if (strcmp(key, "listen") == 0)
		return set_address(config->listen, key, value, err);
	if (strcmp(key, "http") == 0)
		return set_address(config->http, key, value, err);
	if (strcmp(key, "group") == 0)
		return set_text(config->group, sizeof(config->group), key, value, err);
	if (strcmp(key, "socket_holder") == 0) {
		if (socket_holder_kind_parse(value, &config->socket_holder))
			return 0;
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "'socket_holder' must be auto, systemd, process or none, not '%s'",
			       value);
	}
	if (strcmp(key, "socket_linger") == 0)
		return set_number(&config->socket_linger_s, 1, SOCKET_LINGER_MAX_S, key, value, err);
	if (strcmp(key, "io_threads") == 0)
		return set_number(&config->io_threads, 1, 256, key, value, err);
	if (strcmp(key, "allowed_roots") == 0)
		return set_roots(config->allowed_roots, &config->allowed_root_count, key, value,
				 err);
	if (strcmp(key, "log_level") == 0) {
		if (log_level_parse(value, &config->log_level))
			return 0;
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "'log_level' must be error, warn, info or debug, not '%s'", value);
	}
	return err_set(err, ERR_BAD_CONFIG, -EINVAL, "unknown key '%s' in [daemon]", key);
}

static int set_limits(struct daemon_config *config, const char *key, const char *value,
		      struct err *err)
{
	if (strcmp(key, "host_budget") == 0)
		return set_number(&config->host_budget, 4, 1024, key, value, err);
	if (strcmp(key, "datastore_budget") == 0)
		return set_number(&config->datastore_budget, 16, 1024, key, value, err);
	if (strcmp(key, "tasks_kept") == 0)
		return set_number(&config->tasks_kept, 100, 1000000, key, value, err);
	if (strcmp(key, "events_kept") == 0)
		return set_number(&config->events_kept, 100, 1000000, key, value, err);
	return err_set(err, ERR_BAD_CONFIG, -EINVAL, "unknown key '%s' in [limits]", key);
}

static int set_flag(bool *out, const char *key, const char *value, struct err *err)
{
	*out = strcmp(value, "yes") == 0;
	if (*out || strcmp(value, "no") == 0)
		return 0;
	return err_set(err, ERR_BAD_CONFIG, -EINVAL, "'%s' must be yes or no, not '%s'", key, value);
}

static int set_accel(struct vm_settings *vm, const char *value, struct err *err)
{
	if (strcmp(value, "auto") != 0 && strcmp(value, "kvm") != 0 && strcmp(value, "tcg") != 0)
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "'accel' must be auto, kvm or tcg, not '%s'", value);
	snprintf(vm->accel, sizeof(vm->accel), "%s", value);
	return 0;
}

static int set_vm(struct vm_settings *vm, const char *key, const char *value, struct err *err)
{
	if (strcmp(key, "qemu") == 0)
		return set_dir(vm->qemu, sizeof(vm->qemu), key, value, err);
	if (strcmp(key, "accel") == 0)
		return set_accel(vm, value, err);
	if (strcmp(key, "cpu") == 0)
		return set_text(vm->cpu, sizeof(vm->cpu), key, value, err);
	if (strcmp(key, "user") == 0)
		return set_text(vm->user, sizeof(vm->user), key, value, err);
	if (strcmp(key, "efi_code") == 0)
		return set_dir(vm->efi_code, sizeof(vm->efi_code), key, value, err);
	if (strcmp(key, "efi_vars") == 0)
		return set_dir(vm->efi_vars, sizeof(vm->efi_vars), key, value, err);
	if (strcmp(key, "kernel_roots") == 0)
		return set_roots(vm->kernel_roots, &vm->kernel_root_count, key, value, err);
	if (strcmp(key, "sandbox") == 0)
		return set_flag(&vm->sandbox, key, value, err);
	if (strcmp(key, "reconnect_s") == 0)
		return set_number(&vm->reconnect_s, 10, 86400, key, value, err);
	return err_set(err, ERR_BAD_CONFIG, -EINVAL, "unknown key '%s' in [vm]", key);
}

/* The last word on a name counts, as with every key. */
static int set_network(struct vm_settings *vm, const char *name, const char *value,
		       struct err *err)
{
	uint32_t i = 0;

	while (i < vm->network_count && strcmp(vm->networks[i].name, name) != 0)
		i++;
	if (i == QEMU_NETWORKS_MAX)
		return err_set(err, ERR_BAD_CONFIG, -EINVAL, "[networks] takes at most %d",
			       QEMU_NETWORKS_MAX);
	if (qemu_network_parse(name, value, &vm->networks[i], err))
		return -EINVAL;
	vm->network_count = MAX(vm->network_count, i + 1);
	return 0;
}

int config_set(struct daemon_config *config, const char *section, const char *key,
	       const char *value, struct err *err)
{
	if (strcmp(section, "daemon") == 0)
		return set_daemon(config, key, value, err);
	if (strcmp(section, "limits") == 0)
		return set_limits(config, key, value, err);
	if (strcmp(section, "vm") == 0)
		return set_vm(&config->vm, key, value, err);
	if (strcmp(section, "networks") == 0)
		return set_network(&config->vm, key, value, err);
	return err_set(err, ERR_BAD_CONFIG, -EINVAL, "unknown section [%s]", section);
}

/* ---- files ---- */

struct reading {
	struct daemon_config *config;
	struct err err;
};

/* libinih stops counting lines for us: 0 from here makes ini_parse return this line's number. */
static int read_pair(void *user, const char *section, const char *key, const char *value)
{
	struct reading *reading = user;

	if (reading->err.id != ERR_NONE)
		return 0;
	return config_set(reading->config, section, key, value, &reading->err) == 0;
}

static int read_file(struct daemon_config *config, const char *path, struct err *err)
{
	struct reading reading = { .config = config };
	int line = ini_parse(path, read_pair, &reading);

	if (line == 0)
		return 0;
	if (line == -1)
		return err_set(err, ERR_BAD_CONFIG, -errno, "cannot read '%s': %s", path,
			       err_strerror(-errno));
	if (line < 0)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	return err_set(err, ERR_BAD_CONFIG, -EINVAL, "%s:%d: %s", path, line,
		       reading.err.id != ERR_NONE ? reading.err.cause : "not 'key = value'");
}

static int is_conf(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".conf") == 0;
}

static int read_conf_d(struct daemon_config *config, struct err *err)
{
	char folder[PATH_MAX], path[PATH_MAX], copy[PATH_MAX];
	struct dirent **entries = NULL;
	int count, rc = 0;

	snprintf(copy, sizeof(copy), "%s", config->file);
	if (snprintf(folder, sizeof(folder), "%s/conf.d", dirname(copy)) >= (int)sizeof(folder))
		return err_set(err, ERR_BAD_CONFIG, -ENAMETOOLONG, "the path of conf.d is too long");
	count = scandir(folder, &entries, is_conf, alphasort);
	if (count < 0) {
		if (errno == ENOENT)
			return 0;
		return err_set(err, ERR_BAD_CONFIG, -errno, "cannot read '%s': %s", folder,
			       err_strerror(-errno));
	}
	for (int i = 0; i < count; i++) {
		if (!rc && snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name) <
				   (int)sizeof(path))
			rc = read_file(config, path, err);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

int config_read_files(struct daemon_config *config, struct err *err)
{
	struct stat st;
	int rc = 0;

	if (config->file_named || stat(config->file, &st) == 0)
		rc = read_file(config, config->file, err);
	return rc ? rc : read_conf_d(config, err);
}
