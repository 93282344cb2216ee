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
}

void config_release(struct daemon_config *config)
{
	for (uint32_t i = 0; i < config->allowed_root_count; i++)
		free(config->allowed_roots[i]);
	config->allowed_root_count = 0;
	config->allowed_roots[0] = NULL;
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

static int add_root(struct daemon_config *config, const char *root, struct err *err)
{
	size_t len = strlen(root);
	char *copy;

	if (root[0] != '/')
		return err_set(err, ERR_BAD_CONFIG, -EINVAL,
			       "'allowed_roots' needs absolute paths, not '%s'", root);
	if (config->allowed_root_count == CONFIG_ROOTS_MAX)
		return err_set(err, ERR_BAD_CONFIG, -EINVAL, "'allowed_roots' takes at most %d paths",
			       CONFIG_ROOTS_MAX);
	copy = strdup(root);
	if (!copy)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	config->allowed_roots[config->allowed_root_count++] = copy;
	config->allowed_roots[config->allowed_root_count] = NULL;
	return 0;
}

static int set_roots(struct daemon_config *config, const char *value, struct err *err)
{
	char *copy = strdup(value);
	char *rest = copy;
	int rc = 0;

	if (!copy)
		return err_set(err, ERR_NO_MEMORY, -ENOMEM, "out of memory");
	config_release(config);
	for (char *root; !rc && (root = strsep(&rest, ": \t"));)
		if (*root)
			rc = add_root(config, root, err);
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
		return set_roots(config, value, err);
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

int config_set(struct daemon_config *config, const char *section, const char *key,
	       const char *value, struct err *err)
{
	if (strcmp(section, "daemon") == 0)
		return set_daemon(config, key, value, err);
	if (strcmp(section, "limits") == 0)
		return set_limits(config, key, value, err);
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
