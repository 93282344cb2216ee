/* SPDX-License-Identifier: Apache-2.0 */
#include "datastores/ds_secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blkmirror/base/overflow.h"

void ds_secret_wipe(struct ds_secret *secret)
{
	explicit_bzero(secret, sizeof(*secret));
}

static int secret_open(const char *path, struct err *err)
{
	/* Not to hang on a pipe. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;
	int rc;

	if (fd < 0)
		return err_set(err, ERR_DS_SECRET_FILE, -errno,
			       "cannot open the secret file '%.120s': %s", path,
			       err_strerror(errno));
	if (fstat(fd, &status) || !S_ISREG(status.st_mode))
		rc = err_set(err, ERR_DS_SECRET_FILE, -EINVAL,
			     "the secret file '%.120s' is no plain file", path);
	else if (status.st_mode & 077)
		rc = err_set(err, ERR_DS_SECRET_FILE, -EPERM,
			     "the secret file '%.120s' is open to others than its owner (mode %03o)",
			     path, status.st_mode & 0777);
	else
		return fd;
	close(fd);
	return rc;
}

/* How many bytes, or -errno. */
static ssize_t secret_load(int fd, char *text, size_t text_bytes)
{
	size_t used = 0;

	while (used < text_bytes) {
		ssize_t count = read(fd, text + used, text_bytes - used);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -errno;
		if (count == 0)
			break;
		used += (size_t)count;
	}
	return (ssize_t)used;
}

/* One line without its end. */
static bool secret_line(struct ds_secret *secret, const char *line, size_t len)
{
	const struct {
		const char *key;
		char *value;
	} fields[] = {
		{ "user=", secret->user },
		{ "password=", secret->password },
		{ "mutual-user=", secret->mutual_user },
		{ "mutual-password=", secret->mutual_password },
	};

	if (len == 0 || line[0] == '#')
		return true;
	for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
		size_t key_len = strlen(fields[i].key);

		if (len < key_len || memcmp(line, fields[i].key, key_len) != 0)
			continue;
		len -= key_len;
		if (len == 0 || len >= DS_SECRET_BYTES || fields[i].value[0] ||
		    memchr(line + key_len, 0, len))
			return false;
		memcpy(fields[i].value, line + key_len, len);
		fields[i].value[len] = 0;
		return true;
	}
	return false;
}

/* The number of the first line that is wrong, or 0. */
static unsigned secret_parse(struct ds_secret *secret, const char *text, size_t len)
{
	for (unsigned number = 1; len; number++) {
		const char *end = memchr(text, '\n', len);
		size_t line_len = end ? (size_t)(end - text) : len;
		size_t used = line_len + (end != NULL);

		if (line_len && text[line_len - 1] == '\r')
			line_len--;
		if (!secret_line(secret, text, line_len))
			return number;
		text += used;
		len -= used;
	}
	return 0;
}

static int secret_judge(const struct ds_secret *secret, const char *path, struct err *err)
{
	bool has_user = secret->user[0], has_mutual = secret->mutual_user[0];

	if (has_user != (secret->password[0] != 0) || has_mutual != (secret->mutual_password[0] != 0))
		return err_set(err, ERR_DS_SECRET_FILE, -EINVAL,
			       "the secret file '%.120s' names a user without a password,"
			       " or a password without a user", path);
	if (!has_user)
		return err_set(err, ERR_DS_SECRET_FILE, -EINVAL,
			       "the secret file '%.120s' names no user", path);
	return 0;
}

int ds_secret_read(const char *path, struct ds_secret *out, struct err *err)
{
	char text[DS_SECRET_FILE_BYTES + 1];
	struct ds_secret secret = { 0 };
	unsigned bad_line;
	ssize_t len;
	int fd = secret_open(path, err), rc;

	if (fd < 0)
		return fd;
	len = secret_load(fd, text, sizeof(text));
	close(fd);
	bad_line = len > 0 && len <= DS_SECRET_FILE_BYTES ? secret_parse(&secret, text, (size_t)len)
							  : 0;
	if (len < 0)
		rc = err_set(err, ERR_DS_SECRET_FILE, (int)len,
			     "cannot read the secret file '%.120s': %s", path,
			     err_strerror((int)len));
	else if (len > DS_SECRET_FILE_BYTES)
		rc = err_set(err, ERR_DS_SECRET_FILE, -EFBIG,
			     "the secret file '%.120s' is larger than %u bytes", path,
			     DS_SECRET_FILE_BYTES);
	else if (bad_line)
		rc = err_set(err, ERR_DS_SECRET_FILE, -EINVAL,
			     "line %u of the secret file '%.120s' is no user or password, is one"
			     " twice, or is too long", bad_line, path);
	else
		rc = secret_judge(&secret, path, err);
	explicit_bzero(text, sizeof(text));
	if (!rc)
		*out = secret;
	ds_secret_wipe(&secret);
	return rc;
}
