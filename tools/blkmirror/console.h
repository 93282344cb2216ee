/* SPDX-License-Identifier: Apache-2.0 */
/* console.h - a machine's serial port on this terminal. */
#ifndef BM_CONSOLE_H
#define BM_CONSOLE_H

#include "blkmirror/base/err.h"

/*
 * Carry bytes between stdin, stdout and the socket until either side ends, or Ctrl-] is typed on a
 * terminal (which is raw meanwhile).  0, or -errno with *err.
 */
MUST_CHECK int console_run(const char *path, struct err *err);

#endif
