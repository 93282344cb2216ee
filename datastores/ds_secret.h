/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_secret.h - names and passwords for a store, from a file that only its owner can read.
 *
 *	user=NAME
 *	password=SECRET
 *	mutual-user=NAME        what the store proves itself with
 *	mutual-password=SECRET
 *
 * Empty lines and those that begin with '#' are skipped.  No message repeats what stands in
 * the file but the keys above.  Wipe a secret (ds_secret_wipe()) as soon as it has been used.
 */
#ifndef BM_DS_SECRET_H
#define BM_DS_SECRET_H

#include "blkmirror/base/err.h"

#define DS_SECRET_BYTES 256
#define DS_SECRET_FILE_BYTES 4096

/* "" where the file does not say. */
struct ds_secret {
	char user[DS_SECRET_BYTES], password[DS_SECRET_BYTES];
	char mutual_user[DS_SECRET_BYTES], mutual_password[DS_SECRET_BYTES];
};

/*
 * Blocks: for a worker.  0 and *out, or -errno with ERR_DS_SECRET_FILE: it cannot be read, is
 * no plain file, is too large, others may read it, or a line is none of the above.
 */
MUST_CHECK int ds_secret_read(const char *path, struct ds_secret *out, struct err *err);
void ds_secret_wipe(struct ds_secret *secret);

#endif
