/* SPDX-License-Identifier: Apache-2.0 */
/* qemu_args_private.h - what qemu_args.c and qemu_drives.c share. */
#ifndef BM_VMOTION_QEMU_ARGS_PRIVATE_H
#define BM_VMOTION_QEMU_ARGS_PRIVATE_H

#include "vmotion/qemu_args.h"

struct qemu_words {
	struct qemu_args *args;
	int rc;                         /* the first failure */
};

/* Append one word. */
void qemu_word(struct qemu_words *words, const char *format, ...) PRINTF_LIKE(2, 3);
/* A value inside QEMU's KEY=VALUE,...: commas are doubled.  Room for twice the text. */
char *qemu_escape(const char *text, char *out, size_t out_bytes);

void qemu_add_drives(struct qemu_words *words, const struct vm_config *config,
		     const struct qemu_host *host, const struct qemu_run *run);

#endif
